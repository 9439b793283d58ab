//! Boot RAM: anonymous memory, shared memory or huge pages.

use super::Mapping;
use crate::config::MemoryConfig;
use devices::{
    DeviceWrites,
    units::{ByteSize, GpaRange},
};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::{fs::File, io};
use vm_memory::{FileOffset, mmap::MmapRegionBuilder};

/// Why RAM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// No mapping of that size.
    #[error("cannot map {size} of guest RAM for {range}")]
    Map {
        /// Bytes wanted.
        size: ByteSize,
        /// For this part of the guest.
        range: GpaRange,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The pool has too few pages.
    #[error(
        "the host has no {size} of free {page} huge pages for guest RAM at {range}; hint: write a larger number to /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages, or leave out `hugepages=`"
    )]
    NoHugePages {
        /// Bytes wanted.
        size: ByteSize,
        /// Page size.
        page: ByteSize,
        /// Page size in KiB, as sysfs spells it.
        kib: u64,
        /// For this part of the guest.
        range: GpaRange,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Maps host memory for one piece of the guest's RAM. Nothing is touched: pages come when the guest first uses them, so
/// the time this takes does not depend on the size.
pub fn allocate(range: GpaRange, config: &MemoryConfig) -> Result<Mapping, RamError> {
    let size = ByteSize(range.len);
    let failed = |source| RamError::Map { size, range, source };
    let len = usize::try_from(range.len).map_err(|e| failed(io::Error::other(e)))?;
    let builder = MmapRegionBuilder::<DeviceWrites>::new(len).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
    if let Some(page) = config.hugepages {
        let starved = |source| RamError::NoHugePages {
            size,
            page,
            kib: page.0 >> 10,
            range,
            source,
        };
        let file = memory_file(range.len, Some(page)).map_err(starved)?;
        // Without NORESERVE, so that a pool too small is an error now and not a SIGBUS later.
        let builder = builder
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::new(file, 0));
        return builder
            .with_hugetlbfs(true)
            .build()
            .map_err(|e| starved(io::Error::other(e)));
    }
    let builder = if config.shared {
        let file = memory_file(range.len, None).map_err(failed)?;
        builder
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::new(file, 0))
    } else {
        builder.with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
    };
    let mapping = builder.build().map_err(|e| failed(io::Error::other(e)))?;
    advise_huge_pages(&mapping);
    Ok(mapping)
}

/// A sealed-off file of `len` bytes of memory.
pub(super) fn memory_file(len: u64, huge: Option<ByteSize>) -> io::Result<File> {
    let flags = match huge.map(|p| p.0) {
        None => MemfdFlags::empty(),
        Some(0x20_0000) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        Some(0x4000_0000) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        Some(_) => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let file = memfd_create("daxvisor-memory", flags | MemfdFlags::CLOEXEC)?;
    ftruncate(&file, len)?;
    Ok(file.into())
}

/// Asks for transparent huge pages: fewer faults and shorter page walks for the guest. A host without them is no error.
fn advise_huge_pages(mapping: &Mapping) {
    // SAFETY: the advice changes nothing about the content or the extent of our own mapping.
    let _ = unsafe {
        rustix::mm::madvise(
            mapping.as_ptr().cast(),
            mapping.size(),
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::units::Gpa;
    use vm_memory::{Bytes, VolatileMemory};

    #[test]
    fn ram_of_any_kind_is_zeroed_and_writable() {
        for shared in [false, true] {
            let config = MemoryConfig {
                shared,
                ..Default::default()
            };
            let ram = allocate(GpaRange::new(Gpa(0), 1 << 20), &config).unwrap();
            let slice = ram.get_slice(0, 1 << 20).unwrap();
            assert_eq!(slice.read_obj::<u64>(0xffff8).unwrap(), 0);
            slice.write_obj(7u64, 0xffff8).unwrap();
            assert_eq!(slice.read_obj::<u64>(0xffff8).unwrap(), 7);
        }
    }

    #[test]
    fn a_terabyte_is_mapped_without_being_there() {
        allocate(GpaRange::new(Gpa(0), 1 << 40), &MemoryConfig::default()).unwrap();
    }

    #[test]
    fn missing_huge_pages_name_the_knob() {
        let config = MemoryConfig {
            hugepages: Some(ByteSize::gib(1)),
            ..Default::default()
        };
        let error = allocate(GpaRange::new(Gpa(0), 1 << 44), &config)
            .unwrap_err()
            .to_string();
        assert!(error.contains("hugepages-1048576kB/nr_hugepages"), "{error}");
    }
}
