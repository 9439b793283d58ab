//! The extended error log: what is in it before a processor's machine check bank is filled.

use super::Running;
use crate::{machine::fault::Given, mce::Kind};
use devices::{apei::Logged, units::Gpa};

impl Running {
    /// Logs `errors` of memory, each for the processor and the bank that are `given` a record of it. Every vCPU stands.
    pub(super) fn log_extended(&self, given: &[Given], errors: &[(u32, Kind, Gpa)]) {
        let Some(log) = &self.parts.extlog else { return };
        for (apic_id, _, gpa) in errors {
            let own = |given: &&Given| given.apic_id == *apic_id;
            let Some(Given { record, .. }) = given.iter().find(own) else {
                continue;
            };
            let error = self.memory_error(record.severity(), *gpa);
            match log.log(*apic_id, record.bank, &error) {
                Ok(Logged::Told) => {}
                Ok(Logged::Lost(lost)) => {
                    let lost = lost.address().map_or_else(|| "?".into(), |gpa| gpa.to_string());
                    let why = "the extended error log has an error no more that the guest has not read";
                    // `fault list` counts them in any case.
                    match log.info().opted_in {
                        true => tracing::warn!(vcpu = apic_id, at = lost, "{why}"),
                        false => tracing::debug!(vcpu = apic_id, at = lost, "{why}"),
                    }
                }
                Err(error) => tracing::warn!(at = %gpa, "an error is not in the extended error log: {error}"),
            }
        }
    }
}
