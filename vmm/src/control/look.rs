//! What can be looked at, and how it is told. Nothing here changes anything.

use super::EventList;
use crate::{
    layout::map::{Entry, IomemLine, Node, Pair},
    topology::VcpuPlan,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most bytes of the console that are kept and told.
pub const CONSOLE_KEPT: u64 = 64 << 10;
/// Most events that are told at once.
pub const EVENTS_TOLD: u64 = 256;

/// What can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LookRequest {
    /// The phase; answered by [`super::Response::State`].
    State,
    /// The guest physical map.
    Map,
    /// Nodes, vCPUs and distances.
    Nodes,
    /// Devices of the platform.
    Devices,
    /// Counters.
    Metrics,
    /// What happened after this event.
    Events {
        /// Its number; 0: from the first that is kept.
        since: u64,
    },
    /// The last that the guest wrote to its console.
    Console {
        /// How many bytes of it, [`CONSOLE_KEPT`] at most.
        bytes: u64,
    },
    /// The ACPI tables that the guest was started with.
    Tables,
    /// One of them, with its bytes.
    Table {
        /// Its signature.
        signature: String,
    },
}

/// What a look finds. Written without a tag: the request says which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Sight {
    /// To `map`.
    Map(MapInfo),
    /// To `nodes`.
    Nodes(NodeList),
    /// To `devices`.
    Devices(DeviceList),
    /// To `metrics`.
    Metrics(Metrics),
    /// To `events`.
    Events(EventList),
    /// To `console`.
    Console(ConsoleTail),
    /// To `tables`.
    Tables(TableList),
    /// To `table`.
    Table(TableInfo),
}

/// The guest physical map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapInfo {
    /// Guest physical address bits it was planned for.
    pub phys_bits: u8,
    /// Every range that is decoded, in address order.
    pub map: Vec<Entry>,
    /// Top-level memory lines of the guest's `/proc/iomem`.
    pub iomem: Vec<IomemLine>,
}

/// The NUMA nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// In order.
    pub nodes: Vec<Node>,
    /// vCPUs in order.
    pub vcpus: Vec<VcpuPlan>,
    /// What the HMAT says of each initiator and target; empty: no HMAT.
    pub performance: Vec<Pair>,
}

/// The devices of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// In guest ABI order.
    pub devices: Vec<DeviceInfo>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Name.
    pub id: String,
    /// What it is.
    pub kind: String,
    /// First I/O port, if it has some.
    pub port: Option<u64>,
    /// First address of its registers in memory, if it has some.
    pub address: Option<u64>,
    /// Global system interrupt, if it has one of its own.
    pub gsi: Option<u32>,
}

/// Counters of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    /// Milliseconds since the vCPUs first ran; a pause counts.
    pub uptime_ms: u64,
    /// Milliseconds of those in which the machine was paused.
    pub paused_ms: u64,
    /// Exits to the monitor.
    pub exits: Exits,
    /// Bytes that the guest wrote to its console.
    pub console_bytes: u64,
    /// Requests that the loop has taken.
    pub requests: u64,
    /// Requests and operations under way.
    pub under_way: u64,
    /// Events so far.
    pub events: u64,
    /// Bytes of the host's memory that the monitor and its guest occupy.
    pub resident: u64,
    /// Bytes of that which files back, NVDIMMs among them.
    pub resident_file: u64,
    /// Microseconds of processor time that the whole process has used, guest time included.
    pub cpu_us: u64,
}

/// Exits of all vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exits {
    /// Port reads and writes.
    pub port: u64,
    /// Loads and stores of device registers.
    pub mmio: u64,
    /// Port writes that were collected without an exit of their own.
    pub collected: u64,
    /// Xen hypercalls that KVM did not answer itself.
    pub hypercalls: u64,
    /// Signals and spurious returns.
    pub other: u64,
}

/// The last that the guest wrote to its console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleTail {
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
    /// Bytes that the guest wrote before these.
    pub before: u64,
}

/// ACPI tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableList {
    /// In address order.
    pub tables: Vec<TableEntry>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableEntry {
    /// Signature; `RSDP` for the root pointer.
    pub signature: String,
    /// Where the guest finds it.
    pub address: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// One table with its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableInfo {
    /// Signature.
    pub signature: String,
    /// Where the guest finds it.
    pub address: u64,
    /// Its bytes in hexadecimal.
    pub bytes: String,
}

/// Health of an NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthInfo {
    /// Name.
    pub id: String,
    /// What is wrong: `non-critical`, `critical`, `fatal`; empty: nothing.
    pub condition: Vec<String>,
    /// Alarms whose limits are passed: `spares`, `media-temperature`, `controller-temperature`.
    pub alarms: Vec<String>,
    /// Spare capacity in percent.
    pub spares: u8,
    /// Life used in percent.
    pub life_used: u8,
    /// Degrees Celsius, rounded towards zero.
    pub media_temperature: i32,
    /// Degrees Celsius, rounded towards zero.
    pub controller_temperature: i32,
    /// Unsafe shutdowns.
    pub unsafe_shutdowns: u32,
    /// The last shutdown was unsafe.
    pub dirty: bool,
    /// Limits that are watched.
    pub thresholds: ThresholdsInfo,
}

/// Watched limits of an NVDIMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ThresholdsInfo {
    /// Alarms that are armed.
    pub armed: Vec<String>,
    /// Alarm at or below this many percent.
    pub spares: u8,
    /// Alarm at or above these degrees.
    pub media_temperature: i32,
    /// Alarm at or above these degrees.
    pub controller_temperature: i32,
}
