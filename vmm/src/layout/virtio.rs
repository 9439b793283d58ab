//! Places of virtio devices: transports, and the memory that some of them bring.
//!
//! The memory stands above everything else, each device's on a whole gigabyte: persistent memory, then memory that grows
//! and shrinks, in the order of the configuration.

use super::{Gpa, GpaRange, HostLimits, Layout, LayoutError, NVDIMM_ALIGN, PAGE, VIRTIO_MMIO, below_limit, gsi};
use crate::config::{VmConfig, probe::BackingFacts};

/// Most virtio transports of a machine.
pub const MAX_VIRTIO: usize = 16;
/// Transports whose interrupts are pins 16 to 23 of the I/O APIC.
const HIGH_PINS: u32 = 8;

/// Memory of a virtio device at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMemory {
    /// What kind.
    pub kind: VirtioMemoryKind,
    /// Position in the configuration among those of its kind.
    pub index: usize,
    /// Where.
    pub range: GpaRange,
    /// Proximity domain.
    pub node: u32,
}

/// Kinds of memory that virtio devices bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioMemoryKind {
    /// Persistent memory.
    Pmem,
    /// The region of memory that grows and shrinks.
    Mem,
}

/// Page and GSI of the n-th virtio-mmio transport: 16 to 23, then 8 to 15, which no other device of the machine has. In the
/// place of 9, which is the SCI where there is one, stands 7.
pub(super) fn transport(n: u32) -> (GpaRange, u32) {
    let start = Gpa(VIRTIO_MMIO.start.0 + u64::from(n) * PAGE);
    let pin = match n {
        n if n < HIGH_PINS => gsi::VIRTIO0 + n,
        gsi::SCI => 7,
        n => n,
    };
    (GpaRange::new(start, PAGE), pin)
}

impl Layout {
    /// Adds the memory of virtio devices above everything.
    pub(super) fn place_virtio(&mut self, config: &VmConfig, host: &HostLimits) -> Result<(), LayoutError> {
        for (index, device) in config.virtio_pmem.iter().enumerate() {
            let id = config.virtio_pmem_name(index);
            let known = host
                .backings
                .get(config.nvdimm.len() + index)
                .map(|facts: &BackingFacts| facts.size);
            let size = known
                .or(device.size)
                .ok_or_else(|| LayoutError::NoDeviceSize(id.clone()))?;
            self.place_device(
                VirtioMemoryKind::Pmem,
                index,
                (size.0, device.node),
                &id,
                host.phys_bits,
            )?;
        }
        for (index, device) in config.virtio_mem.iter().enumerate() {
            let id = config.virtio_mem_name(index);
            self.place_device(
                VirtioMemoryKind::Mem,
                index,
                (device.size.0, device.node),
                &id,
                host.phys_bits,
            )?;
        }
        Ok(())
    }

    fn place_device(
        &mut self,
        kind: VirtioMemoryKind,
        index: usize,
        (len, node): (u64, u32),
        id: &str,
        phys_bits: u8,
    ) -> Result<(), LayoutError> {
        let start = self.top().next_multiple_of(NVDIMM_ALIGN);
        let range = below_limit(phys_bits, start, len, || id.to_owned())?;
        self.virtio_memory.push(VirtioMemory {
            kind,
            index,
            range,
            node,
        });
        Ok(())
    }

    /// First address above everything that has a place.
    pub(super) fn top(&self) -> u64 {
        let dimms = self.spas.iter().map(|spa| spa.plan.range);
        let windows = self.hotplug.iter().map(|window| window.range);
        let devices = self.virtio_memory.iter().map(|device| device.range);
        let all = dimms.chain(windows).chain(devices);
        all.map(|range| range.end().0).fold(self.memory_end(), u64::max)
    }

    /// The memory of the virtio device of this kind at this position.
    pub fn virtio_memory(&self, kind: VirtioMemoryKind, index: usize) -> Option<GpaRange> {
        let mine = |device: &&VirtioMemory| device.kind == kind && device.index == index;
        self.virtio_memory.iter().find(mine).map(|device| device.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{NumaConfig, VirtioMemConfig, VirtioPmemConfig},
        topology::Topology,
    };
    use devices::units::ByteSize;

    fn machine() -> VmConfig {
        VmConfig {
            numa: vec![NumaConfig {
                node: 1,
                hotplug: ByteSize::gib(2),
                ..NumaConfig::default()
            }],
            nvdimm: vec![crate::config::NvdimmConfig {
                size: Some(ByteSize::mib(64)),
                ..Default::default()
            }],
            virtio_pmem: vec![
                VirtioPmemConfig {
                    size: Some(ByteSize::mib(64)),
                    node: 1,
                    ..Default::default()
                };
                2
            ],
            virtio_mem: vec![VirtioMemConfig {
                id: None,
                size: ByteSize::gib(3),
                block: VirtioMemConfig::default_block(),
                node: 1,
                requested: ByteSize(0),
            }],
            ..VmConfig::default()
        }
    }

    fn plan(config: &VmConfig, phys_bits: u8) -> Result<Layout, LayoutError> {
        let host = HostLimits {
            memory_devices: vec![],
            phys_bits,
            backings: vec![],
        };
        Layout::plan(config, &Topology::plan(config).unwrap(), &host)
    }

    #[test]
    fn memory_of_devices_stands_above_windows_each_on_a_gigabyte() {
        let layout = plan(&machine(), 46).unwrap();
        let starts: Vec<_> = layout
            .virtio_memory
            .iter()
            .map(|d| (d.kind, d.range.start.0 >> 30))
            .collect();
        let (pmem, mem) = (VirtioMemoryKind::Pmem, VirtioMemoryKind::Mem);
        // 4 GiB: the NVDIMM; 5 to 7 GiB: the window.
        assert_eq!(starts, [(pmem, 7), (pmem, 8), (mem, 9)]);
        assert_eq!(layout.virtio_memory(mem, 0).unwrap().end(), Gpa(12 << 30));
        assert!(plan(&machine(), 33).unwrap_err().to_string().contains("virtio-pmem1"));
    }

    #[test]
    fn an_nvdimm_added_later_keeps_clear_of_devices() {
        let config = machine();
        let said = crate::config::NvdimmConfig {
            size: Some(ByteSize::gib(4)),
            ..Default::default()
        };
        let ask = super::super::NvdimmAsk {
            slot: 1,
            config: &said,
            backing: BackingFacts {
                size: ByteSize::gib(4),
                page: ByteSize::kib(4),
            },
            mapped: true,
        };
        let layout = plan(&config, 46).unwrap().with_added(&ask, 46).unwrap();
        assert_eq!(layout.spas[1].plan.range.start, Gpa(12 << 30));
    }

    #[test]
    fn transports_have_interrupts_of_their_own() {
        let pins: Vec<_> = (0..16).map(|n| transport(n).1).collect();
        assert_eq!(pins, [16, 17, 18, 19, 20, 21, 22, 23, 8, 7, 10, 11, 12, 13, 14, 15]);
        assert_eq!(transport(15).0.start, Gpa(0xd000_f000));
    }
}
