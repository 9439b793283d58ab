//! State of the boot vCPU at the kernel's entry, as plain data: `hv` turns it into KVM's structures.

use crate::layout::{BOOT_GDT, BOOT_PAGE_TABLES, BOOT_STACK, MULTIBOOT_INFO, PVH_INFO, ZERO_PAGE};
use devices::units::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// A segment register with its hidden part, fields as in SDM 3A 3.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentRegister {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Type, 4 bits.
    pub typ: u8,
    /// Code or data, not system.
    pub s: bool,
    /// Privilege level.
    pub dpl: u8,
    /// Present.
    pub present: bool,
    /// 64-bit code.
    pub l: bool,
    /// 32-bit default.
    pub db: bool,
    /// Limit counts pages.
    pub g: bool,
    /// No segment is loaded.
    pub unusable: bool,
}

/// A descriptor table register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRegister {
    /// Base address.
    pub base: u64,
    /// Last byte's offset.
    pub limit: u16,
}

/// Everything that is set before the first instruction; all else is as after reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuState {
    /// First instruction.
    pub rip: u64,
    /// Multiboot: its magic number.
    pub rax: u64,
    /// Linux64: zero page.
    pub rsi: u64,
    /// PVH: start info; multiboot: its information.
    pub rbx: u64,
    /// Stack top.
    pub rsp: u64,
    /// Flags: interrupts off.
    pub rflags: u64,
    /// Control registers.
    pub cr0: u64,
    /// Page tables.
    pub cr3: u64,
    /// Control registers.
    pub cr4: u64,
    /// Long mode.
    pub efer: u64,
    /// Code segment.
    pub cs: SegmentRegister,
    /// DS, ES, FS, GS and SS.
    pub data: SegmentRegister,
    /// Task register: VMX insists on a busy TSS.
    pub tr: SegmentRegister,
    /// Local descriptor table: none.
    pub ldt: SegmentRegister,
    /// Global descriptor table, which `load` writes.
    pub gdt: TableRegister,
    /// Interrupt descriptor table: none.
    pub idt: TableRegister,
}

/// Bits of CR0, CR4, EFER and RFLAGS, SDM 3A 2.5 and 2.2.1.
mod bits {
    pub const CR0_PE: u64 = 1;
    pub const CR0_ET: u64 = 1 << 4;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const EFER_LME: u64 = 1 << 8;
    pub const EFER_LMA: u64 = 1 << 10;
    /// Bit 1 always reads 1.
    pub const RFLAGS: u64 = 2;
}

/// Selectors of the 64-bit boot protocol: `__BOOT_CS` and `__BOOT_DS` of `boot.rst`, then the TSS.
const CS: u16 = 0x10;
const DS: u16 = 0x18;
const TSS: u16 = 0x20;
/// Type bits: execute/read accessed, read/write accessed, busy TSS (SDM 3A 3.4.5.1 and 3.5).
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const BUSY_TSS: u8 = 0xb;

impl SegmentRegister {
    const fn flat(selector: u16, typ: u8, long: bool) -> Self {
        Self {
            selector,
            base: 0,
            limit: u32::MAX,
            typ,
            s: true,
            dpl: 0,
            present: true,
            l: long,
            db: !long,
            g: true,
            unusable: false,
        }
    }

    /// A busy TSS of its least size: nothing reads it before the kernel loads its own.
    const fn tss() -> Self {
        Self {
            selector: TSS,
            base: 0,
            limit: 0x67,
            typ: BUSY_TSS,
            s: false,
            dpl: 0,
            present: true,
            l: false,
            db: false,
            g: false,
            unusable: false,
        }
    }

    /// The descriptor that loads this register, SDM 3A figure 3-8. Base is below 4 GiB here.
    const fn descriptor(&self) -> u64 {
        let limit = if self.g { self.limit >> 12 } else { self.limit } as u64;
        let flags = (self.typ as u64) | (self.s as u64) << 4 | (self.dpl as u64) << 5 | (self.present as u64) << 7;
        let high = (self.l as u64) << 1 | (self.db as u64) << 2 | (self.g as u64) << 3;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | flags << 40
            | (limit >> 16 & 0xf) << 48
            | high << 52
            | (self.base >> 24 & 0xff) << 56
    }
}

/// The table the selectors point into: two nulls, code, data, and the TSS, whose descriptor has 16 bytes in long mode.
fn gdt(cs: &SegmentRegister, data: &SegmentRegister, tr: &SegmentRegister) -> [u64; 6] {
    [0, 0, cs.descriptor(), data.descriptor(), tr.descriptor(), 0]
}

impl CpuState {
    fn new(entry: Gpa, long: bool) -> Self {
        use bits::*;
        let (cr0, cr3, cr4, efer) = if long {
            (
                CR0_PE | CR0_ET | CR0_PG,
                BOOT_PAGE_TABLES.0,
                CR4_PAE,
                EFER_LME | EFER_LMA,
            )
        } else {
            (CR0_PE | CR0_ET, 0, 0, 0)
        };
        Self {
            rip: entry.0,
            rax: 0,
            rsi: 0,
            rbx: 0,
            rsp: BOOT_STACK.0,
            rflags: RFLAGS,
            cr0,
            cr3,
            cr4,
            efer,
            cs: SegmentRegister::flat(CS, CODE, long),
            data: SegmentRegister {
                l: false,
                db: true,
                ..SegmentRegister::flat(DS, DATA, long)
            },
            tr: SegmentRegister::tss(),
            ldt: SegmentRegister {
                unusable: true,
                ..SegmentRegister::default()
            },
            gdt: TableRegister {
                base: BOOT_GDT.0,
                limit: 6 * 8 - 1,
            },
            idt: TableRegister::default(),
        }
    }

