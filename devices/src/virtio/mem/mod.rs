//! Memory that grows and shrinks (virtio 1.2 section 5.15): a region of blocks that the driver plugs and unplugs until as
//! much is plugged as the host asks for.
//!
//! ```text
//! block: unplugged --PLUG--> plugged --UNPLUG, UNPLUG_ALL--> unplugged      every block is unplugged at first
//! ```
//!
//! A reset of the device leaves memory as it is, because the guest may still use it (virtio 1.2 5.15.5.2: the driver of a
//! guest that has started anew unplugs all of it first). The device decides, [`Media`] acts.

mod blocks;

use super::{Activation, Memory, Progress, Reader, Single, VirtioDevice, deferred::copy_config, lock, queue::Next};
use crate::units::GpaRange;
use blocks::Blocks;
use std::{
    io::{self, Write},
    ops::Range,
    sync::Mutex,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_MEM;
use vm_memory::GuestAddressSpace;

/// Entries of the request queue.
const QUEUE_SIZE: u16 = 64;
/// Node number is valid. VIRTIO_MEM_F_ACPI_PXM.
const F_ACPI_PXM: u64 = 1 << 0;
/// Unplugged memory must not be touched. VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE.
const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;
/// Bytes of a request (virtio 1.2 5.15.6).
const REQUEST: usize = 24;
/// Bytes of an answer.
const ANSWER: usize = 10;
/// How far the usable region goes beyond what is asked for: Linux takes only whole memory blocks into account, whose
/// largest size on x86-64 is 2 GiB.
const USABLE_BEYOND: u64 = 2 << 30;

const ACK: u16 = 0;
const NACK: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;

/// What makes memory come and go.
pub trait Media: Send {
    /// Gives the guest these bytes of the region; they may hold anything.
    fn plug(&mut self, bytes: Range<u64>) -> io::Result<()>;
    /// Takes them away. Cannot fail: what the host does not take back now it takes back later.
    fn unplug(&mut self, bytes: Range<u64>);
}

/// Where the region is and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemPlan {
    /// The region; both ends on blocks.
    pub region: GpaRange,
    /// Bytes of a block, a power of two.
    pub block: u64,
    /// Proximity domain.
    pub node: u16,
}

/// How much is asked for, how much there is, and what the driver did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemStatus {
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes plugged.
    pub plugged: u64,
    /// Bytes from the start of the region that the driver may use.
    pub usable: u64,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Requests since the last change of what is asked for.
    pub requests: Counts,
}

/// Requests of the driver by kind and answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// PLUG, acknowledged.
    pub plugs: u64,
    /// UNPLUG and UNPLUG_ALL, acknowledged.
    pub unplugs: u64,
    /// Refused: more than was asked for.
    pub refused: u64,
    /// The host could not.
    pub busy: u64,
    /// Outside the region, misaligned, or of the wrong state.
    pub wrong: u64,
}

/// Why another size cannot be asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not whole blocks.
    #[error("{0} is not a multiple of the block size {1}")]
    Blocks(crate::units::ByteSize, crate::units::ByteSize),
    /// More than the region.
    #[error("{0} is more than the region of {1}")]
    Region(crate::units::ByteSize, crate::units::ByteSize),
}

/// The device.
pub struct Mem {
    plan: MemPlan,
    state: Mutex<State>,
}

struct State {
    requested: u64,
    usable: u64,
    generation: u32,
    blocks: Blocks,
    counts: Counts,
    media: Box<dyn Media>,
    active: Option<Single>,
}

/// A request, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Plug(u64, u16),
    Unplug(u64, u16),
    UnplugAll,
    State(u64, u16),
    Unknown,
}

impl Mem {
    /// A device with nothing plugged.
    pub fn new(plan: MemPlan, requested: u64, media: Box<dyn Media>) -> Self {
        assert!(plan.block.is_power_of_two() && plan.region.len.is_multiple_of(plan.block));
        let state = State {
            requested,
            usable: usable(&plan, requested),
            generation: 0,
            blocks: Blocks::new(plan.region.len / plan.block),
            counts: Counts::default(),
            media,
            active: None,
        };
        Self {
            plan,
            state: Mutex::new(state),
        }
    }

    /// Where and what.
    pub fn plan(&self) -> MemPlan {
        self.plan
    }

