//! `daxvisor ctl fault`: memory errors that the guest meets.

use crate::{
    config::HexAddress,
    control::{
        AwaitedAccess, Delivery, FaultChange, FaultInfo, FaultInject, FaultList, FaultLoad, FaultNotified, FaultNotify,
        FaultPlace, FaultRange, FaultReport, FaultRequest, MAX_RANDOM, NotifySeverity, NotifyVia, Request,
    },
    fault::{awaited::MAX_LOADS, storm::MAX_RATE},
};
use clap::{Args, Subcommand};
use devices::{
    apei::Source,
    nvdimm::media::{ErrorSource, ErrorState},
    units::TimeSpan,
};
use serde_json::Value;
use std::fmt::Write;

#[derive(Subcommand)]
pub(super) enum FaultVerb {
    /// List bad memory, how loads of it are caught, and how many were
    List,
    /// Make lines of memory bad, at an address or at random; loads of them become machine checks
    Inject {
        #[command(flatten)]
        place: PlaceArgs,
        /// Lines at random of this node's memory, instead of an address
        #[arg(long, value_name = "NODE", conflicts_with_all = ["gpa", "dimm", "dpa", "len"])]
        node: Option<u32>,
        /// So many lines for each GiB of the node's memory, instead of --count
        #[arg(long, requires = "node", conflicts_with = "count", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RANDOM)))]
        per_gib: Option<u32>,
        /// Time until the first becomes bad, such as 500ms or 2s
        #[arg(long, value_name = "TIME")]
        after: Option<TimeSpan>,
        /// So many a second, instead of all at once
        #[arg(long, value_name = "PER-SECOND", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
        rate: Option<u32>,
        /// Bad with the load of this number that a processor makes of each line, such as 3; good until then
        #[arg(long, value_name = "N", conflicts_with_all = ["after", "rate", "known"], value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOADS)))]
        on_load: Option<u32>,
        /// Bad when a processor has stored to each line so many times, such as 1: when its page is put to use; good until then
        #[arg(long, value_name = "N", conflicts_with_all = ["after", "rate", "known", "on_load"], value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOADS)))]
        on_store: Option<u32>,
        /// How many lines of the node [default: 1]
        #[arg(long, requires = "node", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RANDOM)))]
        count: Option<u32>,
        /// The same seed chooses the same lines of the same machine [default: 0]
        #[arg(long, requires = "node")]
        seed: Option<u64>,
        /// The platform knows of the error, and tells the guest where it can: those of NVDIMMs
        #[arg(long)]
        known: bool,
        /// Change nothing, and show what would be bad and what a load of it would come to
        #[arg(long)]
        dry_run: bool,
    },
    /// Make no more of what an injection was to make bad later
    Stop {
        /// Number of the storm, as the injection and `list` have it
        storm: u64,
    },
    /// Tell the guest of an error, through firmware or a machine check bank; memory does not become bad by it
    Notify {
        #[command(flatten)]
        place: NotifyArgs,
        /// How bad it is
        #[arg(long, value_enum, default_value_t)]
        severity: NotifySeverity,
        /// Who tells it
        #[arg(long, value_enum, default_value_t)]
        via: NotifyVia,
        /// Corrected errors came too often: the guest had better not use the memory
        #[arg(long)]
        threshold_exceeded: bool,
    },
    /// Make lines good, whoever made them bad
    Clear {
        #[command(flatten)]
        place: PlaceArgs,
        /// A whole bad range, as `list` calls it, instead of an address
        #[arg(long, conflicts_with_all = ["gpa", "dimm", "dpa", "len"])]
        id: Option<String>,
    },
    /// Show what happens to bad memory, from now on or from --since, until the machine ends
    Watch {
        /// Only what happened after this event
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
    },
}

/// Where memory is.
#[derive(Args)]
pub(super) struct PlaceArgs {
    /// Guest physical address of the first byte, such as 0x100001000 or 4K
    #[arg(conflicts_with_all = ["dimm", "dpa"])]
    gpa: Option<HexAddress>,
    /// NVDIMM whose own address (DPA) is meant
    #[arg(long, value_name = "ID", requires = "dpa")]
    dimm: Option<String>,
    /// Address in the NVDIMM
    #[arg(long, value_name = "ADDRESS", requires = "dimm")]
    dpa: Option<HexAddress>,
    /// Bytes, whole lines of 64 [default: 64]
    #[arg(long, value_name = "BYTES")]
    len: Option<HexAddress>,
}

