//! The plan of a machine for people and programs: what `--dry-run` prints.

use super::{
    ACPI_TABLES, DSM_MAILBOX, E820Type, FIRMWARE_END, Gpa, GpaRange, HIGH_MEMORY, IOAPIC, LAPIC, LOW_RAM_END, Layout,
    PAGE,
};
use crate::{
    config::VmConfig,
    topology::{Topology, VcpuPlan},
};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// The plan of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// NVDIMMs by slot.
    pub nvdimms: Vec<Nvdimm>,
}

/// One range of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Kind, one word or two.
    pub kind: Cow<'static, str>,
    /// Proximity domain of memory.
    pub node: Option<u32>,
    /// Type in the memory map handed to the guest.
    pub e820: Option<u32>,
    /// Name of what is there, where there are several.
    pub name: Option<String>,
}

/// A line of `/proc/iomem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IomemLine {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// What the kernel calls it.
    pub name: Cow<'static, str>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Proximity domain.
    pub node: u32,
    /// vCPUs, as a list.
    pub vcpus: String,
    /// Boot RAM in bytes.
    #[serde(with = "bytes")]
    pub memory: ByteSize,
    /// Distance to every node of the machine.
    pub distances: BTreeMap<u32, u8>,
}

/// One NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(with = "bytes")]
    pub len: ByteSize,
    /// Where the label area begins in the backing.
    pub label_offset: u64,
    /// Bytes of the label area.
    #[serde(with = "bytes")]
    pub label_size: ByteSize,
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
        let nodes = topology.nodes.iter().map(|n| Node {
            node: n.node,
            vcpus: n.vcpus.to_string(),
            memory: n.memory,
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
            nvdimms: nvdimms.collect(),
        }
    }
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
            memory,
            distances,
        } in &self.nodes
        {
            let vcpus = if vcpus.is_empty() { "none" } else { vcpus };
            let row: Vec<_> = distances.iter().map(|(to, value)| format!("{to}:{value}")).collect();
            writeln!(
                f,
                "  node {node}: vCPUs {vcpus}, RAM {memory}, distances {}",
                row.join(" ")
            )?;
        }
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
