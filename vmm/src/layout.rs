//! The guest physical map: a pure function from the configuration to addresses.
//!
//! Everything here is guest ABI, documented in docs/guest-abi.md: the same configuration gives the same map on every host.

pub mod map;
mod memory;
mod nvdimm;
mod ranges;
mod virtio;

pub use memory::{MemoryAsk, MemoryPlacement};
pub use nvdimm::{NvdimmAsk, NvdimmPlacement, SpaPlacement};

use crate::{
    config::{ApeiConfig, LimitBy, MAX_NVDIMMS, RangeKind, VmConfig, probe::BackingFacts},
    topology::Topology,
};
use devices::{
    apei::{ApeiPlan, ExtlogPlan},
    nvdimm::{FlushHints, MailboxPlan},
    units::{ByteSize, Gpa, GpaRange},
};

pub use ranges::{HotplugWindow, RangePlacement};
pub use virtio::{MAX_VIRTIO, VirtioMemory, VirtioMemoryKind};

const PAGE: u64 = 4096;

/// Global descriptor table of the boot vCPU.
pub const BOOT_GDT: Gpa = Gpa(0x500);
/// PVH start info and what it points to (memory map, modules).
pub const PVH_INFO: Gpa = Gpa(0x6000);
/// Multiboot information structure, module list and memory map, up to [`MULTIBOOT_MAP_END`].
pub const MULTIBOOT_INFO: Gpa = Gpa(0x6000);
/// End of the multiboot memory map: the stack is above it.
pub const MULTIBOOT_MAP_END: Gpa = Gpa(0x8800);
/// Zero page (`boot_params`).
pub const ZERO_PAGE: Gpa = Gpa(0x7000);
/// Initial stack top of the boot vCPU.
pub const BOOT_STACK: Gpa = Gpa(0x8ff0);
/// Identity page tables: PML4, one PDPT, four page directories (4 GiB in 2 MiB pages).
pub const BOOT_PAGE_TABLES: Gpa = Gpa(0x9000);
/// Kernel command line, at most [`CMDLINE_MAX`] bytes with its NUL.
pub const CMDLINE: Gpa = Gpa(0x2_0000);
/// Bytes of the command line with its NUL (`COMMAND_LINE_SIZE` of x86).
pub const CMDLINE_MAX: usize = 2048;
/// Command lines of multiboot modules, [`CMDLINE_MAX`] bytes each.
pub const MODULE_CMDLINES: Gpa = Gpa(0x2_0800);
/// Copy of the ACPI root pointer where a BIOS has it: for a hypervisor that is told of it in no other way.
pub const LOW_RSDP: Gpa = Gpa(0xf_0000);
/// Entry point of SMBIOS, where kernels that are entered without UEFI look for it.
pub const SMBIOS_ENTRY: Gpa = Gpa(0xf_0040);
/// SMBIOS structures.
pub const SMBIOS: GpaRange = GpaRange {
    start: Gpa(0xf_1000),
    len: 0xf000,
};
const _: () = assert!(LOW_RSDP.0 + 36 <= SMBIOS_ENTRY.0 && SMBIOS_ENTRY.0.is_multiple_of(16));
/// End of conventional memory; from here to 1 MiB nothing is RAM to the guest.
pub const LOW_RAM_END: Gpa = Gpa(0x9_fc00);
/// First byte of extended memory.
pub const HIGH_MEMORY: Gpa = Gpa(0x10_0000);
/// ACPI tables (e820 type 3), from the RSDP on.
pub const ACPI_TABLES: GpaRange = GpaRange {
    start: Gpa(0x10_0000),
    len: 0x8_0000,
};
/// Shared page run of the first NVDIMM mailbox (e820 type 4, ACPI NVS). See [`dsm_mailbox`].
pub const DSM_MAILBOX: GpaRange = GpaRange {
    start: Gpa(0x18_0000),
    len: 0x1_0000,
};
/// Memory of the error interfaces ([`devices::apei`]; e820 type 2), above the mailboxes; ACPI NVS where there are none.
pub const APEI: GpaRange = GpaRange {
    start: Gpa(0x1c_0000),
    len: ApeiPlan::LEN,
};
const _: () = assert!(DSM_MAILBOX.start.0 + MAX_NVDIMM_BUSES as u64 * DSM_MAILBOX.len <= APEI.start.0);
/// Memory of the extended error log (e820 type 2), behind the other error interfaces; ACPI NVS where there is none.
pub const EXTLOG: GpaRange = GpaRange {
    start: Gpa(0x1d_0000),
    len: ExtlogPlan::LEN,
};
/// Page of the store's rings under the Xen personality, behind mailboxes and error interfaces in the ACPI NVS.
pub const XEN_STORE: Gpa = Gpa(0x1f_0000);
/// Page of the console's rings, behind the store's.
pub const XEN_CONSOLE: Gpa = Gpa(0x1f_1000);
/// Most NVDIMM buses of a machine.
pub const MAX_NVDIMM_BUSES: u8 = 4;
/// End of the firmware's part of extended memory.
pub const FIRMWARE_END: Gpa = Gpa(0x20_0000);
/// Where 32-bit addresses stop being RAM: 3 GiB.
pub const MMIO_HOLE: GpaRange = GpaRange {
    start: Gpa(0xc000_0000),
    len: 0x4000_0000,
};
/// virtio-mmio transports, one page each.
pub const VIRTIO_MMIO: GpaRange = GpaRange {
    start: Gpa(0xd000_0000),
    len: 0x10_0000,
};
/// Flush hints of NVDIMMs, a page for each slot.
pub const FLUSH_HINTS: GpaRange = GpaRange {
    start: Gpa(0xd010_0000),
    len: FlushHints::LEN,
};
/// I/O APIC registers.
pub const IOAPIC: Gpa = Gpa(0xfec0_0000);
/// Local APIC registers.
pub const LAPIC: Gpa = Gpa(0xfee0_0000);
/// First address above the hole.
pub const ABOVE_4G: Gpa = Gpa(0x1_0000_0000);
/// Base alignment of an NVDIMM.
pub const NVDIMM_ALIGN: u64 = ByteSize::gib(1).0;
/// The kernel's memory section (x86-64): NVDIMMs stay clear of RAM's last one.
pub const SECTION: u64 = ByteSize::mib(128).0;

