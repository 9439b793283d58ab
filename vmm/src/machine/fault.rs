//! Memory errors of a running machine: which ranges a request means, what Linux makes of them, and which vCPU is told how.
//! Pure; `events::faults` acts.

use crate::{
    control::{ControlError, ErrorKind, FaultClear, FaultInject, FaultTarget},
    hv::McePort,
    layout::Layout,
    mce::{Banks, Kind, Personality, Record, Refusal},
};
use devices::{
    nvdimm::media::LINE,
    units::{Gpa, GpaRange},
};
use std::collections::BTreeSet;

/// Most ranges of one request.
pub const MAX_TARGETS: u32 = 100_000;
/// Least significant valid bit of the address in a record: a line of 64 bytes.
pub const LINE_LSB: u8 = 6;

/// The machine check registers of all vCPUs.
pub struct MachineChecks {
    /// What the vCPUs promise.
    pub personality: Personality,
    /// In the order of their APIC ids.
    pub ports: Vec<McePort>,
}

/// Where a range is that is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// By guest physical address.
    Gpa(GpaRange),
    /// By slot, DPA and length.
    Dimm(u8, u64, u64),
}

/// What of a machine is looked at to find targets.
pub struct Memory<'a> {
    /// Addresses.
    pub layout: &'a Layout,
    /// Name and slot of every NVDIMM.
    pub dimms: Vec<(String, u8)>,
}

fn wrong(detail: impl Into<String>, field: &'static str) -> ControlError {
    ControlError::new(ErrorKind::InvalidRequest, detail.into()).field(field)
}

/// `start` and `len` widened to whole lines.
fn lines(start: u64, len: u64, field: &'static str) -> Result<GpaRange, ControlError> {
    if len == 0 {
        return Err(wrong("a range of 0 bytes is none; hint: leave out len for one line", "len"));
    }
    let end = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(LINE));
    let end = end.ok_or_else(|| wrong(format!("{len:#x} bytes at {start:#x} are beyond 64 bits"), field))?;
    let start = start / LINE * LINE;
    Ok(GpaRange::new(Gpa(start), end - start))
}

impl Memory<'_> {
    fn slot(&self, name: &str) -> Result<u8, ControlError> {
        let found = self.dimms.iter().find(|(id, _)| id == name);
        let missing = || ControlError::new(ErrorKind::NotFound, format!("there is no NVDIMM '{name}'"));
        found.map(|(_, slot)| *slot).ok_or_else(|| missing().field("nvdimm"))
    }

    /// RAM and SPA ranges of a node.
    fn of_node(&self, node: u32) -> Vec<GpaRange> {
        let ram = self.layout.ram.iter().filter(|ram| ram.node == node).map(|ram| ram.range);
        let spas = self.layout.spas.iter().map(|spa| &spa.plan);
        let spas = spas.filter(|spa| spa.proximity == node && !spa.mappings.is_empty());
        ram.chain(spas.map(|spa| spa.range)).collect()
    }

    /// The ranges that a request to make memory bad means.
    pub fn plan_injection(&self, said: &FaultInject) -> Result<Vec<Target>, ControlError> {
        let len = said.len.map_or(LINE, |len| len.0);
        match (said.gpa, &said.nvdimm, said.dpa, said.node) {
            (Some(gpa), None, None, None) => Ok(vec![Target::Gpa(lines(gpa.0, len, "gpa")?)]),
            (None, Some(name), Some(dpa), None) => self.dimm(name, dpa.0, len),
            (None, None, None, Some(node)) => self.at_random(node, len, said),
            _ => Err(wrong(
                "an error needs one place: gpa, or nvdimm and dpa, or node",
                "gpa",
            )),
        }
    }

    /// The ranges that a request to make memory good means; none: all.
    pub fn plan_clearing(&self, said: &FaultClear) -> Result<Option<Vec<Target>>, ControlError> {
        let len = said.len.map_or(LINE, |len| len.0);
        match (said.gpa, &said.nvdimm, said.dpa, said.all) {
            (Some(gpa), None, None, false) => Ok(Some(vec![Target::Gpa(lines(gpa.0, len, "gpa")?)])),
            (None, Some(name), Some(dpa), false) => self.dimm(name, dpa.0, len).map(Some),
            (None, None, None, true) if said.len.is_none() => Ok(None),
            _ => Err(wrong(
                "what is cleared needs one place: gpa, or nvdimm and dpa, or all",
                "gpa",
            )),
        }
    }

    fn dimm(&self, name: &str, dpa: u64, len: u64) -> Result<Vec<Target>, ControlError> {
        let slot = self.slot(name)?;
        let range = lines(dpa, len, "dpa")?;
        Ok(vec![Target::Dimm(slot, range.start.0, range.len)])
    }

    fn at_random(&self, node: u32, len: u64, said: &FaultInject) -> Result<Vec<Target>, ControlError> {
        let count = said.count.unwrap_or(1);
        if !(1..=MAX_TARGETS).contains(&count) {
            return Err(wrong(format!("count {count} is not one of 1 to {MAX_TARGETS}"), "count"));
        }
        let len = lines(0, len, "len")?.len;
        let places: Vec<(GpaRange, u64)> = self
            .of_node(node)
            .into_iter()
            .map(|range| (range, range.len / len))
            .filter(|(_, places)| *places != 0)
            .collect();
        let all: u64 = places.iter().map(|(_, n)| n).sum();
        if all < u64::from(count) {
            let few = format!("node {node} has room for {all} separate ranges of {len:#x} bytes, not for {count}");
            return Err(wrong(few, "node"));
        }
        let mut random = SplitMix(said.seed.unwrap_or(0));
        let mut chosen = BTreeSet::new();
        // More than half of all: those that are left out are chosen.
        let few = u64::from(count).min(all - u64::from(count));
        while (chosen.len() as u64) < few {
            chosen.insert(random.below(all));
        }
        let place = |mut n: u64| {
            places.iter().find_map(|(range, places)| {
                let here = (n < *places).then(|| GpaRange::new(Gpa(range.start.0 + n * len), len));
                n = n.saturating_sub(*places);
                here
            })
        };
        let numbers: Vec<u64> = if few == u64::from(count) {
            chosen.into_iter().collect()
        } else {
            (0..all).filter(|n| !chosen.contains(n)).collect()
        };
        Ok(numbers.into_iter().filter_map(place).map(Target::Gpa).collect())
    }
}

