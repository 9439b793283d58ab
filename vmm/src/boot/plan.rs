//! What goes where: decided from the image's headers and the memory map, without touching guest memory.

use super::{
    BootError, cmdline, efi,
    elf::Segment,
    image::{Kernel, Kind},
    multiboot, pvh, zero_page,
};
use crate::{
    config::{BootConfig, BootProtocol, MAX_MODULES, Unpack},
    layout::{FIRMWARE_END, MMIO_HOLE},
};
use devices::units::{ByteSize, Gpa, GpaRange};

/// e820 type of RAM.
const E820_RAM: u32 = 1;
/// Alignment of the initrd: a page, so that the kernel can give the pages back.
const PAGE: u64 = 0x1000;
/// Highest address of an initrd's last byte when no header says otherwise: what every 64-bit kernel's header says.
const INITRD_ADDR_MAX: u32 = 0x7fff_ffff;
/// Where a bzImage without a preference goes: `LOAD_PHYSICAL_ADDR` of every distribution.
const DEFAULT_LOAD: u64 = 0x100_0000;
/// Offset of the 64-bit entry in the protected-mode part (`boot.rst`, 64-bit boot protocol).
const ENTRY_64: u64 = 0x200;

/// What to boot, besides the kernel.
#[derive(Debug, Clone, Copy)]
pub struct BootRequest<'a> {
    /// Memory map as the guest is told it, with e820 types; ascending.
    pub e820: &'a [(GpaRange, u32)],
    /// First address that the kernel will not use as RAM, whatever the map says.
    pub limit: Option<Gpa>,
    /// RAM that is mirrored; ascending.
    pub mirrored: &'a [GpaRange],
    /// Bytes of the initrd; none or 0: no initrd.
    pub initrd_len: Option<u64>,
    /// Modules of a multiboot kernel, in order.
    pub modules: &'a [ModuleRequest<'a>],
    /// The whole kernel command line.
    pub cmdline: &'a str,
    /// How the kernel is entered.
    pub protocol: BootProtocol,
    /// ACPI root pointer.
    pub rsdp: Gpa,
    /// A PVH guest is Xen's first domain.
    pub initial_domain: bool,
}

/// A module to hand over.
#[derive(Debug, Clone, Copy)]
pub struct ModuleRequest<'a> {
    /// Bytes.
    pub len: u64,
    /// Its whole command line.
    pub cmdline: &'a str,
}

/// A module at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePlan {
    /// Where it goes; page aligned.
    pub range: GpaRange,
    /// Command line with its NUL.
    pub cmdline: Vec<u8>,
}

/// A decided boot protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// 64-bit Linux boot protocol.
    Linux64,
    /// PVH.
    Pvh,
    /// Multiboot.
    Multiboot,
}

/// Everything that [`super::load()`] writes, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPlan {
    /// How the kernel is entered.
    pub protocol: Protocol,
    /// First instruction.
    pub entry: Gpa,
    /// Guest memory the kernel covers until it has read the memory map; all of it RAM.
    pub kernel: GpaRange,
    /// The kernel's bytes.
    pub segments: Vec<Segment>,
    /// Where the initrd goes; page aligned.
    pub initrd: Option<GpaRange>,
    /// Where modules go, in order.
    pub modules: Vec<ModulePlan>,
    /// Command line with its NUL.
    pub cmdline: Vec<u8>,
    /// Memory map.
    pub e820: Vec<(GpaRange, u32)>,
    /// RAM that is mirrored.
    pub mirrored: Vec<GpaRange>,
    /// ACPI root pointer.
    pub rsdp: Gpa,
    /// It is Xen's first domain, and asks Xen for its memory map.
    pub initial_domain: bool,
}

/// Unpacks a bzImage when `boot` asks for it or the protocol needs it; takes up to a second for a large kernel.
///
/// With `unpack=auto` a kernel that cannot be unpacked here is left to the guest, and the reason is logged.
pub fn prepare(kernel: Kernel, boot: &BootConfig) -> Result<Kernel, BootError> {
    let needed = boot.protocol == BootProtocol::Pvh || boot.unpack == Unpack::On;
    match (kernel.kind(), boot.unpack) {
        (Kind::Elf(_) | Kind::Multiboot(_), _) => Ok(kernel),
        (Kind::BzImage, Unpack::Off) if boot.protocol == BootProtocol::Pvh => Err(BootError::PvhPacked),
        (Kind::BzImage, Unpack::Off) => Ok(kernel),
        (Kind::BzImage, Unpack::Auto | Unpack::On) => match kernel.unpacked() {
            Ok(unpacked) => Ok(unpacked.unwrap_or(kernel)),
            Err(e) if needed => Err(BootError::Unpack(e)),
            Err(e) => {
                tracing::warn!(
                    error = &e as &dyn std::error::Error,
                    "cannot unpack the kernel; the guest does it itself"
                );
                Ok(kernel)
            }
        },
    }
}

