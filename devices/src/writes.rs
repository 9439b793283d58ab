//! Which pages of guest memory devices have written to.
//!
//! KVM notes the guest's own stores, but not what a device model writes on its behalf. Only memory that asks for it keeps
//! count.

use std::num::NonZeroUsize;
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// Unit in which writes are noted.
const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Pages of one piece of memory that devices have written to; without any count by default.
#[derive(Debug, Default)]
pub struct DeviceWrites(Option<AtomicBitmap>);

impl DeviceWrites {
    /// Counts for `len` bytes.
    pub fn counted(len: usize) -> Self {
        Self(Some(AtomicBitmap::new(len, PAGE)))
    }

    /// The pages written to since the last call, one bit each; empty when nobody counts.
    pub fn take(&self) -> Vec<u64> {
        self.0.as_ref().map(AtomicBitmap::get_and_reset).unwrap_or_default()
    }
}

impl<'a> WithBitmapSlice<'a> for DeviceWrites {
    type S = Option<RefSlice<'a, AtomicBitmap>>;
}

impl Bitmap for DeviceWrites {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.0.mark_dirty(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.0.dirty_at(offset)
    }

    fn slice_at(&self, offset: usize) -> <Self as WithBitmapSlice<'_>>::S {
        self.0.slice_at(offset)
    }
}

impl NewBitmap for DeviceWrites {
    fn with_len(_: usize) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{
        Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, mmap::MmapRegionBuilder,
    };

    fn memory(writes: DeviceWrites) -> GuestMemoryMmap<DeviceWrites> {
        let mapping = MmapRegionBuilder::new_with_bitmap(16 << 12, writes)
            .with_mmap_prot(3)
            .build();
        let region = GuestRegionMmap::new(mapping.unwrap(), GuestAddress(0x1000)).unwrap();
        GuestMemoryMmap::from_regions(vec![region]).unwrap()
    }

    fn written(memory: &GuestMemoryMmap<DeviceWrites>) -> Vec<u64> {
        memory.iter().next().unwrap().bitmap().take()
    }

    #[test]
    fn writes_of_devices_are_told_once_and_reads_are_none() {
        let memory = memory(DeviceWrites::counted(16 << 12));
        memory.write_slice(&[1; 8192], GuestAddress(0x1800)).unwrap();
        memory.write_obj(7u32, GuestAddress(0x1000 + (15 << 12))).unwrap();
        let _: u64 = memory.read_obj(GuestAddress(0x6000)).unwrap();
        assert_eq!(written(&memory), [0b1000_0000_0000_0111]);
        assert_eq!(written(&memory), [0]);
    }

    #[test]
    fn memory_without_a_count_tells_nothing() {
        let memory = memory(DeviceWrites::default());
        memory.write_obj(7u32, GuestAddress(0x1000)).unwrap();
        assert!(written(&memory).is_empty());
    }
}
