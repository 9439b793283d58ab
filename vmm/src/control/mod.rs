//! What can be asked of a running machine, and when. Pure: no sockets, no machine.
//!
//! One [`Request`] is the control socket's message, the `daxvisor ctl` verb and the vocabulary of tests. [`admit`] is the
//! whole policy of what may be asked in which [`Phase`]; what depends on more than the phase is refused by the machine
//! when it acts. [`wire`] is how requests and replies are written on a stream.
//!
//! ```text
//!            pause           every vCPU stands         resume
//!   running -------> pausing -----------------> paused -------> running
//!      ^                | not within the deadline
//!      +----------------+                          quit: ending, from every phase
//! ```

mod error;
mod info;
mod limits;
mod virtio;
pub mod wire;

pub use error::{ControlError, ErrorKind};
pub use info::{MachineInfo, NvdimmAdded, NvdimmInfo, NvdimmList, Response, StateInfo};
pub use limits::{LimitsInfo, LimitsRequest, change_limits};
pub use virtio::{
    DiskFaultInfo, DiskInfo, DiskList, DiskRequest, MemoryRequest, MemoryTargetInfo, VirtioInfo, VirtioMemInfo,
    VirtioMemRequests, VirtioPmemInfo,
};

use crate::config::NvdimmConfig;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something asked of a running machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Tell what the machine is and does; answered by [`Response::Machine`].
    Describe,
    /// Press the ACPI power button: the guest is asked to turn itself off.
    PowerButton,
    /// Stop every vCPU; answered when all of them stand.
    Pause,
    /// Let the vCPUs go on.
    Resume,
    /// End the machine at once, without asking the guest.
    Quit,
    /// Something about the NVDIMMs.
    Nvdimm(NvdimmRequest),
    /// Something about memory that grows and shrinks.
    Memory(MemoryRequest),
    /// Something about the disks.
    Disk(DiskRequest),
    /// Something about the limits of RAM; answered by [`Response::Limits`].
    Limits(LimitsRequest),
}

/// What can be asked about NVDIMMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NvdimmRequest {
    /// The NVDIMMs there are; answered by [`Response::Nvdimms`].
    List,
    /// One more NVDIMM, as `--nvdimm` describes it; answered by [`Response::NvdimmAdded`] when the guest has read the new
    /// NFIT, or after a while if it does not.
    Add(Box<NvdimmConfig>),
    /// Lock an NVDIMM that has a passphrase, as a power cycle does. Firmware never does so while the guest runs: for tests.
    Lock {
        /// Its name.
        id: String,
    },
}

/// Where a machine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The vCPUs run.
    Running,
    /// They are on their way to a stop.
    Pausing,
    /// Every one of them stands.
    Paused,
    /// The machine is being taken down.
    Ending,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Ending => "ending",
        })
    }
}

/// Whether `request` may be acted on in `phase`.
pub fn admit(phase: Phase, request: &Request) -> Result<(), ControlError> {
    use Phase::{Ending, Paused, Pausing, Running};
    match (request, phase) {
        (_, Ending) => Err(ControlError::new(ErrorKind::Ending, "the machine is ending")),
        (
            Request::Describe
            | Request::Quit
            | Request::Limits(_)
            | Request::Disk(_)
            | Request::Nvdimm(NvdimmRequest::List | NvdimmRequest::Lock { .. }),
            _,
        )
        | (
            Request::Pause | Request::PowerButton | Request::Nvdimm(NvdimmRequest::Add(_)) | Request::Memory(_),
            Running,
        )
        | (Request::Resume, Paused) => Ok(()),
        (Request::Nvdimm(NvdimmRequest::Add(_)), Pausing | Paused) => {
            Err(wrong(phase, "an NVDIMM is added to a running guest").hint("resume the machine first"))
        }
        (Request::Memory(_), Pausing | Paused) => {
            Err(wrong(phase, "a running guest is asked for another size").hint("resume the machine first"))
        }
        (Request::PowerButton, Pausing | Paused) => {
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

    const ALL: [Request; 8] = [
        Request::Describe,
        Request::PowerButton,
        Request::Pause,
        Request::Resume,
        Request::Quit,
        Request::Nvdimm(NvdimmRequest::List),
        Request::Limits(LimitsRequest::Get),
        Request::Disk(DiskRequest::List),
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
            r#"{"limits":"get"}"#,
            r#"{"disk":"list"}"#,
        ];
        assert_eq!(written, expected);
        for (request, text) in ALL.iter().zip(expected) {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), *request);
        }
    }

    #[test]
    fn each_phase_admits_its_requests_and_no_others() {
        let admitted = |phase| ALL.map(|r| u8::from(admit(phase, &r).is_ok()));
        // describe, power-button, pause, resume, quit, nvdimm list, limits get, disk list
        assert_eq!(admitted(Phase::Running), [1, 1, 1, 0, 1, 1, 1, 1]);
        assert_eq!(admitted(Phase::Pausing), [1, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(admitted(Phase::Paused), [1, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(admitted(Phase::Ending), [0; 8]);
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
