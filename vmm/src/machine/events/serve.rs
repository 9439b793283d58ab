//! Requests, done on the loop's thread: the only place where one of them changes the machine.
//!
//! Nothing here waits. What takes time becomes a [`Pending`] with a goal and a deadline, which is looked at after every event.
//! There are two kinds:
//!
//! - what takes a moment ([`Begun::Until`]) is answered when its goal is reached or, with everything undone, at its deadline;
//! - what needs the guest ([`Begun::Operation`]) is answered at once with an operation, which the goal or the deadline ends.

use super::{Outcome, Running, look, media::Change};
use crate::{
    control::{
        Answer, ControlError, DaxPlan, DaxRange, DaxRequest, ErrorKind, FaultReport, GuestAction, GuestPower,
        Happening, MAX_WAIT, MachineInfo, MemoryRemoved, NvdimmAdded, NvdimmInfo, NvdimmList, NvdimmRequest,
        OperationKind, OperationList, OperationRequest, OperationResult, OperationState, Phase, RangePlanned, Request,
        Response, StateInfo, admit,
    },
    machine::{
        control::{Call, Reply},
        growth::Added,
        hotplug::Announced,
    },
};
use devices::{
    acpi::AcpiEvent,
    nvdimm::{BusState, FlushHints, NvdimmPlan, Security, SpaPlan, security::SecurityError},
    units::ByteSize,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long vCPUs may take to leave the guest.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take to read a new NFIT before the operation counts as unanswered.
const FIT_LIMIT: Duration = Duration::from_secs(30);
/// How long vCPUs may take to stand for a change of memory errors.
pub(super) const FAULT_LIMIT: Duration = Duration::from_secs(30);
/// Requests that are done before other events get their turn.
const TURN: usize = 64;
/// Requests and operations under way at a time.
const MAX_PENDING: usize = 64;

/// Something that is under way.
pub(super) struct Pending {
    whose: Whose,
    pub(super) goal: Goal,
    deadline: Instant,
}

impl Pending {
    /// The operation that waits for it.
    pub(super) fn operation(&self) -> Option<u64> {
        match self.whose {
            Whose::Operation(id) => Some(id),
            Whose::Caller(_) => None,
        }
    }
}

/// Who is told of the end.
enum Whose {
    /// Whoever asked, and is still waiting.
    Caller(Reply),
    /// Whoever looks at the operation of this number.
    Operation(u64),
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Every vCPU stands still.
    Paused,
    /// An operation has ended.
    Ended(u64),
    /// A virtio-mem device has as much plugged as was asked for.
    Plugged {
        /// Place of the device.
        index: usize,
        /// Bytes.
        size: u64,
    },
    /// Loads meet the memory errors that there are; what is answered then, if there is something to say.
    ErrorsInForce(Option<Arc<FaultReport>>),
    /// The guest was told of an error by a machine check bank.
    Noticed(u64),
    /// The guest has read this version of a bus's NFIT.
    FitSeen {
        /// Slot of the DIMM that came with it.
        slot: u8,
        /// Version.
        generation: u32,
        /// Version that it had read before.
        before: u32,
    },
    /// The guest has added a memory device, or says that it does not.
    MemoryTaken(Announced),
    /// The guest has given a memory device back, or says that it does not.
    MemoryGone(Announced, MemoryRemoved),
    /// The guest's kernel has taken what it was asked for.
    PowerTaken(GuestPower),
    /// The machine starts again; there is no deadline for it.
    NextBoot(RangePlanned),
}

impl Goal {
    /// The memory device that it is about.
    pub(super) fn memory_device(&self) -> Option<Announced> {
        match self {
            Self::MemoryTaken(device) | Self::MemoryGone(device, _) => Some(*device),
            Self::Paused
            | Self::Ended(_)
            | Self::ErrorsInForce(_)
            | Self::Noticed(_)
            | Self::FitSeen { .. }
            | Self::Plugged { .. }
            | Self::PowerTaken(_)
            | Self::NextBoot(_) => None,
        }
    }
}

/// What has become of a request that was begun.
pub(super) enum Begun {
    /// All of it is done.
    Done(Response),
    /// Answered when the goal is reached.
    Until(Goal, Duration),
    /// An operation on what is called so.
    Operation(OperationKind, String, Goal, Duration),
}

/// How something under way ends.
pub(super) enum End {
    /// With this answer to the caller.
    Answer(Response),
    /// The guest has confirmed the operation.
    Confirmed(OperationResult),
    /// It has not, in time; what is done stays done.
    Unanswered(OperationResult),
    /// It is undone.
    Failed(ControlError),
}

impl Running {
    /// Somebody asks something.
    pub(super) fn take_calls(&mut self) {
        if let Some(calls) = &self.parts.calls {
            calls.hush();
        }
        for _ in 0..TURN {
            let call = self.parts.calls.as_ref().and_then(|calls| calls.next());
            let Some(Call { request, reply }) = call else { return };
            self.call(&request, reply);
        }
        if let Some(calls) = &self.parts.calls {
            calls.ring();
        }
    }

    /// Tells whoever follows what happens.
    pub(super) fn note(&self, what: Happening) {
        self.parts.events.push(self.clock.read().0, what);
    }

    fn note_operation(&self, id: u64) {
        if let Ok(operation) = self.operations.get(id) {
            let operation = Box::new(operation.clone());
            self.note(Happening::Operation { operation });
        }
    }

    /// Tells when the guest has read another version of the NFIT.
    pub(super) fn note_fit(&mut self) {
        let Some(first) = self.parts.nvdimm.first() else { return };
        let (generation, seen) = (first.fit_generation(), first.fit_seen());
        if seen != self.fit_seen {
            self.fit_seen = seen;
            self.note(Happening::FitSeen { generation, seen });
        }
    }

    fn call(&mut self, request: &Request, reply: Reply) {
        self.requests += 1;
        let begun = admit(self.phase, request).and_then(|()| self.begin(request));
        if !request.is_look() {
            self.note(Happening::Request {
                request: request.name(),
                done: begun.is_ok(),
            });
        }
        match begun {
            Ok(Begun::Done(response)) => reply(Ok(response)),
            Err(error) => reply(Err(error)),
            Ok(Begun::Until(goal, limit)) => self.wait(Whose::Caller(reply), goal, limit),
            Ok(Begun::Operation(kind, target, goal, limit)) => {
                let id = self.operations.begin(kind, target, self.clock.read().0);
                self.note_operation(id);
                self.wait(Whose::Operation(id), goal, limit);
                reply(self.operation(id));
            }
        }
    }

    fn wait(&mut self, whose: Whose, goal: Goal, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.pending.push(Pending { whose, goal, deadline });
    }

    fn operation(&self, id: u64) -> Answer {
        let operation = self.operations.get(id)?;
        Ok(Response::Operation(Box::new(operation.clone())))
    }

    pub(super) fn state(&self) -> Response {
        Response::State(StateInfo { state: self.phase })
    }

    /// Begins what was admitted; what fails here has changed nothing.
    fn begin(&mut self, request: &Request) -> Result<Begun, ControlError> {
        match request {
            Request::Describe => return Ok(Begun::Done(Response::Machine(Box::new(self.describe())))),
            Request::Nvdimm(request) => return self.nvdimm(request),
            Request::Operation(request) => return self.ask_operation(request),
            Request::Look(request) => return self.look(request).map(Begun::Done),
            Request::Memory(request) => return self.memory(request),
            Request::Dax(DaxRequest::Add(range)) => return self.add_dax_range(range),
            Request::Disk(request) => return self.disk(request).map(Begun::Done),
            Request::Limits(request) => return self.limits(request).map(Begun::Done),
            Request::Fault(request) => return self.fault(request),
            Request::PowerButton => self.parts.acpi.raise(AcpiEvent::PowerButton),
            Request::Ask(what) => return self.ask_guest(*what),
            Request::Pause => {
                self.room_for_pending()?;
                self.enter(Phase::Pausing);
                self.threads.pause();
                return Ok(Begun::Until(Goal::Paused, PAUSE_LIMIT));
            }
            Request::Resume => self.resume(),
            Request::Reboot => self.end(Outcome::ResetByControl),
            Request::Quit => self.end(Outcome::QuitByControl),
        }
        Ok(Begun::Done(self.state()))
    }

    fn ask_operation(&self, request: &OperationRequest) -> Result<Begun, ControlError> {
        match *request {
            OperationRequest::List => {
                let operations = self.operations.list();
                Ok(Begun::Done(Response::Operations(OperationList { operations })))
            }
            OperationRequest::Show { id, wait: 0 } => self.operation(id).map(Begun::Done),
            OperationRequest::Show { id, wait } => {
                self.operations.get(id)?;
                self.room_for_pending()?;
                Ok(Begun::Until(Goal::Ended(id), Duration::from_secs(wait.min(MAX_WAIT))))
            }
        }
    }

    fn nvdimm(&mut self, request: &NvdimmRequest) -> Result<Begun, ControlError> {
        match request {
            NvdimmRequest::List => Ok(Begun::Done(Response::Nvdimms(self.nvdimms()))),
            NvdimmRequest::Show { id } => {
                let found = self.nvdimms().dimms.into_iter().find(|dimm| dimm.id == *id);
                let found = found.ok_or_else(|| no_nvdimm(id))?;
                Ok(Begun::Done(Response::Nvdimm(Box::new(found))))
            }
            NvdimmRequest::Health { id } => {
                let mut buses = self.parts.nvdimm.iter();
                let found = buses.find_map(|bus| bus.with(|state| look::health(state, id)));
                let found = found.ok_or_else(|| no_nvdimm(id))?;
                Ok(Begun::Done(Response::Health(Box::new(found))))
            }
            NvdimmRequest::Add(said) => {
                self.room_for_pending()?;
                let before = self.nvdimms().fit_seen;
                let parts = &mut self.parts;
                let added = parts.growth.add_nvdimm(&parts.nvdimm, &parts.flush_hints, said)?;
                parts.plan = parts.growth.report();
                let Added { slot, generation } = added;
                let name = parts.growth.config.nvdimm_name(slot.into());
                let goal = Goal::FitSeen {
                    slot,
                    generation,
                    before,
                };
                Ok(Begun::Operation(OperationKind::NvdimmAdd, name, goal, FIT_LIMIT))
            }
            NvdimmRequest::Lock { id } => {
                self.lock_nvdimm(id)?;
                Ok(Begun::Done(self.state()))
            }
            NvdimmRequest::Inject { range, latent } => {
                self.room_for_pending()?;
                self.change_media(range, Change::Inject { latent: *latent })?;
                Ok(Begun::Until(Goal::ErrorsInForce(None), FAULT_LIMIT))
            }
            NvdimmRequest::Clear { range } => {
                self.room_for_pending()?;
                self.change_media(range, Change::Clear)?;
                Ok(Begun::Until(Goal::ErrorsInForce(None), FAULT_LIMIT))
            }
            NvdimmRequest::Errors { id } => {
                let errors = self.media_errors(id.as_deref())?;
                Ok(Begun::Done(Response::MediaErrors(errors)))
            }
        }
    }

    fn add_dax_range(&mut self, range: &DaxRange) -> Result<Begun, ControlError> {
        match range.plan()? {
            DaxPlan::Nvdimm(request) => self.nvdimm(&request),
            DaxPlan::Memory(request) => self.memory(&request),
            DaxPlan::NextBoot(said) => {
                self.room_for_pending()?;
                let planned = self.parts.growth.add_dax_range_later(*said)?;
                let (kind, name) = (OperationKind::RangeAdd, planned.id.clone());
                Ok(Begun::Operation(kind, name, Goal::NextBoot(planned), Duration::ZERO))
            }
        }
    }

    fn lock_nvdimm(&self, id: &str) -> Result<(), ControlError> {
        let lock = |state: &mut BusState| {
            let dimm = state.dimms.iter_mut().find(|dimm| dimm.plan.id == id)?;
            Some(dimm.security.as_mut().map(Security::lock_now))
        };
        let done = self.parts.nvdimm.iter().find_map(|bus| bus.with(lock));
        let conflict = |why: &str| ControlError::new(ErrorKind::Conflict, format!("{id} {why}")).field("id");
        match done {
            None => Err(no_nvdimm(id)),
            Some(None) => Err(conflict("has no security functions, and cannot be locked")),
            Some(Some(Ok(()))) => Ok(()),
            Some(Some(Err(error @ SecurityError::Media(_)))) => Err(ControlError::new(
                ErrorKind::Internal,
                format!("cannot lock {id}: {error}"),
            )),
            Some(Some(Err(_))) => Err(
                conflict("has no passphrase, or is being overwritten, and cannot be locked")
                    .hint("set a passphrase in the guest first: ndctl setup-passphrase"),
            ),
        }
    }

    pub(super) fn room_for_pending(&self) -> Result<(), ControlError> {
        if self.pending.len() < MAX_PENDING {
            return Ok(());
        }
        let why = format!("{MAX_PENDING} requests are under way already");
        Err(ControlError::new(ErrorKind::Busy, why).hint("wait for one of them to end"))
    }

    fn resume(&mut self) {
        self.halt.interrupted();
        self.threads.resume();
        self.clock.resume();
        self.enter(Phase::Running);
    }

    fn describe(&self) -> MachineInfo {
        let (uptime_ms, paused_ms) = self.clock.read();
        MachineInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: self.phase,
            uptime_ms,
            paused_ms,
            plan: self.parts.plan.clone(),
            nvdimm: self.nvdimms(),
            memory: self.memory_list(),
            virtio: self.virtio(),
        }
    }

    fn nvdimms(&self) -> NvdimmList {
        let Some(first) = self.parts.nvdimm.first() else {
            return NvdimmList::default();
        };
        let buses = self.parts.nvdimm.iter();
        let mut dimms: Vec<_> = buses
            .flat_map(|bus| bus.with(|state| nvdimm_infos(bus.number(), state, &self.parts.flush_hints)))
            .collect();
        dimms.sort_by_key(|dimm: &NvdimmInfo| dimm.slot);
        NvdimmList {
            fit_generation: first.fit_generation(),
            fit_seen: first.fit_seen(),
            dimms,
        }
    }

    /// Ends what is under way and has come to its end.
    pub(super) fn settle(&mut self) {
        let mut at = 0;
        while let Some(pending) = self.pending.get(at) {
            let (goal, late) = (pending.goal.clone(), Instant::now() >= pending.deadline);
            if let Some(id) = pending.operation() {
                self.note_progress(id, &goal);
            }
            match self.reached(goal, late) {
                None => at += 1,
                Some(end) => {
                    let pending = self.pending.remove(at);
                    self.finish_pending(pending.whose, end);
                }
            }
        }
    }

    fn finish_pending(&mut self, whose: Whose, end: End) {
        let now = self.clock.read().0;
        match (whose, end) {
            (Whose::Caller(reply), End::Answer(response)) => reply(Ok(response)),
            (Whose::Caller(reply), End::Failed(error)) => reply(Err(error)),
            (Whose::Operation(id), End::Confirmed(result)) => {
                self.operations.end(id, OperationState::Done, Ok(result), now);
                self.note_operation(id);
            }
            (Whose::Operation(id), End::Unanswered(result)) => {
                self.operations.end(id, OperationState::Unanswered, Ok(result), now);
                self.note_operation(id);
            }
            (Whose::Operation(id), End::Failed(error)) => {
                self.operations.end(id, OperationState::Failed, Err(error), now);
                self.note_operation(id);
            }
            (Whose::Caller(_), End::Confirmed(_) | End::Unanswered(_)) | (Whose::Operation(_), End::Answer(_)) => {
                unreachable!("a goal of operations is no goal of callers")
            }
        }
    }

    /// What the guest has done towards a goal since it was set.
    fn note_progress(&mut self, id: u64, goal: &Goal) {
        match *goal {
            Goal::FitSeen {
                generation: wanted,
                before,
                ..
            } => {
                let generation = self.nvdimms().fit_seen;
                if generation != before {
                    let meaning = format!(
                        "the guest has read version {generation} of the NFIT, and {wanted} is the one with the change"
                    );
                    self.note_step(id, GuestAction::FitSeen { generation, wanted }, meaning);
                }
            }
            Goal::Plugged { index, size } => {
                let plugged = self
                    .parts
                    .live
                    .mem
                    .get(index)
                    .map_or(0, |device| device.status().plugged);
                let action = GuestAction::Plugged {
                    plugged,
                    requested: size,
                };
                let meaning = format!("the guest has {} of {} plugged", ByteSize(plugged), ByteSize(size));
                self.note_step(id, action, meaning);
            }
            // What is said of memory devices is noted where their end is decided.
            Goal::MemoryTaken(_)
            | Goal::MemoryGone(..)
            | Goal::Paused
            | Goal::Ended(_)
            | Goal::ErrorsInForce(_)
            | Goal::Noticed(_)
            | Goal::PowerTaken(_)
            | Goal::NextBoot(_) => {}
        }
    }

    pub(super) fn note_step(&mut self, id: u64, action: GuestAction, meaning: String) {
        if self.operations.step(id, action, meaning, self.clock.read().0) {
            self.note_operation(id);
        }
    }

    /// How something under way ends, if it does now; what is too late for its goal is undone where it can be.
    fn reached(&mut self, goal: Goal, late: bool) -> Option<End> {
        if self.phase == Phase::Ending {
            // Which is what it was asked for.
            if goal == Goal::PowerTaken(GuestPower::PowerOff) {
                return Some(End::Answer(self.state()));
            }
            return Some(End::Failed(ControlError::new(
                ErrorKind::Ending,
                "the machine ended meanwhile",
            )));
        }
        if self.phase == Phase::Restarting {
            return Some(self.cut_short(goal));
        }
        self.reached_running(goal, late)
    }

    fn reached_running(&mut self, goal: Goal, late: bool) -> Option<End> {
        match goal {
            Goal::ErrorsInForce(report) => self.errors_in_force(report, late),
            Goal::Noticed(number) => self.noticed(number, late),
            Goal::NextBoot(_) => None,
            Goal::PowerTaken(what) => self.power_taken(what, late),
            Goal::MemoryTaken(device) => self.memory_taken(device, late),
            Goal::MemoryGone(device, gone) => self.memory_gone(device, gone, late),
            Goal::Plugged { index, size } => self.memory_target(index, size, late),
            Goal::FitSeen { slot, generation, .. } => {
                let list = self.nvdimms();
                let dimm = list.dimms.into_iter().find(|dimm| dimm.slot == slot)?;
                let added = OperationResult::NvdimmAdded(Box::new(NvdimmAdded {
                    dimm,
                    fit_generation: generation,
                    fit_seen: list.fit_seen,
                }));
                if list.fit_seen >= generation {
                    return Some(End::Confirmed(added));
                }
                late.then_some(End::Unanswered(added))
            }
            Goal::Ended(id) => match self.operations.get(id) {
                Ok(operation) if operation.state == OperationState::Running && !late => None,
                Ok(operation) => Some(End::Answer(Response::Operation(Box::new(operation.clone())))),
                Err(error) => Some(End::Failed(error)),
            },
            Goal::Paused => {
                let (standing, all) = self.threads.standing();
                if standing == all {
                    self.enter(Phase::Paused);
                    self.clock.pause();
                    return Some(End::Answer(self.state()));
                }
                late.then(|| {
                    self.resume();
                    let limit = PAUSE_LIMIT.as_secs();
                    let why = format!("{standing} of {all} vCPUs stood still within {limit} s; all of them run again");
                    let error = ControlError::new(ErrorKind::Deadline, why);
                    End::Failed(error.hint("the host may be overloaded: try again"))
                })
            }
        }
    }
}

