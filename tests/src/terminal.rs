//! A pseudo terminal as a user's terminal, and reading one with a deadline.

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, tcgetattr},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    user: OwnedFd,
    program: OwnedFd,
}

fn open(path: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Terminal {
    /// A new one, in its usual (cooked) mode.
    pub fn new() -> Result<Self> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let program = open(&ptsname(&user, vec![])?)?;
        Ok(Self { user, program })
    }

    /// The program's end, for its standard streams.
    pub fn stdio(&self) -> Result<Stdio> {
        Ok(self.program.try_clone()?.into())
    }

    /// The user's end.
    pub fn user(&self) -> &OwnedFd {
        &self.user
    }

    /// Modes as they are, without what the kernel does not keep for a program.
    pub fn modes(&self) -> Result<Modes> {
        Ok(Modes::of(&tcgetattr(&self.program)?))
    }
}

/// What a program changes of a terminal and has to put back.
#[derive(Debug, PartialEq, Eq)]
pub struct Modes(String);

impl Modes {
    fn of(t: &Termios) -> Self {
        Self(format!(
            "{:?} {:?} {:?} {:?} {:?}",
            t.input_modes, t.output_modes, t.control_modes, t.local_modes, t.special_codes
        ))
    }
}

/// Opens somebody else's pseudo terminal.
pub fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("cannot open {}", path.display()))
}

/// Types.
pub fn type_in(terminal: impl AsFd, mut keys: &[u8]) -> Result<()> {
    while !keys.is_empty() {
        let n = rustix::io::write(&terminal, keys)?;
        keys = &keys[n..];
    }
    Ok(())
}

/// Reads until `wanted` was seen; gives all that was read.
pub fn read_until(terminal: impl AsFd, wanted: &str, timeout: Duration) -> Result<String> {
    let deadline = Instant::now() + timeout;
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if text.contains(wanted) {
            return Ok(text.into_owned());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "the terminal did not show {wanted:?} in {} s, but: {text}",
                timeout.as_secs()
            );
        }
        let mut fds = [PollFd::new(&terminal, PollFlags::IN)];
        let limit = Timespec::try_from(left).context("timeout")?;
        poll(&mut fds, Some(&limit))?;
        if fds[0].revents().contains(PollFlags::IN) {
            let mut bytes = [0; 4096];
            let n = rustix::io::read(&terminal, &mut bytes)?;
            seen.extend_from_slice(&bytes[..n]);
        } else if !fds[0].revents().is_empty() {
            bail!("the terminal hung up before it showed {wanted:?}: {text}");
        }
    }
}
