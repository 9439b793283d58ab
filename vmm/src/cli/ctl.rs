//! `daxvisor ctl`: one request to a running machine, its reply for people or for programs.
//!
//! Exit codes are its own ([`EXIT_CODES`]): what happens to the machine is not what happened to the request.

mod fault;
mod link;
mod show;

use super::{ExitCode, Failure, seconds};
use crate::{
    api::{
        client::{self, Client, ClientError},
        routes::{self, written},
    },
    config::{DiskFault, DiskThrottle, HexAddress, LimitsConfig, MemoryDeviceConfig, NvdimmConfig, flags},
    control::{
        CONSOLE_KEPT, ControlError, DaxRange, DaxRequest, DiskRequest, Event, GuestPower, Happening, LimitsRequest,
        LookRequest, MAX_WAIT, MediaRange, MemoryRequest, NvdimmRequest, OperationInfo, OperationRequest,
        OperationState, Request,
    },
};
use clap::{Args, Subcommand};
use devices::units::ByteSize;
use fault::FaultVerb;
use link::LinkError;
use serde::Deserialize;
use serde_json::Value;
use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

/// What `ctl` exits with.
const EXIT_CODES: &str = "Exit codes:
  0   done
  1   the machine refused the request, or could not do it
  2   bad command line
  3   no machine can be reached on the socket
  4   the machine ended, or closed the connection, before it replied
  5   with --wait: the guest has not confirmed it in time; what the machine did stays done
  124 --timeout passed before a reply";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct CtlArgs {
    /// Socket of the machine: what its --api-socket says
    #[arg(long, value_name = "PATH")]
    api_socket: PathBuf,
    /// Print replies as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Wait until the guest has confirmed what it is asked to do
    #[arg(long, global = true)]
    wait: bool,
    /// Wait so long for a reply, and with --wait for the guest
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
    /// Show the phase: running, paused or on its way
    State,
    /// Show the guest physical map
    Map,
    /// Show NUMA nodes, vCPUs and distances
    Nodes,
    /// List the devices of the platform
    Devices,
    /// Show counters of the run
    Metrics,
    /// Show the last that the guest wrote to its console
    Console {
        /// How many bytes of it
        #[arg(long, default_value_t = CONSOLE_KEPT, value_parser = clap::value_parser!(u64).range(..=CONSOLE_KEPT))]
        bytes: u64,
    },
    /// Show what happened to the machine
    Events {
        /// Only what happened after this event
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
        /// Go on until the machine ends, from now on or from --since
        #[arg(long)]
        follow: bool,
    },
    /// ACPI tables that the guest was started with
    #[command(subcommand)]
    Table(TableVerb),
    /// Press the power button: the guest is asked to turn itself off
    PowerButton,
    /// Ask the guest to end by itself, in the way that this machine's guest listens to
    Ask {
        /// What it is to do
        what: GuestPower,
    },
    /// Stop every vCPU; done when all of them stand still
    Pause,
    /// Let the vCPUs go on
    Resume,
    /// Reset the machine at once, without asking the guest: it starts again with everything that was added to it
    Reboot,
    /// End the machine at once, without asking the guest
    Quit,
    /// NVDIMMs
    #[command(subcommand)]
    Nvdimm(NvdimmVerb),
    /// What is under way
    #[command(subcommand)]
    Operation(OperationVerb),
    /// Memory devices
    #[command(subcommand)]
    Memory(MemoryVerb),
    /// Ranges of device-dax nodes of the host
    #[command(subcommand)]
    Dax(DaxVerb),
    /// Disks and their faults
    #[command(subcommand)]
    Disk(DiskVerb),
    /// Memory errors that the guest meets
    #[command(subcommand)]
    Fault(FaultVerb),
    /// Limits of the machine's RAM
    #[command(subcommand)]
    Limits(LimitsVerb),
    /// Pass bytes on as they are: standard input to the socket, what comes back to standard output
    Raw,
}

#[derive(Subcommand)]
enum OperationVerb {
    /// List the operations under way, and the last that ended
    List,
    /// Show one of them; with --wait, when it has ended
    Show {
        /// Its number, as `list` shows it
        id: u64,
    },
}

