//! A range of guest memory that can be taken away and shown again while the guest runs, whole or with holes.
//!
//! A window is shown while none of its locks is closed: each locked DIMM whose bytes are in it holds one. What the guest
//! reads where no window is shown are ones, what it writes there is lost.
//!
//! [`Window::set_holes`] takes single pages away: the guest's accesses to them exit, and are carried out with
//! [`Window::load`] and [`Window::store`] by whoever made the hole. Devices see the window whole. [`Window::set_traps`] leaves pages where
//! they are until somebody touches them.

mod traps;

pub use traps::Sprung;

use super::{Access, GuestMapError, Mapping, lost, page_size, trap::Traps};
use crate::hv::{MemorySlot, SlotFlags, Vm};
use devices::{
    GuestMemory,
    units::{Gpa, GpaRange},
};
use rustix::fs::FallocateFlags;
use std::{
    ops::Range,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicBool},
};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend, GuestRegionMmap, VolatileMemory, bitmap::Bitmap,
};

/// Unit of holes.
pub const PAGE: u64 = 4096;

/// See the module.
pub struct Window {
    // Before what its traps are kept in.
    watched: lost::Watched,
    state: Mutex<State>,
    vm: Vm,
    memory: GuestMemory,
    range: GpaRange,
    access: Access,
    /// Traps have been tried and failed.
    no_traps: AtomicBool,
    /// Whether its memory is of a kind that can have them, once somebody has asked.
    trappable: OnceLock<bool>,
    // After the slot that refers to it.
    mapping: Arc<Mapping>,
}

