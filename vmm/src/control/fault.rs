//! Memory errors that guests meet, as requests and replies.

use devices::nvdimm::media::{ErrorSource, ErrorState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can be asked about memory errors. Those of NVDIMMs are made and cleared by [`super::NvdimmRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultRequest {
    /// All bad ranges and what became of them; answered by [`super::Response::Faults`].
    List,
}

/// One bad range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultInfo {
    /// Where the guest sees its first byte; none: nowhere.
    pub gpa: Option<u64>,
    /// Name of its NVDIMM.
    pub nvdimm: Option<String>,
    /// Address in the NVDIMM.
    pub dpa: Option<u64>,
    /// Bytes, whole lines of 64.
    pub len: u64,
    /// Who made it.
    pub source: ErrorSource,
    /// Who knows of it.
    pub state: ErrorState,
    /// Whether a load meets it. Those that the guest injects through its NVDIMM root are for scrubs alone.
    pub consumable: bool,
}

/// How accesses to bad memory are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The page is not in the guest's memory slots, and accesses to it are carried out one by one.
    SlotHole,
}

/// Who hears of a machine check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// All vCPUs.
    Broadcast,
    /// The vCPU that met the error, where the guest has allowed it; else all.
    LocalIfAllowed,
    /// The vCPU that met the error.
    Local,
}

/// Counts since the machine was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultCounts {
    /// Loads and fetches of bad lines that became machine checks.
    pub consumed: u64,
    /// Accesses to pages with bad lines that touched none, or stored.
    pub carried: u64,
    /// Microseconds from the last load of a bad line to its machine check.
    pub last_latency_us: Option<u64>,
}

/// All bad ranges, and what is done about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultList {
    /// By slot and DPA.
    pub faults: Vec<FaultInfo>,
    /// How accesses are caught.
    pub mechanism: Mechanism,
    /// Whether the other lines of a page with a bad one stay readable, for instructions that KVM can carry out.
    pub neighbours_readable: bool,
    /// Who hears of a machine check.
    pub delivery: Delivery,
    /// Pages whose accesses are caught.
    pub pages: u64,
    /// Pages with bad lines whose accesses are not caught, because there would be too many.
    pub pages_left_out: u64,
    /// What happened so far.
    pub counts: FaultCounts,
}
