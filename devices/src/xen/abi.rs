//! Numbers and structures of Xen's public headers (`xen/include/public`), as a 64-bit guest has them.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{I16, U16, U32, U64},
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// The domain that calls, whatever its number.
pub const DOMID_SELF: u16 = 0x7ff0;
/// Number of a domain that is not the first.
pub const DOMID: u16 = 1;
/// Number of the first domain.
pub const DOM0: u16 = 0;

/// Hypercalls that are answered, or not answered without a word (`xen.h`).
pub mod hypercall {
    /// The platform, for the first domain.
    pub const PLATFORM_OP: u64 = 7;
    /// Memory of the domain.
    pub const MEMORY_OP: u64 = 12;
    /// What hypervisor this is.
    pub const XEN_VERSION: u64 = 17;
    /// The hypervisor's console.
    pub const CONSOLE_IO: u64 = 18;
    /// Pages shared with other domains.
    pub const GRANT_TABLE_OP: u64 = 20;
    /// Help that a guest can switch on; there is none.
    pub const VM_ASSIST: u64 = 21;
    /// Processors.
    pub const VCPU_OP: u64 = 24;
    /// The end of the domain.
    pub const SCHED_OP: u64 = 29;
    /// Event channels.
    pub const EVENT_CHANNEL_OP: u64 = 32;
    /// Interrupts and devices of the platform.
    pub const PHYSDEV_OP: u64 = 33;
    /// Hardware virtual machines.
    pub const HVM_OP: u64 = 34;
    /// The whole system, for its tools; there is none.
    pub const SYSCTL: u64 = 35;
    /// Other domains; there are none.
    pub const DOMCTL: u64 = 36;
    /// Machine checks of the host; there are none.
    pub const MCA: u64 = 48;
}

/// Why a hypercall fails (`errno.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Errno {
    /// Not for this guest.
    Perm = 1,
    /// No such thing.
    NoEntry = 2,
    /// No such domain.
    NoDomain = 3,
    /// Not in this version of the interface.
    Access = 13,
    /// Bad address.
    Fault = 14,
    /// Taken.
    Exists = 17,
    /// Bad argument.
    Invalid = 22,
    /// No room.
    NoSpace = 28,
    /// No such hypercall.
    NoCall = 38,
    /// Not for this kind of guest.
    NotSupported = 95,
}

/// `xen_memory_reservation`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryReservation {
    /// Address of the list of extents' first pages.
    pub extents: U64,
    /// How many.
    pub count: U64,
    /// Power of two of pages in each.
    pub order: U32,
    /// Where from; means nothing here.
    pub flags: U32,
    /// Whose.
    pub domid: U16,
    /// To a multiple of the alignment.
    pub padding: [u8; 6],
}

/// `xen_memory_map`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMap {
    /// Entries there is room for; then entries written.
    pub count: U32,
    /// To the alignment.
    pub padding: U32,
    /// Where.
    pub buffer: U64,
}

/// One entry of a memory map, as e820 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapEntry {
    /// First address.
    pub start: U64,
    /// Bytes.
    pub len: U64,
    /// e820 type.
    pub kind: U32,
}

/// `xen_add_to_physmap`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose.
    pub domid: U16,
    /// Pages; of another space.
    pub size: U16,
    /// What kind of page.
    pub space: U32,
    /// Which.
    pub index: U64,
    /// Where to.
    pub page: U64,
}

/// `xen_remove_from_physmap`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RemoveFromPhysmap {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: [u8; 6],
    /// Where.
    pub page: U64,
}

/// `xen_feature_info`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureInfo {
    /// Which 32 features.
    pub index: U32,
    /// A bit for each.
    pub bits: U32,
}

/// `xen_hvm_param`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HvmParam {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: U16,
    /// Which.
    pub index: U32,
    /// Its value.
    pub value: U64,
}

/// `xen_hvm_evtchn_upcall_vector`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OwnVector {
    /// Which vCPU's.
    pub vcpu: U32,
    /// The vector.
    pub vector: u8,
    /// To the alignment.
    pub padding: [u8; 3],
}

/// `vcpu_register_vcpu_info`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// Page.
    pub page: U64,
    /// Where in it.
    pub offset: U32,
    /// Reserved.
    pub reserved: U32,
}

