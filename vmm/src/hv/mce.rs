//! Machine checks of a vCPU. The kvm crates have no wrappers for these ioctls, so they are defined here.

use super::{HvError, Kvm, Vcpu};
use crate::mce::{BANKS, Banks, CR4_MCE, FEATURE_CONTROL_LMCE, Personality, Record, cap, msr};
use kvm_bindings::{KVMIO, kvm_msr_entry, kvm_sregs};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};
use vmm_sys_util::{
    ioctl::{ioctl_with_mut_ref, ioctl_with_ref},
    ioctl_ior_nr, ioctl_iow_nr, ioctl_iowr_nr,
};

/// `struct kvm_x86_mce` of the kernel's user interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct KvmX86Mce {
    status: u64,
    addr: u64,
    misc: u64,
    mcg_status: u64,
    bank: u8,
    pad1: [u8; 7],
    pad2: [u64; 3],
}

const _: () = assert!(size_of::<KvmX86Mce>() == 64);

/// Registers read at once: `MCG_STATUS`, `MCG_CTL`, `MCG_EXT_CTL` and the banks' controls.
const WORDS: usize = 3 + BANKS as usize;

/// `struct kvm_msrs` with room for them.
#[repr(C)]
struct KvmMsrs {
    nmsrs: u32,
    pad: u32,
    entries: [kvm_msr_entry; WORDS],
}

/// The header's size is what the ioctl's number has.
#[repr(C)]
struct KvmMsrsHeader {
    nmsrs: u32,
    pad: u32,
}

ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);
ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
ioctl_iow_nr!(KVM_X86_SET_MCE, KVMIO, 0x9e, KvmX86Mce);
ioctl_ior_nr!(KVM_GET_SREGS, KVMIO, 0x83, kvm_sregs);
ioctl_iowr_nr!(KVM_GET_MSRS, KVMIO, 0x88, KvmMsrsHeader);

fn done(result: libc::c_int, what: impl FnOnce() -> String) -> Result<libc::c_int, HvError> {
    if result >= 0 {
        return Ok(result);
    }
    let source = io::Error::last_os_error();
    Err(HvError { what: what(), source })
}

impl Kvm {
    /// Bits of `MCG_CAP` that vCPUs can be given.
    pub fn mce_supported(&self) -> Result<u64, HvError> {
        let mut word = 0u64;
        // SAFETY: the kernel writes one u64 to where `word` is.
        let result = unsafe { ioctl_with_mut_ref(self.fd(), KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut word) };
        done(result, || "tell what machine checks it supports".into())?;
        Ok(word)
    }
}

impl Vcpu {
    /// Gives the vCPU its machine check banks.
    pub fn set_up_mce(&self, personality: &Personality) -> Result<(), HvError> {
        let what = |what: &str| format!("{what} of vCPU {}", self.apic_id());
        // SAFETY: the kernel reads one u64 from where the word is.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_X86_SETUP_MCE(), &personality.held) };
        done(result, || what("set up the machine check banks"))?;
        if personality.held & cap::LMCE != 0 {
            // As firmware does, or the guest does not use what it is promised.
            self.set_msr(msr::FEATURE_CONTROL, FEATURE_CONTROL_LMCE)?;
        }
        Ok(())
    }

    /// A handle for machine checks that another thread may hold.
    pub fn mce_port(&self, personality: &Personality) -> Result<McePort, HvError> {
        let failed = |source| HvError {
            what: format!("share vCPU {}", self.apic_id()),
            source,
        };
        // SAFETY: the descriptor is open for as long as `self`, and the clone is a descriptor of its own.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd().as_raw_fd()) };
        Ok(McePort {
            fd: fd.try_clone_to_owned().map_err(failed)?,
            apic_id: self.apic_id(),
            cap: personality.held,
        })
    }
}

