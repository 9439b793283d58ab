//! Multiboot (specification 0.6.96), as far as Xen needs it: recognising an image, and the information structure.
//!
//! The image is an ELF32 file with a multiboot header in its first 8 KiB, perhaps inside gzip. It is entered in protected
//! mode with paging off, [`MAGIC`] in EAX and the address of the information structure in EBX.

use super::{
    BootError,
    bzimage::{u16_at, u32_at},
    elf::Segment,
    image::ImageData,
    plan::BootPlan,
};
use crate::config::MAX_MODULES;
use crate::layout::{CMDLINE, HIGH_MEMORY, LOW_RAM_END, MMIO_HOLE, MODULE_CMDLINES, MULTIBOOT_INFO, MULTIBOOT_MAP_END};
use devices::units::{Gpa, GpaRange};
use std::io::Read;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// EAX at the entry.
pub const MAGIC: u32 = 0x2bad_b002;
/// Bytes of a module's command line with its NUL.
pub const MODULE_CMDLINE_MAX: usize = crate::layout::CMDLINE_MAX;
/// Most memory ranges: what fits between the module list and the next structure.
#[expect(clippy::cast_possible_truncation, reason = "a few kilobytes")]
pub const MAX_RANGES: usize = (MULTIBOOT_MAP_END.0 - MEMORY_MAP) as usize / size_of::<MapEntry>();

const MODULES: u64 = MULTIBOOT_INFO.0 + 0x80;
const MEMORY_MAP: u64 = MODULES + (MAX_MODULES * size_of::<Module>()) as u64;
const LOADER_NAME: u64 = MULTIBOOT_INFO.0 + 0x70;
const _: () = assert!(size_of::<Info>() <= 0x70);

/// Header: magic, flags, checksum.
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// Where a header can be.
const SEARCH: usize = 8192;
/// Features that may be required: page-aligned modules, memory information.
const KNOWN_FEATURES: u32 = 0b11;
/// Bits 0 to 15 are features that must be understood or the image refused.
const REQUIRED: u32 = 0xffff;
const EHDR: usize = 52;
const PHDR: usize = 32;
const MAX_SEGMENTS: u16 = 16;
/// No hypervisor is larger.
const MAX_UNPACKED: u64 = 64 << 20;

/// A hypervisor: what goes where, and where it is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultibootImage {
    /// In the order of the file; they do not overlap, and there is at least one.
    pub segments: Vec<Segment>,
    /// 32-bit entry.
    pub entry: Gpa,
}

impl MultibootImage {
    /// Reads the headers of `data`; none when it is no multiboot image, an error when it is one that cannot be booted.
    pub fn parse(data: &ImageData) -> Option<Result<Self, BootError>> {
        let len = usize::try_from(data.len()).unwrap_or(SEARCH).min(SEARCH);
        let mut head = vec![0; len];
        data.read_at(0, &mut head).ok()?;
        // ELF, 32 bits, little endian.
        if !head.starts_with(b"\x7fELF\x01\x01") {
            return None;
        }
        let flags = header_flags(&head)?;
        Some(Self::parse_elf(&head, data, flags))
    }

    fn parse_elf(head: &[u8], data: &ImageData, flags: u32) -> Result<Self, BootError> {
        let bad = |problem| BootError::Multiboot { problem };
        if flags & REQUIRED & !KNOWN_FEATURES != 0 {
            return Err(bad(
                "its header requires features that are not there (such as a video mode)",
            ));
        }
        let half = |at| u16_at(head, at).unwrap_or(0);
        let (offset, size, count) = (u32_at(head, 28).unwrap_or(0), half(42), half(44));
        if head.len() < EHDR || usize::from(size) != PHDR || !(1..=MAX_SEGMENTS).contains(&count) {
            return Err(bad("its ELF file has no usable program headers"));
        }
        let mut table = vec![0; PHDR * usize::from(count)];
        data.read_at(offset.into(), &mut table)
            .map_err(|_| bad("its ELF file ends before its program headers"))?;
        let mut segments: Vec<Segment> = Vec::new();
        for header in table.as_chunks::<PHDR>().0 {
            let word = |at| u64::from(u32_at(header, at).unwrap_or(0));
            let (kind, offset, paddr, len, mem_len) = (word(0), word(4), word(12), word(16), word(20));
            if kind != 1 || mem_len == 0 {
                continue;
            }
            if len > mem_len || offset + len > data.len() {
                return Err(bad("an ELF segment contradicts itself or the file's length"));
            }
            let range = GpaRange::new(Gpa(paddr), mem_len);
            if segments.iter().any(|s| s.range.overlaps(&range)) {
                return Err(bad("its ELF segments overlap"));
            }
            segments.push(Segment { offset, len, range });
        }
        let entry = Gpa(u32_at(head, 24).unwrap_or(0).into());
        if !segments.iter().any(|s| s.range.contains(entry)) {
            return Err(bad("its ELF entry point lies in no segment"));
        }
        Ok(Self { segments, entry })
    }

    /// The smallest range with every segment in it.
    pub fn span(&self) -> GpaRange {
        let start = self.segments.iter().map(|s| s.range.start).min().unwrap_or(Gpa(0));
        let end = self.segments.iter().map(|s| s.range.end()).max().unwrap_or(start);
        GpaRange::new(start, end.0 - start.0)
    }
}

