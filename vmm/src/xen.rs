//! The Xen personality: the guest's hypercalls, on KVM and this machine's memory.
//!
//! ```text
//! vCPU thread: exit -> Xen::call -> devices::xen::Domain::call -> Hands (KVM, windows, host memory) -> result into the guest
//! ```
//! KVM hands hypercalls over, keeps time and pending events in the guest's pages, and injects the vector that tells of them.
//! The domain has one lock, taken by the vCPU that calls, before a window's.
//!
//! KVM takes what is about a vCPU on that vCPU's own thread alone. For another one it is an errand: [`Xen::has_errands`] tells the
//! caller to have the others brought out of the guest, and each thread does its own in [`Xen::do_errands`] before it goes on.

use crate::{
    config::{Limits, VmConfig, XenConfig},
    hv::{HvError, Hypercall, Vcpu, Vm},
    layout::{self, Layout, map::Report},
    machine::console::Printer,
    memory::{Stage, Window, limits::DomainMemory},
};
use devices::{
    GuestMemory,
    units::{ByteSize, Gpa, GpaRange},
    xen::{Answer, Area, Asked, BadAddress, Call, Domain, Guest, Host, NotAsked, Plan, abi::PAGE},
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend, VolatileMemory};

/// The domain of a machine.
pub struct Xen {
    vm: Vm,
    memory: GuestMemory,
    stage: Stage,
    /// Addresses that are taken, and the first that does not exist.
    taken: Vec<GpaRange>,
    end: Gpa,
    /// APIC ids by the vCPUs' numbers.
    vcpus: Vec<u32>,
    state: Mutex<State>,
    /// Where the console goes, if there is one.
    has_console: bool,
    printer: Mutex<Printer>,
    /// What vCPUs have to do, by APIC id, and how much of it there is.
    errands: Mutex<BTreeMap<u32, Vec<Errand>>>,
    waiting: AtomicUsize,
}

/// Something about a vCPU that KVM has to be told.
#[derive(Debug, Clone, Copy)]
enum Errand {
    Info(Option<Gpa>),
    Area(Area, Option<Gpa>),
    Timer(u32),
    OwnVector(u8),
}

impl Errand {
    fn run(self, vcpu: &Vcpu) -> bool {
        told(match self {
            Self::Info(at) => vcpu.set_vcpu_info(at),
            Self::Area(area, at) => vcpu.set_xen_area(area, at),
            Self::Timer(port) => vcpu.set_xen_timer(port),
            Self::OwnVector(vector) => vcpu.set_own_vector(vector),
        })
    }
}

struct State {
    domain: Domain,
    /// Pages beside the guest's memory that Xen shows, by number.
    frames: BTreeMap<u64, Arc<Window>>,
}

/// What the domain is made of, from what the machine is and is to have.
pub fn plan(config: &VmConfig, layout: &Layout, xen: &XenConfig, limits: &Limits) -> Plan {
    let pages = |range: &GpaRange| range.start.0 / PAGE..range.end().0 / PAGE;
    let mut boot: Vec<_> = layout.ram.iter().map(|region| pages(&region.range)).collect();
    boot.sort_by_key(|range| range.start);
    let maximum = limits.static_max.max(layout.ram_size());
    let map = layout.e820().into_iter();
    Plan {
        version: xen.version,
        initial: xen.dom0,
        vcpus: config.cpus.count.into(),
        boot,
        maximum: maximum.0 / PAGE,
        store: layout::XEN_STORE.0 / PAGE,
        console: xen.console.as_ref().map(|_| layout::XEN_CONSOLE.0 / PAGE),
        target: limits.target.0 / PAGE,
        map: map
            .map(|(range, kind)| (range.start.0..range.end().0, kind as u32))
            .collect(),
    }
}