const _: () = assert!(
    APEI.start.0 + APEI.len <= EXTLOG.start.0
        && EXTLOG.start.0 + EXTLOG.len <= XEN_STORE.0
        && XEN_CONSOLE.0 < FIRMWARE_END.0,
    "the pages of store and console must be behind the error interfaces, in the firmware's part"
);

/// The mailbox of the NVDIMM bus `number`: they follow each other in memory and in port space.
pub const fn dsm_mailbox(number: u8) -> MailboxPlan {
    assert!(number < MAX_NVDIMM_BUSES);
    let start = DSM_MAILBOX.start.0 + number as u64 * DSM_MAILBOX.len;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a port number, four buses above 0xa18 at most"
    )]
    let first = ports::DSM_DOORBELL as u16;
    MailboxPlan {
        memory: GpaRange {
            start: Gpa(start),
            len: DSM_MAILBOX.len,
        },
        doorbell: first + 4 * number as u16,
    }
}

/// Where the error interfaces are, if there are any.
pub fn apei(config: &ApeiConfig) -> Option<ApeiPlan> {
    #[expect(clippy::cast_possible_truncation, reason = "a port number")]
    let port = ports::APEI as u16;
    config.enabled.then(|| ApeiPlan {
        memory: APEI,
        port,
        poll_ms: config.poll_ms(),
    })
}

