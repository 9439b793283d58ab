//! Bad ranges as the whole bus sees them: by SPA across the DIMMs of a set, and what the guest injected.
//!
//! This is what the host works with, through [`NvdimmBus::with`](super::NvdimmBus::with): [`BusState::inject`],
//! [`BusState::clear_errors`] and their like take SPA ranges, `*_dimm` a DIMM's DPAs, and [`BusState::errors`] lists all.
//! The guest's functions ([`super::ars`]) go the same ways.

use super::{
    BusState, Dimm,
    interleave::Lane,
    media::{BadRange, ErrorSource, ErrorState, LINE, MAX_RANGES, Mark, MediaFull, MediaState},
    plan::SpaPlan,
};
use crate::units::{Dpa, Gpa, GpaRange};
use std::{collections::BTreeMap, io, ops::Range};

/// A bad range with its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MediaError {
    /// Slot of the DIMM.
    pub slot: u8,
    /// Place in the DIMM.
    #[serde(flatten)]
    pub range: BadRange,
    /// Where the guest sees its first byte; none: in no SPA range.
    pub spa: Option<Gpa>,
}

/// Why errors were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErrorsError {
    /// No DIMM in this slot.
    #[error("there is no NVDIMM in slot {0}: expected the slot of one that is there")]
    NoDimm(u8),
    /// Not a range of the DIMM.
    #[error(
        "{len:#x} bytes at DPA {dpa:#x} are not in the NVDIMM: expected at least one byte, below its {capacity:#x}"
    )]
    Outside {
        /// First byte.
        dpa: u64,
        /// Bytes.
        len: u64,
        /// Bytes of the DIMM.
        capacity: u64,
    },
    /// Not in one SPA range with DIMMs behind it.
    #[error(
        "{len:#x} bytes at {start} are not in an NVDIMM: expected at least one byte, all of one SPA range with NVDIMMs behind \
         it; hint: `daxvisor run --dry-run` lists the ranges"
    )]
    NoNvdimm {
        /// First byte.
        start: Gpa,
        /// Bytes.
        len: u64,
    },
    /// A DIMM keeps no more.
    #[error(transparent)]
    Full(#[from] MediaFull),
}

/// Why a change of errors was not made, or was undone.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] ErrorsError),
    /// The state of a DIMM cannot be written.
    #[error("the state of an NVDIMM cannot be written, so nothing was changed")]
    NotKept(#[from] io::Error),
}

/// A run of bad bytes in an SPA range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// First byte.
    pub start: u64,
    /// First byte behind.
    pub end: u64,
    /// Slot of the DIMM that holds the first byte.
    pub slot: u8,
}

/// What lies in a part of an SPA range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Runs {
    /// The first ones.
    pub found: Vec<Run>,
    /// Start of the first one that was too many.
    pub next: Option<u64>,
}

/// One DIMM's part in a search.
struct Search<'a> {
    lane: Lane<'a>,
    /// Bad DPAs.
    bad: Vec<Range<u64>>,
}

impl Search<'_> {
    /// The run with `dpa` in it, or the first behind.
    fn at(&self, dpa: u64) -> Option<&Range<u64>> {
        self.bad.get(self.bad.partition_point(|run| run.end <= dpa))
    }

    /// The first bad SPA from `spa` on.
    fn bad(&self, spa: Gpa) -> Option<u64> {
        let dpa = self.lane.dpa_at(spa)?;
        let run = self.at(dpa)?;
        Some(self.lane.spa_of(run.start.max(dpa))?.0)
    }

    /// The first good SPA from `spa` on.
    fn good(&self, spa: Gpa) -> Option<u64> {
        let dpa = self.lane.dpa_at(spa)?;
        let dpa = self.at(dpa).filter(|run| run.start <= dpa).map_or(dpa, |run| run.end);
        Some(self.lane.spa_of(dpa)?.0)
    }
}

/// The bad runs of `within`, a part of `spa`, of at least `state`; `most` of them.
pub(super) fn runs(dimms: &[Dimm], spa: &SpaPlan, within: GpaRange, state: ErrorState, most: usize) -> Runs {
    runs_where(dimms, spa, within, &|mark| mark.state >= state, most)
}

