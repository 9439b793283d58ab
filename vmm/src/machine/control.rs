//! Clients of the control socket: bytes in and out, and nothing of what they mean.
//!
//! Everything here is bounded and nothing waits: at most [`MAX_CLIENTS`] clients, each with one line of input and
//! [`OUTPUT_HIGH`] bytes of output (and the reply that exceeded it) in memory. A client that does not read its replies is
//! not read from either, and is let go of when it has taken none of them for [`STALL`].

use super::socket::{Socket, SocketError, is_own_user};
use crate::control::{
    ControlError, ErrorKind, Response,
    wire::{self, Call, MAX_LINE},
};
use event_manager::EventSet;
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

/// Clients at a time; one more is told so and turned away.
pub const MAX_CLIENTS: usize = 16;
/// With so much output waiting, a client's requests wait too.
const OUTPUT_HIGH: usize = 1 << 20;
/// How long a client may leave output untouched.
const STALL: Duration = Duration::from_secs(30);
/// Bytes read from a client at once.
const CHUNK: usize = 64 << 10;

/// Who asked. Stays true when another client has come to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId {
    slot: usize,
    serial: u64,
}

/// A line of a client, taken apart as far as it could be.
pub type Parsed = Result<Call, (Value, ControlError)>;

/// The socket and its clients.
pub struct Control {
    socket: Socket,
    clients: [Option<Client>; MAX_CLIENTS],
    serial: u64,
}

struct Client {
    stream: UnixStream,
    serial: u64,
    input: Vec<u8>,
    /// Bytes of the input that are known to hold no line's end.
    searched: usize,
    output: Vec<u8>,
    /// When output was last taken, or began to wait.
    moved: Instant,
    /// Requests whose reply is still to come.
    waiting: usize,
    /// No more input will come.
    ended: bool,
    /// Nobody is there to write to.
    broken: bool,
    /// What epoll watches for, once it watches.
    watched: Option<EventSet>,
}

/// A change of what epoll has to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// A new descriptor.
    Add(RawFd, EventSet),
    /// Other events of a known one.
    Modify(RawFd, EventSet),
    /// Not any longer; it closes after this.
    Remove(RawFd),
}

impl Control {
    /// Listens on `path`.
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        Ok(Self {
            socket: Socket::listen("control", path)?,
            clients: Default::default(),
            serial: 0,
        })
    }

    /// Where clients knock.
    pub fn listener_fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Takes one waiting client, or tells it why not.
    pub fn accept(&mut self) {
        let Some(mut stream) = self.socket.accept() else { return };
        let free = self.clients.iter_mut().find(|c| c.is_none());
        let refusal = match free {
            _ if !is_own_user(&stream) => ControlError::new(
                ErrorKind::NotPermitted,
                "the machine belongs to another user; only that user and root may control it",
            ),
            None => ControlError::new(ErrorKind::Busy, format!("{MAX_CLIENTS} clients are connected already"))
                .hint("close one of them, or try again later"),
            Some(place) => {
                self.serial += 1;
                *place = Some(Client::new(stream, self.serial));
                return;
            }
        };
        // A new socket has room for a line; whoever does not read it has missed nothing else.
        let _ = stream.write(&wire::reply(&Value::Null, &Err(refusal)));
    }

    /// A client's descriptor has something to say.
    pub fn ready(&mut self, slot: usize, events: EventSet) {
        let Some(Some(client)) = self.clients.get_mut(slot) else {
            return;
        };
        let gone = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        if gone || events.contains(EventSet::IN) {
            client.read();
        }
        if events.contains(EventSet::OUT) {
            client.flush();
        }
        // Both directions are closed: what was sent before is still acted on, but nobody waits for replies.
        client.broken |= gone && client.ended;
    }

    /// The next request of a client, while it takes its replies.
    pub fn next(&mut self, slot: usize) -> Option<(ClientId, Parsed)> {
        let client = self.clients.get_mut(slot)?.as_mut()?;
        if client.output.len() >= OUTPUT_HIGH {
            return None;
        }
        let id = ClientId {
            slot,
            serial: client.serial,
        };
        client.next_line().map(|parsed| (id, parsed))
    }

    /// Announces that the reply to a request comes later.
    pub fn expect(&mut self, who: ClientId) {
        if let Some(client) = self.find(who) {
            client.waiting += 1;
        }
    }

    /// The reply that was announced.
    pub fn reply_later(&mut self, who: ClientId, id: &Value, result: &Result<Response, ControlError>) {
        if let Some(client) = self.find(who) {
            client.waiting = client.waiting.saturating_sub(1);
        }
        self.reply(who, id, result);
    }

    /// Queues a reply and sends what the client takes at once.
    pub fn reply(&mut self, who: ClientId, id: &Value, result: &Result<Response, ControlError>) {
        let Some(client) = self.find(who) else { return };
        client.push(&wire::reply(id, result));
        client.flush();
    }

    fn find(&mut self, who: ClientId) -> Option<&mut Client> {
        let client = self.clients.get_mut(who.slot)?.as_mut()?;
        (client.serial == who.serial).then_some(client)
    }

    /// Lets go of clients that are through or stuck, and brings what is watched in line with what each of them can do.
    pub fn refresh(&mut self, mut watch: impl FnMut(usize, Watch) -> bool) {
        for (slot, place) in self.clients.iter_mut().enumerate() {
            let Some(client) = place else { continue };
            let fd = client.stream.as_raw_fd();
            if client.is_through() {
                if client.watched.is_some() {
                    watch(slot, Watch::Remove(fd));
                }
                *place = None;
                continue;
            }
            let wanted = client.wanted();
            let change = match client.watched {
                Some(now) if now == wanted => continue,
                Some(_) => Watch::Modify(fd, wanted),
                None => Watch::Add(fd, wanted),
            };
            if watch(slot, change) {
                client.watched = Some(wanted);
            } else {
                client.broken = true;
            }
        }
    }
}

