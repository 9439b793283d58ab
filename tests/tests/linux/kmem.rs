//! Persistent and soft-reserved memory as System RAM on nodes of its own: size, place, performance and tiers, and back.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, facts};
use serde_json::Value;
use std::collections::BTreeMap;

/// Unit in which the guest adds memory (memory block, x86-64 with less than 64 GiB).
const BLOCK: u64 = 128 << 20;
const MIB: u64 = 1 << 20;
/// NVDIMM whose data is 1280 MiB beside its label area.
const DIMM: &str = "size=1310848K";
/// A kernel that leaves added memory offline, and one that puts it online by itself.
const LAZY: &str = "debian-6.1-cloud-amd64";
const EAGER: &str = "debian-6.12-amd64";

/// Two nodes with vCPUs, a generic initiator on node 2, NVDIMMs on nodes 3 and 4, soft-reserved memory on node 5.
fn machine(kernel: &str) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .cpus("2")
        .arg("--numa", "node=0,cpus=0,memory=512M")
        .arg("--numa", "node=1,cpus=1,memory=512M")
        .arg("--numa", "node=2")
        .arg("--numa", "node=3")
        .arg("--numa", "node=4")
        .arg("--numa", "node=5")
        .arg("--distance", "from=0,to=3,value=17")
        .arg("--distance", "from=0,to=5,value=13")
        .arg("--generic-initiator", "node=2")
        .arg("--memory-range", "size=1G,type=soft-reserved,node=5")
        .nvdimm(&format!("{DIMM},node=3"))
        .nvdimm(&format!("{DIMM},node=4"))
        // The generic initiator is nearest to node 4; of the vCPUs node 1 is.
        .arg("--hmat", "latency=200ns,bandwidth=10GB/s")
        .arg("--hmat", "initiator=0,target=0,latency=100ns,bandwidth=20GB/s")
        .arg("--hmat", "initiator=1,target=1,latency=100ns,bandwidth=20GB/s")
        .arg(
            "--hmat",
            "target=3,read-latency=300ns,write-latency=900ns,read-bandwidth=6GB/s,write-bandwidth=2GB/s",
        )
        .arg("--hmat", "initiator=0,target=4,latency=350ns,bandwidth=4GB/s")
        .arg("--hmat", "initiator=1,target=4,latency=250ns,bandwidth=5GB/s")
        .arg("--hmat", "target=5,latency=60ns,bandwidth=80GB/s")
        .arg(
            "--memory-cache",
            "node=3,size=64M,associativity=direct,write-policy=back,line=128",
        )
}

fn node(number: u64) -> String {
    format!("/sys/devices/system/node/node{number}")
}

fn read_number(guest: &mut Guest, path: &str) -> Result<u64> {
    let text = guest.check(&format!("cat {path}"))?;
    text.parse().with_context(|| format!("{path} is '{text}'"))
}

/// What the plan says of a pair, in the units of sysfs: nanoseconds rounded up and MB/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rates {
    latency: [u64; 2],
    bandwidth: [u64; 2],
}

/// Initiator -> rates, for one target.
fn planned_rates(plan: &Value, target: u64) -> Result<BTreeMap<u64, Rates>> {
    let mut found = BTreeMap::new();
    for pair in facts::list(plan, "performance")? {
        if facts::number(pair, "target")? != target {
            continue;
        }
        let latency = |key| -> Result<u64> {
            let latency: vmm::config::Latency = facts::text(pair, key)?.parse()?;
            Ok(u64::from(latency.picoseconds()).div_ceil(1000))
        };
        let bandwidth = |key| -> Result<u64> {
            let bandwidth: vmm::config::Bandwidth = facts::text(pair, key)?.parse()?;
            Ok(bandwidth.megabytes().into())
        };
        let rates = Rates {
            latency: [latency("read_latency")?, latency("write_latency")?],
            bandwidth: [bandwidth("read_bandwidth")?, bandwidth("write_bandwidth")?],
        };
        found.insert(facts::number(pair, "initiator")?, rates);
    }
    Ok(found)
}

/// The best initiators of `candidates` (all that are equally good), and their rates.
fn best(rates: &BTreeMap<u64, Rates>, candidates: &[u64]) -> Result<(Vec<u64>, Rates)> {
    let known = candidates.iter().filter_map(|i| Some((*i, *rates.get(i)?)));
    let known: Vec<_> = known.collect();
    let (_, best) = *known
        .iter()
        .min_by_key(|(_, r)| r.latency)
        .context("no initiator has rates")?;
    Ok((
        known.iter().filter(|(_, r)| *r == best).map(|(i, _)| *i).collect(),
        best,
    ))
}

