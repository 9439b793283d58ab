//! Places of hot-pluggable memory devices: the lowest gap in a hotplug window of their node, on whole memory blocks.

use super::{Gpa, GpaRange, HostLimits, Layout, LayoutError, PAGE};
use crate::config::{VmConfig, probe::BackingFacts};
use devices::units::ByteSize;

/// Memory from which on Linux has larger blocks (`MEM_SIZE_FOR_LARGE_BLOCK`).
const LARGE: u64 = ByteSize::gib(64).0;
/// Smallest and largest block of Linux on x86-64.
const SMALLEST_BLOCK: u64 = ByteSize::mib(128).0;
const LARGEST_BLOCK: u64 = ByteSize::gib(2).0;

/// A memory device at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlacement {
    /// Slot.
    pub slot: u16,
    /// Name.
    pub id: String,
    /// Where.
    pub range: GpaRange,
    /// Proximity domain.
    pub node: u32,
}

/// A memory device that needs a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryAsk {
    /// Slot.
    pub slot: u16,
    /// Name.
    pub id: String,
    /// Proximity domain.
    pub node: u32,
    /// Size and pages of the backing.
    pub backing: BackingFacts,
}

impl Layout {
    /// The unit in which the guest adds and removes memory (`memory/block_size_bytes`): Linux derives it from the end of
    /// boot RAM, and from whether it knows that it is a guest. A command line with `mem=` can only make it smaller.
    pub fn memory_block(&self, config: &VmConfig) -> u64 {
        let end = self.ram.iter().map(|r| r.range.end().0).max().unwrap_or(0);
        if end < LARGE {
            return SMALLEST_BLOCK;
        }
        if config.cpu.remove.iter().any(|feature| feature == "hypervisor") {
            return LARGEST_BLOCK;
        }
        let halves = std::iter::successors(Some(LARGEST_BLOCK), |block| Some(block / 2));
        let mut fitting = halves.take_while(|block| *block > SMALLEST_BLOCK);
        fitting
            .find(|block| end.is_multiple_of(*block))
            .unwrap_or(SMALLEST_BLOCK)
    }

    /// The map with the memory devices of the configuration.
    pub(super) fn with_memory_devices(mut self, config: &VmConfig, host: &HostLimits) -> Result<Self, LayoutError> {
        for (index, (slot, id, device)) in config.memory_devices().enumerate() {
            let own = || {
                Some(BackingFacts {
                    size: device.size?,
                    page: ByteSize(PAGE),
                })
            };
            let backing = host.memory_devices.get(index).copied().or_else(own);
            let ask = MemoryAsk {
                slot,
                node: device.node,
                backing: backing.ok_or_else(|| LayoutError::NoMemorySize(id.clone()))?,
                id,
            };
            self = self.with_memory_device(config, ask)?;
        }
        Ok(self)
    }

    /// The map with one more memory device. Nothing that is there moves.
    pub fn with_memory_device(mut self, config: &VmConfig, ask: MemoryAsk) -> Result<Self, LayoutError> {
        let MemoryAsk {
            slot,
            id,
            node,
            backing: BackingFacts { size, page },
        } = ask;
        let block = self.memory_block(config);
        if size.0 == 0 || !size.0.is_multiple_of(block) {
            return Err(LayoutError::MemoryBlock {
                id,
                size,
                block: ByteSize(block),
            });
        }
        if !self.hotplug.iter().any(|window| window.node == node) {
            return Err(LayoutError::NoWindow { id, node });
        }
        let range = self.gap(node, size.0, block.max(page.0)).ok_or_else(|| {
            let largest = self.largest_gap(node, block.max(page.0));
            LayoutError::NoRoom {
                id: id.clone(),
                node,
                size,
                largest: ByteSize(largest),
            }
        })?;
        self.memory.push(MemoryPlacement { slot, id, range, node });
        self.memory.sort_by_key(|placed| placed.range.start);
        Ok(self)
    }

