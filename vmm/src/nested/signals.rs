//! Signals to us, handed on to the command in the nested host.
//!
//! The first one goes to the command as it is, a second one kills the command (and, when that does not help, the nested
//! host), a third one ends us at once. While the host is only starting, the first one gives up the start. The handlers stay
//! installed; with nobody watching, a signal ends the process with the shell's code for it.

use super::{
    HostError,
    host::{Control, Fault},
    run::signal_code,
    terminal,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    process,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};
use vmm_sys_util::signal::register_signal_handler;

const WATCHED: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// After the second signal, for the command to be gone.
const KILL_GRACE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

static PIPE: OnceLock<OwnedFd> = OnceLock::new();
static WATCHERS: Mutex<BTreeMap<u64, Watcher>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Watcher {
    target: Option<Control>,
    signals: Vec<i32>,
}

/// As long as it lives, signals go where it aims.
#[derive(Debug)]
pub(super) struct Watch(u64);

fn watchers() -> MutexGuard<'static, BTreeMap<u64, Watcher>> {
    WATCHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Only what a signal handler may do: a load and a system call that leaves errno alone.
extern "C" fn note(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let (Some(pipe), Ok(signal)) = (PIPE.get(), u8::try_from(signal)) {
        // A full pipe already holds more signals than anyone needs.
        let _ = rustix::io::write(pipe, &[signal]);
    }
}

fn install() -> io::Result<()> {
    // One installer at a time: the caller holds WATCHERS.
    if PIPE.get().is_some() {
        return Ok(());
    }
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || pump(&reading))?;
    let _ = PIPE.set(writing);
    for signal in WATCHED {
        register_signal_handler(signal, note).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    }
    Ok(())
}

fn pump(pipe: &OwnedFd) {
    let mut killing = false;
    loop {
        let mut fds = [PollFd::new(pipe, PollFlags::IN)];
        if let Ok(0) = poll(&mut fds, killing.then_some(&KILL_GRACE)) {
            killing = false;
            watchers()
                .values()
                .filter(|w| w.signals.len() > 1)
                .for_each(Watcher::give_up);
            continue;
        }
        let mut byte = [0];
        if let Ok(1) = rustix::io::read(pipe, &mut byte) {
            killing |= deliver(byte[0].into());
        }
    }
}

/// Returns whether a command was just killed.
fn deliver(signal: i32) -> bool {
    let mut watchers = watchers();
    if watchers.is_empty() || watchers.values().any(|w| w.signals.len() >= 2) {
        // QEMU dies with us.
        terminal::restore();
        process::exit(signal_code(signal).into());
    }
    for watcher in watchers.values_mut() {
        watcher.signals.push(signal);
        watcher.act();
    }
    watchers.values().any(|w| w.signals.len() == 2)
}

impl Watcher {
    fn act(&self) {
        match (&self.target, self.signals.as_slice()) {
            (Some(command), [signal]) if command.is_command() => command.signal(*signal),
            (Some(command), [_, _, ..]) if command.is_command() => command.signal(libc::SIGKILL),
            (Some(_), [_, ..]) => self.give_up(),
            _ => {}
        }
    }

    fn give_up(&self) {
        if let (Some(target), Some(signal)) = (&self.target, self.signals.first()) {
            target.abort(Fault::Interrupted(*signal));
        }
    }
}

impl Watch {
    /// Starts watching; signals wait until there is an aim.
    pub fn new() -> Result<Self, HostError> {
        let mut watchers = watchers();
        install().map_err(HostError::io("cannot watch for signals"))?;
        let id = watchers.last_key_value().map_or(0, |(last, _)| last + 1);
        watchers.insert(id, Watcher::default());
        Ok(Self(id))
    }

    /// From now on signals, those that came already included, go to `target`.
    pub fn aim(&self, target: Control) {
        if let Some(watcher) = watchers().get_mut(&self.0) {
            watcher.target = Some(target);
            watcher.act();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watchers().remove(&self.0);
    }
}
