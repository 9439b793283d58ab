//! What outlasts the monitor on an interleave set and in a mapped namespace. All DIMMs are encrypted: nothing of a store is in
//! their files before somebody flushes it.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ctl, facts, guest::program};
use rustix::process::Signal;
use serde_json::Value;

const KERNEL: &str = "debian-6.12-amd64";
const KILLED: i32 = 128 + 9;
/// The files that `sums` reads, and the device.
const BYTES: &str = "256k";

/// `mapped` has a region of its own, which is region0; `left` and `right` are a set, region1.
fn machine(files: &Scratch) -> GuestBuilder {
    let dimm =
        |config: GuestBuilder, id: &str| config.nvdimm(&format!("{},size=65664K,id={id},encrypt=on", files.text(id)));
    ["mapped", "left", "right"]
        .into_iter()
        .fold(GuestBuilder::new(KERNEL), dimm)
        .arg("--interleave-set", "dimms=[left,right],size=64M")
        .arg("--api-socket", &files.text("api"))
}

/// Flushes so far of `mapped`, `left` and `right`.
fn flushes(files: &Scratch) -> Result<[u64; 3]> {
    let done = ctl(&program()?, &files.join("api"), &["--json", "nvdimm", "list"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let list: Value = serde_json::from_slice(&done.stdout)?;
    let dimms = facts::list(&list, "dimms")?;
    let of = |id| -> Result<u64> {
        let dimm = facts::find(&Value::Array(dimms.clone()), "id", id)?.clone();
        dimm["flush"]["flushes"].as_u64().with_context(|| dimm.to_string())
    };
    Ok([of("mapped")?, of("left")?, of("right")?])
}

/// Which of them have been flushed since.
fn flushed(files: &Scratch, before: [u64; 3]) -> Result<[bool; 3]> {
    let after = flushes(files)?;
    Ok([0, 1, 2].map(|n| after[n] > before[n]))
}

/// The names of the disk on the set and of the device on the other DIMM.
fn names(guest: &mut Guest) -> Result<[String; 2]> {
    let on = |guest: &mut Guest, region: &str| guest.json(&format!("ndctl list -X -N -r {region}"));
    let (set, mapped) = (on(guest, "region1")?, on(guest, "region0")?);
    let disk = set[0]["blockdev"].as_str().with_context(|| set.to_string())?;
    let device = mapped[0]["daxregion"]["devices"][0]["chardev"].as_str();
    let device = device.with_context(|| mapped.to_string())?;
    Ok([disk.to_owned(), device.to_owned()])
}

fn sums(guest: &mut Guest, device: &str) -> Result<String> {
    guest.check(&format!(
        "for file in written mapped; do sha256sum < /m/$file || exit 1; done; \
         xfs_io -r -c 'mmap -r 0 4m' -c 'mread -v 0 {BYTES}' /dev/{device} | sha256sum"
    ))
}

#[test]
fn killed_monitor_leaves_what_was_flushed_on_a_set_and_on_a_mapped_namespace() -> Result<()> {
    let files = Scratch::new("durable-sets")?;
    let mut guest = machine(&files).start()?;
    guest.check(
        "ndctl disable-region all && ndctl init-labels all && ndctl enable-region all && \
         ndctl create-namespace -r region1 -m fsdax && ndctl create-namespace -r region0 -m devdax",
    )?;
    let [disk, device] = names(&mut guest)?;
    guest.check(&format!(
        "mkfs.ext4 -q -b 4096 /dev/{disk} && mkdir -p /m && mount -o dax /dev/{disk} /m"
    ))?;

    let before = flushes(&files)?;
    guest.check("dd if=/dev/urandom of=/m/written bs=64K count=4 conv=fsync 2>/dev/null")?;
    ensure!(flushed(&files, before)? == [false, true, true], "fsync on the set");
    guest.check(&format!(
        "dd if=/dev/zero of=/m/mapped bs=64K count=4 conv=fsync 2>/dev/null && xfs_io -c 'mmap -rw 0 {BYTES}' \
         -c 'mwrite -S 0x77 0 {BYTES}' -c 'msync -s 0 {BYTES}' /m/mapped"
    ))?;
    let before = flushes(&files)?;
    guest.check(&format!(
        "xfs_io -c 'mmap -rw 0 {BYTES}' -c 'mwrite -S 0x78 0 128k' -c 'msync -s 0 {BYTES}' /m/mapped"
    ))?;
    ensure!(flushed(&files, before)? == [false, true, true], "msync on the set");

    let store = format!("xfs_io -c 'mmap -rw 0 4m' -c 'mwrite -S 0x79 0 {BYTES}' /dev/{device}");
    let before = flushes(&files)?;
    guest.check(&store)?;
    // The set's file system may commit its journal meanwhile.
    ensure!(!flushed(&files, before)?[0], "a store to the device is no flush");
    let sums_before = sums(&mut guest, &device)?;
    // Once more, and then at once the end.
    guest.check(&format!("{store} && echo 1 > /sys/bus/nd/devices/region0/deep_flush"))?;
    ensure!(
        flushed(&files, before)?[0],
        "the region's deep flush does not reach the device's DIMM"
    );
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.code == KILLED, "{ended:?}");

    let mut guest = machine(&files).start()?;
    let [disk, device] = names(&mut guest)?;
    guest.check(&format!("mkdir -p /m && mount -o dax /dev/{disk} /m"))?;
    let found = sums(&mut guest, &device)?;
    ensure!(found == sums_before, "stored: {sums_before}\nfound: {found}");
    guest.check(&format!("umount /m && e2fsck -f -n /dev/{disk}"))?;
    guest.power_off()?;
    Ok(())
}
