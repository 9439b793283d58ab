//! NVDIMMs of a machine: backings opened, SPA ranges mapped.

use super::build::{BuildError, Plans};
use crate::{
    config::{VirtualDiskConfig, VmConfig, probe::BackingFacts},
    hv::Vm,
    layout::Layout,
    memory::{
        Access, GuestMap, Mapping,
        backing::{self, BackingError, Opened},
        interleave::{self, Share},
        state::{StateFile, StateFileError},
    },
    nvdimm,
};
use devices::{
    nvdimm::{LabelStore, NvdimmBus, NvdimmBusPlan, NvdimmPlan, SpaPlan, state::DimmState},
    units::ByteSize,
};
use std::{collections::BTreeMap, io, sync::Arc};

/// What a DIMM left when it was last used, and where that is kept.
pub type LeftState = Option<(DimmState, Arc<StateFile>)>;

/// A bus, and what its DIMMs are made of, in the plan's order.
pub struct OpenBus {
    /// What was decided.
    pub plan: NvdimmBusPlan,
    /// Label areas.
    pub labels: Vec<Box<dyn LabelStore>>,
    /// States.
    pub states: Vec<LeftState>,
}

/// Opens the backing of every DIMM and shows every SPA range to the guest.
pub fn open(config: &VmConfig, plans: &Plans<'_>, vm: &Vm, map: &mut GuestMap) -> Result<Vec<OpenBus>, BuildError> {
    let mut opened = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for ((slot, nvdimm), facts) in (0u8..).zip(&config.nvdimm).zip(plans.backings) {
        let mut dimm = backing::open(nvdimm, *facts).map_err(|source| BuildError::Nvdimm {
            id: config.nvdimm_name(slot.into()),
            source,
        })?;
        let none: Box<dyn LabelStore> = Box::new(Vec::new());
        labels.insert(slot, dimm.labels.take().unwrap_or(none));
        opened.insert(slot, dimm);
    }
    let mut disks = config.virtual_disk.iter();
    for spa in &plans.layout.spas {
        let failed = |source| BuildError::Spa {
            name: spa.name.clone(),
            source,
        };
        let (mapping, access) = match disks.as_slice().first().filter(|_| spa.plan.kind.is_virtual()) {
            Some(disk) => {
                disks.next();
                let Opened { mapping, access, .. } = open_disk(disk).map_err(|source| BuildError::Nvdimm {
                    id: spa.name.clone(),
                    source,
                })?;
                (mapping, access)
            }
            None => spa_memory(&spa.plan, plans.layout, &mut opened).map_err(failed)?,
        };
        map.add(vm, spa.plan.range.start, spa.plan.range.len, mapping, access)?;
    }
    let mut buses = Vec::new();
    for plan in nvdimm::plan(config, plans.layout) {
        let dimms = &plan.nfit.dimms;
        let labels = dimms.iter().filter_map(|dimm| labels.remove(&dimm.slot)).collect();
        let states = dimms
            .iter()
            .map(|dimm| open_state(config, dimm))
            .collect::<Result<_, _>>()?;
        buses.push(OpenBus { plan, labels, states });
    }
    Ok(buses)
}

/// The state file of a DIMM, if it has one.
pub fn open_state(config: &VmConfig, dimm: &NvdimmPlan) -> Result<LeftState, BuildError> {
    let path = config
        .nvdimm
        .get(usize::from(dimm.slot))
        .and_then(|said| said.state.as_deref());
    let opened = path.map(|path| StateFile::open(path, dimm.identity.serial)).transpose();
    opened.map_err(|source| BuildError::NvdimmState {
        id: dimm.id.clone(),
        source,
    })
}

/// Gives the DIMMs of `bus` what they remember.
pub fn restore(bus: &NvdimmBus, states: Vec<Option<(DimmState, Arc<StateFile>)>>) -> Result<(), BuildError> {
    bus.with(|bus| {
        for (dimm, state) in bus.dimms.iter_mut().zip(states) {
            let Some((state, file)) = state else { continue };
            let path = file.path().to_owned();
            dimm.restore(&state, file).map_err(|e| BuildError::NvdimmState {
                id: dimm.plan.id.clone(),
                source: StateFileError::Content(path, e),
            })?;
        }
        Ok(())
    })
}

/// The memory behind a range: the mapping of a DIMM that is in no other range, else the lines of all its DIMMs.
fn spa_memory(plan: &SpaPlan, layout: &Layout, opened: &mut BTreeMap<u8, Opened>) -> io::Result<(Mapping, Access)> {
    if let [only] = &plan.mappings[..]
        && only.dpa == 0
    {
        let all = layout.spas.iter().flat_map(|spa| &spa.plan.mappings);
        if all.filter(|mapping| mapping.slot == only.slot).count() == 1
            && let Some(Opened { mapping, access, .. }) = opened.remove(&only.slot)
        {
            return Ok((mapping, access));
        }
    }
    let missing = || io::Error::new(io::ErrorKind::NotFound, "a DIMM of it is not open");
    let mut shares = Vec::new();
    let mut access = Access::ReadWrite;
    for mapping in &plan.mappings {
        let dimm = opened.get(&mapping.slot).ok_or_else(missing)?;
        if dimm.access == Access::ReadOnly {
            access = Access::ReadOnly;
        }
        shares.push(Share {
            source: &dimm.source,
            start: mapping.dpa,
            len: mapping.len,
        });
    }
    let share = shares.first().map_or(0, |share| share.len);
    let line = plan.interleave.map_or(share, |i| i.line.into());
    Ok((interleave::map(&shares, line)?, access))
}

/// A disk image in memory. A persistent one is its file; of a volatile one the guest has a copy.
fn open_disk(disk: &VirtualDiskConfig) -> Result<Opened, BackingError> {
    let config = nvdimm::disk_backing(disk);
    let facts = BackingFacts {
        size: disk.size,
        page: ByteSize::kib(4),
    };
    backing::open(&config, facts)
}