/// Where the extended error log is, if there is one, of processors with so many machine check banks.
pub fn extlog(config: &ApeiConfig, topology: &Topology, banks: u8) -> Option<ExtlogPlan> {
    config.has_extlog().then(|| ExtlogPlan {
        memory: EXTLOG,
        processors: topology.vcpus.iter().map(|vcpu| vcpu.apic_id.0).collect(),
        banks,
    })
}

/// Port numbers.
pub mod ports {
    /// 16550 serial port, 8 ports.
    pub const COM1: u64 = 0x3f8;
    /// Test exit (value v ends the run with it), 4 ports.
    pub const TEST_EXIT: u64 = 0xf4;
    /// pvpanic, 1 port.
    pub const PVPANIC: u64 = 0x505;
    /// Channel 2 of the interval timer that there is not, 1 port; not with the multiboot protocol, which has one.
    pub const NO_TIMER: u64 = 0x42;
    /// Real-time clock, 2 ports; with the multiboot protocol only.
    pub const RTC: u64 = 0x70;
    /// PM1 registers and ACPI timer, 12 ports; with the multiboot protocol only.
    pub const ACPI_FIXED: u64 = 0x608;
    /// Generic event device and sleep/reset registers: +0 selector (4 bytes, read-to-clear), +4 sleep control, +5 sleep status, +6 reset.
    pub const ACPI: u64 = 0x600;
    /// PCI configuration address and data, 8 ports.
    pub const PCI_CONFIG: u64 = 0xcf8;
    /// Registers of the memory devices, 28 ports.
    pub const MEMORY_HOTPLUG: u64 = 0xa40;
    /// Error interfaces, 16 ports.
    pub const APEI: u64 = 0xa60;
    /// Doorbell of the first NVDIMM mailbox, 4 ports.
    pub const DSM_DOORBELL: u64 = 0xa18;
}

/// Global system interrupts (in-kernel I/O APIC, 24 pins).
pub mod gsi {
    /// Serial port.
    pub const COM1: u32 = 4;
    /// Generic event device.
    pub const GED: u32 = 5;
    /// System control interrupt, which nothing raises; with the multiboot protocol only.
    pub const SCI: u32 = 9;
    /// First virtio-mmio transport; the first eight take `VIRTIO0 + n`, the others `n`, but 7 in the place of [`SCI`].
    pub const VIRTIO0: u32 = 16;
}

/// RAM of one node at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamRegion {
    /// Where.
    pub range: GpaRange,
    /// Proximity domain.
    pub node: u32,
}

/// What the host sets limits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLimits {
    /// Guest physical address bits (CPUID 0x8000_0008 EAX[7:0]).
    pub phys_bits: u8,
    /// Backings of the NVDIMMs by slot and then of the virtio-pmem devices, from [`VmConfig::probe`]; one that is not there
    /// has its configured size and 4 KiB pages.
    pub backings: Vec<BackingFacts>,
    /// Those of the memory devices in their order, from [`VmConfig::probe_memory_devices`]; one that is not there has its
    /// configured size and 4 KiB pages.
    pub memory_devices: Vec<BackingFacts>,
}

/// Type of a range in the guest's memory map (values of ACPI 6.5 15, as Linux's e820 has them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// Usable.
    Ram = 1,
    /// Neither memory nor free for devices.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
    /// ACPI non-volatile storage.
    Nvs = 4,
    /// Memory with errors.
    Unusable = 5,
    /// Persistent memory.
    Persistent = 7,
    /// Persistent memory of platforms older than the standard's type.
    PersistentLegacy = 12,
    /// Memory for a special purpose (Linux's own number).
    SoftReserved = 0xefff_ffff,
}

