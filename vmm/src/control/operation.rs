//! Operations: what has been begun and needs the guest to come to an end.

use super::{ControlError, MemoryDeviceInfo, MemoryRemoved, MemoryTargetInfo, NvdimmAdded, RangePlanned};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// One more NVDIMM.
    NvdimmAdd,
    /// One more memory device.
    MemoryAdd,
    /// A memory device that the guest is asked to give back.
    MemoryRemove,
    /// Another size of memory that grows and shrinks.
    MemoryTarget,
    /// A memory range that the guest finds at its next boot.
    RangeAdd,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// The guest has not confirmed it yet.
    Running,
    /// The guest has confirmed it.
    Done,
    /// The guest has said nothing in time. What was done on this side stays done, and the guest may follow later.
    Unanswered,
    /// It was not done; `error` says why.
    Failed,
}

/// An operation and what the guest has done of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationInfo {
    /// Number, from 1; never used again in the life of the machine.
    pub id: u64,
    /// What it does.
    pub kind: OperationKind,
    /// Name of what it is done to.
    pub target: String,
    /// How far it is.
    pub state: OperationState,
    /// Milliseconds of the machine's uptime at which it began.
    pub started_ms: u64,
    /// And at which it ended.
    pub ended_ms: Option<u64>,
    /// What the guest has done, oldest first.
    pub steps: Vec<GuestStep>,
    /// What came of it.
    pub result: Option<OperationResult>,
    /// Why it failed.
    #[schema(value_type = Option<super::Problem>)]
    pub error: Option<ControlError>,
}

/// Something that the guest did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestStep {
    /// Milliseconds of the machine's uptime.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub action: GuestAction,
    /// The same as a sentence.
    pub meaning: String,
}

/// What a guest does about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum GuestAction {
    /// It has read the NFIT to its end.
    FitSeen {
        /// Version that it read.
        generation: u32,
        /// Version that has what the operation changed.
        wanted: u32,
    },
    /// It has said something through `_OST`.
    Ost {
        /// Source event.
        event: u32,
        /// Status.
        status: u32,
    },
    /// It has so much memory of the device plugged.
    Plugged {
        /// Bytes.
        plugged: u64,
        /// Bytes that it is asked to have.
        requested: u64,
    },
}

/// What comes of operations that the guest confirmed, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OperationResult {
    /// Of `nvdimm-add`.
    NvdimmAdded(Box<NvdimmAdded>),
    /// Of `memory-add`.
    MemoryAdded(Box<MemoryDeviceInfo>),
    /// Of `memory-remove`.
    MemoryRemoved(MemoryRemoved),
    /// Of `memory-target`.
    MemoryTarget(Box<MemoryTargetInfo>),
    /// Of `range-add`.
    RangePlanned(RangePlanned),
}

/// The operations that are remembered: all that are under way, and the last that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    /// Oldest first.
    pub operations: Vec<OperationInfo>,
}
