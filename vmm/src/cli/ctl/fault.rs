//! `daxvisor ctl fault`: memory errors that the guest meets.

use crate::control::{FaultInfo, FaultList, FaultRequest, Request};
use clap::Subcommand;
use devices::nvdimm::media::{ErrorSource, ErrorState};
use std::fmt::Write;

#[derive(Subcommand)]
pub(super) enum FaultVerb {
    /// List bad memory, how loads of it are caught, and how many were
    List,
}

impl FaultVerb {
    pub(super) fn request(&self) -> Request {
        Request::Fault(match self {
            Self::List => FaultRequest::List,
        })
    }
}

/// The reply as lines of text.
pub(super) fn text(reply: &FaultList) -> String {
    let mut text: String = reply.faults.iter().map(line).collect();
    if reply.faults.is_empty() {
        text.push_str("no memory errors\n");
    }
    let left = match reply.pages_left_out {
        0 => String::new(),
        n => format!(", to {n} more they are not"),
    };
    let latency = reply.counts.last_latency_us;
    let latency = latency.map_or_else(String::new, |us| format!(", the last one after {us} us"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "accesses to {} pages are caught{left}; loads that became machine checks: {}{latency}; accesses carried out: {}",
        reply.pages, reply.counts.consumed, reply.counts.carried
    );
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
        ErrorSource::Backing => "the memory behind it",
    };
    let met = if fault.consumable { "" } else { "; loads do not meet it" };
    format!("{:#x} bytes {at}{dimm}, {state}, made by {source}{met}\n", fault.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_memory_is_a_line_each() {
        let reply = json!({"faults": [
            {"gpa": 0x1_0000_0040u64, "nvdimm": "pmem0", "dpa": 64, "len": 64, "source": "host", "state": "latent", "consumable": true},
            {"gpa": null, "nvdimm": "b", "dpa": 4096, "len": 4096, "source": "guest", "state": "known", "consumable": false}],
            "mechanism": "slot-hole", "neighbours_readable": true, "delivery": "broadcast", "pages": 2, "pages_left_out": 0,
            "counts": {"consumed": 1, "carried": 7, "last_latency_us": 120}});
        assert_eq!(
            text(&serde_json::from_value(reply).unwrap()),
            "0x40 bytes at 0x100000040 (DPA 0x40 of pmem0), latent, made by the host\n\
             0x1000 bytes nowhere in the guest (DPA 0x1000 of b), known, made by the guest; loads do not meet it\n\
             accesses to 2 pages are caught; loads that became machine checks: 1, the last one after 120 us; accesses carried \
             out: 7\n"
        );
    }
}
