//! An EFI system table and memory map without any firmware behind them: the one way to tell Linux that memory is mirrored.
//!
//! There are no configuration tables and no runtime services, and no descriptor asks for a mapping, so that the kernel has
//! nothing to call; it says "EFI runtime non-functional" and goes on. The memory map repeats the ranges of the e820 map,
//! which is what the kernel takes its memory from, and adds the attribute "more reliable" (UEFI 2.10 7.2.3).

use super::BootError;
use crate::layout::{CMDLINE, E820Type};
use devices::units::{Gpa, GpaRange};
use linux_loader::bootparam::efi_info;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U32, U64},
};

/// System table, vendor and memory map: between the setup data and the command line.
pub const EFI: GpaRange = GpaRange {
    start: Gpa(0x1_8000),
    len: CMDLINE.0 - 0x1_8000,
};
const VENDOR: u64 = EFI.start.0 + 0x80;
/// The kernel reads 100 characters, whatever there are.
const MAP: u64 = VENDOR + 200;
const _: () = assert!(MAP.is_multiple_of(8));
/// Most descriptors.
#[expect(clippy::cast_possible_truncation, reason = "a constant far below 4 GiB")]
pub const MAX_DESCRIPTORS: usize = (EFI.start.0 + EFI.len - MAP) as usize / size_of::<Descriptor>();
const PAGE: u64 = 4096;

/// UEFI 2.10 4.3, EFI_SYSTEM_TABLE.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SystemTable {
    signature: U64,
    revision: U32,
    header_size: U32,
    crc32: U32,
    reserved: U32,
    vendor: U64,
    firmware_revision: U32,
    pad: U32,
    consoles: [U64; 6],
    runtime_services: U64,
    boot_services: U64,
    tables: U64,
    table_list: U64,
}
const _: () = assert!(size_of::<SystemTable>() == 120);

/// UEFI 2.10 7.2.3, EFI_MEMORY_DESCRIPTOR of version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    kind: U32,
    pad: U32,
    physical: U64,
    virtual_: U64,
    pages: U64,
    attributes: U64,
}
const _: () = assert!(size_of::<Descriptor>() == 40);

/// "IBI SYST".
const SIGNATURE: u64 = 0x5453_5953_2049_4249;
/// UEFI 2.10.
const REVISION: u32 = 2 << 16 | 100;
const WRITE_BACK: u64 = 1 << 3;
const NON_VOLATILE: u64 = 1 << 15;
const MORE_RELIABLE: u64 = 1 << 16;

/// The memory map, or why it cannot be told. `mirrored` is in address order.
pub fn check(e820: &[(GpaRange, u32)], mirrored: &[GpaRange]) -> Result<(), BootError> {
    let count = descriptors(e820, mirrored).len();
    if mirrored.is_empty() || count <= MAX_DESCRIPTORS {
        return Ok(());
    }
    Err(BootError::TooManyRanges {
        count,
        max: MAX_DESCRIPTORS,
    })
}

/// Writes table and map; returns what the zero page says of them.
pub fn write<M>(e820: &[(GpaRange, u32)], mirrored: &[GpaRange], mem: &M) -> Result<efi_info, GuestMemoryError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let table = SystemTable {
        signature: SIGNATURE.into(),
        revision: REVISION.into(),
        header_size: 120.into(),
        crc32: 0.into(),
        reserved: 0.into(),
        vendor: VENDOR.into(),
        firmware_revision: 0.into(),
        pad: 0.into(),
        consoles: [0.into(); 6],
        runtime_services: 0.into(),
        boot_services: 0.into(),
        tables: 0.into(),
        table_list: 0.into(),
    };
    mem.write_slice(table.as_bytes(), GuestAddress(EFI.start.0))?;
    let vendor: Vec<u8> = "daxvisor\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    mem.write_slice(&vendor, GuestAddress(VENDOR))?;
    let map = descriptors(e820, mirrored);
    let bytes: Vec<u8> = map.iter().flat_map(|d| d.as_bytes().to_vec()).collect();
    mem.write_slice(&bytes, GuestAddress(MAP))?;
    let low = |address: u64| u32::try_from(address).unwrap_or(0);
    Ok(efi_info {
        efi_loader_signature: u32::from_le_bytes(*b"EL64"),
        efi_systab: low(EFI.start.0),
        efi_memdesc_size: 40,
        efi_memdesc_version: 1,
        efi_memmap: low(MAP),
        efi_memmap_size: low(bytes.len() as u64),
        efi_systab_hi: 0,
        efi_memmap_hi: 0,
    })
}

