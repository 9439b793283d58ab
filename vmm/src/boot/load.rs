//! Writes a [`BootPlan`] into guest memory. Nothing is decided here.

use super::{
    elf::Segment,
    image::{ImageData, Kernel},
    multiboot,
    plan::{BootPlan, Protocol},
    pvh,
    regs::CpuState,
    zero_page,
};
use crate::layout::CMDLINE;
use devices::units::{Gpa, GpaRange};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Unit in which zeros are left out.
const PAGE: usize = 0x1000;

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Writing to guest memory, or reading a file into it.
    #[error("cannot load the {what} to {gpa}")]
    Write {
        /// What was being written.
        what: &'static str,
        /// Where.
        gpa: Gpa,
        /// Why it failed.
        #[source]
        source: GuestMemoryError,
    },
    /// A file that cannot be positioned.
    #[error("cannot read the {what}")]
    Seek {
        /// Which file.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The plan has an initrd and the caller has none, or the other way round: the caller's mistake.
    #[error("the boot plan and the initrd given do not agree")]
    Initrd,
}

/// Writes kernel, initrd, command line and the protocol's structures into fresh guest memory; returns the state to enter with.
///
/// `kernel` is the one `plan` was made for. The initrd's file is read from its start.
pub fn load<M>(
    plan: &BootPlan,
    kernel: &Kernel,
    initrd: Option<&File>,
    modules: &[File],
    mem: &M,
) -> Result<CpuState, LoadError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    for segment in &plan.segments {
        load_segment(&kernel.data, segment, mem)?;
    }
    match (plan.initrd, initrd) {
        (Some(range), Some(file)) => load_file("initrd", file, 0, range, mem)?,
        (None, _) => {}
        (Some(_), None) => return Err(LoadError::Initrd),
    }
    for (module, file) in plan.modules.iter().zip(modules) {
        load_file("module", file, 0, module.range, mem)?;
    }
    let at = |what, gpa| move |source| LoadError::Write { what, gpa, source };
    mem.write_slice(&plan.cmdline, GuestAddress(CMDLINE.0))
        .map_err(at("command line", CMDLINE))?;
    let state = match plan.protocol {
        Protocol::Linux64 => {
            let header = kernel.setup.as_ref().map(|(_, bytes)| bytes.as_slice());
            zero_page::write(plan, header, mem).map_err(at("zero page", crate::layout::ZERO_PAGE))?;
            CpuState::linux64(plan.entry)
        }
        Protocol::Pvh => {
            pvh::write(plan, mem).map_err(at("start info", crate::layout::PVH_INFO))?;
            CpuState::pvh(plan.entry)
        }
        Protocol::Multiboot => {
            let info = crate::layout::MULTIBOOT_INFO;
            multiboot::write(plan, mem).map_err(at("multiboot information", info))?;
            CpuState::multiboot(plan.entry)
        }
    };
    state
        .write_tables(mem)
        .map_err(at("page tables", crate::layout::BOOT_PAGE_TABLES))?;
    Ok(state)
}

fn load_segment<M>(data: &ImageData, segment: &Segment, mem: &M) -> Result<(), LoadError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let range = GpaRange::new(segment.range.start, segment.len);
    match data {
        ImageData::File { file, .. } => load_file("kernel", file, segment.offset, range, mem),
        ImageData::Bytes(bytes) => {
            let start = usize::try_from(segment.offset).unwrap_or(usize::MAX);
            let len = usize::try_from(segment.len).unwrap_or(usize::MAX);
            let bytes = bytes.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default();
            write_nonzero(bytes, range.start, mem)
        }
    }
}

/// Writes `bytes` except pages of zeros: memory is fresh, and a page that nobody touches costs nothing. An unpacked kernel is
/// a third zeros, which is its bss.
fn write_nonzero<M>(bytes: &[u8], gpa: Gpa, mem: &M) -> Result<(), LoadError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let is_zero = |page: &&[u8]| page.iter().all(|byte| *byte == 0);
    let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
    let mut at = 0;
    for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let end = at + run.iter().map(|page| page.len()).sum::<usize>();
        if !run.first().is_none_or(is_zero) {
            let gpa = Gpa(gpa.0 + at as u64);
            let piece = bytes.get(at..end).unwrap_or_default();
            let error = |source| LoadError::Write {
                what: "kernel",
                gpa,
                source,
            };
            mem.write_slice(piece, GuestAddress(gpa.0)).map_err(error)?;
        }
        at = end;
    }
    Ok(())
}

/// Reads `range.len` bytes of `file` from `offset` straight into guest memory.
fn load_file<M>(what: &'static str, file: &File, offset: u64, range: GpaRange, mem: &M) -> Result<(), LoadError>
where
    M: Bytes<GuestAddress, E = GuestMemoryError> + ?Sized,
{
    let mut file = file;
    file.seek(SeekFrom::Start(offset))
        .map_err(|source| LoadError::Seek { what, source })?;
    let count = usize::try_from(range.len).unwrap_or(usize::MAX);
    mem.read_exact_volatile_from(GuestAddress(range.start.0), &mut file, count)
        .map_err(|source| LoadError::Write {
            what,
            gpa: range.start,
            source,
        })
}

#[cfg(test)]
mod tests;
