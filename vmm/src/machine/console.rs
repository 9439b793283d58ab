//! Where the first serial port goes, and where its input comes from.

use super::{
    output::{Output, Sink},
    terminal::{Escape, RawTerminal},
};
use crate::config::ConsoleConfig;
use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::Arc,
};
use vmm_sys_util::eventfd::EventFd;

/// Set in the environment when standard input is a pipe from a terminal in raw mode elsewhere, so that its escape key counts.
pub const TERMINAL: &str = "DAXVISOR_TERMINAL";

/// Why the console cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The file cannot be written.
    #[error("cannot open console file {0}")]
    File(PathBuf, #[source] io::Error),
    /// No pseudo terminal.
    #[error("cannot open a pseudo terminal for the console")]
    Pty(#[source] io::Error),
    /// Its descriptor cannot be used.
    #[error("cannot write to the console")]
    Output(#[source] io::Error),
    /// The terminal refuses raw mode.
    #[error("cannot put the terminal into raw mode")]
    Terminal(#[source] io::Error),
}

/// Takes as many of some bytes as their reader has patience for; how many.
pub type Printer = Box<dyn FnMut(&[u8]) -> usize + Send>;

/// Host side of a guest's console.
pub struct Console {
    target: Target,
    input: Option<Input>,
}

/// Where the guest's output goes.
enum Target {
    /// Nowhere.
    Nothing,
    /// To a reader that is waited for.
    Patient(Arc<Output>),
    /// To a terminal that may have no reader.
    Pty(PtyOutput),
}

/// A console that goes nowhere.
impl Default for Console {
    fn default() -> Self {
        Self {
            target: Target::Nothing,
            input: None,
        }
    }
}

struct Input {
    fd: OwnedFd,
    /// Only an interactive terminal has an escape key.
    escape: Option<Escape>,
    _raw: Option<RawTerminal>,
}

/// What one look at the input brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the guest (possibly none, when it was only half of an escape).
    Bytes(Vec<u8>),
    /// The user asked to leave.
    Leave,
    /// No more input will ever come.
    End,
}

impl Console {
    /// Opens what the configuration names; the name of a new pseudo terminal goes to standard error, for the guest's `what`.
    pub fn open(config: &ConsoleConfig, what: &str) -> Result<Self, ConsoleError> {
        match config {
            ConsoleConfig::None => Ok(Self::default()),
            ConsoleConfig::File(path) => {
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
                let file = file.map_err(|e| ConsoleError::File(path.clone(), e))?;
                // It may be a named pipe.
                Self::patient(file.into(), None)
            }
            ConsoleConfig::Stdio => {
                let raw = RawTerminal::enter().map_err(ConsoleError::Terminal)?;
                let fd = io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(ConsoleError::Terminal)?;
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(ConsoleError::Terminal)?;
                let escape = (raw.is_some() || std::env::var_os(TERMINAL).is_some()).then(Escape::default);
                Self::patient(stdout, Some(Input { fd, escape, _raw: raw }))
            }
            ConsoleConfig::Pty => Self::pty(what).map_err(ConsoleError::Pty),
        }
    }

    /// Output that waits for its reader.
    fn patient(to: OwnedFd, input: Option<Input>) -> Result<Self, ConsoleError> {
        let bell = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let output = bell
            .and_then(|bell| Output::new(to, bell))
            .map_err(ConsoleError::Output)?;
        Ok(Self {
            target: Target::Patient(output),
            input,
        })
    }

    fn pty(what: &str) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, vec![])?;
        // Kept open for ever as our input's twin, so that a reader who leaves does not hang the line up.
        let mode = rustix::fs::Mode::empty();
        let terminal = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, mode)?;
        let mut raw = tcgetattr(&terminal)?;
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        eprintln!("daxvisor: the guest's {what} is {}", name.to_string_lossy());
        // Nobody may be reading: output beyond the terminal's buffer is dropped rather than stalling the guest.
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let output = PtyOutput {
            master: File::from(master.try_clone()?),
            terminal,
        };
        Ok(Self {
            target: Target::Pty(output),
            input: Some(Input {
                fd: master,
                escape: None,
                _raw: None,
            }),
        })
    }

    /// A way for a guest's output; of one guest at a time.
    pub fn output(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match &self.target {
            Target::Nothing => Box::new(io::sink()),
            Target::Patient(output) => Box::new(Sink(output.clone())),
            Target::Pty(output) => Box::new(output.try_clone()?),
        })
    }

    /// A way for output of a guest that can wait for its reader.
    pub fn printer(&self) -> io::Result<Printer> {
        let mut output = self.output()?;
        let backlog = self.backlog().cloned();
        Ok(Box::new(move |bytes| {
            if backlog.as_ref().is_some_and(|backlog| backlog.is_full()) {
                return 0;
            }
            if let Err(error) = output.write_all(bytes) {
                tracing::warn!("console output is lost: {error}");
            }
            bytes.len()
        }))
    }

    /// Where output may wait for its reader; nowhere else.
    pub fn backlog(&self) -> Option<&Arc<Output>> {
        match &self.target {
            Target::Patient(output) => Some(output),
            Target::Nothing | Target::Pty(_) => None,
        }
    }

    /// The descriptor to wait on, while there is input to wait for.
    pub fn input_fd(&self) -> Option<RawFd> {
        self.input.as_ref().map(|i| i.fd.as_raw_fd())
    }

    /// Takes what has been typed, at most `limit` bytes. To be called when the descriptor is readable.
    pub fn read(&mut self, limit: usize) -> Typed {
        let Some(input) = &mut self.input else {
            return Typed::End;
        };
        let mut buffer = vec![0; limit.min(4096)];
        match read_fd(input.fd.as_fd(), &mut buffer) {
            Ok(0) => Typed::End,
            Ok(n) => match &mut input.escape {
                None => Typed::Bytes(buffer[..n].to_vec()),
                Some(escape) => match escape.filter(&buffer[..n]) {
                    (_, true) => Typed::Leave,
                    (bytes, false) => Typed::Bytes(bytes),
                },
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Typed::Bytes(vec![])
            }
            Err(_) => Typed::End,
        }
    }
}

fn read_fd(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(fd, buffer)?)
}

struct PtyOutput {
    master: File,
    terminal: OwnedFd,
}

impl PtyOutput {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            master: self.master.try_clone()?,
            terminal: self.terminal.try_clone()?,
        })
    }
}

impl Write for PtyOutput {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.master.write(data) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(data.len()),
            other => other,
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
