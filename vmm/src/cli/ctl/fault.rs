//! `daxvisor ctl fault`: memory errors made, listed and cleared.

use crate::{
    config::HexAddress,
    control::{FaultClear, FaultInject, FaultList, FaultRequest, FaultTarget, FaultsChanged, Request},
    mce::Kind,
};
use clap::{Args, Subcommand};
use devices::{
    nvdimm::media::{ErrorSource, ErrorState},
    units::ByteSize,
};
use serde_json::Value;
use std::fmt::Write;

#[derive(Subcommand)]
pub(super) enum FaultVerb {
    /// Make memory bad: a load of it takes a machine check
    Inject(InjectArgs),
    /// List bad memory, how loads of it are caught, and how many were
    List,
    /// Make memory good
    Clear(ClearArgs),
}

#[derive(Args)]
struct PlaceArgs {
    /// Guest physical address
    #[arg(long, value_name = "ADDRESS")]
    gpa: Option<HexAddress>,
    /// Name of an NVDIMM, with --dpa
    #[arg(long, value_name = "ID", requires = "dpa")]
    nvdimm: Option<String>,
    /// Address in the NVDIMM
    #[arg(long, value_name = "ADDRESS", requires = "nvdimm")]
    dpa: Option<HexAddress>,
    /// Bytes, widened to lines of 64 [default: one line]
    #[arg(long, value_name = "SIZE")]
    len: Option<ByteSize>,
}

#[derive(Args)]
pub(super) struct InjectArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Choose places of this node at random
    #[arg(long, value_name = "NODE", conflicts_with_all = ["gpa", "nvdimm"])]
    node: Option<u32>,
    /// How many, with --node [default: 1]
    #[arg(long, value_name = "N", requires = "node")]
    count: Option<u32>,
    /// The same seed chooses the same places [default: 0]
    #[arg(long, value_name = "N", requires = "node")]
    seed: Option<u64>,
    /// The platform knows of it: an NVDIMM's bus notifies the guest, and short scrubs report it
    #[arg(long)]
    known: bool,
    /// Report it with a machine check record: srao, ucna, corrected, srar, srar-fetch or fatal
    #[arg(long, value_name = "KIND", value_parser = kind)]
    signal: Option<Kind>,
    /// APIC id of the vCPU that gets the record
    #[arg(long, value_name = "ID", default_value_t = 0)]
    vcpu: u32,
    /// Change nothing; say what Linux would make of it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(super) struct ClearArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// All there is
    #[arg(long, conflicts_with_all = ["gpa", "nvdimm", "len"])]
    all: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| format!("'{text}' is not one of srao, ucna, corrected, srar, srar-fetch, fatal"))
}

impl FaultVerb {
    pub(super) fn request(&self) -> Request {
        Request::Fault(match self {
            Self::List => FaultRequest::List,
            Self::Inject(said) => FaultRequest::Inject(Box::new(FaultInject {
                gpa: said.place.gpa,
                nvdimm: said.place.nvdimm.clone(),
                dpa: said.place.dpa,
                len: said.place.len,
                node: said.node,
                count: said.count,
                seed: said.seed,
                known: said.known,
                signal: said.signal,
                vcpu: said.vcpu,
                dry_run: said.dry_run,
            })),
            Self::Clear(said) => FaultRequest::Clear(FaultClear {
                gpa: said.place.gpa,
                nvdimm: said.place.nvdimm.clone(),
                dpa: said.place.dpa,
                len: said.place.len,
                all: said.all,
            }),
        })
    }
}

/// The reply as lines of text.
pub(super) fn text(request: &FaultRequest, reply: Value) -> Result<String, serde_json::Error> {
    Ok(match request {
        FaultRequest::List => list(&serde_json::from_value(reply)?),
        FaultRequest::Inject(_) => changed("bad", &serde_json::from_value(reply)?),
        FaultRequest::Clear(_) => changed("good", &serde_json::from_value(reply)?),
    })
}

