//! NVDIMMs of a machine: backings opened, SPA ranges mapped.

use super::{
    build::{BuildError, Plans},
    restart::Files,
    secure::{self, Contents, Secured},
};
use crate::{
    config::{VirtualDiskConfig, VmConfig, probe::BackingFacts},
    hv::Vm,
    layout::Layout,
    memory::{
        Access, GuestMap, Mapping,
        backing::{self, BackingError, Opened},
        encrypted::{EncryptedDimm, pending::Watched},
        interleave::{self, Share},
        state::{StateFile, StateFileError},
    },
    nvdimm,
};
use devices::{
    nvdimm::{
        FlushHints, FlushTarget, LabelStore, NvdimmBus, NvdimmBusPlan, NvdimmPlan, SpaPlan,
        state::{DimmState, MemoryState, StateError, StateStore},
    },
    units::ByteSize,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

/// What a DIMM left when it was last used, and where that is kept.
pub struct LeftState {
    /// As it was left.
    pub state: DimmState,
    kept: KeptIn,
}

enum KeptIn {
    File(Arc<StateFile>),
    Memory(Arc<MemoryState>),
}

impl LeftState {
    /// Where changes go.
    pub fn store(&self) -> Arc<dyn StateStore> {
        match &self.kept {
            KeptIn::File(file) => file.clone(),
            KeptIn::Memory(memory) => memory.clone(),
        }
    }

    /// Where that is when the DIMM has no file for it.
    pub fn memory(&self) -> Option<Arc<MemoryState>> {
        match &self.kept {
            KeptIn::File(_) => None,
            KeptIn::Memory(memory) => Some(memory.clone()),
        }
    }

    /// The state does not fit the DIMM called `id`.
    pub fn damaged(&self, id: &str, why: StateError) -> BuildError {
        let path = match &self.kept {
            KeptIn::File(file) => file.path().to_owned(),
            KeptIn::Memory(_) => "(kept in memory)".into(),
        };
        BuildError::NvdimmState {
            id: id.to_owned(),
            source: StateFileError::Content(path, why),
        }
    }
}

/// A bus, and what its DIMMs are made of, in the plan's order.
pub struct OpenBus {
    /// What was decided.
    pub plan: NvdimmBusPlan,
    /// Label areas.
    pub labels: Vec<Box<dyn LabelStore>>,
    /// States.
    pub states: Vec<LeftState>,
    /// What security acts on; none for a DIMM without it.
    pub secured: Vec<Option<Secured>>,
    /// What the guest's flushes wait for.
    pub flushes: Vec<Option<Arc<dyn FlushTarget>>>,
}

/// Buses, and the DIMMs whose contents have to be written back.
type Opening = (Vec<OpenBus>, Vec<Arc<EncryptedDimm>>);

/// Opens the backing of every DIMM and gives the guest every SPA range. Ranges of DIMMs with security are not shown before
/// [`secure::secure`] has unlocked those without a passphrase.
/// Those without a file are made of what `kept` has, and leave it there; so are the states of those without a file for it.
pub fn open(
    config: &VmConfig,
    plans: &Plans<'_>,
    vm: &Vm,
    map: &mut GuestMap,
    kept: &mut Files,
) -> Result<Opening, BuildError> {
    let mut opened = BTreeMap::new();
    let mut labels = BTreeMap::new();
    let mut contents = BTreeMap::new();
    let mut flushes = BTreeMap::new();
    for ((slot, nvdimm), facts) in (0u8..).zip(&config.nvdimm).zip(plans.backings) {
        let (mut dimm, security) =
            secure::open_dimm(nvdimm, *facts, kept.nvdimm.get(&slot)).map_err(|source| BuildError::Nvdimm {
                id: config.nvdimm_name(slot.into()),
                source,
            })?;
        if nvdimm.file.is_none() {
            kept.nvdimm.insert(slot, dimm.source.file.clone());
        }
        let none: Box<dyn LabelStore> = Box::new(Vec::new());
        labels.insert(slot, dimm.labels.take().unwrap_or(none));
        flushes.insert(slot, dimm.flush.take());
        opened.insert(slot, dimm);
        contents.extend(security.map(|contents| (slot, contents)));
    }
    let mut disks = config.virtual_disk.iter();
    let mut windows: BTreeMap<u8, Vec<Arc<Watched>>> = BTreeMap::new();
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
        let slots: BTreeSet<u8> = spa.plan.mappings.iter().map(|mapping| mapping.slot).collect();
        let slots: Vec<u8> = slots.into_iter().filter(|slot| contents.contains_key(slot)).collect();
        let window = map.window(vm, spa.plan.range, mapping, access, slots.len())?;
        let watched = Arc::new(secure::watch(window, &spa.plan, |slot| contents.get(&slot)));
        for slot in slots {
            windows.entry(slot).or_default().push(watched.clone());
        }
    }
    let encrypted = contents.values().filter_map(Contents::encrypted).collect();
    let mut buses = Vec::new();
    for plan in nvdimm::plan(config, plans.layout) {
        let mut bus = OpenBus {
            labels: vec![],
            states: vec![],
            secured: vec![],
            flushes: vec![],
            plan,
        };
        for dimm in &bus.plan.nfit.dimms {
            let state = open_state(config, dimm, kept.states.get(&dimm.slot))?;
            kept.states.extend(state.memory().map(|memory| (dimm.slot, memory)));
            let windows = windows.remove(&dimm.slot).unwrap_or_default();
            let contents = contents.remove(&dimm.slot);
            let secured = contents.map(|contents| secure::prepare(config, dimm, contents, windows, &state));
            bus.secured.push(secured.transpose()?);
            bus.states.push(state);
            bus.labels.extend(labels.remove(&dimm.slot));
            bus.flushes.push(flushes.remove(&dimm.slot).flatten());
        }
        buses.push(bus);
    }
    Ok((buses, encrypted))
}