/// What an error is of.
#[derive(Args)]
pub(super) struct NotifyArgs {
    /// Guest physical address of a line, such as 0x100001000 or 4K
    #[arg(conflicts_with_all = ["dimm", "dpa", "vcpu"])]
    gpa: Option<HexAddress>,
    /// NVDIMM whose own address (DPA) is meant
    #[arg(long, value_name = "ID", requires = "dpa", conflicts_with = "vcpu")]
    dimm: Option<String>,
    /// Address in the NVDIMM
    #[arg(long, value_name = "ADDRESS", requires = "dimm")]
    dpa: Option<HexAddress>,
    /// APIC id of the processor whose error it is
    #[arg(long, value_name = "APIC-ID")]
    vcpu: Option<u32>,
}

impl FaultVerb {
    pub(super) fn request(&self) -> Request {
        Request::Fault(match self {
            Self::List | Self::Watch { .. } => FaultRequest::List,
            Self::Inject {
                place,
                node,
                count,
                per_gib,
                after,
                rate,
                on_load,
                on_store,
                seed,
                known,
                dry_run,
            } => FaultRequest::Inject(Box::new(FaultInject {
                gpa: place.gpa.map(|gpa| gpa.0),
                nvdimm: place.dimm.clone(),
                dpa: place.dpa.map(|dpa| dpa.0),
                len: place.len.map(|len| len.0),
                node: *node,
                count: *count,
                per_gib: *per_gib,
                after_ms: after.map(|after| u64::try_from(after.0.as_millis()).unwrap_or(u64::MAX)),
                rate: *rate,
                on_load: *on_load,
                on_store: *on_store,
                seed: *seed,
                known: *known,
                dry_run: *dry_run,
            })),
            Self::Stop { storm } => FaultRequest::Stop { storm: *storm },
            Self::Notify {
                place,
                severity,
                via,
                threshold_exceeded,
            } => FaultRequest::Notify(Box::new(FaultNotify {
                gpa: place.gpa.map(|gpa| gpa.0),
                nvdimm: place.dimm.clone(),
                dpa: place.dpa.map(|dpa| dpa.0),
                vcpu: place.vcpu,
                severity: *severity,
                via: *via,
                threshold_exceeded: *threshold_exceeded,
            })),
            Self::Clear { id: Some(id), .. } => FaultRequest::Remove { id: id.clone() },
            Self::Clear { place, id: None } => FaultRequest::Clear(FaultRange {
                gpa: place.gpa.map(|gpa| gpa.0),
                nvdimm: place.dimm.clone(),
                dpa: place.dpa.map(|dpa| dpa.0),
                len: place.len.map(|len| len.0),
            }),
        })
    }
}

/// The reply to `request` as lines of text.
pub(super) fn text(request: &FaultRequest, reply: Value) -> Result<String, serde_json::Error> {
    Ok(match request {
        FaultRequest::List => list(&serde_json::from_value(reply)?),
        FaultRequest::Inject(_) => report(&serde_json::from_value(reply)?),
        FaultRequest::Stop { storm } => format!("storm {storm} is over\n"),
        FaultRequest::Notify(_) => notified(&serde_json::from_value(reply)?),
        FaultRequest::Clear(range) => match range.target() {
            Ok(target) => format!("{target} are good\n"),
            Err(_) => "they are good\n".to_owned(),
        },
        FaultRequest::Remove { id } => format!("{id} is good\n"),
    })
}

/// What happened, in words.
pub(super) fn change(change: FaultChange, gpa: Option<u64>, len: u64, ranges: u64, vcpu: Option<u32>) -> String {
    let place = gpa.map_or_else(|| "nowhere in the guest".into(), |gpa| format!("at {gpa:#x}"));
    let many = match ranges {
        0 | 1 => String::new(),
        n => format!(" in {n} ranges, the first"),
    };
    let whose = vcpu.map_or_else(String::new, |id| format!(" by vCPU {id}"));
    let what = match change {
        FaultChange::Injected => "made bad",
        FaultChange::InjectedByGuest => "made bad by the guest",
        FaultChange::Notified => "told to the guest",
        FaultChange::Cleared => "made good",
        FaultChange::Consumed => "loaded and answered by a machine check",
        FaultChange::MetByDevice => "read by a device, whose request failed",
        FaultChange::Unplugged => "gone with their memory device",
        FaultChange::Lost => "lost by the host",
    };
    format!("memory error: {len:#x} bytes{many} {place} {what}{whose}")
}

