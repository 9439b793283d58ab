//! Registers whose reads come back as exits: the machine shows something else than KVM holds.

use super::{HvError, Kvm, Vcpu, Vm, refused};
use kvm_bindings::{KVM_CAP_X86_MSR_FILTER, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER, kvm_enable_cap};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags};

/// This KVM cannot do it.
#[derive(Debug, thiserror::Error)]
#[error(
    "this KVM does not hand over a guest's reads of MCG_CAP, which extlog=on of apei needs (KVM_CAP_X86_USER_SPACE_MSR is {exits}, \
     KVM_CAP_X86_MSR_FILTER is {filter}, expected both above 0); hint: a host kernel from 5.10 on does, or `--host nested`, or leave \
     extlog out"
)]
pub struct NoMsrExits {
    exits: i32,
    filter: i32,
}

impl Kvm {
    /// Whether reads of single registers can come back as exits.
    pub fn check_msr_exits(&self) -> Result<(), NoMsrExits> {
        let has = |cap: u32| self.fd().check_extension_raw(cap.into());
        let (exits, filter) = (has(KVM_CAP_X86_USER_SPACE_MSR), has(KVM_CAP_X86_MSR_FILTER));
        match exits > 0 && filter > 0 {
            true => Ok(()),
            false => Err(NoMsrExits { exits, filter }),
        }
    }
}

impl Vm {
    /// From now on reads of the register with this number are exits, and nothing else is. Before the first vCPU runs.
    pub fn exit_on_reads(&self, msr: u32) -> Result<(), HvError> {
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            args: [KVM_MSR_EXIT_REASON_FILTER.into(), 0, 0, 0],
            ..Default::default()
        };
        let what = format!("hand over reads of MSR {msr:#x}");
        self.fd().enable_cap(&cap).map_err(refused(what.clone()))?;
        let range = MsrFilterRange {
            flags: MsrFilterRangeFlags::READ,
            base: msr,
            msr_count: 1,
            // A bit that is 0 denies.
            bitmap: &[0],
        };
        let filter = self.fd().set_msr_filter(MsrFilterDefaultAction::ALLOW, &[range]);
        filter.map_err(refused(what))
    }
}

impl Vcpu {
    /// What the guest reads from `MCG_CAP`, of a machine whose reads of it are exits.
    pub fn show_mcg_cap(&mut self, word: u64) {
        self.mcg_cap = word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_that_cannot_is_named_with_what_it_lacks() {
        let (exits, filter) = (1, 0);
        let said = NoMsrExits { exits, filter }.to_string();
        assert!(
            said.starts_with("this KVM does not hand over a guest's reads of MCG_CAP, which extlog=on of apei needs")
                && said
                    .contains("KVM_CAP_X86_MSR_FILTER is 0, expected both above 0); hint: a host kernel from 5.10 on"),
            "{said}"
        );
    }
}
