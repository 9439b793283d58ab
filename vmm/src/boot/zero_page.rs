//! The zero page (`struct boot_params`, `zero-page.rst`) of the 64-bit Linux boot protocol.

use super::{
    efi::{self, EFI},
    plan::BootPlan,
};
use crate::layout::{CMDLINE, ZERO_PAGE};
use devices::units::{Gpa, GpaRange};
use linux_loader::bootparam::{E820_MAX_ENTRIES_ZEROPAGE, SETUP_E820_EXT, boot_e820_entry, boot_params};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryError};

/// Memory ranges beyond those of the zero page: between the page tables and the EFI memory map.
const E820_EXT: GpaRange = GpaRange {
    start: Gpa(0xf000),
    len: EFI.start.0 - 0xf000,
};
/// `struct setup_data` before its data: next, type, length.
const SETUP_DATA_HEADER: usize = 16;
/// `struct boot_e820_entry`: base, size, type.
const E820_ENTRY: usize = 20;
/// Most memory ranges.
#[expect(clippy::cast_possible_truncation, reason = "a constant far below 4 GiB")]
pub const MAX_RANGES: usize = E820_MAX_ENTRIES_ZEROPAGE + (E820_EXT.len as usize - SETUP_DATA_HEADER) / E820_ENTRY;

/// What a header synthesized for a vmlinux says: "HdrS", protocol 2.15.
const MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
const VERSION: u16 = 0x20f;
/// Boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags` bit 0: the protected-mode part is above 1 MiB.
const LOADED_HIGH: u8 = 1;

/// Writes the zero page for `plan`, and the e820 entries that do not fit into it.
///
/// `header`: the setup header of the bzImage from 0x1f1 on, when there was one.
pub fn write<M>(plan: &BootPlan, header: Option<&[u8]>, mem: &M) -> Result<(), GuestMemoryError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let (mut params, rest) = params(plan, header);
    if !plan.mirrored.is_empty() {
        params.efi_info = efi::write(&plan.e820, &plan.mirrored, mem)?;
    }
    mem.write_obj(params, GuestAddress(ZERO_PAGE.0))?;
    if !rest.is_empty() {
        mem.write_slice(&extension(rest), GuestAddress(E820_EXT.start.0))?;
    }
    Ok(())
}

/// The zero page and the memory ranges it has no room for.
fn params<'p>(plan: &'p BootPlan, header: Option<&[u8]>) -> (boot_params, &'p [(GpaRange, u32)]) {
    let mut params = boot_params::default();
    match header {
        Some(bytes) => {
            for (to, from) in params.hdr.as_mut_slice().iter_mut().zip(bytes) {
                *to = *from;
            }
        }
        None => {
            params.hdr.boot_flag = BOOT_FLAG;
            params.hdr.header = MAGIC;
            params.hdr.version = VERSION;
        }
    }
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.loadflags |= LOADED_HIGH;
    params.hdr.cmd_line_ptr = low(CMDLINE.0);
    params.ext_cmd_line_ptr = high(CMDLINE.0);
    params.acpi_rsdp_addr = plan.rsdp.0;
    let (start, len) = plan.initrd.map_or((0, 0), |initrd| (initrd.start.0, initrd.len));
    params.hdr.ramdisk_image = low(start);
    params.ext_ramdisk_image = high(start);
    params.hdr.ramdisk_size = low(len);
    params.ext_ramdisk_size = high(len);

    let (here, rest) = plan.e820.split_at(plan.e820.len().min(E820_MAX_ENTRIES_ZEROPAGE));
    let mut table = [boot_e820_entry::default(); E820_MAX_ENTRIES_ZEROPAGE];
    for (entry, (range, kind)) in table.iter_mut().zip(here) {
        *entry = boot_e820_entry {
            addr: range.start.0,
            size: range.len,
            r#type: *kind,
        };
    }
    params.e820_table = table;
    params.e820_entries = u8::try_from(here.len()).unwrap_or(u8::MAX);
    params.hdr.setup_data = if rest.is_empty() { 0 } else { E820_EXT.start.0 };
    (params, rest)
}

/// A `setup_data` node of type 1 with the ranges in `rest`.
fn extension(rest: &[(GpaRange, u32)]) -> Vec<u8> {
    let len = u32::try_from(rest.len() * E820_ENTRY).unwrap_or(u32::MAX);
    let mut node = [
        0u64.to_le_bytes().as_slice(),
        &SETUP_E820_EXT.to_le_bytes(),
        &len.to_le_bytes(),
    ]
    .concat();
    for (range, kind) in rest {
        node.extend_from_slice(&range.start.0.to_le_bytes());
        node.extend_from_slice(&range.len.to_le_bytes());
        node.extend_from_slice(&kind.to_le_bytes());
    }
    node
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
