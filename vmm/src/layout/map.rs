//! The plan of a machine for people and programs: what `--dry-run` prints.

use super::{
    ACPI_TABLES, DSM_MAILBOX, E820Type, FIRMWARE_END, Gpa, GpaRange, HIGH_MEMORY, IOAPIC, LAPIC, LOW_RAM_END, Layout,
    PAGE,
};
use crate::{
    config::{Bandwidth, Latency, RangeKind, VmConfig},
    topology::{Topology, VcpuPlan},
};
use devices::units::ByteSize;
use serde::{Serialize, Serializer};
use std::{collections::BTreeMap, fmt};

/// The plan of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Guest physical address bits it was planned for.
    pub phys_bits: u8,
    /// Every range that is decoded, in address order.
    pub map: Vec<Entry>,
    /// Top-level memory lines of the guest's `/proc/iomem`.
    pub iomem: Vec<IomemLine>,
    /// Nodes in order.
    pub nodes: Vec<Node>,
    /// vCPUs in order.
    pub vcpus: Vec<VcpuPlan>,
    /// What the HMAT says of each initiator and target; empty: no HMAT.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub performance: Vec<Pair>,
    /// NVDIMMs by slot.
    pub nvdimms: Vec<Nvdimm>,
}

/// One range of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Kind, one word or two.
    pub kind: &'static str,
    /// Proximity domain of memory.
    pub node: Option<u32>,
    /// Type in the memory map handed to the guest.
    pub e820: Option<u32>,
    /// Name of what is there, where there are several.
    pub name: Option<String>,
}

/// A line of `/proc/iomem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IomemLine {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// What the kernel calls it.
    pub name: &'static str,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Proximity domain.
    pub node: u32,
    /// vCPUs, as a list.
    pub vcpus: String,
    /// Number that Linux gives it; none: Linux never hears of it.
    pub linux_node: Option<u32>,
    /// Boot RAM in bytes.
    #[serde(serialize_with = "bytes")]
    pub memory: ByteSize,
    /// Distance to every node of the machine.
    pub distances: BTreeMap<u32, u8>,
}

/// How fast an initiator reaches a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Node with vCPUs or a generic initiator.
    pub initiator: u32,
    /// Node with memory.
    pub target: u32,
    /// Latency of reads.
    pub read_latency: Option<Latency>,
    /// Latency of writes.
    pub write_latency: Option<Latency>,
    /// Bandwidth of reads.
    pub read_bandwidth: Option<Bandwidth>,
    /// Bandwidth of writes.
    pub write_bandwidth: Option<Bandwidth>,
}

/// One NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nvdimm {
    /// Slot.
    pub slot: u8,
    /// Name.
    pub id: String,
    /// NFIT device handle.
    pub handle: u32,
    /// Proximity domain.
    pub node: u32,
    /// First guest physical address of its data.
    pub start: u64,
    /// Bytes of data that the guest sees.
    #[serde(serialize_with = "bytes")]
    pub len: ByteSize,
    /// Where the label area begins in the backing.
    pub label_offset: u64,
    /// Bytes of the label area.
    #[serde(serialize_with = "bytes")]
    pub label_size: ByteSize,
}

fn bytes<S: Serializer>(size: &ByteSize, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(size.0)
}

impl Report {
    /// Puts the plan together.
    pub fn new(config: &VmConfig, topology: &Topology, layout: &Layout, phys_bits: u8) -> Self {
        let line = |(range, name): (GpaRange, _)| IomemLine {
            start: range.start.0,
            last: last(range),
            name,
        };
        let ids: Vec<_> = topology.nodes.iter().map(|n| n.node).collect();
        let distances = |from| ids.iter().map(|to| (*to, topology.distance(from, *to))).collect();
        let order = linux_order(config, topology, layout);
        let nodes = topology.nodes.iter().map(|n| Node {
            node: n.node,
            vcpus: n.vcpus.to_string(),
            linux_node: order
                .iter()
                .position(|node| *node == n.node)
                .and_then(|at| u32::try_from(at).ok()),
            memory: layout.node_ram(n.node),
            distances: distances(n.node),
        });
        let nvdimms = layout.nvdimms.iter().map(|n| Nvdimm {
            slot: n.slot,
            id: config.nvdimm_name(n.slot.into()),
            handle: u32::from(n.slot) + 1,
            node: n.node,
            start: n.spa.start.0,
            len: ByteSize(n.spa.len),
            label_offset: n.label_offset,
            label_size: n.label_size,
        });
        Self {
            phys_bits,
            map: entries(config, layout),
            iomem: layout.iomem().into_iter().map(line).collect(),
            nodes: nodes.collect(),
            vcpus: topology.vcpus.clone(),
            performance: pairs(config),
            nvdimms: nvdimms.collect(),
        }
    }
}