#[derive(Subcommand)]
enum TableVerb {
    /// List them
    List,
    /// Show the bytes of one
    Show {
        /// Its signature, as `list` shows it
        signature: String,
    },
}

#[derive(Subcommand)]
enum NvdimmVerb {
    /// List the NVDIMMs there are
    List,
    /// Show one of them
    Show {
        /// Its name, as `list` shows it
        id: String,
    },
    /// Show sensors, counters and thresholds of one
    Health {
        /// Its name, as `list` shows it
        id: String,
    },
    /// Give the guest one more NVDIMM, as --nvdimm of `run` describes it; the guest confirms by reading the new NFIT
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
    /// Make bytes bad: of one NVDIMM, or of what the guest sees at an address
    Inject {
        #[command(flatten)]
        range: RangeArgs,
        /// Do not tell the guest: it learns of the error when it scrubs or reads
        #[arg(long)]
        latent: bool,
    },
    /// Make bytes good, whoever made them bad
    Clear {
        #[command(flatten)]
        range: RangeArgs,
    },
    /// List the bad ranges there are
    Errors {
        /// Those of one NVDIMM
        #[arg(long, value_name = "ID")]
        dimm: Option<String>,
    },
}

#[derive(Args)]
struct RangeArgs {
    /// NVDIMM whose own addresses (DPAs) are meant; without it, guest physical addresses
    #[arg(long, value_name = "ID")]
    dimm: Option<String>,
    /// First byte, such as 0x100001000 or 4K
    start: HexAddress,
    /// Bytes; errors are whole lines of 64
    len: HexAddress,
}

impl RangeArgs {
    fn range(&self) -> MediaRange {
        MediaRange {
            id: self.dimm.clone(),
            start: self.start.0,
            len: self.len.0,
        }
    }
}

#[derive(Subcommand)]
enum MemoryVerb {
    /// List the memory devices there are, and what the guest has made of them
    List,
    /// Give the guest one more, as --memory-device of `run` describes it; the guest confirms by adding it
    Add {
        /// [size=]SIZE[,node=N][,id=ID][,slot=N][,backing=KIND][,file=PATH][,offset=SIZE][,shared=on|off]...
        #[arg(value_parser = memory_device)]
        device: Box<MemoryDeviceConfig>,
    },
    /// Ask the guest to give one back; it confirms by doing so, or says that it does not
    Remove {
        /// Its name, as `list` shows it
        id: String,
        /// Seconds that the guest may take
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
        deadline: Option<u16>,
    },
    /// Ask the guest to have so much of a virtio-mem device plugged; done when it has, or after 30 s. Without a name: set the
    /// machine's target, as `limits set target=SIZE` does
    #[command(allow_missing_positional = true)]
    Target {
        /// Its name, as `list` shows it
        id: Option<String>,
        /// Bytes, or with K, M, G or T
        size: ByteSize,
    },
}

#[derive(Subcommand)]
enum DaxVerb {
    /// Give the guest one; the operation ends as that of `nvdimm add` or `memory add` does, or at the next boot
    Add {
        /// [file=]NODE,as=nvdimm|memory|soft-reserved[,offset=SIZE][,size=SIZE][,node=N][,id=ID]
        #[arg(value_parser = dax_range)]
        range: Box<DaxRange>,
    },
}

fn dax_range(text: &str) -> Result<Box<DaxRange>, String> {
    flags::dax_range(text).map(Box::new).map_err(|e| e.to_string())
}

