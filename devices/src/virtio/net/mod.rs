//! Network device (virtio 1.2 section 5.1): one receive and one transmit queue, no offloads, every frame whole in one chain.
//!
//! ```text
//! transmit chain --Wire::send--> host     a full or broken wire loses the frame, which is counted
//! host --Wire::receive--> receive chain   without a chain the frame stays on the wire: it is what is bounded
//! ```
//!
//! The wire never waits, so neither does a vCPU or the machine's loop. Frames that come while no driver has the device are
//! taken off the wire and lost, so that a driver that comes later does not hear of the past.

pub mod config;
#[cfg(test)]
mod tests;

use super::{
    Activation, Memory, Occasional, Pair, Progress, Reader, VirtioDevice,
    deferred::copy_config,
    lock,
    queue::{Next, Virtqueue},
};
use config::Mac;
use std::{
    io::{Read, Write},
    sync::Mutex,
};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_S_LINK_UP,
    },
};
use vm_memory::GuestAddressSpace;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Frames moved in one direction in one turn of the machine's loop.
const PER_TURN: u16 = 64;
/// Queue of buffers for frames that come in.
const RECEIVE: u16 = 0;
/// Queue of frames that go out.
const TRANSMIT: u16 = 1;
/// Bytes of `struct virtio_net_hdr` with its buffer count, which version 1 always has (virtio 1.2 5.1.6).
const HEADER: usize = 12;
/// Least bytes of a frame: two addresses and a type.
pub const MIN_FRAME: usize = 14;
/// What a frame has beside its packet at most: those, and one VLAN tag.
const FRAMING: usize = MIN_FRAME + 4;
/// Largest packet that a device can be made for.
pub const MAX_MTU: u16 = 9216;
/// Smallest (virtio 1.2 5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// The host's end. Called under the device's lock: must not wait, and must not call the device.
pub trait Wire: Send {
    /// Sends a frame; false: it is lost.
    fn send(&mut self, frame: &[u8]) -> bool;
    /// Puts the next frame into `buffer` and says how long it is; one that is longer than the buffer may be cut to its length. None:
    /// no frame waits, and [`Net::arrived`] follows when one does.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;
}

/// What the device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetPlan {
    /// Hardware address.
    pub mac: Mac,
    /// Most bytes of a packet.
    pub mtu: u16,
}

impl NetPlan {
    /// Most bytes of a frame.
    pub fn max_frame(&self) -> usize {
        usize::from(self.mtu) + FRAMING
    }
}

/// Frames in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Frames that arrived where they were to go.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were lost: nobody took them, or they did not fit.
    pub dropped: u64,
    /// Frames of the driver that were none: too short, too long, unreadable, or with requests that were not agreed on.
    pub malformed: u64,
}

impl NetCounts {
    fn passed(&mut self, bytes: usize) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn lost(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }
}

/// What the device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetStatus {
    /// Whether a driver has it.
    pub driver: bool,
    /// Whether the wire leads anywhere.
    pub carrier: bool,
    /// Frames to the guest.
    pub received: NetCounts,
    /// Frames of the guest.
    pub sent: NetCounts,
}

/// The device.
pub struct Net {
    plan: NetPlan,
    state: Mutex<State>,
}

struct State {
    wire: Box<dyn Wire>,
    carrier: bool,
    generation: u32,
    received: NetCounts,
    sent: NetCounts,
    complaints: Occasional,
    max_frame: usize,
    /// Room for one frame and a byte more: what fills it was longer.
    buffer: Vec<u8>,
    active: Option<Pair>,
}

impl Net {
    /// A device at the end of `wire`, which leads somewhere if `carrier` says so.
    pub fn new(plan: NetPlan, carrier: bool, wire: Box<dyn Wire>) -> Self {
        Self {
            state: Mutex::new(State {
                wire,
                carrier,
                generation: 0,
                received: NetCounts::default(),
                sent: NetCounts::default(),
                complaints: Occasional::default(),
                max_frame: plan.max_frame(),
                buffer: vec![0; plan.max_frame() + 1],
                active: None,
            }),
            plan,
        }
    }

    /// What the device is.
    pub fn plan(&self) -> &NetPlan {
        &self.plan
    }

    /// What it is doing.
    pub fn status(&self) -> NetStatus {
        let state = lock(&self.state);
        NetStatus {
            driver: state.active.is_some(),
            carrier: state.carrier,
            received: state.received,
            sent: state.sent,
        }
    }

    /// Frames wait on the wire. On [`Progress::More`], call again after others had their turn.
    pub fn arrived(&self) -> Progress {
        self.with(State::receive).unwrap_or_else(|| lock(&self.state).discard())
    }

    /// The wire leads somewhere, or nowhere any more.
    pub fn set_carrier(&self, carrier: bool) {
        let mut state = lock(&self.state);
        if state.carrier == carrier {
            return;
        }
        state.carrier = carrier;
        state.generation = state.generation.wrapping_add(1);
        let interrupt = state.active.as_ref().map(|active| active.interrupt.clone());
        if let Some(interrupt) = &interrupt {
            interrupt.mark_config_changed();
        }
        drop(state);
        if let Some(interrupt) = interrupt {
            interrupt.pulse();
        }
    }

    /// Works on an active device, then interrupts the driver if something was done for it.
    fn with(&self, act: impl FnOnce(&mut State, &Memory) -> Progress) -> Option<Progress> {
        let mut state = lock(&self.state);
        let memory = state.active.as_ref()?.memory.memory();
        let progress = act(&mut state, &memory);
        let raise = state.active.as_mut().and_then(|active| active.settle(&memory));
        drop(state);
        if let Some(interrupt) = raise {
            interrupt.pulse();
        }
        Some(progress)
    }
}

