//! Process signals: requests to end, and crashes that must not leave a terminal in raw mode.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};
use vmm_sys_util::{
    eventfd::EventFd,
    signal::{SIGRTMIN, register_signal_handler},
};

/// Fires when the process is asked to end (SIGTERM, SIGINT, SIGHUP, SIGQUIT).
static TERMINATE: OnceLock<EventFd> = OnceLock::new();
/// Number of the signal that did.
static LAST: AtomicU8 = AtomicU8::new(0);
/// Run before the process dies of a crash; must be async-signal-safe.
static LAST_WILL: OnceLock<fn()> = OnceLock::new();

/// Exit status of a crashed monitor: that of every failure of daxvisor itself (`cli::ExitCode::VmmError`).
const CRASHED: libc::c_int = 1;

/// Number of the last signal that asked the process to end; 0: none did.
pub fn last() -> u8 {
    LAST.load(Ordering::SeqCst)
}

/// An eventfd that fires when a signal asks the process to end, and stays so.
pub fn termination() -> io::Result<EventFd> {
    extern "C" fn terminate(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        LAST.store(u8::try_from(signal).unwrap_or(0), Ordering::SeqCst);
        if let Some(event) = TERMINATE.get() {
            // One write system call; nothing to do about a failure here.
            let _ = event.write(1);
        }
    }
    // One for the process: a signal asks every machine in it to end, those to come as well.
    let event = match TERMINATE.get() {
        Some(event) => event,
        None => {
            let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
            TERMINATE.get_or_init(|| event)
        }
    };
    let ours = event.try_clone()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        register_signal_handler(signal, terminate).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    }
    Ok(ours)
}

/// Runs `will` before the process dies of SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT, says why in one sentence, and ends it.
pub fn on_crash(will: fn()) -> io::Result<()> {
    extern "C" fn crash(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        die(signal)
    }
    let _ = LAST_WILL.set(will);
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
        register_signal_handler(signal, crash).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    }
    Ok(())
}

/// Says why in one sentence, and ends the process. For signal handlers.
pub(crate) fn die(signal: libc::c_int) -> ! {
    if let Some(will) = LAST_WILL.get() {
        will();
    }
    let why: &[u8] = if signal == libc::SIGBUS {
        b"error: the memory behind the guest went away; hint: a backing file was truncated, its disk is full, or the host has a memory error in what is not the guest's\n"
    } else {
        b"error: the monitor crashed; this is a bug in daxvisor\n"
    };
    let _ = io::stderr().write_all(why);
    // SAFETY: `_exit` is async-signal-safe and does not return.
    unsafe { libc::_exit(CRASHED) }
}

/// The signal that brings a vCPU thread out of the guest.
pub(crate) fn kick() -> libc::c_int {
    SIGRTMIN()
}
