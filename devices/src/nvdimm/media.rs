//! Which parts of a DIMM's media are bad: the one model behind scrubs, injected errors, consumption and the host's API.
//!
//! A [`MediaState`] belongs to a DIMM, is addressed by DPA and knows bad *lines* of [`LINE`] bytes, the unit in which a
//! processor consumes an error. Ranges are widened to whole lines when they are marked and when they are cleared.
//!
//! A bad range is *latent* until something finds it (a full scrub, a load, a host that says so) and *known* from then on:
//! a short scrub reports what is known. Each range remembers its [`ErrorSource`], because taking back an injected error
//! must leave a real one alone. Where ranges meet, the sum is taken: known wins over latent, the later variant of
//! [`ErrorSource`] over the earlier. Marking in any order gives the same state.
//!
//! The state is bounded by [`MAX_RANGES`] for each DIMM. Neighbours of the same kind are one range, whatever their
//! length; a change that would need more ranges than that is refused as a whole ([`MediaFull`]) and nothing happens. That
//! holds for clearing a hole into a range as well: the error stays, and whoever wanted it cleared is told.
//!
//! Nothing here touches the data. What a range holds after an error was cleared is undefined for the guest; it is what
//! the DIMM held before.

use crate::units::Dpa;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range};

/// Bytes of a line: the unit of an error.
pub const LINE: u64 = 64;
/// Most ranges of one DIMM.
pub const MAX_RANGES: usize = 4096;

/// Who made an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorSource {
    /// The guest, through the root's injection function: it may take the error back.
    Guest,
    /// The host, through the monitor's API. Only clearing removes it.
    Host,
    /// The guest, through the platform's error injection (EINJ). Only clearing removes it.
    Einj,
    /// The memory behind it: the host has lost what it held. Only clearing removes it.
    Backing,
}

/// Who knows of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorState {
    /// Nobody yet: a full scrub or a load will find it.
    Latent,
    /// The platform: a short scrub reports it.
    Known,
}

/// What is known of a bad range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// Who made it.
    pub source: ErrorSource,
    /// Who knows of it.
    pub state: ErrorState,
}

impl Mark {
    /// An error nobody knows of.
    pub fn latent(source: ErrorSource) -> Self {
        let state = ErrorState::Latent;
        Self { source, state }
    }

    /// An error the platform knows of.
    pub fn known(source: ErrorSource) -> Self {
        let state = ErrorState::Known;
        Self { source, state }
    }

    fn and(self, other: Self) -> Self {
        Self {
            source: self.source.max(other.source),
            state: self.state.max(other.state),
        }
    }
}

/// A bad range of one DIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadRange {
    /// First byte, at a line's start.
    pub dpa: Dpa,
    /// Bytes, whole lines.
    pub len: u64,
    /// Who made it.
    pub source: ErrorSource,
    /// Who knows of it.
    pub state: ErrorState,
}

/// A change would need more than [`MAX_RANGES`] ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are as many separate bad ranges as are kept (of a DIMM {MAX_RANGES}); hint: clear some, or larger pieces"
)]
pub struct MediaFull;

/// Ranges that cannot be a state: read from a file that something else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "bad range {len:#x} bytes at DPA {dpa:#x}: expected whole lines of {LINE} bytes, in ascending order, at most {MAX_RANGES}"
)]
pub struct InvalidMedia {
    dpa: u64,
    len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    start: u64,
    end: u64,
    mark: Mark,
}

/// The bad ranges of one DIMM. Serializes as their list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<BadRange>", into = "Vec<BadRange>")]
pub struct MediaState {
    /// By start; disjoint, and neighbours differ in their marks.
    ranges: BTreeMap<u64, (u64, Mark)>,
    changes: u64,
    /// Most ranges.
    most: usize,
}

impl Default for MediaState {
    fn default() -> Self {
        Self::with_room(MAX_RANGES)
    }
}

impl PartialEq for MediaState {
    fn eq(&self, other: &Self) -> bool {
        self.ranges == other.ranges
    }
}

impl Eq for MediaState {}

/// `dpas` widened to whole lines; the topmost line of the address space, which no DIMM has, is left out.
fn lines(dpas: Range<u64>) -> Range<u64> {
    if dpas.is_empty() {
        return 0..0;
    }
    let end = dpas
        .end
        .checked_next_multiple_of(LINE)
        .unwrap_or(u64::MAX / LINE * LINE);
    dpas.start / LINE * LINE..end
}

impl MediaState {
    /// No errors, in something else than a DIMM with room for `most` ranges.
    pub fn with_room(most: usize) -> Self {
        Self {
            ranges: BTreeMap::new(),
            changes: 0,
            most,
        }
    }

    /// Marks every line of `dpas`.
    pub fn mark(&mut self, dpas: Range<u64>, mark: Mark) -> Result<(), MediaFull> {
        self.rewrite(lines(dpas), |old| Some(old.map_or(mark, |old| old.and(mark))))
    }

    /// Clears every line of `dpas`, whoever made its error.
    pub fn clear(&mut self, dpas: Range<u64>) -> Result<(), MediaFull> {
        self.rewrite(lines(dpas), |_| None)
    }

    /// Forgets every line of `dpas`, also where that needs more room than there is: the memory itself is gone.
    pub fn forget(&mut self, dpas: Range<u64>) {
        let most = std::mem::replace(&mut self.most, usize::MAX);
        let forgotten = self.clear(dpas);
        self.most = most;
        debug_assert!(forgotten.is_ok(), "there is room for any number of ranges");
    }

    /// Makes the state what it was `before`, and counts that as one more change.
    pub(super) fn put_back(&mut self, before: Self) {
        let changes = self.changes;
        let changed = before.changes != changes;
        *self = before;
        if changed {
            self.changes = changes + 1;
        }
    }

