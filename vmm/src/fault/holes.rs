//! Which pages are taken out of the guest's memory slots, and which ones are when somebody touches them.

use crate::memory::PAGE;
use devices::units::{Gpa, GpaRange};
use std::{cmp::Reverse, collections::BTreeSet, ops::Range};

/// Most separate holes: each one more splits a memory slot, and vCPUs stand still while that is done.
pub const MAX_HOLES: usize = 1024;

/// Most pages that are holes because somebody has touched them, where there are traps.
pub const RECENT: usize = 64;

/// So many of them in any case.
const FEW: usize = 8;

/// A run of pages: start, end.
type Run = (u64, u64);

/// Runs of pages, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holes {
    /// Ascending, disjoint, each within one window.
    runs: Vec<Run>,
    /// The same of traps: pages that become holes when they are touched.
    traps: Vec<Run>,
    /// Pages that should be one or the other and are not, because there would be too many.
    pub left_out: u64,
    /// Version of the set of windows that they are in.
    memory: u64,
}

impl Holes {
    /// Of runs in any order.
    pub(super) fn new(mut runs: Vec<Run>, mut traps: Vec<Run>, left_out: u64) -> Self {
        runs.sort_unstable();
        traps.sort_unstable();
        Self {
            runs,
            traps,
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
        let same = self.runs == plan.runs && self.traps == plan.traps && self.left_out == plan.left_out;
        same && (self.is_empty() || self.memory == plan.memory)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.traps.is_empty()
    }

    /// How many pages are holes.
    pub fn pages(&self) -> u64 {
        pages(&self.runs)
    }

    /// Whether there are traps.
    pub fn has_traps(&self) -> bool {
        !self.traps.is_empty()
    }

    /// How many pages have traps.
    pub fn trapped(&self) -> u64 {
        pages(&self.traps)
    }

    /// Whether accesses to `gpa` are seen.
    pub fn contains(&self, gpa: Gpa) -> bool {
        contains(&self.runs, gpa) || self.has_trap(gpa)
    }

    /// Whether `gpa` is in a trap.
    pub fn has_trap(&self, gpa: Gpa) -> bool {
        contains(&self.traps, gpa)
    }

    /// There are no traps in `bytes`, whole pages, any more.
    pub(super) fn forget_traps(&mut self, bytes: &Range<u64>) {
        let first = self.traps.partition_point(|(_, end)| *end <= bytes.start);
        let behind = self.traps.partition_point(|(start, _)| *start < bytes.end);
        let Some(touched) = self.traps.get(first..behind) else {
            return;
        };
        let before = touched.first().map(|(start, _)| (*start, bytes.start));
        let after = touched.last().map(|(_, end)| (bytes.end, *end));
        let left: Vec<Run> = [before, after]
            .into_iter()
            .flatten()
            .filter(|(start, end)| start < end)
            .collect();
        self.traps.splice(first..behind, left);
    }

    /// Holes of the window at `range`.
    pub(super) fn of(&self, range: GpaRange) -> impl Iterator<Item = Run> {
        within(&self.runs, range)
    }

    /// Its traps.
    pub(super) fn traps_of(&self, range: GpaRange) -> impl Iterator<Item = Run> {
        within(&self.traps, range)
    }
}

/// As offsets into `range`.
pub(super) fn offsets(runs: impl Iterator<Item = Run>, range: GpaRange) -> Vec<Range<u64>> {
    let first = range.start.0;
    runs.map(|(start, end)| start - first..end - first).collect()
}

fn pages(runs: &[Run]) -> u64 {
    runs.iter().map(|(start, end)| (end - start) / PAGE).sum()
}

fn contains(runs: &[Run], gpa: Gpa) -> bool {
    let behind = runs.partition_point(|(start, _)| *start <= gpa.0);
    runs[..behind].last().is_some_and(|(_, end)| gpa.0 < *end)
}

fn within(runs: &[Run], range: GpaRange) -> impl Iterator<Item = Run> {
    let first = runs.partition_point(|(start, _)| *start < range.start.0);
    let end = range.end().0;
    runs[first..].iter().copied().take_while(move |(start, _)| *start < end)
}

/// A piece of guest memory.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Where the guest has it.
    pub range: GpaRange,
    /// Whether its pages can have traps.
    pub traps: bool,
}

