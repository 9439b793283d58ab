//! Console output to a reader that may be slow, or never read again.
//!
//! ```text
//! serial port --write--> file, pipe, terminal     while it takes bytes
//!                    \-> backlog --deliver-->     the machine's loop, when it takes some again
//! ```
//! Output is not dropped: the guest's processors wait for the reader, as any program that writes to a pipe does. They wait
//! between two exits ([`Room`]) and hold nothing meanwhile, so that neither the machine's loop nor a pause
//! nor the end of the machine waits with them. After [`Output::give_up`] what does not fit is lost.

use crate::vcpu::Room;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, Mode, OFlags, fstat, major, minor},
    io::Errno,
    net::{SendFlags, send},
    time::Timespec,
};
use std::{
    collections::VecDeque,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use vmm_sys_util::eventfd::EventFd;

/// With so much waiting, processors wait as well.
const HIGH: usize = 64 << 10;
/// What a descriptor that can only be asked takes at once when it says that it is ready (`PIPE_BUF`, at least 512 by POSIX).
const PIECE: usize = 512;
/// How often a processor that waits looks whether it is wanted elsewhere.
const LOOK: Duration = Duration::from_millis(20);
/// Device number of `/dev/ptmx`: opening one of its descriptors again would make a new terminal.
const PTMX: (u32, u32) = (5, 2);

/// Where the serial port's output goes.
pub struct Output {
    state: Mutex<State>,
    /// The same as in the state, for a look without the lock.
    full: AtomicBool,
    room: Condvar,
    /// Rung when output begins to wait: the loop is to deliver it.
    bell: EventFd,
}

struct State {
    to: Target,
    backlog: VecDeque<u8>,
    given_up: bool,
}

/// A descriptor, and how it is written without waiting.
enum Target {
    /// Never waits: a file.
    Always(OwnedFd),
    /// An open file of our own, which says when it would wait.
    NonBlocking(OwnedFd),
    /// Asked per call.
    Socket(OwnedFd),
    /// Shared with others who may not expect it to be non-blocking: asked before each piece.
    Asked(OwnedFd),
}

impl Target {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let again = || {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::Always(fd),
            FileType::Socket => Self::Socket(fd),
            FileType::CharacterDevice if (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX => Self::Asked(fd),
            // One that cannot be opened again, such as another user's terminal, can still be asked.
            _ => again().map_or(Self::Asked(fd), Self::NonBlocking),
        })
    }

    fn fd(&self) -> &OwnedFd {
        let (Self::Always(fd) | Self::NonBlocking(fd) | Self::Socket(fd) | Self::Asked(fd)) = self;
        fd
    }

    /// Writes what fits; 0 when nothing does.
    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let done = match self {
            Self::Always(fd) | Self::NonBlocking(fd) => rustix::io::write(fd, data),
            Self::Socket(fd) => send(fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Self::Asked(fd) => {
                let mut asked = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
                match poll(&mut asked, Some(&Timespec::default())) {
                    Ok(0) => Err(Errno::AGAIN),
                    // A reader that has gone makes it ready as well, and the write then says so.
                    Ok(_) => rustix::io::write(fd, data.get(..PIECE).unwrap_or(data)),
                    Err(e) => Err(e),
                }
            }
        };
        match done {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN) => Ok(0),
            // A processor's thread is being kicked.
            Err(Errno::INTR) => self.write(data),
            Err(e) => Err(e.into()),
        }
    }
}

impl State {
    /// Sends what waits, as far as it is taken.
    fn send(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() {
            let done = self.to.write(self.backlog.as_slices().0)?;
            if done == 0 {
                break;
            }
            self.backlog.drain(..done);
        }
        Ok(())
    }
}

impl Output {
    /// Output to `fd`; `bell` is rung when the loop is to [`Output::deliver`].
    pub fn new(fd: OwnedFd, bell: EventFd) -> io::Result<Arc<Self>> {
        let state = State {
            to: Target::new(fd)?,
            backlog: VecDeque::new(),
            given_up: false,
        };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            full: AtomicBool::new(false),
            room: Condvar::new(),
            bell,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor that becomes writable when [`Output::deliver`] can do something.
    pub fn fd(&self) -> RawFd {
        self.lock().to.fd().as_raw_fd()
    }

    /// Rung when output begins to wait.
    pub fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().backlog.is_empty()
    }

    /// Whether so much waits that no more should be made.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }

    /// Takes all of `data`, without waiting.
    fn take(&self, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let waited = !state.backlog.is_empty();
        // Straight out, without a copy, when there is nothing that has to come first.
        let mut rest = data;
        while !waited && !rest.is_empty() {
            match state.to.write(rest)? {
                0 => break,
                n => rest = rest.get(n..).unwrap_or_default(),
            }
        }
        if state.given_up {
            return Ok(());
        }
        state.backlog.extend(rest);
        let waits = !state.backlog.is_empty();
        self.full.store(state.backlog.len() >= HIGH, Ordering::SeqCst);
        drop(state);
        if waits && !waited {
            let _ = self.bell.write(1);
        }
        Ok(())
    }