/// The generator "splitmix64" (Steele, Lea, Flood 2014): the same numbers everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`: the high half of a product, so that no remainder favours small ones.
    fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// What a Linux guest makes of bad memory there.
pub fn expectation(target: &FaultTarget, signal: Option<Kind>, personality: &Personality) -> String {
    let at = target.gpa.map_or_else(|| "nowhere".into(), |gpa| format!("{gpa:#x}"));
    let load = if personality.recovers() {
        "takes SRAR"
    } else {
        "brings the guest down, which cannot recover from machine checks"
    };
    let load = match (&target.nvdimm, target.gpa) {
        (Some(id), None) => format!("{id} shows the bytes in no range, so nothing loads them"),
        (Some(id), Some(_)) => format!(
            "a load at {at} ({id}) {load}; the kernel adds the line to the region's badblocks, user programs get SIGBUS, \
             read() of a file fails with EIO"
        ),
        (None, _) => format!(
            "a load at {at} {load}; the kernel takes the page out of use, user programs that map it get SIGBUS; \
             its own text and data are beyond recovery"
        ),
    };
    match signal {
        None => load,
        Some(kind) => format!("{kind} reports {at} now; {load}"),
    }
}

/// One vCPU and what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// APIC id.
    pub apic_id: u32,
    /// The record.
    pub record: Record,
}

/// Why no machine check can be given now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// APIC id of the vCPU that is in the way.
    pub apic_id: u32,
    /// What is in the way.
    pub why: Refusal,
}

/// Gives each vCPU of `errors` its record, and the others what they hear of it. `banks` has the registers of all vCPUs.
/// Processors that have not enabled machine checks do not hear of other processors' errors.
pub fn plan_checks(
    personality: &Personality,
    banks: &[(u32, Banks)],
    errors: &[(u32, Kind, Gpa)],
) -> Result<Vec<Given>, Blocked> {
    let mut given = vec![];
    let mut broadcast = false;
    for (apic_id, kind, gpa) in errors {
        let own = banks.iter().find(|(id, _)| id == apic_id).map(|(_, banks)| banks);
        let Some(own) = own else { continue };
        let local = personality.is_local(own);
        let record = personality.record(*kind, *gpa, LINE_LSB, local);
        let apic_id = *apic_id;
        record.admit(own).map_err(|why| Blocked { apic_id, why })?;
        broadcast |= record.is_exception() && !local;
        given.push(Given { apic_id, record });
    }
    if broadcast {
        let record = personality.companion();
        for (apic_id, banks) in banks {
            if given.iter().any(|given| given.apic_id == *apic_id && given.record.is_exception()) {
                continue;
            }
            let apic_id = *apic_id;
            match record.admit(banks) {
                Ok(()) => given.push(Given { apic_id, record }),
                Err(Refusal::Disabled) => {}
                Err(why) => return Err(Blocked { apic_id, why }),
            }
        }
    }
    Ok(given)
}

/// Whether a processor that is in the way will be out of it by itself.
pub fn passes(blocked: &Blocked, consumers: &[u32]) -> bool {
    // One that met bad memory while it handles a machine check will not get on.
    blocked.why == Refusal::InProgress && !consumers.contains(&blocked.apic_id)
}


#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
