//! Steps that let the kernel take hold of a program's pages: direct I/O, gifts to a pipe, memory regions of RDMA devices.

use crate::{PAGE, fail, number, rdma, wrong};
use std::{
    fs::OpenOptions,
    io::{self, PipeReader, PipeWriter, Read, pipe},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    slice,
};

/// What a pipe holds at least: 16 pages.
const PIPE: usize = 16 * PAGE;

/// A part of the mapping.
struct Part {
    at: *mut u8,
    len: usize,
    offset: usize,
}

/// What disks move at least.
const SECTOR: usize = 512;

impl Part {
    /// `OFFSET,LENGTH`, whole pages of a mapping of `len` bytes.
    fn parse(start: *mut u8, len: usize, offset: &str, length: &str) -> Self {
        Self::in_units(PAGE, start, len, offset, length)
    }

    /// The same of whole units.
    fn in_units(unit: usize, start: *mut u8, len: usize, offset: &str, length: &str) -> Self {
        let (offset, length) = (number(offset), number(length));
        if !(offset | length).is_multiple_of(unit) || offset.checked_add(length).is_none_or(|end| end > len) {
            wrong();
        }
        // SAFETY: `offset` is in the mapping.
        let at = unsafe { start.add(offset) };
        Self {
            at,
            len: length,
            offset,
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes from `at` are in the mapping; this program has one thread, and the kernel writes only in calls that
        // have the part mutably.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.at, self.len) }
    }
}

/// The word at an index of a part that was filled from `seed`.
fn word(seed: usize, index: usize) -> [u8; 8] {
    (seed as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(index as u64)
        .to_le_bytes()
}

/// The first word that is not what a seed made.
fn differs(bytes: &[u8], seed: usize) -> Option<usize> {
    bytes
        .chunks_exact(8)
        .enumerate()
        .position(|(n, found)| found != word(seed, n))
}

fn direct(part: &mut Part, file: &str, write: bool) {
    let opened = OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(file);
    let opened = opened.unwrap_or_else(|error| fail("open", &error));
    let done = if write {
        opened.write_at(part.bytes(), 0)
    } else {
        opened.read_at(part.bytes_mut(), 0)
    };
    match done {
        Ok(n) if n == part.len => {}
        Ok(n) => fail("direct I/O", &io::Error::other(format!("{n} bytes of {}", part.len))),
        Err(error) => fail("direct I/O", &error),
    }
}

/// Gives some bytes to a pipe without a copy, and has them back.
fn through(bytes: &[u8], (reader, writer): &mut (PipeReader, PipeWriter)) -> io::Result<bool> {
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the vector describes readable memory; the pipe refers to its pages, which nobody writes until they are read.
    let given = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const vector, 1, 0) };
    let given = usize::try_from(given).map_err(|_| io::Error::last_os_error())?;
    let mut back = vec![0; given];
    reader.read_exact(&mut back)?;
    Ok(given == bytes.len() && back == bytes)
}

fn splice(part: &Part) {
    let mut pipe = pipe().unwrap_or_else(|error| fail("pipe", &error));
    for (n, bytes) in part.bytes().chunks(PIPE).enumerate() {
        match through(bytes, &mut pipe) {
            Ok(true) => {}
            Ok(false) => fail("vmsplice", &io::Error::other(format!("other bytes in part {n}"))),
            Err(error) => fail("vmsplice", &error),
        }
    }
}

/// Does a step if it is one of these.
pub fn step(start: *mut u8, len: usize, verb: &str, operand: &str) -> bool {
    let words: Vec<&str> = operand.split(',').collect();
    match (verb, words.as_slice()) {
        ("fill", [offset, length, seed]) => {
            let mut part = Part::parse(start, len, offset, length);
            let seed = number(seed);
            let all = part.bytes_mut().chunks_exact_mut(8).enumerate();
            all.for_each(|(n, at)| at.copy_from_slice(&word(seed, n)));
        }
        ("check", [offset, length, seed]) => {
            let part = Part::parse(start, len, offset, length);
            if let Some(at) = differs(part.bytes(), number(seed)) {
                let at = part.offset + at * 8;
                fail("check", &io::Error::other(format!("other bytes at {at:#x}")));
            }
        }
        ("dread", [offset, length, file]) => {
            direct(&mut Part::in_units(SECTOR, start, len, offset, length), file, false)
        }
        ("dwrite", [offset, length, file]) => {
            direct(&mut Part::in_units(SECTOR, start, len, offset, length), file, true)
        }
        ("register", [offset, length]) => {
            let part = Part::parse(start, len, offset, length);
            rdma::register(part.at, part.len);
        }
        ("splice", [offset, length]) => splice(&Part::parse(start, len, offset, length)),
        _ => return false,
    }
    println!("{verb}:{operand}: done");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_part_is_told_from_others() {
        let bytes: Vec<u8> = (0..512).flat_map(|n| word(3, n)).collect();
        assert_eq!(differs(&bytes, 3), None);
        assert_eq!(differs(&bytes, 4), Some(0));
        let mut other = bytes;
        other[8 * 100] ^= 1;
        assert_eq!(differs(&other, 3), Some(100));
    }

    #[test]
    fn bytes_come_back_through_a_pipe() {
        // Not at the begin of a page: one page more than its length says.
        let bytes = vec![7; PIPE / 2];
        assert!(through(&bytes, &mut pipe().unwrap()).unwrap());
    }

    #[test]
    fn steps_of_others_are_left_to_them() {
        assert!(!step(std::ptr::null_mut(), 0, "load", "0"));
        assert!(!step(std::ptr::null_mut(), 0, "fill", "0"));
    }
}