    /// Where things stand.
    pub fn status(&self) -> MemStatus {
        let state = lock(&self.state);
        MemStatus {
            requested: state.requested,
            plugged: state.blocks.plugged() * self.plan.block,
            usable: state.usable,
            driver: state.active.is_some(),
            requests: state.counts,
        }
    }

    /// Whether `bytes` can be asked for.
    pub fn check(&self, bytes: u64) -> Result<(), TargetError> {
        use crate::units::ByteSize as B;
        let MemPlan { region, block, .. } = self.plan;
        if bytes > region.len {
            return Err(TargetError::Region(B(bytes), B(region.len)));
        }
        if !bytes.is_multiple_of(block) {
            return Err(TargetError::Blocks(B(bytes), B(block)));
        }
        Ok(())
    }

    /// Asks the driver for another size. It takes its time, and need not succeed.
    pub fn request(&self, bytes: u64) -> Result<(), TargetError> {
        self.check(bytes)?;
        let mut state = lock(&self.state);
        state.counts = Counts::default();
        state.requested = bytes;
        // It never shrinks while something is plugged: the driver's memory would lie outside.
        state.usable = state.usable.max(usable(&self.plan, bytes));
        if state.blocks.plugged() == 0 {
            state.usable = usable(&self.plan, bytes);
        }
        state.changed();
        let interrupt = state.active.as_ref().map(|active| active.interrupt.clone());
        drop(state);
        if let Some(interrupt) = interrupt {
            interrupt.pulse();
        }
        Ok(())
    }
}

fn usable(plan: &MemPlan, requested: u64) -> u64 {
    match requested {
        0 => 0,
        bytes => bytes.saturating_add(USABLE_BEYOND).min(plan.region.len),
    }
}

impl State {
    /// The configuration space is another one now. The caller pulses.
    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(active) = &self.active {
            active.interrupt.mark_config_changed();
        }
    }

    fn serve(&mut self, plan: &MemPlan, mem: &Memory) -> Progress {
        for _ in 0..QUEUE_SIZE {
            let Some(Single { queue, .. }) = &mut self.active else {
                return Progress::Done;
            };
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            let unreadable = queue.bad_line(&chain).is_some();
            let (Some(mut from), Some(mut to)) = (queue.reader(mem, chain.clone()), queue.writer(mem, chain)) else {
                return Progress::Done;
            };
            let request = parse(&mut from);
            if queue.in_doubt() {
                queue.put_back();
                return Progress::More;
            }
            let Some(request) = request else {
                queue.fail(format_args!("a request has less than {REQUEST} bytes"));
                return Progress::Done;
            };
            let room = to.available_bytes();
            if room < ANSWER {
                queue.fail(format_args!(
                    "a request has {room} bytes for its answer, which has {ANSWER}"
                ));
                return Progress::Done;
            }
            let request = if unreadable { Request::Unknown } else { request };
            let (answer, state) = self.act(plan, request);
            let mut bytes = [0; ANSWER];
            let [kind @ .., _, _, _, _, _, _, low, high] = &mut bytes;
            *kind = answer.to_le_bytes();
            [*low, *high] = state.to_le_bytes();
            let Some(Single { queue, .. }) = &mut self.active else {
                return Progress::Done;
            };
            match to.write_all(&bytes) {
                Ok(()) => queue.complete(mem, head, ANSWER),
                Err(error) => queue.fail(format_args!("an answer cannot be written: {error}")),
            }
        }
        Progress::More
    }

    /// The answer, and the state that was asked for.
    fn act(&mut self, plan: &MemPlan, request: Request) -> (u16, u16) {
        let (answer, state) = match request {
            Request::Plug(at, blocks) => (self.plug(plan, at, blocks), 0),
            Request::Unplug(at, blocks) => (self.unplug(plan, at, blocks), 0),
            Request::UnplugAll => (self.unplug_all(plan), 0),
            Request::State(at, blocks) => match self.range(plan, at, blocks) {
                Some(range) => (ACK, self.blocks.state(range)),
                None => (ERROR, 0),
            },
            Request::Unknown => (ERROR, 0),
        };
        match (answer, request) {
            (ACK, Request::Plug(..)) => self.counts.plugs += 1,
            (ACK, Request::Unplug(..) | Request::UnplugAll) => self.counts.unplugs += 1,
            (NACK, _) => self.counts.refused += 1,
            (BUSY, _) => self.counts.busy += 1,
            (ERROR, _) => self.counts.wrong += 1,
            _ => {}
        }
        (answer, state)
    }

    /// The blocks of a request, if they are whole ones of the usable region (virtio 1.2 5.15.6.2).
    fn range(&self, plan: &MemPlan, at: u64, blocks: u16) -> Option<Range<u64>> {
        let offset = at.checked_sub(plan.region.start.0)?;
        let end = offset.checked_add(u64::from(blocks).checked_mul(plan.block)?)?;
        let fits = blocks != 0 && offset.is_multiple_of(plan.block) && end <= self.usable;
        fits.then(|| offset / plan.block..end / plan.block)
    }

    fn plug(&mut self, plan: &MemPlan, at: u64, blocks: u16) -> u16 {
        let Some(range) = self
            .range(plan, at, blocks)
            .filter(|r| self.blocks.all(r.clone(), false))
        else {
            return ERROR;
        };
        let plugged = self.blocks.plugged() + u64::from(blocks);
        if plugged * plan.block > self.requested {
            return NACK;
        }
        match self.media.plug(range.start * plan.block..range.end * plan.block) {
            Ok(()) => {
                self.blocks.set(range, true);
                ACK
            }
            Err(error) => {
                tracing::warn!(%error, "memory cannot be plugged");
                BUSY
            }
        }
    }

    fn unplug(&mut self, plan: &MemPlan, at: u64, blocks: u16) -> u16 {
        let Some(range) = self
            .range(plan, at, blocks)
            .filter(|r| self.blocks.all(r.clone(), true))
        else {
            return ERROR;
        };
        self.media.unplug(range.start * plan.block..range.end * plan.block);
        self.blocks.set(range, false);
        ACK
    }

    fn unplug_all(&mut self, plan: &MemPlan) -> u16 {
        for run in self.blocks.take_runs() {
            self.media.unplug(run.start * plan.block..run.end * plan.block);
        }
        let usable = usable(plan, self.requested);
        if usable != self.usable {
            self.usable = usable;
            self.changed();
        }
        ACK
    }
}