/// The flags of the multiboot header in `head`, if there is one.
fn header_flags(head: &[u8]) -> Option<u32> {
    let at = |at| u32_at(head, at);
    (0..head.len()).step_by(4).find_map(|offset| {
        let (magic, flags, checksum) = (at(offset)?, at(offset + 4)?, at(offset + 8)?);
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        (magic == HEADER_MAGIC && sum == 0).then_some(flags)
    })
}

/// What is inside a gzip file; none when it is damaged or larger than any hypervisor.
pub fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return None;
    }
    let mut plain = Vec::new();
    let limited = flate2::read::GzDecoder::new(bytes).take(MAX_UNPACKED + 1);
    let read = std::io::BufReader::new(limited).read_to_end(&mut plain).ok()?;
    (read as u64 <= MAX_UNPACKED).then_some(plain)
}

/// The information structure up to the last field that is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    flags: U32,
    mem_lower: U32,
    mem_upper: U32,
    boot_device: U32,
    cmdline: U32,
    mods_count: U32,
    mods_addr: U32,
    syms: [U32; 4],
    mmap_length: U32,
    mmap_addr: U32,
    drives_length: U32,
    drives_addr: U32,
    config_table: U32,
    boot_loader_name: U32,
    apm_table: U32,
}
const _: () = assert!(size_of::<Info>() == 72);

/// Flags of [`Info`]: memory sizes, command line, modules, memory map, name of the loader.
const INFO_FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    start: U32,
    end: U32,
    cmdline: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<Module>() == 16);

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    /// Of what follows.
    size: U32,
    base: U64,
    len: U64,
    kind: U32,
}
const _: () = assert!(size_of::<MapEntry>() == 24);

/// BIOS data area: segment of the extended area, and kilobytes of conventional memory. Xen places its real-mode code by them.
const EBDA_SEGMENT: u64 = 0x40e;
const BASE_MEMORY: u64 = 0x413;

fn low(gpa: Gpa) -> U32 {
    // Everything the plan hands over is below 4 GiB.
    u32::try_from(gpa.0).unwrap_or(u32::MAX).into()
}

fn kib(bytes: u64) -> U32 {
    u32::try_from(bytes >> 10).unwrap_or(u32::MAX).into()
}

/// Writes the information structure for `plan`, and what it points to.
pub fn write<M>(plan: &BootPlan, mem: &M) -> Result<(), GuestMemoryError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let put = |bytes: &[u8], at: u64| mem.write_slice(bytes, GuestAddress(at));
    let cmdlines = (MODULE_CMDLINES.0..).step_by(MODULE_CMDLINE_MAX);
    for ((at, cmdline_at), module) in (MODULES..)
        .step_by(size_of::<Module>())
        .zip(cmdlines)
        .zip(&plan.modules)
    {
        let entry = Module {
            start: low(module.range.start),
            end: low(module.range.end()),
            cmdline: low(Gpa(cmdline_at)),
            reserved: 0.into(),
        };
        put(entry.as_bytes(), at)?;
        put(&module.cmdline, cmdline_at)?;
    }
    for (at, (range, kind)) in (MEMORY_MAP..).step_by(size_of::<MapEntry>()).zip(&plan.e820) {
        let entry = MapEntry {
            size: 20.into(),
            base: range.start.0.into(),
            len: range.len.into(),
            kind: (*kind).into(),
        };
        put(entry.as_bytes(), at)?;
    }
    put(b"daxvisor\0", LOADER_NAME)?;
    let upper = plan
        .e820
        .iter()
        .filter(|(range, kind)| *kind == 1 && range.start >= HIGH_MEMORY && range.start < MMIO_HOLE.start);
    let upper_end = upper.map(|(range, _)| range.end().0).max().unwrap_or(HIGH_MEMORY.0);
    let info = Info {
        flags: INFO_FLAGS.into(),
        mem_lower: kib(LOW_RAM_END.0),
        mem_upper: kib(upper_end - HIGH_MEMORY.0),
        boot_device: 0.into(),
        cmdline: low(CMDLINE),
        mods_count: u32::try_from(plan.modules.len()).unwrap_or(0).into(),
        mods_addr: low(Gpa(MODULES)),
        syms: [0.into(); 4],
        mmap_length: u32::try_from(plan.e820.len() * size_of::<MapEntry>())
            .unwrap_or(0)
            .into(),
        mmap_addr: low(Gpa(MEMORY_MAP)),
        drives_length: 0.into(),
        drives_addr: 0.into(),
        config_table: 0.into(),
        boot_loader_name: low(Gpa(LOADER_NAME)),
        apm_table: 0.into(),
    };
    put(info.as_bytes(), MULTIBOOT_INFO.0)?;
    let word = |value: u64| U16::new(u16::try_from(value).unwrap_or(0));
    put(word(LOW_RAM_END.0 >> 4).as_bytes(), EBDA_SEGMENT)?;
    put(word(LOW_RAM_END.0 >> 10).as_bytes(), BASE_MEMORY)
}

#[cfg(test)]
#[path = "multiboot_tests.rs"]
mod tests;
