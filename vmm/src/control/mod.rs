//! What can be asked of a running machine, and when. Pure: no sockets, no machine.
//!
//! One [`Request`] is what a route of the API and a verb of `daxvisor ctl` ask. [`admit`] is the whole policy of what may be
//! asked in which [`Phase`]; what depends on more than the phase is refused by the machine when it acts. How requests and
//! answers travel is the affair of `api`.
//!
//! ```text
//!            pause           every vCPU stands         resume
//!   running -------> pausing -----------------> paused -------> running
//!      ^                | not within the deadline
//!      +----------------+                          quit: ending, from every phase
//!      ^
//!      +-- restarting <-- reboot, a reset by the guest: from every phase
//! ```

mod dax;
mod error;
mod event;
mod fault;
mod info;
mod limits;
mod look;
mod media;
mod operation;
mod power;
mod virtio;

pub use dax::{DaxPlan, DaxRange, DaxRequest, Presented, RangePlanned};
pub use error::{ControlError, ErrorKind, Problem};
pub use event::{Event, EventList, EventLog, Happening};
pub use fault::{
    AwaitedAccess, AwaitedInfo, Count, Delivery, FaultChange, FaultCounts, FaultInfo, FaultInject, FaultList,
    FaultLoad, FaultNotified, FaultNotify, FaultPlace, FaultRange, FaultReport, FaultRequest, FaultTarget, MAX_RANDOM,
    Mechanism, NotifyPlan, NotifySeverity, NotifyTarget, NotifyVia, StormInfo,
};
pub use info::{
    MachineInfo, MemoryDeviceInfo, MemoryDeviceKind, MemoryList, MemoryRemoved, NvdimmAdded, NvdimmInfo, NvdimmList,
    OstInfo, Plugging, Response, StateInfo,
};
pub use limits::{LimitsInfo, LimitsRequest, change_limits};
pub use look::{
    CONSOLE_KEPT, ConsoleTail, DeviceInfo, DeviceList, EVENTS_TOLD, Exits, HealthInfo, LookRequest, MapInfo, Metrics,
    NodeList, Sight, TableEntry, TableInfo, TableList, ThresholdsInfo,
};
pub use media::{MediaErrorInfo, MediaErrorList, MediaInject, MediaRange};
pub use operation::{
    GuestAction, GuestStep, OperationInfo, OperationKind, OperationList, OperationResult, OperationState,
};
pub use power::GuestPower;
pub use virtio::{
    DiskFaultInfo, DiskInfo, DiskList, DiskRequest, MemoryTarget, MemoryTargetInfo, NetFrames, NetInfo, ShareInfo,
    VirtioInfo, VirtioMemInfo, VirtioMemRequests, VirtioPmemInfo, VsockInfo,
};

use crate::config::{MemoryDeviceConfig, NvdimmConfig};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What becomes of a request.
pub type Answer = Result<Response, ControlError>;

/// Something asked of a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Tell what the machine is and does; answered by [`Response::Machine`].
    Describe,
    /// Press the ACPI power button: the guest is asked to turn itself off.
    PowerButton,
    /// Ask the guest to end by itself: a guest of Xen through its store, any other by the power button.
    Ask(GuestPower),
    /// Stop every vCPU; answered when all of them stand.
    Pause,
    /// Let the vCPUs go on.
    Resume,
    /// Reset the machine at once, without asking the guest: it starts again with everything that was added to it.
    Reboot,
    /// End the machine at once, without asking the guest.
    Quit,
    /// Something about the NVDIMMs.
    Nvdimm(NvdimmRequest),
    /// Something about what is under way.
    Operation(OperationRequest),
    /// A look at something; answered by [`Response::Sight`] or [`Response::State`].
    Look(LookRequest),
    /// Something about the memory devices.
    Memory(MemoryRequest),
    /// Something about ranges of device-dax nodes.
    Dax(DaxRequest),
    /// Something about the disks.
    Disk(DiskRequest),
    /// Something about the limits of RAM; answered by [`Response::Limits`].
    Limits(LimitsRequest),
    /// Something about memory errors.
    Fault(FaultRequest),
}

/// What can be asked about operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OperationRequest {
    /// Those that are remembered; answered by [`Response::Operations`].
    List,
    /// One of them; answered by [`Response::Operation`].
    Show {
        /// Its number.
        id: u64,
        /// Seconds to wait for its end before the answer; 0: none.
        wait: u64,
    },
}

