//! The setup header of a bzImage (Linux `Documentation/arch/x86/boot.rst`): parsed and checked, nothing else.
//!
//! The file is a real-mode part of `setup_sects` + 1 sectors, then the protected-mode part, which carries the compressed
//! kernel. Every number in it is the file's claim and is checked against the file's length before it is used.

use std::ops::Range;

/// Bytes of a sector of the real-mode part.
const SECTOR: usize = 512;
/// `setup_sects` of 0 stands for 4.
const DEFAULT_SETUP_SECTS: usize = 4;
/// Oldest protocol with `payload_offset` and `payload_length`.
const MIN_VERSION: u16 = 0x208;
/// `xloadflags` bit 0: there is a 64-bit entry at 0x200 of the protected-mode part.
const XLF_KERNEL_64: u16 = 1;

/// Offsets of the fields in the file, which are those of the zero page too.
pub mod offset {
    /// First byte of the header.
    pub const SETUP_SECTS: usize = 0x1f1;
    /// 0xaa55.
    pub const BOOT_FLAG: usize = 0x1fe;
    /// Second byte of a short jump over the header, so that 0x202 + it is the header's end.
    pub const JUMP: usize = 0x201;
    /// "HdrS".
    pub const MAGIC: usize = 0x202;
    /// Protocol version, major in the high byte.
    pub const VERSION: usize = 0x206;
    /// Highest address the initrd's last byte may have.
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    /// Alignment of the load address.
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    /// Whether the protected-mode part runs elsewhere than at `PREF_ADDRESS`.
    pub const RELOCATABLE: usize = 0x234;
    /// Extended load flags.
    pub const XLOADFLAGS: usize = 0x236;
    /// Longest command line without its NUL.
    pub const CMDLINE_SIZE: usize = 0x238;
    /// Start of the payload in the protected-mode part.
    pub const PAYLOAD_OFFSET: usize = 0x248;
    /// Bytes of the payload.
    pub const PAYLOAD_LENGTH: usize = 0x24c;
    /// Where the kernel would like to be.
    pub const PREF_ADDRESS: usize = 0x258;
    /// Bytes the kernel needs from its load address until it has read the memory map.
    pub const INIT_SIZE: usize = 0x260;
    /// First byte after the last field that is used.
    pub const END: usize = 0x264;
}

/// Why a file is not a bzImage.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Too few bytes for a header.
    #[error(
        "the file has {len} bytes, too few for the setup header of a bzImage, which ends at {:#x}; hint: is the file complete?",
        offset::END
    )]
    Short {
        /// Bytes of the file.
        len: usize,
    },
    /// No magic.
    #[error(
        "the file has no setup header (\"HdrS\" at 0x202); hint: expected a bzImage such as /boot/vmlinuz of an x86-64 kernel"
    )]
    NoMagic,
    /// Older than 2.6.24's protocol.
    #[error("boot protocol {}.{:02} is too old: expected 2.08 or later (Linux 2.6.24)", version >> 8, version & 0xff)]
    OldVersion {
        /// Protocol version.
        version: u16,
    },
    /// The real-mode part is longer than the file.
    #[error("the real-mode part claims {setup_len} bytes but the file has {len}; hint: is the file complete?")]
    NoProtectedMode {
        /// Bytes of the real-mode part.
        setup_len: usize,
        /// Bytes of the file.
        len: usize,
    },
    /// The payload lies outside the file.
    #[error(
        "the compressed kernel is said to be {length} bytes at offset {start} but the file has {len}; hint: is the file complete?"
    )]
    Payload {
        /// Offset in the file.
        start: u64,
        /// Bytes claimed.
        length: u32,
        /// Bytes of the file.
        len: usize,
    },
}

/// A checked setup header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    /// Protocol version.
    pub version: u16,
    /// Protected-mode part in the file.
    pub protected_mode: Range<usize>,
    /// Compressed kernel in the file; not empty.
    pub payload: Range<usize>,
    /// Header in the file, from 0x1f1: what is copied to the zero page.
    pub header: Range<usize>,
    /// Highest address of the initrd's last byte.
    pub initrd_addr_max: u32,
    /// Alignment of the load address.
    pub kernel_alignment: u32,
    /// Whether the load address may differ from `pref_address`.
    pub relocatable: bool,
    /// Extended load flags (protocol 2.12), 0 before.
    pub xloadflags: u16,
    /// Longest command line without its NUL.
    pub cmdline_size: u32,
    /// Preferred load address (protocol 2.10), 0 before.
    pub pref_address: u64,
    /// Bytes needed from the load address (protocol 2.10), 0 before.
    pub init_size: u32,
}

