//! The routes: one table that dispatch and the OpenAPI document are made of, and its inverse for clients.

use super::serve::short;
use crate::{
    config::{DiskFault, DiskThrottle, LimitsConfig, MemoryDeviceConfig, NvdimmConfig},
    control::{
        CONSOLE_KEPT, ConsoleTail, ControlError, DeviceList, DiskInfo, DiskList, DiskRequest, ErrorKind, Event,
        EventList, HealthInfo, LimitsInfo, LimitsRequest, LookRequest, MAX_WAIT, MachineInfo, MapInfo, MediaErrorList,
        MediaInject, MediaRange, MemoryList, MemoryRequest, MemoryTarget, Metrics, NodeList, NvdimmInfo, NvdimmList,
        NvdimmRequest, OperationInfo, OperationList, OperationRequest, Request, StateInfo, TableInfo, TableList,
    },
};
use hyper::body::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::borrow::Cow;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// Method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks.
    Get,
    /// Makes, or does.
    Post,
    /// Sets.
    Put,
    /// Removes.
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A type that travels, for the OpenAPI document.
pub struct Noun {
    /// Name of its schema.
    pub name: fn() -> Cow<'static, str>,
    /// Its schema and those it refers to.
    pub collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

const fn noun<T: ToSchema>() -> Noun {
    Noun {
        name: T::name,
        collect: |all| {
            all.push((T::name().into_owned(), T::schema()));
            T::schemas(all);
        },
    }
}

/// A parameter in the path or the query.
pub struct Parameter {
    /// Name; in the path when the path has it in braces.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its values.
    pub values: Values,
}

/// Values of a parameter.
pub enum Values {
    /// Any text.
    Text,
    /// A number from 0 to this one.
    UpTo(u64),
}

/// What a route does.
pub enum Does {
    /// Asks the machine's loop.
    Ask(fn(&Input) -> Result<Request, ControlError>),
    /// Gives the OpenAPI document.
    Document,
    /// Streams events.
    Stream,
}

/// One route.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path below [`super::BASE`].
    pub path: &'static str,
    /// Name of the operation in the OpenAPI document.
    pub id: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Parameters of path and query.
    pub parameters: &'static [Parameter],
    /// What it takes.
    pub body: Option<Noun>,
    /// What it answers; none: any JSON.
    pub answer: Option<Noun>,
    /// Whether the answer is 202 and the operation that has begun.
    pub accepted: bool,
    /// What it does.
    pub does: Does,
}

/// A row without parameters or body, that is answered when it is done.
const fn route(method: Method, path: &'static str, id: &'static str, about: &'static str, does: Does) -> Route {
    Route {
        method,
        path,
        id,
        about,
        parameters: &[],
        body: None,
        answer: None,
        accepted: false,
        does,
    }
}

impl Route {
    const fn with(self, parameters: &'static [Parameter]) -> Self {
        Self { parameters, ..self }
    }

    const fn takes<T: ToSchema>(self) -> Self {
        Self {
            body: Some(noun::<T>()),
            ..self
        }
    }

    const fn answers<T: ToSchema>(self) -> Self {
        Self {
            answer: Some(noun::<T>()),
            ..self
        }
    }

    /// Answers 202 with an operation.
    const fn begins(self) -> Self {
        Self {
            accepted: true,
            ..self.answers::<OperationInfo>()
        }
    }
}