/// Longest `wait` of [`OperationRequest::Show`] in seconds.
pub const MAX_WAIT: u64 = 60;

/// What can be asked about memory devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MemoryRequest {
    /// The devices there are; answered by [`Response::Memory`].
    List,
    /// One more, as `--memory-device` describes it; answered by [`Response::Operation`], which ends when the guest has
    /// added it. A device that the guest refuses, or has not looked at in time, is taken back.
    Add(Box<MemoryDeviceConfig>),
    /// Ask the guest to give one back; answered by [`Response::Operation`], which ends when it has, or fails with the reason when it
    /// refuses.
    Remove {
        /// Its name.
        id: String,
        /// Seconds that the guest may take; none: 30.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<u16>,
    },
    /// Ask the guest to have so much of a virtio-mem device plugged; answered by [`Response::Operation`], which ends
    /// when it has, or after a while with what it has done so far. The guest goes on afterwards.
    Target {
        /// Name of the device.
        id: String,
        /// Bytes.
        size: ByteSize,
    },
}

/// What can be asked about NVDIMMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NvdimmRequest {
    /// The NVDIMMs there are; answered by [`Response::Nvdimms`].
    List,
    /// One of them; answered by [`Response::Nvdimm`].
    Show {
        /// Its name.
        id: String,
    },
    /// Its sensors, counters and thresholds; answered by [`Response::Health`].
    Health {
        /// Its name.
        id: String,
    },
    /// One more NVDIMM, as `--nvdimm` describes it; answered by [`Response::Operation`] as soon as the guest has been told.
    /// The operation ends when the guest has read the new NFIT, or after a while if it does not.
    Add(Box<NvdimmConfig>),
    /// Lock an NVDIMM that has a passphrase, as a power cycle does. Firmware never does so while the guest runs: for tests.
    Lock {
        /// Its name.
        id: String,
    },
    /// Make bytes bad.
    Inject {
        /// Which.
        range: MediaRange,
        /// The guest does not learn of it before it scrubs or reads them.
        #[serde(default)]
        latent: bool,
    },
    /// Make bytes good, whoever made them bad.
    Clear {
        /// Which.
        range: MediaRange,
    },
    /// The bad ranges there are; answered by [`Response::MediaErrors`].
    Errors {
        /// Name of the one NVDIMM that is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The vCPUs run.
    Running,
    /// They are on their way to a stop.
    Pausing,
    /// Every one of them stands.
    Paused,
    /// The machine was reset and is about to start again.
    Restarting,
    /// The machine is being taken down.
    Ending,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Ending => "ending",
        })
    }
}

impl Request {
    /// Its words, as `daxvisor ctl` has them; names and numbers are left out.
    pub fn name(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        let mut words = vec![];
        // Two words at most: what comes below them is what the request carries.
        while words.len() < 2 {
            match value {
                serde_json::Value::String(word) => {
                    words.push(word);
                    break;
                }
                serde_json::Value::Object(inner) => {
                    let Some((word, content)) = inner.into_iter().next() else {
                        break;
                    };
                    words.push(word);
                    value = content;
                }
                _ => break,
            }
        }
        words.join(" ")
    }

    /// Whether it only looks.
    pub fn is_look(&self) -> bool {
        match self {
            Self::Describe
            | Self::Look(_)
            | Self::Operation(_)
            | Self::Limits(LimitsRequest::Get)
            | Self::Memory(MemoryRequest::List)
            | Self::Disk(DiskRequest::List) => true,
            Self::Fault(request) => request.is_look(),
            Self::Nvdimm(request) => matches!(
                request,
                NvdimmRequest::List
                    | NvdimmRequest::Show { .. }
                    | NvdimmRequest::Health { .. }
                    | NvdimmRequest::Errors { .. }
            ),
            _ => false,
        }
    }
}