impl Xen {
    /// The domain of `plan`, on `vm` with all its memory; `vcpus` are APIC ids in order, and its console goes to `printer`.
    pub fn new(plan: Plan, (vm, stage): (Vm, Stage), report: &Report, vcpus: Vec<u32>, printer: Printer) -> Self {
        let taken = report.map.iter().map(|entry| {
            let len = (entry.last - entry.start).saturating_add(1);
            GpaRange::new(Gpa(entry.start), len)
        });
        Self {
            memory: stage.memory().clone(),
            taken: taken.collect(),
            end: Gpa(1 << report.phys_bits.min(52)),
            vcpus,
            has_console: plan.console.is_some(),
            printer: Mutex::new(printer),
            state: Mutex::new(State {
                domain: Domain::new(plan),
                frames: BTreeMap::new(),
            }),
            errands: Mutex::default(),
            waiting: AtomicUsize::new(0),
            stage,
            vm,
        }
    }

    /// Whether a vCPU has something to do before it goes on.
    pub fn has_errands(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Does what `vcpu` has to do, on its thread.
    pub fn do_errands(&self, vcpu: &Vcpu) {
        if !self.has_errands() {
            return;
        }
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        for errand in errands.remove(&vcpu.apic_id()).unwrap_or_default() {
            errand.run(vcpu);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn leave_errand(&self, apic_id: u32, errand: Errand) {
        let mut errands = self.errands.lock().unwrap_or_else(PoisonError::into_inner);
        errands.entry(apic_id).or_default().push(errand);
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Answers a hypercall of `vcpu`, on its thread.
    pub fn call(&self, vcpu: &Vcpu, call: &Hypercall) -> Answer {
        let mut state = self.lock();
        let State { domain, frames } = &mut *state;
        let number = self.vcpus.iter().position(|apic_id| *apic_id == vcpu.apic_id());
        let number = number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
        let call = Call {
            number: call.number,
            args: call.args,
            vcpu: number,
            is_64_bit: call.is_64_bit,
            privilege: call.privilege,
        };
        let guest = Caller {
            vcpu,
            memory: &self.memory,
        };
        let mut hands = Hands {
            xen: self,
            caller: Some((vcpu, number)),
            frames,
        };
        domain.call(&call, &guest, &mut hands)
    }

    /// What of its memory the domain has.
    pub fn memory(&self) -> DomainMemory {
        let state = self.lock();
        let pages = state.domain.reservation();
        DomainMemory {
            current: ByteSize(pages.current() * PAGE),
            ballooned: ByteSize(pages.ballooned() * PAGE),
        }
    }

    /// Tells the guest how much RAM it is to have.
    pub fn set_target(&self, target: ByteSize) {
        self.on_domain(|domain, hands| domain.set_target(target.0 / PAGE, hands));
    }

    /// Whether the guest listens to a store of ours: the first domain runs its own.
    pub fn has_store(&self) -> bool {
        !self.lock().domain.is_initial()
    }

    /// Whether the domain has a console of its own.
    pub fn has_console(&self) -> bool {
        self.has_console
    }

    /// Hands what the guest has printed to its reader, as much as that takes.
    pub fn attend_console(&self) {
        self.on_domain(|domain, hands| domain.attend_console(hands));
    }

    /// Whether nothing that it printed waits for its reader.
    pub fn has_printed_all(&self) -> bool {
        self.on_domain(|domain, hands| domain.has_printed_all(hands))
    }

    /// Bytes that can be typed now.
    pub fn room_to_type(&self) -> usize {
        self.on_domain(|domain, hands| domain.room_to_type(hands))
    }

    /// Types as much of `bytes` as there is room for; how much.
    pub fn typed(&self, bytes: &[u8]) -> usize {
        self.on_domain(|domain, hands| domain.typed(bytes, hands))
    }

    /// Asks the guest's kernel to end.
    pub fn ask(&self, what: Asked) -> Result<(), NotAsked> {
        self.on_domain(|domain, hands| domain.ask(what, hands))
    }

    /// Whether it is not asked any more, because it has taken that.
    pub fn has_taken(&self, what: Asked) -> bool {
        self.lock().domain.asked() != Some(what)
    }

    /// Does not ask any more; false: it has taken it.
    pub fn take_back(&self, what: Asked) -> bool {
        self.on_domain(|domain, hands| domain.take_back(what, hands))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that the host changes.
    fn on_domain<T>(&self, change: impl FnOnce(&mut Domain, &mut Hands<'_>) -> T) -> T {
        let mut state = self.lock();
        let State { domain, frames } = &mut *state;
        let mut hands = Hands {
            xen: self,
            caller: None,
            frames,
        };
        change(domain, &mut hands)
    }

    fn is_free(&self, range: GpaRange) -> bool {
        range.end() <= self.end && !self.taken.iter().any(|taken| taken.overlaps(&range))
    }
}

/// Memory as the code that made the call sees it.
struct Caller<'a> {
    vcpu: &'a Vcpu,
    memory: &'a GuestMemory,
}

/// The parts of `len` bytes from `at` that lie in one page each: address, and where in the bytes.
fn parts(at: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let here = at.wrapping_add(done as u64);
        let room = usize::try_from(PAGE - here % PAGE).unwrap_or(usize::MAX);
        let end = len.min(done.saturating_add(room));
        let part = (done < len).then_some((here, done..end));
        done = end;
        part
    })
}

impl Guest for Caller<'_> {
    fn place(&self, at: u64) -> Result<Gpa, BadAddress> {
        self.vcpu.translate(at).ok_or(BadAddress)
    }

    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), BadAddress> {
        let memory = self.memory.memory();
        for (at, part) in parts(at, to.len()) {
            let gpa = self.vcpu.translate(at).ok_or(BadAddress)?;
            let to = to.get_mut(part).ok_or(BadAddress)?;
            memory.read_slice(to, GuestAddress(gpa.0)).map_err(|_| BadAddress)?;
        }
        Ok(())
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), BadAddress> {
        let memory = self.memory.memory();
        for (at, part) in parts(at, from.len()) {
            let gpa = self.vcpu.translate(at).ok_or(BadAddress)?;
            let from = from.get(part).ok_or(BadAddress)?;
            memory.write_slice(from, GuestAddress(gpa.0)).map_err(|_| BadAddress)?;
        }
        Ok(())
    }
}

/// What the machine does for the domain while a call is answered, or the host changes something.
struct Hands<'a> {
    xen: &'a Xen,
    /// The vCPU that calls, and its number.
    caller: Option<(&'a Vcpu, u32)>,
    frames: &'a mut BTreeMap<u64, Arc<Window>>,
}

impl Hands<'_> {
    /// The vCPU of that number does it: now, if it is the one that calls.
    fn on(&self, number: u32, errand: Errand) -> bool {
        match (self.caller, self.processor(number)) {
            (Some((vcpu, caller)), _) if caller == number => errand.run(vcpu),
            (_, Some(apic_id)) => {
                self.xen.leave_errand(apic_id, errand);
                true
            }
            (_, None) => false,
        }
    }

