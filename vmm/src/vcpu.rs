//! vCPU threads.
//!
//! ```text
//!             start()                run() returns
//!   created ----------> running <---------------------> handling an exit
//!                        |  ^   |  stop(), or an effect that ends the machine
//!                pause() |  |   v
//!                        v  | ended
//!                    standing  resume()
//! ```
//!
//! A thread handles its exits against the two buses and reports what concerns the whole machine as a [`Report`]; it never
//! decides anything itself. After a report that ends the run it ends: whoever owns the machine starts new threads for a new one.

mod gate;
mod poison;
mod tables;

pub use poison::Consumption;

use crate::{
    fault::{Faults, Met},
    hv::{CoalescedPorts, Exit, Hypercall, Kick, PortWrite, Vcpu},
    memory::lost,
    xen::Xen,
};
use devices::{Bus, Effect, units::Gpa, xen::Refused};
use gate::Gate;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vmm_sys_util::eventfd::EventFd;

/// What a vCPU thread tells the owner of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A device wants something of the machine.
    Effect(Effect),
    /// A vCPU stands still, as [`VcpuThreads::pause`] asked.
    Standing,
    /// A vCPU has left another one something to do, which that does when it leaves the guest.
    Errand,
    /// The guest asked for memory that it may not have.
    Refused(Refused),
    /// A vCPU has met bad memory, or an instruction that has to wait until the holes are right, and stands.
    Poisoned,
    /// The guest brought its processor down.
    TripleFault {
        /// Whose.
        apic_id: u32,
    },
    /// The processor itself would have to load bad memory: a page table, or where an exception is delivered.
    BadTable {
        /// Whose.
        apic_id: u32,
        /// One sentence.
        why: String,
    },
    /// KVM cannot run the guest any further.
    Failed {
        /// Whose.
        apic_id: u32,
        /// One sentence.
        why: String,
    },
}

impl Report {
    fn failed(apic_id: u32, error: &crate::hv::HvError) -> Self {
        let why = format!("{error}: {}", error.source);
        Self::Failed { apic_id, why }
    }

    /// Whether there is nothing left to run after it.
    fn ends_run(&self) -> bool {
        match self {
            Self::Standing
            | Self::Errand
            | Self::Refused(_)
            | Self::Poisoned
            | Self::Effect(
                Effect::None | Effect::Progress | Effect::Panicking | Effect::InjectError | Effect::MemoryEjected(_),
            ) => false,
            Self::Effect(_) | Self::TripleFault { .. } | Self::BadTable { .. } | Self::Failed { .. } => true,
        }
    }
}

/// Where a vCPU was when its thread was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoppedAt {
    /// Whose.
    pub apic_id: u32,
    /// Its next instruction.
    pub rip: u64,
    /// Its flags; bit 9 is the interrupt flag.
    pub rflags: u64,
}

/// Exits to this process, by kind.
#[derive(Debug, Default)]
pub struct ExitCounters {
    /// Port reads and writes.
    pub port: AtomicU64,
    /// MMIO loads and stores.
    pub mmio: AtomicU64,
    /// Port writes that came through the ring, without an exit of their own.
    pub collected: AtomicU64,
    /// Xen hypercalls that KVM did not answer itself.
    pub hypercalls: AtomicU64,
    /// Signals, spurious returns, and reads of registers that daxvisor answers.
    pub other: AtomicU64,
}

/// What a vCPU waits for before it may make more output.
pub trait Room: Send + Sync {
    /// Waits while there is none, as long as `stay` says so. True: it waited.
    fn wait(&self, stay: &dyn Fn() -> bool) -> bool;
}

