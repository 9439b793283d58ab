//! A device of one queue whose requests take time: each is taken apart at once and answered later, from another thread.
//!
//! ```text
//! notification --> Requests::take --> Order --submit--> worker --Order::run--> Reply --> used ring, interrupt
//!                        \--> Reply at once
//! ```
//!
//! An order that was taken before a reset is never run after it, and a reset waits for the one that is running: the driver
//! may reuse its buffers, and the medium does not change under a driver that has started anew. What a hostile driver can
//! have under way is bounded by number (the queue's size) and by [`MAX_WEIGHT`].

use super::{
    Activation, Memory, Occasional, Progress, Reader, Single, VirtioDevice, lock,
    queue::{Chain, Next, Virtqueue},
};
use std::{
    sync::{Arc, Mutex, Weak},
    thread,
    time::Duration,
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryError};

/// Bytes that may be under way, beyond which nothing more is taken until something is answered.
pub const MAX_WEIGHT: usize = 16 << 20;

/// Milliseconds that a worker waits while what it reads is in doubt.
const DOUBT: u32 = 1000;

/// What a device makes of its requests.
pub trait Requests: Send + Sync + Sized + 'static {
    /// What a worker has to do.
    type Work: Send;

    /// Device type.
    const DEVICE_TYPE: u32;
    /// Size of the queue, with the queue in an array as the transport wants it.
    const QUEUE: &'static [u16];

    /// Feature bits.
    fn features(&self) -> u64;
    /// The configuration space, which never changes.
    fn config(&self) -> &[u8];
    /// The answer to a request that cannot be read, because of a memory error in it.
    fn unreadable(&self) -> Reply;
    /// Takes a request apart: what the driver wants read, and the bytes it has room for.
    fn take(&self, from: &mut Reader<'_>, room: u64) -> Taken<Self::Work>;
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<W> {
    /// To be done, with the bytes it holds or will hold.
    Work(W, usize),
    /// Answered.
    Now(Reply),
    /// No request: why the device needs a reset.
    Broken(String),
}

/// An answer: bytes for the beginning of the room, and perhaps one for its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// For the beginning.
    pub data: Vec<u8>,
    /// For the last byte.
    pub last: Option<u8>,
}

/// The device.
pub struct Deferred<R: Requests> {
    requests: R,
    submit: Box<dyn Fn(Order<R>) + Send + Sync>,
    state: Mutex<State>,
    /// Held while an order is run.
    running: Mutex<()>,
    late: Occasional,
    me: Weak<Self>,
}

#[derive(Default)]
struct State {
    /// Grows with each reset.
    epoch: u64,
    in_flight: usize,
    weight: usize,
    active: Option<Single>,
}

/// A request under way.
pub struct Order<R: Requests> {
    /// What is to be done.
    pub work: R::Work,
    device: Weak<Deferred<R>>,
    epoch: u64,
    weight: usize,
    room: Room,
}

/// The device-writable buffers of a chain.
struct Room {
    head: u16,
    buffers: Vec<(GuestAddress, u32)>,
}

impl Room {
    fn of(chain: &Chain<'_>) -> Self {
        let buffers = chain.clone().writable().map(|d| (d.addr(), d.len())).collect();
        Self {
            head: chain.head_index(),
            buffers,
        }
    }