fn parse(from: &mut Reader<'_>) -> Option<Request> {
    let bytes: [u8; REQUEST] = from.read_obj().ok()?;
    let [t0, t1, _, _, _, _, _, _, a @ .., n0, n1, _, _, _, _, _, _] = bytes;
    let (at, blocks) = (u64::from_le_bytes(a), u16::from_le_bytes([n0, n1]));
    Some(match u16::from_le_bytes([t0, t1]) {
        0 => Request::Plug(at, blocks),
        1 => Request::Unplug(at, blocks),
        2 => Request::UnplugAll,
        3 => Request::State(at, blocks),
        _ => Request::Unknown,
    })
}

impl VirtioDevice for Mem {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_MEM
    }

    fn features(&self) -> u64 {
        F_ACPI_PXM | F_UNPLUGGED_INACCESSIBLE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    /// virtio 1.2 5.15.4.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = self.status();
        let MemPlan { region, block, node } = self.plan;
        let words = [
            block,
            node.into(),
            region.start.0,
            region.len,
            status.usable,
            status.plugged,
            status.requested,
        ];
        copy_config(&words.map(u64::to_le_bytes).concat(), offset, data);
    }

    fn config_generation(&self) -> u32 {
        lock(&self.state).generation
    }

    fn activate(&self, activation: Activation) {
        if activation.features & F_UNPLUGGED_INACCESSIBLE == 0 {
            tracing::info!("a virtio-mem driver may read unplugged memory: it reads as ones");
        }
        lock(&self.state).active = activation.single();
    }

    fn reset(&self) {
        lock(&self.state).active = None;
    }

    fn process_queue(&self, _index: u16) -> Progress {
        let mut state = lock(&self.state);
        let Some((memory, interrupt)) = state.active.as_ref().map(|a| (a.memory.memory(), a.interrupt.clone())) else {
            return Progress::Done;
        };
        let generation = state.generation;
        let progress = state.serve(&self.plan, &memory);
        let signal = state.active.as_mut().is_some_and(|a| a.queue.take_signal(&memory));
        let raise = signal || state.generation != generation;
        drop(state);
        if raise {
            interrupt.pulse();
        }
        progress
    }
}

#[cfg(test)]
mod tests;
