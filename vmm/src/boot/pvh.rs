//! Start info of the PVH boot protocol (Xen's public `arch-x86/hvm/start_info.h`, version 1).

use super::plan::BootPlan;
use crate::layout::{CMDLINE, PVH_INFO, ZERO_PAGE};
use linux_loader::start_info::{XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Most memory ranges: Linux copies them into a zero page's table of 128.
pub const MAX_RANGES: usize = 128;
/// Flags of a first domain (`xen.h`).
const PRIVILEGED: u32 = 1 << 0;
const INITIAL_DOMAIN: u32 = 1 << 1;
/// The module list follows the start info, the memory map follows a list of one module.
const MODULES: u64 = PVH_INFO.0 + 0x40;
const MEMORY_MAP: u64 = MODULES + 0x20;
const _: () = assert!(
    MEMORY_MAP + 24 * MAX_RANGES as u64 <= ZERO_PAGE.0,
    "the memory map must end before the next structure"
);

/// Writes the start info for `plan`, its module list and its memory map.
pub fn write<M>(plan: &BootPlan, mem: &M) -> Result<(), GuestMemoryError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: CMDLINE.0,
        rsdp_paddr: plan.rsdp.0,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(plan.e820.len()).unwrap_or(0),
        ..hvm_start_info::default()
    };
    if plan.initial_domain {
        // It asks the hypervisor for its memory map.
        (info.memmap_paddr, info.memmap_entries) = (0, 0);
        info.flags = PRIVILEGED | INITIAL_DOMAIN;
    }
    if let Some(initrd) = plan.initrd {
        info.nr_modules = 1;
        info.modlist_paddr = MODULES;
        let module = hvm_modlist_entry {
            paddr: initrd.start.0,
            size: initrd.len,
            ..hvm_modlist_entry::default()
        };
        mem.write_obj(module, GuestAddress(MODULES))?;
    }
    for (at, (range, kind)) in (MEMORY_MAP..).step_by(24).zip(&plan.e820) {
        let entry = hvm_memmap_table_entry {
            addr: range.start.0,
            size: range.len,
            type_: *kind,
            reserved: 0,
        };
        mem.write_obj(entry, GuestAddress(at))?;
    }
    mem.write_obj(info, GuestAddress(PVH_INFO.0))
}
