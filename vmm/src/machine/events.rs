//! The machine's loop: the one thread that acts on what happens around the vCPUs.
//!
//! It never blocks but in `epoll_wait`. Each source of events is a [`Token`]; whatever ends the run becomes an
//! [`Outcome`] and stops the loop. What clients of the API ask is done in `serve`.

mod agent;
mod clock;
mod extlog;
mod faults;
mod host;
mod inject;
mod last_words;
mod limits;
mod look;
mod media;
mod memory;
mod notify;
mod power;
mod serve;
mod storm;
mod token;
mod virtio;
mod xen_console;

pub use agent::Agent;
pub use xen_console::DomainConsole;

use super::{
    Kept, OnReset, Outcome,
    console::{Console, Typed},
    control::Calls,
    fault::MachineChecks,
    growth::Growth,
    operations::Operations,
    tail::Tail,
    virtio::LiveVirtio,
    vsock::VsockPort,
};
use crate::{
    acpi::Table,
    control::{EventLog, Happening, Phase},
    layout::map,
    memory::lost,
    vcpu::{Platform, Report, VcpuThreads},
    xen::Xen,
};
use devices::{
    Effect,
    acpi::{AcpiDevice, memory_hotplug::MemoryHotplug},
    apei::{Apei, ExtendedLog},
    nvdimm::{FlushHints, NvdimmBus},
    serial::SerialPort,
    units::ByteSize,
    virtio::{Progress, VirtioMmio},
    xen::{Refused, abi::PAGE},
};
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
use token::Token;
use vmm_sys_util::{eventfd::EventFd, timerfd::TimerFd};

/// Port of the console device that carries the agent's channel.
pub const AGENT_PORT: usize = 1;
/// How often output is looked for that the guest left behind without a later exit.
const TICK: Duration = Duration::from_millis(50);
/// Bytes moved at once from a host descriptor to the guest.
const CHUNK: usize = 16 << 10;

/// Everything the loop waits for and works on.
pub struct Loop {
    /// Shared with the vCPU threads.
    pub platform: Arc<Platform>,
    /// What those threads report, after ringing `wake`.
    pub reports: mpsc::Receiver<Report>,
    /// Rung by a vCPU thread.
    pub wake: EventFd,
    /// Rung by SIGTERM and its like.
    pub terminate: EventFd,
    /// The serial port and the host side of it.
    pub serial: Arc<SerialPort>,
    /// Host side of the serial port.
    pub console: Console,
    /// Host side of a Xen domain's console.
    pub domain_console: DomainConsole,
    /// Rung when the serial port takes input again.
    pub serial_room: EventFd,
    /// Transports, in guest ABI order.
    pub virtio: Vec<Arc<VirtioMmio>>,
    /// Their doorbells: transport, queue, event.
    pub doorbells: Vec<(usize, u16, EventFd)>,
    /// Those of the devices behind them that can be asked about.
    pub live: LiveVirtio,
    /// The agent's channel, if there is one.
    pub agent: Option<Agent>,
    /// What the API asks, if there is one.
    pub calls: Option<Calls>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// Of a machine that was reset: what it was before.
    pub life: Option<Life>,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
    /// The last of the console's output, where it is kept.
    pub tail: Arc<Tail>,
    /// The ACPI tables that the guest was started with.
    pub tables: Vec<Table>,
    /// The generic event device.
    pub acpi: Arc<AcpiDevice>,
    /// The error interfaces, if there are any.
    pub apei: Option<Arc<Apei>>,
    /// The extended error log, if there is one.
    pub extlog: Option<ExtendedLog>,
    /// The registers of the memory devices, if there are slots.
    pub memory: Option<Arc<MemoryHotplug>>,
    /// The NVDIMMs, if there are any.
    pub nvdimm: Vec<Arc<NvdimmBus>>,
    /// Where the guest flushes its NVDIMMs.
    pub flush_hints: Arc<FlushHints>,
    /// What was planned, for whoever asks.
    pub plan: map::Report,
    /// Machine check registers of the vCPUs.
    pub checks: MachineChecks,
    /// End the run then.
    pub deadline: Option<Instant>,
    /// Memory, and what is needed to make more of it. Last: everything above reaches into it.
    pub growth: Growth,
}

/// What goes on when a machine is reset.
pub struct Life {
    clock: clock::Clock,
    operations: Operations,
    requests: u64,
}

