//! Xen as one guest sees it: the hypercalls of a domain, without a hypervisor below.
//!
//! [`Domain`] is pure. It answers a [`Call`] by looking at the caller's memory ([`Guest`]) and asks the machine for what only
//! that can do ([`Host`]). Everything a guest hands over is hostile: each call does a bounded amount of work, and what the ABI
//! lets be done in part is done in part.
//!
//! | file | hypercalls |
//! |---|---|
//! | `memory.rs`, over [`reservation`] | `memory_op` |
//! | `channels.rs`, over [`events`] | `event_channel_op` |
//! | `grants.rs` | `grant_table_op` |
//! | `version.rs` | `xen_version` |
//! | `store/` | none: rings in a page, and an event channel |
//! | `console.rs` | `console_io`; the domain's own console has rings as the store has |
//! | `vcpus.rs` | `vcpu_op` |
//! | `hvm.rs` | `hvm_op`: how events are told |
//! | `dom0.rs` | `platform_op`, `physdev_op` |
//! | `power.rs` | none: what the host asks through the store |
//! | here | `sched_op` |

pub mod abi;
mod channels;
mod console;
mod dom0;
pub mod events;
mod grants;
mod hvm;
mod memory;
pub mod pages;
mod power;
pub mod reservation;
mod ring;
pub mod store;
mod vcpus;
mod version;

pub use memory::MAX_FRAMES;
pub use power::{Asked, NotAsked};
pub use version::Version;

use crate::{Effect, units::Gpa};
use abi::{DOM0, DOMID, Errno, PAGE, hypercall, shared_info};
use events::{Bound, EventChannels};
use memory::{Memory, Special};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};
use store::Store;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Calls that get a warning of their own.
const MAX_COMPLAINTS: usize = 32;

/// A hypercall as the processor made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Number.
    pub number: u64,
    /// Arguments.
    pub args: [u64; 6],
    /// vCPU, by its position.
    pub vcpu: u32,
    /// Made in 64-bit mode.
    pub is_64_bit: bool,
    /// Current privilege level.
    pub privilege: u32,
}

/// What comes of a call.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// For the guest.
    pub result: i64,
    /// For the machine.
    pub effect: Effect,
    /// For whoever watches.
    pub refused: Option<Refused>,
}

/// Memory that the guest asked for and did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Pages.
    pub asked: u64,
    /// Pages that it has.
    pub current: u64,
    /// Pages that it may have.
    pub maximum: u64,
}

/// The address leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress;

impl From<BadAddress> for Errno {
    fn from(_: BadAddress) -> Self {
        Self::Fault
    }
}

/// Memory of the caller, by its own (virtual) addresses.
pub trait Guest {
    /// Where in guest physical memory that address is.
    fn place(&self, at: u64) -> Result<Gpa, BadAddress>;
    /// Reads all of `to`.
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), BadAddress>;
    /// Writes all of `from`.
    fn write(&self, at: u64, from: &[u8]) -> Result<(), BadAddress>;
}

/// What a vCPU can have written for it, beside its information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// How long it ran, and did not.
    Runstate,
    /// Time, for programs.
    Time,
}

impl Area {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Runstate, Self::Time];

    /// Bytes.
    fn len(self) -> u64 {
        match self {
            Self::Runstate => 48,
            Self::Time => 32,
        }
    }
}