/// access0 (any initiator) and access1 (processors) of an online node against the plan.
fn performance_is_as_planned(guest: &mut Guest, plan: &Value, target: u64) -> Result<()> {
    let rates = planned_rates(plan, target)?;
    for (class, candidates) in [("access0", &[0, 1, 2][..]), ("access1", &[0, 1][..])] {
        // A node with vCPUs is attached to itself.
        let (initiators, rates) = match target {
            0 | 1 => best(&rates, &[target])?,
            _ => best(&rates, candidates)?,
        };
        let folder = format!("{}/{class}/initiators", node(target));
        let linked = guest.check(&format!("ls {folder} | sed -n 's/^node//p'"))?;
        let expected: Vec<_> = initiators.iter().map(u64::to_string).collect();
        ensure!(
            linked == expected.join("\n"),
            "{folder}: {linked:?}, planned {expected:?}"
        );
        let [read_latency, write_latency] = rates.latency;
        let [read_bandwidth, write_bandwidth] = rates.bandwidth;
        for (name, planned) in [
            ("read_latency", read_latency),
            ("write_latency", write_latency),
            ("read_bandwidth", read_bandwidth),
            ("write_bandwidth", write_bandwidth),
        ] {
            let seen = read_number(guest, &format!("{folder}/{name}"))?;
            ensure!(seen == planned, "{folder}/{name} is {seen}, planned {planned}");
        }
    }
    Ok(())
}

/// The memory tier that Linux works out for a node (mm/memory-tiers.c): DRAM has the abstract distance 576, 128 of them make
/// a tier. Before 6.7 the HMAT has no part in it, and what kmem brings has five times the distance of DRAM.
fn planned_tier(plan: &Value, kernel: &str, target: u64) -> Result<u64> {
    if kernel == LAZY {
        return Ok((5 * 576) >> 7);
    }
    let (_, dram) = best(&planned_rates(plan, 0)?, &[0])?;
    let (_, own) = best(&planned_rates(plan, target)?, &[0, 1])?;
    let sum = |pair: [u64; 2]| pair.iter().sum::<u64>();
    let by_latency = 576 * sum(own.latency) / sum(dram.latency);
    Ok((by_latency * sum(dram.bandwidth) / sum(own.bandwidth)) >> 7)
}

fn tier_is(guest: &mut Guest, tier: u64, target: u64) -> Result<()> {
    let list = format!("/sys/devices/virtual/memory_tiering/memory_tier{tier}/nodelist");
    let nodes = guest.check(&format!(
        "cat {list} || grep . /sys/devices/virtual/memory_tiering/*/nodelist"
    ))?;
    let has = nodes.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&target))
    });
    ensure!(has, "node {target} is not in tier {tier}: {nodes}");
    Ok(())
}

/// The device-dax device of a node: its name, and the bytes of it that are whole memory blocks.
fn device_of(guest: &mut Guest, target: u64) -> Result<(String, u64)> {
    let devices = guest.check("ls /sys/bus/dax/devices")?;
    for name in devices.lines() {
        let sysfs = |file: &str| format!("/sys/bus/dax/devices/{name}/{file}");
        if read_number(guest, &sysfs("target_node"))? != target {
            continue;
        }
        let resource = guest.check(&format!("cat {}", sysfs("resource")))?;
        let start = u64::from_str_radix(resource.trim_start_matches("0x"), 16)?;
        let size = read_number(guest, &sysfs("size"))?;
        let blocks = (start + size) / BLOCK - start.div_ceil(BLOCK);
        return Ok((name.to_owned(), blocks * BLOCK));
    }
    anyhow::bail!("no device has target_node {target}: {devices}")
}

/// An online node has exactly the memory that its device brought, and gives it to who asks for it.
fn node_has_memory(guest: &mut Guest, target: u64, size: u64) -> Result<()> {
    let online = guest.check("cat /sys/devices/system/node/has_memory")?;
    let total = guest.check(&format!(
        "sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' {}/meminfo",
        node(target)
    ))?;
    ensure!(
        total.parse::<u64>()? << 10 == size,
        "node {target} has {total} kB of {size} bytes; with memory: {online}"
    );
    // dd fills its buffer with zeros and then waits for somebody to read.
    let pages = guest.check(&format!(
        "rm -f /fifo; mkfifo /fifo; sleep 60 < /fifo & reader=$!; \
         numactl --membind={target} dd if=/dev/zero of=/fifo bs=64M count=1 2>/dev/null & dd=$!; \
         for i in $(seq 100); do n=$(sed -n 's/.*bind:{target} .* N{target}=\\([0-9]*\\).*/\\1/p' /proc/$dd/numa_maps | sort -n | tail -n 1); \
         [ \"${{n:-0}}\" -ge 16384 ] && break; sleep 0.1; done; echo $n; kill $dd $reader"
    ))?;
    ensure!(
        pages.parse::<u64>().is_ok_and(|n| n >= 16384),
        "bound to node {target}, dd has '{pages}' pages there"
    );
    Ok(())
}

