//! `daxvisor ctl`: one request to a running machine, its reply for people or for programs.
//!
//! Exit codes are its own ([`EXIT_CODES`]): what happens to the machine is not what happened to the request.

mod link;
mod show;

use super::{ExitCode, Failure, seconds};
use crate::{
    config::{DiskFault, DiskThrottle, LimitsConfig, NvdimmConfig, flags},
    control::{ControlError, DiskRequest, LimitsRequest, MemoryRequest, NvdimmRequest, Request},
};
use clap::{Args, Subcommand};
use devices::units::ByteSize;
use link::{Link, LinkError};
use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

/// What `ctl` exits with.
const EXIT_CODES: &str = "Exit codes:
  0   done
  1   the machine refused the request, or could not do it
  2   bad command line
  3   no machine can be reached on the socket
  4   the machine ended, or closed the connection, before it replied
  124 --timeout passed";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct CtlArgs {
    /// Control socket of the machine: what its --control-socket says
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Print replies as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Wait so long for a reply
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    timeout: Duration,
    /// Try to connect for so long [default: once]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show state, uptime, guest physical map, nodes, vCPUs and NVDIMMs
    Describe,
    /// Press the power button: the guest is asked to turn itself off
    PowerButton,
    /// Stop every vCPU; done when all of them stand still
    Pause,
    /// Let the vCPUs go on
    Resume,
    /// End the machine at once, without asking the guest
    Quit,
    /// NVDIMMs
    #[command(subcommand)]
    Nvdimm(NvdimmVerb),
    /// Memory that grows and shrinks
    #[command(subcommand)]
    Memory(MemoryVerb),
    /// Disks and their faults
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Limits of the machine's RAM
    #[command(subcommand)]
    Limits(LimitsVerb),
    /// Pass requests on as they are: lines of JSON from standard input, replies to standard output
    Raw,
}

#[derive(Subcommand)]
enum NvdimmVerb {
    /// List the NVDIMMs there are
    List,
    /// Give the guest one more NVDIMM, as --nvdimm of `run` describes it; done when the guest has read the new NFIT
    Add {
        /// [file=]PATH,size=SIZE[,node=N][,label=SIZE][,readonly=on][,id=ID]...
        #[arg(value_parser = nvdimm)]
        nvdimm: Box<NvdimmConfig>,
    },
    /// Lock an NVDIMM that has a passphrase, as a power cycle does, while the guest runs: for tests
    Lock {
        /// Its name, as `list` shows it
        id: String,
    },
}

#[derive(Subcommand)]
enum MemoryVerb {
    /// Ask the guest to have so much of a virtio-mem device plugged; done when it has, or after 30 s
    Target {
        /// Its name, as `describe` shows it
        id: String,
        /// Bytes, or with K, M, G or T
        size: ByteSize,
    },
}

#[derive(Subcommand, Clone)]
enum DiskVerb {
    /// List the disks, their limits and their faults
    List,
    /// Make something wrong with a disk
    Fault {
        /// Its name, as `list` shows it
        id: String,
        /// [op=any|read|write|flush][,sectors=FIRST-LAST][,latency=TIME][,jitter=TIME][,distribution=KIND][,error=on]
        /// [,hang=on][,count=N]
        #[arg(value_parser = disk_fault)]
        fault: DiskFault,
    },
    /// Take faults away; what hangs by them goes on
    Heal {
        /// Its name, as `list` shows it
        id: String,
        /// Number of the fault, as `list` shows it [default: all]
        number: Option<u32>,
    },
    /// Set the limits of a disk; what is not named has none
    Throttle {
        /// Its name, as `list` shows it
        id: String,
        /// [bandwidth=SIZE][,iops=N][,burst=TIME]
        #[arg(value_parser = disk_throttle, default_value = "")]
        throttle: DiskThrottle,
    },
}