    /// The map without the memory device in `slot`.
    pub fn without_memory_device(mut self, slot: u16) -> Self {
        self.memory.retain(|placed| placed.slot != slot);
        self
    }

    /// The lowest free range of `len` bytes in the windows of `node`.
    pub fn gap(&self, node: u32, len: u64, align: u64) -> Option<GpaRange> {
        let fits = |(start, end): (u64, u64)| start.checked_add(len).is_some_and(|e| e <= end);
        let (start, _) = self.gaps(node, align).into_iter().find(|gap| fits(*gap))?;
        Some(GpaRange::new(Gpa(start), len))
    }

    /// Bytes of the largest free range in the windows of `node`.
    fn largest_gap(&self, node: u32, align: u64) -> u64 {
        let lens = self.gaps(node, align).into_iter().map(|(start, end)| end - start);
        lens.max().unwrap_or(0) / align * align
    }

    /// Free ranges in the windows of `node` from aligned addresses on, in address order.
    fn gaps(&self, node: u32, align: u64) -> Vec<(u64, u64)> {
        let mut taken = self.in_windows();
        taken.sort_unstable();
        let mut gaps = Vec::new();
        for window in self.hotplug.iter().filter(|window| window.node == node) {
            let mut start = window.range.start.0;
            let inside = taken.iter().filter(|range| range.overlaps(&window.range));
            let end = GpaRange::new(window.range.end(), 0);
            for range in inside.chain([&end]) {
                let from = start.next_multiple_of(align);
                if from < range.start.0 {
                    gaps.push((from, range.start.0));
                }
                start = start.max(range.end().0);
            }
        }
        gaps
    }

    /// What may stand in windows.
    pub(super) fn in_windows(&self) -> Vec<GpaRange> {
        let spas = self.spas.iter().map(|spa| spa.plan.range);
        spas.chain(self.memory.iter().map(|placed| placed.range)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::flags, topology::Topology};
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn config(args: &[(&str, &str)]) -> VmConfig {
        let texts = |flag: &str| -> &'static [String] {
            let of_flag = args.iter().filter(|(f, _)| *f == flag);
            of_flag.map(|(_, t)| (*t).to_owned()).collect::<Vec<_>>().leak()
        };
        let mut config = VmConfig::default();
        flags::apply(&mut config, texts).unwrap();
        config.validate().unwrap();
        config
    }

    fn plan(config: &VmConfig) -> Result<Layout, LayoutError> {
        let host = HostLimits {
            phys_bits: 46,
            backings: vec![],
            memory_devices: vec![],
        };
        Layout::plan(config, &Topology::plan(config).unwrap(), &host)
    }

    fn ask(slot: u16, node: u32, size: u64, page: u64) -> MemoryAsk {
        MemoryAsk {
            slot,
            id: format!("mem{slot}"),
            node,
            backing: BackingFacts {
                size: ByteSize(size),
                page: ByteSize(page),
            },
        }
    }

    fn places(layout: &Layout) -> Vec<(u16, u64, u64)> {
        let place = |m: &MemoryPlacement| (m.slot, m.range.start.0, m.range.len);
        layout.memory.iter().map(place).collect()
    }

    #[test]
    fn devices_stand_in_the_windows_of_their_nodes() {
        let config = config(&[
            ("numa", "node=0,hotplug=2G"),
            ("numa", "node=2,hotplug=4G"),
            ("memory-device", "1G,node=2"),
            ("memory-device", "128M,node=0,slot=7"),
            ("memory-device", "1G,node=2"),
        ]);
        let layout = plan(&config).unwrap();
        let windows: Vec<_> = layout.hotplug.iter().map(|w| w.range.start.0).collect();
        assert_eq!(windows, [4 * GIB, 6 * GIB]);
        assert_eq!(
            places(&layout),
            [(7, 4 * GIB, 128 * MIB), (0, 6 * GIB, GIB), (1, 7 * GIB, GIB)]
        );
        // None of them is in the map that the guest boots with.
        assert!(layout.e820().iter().all(|(range, _)| range.end().0 <= 4 * GIB));
    }