impl SetupHeader {
    /// Reads the header of `file` and checks it against the file's length.
    pub fn parse(file: &[u8]) -> Result<Self, HeaderError> {
        let short = || HeaderError::Short { len: file.len() };
        if u16_at(file, offset::BOOT_FLAG).ok_or_else(short)? != 0xaa55
            || file.get(offset::MAGIC..offset::VERSION) != Some(b"HdrS")
        {
            return Err(HeaderError::NoMagic);
        }
        let version = u16_at(file, offset::VERSION).ok_or_else(short)?;
        if version < MIN_VERSION {
            return Err(HeaderError::OldVersion { version });
        }
        if file.len() < offset::END {
            return Err(short());
        }
        let byte = |at: usize| file.get(at).copied().map(usize::from).ok_or_else(short);
        let word = |at: usize| u32_at(file, at).ok_or_else(short);
        let since = |needed: u16| version >= needed;

        let setup_sects = match byte(offset::SETUP_SECTS)? {
            0 => DEFAULT_SETUP_SECTS,
            n => n,
        };
        let setup_len = (setup_sects + 1) * SECTOR;
        if setup_len >= file.len() {
            return Err(HeaderError::NoProtectedMode {
                setup_len,
                len: file.len(),
            });
        }
        let payload = payload(
            setup_len,
            word(offset::PAYLOAD_OFFSET)?,
            word(offset::PAYLOAD_LENGTH)?,
            file.len(),
        )?;
        // The header never reaches the e820 table of the zero page at 0x2d0, whatever the jump says: 0x290 is its largest end.
        let header_end = (offset::MAGIC + byte(offset::JUMP)?)
            .clamp(offset::END, 0x290)
            .min(file.len());
        Ok(Self {
            version,
            protected_mode: setup_len..file.len(),
            payload,
            header: offset::SETUP_SECTS..header_end,
            initrd_addr_max: word(offset::INITRD_ADDR_MAX)?,
            kernel_alignment: word(offset::KERNEL_ALIGNMENT)?,
            relocatable: byte(offset::RELOCATABLE)? != 0,
            xloadflags: if since(0x20c) {
                u16_at(file, offset::XLOADFLAGS).ok_or_else(short)?
            } else {
                0
            },
            cmdline_size: word(offset::CMDLINE_SIZE)?,
            pref_address: if since(0x20a) {
                u64_at(file, offset::PREF_ADDRESS).ok_or_else(short)?
            } else {
                0
            },
            init_size: if since(0x20a) { word(offset::INIT_SIZE)? } else { 0 },
        })
    }

    /// Whether the protected-mode part has a 64-bit entry at 0x200.
    pub fn has_64bit_entry(&self) -> bool {
        self.version >= 0x20c && self.xloadflags & XLF_KERNEL_64 != 0 && self.protected_mode.len() > 0x200
    }
}

/// The payload's place in a file of `len` bytes; its offset counts from the protected-mode part.
fn payload(setup_len: usize, offset: u32, length: u32, len: usize) -> Result<Range<usize>, HeaderError> {
    let start = setup_len as u64 + u64::from(offset);
    let end = start + u64::from(length);
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start < end && end <= len => Ok(start..end),
        _ => Err(HeaderError::Payload { start, length, len }),
    }
}

/// The little-endian `u16` at `at`, if it is there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// The little-endian `u32` at `at`, if it is there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The little-endian `u64` at `at`, if it is there.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::bzimage;
    use proptest::prelude::*;

    #[test]
    fn a_header_says_where_the_payload_is() {
        let file = bzimage(b"compressed kernel");
        let header = SetupHeader::parse(&file).unwrap();
        assert_eq!(&file[header.payload.clone()], b"compressed kernel");
        assert_eq!(header.version, 0x20f);
        assert!(header.has_64bit_entry());
        assert_eq!(header.protected_mode.start, 2 * 512);
    }

    #[test]
    fn no_setup_sectors_stand_for_four() {
        let mut file = bzimage(&[7; 4096]);
        file[offset::SETUP_SECTS] = 0;
        file[offset::PAYLOAD_LENGTH + 1] = 0;
        file[offset::PAYLOAD_LENGTH] = 1;
        assert_eq!(SetupHeader::parse(&file).unwrap().protected_mode.start, 5 * 512);
    }

    #[test]
    fn each_way_to_be_no_bzimage_has_its_error() {
        let good = bzimage(b"x");
        let broken = |at: usize, bytes: &[u8]| {
            let mut file = good.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            SetupHeader::parse(&file).unwrap_err()
        };
        assert_eq!(
            SetupHeader::parse(&good[..0x1ff]).unwrap_err(),
            HeaderError::Short { len: 0x1ff }
        );
        assert_eq!(
            SetupHeader::parse(&good[..0x250]).unwrap_err(),
            HeaderError::Short { len: 0x250 }
        );
        assert_eq!(broken(offset::MAGIC, b"XdrS"), HeaderError::NoMagic);
        assert_eq!(broken(offset::BOOT_FLAG, &[0, 0]), HeaderError::NoMagic);
        assert_eq!(
            broken(offset::VERSION, &[7, 2]),
            HeaderError::OldVersion { version: 0x207 }
        );
        assert!(matches!(
            broken(offset::SETUP_SECTS, &[255]),
            HeaderError::NoProtectedMode { setup_len: 131_072, .. }
        ));
        assert!(matches!(
            broken(offset::PAYLOAD_LENGTH, &[255; 4]),
            HeaderError::Payload { length: u32::MAX, .. }
        ));
        assert!(matches!(
            broken(offset::PAYLOAD_LENGTH, &[0; 4]),
            HeaderError::Payload { length: 0, .. }
        ));
        assert!(HeaderError::OldVersion { version: 0x204 }.to_string().contains("2.04"));
    }

    proptest! {
        #[test]
        fn arbitrary_header_fields_are_parsed_or_refused(fields in proptest::collection::vec(any::<u8>(), 0x80), tail in 0usize..0x2000) {
            let mut file = vec![0; 0x300 + tail];
            file[0x1f1..0x271].copy_from_slice(&fields);
            file[offset::BOOT_FLAG..offset::BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
            file[offset::MAGIC..offset::VERSION].copy_from_slice(b"HdrS");
            if let Ok(header) = SetupHeader::parse(&file) {
                prop_assert!(file.get(header.payload).is_some_and(|p| !p.is_empty()));
                prop_assert!(file.get(header.protected_mode).is_some_and(|p| !p.is_empty()));
                prop_assert!(header.header.end <= 0x290);
            }
        }
    }
}
