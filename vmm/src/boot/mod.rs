//! Boot protocols: from a kernel file to guest memory and the boot vCPU's first state.
//!
//! Three steps, each callable alone: [`Kernel::open`] reads and recognises the file; [`prepare`] and [`plan()`] decide everything
//! without touching guest memory; [`load()`] writes what the plan says and returns the [`CpuState`] to enter with.
//!
//! | image | `linux64` (and `auto`) | `pvh` |
//! |---|---|---|
//! | bzImage | unpacked when that works, else the guest unpacks | unpacked, or refused |
//! | ELF vmlinux | as it is | as it is; needs the Xen note |
//!
//! A hypervisor with a multiboot header, perhaps inside gzip, is entered by that protocol, with modules.
//!
//! Guest memory is fresh when `load` is called: what the plan leaves out (the end of a segment, bss) has to read as zero.

pub mod bzimage;
mod cmdline;
mod efi;
mod elf;
mod image;
mod load;
mod multiboot;
mod plan;
mod pvh;
mod regs;
#[cfg(test)]
pub(crate) mod testing;
pub mod unpack;
mod zero_page;

pub use cmdline::{default_cmdline, dom0_cmdline, dom0_memory, join as join_cmdline, without_hypervisor, xen_cmdline};
pub use elf::{ElfError, ElfImage, Segment};
pub use image::{ImageData, ImageError, Kernel, Kind, UnpackedError};
pub use load::{LoadError, load};
pub use multiboot::MultibootImage;
pub use plan::{BootPlan, BootRequest, ModulePlan, ModuleRequest, Protocol, plan, prepare};
pub use regs::{CpuState, SegmentRegister, TableRegister};

use devices::units::{ByteSize, Gpa, GpaRange};

/// Why a kernel cannot be booted as asked.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Unpacking was asked for, or PVH needs it, and it failed.
    #[error("cannot unpack the kernel")]
    Unpack(#[source] UnpackedError),
    /// PVH of a bzImage that is not to be unpacked.
    #[error("a bzImage has no PVH entry of its own, and unpacking is off; hint: use unpack=auto, or protocol=linux64")]
    PvhPacked,
    /// The guest cannot unpack it either.
    #[error("the bzImage has no 64-bit entry (boot protocol {}.{:02}, xloadflags {xloadflags:#x}); hint: expected an x86-64 kernel of Linux 3.8 or later", version >> 8, version & 0xff)]
    NoEntry64 {
        /// Protocol version.
        version: u16,
        /// Extended load flags.
        xloadflags: u16,
    },
    /// No PVH note.
    #[error(
        "the kernel has no PVH entry (ELF note \"Xen\" of type 18); hint: build it with CONFIG_PVH, or use protocol=linux64"
    )]
    NoPvhEntry,
    /// The kernel's place is no RAM.
    #[error(
        "the kernel needs RAM at {kernel} but the guest has {ram} below the 32-bit hole; hint: give the guest more memory"
    )]
    NoRamForKernel {
        /// What the kernel covers.
        kernel: GpaRange,
        /// RAM the kernel may use there.
        ram: ByteSize,
    },
    /// A multiboot image that cannot be booted.
    #[error("the multiboot image cannot be used: {problem}")]
    Multiboot {
        /// What is wrong.
        problem: &'static str,
    },
    /// Modules for a kernel that takes none.
    #[error("the kernel has no multiboot header, so it takes no modules; hint: expected a hypervisor such as xen.gz")]
    NotMultiboot,
    /// A hypervisor on its own.
    #[error(
        "a multiboot hypervisor needs modules; hint: add --module 'VMLINUX CMDLINE' for the kernel of the first domain"
    )]
    NoModules,
    /// No room for a module.
    #[error(
        "module {index} of {len} bytes does not fit in RAM below the 32-bit hole; hint: give the guest more memory, or a module that is not empty"
    )]
    ModuleDoesNotFit {
        /// Position.
        index: usize,
        /// Bytes.
        len: u64,
    },
    /// No room for the initrd.
    #[error(
        "the initrd of {len} bytes does not fit: the largest free range below {limit} has {room} bytes beside the kernel at {kernel}; hint: give the guest more memory"
    )]
    InitrdDoesNotFit {
        /// Bytes of the initrd.
        len: u64,
        /// First address it may not use.
        limit: Gpa,
        /// Largest free range.
        room: u64,
        /// What the kernel covers.
        kernel: GpaRange,
    },
    /// Too long a command line.
    #[error("the kernel command line has {len} bytes; expected at most {max}")]
    CmdlineTooLong {
        /// Bytes.
        len: usize,
        /// Most bytes.
        max: usize,
    },
    /// A NUL in the command line.
    #[error("the kernel command line has a NUL character at byte {at}, where the kernel would end it")]
    CmdlineNul {
        /// Position.
        at: usize,
    },
    /// Mirrored memory needs an EFI memory map.
    #[error(
        "memory is mirrored, which only an EFI memory map can say, and PVH has none; hint: use protocol=linux64, or leave \
         out mirror="
    )]
    PvhMirror,
    /// More memory ranges than the protocol carries.
    #[error(
        "the memory map has {count} ranges; the boot protocol carries at most {max}; hint: fewer memory ranges, or \
         protocol=linux64, which carries most"
    )]
    TooManyRanges {
        /// Ranges.
        count: usize,
        /// Most ranges.
        max: usize,
    },
}
