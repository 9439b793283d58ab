//! SRAT and SLIT: which vCPU and which address belongs to which node, and how far nodes are from each other.
//!
//! Entries are in order of their node, because Linux numbers its nodes as it meets them: processors first, then generic
//! initiators, then memory. NVDIMM ranges are in the SRAT although they are no RAM: this is how Linux learns at boot that their node can exist, and
//! gives a namespace its `target_node`.

use super::{AcpiError, AcpiInitiator, AcpiInput, AcpiNuma, NODE_LIMIT, platform::short_apic_id, sdt};
use devices::units::GpaRange;
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// Distance of a node to itself. ACPI 6.5 5.2.17.
pub(super) const LOCAL_DISTANCE: u8 = 10;
/// No way between two nodes; fills the rows of numbers that no node has.
const UNREACHABLE: u8 = 255;

/// ACPI 6.5 5.2.16.1, Processor Local APIC Affinity.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ApicAffinity {
    kind: u8,
    length: u8,
    proximity_low: u8,
    apic_id: u8,
    flags: U32,
    sapic_eid: u8,
    proximity_high: [u8; 3],
    clock_domain: U32,
}
const _: () = assert!(size_of::<ApicAffinity>() == 16);

/// ACPI 6.5 5.2.16.3, Processor Local x2APIC Affinity.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct X2ApicAffinity {
    kind: u8,
    length: u8,
    reserved: U16,
    proximity: U32,
    apic_id: U32,
    flags: U32,
    clock_domain: U32,
    reserved2: U32,
}
const _: () = assert!(size_of::<X2ApicAffinity>() == 24);

/// ACPI 6.5 5.2.16.2, Memory Affinity.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MemoryAffinity {
    kind: u8,
    length: u8,
    proximity: U32,
    reserved: U16,
    base: U64,
    len: U64,
    reserved2: U32,
    flags: U32,
    reserved3: U64,
}
const _: () = assert!(size_of::<MemoryAffinity>() == 40);

/// ACPI 6.5 5.2.16.6, Generic Initiator Affinity, with the handle of an ACPI device (table 5.65).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct InitiatorAffinity {
    kind: u8,
    length: u8,
    reserved: u8,
    handle_type: u8,
    proximity: U32,
    hid: [u8; 8],
    uid: U32,
    reserved2: U32,
    flags: U32,
    reserved3: U32,
}
const _: () = assert!(size_of::<InitiatorAffinity>() == 32);

bitflags::bitflags! {
    /// Flags of an affinity entry; processors have the first only.
    #[derive(Debug, Clone, Copy)]
    struct AffinityFlags: u32 {
        const ENABLED = 1 << 0;
        const HOT_PLUGGABLE = 1 << 1;
        const NON_VOLATILE = 1 << 2;
    }
}

/// From revision 3 on 32-bit proximity domains count everywhere.
const SRAT_REVISION: u8 = 3;

/// System resource affinity table. ACPI 6.5 5.2.16.
pub(super) fn srat(input: &AcpiInput) -> Vec<u8> {
    // "Table revision" 1 and eight reserved bytes, both for older software.
    let mut body = [1u32.to_le_bytes(), [0; 4], [0; 4]].concat();
    let mut cpus = input.cpus.clone();
    cpus.sort_by_key(|cpu| cpu.node);
    for cpu in cpus {
        body.extend(cpu_affinity(cpu.apic_id, cpu.node));
    }
    let mut initiators = input.initiators.clone();
    initiators.sort_by_key(|initiator| initiator.node);
    for initiator in &initiators {
        body.extend_from_slice(initiator_affinity(initiator).as_bytes());
    }
    for (range, node, flags) in memory(input) {
        body.extend_from_slice(memory_affinity(range, node, flags).as_bytes());
    }
    sdt(*b"SRAT", SRAT_REVISION, &body)
}

/// All memory by node, and by address in it.
fn memory(input: &AcpiInput) -> Vec<(GpaRange, u32, AffinityFlags)> {
    let ram = input.ram.iter().map(|r| (r.range, r.node, AffinityFlags::ENABLED));
    let spas = input.nvdimm.iter().flat_map(|bus| &bus.nfit.spas);
    let dimms = spas.map(|spa| {
        let flags = match spa.kind.is_persistent() {
            true => AffinityFlags::all(),
            false => AffinityFlags::ENABLED | AffinityFlags::HOT_PLUGGABLE,
        };
        (spa.range, spa.proximity, flags)
    });
    let other = input.memory.iter().map(|m| {
        let mut flags = AffinityFlags::ENABLED;
        flags.set(AffinityFlags::HOT_PLUGGABLE, m.hot_pluggable);
        flags.set(AffinityFlags::NON_VOLATILE, m.non_volatile);
        (m.range, m.node, flags)
    });
    let mut all: Vec<_> = ram.chain(dimms).chain(other).collect();
    all.sort_by_key(|(range, node, _)| (*node, range.start));
    all
}