/// The e820 ranges in EFI's words, RAM cut at the bounds of what is mirrored. Pages are whole: RAM gives up the rest.
fn descriptors(e820: &[(GpaRange, u32)], mirrored: &[GpaRange]) -> Vec<Descriptor> {
    let mut map = Vec::new();
    for (range, kind) in e820 {
        let (start, end) = (range.start.0, range.end().0);
        if *kind == E820Type::Ram as u32 {
            let (start, end) = (start.next_multiple_of(PAGE), end - end % PAGE);
            push_ram(&mut map, start, end, mirrored);
            continue;
        }
        let (kind, attributes) = match *kind {
            k if k == E820Type::Acpi as u32 => (9, WRITE_BACK),
            k if k == E820Type::Nvs as u32 => (10, WRITE_BACK),
            k if k == E820Type::Unusable as u32 => (8, WRITE_BACK),
            k if k == E820Type::Persistent as u32 => (14, WRITE_BACK | NON_VOLATILE),
            // Soft-reserved memory too: the e820 map says what it is.
            _ => (0, 0),
        };
        push(
            &mut map,
            kind,
            start - start % PAGE,
            end.next_multiple_of(PAGE),
            attributes,
        );
    }
    map
}

fn push_ram(map: &mut Vec<Descriptor>, start: u64, end: u64, mirrored: &[GpaRange]) {
    let mut at = start;
    for mirror in mirrored {
        let (from, to) = (mirror.start.0.clamp(at, end), mirror.end().0.clamp(at, end));
        if from < to {
            push(map, 7, at, from, WRITE_BACK);
            push(map, 7, from, to, WRITE_BACK | MORE_RELIABLE);
            at = to;
        }
    }
    push(map, 7, at, end, WRITE_BACK);
}

fn push(map: &mut Vec<Descriptor>, kind: u32, start: u64, end: u64, attributes: u64) {
    if start < end {
        map.push(Descriptor {
            kind: kind.into(),
            pad: 0.into(),
            physical: start.into(),
            virtual_: 0.into(),
            pages: ((end - start) / PAGE).into(),
            attributes: attributes.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    const MIB: u64 = 1 << 20;

    fn span(start: u64, end: u64) -> GpaRange {
        GpaRange::new(Gpa(start), end - start)
    }

    fn seen(map: &[Descriptor]) -> Vec<(u32, u64, u64, u64)> {
        map.iter()
            .map(|d| (d.kind.get(), d.physical.get(), d.pages.get(), d.attributes.get()))
            .collect()
    }

    #[test]
    fn ram_is_cut_where_mirrored_memory_begins_and_ends() {
        let e820 = [
            (span(0, 0x9_fc00), 1),
            (span(0x9_fc00, 0xa_0000), 2),
            (span(MIB, 2 * MIB), 3),
            (span(2 * MIB, 64 * MIB), 1),
            (span(64 * MIB, 65 * MIB), 0xefff_ffff),
            (span(1 << 32, (1 << 32) + MIB), 7),
        ];
        let mirrored = [span(0, 16 * MIB), span(32 * MIB, 33 * MIB)];
        assert_eq!(
            seen(&descriptors(&e820, &mirrored)),
            [
                (7, 0, 0x9f, 0x1_0008),
                (0, 0x9_f000, 1, 0),
                (9, MIB, 256, 8),
                (7, 2 * MIB, 14 * 256, 0x1_0008),
                (7, 16 * MIB, 16 * 256, 8),
                (7, 32 * MIB, 256, 0x1_0008),
                (7, 33 * MIB, 31 * 256, 8),
                (0, 64 * MIB, 256, 0),
                (14, 1 << 32, 256, 0x8008),
            ]
        );
    }

    #[test]
    fn table_and_map_are_where_the_zero_page_says() {
        let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap();
        let info = write(&[(span(0, MIB), 1)], &[span(0, MIB)], &mem).unwrap();
        assert_eq!(info.efi_loader_signature.to_le_bytes(), *b"EL64");
        let number = |at: u64| mem.read_obj::<u64>(GuestAddress(at)).unwrap();
        let table = u64::from(info.efi_systab);
        assert_eq!((number(table), number(table + 104)), (0x5453_5953_2049_4249, 0));
        assert_eq!(
            mem.read_obj::<[u8; 4]>(GuestAddress(number(table + 24))).unwrap(),
            *b"d\0a\0"
        );
        let map = u64::from(info.efi_memmap);
        assert_eq!(
            (info.efi_memmap_size, number(map + 24), number(map + 32)),
            (40, 256, 0x1_0008)
        );
    }

    #[test]
    fn more_ranges_than_there_is_room_for_are_refused() {
        let e820 = vec![(span(0, PAGE), 1); MAX_DESCRIPTORS + 1];
        assert!(check(&e820, &[]).is_ok(), "no map, no limit");
        assert!(matches!(
            check(&e820, &[span(0, PAGE)]),
            Err(BootError::TooManyRanges { .. })
        ));
    }
}
