//! Memory that grows and shrinks behind a virtio device, as Linux and the host see it.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ctl, facts, guest::program};
use serde_json::Value;
use std::path::Path;

fn device(socket: &Path) -> Result<Value> {
    let done = ctl(&program()?, socket, &["--json", "describe"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let machine: Value = serde_json::from_slice(&done.stdout)?;
    Ok(machine["virtio"]["mem"][0].clone())
}

/// Waits until as much is plugged.
fn plugged(socket: &Path, wanted: u64) -> Result<Value> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let info = device(socket)?;
        if info["plugged"] == wanted {
            return Ok(info);
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "{wanted} bytes are not plugged: {info}"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn node_kib(guest: &mut Guest, node: u32) -> Result<u64> {
    let text = guest.check(&format!(
        "sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node{node}/meminfo"
    ))?;
    text.parse().with_context(|| text.clone())
}

/// Waits until the guest's kernel counts as much on the node: a block is plugged before it is onlined.
fn node_has(guest: &mut Guest, kernel: &str, node: u32, kib: u64) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let has = node_kib(guest, node)?;
        if has == kib {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "{kernel}: node {node} has {has} KiB, {kib} KiB are expected"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn virtio_mem_is_plugged_at_boot_on_its_node() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64"] {
        let files = Scratch::new("virtio-mem")?;
        let socket = files.join("api");
        let mut guest = GuestBuilder::new(kernel)
            .memory("512M")
            .arg("--numa", "node=0,cpus=0,memory=512M")
            .arg("--numa", "node=1")
            .arg("--virtio-mem", "size=1G,requested=256M,node=1,id=grow")
            .arg("--api-socket", &files.text("api"))
            .cmdline("memhp_default_state=online_movable")
            .start()?;
        guest.check("modprobe virtio_mem")?;
        let info = plugged(&socket, 256 << 20)?;
        ensure!(info["driver"] == true, "{info}");
        node_has(&mut guest, kernel, 1, 256 << 10)?;
        let iomem = guest.check("grep -i -e virtio /proc/iomem")?;
        ensure!(iomem.contains("System RAM (virtio_mem)"), "{kernel}: {iomem}");
        let start = format!("{:x}-", facts::number(&info, "start")?);
        ensure!(iomem.contains(&start), "{kernel}: {iomem} has no {start}");
        guest.power_off()?;
    }
    Ok(())
}

/// `ctl memory target`, which has to be admitted.
fn target(socket: &Path, size: &str) -> Result<Value> {
    let done = ctl(
        &program()?,
        socket,
        &["--json", "--wait", "memory", "target", "grow", size],
    )?;
    // 5: admitted, and not reached in time.
    ensure!(
        matches!(done.status.code(), Some(0 | 5)),
        "{size}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let operation: Value = serde_json::from_slice(&done.stdout)?;
    Ok(operation["result"].clone())
}

const MIB: u64 = 1 << 20;

fn grows_and_shrinks(kernel: &str) -> Result<()> {
    let files = Scratch::new("virtio-mem-resize")?;
    let socket = files.join("api");
    let mut guest = GuestBuilder::new(kernel)
        .memory("512M")
        .arg("--numa", "node=0,cpus=0,memory=512M")
        .arg("--numa", "node=1")
        .arg("--virtio-mem", "size=1G,node=1,id=grow")
        .arg("--api-socket", &files.text("api"))
        .arg("--limits", "static-max=1280M")
        .cmdline("memhp_default_state=online_movable")
        .start()?;

    // Nobody is there to do it: the reply says so, and the driver does it when it comes.
    let asked = target(&socket, "128M")?;
    ensure!(
        asked["reached"] == false && asked["device"]["driver"] == false,
        "{asked}"
    );
    guest.check("modprobe virtio_mem")?;
    plugged(&socket, 128 * MIB)?;

    // Grow on the right node, use it, and have it on the host.
    let asked = target(&socket, "512M")?;
    ensure!(
        asked["reached"] == true && asked["device"]["plugged"] == 512 * MIB,
        "{kernel}: {asked}"
    );
    ensure!(facts::number(&asked["device"]["requests"], "plugs")? > 0, "{asked}");
    node_has(&mut guest, kernel, 1, 512 << 10)?;
    let empty = guest.resident()?;
    guest.check("mkdir -p /t && mount -t tmpfs -o size=300m,mpol=bind:1 none /t && dd if=/dev/zero of=/t/a bs=1M count=256 2>/dev/null")?;
    let full = guest.resident()?;
    ensure!(
        full > empty + 240 * MIB,
        "{kernel}: {empty} bytes were resident, and {full} with 256 MiB used"
    );

    // When it is free again all of it goes, and the host has it back.
    guest.check("umount /t; echo 3 > /proc/sys/vm/drop_caches")?;
    let asked = target(&socket, "0")?;
    ensure!(
        asked["reached"] == true && asked["device"]["plugged"] == 0,
        "{kernel}: {asked}"
    );
    ensure!(facts::number(&asked["device"]["requests"], "unplugs")? > 0, "{asked}");
    let after = guest.resident()?;
    ensure!(
        after + 240 * MIB < full,
        "{kernel}: {full} bytes were resident, and {after} when all is unplugged"
    );

    // A driver that is loaded anew does it again; what the kernel itself uses stays, and as much as is free goes.
    guest.check(
        "rmmod virtio_mem && echo online_kernel > /sys/devices/system/memory/auto_online_blocks && modprobe virtio_mem",
    )?;
    let asked = target(&socket, "256M")?;
    ensure!(
        asked["reached"] == true,
        "{kernel}: after the driver came back: {asked}"
    );
    guest.check("mount -t tmpfs none /t && cd /t && numactl --membind=1 sh -c 'seq 20000 | xargs touch'")?;
    let asked = target(&socket, "0")?;
    let left = facts::number(&asked["device"], "plugged")?;
    ensure!(
        asked["reached"] == false && (1..256 * MIB).contains(&left),
        "{kernel}: {asked}"
    );
    ensure!(facts::number(&asked["device"]["requests"], "unplugs")? > 0, "{asked}");
    guest.check("ls /t | wc -l | grep -x 20000")?;
    let asked = target(&socket, "256M")?;
    ensure!(asked["reached"] == true, "{kernel}: {asked}");

    // What is not admitted changes nothing.
    for (id, size, why) in [
        ("grow", "2G", "more than the region"),
        ("grow", "1M", "not a multiple of the block size 2M"),
        ("grow", "1G", "static-max=1280M"),
        ("other", "0", "there is no virtio-mem device 'other'"),
    ] {
        let done = ctl(&program()?, &socket, &["memory", "target", id, size])?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(
            done.status.code() == Some(1) && said.contains(why),
            "{id} {size}: {said}"
        );
    }
    ensure!(device(&socket)?["requested"] == 256 * MIB, "{}", device(&socket)?);
    let complaints = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' || true")?;
    ensure!(complaints.is_empty(), "{kernel}: {complaints}");
    guest.reboot()?;
    Ok(())
}

#[test]
fn virtio_mem_grows_and_shrinks_on_6_1() -> Result<()> {
    grows_and_shrinks("debian-6.1-amd64")
}

#[test]
fn virtio_mem_grows_and_shrinks_on_6_12() -> Result<()> {
    grows_and_shrinks("debian-6.12-amd64")
}