    /// 64-bit Linux boot protocol: long mode, identity map, zero page in RSI.
    pub(super) fn linux64(entry: Gpa) -> Self {
        Self {
            rsi: ZERO_PAGE.0,
            ..Self::new(entry, true)
        }
    }

    /// PVH: protected mode without paging, start info in EBX.
    pub(super) fn pvh(entry: Gpa) -> Self {
        Self {
            rbx: PVH_INFO.0,
            ..Self::new(entry, false)
        }
    }

    /// Multiboot: protected mode without paging, magic number in EAX, information in EBX.
    pub(super) fn multiboot(entry: Gpa) -> Self {
        Self {
            rax: super::multiboot::MAGIC.into(),
            rbx: MULTIBOOT_INFO.0,
            ..Self::new(entry, false)
        }
    }

    /// Writes the descriptor table and, for long mode, the page tables this state refers to.
    pub(super) fn write_tables<M>(&self, mem: &M) -> Result<(), GuestMemoryError>
    where
        M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
    {
        write_words(mem, BOOT_GDT, &gdt(&self.cs, &self.data, &self.tr))?;
        if self.efer & bits::EFER_LMA == 0 {
            return Ok(());
        }
        for (page, words) in page_tables().iter().enumerate() {
            write_words(mem, Gpa(BOOT_PAGE_TABLES.0 + 0x1000 * page as u64), words)?;
        }
        Ok(())
    }
}

/// PML4, one PDPT and four page directories that map the first 4 GiB to themselves in 2 MiB pages (SDM 3A 4.5).
fn page_tables() -> Vec<[u64; 512]> {
    const TABLE: u64 = 0b11; // present, writable
    const LARGE: u64 = 0b1000_0011; // and a page, not a table
    let at = |page: u64| BOOT_PAGE_TABLES.0 + 0x1000 * page;
    let mut pages = vec![[0; 512]; 6];
    pages[0][0] = at(1) | TABLE;
    for (directory, page) in (0u64..).zip(2..6) {
        pages[1][page - 2] = at(directory + 2) | TABLE;
        for (entry, slot) in (0u64..).zip(pages[page].iter_mut()) {
            *slot = (directory << 30) | (entry << 21) | LARGE;
        }
    }
    pages
}

fn write_words<M>(mem: &M, at: Gpa, words: &[u64]) -> Result<(), GuestMemoryError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    mem.write_slice(&bytes, GuestAddress(at.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_flat_ones_of_the_boot_protocol() {
        let long = CpuState::linux64(Gpa(0x100_0000));
        assert_eq!(
            gdt(&long.cs, &long.data, &long.tr),
            [
                0,
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x0000_8b00_0000_0067,
                0
            ]
        );
        let flat = CpuState::pvh(Gpa(0x100_0000));
        assert_eq!(flat.cs.descriptor(), 0x00cf_9b00_0000_ffff);
    }

    #[test]
    fn linux64_enters_in_long_mode_with_the_zero_page() {
        let state = CpuState::linux64(Gpa(0x100_0000));
        assert_eq!((state.rip, state.rsi, state.rflags), (0x100_0000, 0x7000, 2));
        assert_eq!(
            (state.cr0, state.cr3, state.cr4, state.efer),
            (0x8000_0011, 0x9000, 0x20, 0x500)
        );
        assert!(state.cs.l && !state.cs.db && state.data.db);
    }

    #[test]
    fn pvh_enters_in_protected_mode_with_the_start_info() {
        let state = CpuState::pvh(Gpa(0x100_0850));
        assert_eq!((state.rip, state.rbx, state.rflags), (0x100_0850, 0x6000, 2));
        assert_eq!((state.cr0, state.cr3, state.cr4, state.efer), (0x11, 0, 0, 0));
        assert!(!state.cs.l && state.cs.db);
        assert_eq!(state.tr.limit, 0x67);
    }

    #[test]
    fn every_address_below_4_gib_maps_to_itself() {
        let pages = page_tables();
        let page_at = |entry: u64| &pages[usize::try_from((entry & !0xfff) - BOOT_PAGE_TABLES.0).unwrap() / 0x1000];
        for gpa in [
            0u64,
            0x1f_ffff,
            0x20_0000,
            0x3fff_ffff,
            0x4000_0000,
            0xfee0_0000,
            0xffff_ffff,
        ] {
            let index = |shift: u32| usize::try_from(gpa >> shift & 511).unwrap();
            let pdpt = page_at(pages[0][index(39)]);
            let leaf = page_at(pdpt[index(30)])[index(21)];
            assert_eq!(leaf, gpa & !0x1f_ffff | 0x83, "{gpa:#x}");
        }
        assert_eq!(pages[0][1..], [0; 511]);
    }
}
