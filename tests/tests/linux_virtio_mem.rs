//! Memory that grows and shrinks behind a virtio device, as Linux and the host see it.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, control::ctl, facts, guest::program};
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

#[test]
fn virtio_mem_is_plugged_at_boot_on_its_node() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64"] {
        let files = Scratch::new("virtio-mem")?;
        let socket = files.join("control");
        let mut guest = GuestBuilder::new(kernel)
            .memory("512M")
            .arg("--numa", "node=0,cpus=0,memory=512M")
            .arg("--numa", "node=1")
            .arg("--virtio-mem", "size=1G,requested=256M,node=1,id=grow")
            .arg("--control-socket", &files.text("control"))
            .cmdline("memhp_default_state=online_movable")
            .start()?;
        guest.check("modprobe virtio_mem")?;
        let info = plugged(&socket, 256 << 20)?;
        ensure!(info["driver"] == true, "{info}");
        ensure!(
            node_kib(&mut guest, 1)? == 256 << 10,
            "{kernel}: {}",
            guest.check("cat /sys/devices/system/node/node1/meminfo")?
        );
        let iomem = guest.check("grep -i -e virtio /proc/iomem")?;
        ensure!(iomem.contains("System RAM (virtio_mem)"), "{kernel}: {iomem}");
        let start = format!("{:x}-", facts::number(&info, "start")?);
        ensure!(iomem.contains(&start), "{kernel}: {iomem} has no {start}");
        guest.power_off()?;
    }
    Ok(())
}
