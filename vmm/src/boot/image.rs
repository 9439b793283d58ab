//! A kernel file: what kind it is, and its bytes without copying them more than once.
//!
//! An uncompressed `vmlinux` stays a file and is read straight into guest memory; a bzImage is read whole, because it is
//! checked, and unpacked, as one piece.

use super::{
    BootError,
    bzimage::{HeaderError, SetupHeader},
    elf::{ElfError, ElfImage},
    multiboot::{self, MultibootImage},
    unpack::{UnpackError, unpack},
};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Most bytes of a bzImage.
const MAX_BZIMAGE: u64 = 256 << 20;

/// Why a file is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not readable.
    #[error("cannot read the kernel {0}")]
    Read(PathBuf, #[source] io::Error),
    /// Larger than any kernel.
    #[error("the kernel has {len} bytes; expected a bzImage of at most {} MiB or an ELF vmlinux", MAX_BZIMAGE >> 20)]
    TooLarge {
        /// Bytes of the file.
        len: u64,
    },
    /// Neither kind.
    #[error("the file is neither a bzImage nor an ELF vmlinux: it starts with bytes {head:02x?}; hint: {hint}")]
    NotAKernel {
        /// First bytes.
        head: Vec<u8>,
        /// What it may be instead.
        hint: &'static str,
    },
    /// A bzImage with a bad header.
    #[error("the bzImage cannot be used")]
    BzImage(#[source] HeaderError),
    /// A multiboot image that cannot be booted.
    #[error(transparent)]
    Multiboot(Box<BootError>),
    /// An ELF file that cannot be booted.
    #[error("the ELF file cannot be used")]
    Elf(#[source] ElfError),
}

/// The bytes of an image.
#[derive(Debug)]
pub enum ImageData {
    /// In a file.
    File {
        /// Open for reading.
        file: File,
        /// Its length when it was opened.
        len: u64,
    },
    /// In memory.
    Bytes(Vec<u8>),
}

impl ImageData {
    /// Bytes of the image.
    pub fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.read_exact_at(buf, offset),
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).ok().and_then(|start| bytes.get(start..));
                let source = start
                    .and_then(|rest| rest.get(..buf.len()))
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(source);
                Ok(())
            }
        }
    }
}

/// What a kernel file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// ELF vmlinux, also one that was inside a bzImage.
    Elf(ElfImage),
    /// bzImage as it is, to be unpacked by the guest.
    BzImage,
    /// A hypervisor with a multiboot header.
    Multiboot(MultibootImage),
}

/// A kernel ready for [`super::plan()`].
#[derive(Debug)]
pub struct Kernel {
    pub(super) data: ImageData,
    pub(super) kind: Kind,
    /// The setup header of the bzImage this is or came from, with its bytes from 0x1f1 on.
    pub(super) setup: Option<(SetupHeader, Vec<u8>)>,
}

impl Kernel {
    /// Opens the file at `path` and finds out what it is.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let read = |e| ImageError::Read(path.to_owned(), e);
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if metadata.is_dir() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        let len = metadata.len();
        let mut head = Vec::new();
        (&file).take(4).read_to_end(&mut head).map_err(read)?;
        if head == b"\x7fELF" {
            return Self::new(ImageData::File { file, len });
        }
        if len > MAX_BZIMAGE {
            return Err(ImageError::TooLarge { len });
        }
        (&file).take(MAX_BZIMAGE).read_to_end(&mut head).map_err(read)?;
        match multiboot::gunzip(&head).map(ImageData::Bytes) {
            Some(data) if MultibootImage::parse(&data).is_some() => Self::new(data),
            _ => Self::new(ImageData::Bytes(head)),
        }
    }

    /// Finds out what `data` is.
    pub fn new(data: ImageData) -> Result<Self, ImageError> {
        if let Some(image) = MultibootImage::parse(&data) {
            let image = image.map_err(|e| ImageError::Multiboot(Box::new(e)))?;
            return Ok(Self {
                data,
                kind: Kind::Multiboot(image),
                setup: None,
            });
        }
        let mut magic = [0; 4];
        if data.read_at(0, &mut magic).is_ok() && &magic == b"\x7fELF" {
            let kind = Kind::Elf(ElfImage::parse(&data).map_err(ImageError::Elf)?);
            return Ok(Self {
                data,
                kind,
                setup: None,
            });
        }
        let ImageData::Bytes(bytes) = &data else {
            return Err(not_a_kernel(&magic));
        };
        let header = SetupHeader::parse(bytes).map_err(|e| match e {
            HeaderError::NoMagic | HeaderError::Short { .. } => not_a_kernel(bytes),
            other => ImageError::BzImage(other),
        })?;
        let fields = bytes.get(header.header.clone()).unwrap_or_default().to_vec();
        Ok(Self {
            setup: Some((header, fields)),
            kind: Kind::BzImage,
            data,
        })
    }

    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The vmlinux inside a bzImage; a vmlinux is its own. The setup header is kept for the zero page.
    pub fn unpacked(&self) -> Result<Option<Self>, UnpackedError> {
        let (Kind::BzImage, ImageData::Bytes(bytes)) = (&self.kind, &self.data) else {
            return Ok(None);
        };
        let data = ImageData::Bytes(unpack(bytes)?);
        let elf = ElfImage::parse(&data)?;
        Ok(Some(Self {
            data,
            kind: Kind::Elf(elf),
            setup: self.setup.clone(),
        }))
    }
}