/// The same of those whose marks are `wanted`.
fn runs_where(dimms: &[Dimm], spa: &SpaPlan, within: GpaRange, wanted: &dyn Fn(Mark) -> bool, most: usize) -> Runs {
    let bad = |lane: &Lane<'_>| {
        let dimm = dimms.iter().find(|dimm| dimm.plan.slot == lane.slot());
        dimm.map(|dimm| dimm.media.runs_where(lane.dpas(within), wanted))
            .unwrap_or_default()
    };
    let search = |lane| Search { bad: bad(&lane), lane };
    let all: Vec<Search<'_>> = spa.lanes().map(search).collect();
    let (mut runs, mut at) = (Runs::default(), within.start);
    loop {
        let firsts = all.iter().filter_map(|s| Some((s.bad(at)?, s.lane.slot())));
        let Some((start, slot)) = firsts.min() else {
            return runs;
        };
        if runs.found.len() == most {
            runs.next = Some(start);
            return runs;
        }
        // Each byte from here on belongs to one lane, so the run ends at the first good byte of any.
        let ends = all.iter().filter_map(|s| s.good(Gpa(start)));
        let end = ends.min().unwrap_or(u64::MAX).min(within.end().0);
        runs.found.push(Run { start, end, slot });
        at = Gpa(end);
    }
}

/// What the guest injected, as it said it: SPA ranges, not merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injected {
    /// First byte, first byte behind; ascending.
    records: Vec<(u64, u64)>,
    changes: u64,
}

impl Injected {
    /// The records by address.
    pub fn records(&self) -> impl Iterator<Item = GpaRange> {
        self.records
            .iter()
            .map(|(start, end)| GpaRange::new(Gpa(*start), end - start))
    }

    /// Counts the changes since power-on: whoever stores the records compares.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Lists what was kept from an earlier run, as far as there is room.
    pub(super) fn recall(&mut self, spas: GpaRange) {
        let changes = self.changes;
        // Too many are those that a guest injected on several DIMMs in runs of their own.
        let _ = self.add(spas);
        self.changes = changes;
    }

    /// Of two with the same start the longer one stays.
    fn add(&mut self, spas: GpaRange) -> Result<(), MediaFull> {
        let (start, end) = (spas.start.0, spas.end().0);
        self.changes += 1;
        match self.records.binary_search_by_key(&start, |record| record.0) {
            Ok(at) => self
                .records
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|record| record.1 = record.1.max(end)),
            Err(_) if self.records.len() >= MAX_RANGES => return Err(MediaFull),
            Err(at) => self.records.insert(at, (start, end)),
        }
        Ok(())
    }

    /// Cuts `spas` out of all records.
    fn cut(&mut self, spas: GpaRange) -> Result<(), MediaFull> {
        let (start, end) = (spas.start.0, spas.end().0);
        let parts = |record: &(u64, u64)| [(record.0, record.1.min(start)), (record.0.max(end), record.1)];
        let whole = |record: &&(u64, u64)| record.1 <= start || end <= record.0;
        let mut left: Vec<_> = self.records.iter().filter(whole).copied().collect();
        let cut = self.records.iter().filter(|record| !whole(record)).flat_map(parts);
        left.extend(cut.filter(|(start, end)| start < end));
        // All that is left behind the cut starts there, and the longest covers the others.
        left.sort_unstable_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
        left.dedup_by_key(|record| record.0);
        if left.len() > MAX_RANGES {
            return Err(MediaFull);
        }
        self.changes += u64::from(left != self.records);
        self.records = left;
        Ok(())
    }

    /// `spas`, widened to whole lines except where another record has a part of the line.
    fn lines_without_others(&self, spas: GpaRange) -> (u64, u64) {
        let (start, end) = (spas.start.0, spas.end().0);
        let taken = |from: u64, to: u64| self.records.iter().any(|record| record.0 < to && from < record.1);
        let (below, above) = (start / LINE * LINE, end.next_multiple_of(LINE));
        let inner = (start.next_multiple_of(LINE), end / LINE * LINE);
        (
            if taken(below, start) { inner.0 } else { below },
            if taken(end, above) { inner.1 } else { above },
        )
    }
}

/// The errors of a bus at some time.
#[derive(Debug)]
pub struct ErrorsBefore {
    media: Vec<MediaState>,
    injected: Injected,
}

impl BusState {
    /// Makes `spas` bad. The guest is told when the platform knows of it.
    pub fn inject(&mut self, spas: GpaRange, mark: Mark) -> Result<(), ErrorsError> {
        self.inject_all(&[spas], mark)
    }

