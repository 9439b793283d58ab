//! Bad lines of guest memory, as devices meet them.
//!
//! A device that reads one fails the request; what it stores there stays in a bad line. Whoever keeps the lines publishes them
//! with [`BadLines::set`], and hears from [`BadLines::take_met`] which ones devices have met.
//!
//! A line can go bad under a device that reads it. Then the memory reads as zeros and [`BadLines::in_doubt`] says so until the line
//! is among those that are published: the device puts back what it has taken, and tries again.

use crate::units::{Gpa, GpaRange};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Lines that devices met and nobody has asked for yet: beyond that they are only counted.
const MOST_MET: usize = 256;

/// The lines. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct BadLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    any: AtomicBool,
    doubt: Option<fn() -> bool>,
    /// Start, end; disjoint.
    runs: RwLock<BTreeMap<u64, u64>>,
    met: Mutex<Vec<Gpa>>,
    count: AtomicU64,
}

impl BadLines {
    /// None, and no trust in what is read while `doubt` says so: lines that are bad by then are about to be published.
    pub fn doubted(doubt: fn() -> bool) -> Self {
        Self(Arc::new(Shared {
            doubt: Some(doubt),
            ..Shared::default()
        }))
    }

    /// Whether what has just been read may be something else than what was there.
    pub fn in_doubt(&self) -> bool {
        self.0.doubt.is_some_and(|doubt| doubt())
    }

    /// From now on these are bad, and nothing else. Disjoint, or one in the other's beginning.
    pub fn set(&self, runs: impl IntoIterator<Item = GpaRange>) {
        let runs: BTreeMap<u64, u64> = runs.into_iter().map(|run| (run.start.0, run.end().0)).collect();
        let mut now = self.0.runs.write().unwrap_or_else(PoisonError::into_inner);
        self.0.any.store(!runs.is_empty(), Ordering::Release);
        *now = runs;
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// The first bad byte of `len` at `start`, which may be anything that a guest says.
    pub fn first_in(&self, start: Gpa, len: u64) -> Option<Gpa> {
        if !self.any() || len == 0 {
            return None;
        }
        let (start, end) = (start.0, start.0.saturating_add(len));
        let runs = self.0.runs.read().unwrap_or_else(PoisonError::into_inner);
        let before = runs.range(..=start).next_back().filter(|(_, end)| **end > start);
        let within = || runs.range(start..end).next().map(|(at, _)| *at);
        before.map(|_| start).or_else(within).map(Gpa)
    }

    /// A device's request has failed because of the line at `gpa`.
    pub fn meet(&self, gpa: Gpa) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let mut met = self.0.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.len() < MOST_MET {
            met.push(gpa);
        }
    }

    /// Requests that failed.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// What devices met since the last call.
    pub fn take_met(&self) -> Vec<Gpa> {
        match self.any() {
            true => std::mem::take(&mut self.0.met.lock().unwrap_or_else(PoisonError::into_inner)),
            false => vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_byte_of_a_range_is_found() {
        let lines = BadLines::default();
        let range = |start, len| GpaRange::new(Gpa(start), len);
        assert!(!lines.any() && lines.first_in(Gpa(0), u64::MAX).is_none());
        lines.set([range(64, 64), range(256, 4096)]);
        for (start, len, first) in [
            (0, 64, None),
            (0, 65, Some(64)),
            (64, 1, Some(64)),
            (100, 500, Some(100)),
            (128, 128, None),
            (128, 129, Some(256)),
            (4351, 9, Some(4351)),
            (4352, 9, None),
            (100, 0, None),
            (u64::MAX, 9, None),
        ] {
            assert_eq!(lines.first_in(Gpa(start), len), first.map(Gpa), "{start:#x} {len:#x}");
        }
        let twin = lines.clone();
        twin.meet(Gpa(64));
        assert_eq!(
            (lines.count(), lines.take_met(), lines.take_met()),
            (1, vec![Gpa(64)], vec![])
        );
        lines.set([]);
        assert!(!twin.any());
    }
}
