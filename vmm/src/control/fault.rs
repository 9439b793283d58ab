//! Memory errors that guests meet, as requests and replies.

mod ask;
mod notify;

pub use ask::{Count, FaultInject, FaultRange, FaultTarget, MAX_RANDOM};
pub use notify::{FaultNotified, FaultNotify, NotifyPlan, NotifySeverity, NotifyTarget, NotifyVia};

use devices::{
    apei::{ExtlogInfo, SourceInfo},
    nvdimm::media::{ErrorSource, ErrorState},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can be asked about memory errors, wherever in memory they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultRequest {
    /// All bad ranges and what became of them; answered by [`super::Response::Faults`].
    List,
    /// Make lines bad, or tell what that would come to; answered by [`super::Response::FaultReport`] when loads meet them.
    Inject(Box<FaultInject>),
    /// Tell the guest of an error; answered by [`super::Response::FaultNotified`].
    Notify(Box<FaultNotify>),
    /// Make no more of what an injection was to make bad later.
    Stop {
        /// Number of the storm.
        storm: u64,
    },
    /// Make lines good, whoever made them bad.
    Clear(FaultRange),
    /// Make a whole bad range good.
    Remove {
        /// Its id, as the list has it.
        id: String,
    },
}

impl FaultRequest {
    /// Whether it changes nothing.
    pub fn is_look(&self) -> bool {
        match self {
            Self::List => true,
            Self::Inject(asked) => asked.dry_run,
            Self::Notify(_) | Self::Stop { .. } | Self::Clear(_) | Self::Remove { .. } => false,
        }
    }
}

/// Where memory is that is or would be bad, and what the guest makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultPlace {
    /// Where the guest sees its first byte; none: nowhere.
    pub gpa: Option<u64>,
    /// Bytes, whole lines of 64.
    pub len: u64,
    /// What is there, as the guest physical map has it.
    pub kind: Option<String>,
    /// Name of what is there, where there are several.
    pub name: Option<String>,
    /// Proximity domain.
    pub node: Option<u32>,
    /// Number that Linux gives that node.
    pub linux_node: Option<u32>,
    /// Name of the NVDIMM with the first byte.
    pub nvdimm: Option<String>,
    /// Address of the first byte in it.
    pub dpa: Option<u64>,
    /// What a load of it comes to.
    pub load: FaultLoad,
}

/// What a load of a bad line comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultLoad {
    /// A machine check; the end of the machine where the processor can take none.
    MachineCheck,
    /// The bytes that are there: accesses to so many other pages are caught already.
    NotCaught,
    /// No load reaches it: no range of the guest has it.
    OutOfReach,
}

/// What an injection did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// How accesses to it are caught; empty: they are not.
    pub mechanisms: Vec<Mechanism>,
    /// Who hears of a machine check.
    pub delivery: Delivery,
    /// What is bad, or will be, in address order.
    pub places: Vec<FaultPlace>,
    /// Number of the storm that will make it bad; none: it is bad now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<u64>,
}

/// Errors that are still to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StormInfo {
    /// Number.
    pub id: u64,
    /// Ranges that are still good.
    pub left: u64,
    /// Ranges that are bad by now.
    pub done: u64,
    /// Milliseconds until the first is due; 0: it was.
    pub begins_in_ms: u64,
}

/// A line that is good until it is loaded from so often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwaitedInfo {
    /// Guest physical address of its first byte.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
    /// What counts.
    pub on: AwaitedAccess,
    /// Loads until it is bad, the one that meets it included, or stores, the one that makes it bad included.
    pub left: u32,
}

/// What a line waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwaitedAccess {
    /// Loads of it.
    Load,
    /// Stores to it.
    Store,
}

/// What happened to bad memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultChange {
    /// The host made it bad.
    Injected,
    /// The guest made it bad (EINJ).
    InjectedByGuest,
    /// The guest was told of an error.
    Notified,
    /// The host made it good.
    Cleared,
    /// A vCPU loaded it, and took a machine check.
    Consumed,
    /// A virtio device read it, and failed the request.
    MetByDevice,
    /// It went with its memory device.
    Unplugged,
    /// The host's own memory there is bad: what it held is lost.
    Lost,
}

/// One bad range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultInfo {
    /// What it is called: the address of its first byte, or the NVDIMM's name and the address in there.
    pub id: String,
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
    /// The page fails whoever touches it (userfaultfd), which costs nothing before; touched, it is taken out of the slots.
    Userfaultfd,
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
    /// Requests of virtio devices that failed because a device would have read a bad line.
    #[serde(default)]
    pub device_requests: u64,
    /// Pages, or larger units, of the guest's memory that the host has lost.
    #[serde(default)]
    pub host_errors: u64,
    /// Microseconds from the last load of a bad line to its machine check.
    pub last_latency_us: Option<u64>,
}

/// All bad ranges, and what is done about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultList {
    /// Those of NVDIMMs by slot and DPA, then all others by address.
    pub faults: Vec<FaultInfo>,
    /// How accesses can be caught; the second one is for pages beyond what slots can do without.
    pub mechanisms: Vec<Mechanism>,
    /// Whether the other lines of a page with a bad one stay readable, for instructions that KVM can carry out.
    pub neighbours_readable: bool,
    /// Who hears of a machine check.
    pub delivery: Delivery,
    /// Pages whose accesses are carried out one by one.
    pub pages: u64,
    /// Pages beyond those, whose first access is caught.
    #[serde(default)]
    pub pages_trapped: u64,
    /// Pages with bad lines whose accesses are not caught, because there would be too many.
    pub pages_left_out: u64,
    /// What happened so far.
    pub counts: FaultCounts,
    /// What firmware has told the guest; empty: the machine has no error interfaces.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
    /// What the extended error log has; none: the machine has no such log.
    #[serde(default)]
    pub extended_log: Option<ExtlogInfo>,
    /// Errors that are still to come.
    #[serde(default)]
    pub storms: Vec<StormInfo>,
    /// Lines that are good until they are loaded from.
    #[serde(default)]
    pub awaited: Vec<AwaitedInfo>,
}