fn online_and_check(guest: &mut Guest, plan: &Value, kernel: &str, target: u64, size: u64) -> Result<()> {
    node_has_memory(guest, target, size)?;
    performance_is_as_planned(guest, plan, target)?;
    tier_is(guest, planned_tier(plan, kernel, target)?, target)?;
    let distances = guest.check(&format!("cat {}/distance", node(0)))?;
    let online = guest.check("ls -d /sys/devices/system/node/node* | sed 's/.*node//'")?;
    let at = online.lines().position(|n| n == target.to_string());
    let seen = at
        .and_then(|at| distances.split(' ').nth(at))
        .and_then(|d| d.parse::<u64>().ok());
    let planned = facts::list(plan, "nodes")?[0]["distances"][target.to_string()].as_u64();
    ensure!(
        seen.is_some() && seen == planned,
        "distance 0 to {target}: {distances} of {online}, planned {planned:?}"
    );
    Ok(())
}

fn caches_are_as_planned(guest: &mut Guest) -> Result<()> {
    let cache = format!("{}/memory_side_cache/index1", node(3));
    let seen = guest.check(&format!(
        "cat {cache}/size {cache}/line_size {cache}/indexing {cache}/write_policy"
    ))?;
    // Linux's own numbers: 0 is direct mapped, 0 is write back.
    ensure!(seen == format!("{}\n128\n0\n0", 64 * MIB), "{cache}: {seen}");
    Ok(())
}

/// Namespaces on both DIMMs, without their page structures on the DIMM. Soft-reserved memory shares the numbers of regions:
/// on some kernels it has the first.
fn make_namespaces(guest: &mut Guest) -> Result<()> {
    let list = guest.json("ndctl list -N")?;
    let names = list.as_array().context("no list of namespaces")?;
    ensure!(names.len() == 2, "{list}");
    for namespace in names {
        let name = facts::text(namespace, "dev")?;
        guest.check(&format!("ndctl create-namespace -f -e {name} -m devdax --map=mem"))?;
    }
    Ok(())
}

#[test]
fn pmem_and_soft_reserved_memory_become_nodes_and_go_back() -> Result<()> {
    let config = machine(LAZY);
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    ensure!(guest.check("cat /sys/devices/system/node/possible")? == "0-5");
    ensure!(guest.check("cat /sys/devices/system/node/has_generic_initiator")? == "2");
    for target in [0, 1] {
        performance_is_as_planned(&mut guest, &plan, target)?;
    }
    make_namespaces(&mut guest)?;
    // All devices are character devices first; each becomes memory when daxctl is told so.
    let mut devices = vec![];
    for target in [3, 4, 5] {
        let (device, size) = device_of(&mut guest, target)?;
        guest.check(&format!("test ! -e {}", node(target)))?;
        let changed = guest.json(&format!("daxctl reconfigure-device --mode=system-ram {device}"))?;
        ensure!(
            changed[0]["mode"] == "system-ram" && changed[0]["target_node"] == target,
            "{changed}"
        );
        online_and_check(&mut guest, &plan, LAZY, target, size)?;
        devices.push((target, device));
    }
    ensure!(guest.check("cat /sys/devices/system/node/has_memory")? == "0-1,3-5");
    caches_are_as_planned(&mut guest)?;
    let iomem = guest.check("cat /proc/iomem")?;
    ensure!(iomem.matches("System RAM (kmem)").count() == 3, "{iomem}");
    for (target, device) in devices {
        let changed = guest.json(&format!("daxctl reconfigure-device --force --mode=devdax {device}"))?;
        ensure!(changed[0]["mode"] == "devdax", "{changed}");
        let memory = guest.check("cat /sys/devices/system/node/has_memory")?;
        ensure!(
            !memory.contains(&target.to_string()) || memory == "0-1,4-5",
            "node {target} is left: {memory}"
        );
    }
    ensure!(guest.check("cat /sys/devices/system/node/has_memory")? == "0-1");
    guest.power_off()?;
    Ok(())
}

#[test]
fn a_kernel_that_onlines_by_itself_takes_soft_reserved_memory_and_pmem_on_order() -> Result<()> {
    let config = machine(EAGER).cmdline("memhp_default_state=online_movable");
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    make_namespaces(&mut guest)?;
    // Soft-reserved memory is for kmem as soon as that is there.
    let (device, size) = device_of(&mut guest, 5)?;
    guest.check("modprobe kmem")?;
    online_and_check(&mut guest, &plan, EAGER, 5, size)?;
    let mut devices = vec![device];
    for target in [3, 4] {
        let (device, size) = device_of(&mut guest, target)?;
        let refused = guest.fails(&format!("daxctl reconfigure-device --mode=system-ram {device}"))?;
        ensure!(refused.contains("kernel policy will auto-online memory"), "{refused}");
        guest.check(&format!("daxctl reconfigure-device --force --mode=system-ram {device}"))?;
        online_and_check(&mut guest, &plan, EAGER, target, size)?;
        devices.push(device);
    }
    caches_are_as_planned(&mut guest)?;
    for device in devices {
        guest.check(&format!("daxctl offline-memory {device}"))?;
        guest.check(&format!("daxctl reconfigure-device --mode=devdax {device}"))?;
    }
    ensure!(guest.check("cat /sys/devices/system/node/has_memory")? == "0-1");
    guest.power_off()?;
    Ok(())
}