/// Nodes as Linux meets them in the SRAT, which is how it numbers them: with vCPUs, with generic initiators, with memory.
/// Without an SRAT there is node 0.
fn linux_order(config: &VmConfig, topology: &Topology, layout: &Layout) -> Vec<u32> {
    let sorted = |mut nodes: Vec<u32>| {
        nodes.sort_unstable();
        nodes
    };
    let cpus = sorted(topology.vcpus.iter().map(|v| v.node).collect());
    let initiators = sorted(config.generic_initiator.iter().map(|g| g.node).collect());
    let ram = layout.ram.iter().map(|r| r.node);
    let ranges = layout.ranges.iter().filter_map(|r| r.node);
    let windows = layout.hotplug.iter().map(|w| w.node);
    let dimms = layout.nvdimms.iter().map(|n| n.node);
    let memory = sorted(ram.chain(ranges).chain(windows).chain(dimms).collect());
    let mut order = Vec::new();
    for node in cpus.into_iter().chain(initiators).chain(memory) {
        if !order.contains(&node) {
            order.push(node);
        }
    }
    order
}

/// What the HMAT says, pair by pair.
fn pairs(config: &VmConfig) -> Vec<Pair> {
    if !config.has_hmat() {
        return Vec::new();
    }
    let pair = |initiator: u32, target: u32| {
        let p = config.performance(initiator, target);
        Pair {
            initiator,
            target,
            read_latency: p.read_latency,
            write_latency: p.write_latency,
            read_bandwidth: p.read_bandwidth,
            write_bandwidth: p.write_bandwidth,
        }
    };
    let targets = config.memory_targets();
    let initiators = config.initiators();
    initiators
        .iter()
        .flat_map(|i| targets.iter().map(move |t| pair(*i, *t)))
        .collect()
}

fn last(range: GpaRange) -> u64 {
    range.end().0.saturating_sub(1)
}

