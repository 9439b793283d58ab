//! One stream between a program of the guest and one of the host, from the guest's packets to the host's bytes and back.
//!
//! ```text
//! (asked: the host wants a port of the guest) --RESPONSE--> (open) --both ends have said all, or RST--> gone
//!                      (the guest wants one of the host's)----^
//! ```
//!
//! Neither side is ahead of the other by more than it has said it has room for: [`ROOM`] towards the host, the guest's own
//! number towards the guest.

use super::{
    Stream,
    packet::{Header, NO_RECEIVE, NO_SEND, op},
};
use std::{collections::VecDeque, io};

/// Bytes of the guest that the host's program need not have taken yet.
pub const ROOM: u32 = 128 << 10;
const BOTH: u32 = NO_RECEIVE | NO_SEND;

/// What a packet to the guest may be, beside data, in the order in which they go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Due {
    request: bool,
    response: bool,
    credit: bool,
    ask: bool,
    shutdown: bool,
    reset: bool,
}

/// A stream.
pub struct Connection {
    stream: Box<dyn Stream>,
    due: Due,
    /// The guest has agreed, or asked.
    open: bool,
    /// For the host, before everything that the guest says.
    greeting: VecDeque<u8>,
    /// For the host: what it has not taken.
    pending: VecDeque<u8>,
    /// Bytes that the guest has sent, that were passed on, and that it was told of; all wrap.
    received: u32,
    passed: u32,
    told: u32,
    /// The guest's room, what it has passed on, and what was sent to it.
    room: u32,
    guest_passed: u32,
    sent: u32,
    /// The host may have bytes, or room for some.
    readable: bool,
    writable: bool,
    /// What either end has said that it will not do any more: [`NO_RECEIVE`], [`NO_SEND`].
    host: u32,
    guest: u32,
    /// What the guest had passed on when it was last asked for room.
    asked_at: Option<u32>,
    /// The host has been told that the guest has said all.
    finished: bool,
    /// In the queue of those that have something for the guest.
    pub queued: bool,
}

/// What a connection has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on.
    Goes,
    /// It is over, and the guest knows.
    Over,
}

impl Connection {
    /// A program of the host wants a port of the guest, and hears `greeting` when it has it.
    pub fn ask(stream: Box<dyn Stream>, greeting: &str) -> Self {
        let due = Due {
            request: true,
            ..Due::default()
        };
        Self {
            greeting: greeting.bytes().collect(),
            ..Self::new(stream, due, false)
        }
    }

    /// A program of the guest has asked, with this packet.
    pub fn answer(stream: Box<dyn Stream>, header: &Header) -> Self {
        let due = Due {
            response: true,
            ..Due::default()
        };
        let mut connection = Self::new(stream, due, true);
        connection.credit(header);
        connection
    }

    fn new(stream: Box<dyn Stream>, due: Due, open: bool) -> Self {
        Self {
            stream,
            due,
            open,
            greeting: VecDeque::new(),
            pending: VecDeque::new(),
            received: 0,
            passed: 0,
            told: 0,
            room: 0,
            guest_passed: 0,
            sent: 0,
            readable: true,
            writable: true,
            host: 0,
            guest: 0,
            asked_at: None,
            finished: false,
            queued: false,
        }
    }

    /// The host's end can be read, or written, or is gone altogether.
    pub fn ready(&mut self, gone: bool) {
        (self.readable, self.writable) = (true, true);
        if gone && self.host & NO_RECEIVE == 0 && self.open {
            self.host |= NO_RECEIVE;
            self.due.shutdown = true;
        }
        self.flush();
    }

    /// A packet of the guest for this connection, with its data.
    pub fn take(&mut self, header: &Header, data: &[u8]) -> Step {
        if self.due.reset && header.op != op::RST {
            return Step::Goes;
        }
        self.credit(header);
        match header.op {
            op::RESPONSE if !self.open && !self.due.request => self.open = true,
            // Linux has closed and waited some seconds; what it said before is the host's to take still.
            op::RST if self.open && self.guest == BOTH && !self.pending.is_empty() => {}
            op::RST => {
                self.flush();
                return Step::Over;
            }
            op::RW if self.open && self.guest & NO_SEND == 0 => {
                let ahead = self.received.wrapping_sub(self.passed) as usize;
                if ahead.saturating_add(data.len()) > ROOM as usize {
                    // More than it was told there is room for.
                    self.break_off();
                    return Step::Goes;
                }
                let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.received = self.received.wrapping_add(len);
                self.pending.extend(data);
            }
            op::CREDIT_UPDATE if self.open => {}
            op::CREDIT_REQUEST if self.open => self.due.credit = true,
            op::SHUTDOWN if self.open => self.guest |= header.flags & BOTH,
            _ => self.break_off(),
        }
        self.flush();
        Step::Goes
    }

