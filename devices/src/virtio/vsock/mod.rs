//! Socket device (virtio 1.2 section 5.10): streams between programs of the guest and programs of the host.
//!
//! ```text
//! transmit chain --Header, data--> Connection --Stream::write--> host
//! host --Stream::read, as far as guest and chain have room--> receive chain
//! ```
//!
//! Streams never wait. What a slow program of the host does not take is held up to [`ROOM`] for each connection, then the guest
//! waits; what a slow guest does not take stays in the host's kernel. Connections are bounded, and so are the answers that wait
//! for a receive buffer: a driver that gives none is not listened to.
//!
//! The event queue stays empty: connections never outlive what both ends know of them.

mod chain;
pub mod config;
mod connection;
mod packet;
#[cfg(test)]
mod tests;

pub use connection::ROOM;

use super::{Activation, Memory, Occasional, Pair, Progress, VirtioDevice, deferred::copy_config, lock, queue::Next};
use chain::{deliver, room, take};
use connection::{Connection, Step};
use packet::{Header, STREAM, op};
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Mutex,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use vm_memory::GuestAddressSpace;

/// The host's address.
pub const HOST: u64 = 2;
/// Most connections.
pub const MAX_CONNECTIONS: usize = 256;
/// Most resets that wait for a receive buffer.
const MAX_RESETS: usize = 256;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Packets moved in one direction in one turn of the machine's loop.
const PER_TURN: u16 = 64;
/// Most bytes of data in a packet, as Linux has it.
const MAX_DATA: usize = 64 << 10;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// The first port that connections of the host come from, and how many there are.
const HOST_PORTS: u32 = 1 << 30;
/// No port.
const ANY_PORT: u32 = u32::MAX;

/// A program of the host at its end of a stream. Called under the device's lock: must not wait, and must not call the device.
pub trait Stream: Send {
    /// Reads what is there; 0 when the program has said all, an error of kind `WouldBlock` when nothing is.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes as much as there is room for; an error of kind `WouldBlock` when there is none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Nothing more will be written.
    fn finish(&mut self);
}

/// Programs of the host that the guest asks for. Called under the device's lock, as streams are.
pub trait Peers: Send {
    /// A stream to whoever listens at the host's port of this key; none: nobody does. [`Vsock::ready`] is to be called with the key
    /// whenever the stream may be read or written again.
    fn connect(&mut self, key: Key) -> Option<Box<dyn Stream>>;
}

/// A connection, by its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The host's; never `u32::MAX`.
    pub host: u32,
    /// The guest's.
    pub guest: u32,
}

impl Key {
    /// As one word.
    pub fn word(self) -> u64 {
        u64::from(self.host) << 32 | u64::from(self.guest)
    }

    /// From its word.
    pub fn of(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Self {
            host: u32::from_le_bytes([e, f, g, h]),
            guest: u32::from_le_bytes([a, b, c, d]),
        }
    }
}

/// What the device is doing and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VsockStatus {
    /// Whether a driver has it.
    pub driver: bool,
    /// Connections.
    pub connections: usize,
    /// Bytes to the guest.
    pub received: u64,
    /// Bytes of the guest.
    pub sent: u64,
    /// Connections that were refused or broken off.
    pub resets: u64,
    /// Packets of the guest that were none.
    pub malformed: u64,
}

/// The device.
pub struct Vsock {
    cid: u32,
    state: Mutex<State>,
}

struct State {
    cid: u64,
    peers: Box<dyn Peers>,
    connections: HashMap<Key, Connection>,
    /// Those that have something for the guest.
    queue: VecDeque<Key>,
    /// Those that the guest is to be told are none.
    resets: VecDeque<Key>,
    next_port: u32,
    status: VsockStatus,
    complaints: Occasional,
    buffer: Vec<u8>,
    active: Option<Pair>,
}

impl Vsock {
    /// A device of a guest with this address.
    pub fn new(cid: u32, peers: Box<dyn Peers>) -> Self {
        Self {
            cid,
            state: Mutex::new(State {
                cid: cid.into(),
                peers,
                connections: HashMap::new(),
                queue: VecDeque::new(),
                resets: VecDeque::new(),
                next_port: HOST_PORTS,
                status: VsockStatus::default(),
                complaints: Occasional::default(),
                buffer: vec![0; MAX_DATA],
                active: None,
            }),
        }
    }

