//! The xz container, as far as a kernel payload uses it (.xz file format 1.1.0): one stream of blocks, each LZMA2, with or
//! without the x86 filter before it.
//!
//! The container is read here and not by the library, because the library allocates whatever dictionary a block asks for.

use super::{Failure, MAX_DICTIONARY, Output, damaged, u32_at};
use lzma_rust2::{Lzma2Reader, filter::bcj::BcjReader};
use std::io::Read;

/// First bytes of a stream (2.1.1.1).
pub const MAGIC: &[u8] = b"\xfd7zXZ\0";
/// Filter numbers (5.3).
const FILTER_X86: u64 = 0x04;
const FILTER_LZMA2: u64 = 0x21;

/// Appends the unpacked stream to `output`.
pub fn decode(stream: &[u8], output: &mut Output) -> Result<(), Failure> {
    let check = Check::parse(stream)?;
    let mut rest = stream.get(12..).unwrap_or_default();
    // A header size of 0 is the index: no more blocks (4.1).
    while rest.first().is_some_and(|&size| size != 0) {
        let (header_len, block) = BlockHeader::parse(rest)?;
        let body = rest.get(header_len..).unwrap_or_default();
        let start = output.0.len();
        let left = block.decode(body, output)?;
        let padding = (4 - (body.len() - left.len()) % 4) % 4;
        let after = left
            .get(padding..)
            .ok_or_else(|| damaged("a block's padding is cut off"))?;
        let unpacked = output.0.get(start..).unwrap_or_default();
        rest = check.verify(unpacked, after)?;
    }
    if rest.is_empty() {
        Err(damaged("the stream has no index"))
    } else {
        Ok(())
    }
}

/// The check after each block (2.1.1.2): its id and size.
struct Check {
    id: u8,
    size: usize,
}

impl Check {
    const CRC32: u8 = 1;

    fn parse(stream: &[u8]) -> Result<Self, Failure> {
        let flags = stream
            .get(6..8)
            .ok_or_else(|| damaged("the stream header is cut off"))?;
        match *flags {
            [0, id @ 0..=15] => Ok(Self {
                id,
                size: [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64][usize::from(id)],
            }),
            _ => Err(damaged("the stream header has unknown flags")),
        }
    }

    /// What follows the check at the start of `after`. The kernel build uses CRC32; other kinds are passed over, as the
    /// kernel's own decoder does.
    fn verify<'a>(&self, unpacked: &[u8], after: &'a [u8]) -> Result<&'a [u8], Failure> {
        let rest = after
            .get(self.size..)
            .ok_or_else(|| damaged("a block's check is cut off"))?;
        if self.id == Self::CRC32 && u32_at(after, 0) != Some(crc32(unpacked)) {
            return Err(damaged("a block's CRC32 is wrong"));
        }
        Ok(rest)
    }
}

/// What a block header says about decoding the block.
struct BlockHeader {
    x86: Option<u32>,
    dictionary: u32,
}

impl BlockHeader {
    /// The header at the start of `bytes` and its length (3.1).
    fn parse(bytes: &[u8]) -> Result<(usize, Self), Failure> {
        let cut = || damaged("a block header is cut off");
        let len = (usize::from(*bytes.first().ok_or_else(cut)?) + 1) * 4;
        let header = bytes.get(..len).ok_or_else(cut)?;
        let (fields, crc) = header.split_at(len - 4);
        if u32_at(crc, 0) != Some(crc32(fields)) {
            return Err(damaged("a block header's CRC32 is wrong"));
        }
        let flags = *fields.get(1).ok_or_else(cut)?;
        let mut fields = fields.get(2..).unwrap_or_default();
        for present in [0x40, 0x80] {
            // Compressed and uncompressed size: the data ends by itself and the check covers it.
            if flags & present != 0 {
                vli(&mut fields).ok_or_else(cut)?;
            }
        }
        let mut header = Self {
            x86: None,
            dictionary: 0,
        };
        for left in (0..=flags & 3).rev() {
            header.filter(&mut fields, left == 0)?;
        }
        Ok((len, header))
    }

    /// Takes one filter's description off `fields` (5.1); the last one has to be LZMA2.
    fn filter(&mut self, fields: &mut &[u8], last: bool) -> Result<(), Failure> {
        let cut = || damaged("a filter's description is cut off");
        let id = vli(fields).ok_or_else(cut)?;
        let len = vli(fields).and_then(|len| usize::try_from(len).ok()).ok_or_else(cut)?;
        let (properties, rest) = fields.split_at_checked(len).ok_or_else(cut)?;
        *fields = rest;
        match (id, last, properties) {
            (FILTER_X86, false, []) if self.x86.is_none() => self.x86 = Some(0),
            (FILTER_X86, false, start) if self.x86.is_none() => self.x86 = Some(u32_at(start, 0).ok_or_else(cut)?),
            // 5.3.1: 2 or 3 times a power of two, from 4 KiB; the bound leaves no place for the 40 of 4 GiB - 1.
            (FILTER_LZMA2, true, &[bits @ 0..=39]) => {
                let dictionary = (2 | u64::from(bits & 1)) << (bits / 2 + 11);
                if dictionary > MAX_DICTIONARY {
                    return Err(damaged("the dictionary is larger than any kernel's"));
                }
                self.dictionary = u32::try_from(dictionary).unwrap_or(u32::MAX);
            }
            _ => return Err(damaged("a filter that no x86 kernel uses")),
        }
        Ok(())
    }

    /// Appends the block at the start of `body` to `output` and returns what follows it.
    fn decode<'a>(&self, body: &'a [u8], output: &mut Output) -> Result<&'a [u8], Failure> {
        let mut lzma2 = Lzma2Reader::new(body, self.dictionary, None);
        match self.x86 {
            Some(start) => output.fill(BcjReader::new_x86(lzma2.by_ref(), usize::try_from(start).unwrap_or(0)))?,
            None => output.fill(lzma2.by_ref())?,
        }
        Ok(lzma2.into_inner())
    }
}

/// Takes a variable-length integer off `bytes` (1.2).
fn vli(bytes: &mut &[u8]) -> Option<u64> {
    let len = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(
        number
            .iter()
            .rev()
            .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)),
    )
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