/// Whether `request` may be acted on in `phase`.
pub fn admit(phase: Phase, request: &Request) -> Result<(), ControlError> {
    use Phase::{Ending, Paused, Pausing, Restarting, Running};
    match (request, phase) {
        (_, Ending) => Err(ControlError::new(ErrorKind::Ending, "the machine is ending")),
        (Request::Quit | Request::Describe | Request::Operation(_) | Request::Look(_), Restarting) => Ok(()),
        (_, Restarting) => Err(wrong(phase, "it takes this again when it runs").hint("try again later")),
        (
            Request::Describe
            | Request::Quit
            | Request::Reboot
            | Request::Operation(_)
            | Request::Look(_)
            | Request::Limits(_)
            | Request::Fault(_)
            | Request::Disk(_)
            | Request::Memory(MemoryRequest::List),
            _,
        )
        | (
            Request::Nvdimm(
                NvdimmRequest::List
                | NvdimmRequest::Show { .. }
                | NvdimmRequest::Health { .. }
                | NvdimmRequest::Lock { .. }
                | NvdimmRequest::Inject { .. }
                | NvdimmRequest::Clear { .. }
                | NvdimmRequest::Errors { .. },
            ),
            _,
        )
        | (
            Request::Pause
            | Request::PowerButton
            | Request::Ask(_)
            | Request::Nvdimm(NvdimmRequest::Add(_))
            | Request::Memory(_)
            | Request::Dax(_),
            Running,
        )
        | (Request::Resume, Paused) => Ok(()),
        (Request::Nvdimm(NvdimmRequest::Add(_)), Pausing | Paused) => {
            Err(wrong(phase, "an NVDIMM is added to a running guest").hint("resume the machine first"))
        }
        (
            Request::Memory(MemoryRequest::Add(_) | MemoryRequest::Remove { .. }) | Request::Dax(DaxRequest::Add(_)),
            Pausing | Paused,
        ) => Err(
            wrong(phase, "memory is added and removed together with a running guest").hint("resume the machine first"),
        ),
        (Request::Memory(MemoryRequest::Target { .. }), Pausing | Paused) => {
            Err(wrong(phase, "a running guest is asked for another size").hint("resume the machine first"))
        }
        (Request::PowerButton | Request::Ask(_), Pausing | Paused) => {
            Err(wrong(phase, "the power button needs a running guest").hint("resume the machine first"))
        }
        (Request::Pause, Pausing | Paused) => Err(wrong(phase, "only a running machine can be paused")),
        (Request::Resume, Pausing) => {
            Err(wrong(phase, "only a paused machine can be resumed").hint("wait for the reply to `pause`"))
        }
        (Request::Resume, Running) => Err(wrong(phase, "only a paused machine can be resumed")),
    }
}

