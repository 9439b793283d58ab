//! Sets of page numbers: sparse, exact, and counted.

use std::collections::BTreeMap;

/// Words of a chunk: 4096 pages, 16 MiB.
const WORDS: usize = 64;
const CHUNK: u64 = 64 * WORDS as u64;

/// A set of page numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PageSet {
    chunks: BTreeMap<u64, Box<[u64; WORDS]>>,
    len: u64,
}

fn place(page: u64) -> (u64, usize, u64) {
    let within = page % CHUNK;
    // Below 64 by the remainder above.
    let word = usize::try_from(within / 64).unwrap_or_default();
    (page / CHUNK, word, 1 << (within % 64))
}

impl PageSet {
    /// Pages in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `page` is in it.
    pub fn contains(&self, page: u64) -> bool {
        let (chunk, word, bit) = place(page);
        let words = self.chunks.get(&chunk);
        words
            .and_then(|words| words.get(word))
            .is_some_and(|word| word & bit != 0)
    }

    /// Puts `page` in; whether it was not there before.
    pub fn insert(&mut self, page: u64) -> bool {
        let (chunk, word, bit) = place(page);
        let words = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; WORDS]));
        let Some(word) = words.get_mut(word).filter(|word| **word & bit == 0) else {
            return false;
        };
        *word |= bit;
        self.len += 1;
        true
    }

    /// Takes `page` out; whether it was there.
    pub fn remove(&mut self, page: u64) -> bool {
        let (chunk, word, bit) = place(page);
        let Some(words) = self.chunks.get_mut(&chunk) else {
            return false;
        };
        let Some(word) = words.get_mut(word).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.len -= 1;
        if words.iter().all(|word| *word == 0) {
            self.chunks.remove(&chunk);
        }
        true
    }

    /// Pages in it, counted anew.
    pub fn count(&self) -> u64 {
        let words = self.chunks.values().flat_map(|words| words.iter());
        words.map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..3 * CHUNK), 0..400)) {
            let (mut set, mut model) = (PageSet::default(), BTreeSet::new());
            for (add, page) in steps {
                if add {
                    prop_assert_eq!(set.insert(page), model.insert(page));
                } else {
                    prop_assert_eq!(set.remove(page), model.remove(&page));
                }
                prop_assert_eq!((set.len(), set.count(), set.is_empty()), (model.len() as u64, model.len() as u64, model.is_empty()));
                prop_assert_eq!(set.contains(page), model.contains(&page));
            }
        }
    }

    #[test]
    fn the_last_page_there_is_can_be_in_it() {
        let mut set = PageSet::default();
        assert!(set.insert(u64::MAX) && set.contains(u64::MAX) && !set.contains(0));
        assert!(set.remove(u64::MAX) && set.chunks.is_empty());
    }
}
