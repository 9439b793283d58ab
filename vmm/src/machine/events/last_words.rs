//! A guest whose kernel has said that it panicked, and may not have said of what.
//!
//! A kernel tells pvpanic before it prints what another processor kept it from printing. So it goes on until it ends itself,
//! has made no exit for a while, or has had long enough.

use super::{Outcome, Running};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How long a guest may be silent before it has nothing more to say.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may go on at all.
const LONGEST: Duration = Duration::from_secs(10);

/// What is heard of such a guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastWords {
    since: Instant,
    /// Exits at the last sign of life, and when that was.
    exits: u64,
    heard: Instant,
}

impl LastWords {
    fn begin(exits: u64, now: Instant) -> Self {
        Self {
            since: now,
            exits,
            heard: now,
        }
    }

    /// Takes note of the exits so far; true: it has nothing more to say.
    fn are_over(&mut self, exits: u64, now: Instant) -> bool {
        if exits != self.exits {
            (self.exits, self.heard) = (exits, now);
        }
        now.duration_since(self.heard) >= SILENCE || now.duration_since(self.since) >= LONGEST
    }
}

impl Running {
    /// The guest's kernel says that it has panicked.
    pub(super) fn panicked(&mut self) {
        let exits = self.guest_exits();
        self.last_words
            .get_or_insert_with(|| LastWords::begin(exits, Instant::now()));
    }

    /// Ends a machine whose kernel has panicked and has nothing more to say.
    pub(super) fn listen_to_last_words(&mut self) {
        let exits = self.guest_exits();
        if let Some(words) = &mut self.last_words
            && words.are_over(exits, Instant::now())
        {
            self.end(Outcome::Panicked);
        }
    }

    /// Exits that the guest itself makes.
    fn guest_exits(&self) -> u64 {
        let exits = &self.parts.platform.exits;
        [&exits.port, &exits.mmio, &exits.collected, &exits.hypercalls]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_is_heard_while_it_speaks_and_not_for_ever() {
        let start = Instant::now();
        let mut words = LastWords::begin(7, start);
        let mut at = |ms, exits| words.are_over(exits, start + Duration::from_millis(ms));
        assert!(!at(900, 7));
        assert!(!at(950, 8));
        assert!(!at(1900, 8));
        assert!(at(1950, 8));
        let mut words = LastWords::begin(0, start);
        let over: Vec<_> = (1..=20)
            .map(|n| words.are_over(n, start + Duration::from_millis(n * 500)))
            .collect();
        assert_eq!(over.iter().filter(|over| **over).count(), 1, "{over:?}");
        assert!(over[19]);
    }
}