    #[test]
    fn gaps_are_filled_again_and_huge_pages_are_whole() {
        let config = config(&[("numa", "node=0,hotplug=4G"), ("memory-slots", "8")]);
        let mut layout = plan(&config).unwrap();
        for slot in 0..4 {
            layout = layout
                .with_memory_device(&config, ask(slot, 0, 256 * MIB, 4096))
                .unwrap();
        }
        layout = layout.without_memory_device(1).without_memory_device(2);
        layout = layout.with_memory_device(&config, ask(5, 0, GIB, GIB)).unwrap();
        layout = layout.with_memory_device(&config, ask(6, 0, 512 * MIB, 4096)).unwrap();
        let base = 4 * GIB;
        assert_eq!(
            places(&layout),
            [
                (0, base, 256 * MIB),
                (6, base + 256 * MIB, 512 * MIB),
                (3, base + 768 * MIB, 256 * MIB),
                (5, base + GIB, GIB)
            ]
        );
        let full = layout
            .clone()
            .with_memory_device(&config, ask(7, 0, 3 * GIB, 4096))
            .unwrap_err();
        let said = full.to_string();
        assert!(
            said.contains("mem7") && said.contains("largest free range there is 2G"),
            "{said}"
        );
        let none = layout.with_memory_device(&config, ask(7, 1, GIB, 4096)).unwrap_err();
        assert!(none.to_string().contains("--numa node=1,hotplug="), "{none}");
    }

    #[test]
    fn sizes_are_whole_blocks_of_the_guest() {
        for (ram, remove, block) in [
            ("1G", "", 128 * MIB),
            ("62G", "", 128 * MIB),
            // The gigabyte below 4 GiB is no RAM: this ends at 64 GiB, and so on.
            ("63G", "", 2 * GIB),
            ("64G", "", GIB),
            ("64640M", "", 128 * MIB),
            ("64G", "-hypervisor", 2 * GIB),
            ("1G", "-hypervisor", 128 * MIB),
        ] {
            let mut args = vec![("memory", ram), ("numa", "node=0,hotplug=16G")];
            if !remove.is_empty() {
                args.push(("cpu", remove));
            }
            let config = config(&args);
            let layout = plan(&config).unwrap();
            assert_eq!(layout.memory_block(&config), block, "{ram} {remove}");
            for (size, good) in [
                (block, true),
                (block * 3, true),
                (block / 2, false),
                (block + 64 * MIB, false),
                (0, false),
            ] {
                let done = layout.clone().with_memory_device(&config, ask(0, 0, size, 4096));
                assert_eq!(done.is_ok(), good, "{ram} {remove} {size:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_in_a_window_overlaps(steps in proptest::collection::vec((0u16..12, 0u32..2, 1u64..6, any::<bool>()), 0..60)) {
            let config = config(&[("numa", "node=0,hotplug=2G"), ("numa", "node=1,hotplug=1G")]);
            let mut layout = plan(&config).unwrap();
            for (slot, node, blocks, add) in steps {
                layout = layout.without_memory_device(slot);
                if add {
                    let size = blocks * 128 * MIB;
                    let free = layout.largest_gap(node, 128 * MIB);
                    let done = layout.clone().with_memory_device(&config, ask(slot, node, size, 4096));
                    prop_assert_eq!(done.is_ok(), size <= free);
                    layout = done.unwrap_or(layout);
                }
                let mut end = 0;
                for placed in &layout.memory {
                    prop_assert!(placed.range.start.0 >= end);
                    end = placed.range.end().0;
                    let inside = |w: &&crate::layout::HotplugWindow| {
                        w.node == placed.node && w.range.start <= placed.range.start && placed.range.end() <= w.range.end()
                    };
                    prop_assert!(layout.hotplug.iter().any(|w| inside(&w)));
                }
            }
        }
    }
}
