//! Memory errors: what is done once every vCPU stands.
//!
//! ```text
//!            lines changed, a vCPU met one               all stand
//!   attending -------------------------------> halting -----------> acted: holes, machine checks
//!        ^                                                             |
//!        +-------------------------------------------------------------+ the gate opens, unless the machine is paused
//! ```
//! vCPUs stand for the time of an exit each and a few ioctls. Whoever met bad memory goes on with a machine check or not at
//! all.

use super::{Outcome, Running, serve::End};
use crate::{
    control::{
        AwaitedAccess, AwaitedInfo, ControlError, Delivery, ErrorKind, FaultChange, FaultCounts, FaultInfo, FaultList,
        FaultNotified, FaultReport, Happening, Mechanism, MediaErrorInfo, NotifySeverity, NotifyVia, Phase, Response,
    },
    cpuid::Vendor,
    fault::{self, Faults, awaited::Trigger, storm::Storm},
    hv::HvError,
    machine::fault::{Given, passes, plan_checks},
    mce::{Banks, Kind},
    vcpu::Consumption,
};
use devices::{
    apei::{ExtendedLog, InjectionStatus},
    nvdimm::media::{BadRange, LINE},
    units::{Gpa, GpaRange},
};
use std::{
    collections::BTreeMap,
    mem::take,
    sync::Arc,
    time::{Duration, Instant},
};

/// vCPUs may take this long to stand before the log says that they do not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time from one broadcast to the next. A processor that has just declared its machine check handled is for a moment still in
/// its handler, whose stack another machine check would begin anew.
const PACE: Duration = Duration::from_millis(100);

/// Time from one look at vCPUs to the next, while something is bad.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be done, and whether vCPUs are on their way to a stop for it.
#[derive(Default)]
pub(super) struct Halt {
    /// The gate was closed for this.
    since: Option<Instant>,
    complained: bool,
    /// Changes of the lines up to which the holes are right.
    seen: Option<u64>,
    pub(super) counts: FaultCounts,
    /// A consumption waits for other vCPUs' handlers.
    crowded: bool,
    /// The last machine check that all vCPUs took.
    broadcast: Option<Instant>,
    /// Changes of the lines, and of the traps, that the holes are made for.
    dug: Option<(u64, u64)>,
    /// The last look at vCPUs that may wait for ever.
    looked: Option<Instant>,
    /// The guest waits for its own injection.
    pub(super) injecting: bool,
    /// What machine check banks are to tell, or have told, by number.
    notices: BTreeMap<u64, Notice>,
    /// Notices so far.
    noticed: u64,
    /// Errors that come later.
    pub(super) storms: Vec<Storm>,
    /// Storms so far.
    pub(super) storm_count: u64,
}

/// An error that a machine check bank tells the guest of.
pub(super) struct Notice {
    kind: Kind,
    severity: NotifySeverity,
    gpa: Gpa,
    done: Option<Result<FaultNotified, ControlError>>,
    /// Nobody asks how it ends.
    of_nobody: bool,
}

impl Notice {
    pub(super) fn new(kind: Kind, severity: NotifySeverity, gpa: Gpa) -> Self {
        Self {
            kind,
            severity,
            gpa,
            done: None,
            of_nobody: false,
        }
    }

    pub(super) fn of_nobody(self) -> Self {
        Self {
            of_nobody: true,
            ..self
        }
    }
}

impl Halt {
    /// Whether vCPUs that are still in the guest have to be kicked.
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some()
    }

    /// Has the guest told at the next stop; the number tells how that ended.
    pub(super) fn ask_notice(&mut self, notice: Notice) -> u64 {
        self.noticed += 1;
        self.notices.insert(self.noticed, notice);
        self.noticed
    }

    /// How a notice has ended, once.
    pub(super) fn take_notice(&mut self, number: u64) -> Option<Result<FaultNotified, ControlError>> {
        let done = self.notices.get_mut(&number)?.done.take()?;
        self.notices.remove(&number);
        Some(done)
    }

    /// Nobody waits for it any more.
    pub(super) fn forget_notice(&mut self, number: u64) {
        self.notices.remove(&number);
    }

    fn has_notices(&self) -> bool {
        self.notices.values().any(|notice| notice.done.is_none())
    }

    /// The gate was opened by somebody else.
    pub(super) fn interrupted(&mut self) {
        self.since = None;
    }
}

