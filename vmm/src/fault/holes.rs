//! Which pages are taken out of the guest's memory slots.

use crate::memory::PAGE;
use devices::units::{Gpa, GpaRange};
use std::{collections::BTreeMap, ops::Range};

/// Most separate holes: each one more splits a memory slot, and vCPUs stand still while that is done.
pub const MAX_HOLES: usize = 1024;

/// Runs of pages, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holes {
    /// Start, end; disjoint, each within one window.
    runs: BTreeMap<u64, u64>,
    /// Pages that should be holes and are not, because there would be too many.
    pub left_out: u64,
    /// Version of the set of windows that they are in.
    memory: u64,
}

impl Holes {
    pub(super) fn new(runs: BTreeMap<u64, u64>, left_out: u64) -> Self {
        Self {
            runs,
            left_out,
            memory: 0,
        }
    }

    /// The same in version `memory` of the set of windows.
    pub(super) fn in_memory(self, memory: u64) -> Self {
        Self { memory, ..self }
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether `plan` asks for nothing else. The same pages of other memory are others: a new window has no holes.
    pub(super) fn is_as_good_as(&self, plan: &Self) -> bool {
        let same = self.runs == plan.runs && self.left_out == plan.left_out;
        same && (self.is_empty() || self.memory == plan.memory)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pages they are.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|(start, end)| (end - start) / PAGE).sum()
    }

    /// Whether `gpa` is in one.
    pub fn contains(&self, gpa: Gpa) -> bool {
        let run = self.runs.range(..=gpa.0).next_back();
        run.is_some_and(|(_, end)| gpa.0 < *end)
    }

    /// Those of the window at `range`.
    pub(super) fn of(&self, range: GpaRange) -> impl Iterator<Item = (u64, u64)> {
        let runs = self.runs.range(range.start.0..range.end().0);
        runs.map(|(start, end)| (*start, *end))
    }

    /// The same as offsets into it.
    pub(super) fn offsets(&self, range: GpaRange) -> Vec<Range<u64>> {
        let first = range.start.0;
        self.of(range).map(|(start, end)| start - first..end - first).collect()
    }
}

/// The pages of `windows` with something of `bad` (ascending) in them, as at most `most` runs; those at the highest
/// addresses are left out and counted.
pub fn plan_holes(bad: &[GpaRange], windows: &[GpaRange], most: usize) -> Holes {
    let mut runs: Vec<(u64, u64)> = vec![];
    for range in bad.iter().filter(|range| range.len != 0) {
        let Some(window) = windows.iter().find(|window| window.contains(range.start)) else {
            continue;
        };
        let start = (range.start.0 / PAGE * PAGE).max(window.start.0);
        let end = range.end().0.next_multiple_of(PAGE).min(window.end().0);
        match runs.last_mut() {
            // Not across the end of a window: a run is a part of one.
            Some(last) if start <= last.1 && window.start.0 <= last.0 => last.1 = last.1.max(end),
            _ => runs.push((start, end)),
        }
    }
    let left_out = runs.iter().skip(most).map(|(start, end)| (end - start) / PAGE).sum();
    runs.truncate(most);
    Holes::new(runs.into_iter().collect(), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> GpaRange {
        GpaRange::new(Gpa(start), len)
    }

    #[test]
    fn bad_lines_take_their_whole_pages_and_neighbours_are_one_hole() {
        let windows = [range(0, 0x10_0000), range(0x10_0000, 0x10_0000)];
        let bad = [
            range(0x1fc0, 0x40),
            range(0x2000, 0x40),
            range(0x4000, 0x3000),
            range(0xf_ffc0, 0x40),
            range(0x10_0000, 0x40),
            range(0x90_0000, 0x40),
        ];
        let holes = plan_holes(&bad, &windows, 9);
        let runs: Vec<_> = holes.runs.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(
            runs,
            [
                (0x1000, 0x3000),
                (0x4000, 0x7000),
                (0xf_f000, 0x10_0000),
                (0x10_0000, 0x10_1000)
            ]
        );
        assert_eq!((holes.pages(), holes.left_out), (7, 0));
        assert!(holes.contains(Gpa(0x2fff)) && !holes.contains(Gpa(0x3000)) && !holes.contains(Gpa(0xfff)));
        assert_eq!(holes.offsets(windows[1]), vec![0..0x1000; 1]);

        let few = plan_holes(&bad, &windows, 2);
        assert_eq!((few.pages(), few.left_out), (5, 2));
    }

    #[test]
    fn holes_are_those_of_their_own_memory() {
        let (windows, bad) = ([range(0, 0x10_0000)], [range(0x1000, 0x40)]);
        let dug = plan_holes(&bad, &windows, 9).in_memory(1);
        assert!(dug.is_as_good_as(&plan_holes(&bad, &windows, 9).in_memory(1)));
        assert!(!dug.is_as_good_as(&plan_holes(&bad, &windows, 9).in_memory(2)));
        let none = plan_holes(&[], &windows, 9).in_memory(1);
        assert!(!dug.is_as_good_as(&none) && none.is_as_good_as(&Holes::default()));
    }

    proptest! {
        #[test]
        fn every_bad_byte_is_in_a_hole_and_every_hole_has_one(
            places in proptest::collection::btree_set(0u64..0x400, 0..40)
        ) {
            let windows = [range(0, 0x8000), range(0x8000, 0x8000)];
            let bad: Vec<_> = places.iter().map(|line| range(line * 64, 64)).collect();
            let holes = plan_holes(&bad, &windows, usize::MAX);
            for line in 0..0x400 {
                let page = line / 64;
                let any = places.iter().any(|bad| bad / 64 == page);
                prop_assert_eq!(holes.contains(Gpa(line * 64)), any);
            }
            prop_assert_eq!(holes.left_out, 0);
            for window in windows {
                for (start, end) in holes.of(window) {
                    prop_assert!(window.start.0 <= start && start < end && end <= window.end().0);
                }
            }
        }
    }
}
