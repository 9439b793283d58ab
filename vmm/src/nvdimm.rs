//! From the configuration and the map to the NVDIMM buses the guest will see. Pure.

use crate::{
    config::{NvdimmConfig, VirtualDiskConfig, VmConfig},
    layout::{self, Layout, NvdimmPlacement},
};
use devices::{
    nvdimm::{
        FlushHints, FlushMode, NfitHandle, NfitPlan, NvdimmBusPlan, NvdimmPlan, RootPlan,
        plan::{Identity, MAX_SLOTS, PersistenceDomain, SpaKind},
    },
    smbios::Module,
    units::Hex,
};
use std::collections::BTreeSet;

/// The buses of a machine, by number; none when nothing of the configuration needs one.
pub fn plan(config: &VmConfig, layout: &Layout) -> Vec<NvdimmBusPlan> {
    let buses = config.nvdimm_buses().into_iter();
    buses.map(|number| bus(config, layout, number)).collect()
}

fn bus(config: &VmConfig, layout: &Layout, number: u8) -> NvdimmBusPlan {
    let said = config.nvdimm_bus.iter().find(|bus| bus.number == number);
    let dimms = layout.nvdimms.iter().filter(|dimm| dimm.bus == number);
    let dimms = dimms.filter_map(|place| Some(dimm(config, place, config.nvdimm.get(usize::from(place.slot))?)));
    let spas = layout.spas.iter().filter(|spa| spa.bus == number);
    let root = RootPlan::default();
    NvdimmBusPlan {
        number,
        mailbox: layout::dsm_mailbox(number),
        slots: slots(config, number),
        nfit: NfitPlan {
            dimms: dimms.collect(),
            spas: spas.map(|spa| spa.plan.clone()).collect(),
            domain: domain(config, number),
        },
        root: RootPlan {
            functions: said.and_then(|bus| bus.functions).map_or(root.functions, |mask| mask.0),
            scan_time: config.ars.scan_time.0,
            records: config.ars.records,
        },
    }
}

/// Where the persistence domain of a bus begins. Linux never writes to flush hints, nor flushes anything, where it begins at
/// the processors' caches.
fn domain(config: &VmConfig, number: u8) -> PersistenceDomain {
    let said = config.nvdimm_bus.iter().find(|bus| bus.number == number);
    let mut dimms = config.nvdimm.iter().filter(|dimm| dimm.bus == number);
    let flushed = dimms.any(|dimm| dimm.flush_mode() != FlushMode::None);
    said.and_then(|bus| bus.persistence).unwrap_or(match flushed {
        true => PersistenceDomain::MemoryController,
        false => PersistenceDomain::CpuCache,
    })
}

/// Slots of a bus: those of its DIMMs, and on the first bus every free one, for DIMMs that are added later. A free slot has
/// the handle slot + 1, or the next one that nobody has.
fn slots(config: &VmConfig, number: u8) -> Vec<(u8, NfitHandle)> {
    let configured = config.nvdimm.len();
    let mut taken: BTreeSet<u32> = (0..configured).map(|slot| config.nvdimm_handle(slot)).collect();
    let mut slots = Vec::new();
    for slot in 0..MAX_SLOTS {
        match config.nvdimm.get(usize::from(slot)) {
            Some(dimm) if dimm.bus == number => slots.push((slot, NfitHandle(config.nvdimm_handle(slot.into())))),
            None if number == 0 => {
                let handle = (u32::from(slot) + 1..).find(|handle| !taken.contains(handle));
                let handle = handle.unwrap_or(u32::MAX - 1);
                taken.insert(handle);
                slots.push((slot, NfitHandle(handle)));
            }
            _ => {}
        }
    }
    slots
}

fn dimm(config: &VmConfig, place: &NvdimmPlacement, said: &NvdimmConfig) -> NvdimmPlan {
    let slot = place.slot;
    let label = u32::try_from(place.label_size.0).unwrap_or(u32::MAX);
    let id = config.nvdimm_name(slot.into());
    let plain = NvdimmPlan::plain(slot, id, place.capacity, label, said.readonly);
    NvdimmPlan {
        handle: NfitHandle(config.nvdimm_handle(slot.into())),
        family: said.family,
        state: said.flags.iter().fold(plain.state, |flags, flag| flags | flag.bit()),
        physical_id: short(said.physical_id, Module::Nvdimm(slot).handle()),
        flush_hints: match said.flush_mode() {
            FlushMode::None => vec![],
            FlushMode::Count | FlushMode::Msync => vec![FlushHints::hint(layout::FLUSH_HINTS.start, slot)],
        },
        functions: said.functions.map_or(plain.functions, |mask| mask.0),
        identity: identity(&plain.identity, said),
        health: said.health_plan(),
        ..plain
    }
}

/// Validation has seen that the number fits.
fn short(said: Option<Hex>, default: u16) -> u16 {
    said.and_then(|n| u16::try_from(n.0).ok()).unwrap_or(default)
}

fn identity(plain: &Identity, said: &NvdimmConfig) -> Identity {
    let formats: Vec<_> = said.format.iter().map(|format| short(Some(*format), 0)).collect();
    let location = said.location.and_then(|n| u8::try_from(n.0).ok());
    let manufactured = said.location.or(said.date);
    Identity {
        vendor: short(said.vendor, plain.vendor),
        device: short(said.device, plain.device),
        revision: short(said.revision, plain.revision),
        subsystem_vendor: short(said.subsystem_vendor, plain.subsystem_vendor),
        subsystem_device: short(said.subsystem_device, plain.subsystem_device),
        subsystem_revision: short(said.subsystem_revision, plain.subsystem_revision),
        manufactured: manufactured.map(|_| (location.unwrap_or(0), short(said.date, 0))),
        serial: said.serial.map_or(plain.serial, |n| n.0),
        formats: if formats.is_empty() {
            plain.formats.clone()
        } else {
            formats
        },
    }
}

/// The backing of a disk image, as that of a DIMM without labels. The file of a volatile one is only read: the guest's
/// changes go to a copy.
pub fn disk_backing(disk: &VirtualDiskConfig) -> NvdimmConfig {
    let kind = SpaKind::from(disk.kind);
    NvdimmConfig {
        file: disk.file.clone(),
        size: Some(disk.size),
        readonly: disk.file.is_some() && !kind.is_persistent(),
        ..NvdimmConfig::default()
    }
}