impl Running {
    pub(super) fn faults(&self) -> &Faults {
        &self.parts.platform.faults
    }

    /// How a change of errors ends: it is answered, with `report`, when loads meet what is bad now, and nothing else.
    pub(super) fn errors_in_force(&self, report: Option<Arc<FaultReport>>, late: bool) -> Option<End> {
        if self.halt.seen.is_some() && self.faults().changes() == self.halt.seen {
            let report = report.map(|report| Response::FaultReport(Box::new(Arc::unwrap_or_clone(report))));
            return Some(End::Answer(report.unwrap_or_else(|| self.state())));
        }
        late.then(|| {
            let why = "the vCPUs do not stand still; the errors are changed, and loads meet them as soon as they do";
            End::Failed(ControlError::new(ErrorKind::Deadline, why))
        })
    }

    /// Whether vCPUs are to be brought out for a look at what they wait for: now and then, while something is bad.
    pub(super) fn is_time_to_look(&mut self) -> bool {
        let due = self.halt.looked.is_none_or(|at| at.elapsed() >= LOOK);
        let due = due && self.phase == Phase::Running && self.faults().any();
        if due {
            self.halt.looked = Some(Instant::now());
        }
        due
    }

    /// Brings holes in line with lines and gives machine checks: all that needs vCPUs that stand.
    pub(super) fn attend_faults(&mut self) {
        if matches!(self.phase, Phase::Ending | Phase::Restarting) {
            return;
        }
        let changes = self.faults().changes().or(self.halt.seen);
        if self.halt.seen != changes && self.faults().has(&self.faults().plan()) {
            self.now_in_force(changes);
        }
        if self.halt.injecting && self.halt.seen.is_some() && self.halt.seen == self.faults().changes() {
            // What the guest asked for was so already.
            self.now_in_force(self.halt.seen);
        }
        self.hear_of_devices();
        let waiting = !self.parts.platform.consumptions().is_empty() || self.halt.has_notices();
        let waiting = waiting && !self.halt.crowded || self.has_lost();
        if self.halt.seen == changes && !waiting {
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
        let lost = self.take_lost();
        self.dig();
        self.check_caught(&lost);
        if let Err(error) = self.give_machine_checks().and_then(|()| self.give_notices()) {
            let why = format!("{error}: {}", error.source);
            let met = self.parts.platform.consumptions();
            let apic_id = met.first().map_or(0, |(id, _)| *id);
            self.end(Outcome::Failed { apic_id, why });
        }
    }

    fn dig(&mut self) {
        let changes = self.faults().changes();
        let all = changes.map(|changes| (changes, self.faults().trap_changes()));
        if all.is_some() && all == self.halt.dug {
            return;
        }
        self.halt.dug = None;
        for _ in 0..=self.faults().pieces() {
            let plan = self.faults().plan();
            if self.faults().has(&plan) {
                self.halt.dug = all;
                break;
            }
            if plan.left_out > 0 && plan.left_out != self.faults().caught().left_out {
                tracing::warn!(
                    pages = plan.left_out,
                    "pages with bad lines whose loads are not caught: there are too many"
                );
            }
            if let Err(error) = self.parts.growth.vm.report_all_not_emulated(!plan.is_empty()) {
                tracing::warn!("{error}: {}", error.source);
            }
            match self.faults().dig(plan) {
                Ok(true) => {
                    self.halt.dug = all;
                    break;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "loads of some bad lines are not caught");
                    break;
                }
            }
        }
        self.now_in_force(changes);
    }

