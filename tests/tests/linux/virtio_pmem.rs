//! Persistent memory behind a virtio device, as Linux sees it.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ctl, facts, guest::program};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;

/// What the machine says of its first virtio-pmem device.
fn device(socket: &Path) -> Result<Value> {
    let done = ctl(&program()?, socket, &["--json", "describe"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let machine: Value = serde_json::from_slice(&done.stdout)?;
    Ok(machine["virtio"]["pmem"][0].clone())
}

/// Loads the driver and waits for the block device.
fn appear(guest: &mut Guest) -> Result<()> {
    guest.check(
        "modprobe virtio_pmem && for n in $(seq 100); do test -b /dev/pmem0 && exit 0; sleep 0.1; done; \
         dmesg | tail -n 20; ls /sys/bus/virtio/devices /sys/bus/nd/devices; exit 1",
    )?;
    Ok(())
}

const MOUNT: &str = "mkdir -p /m && mount -t ext4 -o dax /dev/pmem0 /m && grep -q ' /m .*dax' /proc/mounts";

fn survives(kernel: &str) -> Result<()> {
    let files = Scratch::new("virtio-pmem")?;
    let socket = files.join("api");
    let config = GuestBuilder::new(kernel)
        .arg("--numa", "node=0,cpus=0,memory=512M")
        .arg("--numa", "node=1")
        .memory("512M")
        .arg(
            "--virtio-pmem",
            &format!("{},size=128M,node=1,id=store", files.text("store")),
        )
        .arg("--api-socket", &files.text("api"));
    let mut guest = config.start()?;
    appear(&mut guest)?;
    let region = guest.json("ndctl list -RN")?;
    let regions = facts::list(&region, "regions")?;
    ensure!(regions.len() == 1 && regions[0]["size"] == 128 << 20, "{region}");
    let place = guest
        .check("cat /sys/bus/nd/devices/region0/target_node; readlink /sys/bus/nd/devices/ndbus0 | grep -c virtio")?;
    // The driver tells the node since Linux 6.2.
    let node = if kernel.contains("-6.1-") { 0 } else { 1 };
    ensure!(place == format!("{node}\n1"), "{kernel}: node and virtio bus: {place}");
    let info = device(&socket)?;
    ensure!(info["id"] == "store" && info["driver"] == true, "{info}");
    let resource = format!("{:#x}", facts::number(&info, "start")?);
    ensure!(
        guest.check("cat /sys/bus/nd/devices/region0/resource")? == resource,
        "{info}"
    );

    guest.check(&format!("mkfs.ext4 -q -b 4096 /dev/pmem0 && {MOUNT}"))?;
    let before = facts::number(&device(&socket)?, "flushes")?;
    let written =
        guest.check("dd if=/dev/urandom of=/m/first bs=1M count=4 conv=fsync 2>/dev/null && sha256sum /m/first")?;
    let after = facts::number(&device(&socket)?, "flushes")?;
    ensure!(
        after > before,
        "{kernel}: fsync made no flush: {before} before and {after} after"
    );
    // Without fsync nothing is asked of the host.
    guest.check("sync; dd if=/dev/zero of=/m/first bs=1M count=1 seek=8 conv=notrunc 2>/dev/null")?;
    guest.check(
        "xfs_io -f -c 'mmap -rw 0 1m' -c 'truncate 1m' /m/map >/dev/null 2>&1; truncate -s 1M /m/map && \
                 xfs_io -c 'mmap -rw 0 1m' -c 'mwrite -S 0x5a 0 1m' -c 'msync -s 0 1m' /m/map && sync /m/map",
    )?;
    guest.check("umount /m")?;
    guest.power_off()?;

    // A new run has what was written; it is killed, with what was synchronised only in the page cache of the host.
    let mut guest = config.start()?;
    appear(&mut guest)?;
    guest.check(MOUNT)?;
    let again = guest.check("dd if=/m/first bs=1M count=4 2>/dev/null | sha256sum | cut -d' ' -f1")?;
    ensure!(written.starts_with(&again), "{kernel}: {written} became {again}");
    let killed =
        guest.check("dd if=/dev/urandom of=/m/second bs=1M count=4 conv=fsync 2>/dev/null && sha256sum /m/second")?;
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.killed == Some(9), "{ended:?}");

    let mut guest = config.start().context("after SIGKILL")?;
    appear(&mut guest)?;
    guest.check(MOUNT)?;
    ensure!(guest.check("sha256sum /m/second")? == killed, "{kernel}: after SIGKILL");
    let map = guest.check("tr -d 'Z' < /m/map | wc -c")?;
    ensure!(map == "0", "{kernel}: {map} bytes of the mapping are lost");
    let complaints =
        guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' -e 'EXT4-fs error' || true")?;
    ensure!(complaints.is_empty(), "{kernel}: {complaints}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn virtio_pmem_keeps_its_data_on_6_1() -> Result<()> {
    survives("debian-6.1-amd64")
}

#[test]
fn virtio_pmem_keeps_its_data_on_6_12() -> Result<()> {
    survives("debian-6.12-amd64")
}

#[test]
fn virtio_pmem_flush_that_fails_is_an_error_to_the_guest() -> Result<()> {
    let files = Scratch::new("virtio-pmem-ro")?;
    std::fs::File::create(files.join("store"))?.set_len(64 << 20)?;
    let mut guest = GuestBuilder::new("debian-6.1-amd64")
        .arg(
            "--virtio-pmem",
            &format!("{},size=64M,readonly=on", files.text("store")),
        )
        .arg("--api-socket", &files.text("api"))
        .start()?;
    appear(&mut guest)?;
    let said = guest.fails("dd if=/dev/urandom of=/dev/pmem0 bs=1M count=1 conv=fsync")?;
    ensure!(
        said.contains("I/O error") || said.contains("Input/output error"),
        "{said}"
    );
    let info = device(&files.join("api"))?;
    let failed = facts::number(&info, "failed_flushes")?;
    ensure!(failed > 0 && info["flushes"] == failed, "{info}");
    guest.power_off()?;
    let bytes = std::fs::read(files.join("store"))?;
    ensure!(
        bytes.iter().all(|b| *b == 0),
        "the file of a read-only device has changed"
    );
    Ok(())
}