/// The loop's own state beside what it works on.
struct Running {
    // Before what they reach.
    threads: VcpuThreads,
    parts: Loop,
    tick: TimerFd,
    /// Descriptor of the client that is registered, and for what.
    client: Option<(RawFd, EventSet)>,
    /// The client hung up: to be let go of once this event is done with.
    client_gone: bool,
    typing: bool,
    /// The console's output waits for its reader, and is watched.
    output_waits: bool,
    outcome: Option<Outcome>,
    /// Of a guest whose kernel has panicked.
    last_words: Option<last_words::LastWords>,
    /// Nobody waits for that reader any more.
    impatient: bool,
    phase: Phase,
    clock: clock::Clock,
    pending: Vec<serve::Pending>,
    operations: Operations,
    /// Requests so far.
    requests: u64,
    /// Version of the NFIT that the guest had read at the last look.
    fit_seen: u32,
    /// When the guest was last reminded of memory devices.
    reminded: Instant,
    halt: faults::Halt,
}

/// Runs until something ends the machine; then its threads have stopped. What is left of one that starts again comes with it.
pub fn run(mut parts: Loop, threads: VcpuThreads) -> io::Result<(Outcome, Option<Kept>)> {
    let failed = |e: event_manager::Error| io::Error::other(e.to_string());
    // The loop's own thread hears of what nobody has touched.
    lost::install()?;
    let mut tick = TimerFd::new().map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    tick.reset(TICK, Some(TICK))
        .map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    let life = parts.life.take();
    let again = life.is_some();
    let life = life.unwrap_or_else(|| Life {
        clock: clock::Clock::start(),
        operations: Operations::default(),
        requests: 0,
    });
    let running = Running {
        threads,
        parts,
        tick,
        client: None,
        client_gone: false,
        typing: false,
        output_waits: false,
        outcome: None,
        last_words: None,
        impatient: false,
        phase: if again { Phase::Restarting } else { Phase::Running },
        clock: life.clock,
        pending: vec![],
        operations: life.operations,
        requests: life.requests,
        fit_seen: 0,
        reminded: Instant::now(),
        halt: faults::Halt::default(),
    };
    let shared = Arc::new(std::sync::Mutex::new(running));
    let mut manager = EventManager::<Arc<std::sync::Mutex<Running>>>::new().map_err(failed)?;
    event_manager::SubscriberOps::add_subscriber(&mut manager, shared.clone());
    lock(&shared).enter(Phase::Running);
    let outcome = loop {
        // The tick bounds the wait, so a deadline is never missed by more.
        manager.run().map_err(failed)?;
        let mut running = lock(&shared);
        if running.parts.deadline.is_some_and(|at| Instant::now() >= at) {
            running.end(Outcome::TimedOut);
        }
        if let Some(outcome) = running.outcome.clone()
            && running.finish()?
        {
            break outcome;
        }
    };
    let restarts = lock(&shared).phase == Phase::Restarting;
    drop(manager);
    let running = Arc::into_inner(shared).and_then(|running| running.into_inner().ok());
    let kept = running.filter(|_| restarts).map(Running::keep);
    Ok((outcome, kept))
}

