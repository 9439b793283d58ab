//! Memory errors as requests and replies.

use crate::{config::HexAddress, mce::Kind};
use devices::{
    nvdimm::media::{ErrorSource, ErrorState},
    units::ByteSize,
};
use serde::{Deserialize, Serialize};

/// What can be asked about memory errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultRequest {
    /// All bad ranges and what became of them; answered by [`super::Response::Faults`].
    List,
    /// Make memory bad; answered by [`super::Response::FaultsChanged`].
    Inject(Box<FaultInject>),
    /// Make memory good; answered by [`super::Response::FaultsChanged`].
    Clear(FaultClear),
}

/// Memory to be made bad: by guest physical address, by NVDIMM and DPA, or at random on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct FaultInject {
    /// Guest physical address of the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpa: Option<HexAddress>,
    /// Name of an NVDIMM; then `dpa` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvdimm: Option<String>,
    /// Address in the NVDIMM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpa: Option<HexAddress>,
    /// Node to choose from at random; then `count` and `seed` count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// How many separate ranges of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The same seed chooses the same ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Bytes of each range, widened to lines of 64; absent: one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<ByteSize>,
    /// The platform knows of it, and short scrubs report it; otherwise it is latent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// Machine check record that reports the first range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Kind>,
    /// APIC id of the vCPU that gets the record.
    #[serde(skip_serializing_if = "is_zero")]
    pub vcpu: u32,
    /// Only say what would happen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Memory to be made good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct FaultClear {
    /// Guest physical address of the first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpa: Option<HexAddress>,
    /// Name of an NVDIMM; then `dpa` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvdimm: Option<String>,
    /// Address in the NVDIMM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpa: Option<HexAddress>,
    /// Bytes; absent: one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<ByteSize>,
    /// Everything that is bad anywhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// One bad range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultInfo {
    /// Where the guest sees its first byte; none: nowhere.
    pub gpa: Option<u64>,
    /// Name of its NVDIMM; none: it is in other memory.
    pub nvdimm: Option<String>,
    /// Address in the NVDIMM.
    pub dpa: Option<u64>,
    /// Bytes.
    pub len: u64,
    /// Who made it.
    pub source: ErrorSource,
    /// Who knows of it.
    pub state: ErrorState,
}

/// How accesses to bad memory are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The page is not in the guest's memory slots, and accesses to it are carried out one by one.
    SlotHole,
}

/// How the guest hears of machine checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// All vCPUs take each one.
    Broadcast,
    /// The vCPU that met the error, where the guest has allowed it; else all.
    LocalIfAllowed,
    /// The vCPU that met the error.
    Local,
}

/// Counts since the machine was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultCounts {
    /// Loads and fetches of bad lines that became machine checks.
    pub consumed: u64,
    /// Accesses to pages with bad lines that touched none, or stored.
    pub carried: u64,
    /// Machine checks and records that were asked for.
    pub signalled: u64,
    /// Microseconds from the last load of a bad line to its machine check.
    pub last_latency_us: Option<u64>,
}

/// All bad ranges, and what is done about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultList {
    /// NVDIMMs by slot and DPA, then other memory by address.
    pub faults: Vec<FaultInfo>,
    /// How accesses are caught.
    pub mechanism: Mechanism,
    /// Whether the other lines of a page with a bad one stay readable.
    pub neighbours_readable: bool,
    /// How the guest hears of them.
    pub delivery: Delivery,
    /// Pages whose accesses are caught.
    pub pages: u64,
    /// Pages with bad lines whose accesses are not caught, because there would be too many.
    pub pages_left_out: u64,
    /// What happened so far.
    pub counts: FaultCounts,
}

/// What was made bad or good, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultsChanged {
    /// Nothing was done.
    pub dry_run: bool,
    /// The ranges, as they were taken: whole lines.
    pub ranges: Vec<FaultTarget>,
    /// What a Linux guest does about it, a sentence each.
    pub expect: Vec<String>,
}

/// A range of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultTarget {
    /// Where the guest sees its first byte.
    pub gpa: Option<u64>,
    /// Name of its NVDIMM.
    pub nvdimm: Option<String>,
    /// Address in it.
    pub dpa: Option<u64>,
    /// Bytes.
    pub len: u64,
}