impl Running {
    /// How something under way ends when the machine is reset: what was given stays, and is there at the next boot.
    fn cut_short(&mut self, goal: Goal) -> End {
        let given = match goal {
            Goal::FitSeen { .. } | Goal::Plugged { .. } | Goal::Ended(_) => self.reached_running(goal, true),
            Goal::NextBoot(planned) => Some(End::Confirmed(OperationResult::RangePlanned(planned))),
            Goal::MemoryTaken(device) => self.memory_kept(device).map(End::Unanswered),
            Goal::PowerTaken(GuestPower::Reboot) => Some(End::Answer(self.state())),
            Goal::PowerTaken(GuestPower::PowerOff)
            | Goal::MemoryGone(..)
            | Goal::Paused
            | Goal::ErrorsInForce(_)
            | Goal::Noticed(_) => None,
        };
        given.unwrap_or_else(|| {
            End::Failed(ControlError::new(
                ErrorKind::WrongState,
                "the machine was reset meanwhile",
            ))
        })
    }
}

fn no_nvdimm(id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("there is no NVDIMM '{id}'")).field("id")
}

fn nvdimm_infos(bus: u8, state: &BusState, hints: &FlushHints) -> Vec<NvdimmInfo> {
    let info = |plan: &NvdimmPlan| {
        let has = |spa: &&SpaPlan| spa.mappings.iter().any(|mapping| mapping.slot == plan.slot);
        let first = state.nfit.spas.iter().find(has);
        let alone = first.filter(|spa| spa.mappings.len() == 1);
        NvdimmInfo {
            id: plan.id.clone(),
            slot: plan.slot,
            handle: plan.handle.0,
            bus,
            start: alone.map(|spa| spa.range.start.0),
            len: plan.capacity,
            node: first.map(|spa| spa.proximity),
            label_size: plan.label_size.into(),
            readonly: plan.read_only,
            flush: hints.counts(plan.slot),
        }
    };
    state.nfit.dimms.iter().map(info).collect()
}
