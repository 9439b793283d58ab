//! The guest agent's channel: a unix socket on the host, a named console port in the guest.
//!
//! One client at a time. While nobody is connected the guest's bytes are dropped and the port is closed to it; a client
//! that does not read stalls the port (the guest's writer waits), never a vCPU and never the machine's loop.

use devices::virtio::console::PortSink;
use std::{
    fs, io,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use vmm_sys_util::eventfd::EventFd;

/// Why the channel's socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Something that is no socket stands there.
    #[error("agent socket {0} exists and is no socket; hint: choose another path")]
    Exists(PathBuf),
    /// Somebody answers there.
    #[error("agent socket {0} is in use by another process; hint: choose another path")]
    InUse(PathBuf),
    /// Any other failure.
    #[error("cannot listen on agent socket {0}")]
    Listen(PathBuf, #[source] io::Error),
}

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
    listener: UnixListener,
    path: PathBuf,
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
    pub fn listen(path: &Path, room: EventFd) -> Result<(Self, Sink), ChannelError> {
        let failed = |e| ChannelError::Listen(path.to_owned(), e);
        if let Ok(meta) = fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(ChannelError::Exists(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(ChannelError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        Ok((
            Self {
                listener,
                path: path.to_owned(),
                shared: shared.clone(),
            },
            Sink { shared, room },
        ))
    }

    /// Where clients knock.
    pub fn listener_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// The client's descriptor.
    pub fn client_fd(&self) -> Option<RawFd> {
        self.shared.client().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes a waiting client, unless there is one: then the newcomer is turned away. True when one came in.
    pub fn accept(&self) -> bool {
        let Ok((stream, _)) = self.listener.accept() else {
            return false;
        };
        let mut client = self.shared.client();
        if client.is_some() || stream.set_nonblocking(true).is_err() {
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

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
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