/// Why the kernel inside a bzImage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnpackedError {
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It cannot be booted.
    #[error("the unpacked kernel cannot be used")]
    Elf(#[from] ElfError),
}

fn not_a_kernel(bytes: &[u8]) -> ImageError {
    let hint = match bytes {
        [] => "the file is empty",
        [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', b'X', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "it is a compressed file; unpack it first, or give the bzImage"
        }
        [b'M', b'Z', ..] => "it is an EFI program, perhaps a unified kernel image; give the bzImage that is in it",
        [b'0', b'7', b'0', b'7', ..] => "it looks like an initramfs; is it the kernel that is given as kernel?",
        _ => "expected a file such as /boot/vmlinuz or vmlinux of an x86-64 kernel",
    };
    ImageError::NotAKernel {
        head: bytes.iter().take(8).copied().collect(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::{bzimage, elf, gzip};
    use proptest::prelude::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_vmlinux_stays_in_its_file() {
        let file = file(&elf());
        let kernel = Kernel::open(file.path()).unwrap();
        assert!(matches!(kernel.kind(), Kind::Elf(_)));
        assert!(matches!(kernel.data, ImageData::File { len, .. } if len == elf().len() as u64));
        assert!(kernel.unpacked().unwrap().is_none());
    }

    #[test]
    fn a_bzimage_keeps_its_header_when_it_is_unpacked() {
        let file = file(&bzimage(&gzip(&elf())));
        let kernel = Kernel::open(file.path()).unwrap();
        assert_eq!(*kernel.kind(), Kind::BzImage);
        let inside = kernel.unpacked().unwrap().unwrap();
        assert_eq!(*inside.kind(), *Kernel::new(ImageData::Bytes(elf())).unwrap().kind());
        assert_eq!(inside.setup, kernel.setup);
    }

    #[test]
    fn other_files_are_refused_with_a_hint() {
        for (bytes, hint) in [
            (&b""[..], "empty"),
            (b"\x1f\x8b\x08\x00", "compressed"),
            (b"070701000000", "initramfs"),
            (b"#!/bin/sh\n", "/boot/vmlinuz"),
            (&[b'M', b'Z'].repeat(600), "EFI"),
        ] {
            let error = Kernel::open(file(bytes).path()).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        let Err(ImageError::Read(path, _)) = Kernel::open(Path::new("/nonexistent/vmlinuz")) else {
            panic!()
        };
        assert_eq!(path, Path::new("/nonexistent/vmlinuz"));
        assert!(matches!(Kernel::open(Path::new("/")), Err(ImageError::Read(..))));
        assert!(matches!(Kernel::open(file(b"\x7fELF").path()), Err(ImageError::Elf(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_a_kernel_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2048), magic in 0..3) {
            let mut bytes = bytes;
            match magic {
                0 if bytes.len() > 4 => bytes[..4].copy_from_slice(b"\x7fELF"),
                1 if bytes.len() > 0x210 => {
                    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
                    bytes[0x202..0x206].copy_from_slice(b"HdrS");
                }
                _ => {}
            }
            if let Ok(kernel) = Kernel::new(ImageData::Bytes(bytes)) {
                let _ = kernel.unpacked();
            }
        }
    }
}