fn wrong(phase: Phase, why: &str) -> ControlError {
    ControlError::new(ErrorKind::WrongState, format!("the machine is {phase}; {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Request; 11] = [
        Request::Describe,
        Request::PowerButton,
        Request::Pause,
        Request::Resume,
        Request::Quit,
        Request::Nvdimm(NvdimmRequest::List),
        Request::Memory(MemoryRequest::List),
        Request::Limits(LimitsRequest::Get),
        Request::Disk(DiskRequest::List),
        Request::Reboot,
        Request::Ask(GuestPower::PowerOff),
    ];

    #[test]
    fn requests_are_written_in_kebab_case() {
        let written = ALL.map(|r| serde_json::to_string(&r).unwrap());
        let expected = [
            r#""describe""#,
            r#""power-button""#,
            r#""pause""#,
            r#""resume""#,
            r#""quit""#,
            r#"{"nvdimm":"list"}"#,
            r#"{"memory":"list"}"#,
            r#"{"limits":"get"}"#,
            r#"{"disk":"list"}"#,
            r#""reboot""#,
            r#"{"ask":"power-off"}"#,
        ];
        assert_eq!(written, expected);
        for (request, text) in ALL.iter().zip(expected) {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), *request);
        }
    }

    #[test]
    fn each_phase_admits_its_requests_and_no_others() {
        let admitted = |phase| ALL.map(|r| u8::from(admit(phase, &r).is_ok()));
        // describe, power-button, pause, resume, quit, nvdimm list, memory list, limits get, disk list, reboot, ask
        assert_eq!(admitted(Phase::Running), [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(admitted(Phase::Pausing), [1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(admitted(Phase::Paused), [1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(admitted(Phase::Restarting), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(admitted(Phase::Ending), [0; 11]);
    }

    #[test]
    fn memory_comes_and_goes_while_the_guest_runs() {
        for text in [
            r#"{"memory":{"add":{"size":"1G","node":1}}}"#,
            r#"{"memory":{"remove":{"id":"x"}}}"#,
            r#"{"memory":{"remove":{"id":"x","deadline":5}}}"#,
        ] {
            let request: Request = serde_json::from_str(text).unwrap();
            admit(Phase::Running, &request).unwrap();
            for phase in [Phase::Pausing, Phase::Paused, Phase::Ending] {
                assert!(admit(phase, &request).is_err(), "{text} {phase}");
            }
        }
        for text in [
            r#"{"memory":{"add":{"sise":"1G"}}}"#,
            r#"{"memory":{"remove":{"id":"x","deadline":-1}}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_faults_are_asked_for_by_the_name_of_their_device() {
        let read = |text| serde_json::from_str::<Request>(text);
        let target = read(r#"{"memory":{"target":{"id":"virtio-mem0","size":"1G"}}}"#).unwrap();
        assert!(admit(Phase::Running, &target).is_ok() && admit(Phase::Paused, &target).is_err());
        let fault = read(r#"{"disk":{"add-fault":{"id":"disk0","fault":{"op":"read","hang":true}}}}"#).unwrap();
        assert!(admit(Phase::Paused, &fault).is_ok());
        assert!(read(r#"{"disk":{"add-fault":{"id":"disk0","fault":{"speed":1}}}}"#).is_err());
        assert!(read(r#"{"memory":{"target":{"id":"virtio-mem0"}}}"#).is_err());
    }

    #[test]
    fn requests_have_the_words_of_their_verbs() {
        let lock = Request::Nvdimm(NvdimmRequest::Lock { id: "secret".into() });
        assert_eq!((lock.name().as_str(), lock.is_look()), ("nvdimm lock", false));
        assert_eq!(Request::Pause.name(), "pause");
        let list = Request::Nvdimm(NvdimmRequest::List);
        assert_eq!((list.name().as_str(), list.is_look()), ("nvdimm list", true));
    }

    #[test]
    fn an_nvdimm_is_locked_by_its_name_in_every_phase_but_the_last() {
        let request: Request = serde_json::from_str(r#"{"nvdimm":{"lock":{"id":"dimm0"}}}"#).unwrap();
        assert_eq!(request, Request::Nvdimm(NvdimmRequest::Lock { id: "dimm0".into() }));
        for phase in [Phase::Running, Phase::Pausing, Phase::Paused] {
            admit(phase, &request).unwrap();
        }
        assert!(admit(Phase::Ending, &request).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"nvdimm":{"lock":{}}}"#).is_err());
    }

    #[test]
    fn errors_are_made_by_dpa_and_by_guest_address() {
        let read = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        let range = MediaRange {
            id: Some("a".into()),
            start: 4096,
            len: 64,
        };
        assert_eq!(
            read(r#"{"nvdimm":{"inject":{"range":{"id":"a","start":4096,"len":64}}}}"#),
            Request::Nvdimm(NvdimmRequest::Inject {
                range: range.clone(),
                latent: false
            })
        );
        let range = MediaRange { id: None, ..range };
        let clear = read(r#"{"nvdimm":{"clear":{"range":{"start":4096,"len":64}}}}"#);
        assert_eq!(clear, Request::Nvdimm(NvdimmRequest::Clear { range }));
        let errors = read(r#"{"nvdimm":{"errors":{}}}"#);
        assert_eq!(errors, Request::Nvdimm(NvdimmRequest::Errors { id: None }));
        for request in [clear, errors] {
            admit(Phase::Paused, &request).unwrap();
            assert!(admit(Phase::Ending, &request).is_err());
        }
        for bad in [
            r#"{"nvdimm":{"inject":{"range":{"start":-1,"len":64}}}}"#,
            r#"{"nvdimm":{"inject":{"range":{"start":0}}}}"#,
            r#"{"nvdimm":{"clear":{"range":{"start":0,"len":1,"more":1}}}}"#,
            r#"{"nvdimm":"errors"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_name_the_phase_and_have_a_stable_type() {
        for request in &ALL {
            for phase in [Phase::Running, Phase::Pausing, Phase::Paused] {
                if let Err(e) = admit(phase, request) {
                    assert_eq!(e.kind, ErrorKind::WrongState);
                    assert!(e.detail.contains(&phase.to_string()), "{}", e.detail);
                }
            }
            assert_eq!(admit(Phase::Ending, request).unwrap_err().kind, ErrorKind::Ending);
        }
    }
}
