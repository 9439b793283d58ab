//! Real Xen by multiboot, with a Debian kernel as its first domain: what dom0 makes of the machine's memory map and limits.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder};
use std::time::Duration;

/// Xen writes its console character by character, and everything that dom0 does in its page tables is a hypercall.
const HELLO: Duration = Duration::from_secs(420);
const KIB_768M: u64 = 768 << 10;

fn xen() -> GuestBuilder {
    GuestBuilder::new("xen-4.17-amd64")
        .loud()
        .memory("2G")
        .arg("--limits", "target=512M,static-max=768M")
        .arg("--module", "@debian-6.1-amd64 quiet")
        .timeout(600)
        .hello_within(HELLO)
}

fn kib(guest: &mut Guest, key: &str) -> Result<u64> {
    let line = guest.check(&format!("grep '^{key}:' /proc/meminfo"))?;
    let number = line.split_whitespace().nth(1).context("a number")?;
    Ok(number.parse()?)
}

/// It is dom0 of a real Xen, and its memory is within the limits of the machine.
fn expect_dom0_within_limits(guest: &mut Guest) -> Result<()> {
    let kind = guest.check("cat /sys/hypervisor/type /sys/hypervisor/guest_type /sys/hypervisor/version/major")?;
    ensure!(kind == "xen\nPV\n4", "{kind}");
    let total = kib(guest, "MemTotal")?;
    ensure!(total < KIB_768M && total > KIB_768M / 4, "MemTotal {total} kB");
    Ok(())
}

#[test]
fn dom0_reaches_the_agent_within_its_limit_with_nvdimms_and_powers_off() -> Result<()> {
    let mut guest = xen()
        .nvdimm("size=256M,id=a")
        .nvdimm("size=128M,id=b,label=0")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let buses = guest.check("cat /sys/bus/nd/devices/ndbus0/provider; ls -d /sys/bus/nd/devices/nmem* | wc -l")?;
    ensure!(buses == "ACPI.NFIT\n2", "{buses}");
    // The labels come through the mailbox, which dom0 reaches at its machine address.
    guest.check("ndctl list -D | grep -q nmem0 && ndctl read-labels nmem0 > /labels && test -s /labels")?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn dom0_refuses_a_memory_device_above_its_limit_at_boot() -> Result<()> {
    let mut guest = xen()
        .arg("--numa", "node=0,memory=2G,hotplug=1G")
        .arg("--memory-device", "256M,node=0,id=beyond")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let log = guest.check("dmesg | grep 'add_memory failed'")?;
    ensure!(log.contains("acpi PNP0C80:00"), "{log}");
    let total = kib(&mut guest, "MemTotal")?;
    ensure!(total < KIB_768M, "MemTotal {total} kB");
    guest.power_off()?;
    Ok(())
}

#[test]
fn dom0_moves_its_p2m_list_away_from_reserved_ranges_and_takes_a_sparse_map() -> Result<()> {
    // The list ends at the last of dom0's first 512M; RAM just below 1 TiB, where 40 address bits end, leaves most of the machine's
    // addresses empty. No NVDIMM: it would stand above that RAM, beyond the 512 GiB that dom0's list has room for.
    let mut guest = xen()
        .arg("--memory-range", "start=448M,size=128M,type=reserved,id=r")
        .arg("--memory-range", "start=1020G,size=256M,type=ram,id=far")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let iomem = guest.check("grep -i '^1c000000-23ffffff : reserved' /proc/iomem")?;
    ensure!(!iomem.is_empty());
    let log = guest.check("dmesg | grep -E 'Remapped [0-9]+ page|initrd moved'")?;
    ensure!(log.contains("Remapped"), "{log}");
    let console = guest.power_off()?.console;
    let far = console
        .lines()
        .any(|line| line.starts_with("(XEN)") && line.contains("000000ff00000000"));
    ensure!(far, "Xen says nothing of the far RAM: {console}");
    Ok(())
}
