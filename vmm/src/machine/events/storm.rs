//! Errors that come later.

use super::{Running, serve::Begun};
use crate::{
    control::{ControlError, ErrorKind, FaultChange, FaultInject, FaultReport, Happening, Phase, Response, StormInfo},
    fault::storm::{MAX_STORMS, Storm},
};
use devices::{
    nvdimm::media::{ErrorSource, Mark},
    units::GpaRange,
};

impl Running {
    /// The machine's time, pauses left out: errors do not come while the guest stands.
    fn guest_ms(&self) -> u64 {
        let (now, paused) = self.clock.read();
        now.saturating_sub(paused)
    }

    pub(super) fn begin_storm(
        &mut self,
        asked: &FaultInject,
        ranges: Vec<GpaRange>,
        report: FaultReport,
    ) -> Result<Begun, ControlError> {
        if self.halt.storms.len() >= MAX_STORMS {
            let why = format!("{MAX_STORMS} storms are still to come or go on");
            return Err(ControlError::new(ErrorKind::Busy, why).hint("stop one, or wait for its end"));
        }
        self.halt.storm_count += 1;
        let id = self.halt.storm_count;
        let begin_ms = self.guest_ms() + asked.after_ms.unwrap_or(0);
        let mark = Mark::latent(ErrorSource::Host);
        self.halt
            .storms
            .push(Storm::new(id, mark, ranges, begin_ms, asked.rate));
        let report = FaultReport {
            storm: Some(id),
            ..report
        };
        Ok(Begun::Done(Response::FaultReport(Box::new(report))))
    }

    pub(super) fn stop_storm(&mut self, id: u64) -> Result<Begun, ControlError> {
        let before = self.halt.storms.len();
        self.halt.storms.retain(|storm| storm.id != id);
        if self.halt.storms.len() == before {
            let error = ControlError::new(ErrorKind::NotFound, format!("there is no storm {id}, or it has ended"));
            return Err(error.field("storm").hint("`fault list` names those that there are"));
        }
        Ok(Begun::Done(self.state()))
    }

    pub(super) fn storms(&self) -> Vec<StormInfo> {
        let now = self.guest_ms();
        let info = |storm: &Storm| StormInfo {
            id: storm.id,
            left: storm.left(),
            done: storm.done(),
            begins_in_ms: storm.begin_ms().saturating_sub(now),
        };
        self.halt.storms.iter().map(info).collect()
    }

    /// Makes bad what is due.
    pub(super) fn let_it_storm(&mut self) {
        if self.halt.storms.is_empty() || self.phase != Phase::Running {
            return;
        }
        let now = self.guest_ms();
        let mut storms = std::mem::take(&mut self.halt.storms);
        for storm in &mut storms {
            let due = storm.take_due(now);
            if !due.is_empty() {
                self.strike(storm, &due);
            }
        }
        storms.retain(|storm| storm.left() > 0);
        self.halt.storms = storms;
    }

    fn strike(&self, storm: &Storm, due: &[GpaRange]) {
        // Memory may have gone since: that part of the storm has nothing to hit.
        let there: Vec<GpaRange> = due
            .iter()
            .copied()
            .filter(|range| self.check_memory(*range).is_ok())
            .collect();
        if let Err(error) = self.faults().inject_all(&there, storm.mark) {
            tracing::warn!(storm = storm.id, %error, "a part of a storm has come to nothing");
            return;
        }
        self.note(Happening::Fault {
            change: FaultChange::Injected,
            gpa: there.first().map(|range| range.start.0),
            len: there.iter().map(|range| range.len).sum(),
            ranges: there.len() as u64,
            vcpu: None,
        });
    }
}