/// The pages of `pieces` with something of `bad` (ascending) in them: at most `most` runs as holes. Where there are more, traps are set
/// in what can have them, the longest runs and the pages of `recent` last; what remains is left out, at the highest addresses, and
/// counted.
pub fn plan_holes(bad: &[GpaRange], pieces: &[Piece], recent: &[Gpa], most: usize) -> Holes {
    let (mut holes, mut free) = (vec![], vec![]);
    for (start, end, traps) in runs_of(bad, pieces) {
        if traps { &mut free } else { &mut holes }.push((start, end));
    }
    if holes.len() + free.len() <= most {
        holes.append(&mut free);
        return Holes::new(holes, vec![], 0);
    }
    // What cannot have traps has more need of holes than what was touched, but for the few pages of one instruction.
    let touched = most.saturating_sub(holes.len()).clamp(FEW, RECENT).min(most);
    let room = most - if free.is_empty() { 0 } else { touched };
    let left_out = holes.iter().skip(room).map(|(start, end)| (end - start) / PAGE).sum();
    holes.truncate(room);
    let recent: BTreeSet<u64> = recent
        .iter()
        .rev()
        .take(touched)
        .map(|page| page.0 / PAGE * PAGE)
        .collect();
    let last = last_of_the_longest(&free, room - holes.len());
    let mut traps = Vec::with_capacity(free.len());
    for run in free {
        if last.is_some_and(|last| by_length(&run) <= last) {
            holes.push(run);
            continue;
        }
        let (mut at, end) = run;
        for page in recent.range(at..end) {
            if at < *page {
                traps.push((at, *page));
            }
            holes.push((*page, page + PAGE));
            at = page + PAGE;
        }
        if at < end {
            traps.push((at, end));
        }
    }
    Holes::new(holes, traps, left_out)
}

/// The longest first, and of those as long the first.
fn by_length((start, end): &Run) -> (Reverse<u64>, u64) {
    (Reverse(end - start), *start)
}

/// The last of the first `n` by length.
fn last_of_the_longest(runs: &[Run], n: usize) -> Option<(Reverse<u64>, u64)> {
    let mut keys: Vec<_> = runs.iter().map(by_length).collect();
    let last = n.min(keys.len()).checked_sub(1)?;
    Some(*keys.select_nth_unstable(last).1)
}

