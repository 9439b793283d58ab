//! Guest memory: host mappings, what backs them, and the slots that show them to the guest.
//!
//! [`ram::allocate`] and [`backing::NvdimmFile`] make mappings; [`GuestMap`] owns them together with their KVM slots, so
//! that a slot can never outlive its mapping.

pub mod backing;
pub mod interleave;
pub mod ram;
pub mod state;

use crate::hv::{HvError, MemorySlot, SlotFlags, Vm};
use devices::{
    GuestMemory,
    units::{Gpa, GpaRange},
};
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// A mapping of this process that can be shown to a guest.
pub type Mapping = MmapRegion<()>;

/// All memory of one guest. Dropping it takes the memory from the guest first and unmaps it then.
pub struct GuestMap {
    slots: Vec<MemorySlot>,
    read_only: Vec<Arc<Mapping>>,
    memory: GuestMemory,
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
    /// Nobody: the guest's stores exit, and devices do not see the memory at all, because a store of ours to a read-only
    /// mapping would be fatal.
    ReadOnly,
}

impl Default for GuestMap {
    fn default() -> Self {
        Self {
            slots: vec![],
            read_only: vec![],
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
        let range = GpaRange::new(start, len);
        assert!(
            usize::try_from(len).is_ok_and(|n| n <= mapping.size()),
            "a slot must lie within its mapping"
        );
        let mapping = Arc::new(mapping);
        let host = mapping.as_ptr();
        let flags = match access {
            Access::ReadWrite => {
                let region =
                    GuestRegionMmap::with_arc(mapping, GuestAddress(start.0)).ok_or(GuestMapError::Overlap(range))?;
                let grown = self.memory.memory().insert_region(Arc::new(region));
                let grown = grown.map_err(|_| GuestMapError::Overlap(range))?;
                // One writer only (`&mut self`), so the lock is free.
                if let Ok(lock) = self.memory.lock() {
                    lock.replace(grown);
                }
                SlotFlags::ReadWrite
            }
            Access::ReadOnly => {
                self.read_only.push(mapping);
                SlotFlags::ReadOnly
            }
        };
        // SAFETY: `self` holds the mapping until after the slot is dropped (see `Drop`).
        self.slots.push(unsafe { vm.map(range, host, flags) }?);
        Ok(())
    }

    /// Guest memory as devices see it.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}

impl Drop for GuestMap {
    fn drop(&mut self) {
        self.slots.clear();
    }
}
