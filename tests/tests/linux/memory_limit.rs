//! `--memory-limit` on real kernels: what a guest takes for RAM when its map, or `mem=`, ends below, at and above the RAM.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder};

/// A memory section: the block in which Linux takes memory.
const BLOCK: u64 = 128 << 20;
const RAM: u64 = 1 << 30;

/// First address after the last System RAM below 4 GiB.
fn ram_end(guest: &mut Guest) -> Result<u64> {
    let line = guest.check("grep ': System RAM' /proc/iomem | tail -n 1")?;
    let (_, last) = line.split_once('-').context("a range")?;
    let last = last.split_whitespace().next().context("an address")?;
    Ok(u64::from_str_radix(last, 16)? + 1)
}

/// Boots `kernel` with the limit one block below, at and one block above the end of RAM.
fn boundaries(kernel: &str, by: &str, boot: &str) -> Result<()> {
    for limit in [RAM - BLOCK, RAM, RAM + BLOCK] {
        let builder = GuestBuilder::new(kernel)
            .memory("1G")
            .arg("--boot", boot)
            .arg("--memory-limit", &format!("{}M,by={by}", limit >> 20));
        let planned = builder.dry_run()?["iomem"]
            .as_array()
            .context("iomem lines")?
            .iter()
            .filter(|line| line["name"] == "System RAM")
            .filter_map(|line| line["last"].as_u64())
            .max();
        let mut guest = builder.start()?;
        let end = ram_end(&mut guest)?;
        ensure!(end == limit.min(RAM), "{by}, limit {limit:#x}: RAM ends at {end:#x}");
        ensure!(
            planned == Some(end - 1),
            "--dry-run says {planned:?}, the guest {end:#x}"
        );
        let cmdline = guest.check("cat /proc/cmdline")?;
        let told = cmdline.split(' ').any(|word| word.starts_with("mem="));
        ensure!(told == (by == "parameter"), "{cmdline}");
        let total: u64 = guest.check("grep MemTotal /proc/meminfo | tr -dc 0-9")?.parse()?;
        ensure!(total << 10 < end, "MemTotal {total} kB, limit {limit:#x}");
        guest.power_off()?;
    }
    Ok(())
}

/// A memory device above the limit, there at boot: whether Linux takes it.
fn device_above(kernel: &str, by: &str, taken: bool) -> Result<()> {
    let mut guest = GuestBuilder::new(kernel)
        .memory("1G")
        .arg("--numa", "node=0,memory=1G,hotplug=1G")
        .arg("--memory-device", "128M,node=0,id=beyond")
        .arg("--memory-limit", &format!("1G,by={by}"))
        .start()?;
    let log = guest.check("dmesg | grep -E 'add_memory failed|System RAM' || true")?;
    let iomem = guest.check("sed -n 's/^\\([0-9a-f]*\\)-.* : System RAM/\\1/p' /proc/iomem")?;
    let starts: Vec<_> = iomem
        .lines()
        .filter_map(|start| u64::from_str_radix(start, 16).ok())
        .collect();
    let there = starts.iter().any(|start| *start >= RAM);
    ensure!(there == taken, "{by}: RAM at {starts:x?}");
    ensure!(log.contains("add_memory failed") != taken, "{by}: {log}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn device_above_the_parameter_that_limits_ram_is_refused_by_6_1() -> Result<()> {
    device_above("debian-6.1-cloud-amd64", "parameter", false)
}

#[test]
fn device_above_the_map_that_limits_ram_is_taken_by_6_12() -> Result<()> {
    device_above("debian-6.12-amd64", "map", true)
}

#[test]
fn parameter_limits_ram_below_at_and_above_its_end_on_6_1() -> Result<()> {
    boundaries("debian-6.1-cloud-amd64", "parameter", "linux64")
}

#[test]
fn map_limits_ram_below_at_and_above_its_end_on_6_1_by_pvh() -> Result<()> {
    boundaries("debian-6.1-cloud-amd64", "map", "pvh")
}

#[test]
fn parameter_limits_ram_below_at_and_above_its_end_on_6_12_by_pvh() -> Result<()> {
    boundaries("debian-6.12-amd64", "parameter", "pvh")
}

#[test]
fn map_limits_ram_below_at_and_above_its_end_on_6_12() -> Result<()> {
    boundaries("debian-6.12-amd64", "map", "linux64")
}
