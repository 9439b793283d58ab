//! The memory of an interleave set: one run of addresses made of lines of several backings.

use super::{Mapping, backing::Source};
use std::{io, os::fd::AsRawFd};
use vm_memory::mmap::MmapRegionBuilder;

/// What one DIMM contributes.
pub struct Share<'a> {
    /// Its backing.
    pub source: &'a Source,
    /// Where its first line is in the backing.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Maps the lines of `shares` in turns: line k of share i of n is line k * n + i. All shares are equally long, whole lines,
/// and lines are whole pages of every backing.
pub fn map(shares: &[Share<'_>], line: u64) -> io::Result<Mapping> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let ways = shares.len() as u64;
    let share = shares.first().ok_or_else(|| bad("no shares"))?.len;
    if line == 0 || !share.is_multiple_of(line) || shares.iter().any(|s| s.len != share) {
        return Err(bad("shares must be equally long and whole lines"));
    }
    let total = share.checked_mul(ways).ok_or_else(|| bad("too long"))?;
    let size = |n: u64| usize::try_from(n).map_err(io::Error::other);
    let logged = shares.iter().find(|share| share.source.logged).or(shares.first());
    let writes = logged.map(|share| Ok::<_, io::Error>(share.source.writes(size(total)?)));
    let writes = writes.transpose()?.unwrap_or_default();
    // Addresses only; every page of them is replaced below.
    let mapping = MmapRegionBuilder::new_with_bitmap(size(total)?, writes)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .build()
        .map_err(io::Error::other)?;
    for (first, share) in (0u64..).zip(shares) {
        for k in 0..share.len / line {
            let at = mapping.as_ptr().wrapping_add(size((k * ways + first) * line)?);
            let offset = share.source.offset.checked_add(share.start);
            let offset = offset
                .and_then(|at| at.checked_add(k * line))
                .ok_or_else(|| bad("too far"))?;
            let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            let Source { file, prot, flags, .. } = share.source;
            // SAFETY: `at` and `line` lie within our own mapping of `total` bytes, which nobody has a reference into yet, and
            // which keeps owning the addresses: dropping it unmaps whatever is there.
            let mapped = unsafe {
                libc::mmap(
                    at.cast(),
                    size(line)?,
                    *prot,
                    flags | libc::MAP_FIXED,
                    file.as_raw_fd(),
                    offset,
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ram::memory_file;
    use std::{os::unix::fs::FileExt, sync::Arc};
    use vm_memory::{Bytes, VolatileMemory};

    const PAGE: u64 = 4096;

    fn source(first_byte: u8) -> Source {
        let file = memory_file(16 * PAGE, None).unwrap();
        for page in 0..16u8 {
            file.write_all_at(&[first_byte + page], u64::from(page) * PAGE).unwrap();
        }
        Source {
            offset: 0,
            file: Arc::new(file),
            prot: libc::PROT_READ | libc::PROT_WRITE,
            flags: libc::MAP_SHARED,
            logged: false,
        }
    }

    #[test]
    fn lines_take_turns_and_stores_reach_their_backing() {
        let sources = [source(0x10), source(0x40)];
        let share = |n: usize, start| Share {
            source: &sources[n],
            start: start * PAGE,
            len: 4 * PAGE,
        };
        let mapping = map(&[share(0, 8), share(1, 0)], 2 * PAGE).unwrap();
        let slice = mapping.get_slice(0, 8 * 4096).unwrap();
        let pages: Vec<u8> = (0..8).map(|page| slice.read_obj(page * 4096).unwrap()).collect();
        assert_eq!(pages, [0x18, 0x19, 0x40, 0x41, 0x1a, 0x1b, 0x42, 0x43]);
        slice.write_obj(0xa5u8, 7 * 4096 + 5).unwrap();
        let mut byte = [0];
        sources[1].file.read_exact_at(&mut byte, 3 * PAGE + 5).unwrap();
        assert_eq!(byte, [0xa5]);
    }

    #[test]
    fn uneven_shares_are_refused() {
        let source = source(0);
        let share = |len| Share {
            source: &source,
            start: 0,
            len,
        };
        assert!(map(&[share(PAGE), share(2 * PAGE)], PAGE).is_err());
        assert!(map(&[share(3 * PAGE)], 2 * PAGE).is_err());
        assert!(map(&[], PAGE).is_err());
    }
}
