//! Media errors as the guest's own tools see them: scrubs, injection, what is bad and how it becomes good again.

use anyhow::{Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch};
use serde_json::{Value, json};

const LABEL: u64 = 128 << 10;
/// A DIMM whose region is whole: ndctl wants regions in multiples of 16 MiB, and the label area comes on top.
const WHOLE: u64 = (64 << 20) + LABEL;

/// Counter of finished scrubs of a bus, and whether one runs.
fn scrubs(guest: &mut Guest) -> Result<(u64, bool)> {
    let text = guest.check("cat /sys/bus/nd/devices/ndbus0/nfit/scrub")?;
    Ok((text.trim_end_matches('+').parse()?, text.ends_with('+')))
}

/// The kernel's list of bad sectors of a disk.
fn badblocks(guest: &mut Guest, disk: &str) -> Result<String> {
    guest.check(&format!("cat /sys/block/{disk}/badblocks"))
}

/// What `ndctl inject-error --status` lists.
fn injected(guest: &mut Guest, namespace: &str) -> Result<Value> {
    let status = guest.json(&format!("ndctl inject-error --status {namespace}"))?;
    Ok(status.get("badblocks").cloned().unwrap_or_else(|| json!([])))
}

/// The namespace with its errors.
fn media_errors(guest: &mut Guest, namespace: &str) -> Result<Value> {
    let list = guest.json(&format!("ndctl list -N --media-errors -n {namespace}"))?;
    Ok(list[0].clone())
}

fn no_trouble(guest: &mut Guest) -> Result<()> {
    let log =
        guest.check("dmesg | grep -iE 'ARS failed|ARS range|WARNING|BUG:|Call Trace|Failed to process' || true")?;
    ensure!(log.is_empty(), "{log}");
    Ok(())
}

/// Scrubs, finds, reads, writes and clears on a namespace of each kind.
fn errors_come_and_go(kernel: &str) -> Result<()> {
    let files = Scratch::new("ars")?;
    let mut guest = GuestBuilder::new(kernel)
        .nvdimm(&format!("{},size={WHOLE},id=raw", files.text("raw")))
        .nvdimm(&format!("{},size=64M,label=0,id=bare", files.text("bare")))
        .start()?;
    guest.check("ndctl wait-scrub")?;
    no_trouble(&mut guest)?;
    let (before, running) = scrubs(&mut guest)?;
    ensure!(before >= 1 && !running, "{before} {running}");
    guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    let (after, _) = scrubs(&mut guest)?;
    ensure!(after == before + 1, "{before}, then {after}");

    for (namespace, disk) in [("namespace0.0", "pmem0"), ("namespace1.0", "pmem1")] {
        // Known to the firmware, not to the guest.
        guest.check(&format!(
            "ndctl inject-error --block=42 --count=8 --no-notify {namespace}"
        ))?;
        ensure!(injected(&mut guest, namespace)? == json!([{"block": 42, "count": 8}]));
        ensure!(badblocks(&mut guest, disk)?.is_empty());
        guest.check(&format!(
            "ndctl inject-error --block=42 --count=8 --uninject {namespace}"
        ))?;
        ensure!(injected(&mut guest, namespace)? == json!([]));

        let (before, _) = scrubs(&mut guest)?;
        guest.check(&format!("ndctl inject-error --block=42 --count=8 {namespace}"))?;
        ensure!(scrubs(&mut guest)?.0 > before, "the guest was not told");
        ensure!(badblocks(&mut guest, disk)? == "42 8");
        ensure!(media_errors(&mut guest, namespace)? == json!(null));
        guest.fails(&format!(
            "dd if=/dev/{disk} of=/dev/null iflag=direct bs=512 skip=42 count=1"
        ))?;
        guest.check(&format!(
            "dd if=/dev/zero of=/dev/{disk} oflag=direct bs=512 seek=42 count=8"
        ))?;
        ensure!(badblocks(&mut guest, disk)?.is_empty());
        ensure!(injected(&mut guest, namespace)? == json!([]));
    }
    no_trouble(&mut guest)?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn errors_come_and_go_on_6_1() -> Result<()> {
    errors_come_and_go("debian-6.1-cloud-amd64")
}

#[test]
fn errors_come_and_go_on_6_12() -> Result<()> {
    errors_come_and_go("debian-6.12-amd64")
}
