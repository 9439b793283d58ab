//! Requests of control clients, done on the loop's thread: the only place where one of them changes the machine.
//!
//! Nothing here waits. What takes time becomes a [`Pending`] with a goal and a deadline; it is looked at after every event,
//! and answered when the goal is reached or, with everything undone, when the deadline is.

use super::{Outcome, Running, Token};
use crate::{
    control::{
        ControlError, ErrorKind, LimitsRequest, MachineInfo, MemoryRequest, NvdimmAdded, NvdimmInfo, NvdimmList,
        NvdimmRequest, Phase, Request, Response, StateInfo, admit,
    },
    machine::{
        control::{ClientId, Watch},
        growth::Added,
    },
};
use devices::{
    acpi::AcpiEvent,
    nvdimm::{BusState, NvdimmPlan, Security, SpaPlan, security::SecurityError},
};
use event_manager::{EventOps, EventSet, Events};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long vCPUs may take to leave the guest.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take to read a new NFIT before the reply says that it has not.
const FIT_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take to plug or unplug before the reply says how far it is.
const PLUG_LIMIT: Duration = Duration::from_secs(30);
/// Requests of one client that are done before other events get their turn.
const TURN: usize = 64;
/// Requests that wait at a time, of all clients.
const MAX_PENDING: usize = 64;

/// A request that is under way.
pub(super) struct Pending {
    who: ClientId,
    id: Value,
    goal: Goal,
    deadline: Instant,
}

/// What a request under way waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Every vCPU stands still.
    Paused,
    /// A virtio-mem device has as much plugged as was asked for.
    Plugged {
        /// Place of the device.
        index: usize,
        /// Bytes.
        size: u64,
    },
    /// The guest has read this version of a bus's NFIT.
    FitSeen {
        /// Slot of the DIMM that came with it.
        slot: u8,
        /// Version.
        generation: u32,
    },
}

/// What has become of a request that was begun.
enum Begun {
    Done(Response),
    Until(Goal, Duration),
}

type Answer = Result<Response, ControlError>;

/// Since when the machine runs, and how long it did not.
pub(super) struct Clock {
    started: Instant,
    paused: Option<Instant>,
    paused_before: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            paused: None,
            paused_before: Duration::ZERO,
        }
    }

    fn pause(&mut self) {
        self.paused = Some(Instant::now());
    }

    fn resume(&mut self) {
        self.paused_before += self.paused.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Milliseconds since the start, and those in pauses.
    fn read(&self) -> (u64, u64) {
        let paused = self.paused.map_or(Duration::ZERO, |since| since.elapsed()) + self.paused_before;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        (ms(self.started.elapsed()), ms(paused))
    }
}

impl Running {
    /// A client has sent something, or takes something.
    pub(super) fn control_client(&mut self, slot: u32, events: EventSet) {
        let slot = slot as usize;
        if let Some(control) = &mut self.parts.control {
            control.ready(slot, events);
        }
        for _ in 0..TURN {
            let next = self.parts.control.as_mut().and_then(|control| control.next(slot));
            let Some((who, parsed)) = next else { return };
            match parsed {
                Ok(call) => self.call(who, call.id, &call.request),
                Err((id, error)) => self.answer(who, &id, Err(error)),
            }
        }
    }

    fn answer(&mut self, who: ClientId, id: &Value, answer: Answer) {
        if let Some(control) = &mut self.parts.control {
            control.reply(who, id, &answer);
        }
    }

    fn call(&mut self, who: ClientId, id: Value, request: &Request) {
        match admit(self.phase, request).and_then(|()| self.begin(request)) {
            Ok(Begun::Done(response)) => self.answer(who, &id, Ok(response)),
            Err(error) => self.answer(who, &id, Err(error)),
            Ok(Begun::Until(goal, limit)) => {
                if let Some(control) = &mut self.parts.control {
                    control.expect(who);
                }
                self.pending.push(Pending {
                    who,
                    id,
                    goal,
                    deadline: Instant::now() + limit,
                });
            }
        }
    }

    fn state(&self) -> Response {
        Response::State(StateInfo { state: self.phase })
    }

    /// Begins what was admitted; what fails here has changed nothing.
    fn begin(&mut self, request: &Request) -> Result<Begun, ControlError> {
        match request {
            Request::Describe => return Ok(Begun::Done(Response::Machine(Box::new(self.describe())))),
            Request::Nvdimm(request) => return self.nvdimm(request),
            Request::Memory(MemoryRequest::Target { id, size }) => {
                self.room_for_pending()?;
                let index = self.set_memory_target(id, *size)?;
                return Ok(Begun::Until(Goal::Plugged { index, size: size.0 }, PLUG_LIMIT));
            }
            Request::Disk(request) => return self.disk(request).map(Begun::Done),
            Request::Limits(request) => return self.limits(request).map(Begun::Done),
            Request::PowerButton => self.parts.acpi.raise(AcpiEvent::PowerButton),
            Request::Pause => {
                self.room_for_pending()?;
                self.phase = Phase::Pausing;
                self.threads.pause();
                return Ok(Begun::Until(Goal::Paused, PAUSE_LIMIT));
            }
            Request::Resume => self.resume(),
            Request::Quit => self.end(Outcome::QuitByControl),
        }
        Ok(Begun::Done(self.state()))
    }