fn initiator_affinity(initiator: &AcpiInitiator) -> InitiatorAffinity {
    InitiatorAffinity {
        kind: 5,
        length: 32,
        reserved: 0,
        handle_type: 0,
        proximity: initiator.node.into(),
        hid: initiator.hid,
        uid: initiator.uid.into(),
        reserved2: 0.into(),
        flags: AffinityFlags::ENABLED.bits().into(),
        reserved3: 0.into(),
    }
}

fn cpu_affinity(apic_id: u32, node: u32) -> Vec<u8> {
    let flags = AffinityFlags::ENABLED.bits().into();
    match short_apic_id(apic_id) {
        Some(apic_id) => {
            let [proximity_low, high @ ..] = node.to_le_bytes();
            ApicAffinity {
                kind: 0,
                length: 16,
                proximity_low,
                apic_id,
                flags,
                sapic_eid: 0,
                proximity_high: high,
                clock_domain: 0.into(),
            }
            .as_bytes()
            .to_vec()
        }
        None => X2ApicAffinity {
            kind: 2,
            length: 24,
            reserved: 0.into(),
            proximity: node.into(),
            apic_id: apic_id.into(),
            flags,
            clock_domain: 0.into(),
            reserved2: 0.into(),
        }
        .as_bytes()
        .to_vec(),
    }
}

fn memory_affinity(range: GpaRange, node: u32, flags: AffinityFlags) -> MemoryAffinity {
    MemoryAffinity {
        kind: 1,
        length: 40,
        proximity: node.into(),
        reserved: 0.into(),
        base: range.start.0.into(),
        len: range.len.into(),
        reserved2: 0.into(),
        flags: flags.bits().into(),
        reserved3: 0.into(),
    }
}

/// System locality information table: rows and columns are proximity domains from 0 to the largest. ACPI 6.5 5.2.17.
pub(super) fn slit(numa: &AcpiNuma) -> Vec<u8> {
    let count = numa.nodes.iter().max().map_or(0, |max| max + 1);
    let mut body = u64::from(count).to_le_bytes().to_vec();
    for from in 0..count {
        body.extend((0..count).map(|to| match distance(numa, from, to) {
            Some(value) => value,
            None if from == to => LOCAL_DISTANCE,
            None => UNREACHABLE,
        }));
    }
    sdt(*b"SLIT", 1, &body)
}

fn distance(numa: &AcpiNuma, from: u32, to: u32) -> Option<u8> {
    let index = |node| numa.nodes.iter().position(|n| *n == node);
    numa.distances.get(index(from)?)?.get(index(to)?).copied()
}

/// Whether SRAT and SLIT would hold together: Linux drops a table with one bad entry whole.
pub(super) fn check(numa: &AcpiNuma, input: &AcpiInput) -> Result<(), AcpiError> {
    if let Some(node) = numa.nodes.iter().find(|node| **node >= NODE_LIMIT) {
        return Err(AcpiError::NodeNumber(*node));
    }
    let cpus = input
        .cpus
        .iter()
        .enumerate()
        .map(|(i, cpu)| (format!("vCPU {i}"), cpu.node));
    let ram = input
        .ram
        .iter()
        .map(|region| (format!("RAM {}", region.range), region.node));
    let spas = input.nvdimm.iter().flat_map(|bus| &bus.nfit.spas);
    let nvdimms = spas.map(|spa| (format!("SPA range {}", spa.range), spa.proximity));
    let other = input.memory.iter().map(|m| (format!("memory {}", m.range), m.node));
    let initiators = input
        .initiators
        .iter()
        .enumerate()
        .map(|(i, initiator)| (format!("generic initiator {i}"), initiator.node));
    let targets = input.hmat.iter().flat_map(|plan| plan.targets.iter().map(|t| t.node));
    let performance = targets
        .chain(input.hmat.iter().flat_map(|plan| plan.initiators.iter().copied()))
        .map(|node| ("the HMAT".to_owned(), node));
    for (what, node) in cpus
        .chain(ram)
        .chain(nvdimms)
        .chain(other)
        .chain(initiators)
        .chain(performance)
    {
        if !numa.nodes.contains(&node) {
            return Err(AcpiError::UnknownNode {
                what,
                node,
                nodes: numa.nodes.clone(),
            });
        }
    }
    for &from in &numa.nodes {
        for &to in &numa.nodes {
            let value = distance(numa, from, to);
            if !value.is_some_and(|v| {
                if from == to {
                    v == LOCAL_DISTANCE
                } else {
                    v > LOCAL_DISTANCE
                }
            }) {
                return Err(AcpiError::Distance { from, to, value });
            }
        }
    }
    Ok(())
}
