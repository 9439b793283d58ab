//! Memory devices, one after the other: until the answer, until the guest has acknowledged it, until the memory is online.
//!
//! The guests put memory online by themselves. The last time is that of a command in the guest that sees it, which the agent runs:
//! the same for both programs.

use super::{ANSWER, Monitor, Row};
use crate::bench::record::Vmm;
use anyhow::{Result, ensure};
use guest_tests::{Guest, GuestBuilder, QemuBuilder, Scratch, facts};
use serde_json::json;
use std::time::{Duration, Instant};
use vmm::api::client::Client;

/// Devices of a machine; the first and the last of them have rows of their own.
const DEVICES: usize = 64;
const ENDS: usize = 8;
const SIZE: u64 = 128 << 20;
/// What the guest's kernel counts, in `$kib`, without a process: that would be most of the time where code is translated.
const TOTAL: &str = "while read what kib unit; do [ $what = MemTotal: ] && break; done < /proc/meminfo";

/// One device.
struct Times {
    answer: Duration,
    acknowledged: Duration,
    online: Duration,
}

/// All devices of a machine of one program.
pub fn measure(vmm: Vmm, kernel: &str) -> Result<Vec<Row>> {
    match vmm {
        Vmm::Daxvisor => daxvisor(kernel),
        _ => qemu(kernel),
    }
}

fn daxvisor(kernel: &str) -> Result<Vec<Row>> {
    let files = Scratch::new("bench")?;
    let mut guest = GuestBuilder::new(kernel)
        .timeout(900)
        .memory("1G")
        .arg("--numa", "node=0,hotplug=16G")
        .arg("--memory-slots", &DEVICES.to_string())
        .arg("--api-socket", &files.text("api"))
        .start()?;
    let mut client = Client::connect(&files.join("api"), Some(ANSWER))?;
    let add = |n: usize| {
        let asked = Instant::now();
        let body = json!({"id": format!("d{n}"), "node": 0, "size": SIZE});
        let answer = client.send("POST", "/memory/devices", Some(&body), ANSWER)?;
        let answered = asked.elapsed();
        ensure!(answer.status == 202, "{}", answer.status);
        let path = format!("/operations/{}?wait=60", facts::number(&answer.json()?, "id")?);
        let ended = client.send("GET", &path, None, 2 * ANSWER)?.json()?;
        ensure!(ended["state"] == "done", "{ended}");
        Ok((asked, answered))
    };
    let times = all(&mut guest, add)?;
    end(guest)?;
    Ok(rows(Vmm::Daxvisor, &times))
}

fn qemu(kernel: &str) -> Result<Vec<Row>> {
    let files = Scratch::new("bench")?;
    let socket = files.join("qmp");
    let mut guest = QemuBuilder::new(kernel)
        .shape("q35", &format!("1G,slots={DEVICES},maxmem=32G"))
        .arg("-qmp", &format!("unix:{},server=on,wait=off", socket.display()))
        .start()?;
    let mut monitor = Monitor::connect(&socket)?;
    let add = |n: usize| {
        let asked = Instant::now();
        let memory = json!({"qom-type": "memory-backend-ram", "id": format!("m{n}"), "size": SIZE});
        monitor.execute("object-add", &memory)?;
        let device = json!({"driver": "pc-dimm", "id": format!("d{n}"), "memdev": format!("m{n}")});
        monitor.execute("device_add", &device)?;
        let answered = asked.elapsed();
        let ost = monitor.event("ACPI_DEVICE_OST")?;
        ensure!(ost["data"]["info"]["status"] == 0, "{ost}");
        Ok((asked, answered))
    };
    let times = all(&mut guest, add)?;
    end(guest)?;
    Ok(rows(Vmm::QemuQ35, &times))
}

/// Adds device after device; `add` gives when it asked and how long the answer took, and returns when the guest has acknowledged it.
fn all(guest: &mut Guest, mut add: impl FnMut(usize) -> Result<(Instant, Duration)>) -> Result<Vec<Times>> {
    guest.check("echo online > /sys/devices/system/memory/auto_online_blocks")?;
    let before: u64 = guest.check(&format!("{TOTAL}; echo $kib"))?.parse()?;
    let mut wanted = before;
    let mut times = Vec::with_capacity(DEVICES);
    for n in 0..DEVICES {
        let (asked, answer) = add(n)?;
        let acknowledged = asked.elapsed();
        wanted += SIZE >> 10;
        guest.check(&format!(
            "n=0; while [ $n -lt 5000 ]; do {TOTAL}; [ $kib -ge {wanted} ] && exit 0; n=$((n+1)); usleep 500; done; exit 1"
        ))?;
        if (n + 1) % 16 == 0 {
            eprintln!("  {} of {DEVICES} devices are online", n + 1);
        }
        times.push(Times {
            answer,
            acknowledged,
            online: asked.elapsed(),
        });
    }
    Ok(times)
}

fn rows(vmm: Vmm, times: &[Times]) -> Vec<Row> {
    let of = |what: String, times: &[Times], which: fn(&Times) -> Duration| Row {
        vmm,
        what,
        ns: times
            .iter()
            .map(|times| u64::try_from(which(times).as_nanos()).unwrap_or(u64::MAX))
            .collect(),
    };
    let last = &times[times.len().saturating_sub(ENDS)..];
    let parts = [
        (String::new(), times),
        (format!(", first {ENDS}"), &times[..ENDS.min(times.len())]),
        (format!(", last {ENDS} of {DEVICES}"), last),
    ];
    let mut rows = vec![];
    for (name, times) in parts {
        rows.push(of(format!("add DIMM: answer{name}"), times, |times| times.answer));
        rows.push(of(format!("add DIMM: _OST{name}"), times, |times| times.acknowledged));
        rows.push(of(format!("add DIMM: online{name}"), times, |times| times.online));
    }
    rows
}

fn end(guest: Guest) -> Result<()> {
    guest.end(0, |client| client.power_off(Instant::now() + Duration::from_secs(60)))?;
    Ok(())
}
