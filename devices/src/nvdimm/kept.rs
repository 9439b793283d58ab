//! What of a bus's DIMMs outlives the run: which sections a DIMM's state has, and when they are written.

use super::{
    BusState, Dimm, Firmware, Health, NfitPlan,
    errors::Injected,
    firmware::FirmwareState,
    health::HealthState,
    media::{MAX_RANGES, MediaState},
    state::{DimmState, StateError, StateStore},
};
use crate::units::{Dpa, GpaRange};
use serde::{Deserialize, Serialize, de::Error as _};
use std::{collections::BTreeMap, io, sync::Arc};

/// Name of the state's section with the [`HealthState`].
const HEALTH: &str = "health";
/// Name of the state's section with the [`FirmwareState`].
const FIRMWARE: &str = "firmware";
/// Name of the state's section with the [`MediaSection`].
const MEDIA: &str = "media";

/// Where a DIMM's state is kept, and what is there.
pub(super) struct Kept {
    store: Arc<dyn StateStore>,
    health: Option<HealthState>,
    firmware: Option<FirmwareState>,
    /// [`MediaState::changes`] of the bad ranges.
    media: u64,
    injected: Vec<InjectedAt>,
}

/// Bad ranges of a DIMM.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaSection {
    ranges: MediaState,
    injected: Vec<InjectedAt>,
}

/// What the guest injected, by the DIMM of its first byte: the guest's addresses are another machine's next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InjectedAt {
    dpa: Dpa,
    /// Bytes that the guest sees.
    len: u64,
}

impl MediaSection {
    /// Whether a DIMM of `capacity` bytes can have it.
    fn check(&self, capacity: u64) -> Result<(), StateError> {
        let outside = self
            .ranges
            .ranges()
            .find(|range| range.dpa.0 + range.len > capacity.next_multiple_of(64));
        let place = outside.map(|range| (range.dpa, range.len));
        let record = self.injected.iter().find(|at| at.dpa.0 >= capacity || at.len == 0);
        if let Some((dpa, len)) = place.or(record.map(|at| (at.dpa, at.len))) {
            let why = format!(
                "{len:#x} bad bytes at DPA {:#x}: expected at least one byte, below the DIMM's {capacity:#x}",
                dpa.0
            );
            return Err(StateError::Section(MEDIA.to_owned(), serde_json::Error::custom(why)));
        }
        if self.injected.len() > MAX_RANGES {
            let why = format!("{} injected errors: expected at most {MAX_RANGES}", self.injected.len());
            return Err(StateError::Section(MEDIA.to_owned(), serde_json::Error::custom(why)));
        }
        Ok(())
    }
}

impl Dimm {
    /// Makes the DIMM the one that left `state`, powered on again, and keeps its state in `store` from the next
    /// [`BusState::keep`] on. An error changes nothing. What the guest had injected waits for [`BusState::recall`].
    pub fn restore(&mut self, state: &DimmState, store: Arc<dyn StateStore>) -> Result<(), StateError> {
        let health: Option<HealthState> = state.section(HEALTH)?;
        let firmware: Option<FirmwareState> = state.section(FIRMWARE)?;
        let MediaSection { ranges, injected } = {
            let section: Option<MediaSection> = state.section(MEDIA)?;
            let section = section.unwrap_or_default();
            section.check(self.plan.capacity)?;
            section
        };
        if let Some(left) = health {
            self.health = Health::restore(self.plan.health, left);
        }
        self.firmware = Firmware::restore(firmware.unwrap_or_default());
        self.media = ranges;
        self.kept = Some(Kept {
            store,
            health,
            firmware,
            media: self.media.changes(),
            injected,
        });
        Ok(())
    }

