//! A range of guest memory that can be taken away and shown again while the guest runs.
//!
//! A window is shown while none of its locks is closed: each locked DIMM whose bytes are in it holds one. What the guest
//! reads where no window is shown are ones, what it writes there is lost.

use super::{Access, GuestMapError, Mapping};
use crate::hv::{MemorySlot, SlotFlags, Vm};
use devices::{GuestMemory, units::GpaRange};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestRegionMmap};

/// See the module.
pub struct Window {
    state: Mutex<State>,
    vm: Vm,
    memory: GuestMemory,
    range: GpaRange,
    access: Access,
    // After the slot that refers to it.
    mapping: Arc<Mapping>,
}

struct State {
    closed: usize,
    slot: Option<MemorySlot>,
    retired: bool,
}

impl Window {
    /// Memory for `range`, which is the beginning of `mapping`, with `closed` locks closed.
    pub(super) fn new(
        vm: &Vm,
        memory: &GuestMemory,
        range: GpaRange,
        mapping: Mapping,
        access: Access,
        closed: usize,
    ) -> Result<Self, GuestMapError> {
        assert!(
            usize::try_from(range.len).is_ok_and(|n| n <= mapping.size()),
            "a slot must lie within its mapping"
        );
        if access == Access::Logged {
            keep_out_of_dumps(&mapping);
        }
        let window = Self {
            state: Mutex::new(State {
                closed,
                slot: None,
                retired: false,
            }),
            vm: vm.clone(),
            memory: memory.clone(),
            range,
            access,
            mapping: Arc::new(mapping),
        };
        window.settle(&mut window.lock())?;
        Ok(window)
    }

    /// Opens one lock.
    pub fn open(&self) -> Result<(), GuestMapError> {
        let mut state = self.lock();
        state.closed = state.closed.saturating_sub(1);
        let shown = self.settle(&mut state);
        if shown.is_err() {
            state.closed += 1;
        }
        shown
    }

    /// Closes one lock. When this returns the guest does not see the memory, nor does any device that looks from now on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed += 1;
        // Hiding never fails.
        let _ = self.settle(&mut state);
    }

    /// Hides the memory for good.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        let _ = self.settle(&mut state);
    }

    /// Pages that the guest or a device has stored to since the last call, one bit each, of an [`Access::Logged`] window that
    /// is shown.
    pub fn take_dirty(&self) -> Result<Vec<u64>, GuestMapError> {
        let state = self.lock();
        let Some(slot) = state.slot.as_ref().filter(|_| self.access == Access::Logged) else {
            return Ok(vec![]);
        };
        let mut pages = slot.take_dirty()?;
        for (page, device) in pages.iter_mut().zip(self.mapping.bitmap().take()) {
            *page |= device;
        }
        Ok(pages)
    }

    /// Gives what `bytes` of it hold back to the host; whoever reads them next finds zeros. For private memory.
    pub fn discard(&self, bytes: std::ops::Range<u64>) -> std::io::Result<()> {
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let start = usize::try_from(bytes.start).map_err(invalid)?;
        let end = usize::try_from(bytes.end).map_err(invalid)?;
        let len = end.checked_sub(start).filter(|_| end <= self.mapping.size());
        let len = len.ok_or(std::io::ErrorKind::InvalidInput)?;
        // SAFETY: the range lies in our own mapping, whose extent does not change. Guest memory is only ever accessed as
        // volatile, so nothing in this process relies on what it holds.
        unsafe {
            let at = self.mapping.as_ptr().add(start);
            rustix::mm::madvise(at.cast(), len, rustix::mm::Advice::LinuxDontNeed)?;
        }
        Ok(())
    }

    fn settle(&self, state: &mut State) -> Result<(), GuestMapError> {
        match (state.closed == 0 && !state.retired, state.slot.is_some()) {
            (true, false) => self.show(state),
            (false, true) => {
                self.hide(state);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn show(&self, state: &mut State) -> Result<(), GuestMapError> {
        let flags = match self.access {
            Access::ReadWrite => SlotFlags::ReadWrite,
            Access::Logged => SlotFlags::Logged,
            Access::ReadOnly => SlotFlags::ReadOnly,
        };
        if self.access != Access::ReadOnly {
            let overlap = || GuestMapError::Overlap(self.range);
            let region = GuestRegionMmap::with_arc(self.mapping.clone(), GuestAddress(self.range.start.0));
            let region = Arc::new(region.ok_or_else(overlap)?);
            let changing = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let grown = self.memory.memory().insert_region(region).map_err(|_| overlap())?;
            changing.replace(grown);
        }
        // SAFETY: `self` holds the mapping, which nobody unmaps, for longer than the slot: `state` is dropped first.
        match unsafe { self.vm.map(self.range, self.mapping.as_ptr(), flags) } {
            Ok(slot) => state.slot = Some(slot),
            Err(error) => {
                self.forget_region();
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn hide(&self, state: &mut State) {
        state.slot = None;
        self.forget_region();
    }

    fn forget_region(&self) {
        if self.access == Access::ReadOnly {
            return;
        }
        let changing = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = self.memory.memory();
        let start = GuestAddress(self.range.start.0);
        let len = memory.find_region(start).map(|region| region.size() as u64);
        if let Some(Ok((shrunk, _))) = len.map(|len| memory.remove_region(start, len)) {
            changing.replace(shrunk);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Contents that are encrypted at rest are not to be found in a core file.
fn keep_out_of_dumps(mapping: &Mapping) {
    // SAFETY: the advice changes nothing about the content or the extent of our own mapping.
    let advised = unsafe {
        rustix::mm::madvise(
            mapping.as_ptr().cast(),
            mapping.size(),
            rustix::mm::Advice::LinuxDontDump,
        )
    };
    if let Err(error) = advised {
        tracing::debug!(%error, "core files may have the contents of encrypted NVDIMMs");
    }
}
