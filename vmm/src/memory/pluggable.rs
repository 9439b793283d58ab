//! Memory that a guest plugs and unplugs: the region of a virtio-mem device.
//!
//! The region is made of pieces with a memory slot each. A piece is shown while any of its bytes are plugged; in the others
//! the guest finds nothing at all. Bytes that are unplugged are given back to the host at once, and reading them in a piece
//! that is shown costs none: private anonymous memory that was never written is the host's page of zeros.

use super::{Access, GuestMap, GuestMapError, Window, ram};
use crate::{config::MemoryConfig, hv::Vm};
use devices::{
    units::{Gpa, GpaRange},
    virtio::mem::Media,
};
use std::{io, ops::Range, sync::Arc};

/// Most slots of one region: KVM has thousands, and looks through them at each fault.
const MAX_PIECES: u64 = 128;
/// Least bytes of a piece: what Linux adds or removes at once.
const MIN_PIECE: u64 = 128 << 20;

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub enum PluggableError {
    /// No address space for it.
    #[error(transparent)]
    Ram(#[from] ram::RamError),
    /// No place for it.
    #[error(transparent)]
    Map(#[from] GuestMapError),
}

/// The memory of one region.
pub struct Pluggable {
    pieces: Vec<Piece>,
    /// Bytes of each piece but the last.
    len: u64,
}

struct Piece {
    window: Arc<Window>,
    /// Bytes of it that are plugged.
    plugged: u64,
}

/// Bytes of a piece of a region.
fn piece_len(region: u64, block: u64) -> u64 {
    let even = region.div_ceil(MAX_PIECES);
    even.checked_next_power_of_two()
        .unwrap_or(even)
        .max(MIN_PIECE)
        .max(block)
}

/// What `bytes` are of each piece: the piece, and the part by its own offsets.
fn parts(bytes: Range<u64>, len: u64) -> impl Iterator<Item = (u64, Range<u64>)> {
    let pieces = bytes.start / len..bytes.end.div_ceil(len);
    pieces.map(move |n| {
        let start = n * len;
        (n, bytes.start.max(start) - start..bytes.end.min(start + len) - start)
    })
}

impl Pluggable {
    /// The memory of `region`, none of which is plugged.
    pub fn new(vm: &Vm, map: &mut GuestMap, region: GpaRange, block: u64) -> Result<Self, PluggableError> {
        let len = piece_len(region.len, block);
        let mut pieces = Vec::new();
        for (n, part) in parts(0..region.len, len) {
            let range = GpaRange::new(Gpa(region.start.0 + n * len), part.end);
            // Private whatever the machine's RAM is: reading a hole in shared memory makes a page.
            let mapping = ram::allocate(range, &MemoryConfig::default())?;
            let window = map.window(vm, range, mapping, Access::ReadWrite, 1)?;
            pieces.push(Piece { window, plugged: 0 });
        }
        Ok(Self { pieces, len })
    }

    fn piece(&mut self, n: u64) -> Option<&mut Piece> {
        self.pieces.get_mut(usize::try_from(n).ok()?)
    }
}

impl Media for Pluggable {
    fn plug(&mut self, bytes: Range<u64>) -> io::Result<()> {
        let mut done = bytes.start;
        for (n, part) in parts(bytes.clone(), self.len) {
            let size = part.end - part.start;
            let Some(piece) = self.piece(n) else { continue };
            if piece.plugged == 0
                && let Err(error) = piece.window.open()
            {
                self.unplug(bytes.start..done);
                return Err(io::Error::other(error));
            }
            piece.plugged += size;
            done += size;
        }
        Ok(())
    }

    fn unplug(&mut self, bytes: Range<u64>) {
        for (n, part) in parts(bytes, self.len) {
            let Some(piece) = self.piece(n) else { continue };
            piece.plugged = piece.plugged.saturating_sub(part.end - part.start);
            if piece.plugged == 0 {
                piece.window.close();
            }
            if let Err(error) = piece.window.discard(part) {
                tracing::warn!(%error, "memory that was unplugged stays with the machine");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_few_and_no_smaller_than_a_block_or_a_section() {
        const G: u64 = 1 << 30;
        for (region, block, len) in [
            (128 << 20, 2 << 20, 128 << 20),
            (2 * G, 2 << 20, 128 << 20),
            (16 * G, 2 << 20, 128 << 20),
            (17 * G, 2 << 20, 256 << 20),
            (2 * G, G, G),
            (1 << 44, 2 << 20, 1 << 37),
        ] {
            assert_eq!(piece_len(region, block), len, "{region:#x}");
        }
    }

    #[test]
    fn bytes_fall_into_the_parts_of_their_pieces() {
        let all = |bytes| parts(bytes, 100).collect::<Vec<_>>();
        assert_eq!(all(0..100), [(0, 0..100)]);
        assert_eq!(all(250..260), [(2, 50..60)]);
        assert_eq!(all(90..310), [(0, 90..100), (1, 0..100), (2, 0..100), (3, 0..10)]);
        assert_eq!(all(200..300), [(2, 0..100)]);
    }
}
