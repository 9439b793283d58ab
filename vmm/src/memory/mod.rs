//! Guest memory: host mappings, what backs them, and the slots that show them to the guest.
//!
//! [`ram::allocate`] and [`backing::open`] make mappings; [`GuestMap`] owns them together with their KVM slots, each pair in
//! a [`Window`], so that a slot can never outlive its mapping.

pub mod backing;
pub mod device;
pub mod encrypted;
pub mod flush;
pub mod interleave;
pub mod limits;
pub mod lost;
pub mod page_size;
pub mod plain;
pub mod pluggable;
pub mod ram;
pub mod state;
mod trap;
mod uffd;
mod window;

pub use window::{PAGE, Sprung, Window};

use crate::{
    config::MemoryConfig,
    hv::{HvError, Vm},
};
use devices::{
    DeviceWrites, GuestMemory,
    units::{Gpa, GpaRange},
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vm_memory::{GuestMemoryMmap, MmapRegion};

/// A mapping of this process that can be shown to a guest.
pub type Mapping = MmapRegion<DeviceWrites>;

/// All memory of one guest. Dropping it takes the memory from the guest first and unmaps it then.
pub struct GuestMap {
    windows: Windows,
    memory: GuestMemory,
}

/// All windows of a guest, as everybody sees them who works on guest memory behind its back.
#[derive(Clone, Default)]
pub struct Windows(Arc<RwLock<Counted<Window>>>);

impl Windows {
    fn read(&self) -> RwLockReadGuard<'_, Counted<Window>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Counted<Window>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The windows now.
    pub fn all(&self) -> Vec<Arc<Window>> {
        self.read().all.clone()
    }

    /// Counts the windows that came and those that went: whoever follows them compares.
    pub fn changes(&self) -> u64 {
        self.read().changes
    }

    /// The window with `gpa` in it.
    pub fn at(&self, gpa: Gpa) -> Option<Arc<Window>> {
        let all = self.read();
        all.all.iter().find(|window| window.range().contains(gpa)).cloned()
    }

    fn add(&self, window: Arc<Window>) {
        self.write().add(window);
    }

    fn remove(&self, window: &Arc<Window>) {
        self.write().remove(window);
    }
}

/// A set whose changes are counted.
struct Counted<T> {
    all: Vec<Arc<T>>,
    changes: u64,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self {
            all: vec![],
            changes: 0,
        }
    }
}

impl<T> Counted<T> {
    fn add(&mut self, one: Arc<T>) {
        self.all.push(one);
        self.changes += 1;
    }

    fn remove(&mut self, one: &Arc<T>) {
        let before = self.all.len();
        self.all.retain(|other| !Arc::ptr_eq(other, one));
        self.changes += u64::from(self.all.len() != before);
    }
}

/// Why a mapping cannot be shown to the guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestMapError {
    /// KVM said no.
    #[error(transparent)]
    Slot(#[from] HvError),
    /// The range is taken, or wraps.
    #[error("guest memory at {0} overlaps other guest memory")]
    Overlap(GpaRange),
}

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Guest and devices.
    ReadWrite,
    /// Guest and devices; which pages the guest stores to is noted, see [`Window::take_dirty`].
    Logged,
    /// Nobody: the guest's stores exit, and devices do not see the memory at all, because a store of ours to a read-only
    /// mapping would be fatal.
    ReadOnly,
}

impl Default for GuestMap {
    fn default() -> Self {
        Self {
            windows: Windows::default(),
            memory: GuestMemory::new(GuestMemoryMmap::default()),
        }
    }
}

impl GuestMap {
    /// Shows the first `len` bytes of `mapping` to the guest at `start`.
    pub fn add(
        &mut self,
        vm: &Vm,
        start: Gpa,
        len: u64,
        mapping: Mapping,
        access: Access,
    ) -> Result<(), GuestMapError> {
        self.window(vm, GpaRange::new(start, len), mapping, access, 0).map(drop)
    }

    /// The same for memory that can be taken away and shown again: it is shown once `locks` have been opened.
    pub fn window(
        &mut self,
        vm: &Vm,
        range: GpaRange,
        mapping: Mapping,
        access: Access,
        locks: usize,
    ) -> Result<Arc<Window>, GuestMapError> {
        let window = Arc::new(Window::new(vm, &self.memory, range, mapping, access, locks)?);
        self.windows.add(window.clone());
        Ok(window)
    }

    /// Takes memory from the guest for good, and unmaps it with the last user of the window.
    pub fn remove(&mut self, window: &Arc<Window>) {
        window.retire();
        self.windows.remove(window);
    }

    /// The windows, for whoever makes holes in them.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Guest memory as devices see it.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The way to show the guest memory from other threads.
    pub fn stage(&self, vm: &Vm) -> Stage {
        Stage {
            vm: vm.clone(),
            windows: self.windows.clone(),
            memory: self.memory.clone(),
        }
    }
}

/// Shows a guest anonymous memory of its own, and takes it away, from any thread.
pub struct Stage {
    vm: Vm,
    windows: Windows,
    memory: GuestMemory,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// No memory.
    #[error(transparent)]
    Ram(#[from] ram::RamError),
    /// No place.
    #[error(transparent)]
    Map(#[from] GuestMapError),
}

impl Stage {
    /// Memory of zeros at `range`.
    pub fn show(&self, range: GpaRange) -> Result<Arc<Window>, StageError> {
        let mapping = ram::allocate(range, &MemoryConfig::default())?;
        let window = Window::new(&self.vm, &self.memory, range, mapping, Access::ReadWrite, 0)?;
        let window = Arc::new(window);
        self.windows.add(window.clone());
        Ok(window)
    }

    /// Takes it away for good.
    pub fn hide(&self, window: &Arc<Window>) {
        window.retire();
        self.windows.remove(window);
    }

    /// The window with `gpa` in it, whoever made it.
    pub fn at(&self, gpa: Gpa) -> Option<Arc<Window>> {
        self.windows.at(gpa)
    }

    /// Guest memory as devices see it.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}

impl Drop for GuestMap {
    fn drop(&mut self) {
        for window in self.windows.all() {
            window.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_goes_and_one_that_comes_are_two_changes() {
        let mut set = Counted::default();
        let (first, second) = (Arc::new(1), Arc::new(2));
        set.add(first.clone());
        let before = (set.changes, set.all.len());
        set.remove(&first);
        set.add(second.clone());
        assert_eq!((set.changes, set.all.len()), (before.0 + 2, before.1));
        set.remove(&first);
        assert_eq!((set.changes, &set.all), (before.0 + 2, &vec![second]));
    }
}