    /// Sends what waits, as far as it is taken; true when nothing waits any more. With nobody to read it, it is lost.
    pub fn deliver(&self) -> io::Result<bool> {
        let mut state = self.lock();
        let sent = state.send();
        if sent.is_err() || state.given_up {
            state.backlog.clear();
        }
        let empty = state.backlog.is_empty();
        self.make_room(&state);
        sent.map(|()| empty)
    }

    /// From now on what does not fit at once is lost: whoever wants the end does not wait for a reader.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.given_up = true;
        let _ = state.send();
        state.backlog.clear();
        self.make_room(&state);
    }

    fn make_room(&self, state: &State) {
        if state.backlog.len() < HIGH {
            self.full.store(false, Ordering::SeqCst);
            self.room.notify_all();
        }
    }
}

/// For a processor on its way to the guest.
impl Room for Output {
    fn wait(&self, stay: &dyn Fn() -> bool) -> bool {
        if !self.is_full() {
            return false;
        }
        let mut state = self.lock();
        while self.is_full() && stay() {
            let waited = self.room.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The serial port's end of an [`Output`].
pub struct Sink(pub Arc<Output>);

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.take(data).map(|()| data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        os::unix::net::UnixStream,
        thread,
        time::{Duration, Instant},
    };

    fn output(to: impl Into<OwnedFd>) -> Arc<Output> {
        Output::new(to.into(), EventFd::new(libc::EFD_NONBLOCK).unwrap()).unwrap()
    }

    /// As the loop does, and a processor that makes more whenever it may.
    fn carry(output: &Arc<Output>, pieces: usize) {
        let writer = output.clone();
        let writing = thread::spawn(move || {
            let mut sink = Sink(writer.clone());
            for _ in 0..pieces {
                writer.wait(&|| true);
                sink.write_all(&[7; 1000]).unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(writing.is_finished() && output.deliver().unwrap()) {
            assert!(output.lock().backlog.len() < HIGH + 1000, "more waits than may");
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_micros(200));
        }
        writing.join().unwrap();
    }

    #[test]
    fn slow_reader_gets_every_byte_of_every_kind_of_descriptor() {
        let (mut reader, writer) = io::pipe().unwrap();
        let reading = thread::spawn(move || {
            let mut bytes = vec![];
            reader.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let to_pipe = output(writer);
        assert!(matches!(to_pipe.lock().to, Target::NonBlocking(_)));
        carry(&to_pipe, 300);
        drop(to_pipe);
        assert_eq!(reading.join().unwrap(), 300_000);

        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let reading = thread::spawn(move || {
            let mut bytes = vec![];
            theirs.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let to_socket = output(ours);
        carry(&to_socket, 500);
        drop(to_socket);
        assert_eq!(reading.join().unwrap(), 500_000);

        let file = tempfile::tempfile().unwrap();
        carry(&output(file.try_clone().unwrap()), 100);
        assert_eq!(file.metadata().unwrap().len(), 100_000);
    }

    #[test]
    fn nothing_waits_for_a_reader_who_never_reads_and_the_bell_rings_once() {
        let (_reader, writer) = io::pipe().unwrap();
        let output = output(writer);
        let mut sink = Sink(output.clone());
        sink.write_all(&[7; 65_536]).unwrap();
        assert!(output.is_empty() && output.bell().read().is_err());
        for _ in 0..HIGH {
            sink.write_all(b"x").unwrap();
        }
        assert!(output.is_full() && !output.deliver().unwrap());
        assert_eq!(output.bell().read().unwrap(), 1);
        let since = Instant::now();
        output.wait(&|| since.elapsed() < Duration::from_millis(50));
        assert!(output.is_full());
        output.give_up();
        assert!(output.is_empty() && !output.is_full());
        sink.write_all(&[7; 100_000]).unwrap();
        assert!(output.is_empty(), "what does not fit is lost now");
    }

    #[test]
    fn shared_descriptors_stay_as_they_were() {
        let (_reader, writer) = io::pipe().unwrap();
        let output = output(writer.try_clone().unwrap());
        assert!(!output.is_full());
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "others write to it as well");
    }

    #[test]
    fn reader_that_has_gone_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        let output = output(writer);
        let mut sink = Sink(output.clone());
        sink.write_all(&[7; 70_000]).unwrap();
        assert!(!output.is_empty());
        drop(reader);
        assert_eq!(output.deliver().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(output.is_empty());
        assert_eq!(sink.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
