//! Places of NVDIMMs: what of each DIMM is seen in which SPA range, and where the ranges are.
//!
//! Ranges follow each other above RAM, each on a whole gigabyte: those of the DIMMs that have one of their own by slot, then
//! interleave sets, then virtual disks, in the order of the configuration. A range that is added later comes last.

use super::{HostLimits, Layout, LayoutError, NVDIMM_ALIGN, PAGE, below_limit};
use crate::config::{InterleaveSetConfig, MAX_NVDIMMS, NvdimmConfig, VirtualDiskConfig, VmConfig, probe::BackingFacts};
use devices::{
    nvdimm::{
        SpaPlan,
        config::SetKind,
        plan::{InterleavePlan, MappingPlan, SpaKind},
    },
    units::{ByteSize, GpaRange},
};

/// Most lines of a set: each is a mapping of the host, of which a process has 65530.
pub const MAX_LINES: u64 = 32 << 10;
/// Lines of a set whose configuration does not say how long they are.
const DEFAULT_LINES: u64 = 4096;
/// Index of the first set's SPA range structure: those of plain DIMMs are even and end at 64.
const FIRST_SET_INDEX: u16 = 65;

/// What a DIMM has to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmPlacement {
    /// Position in the configuration; NFIT handle is slot + 1 unless the configuration has another.
    pub slot: u8,
    /// Number of its root device.
    pub bus: u8,
    /// Bytes of data: DIMM physical addresses are below this. As many bytes from the start of the backing.
    pub capacity: u64,
    /// Unit in which the host can map it.
    pub page: u64,
    /// Bytes of data that are in an SPA range.
    pub used: u64,
    /// SPA ranges it is in.
    pub regions: u16,
    /// Where the label area begins in the backing: its last bytes, as QEMU has them.
    pub label_offset: u64,
    /// Bytes of the label area; 0: none.
    pub label_size: ByteSize,
}

/// An SPA range at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaPlacement {
    /// Number of the root device that describes it.
    pub bus: u8,
    /// Name for people.
    pub name: String,
    /// What the guest learns of it.
    pub plan: SpaPlan,
}

/// An NVDIMM that needs a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmAsk<'a> {
    /// Slot.
    pub slot: u8,
    /// What the user says of it.
    pub config: &'a NvdimmConfig,
    /// Size and pages of the backing.
    pub backing: BackingFacts,
    /// Whether it has a range of its own.
    pub mapped: bool,
}

impl Layout {
    /// The map with all that the configuration says of NVDIMMs.
    pub(super) fn with_nvdimms(mut self, config: &VmConfig, host: &HostLimits) -> Result<Self, LayoutError> {
        for (index, nvdimm) in config.nvdimm.iter().enumerate() {
            let slot = u8::try_from(index)
                .ok()
                .filter(|_| index < MAX_NVDIMMS)
                .ok_or(LayoutError::NoSlot(index))?;
            let own = || {
                Some(BackingFacts {
                    size: nvdimm.size?,
                    page: ByteSize(PAGE),
                })
            };
            let backing = host
                .backings
                .get(index)
                .copied()
                .or_else(own)
                .ok_or(LayoutError::NoSize(slot))?;
            let ask = NvdimmAsk {
                slot,
                config: nvdimm,
                backing,
                mapped: config.has_own_range(index),
            };
            self = self.with(&ask, host.phys_bits)?;
        }
        for (position, set) in config.interleave_set.iter().enumerate() {
            self = self.with_set(config, position, set, host.phys_bits)?;
        }
        for (position, disk) in config.virtual_disk.iter().enumerate() {
            self = self.with_disk(position, disk, host.phys_bits)?;
        }
        Ok(self)
    }

    /// The map with one more NVDIMM, above all others.
    fn with(self, ask: &NvdimmAsk<'_>, phys_bits: u8) -> Result<Self, LayoutError> {
        self.with_at(ask, |layout, len| {
            layout.next_range(len, phys_bits, || format!("nvdimm slot {}", ask.slot))
        })
    }

