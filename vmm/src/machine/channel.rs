//! The guest agent's channel: a unix socket on the host, a named console port in the guest.
//!
//! One client at a time. While nobody is connected the guest's bytes are dropped and the port is closed to it; a client
//! that does not read stalls the port (the guest's writer waits), never a vCPU and never the machine's loop.

use super::socket::{Socket, SocketError};
use devices::virtio::console::PortSink;
use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use vmm_sys_util::eventfd::EventFd;

/// What the loop and the device's sink share.
#[derive(Default)]
struct Shared {
    client: Mutex<Option<UnixStream>>,
    /// The client's socket buffer is full: the device waits for `output_ready`.
    stalled: AtomicBool,
    /// The client is gone or broke: to be taken away by the loop.
    broken: AtomicBool,
}

impl Shared {
    fn client(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's side. The socket file goes when this does.
pub struct Channel {
    listener: Socket,
    shared: Arc<Shared>,
}

/// The device's way to the client.
pub struct Sink {
    shared: Arc<Shared>,
    room: EventFd,
}

impl Channel {
    /// Listens on `path` (mode 0600), replacing a socket that nobody answers on. `room` is rung when the guest can take
    /// input again.
    pub fn listen(path: &Path, room: EventFd) -> Result<(Self, Sink), SocketError> {
        let listener = Socket::listen("agent", path)?;
        let shared = Arc::new(Shared::default());
        let channel = Self {
            listener,
            shared: shared.clone(),
        };
        Ok((channel, Sink { shared, room }))
    }

    /// Where clients knock.
    pub fn listener_fd(&self) -> RawFd {
        self.listener.fd()
    }

    /// The client's descriptor.
    pub fn client_fd(&self) -> Option<RawFd> {
        self.shared.client().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes a waiting client, unless there is one: then the newcomer is turned away. True when one came in.
    pub fn accept(&self) -> bool {
        let Some(stream) = self.listener.accept() else {
            return false;
        };
        let mut client = self.shared.client();
        if client.is_some() {
            return false;
        }
        self.shared.stalled.store(false, Ordering::Relaxed);
        self.shared.broken.store(false, Ordering::Relaxed);
        *client = Some(stream);
        true
    }

    /// Reads what the client sent, at most `buffer.len()` bytes; 0 when nothing waits. `None`: the client is gone.
    pub fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        match self.shared.client().as_mut()?.read(buffer) {
            Ok(0) => None,
            Ok(n) => Some(n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Some(0),
            Err(_) => None,
        }
    }

    /// Lets the client go.
    pub fn hang_up(&self) {
        *self.shared.client() = None;
        self.shared.stalled.store(false, Ordering::Relaxed);
        self.shared.broken.store(false, Ordering::Relaxed);
    }

    /// Whether output waits for the client's socket to become writable.
    pub fn is_stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::Relaxed)
    }

    /// The socket has become writable.
    pub fn clear_stall(&self) {
        self.shared.stalled.store(false, Ordering::Relaxed);
    }

    /// Whether a write found the client gone.
    pub fn is_broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

impl PortSink for Sink {
    fn write(&mut self, data: &[u8]) -> usize {
        let mut client = self.shared.client();
        let Some(stream) = client.as_mut() else {
            return data.len();
        };
        let mut done = 0;
        while done < data.len() {
            match stream.write(&data[done..]) {
                Ok(n) if n > 0 => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.shared.stalled.store(true, Ordering::Relaxed);
                    return done;
                }
                Ok(_) | Err(_) => {
                    self.shared.broken.store(true, Ordering::Relaxed);
                    return data.len();
                }
            }
        }
        done
    }

    fn input_room(&mut self) {
        let _ = self.room.write(1);
    }

    fn guest_open(&mut self, open: bool) {
        tracing::debug!(open, "the guest's end of the agent channel");
    }
}
