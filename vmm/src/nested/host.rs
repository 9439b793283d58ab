//! A running nested host: the handle, its commands, and what its threads share.
//!
//! Threads: the supervisor owns QEMU (see `supervise`), a reader hands the agent's frames out, a writer sends ours. A
//! command's output waits in a bounded queue, so a slow consumer slows the command down instead of filling memory.

use super::{HostError, HostOptions, plan_shares, qemu, serial, supervise};
use crate::images::{HostImage, Manifest, default_dir};
use agent_protocol::{Exec, ExitStatus, FromAgent, Hello, ToAgent};
use std::{
    collections::HashMap,
    env,
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::{TempDir, TempPath};

/// Output frames that wait for a slow consumer.
const QUEUE: usize = 64;

/// The nested host. Dropping it kills QEMU and waits for it.
#[derive(Debug)]
pub struct Host {
    shared: Arc<Shared>,
    supervisor: Option<JoinHandle<()>>,
    /// Holds the agent's socket.
    _folder: TempDir,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended; all output came before.
    Exited(ExitStatus),
    /// It could not be started.
    NotStarted(String),
}

/// A command in the nested host. Dropping it kills the command.
#[derive(Debug)]
pub struct Running {
    control: Control,
    events: Receiver<Event>,
}

/// A handle on a running command for other threads.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
    id: u32,
}

/// A handle with which commands are started.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    shared: Arc<Shared>,
}

/// What ended the nested host before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    NotUp(Duration),
    Died(String),
    Hung(Duration),
    LockedUp(String),
    Broken(String),
    Version(u32),
    Channel(String),
    Interrupted(i32),
}

/// What all threads see.
#[derive(Debug, Default)]
pub(super) struct State {
    pub hello: Option<Hello>,
    pub fault: Option<Fault>,
    /// The kernel has complained of a slow CPU.
    pub slow: Option<String>,
    /// Since when QEMU is expected to end.
    pub closing: Option<Instant>,
    /// QEMU is to be killed at once.
    pub stop: bool,
    /// Why and when the channel ended.
    pub channel_ended: Option<(String, Instant)>,
    pub last_heard: Option<Instant>,
    /// The reader waits for a consumer, so silence means nothing.
    pub delivering: bool,
    pub pings: u64,
    pub acknowledged: u64,
    /// Standard input up to this ping has not been taken yet; a command that does not read holds the agent up.
    pub stdin_ping: u64,
    /// QEMU is gone.
    pub over: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    outgoing: Sender<ToAgent>,
    commands: Mutex<HashMap<u32, SyncSender<Event>>>,
    /// Id of the last command.
    last_id: AtomicU32,
    pub log: PathBuf,
    log_guard: Mutex<Option<TempPath>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Starts the nested host of the default images and waits until it takes commands.
    pub fn start(options: &HostOptions) -> Result<Self, HostError> {
        let host = Self::launch(&default_image()?, options)?;
        host.wait_up()?;
        Ok(host)
    }

