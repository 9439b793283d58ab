//! One Zstandard frame (RFC 8878), followed by 4 bytes of unpacked size from the kernel build.

use super::{Failure, MAX_DICTIONARY, MAX_UNPACKED, Output, damaged};
use ruzstd::decoding::StreamingDecoder;
use std::io;

/// 0xfd2fb528.
pub const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Appends the unpacked frame to `output`.
pub fn decode(frame: &[u8], output: &mut Output) -> Result<(), Failure> {
    // The decoder holds a window back whatever it is asked for, so a huge one is a huge buffer.
    let window = window(frame).ok_or_else(|| damaged("the frame header is cut off"))?;
    if window > MAX_DICTIONARY && !is_single_segment(frame) || window > MAX_UNPACKED as u64 {
        return Err(damaged("the window is larger than any kernel's"));
    }
    let decoder =
        StreamingDecoder::new(frame).map_err(|e| Failure::Io(io::Error::new(io::ErrorKind::InvalidData, e)))?;
    output.fill(decoder)
}

/// A frame without a window descriptor: its window is all of it.
fn is_single_segment(frame: &[u8]) -> bool {
    frame.get(4).is_some_and(|descriptor| descriptor & 0x20 != 0)
}

/// Window size by the frame header, RFC 8878 3.1.1.1.
fn window(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.get(4)?;
    if is_single_segment(frame) {
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = [1, 2, 4, 8][usize::from(descriptor >> 6)];
        let bytes = frame.get(5 + dictionary..5 + dictionary + size)?;
        return Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let byte = *frame.get(5)?;
    let base = 1u64 << (10 + (byte >> 3));
    Some(base + base / 8 * u64::from(byte & 7))
}
