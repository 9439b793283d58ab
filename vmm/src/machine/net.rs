//! The host's ends of network devices: tap interfaces, links within the machine, and links to other machines.
//!
//! A link is a pair of sockets that keep frames apart (`SOCK_SEQPACKET`), bounded by the kernel; none of it ever waits.
//!
//! Between machines, whoever finds nobody at the path listens there, and the others connect:
//! ```text
//!            connect              "link" comes
//! (alone) ------------> (waiting) ------------> (up)      the other is gone: (alone)
//!    \ nobody there: listen --somebody connects, gets "link"--^
//! ```
//! A link has two ends. A third machine is connected by the kernel, gets no "link", and tries again when it is let go.
//!
//! Each device's descriptors are behind one epoll descriptor, which the machine's loop watches: what they are changes, it does
//! not.

use super::{
    build::BuildError,
    socket::{Socket, SocketError, is_own_user},
};
use crate::{
    config::{NetConfig, NetWire, VmConfig},
    hv::{TapError, open_tap},
};
use devices::virtio::{
    Progress,
    net::{Net, NetPlan, Wire},
};
use rustix::{
    buffer::spare_capacity,
    event::{
        EventfdFlags,
        epoll::{self, CreateFlags, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
        socketpair,
    },
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What the machine that listens says to the one it lets in; no frame is that short.
const GREETING: &[u8] = b"link";
/// How often a machine that is alone looks for another.
const RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// Events of a device's descriptors.
const BELL: u64 = 0;
const CLOCK: u64 = 1;
const DOOR: u64 = 2;
const WIRE: u64 = 3;

/// Why a device has no wire.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// No socket to listen on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No connection to the machine that listens.
    #[error("cannot connect to link {0}")]
    Connect(PathBuf, #[source] io::Error),
    /// Any other refusal of the host.
    #[error("cannot {0}")]
    Host(&'static str, #[source] io::Error),
}

fn host(what: &'static str) -> impl Fn(Errno) -> NetError {
    move |errno| NetError::Host(what, errno.into())
}

/// A network device of a running machine.
pub struct NetPort {
    /// The device.
    pub device: Arc<Net>,
    /// What it is connected to, for people.
    pub wire: String,
    watch: OwnedFd,
    bell: OwnedFd,
    /// Of a link to another machine.
    clock: Option<OwnedFd>,
    end: Arc<Mutex<End>>,
}

/// One end of a wire.
#[derive(Default)]
struct End {
    /// Where a link to another machine is made.
    path: Option<PathBuf>,
    door: Option<Socket>,
    line: Option<Line>,
    /// The other side is there and wants frames.
    up: bool,
}

enum Line {
    Tap(File),
    Link(OwnedFd),
}

/// The device's hold of the end.
struct Hold(Arc<Mutex<End>>);

fn lock(end: &Mutex<End>) -> MutexGuard<'_, End> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire for Hold {
    fn send(&mut self, frame: &[u8]) -> bool {
        let end = lock(&self.0);
        match &end.line {
            Some(Line::Tap(tap)) => (&*tap).write(frame).is_ok(),
            Some(Line::Link(link)) if end.up => send(link, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok(),
            _ => false,
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let end = lock(&self.0);
        match &end.line {
            Some(Line::Tap(tap)) => (&*tap).read(buffer).ok(),
            Some(Line::Link(link)) if end.up => {
                // What does not fit is gone, and its whole length is told.
                let received = recv(link, buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC);
                received.ok().map(|(_, len)| len).filter(|len| *len > 0)
            }
            _ => None,
        }
    }
}

/// The devices of a machine, in the order of its configuration.
pub fn open(config: &VmConfig) -> Result<Vec<NetPort>, BuildError> {
    let mut others = BTreeMap::new();
    let mut ports = Vec::new();
    for (index, said) in config.net.iter().enumerate() {
        let id = config.net_name(index);
        let plan = NetPlan {
            mac: config.net_mac(index),
            mtu: said.mtu,
        };
        let port = end_of(said, &mut others).and_then(|(end, wire)| NetPort::new(plan, end, wire));
        ports.push(port.map_err(|source| BuildError::Net { id, source })?);
    }
    Ok(ports)
}

/// A device's end of its wire; the other end of a link within the machine stays in `others` until its device comes.
fn end_of(said: &NetConfig, others: &mut BTreeMap<String, OwnedFd>) -> Result<(End, String), NetError> {
    let lies = |line| End {
        line: Some(line),
        up: true,
        ..End::default()
    };
    match said.wire() {
        Some(NetWire::Tap(name)) => Ok((lies(Line::Tap(open_tap(name)?)), format!("tap {name}"))),
        Some(NetWire::Inner(name)) => {
            let mine = match others.remove(name) {
                Some(other) => other,
                None => {
                    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
                    let (mine, other) = pair.map_err(host("make a pair of sockets"))?;
                    others.insert(name.to_owned(), other);
                    mine
                }
            };
            Ok((lies(Line::Link(mine)), format!("link {name}")))
        }
        Some(NetWire::Outer(path)) => {
            let mut end = End {
                path: Some(path.to_owned()),
                ..End::default()
            };
            end.seek()?;
            Ok((end, format!("link {}", path.display())))
        }
        None => Ok((End::default(), "nothing".to_owned())),
    }
}

impl End {
    /// Looks for another machine at the path, and waits for one there if there is none.
    fn seek(&mut self) -> Result<(), NetError> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.door.as_ref().is_some_and(|door| !door.has_its_file()) {
            // Somebody else has put a socket in its place, at which they are to be met.
            self.door = None;
        }
        if self.line.is_some() || self.door.is_some() {
            return Ok(());
        }
        match knock(path) {
            Ok(link) => self.line = Some(Line::Link(link)),
            Err(Errno::NOENT | Errno::CONNREFUSED) => {
                self.door = Some(Socket::listen_for(SocketType::SEQPACKET, "link", path)?);
            }
            // So many are waiting there that there is no room for one more.
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(NetError::Connect(path.clone(), errno.into())),
        }
        Ok(())
    }

    /// Lets in whoever waits, the first of them. The others are turned away.
    fn answer(&mut self) {
        while let Some(guest) = self.door.as_ref().and_then(Socket::accept) {
            if self.line.is_some() || !is_own_user(&guest) {
                continue;
            }
            let guest = OwnedFd::from(guest);
            if send(&guest, GREETING, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok() {
                self.line = Some(Line::Link(guest));
                self.up = true;
            }
        }
    }

    /// Hears whether the machine that was connected to has let this one in.
    fn listen_for_greeting(&mut self) {
        let Some(Line::Link(link)) = &self.line else { return };
        if self.up {
            return;
        }
        let mut said = Vec::with_capacity(2 * GREETING.len());
        match recv(link, spare_capacity(&mut said), RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) if said == GREETING && is_own_user(link) => self.up = true,
            _ => self.line = None,
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(|line| match line {
            Line::Tap(tap) => tap.as_fd(),
            Line::Link(link) => link.as_fd(),
        })
    }
}

fn knock(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Takes what a bell or a clock has to tell.
fn quiet(fd: impl AsFd) {
    let _ = rustix::io::read(fd, &mut [0; 8]);
}

/// Rings every [`RETRY`].
fn clock() -> rustix::io::Result<OwnedFd> {
    let clock = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let every = Itimerspec {
        it_interval: RETRY,
        it_value: RETRY,
    };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &every)?;
    Ok(clock)
}

impl NetPort {
    fn new(plan: NetPlan, end: End, wire: String) -> Result<Self, NetError> {
        let watch = epoll::create(CreateFlags::CLOEXEC).map_err(host("create an epoll descriptor"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = eventfd(0, flags).map_err(host("create an eventfd"))?;
        let clock = end.path.is_some().then(clock).transpose();
        let clock = clock.map_err(host("create a timer"))?;
        let carrier = end.up;
        let end = Arc::new(Mutex::new(end));
        let device = Arc::new(Net::new(plan, carrier, Box::new(Hold(end.clone()))));
        let port = Self {
            device,
            wire,
            watch,
            bell,
            clock,
            end,
        };
        port.watch(&port.bell, BELL, EventFlags::IN)?;
        if let Some(clock) = &port.clock {
            port.watch(clock, CLOCK, EventFlags::IN)?;
        }
        let end = lock(&port.end);
        port.watch_end(&end)?;
        drop(end);
        Ok(port)
    }

    fn watch(&self, fd: impl AsFd, data: u64, flags: EventFlags) -> Result<(), NetError> {
        epoll::add(&self.watch, fd, EventData::new_u64(data), flags).map_err(host("watch a descriptor"))
    }

    fn watch_end(&self, end: &End) -> Result<(), NetError> {
        let again = |done: Result<(), NetError>| match done {
            Err(NetError::Host(_, e)) if e.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
            other => other,
        };
        if let Some(door) = &end.door {
            again(self.watch(door.as_fd(), DOOR, EventFlags::IN))?;
        }
        if let Some(fd) = end.fd() {
            // One event for frames that come: those for which there is no buffer stay, and the driver says when there is one.
            again(self.watch(fd, WIRE, EventFlags::IN | EventFlags::ET))?;
        }
        Ok(())
    }

    /// What the loop waits for.
    pub fn fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }

    /// Does what the descriptors ask for, a bounded piece of it.
    pub fn attend(&self) {
        let mut events = Vec::with_capacity(8);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.watch, spare_capacity(&mut events), Some(&now)).is_err() {
            return;
        }
        let mut end = lock(&self.end);
        for event in &events {
            // Copied out: the fields are not aligned.
            let (flags, data) = (event.flags, event.data);
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
            match data.u64() {
                BELL => quiet(&self.bell),
                CLOCK => self.tick(&mut end),
                DOOR => end.answer(),
                WIRE if gone => {
                    end.line = None;
                    end.up = false;
                }
                _ => end.listen_for_greeting(),
            }
        }
        if let Err(error) = self.watch_end(&end) {
            tracing::warn!(wire = self.wire, "a network device is cut off: {error}");
            end.line = None;
            end.up = false;
        }
        let carrier = end.up;
        drop(end);
        self.device.set_carrier(carrier);
        if self.device.arrived() == Progress::More {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn tick(&self, end: &mut End) {
        self.clock.iter().for_each(quiet);
        if let Err(error) = end.seek() {
            tracing::debug!(wire = self.wire, "no link yet: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