    /// Loads meet the lines as they are after so many changes; from now on devices do so too.
    fn now_in_force(&mut self, changes: Option<u64>) {
        if changes.is_none() || self.halt.seen != changes {
            self.faults().tell_devices();
        }
        self.halt.seen = changes;
        if changes.is_some() && take(&mut self.halt.injecting) {
            self.injected(InjectionStatus::Success);
        }
    }

    /// What devices met is known from then on.
    fn hear_of_devices(&mut self) {
        let (met, count) = self.faults().met_by_devices();
        self.halt.counts.device_requests = count;
        for line in met {
            let range = GpaRange::new(Gpa(line.0 / LINE * LINE), LINE);
            if let Err(error) = self.faults().discover(range) {
                tracing::warn!(%error, "an error that a device met stays unknown");
            }
            tracing::debug!(at = %range.start, "a device met bad memory");
            self.note(Happening::Fault {
                change: FaultChange::MetByDevice,
                gpa: Some(range.start.0),
                len: LINE,
                ranges: 1,
                vcpu: None,
            });
        }
    }

    fn banks(&self) -> Result<Vec<(u32, Banks)>, HvError> {
        let ports = self.parts.checks.ports.iter();
        ports.map(|port| Ok((port.apic_id(), port.banks()?))).collect()
    }