/// What the machine does for the domain. Pages are numbers of guest physical pages.
pub trait Host {
    /// Gives what these pages hold to the host; they are zeros when they are used again.
    fn discard(&mut self, pages: Range<u64>);
    /// Makes memory for these pages, where there is none. False: something else is there.
    fn provide(&mut self, pages: Range<u64>) -> bool;
    /// Makes memory for one page, beside the domain's own. False: something else is there.
    fn show_frame(&mut self, page: u64) -> bool;
    /// Takes it away.
    fn hide_frame(&mut self, page: u64);
    /// Reads guest physical memory; what is not there reads as zeros.
    fn load(&self, at: Gpa, to: &mut [u8]);
    /// Writes guest physical memory.
    fn store(&mut self, at: Gpa, from: &[u8]);
    /// Clears a bit of the 64-bit word at `word` at once, whoever else changes it; what it was.
    fn clear_bit(&mut self, word: Gpa, bit: u32) -> bool;
    /// The shared information page is there now. False: it cannot be.
    fn place_shared_info(&mut self, page: Option<u64>) -> bool;
    /// A vCPU's information is there now. False: it cannot be.
    fn place_vcpu_info(&mut self, vcpu: u32, at: Option<Gpa>) -> bool;
    /// A page of time, or of what a vCPU did, is there now. False: it cannot be.
    fn place_area(&mut self, vcpu: u32, area: Area, at: Option<Gpa>) -> bool;
    /// A vCPU's timer makes this port pending; 0: none. False: it cannot.
    fn set_timer_port(&mut self, vcpu: u32, port: u32) -> bool;
    /// Events are told by this interrupt vector for as long as they are pending; 0: they are not. False: they cannot be.
    fn set_upcall_vector(&mut self, vector: u8) -> bool;
    /// A vCPU's events are told by this vector of its local APIC, once each; 0: they are not. False: they cannot be.
    fn set_own_vector(&mut self, vcpu: u32, vector: u8) -> bool;
    /// Sends a vCPU's local APIC a vector.
    fn interrupt(&mut self, vcpu: u32, vector: u8);
    /// APIC id of a vCPU; none: there is no such vCPU.
    fn apic_id(&self, vcpu: u32) -> Option<u32>;
    /// Makes a port pending and tells its vCPU.
    fn raise(&mut self, port: u32, vcpu: u32);
    /// What the guest sends through this port goes to that vCPU, which the machine may see to without a call; none: no longer.
    fn route_ipi(&mut self, port: u32, vcpu: Option<u32>);
    /// Hands `bytes` to whoever reads the domain's console; how many of them were taken.
    fn print(&mut self, bytes: &[u8]) -> usize;
}

/// What there is around one call.
struct Context<'a> {
    guest: &'a dyn Guest,
    host: &'a mut dyn Host,
    effect: Effect,
    refused: Option<Refused>,
}

impl Context<'_> {
    fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.guest.read(at, value.as_mut_bytes())?;
        Ok(value)
    }

    fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) -> Result<(), Errno> {
        Ok(self.guest.write(at, value.as_bytes())?)
    }
}

/// Result of a call's own function.
type Done = Result<i64, Errno>;

type Serve = fn(&mut Domain, &Call, &mut Context<'_>) -> Done;

/// Every hypercall that is answered.
const CALLS: &[(u64, Serve)] = &[
    (hypercall::MEMORY_OP, memory::serve),
    (hypercall::XEN_VERSION, version::serve),
    (hypercall::CONSOLE_IO, console::serve),
    (hypercall::GRANT_TABLE_OP, grants::serve),
    (hypercall::VCPU_OP, vcpus::serve),
    (hypercall::SCHED_OP, Domain::sched_op),
    (hypercall::EVENT_CHANNEL_OP, channels::serve),
    (hypercall::HVM_OP, hvm::serve),
    (hypercall::PLATFORM_OP, dom0::platform_op),
    (hypercall::PHYSDEV_OP, dom0::physdev_op),
];

/// What a domain is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What Xen says it is.
    pub version: Version,
    /// It is the first domain.
    pub initial: bool,
    /// vCPUs.
    pub vcpus: u32,
    /// Pages of boot RAM, ascending ranges.
    pub boot: Vec<Range<u64>>,
    /// Most pages.
    pub maximum: u64,
    /// The memory map with e820 types.
    pub map: Vec<(Range<u64>, u32)>,
    /// Page of the store's rings, which is in the map and not usable.
    pub store: u64,
    /// Page of the console's rings, which is so as well; none: there is no console.
    pub console: Option<u64>,
    /// Pages that the domain is to have.
    pub target: u64,
}

/// The guest's domain.
pub struct Domain {
    version: Version,
    domid: u16,
    vcpus: u32,
    memory: Memory,
    events: EventChannels,
    upcalls: hvm::Upcalls,
    shared_info: Option<u64>,
    /// vCPUs whose information is not in the shared page, and where it is.
    moved: BTreeMap<u32, Gpa>,
    store: Store,
    store_page: u64,
    store_port: u32,
    console: console::Lines,
    own_console: Option<console::Console>,
    told: BTreeSet<(u64, u64)>,
    /// Pages that it had when it was last refused some.
    refused_at: Option<u64>,
}