/// Ranges shown one by one; the others are counted.
const SHOWN: usize = 16;

fn place(gpa: Option<u64>, nvdimm: Option<&str>, dpa: Option<u64>) -> String {
    let gpa = gpa.map_or_else(|| "nowhere in the guest".into(), |gpa| format!("{gpa:#x}"));
    match (nvdimm, dpa) {
        (Some(id), Some(dpa)) => format!("{gpa} ({id} at {dpa:#x})"),
        _ => gpa,
    }
}

fn changed(state: &str, reply: &FaultsChanged) -> String {
    let mut text = String::new();
    let would = if reply.dry_run { "would be" } else { "is" };
    for FaultTarget { gpa, nvdimm, dpa, len } in reply.ranges.iter().take(SHOWN) {
        let at = place(*gpa, nvdimm.as_deref(), *dpa);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} at {at} {would} {state}", ByteSize(*len));
    }
    if let Some(more) = reply.ranges.len().checked_sub(SHOWN).filter(|n| *n != 0) {
        let _ = writeln!(text, "and {more} more ranges");
    }
    for sentence in &reply.expect {
        let _ = writeln!(text, "expected: {sentence}");
    }
    if text.is_empty() {
        text.push_str("nothing changed\n");
    }
    text
}

fn list(reply: &FaultList) -> String {
    let mut text = String::new();
    for fault in &reply.faults {
        let source = match fault.source {
            ErrorSource::Guest => "the guest",
            ErrorSource::Host => "a request",
            ErrorSource::Backing => "the host's memory",
        };
        let state = match fault.state {
            ErrorState::Latent => "latent",
            ErrorState::Known => "known",
        };
        let at = place(fault.gpa, fault.nvdimm.as_deref(), fault.dpa);
        let _ = writeln!(text, "{} at {at}, {state}, from {source}", ByteSize(fault.len));
    }
    if reply.faults.is_empty() {
        text.push_str("no memory errors\n");
    }
    let left = match reply.pages_left_out {
        0 => String::new(),
        n => format!(", {n} more are not"),
    };
    let latency = reply.counts.last_latency_us;
    let latency = latency.map_or_else(String::new, |us| format!(", the last after {us} us"));
    let _ = writeln!(
        text,
        "accesses to {} pages are caught{left}; {} loads became machine checks{latency}; {} accesses were carried out; {} \
         records were asked for",
        reply.pages, reply.counts.consumed, reply.counts.carried, reply.counts.signalled
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bad_memory_is_a_line_each() {
        let reply = json!({"faults": [
            {"gpa": 0x1_0000_0040u64, "nvdimm": "pmem0", "dpa": 64, "len": 64, "source": "host", "state": "latent"},
            {"gpa": 0x20_0000, "nvdimm": null, "dpa": null, "len": 4096, "source": "backing", "state": "known"}],
            "mechanism": "slot-hole", "neighbours-readable": true, "delivery": "broadcast", "pages": 2, "pages-left-out": 0,
            "counts": {"consumed": 1, "carried": 7, "signalled": 0, "last-latency-us": 120}});
        assert_eq!(
            text(&FaultRequest::List, reply).unwrap(),
            "64 at 0x100000040 (pmem0 at 0x40), latent, from a request\n\
             4K at 0x200000, known, from the host's memory\n\
             accesses to 2 pages are caught; 1 loads became machine checks, the last after 120 us; 7 accesses were carried \
             out; 0 records were asked for\n"
        );
    }

    #[test]
    fn a_dry_run_says_what_would_be() {
        let reply = json!({"dry-run": true, "ranges": [{"gpa": 4096, "nvdimm": null, "dpa": null, "len": 64}],
            "expect": ["a load takes SRAR"]});
        let request = FaultRequest::Inject(Box::default());
        assert_eq!(
            text(&request, reply).unwrap(),
            "64 at 0x1000 would be bad\nexpected: a load takes SRAR\n"
        );
    }
}
