//! What is known of pages with traps beyond the plan: which were touched last, and what was lost.

use super::holes::RECENT;
use devices::units::Gpa;
use std::{
    collections::VecDeque,
    mem::take,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Traps {
    unwanted: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last one touched is the last one.
    recent: VecDeque<Gpa>,
    /// Counts what makes another plan: pages that were touched, and traps that went.
    changes: u64,
    lost: Vec<usize>,
}

impl Traps {
    pub(super) fn unwanted() -> Self {
        Self {
            unwanted: true,
            ..Self::default()
        }
    }

    /// Whether there are to be any.
    pub(super) fn are_wanted(&self) -> bool {
        !self.unwanted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages that were touched, at most as many as are holes for it.
    pub(super) fn recent(&self) -> Vec<Gpa> {
        self.state().recent.iter().copied().collect()
    }

    /// Counts what makes another plan of the same lines: pages that were touched, and traps that went with their memory.
    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Some traps are not there any more, and nobody has touched them.
    pub(super) fn went(&self) {
        self.state().changes += 1;
    }

    /// These were touched.
    pub(super) fn touched(&self, pages: &[Gpa]) {
        let mut state = self.state();
        state.changes += pages.len() as u64;
        for page in pages {
            state.recent.retain(|other| other != page);
            state.recent.push_back(*page);
        }
        let old = state.recent.len().saturating_sub(RECENT);
        state.recent.drain(..old);
    }

    /// What these addresses of this process held is lost.
    pub(super) fn lost(&self, addresses: Vec<usize>) {
        self.state().lost.extend(addresses);
    }

    /// Those addresses, once.
    pub(super) fn take_lost(&self) -> Vec<usize> {
        take(&mut self.state().lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_touched_last_are_kept() {
        let traps = Traps::default();
        let pages: Vec<Gpa> = (0..RECENT as u64 + 2).map(|n| Gpa(n << 12)).collect();
        traps.touched(&pages[..RECENT]);
        traps.touched(&pages[..1]);
        traps.touched(&pages[RECENT..]);
        let recent = traps.recent();
        assert_eq!((recent.len(), traps.changes()), (RECENT, RECENT as u64 + 3));
        assert_eq!(recent[RECENT - 3..], [pages[0], pages[RECENT], pages[RECENT + 1]]);
        assert!(recent.contains(&pages[3]) && !recent.contains(&pages[1]) && !recent.contains(&pages[2]));
    }
}
