//! KVM: the only importer of the kvm crates, and with `memory` the home of `unsafe`.
//!
//! [`Kvm`] is the door, [`Vm`] one virtual machine with its in-kernel interrupt controllers, [`Vcpu`] one processor. What
//! leaves this module is plain data ([`Exit`], [`crate::cpuid::CpuidEntry`], [`crate::boot::CpuState`]).

mod coalesced;
mod kvm;
mod mce;
mod msr;
pub mod probe;
pub mod signal;
pub mod spawn;
mod tap;
mod vcpu;
mod vm;
mod xen;

pub use coalesced::{CoalescedPorts, PortWrite};
pub use kvm::{Kvm, KvmError};
pub use mce::McePort;
pub use msr::NoMsrExits;
pub use tap::{TapError, open_tap};
pub use vcpu::{Exit, Hypercall, Kick, Operands, OwnLoads, Vcpu, install_kick_handler};
pub use vm::{IrqLine, MemorySlot, SlotFlags, Vm};
pub use xen::{HYPERCALL_MSR, NoXen};

/// A KVM call that failed.
#[derive(Debug, thiserror::Error)]
#[error("KVM refused to {what}")]
pub struct HvError {
    /// What was asked, as "set the registers of vCPU 3".
    pub what: String,
    /// The kernel's answer.
    #[source]
    pub source: std::io::Error,
}

/// Turns an errno of the kvm crates into an [`HvError`] that says what was asked.
fn refused(what: impl Into<String>) -> impl FnOnce(kvm_ioctls::Error) -> HvError {
    move |errno| HvError {
        what: what.into(),
        source: std::io::Error::from_raw_os_error(errno.errno()),
    }
}
