//! Moving the contents of an encrypted DIMM between its file and the memory that holds the plaintext.

use super::{PAGE_BYTES, RUN, cipher::PageCipher};
use crate::memory::flush::write_durably;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use zeroize::Zeroizing;

/// Bytes moved at once.
const CHUNK: u64 = RUN * PAGE_BYTES;
/// Most threads that decrypt.
const MAX_THREADS: usize = 8;

/// File and memory of one DIMM; both are `size` bytes long.
#[derive(Clone)]
pub(super) struct Contents {
    /// Ciphertext.
    pub file: Arc<File>,
    /// Plaintext of the data, or nothing.
    pub memory: Arc<File>,
    /// Bytes of data, whole pages.
    pub data: u64,
    /// Bytes of data and labels.
    pub size: u64,
}

fn length(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

impl Contents {
    /// Decrypts the data of the file into the memory. The work is that of the pages that were ever stored to.
    pub fn decrypt(&self, cipher: &PageCipher) -> io::Result<()> {
        let chunks = chunks(&self.file, self.data)?;
        let next = AtomicUsize::new(0);
        let work = || -> io::Result<()> {
            let mut buffer = Zeroizing::new(vec![0; length(CHUNK)?]);
            while let Some(Range { start, end }) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let pages = buffer
                    .get_mut(..length(end - start)?)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                self.file.read_exact_at(pages, *start)?;
                if cipher.decrypt(pages, start / PAGE_BYTES) {
                    self.memory.write_all_at(pages, *start)?;
                }
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(MAX_THREADS).min(chunks.len());
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for helper in helpers {
                let ended = helper
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread that decrypts died")));
                result = result.and(ended);
            }
            result
        })
    }

    /// Encrypts `count` pages of the memory, from page `first` on, into the file.
    pub fn encrypt(&self, cipher: &PageCipher, first: u64, count: u64) -> io::Result<()> {
        let mut pages = Zeroizing::new(vec![0; length(count * PAGE_BYTES)?]);
        self.memory.read_exact_at(&mut pages, first * PAGE_BYTES)?;
        cipher.encrypt(&mut pages, first);
        self.file.write_all_at(&pages, first * PAGE_BYTES)
    }

    /// Lets `change` see the plaintext of `pages` pages at `at` in the file itself, and writes them to the disk if it says so.
    pub fn change(
        &self,
        cipher: &PageCipher,
        at: u64,
        pages: u64,
        change: impl FnOnce(&mut [u8]) -> bool,
    ) -> io::Result<()> {
        let mut bytes = Zeroizing::new(vec![0; length(pages * PAGE_BYTES)?]);
        self.file.read_exact_at(&mut bytes, at)?;
        cipher.decrypt(&mut bytes, at / PAGE_BYTES);
        if change(&mut bytes) {
            cipher.encrypt(&mut bytes, at / PAGE_BYTES);
            write_durably(&self.file, &bytes, at)?;
        }
        Ok(())
    }

    /// Overwrites the plaintext and gives its memory back.
    pub fn forget(&self) -> io::Result<()> {
        wipe(&self.memory, 0..self.size)
    }

    /// Overwrites the ciphertext with zeros, and makes sure that they are on the disk before it becomes a hole.
    pub fn destroy(&self) -> io::Result<()> {
        wipe(&self.file, 0..self.size)
    }

    /// The same for the labels alone.
    pub fn destroy_labels(&self) -> io::Result<()> {
        wipe(&self.file, self.data..self.size)
    }
}

/// Overwrites what `range` of `file` holds with zeros and makes a hole of it.
pub(in crate::memory) fn wipe(file: &File, range: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; length(CHUNK)?];
    for Range { start, end } in chunks(file, range.end)? {
        let start = start.max(range.start);
        if let Some(len) = end.checked_sub(start) {
            file.write_all_at(zeros.get(..length(len)?).ok_or(io::ErrorKind::UnexpectedEof)?, start)?;
        }
    }
    file.sync_data()?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, hole, range.start, range.end.saturating_sub(range.start)) {
        // Zeros are zeros; a file system without holes keeps the space.
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The parts of the first `len` bytes of `file` that are no holes, in pieces of at most [`CHUNK`], whole pages.
fn chunks(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start & !(PAGE_BYTES - 1),
            // Nothing but a hole to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start.max(at)))?
            .next_multiple_of(PAGE_BYTES)
            .min(len);
        let mut from = start.max(at);
        while from < end {
            let to = (from + CHUNK).min(end);
            chunks.push(from..to);
            from = to;
        }
        at = end.max(at + PAGE_BYTES);
    }
    Ok(chunks)
}