/// The state of a DIMM: that of its file if it has one, else what is left in memory of the machine before a reset.
pub fn open_state(
    config: &VmConfig,
    dimm: &NvdimmPlan,
    left: Option<&Arc<MemoryState>>,
) -> Result<LeftState, BuildError> {
    let path = config
        .nvdimm
        .get(usize::from(dimm.slot))
        .and_then(|said| said.state.as_deref());
    let serial = dimm.identity.serial;
    let Some(path) = path else {
        let memory = left.cloned().unwrap_or_else(|| Arc::new(MemoryState::new(serial)));
        let state = memory.state();
        let kept = KeptIn::Memory(memory);
        return Ok(LeftState { state, kept });
    };
    let opened = StateFile::open(path, serial).map_err(|source| BuildError::NvdimmState {
        id: dimm.id.clone(),
        source,
    })?;
    let (state, file) = opened;
    let kept = KeptIn::File(file);
    Ok(LeftState { state, kept })
}

/// Gives the DIMM in `slot` of `bus` its flush hint, if the plan has one.
pub fn add_hint(hints: &FlushHints, bus: &Arc<NvdimmBus>, dimm: &NvdimmPlan, target: Option<Arc<dyn FlushTarget>>) {
    if dimm.flush_hints.is_empty() {
        return;
    }
    let (slot, bus) = (dimm.slot, bus.clone());
    hints.add(slot, target, Box::new(move || bus.with(|bus| bus.flush_failed(slot))));
}

/// Gives the DIMMs of `bus` what they remember.
pub fn restore(bus: &NvdimmBus, states: Vec<LeftState>) -> Result<(), BuildError> {
    bus.with(|bus| {
        for (dimm, state) in bus.dimms.iter_mut().zip(states) {
            dimm.restore(&state.state, state.store())
                .map_err(|e| state.damaged(&dimm.plan.id, e))?;
        }
        bus.recall(|_| true);
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
        access = match (access, dimm.access) {
            (Access::ReadOnly, _) | (_, Access::ReadOnly) => Access::ReadOnly,
            (Access::Logged, _) | (_, Access::Logged) => Access::Logged,
            _ => Access::ReadWrite,
        };
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
