//! Memory errors: what is done once every vCPU stands.
//!
//! ```text
//!            lines changed, a vCPU met one, a request         all stand
//!   attending -----------------------------------> halting -----------> acted: holes, machine checks, replies
//!        ^                                                                 |
//!        +-----------------------------------------------------------------+ the gate opens, unless the machine is paused
//! ```
//! vCPUs stand for the time of an exit each and a few ioctls. Whoever met bad memory goes on with a machine check or not at
//! all.

use super::{Outcome, Running};
use crate::{
    control::{
        ControlError, Delivery, ErrorKind, FaultCounts, FaultInfo, FaultInject, FaultList, FaultRequest, FaultTarget,
        FaultsChanged, Mechanism, Phase, Response,
    },
    cpuid::Vendor,
    fault::{Fault, FaultError, Faults},
    hv::HvError,
    machine::fault::{self, Memory, Target},
    mce::{Banks, Kind},
    vcpu::Consumption,
};
use devices::{
    nvdimm::{errors::ErrorsError, media::ErrorSource},
    units::{Dpa, Gpa, GpaRange},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// vCPUs may take this long to stand before the log says that they do not.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done, and whether vCPUs are on their way to a stop for it.
#[derive(Default)]
pub(super) struct Halt {
    /// The gate was closed for this.
    since: Option<Instant>,
    complained: bool,
    jobs: Vec<Job>,
    answers: BTreeMap<u64, Result<Response, ControlError>>,
    next: u64,
    /// Changes of the lines up to which the holes are right.
    seen: Option<u64>,
    counts: FaultCounts,
    /// Since when a consumption waits for other vCPUs' handlers.
    crowded: bool,
}

/// A request that was checked.
struct Job {
    ticket: u64,
    what: What,
}

enum What {
    Inject(Box<FaultInject>, Vec<Target>),
    Clear(Option<Vec<Target>>),
}

impl Halt {
    /// Whether vCPUs that are still in the guest have to be kicked.
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some()
    }

    /// The answer to a request, when there is one.
    pub(super) fn take_answer(&mut self, ticket: u64) -> Option<Result<Response, ControlError>> {
        self.answers.remove(&ticket)
    }

    /// The gate was opened by somebody else.
    pub(super) fn interrupted(&mut self) {
        self.since = None;
    }

    fn job(&mut self, what: What) -> u64 {
        self.next += 1;
        let ticket = self.next;
        self.jobs.push(Job { ticket, what });
        ticket
    }
}

/// What a fault request comes to.
pub(super) enum FaultBegun {
    Done(Response),
    /// There will be an answer with this ticket.
    Ticket(u64),
}

fn refused(error: &FaultError) -> ControlError {
    let text = error.to_string();
    let kind = match error {
        FaultError::NotMemory { .. } => ErrorKind::InvalidRequest,
        FaultError::Nvdimm(ErrorsError::Full(_)) => ErrorKind::Conflict,
        FaultError::Nvdimm(_) => ErrorKind::InvalidRequest,
    };
    match text.split_once("; hint: ") {
        Some((detail, hint)) => ControlError::new(kind, detail.to_owned()).hint(hint.to_owned()),
        None => ControlError::new(kind, text),
    }
}

fn broken(error: &HvError) -> ControlError {
    ControlError::new(ErrorKind::Internal, format!("{error}: {}", error.source))
}

impl Running {
    fn faults(&self) -> &Faults {
        &self.parts.platform.faults
    }

    /// Begins what was admitted.
    pub(super) fn fault(&mut self, request: &FaultRequest) -> Result<FaultBegun, ControlError> {
        match request {
            FaultRequest::List => Ok(FaultBegun::Done(Response::Faults(Box::new(self.list_faults())))),
            FaultRequest::Inject(said) => {
                let targets = self.fault_memory().plan_injection(said)?;
                if let Some(target) = targets.first() {
                    self.check_target(*target)?;
                }
                if said.signal.is_some() && !self.parts.checks.ports.iter().any(|port| port.apic_id() == said.vcpu) {
                    let missing = format!("there is no vCPU with APIC id {}", said.vcpu);
                    return Err(ControlError::new(ErrorKind::NotFound, missing).field("vcpu"));
                }
                Ok(FaultBegun::Ticket(self.halt.job(What::Inject(said.clone(), targets))))
            }
            FaultRequest::Clear(said) => {
                let targets = self.fault_memory().plan_clearing(said)?;
                if let Some(target) = targets.iter().flatten().next() {
                    self.check_target(*target)?;
                }
                Ok(FaultBegun::Ticket(self.halt.job(What::Clear(targets))))
            }
        }
    }