/// The whole map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// RAM as host memory is mapped: from 0, split at the hole, at ranges and at node boundaries, in address order.
    pub ram: Vec<RamRegion>,
    /// Ranges placed or typed by hand, in address order; those of RAM are in `ram` as well.
    pub ranges: Vec<RangePlacement>,
    /// RAM that is mirrored, in address order.
    pub mirrored: Vec<GpaRange>,
    /// Addresses kept free for memory added later, above everything else.
    pub hotplug: Vec<HotplugWindow>,
    /// Memory devices in address order, each in a window of its node.
    pub memory: Vec<MemoryPlacement>,
    /// NVDIMMs by slot.
    pub nvdimms: Vec<NvdimmPlacement>,
    /// SPA ranges in address order.
    pub spas: Vec<SpaPlacement>,
    /// Memory that virtio devices bring, in address order.
    pub virtio_memory: Vec<VirtioMemory>,
    /// virtio-mmio pages in use, with their GSIs.
    pub virtio: Vec<(GpaRange, u32)>,
    /// First address that the kernel does not use as RAM, and who sees to it.
    pub limit: Option<(Gpa, LimitBy)>,
    /// Whether there are error interfaces, whose memory the guest claims.
    pub apei: bool,
    /// Whether there is an extended error log, whose memory the guest claims.
    pub extlog: bool,
}

/// Why there is no map.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Something would lie above the last guest physical address.
    #[error(
        "{what} would lie at {start:#x} with {len} and end above {limit:#x}, the {bits} physical address bits of this \
         processor; hint: use less or smaller memory, or a processor with more address bits"
    )]
    AddressBits {
        /// What.
        what: String,
        /// Its base.
        start: u64,
        /// Its size.
        len: ByteSize,
        /// First address that does not exist.
        limit: u64,
        /// Physical address bits.
        bits: u8,
    },
    /// Two things at one address.
    #[error("{what} at {range} overlaps {owner} at {other}; hint: choose another start=, or leave it out")]
    Overlap {
        /// The later one.
        what: String,
        /// Its addresses.
        range: GpaRange,
        /// What is there.
        owner: String,
        /// Its addresses.
        other: GpaRange,
    },
    /// RAM that is cut within a huge page.
    #[error(
        "RAM at {range} is not whole huge pages of {page}; hint: let memory ranges begin and end at multiples of {page}"
    )]
    Pages {
        /// RAM.
        range: GpaRange,
        /// Page size.
        page: ByteSize,
    },
    /// Nothing is left beside the label area.
    #[error(
        "nvdimm slot {slot} of {size} has no whole {page} page beside its label area of {label}; hint: use a larger size, \
         or label=0"
    )]
    NoData {
        /// Slot.
        slot: u8,
        /// Whole size.
        size: ByteSize,
        /// Page of the backing.
        page: ByteSize,
        /// Label area.
        label: ByteSize,
    },
    /// A set whose lines cannot be mapped.
    #[error("interleave set {id}: {why}")]
    Set {
        /// Name.
        id: String,
        /// What is wrong, and a hint.
        why: String,
    },
    /// A memory device that is not whole memory blocks of the guest.
    #[error(
        "memory device {id} has size {size}: expected a multiple of {block}, the guest's memory block size; hint: the block follows \
         from the end of boot RAM, see docs/hotplug.md"
    )]
    MemoryBlock {
        /// Name.
        id: String,
        /// Bytes.
        size: ByteSize,
        /// Block of the guest.
        block: ByteSize,
    },
    /// A node that nothing can be added to.
    #[error(
        "memory device {id} is for node {node}, which has no hotplug window; hint: start the machine with `--numa \
         node={node},hotplug=SIZE`"
    )]
    NoWindow {
        /// Name.
        id: String,
        /// Node.
        node: u32,
    },
    /// A window that is full.
    #[error(
        "memory device {id} of {size} does not fit the hotplug window of node {node}: the largest free range there is {largest}; hint: \
         use a smaller size=, or start the machine with a larger hotplug="
    )]
    NoRoom {
        /// Name.
        id: String,
        /// Node.
        node: u32,
        /// Bytes asked for.
        size: ByteSize,
        /// Bytes there are in one piece.
        largest: ByteSize,
    },
    /// The size is known neither from the configuration nor from the host.
    #[error("the size of memory device {0} is not known; hint: add size=SIZE")]
    NoMemorySize(String),
    /// The size is known neither from the configuration nor from the host.
    #[error("the size of nvdimm slot {0} is not known; hint: add size=SIZE")]
    NoSize(u8),
    /// The same of a virtio-pmem device.
    #[error("the size of {0} is not known; hint: add size=SIZE")]
    NoDeviceSize(String),
    /// More NVDIMMs than slots.
    #[error("there is no nvdimm slot {0}: expected at most {MAX_NVDIMMS} nvdimms")]
    NoSlot(usize),
}

