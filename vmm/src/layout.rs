//! The guest physical map: a pure function from the configuration to addresses.
//!
//! Everything here is guest ABI, documented in docs/guest-abi.md: the same configuration gives the same map on every host.

use devices::units::{ByteSize, Gpa, GpaRange};

/// Global descriptor table of the boot vCPU.
pub const BOOT_GDT: Gpa = Gpa(0x500);
/// PVH start info and what it points to (memory map, modules).
pub const PVH_INFO: Gpa = Gpa(0x6000);
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
/// End of conventional memory; from here to 1 MiB nothing is RAM to the guest.
pub const LOW_RAM_END: Gpa = Gpa(0x9_fc00);
/// First byte of extended memory.
pub const HIGH_MEMORY: Gpa = Gpa(0x10_0000);
/// ACPI tables (e820 type 3), from the RSDP on.
pub const ACPI_TABLES: GpaRange = GpaRange { start: Gpa(0x10_0000), len: 0x8_0000 };
/// Shared page run of the NVDIMM mailbox (e820 type 4, ACPI NVS).
pub const DSM_MAILBOX: GpaRange = GpaRange { start: Gpa(0x18_0000), len: 0x1_0000 };
/// End of the firmware's part of extended memory.
pub const FIRMWARE_END: Gpa = Gpa(0x20_0000);
/// Where 32-bit addresses stop being RAM: 3 GiB.
pub const MMIO_HOLE: GpaRange = GpaRange { start: Gpa(0xc000_0000), len: 0x4000_0000 };
/// virtio-mmio transports, one page each.
pub const VIRTIO_MMIO: GpaRange = GpaRange { start: Gpa(0xd000_0000), len: 0x10_0000 };
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

/// Port numbers.
pub mod ports {
    /// 16550 serial port, 8 ports.
    pub const COM1: u64 = 0x3f8;
    /// Test exit (value v ends the run with it), 4 ports.
    pub const TEST_EXIT: u64 = 0xf4;
    /// pvpanic, 1 port.
    pub const PVPANIC: u64 = 0x505;
    /// Generic event device and sleep/reset registers: +0 selector (4 bytes, read-to-clear), +4 sleep control, +5 sleep status, +6 reset.
    pub const ACPI: u64 = 0x600;
    /// NVDIMM mailbox doorbell, 4 ports.
    pub const DSM_DOORBELL: u64 = 0xa18;
}

/// Global system interrupts (in-kernel I/O APIC, 24 pins).
pub mod gsi {
    /// Serial port.
    pub const COM1: u32 = 4;
    /// Generic event device.
    pub const GED: u32 = 5;
    /// First virtio-mmio transport; the n-th takes `VIRTIO0 + n`.
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

/// Where an NVDIMM's data (without its label area) is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmPlacement {
    /// Position in the configuration; NFIT handle is slot + 1.
    pub slot: u8,
    /// SPA range.
    pub spa: GpaRange,
    /// Proximity domain.
    pub node: u32,
}

/// The whole map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// RAM as host memory is mapped: from 0, split at the hole and at node boundaries, in address order.
    pub ram: Vec<RamRegion>,
    /// NVDIMMs by slot.
    pub nvdimms: Vec<NvdimmPlacement>,
    /// virtio-mmio pages in use.
    pub virtio: Vec<(GpaRange, u32)>,
}
