//! A guest of the Xen personality is asked to end through its store, and its kernel does what it is asked for.

use anyhow::{Context, Result, anyhow, ensure};
use guest_tests::{Guest, GuestBuilder, NEWEST, Scratch, api::ctl, guest::program};
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

fn start(kernel: &str, xen: &str, files: &Scratch) -> Result<Guest> {
    GuestBuilder::new(kernel)
        .memory("512M")
        .arg("--xen", xen)
        .arg("--api-socket", &files.text("api"))
        .loud()
        .start()
}

fn ask(socket: &Path, what: &str) -> Result<()> {
    let done = ctl(&program()?, socket, &["ask", what])?;
    ensure!(done.status.code() == Some(0), "{what}: {done:?}");
    Ok(())
}

/// Why something is not asked for.
fn not_asked(socket: &Path, what: &str) -> Result<String> {
    let done = ctl(&program()?, socket, &["ask", what])?;
    ensure!(!done.status.success(), "{what}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

fn expect_problem(problem: &str, words: &str) -> Result<()> {
    ensure!(problem.contains(words) && problem.contains("hint: "), "{problem}");
    Ok(())
}

/// Has the guest's kernel send a message of the store's protocol: kind, request, transaction and length, 4 bytes each, and the rest.
fn send(guest: &mut Guest, message: &str) -> Result<()> {
    let script =
        format!("exec 3<> /dev/xen/xenbus; printf '{message}' >&3; dd bs=64 count=1 <&3 2>/dev/null | grep -q OK");
    guest.check(&script).map(drop)
}

fn ends(guest: Guest, kernel: &str, code: i32, said: &str) -> Result<()> {
    let ended = guest
        .wait()
        .with_context(|| format!("{kernel} does not heed its store"))?;
    ensure!(
        ended.code == code,
        "{kernel}: exit code {}: {}",
        ended.code,
        ended.stderr
    );
    ensure!(ended.console.contains(said), "{kernel} did not end by itself");
    Ok(())
}

#[test]
fn xen_guest_is_asked_to_turn_itself_off() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let files = Scratch::new("xen-off")?;
        let guest = start(kernel, "version=4.17", &files)?;
        ask(&files.join("api"), "power-off")?;
        ends(guest, kernel, 0, "reboot: Power down")?;
    }
    Ok(())
}

#[test]
fn xen_guest_is_asked_to_reboot_for_as_long_as_it_says_that_it_does() -> Result<()> {
    const REMOVE: &str = r"\015\0\0\0\01\0\0\0\0\0\0\0\027\0\0\0control/feature-reboot\0";
    const WRITE: &str = r"\013\0\0\0\01\0\0\0\0\0\0\0\030\0\0\0control/feature-reboot\0001";
    let kernel = "debian-6.12-amd64";
    let files = Scratch::new("xen-reboot")?;
    let socket = files.join("api");
    let mut guest = start(kernel, "version=4.17", &files)?;
    send(&mut guest, REMOVE)?;
    let problem = not_asked(&socket, "reboot")?;
    expect_problem(&problem, "control/feature-reboot")?;
    send(&mut guest, WRITE)?;
    ask(&socket, "reboot")?;
    ends(guest, kernel, 3, "reboot: Restarting system")
}

#[test]
fn xen_guest_that_is_the_first_domain_has_a_power_button() -> Result<()> {
    let kernel = "debian-6.12-amd64";
    let files = Scratch::new("xen-button")?;
    let socket = files.join("api");
    let guest = start(kernel, "version=4.17,dom0=on", &files)?;
    let problem = not_asked(&socket, "reboot")?;
    expect_problem(&problem, "the first domain")?;
    ask(&socket, "power-off")?;
    ends(guest, kernel, 0, "reboot: Power down")
}

#[test]
fn xen_guest_that_does_not_take_what_it_is_asked_for_is_told_of() -> Result<()> {
    let files = Scratch::new("xen-deaf")?;
    let socket = files.join("api");
    let mut guest = start("debian-6.1-amd64", "version=4.17", &files)?;
    // The store forgets what the kernel watches for.
    send(&mut guest, r"\025\0\0\0\01\0\0\0\0\0\0\0\01\0\0\0\0")?;
    let first = {
        let socket = socket.clone();
        thread::spawn(move || not_asked(&socket, "power-off"))
    };
    // Once it is under way.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let done = ctl(&program()?, &socket, &["--json", "events"])?;
        if String::from_utf8_lossy(&done.stdout).contains("ask power-off") {
            break;
        }
        ensure!(Instant::now() < deadline, "nothing is asked: {done:?}");
        thread::sleep(Duration::from_millis(100));
    }
    expect_problem(&not_asked(&socket, "reboot")?, "has not taken `poweroff`")?;
    let late = first.join().map_err(|_| anyhow!("the first to ask has gone"))??;
    expect_problem(&late, "control/shutdown within 30 s")?;
    // It is the same as before, and ends when it is told by somebody else.
    guest.power_off()?;
    Ok(())
}

/// A guest that is to be saved, because its root says so in the store, asks Xen for it, is refused, and goes on.
#[test]
fn xen_guest_that_would_suspend_is_refused_and_goes_on() -> Result<()> {
    const SUSPEND: &str = r"\013\0\0\0\01\0\0\0\0\0\0\0\030\0\0\0control/shutdown\0suspend";
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let files = Scratch::new("xen-suspend")?;
        let mut guest = start(kernel, "version=4.17", &files)?;
        let before = guest.check("dmesg | wc -l")?;
        send(&mut guest, SUSPEND)?;
        let log = guest.check(&format!(
            "for n in $(seq 300); do dmesg | tail -n +{before} | grep -q 'Restarting tasks' && break; sleep 0.1; done; \
             dmesg | tail -n +{before}"
        ))?;
        ensure!(
            log.contains("Freezing user space processes") && log.contains("Restarting tasks"),
            "{kernel}: {log}"
        );
        ensure!(!log.contains("WARNING:") && !log.contains("BUG:"), "{kernel}: {log}");
        // Time, the balloon and the store go on.
        guest.check(
            "sleep 1; at=/sys/devices/system/xen_memory/xen_memory0; now=$(cat $at/info/current_kb); \
             echo $((now - 32768)) > $at/target_kb; \
             for n in $(seq 100); do [ $(cat $at/info/current_kb) = $((now - 32768)) ] && exit 0; sleep 0.1; done; exit 1",
        )?;
        ask(&files.join("api"), "power-off")?;
        ends(guest, kernel, 0, "reboot: Power down")?;
    }
    Ok(())
}