impl Layout {
    /// Places everything. Deterministic: the configuration and the page sizes of its backings give the map.
    pub fn plan(config: &VmConfig, topology: &Topology, host: &HostLimits) -> Result<Self, LayoutError> {
        let ranges::Placed { ram, ranges, mirrored } = ranges::place(config, topology, host.phys_bits)?;
        let virtio = (0..)
            .zip(config.virtio_devices())
            .map(|(n, _)| virtio::transport(n))
            .collect();
        let layout = Self {
            ram,
            ranges,
            mirrored,
            hotplug: Vec::new(),
            memory: Vec::new(),
            nvdimms: Vec::new(),
            spas: Vec::new(),
            virtio_memory: Vec::new(),
            virtio,
            limit: config.memory_limit.map(|limit| (Gpa(limit.size.0), limit.by)),
            apei: config.apei.enabled,
            extlog: config.apei.has_extlog(),
        };
        let mut layout = layout.with_nvdimms(config, host)?;
        layout.place_windows(config, host.phys_bits)?;
        let mut layout = layout.with_memory_devices(config, host)?;
        layout.place_virtio(config, host)?;
        Ok(layout)
    }

    /// The memory map handed to the guest (zero page or PVH), in address order, neighbours of one type merged.
    ///
    /// NVDIMMs are in it as persistent memory, as firmware has them: a range the kernel knows before it reads the NFIT is
    /// not given to anything else. The NFIT driver takes such a range as it takes one that is left out.
    pub fn e820(&self) -> Vec<(GpaRange, E820Type)> {
        let span = |start: Gpa, end: Gpa| GpaRange::new(start, end.0 - start.0);
        let mut map = vec![
            (span(Gpa(0), LOW_RAM_END), E820Type::Ram),
            // Where firmware keeps its extended data area and its ROM image; the video hole between is no memory at all.
            (span(LOW_RAM_END, Gpa(0xa_0000)), E820Type::Reserved),
            (span(Gpa(0xf_0000), HIGH_MEMORY), E820Type::Reserved),
            (ACPI_TABLES, E820Type::Acpi),
        ];
        for (range, kind, _) in self.firmware_data() {
            match map.last_mut().filter(|(l, k)| *k == kind && l.end() == range.start) {
                Some((last, _)) => last.len += range.len,
                None => map.push((range, kind)),
            }
        }
        for RamRegion { range, .. } in &self.ram {
            let start = range.start.max(FIRMWARE_END);
            if start >= range.end() {
                continue;
            }
            match map.last_mut() {
                Some((last, E820Type::Ram)) if last.end() == start => *last = span(last.start, range.end()),
                _ => map.push((span(start, range.end()), E820Type::Ram)),
            }
        }
        let ranges = self.ranges.iter().filter(|r| r.kind != RangeKind::Ram);
        map.extend(ranges.filter_map(|r| Some((r.range, r.kind.e820()?))));
        let persistent = self.spas.iter().filter(|spa| spa.plan.kind.is_persistent());
        map.extend(persistent.map(|spa| (spa.plan.range, E820Type::Persistent)));
        map.sort_by_key(|(range, _)| range.start);
        match self.limit {
            Some((limit, LimitBy::Map)) => below(limit, map),
            _ => map,
        }
    }