    /// The guest's address.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// What the device is doing.
    pub fn status(&self) -> VsockStatus {
        let state = lock(&self.state);
        VsockStatus {
            driver: state.active.is_some(),
            connections: state.connections.len(),
            ..state.status
        }
    }

    /// A program of the host wants this port of the guest: `stream` makes its stream for the connection's key. It hears `OK` and
    /// the key's port when the guest agrees, and the stream's end when not. False: there is no driver, or no room for more.
    pub fn connect(&self, port: u32, stream: impl FnOnce(Key) -> Option<Box<dyn Stream>>) -> bool {
        let mut done = false;
        let _ = self.with(|state, mem| {
            if let Some(key) = state.free_key(port)
                && let Some(stream) = stream(key)
            {
                let greeting = format!("OK {}\n", key.host);
                state.connections.insert(key, Connection::ask(stream, &greeting));
                state.enqueue(key);
                done = true;
            }
            state.pump(mem)
        });
        done
    }

    /// A stream can be read or written; `gone`: its program is there no more. On [`Progress::More`], call [`Self::go_on`] after
    /// others had their turn.
    pub fn ready(&self, key: Key, gone: bool) -> Progress {
        self.with(|state, mem| {
            if let Some(connection) = state.connections.get_mut(&key) {
                connection.ready(gone);
                state.enqueue(key);
            }
            state.pump(mem)
        })
    }

    /// Goes on with what there was no time for.
    pub fn go_on(&self) -> Progress {
        self.with(|state, mem| {
            let received = state.pump(mem);
            let sent = state.transmit(mem);
            more(received, sent)
        })
    }

    /// Works on an active device, then interrupts the driver if something was done for it.
    fn with(&self, act: impl FnOnce(&mut State, &Memory) -> Progress) -> Progress {
        let mut state = lock(&self.state);
        let Some(memory) = state.active.as_ref().map(|active| active.memory.memory()) else {
            return Progress::Done;
        };
        let progress = act(&mut state, &memory);
        let raise = state.active.as_mut().and_then(|active| active.settle(&memory));
        drop(state);
        if let Some(interrupt) = raise {
            interrupt.pulse();
        }
        progress
    }
}

fn more(one: Progress, other: Progress) -> Progress {
    match (one, other) {
        (Progress::Done, Progress::Done) => Progress::Done,
        _ => Progress::More,
    }
}