    /// Starts QEMU with `image` and returns at once.
    pub(super) fn launch(image: &HostImage, options: &HostOptions) -> Result<Self, HostError> {
        let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
        let shares = plan_shares(&cwd, &options.shares)?;
        let folder = tempfile::Builder::new().prefix("daxvisor-host-").tempdir();
        let folder = folder.map_err(HostError::io("cannot make a temporary folder"))?;
        let log = tempfile::Builder::new()
            .prefix("daxvisor-host-")
            .suffix(".log")
            .tempfile();
        let (log_file, log) = log.map_err(HostError::io("cannot make a log file"))?.into_parts();
        let socket = folder.path().join("agent");
        let plan = qemu::plan(image, options, &shares, &socket, &log)?;
        let listener =
            UnixListener::bind(&socket).map_err(HostError::io(format!("cannot listen on {}", socket.display())))?;
        let (outgoing, to_send) = channel();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            outgoing,
            commands: Mutex::default(),
            last_id: AtomicU32::new(0),
            log: log.to_path_buf(),
            log_guard: Mutex::new(Some(log)),
        });
        let supervisor = supervise::start(shared.clone(), plan, options, listener, to_send, &log_file)?;
        Ok(Self {
            shared,
            supervisor: Some(supervisor),
            _folder: folder,
        })
    }

    /// Waits for the agent; the supervisor keeps the deadline.
    pub(super) fn wait_up(&self) -> Result<(), HostError> {
        let state = self.shared.wait(|s| s.hello.is_some() || s.fault.is_some() || s.over);
        let theirs = state.hello.as_ref().map(|h| h.version);
        drop(state);
        match theirs {
            Some(agent_protocol::VERSION) => Ok(()),
            Some(theirs) => {
                self.shared.fail(Fault::Version(theirs));
                Err(self.shared.error())
            }
            None => Err(self.shared.error()),
        }
    }

    /// What the agent said of itself.
    pub fn hello(&self) -> Option<Hello> {
        self.shared.lock().hello.clone()
    }

    /// Starts a command; `exec.id` is chosen here.
    pub fn exec(&self, exec: Exec) -> Result<Running, HostError> {
        self.commands().exec(exec)
    }

    /// A handle with which other threads start commands.
    pub(super) fn commands(&self) -> Commands {
        Commands {
            shared: self.shared.clone(),
        }
    }

    /// A handle that can end the start of a host from another thread.
    pub(super) fn control(&self) -> Control {
        Control {
            shared: self.shared.clone(),
            id: 0,
        }
    }

    /// Lets the nested host write what it holds and turn itself off; kills it when that takes too long.
    pub fn shutdown(mut self) {
        self.shared.lock().closing.get_or_insert_with(Instant::now);
        self.shared.send(ToAgent::PowerOff);
        self.shared.changed.notify_all();
        self.join();
    }

    fn join(&mut self) {
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.join().is_err()
        {
            tracing::error!("the nested host's supervisor panicked");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        self.join();
        // Not left to the last thread that shares the state: the process may end before that one does.
        lock(&self.shared.log_guard).take();
    }
}

/// The nested host's part of the default images.
pub(super) fn default_image() -> Result<HostImage, HostError> {
    Manifest::load(&default_dir())?.host.ok_or_else(HostError::no_host)
}

impl Commands {
    /// Starts a command; `exec.id` is chosen here.
    pub fn exec(&self, exec: Exec) -> Result<Running, HostError> {
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (sender, events) = sync_channel(QUEUE);
        lock(&self.shared.commands).insert(id, sender);
        let running = Running {
            control: Control {
                shared: self.shared.clone(),
                id,
            },
            events,
        };
        // After the insertion: a fault either is seen here or finds the command in the table.
        let state = self.shared.lock();
        if state.fault.is_some() || state.over {
            drop(state);
            return Err(self.shared.error());
        }
        drop(state);
        self.shared.send(ToAgent::Exec(Exec { id, ..exec }));
        Ok(running)
    }
}

impl Running {
    /// The next event; `None` when `until` comes first.
    pub fn next(&self, until: Option<Instant>) -> Result<Option<Event>, HostError> {
        let event = match until {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self
                .events
                .recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.control.shared.error()),
        }
    }

    /// A handle for other threads.
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if lock(&self.control.shared.commands).remove(&self.control.id).is_some() {
            self.control.signal(libc::SIGKILL);
        }
    }
}

impl Control {
    /// Signals the command's process group.
    pub fn signal(&self, signal: i32) {
        self.shared.send(ToAgent::Signal { id: self.id, signal });
    }

    /// Sends standard input and waits until the agent took it; false when nobody will any more.
    pub fn stdin(&self, data: Vec<u8>) -> bool {
        let mut state = self.shared.lock();
        self.shared.send(ToAgent::Stdin { id: self.id, data });
        let mine = self.shared.ping(&mut state);
        state.stdin_ping = mine;
        drop(state);
        let state = self.shared.wait(|s| s.acknowledged >= mine || s.over);
        !state.over
    }

    /// Ends standard input.
    pub fn close_stdin(&self) {
        self.shared.send(ToAgent::StdinEof { id: self.id });
    }

