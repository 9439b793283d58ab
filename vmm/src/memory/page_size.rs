//! The page that a file's memory is made of: what the host loses of it, it loses whole.

use super::PAGE;
use rustix::fs::{fstatfs, major, minor};
use std::{fs, fs::File, os::unix::fs::MetadataExt};

/// `f_type` of hugetlbfs (`HUGETLBFS_MAGIC`), whose block size is that of its pages.
pub const HUGETLBFS: i64 = 0x9584_58f6;
/// `f_type` of tmpfs, which memory files are on (`TMPFS_MAGIC`).
const TMPFS: i64 = 0x0102_1994;

/// Bytes of a page of `file`: more than 4096 on hugetlbfs, and of a device-dax node.
pub fn of(file: &File) -> u64 {
    huge(file).or_else(|| aligned(file)).unwrap_or(PAGE).max(PAGE)
}

/// Whether what the file holds is memory, in pages of 4 KiB or such as the kernel divides by itself, and nobody finds it by a name.
pub fn is_own_memory(file: &File) -> bool {
    let names = file.metadata().map_or(1, |told| told.nlink());
    names == 0 && fstatfs(file).is_ok_and(|told| told.f_type == TMPFS)
}

fn huge(file: &File) -> Option<u64> {
    let told = fstatfs(file).ok()?;
    let size = u64::try_from(told.f_bsize).ok()?;
    (told.f_type == HUGETLBFS && size.is_power_of_two()).then_some(size)
}

/// What a device-dax node maps in.
fn aligned(file: &File) -> Option<u64> {
    let device = file.metadata().ok()?.rdev();
    let path = format!("/sys/dev/char/{}:{}/align", major(device), minor(device));
    let size: u64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    size.is_power_of_two().then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    #[test]
    fn pages_are_those_of_the_file_system() {
        assert_eq!(of(&tempfile::tempfile().unwrap()), PAGE);
        assert_eq!(of(&File::open("/dev/null").unwrap()), PAGE);
        let small = memfd_create("small", MemfdFlags::CLOEXEC).unwrap();
        let small = small.into();
        assert_eq!((of(&small), is_own_memory(&small)), (PAGE, true));
        // No page of it is taken.
        let large = memfd_create(
            "large",
            MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        )
        .unwrap();
        let large = large.into();
        assert_eq!((of(&large), is_own_memory(&large)), (2 << 20, false));
    }
}
