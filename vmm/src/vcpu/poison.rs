//! vCPUs that meet bad memory.
//!
//! The thread stands with its instruction undone and what it met beside it, and closes the gate for all. The owner of the
//! machine, once every vCPU stands, takes the consumption out, gives the machine check and opens the gate.

use super::{Platform, Report};
use crate::{
    fault::decode::{self, Decoded},
    hv::Vcpu,
};
use devices::units::{Gpa, GpaRange};
use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::Instant,
};

/// Why a vCPU stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumption {
    /// It loads from the bad line at this address.
    Load(Gpa, Instant),
    /// It fetches an instruction from there.
    Fetch(Gpa, Instant),
    /// An instruction of its cannot be carried out on a page that should be no hole any more.
    Stale,
}

impl Platform {
    fn consumed(&self) -> MutexGuard<'_, BTreeMap<u32, Consumption>> {
        self.consumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waits(&self, apic_id: u32) -> bool {
        self.consumed().contains_key(&apic_id)
    }

    /// vCPUs that stand because of what they met.
    pub fn consumptions(&self) -> Vec<(u32, Consumption)> {
        self.consumed().iter().map(|(id, met)| (*id, *met)).collect()
    }

    /// A vCPU may go on once the gate is opened.
    pub fn settle_consumption(&self, apic_id: u32) {
        self.consumed().remove(&apic_id);
    }

    /// A load of the bad line at `line` was about to complete.
    pub(super) fn load_of_poison(&self, vcpu: &mut Vcpu, line: Gpa) -> Result<Report, Report> {
        let apic_id = vcpu.apic_id();
        vcpu.cancel_access().map_err(|e| Report::failed(apic_id, &e))?;
        Ok(self.met(apic_id, Consumption::Load(line, Instant::now())))
    }

    /// The vCPU has touched what the host has lost: it does so again when that is an error of its own memory.
    pub(super) fn struck(&self, apic_id: u32) -> Report {
        self.met(apic_id, Consumption::Stale)
    }

    /// Notes why the vCPU waits.
    fn met(&self, apic_id: u32, what: Consumption) -> Report {
        self.consumed().insert(apic_id, what);
        Report::Poisoned
    }

    /// KVM cannot carry out the current instruction. If that is because it or its operands are in a hole, the vCPU can
    /// still go on: at once (none), or after what the report says.
    pub(super) fn not_emulated(&self, vcpu: &mut Vcpu, why: String) -> Result<Option<Report>, Report> {
        let apic_id = vcpu.apic_id();
        let failed = |e| Report::failed(apic_id, &e);
        let stuck = Report::Failed { apic_id, why };
        if !self.faults.any() {
            return Err(stuck);
        }
        let operands = vcpu.operands().map_err(failed)?;
        let rip = operands
            .rip
            .wrapping_add(if operands.bits == 64 { 0 } else { operands.segments[1] });
        let code = vcpu.translate(rip);
        if let Some(code) = code.filter(|code| self.faults.is_hole(*code)) {
            let met = self
                .faults
                .bad_of_page(code)
                .map(|line| Consumption::Fetch(line, Instant::now()));
            return Ok(Some(self.met(apic_id, met.unwrap_or(Consumption::Stale))));
        }
        let bytes = self.code(vcpu, rip);
        let Some(Decoded { len, hint, uses }) = decode::decode(&bytes, &operands) else {
            return Err(stuck);
        };
        let parts = uses.into_iter().flat_map(|(address, size)| parts(address, size));
        let physical = parts.filter_map(|(address, size)| Some(GpaRange::new(vcpu.translate(address)?, size)));
        let in_holes: Vec<GpaRange> = physical.filter(|part| self.faults.is_hole(part.start)).collect();
        if in_holes.is_empty() {
            return Err(stuck);
        }
        if hint {
            vcpu.skip(len).map_err(failed)?;
            return Ok(None);
        }
        // What cannot be carried out takes the whole page for bad.
        let touched = |part: &GpaRange| {
            self.faults
                .first_bad(*part)
                .or_else(|| self.faults.bad_of_page(part.start))
        };
        let line = in_holes.iter().find_map(touched);
        let met = line.map_or(Consumption::Stale, |line| Consumption::Load(line, Instant::now()));
        Ok(Some(self.met(apic_id, met)))
    }

    /// The bytes of the instruction at `rip`, as many as there are.
    fn code(&self, vcpu: &Vcpu, rip: u64) -> Vec<u8> {
        let mut bytes = vec![];
        for part in parts(rip, decode::MAX_LEN as u64) {
            let Some(window) = vcpu
                .translate(part.0)
                .and_then(|gpa| Some((self.faults.window(gpa)?, gpa)))
            else {
                break;
            };
            let (window, gpa) = window;
            let mut part = vec![0; usize::try_from(part.1).unwrap_or(0)];
            window.load(gpa.0 - window.range().start.0, &mut part);
            bytes.extend(part);
        }
        bytes
    }
}

/// `size` bytes at `address`, cut where a page ends.
fn parts(address: u64, size: u64) -> Vec<(u64, u64)> {
    let in_page = size.min(crate::memory::PAGE - address % crate::memory::PAGE);
    let rest = size - in_page;
    let first = (address, in_page);
    if rest == 0 {
        vec![first]
    } else {
        vec![first, (address.wrapping_add(in_page), rest)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_a_page_is_two_parts() {
        assert_eq!(parts(0x1ff8, 8), [(0x1ff8, 8)]);
        assert_eq!(parts(0x1ff8, 32), [(0x1ff8, 8), (0x2000, 24)]);
    }
}
