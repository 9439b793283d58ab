//! Requests as a client writes them: the inverse of the table.

use super::Method::{self, Delete, Get, Post, Put};
use crate::control::{
    DaxRequest, DiskRequest, FaultRequest, GuestPower, LimitsRequest, LookRequest, MediaInject, MemoryRequest,
    MemoryTarget, NvdimmRequest, OperationRequest, Request,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// A request as a client writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Method.
    pub method: Method,
    /// Path below [`crate::api::BASE`], with its query.
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
        Request::Ask(GuestPower::PowerOff) => post("/vm/ask/power-off"),
        Request::Ask(GuestPower::Reboot) => post("/vm/ask/reboot"),
        Request::Reboot => post("/vm/reboot"),
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
        Request::Fault(request) => match request {
            FaultRequest::List => get("/faults"),
            FaultRequest::Inject(asked) => Written {
                body: Some(json!(asked)),
                ..post("/faults")
            },
            FaultRequest::Notify(asked) => Written {
                body: Some(json!(asked)),
                ..post("/faults/notify")
            },
            FaultRequest::Clear(range) => Written {
                body: Some(json!(range)),
                ..post("/faults/clear")
            },
            FaultRequest::Stop { storm } => Written {
                method: Delete,
                ..post(&format!("/faults/storms/{storm}"))
            },
            FaultRequest::Remove { id } => Written {
                method: Delete,
                ..post(&format!("/faults/{}", segment(id)))
            },
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
        Request::Dax(DaxRequest::Add(range)) => Written {
            body: Some(json!(range)),
            ..post("/dax-ranges")
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
