//! NVDIMMs of a machine: backings opened, SPA ranges mapped.

use super::build::{BuildError, Plans};
use crate::{
    config::{NvdimmConfig, VirtualDiskConfig, VmConfig, probe::BackingFacts},
    hv::Vm,
    layout::Layout,
    memory::{
        Access, GuestMap, Mapping, Window,
        backing::{self, BackingError, Opened, Source},
        encrypted::{
            EncryptedDimm, EncryptedLabels, EncryptedMedia,
            pending::{Part, Watched},
        },
        interleave::{self, Share},
        plain::PlainMedia,
    },
    nvdimm,
};
use devices::{
    Clock,
    nvdimm::{
        LabelStore, NvdimmBus, NvdimmBusPlan, Security, SpaPlan,
        security::{MediaControl, SecurityState, Settings},
    },
    units::ByteSize,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

/// Buses, each with the label stores of its DIMMs.
pub type NvdimmBuses = Vec<(NvdimmBusPlan, Vec<Box<dyn LabelStore>>)>;

/// What the DIMMs of a machine are made of.
pub struct Nvdimms {
    /// For the devices.
    pub buses: NvdimmBuses,
    /// For security, by slot.
    pub secured: BTreeMap<u8, Secured>,
    /// DIMMs whose contents have to be written back.
    pub encrypted: Vec<Arc<EncryptedDimm>>,
}

/// What security needs of one DIMM.
pub struct Secured {
    state: SecurityState,
    media: Box<dyn MediaControl>,
    settings: Settings,
}

/// A DIMM whose windows are not there yet.
enum Contents {
    Plain { source: Source, data: u64, size: u64 },
    Encrypted(Arc<EncryptedDimm>),
}

/// Opens the backing of every DIMM and gives the guest every SPA range. Ranges of DIMMs with security are not shown before
/// [`secure`] has unlocked those without a passphrase.
pub fn open(config: &VmConfig, plans: &Plans<'_>, vm: &Vm, map: &mut GuestMap) -> Result<Nvdimms, BuildError> {
    let mut opened = BTreeMap::new();
    let mut labels = BTreeMap::new();
    let mut contents = BTreeMap::new();
    for ((slot, nvdimm), facts) in (0u8..).zip(&config.nvdimm).zip(plans.backings) {
        let (mut dimm, security) = open_dimm(nvdimm, *facts).map_err(|source| BuildError::Nvdimm {
            id: config.nvdimm_name(slot.into()),
            source,
        })?;
        let none: Box<dyn LabelStore> = Box::new(Vec::new());
        labels.insert(slot, dimm.labels.take().unwrap_or(none));
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
        let watched = Arc::new(watch(window, &spa.plan, &contents));
        for slot in slots {
            windows.entry(slot).or_default().push(watched.clone());
        }
    }
    let mut encrypted = Vec::new();
    let mut secured = BTreeMap::new();
    for (slot, contents) in contents {
        let windows = windows.remove(&slot).unwrap_or_default();
        if let Contents::Encrypted(dimm) = &contents {
            encrypted.push(dimm.clone());
        }
        let (state, media) = media(contents, windows);
        let asked = config
            .nvdimm
            .get(usize::from(slot))
            .and_then(|nvdimm| nvdimm.overwrite_time);
        let mut settings = Settings::default();
        settings.overwrite = asked.map_or(settings.overwrite, |seconds| Duration::from_secs(seconds.into()));
        secured.insert(slot, Secured { state, media, settings });
    }
    let buses = nvdimm::plan(config, plans.layout).into_iter().map(|bus| {
        let stores = bus.nfit.dimms.iter().filter_map(|dimm| labels.remove(&dimm.slot));
        let stores = stores.collect();
        (bus, stores)
    });
    Ok(Nvdimms {
        buses: buses.collect(),
        secured,
        encrypted,
    })
}

/// Gives the DIMMs of `bus` their security, which shows those that are not locked to the guest.
pub fn secure(bus: &NvdimmBus, secured: &mut BTreeMap<u8, Secured>, clock: &Clock) -> Result<(), BuildError> {
    bus.with(|bus| {
        for dimm in &mut bus.dimms {
            let Some(Secured { state, media, settings }) = secured.remove(&dimm.plan.slot) else {
                continue;
            };
            let security = Security::new(state, media, clock, settings).map_err(|source| BuildError::Contents {
                id: dimm.plan.id.clone(),
                source,
            })?;
            dimm.security = Some(security);
        }
        Ok(())
    })
}

/// A read-only DIMM has no security: there is nothing of it that could be changed.
fn open_dimm(config: &NvdimmConfig, facts: BackingFacts) -> Result<(Opened, Option<Contents>), BackingError> {
    if !config.encrypt {
        let opened = backing::open(config, facts)?;
        let plain = (!config.readonly).then(|| Contents::Plain {
            source: opened.source.clone(),
            data: facts.size.0.saturating_sub(config.label.0),
            size: facts.size.0,
        });
        return Ok((opened, plain));
    }
    let dimm = Arc::new(backing::open_encrypted(config, facts)?);
    let source = dimm.source();
    let mapping = source.map(facts.size.0).map_err(|source| BackingError::Map {
        path: config.file.clone().unwrap_or_default(),
        size: facts.size,
        hint: "",
        source,
    })?;
    let labels: Option<Box<dyn LabelStore>> = match config.label.0 {
        0 => None,
        _ => Some(Box::new(EncryptedLabels(dimm.clone()))),
    };
    let opened = Opened {
        mapping,
        labels,
        access: Access::Logged,
        source,
    };
    Ok((opened, Some(Contents::Encrypted(dimm))))
}

/// Which bytes of which DIMM are in a window.
fn watch(window: Arc<Window>, plan: &SpaPlan, contents: &BTreeMap<u8, Contents>) -> Watched {
    let share = plan.mappings.first().map_or(plan.range.len, |mapping| mapping.len);
    let parts = plan.mappings.iter().map(|mapping| Part {
        pending: match contents.get(&mapping.slot) {
            Some(Contents::Encrypted(dimm)) => Some(dimm.pending()),
            _ => None,
        },
        dpa: mapping.dpa,
    });
    Watched {
        window,
        line: plan.interleave.map_or(share, |interleave| interleave.line.into()),
        parts: parts.collect(),
    }
}

fn media(contents: Contents, windows: Vec<Arc<Watched>>) -> (SecurityState, Box<dyn MediaControl>) {
    match contents {
        Contents::Plain { source, data, size } => {
            let windows = windows.iter().map(|watched| watched.window.clone()).collect();
            // Passphrases of a DIMM that is not encrypted are forgotten with the run.
            let media = PlainMedia::new(source, data, size, windows, Box::new(|_| Ok(())));
            (SecurityState::default(), Box::new(media))
        }
        Contents::Encrypted(dimm) => {
            windows.into_iter().for_each(|window| dimm.attach(window));
            (dimm.security(), Box::new(EncryptedMedia(dimm)))
        }
    }
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