/// What all vCPU threads of a machine share.
pub struct Platform {
    /// Port I/O space.
    pub ports: Bus,
    /// MMIO space.
    pub mmio: Bus,
    /// Collected port writes, where KVM offers that.
    pub collected: Option<Mutex<CoalescedPorts>>,
    /// Memory errors.
    pub faults: Arc<Faults>,
    /// The Xen personality, where the guest has one.
    pub xen: Option<Xen>,
    /// Statistics.
    pub exits: ExitCounters,
    room: Option<Arc<dyn Room>>,
    /// vCPUs that have met a memory error, by APIC id, and wait until it is taken out.
    consumed: Mutex<BTreeMap<u32, Consumption>>,
    stop: AtomicBool,
    gate: Gate,
    halted_at: Mutex<Vec<StoppedAt>>,
    reports: mpsc::Sender<Report>,
    wake: EventFd,
}

impl Platform {
    /// A platform whose threads report to the returned receiver and then ring `wake`, and wait for `room` between exits.
    pub fn new(
        ports: Bus,
        mmio: Bus,
        collected: Option<CoalescedPorts>,
        (faults, xen): (Arc<Faults>, Option<Xen>),
        wake: EventFd,
        room: Option<Arc<dyn Room>>,
    ) -> (Arc<Self>, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel();
        let collected = collected.map(Mutex::new);
        let stop = AtomicBool::new(false);
        (
            Arc::new(Self {
                ports,
                mmio,
                collected,
                faults,
                xen,
                consumed: Mutex::default(),
                exits: ExitCounters::default(),
                room,
                stop,
                gate: Gate::default(),
                halted_at: Mutex::default(),
                reports,
                wake,
            }),
            receiver,
        )
    }

    /// Hands collected port writes to their devices, in the guest's order. Every thread does so before it handles an exit
    /// of its own; the machine's loop does so for a guest that went quiet.
    pub fn drain_collected(&self) {
        let Some(ring) = &self.collected else { return };
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drained = 0;
        while let Some(PortWrite { port, data, len }) = ring.pop() {
            // Only character output is collected; it has no effect on the machine.
            let _ = self.ports.write(port, &data[..len]);
            drained += 1;
        }
        drop(ring);
        if drained > 0 {
            self.exits.collected.fetch_add(drained, Ordering::Relaxed);
        }
    }

    /// Where the vCPUs were when they were stopped, in order of their APIC ids: what a guest that hangs was doing.
    pub fn stopped_at(&self) -> Vec<StoppedAt> {
        let mut all = self.halted_at.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|at| at.apic_id);
        all
    }

    fn report(&self, report: Report) {
        // The receiver is gone only when the machine is being taken down, and then nobody cares.
        if self.reports.send(report).is_ok() {
            self.ring();
        }
    }

    /// There is something for the owner to see.
    fn ring(&self) {
        let _ = self.wake.write(1);
    }

    /// Answers a hypercall; what the machine has to do then, if anything.
    fn hypercall(&self, vcpu: &mut Vcpu, call: &Hypercall) -> Option<Report> {
        // KVM hands over none unless there is somebody to answer.
        let xen = self.xen.as_ref()?;
        let answer = xen.call(vcpu, call);
        vcpu.answer_hypercall(answer.result);
        if let Some(refused) = answer.refused {
            self.report(Report::Refused(refused));
        }
        if xen.has_errands() {
            self.report(Report::Errand);
            // The guest may start the other vCPU next.
            let until = Instant::now() + ERRAND;
            let stay = || Instant::now() < until && !self.stop.load(Ordering::SeqCst) && !self.gate.is_closed();
            while xen.has_errands() && stay() {
                xen.do_errands(vcpu);
                thread::sleep(Duration::from_micros(200));
            }
        }
        (answer.effect != Effect::None).then_some(Report::Effect(answer.effect))
    }

    /// One exit, and what comes of it.
    fn handle(&self, apic_id: u32, exit: Exit<'_>) -> Next {
        let effect = match exit {
            Exit::PortRead { port, size, data } => {
                self.exits.port.fetch_add(1, Ordering::Relaxed);
                for access in data.chunks_mut(size.max(1)) {
                    self.ports.read(port, access);
                }
                Effect::None
            }
            Exit::PortWrite { port, size, data } => {
                self.exits.port.fetch_add(1, Ordering::Relaxed);
                data.chunks(size.max(1))
                    .map(|access| self.ports.write(port, access))
                    .fold(Effect::None, first)
            }
            Exit::MmioRead(addr, data) => {
                self.exits.mmio.fetch_add(1, Ordering::Relaxed);
                match self.faults.load(Gpa(addr), data) {
                    Some(Met::Poisoned(line)) => return Next::Poisoned(line),
                    Some(Met::Carried) => return Next::Loaded(Gpa(addr)),
                    None => self.mmio.read(addr, data),
                }
                Effect::None
            }
            Exit::MmioWrite(addr, data) => {
                self.exits.mmio.fetch_add(1, Ordering::Relaxed);
                match self.faults.store(Gpa(addr), data) {
                    Some(_) => Effect::None,
                    None => self.mmio.write(addr, data),
                }
            }
            Exit::NotEmulated(why) => return Next::NotEmulated(why),
            Exit::Hypercall(call) => {
                self.exits.hypercalls.fetch_add(1, Ordering::Relaxed);
                return Next::Hypercall(call);
            }
            Exit::RegisterRead => {
                self.exits.other.fetch_add(1, Ordering::Relaxed);
                Effect::None
            }
            Exit::Interrupted => {
                self.exits.other.fetch_add(1, Ordering::Relaxed);
                return Next::Look;
            }
            Exit::Shutdown => return Next::Report(Report::TripleFault { apic_id }),
            Exit::Stuck(why) => return Next::Report(Report::Failed { apic_id, why }),
        };
        match effect {
            Effect::None => Next::Go,
            effect => Next::Report(Report::Effect(effect)),
        }
    }
}