impl Client {
    fn new(stream: UnixStream, serial: u64) -> Self {
        Self {
            stream,
            serial,
            input: vec![],
            searched: 0,
            output: vec![],
            moved: Instant::now(),
            waiting: 0,
            ended: false,
            broken: false,
            watched: None,
        }
    }

    /// Takes one chunk, so that no client holds the loop.
    fn read(&mut self) {
        if self.ended || self.input.len() > MAX_LINE {
            return;
        }
        let mut chunk = vec![0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                self.ended = true;
                // A last line may lack its end.
                if !self.input.is_empty() {
                    self.input.push(b'\n');
                }
            }
            Ok(n) => self.input.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => {
                self.ended = true;
                self.broken = true;
            }
        }
    }

    /// Length of the first line, when all of it is there.
    fn line_len(&mut self) -> Option<usize> {
        let rest = self.input.get(self.searched..).unwrap_or_default();
        match rest.iter().position(|b| *b == b'\n') {
            Some(at) => {
                self.searched += at;
                Some(self.searched)
            }
            None => {
                self.searched = self.input.len();
                None
            }
        }
    }

    fn next_line(&mut self) -> Option<Parsed> {
        // Blank lines are nothing, and cost nothing however many there are.
        let blank = self.input.iter().take_while(|b| b.is_ascii_whitespace()).count();
        if blank > 0 {
            self.input.drain(..blank);
            self.searched = 0;
        }
        let Some(len) = self.line_len().filter(|len| *len <= MAX_LINE) else {
            if self.input.len() <= MAX_LINE {
                return None;
            }
            // There is no telling where the next request would begin.
            self.input = vec![];
            self.searched = 0;
            self.ended = true;
            let error = ControlError::new(ErrorKind::TooLong, format!("a line is longer than {MAX_LINE} bytes"));
            return Some(Err((Value::Null, error.hint("the connection ends here"))));
        };
        let parsed = wire::parse(self.input.get(..len).unwrap_or_default());
        self.input.drain(..=len);
        self.searched = 0;
        Some(parsed)
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.output.is_empty() {
            self.moved = Instant::now();
        }
        self.output.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        let mut done = 0;
        while let Some(rest) = self.output.get(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(n) if n > 0 => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.broken = true;
                    done = self.output.len();
                }
            }
        }
        if done > 0 {
            self.output.drain(..done);
            self.moved = Instant::now();
        }
    }

    fn has_line(&mut self) -> bool {
        self.line_len().is_some()
    }

    fn is_through(&mut self) -> bool {
        let stuck = !self.output.is_empty() && self.moved.elapsed() > STALL;
        let told = self.ended && self.output.is_empty() && self.waiting == 0 && !self.has_line();
        self.broken && !self.has_line() || stuck || told
    }

    fn wanted(&mut self) -> EventSet {
        let mut wanted = EventSet::empty();
        let line = self.has_line();
        if !self.ended && !line && self.output.len() < OUTPUT_HIGH {
            wanted |= EventSet::IN;
        }
        // A line that waits for its turn gets it as soon as its reply could be sent.
        if line || !self.output.is_empty() {
            wanted |= EventSet::OUT;
        }
        wanted
    }
}