    /// Clears every line of `dpas` whose error `source` made.
    pub fn take_back(&mut self, dpas: Range<u64>, source: ErrorSource) -> Result<(), MediaFull> {
        self.rewrite(lines(dpas), |old| old.filter(|mark| mark.source != source))
    }

    /// Makes the errors in `dpas` known. Where that would need too many ranges, the whole ranges that reach into it
    /// become known: an error that was found is never lost.
    pub fn discover(&mut self, dpas: Range<u64>) {
        let known = |old: Option<Mark>| {
            let state = ErrorState::Known;
            old.map(|mark| Mark { state, ..mark })
        };
        let window = lines(dpas);
        if let Err(MediaFull) = self.rewrite(window.clone(), known) {
            let whole = self.overlapping(&window).fold(window.clone(), |all, entry| {
                all.start.min(entry.start)..all.end.max(entry.end)
            });
            self.rewrite(whole, known)
                .expect("whole ranges that change their marks do not become more");
        }
    }

    /// All bad ranges in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = BadRange> {
        self.ranges.iter().map(|(&start, &(end, mark))| BadRange {
            dpa: Dpa(start),
            len: end - start,
            source: mark.source,
            state: mark.state,
        })
    }

    /// Whether there is no error at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Counts the changes since the state was made or read: whoever stores it compares.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The longest bad runs in `dpas` of at least `state`, ascending and disjoint, whatever else they are.
    pub fn runs(&self, dpas: Range<u64>, state: ErrorState) -> Vec<Range<u64>> {
        self.runs_where(dpas, |mark| mark.state >= state)
    }

    /// The longest bad runs in `dpas` whose marks are `wanted`, ascending and disjoint.
    pub fn runs_where(&self, dpas: Range<u64>, wanted: impl Fn(Mark) -> bool) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for entry in self.overlapping(&dpas).filter(|entry| wanted(entry.mark)) {
            let (start, end) = (entry.start.max(dpas.start), entry.end.min(dpas.end));
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }

    /// The entries that share a byte with `dpas`.
    fn overlapping(&self, dpas: &Range<u64>) -> impl Iterator<Item = Entry> {
        let before = self.ranges.range(..dpas.start).next_back();
        let first = before.filter(|(_, (end, _))| *end > dpas.start);
        let first = first.map_or(dpas.start, |(&start, _)| start);
        let all = self.ranges.range(first..dpas.end.max(first));
        all.map(|(&start, &(end, mark))| Entry { start, end, mark })
    }

    /// Gives each part of `window` the mark that `change` makes of what it has.
    fn rewrite(&mut self, window: Range<u64>, change: impl Fn(Option<Mark>) -> Option<Mark>) -> Result<(), MediaFull> {
        if window.is_empty() {
            return Ok(());
        }
        // A byte more on both sides, so that neighbours can become one with what is inside.
        let touched = window.start.saturating_sub(1)..window.end.saturating_add(1);
        let old: Vec<Entry> = self.overlapping(&touched).collect();
        let new = rewritten(&old, &window, change);
        if new == old {
            return Ok(());
        }
        if self.ranges.len() - old.len() + new.len() > self.most {
            return Err(MediaFull);
        }
        for entry in old {
            self.ranges.remove(&entry.start);
        }
        let new = new.into_iter().map(|entry| (entry.start, (entry.end, entry.mark)));
        self.ranges.extend(new);
        self.changes += 1;
        Ok(())
    }
}

/// `old`, with each part of `window` changed. Neighbours with equal marks are one.
fn rewritten(old: &[Entry], window: &Range<u64>, change: impl Fn(Option<Mark>) -> Option<Mark>) -> Vec<Entry> {
    let mut new: Vec<Entry> = Vec::new();
    let mut put = |start: u64, end: u64, mark: Option<Mark>| {
        let Some(mark) = mark.filter(|_| start < end) else {
            return;
        };
        match new.last_mut() {
            Some(last) if last.end == start && last.mark == mark => last.end = end,
            _ => new.push(Entry { start, end, mark }),
        }
    };
    let mut done = window.start;
    for entry in old {
        let mark = Some(entry.mark);
        let (start, end) = (
            entry.start.clamp(window.start, window.end),
            entry.end.clamp(window.start, window.end),
        );
        put(entry.start, entry.end.min(window.start), mark);
        put(done, start, change(None));
        put(start, end, change(mark));
        done = done.max(end);
        put(entry.start.max(window.end), entry.end, mark);
    }
    // What comes behind the window came after its last gap: `start` above is the window's end there.
    put(done, window.end, change(None));
    new
}

impl From<MediaState> for Vec<BadRange> {
    fn from(state: MediaState) -> Self {
        state.ranges().collect()
    }
}

impl TryFrom<Vec<BadRange>> for MediaState {
    type Error = InvalidMedia;

    fn try_from(list: Vec<BadRange>) -> Result<Self, InvalidMedia> {
        let mut state = Self::default();
        let (mut end, mut count) = (0, 0);
        for range in list {
            let (dpa, len) = (range.dpa.0, range.len);
            let invalid = InvalidMedia { dpa, len };
            let next = dpa.checked_add(len).ok_or(invalid)?;
            count += 1;
            if dpa < end || len == 0 || dpa % LINE != 0 || len % LINE != 0 || count > MAX_RANGES {
                return Err(invalid);
            }
            end = next;
            let BadRange {
                source, state: known, ..
            } = range;
            let mark = Mark { source, state: known };
            state.mark(dpa..next, mark).map_err(|MediaFull| invalid)?;
        }
        state.changes = 0;
        Ok(state)
    }
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
