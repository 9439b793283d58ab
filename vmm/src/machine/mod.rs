//! The machine: owner of everything, and its event loop.
//!
//! ```text
//!   Machine::build            Machine::run
//!   (nothing) ----> (ready) ---------------> Outcome
//! ```
//!
//! [`build`] composes it in one pass, [`events`] runs it on one thread. vCPU threads send reports, never touch it.

mod build;
pub mod channel;
pub mod console;
pub mod control;
mod disk;
pub mod events;
mod fault;
mod growth;
mod hotplug;
mod images;
mod net;
mod nvdimm;
mod operations;
pub mod output;
mod platform;
mod ranges;
pub mod records;
mod refusal;
mod restart;
mod secure;
mod share;
pub mod socket;
mod tail;
pub mod terminal;
mod virtio;
mod vsock;

pub use build::{BuildError, Machine, Plans, acpi_input};
pub use restart::{Kept, OnReset, RunLimits};

use std::fmt;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest entered ACPI S5.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked.
    Panicked,
    /// The guest wrote this value to the test-exit port.
    TestExit(u8),
    /// A processor of the guest shut down.
    TripleFault {
        /// Which.
        apic_id: u32,
    },
    /// The guest consumed bad memory where it could take no machine check: real hardware shuts down.
    MachineCheck {
        /// On which processor.
        apic_id: u32,
        /// One sentence.
        why: String,
    },
    /// KVM cannot run the guest any further.
    Failed {
        /// On which processor.
        apic_id: u32,
        /// One sentence.
        why: String,
    },
    /// The user left the console with Ctrl-A x.
    Quit,
    /// A client of the API asked for it.
    QuitByControl,
    /// A client of the API has the machine start again.
    ResetByControl,
    /// A signal asked the monitor to end.
    Signal(u8),
    /// The time given to the run is over.
    TimedOut,
}

impl Outcome {
    /// Whether the guest itself brought the run to its end, with all it wanted to keep written.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::PowerOff | Self::Reset | Self::TestExit(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest asked for a reset"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::TestExit(value) => write!(f, "the guest ended the run with test-exit value {value:#x}"),
            Self::TripleFault { apic_id } => write!(f, "vCPU {apic_id} of the guest triple-faulted"),
            Self::MachineCheck { apic_id, why } => {
                write!(f, "vCPU {apic_id} of the guest shut down on bad memory: {why}")
            }
            Self::Failed { apic_id, why } => write!(f, "vCPU {apic_id} cannot go on: {why}"),
            Self::Quit => f.write_str("ended from the console"),
            Self::QuitByControl => f.write_str("ended over the API"),
            Self::ResetByControl => f.write_str("reset over the API"),
            Self::Signal(number) => write!(f, "ended by signal {number}"),
            Self::TimedOut => f.write_str("the time given to the run is over"),
        }
    }
}
