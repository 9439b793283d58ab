//! The plan of a machine for people and programs: what `--dry-run` prints.

use super::{
    ACPI_TABLES, E820Type, FIRMWARE_END, Gpa, GpaRange, HIGH_MEMORY, IOAPIC, LAPIC, LOW_RAM_END, Layout,
    MemoryPlacement, PAGE, SpaPlacement, VirtioMemoryKind,
};
use crate::{
    config::{Bandwidth, Latency, RangeKind, VmConfig},
    topology::{Topology, VcpuPlan},
};
use devices::{nvdimm::plan::SpaKind, units::ByteSize};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt};
use utoipa::ToSchema;

/// The plan of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance: Vec<Pair>,
    /// Memory devices in address order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_devices: Vec<MemoryDevice>,
    /// NVDIMMs by slot.
    pub nvdimms: Vec<Nvdimm>,
    /// SPA ranges in address order.
    pub regions: Vec<Region>,
}

/// One range of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Kind, one word or two.
    #[schema(value_type = String)]
    pub kind: Cow<'static, str>,
    /// Proximity domain of memory.
    pub node: Option<u32>,
    /// Type in the memory map handed to the guest.
    pub e820: Option<u32>,
    /// Name of what is there, where there are several.
    pub name: Option<String>,
}

/// A line of `/proc/iomem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IomemLine {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// What the kernel calls it.
    #[schema(value_type = String)]
    pub name: Cow<'static, str>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Proximity domain.
    pub node: u32,
    /// vCPUs, as a list.
    pub vcpus: String,
    /// Number that Linux gives it; none: Linux never hears of it.
    pub linux_node: Option<u32>,
    /// Boot RAM in bytes.
    #[serde(with = "bytes")]
    #[schema(value_type = u64)]
    pub memory: ByteSize,
    /// Distance to every node of the machine.
    #[schema(value_type = BTreeMap<String, u8>)]
    pub distances: BTreeMap<u32, u8>,
}

/// How fast an initiator reaches a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// One memory device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryDevice {
    /// Slot.
    pub slot: u16,
    /// Name.
    pub id: String,
    /// Proximity domain.
    pub node: u32,
    /// First guest physical address.
    pub start: u64,
    /// Bytes.
    #[serde(with = "bytes")]
    #[schema(value_type = u64)]
    pub len: ByteSize,
}

/// One NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nvdimm {
    /// Slot.
    pub slot: u8,
    /// Name.
    pub id: String,
    /// Number of its root device.
    pub bus: u8,
    /// NFIT device handle.
    pub handle: u32,
    /// Proximity domain of its own range.
    pub node: u32,
    /// First guest physical address of its own range, if it has one.
    pub start: Option<u64>,
    /// Bytes of data.
    #[serde(with = "bytes")]
    #[schema(value_type = u64)]
    pub len: ByteSize,
    /// Where the label area begins in the backing.
    pub label_offset: u64,
    /// Bytes of the label area.
    #[serde(with = "bytes")]
    #[schema(value_type = u64)]
    pub label_size: ByteSize,
}

/// One SPA range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Region {
    /// Name.
    pub name: String,
    /// Number of the root device that describes it.
    pub bus: u8,
    /// Index of its structure in the NFIT.
    pub range_index: u16,
    /// What it is.
    #[schema(value_type = String)]
    pub kind: Cow<'static, str>,
    /// First guest physical address.
    pub start: u64,
    /// Bytes.
    #[serde(with = "bytes")]
    #[schema(value_type = u64)]
    pub len: ByteSize,
    /// Proximity domain.
    pub node: u32,
    /// Bytes of a line, where DIMMs take turns.
    pub line: Option<u32>,
    /// Slots of its DIMMs in the order of their lines.
    pub dimms: Vec<u8>,
}

fn kind(kind: SpaKind) -> &'static str {
    match kind {
        SpaKind::Persistent => "persistent memory",
        SpaKind::Volatile => "volatile memory",
        SpaKind::Control => "control region",
        SpaKind::VolatileDisk => "volatile disk",
        SpaKind::VolatileCd => "volatile CD",
        SpaKind::PersistentDisk => "persistent disk",
        SpaKind::PersistentCd => "persistent CD",
    }
}

/// The range that shows all of the DIMM in `slot` and nothing else.
fn own_range(layout: &Layout, slot: u8) -> Option<GpaRange> {
    let plain = u16::from(slot + 1) * 2;
    let own = |spa: &&SpaPlacement| spa.plan.index == plain && matches!(&spa.plan.mappings[..], [m] if m.slot == slot);
    layout.spas.iter().find(own).map(|spa| spa.plan.range)
}

