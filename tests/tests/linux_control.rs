//! The control socket on a running Linux: the power button, and pauses that the guest takes for what they are.

use anyhow::{Context, Result, ensure};
use guest_tests::{
    GuestBuilder, QUICK, Scratch,
    control::{ControlClient, ctl},
    guest::program,
};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

fn done(client: &mut ControlClient, request: &Value) -> Result<Value> {
    let reply = client.call(request)?;
    ensure!(reply["ok"].is_object(), "{request}: {reply}");
    Ok(reply["ok"].clone())
}

#[test]
fn power_button_turns_the_guest_off() -> Result<()> {
    for kernel in [QUICK, "debian-6.12-amd64"] {
        let files = Scratch::new("button")?;
        let socket = files.join("control");
        let mut guest = GuestBuilder::new(kernel)
            .arg("--control-socket", &files.text("control"))
            .nvdimm("size=64M,id=first")
            .loud()
            .start()?;
        let inputs = guest.check("cat /proc/bus/input/devices")?;
        ensure!(inputs.contains("Power Button"), "{kernel}: {inputs}");
        let mut client = ControlClient::connect(&socket)?;
        // The driver has read the FIT from the table; only a change makes it ask again.
        let list = done(&mut client, &json!({"nvdimm": "list"}))?;
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
        ensure!(client.receive()? == Value::Null, "the connection outlives the machine");
        ensure!(!socket.exists(), "the control socket is left");
    }
    Ok(())
}

#[test]
fn pause_is_no_lockup() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(6);
    let files = Scratch::new("pause")?;
    let mut guest = GuestBuilder::new(QUICK)
        .arg("--control-socket", &files.text("control"))
        .cpus("2")
        .start()?;
    // Twice this without progress is a soft lockup to the guest.
    guest.check("echo 2 > /proc/sys/kernel/watchdog_thresh && test $(cat /proc/sys/kernel/soft_watchdog) = 1")?;
    guest.check("dmesg -c > /dev/null; (while :; do :; done) & echo $! > /run/busy")?;
    let mut client = ControlClient::connect(&files.join("control"))?;
    for _ in 0..2 {
        let ticks = |guest: &mut guest_tests::Guest| -> Result<u64> {
            Ok(guest.check("cut -d' ' -f14 /proc/$(cat /run/busy)/stat")?.parse()?)
        };
        let before = ticks(&mut guest)?;
        ensure!(done(&mut client, &json!("pause"))?["state"] == "paused");
        thread::sleep(PAUSE);
        ensure!(done(&mut client, &json!("resume"))?["state"] == "running");
        let resumed = Instant::now();
        let after = ticks(&mut guest)?;
        // Clock ticks of 10 ms; a guest that had run would have counted all of the pause.
        let most = u64::try_from(resumed.elapsed().as_millis() / 10)? + 300;
        ensure!(
            after - before < most,
            "{} ticks in a pause of {PAUSE:?}",
            after - before
        );
        thread::sleep(Duration::from_secs(5));
        ensure!(ticks(&mut guest)? > after, "the guest does not go on");
        let log = guest.check("dmesg")?;
        for complaint in ["soft lockup", "rcu: INFO", "hung"] {
            ensure!(!log.contains(complaint), "the guest complains after a pause: {log}");
        }
    }
    let machine = done(&mut client, &json!("describe"))?;
    let paused = machine["paused_ms"].as_u64().context("a time")?;
    ensure!((12_000..30_000).contains(&paused), "{paused} ms");
    guest.power_off()?;
    Ok(())
}