    /// Makes all of `ranges` bad, for [`BusState::change_errors`]: after an error some of them are. The guest is told once.
    pub fn inject_all(&mut self, ranges: &[GpaRange], mark: Mark) -> Result<(), ErrorsError> {
        for spas in ranges {
            self.edit(*spas, |media, dpas| media.mark(dpas, mark))?;
        }
        self.tell_known(mark);
        Ok(())
    }

    /// The errors as they are, for [`BusState::put_errors_back`].
    pub fn errors_before(&self) -> ErrorsBefore {
        ErrorsBefore {
            media: self.dimms.iter().map(|dimm| dimm.media.clone()).collect(),
            injected: self.injected.clone(),
        }
    }

    fn restore_errors(&mut self, before: ErrorsBefore) {
        for (dimm, media) in self.dimms.iter_mut().zip(before.media) {
            dimm.media.put_back(media);
        }
        self.injected = before.injected;
    }

    /// Undoes what was changed since `before`, where it is kept as well.
    pub fn put_errors_back(&mut self, before: ErrorsBefore) {
        self.restore_errors(before);
        self.rewrite_media();
    }

    /// Makes `len` bytes at `dpa` of the DIMM in `slot` bad. The guest is told when the platform knows of it and it is
    /// in an SPA range.
    pub fn inject_dimm(&mut self, slot: u8, dpa: Dpa, len: u64, mark: Mark) -> Result<(), ErrorsError> {
        let (media, dpas) = self.media(slot, dpa, len)?;
        media.mark(dpas, mark)?;
        if self.nfit.to_spa(slot, dpa).is_some() {
            self.tell_known(mark);
        }
        Ok(())
    }

    /// Makes `spas` good, whoever made them bad, and forgets what the guest injected there.
    pub fn clear_errors(&mut self, spas: GpaRange) -> Result<(), ErrorsError> {
        let mut injected = self.injected.clone();
        injected.cut(spas)?;
        self.edit(spas, MediaState::clear)?;
        self.injected = injected;
        Ok(())
    }

    /// Makes `len` bytes at `dpa` of the DIMM in `slot` good, and forgets what the guest injected and is now all good.
    pub fn clear_errors_dimm(&mut self, slot: u8, dpa: Dpa, len: u64) -> Result<(), ErrorsError> {
        let (media, dpas) = self.media(slot, dpa, len)?;
        media.clear(dpas)?;
        let mut injected = std::mem::take(&mut self.injected);
        injected.changes += 1;
        injected.records.retain(|&(start, end)| {
            let range = GpaRange::new(Gpa(start), end - start);
            self.first_error(range, ErrorState::Latent).is_some()
        });
        self.injected = injected;
        Ok(())
    }

    /// All bad ranges, by slot and DPA.
    pub fn errors(&self) -> Vec<MediaError> {
        let of = |dimm: &Dimm| {
            let slot = dimm.plan.slot;
            let place = move |range: BadRange| MediaError {
                slot,
                range,
                spa: self.nfit.to_spa(slot, range.dpa),
            };
            dimm.media.ranges().map(place).collect::<Vec<_>>()
        };
        self.dimms.iter().flat_map(of).collect()
    }

    /// The first bad byte of `spas` of at least `state`; none as well when it is not in one SPA range.
    pub fn first_error(&self, spas: GpaRange, state: ErrorState) -> Option<Gpa> {
        let spa = self.nfit.spa_with(spas)?;
        let runs = runs(&self.dimms, spa, spas, state, 1);
        runs.found.first().map(|run| Gpa(run.start))
    }

    /// The bad runs of `spas`, in every SPA range with DIMMs behind it, whose marks are `wanted`: `most` of each range.
    pub fn bad_where(&self, spas: GpaRange, wanted: &dyn Fn(Mark) -> bool, most: usize) -> Vec<GpaRange> {
        let of = |spa: &SpaPlan| {
            let (start, end) = (spa.range.start.max(spas.start), spa.range.end().min(spas.end()));
            let within = end.0.checked_sub(start.0).filter(|len| *len != 0);
            within.map_or_else(Vec::new, |len| {
                runs_where(&self.dimms, spa, GpaRange::new(start, len), wanted, most).found
            })
        };
        let runs = self.nfit.spas.iter().flat_map(of);
        runs.map(|run| GpaRange::new(Gpa(run.start), run.end - run.start))
            .collect()
    }

