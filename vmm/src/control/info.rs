//! What replies carry.

use super::{
    DiskInfo, DiskList, FaultList, FaultNotified, FaultReport, HealthInfo, LimitsInfo, MediaErrorList, OperationInfo,
    OperationList, Phase, Sight, VirtioInfo,
};
use crate::{config::MemoryBacking, layout::map::Report};
use devices::{
    acpi::memory_hotplug::{GuestView, Ost},
    nvdimm::flush::FlushCounts,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// A request that was done. Written without a tag: the request says which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// Where the machine is now; of every request that has nothing else to say.
    State(StateInfo),
    /// To `describe`.
    Machine(Box<MachineInfo>),
    /// To `nvdimm list`.
    Nvdimms(NvdimmList),
    /// To `nvdimm show`.
    Nvdimm(Box<NvdimmInfo>),
    /// To `nvdimm health`.
    Health(Box<HealthInfo>),
    /// To looks.
    Sight(Box<Sight>),
    /// What has been begun, or how far it is.
    Operation(Box<OperationInfo>),
    /// All operations.
    Operations(OperationList),
    /// To `memory list`.
    Memory(MemoryList),
    /// To `nvdimm errors`.
    MediaErrors(MediaErrorList),
    /// To `disk list`.
    Disks(DiskList),
    /// To what changes a disk.
    Disk(Box<DiskInfo>),
    /// To `limits`.
    Limits(LimitsInfo),
    /// To `fault list`.
    Faults(Box<FaultList>),
    /// To `fault inject`.
    FaultReport(Box<FaultReport>),
    /// An error that the guest was told of.
    FaultNotified(FaultNotified),
}

/// Where the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateInfo {
    /// Phase after the request.
    pub state: Phase,
}

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineInfo {
    /// Version of daxvisor.
    pub version: String,
    /// Process that runs it, in its own namespace.
    pub pid: u32,
    /// Phase.
    pub state: Phase,
    /// Milliseconds since the vCPUs first ran; a pause counts.
    pub uptime_ms: u64,
    /// Milliseconds of those in which the machine was paused.
    pub paused_ms: u64,
    /// vCPUs, nodes and the guest physical map as they were planned, the same as `run --dry-run --json` prints.
    pub plan: Report,
    /// NVDIMMs as they are.
    pub nvdimm: NvdimmList,
    /// Memory devices as they are.
    #[serde(default)]
    pub memory: MemoryList,
    /// virtio devices that have something to say.
    pub virtio: VirtioInfo,
}

/// The memory devices: ACPI ones and virtio-mem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryList {
    /// Slots of the machine for hot-pluggable devices.
    pub slots: u16,
    /// Unit in bytes in which the guest adds and removes memory.
    pub block: u64,
    /// The devices: those in slots by slot, then virtio-mem in the order of the configuration.
    pub devices: Vec<MemoryDeviceInfo>,
}

/// One memory device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryDeviceInfo {
    /// Name.
    pub id: String,
    /// What it is.
    pub kind: MemoryDeviceKind,
    /// Its slot, where it is in one.
    pub slot: Option<u16>,
    /// First guest physical address.
    pub start: u64,
    /// Bytes; of virtio-mem, those of the region, which is the most that the guest can have.
    pub len: u64,
    /// Proximity domain.
    pub node: u32,
    /// What holds its bytes.
    pub backing: MemoryBacking,
    /// The file or node that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// Where in that file it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What the guest has made of it, where it says so.
    pub guest: Option<GuestView>,
    /// What the guest said last.
    pub ost: Option<OstInfo>,
    /// How much of it the guest has; of virtio-mem alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugging: Option<Plugging>,
}

/// How much of a virtio-mem device the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plugging {
    /// Bytes of a block, the unit in which the guest plugs and unplugs.
    pub block: u64,
    /// Bytes that the guest is asked to have.
    pub requested: u64,
    /// Bytes that it has.
    pub plugged: u64,
    /// Bytes of the region that it may use.
    pub usable: u64,
    /// Whether a driver has the device.
    pub driver: bool,
}

/// Kinds of memory devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryDeviceKind {
    /// An ACPI memory device (PNP0C80).
    Dimm,
    /// A virtio-mem device, which is resized and not removed.
    VirtioMem,
}

/// A memory device that the guest has given back.
// Its fields are some of those of `MemoryDeviceInfo`: a result has to be one of the two and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryRemoved {
    /// Its name.
    pub id: String,
    /// Bytes that the host has again.
    pub len: u64,
}

/// What a guest said through `_OST`, and what that means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OstInfo {
    /// Source event.
    pub event: u32,
    /// Status.
    pub status: u32,
    /// Both in words.
    pub text: String,
}

impl From<Ost> for OstInfo {
    fn from(ost: Ost) -> Self {
        Self {
            event: ost.event,
            status: ost.status,
            text: format!("{}: {}", ost.event_text(), ost.status_text()),
        }
    }
}

/// The NVDIMMs, and what the guest knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvdimmList {
    /// Version of what `_FIT` of the first root device returns; 0 without one.
    pub fit_generation: u32,
    /// Newest version that the guest has read to the end; 0: none yet.
    pub fit_seen: u32,
    /// By slot.
    pub dimms: Vec<NvdimmInfo>,
}

/// An NVDIMM that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvdimmAdded {
    /// What it is.
    pub dimm: NvdimmInfo,
    /// Version of the NFIT that has it.
    pub fit_generation: u32,
    /// Newest version that the guest has read to the end: when it is older, the guest has not looked yet.
    pub fit_seen: u32,
}

/// One NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NvdimmInfo {
    /// Name.
    pub id: String,
    /// Slot.
    pub slot: u8,
    /// NFIT device handle.
    pub handle: u32,
    /// Number of its root device.
    pub bus: u8,
    /// First guest physical address of the range that shows it alone; none when it is in interleave sets only, or in no range.
    pub start: Option<u64>,
    /// Bytes of data.
    pub len: u64,
    /// Proximity domain of the first range it is in.
    pub node: Option<u32>,
    /// Bytes of its label area.
    pub label_size: u64,
    /// Whether the guest's stores stay out of the backing.
    pub readonly: bool,
    /// How often the guest flushed it; none: it has no flush hint.
    #[serde(default)]
    pub flush: Option<FlushCounts>,
}