fn notified(told: &FaultNotified) -> String {
    let what = match (told.gpa, told.vcpu) {
        (Some(gpa), _) => format!("error of memory at {gpa:#x}"),
        (None, Some(vcpu)) => format!("error of processor {vcpu}"),
        (None, None) => "error".to_owned(),
    };
    let how = match (told.via, told.vcpu) {
        (NotifyVia::Ghes | NotifyVia::GhesPolled, _) => format!("{} of this source are to be read", told.waiting),
        (NotifyVia::MachineCheck, Some(vcpu)) => format!("in a machine check bank of processor {vcpu}"),
        (NotifyVia::MachineCheck, None) => "in a machine check bank".to_owned(),
    };
    format!("the guest is told of a {} {what}: {how}\n", told.severity)
}

fn report(report: &FaultReport) -> String {
    let mut text: String = report.places.iter().map(place).collect();
    let told = match report.delivery {
        Delivery::Broadcast => "all vCPUs take it",
        Delivery::LocalIfAllowed => "the vCPU that loads takes it where the guest allows that, else all do",
        Delivery::Local => "the vCPU that loads takes it",
    };
    if report.places.iter().any(|place| place.load == FaultLoad::MachineCheck) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "a load of what is bad becomes a machine check: {told}");
    }
    if let Some(storm) = report.storm {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "storm {storm} will make it bad");
    }
    if report.dry_run {
        text.push_str("nothing was changed\n");
    }
    text
}

fn place(place: &FaultPlace) -> String {
    let gpa = place
        .gpa
        .map_or_else(|| "nowhere in the guest".into(), |gpa| format!("at {gpa:#x}"));
    let mut facts = vec![];
    facts.extend(place.kind.clone());
    facts.extend(place.name.clone());
    facts.extend(place.node.map(|node| format!("node {node}")));
    facts.extend(
        place
            .linux_node
            .filter(|n| place.node != Some(*n))
            .map(|n| format!("node{n} of Linux")),
    );
    if let (Some(id), Some(dpa)) = (&place.nvdimm, place.dpa) {
        facts.push(format!("DPA {dpa:#x} of {id}"));
    }
    let load = match place.load {
        FaultLoad::MachineCheck => "",
        FaultLoad::NotCaught => ": loads are not caught, for there are too many pages with errors",
        FaultLoad::OutOfReach => ": no load reaches it",
    };
    format!("{:#x} bytes {gpa} ({}){load}\n", place.len, facts.join(", "))
}