    /// The map with an NVDIMM that is added to a running machine: in its node's hotplug window while that has room, else
    /// above everything else. Nothing that is there moves.
    pub fn with_added(self, ask: &NvdimmAsk<'_>, phys_bits: u8) -> Result<Self, LayoutError> {
        self.with_at(ask, |layout, len| {
            if let Some(range) = layout.gap(ask.config.node, len, NVDIMM_ALIGN) {
                return Ok(range);
            }
            let start = layout.top().next_multiple_of(NVDIMM_ALIGN);
            below_limit(phys_bits, start, len, || format!("nvdimm slot {}", ask.slot))
        })
    }

    fn with_at(
        mut self,
        ask: &NvdimmAsk<'_>,
        place: impl FnOnce(&Self, u64) -> Result<GpaRange, LayoutError>,
    ) -> Result<Self, LayoutError> {
        let NvdimmAsk {
            slot,
            config,
            backing: BackingFacts { size, page },
            mapped,
        } = *ask;
        let label_offset = size.0.saturating_sub(config.label.0);
        let page = page.0.max(PAGE);
        // As QEMU does: the label area keeps the exact end of the backing, the data is cut to whole pages before it.
        let capacity = label_offset - label_offset % page;
        if capacity == 0 {
            return Err(LayoutError::NoData {
                slot,
                size,
                page: ByteSize(page),
                label: config.label,
            });
        }
        if mapped {
            let range = place(&self, capacity)?;
            let mapping = MappingPlan {
                slot,
                region_id: 0,
                len: capacity,
                offset: 0,
                dpa: 0,
            };
            self.spas.push(SpaPlacement {
                bus: config.bus,
                name: config.id.clone().unwrap_or_else(|| format!("nvdimm{slot}")),
                plan: SpaPlan {
                    index: (u16::from(slot) + 1) * 2,
                    kind: SpaKind::Persistent,
                    range,
                    proximity: config.node,
                    interleave: None,
                    mappings: vec![mapping],
                },
            });
        }
        self.nvdimms.push(NvdimmPlacement {
            slot,
            bus: config.bus,
            capacity,
            page,
            used: if mapped { capacity } else { 0 },
            regions: mapped.into(),
            label_offset,
            label_size: config.label,
        });
        Ok(self)
    }