struct State {
    closed: usize,
    /// Ascending; empty: the window is not shown.
    slots: Vec<MemorySlot>,
    shown: bool,
    /// Offsets of what no slot shows: whole pages, ascending, disjoint.
    holes: Vec<Range<u64>>,
    retired: bool,
    traps: Option<Traps>,
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
                slots: vec![],
                shown: false,
                holes: vec![],
                retired: false,
                traps: None,
            }),
            vm: vm.clone(),
            memory: memory.clone(),
            range,
            access,
            no_traps: AtomicBool::new(false),
            trappable: OnceLock::new(),
            watched: lost::watch(mapping.as_ptr() as usize, mapping.size()),
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
        if self.access != Access::Logged || !state.shown {
            return Ok(vec![]);
        }
        for slot in &state.slots {
            self.collect(slot)?;
        }
        Ok(self.mapping.bitmap().take())
    }

    /// Notes what the guest stored to through a slot where the stores of devices are noted.
    fn collect(&self, slot: &MemorySlot) -> Result<(), GuestMapError> {
        let first = (slot.range().start.0 - self.range.start.0) / PAGE;
        for (n, word) in (0u64..).zip(slot.take_dirty()?) {
            for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
                let page = usize::try_from((first + n * 64 + bit) * PAGE).unwrap_or(usize::MAX);
                self.mapping.bitmap().mark_dirty(page, 1);
            }
        }
        Ok(())
    }

    /// Where the guest sees it.
    pub fn range(&self) -> GpaRange {
        self.range
    }

    /// Whether devices and guest may store to it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether the guest sees it now.
    pub fn is_shown(&self) -> bool {
        self.lock().shown
    }

    /// Takes the pages at `holes` away and shows all others. No vCPU may be in the guest: slots are replaced, and for a
    /// moment their memory is not there. After an error the window is as it was.
    pub fn set_holes(&self, holes: Vec<Range<u64>>) -> Result<(), GuestMapError> {
        let mut state = self.lock();
        if state.holes == holes {
            return Ok(());
        }
        let before = std::mem::replace(&mut state.holes, holes);
        if !state.shown {
            return Ok(());
        }
        let settled = self.settle_slots(&mut state);
        if settled.is_err() {
            state.holes = before;
            self.settle_slots(&mut state)?;
        }
        settled
    }

    /// Bytes at `offset`, also of a hole; ones where the window is not shown or does not reach.
    pub fn load(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if self.lock().shown
            && let (Ok(offset), Ok(memory)) = (usize::try_from(offset), self.mapping.get_slice(0, self.mapping.size()))
        {
            // A slice that ends early leaves the rest as it is.
            let _ = memory.read_slice(data, offset);
        }
    }

    /// Stores bytes at `offset`, also of a hole; lost where nobody may write.
    pub fn store(&self, offset: u64, data: &[u8]) {
        if self.access != Access::ReadOnly
            && self.lock().shown
            && let (Ok(offset), Ok(memory)) = (usize::try_from(offset), self.mapping.get_slice(0, self.mapping.size()))
        {
            let _ = memory.write_slice(data, offset);
        }
    }

    /// Offset of an address of this process; none: it is no memory of the window's.
    pub fn offset_of(&self, address: usize) -> Option<u64> {
        let offset = address.checked_sub(self.mapping.as_ptr() as usize)?;
        (offset < self.mapping.size()).then_some(offset as u64)
    }

    /// Puts memory in place of the unit of `1 << lsb` bytes around `offset`, or of the file's page if that is larger, which the host has
    /// lost, as far as it is not there again; its offsets. `replaced`: something of no file has been put there. No vCPU may be in the guest.
    pub fn renew(&self, offset: u64, lsb: u32, replaced: bool) -> std::io::Result<Range<u64>> {
        // KVM tells a vCPU of 4 KiB, whatever page it was.
        let page = self
            .mapping
            .file_offset()
            .map_or(PAGE, |file| page_size::of(file.file()));
        let size = 1_u64.checked_shl(lsb).unwrap_or(0).max(page);
        let start = offset / size * size;
        let unit = start..start.saturating_add(size).min(self.mapping.size() as u64);
        if let Some(traps) = &mut self.lock().traps {
            traps.give_up(&unit);
        }
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let len = usize::try_from(unit.end - unit.start).map_err(invalid)?;
        let at = self
            .mapping
            .as_ptr()
            .wrapping_add(usize::try_from(start).map_err(invalid)?);
        let Some(file) = self.mapping.file_offset() else {
            if !replaced && !lost::is_there(at) {
                // SAFETY: a part of our own mapping. Guest memory is only ever accessed as volatile, so nothing in this process
                // relies on what it holds.
                unsafe { lost::put_zeros_at(at, len)? };
            }
            return Ok(unit);
        };
        let offset = file.start().saturating_add(start);
        if replaced {
            let (prot, flags) = (self.mapping.prot(), self.mapping.flags() | libc::MAP_FIXED);
            let offset = libc::off_t::try_from(offset).map_err(std::io::Error::other)?;
            // SAFETY: as above; the mapping is made once more, as it was.
            let again = unsafe { libc::mmap(at.cast(), len, prot, flags, file.file().as_raw_fd(), offset) };
            if again == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error());
            }
        }
        if lost::is_there(at) {
            return Ok(unit);
        }
        // A hole in a file is memory again as soon as it is touched.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::fs::fallocate(file.file(), flags, offset, len as u64);
        if punched.is_err() || !lost::is_there(at) {
            let start = Gpa(self.range.start.0.saturating_add(start));
            tracing::warn!(at = %start, len, "what the guest stores there does not reach the backing in this run");
            // SAFETY: as above.
            unsafe { lost::put_zeros_at(at, len)? };
        }
        Ok(unit)
    }

    fn settle(&self, state: &mut State) -> Result<(), GuestMapError> {
        match (state.closed == 0 && !state.retired, state.shown) {
            (true, false) => self.show(state),
            (false, true) => {
                self.hide(state);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn show(&self, state: &mut State) -> Result<(), GuestMapError> {
        if self.access != Access::ReadOnly {
            let overlap = || GuestMapError::Overlap(self.range);
            let region = GuestRegionMmap::with_arc(self.mapping.clone(), GuestAddress(self.range.start.0));
            let region = Arc::new(region.ok_or_else(overlap)?);
            let changing = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            let grown = self.memory.memory().insert_region(region).map_err(|_| overlap())?;
            changing.replace(grown);
        }
        let settled = self.settle_slots(state);
        if settled.is_err() {
            state.slots.clear();
            self.forget_region();
        }
        state.shown = settled.is_ok();
        settled
    }

    /// Makes the slots those between the holes; slots that stay are not touched.
    fn settle_slots(&self, state: &mut State) -> Result<(), GuestMapError> {
        let flags = match self.access {
            Access::ReadWrite => SlotFlags::ReadWrite,
            Access::Logged => SlotFlags::Logged,
            Access::ReadOnly => SlotFlags::ReadOnly,
        };
        let wanted = between(self.range, &state.holes);
        let stays = |slot: &MemorySlot| wanted.binary_search(&slot.range()).is_ok();
        if self.access == Access::Logged {
            for slot in state.slots.iter().filter(|slot| !stays(slot)) {
                self.collect(slot)?;
            }
        }
        state.slots.retain(stays);
        for range in &wanted {
            let Err(at) = state.slots.binary_search_by_key(range, MemorySlot::range) else {
                continue;
            };
            let offset = usize::try_from(range.start.0 - self.range.start.0).unwrap_or(usize::MAX);
            let host = self.mapping.as_ptr().wrapping_add(offset);
            // SAFETY: the range is a part of the window's and so of the mapping, which `self` holds and nobody unmaps, for
            // longer than the slot: `state` is dropped first.
            let slot = unsafe { self.vm.map(*range, host, flags) }?;
            state.slots.insert(at, slot);
        }
        Ok(())
    }

    fn hide(&self, state: &mut State) {
        state.slots.clear();
        state.shown = false;
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

impl Drop for Window {
    fn drop(&mut self) {
        // Whoever still has the memory finds it without traps.
        if let (Err(error), _) = self.set_traps(vec![]) {
            tracing::debug!(%error, "traps stay behind");
        }
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

/// What of `range` is between the holes.
fn between(range: GpaRange, holes: &[Range<u64>]) -> Vec<GpaRange> {
    let mut at = 0;
    let mut parts = vec![];
    for hole in holes.iter().chain([&(range.len..range.len)]) {
        let end = hole.start.min(range.len);
        if end > at {
            parts.push(GpaRange::new(Gpa(range.start.0 + at), end - at));
        }
        at = at.max(hole.end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_holes_is_shown() {
        let range = GpaRange::new(Gpa(0x10_0000), 8 * PAGE);
        let parts = |holes: &[Range<u64>]| {
            let parts = between(range, holes).into_iter();
            parts
                .map(|part| ((part.start.0 - range.start.0) / PAGE, part.len / PAGE))
                .collect::<Vec<_>>()
        };
        let pages = |first: u64, end: u64| first * PAGE..end * PAGE;
        assert_eq!(parts(&[]), [(0, 8)]);
        assert_eq!(parts(&[pages(0, 1)]), [(1, 7)]);
        assert_eq!(parts(&[pages(2, 3), pages(3, 4), pages(7, 8)]), [(0, 2), (4, 3)]);
        assert_eq!(parts(&[pages(0, 8)]), []);
        assert_eq!(parts(&[pages(6, 9)]), [(0, 6)]);
    }
}
