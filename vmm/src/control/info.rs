//! What replies carry.

use super::{DiskInfo, DiskList, LimitsInfo, MemoryTargetInfo, Phase, VirtioInfo};
use crate::layout::map::Report;
use serde::{Deserialize, Serialize};

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
    /// To `nvdimm add`.
    NvdimmAdded(Box<NvdimmAdded>),
    /// To `memory target`.
    MemoryTarget(Box<MemoryTargetInfo>),
    /// To `disk list`.
    Disks(DiskList),
    /// To what changes a disk.
    Disk(Box<DiskInfo>),
    /// To `limits`.
    Limits(LimitsInfo),
}

/// Where the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// Phase after the request.
    pub state: Phase,
}

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// virtio devices that have something to say.
    pub virtio: VirtioInfo,
}

/// The NVDIMMs, and what the guest knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvdimmList {
    /// Version of what `_FIT` of the first root device returns; 0 without one.
    pub fit_generation: u32,
    /// Newest version that the guest has read to the end; 0: none yet.
    pub fit_seen: u32,
    /// By slot.
    pub dimms: Vec<NvdimmInfo>,
}

/// An NVDIMM that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvdimmAdded {
    /// What it is.
    pub dimm: NvdimmInfo,
    /// Version of the NFIT that has it.
    pub fit_generation: u32,
    /// Newest version that the guest has read to the end: when it is older, the guest has not looked yet.
    pub fit_seen: u32,
}

/// One NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}