    fn processor(&self, number: u32) -> Option<u32> {
        self.xen.vcpus.get(number as usize).copied()
    }
}

fn bytes(pages: &Range<u64>) -> GpaRange {
    GpaRange::new(Gpa(pages.start * PAGE), (pages.end - pages.start) * PAGE)
}

fn told(what: Result<(), HvError>) -> bool {
    if let Err(error) = &what {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "a hypercall cannot be carried out"
        );
    }
    what.is_ok()
}

impl Host for Hands<'_> {
    fn discard(&mut self, pages: Range<u64>) {
        let GpaRange { start, len } = bytes(&pages);
        let (mut at, end) = (start.0, start.0 + len);
        while at < end {
            let Some(window) = self.xen.stage.at(Gpa(at)) else {
                at += PAGE;
                continue;
            };
            let range = window.range();
            let to = end.min(range.end().0);
            if let Err(error) = window.discard(at - range.start.0..to - range.start.0) {
                tracing::warn!(%error, "memory that the guest gave back stays with the machine");
            }
            at = to;
        }
    }

    fn provide(&mut self, pages: Range<u64>) -> bool {
        let range = bytes(&pages);
        if !self.xen.is_free(range) {
            return false;
        }
        let shown = self.xen.stage.show(range);
        shown
            .inspect_err(|error| tracing::warn!(%range, "no memory for the guest: {error}"))
            .is_ok()
    }

    fn show_frame(&mut self, page: u64) -> bool {
        let range = bytes(&(page..page + 1));
        if !self.xen.is_free(range) {
            return false;
        }
        let shown = self.xen.stage.show(range);
        shown.is_ok_and(|window| self.frames.insert(page, window).is_none())
    }

    fn hide_frame(&mut self, page: u64) {
        if let Some(window) = self.frames.remove(&page) {
            self.xen.stage.hide(&window);
        }
    }

    fn load(&self, at: Gpa, to: &mut [u8]) {
        let memory = self.xen.memory.memory();
        if memory.read_slice(to, GuestAddress(at.0)).is_err() {
            to.fill(0);
        }
    }

    fn store(&mut self, at: Gpa, from: &[u8]) {
        // What is not there is not written.
        let _ = self.xen.memory.memory().write_slice(from, GuestAddress(at.0));
    }

    fn clear_bit(&mut self, word: Gpa, bit: u32) -> bool {
        let memory = self.xen.memory.memory();
        let Ok(slice) = memory.get_slice(GuestAddress(word.0), size_of::<u64>()) else {
            return false;
        };
        let word = slice.get_atomic_ref::<AtomicU64>(0);
        word.is_ok_and(|word| word.fetch_and(!(1 << bit), Ordering::SeqCst) & 1 << bit != 0)
    }

    fn place_shared_info(&mut self, page: Option<u64>) -> bool {
        told(self.xen.vm.set_shared_info(page))
    }

    fn place_vcpu_info(&mut self, vcpu: u32, at: Option<Gpa>) -> bool {
        self.on(vcpu, Errand::Info(at))
    }

    fn place_area(&mut self, vcpu: u32, area: Area, at: Option<Gpa>) -> bool {
        self.on(vcpu, Errand::Area(area, at))
    }

    fn set_timer_port(&mut self, vcpu: u32, port: u32) -> bool {
        self.on(vcpu, Errand::Timer(port))
    }

    fn set_upcall_vector(&mut self, vector: u8) -> bool {
        told(self.xen.vm.set_upcall_vector(vector))
    }

    fn set_own_vector(&mut self, vcpu: u32, vector: u8) -> bool {
        let done = self.on(vcpu, Errand::OwnVector(vector));
        tracing::debug!(vcpu, vector, done, "events come by a vector of the vCPU's own");
        done
    }

    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        if let Some(apic_id) = self.processor(vcpu) {
            told(self.xen.vm.interrupt(apic_id, vector));
        }
    }

    fn apic_id(&self, vcpu: u32) -> Option<u32> {
        self.processor(vcpu)
    }

    fn raise(&mut self, port: u32, vcpu: u32) {
        // KVM knows vCPUs by their APIC ids.
        if let Some(apic_id) = self.processor(vcpu) {
            told(self.xen.vm.send_event(port, apic_id));
        }
    }

    fn route_ipi(&mut self, port: u32, vcpu: Option<u32>) {
        let apic_id = vcpu.and_then(|vcpu| self.processor(vcpu));
        // Where KVM does not, what is sent comes here.
        if let Err(error) = self.xen.vm.route_ipi(port, apic_id) {
            tracing::debug!(port, error = &error as &dyn std::error::Error, "sent by us");
        }
    }

    fn print(&mut self, bytes: &[u8]) -> usize {
        let mut printer = self.xen.printer.lock().unwrap_or_else(PoisonError::into_inner);
        printer(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_several_pages_is_reached_page_by_page() {
        let all = |at, len| parts(at, len).collect::<Vec<_>>();
        assert_eq!(all(0x1ff8, 8), [(0x1ff8, 0..8)]);
        assert_eq!(
            all(0x1ff8, 4112),
            [(0x1ff8, 0..8), (0x2000, 8..4104), (0x3000, 4104..4112)]
        );
        assert_eq!(all(u64::MAX - 3, 8), [(u64::MAX - 3, 0..4), (0, 4..8)]);
        assert_eq!(all(5, 0), []);
    }
}
