//! HMAT, revision 2: how fast which node reaches whose memory, and what caches stand before it. ACPI 6.5 5.2.29.
//!
//! Every target has a proximity domain structure, with its attached initiator where there is one: Linux then measures the
//! node by that initiator alone, else by the best one. Values of reads and writes are one "access" structure where they
//! are equal for every pair, else two. A pair of which nothing is known has the entry 0.

use super::sdt;
use crate::{
    config::{Bandwidth, Latency, MemoryCacheConfig, Performance, VmConfig, common_unit},
    topology::Topology,
};
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// Latencies are in picoseconds from revision 2 on, and memory is named by its domain and not by addresses.
const HMAT_REVISION: u8 = 2;

/// All that an HMAT says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HmatPlan {
    /// Nodes that reach memory, in order of their number.
    pub initiators: Vec<u32>,
    /// Nodes with memory, in order of their number.
    pub targets: Vec<HmatTarget>,
    /// A row for each initiator with a value for each target.
    pub performance: Vec<Vec<Performance>>,
    /// Memory-side caches.
    pub caches: Vec<MemoryCacheConfig>,
}

/// A node with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HmatTarget {
    /// Proximity domain.
    pub node: u32,
    /// Initiator whose memory controller it is.
    pub initiator: Option<u32>,
}

impl HmatPlan {
    /// What a valid configuration says; none when it says nothing.
    pub fn new(config: &VmConfig, topology: &Topology) -> Option<Self> {
        if !config.has_hmat() {
            return None;
        }
        let known = |node: &u32| topology.nodes.iter().any(|n| n.node == *node);
        let initiators: Vec<u32> = config.initiators().into_iter().filter(known).collect();
        let targets: Vec<_> = config
            .memory_targets()
            .into_iter()
            .filter(known)
            .map(|node| HmatTarget {
                node,
                initiator: config.attached_initiator(node),
            })
            .collect();
        let row = |i: &u32| targets.iter().map(|t| config.performance(*i, t.node)).collect();
        let mut caches = config.memory_cache.clone();
        caches.sort_by_key(|c| (c.node, c.level));
        Some(Self {
            performance: initiators.iter().map(row).collect(),
            initiators,
            targets,
            caches,
        })
    }
}

/// ACPI 6.5 5.2.29.3, Memory Proximity Domain Attributes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ProximityDomain {
    kind: U16,
    reserved: U16,
    length: U32,
    flags: U16,
    reserved2: U16,
    initiator: U32,
    memory: U32,
    reserved3: [u8; 20],
}
const _: () = assert!(size_of::<ProximityDomain>() == 40);

/// The attached initiator is named.
const INITIATOR_VALID: u16 = 1;

/// ACPI 6.5 5.2.29.4, System Locality Latency and Bandwidth Information, before its lists.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Locality {
    kind: U16,
    reserved: U16,
    length: U32,
    /// Memory itself, no cache level.
    flags: u8,
    data_type: u8,
    min_transfer: u8,
    reserved2: u8,
    initiators: U32,
    targets: U32,
    reserved3: U32,
    base_unit: U64,
}
const _: () = assert!(size_of::<Locality>() == 32);

/// ACPI 6.5 5.2.29.5, Memory Side Cache Information, without SMBIOS handles.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MemorySideCache {
    kind: U16,
    reserved: U16,
    length: U32,
    memory: U32,
    reserved2: U32,
    size: U64,
    attributes: U32,
    reserved3: U16,
    handles: U16,
}
const _: () = assert!(size_of::<MemorySideCache>() == 32);

/// Data types of the locality structure: of reads and writes, of reads, of writes. ACPI 6.5 table 5.146.
const LATENCIES: [u8; 3] = [0, 1, 2];
const BANDWIDTHS: [u8; 3] = [3, 4, 5];

