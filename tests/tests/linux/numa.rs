//! Memory and nodes are where `--dry-run` said they would be.

use anyhow::{Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, facts};
use serde_json::Value;

const LABEL: u64 = 128 << 10;
/// Names of what the plan predicts.
const MEMORY: [&str; 5] = [
    "System RAM",
    "Reserved",
    "ACPI Tables",
    "ACPI Non-volatile Storage",
    "Persistent Memory",
];

/// The memory lines that the guest sees against those of the plan.
fn map_is_as_planned(guest: &mut Guest, plan: &Value) -> Result<()> {
    let planned = facts::planned_iomem(plan)?;
    let seen = facts::iomem(&guest.check("cat /proc/iomem")?, &MEMORY)?;
    // The local APIC's page is reserved by the kernel itself, with a line that no memory map has.
    let memory = |l: &&(u64, u64, String)| !(0xc000_0000..0x1_0000_0000).contains(&l.0);
    let seen: Vec<_> = seen.iter().filter(memory).cloned().collect();
    ensure!(seen == planned, "/proc/iomem {seen:x?}\n--dry-run {planned:x?}");
    Ok(())
}

/// Nodes, their vCPUs and their distances against the plan.
fn nodes_are_as_planned(guest: &mut Guest, plan: &Value) -> Result<()> {
    for node in facts::list(plan, "nodes")? {
        let number = facts::number(node, "node")?;
        let folder = format!("/sys/devices/system/node/node{number}");
        if facts::number(node, "memory")? == 0 && node["vcpus"] == "" {
            // Possible, and offline until there is memory in it.
            guest.check(&format!("test ! -e {folder}"))?;
            continue;
        }
        ensure!(
            guest.check(&format!("cat {folder}/cpulist"))? == facts::text(node, "vcpus")?,
            "{node}"
        );
        // Online nodes only are in the kernel's rows.
        let row: Vec<_> = guest
            .check(&format!("cat {folder}/distance"))?
            .split(' ')
            .map(str::to_owned)
            .collect();
        let online: Vec<_> = guest
            .check("ls -d /sys/devices/system/node/node*")?
            .lines()
            .filter_map(|l| l.rsplit("node").next().map(str::to_owned))
            .collect();
        for (to, seen) in online.iter().zip(&row) {
            ensure!(
                node["distances"][to.as_str()].as_u64() == seen.parse().ok(),
                "{node}: to {to} {seen}"
            );
        }
        let total = guest.check(&format!(
            "sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' {folder}/meminfo"
        ))?;
        let (total, planned) = (total.parse::<u64>()? << 10, facts::number(node, "memory")?);
        // The kernel keeps a part for itself: its image and initramfs, page structures, what it reserves below 1 MiB.
        ensure!(
            total <= planned && total + (192 << 20) >= planned,
            "node {number}: {total} of {planned}"
        );
    }
    Ok(())
}

#[test]
fn two_nodes_and_a_memory_less_one_are_as_planned() -> Result<()> {
    let files = Scratch::new("numa")?;
    let config = GuestBuilder::new(QUICK)
        .cpus("4")
        .arg("--numa", "node=0,cpus=0-1,memory=512M,distance=1:21")
        .arg("--numa", "node=1,cpus=2-3,memory=384M")
        .arg("--numa", "node=2")
        .arg("--distance", "from=0,to=2,value=17")
        .arg("--distance", "from=1,to=2,value=28")
        .nvdimm(&format!("{},size=256M,node=2", files.text("far")))
        .nvdimm(&format!("{},size=128M,node=1", files.text("near")));
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    map_is_as_planned(&mut guest, &plan)?;
    nodes_are_as_planned(&mut guest, &plan)?;
    ensure!(guest.check("cat /sys/devices/system/node/possible")? == "0-2");

    let regions = guest.json("ndctl list -R")?;
    for (region, target, planned) in [(0, 2, 0), (1, 1, 1)] {
        let name = format!("region{region}");
        let found = facts::find(&regions, "dev", &name)?;
        let nvdimm = &facts::list(&plan, "nvdimms")?[planned];
        ensure!(
            facts::number(found, "size")? == facts::number(nvdimm, "len")?,
            "{found} {nvdimm}"
        );
        let sysfs = |file: &str| format!("cat /sys/bus/nd/devices/{name}/{file}");
        let start = u64::from_str_radix(guest.check(&sysfs("resource"))?.trim_start_matches("0x"), 16)?;
        ensure!(
            start == facts::number(nvdimm, "start")?,
            "{name} at {start:#x}: {nvdimm}"
        );
        ensure!(guest.check(&sysfs("target_node"))? == target.to_string(), "{name}");
        // The nearest node that is online: itself, or for a memory-less one the one at the shortest distance.
        let online = if target == 2 { 0 } else { target };
        ensure!(guest.check(&sysfs("numa_node"))? == online.to_string(), "{name}");
    }
    guest.power_off()?;
    Ok(())
}