/// What comes of an exit.
enum Next {
    /// Back into the guest.
    Go,
    /// Back into the guest, after a load from a hole.
    Loaded(Gpa),
    /// Back into the guest, after a look at what it waits for.
    Look,
    /// Somebody is told.
    Report(Report),
    /// The guest loads from the bad line at this address.
    Poisoned(Gpa),
    /// KVM cannot carry out an instruction.
    NotEmulated(String),
    /// The guest calls its hypervisor.
    Hypercall(Hypercall),
    /// The guest touches memory that the host has lost.
    Struck,
}

/// The first effect that is one. Those of memory devices come alone: their registers are written one at a time.
fn first(a: Effect, b: Effect) -> Effect {
    if a == Effect::None { b } else { a }
}

/// All vCPU threads of a running machine. Dropping them stops them.
pub struct VcpuThreads {
    platform: Arc<Platform>,
    threads: Vec<JoinHandle<()>>,
}

impl VcpuThreads {
    /// Starts a thread for each vCPU.
    pub fn start(platform: &Arc<Platform>, vcpus: Vec<Vcpu>) -> std::io::Result<Self> {
        let mut all = Self {
            platform: platform.clone(),
            threads: vec![],
        };
        for vcpu in vcpus {
            let platform = platform.clone();
            let name = format!("vcpu{}", vcpu.apic_id());
            all.threads
                .push(thread::Builder::new().name(name).spawn(move || run(&platform, vcpu))?);
        }
        Ok(all)
    }

    /// Asks every vCPU to leave the guest and stand still; each sends a [`Report::Standing`]. Does not wait: a kick can fall
    /// between a thread's look at the gate and its entry to the guest, so [`VcpuThreads::kick`] until all of them stand.
    pub fn pause(&self) {
        self.platform.gate.close();
        self.kick();
    }

    /// Brings every vCPU out of the guest once, to look around.
    pub fn kick(&self) {
        self.threads.iter().for_each(Kick::kick);
    }

    /// vCPUs that stand still, of how many.
    pub fn standing(&self) -> (usize, usize) {
        (self.platform.gate.standing(), self.threads.len())
    }

