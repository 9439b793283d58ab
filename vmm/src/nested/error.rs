//! What can go wrong with the nested host itself.

use crate::images::{ManifestError, default_dir};
use std::{fmt, io, path::PathBuf, time::Duration};

/// Why the nested host cannot do its work. None of these says anything about the command.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No images.
    #[error(transparent)]
    Images(#[from] ManifestError),
    /// A folder that cannot be shared.
    #[error("cannot share {path}: {why}")]
    Share {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// More shares and arguments than the kernel command line takes.
    #[error("the shared folders and kernel arguments need a kernel command line of {0} bytes, expected at most {max}; hint: share a common parent folder", max = super::qemu::CMDLINE_MAX)]
    TooManyShares(usize),
    /// QEMU is not there or does not start.
    #[error("cannot start {program}; hint: install the package qemu-system-x86 or run `cargo xtask images`")]
    Qemu {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent did not say hello in time.
    #[error("the nested host did not come up within {after:.0?}{tail}")]
    NotUp {
        /// The deadline.
        after: Duration,
        /// Its last words.
        tail: SerialTail,
    },
    /// QEMU ended by itself.
    #[error("the nested host's QEMU ended unexpectedly ({status}){tail}")]
    Died {
        /// QEMU's exit status.
        status: String,
        /// Its last words.
        tail: SerialTail,
    },
    /// No sign of life.
    #[error("the nested host hangs: no answer for {silent:.0?}{tail}")]
    Hung {
        /// Since when.
        silent: Duration,
        /// Its last words.
        tail: SerialTail,
    },
    /// Its kernel says that a CPU is stuck.
    #[error("the nested host hangs: its kernel reports \"{report}\"{tail}")]
    LockedUp {
        /// The kernel's line.
        report: String,
        /// Its last words.
        tail: SerialTail,
    },
    /// Its kernel says that it is broken.
    #[error("the nested host is broken: its kernel reports \"{report}\"{tail}")]
    Broken {
        /// The kernel's first line about it.
        report: String,
        /// Its last words.
        tail: SerialTail,
    },
    /// The agent speaks another version of the protocol.
    #[error("the nested host's agent speaks protocol {theirs}, expected {ours}; hint: run `cargo xtask images` again", ours = agent_protocol::VERSION)]
    Version {
        /// The agent's version.
        theirs: u32,
    },
    /// The channel carried something that is no frame.
    #[error("the nested host's agent channel failed: {0}")]
    Channel(String),
    /// A signal to us while there was no command that could have it.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// Something on this side.
    #[error("{what}")]
    Io {
        /// What we tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl HostError {
    /// For `map_err`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    /// Whether the machine, rather than the request, is to blame when this ends a start: then a second try is worth it.
    pub fn start_may_be_retried(&self) -> bool {
        matches!(
            self,
            Self::NotUp { .. }
                | Self::Died { .. }
                | Self::Hung { .. }
                | Self::LockedUp { .. }
                | Self::Broken { .. }
                | Self::Channel(_)
        )
    }

    /// The exit code of a command line tool that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted(signal) => super::run::signal_code(*signal),
            _ => super::INFRASTRUCTURE_FAILURE,
        }
    }

    /// No images to start from, in the default folder.
    pub(super) fn no_host() -> Self {
        ManifestError::NoHost(default_dir()).into()
    }
}

/// The end of L1's serial log (and what QEMU said), for quoting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SerialTail {
    /// The last lines.
    pub lines: Vec<String>,
    /// Where all of it is kept.
    pub path: PathBuf,
}

impl fmt::Display for SerialTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lines.is_empty() {
            return write!(f, "; its serial log is empty");
        }
        write!(f, "; its serial log, kept in {}, ends:", self.path.display())?;
        self.lines.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}