impl State {
    /// Moves frames from the wire into the driver's buffers.
    fn receive(&mut self, mem: &Memory) -> Progress {
        let Some(Pair { receive: queue, .. }) = &mut self.active else {
            return Progress::Done;
        };
        for _ in 0..PER_TURN {
            // First a buffer: a frame that is off the wire cannot go back.
            if !queue.has_next(mem) && !queue.listen(mem) {
                return Progress::Done;
            }
            queue.quiet(mem);
            let Some(len) = self.wire.receive(&mut self.buffer) else {
                return Progress::Done;
            };
            let fits = (MIN_FRAME..=self.max_frame).contains(&len);
            let frame = self.buffer.get(..len).filter(|_| fits);
            let Some(frame) = frame else {
                self.received.lost();
                continue;
            };
            match deliver(queue, mem, frame) {
                true => self.received.passed(len),
                false => self.received.lost(),
            }
        }
        Progress::More
    }

    /// Takes frames off the wire that nobody wants.
    fn discard(&mut self) -> Progress {
        for _ in 0..PER_TURN {
            if self.wire.receive(&mut self.buffer).is_none() {
                return Progress::Done;
            }
            self.received.lost();
        }
        Progress::More
    }

    /// Moves the driver's frames to the wire.
    fn transmit(&mut self, mem: &Memory) -> Progress {
        let Some(Pair { transmit: queue, .. }) = &mut self.active else {
            return Progress::Done;
        };
        for _ in 0..PER_TURN {
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            let taken = match queue.bad_line(&chain) {
                Some(line) => Err(format!("has a memory error at {line}")),
                None => match queue.reader(mem, chain) {
                    Some(mut from) => take(&mut from, &mut self.buffer, self.max_frame),
                    None => return Progress::Done,
                },
            };
            match taken {
                Ok(frame) if self.wire.send(frame) => self.sent.passed(frame.len()),
                Ok(_) => self.sent.lost(),
                Err(why) => {
                    self.sent.malformed = self.sent.malformed.saturating_add(1);
                    if let Some(count) = self.complaints.hit() {
                        tracing::warn!(count, "a frame of a virtio network driver {why}");
                    }
                }
            }
            queue.complete(mem, head, 0);
        }
        Progress::More
    }
}

/// Puts a frame into the next chain; whether it fits. One that does not leaves the chain for the next.
fn deliver(queue: &mut Virtqueue, mem: &Memory, frame: &[u8]) -> bool {
    let Some(chain) = queue.pop(mem) else { return false };
    let head = chain.head_index();
    let Some(mut to) = queue.writer(mem, chain) else {
        return false;
    };
    if to.available_bytes() < HEADER + frame.len() {
        queue.put_back();
        return false;
    }
    // virtio 1.2 5.1.6.4: nothing is offloaded, and the frame is in one chain.
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let written = to.write_all(&header).and_then(|()| to.write_all(frame));
    match written {
        Ok(()) => queue.complete(mem, head, HEADER + frame.len()),
        Err(error) => queue.fail(format_args!("a receive buffer cannot be written: {error}")),
    }
    queue.usable()
}

/// The frame of a chain, if it is one that the device can send.
fn take<'b>(from: &mut Reader<'_>, buffer: &'b mut [u8], most: usize) -> Result<&'b [u8], String> {
    let bytes = from.available_bytes();
    let len = bytes.checked_sub(HEADER).filter(|len| (MIN_FRAME..=most).contains(len));
    let frame = len.and_then(|len| buffer.get_mut(..len));
    let frame = frame.ok_or_else(|| {
        format!("has {bytes} bytes: expected {HEADER} of its header and {MIN_FRAME} to {most} of its own")
    })?;
    let mut header = [0; HEADER];
    let read = from.read_exact(&mut header).and_then(|()| from.read_exact(frame));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    let [flags, gso, ..] = header;
    // virtio 1.2 5.1.6.2: without the features there is no checksum to fill in and nothing to cut up.
    if flags != 0 || u32::from(gso) != VIRTIO_NET_HDR_GSO_NONE {
        return Err(format!(
            "asks for flags {flags:#x} and segmentation {gso:#x}, which were not agreed on"
        ));
    }
    Ok(frame)
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MTU
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// virtio 1.2 5.1.4: mac, status, max_virtqueue_pairs, mtu.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = if lock(&self.state).carrier {
            VIRTIO_NET_S_LINK_UP
        } else {
            0
        };
        let status = u16::try_from(status).unwrap_or(0);
        let words = [status, 1, self.plan.mtu].map(u16::to_le_bytes);
        let space = [&self.plan.mac.0[..], words.as_flattened()].concat();
        copy_config(&space, offset, data);
    }

    fn config_generation(&self) -> u32 {
        lock(&self.state).generation
    }

    fn activate(&self, activation: Activation) {
        lock(&self.state).active = activation.pair();
    }

    fn reset(&self) {
        lock(&self.state).active = None;
    }

    fn process_queue(&self, index: u16) -> Progress {
        let work = |state: &mut State, mem: &Memory| match index {
            RECEIVE => state.receive(mem),
            TRANSMIT => state.transmit(mem),
            _ => Progress::Done,
        };
        self.with(work).unwrap_or(Progress::Done)
    }
}
