//! Security of a machine's DIMMs: what its commands act on.

use super::{build::BuildError, nvdimm::LeftState};
use crate::{
    config::{NvdimmConfig, VmConfig, probe::BackingFacts},
    memory::{
        Access, Window,
        backing::{self, BackingError, Opened, Source},
        encrypted::{
            EncryptedDimm, EncryptedLabels, EncryptedMedia,
            pending::{Part, Watched},
        },
        plain::{Keep, PlainMedia},
    },
};
use devices::{
    Clock,
    nvdimm::{
        Dimm, FlushMode, FlushTarget, LabelStore, NvdimmBus, NvdimmPlan, Security, SpaPlan,
        security::{MediaControl, SecurityState, Settings},
        state::StateError,
    },
};
use std::{fs::File, io, sync::Arc, time::Duration};

/// Name of the state's section with the [`SecurityState`] of a DIMM that is not encrypted; others keep it with their keys.
const SECTION: &str = "security";

/// What a DIMM holds, before its windows are there.
pub enum Contents {
    /// The bytes of the backing.
    Plain {
        /// The backing.
        source: Source,
        /// Bytes without labels.
        data: u64,
        /// Bytes with them.
        size: u64,
    },
    /// Ciphertext.
    Encrypted(Arc<EncryptedDimm>),
}

impl Contents {
    /// The DIMM that has to be written back.
    pub fn encrypted(&self) -> Option<Arc<EncryptedDimm>> {
        match self {
            Self::Encrypted(dimm) => Some(dimm.clone()),
            Self::Plain { .. } => None,
        }
    }
}

/// What security needs of one DIMM.
pub struct Secured {
    state: SecurityState,
    media: Box<dyn MediaControl>,
    settings: Settings,
}

/// Opens the backing of a DIMM; one without a file is made of `memory`, or of new memory. A read-only one has no security: there is nothing of it that could be changed.
pub fn open_dimm(
    config: &NvdimmConfig,
    facts: BackingFacts,
    memory: Option<&Arc<File>>,
) -> Result<(Opened, Option<Contents>), BackingError> {
    if !config.encrypt {
        let opened = backing::open_over(config, facts, memory.cloned())?;
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
        flush: (config.flush_mode() == FlushMode::Msync).then(|| dimm.clone() as Arc<dyn FlushTarget>),
    };
    Ok((opened, Some(Contents::Encrypted(dimm))))
}

/// Which bytes of which DIMM are in a window; `contents` knows the DIMMs with security by slot.
pub fn watch<'a>(window: Arc<Window>, plan: &SpaPlan, contents: impl Fn(u8) -> Option<&'a Contents>) -> Watched {
    let share = plan.mappings.first().map_or(plan.range.len, |mapping| mapping.len);
    let parts = plan.mappings.iter().map(|mapping| Part {
        pending: contents(mapping.slot)
            .and_then(Contents::encrypted)
            .map(|dimm| dimm.pending()),
        dpa: mapping.dpa,
    });
    Watched {
        window,
        line: plan.interleave.map_or(share, |interleave| interleave.line.into()),
        parts: parts.collect(),
    }
}

/// What security of `dimm` acts on. It has a closed lock in each of `windows`.
pub fn prepare(
    config: &VmConfig,
    dimm: &NvdimmPlan,
    contents: Contents,
    windows: Vec<Arc<Watched>>,
    left: &LeftState,
) -> Result<Secured, BuildError> {
    let said = config.nvdimm.get(usize::from(dimm.slot));
    let mut settings = Settings::default();
    if let Some(seconds) = said.and_then(|said| said.overwrite_time) {
        settings.overwrite = Duration::from_secs(seconds.into());
    }
    let (state, media): (_, Box<dyn MediaControl>) = match contents {
        Contents::Plain { source, data, size } => {
            let windows = windows.iter().map(|watched| watched.window.clone()).collect();
            let (state, keep) = kept(dimm, left)?;
            (state, Box::new(PlainMedia::new(source, data, size, windows, keep)))
        }
        Contents::Encrypted(dimm) => {
            windows.into_iter().for_each(|window| dimm.attach(window));
            (dimm.security(), Box::new(EncryptedMedia(dimm)))
        }
    };
    Ok(Secured { state, media, settings })
}

/// Passphrases of a DIMM that is not encrypted, and where they are kept: in its state.
fn kept(dimm: &NvdimmPlan, left: &LeftState) -> Result<(SecurityState, Keep), BuildError> {
    let bad = |why| left.damaged(&dimm.id, why);
    let state: Option<SecurityState> = left.state.section(SECTION).map_err(bad)?;
    let state = state.unwrap_or_default();
    if !state.is_sound() {
        let what = "the cost of a passphrase is out of bounds";
        let damaged = serde::de::Error::custom(what);
        return Err(bad(StateError::Section(SECTION.to_owned(), damaged)));
    }
    let store = left.store();
    let keep: Keep = Box::new(move |state| store.put(SECTION, serde_json::to_value(state)?));
    Ok((state, keep))
}

/// Gives the DIMMs of `bus` their security, which shows those that are not locked to the guest.
pub fn secure(bus: &NvdimmBus, secured: Vec<Option<Secured>>, clock: &Clock) -> Result<(), BuildError> {
    bus.with(|bus| {
        for (dimm, secured) in bus.dimms.iter_mut().zip(secured) {
            let Some(secured) = secured else { continue };
            give(dimm, secured, clock).map_err(|source| BuildError::Contents {
                id: dimm.plan.id.clone(),
                source,
            })?;
        }
        Ok(())
    })
}

/// Gives one DIMM its security, which shows it to the guest unless it is locked.
pub fn give(dimm: &mut Dimm, secured: Secured, clock: &Clock) -> io::Result<()> {
    let Secured { state, media, settings } = secured;
    dimm.security = Some(Security::new(state, media, clock, settings)?);
    Ok(())
}