/// Decides where everything goes and how `kernel` is entered.
pub fn plan(kernel: &Kernel, request: &BootRequest<'_>) -> Result<BootPlan, BootError> {
    let ram = ram(request.e820, request.limit);
    let (protocol, entry, segments, range) = match &kernel.kind {
        Kind::Multiboot(_) if request.modules.is_empty() => return Err(BootError::NoModules),
        Kind::Multiboot(image) => (Protocol::Multiboot, image.entry, image.segments.clone(), image.span()),
        Kind::Elf(_) | Kind::BzImage if !request.modules.is_empty() => return Err(BootError::NotMultiboot),
        Kind::Elf(elf) => {
            let (protocol, entry) = match request.protocol {
                BootProtocol::Auto | BootProtocol::Linux64 => (Protocol::Linux64, elf.entry),
                BootProtocol::Multiboot => return Err(BootError::NotMultiboot),
                BootProtocol::Pvh => (Protocol::Pvh, elf.pvh_entry.ok_or(BootError::NoPvhEntry)?),
            };
            (protocol, entry, elf.segments.clone(), elf.span())
        }
        Kind::BzImage if request.protocol == BootProtocol::Pvh => return Err(BootError::PvhPacked),
        Kind::BzImage => {
            let (segment, range) = place_bzimage(kernel)?;
            (
                Protocol::Linux64,
                Gpa(segment.range.start.0 + ENTRY_64),
                vec![segment],
                range,
            )
        }
    };
    // The entry code runs on an identity map of 4 GiB, and the rest of low memory is ours.
    if !ram.iter().any(|r| r.start <= range.start && range.end() <= r.end()) {
        return Err(BootError::NoRamForKernel {
            kernel: range,
            ram: ByteSize(ram.iter().map(|r| r.len).sum()),
        });
    }
    let header = kernel.setup.as_ref().map(|(header, _)| header);
    let max_ranges = match protocol {
        Protocol::Linux64 => zero_page::MAX_RANGES,
        Protocol::Pvh => pvh::MAX_RANGES,
        Protocol::Multiboot => multiboot::MAX_RANGES,
    };
    if request.e820.len() > max_ranges {
        return Err(BootError::TooManyRanges {
            count: request.e820.len(),
            max: max_ranges,
        });
    }
    if protocol != Protocol::Linux64 && !request.mirrored.is_empty() {
        return Err(BootError::PvhMirror);
    }
    efi::check(request.e820, request.mirrored)?;
    let initrd_max = header.map_or(INITRD_ADDR_MAX, |h| h.initrd_addr_max);
    let initrd = request
        .initrd_len
        .filter(|len| *len > 0)
        .map(|len| place_initrd(len, initrd_max, range, &ram))
        .transpose()?;
    let words = match protocol {
        Protocol::Multiboot => cmdline::after_name("kernel", request.cmdline),
        Protocol::Linux64 | Protocol::Pvh => request.cmdline.to_owned(),
    };
    Ok(BootPlan {
        protocol,
        entry,
        kernel: range,
        segments,
        initrd,
        modules: place_modules(request.modules, range, &ram)?,
        cmdline: cmdline::terminated(&words, header.map(|h| h.cmdline_size))?,
        e820: request.e820.to_vec(),
        mirrored: request.mirrored.to_vec(),
        rsdp: request.rsdp,
        initial_domain: request.initial_domain && protocol == Protocol::Pvh,
    })
}