    fn nvdimm(&mut self, request: &NvdimmRequest) -> Result<Begun, ControlError> {
        match request {
            NvdimmRequest::List => Ok(Begun::Done(Response::Nvdimms(self.nvdimms()))),
            NvdimmRequest::Add(said) => {
                self.room_for_pending()?;
                let parts = &mut self.parts;
                let added = parts.growth.add_nvdimm(&parts.nvdimm, said)?;
                parts.plan = parts.growth.report();
                let Added { slot, generation } = added;
                Ok(Begun::Until(Goal::FitSeen { slot, generation }, FIT_LIMIT))
            }
            NvdimmRequest::Lock { id } => {
                self.lock_nvdimm(id)?;
                Ok(Begun::Done(self.state()))
            }
        }
    }

    fn limits(&mut self, request: &LimitsRequest) -> Answer {
        let growth = &mut self.parts.growth;
        if let LimitsRequest::Set(asked) = request {
            growth.set_limits(asked)?;
        }
        Ok(Response::Limits(growth.limits_info()))
    }

    fn lock_nvdimm(&self, id: &str) -> Result<(), ControlError> {
        let lock = |state: &mut BusState| {
            let dimm = state.dimms.iter_mut().find(|dimm| dimm.plan.id == id)?;
            Some(dimm.security.as_mut().map(Security::lock_now))
        };
        let done = self.parts.nvdimm.iter().find_map(|bus| bus.with(lock));
        let conflict = |why: &str| ControlError::new(ErrorKind::Conflict, format!("{id} {why}")).field("id");
        match done {
            None => Err(ControlError::new(ErrorKind::NotFound, format!("there is no NVDIMM '{id}'")).field("id")),
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

    fn room_for_pending(&self) -> Result<(), ControlError> {
        if self.pending.len() < MAX_PENDING {
            return Ok(());
        }
        let why = format!("{MAX_PENDING} requests are under way already");
        Err(ControlError::new(ErrorKind::Busy, why).hint("wait for one of them to end"))
    }

    fn resume(&mut self) {
        self.threads.resume();
        self.clock.resume();
        self.phase = Phase::Running;
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
            virtio: self.virtio(),
        }
    }

    fn nvdimms(&self) -> NvdimmList {
        let Some(first) = self.parts.nvdimm.first() else {
            return NvdimmList::default();
        };
        let buses = self.parts.nvdimm.iter();
        let mut dimms: Vec<_> = buses
            .flat_map(|bus| bus.with(|state| nvdimm_infos(bus.number(), state)))
            .collect();
        dimms.sort_by_key(|dimm: &NvdimmInfo| dimm.slot);
        NvdimmList {
            fit_generation: first.fit_generation(),
            fit_seen: first.fit_seen(),
            dimms,
        }
    }

    /// Answers what is under way and has come to an end.
    pub(super) fn settle(&mut self) {
        let mut at = 0;
        while let Some(pending) = self.pending.get(at) {
            let (goal, late) = (pending.goal, Instant::now() >= pending.deadline);
            match self.reached(goal, late) {
                None => at += 1,
                Some(answer) => {
                    let pending = self.pending.remove(at);
                    if let Some(control) = &mut self.parts.control {
                        control.reply_later(pending.who, &pending.id, &answer);
                    }
                }
            }
        }
    }

    /// Whether a goal is reached; when it is too late for that, what was begun is undone.
    fn reached(&mut self, goal: Goal, late: bool) -> Option<Answer> {
        if self.phase == Phase::Ending {
            return Some(Err(ControlError::new(ErrorKind::Ending, "the machine ended meanwhile")));
        }
        match goal {
            Goal::Plugged { index, size } => self.memory_target(index, size, late),
            Goal::FitSeen { slot, generation } => {
                let list = self.nvdimms();
                let dimm = list.dimms.into_iter().find(|dimm| dimm.slot == slot)?;
                (list.fit_seen >= generation || late).then(|| {
                    Ok(Response::NvdimmAdded(Box::new(NvdimmAdded {
                        dimm,
                        fit_generation: generation,
                        fit_seen: list.fit_seen,
                    })))
                })
            }
            Goal::Paused => {
                let (standing, all) = self.threads.standing();
                if standing == all {
                    self.phase = Phase::Paused;
                    self.clock.pause();
                    return Some(Ok(self.state()));
                }
                late.then(|| {
                    self.resume();
                    let limit = PAUSE_LIMIT.as_secs();
                    let why = format!("{standing} of {all} vCPUs stood still within {limit} s; all of them run again");
                    let error = ControlError::new(ErrorKind::Deadline, why);
                    Err(error.hint("the host may be overloaded: try again"))
                })
            }
        }
    }

    /// Brings what is watched of the control clients in line with them.
    pub(super) fn refresh_control(&mut self, ops: &mut EventOps<'_>) {
        let Some(control) = &mut self.parts.control else { return };
        control.refresh(|slot, watch| {
            let token = u32::try_from(slot).map(Token::ControlClient);
            let data = token.map_or(u32::MAX, Token::data);
            let done = match watch {
                Watch::Add(fd, events) => ops.add(Events::with_data_raw(fd, data, events)),
                Watch::Modify(fd, events) => ops.modify(Events::with_data_raw(fd, data, events)),
                Watch::Remove(fd) => ops.remove(Events::empty_raw(fd)),
            };
            if let Err(e) = &done {
                tracing::warn!("a control client is not watched: {e}");
            }
            done.is_ok()
        });
    }
}

fn nvdimm_infos(bus: u8, state: &BusState) -> Vec<NvdimmInfo> {
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
        }
    };
    state.nfit.dimms.iter().map(info).collect()
}
