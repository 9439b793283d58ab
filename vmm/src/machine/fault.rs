//! Which vCPU hears what of a memory error. Pure; `events::faults` acts.

use crate::{
    hv::McePort,
    mce::{Banks, Kind, Personality, Record, Refusal},
};
use devices::units::Gpa;

/// Least significant valid bit of the address in a record: a line of 64 bytes.
pub const LINE_LSB: u8 = 6;

/// The machine check registers of all vCPUs.
pub struct MachineChecks {
    /// What the vCPUs promise.
    pub personality: Personality,
    /// In the order of their APIC ids.
    pub ports: Vec<McePort>,
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
            if given
                .iter()
                .any(|given| given.apic_id == *apic_id && given.record.is_exception())
            {
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