/// The machine check registers of one vCPU. Calls wait while the vCPU is in the guest, so it has to stand still.
#[derive(Debug)]
pub struct McePort {
    fd: OwnedFd,
    apic_id: u32,
    cap: u64,
}

impl McePort {
    /// Whose.
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    fn what(&self, what: &str) -> String {
        format!("{what} of vCPU {}", self.apic_id)
    }

    /// `MCG_CAP` as KVM has it: on AMD's processors fewer bits than it was given.
    pub fn mcg_cap(&self) -> Result<u64, HvError> {
        Ok(self.msrs(&[msr::MCG_CAP])?[0])
    }

    /// What the registers hold.
    pub fn banks(&self) -> Result<Banks, HvError> {
        let mut sregs = kvm_sregs::default();
        // SAFETY: the kernel writes a `kvm_sregs` to where one is.
        let result = unsafe { ioctl_with_mut_ref(&self.fd, KVM_GET_SREGS(), &mut sregs) };
        done(result, || self.what("read the system registers"))?;
        let mut banks = Banks {
            cr4: sregs.cr4 & CR4_MCE,
            ..Banks::default()
        };
        banks.global = self.msrs(&[msr::MCG_STATUS])?[0];
        if self.cap & cap::CTL != 0 {
            banks.global_ctl = Some(self.msrs(&[msr::MCG_CTL])?[0]);
        }
        if self.cap & cap::LMCE != 0 {
            banks.extended_ctl = self.msrs(&[msr::MCG_EXT_CTL])?[0];
        }
        let numbers: Vec<u32> = (0..u32::from(BANKS)).map(|bank| msr::MC0_CTL + 4 * bank).collect();
        let words = self.msrs(&numbers)?;
        for (ctl, word) in banks.ctl.iter_mut().zip(words) {
            *ctl = word;
        }
        Ok(banks)
    }

    fn msrs(&self, numbers: &[u32]) -> Result<[u64; WORDS], HvError> {
        let mut msrs = KvmMsrs {
            nmsrs: 0,
            pad: 0,
            entries: [kvm_msr_entry::default(); WORDS],
        };
        for (entry, index) in msrs.entries.iter_mut().zip(numbers) {
            entry.index = *index;
            msrs.nmsrs += 1;
        }
        // SAFETY: the kernel reads and writes `nmsrs` entries behind the header, and there are at least as many.
        let result = unsafe { ioctl_with_mut_ref(&self.fd, KVM_GET_MSRS(), &mut msrs) };
        let read = done(result, || self.what("read the machine check registers"))?;
        if usize::try_from(read) != Ok(numbers.len()) {
            let source = io::Error::from(io::ErrorKind::Unsupported);
            let what = self.what("read the machine check registers");
            return Err(HvError { what, source });
        }
        Ok(msrs.entries.map(|entry| entry.data))
    }

    /// Fills a bank, and queues #MC if the record asks for it. The caller has seen that the processor admits the record.
    pub fn inject(&self, record: &Record) -> Result<(), HvError> {
        let mce = KvmX86Mce {
            status: record.status,
            addr: record.address,
            misc: record.misc,
            mcg_status: record.global,
            bank: record.bank,
            ..KvmX86Mce::default()
        };
        // SAFETY: the kernel reads a `kvm_x86_mce` from where one is.
        let result = unsafe { ioctl_with_ref(&self.fd, KVM_X86_SET_MCE(), &mce) };
        done(result, || self.what("fill a machine check bank")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_the_kernels() {
        assert_eq!(KVM_X86_GET_MCE_CAP_SUPPORTED(), 0x8008_ae9d);
        assert_eq!(KVM_X86_SETUP_MCE(), 0x4008_ae9c);
        assert_eq!(KVM_X86_SET_MCE(), 0x4040_ae9e);
        assert_eq!(KVM_GET_SREGS(), 0x8138_ae83);
        assert_eq!(KVM_GET_MSRS(), 0xc008_ae88);
    }
}