    fn give(&self, given: &[Given]) -> Result<(), HvError> {
        for Given { apic_id, record } in given {
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
        let given = match plan_checks(&self.parts.checks.personality, &self.banks()?, &errors) {
            Ok(given) => given,
            Err(blocked) if passes(&blocked, &consumers) => {
                self.halt.crowded = true;
                return Ok(());
            }
            Err(blocked) => {
                let (apic_id, why) = (blocked.apic_id, blocked.why.to_string());
                self.end(Outcome::MachineCheck { apic_id, why });
                return Ok(());
            }
        };
        let is_broadcast = given.iter().any(|given| !consumers.contains(&given.apic_id));
        if is_broadcast {
            if self.halt.broadcast.is_some_and(|at| at.elapsed() < PACE) {
                self.halt.crowded = true;
                return Ok(());
            }
            self.halt.broadcast = Some(Instant::now());
        }
        for (_, _, line) in &errors {
            if let Err(error) = self.faults().discover(GpaRange::new(*line, LINE)) {
                tracing::warn!(%error, "a consumed error stays unknown");
            }
        }
        self.log_extended(&given, &errors);
        self.give(&given)?;
        for (apic_id, kind, line) in &errors {
            tracing::debug!(vcpu = apic_id, %kind, at = %line, "the guest met bad memory");
            self.parts.platform.settle_consumption(*apic_id);
            self.note(Happening::Fault {
                change: FaultChange::Consumed,
                gpa: Some(line.0),
                len: LINE,
                ranges: 1,
                vcpu: Some(*apic_id),
            });
        }
        self.halt.counts.consumed += errors.len() as u64;
        self.halt.counts.last_latency_us = begun.map(|at| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Has machine check banks tell the guest what they are to tell it, one error at a stop.
    fn give_notices(&mut self) -> Result<(), HvError> {
        let next = self.halt.notices.iter().find(|(_, notice)| notice.done.is_none());
        let Some((number, kind, gpa)) = next.map(|(number, notice)| (*number, notice.kind, notice.gpa)) else {
            return Ok(());
        };
        let recent = self.halt.broadcast.is_some_and(|at| at.elapsed() < PACE);
        if self.halt.crowded || recent {
            self.halt.crowded = true;
            return Ok(());
        }
        let banks = self.banks()?;
        let apic_id = banks.first().map_or(0, |(apic_id, _)| *apic_id);
        let errors = [(apic_id, kind, gpa)];
        let given = plan_checks(&self.parts.checks.personality, &banks, &errors);
        let done = match given {
            Ok(given) => {
                self.log_extended(&given, &errors);
                self.give(&given)?;
                if given.iter().any(|given| given.record.is_exception()) {
                    self.halt.broadcast = Some(Instant::now());
                }
                Ok(apic_id)
            }
            Err(blocked) => Err(ControlError::new(
                ErrorKind::Conflict,
                format!("processor {} cannot take it: {}", blocked.apic_id, blocked.why),
            )),
        };
        if let Some(notice) = self.halt.notices.get_mut(&number) {
            notice.done = Some(done.map(|apic_id| FaultNotified {
                via: NotifyVia::MachineCheck,
                severity: notice.severity,
                gpa: Some(gpa.0),
                vcpu: Some(apic_id),
                waiting: 0,
            }));
            if notice.of_nobody {
                let done = self.halt.take_notice(number);
                self.end_notice_of_nobody(done);
            }
        }
        Ok(())
    }

    fn end_notice_of_nobody(&self, done: Option<Result<FaultNotified, ControlError>>) {
        match done {
            Some(Ok(told)) => self.note_notified(told.gpa, told.vcpu),
            // Whoever touches it learns of it.
            Some(Err(error)) => tracing::debug!("the guest is not told of an error: {error}"),
            None => {}
        }
    }

    /// Who hears of a machine check.
    pub(super) fn delivery(&self) -> Delivery {
        let personality = &self.parts.checks.personality;
        match personality.vendor {
            Vendor::Amd => Delivery::Local,
            _ if personality.has_local() => Delivery::LocalIfAllowed,
            _ => Delivery::Broadcast,
        }
    }

    /// How accesses can be caught.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let trap = self.faults().can_trap().then_some(Mechanism::Userfaultfd);
        [Mechanism::SlotHole].into_iter().chain(trap).collect()
    }

    /// Lines that are good until they are loaded from or stored to.
    fn awaited(&self) -> Vec<AwaitedInfo> {
        let all = self.faults().awaited_lines().into_iter();
        all.map(|(line, mut trigger)| AwaitedInfo {
            gpa: line.start.0,
            len: line.len,
            on: match trigger {
                Trigger::Load(_) => AwaitedAccess::Load,
                Trigger::Store(_) => AwaitedAccess::Store,
            },
            left: *trigger.left(),
        })
        .collect()
    }

    pub(super) fn list_faults(&self) -> Result<FaultList, ControlError> {
        let caught = self.faults().caught();
        let of_dimm = |error: MediaErrorInfo| FaultInfo {
            id: format!("{}@{:#x}", error.id, error.dpa),
            gpa: error.spa,
            nvdimm: Some(error.id),
            dpa: Some(error.dpa),
            len: error.len,
            source: error.source,
            state: error.state,
            consumable: error.spa.is_some() && fault::consumable(error.source),
        };
        let other = |range: BadRange| FaultInfo {
            id: format!("{:#x}", range.dpa.0),
            gpa: Some(range.dpa.0),
            nvdimm: None,
            dpa: None,
            len: range.len,
            source: range.source,
            state: range.state,
            consumable: fault::consumable(range.source),
        };
        let of_dimms = self.media_errors(None)?.errors.into_iter().map(of_dimm);
        let others = self.faults().ram_ranges().into_iter().map(other);
        Ok(FaultList {
            faults: of_dimms.chain(others).collect(),
            mechanisms: self.mechanisms(),
            neighbours_readable: true,
            delivery: self.delivery(),
            pages: caught.pages(),
            pages_trapped: caught.trapped(),
            pages_left_out: caught.left_out,
            counts: FaultCounts {
                carried: self.faults().carried(),
                ..self.halt.counts
            },
            storms: self.storms(),
            awaited: self.awaited(),
            sources: self.parts.apei.as_ref().map(|apei| apei.sources()).unwrap_or_default(),
            extended_log: self.parts.extlog.as_ref().map(ExtendedLog::info),
        })
    }
}
