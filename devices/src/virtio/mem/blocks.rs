//! Which blocks of a region are plugged: one bit each.

use std::ops::Range;

/// The blocks of a region.
#[derive(Debug)]
pub(super) struct Blocks {
    words: Vec<u64>,
    plugged: u64,
}

/// VIRTIO_MEM_STATE_* (virtio 1.2 5.15.6.5).
const PLUGGED: u16 = 0;
const UNPLUGGED: u16 = 1;
const MIXED: u16 = 2;

impl Blocks {
    pub(super) fn new(count: u64) -> Self {
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            plugged: 0,
        }
    }

    /// How many are plugged.
    pub(super) fn plugged(&self) -> u64 {
        self.plugged
    }

    fn get(&self, block: u64) -> bool {
        let word = usize::try_from(block / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (block % 64) & 1 != 0)
    }

    /// Whether all of `range` are in one state.
    pub(super) fn all(&self, mut range: Range<u64>, plugged: bool) -> bool {
        range.all(|block| self.get(block) == plugged)
    }

    pub(super) fn state(&self, range: Range<u64>) -> u16 {
        match (self.all(range.clone(), true), self.all(range, false)) {
            (true, _) => PLUGGED,
            (_, true) => UNPLUGGED,
            _ => MIXED,
        }
    }

    /// Changes blocks, all of which are in the other state.
    pub(super) fn set(&mut self, range: Range<u64>, plugged: bool) {
        for block in range {
            let word = usize::try_from(block / 64).ok().and_then(|at| self.words.get_mut(at));
            let Some(word) = word else { return };
            let bit = 1 << (block % 64);
            match plugged {
                true => {
                    *word |= bit;
                    self.plugged += 1;
                }
                false => {
                    *word &= !bit;
                    self.plugged = self.plugged.saturating_sub(1);
                }
            }
        }
    }

    /// Runs of plugged blocks; afterwards none is.
    pub(super) fn take_runs(&mut self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (word, at) in self.words.iter_mut().zip((0..).step_by(64)) {
            let bits = std::mem::take(word);
            for block in (at..at + 64).filter(|block| bits >> (block % 64) & 1 != 0) {
                match runs.last_mut() {
                    Some(run) if run.end == block => run.end += 1,
                    _ => runs.push(block..block + 1),
                }
            }
        }
        self.plugged = 0;
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_what_was_plugged(blocks in proptest::collection::btree_set(0u64..300, 0..80)) {
            let mut all = Blocks::new(300);
            for block in &blocks {
                all.set(*block..*block + 1, true);
            }
            prop_assert_eq!(all.plugged(), blocks.len() as u64);
            let runs = all.take_runs();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(runs.into_iter().flatten().collect::<Vec<_>>(), blocks.into_iter().collect::<Vec<_>>());
            prop_assert_eq!((all.plugged(), all.state(0..300)), (0, UNPLUGGED));
        }
    }
}
