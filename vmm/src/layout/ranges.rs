//! RAM around what is placed by hand, the ranges themselves, and windows for memory that comes later.
//!
//! In this order: ranges with `start=` stand where they are told; the nodes' RAM is packed around them; ranges without
//! `start=` follow above all of it, each on a whole gigabyte; NVDIMMs stand above those, and windows above everything.

use super::{
    ABOVE_4G, E820Type, FIRMWARE_END, Gpa, GpaRange, Layout, LayoutError, MMIO_HOLE, NVDIMM_ALIGN, RamRegion, SECTION,
    below_limit,
};
use crate::{
    config::{MemoryRangeConfig, RangeKind, VmConfig},
    topology::Topology,
};
use devices::units::ByteSize;

/// A range of `--memory-range` at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangePlacement {
    /// Position in the configuration.
    pub index: usize,
    /// Where.
    pub range: GpaRange,
    /// What the guest is told.
    pub kind: RangeKind,
    /// Proximity domain, if it has one.
    pub node: Option<u32>,
}

/// Addresses kept free for memory that is added to a node while the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotplugWindow {
    /// Where; on whole gigabytes.
    pub range: GpaRange,
    /// Proximity domain.
    pub node: u32,
}

/// RAM and ranges.
pub(super) struct Placed {
    pub ram: Vec<RamRegion>,
    pub ranges: Vec<RangePlacement>,
    pub mirrored: Vec<GpaRange>,
}

impl RangeKind {
    /// The type in the memory map; a hole is not in it.
    pub fn e820(self) -> Option<E820Type> {
        Some(match self {
            Self::Ram => E820Type::Ram,
            Self::Reserved => E820Type::Reserved,
            Self::Unusable => E820Type::Unusable,
            Self::SoftReserved => E820Type::SoftReserved,
            Self::Pmem => E820Type::Persistent,
            Self::Pram => E820Type::PersistentLegacy,
            Self::Hole => return None,
        })
    }
}

/// Places RAM and ranges.
pub(super) fn place(config: &VmConfig, topology: &Topology, phys_bits: u8) -> Result<Placed, LayoutError> {
    let mut ranges = fixed(config, phys_bits)?;
    let mut obstacles: Vec<GpaRange> = ranges.iter().map(|r| r.range).chain([MMIO_HOLE]).collect();
    obstacles.sort_unstable();
    let mut ram = place_ram(topology, &obstacles, phys_bits)?;
    check_pages(config, &ram)?;
    let mut mirrored = mirrored_ram(config, &ram);

    let ends = ram.iter().map(|r| r.range).chain(ranges.iter().map(|r| r.range));
    let mut next = ends
        .map(|r| r.end().0)
        .fold(ABOVE_4G.0, u64::max)
        .next_multiple_of(SECTION);
    for (index, wanted) in config
        .memory_range
        .iter()
        .enumerate()
        .filter(|(_, r)| r.start.is_none())
    {
        let range = below_limit(phys_bits, next.next_multiple_of(NVDIMM_ALIGN), wanted.size.0, || {
            name(config, index)
        })?;
        next = range.end().0;
        ranges.push(placement(index, range, wanted));
    }
    for placed in &ranges {
        if placed.kind == RangeKind::Ram {
            ram.push(RamRegion {
                range: placed.range,
                node: placed.node.unwrap_or(0),
            });
        }
        if config.memory_range.get(placed.index).is_some_and(|r| r.mirror) {
            mirrored.push(placed.range);
        }
    }
    ram.sort_by_key(|r| r.range.start);
    ranges.sort_by_key(|r| r.range.start);
    mirrored.sort_unstable();
    Ok(Placed { ram, ranges, mirrored })
}

fn name(config: &VmConfig, index: usize) -> String {
    format!("memory range {}", config.memory_range_name(index))
}

fn placement(index: usize, range: GpaRange, wanted: &MemoryRangeConfig) -> RangePlacement {
    RangePlacement {
        index,
        range,
        kind: wanted.kind,
        node: wanted.target_node(),
    }
}

