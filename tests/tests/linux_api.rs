//! The API on a running Linux: the power button, and pauses that the guest takes for what they are.

use anyhow::{Context, Result, ensure};
use guest_tests::{
    Guest, GuestBuilder, QUICK, Scratch,
    api::{ApiClient, ctl},
    guest::program,
};
use std::{thread, time::Duration};

#[test]
fn power_button_turns_the_guest_off() -> Result<()> {
    for kernel in [QUICK, "debian-6.12-amd64"] {
        let files = Scratch::new("button")?;
        let socket = files.join("api");
        let mut guest = GuestBuilder::new(kernel)
            .arg("--api-socket", &files.text("api"))
            .nvdimm("size=64M,id=first")
            .loud()
            .start()?;
        let inputs = guest.check("cat /proc/bus/input/devices")?;
        ensure!(inputs.contains("Power Button"), "{kernel}: {inputs}");
        let mut client = ApiClient::connect(&socket)?;
        // The driver has read the FIT from the table; only a change makes it ask again.
        let list = client.get("/nvdimms")?;
        ensure!(list["dimms"][0]["id"] == "first", "{list}");
        let pressed = ctl(&program()?, &socket, &["power-button"])?;
        ensure!(pressed.status.code() == Some(0), "{pressed:?}");
        let ended = guest
            .wait()
            .with_context(|| format!("{kernel} does not heed its button"))?;
        ensure!(ended.code == 0, "{kernel}: exit code {}: {}", ended.code, ended.stderr);
        ensure!(
            ended.console.contains("Power down"),
            "{kernel} did not shut down by itself"
        );
        ensure!(client.get("/vm").is_err(), "the connection outlives the machine");
        ensure!(!socket.exists(), "the API socket is left");
    }
    Ok(())
}

#[test]
fn pause_is_no_lockup() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(6);
    let files = Scratch::new("pause")?;
    let mut guest = GuestBuilder::new(QUICK)
        .arg("--api-socket", &files.text("api"))
        .cpus("2")
        .start()?;
    // Twice this without progress is a soft lockup to the guest.
    guest.check("echo 2 > /proc/sys/kernel/watchdog_thresh && test $(cat /proc/sys/kernel/soft_watchdog) = 1")?;
    // CPU time would not do: the guest's clock goes on in a pause, and the kernel charges it to whoever ran.
    guest.check(
        "dmesg -c > /dev/null; echo 0 > /run/count; (i=0; while :; do i=$((i+1)); echo $i > /run/next; mv /run/next /run/count; \
         done) > /dev/null 2>&1 &",
    )?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    let count = |guest: &mut Guest| -> Result<u64> { Ok(guest.check("cat /run/count")?.parse()?) };
    for _ in 0..2 {
        let before = count(&mut guest)?;
        ensure!(client.post("/vm/pause")?["state"] == "paused");
        thread::sleep(PAUSE);
        ensure!(client.post("/vm/resume")?["state"] == "running");
        let after = count(&mut guest)?;
        // Long enough for the watchdog to complain, and less than the pause.
        thread::sleep(Duration::from_secs(5));
        let later = count(&mut guest)?;
        ensure!(
            after - before < later - after,
            "{} rounds in a pause of {PAUSE:?}, and {} in 5 s",
            after - before,
            later - after
        );
        let log = guest.check("dmesg")?;
        for complaint in ["soft lockup", "rcu: INFO", "hung"] {
            ensure!(!log.contains(complaint), "the guest complains after a pause: {log}");
        }
    }
    let machine = client.get("/vm")?;
    let paused = machine["paused_ms"].as_u64().context("a time")?;
    ensure!((12_000..30_000).contains(&paused), "{paused} ms");
    guest.power_off()?;
    Ok(())
}