    fn len(&self) -> u64 {
        self.buffers.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// Writes a reply; how many bytes of the room it used.
    fn fill(&self, mem: &Memory, reply: &Reply) -> Result<usize, GuestMemoryError> {
        let mut rest = &reply.data[..];
        for (at, len) in &self.buffers {
            let (now, later) = rest.split_at(rest.len().min(*len as usize));
            mem.write_slice(now, *at)?;
            rest = later;
        }
        let full = self.buffers.iter().rfind(|(_, len)| *len != 0);
        if let (Some(last), Some((at, len))) = (reply.last, full) {
            let at = at.0.checked_add(u64::from(*len) - 1);
            let at = at.ok_or(GuestMemoryError::GuestAddressOverflow)?;
            mem.write_obj(last, GuestAddress(at))?;
        }
        Ok(reply.data.len() + usize::from(reply.last.is_some()))
    }
}

impl<R: Requests> Deferred<R> {
    /// A device that gives its orders to `submit`, which must not wait.
    pub fn new(requests: R, submit: Box<dyn Fn(Order<R>) + Send + Sync>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            requests,
            submit,
            state: Mutex::default(),
            running: Mutex::default(),
            late: Occasional::default(),
            me: me.clone(),
        })
    }

    /// What the device is.
    pub fn requests(&self) -> &R {
        &self.requests
    }

    /// Whether a driver has it.
    pub fn is_active(&self) -> bool {
        lock(&self.state).active.is_some()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        lock(&self.state).in_flight
    }

    /// Changes the state under its lock with guest memory at hand, then does what follows outside of the lock.
    fn with(&self, change: impl FnOnce(&mut State, &Memory, &mut Vec<Order<R>>) -> Progress) -> Progress {
        let mut state = lock(&self.state);
        let Some(memory) = state.active.as_ref().map(|active| active.memory.memory()) else {
            return Progress::Done;
        };
        let mut orders = Vec::new();
        let progress = change(&mut state, &memory, &mut orders);
        let signal = |a: &mut Single| a.queue.take_signal(&memory).then(|| a.interrupt.clone());
        let raise = state.active.as_mut().and_then(signal);
        drop(state);
        orders.into_iter().for_each(&self.submit);
        if let Some(interrupt) = raise {
            interrupt.pulse();
        }
        progress
    }

    /// Takes requests while there are some and there is room for them.
    fn serve(&self, state: &mut State, mem: &Memory, orders: &mut Vec<Order<R>>) -> Progress {
        let State {
            epoch,
            in_flight,
            weight,
            active: Some(Single { queue, .. }),
        } = state
        else {
            return Progress::Done;
        };
        for _ in 0..queue.size() {
            if *in_flight >= usize::from(queue.size()) || *weight >= MAX_WEIGHT {
                // The next answer goes on from here.
                return Progress::Done;
            }
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let room = Room::of(&chain);
            if queue.bad_line(&chain).is_some() {
                answer(queue, mem, &room, &self.requests.unreadable());
                continue;
            }
            let Some(mut from) = queue.reader(mem, chain) else {
                return Progress::Done;
            };
            let taken = self.requests.take(&mut from, room.len());
            if queue.in_doubt() {
                queue.put_back();
                return Progress::More;
            }
            match taken {
                Taken::Work(work, heavy) => {
                    *in_flight += 1;
                    *weight += heavy;
                    orders.push(Order {
                        work,
                        device: self.me.clone(),
                        epoch: *epoch,
                        weight: heavy,
                        room,
                    });
                }
                Taken::Now(reply) => answer(queue, mem, &room, &reply),
                Taken::Broken(why) => {
                    queue.fail(why);
                    return Progress::Done;
                }
            }
        }
        Progress::More
    }

    fn in_doubt(&self) -> bool {
        let state = lock(&self.state);
        state.active.as_ref().is_some_and(|active| active.queue.in_doubt())
    }

    fn finish(&self, epoch: u64, weight: usize, room: &Room, reply: &Reply) {
        let mut progress = self.with(|state, mem, orders| {
            if state.epoch != epoch {
                return Progress::Done;
            }
            state.in_flight -= 1;
            state.weight -= weight;
            if let Some(active) = &mut state.active {
                answer(&mut active.queue, mem, room, reply);
            }
            self.serve(state, mem, orders)
        });
        // Nobody else would go on: the driver was asked to be quiet.
        let mut patience = DOUBT;
        while progress == Progress::More && patience > 0 {
            if self.in_doubt() {
                patience -= 1;
                thread::sleep(Duration::from_millis(1));
            }
            progress = self.with(|state, mem, orders| self.serve(state, mem, orders));
        }
    }
}

fn answer(queue: &mut Virtqueue, mem: &Memory, room: &Room, reply: &Reply) {
    if !queue.usable() {
        return;
    }
    match room.fill(mem, reply) {
        Ok(used) => queue.complete(mem, room.head, used),
        Err(error) => queue.fail(format_args!("an answer cannot be written: {error}")),
    }
}

impl<R: Requests> Order<R> {
    /// Does the work, unless the device has been reset since, and answers.
    pub fn run(self, act: impl FnOnce(R::Work) -> Reply) {
        let Some(device) = self.device.upgrade() else { return };
        let running = lock(&device.running);
        if lock(&device.state).epoch != self.epoch {
            if let Some(count) = device.late.hit() {
                tracing::debug!(count, "requests were dropped by a reset of their device");
            }
            return;
        }
        let reply = act(self.work);
        drop(running);
        device.finish(self.epoch, self.weight, &self.room, &reply);
    }
}

impl<R: Requests> VirtioDevice for Deferred<R> {
    fn device_type(&self) -> u32 {
        R::DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        self.requests.features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        R::QUEUE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(self.requests.config(), offset, data);
    }

    fn config_generation(&self) -> u32 {
        0
    }

    fn activate(&self, activation: Activation) {
        lock(&self.state).active = activation.single();
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        *state = State {
            epoch: state.epoch + 1,
            ..State::default()
        };
        drop(state);
        // What runs now began before the new epoch: it is waited for.
        drop(lock(&self.running));
    }

    fn process_queue(&self, _index: u16) -> Progress {
        self.with(|state, mem, orders| self.serve(state, mem, orders))
    }
}

/// The part of a configuration space that an access wants; bytes beyond it stay as they are.
pub(super) fn copy_config(space: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|at| space.get(at..));
    for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
        *to = *from;
    }
}