    fn credit(&mut self, header: &Header) {
        (self.room, self.guest_passed) = (header.room, header.passed);
    }

    /// Bytes that the guest has room for.
    fn free(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.guest_passed);
        self.room.saturating_sub(under_way)
    }

    /// Nothing goes on here but that the guest is told.
    fn break_off(&mut self) {
        self.due = Due {
            reset: true,
            ..Due::default()
        };
        self.open = false;
        self.pending.clear();
        self.greeting.clear();
        (self.readable, self.writable) = (false, false);
    }

    /// Passes on what the host takes.
    fn flush(&mut self) {
        if !self.open {
            return;
        }
        while self.writable && !(self.greeting.is_empty() && self.pending.is_empty()) {
            let greets = !self.greeting.is_empty();
            let bytes = if greets { &mut self.greeting } else { &mut self.pending };
            match self.stream.write(bytes.as_slices().0) {
                Ok(0) => self.writable = false,
                Ok(len) => {
                    let len = len.min(bytes.len());
                    bytes.drain(..len);
                    if !greets {
                        self.passed = self.passed.wrapping_add(u32::try_from(len).unwrap_or(0));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                // The host's program hears no more.
                Err(_) => return self.break_off(),
            }
        }
        // Before the guest thinks that half of the room is taken.
        let believed = self.received.wrapping_sub(self.told);
        if self.told != self.passed && believed > ROOM / 2 {
            self.due.credit = true;
        }
        if self.pending.is_empty() && self.greeting.is_empty() {
            if self.guest & NO_SEND != 0 && !self.finished {
                self.finished = true;
                self.stream.finish();
            }
            // virtio 1.2 5.10.6.6: a shutdown of both is answered by a reset, when all has been passed on.
            if self.guest == BOTH {
                self.break_off();
            }
        }
    }

    /// Whether something may be there for the guest.
    pub fn wants(&self) -> bool {
        self.due != Due::default() || self.can_read() && (self.free() > 0 || !self.asked())
    }

    fn can_read(&self) -> bool {
        self.open && self.readable && self.host & NO_SEND == 0 && self.guest & NO_RECEIVE == 0
    }

    /// Whether the guest knows that the host waits for room: it is asked once for each time that it has none.
    fn asked(&self) -> bool {
        self.asked_at == Some(self.guest_passed)
    }

    /// The next packet for the guest, with its data in `buffer`, and whether it is the last one; none when there is nothing.
    pub fn next(&mut self, buffer: &mut [u8]) -> Option<(Header, bool)> {
        let mut header = self.small().or_else(|| self.data(buffer)).or_else(|| self.small())?;
        let over = header.op == op::RST;
        header.room = ROOM;
        header.passed = self.passed;
        self.told = self.passed;
        self.due.credit = false;
        Some((header, over))
    }

    /// A packet without data.
    fn small(&mut self) -> Option<Header> {
        let due = &mut self.due;
        let (flag, op) = [
            (&mut due.reset, op::RST),
            (&mut due.request, op::REQUEST),
            (&mut due.response, op::RESPONSE),
            (&mut due.credit, op::CREDIT_UPDATE),
            (&mut due.ask, op::CREDIT_REQUEST),
        ]
        .into_iter()
        .find(|(flag, _)| **flag)
        .or_else(|| {
            // After the data that the host has said before.
            let said = !(self.readable && self.host & NO_SEND == 0);
            (due.shutdown && said).then_some((&mut due.shutdown, op::SHUTDOWN))
        })?;
        *flag = false;
        let flags = if op == op::SHUTDOWN { self.host } else { 0 };
        Some(Header {
            op,
            flags,
            ..Header::default()
        })
    }

    /// A packet with what the host has to say; there may be none after all.
    fn data(&mut self, buffer: &mut [u8]) -> Option<Header> {
        if !self.can_read() || buffer.is_empty() {
            return None;
        }
        let free = usize::try_from(self.free()).unwrap_or(usize::MAX);
        if free == 0 {
            self.due.ask = !self.asked();
            self.asked_at = Some(self.guest_passed);
            return None;
        }
        let room = buffer.len().min(free);
        let buffer = buffer.get_mut(..room)?;
        let read = loop {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => {
                self.host |= NO_SEND;
                self.due.shutdown = true;
                None
            }
            Ok(len) => {
                let len = u32::try_from(len.min(room)).unwrap_or(0);
                self.sent = self.sent.wrapping_add(len);
                Some(Header {
                    op: op::RW,
                    len,
                    ..Header::default()
                })
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.break_off();
                None
            }
        }
    }
}

#[cfg(test)]
impl Connection {
    /// Bytes for the host that it has not taken.
    pub fn held(&self) -> usize {
        self.pending.len() + self.greeting.len()
    }
}
