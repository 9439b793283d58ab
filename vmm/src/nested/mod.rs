//! The nested host: QEMU-TCG with nested SVM, for machines whose KVM cannot run an unmodified kernel.
//!
//! Owns the machine ("L1") from QEMU's command line to its last breath. L1 boots a kernel with KVM and the guest agent as
//! init, sees the file system of this machine at the same paths (read-only but for the shared folders) and runs commands
//! for us over the agent's channel.
//!
//! ```text
//!  Host::launch --> starting --Hello--> up --exec--> Running --Exited--> up --shutdown/Drop--> gone
//!                      |                 |              |
//!                      +--deadline-------+--no Pong-----+--QEMU ended--> faulted (HostError, exit code 125) --> gone
//! ```
//!
//! A fault of L1 is never the command's failure and never a pass: it has its own exit code, [`INFRASTRUCTURE_FAILURE`].
//! Callers: `cli` (`daxvisor host`), `daxvisor run` through [`choose`] and [`reexec_in_host`], and tests.

mod bridge;
mod choose;
pub mod cli;
mod error;
mod host;
mod options;
mod qemu;
mod reexec;
mod run;
mod serial;
mod signals;
mod stdin;
mod supervise;
mod terminal;
#[cfg(test)]
mod tests;

pub use choose::{HostChoice, Place, announcement, choose, inside};
pub use error::{HostError, SerialTail};
pub use host::{Control, Event, Host, Running};
pub use options::{HostOptions, plan_shares};
pub use reexec::{Reexec, folders_of_hidden, hidden_shares, reexec_in_host, shares_of};
pub use run::{Outcome, RunOptions, StdinMode, run_command};

/// Exit code when the nested host failed, not the command.
pub const INFRASTRUCTURE_FAILURE: u8 = 125;
/// Exit code when the command ran longer than `--timeout`.
pub const TIMED_OUT: u8 = 124;
/// Exit code when the command could not be started.
pub const NOT_STARTED: u8 = 127;