/// The name of an NVDIMM in a path.
const NVDIMM_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the NVDIMM.",
    values: Values::Text,
};
/// The name of a disk in a path.
const DISK_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the disk.",
    values: Values::Text,
};
const MEMORY_ID: Parameter = Parameter {
    name: "id",
    about: "Name of the memory device.",
    values: Values::Text,
};
const DEADLINE: Parameter = Parameter {
    name: "deadline",
    about: "Seconds that the guest may take; 30 when it is left out.",
    values: Values::UpTo(3600),
};
const FAULT_NUMBER: Parameter = Parameter {
    name: "number",
    about: "Number of the fault.",
    values: Values::UpTo(u32::MAX as u64),
};
const SINCE: Parameter = Parameter {
    name: "since",
    about: "Number of the last event that is known.",
    values: Values::UpTo(u64::MAX >> 1),
};
const BYTES: Parameter = Parameter {
    name: "bytes",
    about: "How many of the last bytes; all that are kept when it is left out.",
    values: Values::UpTo(CONSOLE_KEPT),
};
const SIGNATURE: Parameter = Parameter {
    name: "signature",
    about: "Signature of the table.",
    values: Values::Text,
};
const OPERATION_ID: Parameter = Parameter {
    name: "id",
    about: "Number of the operation.",
    values: Values::UpTo(u64::MAX >> 1),
};
const WAIT: Parameter = Parameter {
    name: "wait",
    about: "Seconds to wait for its end before the answer.",
    values: Values::UpTo(MAX_WAIT),
};

use Does::{Ask, Document, Stream};
use Method::{Delete, Get, Post, Put};