/// Heterogeneous memory attribute table.
pub(super) fn table(plan: &HmatPlan) -> Vec<u8> {
    let mut body = vec![0; 4];
    for target in &plan.targets {
        body.extend_from_slice(proximity_domain(*target).as_bytes());
    }
    let latency = |read: fn(&Performance) -> Option<Latency>| matrix(plan, move |p| Some(read(p)?.picoseconds()));
    let bandwidth = |read: fn(&Performance) -> Option<Bandwidth>| matrix(plan, move |p| Some(read(p)?.megabytes()));
    let kinds = [
        (LATENCIES, latency(|p| p.read_latency), latency(|p| p.write_latency)),
        (
            BANDWIDTHS,
            bandwidth(|p| p.read_bandwidth),
            bandwidth(|p| p.write_bandwidth),
        ),
    ];
    for ([access, read_type, write_type], reads, writes) in kinds {
        if reads == writes {
            body.extend(locality(plan, access, &reads));
        } else {
            body.extend(locality(plan, read_type, &reads));
            body.extend(locality(plan, write_type, &writes));
        }
    }
    for cache in &plan.caches {
        body.extend_from_slice(memory_side_cache(plan, cache).as_bytes());
    }
    sdt(*b"HMAT", HMAT_REVISION, &body)
}

fn proximity_domain(target: HmatTarget) -> ProximityDomain {
    ProximityDomain {
        kind: 0.into(),
        reserved: 0.into(),
        length: 40.into(),
        flags: target.initiator.map_or(0, |_| INITIATOR_VALID).into(),
        reserved2: 0.into(),
        initiator: target.initiator.unwrap_or(0).into(),
        memory: target.node.into(),
        reserved3: [0; 20],
    }
}

/// One value for each pair, row by row; 0 where nothing is known.
fn matrix(plan: &HmatPlan, value: impl Fn(&Performance) -> Option<u32>) -> Vec<u32> {
    let all = plan.performance.iter().flatten();
    all.map(|p| value(p).unwrap_or(0)).collect()
}

/// Nothing when no pair has a value.
fn locality(plan: &HmatPlan, data_type: u8, values: &[u32]) -> Vec<u8> {
    let Some(unit) = common_unit(values.iter().copied().filter(|v| *v != 0)) else {
        return Vec::new();
    };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (initiators, targets) = (plan.initiators.len(), plan.targets.len());
    let length = size_of::<Locality>() + 4 * (initiators + targets) + 2 * initiators * targets;
    let head = Locality {
        kind: 1.into(),
        reserved: 0.into(),
        length: count(length).into(),
        flags: 0,
        data_type,
        min_transfer: 0,
        reserved2: 0,
        initiators: count(initiators).into(),
        targets: count(targets).into(),
        reserved3: 0.into(),
        base_unit: u64::from(unit).into(),
    };
    let mut out = head.as_bytes().to_vec();
    let domains = plan
        .initiators
        .iter()
        .copied()
        .chain(plan.targets.iter().map(|t| t.node));
    domains.for_each(|node| out.extend(node.to_le_bytes()));
    for value in values {
        // Validation refused what does not fit; an unreachable pair would be the one honest thing to say of the rest.
        out.extend(u16::try_from(value / unit).unwrap_or(u16::MAX).to_le_bytes());
    }
    out
}

fn memory_side_cache(plan: &HmatPlan, cache: &MemoryCacheConfig) -> MemorySideCache {
    let levels = plan.caches.iter().filter(|c| c.node == cache.node).count();
    let levels = u32::try_from(levels).unwrap_or(u32::MAX);
    let attributes = levels & 0xf
        | u32::from(cache.level & 0xf) << 4
        | u32::from(cache.associativity as u8) << 8
        | u32::from(cache.write_policy as u8) << 12
        | u32::from(cache.line) << 16;
    MemorySideCache {
        kind: 2.into(),
        reserved: 0.into(),
        length: 32.into(),
        memory: cache.node.into(),
        reserved2: 0.into(),
        size: cache.size.0.into(),
        attributes: attributes.into(),
        reserved3: 0.into(),
        handles: 0.into(),
    }
}

#[cfg(test)]
mod tests;