/// RAM the kernel and its initrd may use: above the firmware's part and below the hole, neighbours joined.
fn ram(e820: &[(GpaRange, u32)], limit: Option<Gpa>) -> Vec<GpaRange> {
    let limit = limit.unwrap_or(MMIO_HOLE.start).min(MMIO_HOLE.start);
    let mut joined: Vec<GpaRange> = Vec::new();
    for (range, _) in e820.iter().filter(|(_, kind)| *kind == E820_RAM) {
        let start = range.start.max(FIRMWARE_END);
        let end = range.end().min(limit);
        if start >= end {
            continue;
        }
        match joined.last_mut() {
            Some(last) if last.end() == start => last.len += end.0 - start.0,
            _ => joined.push(GpaRange::new(start, end.0 - start.0)),
        }
    }
    joined
}

/// Where a bzImage is loaded, and what it covers while it unpacks itself.
fn place_bzimage(kernel: &Kernel) -> Result<(Segment, GpaRange), BootError> {
    let Some((header, _)) = kernel.setup.as_ref().filter(|(header, _)| header.has_64bit_entry()) else {
        let (version, xloadflags) = kernel.setup.as_ref().map_or((0, 0), |(h, _)| (h.version, h.xloadflags));
        return Err(BootError::NoEntry64 { version, xloadflags });
    };
    let len = header.protected_mode.len() as u64;
    let covers = len.max(header.init_size.into());
    let preferred = if header.relocatable && header.pref_address < FIRMWARE_END.0 {
        DEFAULT_LOAD
    } else {
        header.pref_address
    };
    let no_ram = |start: u64| BootError::NoRamForKernel {
        kernel: GpaRange {
            start: Gpa(start),
            len: covers.min(u64::MAX - start),
        },
        ram: ByteSize(0),
    };
    let aligned = match u64::from(header.kernel_alignment) {
        align if header.relocatable && align > 1 => preferred.checked_next_multiple_of(align),
        _ => Some(preferred),
    };
    let start = aligned
        .filter(|start| start.checked_add(covers).is_some())
        .ok_or_else(|| no_ram(preferred))?;
    let offset = header.protected_mode.start as u64;
    Ok((
        Segment {
            offset,
            len,
            range: GpaRange::new(Gpa(start), len),
        },
        GpaRange::new(Gpa(start), covers),
    ))
}

/// The highest place for `len` bytes that the kernel can reach, beside the kernel.
fn place_initrd(len: u64, last_byte_max: u32, kernel: GpaRange, ram: &[GpaRange]) -> Result<GpaRange, BootError> {
    let limit = Gpa(u64::from(last_byte_max) + 1).min(MMIO_HOLE.start);
    let mut room = 0;
    // Each range is free above and below the kernel, if the kernel is in it.
    let free = ram.iter().rev().flat_map(|r| {
        let (start, end) = (r.start, r.end().min(limit));
        if kernel.overlaps(r) {
            [(kernel.end(), end), (start, kernel.start.min(end))]
        } else {
            [(start, end), (end, end)]
        }
    });
    for (start, end) in free {
        let start = Gpa(start.0.next_multiple_of(PAGE));
        if start >= end {
            continue;
        }
        room = room.max(end.0 - start.0);
        if let Some(place) = end
            .0
            .checked_sub(len)
            .map(|at| at - at % PAGE)
            .filter(|at| *at >= start.0)
        {
            return Ok(GpaRange::new(Gpa(place), len));
        }
    }
    Err(BootError::InitrdDoesNotFit {
        len,
        limit,
        room,
        kernel,
    })
}

/// One module after the other behind the kernel, each on a page of its own.
fn place_modules(
    modules: &[ModuleRequest<'_>],
    kernel: GpaRange,
    ram: &[GpaRange],
) -> Result<Vec<ModulePlan>, BootError> {
    if modules.len() > MAX_MODULES {
        let problem = "it is given more modules than there is room for";
        return Err(BootError::Multiboot { problem });
    }
    let mut next = kernel.end().0.next_multiple_of(PAGE);
    let mut placed = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let len = module.len;
        let fits = |range: &&GpaRange| {
            let room = range.end().0.checked_sub(next.max(range.start.0));
            len != 0 && room.is_some_and(|room| room >= len)
        };
        let Some(range) = ram.iter().find(fits) else {
            return Err(BootError::ModuleDoesNotFit { index, len });
        };
        let range = GpaRange::new(Gpa(next.max(range.start.0)), len);
        next = range.end().0.next_multiple_of(PAGE);
        let cmdline = cmdline::terminated(&cmdline::after_name("module", module.cmdline), None)?;
        placed.push(ModulePlan { range, cmdline });
    }
    Ok(placed)
}

#[cfg(test)]
mod tests;
