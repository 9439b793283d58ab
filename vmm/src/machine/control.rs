//! The way of requests to the machine's loop: values over a channel, and a bell.
//!
//! ```text
//! Control::call --bounded channel, bell--> Calls, in the loop --reply, called once--> whoever asked
//! ```
//! Nothing here waits: a full channel is the error [`ErrorKind::Busy`]. A reply that nobody waits for any more is dropped, and
//! so is the call of a loop that has ended, with its reply uncalled.

use crate::control::{Answer, ControlError, ErrorKind, EventLog, Request};
use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};
use vmm_sys_util::eventfd::EventFd;

/// Calls that wait for the loop.
const WAITING: usize = 64;

/// Told what became of a request, once.
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// A request on its way.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Whoever asked.
    pub reply: Reply,
}

/// The end of those who ask.
#[derive(Clone)]
pub struct Control {
    calls: SyncSender<Call>,
    bell: Arc<EventFd>,
    events: Arc<EventLog>,
}

/// The end of the loop.
pub struct Calls {
    calls: Receiver<Call>,
    bell: Arc<EventFd>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Both ends, for a loop that writes to `events`.
pub fn channel(events: Arc<EventLog>) -> io::Result<(Control, Calls)> {
    let bell = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
    let (sender, receiver) = sync_channel(WAITING);
    let control = Control {
        calls: sender,
        bell: bell.clone(),
        events,
    };
    Ok((control, Calls { calls: receiver, bell }))
}

impl Control {
    /// What happened to the machine.
    pub fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    /// Asks; `reply` is called from the loop's thread, and must not wait.
    pub fn call(&self, request: Request, reply: impl FnOnce(Answer) + Send + 'static) {
        let call = Call {
            request,
            reply: Box::new(reply),
        };
        let refused = match self.calls.try_send(call) {
            Ok(()) => {
                // Fails only when the counter is full, and then the bell is ringing.
                let _ = self.bell.write(1);
                return;
            }
            Err(TrySendError::Full(call)) => {
                let busy = ControlError::new(ErrorKind::Busy, format!("{WAITING} requests wait already"));
                (call, busy.hint("try again later"))
            }
            Err(TrySendError::Disconnected(call)) => {
                (call, ControlError::new(ErrorKind::Ending, "the machine has ended"))
            }
        };
        (refused.0.reply)(Err(refused.1));
    }
}

impl Calls {
    /// The bell.
    pub fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The bell has been heard.
    pub fn hush(&self) {
        let _ = self.bell.read();
    }

    /// Rings it again, for what is left.
    pub fn ring(&self) {
        let _ = self.bell.write(1);
    }

    /// The next call.
    pub fn next(&self) -> Option<Call> {
        self.calls.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Phase, Response, StateInfo};
    use std::sync::mpsc;

    #[test]
    fn calls_are_answered_in_turn_and_too_many_at_once_are_refused() {
        let (control, calls) = channel(Arc::default()).unwrap();
        let (told, hear) = mpsc::channel();
        for n in 0..=WAITING {
            let told = told.clone();
            control.call(Request::Describe, move |answer| told.send((n, answer)).unwrap());
        }
        let (n, answer) = hear.recv().unwrap();
        assert_eq!((n, answer.unwrap_err().kind), (WAITING, ErrorKind::Busy));
        calls.hush();
        let state = StateInfo { state: Phase::Running };
        for n in 0..WAITING {
            let call = calls.next().unwrap();
            (call.reply)(Ok(Response::State(state)));
            assert_eq!(hear.recv().unwrap(), (n, Ok(Response::State(state))));
        }
        assert!(calls.next().is_none());
    }

    #[test]
    fn calls_to_a_loop_that_has_ended_are_told_so() {
        let (control, calls) = channel(Arc::default()).unwrap();
        let (told, hear) = mpsc::channel();
        let late = told.clone();
        control.call(Request::Describe, move |answer| told.send(answer).unwrap());
        drop(calls);
        assert!(hear.try_recv().is_err(), "a call that was never taken has no answer");
        control.call(Request::Describe, move |answer| late.send(answer).unwrap());
        assert_eq!(hear.recv().unwrap().unwrap_err().kind, ErrorKind::Ending);
    }
}