    /// Whether this is a command (and not just the host).
    pub(super) fn is_command(&self) -> bool {
        self.id != 0
    }

    /// Ends the whole nested host.
    pub(super) fn abort(&self, fault: Fault) {
        self.shared.fail(fault);
    }

    /// The nested host's kernel complained of a slow CPU.
    pub(super) fn slow(&self) -> Option<String> {
        self.shared.lock().slow.clone()
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits for a state.
    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_while(self.lock(), |s| !until(s));
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, at most `time`.
    pub fn pause<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, time)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Queues a frame. When the writer is gone so is the host, which its commands learn in their own way.
    pub fn send(&self, frame: ToAgent) {
        let _ = self.outgoing.send(frame);
    }

    /// Queues a ping and returns its number.
    pub fn ping(&self, state: &mut State) -> u64 {
        state.pings += 1;
        self.send(ToAgent::Ping(state.pings));
        state.pings
    }

    /// The first fault counts.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.lock();
        if !state.over && state.closing.is_none() {
            state.fault.get_or_insert(fault);
        }
        state.stop = true;
        self.changed.notify_all();
    }

    /// A frame from the agent.
    pub fn receive(&self, frame: FromAgent) {
        let mut state = self.lock();
        state.last_heard = Some(Instant::now());
        let (id, event) = match frame {
            FromAgent::Hello(hello) => {
                state.hello.get_or_insert(hello);
                return self.changed.notify_all();
            }
            FromAgent::Pong(number) => {
                state.acknowledged = state.acknowledged.max(number);
                return self.changed.notify_all();
            }
            FromAgent::Stdout { id, data } => (id, Event::Stdout(data)),
            FromAgent::Stderr { id, data } => (id, Event::Stderr(data)),
            FromAgent::Exited { id, status } => (id, Event::Exited(status)),
            FromAgent::Failed { id, error } => (id, Event::NotStarted(error)),
            FromAgent::FileDone { .. } | FromAgent::FileData { .. } => return,
        };
        state.delivering = true;
        drop(state);
        let ends = matches!(event, Event::Exited(_) | Event::NotStarted(_));
        let mut commands = lock(&self.commands);
        let queue = if ends {
            commands.remove(&id)
        } else {
            commands.get(&id).cloned()
        };
        drop(commands);
        // Nobody waits for a command that was given up.
        let _ = queue.map(|q| q.send(event));
        let mut state = self.lock();
        state.delivering = false;
        state.last_heard = Some(Instant::now());
    }

    /// Nothing will come any more: wakes everyone who waits.
    pub fn finish(&self) {
        self.lock().over = true;
        lock(&self.commands).clear();
        self.changed.notify_all();
    }

    /// The fault as an error, with the log's end; the log is kept from now on.
    pub fn error(&self) -> HostError {
        let fault = self.lock().fault.clone();
        let tail = || {
            let tail = serial::tail(&self.log);
            // An empty log is not worth keeping.
            let keep = |guard: TempPath| {
                if tail.lines.is_empty() {
                    Ok(())
                } else {
                    guard.keep().map(drop)
                }
            };
            if let Some(Err(e)) = lock(&self.log_guard).take().map(keep) {
                tracing::warn!("cannot keep the nested host's log: {e}");
            }
            tail
        };
        match fault {
            Some(Fault::NotUp(after)) => HostError::NotUp { after, tail: tail() },
            Some(Fault::Died(status)) => HostError::Died { status, tail: tail() },
            Some(Fault::Hung(silent)) => HostError::Hung { silent, tail: tail() },
            Some(Fault::LockedUp(report)) => HostError::LockedUp { report, tail: tail() },
            Some(Fault::Broken(report)) => HostError::Broken { report, tail: tail() },
            Some(Fault::Version(theirs)) => HostError::Version { theirs },
            Some(Fault::Channel(why)) => HostError::Channel(why),
            Some(Fault::Interrupted(signal)) => HostError::Interrupted(signal),
            None => HostError::Channel("it was shut down".into()),
        }
    }
}