/// Several event channel operations: three words, of which each has its own meaning.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVirq {
    /// Which.
    pub virq: U32,
    /// For whom.
    pub vcpu: U32,
    /// Answer.
    pub port: U32,
}

/// `evtchn_bind_ipi`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindIpi {
    /// For whom.
    pub vcpu: U32,
    /// Answer.
    pub port: U32,
}

/// `evtchn_bind_vcpu`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVcpu {
    /// Which.
    pub port: U32,
    /// To whom.
    pub vcpu: U32,
}

/// `evtchn_alloc_unbound`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocUnbound {
    /// Whose.
    pub domid: U16,
    /// Who may bind to it.
    pub remote: U16,
    /// Answer.
    pub port: U32,
}

/// `evtchn_bind_interdomain`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindInterdomain {
    /// Whose.
    pub remote: U16,
    /// To the alignment.
    pub padding: U16,
    /// Which of its ports.
    pub remote_port: U32,
    /// Answer.
    pub port: U32,
}

/// `evtchn_status`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortStatus {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: U16,
    /// Which.
    pub port: U32,
    /// Answer: kind.
    pub status: U32,
    /// Answer: for whom.
    pub vcpu: U32,
    /// Answer: by kind.
    pub about: [U32; 2],
}

/// `gnttab_query_size`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantSize {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: U16,
    /// Answer: frames.
    pub frames: U32,
    /// Answer: most frames.
    pub most: U32,
    /// Answer.
    pub status: I16,
    /// To the alignment.
    pub padding2: U16,
}

/// `gnttab_setup_table`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantSetup {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: U16,
    /// Frames wanted.
    pub frames: U32,
    /// Answer.
    pub status: I16,
    /// To the alignment.
    pub padding2: [u8; 6],
    /// Where their pages are told.
    pub list: U64,
}

/// `gnttab_get_version`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantVersion {
    /// Whose.
    pub domid: U16,
    /// To the alignment.
    pub padding: U16,
    /// Answer.
    pub version: U32,
}

/// What `xen_platform_op` begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlatformOp {
    /// Which.
    pub command: U32,
    /// Of the interface.
    pub version: U32,
}

/// `xenpf_enter_acpi_sleep`, behind [`PlatformOp`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AcpiSleep {
    /// For the control registers.
    pub values: [U16; 2],
    /// S-state.
    pub state: U32,
    /// Which registers.
    pub flags: U32,
}

/// `xenpf_pcpuinfo`, behind [`PlatformOp`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcessorInfo {
    /// Which.
    pub number: U32,
    /// Answer: the highest number.
    pub highest: U32,
    /// Answer.
    pub flags: U32,
    /// Answer.
    pub apic_id: U32,
    /// Answer: `_UID`.
    pub acpi_id: U32,
}

/// `physdev_setup_gsi`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupGsi {
    /// Which.
    pub gsi: U32,
    /// 0: edge, 1: level.
    pub triggering: u8,
    /// 0: active high, 1: low.
    pub polarity: u8,
    /// To the alignment.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<MemoryReservation>() == 32);
const _: () = assert!(size_of::<MemoryMap>() == 16);
const _: () = assert!(size_of::<MapEntry>() == 20);
const _: () = assert!(size_of::<AddToPhysmap>() == 24);
const _: () = assert!(size_of::<RemoveFromPhysmap>() == 16);
const _: () = assert!(size_of::<HvmParam>() == 16);
const _: () = assert!(size_of::<OwnVector>() == 8);
const _: () = assert!(size_of::<RegisterVcpuInfo>() == 16);
const _: () = assert!(size_of::<PortStatus>() == 24);
const _: () = assert!(size_of::<GrantSize>() == 16);
const _: () = assert!(size_of::<GrantSetup>() == 24);

/// Where things are in the shared information page, and in what it begins with.
pub mod shared_info {
    /// Bytes of a vCPU's part.
    pub const VCPU_INFO: u64 = 64;
    /// vCPUs that have their part in the page.
    pub const VCPUS: u32 = 32;
    /// Pending event channels.
    pub const PENDING: u64 = 2048;
    /// Masked event channels.
    pub const MASK: u64 = 2560;
    /// In a vCPU's part: which words of the pending ones to look at.
    pub const PENDING_SELECTOR: usize = 8;
}