fn entries(config: &VmConfig, layout: &Layout) -> Vec<Entry> {
    let entry = |range: GpaRange, kind, e820: Option<E820Type>| Entry {
        start: range.start.0,
        last: last(range),
        kind,
        node: None,
        e820: e820.map(|t| t as u32),
        name: None,
    };
    let span = |start: Gpa, end: Gpa| GpaRange::new(start, end.0 - start.0);
    let mut map = vec![
        entry(span(LOW_RAM_END, Gpa(0xa_0000)), "firmware", Some(E820Type::Reserved)),
        entry(span(Gpa(0xf_0000), HIGH_MEMORY), "firmware", Some(E820Type::Reserved)),
        entry(ACPI_TABLES, "ACPI tables", Some(E820Type::Acpi)),
        entry(span(DSM_MAILBOX.start, FIRMWARE_END), "ACPI NVS", Some(E820Type::Nvs)),
        entry(GpaRange::new(IOAPIC, PAGE), "I/O APIC", None),
        entry(GpaRange::new(LAPIC, PAGE), "local APIC", None),
    ];
    for region in &layout.ram {
        let ends = [(Gpa(0), LOW_RAM_END), (FIRMWARE_END, Gpa(u64::MAX))];
        for (from, to) in ends {
            let (start, end) = (region.range.start.max(from), region.range.end().min(to));
            if start < end {
                map.push(Entry {
                    node: Some(region.node),
                    ..entry(span(start, end), "RAM", Some(E820Type::Ram))
                });
            }
        }
    }
    for (range, gsi) in &layout.virtio {
        map.push(Entry {
            name: Some(format!("GSI {gsi}")),
            ..entry(*range, "virtio-mmio", None)
        });
    }
    for nvdimm in &layout.nvdimms {
        let name = Some(config.nvdimm_name(nvdimm.slot.into()));
        let node = Some(nvdimm.node);
        map.push(Entry {
            node,
            name,
            ..entry(nvdimm.spa, "NVDIMM", Some(E820Type::Persistent))
        });
    }
    for range in layout.ranges.iter().filter(|r| r.kind != RangeKind::Ram) {
        map.push(Entry {
            node: range.node,
            name: Some(config.memory_range_name(range.index)),
            ..entry(range.range, range.kind.name(), range.kind.e820())
        });
    }
    for window in &layout.hotplug {
        map.push(Entry {
            node: Some(window.node),
            ..entry(window.range, "hotplug", None)
        });
    }
    map.sort_by_key(|e| e.start);
    map
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "guest physical map ({} address bits)", self.phys_bits)?;
        writeln!(
            f,
            "  {:<29} {:>10}  {:<12} {:<5} {:<5} name",
            "range", "size", "kind", "e820", "node"
        )?;
        let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        for e in &self.map {
            let size = ByteSize(e.last - e.start + 1).to_string();
            let range = format!("{:#x}-{:#x}", e.start, e.last);
            let (e820, node) = (number(e.e820), number(e.node));
            let name = e.name.as_deref().unwrap_or("-");
            writeln!(f, "  {range:<29} {size:>10}  {:<12} {e820:<5} {node:<5} {name}", e.kind)?;
        }
        writeln!(f, "/proc/iomem (memory)")?;
        for IomemLine { start, last, name } in &self.iomem {
            writeln!(f, "  {start:08x}-{last:08x} : {name}")?;
        }
        writeln!(f, "nodes")?;
        for Node {
            node,
            vcpus,
            linux_node,
            memory,
            distances,
        } in &self.nodes
        {
            let vcpus = if vcpus.is_empty() { "none" } else { vcpus };
            let row: Vec<_> = distances.iter().map(|(to, value)| format!("{to}:{value}")).collect();
            writeln!(
                f,
                "  node {node}{}: vCPUs {vcpus}, RAM {memory}, distances {}",
                match linux_node {
                    Some(number) if number != node => format!(" (node {number} to Linux)"),
                    _ => String::new(),
                },
                row.join(" ")
            )?;
        }
        self.write_performance(f)?;
        writeln!(f, "vCPUs")?;
        for VcpuPlan {
            vcpu,
            apic_id,
            node,
            socket,
            core,
            thread,
        } in &self.vcpus
        {
            writeln!(
                f,
                "  vCPU {vcpu}: APIC id {apic_id}, node {node}, socket {socket}, core {core}, thread {thread}"
            )?;
        }
        for Nvdimm {
            slot,
            id,
            handle,
            node,
            start,
            len,
            label_offset,
            label_size,
        } in &self.nvdimms
        {
            let labels = match label_size.0 {
                0 => "no labels".to_owned(),
                _ => format!("labels {label_size} at {label_offset:#x} of the backing"),
            };
            writeln!(
                f,
                "nvdimm {id}: slot {slot}, handle {handle:#x}, node {node}, {len} at {start:#x}, {labels}"
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn write_performance(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.performance.is_empty() {
            writeln!(f, "performance (read/write)")?;
        }
        fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
            value.map_or_else(|| "-".to_owned(), |v| v.to_string())
        }
        for pair in &self.performance {
            writeln!(
                f,
                "  node {} to {}: latency {}/{}, bandwidth {}/{}",
                pair.initiator,
                pair.target,
                or_dash(pair.read_latency),
                or_dash(pair.write_latency),
                or_dash(pair.read_bandwidth),
                or_dash(pair.write_bandwidth)
            )?;
        }
        Ok(())
    }
}
