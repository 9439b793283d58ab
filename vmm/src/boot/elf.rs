//! ELF64 `vmlinux`: what goes where, where to enter, and the PVH entry note. Parsed from any source of bytes, all of it hostile.

use super::{
    bzimage::{u16_at, u32_at, u64_at},
    image::ImageData,
};
use devices::units::{Gpa, GpaRange};
use std::io;

/// Bytes of the ELF64 file header and of a program header.
const EHDR: usize = 64;
const PHDR: usize = 56;
/// More program headers than any kernel has; bounds the table's size.
const MAX_SEGMENTS: u16 = 64;
/// More bytes of notes than any kernel has.
const MAX_NOTES: u64 = 64 << 10;
const EM_X86_64: u16 = 62;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's public `elfnote.h`.
const PVH_ENTRY_NOTE: u32 = 18;

/// Why an ELF file cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// Cut off or unreadable.
    #[error("cannot read the {0} of the ELF file; hint: is the file complete?")]
    Read(&'static str, #[source] io::Error),
    /// Not for this machine.
    #[error(
        "the ELF file has class {class}, byte order {order}, machine {machine} and type {kind}; expected an x86-64 executable (class 2, order 1, machine 62, type 2 or 3)"
    )]
    WrongMachine {
        /// `EI_CLASS`.
        class: u8,
        /// `EI_DATA`.
        order: u8,
        /// `e_machine`.
        machine: u16,
        /// `e_type`.
        kind: u16,
    },
    /// The program header table.
    #[error("the ELF file has {count} program headers of {size} bytes; expected 1 to {MAX_SEGMENTS} of {PHDR}")]
    ProgramHeaders {
        /// `e_phnum`.
        count: u16,
        /// `e_phentsize`.
        size: u16,
    },
    /// A segment that contradicts itself or the file.
    #[error(
        "ELF segment {index} ({file_len:#x} bytes at offset {offset:#x} for {mem_len:#x} bytes at {gpa}) {problem}"
    )]
    Segment {
        /// Program header number.
        index: usize,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        file_len: u64,
        /// `p_memsz`.
        mem_len: u64,
        /// `p_paddr`.
        gpa: Gpa,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nothing to load.
    #[error("the ELF file has nothing to load; hint: expected a vmlinux, not a debug file")]
    Empty,
    /// Entry outside what is loaded.
    #[error("the ELF entry point {0:#x} lies in no segment")]
    Entry(u64),
}

/// Bytes of the image that go to one place. Memory after them up to the range's end is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the image.
    pub offset: u64,
    /// Bytes taken from the image; at most the range's length.
    pub len: u64,
    /// Guest memory.
    pub range: GpaRange,
}

/// A parsed kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfImage {
    /// In the order of the file; they do not overlap, and there is at least one.
    pub segments: Vec<Segment>,
    /// 64-bit entry, a physical address.
    pub entry: Gpa,
    /// 32-bit PVH entry, if there is a note.
    pub pvh_entry: Option<Gpa>,
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    file_len: u64,
    mem_len: u64,
    align: u64,
}

impl ElfImage {
    /// Reads the headers and notes of `data`, nothing more.
    pub fn parse(data: &ImageData) -> Result<Self, ElfError> {
        let (entry, headers) = headers(data)?;
        let mut segments = Vec::new();
        let mut physical_entry = None;
        let mut pvh_entry = None;
        for (index, header) in headers.iter().enumerate() {
            match header.kind {
                PT_LOAD if header.mem_len > 0 => {
                    let segment = header.segment(index, data.len())?;
                    if segments.iter().any(|s: &Segment| s.range.overlaps(&segment.range)) {
                        return Err(header.error(index, "overlaps another"));
                    }
                    physical_entry = physical_entry.or_else(|| header.physical(entry));
                    segments.push(segment);
                }
                PT_NOTE if pvh_entry.is_none() => pvh_entry = header.pvh_entry(data)?,
                _ => {}
            }
        }
        if segments.is_empty() {
            return Err(ElfError::Empty);
        }
        // Linux gives the physical address; an image that gives the virtual one means the same.
        let in_segment = |gpa: Gpa| segments.iter().any(|s| s.range.contains(gpa));
        let entry = Some(Gpa(entry))
            .filter(|e| in_segment(*e))
            .or(physical_entry)
            .ok_or(ElfError::Entry(entry))?;
        Ok(Self {
            entry,
            pvh_entry: pvh_entry.filter(|e| in_segment(*e)),
            segments,
        })
    }

