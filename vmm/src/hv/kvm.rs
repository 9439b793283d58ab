//! `/dev/kvm` and what it can do.

use super::{HvError, Vm, refused};
use crate::cpuid::CpuidEntry;
use kvm_bindings::{KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;
use std::io;

/// The KVM device.
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
}

/// Why KVM cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No such device.
    #[error("/dev/kvm is missing; hint: load the module kvm_intel or kvm_amd, or run with `--host nested`")]
    Missing,
    /// Not for this user.
    #[error("/dev/kvm may not be opened by this user; hint: join the group `kvm`, or run as root")]
    Permission(#[source] io::Error),
    /// Anything else.
    #[error("/dev/kvm cannot be opened")]
    Open(#[source] io::Error),
    /// Not the KVM of the last twenty years.
    #[error("/dev/kvm speaks API version {0}, expected {KVM_API_VERSION}")]
    Version(i32),
    /// A capability that daxvisor cannot work without.
    #[error(
        "this KVM lacks {0}; hint: `daxvisor host check` tells what this machine can do, `--host nested` brings its own KVM"
    )]
    Capability(&'static str),
}

/// Capabilities without which nothing works, with the name to complain under.
const REQUIRED: [(Cap, &str); 6] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
];

impl Kvm {
    /// Opens the device and checks what every machine needs.
    pub fn open() -> Result<Self, KvmError> {
        let fd = kvm_ioctls::Kvm::new().map_err(|e| {
            let error = io::Error::from_raw_os_error(e.errno());
            match error.kind() {
                io::ErrorKind::NotFound => KvmError::Missing,
                io::ErrorKind::PermissionDenied => KvmError::Permission(error),
                _ => KvmError::Open(error),
            }
        })?;
        let version = fd.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(KvmError::Version(version));
        }
        match REQUIRED.iter().find(|(cap, _)| !fd.check_extension(*cap)) {
            Some((_, name)) => Err(KvmError::Capability(name)),
            None => Ok(Self { fd }),
        }
    }

    pub(super) fn fd(&self) -> &kvm_ioctls::Kvm {
        &self.fd
    }

    /// A new, empty virtual machine.
    pub fn create_vm(&self) -> Result<Vm, HvError> {
        let fd = self.fd.create_vm().map_err(refused("create a virtual machine"))?;
        Vm::new(fd, self.fd.check_extension(Cap::ReadonlyMem))
    }

    /// CPUID as KVM supports it on this host.
    pub fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, HvError> {
        let cpuid = self
            .fd
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("list its CPUID"))?;
        Ok(cpuid.as_slice().iter().map(super::vcpu::plain_cpuid).collect())
    }

    /// Whether the local APIC offers the TSC deadline timer (not part of the supported CPUID).
    pub fn has_tsc_deadline(&self) -> bool {
        self.fd.check_extension(Cap::TscDeadlineTimer)
    }

    /// Frequency in kHz of the time stamp counter of vCPUs.
    pub fn tsc_khz(&self) -> Result<u32, HvError> {
        let asked = "tell the frequency of the time stamp counter";
        // Only a vCPU knows; one of a machine that goes again.
        let vm = self.fd.create_vm().map_err(refused(asked))?;
        let vcpu = vm.create_vcpu(0).map_err(refused(asked))?;
        vcpu.get_tsc_khz().map_err(refused(asked))
    }

    /// vCPUs KVM accepts in one machine.
    pub fn max_vcpus(&self) -> usize {
        self.fd.get_max_vcpus()
    }
}