    fn with_set(
        mut self,
        config: &VmConfig,
        position: usize,
        set: &InterleaveSetConfig,
        phys_bits: u8,
    ) -> Result<Self, LayoutError> {
        let id = set.id.clone().unwrap_or_else(|| format!("set{position}"));
        let bad = |why: String| LayoutError::Set { id: id.clone(), why };
        let slots: Vec<usize> = set.dimms.iter().filter_map(|id| config.nvdimm_slot(id)).collect();
        let ways = slots.len() as u64;
        if ways == 0 || slots.len() != set.dimms.len() {
            return Err(bad("it names a DIMM that is not there".to_owned()));
        }
        let share = set.size.0 / ways;
        let mut dimms: Vec<&NvdimmPlacement> = slots.iter().filter_map(|slot| self.nvdimms.get(*slot)).collect();
        let page = dimms.iter().map(|dimm| dimm.page).max().unwrap_or(PAGE);
        let line = set.line.map_or_else(
            || {
                set.size
                    .0
                    .div_ceil(DEFAULT_LINES)
                    .checked_next_power_of_two()
                    .unwrap_or(u64::MAX)
                    .max(page)
            },
            |line| line.0,
        );
        let line = if ways == 1 { share } else { line };
        if line == 0 || line % page != 0 || !set.size.0.is_multiple_of(line.saturating_mul(ways)) {
            return Err(bad(format!(
                "size={} is not a whole number of lines of {} on each of {ways} DIMMs whose backings have pages of {}; hint: \
                 choose a size that is a multiple of {ways} lines, or another line=",
                set.size,
                ByteSize(line),
                ByteSize(page)
            )));
        }
        if set.size.0 / line > MAX_LINES {
            return Err(bad(format!(
                "{} lines of {} are more than the {MAX_LINES} that can be mapped; hint: use a larger line=",
                set.size.0 / line,
                ByteSize(line)
            )));
        }
        let start = |dimm: &NvdimmPlacement| set.dpa.map_or(dimm.used, |dpa| dpa.0);
        if let Some(dimm) = dimms
            .iter()
            .find(|dimm| start(dimm) < dimm.used || start(dimm) % page != 0)
        {
            return Err(bad(format!(
                "it begins at {} of each DIMM, but slot {} is taken up to {} and has pages of {}; hint: leave dpa= out, or choose a \
                 larger one",
                ByteSize(start(dimm)),
                dimm.slot,
                ByteSize(dimm.used),
                ByteSize(page)
            )));
        }
        let left = |dimm: &NvdimmPlacement| dimm.capacity.saturating_sub(start(dimm));
        if let Some(dimm) = dimms.iter().find(|dimm| left(dimm) < share) {
            return Err(bad(format!(
                "it takes {} of each DIMM, but slot {} has {} left; hint: use a smaller size=",
                ByteSize(share),
                dimm.slot,
                ByteSize(left(dimm))
            )));
        }
        // Where lines are as long as the shares they need no structure: the offsets say it all.
        let interleave = match u32::try_from(line) {
            _ if ways == 1 => None,
            Ok(line) => Some(InterleavePlan {
                index: u16::try_from(position + 1).unwrap_or(u16::MAX),
                line,
            }),
            Err(_) => return Err(bad(format!("line={} must be below 4G", ByteSize(line)))),
        };
        let mappings = (0u64..)
            .zip(&dimms)
            .map(|(n, dimm)| MappingPlan {
                slot: dimm.slot,
                region_id: dimm.regions,
                len: share,
                offset: usize::try_from(n)
                    .ok()
                    .and_then(|n| set.region_offset.get(n))
                    .map_or(n * line, |offset| offset.0),
                dpa: start(dimm),
            })
            .collect();
        let bus = dimms.first().map_or(0, |dimm| dimm.bus);
        dimms.clear();
        for slot in slots {
            if let Some(dimm) = self.nvdimms.get_mut(slot) {
                dimm.used = set.dpa.map_or(dimm.used, |dpa| dpa.0) + share;
                dimm.regions += 1;
            }
        }
        let range = self.next_range(set.size.0, phys_bits, || format!("interleave set {id}"))?;
        let index = set.range_index.and_then(|index| u16::try_from(index.0).ok());
        self.spas.push(SpaPlacement {
            bus,
            plan: SpaPlan {
                index: index.unwrap_or(FIRST_SET_INDEX + u16::try_from(position).unwrap_or(u16::MAX - FIRST_SET_INDEX)),
                kind: match set.kind {
                    SetKind::Persistent => SpaKind::Persistent,
                    SetKind::Volatile => SpaKind::Volatile,
                },
                range,
                proximity: set.node,
                interleave,
                mappings,
            },
            name: id,
        });
        Ok(self)
    }

    fn with_disk(mut self, position: usize, disk: &VirtualDiskConfig, phys_bits: u8) -> Result<Self, LayoutError> {
        let name = format!("virtual disk {position}");
        let range = self.next_range(disk.size.0, phys_bits, || name.clone())?;
        self.spas.push(SpaPlacement {
            bus: disk.bus,
            name,
            plan: SpaPlan {
                index: 0,
                kind: disk.kind.into(),
                range,
                proximity: disk.node,
                interleave: None,
                mappings: vec![],
            },
        });
        Ok(self)
    }

    /// The place of a range of `len` bytes above all others.
    fn next_range(&self, len: u64, phys_bits: u8, what: impl FnOnce() -> String) -> Result<GpaRange, LayoutError> {
        let taken = self
            .spas
            .last()
            .map_or_else(|| self.memory_end(), |spa| spa.plan.range.end().0);
        below_limit(phys_bits, taken.next_multiple_of(NVDIMM_ALIGN), len, what)
    }
}