    fn fault_memory(&self) -> Memory<'_> {
        let dimms = self.parts.nvdimm.iter().flat_map(|bus| {
            bus.with(|state| {
                let dimms = state.nfit.dimms.iter();
                dimms.map(|dimm| (dimm.id.clone(), dimm.slot)).collect::<Vec<_>>()
            })
        });
        Memory {
            layout: &self.parts.growth.layout,
            dimms: dimms.collect(),
        }
    }

    fn check_target(&self, target: Target) -> Result<(), ControlError> {
        match target {
            Target::Gpa(range) => self.faults().place(range).map(drop).map_err(|e| refused(&e)),
            Target::Dimm(slot, dpa, len) => {
                let capacity = self.parts.nvdimm.iter().find_map(|bus| {
                    bus.with(|state| state.nfit.dimm(slot).map(|dimm| dimm.capacity))
                });
                let capacity = capacity.unwrap_or(0);
                let inside = dpa.checked_add(len).is_some_and(|end| end <= capacity);
                let outside = ErrorsError::Outside { dpa, len, capacity };
                if inside { Ok(()) } else { Err(refused(&outside.into()).field("dpa")) }
            }
        }
    }

    /// Brings holes in line with lines, gives machine checks, answers requests: all that needs vCPUs that stand.
    pub(super) fn attend_faults(&mut self) {
        if self.phase == Phase::Ending {
            return;
        }
        let changes = self.faults().changes().or(self.halt.seen);
        if self.halt.seen != changes && self.faults().has(&self.faults().plan()) {
            self.halt.seen = changes;
        }
        let met = self.parts.platform.consumptions();
        let waiting = !met.is_empty() && !self.halt.crowded;
        if self.halt.jobs.is_empty() && self.halt.seen == changes && !waiting {
            // Whoever waits for others to get on is looked at again with the next event; there is one every tick.
            self.halt.crowded = false;
            if self.halt.since.take().is_some() && self.phase == Phase::Running {
                self.threads.resume();
            }
            return;
        }
        let (standing, all) = self.threads.standing();
        if standing == all {
            self.act_on_faults();
            self.halt.since = None;
            if self.phase == Phase::Running {
                self.threads.resume();
            }
            return;
        }
        match self.halt.since {
            None => {
                self.halt.since = Some(Instant::now());
                self.halt.complained = false;
                if self.phase == Phase::Running {
                    self.threads.pause();
                }
            }
            Some(since) if since.elapsed() > PATIENCE && !self.halt.complained => {
                self.halt.complained = true;
                tracing::warn!(standing, all, "vCPUs do not stand still for a memory error yet");
            }
            Some(_) => {}
        }
    }

    /// Every vCPU stands.
    fn act_on_faults(&mut self) {
        for Job { ticket, what } in std::mem::take(&mut self.halt.jobs) {
            let answer = match what {
                What::Inject(said, targets) => self.inject_faults(&said, &targets),
                What::Clear(targets) => self.clear_faults(targets),
            };
            self.halt.answers.insert(ticket, answer);
        }
        self.dig();
        if let Err(error) = self.give_machine_checks() {
            tracing::error!("{error}: {}", error.source);
            let why = format!("{error}: {}", error.source);
            let met = self.parts.platform.consumptions();
            let apic_id = met.first().map_or(0, |(id, _)| *id);
            self.end(Outcome::Failed { apic_id, why });
        }
    }

    fn dig(&mut self) {
        let changes = self.faults().changes();
        let plan = self.faults().plan();
        if !self.faults().has(&plan) {
            let some = !plan.is_empty();
            if plan.left_out > 0 {
                tracing::warn!(pages = plan.left_out, "pages with bad lines whose loads are not caught: there are too many");
            }
            if let Err(error) = self.parts.growth.vm.report_all_not_emulated(some) {
                tracing::warn!("{error}: {}", error.source);
            }
            if let Err(error) = self.faults().dig(plan) {
                tracing::error!(%error, "loads of some bad lines are not caught");
            }
        }
        self.halt.seen = changes;
    }

    fn banks(&self) -> Result<Vec<(u32, Banks)>, HvError> {
        let ports = self.parts.checks.ports.iter();
        ports.map(|port| Ok((port.apic_id(), port.banks()?))).collect()
    }

    fn give(&self, given: &[fault::Given]) -> Result<(), HvError> {
        for fault::Given { apic_id, record } in given {
            if let Some(port) = self.parts.checks.ports.iter().find(|port| port.apic_id() == *apic_id) {
                port.inject(record)?;
            }
        }
        Ok(())
    }

    /// Gives the vCPUs that met bad memory their machine checks.
    fn give_machine_checks(&mut self) -> Result<(), HvError> {
        let (mut errors, mut begun) = (vec![], None);
        for (apic_id, met) in self.parts.platform.consumptions() {
            match met {
                // The holes are right now.
                Consumption::Stale => self.parts.platform.settle_consumption(apic_id),
                Consumption::Load(line, at) => {
                    errors.push((apic_id, Kind::Srar, line));
                    begun = Some(at);
                }
                Consumption::Fetch(line, at) => {
                    errors.push((apic_id, Kind::SrarFetch, line));
                    begun = Some(at);
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let consumers: Vec<u32> = errors.iter().map(|(apic_id, ..)| *apic_id).collect();
        let given = match fault::plan_checks(&self.parts.checks.personality, &self.banks()?, &errors) {
            Ok(given) => given,
            Err(blocked) if fault::passes(&blocked, &consumers) => {
                self.halt.crowded = true;
                return Ok(());
            }
            Err(blocked) => {
                let why = blocked.why.to_string();
                self.end(Outcome::MachineCheck {
                    apic_id: blocked.apic_id,
                    why,
                });
                return Ok(());
            }
        };
        for (_, _, line) in &errors {
            let line = GpaRange::new(*line, devices::nvdimm::media::LINE);
            if let Err(error) = self.faults().discover(line) {
                tracing::warn!(%error, "a consumed error stays unknown");
            }
        }
        self.give(&given)?;
        for (apic_id, kind, line) in &errors {
            tracing::debug!(vcpu = apic_id, %kind, at = %line, "the guest met bad memory");
            self.parts.platform.settle_consumption(*apic_id);
        }
        self.halt.counts.consumed += errors.len() as u64;
        self.halt.counts.last_latency_us =
            begun.map(|at| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Makes memory bad, all of it or none.
    fn inject_faults(&mut self, said: &FaultInject, targets: &[Target]) -> Result<Response, ControlError> {
        let ranges: Vec<FaultTarget> = targets.iter().map(|target| self.describe_target(*target)).collect();
        let mut given = vec![];
        if let Some(kind) = said.signal {
            let gpa = ranges.first().and_then(|range| range.gpa);
            let gpa = gpa.ok_or_else(|| {
                ControlError::new(ErrorKind::InvalidRequest, "the guest sees the range nowhere, so no record can name it")
                    .field("signal")
            })?;
            let banks = self.banks().map_err(|e| broken(&e))?;
            let planned = fault::plan_checks(&self.parts.checks.personality, &banks, &[(said.vcpu, kind, Gpa(gpa))]);
            given = planned.map_err(|blocked| {
                let why = format!("vCPU {} cannot take {kind} now: {}", blocked.apic_id, blocked.why);
                ControlError::new(ErrorKind::Conflict, why).field("signal")
            })?;
        }
        // Only what is known is told to the guest.
        let mark = Faults::mark(ErrorSource::Host, said.known && !said.dry_run);
        let all: Vec<(Target, _)> = targets.iter().map(|target| (*target, mark)).collect();
        let personality = &self.parts.checks.personality;
        let few = ranges.iter().take(8);
        let expect = few.map(|range| fault::expectation(range, said.signal, personality));
        let reply = Response::FaultsChanged(Box::new(FaultsChanged {
            dry_run: said.dry_run,
            expect: expect.collect(),
            ranges,
        }));
        let kept = self.faults().snapshot();
        let done = all.into_iter().try_for_each(|(target, mark)| match target {
            Target::Gpa(range) => self.faults().inject(range, mark),
            Target::Dimm(slot, dpa, len) => self.faults().inject_dimm(slot, Dpa(dpa), len, mark),
        });
        if done.is_err() || said.dry_run {
            self.faults().put_back(kept);
        }
        done.map_err(|e| refused(&e))?;
        if !said.dry_run && said.signal.is_some() {
            self.give(&given).map_err(|e| broken(&e))?;
            self.halt.counts.signalled += 1;
        }
        Ok(reply)
    }

    fn clear_faults(&mut self, targets: Option<Vec<Target>>) -> Result<Response, ControlError> {
        let targets = targets.unwrap_or_else(|| {
            let all = self.faults().list().into_iter();
            all.filter_map(|Fault { gpa, dimm, len, .. }| match (dimm, gpa) {
                (Some((slot, dpa)), _) => Some(Target::Dimm(slot, dpa.0, len)),
                (None, Some(gpa)) => Some(Target::Gpa(GpaRange::new(gpa, len))),
                (None, None) => None,
            })
            .collect()
        });
        let ranges = targets.iter().map(|target| self.describe_target(*target)).collect();
        let kept = self.faults().snapshot();
        let done = targets.into_iter().try_for_each(|target| match target {
            Target::Gpa(range) => self.faults().clear(range),
            Target::Dimm(slot, dpa, len) => self.faults().clear_dimm(slot, Dpa(dpa), len),
        });
        if done.is_err() {
            self.faults().put_back(kept);
        }
        done.map_err(|e| refused(&e))?;
        Ok(Response::FaultsChanged(Box::new(FaultsChanged {
            dry_run: false,
            ranges,
            expect: vec![],
        })))
    }

    fn dimm_name(&self, slot: u8) -> Option<String> {
        let name = |bus: &std::sync::Arc<devices::nvdimm::NvdimmBus>| {
            bus.with(|state| state.nfit.dimm(slot).map(|dimm| dimm.id.clone()))
        };
        self.parts.nvdimm.iter().find_map(name)
    }

    fn describe_target(&self, target: Target) -> FaultTarget {
        let (gpa, dimm, len) = match target {
            Target::Gpa(range) => (Some(range.start), self.faults().to_dpa(range.start), range.len),
            Target::Dimm(slot, dpa, len) => (self.faults().to_gpa(slot, Dpa(dpa)), Some((slot, Dpa(dpa))), len),
        };
        FaultTarget {
            gpa: gpa.map(|gpa| gpa.0),
            nvdimm: dimm.and_then(|(slot, _)| self.dimm_name(slot)),
            dpa: dimm.map(|(_, dpa)| dpa.0),
            len,
        }
    }

    fn list_faults(&self) -> FaultList {
        let personality = &self.parts.checks.personality;
        let (pages, pages_left_out) = self.faults().pages();
        let info = |fault: Fault| FaultInfo {
            gpa: fault.gpa.map(|gpa| gpa.0),
            nvdimm: fault.dimm.and_then(|(slot, _)| self.dimm_name(slot)),
            dpa: fault.dimm.map(|(_, dpa)| dpa.0),
            len: fault.len,
            source: fault.mark.source,
            state: fault.mark.state,
        };
        FaultList {
            faults: self.faults().list().into_iter().map(info).collect(),
            mechanism: Mechanism::SlotHole,
            neighbours_readable: true,
            delivery: match personality.vendor {
                Vendor::Amd => Delivery::Local,
                _ if personality.has_local() => Delivery::LocalIfAllowed,
                _ => Delivery::Broadcast,
            },
            pages,
            pages_left_out,
            counts: FaultCounts {
                carried: self.faults().carried(),
                ..self.halt.counts
            },
        }
    }
}
