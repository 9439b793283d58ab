//! Our standard input, carried to the command until it ends or the command does.

use super::host::Control;
use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread::{self, JoinHandle},
};

/// Bytes in one frame.
const PIECE: usize = 16 << 10;

/// The thread that carries; dropping it stops it without taking another byte.
#[derive(Debug)]
pub(super) struct Feed {
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Carries what `input` has to `command`.
    pub fn start(input: impl AsFd + Send + 'static, command: Control) -> io::Result<Self> {
        let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let carry = move || carry(input.as_fd(), &ended, &command);
        let thread = thread::Builder::new().name("stdin".into()).spawn(carry)?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end = None;
        // It may be waiting for the agent to take the last piece, which ends with the host: not ours to wait for.
        self.thread = None;
    }
}

fn carry(input: BorrowedFd<'_>, ended: &OwnedFd, command: &Control) {
    let mut data = vec![0; PIECE];
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(input, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(input, &mut data[..]) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(0) | Err(_) => return command.close_stdin(),
            Ok(n) => {
                if !command.stdin(data.iter().copied().take(n).collect()) {
                    return;
                }
            }
        }
    }
}