fn memory_device(text: &str) -> Result<Box<MemoryDeviceConfig>, String> {
    flags::memory_device(text).map(Box::new).map_err(|e| e.to_string())
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
            Self::State => Request::Look(LookRequest::State),
            Self::Map => Request::Look(LookRequest::Map),
            Self::Nodes => Request::Look(LookRequest::Nodes),
            Self::Devices => Request::Look(LookRequest::Devices),
            Self::Metrics => Request::Look(LookRequest::Metrics),
            Self::Console { bytes } => Request::Look(LookRequest::Console { bytes: *bytes }),
            Self::Events { since, .. } => Request::Look(LookRequest::Events {
                since: since.unwrap_or(0),
            }),
            Self::Table(TableVerb::List) => Request::Look(LookRequest::Tables),
            Self::Table(TableVerb::Show { signature }) => Request::Look(LookRequest::Table {
                signature: signature.clone(),
            }),
            Self::Nvdimm(NvdimmVerb::Show { id }) => Request::Nvdimm(NvdimmRequest::Show { id: id.clone() }),
            Self::Nvdimm(NvdimmVerb::Health { id }) => Request::Nvdimm(NvdimmRequest::Health { id: id.clone() }),
            Self::PowerButton => Request::PowerButton,
            Self::Ask { what } => Request::Ask(*what),
            Self::Pause => Request::Pause,
            Self::Resume => Request::Resume,
            Self::Reboot => Request::Reboot,
            Self::Quit => Request::Quit,
            Self::Nvdimm(NvdimmVerb::List) => Request::Nvdimm(NvdimmRequest::List),
            Self::Nvdimm(NvdimmVerb::Add { nvdimm }) => Request::Nvdimm(NvdimmRequest::Add(nvdimm.clone())),
            Self::Nvdimm(NvdimmVerb::Lock { id }) => Request::Nvdimm(NvdimmRequest::Lock { id: id.clone() }),
            Self::Operation(OperationVerb::List) => Request::Operation(OperationRequest::List),
            Self::Operation(OperationVerb::Show { id }) => {
                Request::Operation(OperationRequest::Show { id: *id, wait: 0 })
            }
            Self::Memory(MemoryVerb::List) => Request::Memory(MemoryRequest::List),
            Self::Memory(MemoryVerb::Add { device }) => Request::Memory(MemoryRequest::Add(device.clone())),
            Self::Memory(MemoryVerb::Remove { id, deadline }) => Request::Memory(MemoryRequest::Remove {
                id: id.clone(),
                deadline: *deadline,
            }),
            Self::Nvdimm(NvdimmVerb::Inject { range, latent }) => Request::Nvdimm(NvdimmRequest::Inject {
                range: range.range(),
                latent: *latent,
            }),
            Self::Nvdimm(NvdimmVerb::Clear { range }) => Request::Nvdimm(NvdimmRequest::Clear { range: range.range() }),
            Self::Nvdimm(NvdimmVerb::Errors { dimm }) => Request::Nvdimm(NvdimmRequest::Errors { id: dimm.clone() }),
            Self::Memory(MemoryVerb::Target { id: Some(id), size }) => Request::Memory(MemoryRequest::Target {
                id: id.clone(),
                size: *size,
            }),
            Self::Memory(MemoryVerb::Target { id: None, size }) => Request::Limits(LimitsRequest::Set(LimitsConfig {
                target: Some(*size),
                ..LimitsConfig::default()
            })),
            Self::Dax(DaxVerb::Add { range }) => Request::Dax(DaxRequest::Add(range.clone())),
            Self::Disk(verb) => Request::Disk(verb.request()),
            Self::Limits(LimitsVerb::Get) => Request::Limits(LimitsRequest::Get),
            Self::Limits(LimitsVerb::Set { limits }) => Request::Limits(LimitsRequest::Set(*limits)),
            Self::Fault(verb) => verb.request(),
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
    Client(#[from] ClientError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Refused(#[from] ControlError),
    #[error("{0} is not confirmed by the guest; hint: `operation show {1}` tells how far it is")]
    Unconfirmed(String, u64),
    #[error("the reply cannot be understood: {0}; hint: the machine may run another version of daxvisor")]
    Reply(String),
    #[error("cannot write the reply")]
    Output(#[source] io::Error),
}

impl CtlError {
    fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Reply(_) | Self::Output(_) | Self::Client(ClientError::Answer(_)) => 1,
            Self::Client(
                ClientError::Missing(_) | ClientError::Dead(_) | ClientError::Permission(_) | ClientError::Connect(..),
            ) => 3,
            Self::Client(ClientError::Ended | ClientError::Io(_)) | Self::Link(_) => 4,
            Self::Unconfirmed(..) => 5,
            Self::Client(ClientError::Timeout(_)) => 124,
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
    let Some(request) = args.verb.request() else {
        let stream = client::connect(&args.api_socket, args.connect_timeout)?;
        return Ok(link::pass_through(stream)?);
    };
    let mut client = Client::connect(&args.api_socket, args.connect_timeout)?;
    match args.verb {
        Verb::Events { since, follow: true } => return follow(&mut client, since, args.json, |_| true),
        Verb::Fault(FaultVerb::Watch { since }) => {
            let wanted = |what: &Happening| matches!(what, Happening::Fault { .. } | Happening::Gap { .. });
            return follow(&mut client, since, args.json, wanted);
        }
        _ => {}
    }
    let deadline = Instant::now() + args.timeout;
    let mut reply = ask(&mut client, &request, args.timeout)?;
    let mut verdict = Ok(());
    if args.wait && is_operation(&request) {
        let operation = wait(&mut client, &reply, deadline)?;
        reply = serde_json::to_value(&operation).map_err(|e| CtlError::Reply(e.to_string()))?;
        verdict = judge(operation);
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&reply).map_err(|e| CtlError::Reply(e.to_string()))? + "\n",
        false => show::text(&request, reply).map_err(|e| CtlError::Reply(e.to_string()))?,
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(CtlError::Output(e)),
        _ => verdict,
    }
}

/// Prints the `wanted` events as they happen. They end with the machine, or with whoever reads them.
fn follow(
    client: &mut Client,
    since: Option<u64>,
    json: bool,
    wanted: impl Fn(&Happening) -> bool,
) -> Result<(), CtlError> {
    let mut failed = Ok(());
    client.stream(&routes::stream(since), None, |value| {
        let event = Event::deserialize(&value);
        if event.as_ref().is_ok_and(|event| !wanted(&event.what)) {
            return true;
        }
        let text = match json {
            true => Ok(format!("{value}\n")),
            false => event.map(|event| show::event(&event)),
        };
        failed = text.map_err(|e| CtlError::Reply(e.to_string())).and_then(|text| {
            let mut out = io::stdout().lock();
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.map_err(CtlError::Output)
        });
        failed.is_ok()
    })?;
    match failed {
        Err(CtlError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether the reply is an operation, which has an end to wait for.
fn is_operation(request: &Request) -> bool {
    matches!(
        request,
        Request::Nvdimm(NvdimmRequest::Add(_))
            | Request::Memory(MemoryRequest::Add(_) | MemoryRequest::Remove { .. } | MemoryRequest::Target { .. })
            | Request::Dax(_)
            | Request::Operation(OperationRequest::Show { .. })
    )
}

/// One request and the content of its reply.
fn ask(client: &mut Client, request: &Request, limit: Duration) -> Result<Value, CtlError> {
    let written = written(request);
    let answer = client.send(written.method.name(), &written.path, written.body.as_ref(), limit)?;
    let content = answer.json()?;
    if answer.status < 400 {
        return Ok(content);
    }
    let error: ControlError = serde_json::from_value(content).map_err(|e| CtlError::Reply(e.to_string()))?;
    Err(error.into())
}

/// The operation of a reply when it has ended, or as far as it is at the deadline.
fn wait(client: &mut Client, reply: &Value, deadline: Instant) -> Result<OperationInfo, CtlError> {
    let read = |reply: &Value| OperationInfo::deserialize(reply).map_err(|e| CtlError::Reply(e.to_string()));
    let mut operation = read(reply)?;
    while operation.state == OperationState::Running {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let (id, wait) = (operation.id, left.min(MAX_WAIT));
        let request = Request::Operation(OperationRequest::Show { id, wait });
        // Somewhat longer than the machine waits.
        let limit = Duration::from_secs(wait + 10);
        operation = read(&ask(client, &request, limit)?)?;
    }
    Ok(operation)
}

fn judge(operation: OperationInfo) -> Result<(), CtlError> {
    match (operation.state, operation.error) {
        (OperationState::Done, _) => Ok(()),
        (OperationState::Failed, Some(error)) => Err(error.into()),
        _ => Err(CtlError::Unconfirmed(operation.target, operation.id)),
    }
}
