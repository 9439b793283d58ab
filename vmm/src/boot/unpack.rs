//! Unpacks the kernel of a bzImage: from the compressed payload to the ELF `vmlinux` (followed by its relocations).
//!
//! The guest's own decompressor does the same work, slower by far where guest code is emulated, so the monitor and the image
//! tool do it instead. The payload is hostile: the decoders are safe Rust, and neither the output nor a dictionary may pass
//! its limit, whatever the stream says.

mod lz4;
mod xz;
mod zstd;

use super::bzimage::{HeaderError, SetupHeader, u32_at};
use std::{
    fmt,
    io::{self, Read},
};

/// Most bytes a kernel may unpack to.
pub const MAX_UNPACKED: usize = 1 << 30;
/// Most bytes of dictionary or window: the kernel build's own largest, of xz and of `zstd --ultra -22`.
const MAX_DICTIONARY: u64 = 128 << 20;

/// How the kernel of a bzImage is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// xz with the x86 filter.
    Xz,
    /// lz4, legacy frame.
    Lz4,
    /// Zstandard.
    Zstd,
    /// bzip2: only the guest unpacks it.
    Bzip2,
    /// lzma alone: only the guest unpacks it.
    Lzma,
    /// lzo: only the guest unpacks it.
    Lzo,
}

impl Compression {
    /// First bytes of each.
    const MAGIC: [(&'static [u8], Self); 7] = [
        (&[0x1f, 0x8b], Self::Gzip),
        (xz::MAGIC, Self::Xz),
        (lz4::MAGIC, Self::Lz4),
        (zstd::MAGIC, Self::Zstd),
        (b"BZh", Self::Bzip2),
        (&[0x5d, 0, 0], Self::Lzma),
        (b"\x89LZO", Self::Lzo),
    ];

    fn of(payload: &[u8]) -> Option<Self> {
        Self::MAGIC
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|(_, compression)| *compression)
    }

    /// Whether [`unpack`] knows it.
    pub fn is_supported(self) -> bool {
        matches!(self, Self::Gzip | Self::Xz | Self::Lz4 | Self::Zstd)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
        })
    }
}

/// Why a bzImage cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not a bzImage.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A compression that only the guest unpacks.
    #[error(
        "the kernel is compressed with {0}, which is not unpacked outside the guest; expected gzip, xz, lz4 or zstd; hint: let the guest unpack it (unpack=off)"
    )]
    Unsupported(Compression),
    /// No known magic.
    #[error(
        "the kernel's compression is unknown: it starts with bytes {0:02x?}; hint: let the guest unpack it (unpack=off)"
    )]
    Unknown(Vec<u8>),
    /// The stream does not decode.
    #[error("the kernel's {compression} stream is damaged; hint: is the file complete?")]
    Damaged {
        /// How it is compressed.
        compression: Compression,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The stream does not end.
    #[error("the kernel unpacks to more than {} MiB; expected a Linux kernel", MAX_UNPACKED >> 20)]
    TooLarge,
    /// What came out is no kernel.
    #[error("the unpacked kernel is not an ELF file: it starts with bytes {0:02x?}")]
    NotElf(Vec<u8>),
}

/// How the kernel of `bzimage` is compressed; none when the file is no bzImage or the compression is unknown.
pub fn compression(bzimage: &[u8]) -> Option<Compression> {
    let header = SetupHeader::parse(bzimage).ok()?;
    Compression::of(bzimage.get(header.payload)?)
}

/// The ELF `vmlinux` inside `bzimage`, followed by whatever the build put after it (relocations).
pub fn unpack(bzimage: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let header = SetupHeader::parse(bzimage)?;
    let payload = bzimage.get(header.payload).unwrap_or_default();
    let head = |bytes: &[u8]| bytes.iter().take(8).copied().collect::<Vec<_>>();
    let compression = Compression::of(payload).ok_or_else(|| UnpackError::Unknown(head(payload)))?;
    let mut output = Output::new(payload);
    let done = match compression {
        Compression::Gzip => output.fill(flate2::read::GzDecoder::new(payload)),
        Compression::Xz => xz::decode(payload, &mut output),
        Compression::Lz4 => lz4::decode(payload, &mut output),
        Compression::Zstd => zstd::decode(payload, &mut output),
        Compression::Bzip2 | Compression::Lzma | Compression::Lzo => return Err(UnpackError::Unsupported(compression)),
    };
    match done {
        Err(Failure::TooLarge) => Err(UnpackError::TooLarge),
        Err(Failure::Io(source)) => Err(UnpackError::Damaged { compression, source }),
        Ok(()) if !output.0.starts_with(b"\x7fELF") => Err(UnpackError::NotElf(head(&output.0))),
        Ok(()) => Ok(output.0),
    }
}

/// Why a decoder stopped.
enum Failure {
    TooLarge,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A stream that contradicts itself.
fn damaged(what: &'static str) -> Failure {
    Failure::Io(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// The unpacked bytes, never more than [`MAX_UNPACKED`].
struct Output(Vec<u8>);

impl Output {
    /// The kernel build ends every payload with the unpacked size; it saves reallocations and is believed no further.
    fn new(payload: &[u8]) -> Self {
        let claimed = payload
            .len()
            .checked_sub(4)
            .and_then(|at| u32_at(payload, at))
            .unwrap_or(0);
        let sane = payload.len().saturating_mul(16).min(MAX_UNPACKED);
        // One byte more lets the last read see the end without growing the buffer.
        Self(Vec::with_capacity(
            usize::try_from(claimed).unwrap_or(sane).min(sane) + 1,
        ))
    }

    /// Appends all of `reader`.
    fn fill(&mut self, reader: impl Read) -> Result<(), Failure> {
        let room = MAX_UNPACKED - self.0.len();
        let got = reader.take(room as u64 + 1).read_to_end(&mut self.0)?;
        if got > room { Err(Failure::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
