//! Pages of a window whose next touch is told of.

use super::{Access, Window};
use crate::memory::trap::{self, Traps};
use devices::units::Gpa;
use std::{io, ops::Range, sync::atomic::Ordering::Relaxed};

/// What was found in pages that are open now.
#[derive(Debug, Default)]
pub struct Sprung {
    /// Pages that were touched.
    pub pages: Vec<Gpa>,
    /// Addresses of this process where what a page held is lost.
    pub lost: Vec<usize>,
}

impl Window {
    /// Whether [`Window::set_traps`] is worth a try.
    pub fn can_trap(&self) -> bool {
        let can = || self.access == Access::ReadWrite && trap::can_have(&self.mapping);
        !self.no_traps.load(Relaxed) && *self.trappable.get_or_init(can)
    }

    /// Traps are in the pages at `runs` from now on, and in no others. No vCPU may be in the guest. After an error there are none, and
    /// the window can have none.
    pub fn set_traps(&self, runs: Vec<Range<u64>>) -> (io::Result<()>, Sprung) {
        let mut state = self.lock();
        if state.traps.is_none() {
            if runs.is_empty() {
                return (Ok(()), Sprung::default());
            }
            let made = Traps::new(&self.mapping).and_then(|traps| match self.watched.have_traps(traps.area()) {
                true => Ok(traps),
                false => Err(io::Error::other("too much guest memory in one process")),
            });
            match made {
                Ok(traps) => state.traps = Some(traps),
                Err(error) => {
                    self.no_traps.store(true, Relaxed);
                    return (Err(error), Sprung::default());
                }
            }
        }
        let Some(traps) = &mut state.traps else {
            return (Ok(()), Sprung::default());
        };
        let (mut set, mut broken) = traps.set(runs);
        if set.is_err() {
            self.no_traps.store(true, Relaxed);
            let (opened, more) = traps.set(vec![]);
            set = opened.and(set);
            broken.extend(more);
        }
        (set, self.sprung(&[], &broken))
    }

    /// Opens the pages that were touched. No vCPU may be in the guest.
    pub fn take_sprung(&self) -> Sprung {
        let mut state = self.lock();
        let Some(traps) = &mut state.traps else {
            return Sprung::default();
        };
        let (pages, broken) = traps.take();
        self.sprung(&pages, &broken)
    }

    /// Whether there are such.
    pub fn is_sprung(&self) -> bool {
        self.lock().traps.as_ref().is_some_and(Traps::is_touched)
    }

    fn sprung(&self, pages: &[u64], broken: &[u64]) -> Sprung {
        let start = self.range.start.0;
        let address = |offset: &u64| {
            let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
            self.mapping.as_ptr().wrapping_add(offset) as usize
        };
        Sprung {
            pages: pages.iter().map(|offset| Gpa(start + offset)).collect(),
            lost: broken.iter().map(address).collect(),
        }
    }

    /// Gives what `bytes` of it hold back to the host; whoever reads them next finds zeros. For private memory.
    pub fn discard(&self, bytes: Range<u64>) -> io::Result<()> {
        let end = usize::try_from(bytes.end).map_err(|_| io::ErrorKind::InvalidInput)?;
        if bytes.start > bytes.end || end > self.mapping.size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let state = self.lock();
        let parts = match &state.traps {
            Some(traps) => traps.forget(&bytes)?,
            None => vec![bytes],
        };
        for part in parts {
            let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
            let start = usize::try_from(part.start).map_err(invalid)?;
            let len = usize::try_from(part.end - part.start).map_err(invalid)?;
            // SAFETY: the range lies in our own mapping, whose extent does not change. Guest memory is only ever accessed as
            // volatile, so nothing in this process relies on what it holds.
            unsafe {
                let at = self.mapping.as_ptr().add(start);
                rustix::mm::madvise(at.cast(), len, rustix::mm::Advice::LinuxDontNeed)?;
            }
        }
        Ok(())
    }
}