#[test]
fn ram_around_the_hole_is_as_planned() -> Result<()> {
    // 3.25 GiB of address space; what the guest does not touch costs the host nothing.
    let config = GuestBuilder::new(QUICK).memory("3328M").nvdimm("size=64M");
    let plan = config.dry_run()?;
    let starts: Vec<_> = facts::list(&plan, "map")?
        .iter()
        .filter(|e| e["kind"] == "RAM")
        .filter_map(|e| e["start"].as_u64())
        .collect();
    ensure!(starts == [0, 0x20_0000, 0x1_0000_0000], "{starts:x?}");
    let mut guest = config.start()?;
    map_is_as_planned(&mut guest, &plan)?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn a_sparse_dimm_of_half_the_address_space_works() -> Result<()> {
    let files = Scratch::new("large")?;
    let file = files.text("large");
    let bits = facts::number(&GuestBuilder::new(QUICK).dry_run()?, "phys_bits")?;
    // The nested host has 40 bits: 512 GiB there, nearly 1 TiB where there is room. A whole region, and its labels on top.
    let size: u64 = if bits > 40 { 1023 } else { 512 };
    let config = GuestBuilder::new(QUICK).nvdimm(&format!("{file},size={}", (size << 30) + LABEL));
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    map_is_as_planned(&mut guest, &plan)?;
    let regions = guest.json("ndctl list -R")?;
    let region = facts::find(&regions, "dev", "region0")?;
    ensure!(facts::number(region, "size")? == size << 30, "{region}");
    // The last bytes are memory like the first.
    guest.check("ndctl create-namespace -f -e namespace0.0 -m raw")?;
    let blocks: u64 = guest.check("cat /sys/block/pmem0/size")?.parse()?;
    let last = blocks / 8 - 1;
    guest.check(&format!(
        "echo the end | dd of=/dev/pmem0 bs=4096 seek={last} conv=fsync 2>/dev/null"
    ))?;
    guest.check("echo 3 > /proc/sys/vm/drop_caches")?;
    ensure!(
        guest.check(&format!(
            "dd if=/dev/pmem0 bs=4096 skip={last} count=1 2>/dev/null | head -c 7"
        ))? == "the end"
    );
    guest.power_off()?;
    let allocated = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file)?) * 512;
    ensure!(allocated < 64 << 20, "the sparse file takes {allocated} bytes");
    Ok(())
}

#[test]
fn what_ends_beyond_the_address_bits_is_refused_and_nothing_is_made() -> Result<()> {
    let files = Scratch::new("beyond")?;
    let bits = facts::number(&GuestBuilder::new(QUICK).dry_run()?, "phys_bits")?;
    // As many of 1 TiB as fit do not leave room for one more.
    let many = (1_u64 << bits.saturating_sub(40)).min(32);
    let mut config = GuestBuilder::new(QUICK);
    for n in 0..many {
        config = config.nvdimm(&format!("{},size=1T", files.text(&n.to_string())));
    }
    if bits >= 46 {
        // No configuration reaches that far.
        config.dry_run()?;
        return Ok(());
    }
    let ended = config.refused()?;
    ensure!(ended.code == 2, "exit code {}: {}", ended.code, ended.stderr);
    ensure!(ended.stderr.contains("physical address bits"), "{}", ended.stderr);
    ensure!(!files.join("0").exists(), "a file of a refused machine was made");
    Ok(())
}
