//! The API socket of a machine in the nested host, offered out here.
//!
//! Unix sockets do not cross the boundary. For each client of our socket a `daxvisor ctl raw` runs inside, and its standard
//! streams are the connection.
//!
//! ```text
//! client --socket--> feeder --stdin--> ctl raw --socket--> machine
//!        <--socket-- writer <--queue-- reader <--stdout--
//! ```
//! All commands of the nested host share one channel, so no client may hold it up: one that does not read what it asked for
//! is let go of once [`QUEUE`] chunks wait.

use super::{
    HostError,
    host::{Commands, Control, Event, Running},
};
use crate::{
    api::{MAX_CLIENTS, refusal},
    control::{ControlError, ErrorKind},
    machine::socket::{Socket, is_own_user},
};
use agent_protocol::Exec;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Chunks of replies (of at most 64 KiB) that wait for a client.
const QUEUE: usize = 256;
/// Bytes read from a client at once.
const CHUNK: usize = 64 << 10;
/// For the last replies to reach their clients once the machine has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Clients that are connected.
#[derive(Debug, Default)]
struct Count {
    clients: Mutex<usize>,
    fewer: Condvar,
}

/// One of them.
struct Place(Arc<Count>);

impl Count {
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        (*clients < MAX_CLIENTS).then(|| {
            *clients += 1;
            Place(self.clone())
        })
    }

    fn wait_for_none(&self, limit: Duration) {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.fewer.wait_timeout_while(clients, limit, |n| *n > 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.fewer.notify_all();
    }
}

/// The socket with the thread that takes clients in.
#[derive(Debug)]
pub(super) struct Bridge {
    stop: Arc<OwnedFd>,
    acceptor: Option<JoinHandle<()>>,
    count: Arc<Count>,
}

impl Bridge {
    /// Serves `socket`: each client gets a command `exec` of its own.
    pub fn start(socket: Socket, commands: Commands, exec: Exec) -> Result<Self, HostError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| HostError::io("cannot create an eventfd")(e.into()))?);
        let count = Arc::new(Count::default());
        let (theirs, counted) = (stop.clone(), count.clone());
        let body = move || {
            while wait(&socket, &theirs) {
                let Some(client) = socket.accept() else { continue };
                take_in(client, &counted, &commands, &exec);
            }
        };
        let acceptor = thread::Builder::new().name("api".into()).spawn(body);
        Ok(Self {
            stop,
            acceptor: Some(acceptor.map_err(HostError::io("cannot start a thread"))?),
            count,
        })
    }

    /// Takes no more clients, and gives those there are a little time to read how it ended.
    pub fn finish(mut self) {
        self.close();
        self.count.wait_for_none(LAST_WORDS);
    }

    fn close(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for a client; false: it is over.
fn wait(socket: &Socket, stop: &OwnedFd) -> bool {
    loop {
        let mut watched = [
            PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut watched, None) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return watched[1].revents().is_empty(),
        }
    }
}

fn take_in(mut client: UnixStream, count: &Arc<Count>, commands: &Commands, exec: &Exec) {
    let refused = match count.enter() {
        _ if !is_own_user(&client) => ControlError::new(
            ErrorKind::NotPermitted,
            "the machine belongs to another user; only that user and root may control it",
        ),
        None => ControlError::new(ErrorKind::Busy, format!("{MAX_CLIENTS} clients are connected already")),
        Some(place) => match commands.exec(exec.clone()) {
            Ok(running) => {
                if let Err(e) = serve(client, running, place) {
                    tracing::warn!("an API client is lost: {e}");
                }
                return;
            }
            Err(e) => {
                tracing::warn!("an API client is lost: {e}");
                ControlError::new(ErrorKind::Ending, "the nested host is ending")
            }
        },
    };
    let _ = client.write(&refusal(&refused));
}

/// Starts the threads of one client.
fn serve(client: UnixStream, running: Running, place: Place) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    let (from, mut to, end) = (client.try_clone()?, client.try_clone()?, client);
    let (sender, queue) = sync_channel::<Vec<u8>>(QUEUE);
    let command = running.control();
    let spawn = |body: Box<dyn FnOnce() + Send>| thread::Builder::new().name("api-client".into()).spawn(body);
    spawn(Box::new(move || feed(from, &command)))?;
    spawn(Box::new(move || {
        let written = queue.into_iter().try_for_each(|chunk| to.write_all(&chunk));
        if let Err(e) = written {
            tracing::debug!("an API client went away: {e}");
        }
        // Also ends the feeder.
        let _ = to.shutdown(Shutdown::Both);
        drop(place);
    }))?;
    spawn(Box::new(move || {
        loop {
            let sent = match running.next(None) {
                Ok(Some(Event::Stdout(data))) => sender.try_send(data),
                Ok(Some(Event::Stderr(text))) => {
                    tracing::warn!("API client: {}", String::from_utf8_lossy(&text).trim_end());
                    Ok(())
                }
                Ok(None) => Ok(()),
                Ok(Some(Event::Exited(_) | Event::NotStarted(_))) | Err(_) => return,
            };
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    tracing::warn!("an API client does not read its replies and is let go of");
                    let _ = end.shutdown(Shutdown::Both);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }))?;
    Ok(())
}

/// What the client sends, until it stops or nobody takes it any more.
fn feed(mut from: UnixStream, command: &Control) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        if !command.stdin(chunk.get(..n).unwrap_or_default().to_vec()) {
            return;
        }
    }
    command.close_stdin();
}
