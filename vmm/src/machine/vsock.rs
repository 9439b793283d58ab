//! The host's end of the socket device, in the manner of Firecracker's: one unix socket for programs that want a port of the
//! guest, and one for each port of the host that the guest may want.
//!
//! ```text
//! client --connect PATH--> (waits) --"CONNECT port\n"--> (asked) --the guest agrees: "OK port\n"--> (a stream)
//! guest --port P--> connect PATH_P --> (a stream)
//! ```
//! All descriptors are behind one epoll descriptor, which the machine's loop watches.

use super::socket::{Socket, SocketError, is_own_user};
use crate::config::VsockConfig;
use devices::virtio::{
    Progress,
    vsock::{Key, Peers, Stream, Vsock},
};
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with},
    time::Timespec,
};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Clients that have not said yet what they want.
const MAX_WAITING: usize = 64;
/// Bytes of the longest thing that they can say.
const LONGEST: usize = 32;
/// Descriptors that are attended to at once.
const AT_ONCE: usize = 64;
/// Events of descriptors; those of streams are their keys, and those of clients that wait are keys of no port.
const BELL: u64 = u64::MAX;
const DOOR: u64 = u64::MAX - 1;
const WAITING: u64 = (u32::MAX as u64) << 32;
/// One event for each time that something has come, or gone.
const EDGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// No socket to listen on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Any other refusal of the host.
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
}

fn host(what: &'static str) -> impl FnOnce(Errno) -> VsockError {
    move |errno| VsockError::Host(what, errno.into())
}

/// The socket device of a running machine.
pub struct VsockPort {
    /// The device.
    pub device: Arc<Vsock>,
    /// Where programs of the host ask for ports of the guest.
    pub path: PathBuf,
    watch: Arc<OwnedFd>,
    bell: OwnedFd,
    door: Socket,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u32,
    clients: HashMap<u64, UnixStream>,
}

/// A program of the host.
struct Program(UnixStream);

impl Stream for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn finish(&mut self) {
        // One that is gone has heard all.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// Ports of the host.
struct Ports {
    path: PathBuf,
    watch: Arc<OwnedFd>,
}

impl Peers for Ports {
    fn connect(&mut self, key: Key) -> Option<Box<dyn Stream>> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{}", key.host));
        let stream = knock(Path::new(&path)).ok()?;
        epoll::add(&self.watch, &stream, EventData::new_u64(key.word()), EDGES).ok()?;
        Some(Box::new(Program(stream)))
    }
}

/// Connects, without waiting for one who is busy.
fn knock(path: &Path) -> rustix::io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// The device, and the socket that it listens on.
pub fn open(said: &VsockConfig) -> Result<VsockPort, VsockError> {
    let door = Socket::listen("vsock", &said.socket)?;
    let watch = epoll::create(CreateFlags::CLOEXEC).map_err(host("create an epoll descriptor"))?;
    let watch = Arc::new(watch);
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let bell = eventfd(0, flags).map_err(host("create an eventfd"))?;
    let add = |fd: &dyn AsFd, data| {
        let fd = fd.as_fd();
        epoll::add(&watch, fd, EventData::new_u64(data), EventFlags::IN).map_err(host("watch a descriptor"))
    };
    add(&bell, BELL)?;
    add(&door.as_fd(), DOOR)?;
    let ports = Ports {
        path: said.socket.clone(),
        watch: watch.clone(),
    };
    Ok(VsockPort {
        device: Arc::new(Vsock::new(said.cid, Box::new(ports))),
        path: said.socket.clone(),
        watch,
        bell,
        door,
        waiting: Mutex::default(),
    })
}

impl VsockPort {
    /// What the loop waits for.
    pub fn fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }

    /// Does what the descriptors ask for, a bounded piece of it.
    pub fn attend(&self) {
        let mut events = Vec::with_capacity(AT_ONCE);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.watch, spare_capacity(&mut events), Some(&now)).is_err() {
            return;
        }
        let mut more = false;
        for event in &events {
            // Copied out: the fields are not aligned.
            let (flags, data) = (event.flags, event.data);
            match data.u64() {
                BELL => {
                    let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                    more |= self.device.go_on() == Progress::More;
                }
                DOOR => self.admit(),
                waiting if waiting >= WAITING => {
                    let silent = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
                    self.hear(waiting, silent);
                }
                key => {
                    let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                    more |= self.device.ready(Key::of(key), gone) == Progress::More;
                }
            }
        }
        if more {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Lets in whoever stands at the door, as far as there is room.
    fn admit(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(client) = self.door.accept() {
            if waiting.clients.len() >= MAX_WAITING || !is_own_user(&client) {
                continue;
            }
            waiting.next = (waiting.next + 1) % (u32::MAX - 1);
            let data = WAITING | u64::from(waiting.next);
            if epoll::add(&self.watch, &client, EventData::new_u64(data), EDGES).is_ok() {
                waiting.clients.insert(data, client);
            }
        }
    }

    /// Hears what a client wants, who says no more if `silent`. What it says behind that is for the guest, and stays where it is.
    fn hear(&self, client: u64, silent: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut stream) = waiting.clients.remove(&client) else {
            return;
        };
        let mut said = Vec::with_capacity(LONGEST);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let heard = recv(&stream, spare_capacity(&mut said), flags);
        let end = said.iter().position(|byte| *byte == b'\n');
        match (heard, end) {
            (Err(Errno::AGAIN | Errno::INTR), _) => drop(waiting.clients.insert(client, stream)),
            (Ok((_, len)), None) if !silent && len < LONGEST => drop(waiting.clients.insert(client, stream)),
            (Ok(_), Some(end)) => {
                let line = said.get(..=end).unwrap_or_default();
                let read = stream.read_exact(&mut vec![0; line.len()]);
                if let (Ok(()), Some(port)) = (read, wanted_port(line)) {
                    self.connect(stream, port);
                }
            }
            // Gone, or no client of this socket.
            _ => {}
        }
    }

    /// Asks the guest. Whoever it cannot be asked for sees the end of the stream.
    fn connect(&self, stream: UnixStream, port: u32) {
        self.device.connect(port, |key| {
            let data = EventData::new_u64(key.word());
            epoll::modify(&self.watch, &stream, data, EDGES).ok()?;
            Some(Box::new(Program(stream)))
        });
    }
}

/// The port of `CONNECT port`, with its newline.
fn wanted_port(line: &[u8]) -> Option<u32> {
    let text = str::from_utf8(line).ok()?;
    let digits = text.strip_suffix('\n')?.strip_prefix("CONNECT ")?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests;