    /// The smallest range with every segment in it.
    pub fn span(&self) -> GpaRange {
        let start = self.segments.iter().map(|s| s.range.start).min().unwrap_or(Gpa(0));
        let end = self.segments.iter().map(|s| s.range.end()).max().unwrap_or(start);
        GpaRange::new(start, end.0 - start.0)
    }
}

/// Entry point and program headers.
fn headers(data: &ImageData) -> Result<(u64, Vec<ProgramHeader>), ElfError> {
    let mut ehdr = [0; EHDR];
    data.read_at(0, &mut ehdr)
        .map_err(|e| ElfError::Read("file header", e))?;
    let half = |at| u16_at(&ehdr, at).unwrap_or(0);
    let (class, order, kind, machine) = (ehdr[4], ehdr[5], half(16), half(18));
    if (class, order, machine) != (2, 1, EM_X86_64) || !matches!(kind, ET_EXEC | ET_DYN) {
        return Err(ElfError::WrongMachine {
            class,
            order,
            machine,
            kind,
        });
    }
    let (size, count) = (half(54), half(56));
    if usize::from(size) != PHDR || count == 0 || count > MAX_SEGMENTS {
        return Err(ElfError::ProgramHeaders { count, size });
    }
    let mut table = vec![0; PHDR * usize::from(count)];
    let (entry, offset) = (u64_at(&ehdr, 24).unwrap_or(0), u64_at(&ehdr, 32).unwrap_or(0));
    data.read_at(offset, &mut table)
        .map_err(|e| ElfError::Read("program headers", e))?;
    Ok((
        entry,
        table.as_chunks::<PHDR>().0.iter().map(ProgramHeader::parse).collect(),
    ))
}

impl ProgramHeader {
    fn parse(bytes: &[u8; PHDR]) -> Self {
        let xword = |at| u64_at(bytes, at).unwrap_or(0);
        Self {
            kind: u32_at(bytes, 0).unwrap_or(0),
            offset: xword(8),
            vaddr: xword(16),
            paddr: xword(24),
            file_len: xword(32),
            mem_len: xword(40),
            align: xword(48),
        }
    }

    fn error(&self, index: usize, problem: &'static str) -> ElfError {
        let Self {
            offset,
            file_len,
            mem_len,
            paddr,
            ..
        } = *self;
        ElfError::Segment {
            index,
            offset,
            file_len,
            mem_len,
            gpa: Gpa(paddr),
            problem,
        }
    }

    fn segment(&self, index: usize, image_len: u64) -> Result<Segment, ElfError> {
        if self.file_len > self.mem_len {
            return Err(self.error(index, "has more bytes in the file than in memory"));
        }
        if self.offset.checked_add(self.file_len).is_none_or(|end| end > image_len) {
            return Err(self.error(index, "ends after the file; hint: is the file complete?"));
        }
        if self.paddr.checked_add(self.mem_len).is_none() {
            return Err(self.error(index, "ends after the address space"));
        }
        Ok(Segment {
            offset: self.offset,
            len: self.file_len,
            range: GpaRange::new(Gpa(self.paddr), self.mem_len),
        })
    }

    /// Where virtual address `entry` is in physical memory, when it is in this segment.
    fn physical(&self, entry: u64) -> Option<Gpa> {
        let within = entry.checked_sub(self.vaddr).filter(|within| *within < self.mem_len)?;
        self.paddr.checked_add(within).map(Gpa)
    }

    fn pvh_entry(&self, data: &ImageData) -> Result<Option<Gpa>, ElfError> {
        let len = usize::try_from(self.file_len.min(MAX_NOTES)).unwrap_or(0);
        let mut notes = vec![0; len];
        data.read_at(self.offset, &mut notes)
            .map_err(|e| ElfError::Read("notes", e))?;
        // gABI: 8-byte alignment where the segment asks for it, else 4.
        Ok(pvh_note(&notes, if self.align == 8 { 8 } else { 4 }))
    }
}

