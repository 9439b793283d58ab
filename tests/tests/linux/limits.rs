//! Limits of a machine's RAM on a running Linux: a block below each of them, at it, and a block above.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, api::ApiClient, facts};
use serde_json::{Value, json};
use std::{thread, time::Duration};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 128;

struct Machine {
    guest: Guest,
    api: ApiClient,
}

impl Machine {
    /// RAM, in MiB, as the guest has it and as the machine counts it. Virtio-mem plugs and unplugs at its own pace.
    fn has(&mut self, mib: u64) -> Result<()> {
        let limits = self.api.get("/limits")?;
        ensure!(limits["total"] == said(mib), "{limits}, not {mib}M");
        let mut blocks = 0;
        for _ in 0..100 {
            blocks = self
                .guest
                .check("ls -d /sys/devices/system/memory/memory[0-9]* | wc -l")?
                .parse()?;
            if blocks * BLOCK == mib {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("the guest has {blocks} blocks, not {mib} MiB")
    }

    fn state(&mut self) -> Result<Value> {
        Ok(json!([self.api.get("/limits")?, self.api.get("/memory/devices")?]))
    }

    /// A request that ends as it was asked for.
    fn done(&mut self, method: &str, path: &str, body: &Value) -> Result<()> {
        let body = (!body.is_null()).then_some(body);
        let begun = self.api.begin(method, path, body)?;
        let ended = self.api.ended(&begun)?;
        ensure!(ended["state"] == "done", "{method} {path}: {ended}");
        Ok(())
    }

    /// A request that would lead to `mib`, beyond a limit: it is refused with the numbers, and nothing changes.
    fn refused(&mut self, (method, path, body): (&str, &str, &Value), mib: u64, limit: &str) -> Result<()> {
        let before = self.state()?;
        let body = (!body.is_null()).then_some(body);
        let answer = self.api.send(method, path, body)?;
        let problem = answer.json()?;
        let detail = facts::text(&problem, "detail")?;
        ensure!(
            answer.status == 409 && problem["type"] == "urn:daxvisor:problem:conflict",
            "{method} {path}: {problem}"
        );
        ensure!(
            detail.contains(limit) && detail.contains(&said(mib)),
            "neither {limit} nor {}: {detail}",
            said(mib)
        );
        ensure!(self.state()? == before, "{method} {path} has changed something");
        Ok(())
    }
}

/// A size as the API writes it.
fn said(mib: u64) -> String {
    match mib % 1024 {
        0 => format!("{}G", mib / 1024),
        _ => format!("{mib}M"),
    }
}

fn device(mib: u64, id: &str) -> Value {
    json!({"size": mib * MIB, "id": id})
}

fn target(mib: u64) -> Value {
    json!({"size": mib * MIB})
}

const DEVICES: &str = "/memory/devices";
const TARGET: &str = "/memory/devices/grow/target";

/// static-max bounds what is added. static-min is that of the boot RAM, which nothing can be taken from: 640 MiB at the start and
/// at the end.
fn static_limits(m: &mut Machine) -> Result<()> {
    let none = Value::Null;
    m.has(640)?;
    m.done("DELETE", "/memory/devices/cold", &none)
        .context("at static-min")?;
    m.has(512)?;
    m.done("POST", DEVICES, &device(BLOCK, "other"))?;
    m.has(640)?;
    m.refused(("POST", DEVICES, &device(640, "much")), 1280, "static-max=1152M")?;
    m.done("POST", DEVICES, &device(384, "below"))?;
    m.has(1024)?;
    m.refused(("POST", DEVICES, &device(256, "beyond")), 1280, "static-max=1152M")?;
    m.done("POST", DEVICES, &device(BLOCK, "last"))
        .context("at static-max")?;
    m.has(1152)?;
    m.refused(("POST", DEVICES, &device(BLOCK, "beyond")), 1280, "static-max=1152M")?;
    m.done("DELETE", "/memory/devices/last", &none)?;
    m.done("DELETE", "/memory/devices/below", &none)?;
    m.has(640)
}

/// dynamic-max and dynamic-min, which bound what virtio-mem is asked for.
fn dynamic_limits(m: &mut Machine) -> Result<()> {
    m.refused(("PUT", TARGET, &target(512)), 1152, "dynamic-max=1G")?;
    m.done("PUT", TARGET, &target(256)).context("below dynamic-max")?;
    m.has(896)?;
    m.done("PUT", TARGET, &target(384)).context("at dynamic-max")?;
    m.has(1024)?;
    m.refused(("PUT", TARGET, &target(0)), 640, "dynamic-min=768M")?;
    m.done("PUT", TARGET, &target(256)).context("above dynamic-min")?;
    m.done("PUT", TARGET, &target(BLOCK)).context("at dynamic-min")?;
    m.has(768)
}

#[test]
fn limits_hold_a_block_below_at_and_above_each_of_them() -> Result<()> {
    let files = Scratch::new("limits")?;
    let machine = |static_min: &str| {
        let limits = format!("static-max=1152M,dynamic-max=1G,target=768M,dynamic-min=768M,static-min={static_min}");
        GuestBuilder::new(QUICK)
            .memory("512M")
            .arg("--numa", "node=0,memory=512M,hotplug=2G")
            .arg("--memory-slots", "8")
            .arg("--memory-device", "128M,id=cold")
            .arg("--virtio-mem", "size=512M,node=0,id=grow")
            .arg("--limits", &limits)
            .arg("--api-socket", &files.text("api"))
            .cmdline("memhp_default_state=online_movable")
    };
    let above = machine("640M").refused()?;
    let why = "the boot RAM of 512M is below static-min=640M";
    ensure!(above.code == 2 && above.stderr.contains(why), "{above:?}");
    let mut guest = machine("512M").start()?;
    guest.check("modprobe virtio_mem")?;
    let api = ApiClient::connect(&files.join("api"))?;
    let mut m = Machine { guest, api };
    static_limits(&mut m)?;
    dynamic_limits(&mut m)?;
    m.guest.power_off()?;
    Ok(())
}
