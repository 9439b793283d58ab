//! Console output to a reader that may be slow, or never read again.
//!
//! Output is not dropped: the guest's processor waits for the reader, as any program that writes to a pipe does. But whoever
//! wants the run to end must not wait with it, and the machine's loop may be the one that waits. So the wait itself
//! watches what ends a run from outside: a signal and the deadline. After that, output that does not fit is lost.

use rustix::{
    event::{PollFd, PollFlags, poll},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// What a pipe that says it is ready takes without blocking (`PIPE_BUF`, at least 512 by POSIX).
const PIECE: usize = 512;

/// What ends the wait for a reader. Both descriptors stay readable once they are.
pub struct Patience {
    terminate: OwnedFd,
    deadline: OwnedFd,
}

impl Patience {
    /// Without end, but for a signal.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: crate::hv::signal::termination_fd()?,
            deadline: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
            )?,
        })
    }

    /// The same one for another owner.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            terminate: self.terminate.try_clone()?,
            deadline: self.deadline.try_clone()?,
        })
    }

    /// Ends it after `limit`.
    pub fn limit(&self, limit: Duration) -> io::Result<()> {
        let time = |d: Duration| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        };
        // A timer of zero would never fire.
        let timer = Itimerspec {
            it_interval: time(Duration::ZERO),
            it_value: time(limit.max(Duration::from_nanos(1))),
        };
        timerfd_settime(&self.deadline, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }

    /// Waits until `to` takes bytes; false: it does not, and the run is over.
    fn wait(&self, to: BorrowedFd<'_>) -> io::Result<bool> {
        let mut watched = [
            PollFd::from_borrowed_fd(to, PollFlags::OUT),
            PollFd::new(&self.terminate, PollFlags::IN),
            PollFd::new(&self.deadline, PollFlags::IN),
        ];
        loop {
            match poll(&mut watched, None) {
                // A vCPU thread is being kicked; whether the run is over the descriptors tell.
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                // A reader that has gone makes it ready as well, and the write then says so.
                Ok(_) => return Ok(!watched[0].revents().is_empty()),
            }
        }
    }
}

/// A writer that waits for its reader while [`Patience`] lasts.
pub struct PatientOutput {
    to: OwnedFd,
    patience: Patience,
}

impl PatientOutput {
    /// Output to `to`.
    pub fn new(to: OwnedFd, patience: Patience) -> Self {
        Self { to, patience }
    }
}

impl Write for PatientOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.patience.wait(self.to.as_fd())? {
            return Ok(data.len());
        }
        match rustix::io::write(&self.to, data.get(..PIECE).unwrap_or(data)) {
            // Somebody else who writes to the same pipe was quicker: wait again.
            Err(rustix::io::Errno::AGAIN) => Err(io::ErrorKind::Interrupted.into()),
            other => Ok(other?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, thread, time::Instant};

    #[test]
    fn output_waits_for_its_reader() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = PatientOutput::new(writer.into(), Patience::new().unwrap());
        let writing = thread::spawn(move || output.write_all(&[7; 200_000]).unwrap());
        let mut bytes = vec![];
        reader.read_to_end(&mut bytes).unwrap();
        writing.join().unwrap();
        assert_eq!(bytes, vec![7; 200_000]);
    }

    #[test]
    fn deadline_ends_the_wait_and_what_fits_still_goes_out() {
        let (_reader, writer) = io::pipe().unwrap();
        let patience = Patience::new().unwrap();
        patience.limit(Duration::from_millis(50)).unwrap();
        let mut output = PatientOutput::new(writer.into(), patience);
        let since = Instant::now();
        output.write_all(&[7; 200_000]).unwrap();
        assert!(since.elapsed() >= Duration::from_millis(50));
        let file = tempfile::tempfile().unwrap();
        let patience = output.patience.try_clone().unwrap();
        let mut late = PatientOutput::new(file.try_clone().unwrap().into(), patience);
        late.write_all(b"late").unwrap();
        assert_eq!(File::metadata(&file).unwrap().len(), 4);
    }

    #[test]
    fn reader_that_has_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut output = PatientOutput::new(writer.into(), Patience::new().unwrap());
        assert_eq!(output.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
