//! The guest physical map as it was authored: types, places, mirrors, and what the kernel makes of each.

use anyhow::{Result, ensure};
use guest_tests::{GuestBuilder, QUICK, Scratch, facts};
use std::{fs::File, os::unix::fs::FileExt};

/// A newer kernel than [`QUICK`], with zones reported the same way.
const NEWER: &str = "debian-6.12-amd64";
const NAMES: [&str; 8] = [
    "System RAM",
    "Reserved",
    "ACPI Tables",
    "ACPI Non-volatile Storage",
    "Unusable memory",
    "Persistent Memory",
    "Persistent Memory (legacy)",
    "Soft Reserved",
];

/// RAM on two nodes in turns, and a range of every type.
fn every_type(kernel: &str, file: &str) -> GuestBuilder {
    let mut guest = GuestBuilder::new(kernel)
        .arg("--numa", "node=0,memory=512M")
        .arg("--numa", "node=1,hotplug=2G")
        .arg("--numa", "node=2");
    for range in [
        "type=hole,start=256M,size=2M",
        "type=reserved,start=300M,size=64K",
        "type=unusable,start=0x18000000,size=4K",
        "type=ram,start=5G,size=256M,node=2",
        "type=ram,start=6G,size=256M",
        "type=ram,start=0x1a0000000,size=256M,node=2",
        "type=pmem,start=8G,size=256M",
        "type=soft-reserved,start=9G,size=256M,node=2,id=special",
    ] {
        guest = guest.arg("--memory-range", range);
    }
    guest.arg(
        "--memory-range",
        &format!("type=pram,start=10G,size=256M,node=1,file={file}"),
    )
}

#[test]
fn every_type_of_range_is_what_the_plan_says_and_legacy_pmem_keeps_its_bytes() -> Result<()> {
    let files = Scratch::new("ranges")?;
    let file = files.text("pram");
    for kernel in [QUICK, NEWER] {
        let config = every_type(kernel, &file);
        let plan = config.dry_run()?;
        let mut guest = config.start()?;
        let planned = facts::planned_iomem(&plan)?;
        let text = guest.check("cat /proc/iomem")?;
        // A driver that owns a range has a line above or below that of the memory map.
        let flat: Vec<_> = text.lines().map(str::trim_start).collect();
        let seen = facts::iomem(&flat.join("\n"), &NAMES)?;
        for line in &planned {
            ensure!(
                seen.contains(line),
                "{kernel}: {line:x?} is not in /proc/iomem:\n{text}"
            );
        }
        let memory = guest.check("cat /sys/devices/system/node/has_memory")?;
        ensure!(memory == "0,2", "{kernel}: nodes with memory {memory}");
        ensure!(guest.check("cat /sys/devices/system/node/possible")? == "0-2");
        let total =
            guest.check("sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node2/meminfo")?;
        let total = total.parse::<u64>()? >> 10;
        ensure!((448..=512).contains(&total), "{kernel}: node 2 has {total} MiB of 512");

        // Legacy persistent memory is a region on a bus of its own, without an NFIT; type 7 alone is nothing to Linux.
        let regions = guest.json("ndctl list -b e820 -R -N")?;
        let region = facts::find(&regions["regions"], "type", "pmem")?;
        ensure!(facts::number(region, "size")? == 256 << 20, "{regions}");
        let namespace = &facts::list(region, "namespaces")?[0];
        let (name, block) = (facts::text(namespace, "dev")?, facts::text(namespace, "blockdev")?);
        let target = guest.check(&format!("cat /sys/bus/nd/devices/{name}/target_node"))?;
        ensure!(target == "1", "{kernel}: target_node {target}");
        guest.check(&format!(
            "printf %s {kernel} | dd of=/dev/{block} bs=4096 seek=7 conv=sync,fsync"
        ))?;
        guest.power_off()?;
        let mut bytes = vec![0; kernel.len()];
        File::open(files.join("pram"))?.read_exact_at(&mut bytes, 7 * 4096)?;
        ensure!(bytes == kernel.as_bytes(), "the file has {bytes:?}");
    }
    Ok(())
}

#[test]
fn more_ranges_than_the_zero_page_holds_reach_the_kernel() -> Result<()> {
    let mut config = GuestBuilder::new(QUICK).memory("1G");
    for n in 0..200 {
        let range = format!("type=reserved,size=4K,start={:#x}", (256 << 20) + n * (2 << 20));
        config = config.arg("--memory-range", &range);
    }
    let plan = config.dry_run()?;
    let refused = config.clone().arg("--boot", "pvh").refused()?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("the boot protocol carries at most 128"),
        "{}",
        refused.stderr
    );
    let mut guest = config.start()?;
    let seen = facts::iomem(&guest.check("cat /proc/iomem")?, &["System RAM", "Reserved"])?;
    let planned = facts::planned_iomem(&plan)?;
    let above = |lines: &[facts::MemoryLine]| {
        lines
            .iter()
            .filter(|l| l.0 >= 0x20_0000 && l.0 < 0xc000_0000)
            .cloned()
            .collect::<Vec<_>>()
    };
    ensure!(above(&seen) == above(&planned), "{seen:x?}\n{planned:x?}");
    ensure!(above(&seen).len() > 400);
    guest.power_off()?;
    Ok(())
}

#[test]
fn mirrored_memory_is_the_kernels_and_the_rest_is_movable() -> Result<()> {
    for kernel in [QUICK, NEWER] {
        // 1 GiB of 3 is mirrored: all below 4 GiB, and a quarter of what is above.
        let config = GuestBuilder::new(kernel)
            .arg("--numa", "node=0,memory=768M,mirror=768M")
            .arg("--memory-range", "type=ram,start=4G,size=256M,mirror=on")
            .arg("--memory-range", "type=ram,start=5G,size=768M")
            .cmdline("kernelcore=mirror");
        let refused = config.clone().arg("--boot", "pvh").refused()?;
        ensure!(
            refused.code != 0 && refused.stderr.contains("only an EFI memory map can say"),
            "{}",
            refused.stderr
        );
        let mut guest = config.start()?;
        let log = guest.check("dmesg")?;
        let said = log.lines().find(|l| l.contains("mirrored memory")).unwrap_or_default();
        // 1 MiB below 1 MiB is partly firmware's and 2 MiB above hold the tables.
        ensure!(said.contains("efi: Memory: 1022M/"), "{kernel}: '{said}' in\n{log}");
        let movable = guest.check("sed -n '/^Node 0, zone *Movable/,/^Node/s/^ *present *//p' /proc/zoneinfo")?;
        ensure!(
            movable.parse::<u64>().is_ok_and(|pages| pages == (768 << 20) / 4096),
            "{kernel}: movable pages: {movable}"
        );
        guest.power_off()?;
    }
    Ok(())
}