/// Runs of pages with something bad in them, each a part of one piece, and whether that can have traps.
fn runs_of(bad: &[GpaRange], pieces: &[Piece]) -> Vec<(u64, u64, bool)> {
    let mut runs: Vec<(u64, u64, bool)> = vec![];
    for range in bad.iter().filter(|range| range.len != 0) {
        let Some(piece) = pieces.iter().find(|piece| piece.range.contains(range.start)) else {
            continue;
        };
        let within = piece.range;
        let start = (range.start.0 / PAGE * PAGE).max(within.start.0);
        let end = range.end().0.next_multiple_of(PAGE).min(within.end().0);
        match runs.last_mut() {
            Some(last) if start <= last.1 && within.start.0 <= last.0 => last.1 = last.1.max(end),
            _ => runs.push((start, end, piece.traps)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> GpaRange {
        GpaRange::new(Gpa(start), len)
    }

    fn pieces(all: &[(u64, u64, bool)]) -> Vec<Piece> {
        let piece = |(start, len, traps): &(u64, u64, bool)| Piece {
            range: range(*start, *len),
            traps: *traps,
        };
        all.iter().map(piece).collect()
    }

    #[test]
    fn bad_lines_take_their_whole_pages_and_neighbours_are_one_hole() {
        let pieces = pieces(&[(0, 0x10_0000, false), (0x10_0000, 0x10_0000, false)]);
        let bad = [
            range(0x1fc0, 0x40),
            range(0x2000, 0x40),
            range(0x4000, 0x3000),
            range(0xf_ffc0, 0x40),
            range(0x10_0000, 0x40),
            range(0x90_0000, 0x40),
        ];
        let holes = plan_holes(&bad, &pieces, &[], 9);
        assert_eq!(
            holes.runs,
            [
                (0x1000, 0x3000),
                (0x4000, 0x7000),
                (0xf_f000, 0x10_0000),
                (0x10_0000, 0x10_1000)
            ]
        );
        assert_eq!((holes.pages(), holes.trapped(), holes.left_out), (7, 0, 0));
        assert!(holes.contains(Gpa(0x2fff)) && !holes.contains(Gpa(0x3000)) && !holes.contains(Gpa(0xfff)));
        assert_eq!(offsets(holes.of(pieces[1].range), pieces[1].range), vec![0..0x1000; 1]);

        let few = plan_holes(&bad, &pieces, &[], 2);
        assert_eq!((few.pages(), few.trapped(), few.left_out), (5, 0, 2));
    }

    /// A page bad at every second one of `0..n` of a range at `start`.
    fn every_second(start: u64, n: u64) -> Vec<GpaRange> {
        (0..n).map(|page| range(start + 2 * page * PAGE, 64)).collect()
    }

    #[test]
    fn traps_are_for_what_can_have_them_and_nobody_has_touched() {
        let pieces = pieces(&[(0, 0x80_0000, true), (0x80_0000, 0x80_0000, false)]);
        let mut bad = every_second(0, 100);
        // One run of many pages is a hole before the short ones are.
        bad.push(range(0x60_0000, 0x10_0000));
        bad.extend(every_second(0x80_0000, 4));
        let most = RECENT + 10;
        let holes = plan_holes(&bad, &pieces, &[], most);
        assert_eq!((holes.pages(), holes.trapped(), holes.left_out), (4 + 0x100 + 5, 95, 0));
        assert!(holes.contains(Gpa(0)) && !holes.has_trap(Gpa(0)));
        let late = Gpa(2 * 60 * PAGE);
        assert!(holes.has_trap(late) && holes.contains(late) && !holes.has_trap(Gpa(late.0 + PAGE)));

        let touched = plan_holes(&bad, &pieces, &[late, Gpa(0x7f_0000)], most);
        assert_eq!(
            (touched.pages(), touched.trapped(), touched.left_out),
            (4 + 0x100 + 6, 94, 0)
        );
        assert!(touched.contains(late) && !touched.has_trap(late));
        assert!(!holes.is_as_good_as(&touched));

        // What cannot have traps comes first, and then is left out.
        bad.extend(every_second(0xa0_0000, 70));
        let crowded = plan_holes(&bad, &pieces, &[Gpa(0), late], most);
        let fixed = (most - FEW) as u64;
        assert_eq!(
            (crowded.pages(), crowded.trapped(), crowded.left_out),
            (fixed + 2, 98 + 0x100, 74 - fixed)
        );
    }

    #[test]
    fn a_run_is_divided_by_what_was_touched_of_it() {
        let pieces = pieces(&[(0, 0x80_0000, true)]);
        let mut bad: Vec<_> = (0..9).map(|n| range(n * 0x10_0000, 4 * PAGE)).collect();
        bad.sort_unstable();
        let recent = [Gpa(0x10_1000), Gpa(0x10_0000), Gpa(0x20_3fff)];
        let holes = plan_holes(&bad, &pieces, &recent, 5);
        assert_eq!(
            holes.runs,
            [(0x10_0000, 0x10_1000), (0x10_1000, 0x10_2000), (0x20_3000, 0x20_4000)]
        );
        assert_eq!(
            holes.traps[..3],
            [(0, 0x4000), (0x10_2000, 0x10_4000), (0x20_0000, 0x20_3000)]
        );
    }

    #[test]
    fn traps_that_went_are_asked_for_again() {
        let runs = vec![(0x1000, 0x5000), (0x7000, 0x8000), (0x9000, 0xb000)];
        let left = |bytes: Range<u64>| {
            let mut holes = Holes::new(vec![], runs.clone(), 0);
            holes.forget_traps(&bytes);
            holes.traps
        };
        assert_eq!(
            left(0x2000..0x3000),
            [(0x1000, 0x2000), (0x3000, 0x5000), (0x7000, 0x8000), (0x9000, 0xb000)]
        );
        assert_eq!(left(0x4000..0xa000), [(0x1000, 0x4000), (0xa000, 0xb000)]);
        assert_eq!(left(0x7000..0x8000), [(0x1000, 0x5000), (0x9000, 0xb000)]);
        assert_eq!(left(0..0x10_0000), []);
        for elsewhere in [0..0x1000, 0x5000..0x7000, 0xb000..0xc000, 0x2000..0x2000] {
            let mut same = left(elsewhere.clone());
            same.dedup_by(|after, before| {
                let joined = after.0 == before.1;
                before.1 = if joined { after.1 } else { before.1 };
                joined
            });
            assert_eq!(same, runs, "{elsewhere:x?}");
        }
    }

    #[test]
    fn holes_are_those_of_their_own_memory() {
        let (pieces, bad) = (pieces(&[(0, 0x10_0000, false)]), [range(0x1000, 0x40)]);
        let dug = plan_holes(&bad, &pieces, &[], 9).in_memory(1);
        assert!(dug.is_as_good_as(&plan_holes(&bad, &pieces, &[], 9).in_memory(1)));
        assert!(!dug.is_as_good_as(&plan_holes(&bad, &pieces, &[], 9).in_memory(2)));
        let none = plan_holes(&[], &pieces, &[], 9).in_memory(1);
        assert!(!dug.is_as_good_as(&none) && none.is_as_good_as(&Holes::default()));
    }

    proptest! {
        #[test]
        fn every_bad_byte_is_caught_and_every_page_that_is_has_one(
            places in proptest::collection::btree_set(0u64..0x4000, 0..300),
            recent in proptest::collection::vec(0u64..0x100, 0..90),
            most in 8usize..100,
        ) {
            let pieces = pieces(&[(0, 0x8_0000, true), (0x8_0000, 0x8_0000, true)]);
            let bad: Vec<_> = places.iter().map(|line| range(line * 64, 64)).collect();
            let recent: Vec<_> = recent.iter().map(|page| Gpa(page * PAGE)).collect();
            let holes = plan_holes(&bad, &pieces, &recent, most);
            for line in 0..0x4000 {
                let page = line / 64;
                let any = places.iter().any(|bad| bad / 64 == page);
                prop_assert_eq!(holes.contains(Gpa(line * 64)), any);
                let gpa = Gpa(line * 64);
                prop_assert!(!(contains(&holes.runs, gpa) && holes.has_trap(gpa)));
            }
            prop_assert_eq!(holes.left_out, 0);
            prop_assert!(holes.runs.len() <= most);
            for Piece { range: window, .. } in pieces {
                for (start, end) in holes.of(window).chain(holes.traps_of(window)) {
                    prop_assert!(window.start.0 <= start && start < end && end <= window.end().0);
                }
            }
        }
    }
}