/// Kibibytes, as the store has sizes.
fn kib(pages: u64) -> u64 {
    pages.saturating_mul(PAGE >> 10)
}

impl Domain {
    /// A domain that has made no call.
    pub fn new(plan: Plan) -> Self {
        let memory = Memory::new(plan.boot, plan.maximum, plan.map);
        // Linux takes what it did not find of it for memory that it cannot see: more than the boot map has would be too much.
        let found = kib(memory.reservation().current());
        let domid = if plan.initial { DOM0 } else { DOMID };
        let mut events = EventChannels::new(domid, plan.vcpus);
        // The first of all ports: there are some.
        let store_port = events.bind_store().unwrap_or_default();
        let own_console = plan.console.map(|page| console::Console {
            page,
            port: events.bind_console().unwrap_or_default(),
        });
        let mut store = Store::new(plan.store, "guest", plan.vcpus, found, kib(plan.target));
        if let Some(console) = &own_console {
            store.plant_console(console.page, console.port);
        }
        Self {
            version: plan.version,
            domid,
            vcpus: plan.vcpus,
            memory,
            store,
            store_page: plan.store,
            store_port,
            events,
            upcalls: hvm::Upcalls::default(),
            shared_info: None,
            moved: BTreeMap::new(),
            console: console::Lines::default(),
            own_console,
            told: BTreeSet::new(),
            refused_at: None,
        }
    }

    /// Whether it is the first domain.
    pub fn is_initial(&self) -> bool {
        self.domid == DOM0
    }

    fn is_self(&self, domid: u16) -> bool {
        self.events.is_self(domid)
    }

    /// Memory of the domain.
    pub fn reservation(&self) -> &reservation::Reservation {
        self.memory.reservation()
    }

    /// The store, for a look.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The host writes `value` at `path` below the guest's own node of the store.
    pub fn set_node(&mut self, path: &str, value: &str, host: &mut dyn Host) {
        if self.store.set(path, value, host) {
            self.tell_store(host);
        }
    }

    /// The domain is to have so many pages.
    pub fn set_target(&mut self, pages: u64, host: &mut dyn Host) {
        self.set_node("memory/target", &kib(pages).to_string(), host);
    }

    fn attend_store(&mut self, host: &mut dyn Host) {
        if self.store.attend(host) {
            self.tell_store(host);
        }
    }

    fn tell_store(&self, host: &mut dyn Host) {
        if let Some((Bound::Store, vcpu)) = self.events.look(self.store_port) {
            host.raise(self.store_port, vcpu);
        }
    }

    /// Answers a call.
    pub fn call(&mut self, call: &Call, guest: &dyn Guest, host: &mut dyn Host) -> Answer {
        let mut context = Context {
            guest,
            host,
            effect: Effect::None,
            refused: None,
        };
        let known = CALLS.iter().find(|(number, _)| *number == call.number);
        let done = match known {
            // As Xen answers user programs.
            _ if call.privilege != 0 => Err(Errno::Perm),
            Some((_, serve)) if call.is_64_bit => serve(self, call, &mut context),
            _ => Err(Errno::NoCall),
        };
        if done == Err(Errno::NoCall) {
            self.complain(call, guest);
        }
        self.remind(call.vcpu, context.host);
        if cfg!(debug_assertions)
            && let Err(wrong) = self.reservation().audit()
        {
            unreachable!("the domain's memory must be counted right: {wrong} after {call:?}");
        }
        Answer {
            result: done.unwrap_or_else(|errno| -(errno as i64)),
            effect: context.effect,
            refused: context.refused.filter(|refused| self.is_news(refused)),
        }
    }

    /// A guest that asks again, and has as much as before, is refused as before.
    fn is_news(&mut self, refused: &Refused) -> bool {
        self.refused_at.replace(refused.current) != Some(refused.current)
    }

