//! One port: bytes between the guest's buffers and the host, nothing held in between.
//!
//! Input goes straight into receive buffers; what does not fit is refused and the sink is told when there is room again.
//! Output goes straight from transmit buffers to the sink; when the sink takes less than it is given, the chain goes back
//! to the queue with a note of how far it got, until [`Port::resume`].

use super::{PortConfig, PortKind, PortSink, control::Announcement};
use crate::virtio::{
    Memory, Progress, Reader,
    queue::{Next, Virtqueue},
};
use std::io::{Read, Write};

/// Bytes given to the sink at once.
const PIECE: usize = 4096;
/// Most bytes given to the sink in one turn of the machine's loop.
const PER_TURN: usize = 256 << 10;

pub(super) struct Port {
    // What it is.
    pub kind: PortKind,
    sink: Box<dyn PortSink>,
    // The host's side.
    pub host_open: bool,
    starved: bool,
    // The guest's side, gone with a reset.
    pub announcement: Announcement,
    guest_open: bool,
    /// Bytes of the transmit queue's next chain that the sink has.
    sent: usize,
    blocked: bool,
}

impl Port {
    pub(super) fn new(config: PortConfig) -> Self {
        let PortConfig { kind, sink, open } = config;
        Self {
            kind,
            sink,
            host_open: open,
            starved: false,
            announcement: Announcement::default(),
            guest_open: false,
            sent: 0,
            blocked: false,
        }
    }

    pub(super) fn is_console(&self) -> bool {
        matches!(self.kind, PortKind::Console)
    }

    /// The driver is gone.
    pub(super) fn reset(&mut self) {
        self.announcement = Announcement::default();
        self.sent = 0;
        self.blocked = false;
        self.set_guest_open(false);
    }

    pub(super) fn set_guest_open(&mut self, open: bool) {
        if self.guest_open != open {
            self.guest_open = open;
            self.sink.guest_open(open);
        }
    }

    /// The host's side opened or closed; output of the guest goes nowhere while it is closed.
    pub(super) fn set_host_open(&mut self, open: bool) {
        if self.host_open && !open {
            self.announcement.closed();
            // The rest of a chain belongs to the connection that saw its beginning.
            self.blocked = false;
        }
        self.host_open = open;
    }

    /// Puts host bytes into receive buffers; how many.
    pub(super) fn input(&mut self, queue: &mut Virtqueue, mem: &Memory, data: &[u8]) -> usize {
        let mut rest = data;
        let mut useless = 0;
        while !rest.is_empty() && self.wants_input(queue, mem) {
            let Some(chain) = queue.pop(mem) else { break };
            let head = chain.head_index();
            let Some(mut to) = queue.writer(mem, chain) else { break };
            let n = to.write(rest).unwrap_or(0);
            queue.complete(mem, head, n);
            rest = rest.get(n..).unwrap_or_default();
            useless += u16::from(n == 0);
            if useless > queue.size() {
                queue.fail("receive buffers have no room in them");
            }
        }
        data.len() - rest.len()
    }

    /// Whether [`Self::input`] would take a byte; if not, [`Self::offer`] tells the sink later.
    pub(super) fn wants_input(&mut self, queue: &mut Virtqueue, mem: &Memory) -> bool {
        self.starved = !(self.guest_open && (queue.has_next(mem) || queue.listen(mem)));
        if !self.starved {
            queue.quiet(mem);
        }
        !self.starved
    }

    /// Input was refused, for whatever reason: [`Self::offer`] tells the sink later.
    pub(super) fn starve(&mut self) {
        self.starved = true;
    }

    /// The guest may have made room: tells the sink if it waits for some.
    pub(super) fn offer(&mut self, queue: &mut Virtqueue, mem: &Memory) {
        if self.starved && self.wants_input(queue, mem) {
            self.sink.input_room();
        }
    }

    /// The sink has room again.
    pub(super) fn resume(&mut self) {
        self.blocked = false;
    }

    /// Gives output to the sink until there is none, the sink is full, or the turn is over.
    pub(super) fn output(&mut self, queue: &mut Virtqueue, mem: &Memory) -> Progress {
        let mut left = PER_TURN;
        for _ in 0..queue.size() {
            if self.blocked {
                return Progress::Done;
            }
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            // What cannot be read is lost: there is no status in which it could be told.
            if self.host_open && queue.bad_line(&chain).is_none() {
                let Some(mut from) = queue.reader(mem, chain) else {
                    return Progress::Done;
                };
                if !self.give(queue, &mut from, &mut left) {
                    queue.put_back();
                    match self.blocked {
                        true => return Progress::Done,
                        false => break,
                    }
                }
            }
            self.sent = 0;
            queue.complete(mem, head, 0);
        }
        Progress::More
    }

    /// Gives the part of a chain that the sink does not have; whether that was all of it.
    fn give(&mut self, queue: &Virtqueue, from: &mut Reader<'_>, left: &mut usize) -> bool {
        // A guest that shrank the chain behind our back has nothing more to say in it.
        let Ok(mut from) = from.split_at(self.sent) else {
            return true;
        };
        let mut piece = [0; PIECE];
        loop {
            // Reading from checked memory into a slice has no way to fail.
            let n = from.read(&mut piece).unwrap_or(0);
            if queue.in_doubt() {
                return false;
            }
            if n == 0 {
                return true;
            }
            if *left == 0 {
                return false;
            }
            let bytes = &piece[..n.min(*left)];
            let taken = self.sink.write(bytes).min(bytes.len());
            self.sent = self.sent.saturating_add(taken);
            *left -= taken;
            self.blocked = taken < bytes.len();
            if self.blocked {
                return false;
            }
            if bytes.len() < n {
                return false;
            }
        }
    }
}
