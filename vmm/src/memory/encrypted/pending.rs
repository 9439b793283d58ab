//! Which pages of a DIMM the guest has stored to and the file does not have yet.

use crate::memory::{GuestMapError, Window};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cipher::PAGE;

const PAGE_BYTES: u64 = PAGE as u64;

/// A set of pages of one DIMM.
pub struct Pending(Mutex<Vec<u64>>);

impl Pending {
    /// The empty set of `pages`.
    pub fn new(pages: u64) -> Self {
        Self(Mutex::new(vec![0; usize::try_from(pages.div_ceil(64)).unwrap_or(0)]))
    }

    /// Adds a page.
    pub fn insert(&self, page: u64) {
        let word = usize::try_from(page / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.lock().get_mut(word) {
            *word |= 1 << (page % 64);
        }
    }

    /// Takes all pages out, as runs of first page and count, none longer than `most`.
    pub fn take(&self, most: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (word, first) in self.lock().iter_mut().zip((0u64..).step_by(64)) {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                let page = first + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                match runs.last_mut() {
                    Some((start, count)) if *start + *count == page && *count < most => *count += 1,
                    _ => runs.push((page, 1)),
                }
            }
        }
        runs
    }

    /// Forgets all pages.
    pub fn clear(&self) {
        self.lock().fill(0);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one DIMM has in a window.
pub struct Part {
    /// Its pages, if it is encrypted.
    pub pending: Option<Arc<Pending>>,
    /// DIMM physical address of its first byte there.
    pub dpa: u64,
}

/// A window with encrypted DIMMs in it, whose lines take turns: line k of part i of n is line k * n + i.
pub struct Watched {
    /// The window.
    pub window: Arc<Window>,
    /// Bytes of a line.
    pub line: u64,
    /// In the order of their lines.
    pub parts: Vec<Part>,
}

impl Watched {
    /// Hands what the guest has stored to since the last time to the DIMMs it belongs to.
    pub fn collect(&self) -> Result<(), GuestMapError> {
        for (mut word, first) in self.window.take_dirty()?.into_iter().zip((0u64..).step_by(64)) {
            while word != 0 {
                self.stored(first + u64::from(word.trailing_zeros()));
                word &= word - 1;
            }
        }
        Ok(())
    }

    /// Notes page `page` of the window.
    fn stored(&self, page: u64) {
        let offset = page.saturating_mul(PAGE_BYTES);
        let ways = self.parts.len() as u64;
        let (Some(line), Some(ways)) = (offset.checked_div(self.line), (ways != 0).then_some(ways)) else {
            return;
        };
        let part = usize::try_from(line % ways).ok().and_then(|part| self.parts.get(part));
        if let Some(Part {
            pending: Some(pending),
            dpa,
        }) = part
        {
            pending.insert((dpa + line / ways * self.line + offset % self.line) / PAGE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_out_once_in_runs() {
        let pending = Pending::new(1000);
        for page in [0, 1, 2, 63, 64, 65, 999, 1_000_000] {
            pending.insert(page);
        }
        assert_eq!(pending.take(256), [(0, 3), (63, 3), (999, 1)]);
        assert_eq!(pending.take(256), []);
        (10..20).for_each(|page| pending.insert(page));
        assert_eq!(pending.take(4), [(10, 4), (14, 4), (18, 2)]);
        pending.insert(5);
        pending.clear();
        assert_eq!(pending.take(4), []);
    }
}