fn lock(running: &std::sync::Mutex<Running>) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl MutEventSubscriber for Running {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let p = &mut self.parts;
        let mut watch = |fd: RawFd, token: Token| {
            let added = ops.add(Events::with_data_raw(fd, token.data(), EventSet::IN));
            if let Err(e) = &added {
                tracing::debug!(?token, "not watched: {e}");
            }
            added.is_ok()
        };
        watch(p.wake.as_raw_fd(), Token::Wake);
        watch(p.terminate.as_raw_fd(), Token::Terminate);
        watch(self.tick.as_raw_fd(), Token::Tick);
        watch(p.serial_room.as_raw_fd(), Token::SerialRoom);
        if let Some(output) = p.console.backlog() {
            watch(output.bell().as_raw_fd(), Token::OutputWaits);
        }
        for ((_, _, bell), n) in p.doorbells.iter().zip(0..) {
            watch(bell.as_raw_fd(), Token::Doorbell(n));
        }
        for (port, n) in p.live.nets.iter().zip(0..) {
            watch(port.fd(), Token::Wire(n));
        }
        if let Some(port) = &p.live.vsock {
            watch(port.fd(), Token::Streams);
        }
        if let Some(agent) = &p.agent {
            watch(agent.channel.listener_fd(), Token::AgentListener);
            watch(agent.room.as_raw_fd(), Token::AgentRoom);
        }
        if let Some(calls) = &p.calls {
            watch(calls.fd(), Token::Calls);
        }
        // Standard input may be a regular file, which cannot be waited for: such a console has no input.
        self.typing = p.console.input_fd().is_some_and(|fd| watch(fd, Token::Typed));
        p.domain_console.begin(watch);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match Token::of(events.data()) {
            Token::Wake => self.take_reports(),
            Token::Terminate => self.end(Outcome::Signal(crate::hv::signal::last())),
            Token::Tick => {
                let _ = self.tick.wait();
                // What is not collected is not made: a guest that prints is held by a full ring.
                if !self.parts.console.backlog().is_some_and(|output| output.is_full()) {
                    self.parts.platform.drain_collected();
                    self.parts.serial.flush();
                }
                if self.output_waits {
                    // Should its descriptor be one that cannot be watched.
                    self.deliver(ops);
                }
                let errands = self.parts.platform.xen.as_ref().is_some_and(Xen::has_errands);
                if self.phase == Phase::Pausing || self.halt.is_under_way() || self.is_time_to_look() || errands {
                    self.threads.kick();
                }
                self.tend_domain_console(ops);
                self.listen_to_last_words();
                self.note_fit();
                self.remind_of_memory();
            }
            Token::Typed => self.typed(ops),
            Token::DomainTyped => self.domain_typed(ops),
            Token::SerialRoom => {
                let _ = self.parts.serial_room.read();
                if !self.typing && self.parts.serial.wants_input() {
                    self.watch_typing(ops, true);
                }
            }
            Token::OutputWaits => {
                if let Some(output) = self.parts.console.backlog() {
                    let _ = output.bell().read();
                }
                self.deliver(ops);
            }
            Token::OutputReady => self.deliver(ops),
            Token::AgentListener => {
                if let Some(agent) = &self.parts.agent
                    && agent.channel.accept()
                {
                    let progress = agent.device.set_open(AGENT_PORT, true);
                    self.flush_agent(progress);
                }
            }
            Token::AgentClient => self.agent_client(events.event_set()),
            Token::AgentRoom => {
                if let Some(agent) = &self.parts.agent {
                    let _ = agent.room.read();
                    self.agent_input();
                }
            }
            Token::Calls => self.take_calls(),
            Token::Wire(n) => {
                if let Some(port) = self.parts.live.nets.get(n as usize) {
                    port.attend();
                }
            }
            Token::Streams => self.parts.live.vsock.iter().for_each(VsockPort::attend),
            Token::Doorbell(n) => self.doorbell(n),
        }
        self.let_it_storm();
        self.attend_faults();
        self.settle();
        self.refresh_client(ops);
    }
}

impl Running {
    /// The first outcome counts, but that a machine which is about to start again can still be ended from outside. Whoever does
    /// that does not wait for a console that nobody reads.
    fn end(&mut self, outcome: Outcome) {
        let outside = matches!(
            outcome,
            Outcome::Quit | Outcome::QuitByControl | Outcome::Signal(_) | Outcome::TimedOut
        );
        // Whatever comes of a panic, that is what the run ended by; but that it may be told to start again.
        let outcome = match (self.last_words, outcome) {
            (Some(_), outcome) if outcome != Outcome::ResetByControl => Outcome::Panicked,
            (_, outcome) => outcome,
        };
        if self.phase == Phase::Restarting {
            if !outside {
                return;
            }
            self.outcome = None;
        } else if self.outcome.is_none() && self.restarts(&outcome) {
            self.outcome = Some(outcome);
            return self.enter(Phase::Restarting);
        }
        self.enter(Phase::Ending);
        self.impatient |= outside;
        self.outcome.get_or_insert(outcome);
    }