    /// Names a call that there is not, once.
    fn complain(&mut self, call: &Call, guest: &dyn Guest) {
        /// Linux tries these, and has another way.
        const EXPECTED: [(u64, u64); 4] = [
            (hypercall::VM_ASSIST, 0),
            (hypercall::EVENT_CHANNEL_OP, 11),
            (hypercall::EVENT_CHANNEL_OP, 13),
            (hypercall::HVM_OP, 9),
        ];
        /// Their operation is the first word of what they point to.
        const POINT: [u64; 4] = [
            hypercall::PLATFORM_OP,
            hypercall::SYSCTL,
            hypercall::DOMCTL,
            hypercall::MCA,
        ];
        let mut word = [0; 4];
        let operation = match call.args[0] {
            at if !POINT.contains(&call.number) => at,
            at => guest
                .read(at, &mut word)
                .map_or(0, |()| u32::from_le_bytes(word).into()),
        };
        let which = (call.number, operation);
        if EXPECTED.contains(&which) || self.told.len() >= MAX_COMPLAINTS || !self.told.insert(which) {
            return;
        }
        let (hypercall, operation) = which;
        let bits = if call.is_64_bit { 64 } else { 32 };
        tracing::warn!(
            hypercall,
            operation,
            bits,
            "the guest makes a hypercall that is not there"
        );
    }

    fn sched_op(&mut self, call: &Call, context: &mut Context<'_>) -> Done {
        const YIELD: u64 = 0;
        const SHUTDOWN: u64 = 2;
        /// Reasons (`sched.h`).
        const REASONS: [Option<Effect>; 6] = [
            Some(Effect::PowerOff),
            Some(Effect::Reset),
            // A suspended domain would have to be woken by somebody.
            None,
            Some(Effect::Panicked),
            // The watchdog of the domain.
            Some(Effect::Panicked),
            // What kexec asks for is answered below.
            None,
        ];
        const SOFT_RESET: u32 = 5;
        let [operation, at, ..] = call.args;
        match operation {
            YIELD => {
                // Who prints yields while there is no room.
                self.attend_console(context.host);
                Ok(0)
            }
            SHUTDOWN => {
                let reason: zerocopy::little_endian::U32 = context.get(at)?;
                if reason.get() == SOFT_RESET {
                    self.forget(context);
                    return Ok(0);
                }
                let reason = REASONS.get(reason.get() as usize).ok_or(Errno::Invalid)?;
                context.effect = reason.ok_or(Errno::NotSupported)?;
                Ok(0)
            }
            _ => Err(Errno::NoCall),
        }
    }

    /// The domain starts over with another kernel, in the same memory.
    fn forget(&mut self, context: &mut Context<'_>) {
        self.forget_upcalls(context.host);
        self.reset_channels(context.host);
        self.store.reset();
        // The same ports as before: they are the first again.
        self.store_port = self.events.bind_store().unwrap_or_default();
        if let Some(console) = &mut self.own_console {
            console.port = self.events.bind_console().unwrap_or_default();
        }
        for vcpu in std::mem::take(&mut self.moved).into_keys() {
            context.host.place_vcpu_info(vcpu, None);
        }
        for vcpu in 0..self.vcpus {
            context.host.set_timer_port(vcpu, 0);
            for area in Area::ALL {
                context.host.place_area(vcpu, area, None);
            }
        }
        self.memory.forget_special(context.host);
        // To nowhere, which nobody refuses.
        let _ = self.follow_shared_info(context);
    }

    /// Frees every port; which were bound.
    fn reset_channels(&mut self, host: &mut dyn Host) -> Vec<u32> {
        for port in self.events.between_vcpus() {
            host.route_ipi(port, None);
        }
        self.events.reset()
    }

    /// Tells the machine where the shared page is now, and what of it belongs to vCPUs that have not moved theirs.
    fn follow_shared_info(&mut self, context: &mut Context<'_>) -> Done {
        let page = self.memory.place_of(Special::SharedInfo);
        if page == self.shared_info {
            return Ok(0);
        }
        self.shared_info = page;
        if !context.host.place_shared_info(page) {
            self.shared_info = None;
            page.map(|page| self.memory.unplace(page, context.host));
            return Err(Errno::Invalid);
        }
        for vcpu in (0..self.vcpus.min(shared_info::VCPUS)).filter(|vcpu| !self.moved.contains_key(vcpu)) {
            let at = page.map(|page| Gpa(page * PAGE + u64::from(vcpu) * shared_info::VCPU_INFO));
            context.host.place_vcpu_info(vcpu, at);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