    /// Lets the vCPUs go on.
    pub fn resume(&self) {
        self.platform.gate.open();
    }

    /// Stops every thread and waits for it.
    pub fn stop(&mut self) {
        self.platform.stop.store(true, Ordering::SeqCst);
        self.platform.gate.open();
        for thread in self.threads.drain(..) {
            // A kick can fall between the thread's look at the flag and its entry to the guest: kick until it is out.
            while !thread.is_finished() {
                thread.kick();
                thread::sleep(Duration::from_micros(200));
            }
            // A panic of the thread has been printed; there is nothing left of it to hand on.
            let _ = thread.join();
        }
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long a vCPU waits for another one to do what it has left for it.
const ERRAND: Duration = Duration::from_secs(2);
/// How long a vCPU that has met a memory error lets the others run before it looks again: they are at work on another one.
const CROWDED: Duration = Duration::from_millis(1);

fn run(platform: &Platform, mut vcpu: Vcpu) {
    let apic_id = vcpu.apic_id();
    let Some(seat) = lost::Seat::take() else {
        let why = "there are too many vCPUs in this process".to_owned();
        return platform.report(Report::Failed { apic_id, why });
    };
    // Whether it has met something that the machine's owner has not dealt with yet.
    let mut waits = false;
    let mut last = tables::Last::default();
    while !platform.stop.load(Ordering::SeqCst) {
        if platform.gate.pass(|| platform.report(Report::Standing)) {
            vcpu.was_paused();
            waits = waits && platform.waits(apic_id);
            // It may have been opened for the end.
            continue;
        }
        if waits {
            thread::sleep(CROWDED);
            waits = platform.waits(apic_id);
            continue;
        }
        let stay = || !platform.stop.load(Ordering::SeqCst) && !platform.gate.is_closed();
        if platform.room.as_ref().is_some_and(|room| room.wait(&stay)) {
            continue;
        }
        if let Some(xen) = &platform.xen {
            xen.do_errands(&vcpu);
        }
        let inside = &mut vcpu;
        let next = match seat.inside(move || inside.run()) {
            Some(Ok(exit)) => {
                platform.drain_collected();
                platform.handle(apic_id, exit)
            }
            Some(Err(error)) => Next::Report(Report::failed(apic_id, &error)),
            None => {
                // A thread of the monitor has touched what the host has lost, or a page with a trap.
                platform.ring();
                thread::sleep(CROWDED);
                continue;
            }
        };
        let next = match next {
            Next::Look if seat.take_struck() => Next::Struck,
            next => next,
        };
        let report = match next {
            Next::Go => continue,
            Next::Loaded(gpa) => match platform.loaded(&vcpu, &mut last, gpa) {
                Some(report) => report,
                None => continue,
            },
            Next::Look => match platform.looked_at(&vcpu, &mut last) {
                Some(report) => report,
                None => continue,
            },
            Next::Hypercall(call) => match platform.hypercall(&mut vcpu, &call) {
                Some(report) => report,
                None => continue,
            },
            Next::Report(report) => platform.explained(&vcpu, report),
            Next::Struck => platform.struck(apic_id),
            Next::Poisoned(line) => platform.load_of_poison(&mut vcpu, line).unwrap_or_else(|failed| failed),
            Next::NotEmulated(why) => match platform.not_emulated(&mut vcpu, why) {
                Ok(None) => continue,
                Ok(Some(met)) => met,
                Err(failed) => platform.explained(&vcpu, failed),
            },
        };
        platform.drain_collected();
        if report == Report::Poisoned {
            // The owner opens the gate when every vCPU stood and this one has its machine check.
            waits = true;
            platform.gate.close();
        }
        let ends = report.ends_run();
        platform.report(report);
        if ends {
            return;
        }
    }
    if let Ok((rip, rflags)) = vcpu.position() {
        let at = StoppedAt { apic_id, rip, rflags };
        platform
            .halted_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(at);
    }
}
