//! The console of a Xen domain: the kernel's messages, whoever types, a reader that is slow, and a reset.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, NEWEST, Scratch, process::STDERR, terminal};
use rustix::fs::{CWD, Mode, OFlags};
use std::{
    fs::{self, File},
    io::Read,
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(120);

fn guest(kernel: &str, console: &str) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .memory("512M")
        .cpus("2")
        .arg("--xen", &format!("version=4.17,console={console}"))
        .cmdline("console=hvc0")
        .loud()
}

/// Numbers in the lines between two marks.
fn numbers(text: &str) -> Result<Vec<u32>> {
    let text = text.replace("\r\n", "\n");
    let (_, rest) = text.split_once("the first\n").context("no first line")?;
    let (lines, _) = rest.split_once("the last\n").context("no last line")?;
    lines
        .lines()
        .map(|line| line.parse().with_context(|| format!("{line:?} is no number")))
        .collect()
}

/// A script of the guest that prints numbers; nothing of the kernel's own comes between.
fn count_to(last: u32) -> String {
    format!("dmesg -n 1; (echo the first; seq {last}; echo the last) | dd bs=4096 of=/dev/hvc0 2> /dev/null")
}

fn has_counted(text: &str, last: u32) -> Result<()> {
    let found = numbers(text)?;
    ensure!(
        found.iter().copied().eq(1..=last),
        "{} numbers, not all of 1 to {last} in their order",
        found.len()
    );
    Ok(())
}

#[test]
fn file_has_the_kernels_log_and_all_that_is_printed() -> Result<()> {
    const LAST: u32 = 3000;
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let files = Scratch::new("xen-console")?;
        let mut guest = guest(kernel, &format!("file:{}", files.text("hvc0"))).start()?;
        let driver = guest.check("cat /proc/consoles")?;
        ensure!(
            driver
                .lines()
                .any(|line| line.starts_with("hvc0") && line.contains("(EC")),
            "{kernel}: {driver}"
        );
        guest.check(&count_to(LAST))?;
        guest.check("dmesg -n 7")?;
        guest.power_off()?;
        let text = fs::read_to_string(files.join("hvc0"))?;
        for words in ["Linux version", "Hypervisor detected: Xen HVM", "reboot: Power down"] {
            ensure!(text.contains(words), "{kernel}: no '{words}' in {} bytes", text.len());
        }
        has_counted(&text, LAST).with_context(|| kernel.to_owned())?;
    }
    Ok(())
}

/// The terminal that the monitor has named.
fn terminal_of(guest: &mut Guest) -> Result<OwnedFd> {
    let said = guest.monitor().folder().tail(STDERR, 10);
    let line = said.lines().find(|line| line.contains("the guest's Xen console is"));
    let path = line.and_then(|line| line.split_whitespace().find(|word| word.starts_with("/dev/pts/")));
    terminal::open_path(&PathBuf::from(
        path.with_context(|| format!("no terminal is named in: {said}"))?,
    ))
}

#[test]
fn who_types_is_read_before_and_after_a_reset() -> Result<()> {
    let mut guest = guest("debian-6.12-amd64", "pty").arg("--on-reset", "restart").start()?;
    let terminal = terminal_of(&mut guest)?;
    for round in 0..2 {
        guest.check(
            "(stty -echo; while read -r line; do echo \"heard $line of ${#line}\"; done) < /dev/hvc0 > /dev/hvc0 2> /dev/null & true",
        )?;
        terminal::type_in(&terminal, format!("round {round}\n").as_bytes())?;
        terminal::read_until(&terminal, &format!("heard round {round} of 7"), SOON)?;
        // More than the ring has, in all.
        for part in 0..4 {
            let line = vec![b'a' + part; 300];
            terminal::type_in(&terminal, &line)?;
            terminal::type_in(&terminal, b"\n")?;
            terminal::read_until(&terminal, "of 300", SOON)?;
        }
        if round == 0 {
            guest = guest.rebooted()?;
        }
    }
    guest.power_off()?;
    Ok(())
}

#[test]
fn slow_reader_holds_the_guest_and_loses_nothing() -> Result<()> {
    const LAST: u32 = 60_000;
    let files = Scratch::new("xen-console")?;
    let path = files.join("pipe");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::from(0o600), 0)?;
    let reader = rustix::fs::open(
        &path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut guest = GuestBuilder::new("debian-6.12-amd64")
        .memory("512M")
        .cpus("2")
        .arg("--xen", &format!("version=4.17,console=file:{}", path.display()))
        .start()?;
    // Raw as long as it is open: no call for each line.
    guest.check(&format!(
        "(exec 3> /dev/hvc0; stty -F /dev/hvc0 raw; {}) > /dev/null 2>&1 & true",
        count_to(LAST)
    ))?;
    // Pipe, backlog and ring have room for less than half of it, and nobody reads yet.
    thread::sleep(Duration::from_secs(3));
    let (mut text, mut reader) = (vec![], File::from(reader));
    let begun = Instant::now();
    while !text.ends_with(b"the last\n") {
        ensure!(begun.elapsed() < SOON, "{} bytes, and no last line", text.len());
        let mut bytes = [0; 4096];
        match reader.read(&mut bytes) {
            Ok(n) => text.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    }
    has_counted(&String::from_utf8_lossy(&text), LAST)?;
    guest.check("true")?;
    guest.power_off()?;
    Ok(())
}