    fn restarts(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::ResetByControl => true,
            Outcome::Reset => self.parts.on_reset == OnReset::Restart,
            _ => false,
        }
    }

    /// What is left of a machine that starts again.
    fn keep(self) -> Kept {
        let Self {
            threads,
            parts,
            mut clock,
            operations,
            requests,
            ..
        } = self;
        drop(threads);
        clock.resume();
        let life = Life {
            clock,
            operations,
            requests,
        };
        Kept::new(parts, life)
    }

    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.note(Happening::State { state: phase });
        }
    }

    /// The last words of guest and loop; false: the console's reader has still to take some.
    fn finish(&mut self) -> io::Result<bool> {
        if self.phase != Phase::Restarting {
            self.enter(Phase::Ending);
        }
        self.settle();
        self.parts.platform.drain_collected();
        self.threads.stop();
        self.parts.platform.drain_collected();
        self.parts.serial.flush();
        let domain_done = self.end_domain_console();
        if let Some(output) = self.parts.console.backlog() {
            if self.impatient {
                output.give_up();
            } else if !output.is_empty() {
                return Ok(false);
            }
        }
        if !domain_done {
            return Ok(false);
        }
        let lost = |e| {
            io::Error::other(format!(
                "what the guest last stored to an encrypted NVDIMM cannot be written: {e}"
            ))
        };
        self.parts.growth.write_back.flush().map_err(lost)?;
        if self.phase != Phase::Restarting {
            let outcome = self.outcome.as_ref().map(ToString::to_string).unwrap_or_default();
            self.note(Happening::End { outcome });
        }
        Ok(true)
    }

    /// Hands the console's reader what waits for it, and watches for more room while something is left.
    fn deliver(&mut self, ops: &mut EventOps<'_>) {
        let Some(output) = self.parts.console.backlog() else {
            return;
        };
        let empty = output.deliver().unwrap_or_else(|e| {
            tracing::warn!("the console's output is lost: {e}");
            true
        });
        let events = Events::with_data_raw(output.fd(), Token::OutputReady.data(), EventSet::OUT);
        let done = match (self.output_waits, !empty) {
            (false, true) => ops.add(events),
            (true, false) => ops.remove(events),
            _ => return,
        };
        if let Err(e) = done {
            tracing::warn!("the console's reader is not watched: {e}");
        }
        self.output_waits = !empty;
    }

    fn take_reports(&mut self) {
        let _ = self.parts.wake.read();
        while let Ok(report) = self.parts.reports.try_recv() {
            let outcome = match report {
                // Counted at the gate; the bell was for a look at it.
                Report::Refused(refused) => {
                    self.note_refusal(&refused);
                    continue;
                }
                Report::Errand => {
                    self.threads.kick();
                    continue;
                }
                Report::Effect(Effect::None | Effect::Progress) | Report::Standing | Report::Poisoned => continue,
                Report::Effect(Effect::InjectError) => {
                    self.inject_for_guest();
                    continue;
                }
                Report::Effect(Effect::MemoryEjected(slot)) => {
                    self.memory_ejected(slot);
                    continue;
                }
                Report::Effect(Effect::Panicking) => {
                    self.panicked();
                    continue;
                }
                Report::Effect(Effect::PowerOff) => Outcome::PowerOff,
                Report::Effect(Effect::Reset) => Outcome::Reset,
                Report::Effect(Effect::Panicked) => Outcome::Panicked,
                Report::Effect(Effect::TestExit(value)) => Outcome::TestExit(value),
                Report::TripleFault { apic_id } => Outcome::TripleFault { apic_id },
                Report::BadTable { apic_id, why } => Outcome::MachineCheck { apic_id, why },
                Report::Failed { apic_id, why } => Outcome::Failed { apic_id, why },
            };
            self.end(outcome);
        }
    }

    fn note_refusal(&mut self, refused: &Refused) {
        let bytes = |pages: u64| ByteSize(pages.saturating_mul(PAGE));
        self.note(Happening::MemoryRefused {
            asked: bytes(refused.asked),
            current: bytes(refused.current),
            static_max: bytes(refused.maximum),
        });
    }

    fn typed(&mut self, ops: &mut EventOps<'_>) {
        if !self.parts.serial.wants_input() {
            // The guest will say when it has room; until then nothing is read that would have to be kept.
            return self.watch_typing(ops, false);
        }
        // As much as the smallest FIFO holds, so that nothing read is ever refused by more than a few bytes.
        match self.parts.console.read(16) {
            Typed::Bytes(bytes) => {
                let taken = self.parts.serial.input(&bytes);
                if taken < bytes.len() {
                    tracing::warn!(lost = bytes.len() - taken, "the guest's serial port overran");
                }
            }
            Typed::Leave => self.end(Outcome::Quit),
            Typed::End => self.watch_typing(ops, false),
        }
    }

    /// A hung-up descriptor reports even when nothing is asked for, so it is taken out rather than muted.
    fn watch_typing(&mut self, ops: &mut EventOps<'_>, on: bool) {
        let Some(fd) = self.parts.console.input_fd() else {
            return;
        };
        let events = Events::with_data_raw(fd, Token::Typed.data(), EventSet::IN);
        let done = if on { ops.add(events) } else { ops.remove(events) };
        self.typing = on && done.is_ok();
    }

    fn doorbell(&mut self, n: u32) {
        let Some((transport, queue, bell)) = self.parts.doorbells.get(n as usize) else {
            return;
        };
        let _ = bell.read();
        if let Some(transport) = self.parts.virtio.get(*transport)
            && transport.queue_notify(*queue) == Progress::More
        {
            let _ = bell.write(1);
        }
    }
}