/// A size as a plain number of bytes.
mod bytes {
    use super::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(size: &ByteSize, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(size.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<ByteSize, D::Error> {
        u64::deserialize(d).map(ByteSize)
    }
}

impl Report {
    /// Puts the plan together.
    pub fn new(config: &VmConfig, topology: &Topology, layout: &Layout, phys_bits: u8) -> Self {
        let line = |(range, name): (GpaRange, &'static str)| IomemLine {
            start: range.start.0,
            last: last(range),
            name: name.into(),
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
            bus: n.bus,
            handle: config.nvdimm_handle(n.slot.into()),
            node: config.nvdimm.get(usize::from(n.slot)).map_or(0, |n| n.node),
            start: own_range(layout, n.slot).map(|range| range.start.0),
            len: ByteSize(n.capacity),
            label_offset: n.label_offset,
            label_size: n.label_size,
        });
        let regions = layout.spas.iter().map(|SpaPlacement { bus, name, plan }| Region {
            name: name.clone(),
            bus: *bus,
            range_index: plan.index,
            kind: kind(plan.kind).into(),
            start: plan.range.start.0,
            len: ByteSize(plan.range.len),
            node: plan.proximity,
            line: plan.interleave.map(|i| i.line),
            dimms: plan.mappings.iter().map(|m| m.slot).collect(),
        });
        Self {
            phys_bits,
            map: entries(config, layout),
            iomem: layout.iomem().into_iter().map(line).collect(),
            nodes: nodes.collect(),
            vcpus: topology.vcpus.clone(),
            performance: pairs(config),
            memory_devices: layout.memory.iter().map(memory_device).collect(),
            nvdimms: nvdimms.collect(),
            regions: regions.collect(),
        }
    }
}

fn memory_device(placed: &MemoryPlacement) -> MemoryDevice {
    MemoryDevice {
        slot: placed.slot,
        id: placed.id.clone(),
        node: placed.node,
        start: placed.range.start.0,
        len: ByteSize(placed.range.len),
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
    let dimms = layout.spas.iter().map(|spa| spa.plan.proximity);
    let virtio = layout.virtio_memory.iter().map(|device| device.node);
    let memory = sorted(ram.chain(ranges).chain(windows).chain(dimms).chain(virtio).collect());
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
    let entry = |range: GpaRange, kind: &'static str, e820: Option<E820Type>| Entry {
        start: range.start.0,
        last: last(range),
        kind: kind.into(),
        node: None,
        e820: e820.map(|t| t as u32),
        name: None,
    };
    let span = |start: Gpa, end: Gpa| GpaRange::new(start, end.0 - start.0);
    let mut map = vec![
        entry(span(LOW_RAM_END, Gpa(0xa_0000)), "firmware", Some(E820Type::Reserved)),
        entry(span(Gpa(0xf_0000), HIGH_MEMORY), "firmware", Some(E820Type::Reserved)),
        entry(ACPI_TABLES, "ACPI tables", Some(E820Type::Acpi)),
        entry(GpaRange::new(IOAPIC, PAGE), "I/O APIC", None),
        entry(GpaRange::new(LAPIC, PAGE), "local APIC", None),
    ];
    for (range, kind, what) in layout.firmware_data() {
        map.push(entry(range, what, Some(kind)));
    }
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
    for SpaPlacement { name, plan, .. } in &layout.spas {
        let e820 = plan.kind.is_persistent().then_some(E820Type::Persistent);
        let what = if plan.kind.is_virtual() {
            "virtual disk"
        } else {
            "NVDIMM"
        };
        map.push(Entry {
            node: Some(plan.proximity),
            name: Some(name.clone()),
            ..entry(plan.range, what, e820)
        });
    }
    for range in layout.ranges.iter().filter(|r| r.kind != RangeKind::Ram) {
        map.push(Entry {
            node: range.node,
            name: Some(config.memory_range_name(range.index)),
            ..entry(range.range, range.kind.name(), range.kind.e820())
        });
    }
    for placed in &layout.memory {
        map.push(Entry {
            node: Some(placed.node),
            name: Some(placed.id.clone()),
            ..entry(placed.range, "memory device", None)
        });
    }
    for device in &layout.virtio_memory {
        let (what, name) = match device.kind {
            VirtioMemoryKind::Pmem => ("virtio-pmem", config.virtio_pmem_name(device.index)),
            VirtioMemoryKind::Mem => ("virtio-mem", config.virtio_mem_name(device.index)),
        };
        map.push(Entry {
            node: Some(device.node),
            name: Some(name),
            ..entry(device.range, what, None)
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
        for MemoryDevice {
            slot,
            id,
            node,
            start,
            len,
        } in &self.memory_devices
        {
            writeln!(f, "memory device {id}: slot {slot}, node {node}, {len} at {start:#x}")?;
        }
        for Nvdimm {
            slot,
            id,
            bus,
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
            let bus = if *bus == 0 {
                String::new()
            } else {
                format!("bus {bus}, ")
            };
            let place = match start {
                Some(start) => format!("node {node}, {len} at {start:#x}"),
                None => format!("{len}, no range of its own"),
            };
            writeln!(
                f,
                "nvdimm {id}: {bus}slot {slot}, handle {handle:#x}, {place}, {labels}"
            )?;
        }
        for region in self.regions.iter().filter(|region| region.dimms.len() != 1) {
            let (len, start, node) = (region.len, region.start, region.node);
            write!(f, "{} {}: {len} at {start:#x}, node {node}", region.kind, region.name)?;
            match region.line {
                Some(line) => {
                    let slots: Vec<_> = region.dimms.iter().map(u8::to_string).collect();
                    writeln!(
                        f,
                        ", lines of {} over slots {}",
                        ByteSize(line.into()),
                        slots.join(", ")
                    )?;
                }
                None => writeln!(f)?,
            }
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