impl State {
    /// A key of a port of the host that no connection has.
    fn free_key(&mut self, guest: u32) -> Option<Key> {
        if self.connections.len() >= MAX_CONNECTIONS || guest == ANY_PORT {
            return None;
        }
        for _ in 0..=MAX_CONNECTIONS {
            let host = HOST_PORTS | self.next_port;
            self.next_port = self.next_port.wrapping_add(1) & (HOST_PORTS - 1);
            let key = Key { host, guest };
            if !self.connections.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(&key)
            && connection.wants()
            && !connection.queued
        {
            connection.queued = true;
            self.queue.push_back(key);
        }
    }

    /// Moves packets into the driver's buffers while there are both.
    fn pump(&mut self, mem: &Memory) -> Progress {
        for _ in 0..PER_TURN {
            if self.queue.is_empty() && self.resets.is_empty() {
                return Progress::Done;
            }
            let Some(Pair { receive: queue, .. }) = &mut self.active else {
                return Progress::Done;
            };
            // First a buffer: what is off a stream cannot go back.
            if !queue.has_next(mem) && !queue.listen(mem) {
                return Progress::Done;
            }
            queue.quiet(mem);
            let Some(room) = room(queue, mem) else {
                return Progress::Done;
            };
            let Some((key, mut header)) = self.packet(room) else {
                continue;
            };
            header.from_cid = HOST;
            header.to_cid = self.cid;
            (header.from_port, header.to_port) = (key.host, key.guest);
            header.kind = STREAM;
            if header.op == op::RST {
                self.status.resets = self.status.resets.saturating_add(1);
            }
            let data = usize::try_from(header.len).ok().and_then(|len| self.buffer.get(..len));
            let Some(Pair { receive: queue, .. }) = &mut self.active else {
                return Progress::Done;
            };
            deliver(queue, mem, &header, data.unwrap_or_default());
            self.status.received = self.status.received.saturating_add(header.len.into());
        }
        Progress::More
    }

    /// The next packet for the guest, with its data in the buffer, for a chain with so many bytes behind the header.
    fn packet(&mut self, room: usize) -> Option<(Key, Header)> {
        if let Some(key) = self.resets.pop_front() {
            let header = Header {
                op: op::RST,
                ..Header::default()
            };
            return Some((key, header));
        }
        let key = self.queue.pop_front()?;
        let connection = self.connections.get_mut(&key)?;
        connection.queued = false;
        let room = room.min(self.buffer.len());
        let (header, over) = connection.next(self.buffer.get_mut(..room)?)?;
        match over {
            true => drop(self.connections.remove(&key)),
            // Behind the others.
            false => self.enqueue(key),
        }
        Some((key, header))
    }

    /// Takes the driver's packets.
    fn transmit(&mut self, mem: &Memory) -> Progress {
        for _ in 0..PER_TURN {
            if self.resets.len() >= MAX_RESETS {
                // The next receive buffer goes on from here.
                return Progress::Done;
            }
            let Some(Pair { transmit: queue, .. }) = &mut self.active else {
                return Progress::Done;
            };
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            let taken = match queue.bad_line(&chain) {
                Some(line) => Err(format!("has a memory error at {line}")),
                None => match queue.reader(mem, chain) {
                    Some(mut from) => take(&mut from, &mut self.buffer),
                    None => return Progress::Done,
                },
            };
            queue.complete(mem, head, 0);
            match taken {
                Ok(header) if header.from_cid == self.cid && header.to_cid == HOST => self.act(&header),
                Ok(header) => self.complain(&format!("is from {} to {}", header.from_cid, header.to_cid)),
                Err(why) => self.complain(&why),
            }
        }
        Progress::More
    }

    fn complain(&mut self, why: &str) {
        self.status.malformed = self.status.malformed.saturating_add(1);
        if let Some(count) = self.complaints.hit() {
            tracing::warn!(count, "a packet of a virtio socket driver {why}");
        }
    }

    /// Does what a packet asks for. Its data is in the buffer.
    fn act(&mut self, header: &Header) {
        let key = Key {
            host: header.to_port,
            guest: header.from_port,
        };
        let data = usize::try_from(header.len).ok().and_then(|len| self.buffer.get(..len));
        let data = data.unwrap_or_default();
        if let Some(connection) = self.connections.get_mut(&key)
            && header.kind == STREAM
        {
            if header.op == op::RW {
                self.status.sent = self.status.sent.saturating_add(header.len.into());
            }
            match connection.take(header, data) {
                Step::Goes => self.enqueue(key),
                Step::Over => drop(self.connections.remove(&key)),
            }
            return;
        }
        let wanted = header.kind == STREAM
            && header.op == op::REQUEST
            && self.connections.len() < MAX_CONNECTIONS
            && key.host != ANY_PORT;
        match wanted.then(|| self.peers.connect(key)).flatten() {
            Some(stream) => {
                self.connections.insert(key, Connection::answer(stream, header));
                self.enqueue(key);
            }
            // A reset of what there is not is not answered: two that do would never end.
            None if header.op != op::RST => self.resets.push_back(key),
            None => {}
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// None: streams are what there is without any (virtio 1.2 5.10.3).
    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    /// virtio 1.2 5.10.4: the guest's address.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&u64::from(self.cid).to_le_bytes(), offset, data);
    }

    fn config_generation(&self) -> u32 {
        0
    }

    fn activate(&self, activation: Activation) {
        lock(&self.state).active = activation.pair();
    }

    /// Programs of the host see the end of their streams.
    fn reset(&self) {
        let mut state = lock(&self.state);
        state.active = None;
        state.connections.clear();
        state.queue.clear();
        state.resets.clear();
    }

    fn process_queue(&self, index: u16) -> Progress {
        self.with(|state, mem| match index {
            // A receive buffer is also room for answers that packets of the driver wait for.
            RECEIVE | TRANSMIT => {
                let sent = state.transmit(mem);
                more(sent, state.pump(mem))
            }
            _ => Progress::Done,
        })
    }
}