/// Ranges with `start=`, none over another or over what every machine has.
fn fixed(config: &VmConfig, phys_bits: u8) -> Result<Vec<RangePlacement>, LayoutError> {
    let mut taken = vec![
        (
            GpaRange::new(Gpa(0), FIRMWARE_END.0),
            "the firmware's memory".to_owned(),
        ),
        (MMIO_HOLE, "the devices below 4 GiB".to_owned()),
    ];
    let mut placed = Vec::new();
    for (index, wanted) in config.memory_range.iter().enumerate() {
        let Some(start) = wanted.start else { continue };
        let range = below_limit(phys_bits, start.0, wanted.size.0, || name(config, index))?;
        if let Some((other, what)) = taken.iter().find(|(other, _)| other.overlaps(&range)) {
            return Err(LayoutError::Overlap {
                what: name(config, index),
                range,
                other: *other,
                owner: what.clone(),
            });
        }
        taken.push((range, name(config, index)));
        placed.push(placement(index, range, wanted));
    }
    Ok(placed)
}

/// RAM node by node from 0, around the obstacles, which are in order and apart.
fn place_ram(topology: &Topology, obstacles: &[GpaRange], phys_bits: u8) -> Result<Vec<RamRegion>, LayoutError> {
    let mut ram = Vec::new();
    let mut start = 0_u64;
    let with_memory = topology.nodes.iter().filter(|n| n.memory.0 != 0);
    for node in with_memory {
        let mut left = node.memory.0;
        // An obstacle may have brought the node before it out of step with sections, which belong to one node each.
        start = start.checked_next_multiple_of(SECTION).unwrap_or(start);
        while left != 0 {
            let next = obstacles.iter().find(|o| o.end().0 > start);
            let below = next.map_or(u64::MAX, |o| o.start.0.saturating_sub(start));
            if let (0, Some(obstacle)) = (below, next) {
                start = obstacle.end().0;
                continue;
            }
            let len = left.min(below);
            let range = below_limit(phys_bits, start, len, || format!("the RAM of node {}", node.node))?;
            ram.push(RamRegion { range, node: node.node });
            start = range.end().0;
            left -= len;
        }
    }
    Ok(ram)
}

/// RAM in huge pages has to be whole ones, whatever lies between.
fn check_pages(config: &VmConfig, ram: &[RamRegion]) -> Result<(), LayoutError> {
    let Some(page) = config.memory.hugepages.filter(|p| p.0 != 0) else {
        return Ok(());
    };
    match ram.iter().find(|r| !r.range.len.is_multiple_of(page.0)) {
        Some(region) => Err(LayoutError::Pages {
            range: region.range,
            page,
        }),
        None => Ok(()),
    }
}

/// The first `mirror=` bytes of each node's RAM.
fn mirrored_ram(config: &VmConfig, ram: &[RamRegion]) -> Vec<GpaRange> {
    let mut mirrored = Vec::new();
    for numa in &config.numa {
        let mut left = numa.mirror.0;
        for region in ram.iter().filter(|r| r.node == numa.node) {
            let len = left.min(region.range.len);
            if len != 0 {
                mirrored.push(GpaRange::new(region.range.start, len));
            }
            left -= len;
        }
    }
    mirrored
}

impl Layout {
    /// First address above all RAM and all ranges, on a whole section and at or above 4 GiB: where NVDIMMs begin.
    ///
    /// Kernels before 5.3 fail on persistent memory that shares a section with RAM.
    pub fn memory_end(&self) -> u64 {
        let ram = self.ram.iter().map(|r| r.range);
        let ranges = self.ranges.iter().map(|r| r.range);
        let end = ram.chain(ranges).map(|r| r.end().0).fold(ABOVE_4G.0, u64::max);
        end.next_multiple_of(SECTION)
    }

    /// Adds the windows of the nodes above everything, in order of the nodes.
    pub(super) fn place_windows(&mut self, config: &VmConfig, phys_bits: u8) -> Result<(), LayoutError> {
        let mut nodes: Vec<_> = config.numa.iter().filter(|n| n.hotplug.0 != 0).collect();
        nodes.sort_by_key(|n| n.node);
        let dimms = self.spas.iter().map(|spa| spa.plan.range.end().0);
        let mut next = dimms.fold(self.memory_end(), u64::max);
        for numa in nodes {
            let what = || format!("the hotplug window of node {}", numa.node);
            let range = below_limit(phys_bits, next.next_multiple_of(NVDIMM_ALIGN), numa.hotplug.0, what)?;
            next = range.end().0;
            self.hotplug.push(HotplugWindow { range, node: numa.node });
        }
        Ok(())
    }

    /// RAM of one node, with the ranges that add to it.
    pub fn node_ram(&self, node: u32) -> ByteSize {
        let regions = self.ram.iter().filter(|r| r.node == node);
        ByteSize(regions.map(|r| r.range.len).sum())
    }
}

#[cfg(test)]
mod tests;