fn list(reply: &FaultList) -> String {
    let mut text: String = reply.faults.iter().map(line).collect();
    if reply.faults.is_empty() {
        text.push_str("no memory errors\n");
    }
    let trapped = match reply.pages_trapped {
        0 => String::new(),
        n => format!(", the first ones to {n} more"),
    };
    let left = match reply.pages_left_out {
        0 => String::new(),
        n => format!(", to {n} more they are not"),
    };
    let host = match reply.counts.host_errors {
        0 => String::new(),
        n => format!("; errors of the host's own memory: {n}"),
    };
    let latency = reply.counts.last_latency_us;
    let latency = latency.map_or_else(String::new, |us| format!(", the last one after {us} us"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "accesses to {} pages are caught{trapped}{left}; loads that became machine checks: {}{latency}; accesses carried out: {}; requests \
         of devices that failed: {}{host}",
        reply.pages, reply.counts.consumed, reply.counts.carried, reply.counts.device_requests
    );
    for line in &reply.awaited {
        let on = match line.on {
            AwaitedAccess::Load => "load",
            AwaitedAccess::Store => "store",
        };
        let _ = writeln!(
            text,
            "{:#x}: good, and bad with {on} number {} from now on",
            line.gpa, line.left
        );
    }
    for storm in &reply.storms {
        let begins = match storm.begins_in_ms {
            0 => String::new(),
            ms => format!(", the first in {ms} ms"),
        };
        let _ = writeln!(
            text,
            "storm {}: {} ranges are bad, {} are to come{begins}",
            storm.id, storm.done, storm.left
        );
    }
    for source in &reply.sources {
        let name = match source.source {
            Source::Notified => "notified",
            Source::Polled => "polled",
        };
        let _ = writeln!(
            text,
            "firmware ({name}): {} errors told, {} read by the guest, {} to be read",
            source.reported, source.acknowledged, source.waiting
        );
    }
    if let Some(log) = &reply.extended_log {
        let unused = if log.opted_in {
            ""
        } else {
            "; the guest does not use it"
        };
        let _ = writeln!(
            text,
            "extended error log: {} errors logged, {} read by the guest, {} to be read, {} lost{unused}",
            log.logged, log.read, log.waiting, log.lost
        );
    }
    text
}

fn line(fault: &FaultInfo) -> String {
    let at = fault
        .gpa
        .map_or_else(|| "nowhere in the guest".into(), |gpa| format!("at {gpa:#x}"));
    let dimm = match (&fault.nvdimm, fault.dpa) {
        (Some(id), Some(dpa)) => format!(" (DPA {dpa:#x} of {id})"),
        _ => String::new(),
    };
    let state = match fault.state {
        ErrorState::Latent => "latent",
        ErrorState::Known => "known",
    };
    let source = match fault.source {
        ErrorSource::Guest => "the guest",
        ErrorSource::Host => "the host",
        ErrorSource::Einj => "the guest's EINJ",
        ErrorSource::Backing => "the memory behind it",
    };
    let met = if fault.consumable { "" } else { "; loads do not meet it" };
    format!(
        "{}: {:#x} bytes {at}{dimm}, {state}, made by {source}{met}\n",
        fault.id, fault.len
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_memory_is_a_line_each() {
        let reply = json!({"faults": [
            {"id": "pmem0@0x40", "gpa": 0x1_0000_0040u64, "nvdimm": "pmem0", "dpa": 64, "len": 64, "source": "host", "state": "latent", "consumable": true},
            {"id": "b@0x1000", "gpa": null, "nvdimm": "b", "dpa": 4096, "len": 4096, "source": "guest", "state": "known", "consumable": false}],
            "mechanisms": ["slot-hole", "userfaultfd"], "neighbours_readable": true, "delivery": "broadcast", "pages": 2, "pages_trapped": 5, "pages_left_out": 0,
            "counts": {"consumed": 1, "carried": 7, "last_latency_us": 120}});
        assert_eq!(
            text(&FaultRequest::List, reply).unwrap(),
            "pmem0@0x40: 0x40 bytes at 0x100000040 (DPA 0x40 of pmem0), latent, made by the host\n\
             b@0x1000: 0x1000 bytes nowhere in the guest (DPA 0x1000 of b), known, made by the guest; loads do not meet it\n\
             accesses to 2 pages are caught, the first ones to 5 more; loads that became machine checks: 1, the last one after 120 us; accesses carried \
             out: 7; requests of devices that failed: 0\n"
        );
    }

    #[test]
    fn what_would_be_bad_is_told_with_its_place() {
        let inject = FaultRequest::Inject(Box::default());
        let reply = json!({"dry_run": true, "mechanisms": ["slot-hole"], "delivery": "local", "places": [
            {"gpa": 0x4000, "len": 64, "kind": "RAM", "name": null, "node": 2, "linux_node": 1, "nvdimm": null, "dpa": null,
             "load": "machine-check"},
            {"gpa": null, "len": 128, "kind": null, "name": null, "node": null, "linux_node": null, "nvdimm": "a", "dpa": 64,
             "load": "out-of-reach"}]});
        assert_eq!(
            text(&inject, reply).unwrap(),
            "0x40 bytes at 0x4000 (RAM, node 2, node1 of Linux)\n\
             0x80 bytes nowhere in the guest (DPA 0x40 of a): no load reaches it\n\
             a load of what is bad becomes a machine check: the vCPU that loads takes it\n\
             nothing was changed\n"
        );
        assert_eq!(
            change(FaultChange::Consumed, Some(64), 64, 1, Some(3)),
            "memory error: 0x40 bytes at 0x40 loaded and answered by a machine check by vCPU 3"
        );
    }
}