    /// Makes durable what changed of the state. `injected` is what the guest injected, when that may have changed.
    fn keep(&mut self, injected: Option<Vec<InjectedAt>>) -> io::Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        keep_section(&*kept.store, HEALTH, &mut kept.health, self.health.state())?;
        keep_section(&*kept.store, FIRMWARE, &mut kept.firmware, self.firmware.state())?;
        let injected = injected.filter(|injected| *injected != kept.injected);
        let changes = self.media.changes();
        if injected.is_none() && changes == kept.media {
            return Ok(());
        }
        let section = MediaSection {
            ranges: self.media.clone(),
            injected: injected.unwrap_or_else(|| kept.injected.clone()),
        };
        kept.store.put(MEDIA, serde_json::to_value(&section)?)?;
        (kept.media, kept.injected) = (changes, section.injected);
        Ok(())
    }
}

fn keep_section<T: Serialize + PartialEq + Clone>(
    store: &dyn StateStore,
    name: &str,
    kept: &mut Option<T>,
    now: &T,
) -> io::Result<()> {
    if kept.as_ref() != Some(now) {
        store.put(name, serde_json::to_value(now)?)?;
        *kept = Some(now.clone());
    }
    Ok(())
}

/// The records by the slots of the DIMMs that keep them.
fn by_slot(nfit: &NfitPlan, injected: &Injected) -> BTreeMap<u8, Vec<InjectedAt>> {
    let mut all: BTreeMap<u8, Vec<InjectedAt>> = BTreeMap::new();
    for record in injected.records() {
        if let Some(at) = nfit.to_dpa(record.start) {
            let (dpa, len) = (at.dpa, record.len);
            all.entry(at.slot).or_default().push(InjectedAt { dpa, len });
        }
    }
    all
}

/// Everything that a call may change and that has to outlast the run.
#[derive(PartialEq)]
pub(super) struct Lasting {
    dimms: Vec<(HealthState, FirmwareState, u64)>,
    injected: u64,
}

impl BusState {
    pub(super) fn lasting(&self) -> Lasting {
        let lasting = |dimm: &Dimm| (*dimm.health.state(), *dimm.firmware.state(), dimm.media.changes());
        Lasting {
            dimms: self.dimms.iter().map(lasting).collect(),
            injected: self.injected.changes(),
        }
    }

    /// Makes durable what changed of the DIMMs' states.
    pub fn keep(&mut self) -> io::Result<()> {
        let changes = self.injected.changes();
        let mut records = (changes != self.injected_kept).then(|| by_slot(&self.nfit, &self.injected));
        for dimm in &mut self.dimms {
            let slot = dimm.plan.slot;
            dimm.keep(records.as_mut().map(|all| all.remove(&slot).unwrap_or_default()))?;
        }
        self.injected_kept = changes;
        Ok(())
    }

    /// The next [`BusState::keep`] writes the bad ranges of all DIMMs.
    pub(super) fn rewrite_media(&mut self) {
        self.injected_kept = u64::MAX;
        for kept in self.dimms.iter_mut().filter_map(|dimm| dimm.kept.as_mut()) {
            kept.media = u64::MAX;
        }
    }

    /// The guest shut down in an orderly way.
    pub fn shut_down(&mut self) -> io::Result<()> {
        self.dimms.iter_mut().for_each(|dimm| dimm.health.shut_down());
        self.keep()
    }

    /// Lists again what the guest injected in earlier runs on the DIMMs in `slots`. What is in no range of NVDIMMs now is left
    /// out, and so is what would be too much; the errors themselves are there all the same.
    pub fn recall(&mut self, slots: impl Fn(u8) -> bool) {
        let dimms = self.dimms.iter().filter(|dimm| slots(dimm.plan.slot));
        for (slot, kept) in dimms.filter_map(|dimm| Some((dimm.plan.slot, dimm.kept.as_ref()?))) {
            for InjectedAt { dpa, len } in &kept.injected {
                let spa = self.nfit.to_spa(slot, *dpa);
                let fits = spa.filter(|spa| spa.0.checked_add(*len).is_some());
                let range = fits.map(|spa| GpaRange::new(spa, *len));
                if let Some(range) = range.filter(|range| self.nfit.spa_with(*range).is_some()) {
                    self.injected.recall(range);
                }
            }
        }
    }
}