#[derive(Subcommand)]
enum LimitsVerb {
    /// Show the limits, and how much RAM there is
    Get,
    /// Change the dynamic limits or the target
    Set {
        /// [dynamic-max=SIZE][,target=SIZE][,dynamic-min=SIZE]
        #[arg(value_parser = limits)]
        limits: LimitsConfig,
    },
}

fn disk_fault(text: &str) -> Result<DiskFault, String> {
    flags::disk_fault(text).map_err(|e| e.to_string())
}

fn disk_throttle(text: &str) -> Result<DiskThrottle, String> {
    flags::disk_throttle(text).map_err(|e| e.to_string())
}

fn limits(text: &str) -> Result<LimitsConfig, String> {
    flags::limits(text).map_err(|e| e.to_string())
}

fn nvdimm(text: &str) -> Result<Box<NvdimmConfig>, String> {
    flags::nvdimm(text).map(Box::new).map_err(|e| e.to_string())
}

impl Verb {
    /// The request of a verb; `raw` is none.
    fn request(&self) -> Option<Request> {
        Some(match self {
            Self::Describe => Request::Describe,
            Self::PowerButton => Request::PowerButton,
            Self::Pause => Request::Pause,
            Self::Resume => Request::Resume,
            Self::Quit => Request::Quit,
            Self::Nvdimm(NvdimmVerb::List) => Request::Nvdimm(NvdimmRequest::List),
            Self::Nvdimm(NvdimmVerb::Add { nvdimm }) => Request::Nvdimm(NvdimmRequest::Add(nvdimm.clone())),
            Self::Nvdimm(NvdimmVerb::Lock { id }) => Request::Nvdimm(NvdimmRequest::Lock { id: id.clone() }),
            Self::Memory(MemoryVerb::Target { id, size }) => Request::Memory(MemoryRequest::Target {
                id: id.clone(),
                size: *size,
            }),
            Self::Disk(verb) => Request::Disk(verb.request()),
            Self::Limits(LimitsVerb::Get) => Request::Limits(LimitsRequest::Get),
            Self::Limits(LimitsVerb::Set { limits }) => Request::Limits(LimitsRequest::Set(*limits)),
            Self::Raw => return None,
        })
    }
}

impl DiskVerb {
    fn request(&self) -> DiskRequest {
        match self.clone() {
            Self::List => DiskRequest::List,
            Self::Fault { id, fault } => DiskRequest::AddFault { id, fault },
            Self::Heal { id, number } => DiskRequest::RemoveFault { id, number },
            Self::Throttle { id, throttle } => DiskRequest::Throttle { id, throttle },
        }
    }
}

/// Why nothing was done, or nothing is known of it.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Refused(#[from] ControlError),
    #[error("the reply cannot be understood: {0}; hint: the machine may run another version of daxvisor")]
    Reply(String),
    #[error("cannot write the reply")]
    Output(#[source] io::Error),
}

impl CtlError {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Reply(_) | Self::Output(_) => 1,
            Self::Link(error) => error.code(),
        }
    }
}

/// Runs one verb. The exit code says what became of the request.
pub(super) fn run(args: &CtlArgs) -> Result<ExitCode, Failure> {
    match perform(args) {
        Ok(()) => Ok(ExitCode::PassedOn(0)),
        Err(error) => Err(Failure::new(ExitCode::PassedOn(error.code()), error)),
    }
}

fn perform(args: &CtlArgs) -> Result<(), CtlError> {
    let mut link = Link::connect(&args.socket, args.connect_timeout)?;
    let Some(request) = args.verb.request() else {
        return Ok(link.pass_through()?);
    };
    let reply = link.call(&request, args.timeout)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&reply).map_err(|e| CtlError::Reply(e.to_string()))? + "\n",
        false => show::text(&request, reply).map_err(|e| CtlError::Reply(e.to_string()))?,
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CtlError::Output(e)),
        _ => Ok(()),
    }
}