    /// Counts the changes of all DIMMs' bad ranges.
    pub fn media_changes(&self) -> u64 {
        let all = self.dimms.iter().map(|dimm| dimm.media.changes());
        all.fold(self.dimms.len() as u64, u64::wrapping_add)
    }

    /// What of `spas` is bad becomes known, as when the guest loads from it. It is not told: that is another path.
    pub fn discover(&mut self, spas: GpaRange) -> Result<(), ErrorsError> {
        self.edit(spas, |media, dpas| {
            media.discover(dpas);
            Ok(())
        })
    }

    /// Makes a change that outlasts the run, or none: what cannot be kept is undone.
    pub fn change_errors(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), ErrorsError>,
    ) -> Result<(), ChangeError> {
        let before = self.errors_before();
        if let Err(error) = change(self) {
            self.restore_errors(before);
            return Err(error.into());
        }
        let Err(error) = self.keep() else { return Ok(()) };
        // Of several DIMMs some may have been written.
        self.put_errors_back(before);
        Err(error.into())
    }

    /// What the guest injected and nobody cleared.
    pub fn injected(&self) -> &Injected {
        &self.injected
    }

    /// The guest injects an error.
    pub(super) fn guest_injects(&mut self, spas: GpaRange) -> Result<(), ErrorsError> {
        let mut injected = self.injected.clone();
        injected.add(spas)?;
        self.edit(spas, |media, dpas| media.mark(dpas, Mark::known(ErrorSource::Guest)))?;
        self.injected = injected;
        Ok(())
    }

    /// The guest takes an injected error back.
    pub(super) fn guest_takes_back(&mut self, spas: GpaRange) -> Result<(), ErrorsError> {
        self.spa(spas)?;
        let mut injected = self.injected.clone();
        injected.cut(spas)?;
        let (start, end) = injected.lines_without_others(spas);
        if start < end {
            let lines = GpaRange::new(Gpa(start), end - start);
            self.edit(lines, |media, dpas| media.take_back(dpas, ErrorSource::Guest))?;
        }
        self.injected = injected;
        Ok(())
    }

    fn tell_known(&mut self, mark: Mark) {
        if mark.state == ErrorState::Known {
            self.events.uncorrectable_error();
        }
    }

    /// The SPA range with all of `spas`, and with DIMMs behind it.
    fn spa(&self, spas: GpaRange) -> Result<&SpaPlan, ErrorsError> {
        let (start, len) = (spas.start, spas.len);
        let spa = self.nfit.spa_with(spas);
        let spa = spa.filter(|spa| len != 0 && !spa.mappings.is_empty());
        spa.ok_or(ErrorsError::NoNvdimm { start, len })
    }

    /// Changes the media behind all of `spas`, or of none.
    fn edit(
        &mut self,
        spas: GpaRange,
        change: impl Fn(&mut MediaState, Range<u64>) -> Result<(), MediaFull>,
    ) -> Result<(), ErrorsError> {
        let mut changed: BTreeMap<u8, MediaState> = BTreeMap::new();
        for lane in self.spa(spas)?.lanes() {
            let Some(dimm) = self.dimms.iter().find(|dimm| dimm.plan.slot == lane.slot()) else {
                continue;
            };
            let media = changed.entry(lane.slot()).or_insert_with(|| dimm.media.clone());
            change(media, lane.dpas(spas))?;
        }
        for dimm in &mut self.dimms {
            if let Some(media) = changed.remove(&dimm.plan.slot) {
                dimm.media = media;
            }
        }
        Ok(())
    }

    /// The media of a DIMM, with checked DPAs.
    fn media(&mut self, slot: u8, dpa: Dpa, len: u64) -> Result<(&mut MediaState, Range<u64>), ErrorsError> {
        let dimm = self.dimms.iter_mut().find(|dimm| dimm.plan.slot == slot);
        let dimm = dimm.ok_or(ErrorsError::NoDimm(slot))?;
        let (dpa, capacity) = (dpa.0, dimm.plan.capacity);
        let end = dpa.checked_add(len).filter(|end| len != 0 && *end <= capacity);
        let end = end.ok_or(ErrorsError::Outside { dpa, len, capacity })?;
        Ok((&mut dimm.media, dpa..end))
    }
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
