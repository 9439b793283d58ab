//! lz4 legacy frame, as `lz4 -l` and the kernel build write it: the magic, then blocks of a 4-byte length and their data,
//! each of at most 8 MiB unpacked, independent of each other. The kernel build appends 4 bytes of unpacked size.

use super::{Failure, MAX_UNPACKED, Output, damaged, u32_at};
use std::io;

/// 0x184c2102.
pub const MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];
/// Most bytes a block unpacks to.
const BLOCK: usize = 8 << 20;

/// Appends the unpacked frame to `output`.
pub fn decode(frame: &[u8], output: &mut Output) -> Result<(), Failure> {
    let out = &mut output.0;
    let mut rest = frame.get(MAGIC.len()..).unwrap_or_default();
    // Four bytes or fewer cannot be a block: they are the appended size, or a cut.
    while rest.len() > 4 {
        if rest.starts_with(MAGIC) {
            rest = rest.get(MAGIC.len()..).unwrap_or_default();
            continue;
        }
        let len = u32_at(rest, 0)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| damaged("no block length"))?;
        let block = len
            .checked_add(4)
            .and_then(|end| rest.get(4..end))
            .ok_or_else(|| damaged("a block ends after the frame"))?;
        let start = out.len();
        let room = BLOCK.min(MAX_UNPACKED - start);
        out.resize(start + room, 0);
        let target = out.get_mut(start..).unwrap_or_default();
        let got = match lz4_flex::block::decompress_into(block, target) {
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room < BLOCK => {
                return Err(Failure::TooLarge);
            }
            other => other.map_err(|e| Failure::Io(io::Error::new(io::ErrorKind::InvalidData, e)))?,
        };
        out.truncate(start + got);
        rest = rest.get(4 + len..).unwrap_or_default();
    }
    Ok(())
}
