//! An idle virtual machine in the nested host, held for as long as it runs.
//!
//! KVM patches its own code, and the scheduler's, when the first machine comes and when the last goes, and whenever the first
//! virtual processor with a disabled local APIC comes and the last goes (static keys). QEMU with several emulation threads may
//! still execute the breakpoint of such a change when it is over, and then the nested host's kernel oopses. With a machine
//! that is always there, whose one processor never starts and so never enables its APIC, nothing is patched any more.

use anyhow::{Context, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Makes that machine; it goes with the caller's hold of it.
pub fn machine() -> Result<(VmFd, VcpuFd)> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("cannot create the idle machine")?;
    vm.create_irq_chip()
        .context("cannot create the idle machine's interrupt controller")?;
    let vcpu = vm
        .create_vcpu(0)
        .context("cannot create the idle machine's processor")?;
    Ok((vm, vcpu))
}
