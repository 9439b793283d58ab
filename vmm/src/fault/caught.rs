//! Which accesses are seen: holes and traps as they should be, as they are, and what was touched.

use super::{Faults, Holes, MAX_HOLES, Piece, holes::offsets, plan_holes};
use crate::memory::{GuestMapError, Sprung, Window};
use devices::units::{Gpa, GpaRange};
use std::{
    io,
    ops::Range,
    sync::{Arc, PoisonError},
};

impl Faults {
    /// The holes and traps that the lines ask for.
    pub fn plan(&self) -> Holes {
        self.plan_with(&[])
    }

    /// The same if loads met all of `more` as well.
    pub fn plan_with(&self, more: &[GpaRange]) -> Holes {
        let memory = self.windows.changes();
        let all = self.windows.all();
        let ranges: Vec<GpaRange> = all.iter().map(|window| window.range()).collect();
        let mut bad = self.all_bad(&ranges);
        bad.extend(more);
        // Their loads have to be seen.
        bad.extend(self.awaited().all().map(|(line, _)| line));
        bad.sort_unstable();
        // Few lines make few holes, and nobody asks what the windows can do.
        let traps = bad.len() > MAX_HOLES && self.traps.are_wanted();
        let piece = |window: &Arc<Window>| Piece {
            range: window.range(),
            traps: traps && window.can_trap(),
        };
        let pieces: Vec<Piece> = all.iter().map(piece).collect();
        plan_holes(&bad, &pieces, &self.traps.recent(), MAX_HOLES).in_memory(memory)
    }

    /// Whether the holes are those of `plan`.
    pub fn has(&self, plan: &Holes) -> bool {
        self.holes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_as_good_as(plan)
    }

    /// Whether there are holes at all.
    pub fn any(&self) -> bool {
        !self.holes.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The holes and traps now.
    pub fn caught(&self) -> Holes {
        self.holes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the holes and traps those of `plan`. Every vCPU stands. After an error some may be missing, none is too many. False: a window
    /// can have no traps after all, which makes another plan.
    pub fn dig(&self, plan: Holes) -> Result<bool, GuestMapError> {
        let mut holes = self.holes.write().unwrap_or_else(PoisonError::into_inner);
        let mut dug = Ok(true);
        let (mut done, mut trapped) = (vec![], vec![]);
        for window in self.windows.all() {
            let range = window.range();
            match window.set_holes(offsets(plan.of(range), range)) {
                Ok(()) => done.extend(plan.of(range)),
                Err(error) => {
                    done.extend(holes.of(range));
                    dug = Err(error);
                }
            }
            let (set, sprung) = window.set_traps(offsets(plan.traps_of(range), range));
            self.traps.lost(sprung.lost);
            match set {
                Ok(()) => trapped.extend(plan.traps_of(range)),
                Err(error) => {
                    tracing::warn!(%error, %range, "no traps for pages with bad lines");
                    dug = dug.map(|_| false);
                }
            }
        }
        *holes = Holes::new(done, trapped, plan.left_out).in_memory(plan.memory());
        dug
    }

    /// Whether somebody has touched a page with a trap.
    pub fn is_sprung(&self) -> bool {
        let holes = self.holes.read().unwrap_or_else(PoisonError::into_inner);
        holes.has_traps() && self.windows.all().iter().any(|window| window.is_sprung())
    }

    /// Opens the traps that were touched: their pages are to be holes. Every vCPU stands. Addresses of this process whose contents are
    /// lost.
    pub fn take_sprung(&self) -> Vec<usize> {
        for window in self.windows.all() {
            let Sprung { pages, lost } = window.take_sprung();
            self.traps.touched(&pages);
            self.traps.lost(lost);
        }
        self.traps.take_lost()
    }

    /// Counts what makes another plan of the same lines: touches of traps, and traps that went with their memory.
    pub fn trap_changes(&self) -> u64 {
        self.traps.changes()
    }

    /// See [`Window::renew`]. Its pages have no trap then, even if they are to have one.
    pub fn renew(&self, window: &Window, offset: u64, lsb: u32, replaced: bool) -> io::Result<Range<u64>> {
        let unit = window.renew(offset, lsb, replaced)?;
        let start = window.range().start.0;
        let mut holes = self.holes.write().unwrap_or_else(PoisonError::into_inner);
        holes.forget_traps(&(start.saturating_add(unit.start)..start.saturating_add(unit.end)));
        self.traps.went();
        Ok(unit)
    }

    /// How many pieces the guest's memory has.
    pub fn pieces(&self) -> usize {
        self.windows.all().len()
    }

    /// Whether there can be traps in some of the memory.
    pub fn can_trap(&self) -> bool {
        self.traps.are_wanted() && self.windows.all().iter().any(|window| window.can_trap())
    }

    /// Whether `gpa` is in a hole.
    pub fn is_hole(&self, gpa: Gpa) -> bool {
        self.holes.read().unwrap_or_else(PoisonError::into_inner).contains(gpa)
    }
}