/// The entry in the PVH note among `notes`, whose parts are padded to `align`.
fn pvh_note(notes: &[u8], align: usize) -> Option<Gpa> {
    let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(align);
    let mut rest = notes;
    loop {
        let (name_len, desc_len, kind) = (u32_at(rest, 0)?, u32_at(rest, 4)?, u32_at(rest, 8)?);
        // With 8-byte alignment the description is aligned from the note's start, header included.
        let name_end = 12usize.checked_add(usize::try_from(name_len).ok()?)?;
        let name = rest.get(12..name_end)?;
        let desc_start = name_end.checked_next_multiple_of(align)?;
        let desc = rest.get(desc_start..)?;
        if name == b"Xen\0" && kind == PVH_ENTRY_NOTE && desc_len >= 4 {
            return u32_at(desc, 0).map(|entry| Gpa(entry.into()));
        }
        rest = desc.get(padded(desc_len)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing::{ELF_ENTRY, PVH_ENTRY, elf};
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<ElfImage, ElfError> {
        ElfImage::parse(&ImageData::Bytes(bytes.to_vec()))
    }

    fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = elf();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    #[test]
    fn a_vmlinux_says_what_goes_where() {
        let image = parse(&elf()).unwrap();
        assert_eq!(image.entry, Gpa(ELF_ENTRY));
        assert_eq!(image.pvh_entry, Some(Gpa(PVH_ENTRY)));
        assert_eq!(image.segments.len(), 2);
        assert_eq!(image.segments[1].range, GpaRange::new(Gpa(0x110_0000), 0x3000));
        assert_eq!(image.span(), GpaRange::new(Gpa(0x100_0000), 0x10_3000));
    }

    #[test]
    fn a_virtual_entry_is_translated() {
        let image = parse(&patched(24, &0xffff_ffff_8100_0010u64.to_le_bytes())).unwrap();
        assert_eq!(image.entry, Gpa(0x100_0010));
        assert!(matches!(
            parse(&patched(24, &5u64.to_le_bytes())),
            Err(ElfError::Entry(5))
        ));
    }

    #[test]
    fn hostile_headers_are_refused_by_name() {
        assert!(matches!(parse(b"\x7fELF"), Err(ElfError::Read("file header", _))));
        assert!(matches!(
            parse(&patched(18, &[3, 0])),
            Err(ElfError::WrongMachine { machine: 3, .. })
        ));
        assert!(matches!(
            parse(&patched(4, &[1])),
            Err(ElfError::WrongMachine { class: 1, .. })
        ));
        assert!(matches!(
            parse(&patched(56, &[65, 0])),
            Err(ElfError::ProgramHeaders { count: 65, .. })
        ));
        assert!(matches!(
            parse(&patched(54, &[32, 0])),
            Err(ElfError::ProgramHeaders { size: 32, .. })
        ));
        assert!(matches!(
            parse(&patched(32, &[255; 8])),
            Err(ElfError::Read("program headers", _))
        ));
        let segment = |at: usize, value: u64| {
            parse(&patched(EHDR + at, &value.to_le_bytes()))
                .unwrap_err()
                .to_string()
        };
        assert!(segment(8, u64::MAX).contains("ends after the file"));
        assert!(segment(32, 0x10_0000).contains("more bytes in the file"));
        assert!(segment(24, u64::MAX - 1).contains("address space"));
        assert!(segment(24, 0x110_1000).contains("overlaps"));
    }

    #[test]
    fn notes_of_8_byte_alignment_are_read() {
        let mut notes = Vec::new();
        for (kind, value) in [(5u32, 0u32), (PVH_ENTRY_NOTE, 0x123)] {
            [4u32, 4, kind]
                .iter()
                .for_each(|word| notes.extend_from_slice(&word.to_le_bytes()));
            notes.extend_from_slice(b"Xen\0");
            notes.extend_from_slice(&value.to_le_bytes());
            notes.extend_from_slice(&[0; 4]);
        }
        assert_eq!(pvh_note(&notes, 8), Some(Gpa(0x123)));
        assert_eq!(pvh_note(&notes[..notes.len() - 10], 8), None);
        assert_eq!(pvh_note(&[255; 64], 4), None);
    }

    proptest! {
        #[test]
        fn mutated_headers_parse_or_are_refused(edits in proptest::collection::vec((0usize..0x200, any::<u8>()), 1..8)) {
            let mut file = elf();
            for (at, byte) in edits {
                file[at] = byte;
            }
            if let Ok(image) = parse(&file) {
                prop_assert!(!image.segments.is_empty());
                prop_assert!(image.segments.iter().all(|s| s.offset + s.len <= file.len() as u64 && s.len <= s.range.len));
            }
        }

        #[test]
        fn arbitrary_notes_end(notes in proptest::collection::vec(any::<u8>(), 0..256), align in prop::sample::select(vec![4usize, 8])) {
            let _ = pvh_note(&notes, align);
        }
    }
}
