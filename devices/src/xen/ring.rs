//! A ring of bytes in a page that the guest shares: what one side writes, the other reads.
//!
//! All of the page is the guest's to change. An index is looked at once for each step, and only the difference of the two within
//! the ring counts.

use super::{Host, abi::PAGE};
use crate::units::Gpa;

/// Where a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Number of the page.
    pub page: u64,
    /// Where its bytes begin in the page.
    pub bytes: u64,
    /// How many there are, a power of two.
    pub len: u32,
    /// Where the reader's index is in the page; the writer's is the word behind it.
    pub indices: u64,
}

impl Ring {
    fn at(self, offset: u64) -> Gpa {
        Gpa(self.page * PAGE + offset)
    }

    /// Indices of reader and writer.
    fn indices(self, host: &dyn Host) -> (u32, u32) {
        let index = |offset| {
            let mut word = [0; 4];
            host.load(self.at(self.indices + offset), &mut word);
            u32::from_le_bytes(word)
        };
        (index(0), index(4))
    }

    /// What is there to be read. A ring whose writer is more than a ring ahead has nothing.
    pub fn look(self, host: &dyn Host) -> Vec<u8> {
        let (read, written) = self.indices(host);
        let len = written.wrapping_sub(read);
        if len == 0 || len > self.len {
            return vec![];
        }
        let mut ring = vec![0; self.len as usize];
        host.load(self.at(self.bytes), &mut ring);
        let bytes = (0..len).map(|n| read.wrapping_add(n) % self.len);
        bytes.filter_map(|at| ring.get(at as usize).copied()).collect()
    }

    /// So many bytes have been read.
    pub fn advance(self, bytes: usize, host: &mut dyn Host) {
        let (read, _) = self.indices(host);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let read = read.wrapping_add(bytes).to_le_bytes();
        host.store(self.at(self.indices), &read);
    }

    /// Bytes that can be written.
    pub fn room(self, host: &dyn Host) -> usize {
        let (read, written) = self.indices(host);
        self.len.saturating_sub(written.wrapping_sub(read)) as usize
    }

    /// Writes as much of `bytes` as there is room for; how much.
    pub fn put(self, bytes: &[u8], host: &mut dyn Host) -> usize {
        let (read, written) = self.indices(host);
        let room = self.len.saturating_sub(written.wrapping_sub(read)) as usize;
        let now = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        // Up to the end of the ring, and from its beginning.
        let first = ((self.len - written % self.len) as usize).min(now.len());
        let (before, after) = now.split_at(first);
        host.store(self.at(self.bytes + u64::from(written % self.len)), before);
        host.store(self.at(self.bytes), after);
        if let Ok(len @ 1..) = u32::try_from(now.len()) {
            let written = written.wrapping_add(len).to_le_bytes();
            host.store(self.at(self.indices + 4), &written);
        }
        now.len()
    }
}
