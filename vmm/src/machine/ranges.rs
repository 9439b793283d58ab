//! Memory ranges and nodes in the machine: what the ACPI tables say of them, and the memory behind them.

use super::build::BuildError;
use crate::{
    acpi::{AcpiInitiator, AcpiMemory},
    config::{GenericInitiatorConfig, MemoryConfig, MemoryRangeConfig, RangeKind, VmConfig, probe::BackingFacts},
    hv::Vm,
    layout::{Layout, VirtioMemoryKind},
    memory::{Access, GuestMap, backing, ram},
};
use devices::units::ByteSize;

/// Ranges and windows that belong to nodes.
pub(super) fn acpi_memory(layout: &Layout) -> Vec<AcpiMemory> {
    let ranges = layout.ranges.iter().filter(|r| r.kind != RangeKind::Ram);
    let ranges = ranges.filter_map(|r| {
        let persistent = matches!(r.kind, RangeKind::Pmem | RangeKind::Pram);
        Some(AcpiMemory {
            range: r.range,
            node: r.node?,
            // As the range of an NVDIMM: memory for the kernel to add when it is told to.
            hot_pluggable: persistent,
            non_volatile: persistent,
        })
    });
    let windows = layout.hotplug.iter().map(|w| AcpiMemory {
        range: w.range,
        node: w.node,
        hot_pluggable: true,
        non_volatile: false,
    });
    // As firmware does for memory that comes later: the kernel knows its node, and how far addresses reach.
    let virtio = layout.virtio_memory.iter().map(|device| AcpiMemory {
        range: device.range,
        node: device.node,
        hot_pluggable: true,
        non_volatile: device.kind == VirtioMemoryKind::Pmem,
    });
    ranges.chain(windows).chain(virtio).collect()
}

pub(super) fn acpi_initiators(config: &VmConfig) -> Vec<AcpiInitiator> {
    let initiator = |(at, g): (usize, &GenericInitiatorConfig)| AcpiInitiator {
        node: g.node,
        hid: g.hid_bytes().unwrap_or_default(),
        uid: config.generic_initiator_uid(at),
    };
    config.generic_initiator.iter().enumerate().map(initiator).collect()
}

/// Memory behind the ranges that are not RAM.
pub(super) fn map(config: &VmConfig, layout: &Layout, vm: &Vm, map: &mut GuestMap) -> Result<(), BuildError> {
    // A pool of huge pages is for RAM; ranges need not be whole ones.
    let memory = MemoryConfig {
        hugepages: None,
        ..config.memory.clone()
    };
    let with_memory = layout
        .ranges
        .iter()
        .filter(|r| r.kind.has_memory() && r.kind != RangeKind::Ram);
    for range in with_memory {
        let backing = config
            .memory_range
            .get(range.index)
            .and_then(MemoryRangeConfig::backing);
        let mapping = match backing {
            None => ram::allocate(range.range, &memory)?,
            Some(backing) => {
                let facts = BackingFacts {
                    size: ByteSize(range.range.len),
                    page: config.memory_range_page(range.index),
                };
                let opened = backing::open(&backing, facts).map_err(|source| BuildError::Range {
                    id: config.memory_range_name(range.index),
                    source,
                })?;
                opened.mapping
            }
        };
        map.add(vm, range.range.start, range.range.len, mapping, Access::ReadWrite)?;
    }
    Ok(())
}