    /// What firmware keeps above its tables, in address order.
    fn firmware_data(&self) -> Vec<(GpaRange, E820Type, &'static str)> {
        let span = |start: Gpa, end: Gpa| GpaRange::new(start, end.0 - start.0);
        let nvs = |start, end| (span(start, end), E820Type::Nvs, "ACPI NVS");
        let mut all = vec![];
        let mut next = DSM_MAILBOX.start;
        let reserved = [(self.apei, APEI, "APEI"), (self.extlog, EXTLOG, "extlog")];
        for (_, range, what) in reserved.into_iter().filter(|(there, ..)| *there) {
            if next < range.start {
                all.push(nvs(next, range.start));
            }
            all.push((range, E820Type::Reserved, what));
            next = range.end();
        }
        all.push(nvs(next, FIRMWARE_END));
        all
    }

    /// The top-level lines of the guest's `/proc/iomem` that are memory.
    pub fn iomem(&self) -> Vec<(GpaRange, &'static str)> {
        let mut lines: Vec<(GpaRange, &'static str)> = Vec::new();
        // A kernel with `mem=` takes the rest out of the map before it makes these lines.
        let map = match self.limit {
            Some((limit, LimitBy::Parameter)) => below(limit, self.e820()),
            _ => self.e820(),
        };
        for (range, kind) in map {
            let name = match kind {
                E820Type::Ram => "System RAM",
                E820Type::Reserved => "Reserved",
                E820Type::Acpi => "ACPI Tables",
                E820Type::Nvs => "ACPI Non-volatile Storage",
                E820Type::Unusable => "Unusable memory",
                E820Type::Persistent => "Persistent Memory",
                E820Type::PersistentLegacy => "Persistent Memory (legacy)",
                E820Type::SoftReserved => "Soft Reserved",
            };
            // Linux makes one of neighbours of one type, but for these two (e820_nomerge).
            let apart = matches!(kind, E820Type::PersistentLegacy | E820Type::SoftReserved);
            if let Some((last, _)) = lines
                .last_mut()
                .filter(|(l, n)| !apart && *n == name && l.end() == range.start)
            {
                last.len += range.len;
                continue;
            }
            if range.start == Gpa(0) {
                // Linux takes the first page out of RAM, whatever the map says (trim_bios_range).
                lines.push((GpaRange::new(Gpa(0), PAGE), "Reserved"));
                lines.push((GpaRange::new(Gpa(PAGE), range.len - PAGE), name));
            } else {
                lines.push((range, name));
            }
        }
        // Each is a line of its own once the guest has added it: what is added later is not merged.
        lines.extend(self.memory.iter().map(|placed| (placed.range, "System RAM")));
        lines.sort_by_key(|(range, _)| range.start);
        lines
    }

    /// RAM of all nodes.
    pub fn ram_size(&self) -> ByteSize {
        ByteSize(self.ram.iter().map(|r| r.range.len).sum())
    }
}

/// `map` without RAM at and above `limit`.
fn below(limit: Gpa, map: Vec<(GpaRange, E820Type)>) -> Vec<(GpaRange, E820Type)> {
    let cut = |(range, kind): (GpaRange, E820Type)| match kind {
        E820Type::Ram => {
            let len = limit.0.saturating_sub(range.start.0).min(range.len);
            (len != 0).then(|| (GpaRange::new(range.start, len), kind))
        }
        _ => Some((range, kind)),
    };
    map.into_iter().filter_map(cut).collect()
}

fn below_limit(bits: u8, start: u64, len: u64, what: impl FnOnce() -> String) -> Result<GpaRange, LayoutError> {
    // No x86 processor has more than 52 physical address bits; rounding below that bound cannot overflow.
    let limit = 1 << bits.min(52);
    match start.checked_add(len) {
        Some(end) if end <= limit => Ok(GpaRange::new(Gpa(start), len)),
        _ => Err(LayoutError::AddressBits {
            what: what(),
            start,
            len: ByteSize(len),
            limit,
            bits,
        }),
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