/// All routes.
pub static ROUTES: &[Route] = &[
    route(Get, "/openapi.json", "openapi", "This document.", Document),
    route(
        Get,
        "/vm",
        "describe",
        "The whole machine: state, map, nodes, vCPUs, NVDIMMs.",
        Ask(|_| Ok(Request::Describe)),
    )
    .answers::<MachineInfo>(),
    route(
        Get,
        "/vm/state",
        "state",
        "The phase of the machine.",
        Ask(|_| look(LookRequest::State)),
    )
    .answers::<StateInfo>(),
    route(
        Get,
        "/vm/metrics",
        "metrics",
        "Counters of the run.",
        Ask(|_| look(LookRequest::Metrics)),
    )
    .answers::<Metrics>(),
    route(
        Get,
        "/vm/events",
        "listEvents",
        "What happened to the machine, oldest first, 256 at most.",
        Ask(|input| {
            look(LookRequest::Events {
                since: input.number("since")?,
            })
        }),
    )
    .with(&[SINCE])
    .answers::<EventList>(),
    route(
        Get,
        "/events",
        "streamEvents",
        "What happens to the machine, as server-sent events.",
        Stream,
    )
    .with(&[SINCE])
    .answers::<Event>(),
    route(
        Get,
        "/vm/console",
        "console",
        "The last that the guest wrote to its console.",
        Ask(|input| {
            look(LookRequest::Console {
                bytes: input.given("bytes")?.unwrap_or(CONSOLE_KEPT),
            })
        }),
    )
    .with(&[BYTES])
    .answers::<ConsoleTail>(),
    route(
        Get,
        "/memory/map",
        "memoryMap",
        "The guest physical map.",
        Ask(|_| look(LookRequest::Map)),
    )
    .answers::<MapInfo>(),
    route(
        Get,
        "/numa/nodes",
        "nodes",
        "NUMA nodes, vCPUs and distances.",
        Ask(|_| look(LookRequest::Nodes)),
    )
    .answers::<NodeList>(),
    route(
        Get,
        "/devices",
        "devices",
        "Devices of the platform.",
        Ask(|_| look(LookRequest::Devices)),
    )
    .answers::<DeviceList>(),
    route(
        Get,
        "/acpi/tables",
        "listTables",
        "The ACPI tables that the guest was started with.",
        Ask(|_| look(LookRequest::Tables)),
    )
    .answers::<TableList>(),
    route(
        Get,
        "/acpi/tables/{signature}",
        "showTable",
        "One of them, with its bytes.",
        Ask(|input| {
            look(LookRequest::Table {
                signature: input.text("signature"),
            })
        }),
    )
    .with(&[SIGNATURE])
    .answers::<TableInfo>(),
    route(
        Post,
        "/vm/pause",
        "pause",
        "Stops every vCPU; answered when all of them stand still.",
        Ask(|_| Ok(Request::Pause)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/resume",
        "resume",
        "Lets the vCPUs go on.",
        Ask(|_| Ok(Request::Resume)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/power-button",
        "powerButton",
        "Presses the ACPI power button: the guest is asked to turn itself off.",
        Ask(|_| Ok(Request::PowerButton)),
    )
    .answers::<StateInfo>(),
    route(
        Post,
        "/vm/shutdown",
        "shutdown",
        "Ends the machine at once, without asking the guest.",
        Ask(|_| Ok(Request::Quit)),
    )
    .answers::<StateInfo>(),
    route(
        Get,
        "/nvdimms",
        "listNvdimms",
        "The NVDIMMs, and which version of the NFIT the guest has read.",
        Ask(|_| Ok(Request::Nvdimm(NvdimmRequest::List))),
    )
    .answers::<NvdimmList>(),
    route(
        Post,
        "/nvdimms",
        "addNvdimm",
        "Gives the guest one more NVDIMM, in the next free slot.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Add(Box::new(input.json()?))))),
    )
    .takes::<NvdimmConfig>()
    .begins(),
    route(
        Get,
        "/nvdimms/{id}",
        "showNvdimm",
        "One NVDIMM.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Show { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<NvdimmInfo>(),
    route(
        Get,
        "/nvdimms/{id}/health",
        "nvdimmHealth",
        "Sensors, counters and thresholds of an NVDIMM.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Health { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<HealthInfo>(),
    route(
        Post,
        "/nvdimms/{id}/lock",
        "lockNvdimm",
        "Locks an NVDIMM that has a passphrase, as a power cycle does: for tests.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Lock { id: input.text("id") }))),
    )
    .with(&[NVDIMM_ID])
    .answers::<StateInfo>(),
    route(
        Get,
        "/media-errors",
        "listMediaErrors",
        "The bad ranges of the NVDIMMs, with who made them and who knows of them.",
        Ask(|input| {
            let id = input.named("id");
            Ok(Request::Nvdimm(NvdimmRequest::Errors { id }))
        }),
    )
    .with(&[NVDIMM_ID])
    .answers::<MediaErrorList>(),
    route(
        Post,
        "/media-errors",
        "injectMediaError",
        "Makes bytes bad: of one NVDIMM, or of what the guest sees at an address.",
        Ask(|input| {
            let MediaInject { id, start, len, latent } = input.json()?;
            let range = MediaRange { id, start, len };
            Ok(Request::Nvdimm(NvdimmRequest::Inject { range, latent }))
        }),
    )
    .takes::<MediaInject>()
    .answers::<StateInfo>(),
    route(
        Post,
        "/media-errors/clear",
        "clearMediaErrors",
        "Makes bytes good, whoever made them bad.",
        Ask(|input| Ok(Request::Nvdimm(NvdimmRequest::Clear { range: input.json()? }))),
    )
    .takes::<MediaRange>()
    .answers::<StateInfo>(),
    route(
        Get,
        "/memory/devices",
        "listMemoryDevices",
        "The memory devices, and what the guest has made of them.",
        Ask(|_| Ok(Request::Memory(MemoryRequest::List))),
    )
    .answers::<MemoryList>(),
    route(
        Post,
        "/memory/devices",
        "addMemoryDevice",
        "Gives the guest one more memory device.",
        Ask(|input| Ok(Request::Memory(MemoryRequest::Add(Box::new(input.json()?))))),
    )
    .takes::<MemoryDeviceConfig>()
    .begins(),
    route(
        Delete,
        "/memory/devices/{id}",
        "removeMemoryDevice",
        "Asks the guest to give a memory device back.",
        Ask(|input| {
            let deadline = input.given("deadline")?.and_then(|seconds| u16::try_from(seconds).ok());
            let id = input.text("id");
            Ok(Request::Memory(MemoryRequest::Remove { id, deadline }))
        }),
    )
    .with(&[MEMORY_ID, DEADLINE])
    .begins(),
    route(
        Put,
        "/memory/devices/{id}/target",
        "setMemoryTarget",
        "Asks the guest to have so much of a virtio-mem device plugged.",
        Ask(|input| {
            let MemoryTarget { size } = input.json()?;
            let id = input.text("id");
            Ok(Request::Memory(MemoryRequest::Target { id, size }))
        }),
    )
    .with(&[MEMORY_ID])
    .takes::<MemoryTarget>()
    .begins(),
    route(
        Get,
        "/disks",
        "listDisks",
        "The disks, their limits, faults and counts.",
        Ask(|_| Ok(Request::Disk(DiskRequest::List))),
    )
    .answers::<DiskList>(),
    route(
        Post,
        "/disks/{id}/faults",
        "addDiskFault",
        "Makes something wrong with a disk.",
        Ask(|input| {
            let (id, fault) = (input.text("id"), input.json()?);
            Ok(Request::Disk(DiskRequest::AddFault { id, fault }))
        }),
    )
    .with(&[DISK_ID])
    .takes::<DiskFault>()
    .answers::<DiskInfo>(),
    route(
        Delete,
        "/disks/{id}/faults",
        "removeDiskFaults",
        "Takes all faults of a disk away; what hangs by them goes on.",
        Ask(|input| {
            let (id, number) = (input.text("id"), None);
            Ok(Request::Disk(DiskRequest::RemoveFault { id, number }))
        }),
    )
    .with(&[DISK_ID])
    .answers::<DiskInfo>(),
    route(
        Delete,
        "/disks/{id}/faults/{number}",
        "removeDiskFault",
        "Takes one fault of a disk away; what hangs by it goes on.",
        Ask(|input| {
            let number = u32::try_from(input.number("number")?).ok();
            let id = input.text("id");
            Ok(Request::Disk(DiskRequest::RemoveFault { id, number }))
        }),
    )
    .with(&[DISK_ID, FAULT_NUMBER])
    .answers::<DiskInfo>(),
    route(
        Put,
        "/disks/{id}/throttle",
        "throttleDisk",
        "Sets the limits of a disk; what is not named has none.",
        Ask(|input| {
            let (id, throttle) = (input.text("id"), input.json()?);
            Ok(Request::Disk(DiskRequest::Throttle { id, throttle }))
        }),
    )
    .with(&[DISK_ID])
    .takes::<DiskThrottle>()
    .answers::<DiskInfo>(),
    route(
        Get,
        "/limits",
        "limits",
        "The limits of the machine's RAM, and how much there is.",
        Ask(|_| Ok(Request::Limits(LimitsRequest::Get))),
    )
    .answers::<LimitsInfo>(),
    route(
        Put,
        "/limits",
        "setLimits",
        "Changes the dynamic limits or the target, all that are named or none.",
        Ask(|input| Ok(Request::Limits(LimitsRequest::Set(input.json()?)))),
    )
    .takes::<LimitsConfig>()
    .answers::<LimitsInfo>(),
    route(
        Get,
        "/operations",
        "listOperations",
        "Operations under way, and the last that ended.",
        Ask(|_| Ok(Request::Operation(OperationRequest::List))),
    )
    .answers::<OperationList>(),
    route(
        Get,
        "/operations/{id}",
        "showOperation",
        "One operation, and what the guest has done of it so far.",
        Ask(|input| {
            let (id, wait) = (input.number("id")?, input.number("wait")?);
            Ok(Request::Operation(OperationRequest::Show { id, wait }))
        }),
    )
    .with(&[OPERATION_ID, WAIT])
    .answers::<OperationInfo>(),
];

#[expect(clippy::unnecessary_wraps, reason = "the table wants what may fail")]
fn look(request: LookRequest) -> Result<Request, ControlError> {
    Ok(Request::Look(request))
}

/// Path of the events as they happen, from event `since` or from now on.
pub fn stream(since: Option<u64>) -> String {
    since.map_or_else(|| "/events".to_owned(), |since| format!("/events?since={since}"))
}

/// A request as a client writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Method.
    pub method: Method,
    /// Path below [`super::BASE`], with its query.
    pub path: String,
    /// Body.
    pub body: Option<Value>,
}

/// How a client asks for `request`.
pub fn written(request: &Request) -> Written {
    let get = |path: &str| Written {
        method: Get,
        path: path.to_owned(),
        body: None,
    };
    let post = |path: &str| Written {
        method: Post,
        path: path.to_owned(),
        body: None,
    };
    match request {
        Request::Describe => get("/vm"),
        Request::Pause => post("/vm/pause"),
        Request::Resume => post("/vm/resume"),
        Request::PowerButton => post("/vm/power-button"),
        Request::Quit => post("/vm/shutdown"),
        Request::Look(request) => get(&match request {
            LookRequest::State => "/vm/state".to_owned(),
            LookRequest::Map => "/memory/map".to_owned(),
            LookRequest::Nodes => "/numa/nodes".to_owned(),
            LookRequest::Devices => "/devices".to_owned(),
            LookRequest::Metrics => "/vm/metrics".to_owned(),
            LookRequest::Events { since } => format!("/vm/events?since={since}"),
            LookRequest::Console { bytes } => format!("/vm/console?bytes={bytes}"),
            LookRequest::Tables => "/acpi/tables".to_owned(),
            LookRequest::Table { signature } => format!("/acpi/tables/{}", segment(signature)),
        }),
        Request::Nvdimm(NvdimmRequest::List) => get("/nvdimms"),
        Request::Nvdimm(NvdimmRequest::Show { id }) => get(&format!("/nvdimms/{}", segment(id))),
        Request::Nvdimm(NvdimmRequest::Health { id }) => get(&format!("/nvdimms/{}/health", segment(id))),
        Request::Nvdimm(NvdimmRequest::Add(nvdimm)) => Written {
            body: Some(json!(nvdimm)),
            ..post("/nvdimms")
        },
        Request::Nvdimm(NvdimmRequest::Lock { id }) => post(&format!("/nvdimms/{}/lock", segment(id))),
        Request::Nvdimm(NvdimmRequest::Errors { id }) => get(&match id {
            Some(id) => format!("/media-errors?id={}", segment(id)),
            None => "/media-errors".to_owned(),
        }),
        Request::Nvdimm(NvdimmRequest::Inject { range, latent }) => Written {
            body: Some(json!(MediaInject {
                id: range.id.clone(),
                start: range.start,
                len: range.len,
                latent: *latent,
            })),
            ..post("/media-errors")
        },
        Request::Nvdimm(NvdimmRequest::Clear { range }) => Written {
            body: Some(json!(range)),
            ..post("/media-errors/clear")
        },
        Request::Memory(MemoryRequest::List) => get("/memory/devices"),
        Request::Memory(MemoryRequest::Add(device)) => Written {
            body: Some(json!(device)),
            ..post("/memory/devices")
        },
        Request::Memory(MemoryRequest::Remove { id, deadline }) => Written {
            method: Delete,
            ..post(&match deadline {
                Some(seconds) => format!("/memory/devices/{}?deadline={seconds}", segment(id)),
                None => format!("/memory/devices/{}", segment(id)),
            })
        },
        Request::Memory(MemoryRequest::Target { id, size }) => Written {
            method: Put,
            body: Some(json!(MemoryTarget { size: *size })),
            ..post(&format!("/memory/devices/{}/target", segment(id)))
        },
        Request::Disk(request) => match request {
            DiskRequest::List => get("/disks"),
            DiskRequest::AddFault { id, fault } => Written {
                body: Some(json!(fault)),
                ..post(&format!("/disks/{}/faults", segment(id)))
            },
            DiskRequest::RemoveFault { id, number } => Written {
                method: Delete,
                ..post(&match number {
                    Some(number) => format!("/disks/{}/faults/{number}", segment(id)),
                    None => format!("/disks/{}/faults", segment(id)),
                })
            },
            DiskRequest::Throttle { id, throttle } => Written {
                method: Put,
                body: Some(json!(throttle)),
                ..post(&format!("/disks/{}/throttle", segment(id)))
            },
        },
        Request::Limits(LimitsRequest::Get) => get("/limits"),
        Request::Limits(LimitsRequest::Set(limits)) => Written {
            method: Put,
            body: Some(json!(limits)),
            ..post("/limits")
        },
        Request::Operation(OperationRequest::List) => get("/operations"),
        Request::Operation(OperationRequest::Show { id, wait: 0 }) => get(&format!("/operations/{id}")),
        Request::Operation(OperationRequest::Show { id, wait }) => get(&format!("/operations/{id}?wait={wait}")),
    }
}

/// A name as one segment of a path.
fn segment(name: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(name, RESERVED).to_string()
}

/// What a client has said.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Parameters of the path.
    pub params: Vec<(String, String)>,
    /// Those of the query.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> ControlError {
    ControlError::new(ErrorKind::InvalidRequest, detail)
}

impl Input {
    /// Whether everything that came is something `route` knows, and once.
    pub fn check(&self, route: &Route) -> Result<(), ControlError> {
        for (n, (name, _)) in self.query.iter().enumerate() {
            let shown = short(name).to_owned();
            let known = |p: &Parameter| p.name == name && !route.path.contains(&format!("{{{name}}}"));
            if !route.parameters.iter().any(known) {
                let hint = format!("{} of the OpenAPI document lists what there is", route.id);
                return Err(invalid(format!("there is no parameter '{shown}'"))
                    .field(shown)
                    .hint(hint));
            }
            if self.query.iter().skip(n + 1).any(|(other, _)| other == name) {
                return Err(invalid(format!("the parameter '{shown}' is given twice")).field(shown));
            }
        }
        if route.body.is_none() && !self.body.is_empty() {
            return Err(invalid(format!("{} {} takes no body", route.method.name(), route.path)).field("body"));
        }
        for parameter in route.parameters {
            if let Values::UpTo(most) = parameter.values {
                let number = self.number(parameter.name)?;
                if number > most {
                    let why = format!("{} is {number}; the most is {most}", parameter.name);
                    return Err(invalid(why).field(parameter.name));
                }
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&str> {
        let all = self.params.iter().chain(&self.query);
        all.rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter; empty when it is not there.
    pub fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or_default().to_owned()
    }

    /// A parameter, if it is there.
    pub fn named(&self, name: &str) -> Option<String> {
        self.find(name).map(str::to_owned)
    }

    /// A number; 0 when it is not there.
    pub fn number(&self, name: &'static str) -> Result<u64, ControlError> {
        Ok(self.given(name)?.unwrap_or(0))
    }

    /// A number, if it is there.
    pub fn given(&self, name: &'static str) -> Result<Option<u64>, ControlError> {
        let Some(text) = self.find(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
            let why = format!("'{}' is no number from 0 to {}", short(text), u64::MAX);
            invalid(why).field(name)
        })
    }

    /// The body, an object: serde would take a list for one, and read its members by position.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        let first = self.body.iter().find(|b| !b.is_ascii_whitespace());
        if first != Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok() {
            return Err(invalid("the body is no JSON object").field("body"));
        }
        let mut text = serde_json::Deserializer::from_slice(&self.body);
        let value: T = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let field = error.path().to_string();
            let error = error.into_inner();
            let detail = short(&error.to_string()).to_owned();
            match error.classify() {
                serde_json::error::Category::Data => invalid(detail).field(named(&field, &error.to_string())),
                _ => ControlError::new(ErrorKind::Malformed, format!("the body is no JSON: {detail}")),
            }
        })?;
        let rest = text.end();
        rest.map_err(|e| ControlError::new(ErrorKind::Malformed, format!("the body is no JSON: {e}")))?;
        Ok(value)
    }
}

/// The path of a wrong value; of a missing or unknown one serde says the name in its message only.
fn named(path: &str, message: &str) -> String {
    let inner = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let place = if path == "." { "" } else { path };
    let whole = match inner {
        Some(name) if place.is_empty() => name.to_owned(),
        Some(name) if place == name || place.ends_with(&format!(".{name}")) => place.to_owned(),
        Some(name) => format!("{place}.{name}"),
        None if place.is_empty() => "body".to_owned(),
        None => place.to_owned(),
    };
    short(&whole).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// One request for every row, and more.
    fn samples() -> Vec<Request> {
        let nvdimm = NvdimmConfig {
            id: Some("a/b ?%c".to_owned()),
            ..serde_json::from_value(json!({"file": "/x/y", "size": "1G", "flags": ["not-armed"], "serial": 7}))
                .unwrap()
        };
        vec![
            Request::Describe,
            Request::Pause,
            Request::Resume,
            Request::PowerButton,
            Request::Quit,
            Request::Look(LookRequest::State),
            Request::Look(LookRequest::Map),
            Request::Look(LookRequest::Nodes),
            Request::Look(LookRequest::Devices),
            Request::Look(LookRequest::Metrics),
            Request::Look(LookRequest::Events { since: 9 }),
            Request::Look(LookRequest::Console { bytes: 100 }),
            Request::Look(LookRequest::Tables),
            Request::Look(LookRequest::Table {
                signature: "SR/T".into(),
            }),
            Request::Nvdimm(NvdimmRequest::List),
            Request::Nvdimm(NvdimmRequest::Show { id: "a b".into() }),
            Request::Nvdimm(NvdimmRequest::Health { id: "a".into() }),
            Request::Nvdimm(NvdimmRequest::Add(Box::new(nvdimm))),
            Request::Nvdimm(NvdimmRequest::Lock {
                id: "../..%2f é".into(),
            }),
            Request::Nvdimm(NvdimmRequest::Errors { id: None }),
            Request::Nvdimm(NvdimmRequest::Errors { id: Some("a".into()) }),
            Request::Nvdimm(NvdimmRequest::Inject {
                range: serde_json::from_value(json!({"id": "a", "start": 4096, "len": 64})).unwrap(),
                latent: true,
            }),
            Request::Nvdimm(NvdimmRequest::Clear {
                range: serde_json::from_value(json!({"start": 4096, "len": 64})).unwrap(),
            }),
            Request::Memory(MemoryRequest::List),
            Request::Memory(MemoryRequest::Add(Box::new(
                serde_json::from_value(json!({"size": "1G", "node": 2, "id": "m"})).unwrap(),
            ))),
            Request::Memory(MemoryRequest::Remove {
                id: "m".into(),
                deadline: None,
            }),
            Request::Memory(MemoryRequest::Remove {
                id: "m".into(),
                deadline: Some(5),
            }),
            Request::Memory(MemoryRequest::Target {
                id: "grow".into(),
                size: serde_json::from_value(json!("1G")).unwrap(),
            }),
            Request::Disk(DiskRequest::List),
            Request::Disk(DiskRequest::AddFault {
                id: "d".into(),
                fault: serde_json::from_value(json!({"op": "read", "sectors": "1-2", "latency": "2s"})).unwrap(),
            }),
            Request::Disk(DiskRequest::RemoveFault {
                id: "d".into(),
                number: None,
            }),
            Request::Disk(DiskRequest::RemoveFault {
                id: "d".into(),
                number: Some(3),
            }),
            Request::Disk(DiskRequest::Throttle {
                id: "d".into(),
                throttle: serde_json::from_value(json!({"iops": 10})).unwrap(),
            }),
            Request::Limits(LimitsRequest::Get),
            Request::Limits(LimitsRequest::Set(
                serde_json::from_value(json!({"target": "1G"})).unwrap(),
            )),
            Request::Operation(OperationRequest::List),
            Request::Operation(OperationRequest::Show { id: 7, wait: 0 }),
            Request::Operation(OperationRequest::Show { id: 7, wait: 60 }),
        ]
    }

    /// The row that `written` reaches, and what it would ask.
    fn reached(written: &Written) -> (&'static str, Request) {
        let (path, query) = written.path.split_once('?').unwrap_or((&written.path, ""));
        let words: Vec<_> = path.split('/').collect();
        let mut hits = ROUTES.iter().filter_map(|route| {
            let pattern: Vec<_> = route.path.split('/').collect();
            let mut params = vec![];
            let fits = pattern.len() == words.len()
                && pattern.iter().zip(&words).all(|(p, w)| match p.strip_prefix('{') {
                    Some(name) => {
                        let value = percent_encoding::percent_decode_str(w).decode_utf8().unwrap();
                        params.push((name.trim_end_matches('}').to_owned(), value.into_owned()));
                        true
                    }
                    None => p == w,
                });
            (fits && route.method == written.method).then_some((route, params))
        });
        let (route, params) = hits.next_back().expect("a route");
        let query = query.split('&').filter(|pair| !pair.is_empty());
        let input = Input {
            params,
            query: query
                .map(|p| p.split_once('=').unwrap())
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
            body: written
                .body
                .as_ref()
                .map_or_else(Bytes::new, |body| body.to_string().into()),
        };
        input.check(route).unwrap();
        let Does::Ask(ask) = route.does else {
            panic!("{} asks nothing", route.id)
        };
        (route.id, ask(&input).unwrap())
    }

    #[test]
    fn what_clients_write_is_what_routes_read_and_every_route_is_reached() {
        let mut seen = BTreeSet::new();
        for request in samples() {
            let (id, read) = reached(&written(&request));
            assert_eq!(read, request, "{id}");
            seen.insert(id);
        }
        let asking = ROUTES.iter().filter(|r| matches!(r.does, Does::Ask(_)));
        let missing: Vec<_> = asking.map(|r| r.id).filter(|id| !seen.contains(id)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    fn body(text: &str) -> ControlError {
        let input = Input {
            body: Bytes::copy_from_slice(text.as_bytes()),
            ..Input::default()
        };
        input.json::<NvdimmConfig>().unwrap_err()
    }

    #[test]
    fn wrong_bodies_name_their_field() {
        for (text, field) in [
            (r#"{"sise": 1}"#, "sise"),
            (r#"{"size": -1}"#, "size"),
            (r#"{"size": []}"#, "size"),
            (r#"{"flags": ["not-armed", "flying"]}"#, "flags[1]"),
            (r#"{"node": 4294967296}"#, "node"),
            ("[]", "body"),
            ("7", "body"),
        ] {
            let error = body(text);
            assert_eq!(error.kind, ErrorKind::InvalidRequest, "{text}: {error}");
            assert_eq!(error.field.as_deref(), Some(field), "{text}: {error}");
        }
        for text in ["", "{", "{} {}", "nul", "{\"size\": 1"] {
            assert_eq!(body(text).kind, ErrorKind::Malformed, "{text}");
        }
        let deep = format!("{{\"id\":{}", "[".repeat(100_000));
        assert!(body(&deep).detail.len() < 400);
        let long = format!("{{\"{}\": 1}}", "é".repeat(10_000));
        let error = body(&long);
        assert!(error.detail.len() <= 320 && error.field.unwrap().len() <= 300);
    }

    #[test]
    fn parameters_that_no_route_knows_are_refused() {
        let route = ROUTES.iter().find(|r| r.id == "showOperation").unwrap();
        let check = |query: &[(&str, &str)]| {
            let query = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let params = vec![("id".to_owned(), "1".to_owned())];
            let input = Input {
                query: query.collect(),
                params,
                body: Bytes::new(),
            };
            input.check(route).map_err(|e| e.field.unwrap().into_owned())
        };
        check(&[("wait", "60")]).unwrap();
        for (query, field) in [
            (&[("wait", "61")][..], "wait"),
            (&[("wait", "-1")], "wait"),
            (&[("wait", "")], "wait"),
            (&[("wait", "+1")], "wait"),
            (&[("wait", "99999999999999999999")], "wait"),
            (&[("wait", "1"), ("wait", "2")], "wait"),
            (&[("id", "2")], "id"),
            (&[("x", "")], "x"),
        ] {
            assert_eq!(check(query), Err(field.to_owned()), "{query:?}");
        }
    }
}
