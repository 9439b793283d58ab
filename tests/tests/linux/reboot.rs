//! Linux that reboots, or is reset, after it was given memory and NVDIMMs.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ApiClient, facts, guest::patiently};
use serde_json::{Value, json};

const KERNEL: &str = "debian-6.12-amd64";
const MIB: u64 = 1 << 20;
/// Where `first` has an error, which nothing here reads.
const BAD: u64 = 32 * MIB;

/// Everything that was added is there, in the machine and in the guest.
fn all_is_there(guest: &mut Guest, client: &mut ApiClient, sum: &str) -> Result<()> {
    let memory = client.get("/memory/devices")?;
    let device = facts::find(&memory["devices"], "id", "more")?;
    let text = guest.check("cat /proc/iomem")?;
    let (start, len) = (facts::number(device, "start")?, facts::number(device, "len")?);
    let line = format!("{start:x}-{:x} : System RAM", start + len - 1);
    ensure!(text.contains(&line), "no {line} in {text}");
    let node = guest.check(
        "for n in $(seq 100); do grep -q 'MemTotal: *262144 kB' /sys/devices/system/node/node1/meminfo && break; sleep 0.1; done; \
         cat /sys/devices/system/node/node1/meminfo",
    )?;
    ensure!(node.contains("262144 kB"), "{node}");
    guest.check(
        "modprobe -a nfit nd_pmem; for n in $(seq 100); do test -b /dev/pmem0 && test -b /dev/pmem1 && exit 0; sleep 0.1; done; \
         ls /dev; exit 1",
    )?;
    let now = guest.check("dd if=/dev/pmem1 bs=64K count=16 2>/dev/null | sha256sum")?;
    ensure!(now == sum, "the added NVDIMM has lost its content");
    let list = client.get("/nvdimms")?;
    let names: Vec<_> = facts::list(&list, "dimms")?.iter().map(|dimm| &dimm["id"]).collect();
    ensure!(names == ["first", "second"], "{names:?}");
    let errors = client.get("/media-errors?id=first")?;
    ensure!(errors["errors"][0]["dpa"] == BAD, "the bad line is gone: {errors}");
    let target = client.get("/vm")?["virtio"]["mem"][0]["requested"].clone();
    ensure!(target == 256 * MIB, "virtio-mem was asked for {target}");
    guest.check(
        "modprobe virtio_mem; for n in $(seq 100); do grep -q 'virtio_mem' /proc/iomem && exit 0; sleep 0.1; done; exit 1",
    )?;
    Ok(())
}

fn ended(client: &mut ApiClient, operation: &Value) -> Result<()> {
    let ended = client.ended(operation)?;
    ensure!(ended["state"] == "done", "{ended}");
    Ok(())
}

#[test]
fn reboots_keep_what_was_added() -> Result<()> {
    patiently(keep_what_was_added)
}

fn keep_what_was_added() -> Result<()> {
    let files = Scratch::new("reboot")?;
    let mut guest = GuestBuilder::new(KERNEL)
        .memory("512M")
        .arg("--numa", "node=0")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--memory-slots", "4")
        .arg("--virtio-mem", "size=512M,node=0,requested=128M")
        .nvdimm("size=64M,id=first")
        .arg("--api-socket", &files.text("api"))
        .arg("--on-reset", "restart")
        .cmdline("memhp_default_state=online_movable")
        .start_once()?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    guest.check("modprobe -a nfit nd_pmem virtio_mem")?;
    let body = json!({"size": "256M", "node": 1, "id": "more"});
    let adding = client.begin("POST", "/memory/devices", Some(&body))?;
    ended(&mut client, &adding)?;
    let adding = client.begin("POST", "/nvdimms", Some(&json!({"size": "64M", "id": "second"})))?;
    ended(&mut client, &adding)?;
    let growing = client.begin(
        "PUT",
        "/memory/devices/virtio-mem0/target",
        Some(&json!({"size": "256M"})),
    )?;
    ended(&mut client, &growing)?;
    let sum = guest.check(
        "for n in $(seq 100); do test -b /dev/pmem1 && break; sleep 0.1; done; \
         dd if=/dev/urandom of=/dev/pmem1 bs=64K count=16 conv=fsync 2>/dev/null; \
         dd if=/dev/pmem1 bs=64K count=16 2>/dev/null | sha256sum",
    )?;
    let bad = json!({"id": "first", "start": BAD, "len": 64});
    client.done("POST", "/media-errors", Some(&bad))?;
    all_is_there(&mut guest, &mut client, &sum)?;
    let boots = |guest: &mut Guest| guest.check("cat /proc/sys/kernel/random/boot_id");
    let first = boots(&mut guest)?;
    // By the guest itself.
    let mut guest = guest.rebooted().context("the guest's own reboot")?;
    ensure!(boots(&mut guest)? != first, "it was no reboot");
    all_is_there(&mut guest, &mut client, &sum)?;
    // And from outside, without asking it.
    guest.check("sync")?;
    ensure!(client.post("/vm/reboot")?["state"] == "restarting");
    let mut guest = guest.again().context("the reset")?;
    all_is_there(&mut guest, &mut client, &sum)?;
    // What is there at boot is given back as well.
    let removing = client.begin("DELETE", "/memory/devices/more", None)?;
    ended(&mut client, &removing)?;
    let list = client.get("/memory/devices")?;
    let left: Vec<_> = facts::list(&list, "devices")?
        .iter()
        .map(|device| &device["id"])
        .collect();
    ensure!(left == ["virtio-mem0"], "{list}");
    let mut guest = guest.rebooted().context("the last reboot")?;
    let iomem = guest.check("cat /proc/iomem")?;
    let map = client.get("/memory/map")?;
    for line in facts::list(&map, "iomem")?.iter().filter(|l| l["name"] == "System RAM") {
        let range = format!(
            "{:08x}-{:08x}",
            facts::number(line, "start")?,
            facts::number(line, "last")?
        );
        ensure!(iomem.contains(&range), "no {range} in the guest: {iomem}");
    }
    guest.power_off()?;
    Ok(())
}
