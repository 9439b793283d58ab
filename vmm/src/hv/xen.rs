//! KVM's part of the Xen personality: it hands hypercalls over, writes time and events to the guest's pages, and injects the vector
//! that tells of events. The kvm crates have no wrappers for these ioctls, so they are defined here.

use super::{HvError, Kvm, Vcpu, Vm};
use devices::{
    units::Gpa,
    xen::{Area, abi::PAGE},
};
use kvm_bindings::{
    KVM_CAP_XEN_HVM, KVM_XEN_ATTR_TYPE_EVTCHN, KVM_XEN_ATTR_TYPE_LONG_MODE, KVM_XEN_ATTR_TYPE_SHARED_INFO,
    KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, KVM_XEN_EVTCHN_DEASSIGN, KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
    KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, KVM_XEN_HVM_CONFIG_RUNSTATE, KVM_XEN_HVM_CONFIG_SHARED_INFO,
    KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, KVM_XEN_VCPU_ATTR_TYPE_TIMER, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR,
    KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, KVMIO,
    kvm_irq_routing_xen_evtchn, kvm_xen_hvm_attr, kvm_xen_hvm_config, kvm_xen_vcpu_attr,
};
use std::io;
use vmm_sys_util::{ioctl::ioctl_with_ref, ioctl_iow_nr};

ioctl_iow_nr!(KVM_XEN_HVM_CONFIG, KVMIO, 0x7a, kvm_xen_hvm_config);
ioctl_iow_nr!(KVM_XEN_HVM_SET_ATTR, KVMIO, 0xc9, kvm_xen_hvm_attr);
ioctl_iow_nr!(KVM_XEN_VCPU_SET_ATTR, KVMIO, 0xcb, kvm_xen_vcpu_attr);
ioctl_iow_nr!(KVM_XEN_HVM_EVTCHN_SEND, KVMIO, 0xd0, kvm_irq_routing_xen_evtchn);

/// Register to which a guest writes the address of its hypercall page; CPUID says so.
pub const HYPERCALL_MSR: u32 = 0x4000_0000;
/// What the personality needs of KVM: hypercalls as exits, the guest's pages kept by KVM, events sent by us.
const NEEDED: u32 = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL
    | KVM_XEN_HVM_CONFIG_SHARED_INFO
    | KVM_XEN_HVM_CONFIG_RUNSTATE
    | KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
/// "No priority": the 2-level ABI has none.
const PRIORITY_2_LEVEL: u32 = u32::MAX;
/// What a channel between vCPUs is bound to (`EVTCHNSTAT_ipi`).
const IPI: u32 = 5;
/// No page (`KVM_XEN_INVALID_GFN`, `KVM_XEN_INVALID_GPA`).
const NOWHERE: u64 = u64::MAX;

/// This KVM cannot do it.
#[derive(Debug, thiserror::Error)]
#[error(
    "this KVM does not hand over a guest's Xen hypercalls (KVM_CAP_XEN_HVM is {0:#x}, expected the bits {NEEDED:#x}); hint: a host \
     kernel with CONFIG_KVM_XEN does, as Debian's from 6.12 on, or `--host nested`"
)]
pub struct NoXen(u32);

fn done(result: libc::c_int, what: impl FnOnce() -> String) -> Result<(), HvError> {
    if result >= 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(HvError { what: what(), source })
}

impl Kvm {
    /// Whether guests can be given the Xen personality.
    pub fn check_xen(&self) -> Result<(), NoXen> {
        let flags = self.fd().check_extension_raw(KVM_CAP_XEN_HVM.into());
        let flags = u32::try_from(flags).unwrap_or_default();
        if flags & NEEDED == NEEDED {
            Ok(())
        } else {
            Err(NoXen(flags))
        }
    }
}

impl Vm {
    /// From now on hypercalls are exits. Before the first vCPU runs.
    pub fn enable_xen(&self) -> Result<(), HvError> {
        let config = kvm_xen_hvm_config {
            flags: KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
            msr: HYPERCALL_MSR,
            ..Default::default()
        };
        // SAFETY: the kernel reads one structure from where `config` is.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_XEN_HVM_CONFIG(), &config) };
        done(result, || "hand over Xen hypercalls".into())?;
        let mut attr = xen_attr(KVM_XEN_ATTR_TYPE_LONG_MODE);
        attr.u.long_mode = 1;
        self.set_xen(&attr, || "take the guest for a 64-bit one".into())
    }

    fn set_xen(&self, attr: &kvm_xen_hvm_attr, what: impl FnOnce() -> String) -> Result<(), HvError> {
        // SAFETY: the kernel reads one structure from where `attr` is.
        done(unsafe { ioctl_with_ref(self.fd(), KVM_XEN_HVM_SET_ATTR(), attr) }, what)
    }

    /// Where the shared information page is; none: nowhere.
    pub fn set_shared_info(&self, page: Option<u64>) -> Result<(), HvError> {
        let mut attr = xen_attr(KVM_XEN_ATTR_TYPE_SHARED_INFO);
        attr.u.shared_info.gfn = page.unwrap_or(NOWHERE);
        let place = || page.map_or_else(|| "away".into(), |page| format!("to {}", Gpa(page * PAGE)));
        self.set_xen(&attr, || format!("put Xen's shared information page {}", place()))
    }

    /// The vector that tells a vCPU of events; 0: none does.
    pub fn set_upcall_vector(&self, vector: u8) -> Result<(), HvError> {
        let mut attr = xen_attr(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR);
        attr.u.vector = vector;
        self.set_xen(&attr, || format!("tell Xen events by vector {vector:#x}"))
    }

    /// What the guest sends through this port to the vCPU with that APIC id is delivered by KVM; none: no longer.
    pub fn route_ipi(&self, port: u32, apic_id: Option<u32>) -> Result<(), HvError> {
        let mut attr = xen_attr(KVM_XEN_ATTR_TYPE_EVTCHN);
        // SAFETY: a union of plain data, all of it zeros.
        let channel = unsafe { &mut attr.u.evtchn };
        (channel.send_port, channel.type_) = (port, IPI);
        match apic_id {
            Some(vcpu) => {
                // SAFETY: as above.
                let to = unsafe { &mut channel.deliver.port };
                (to.port, to.vcpu, to.priority) = (port, vcpu, PRIORITY_2_LEVEL);
            }
            None => channel.flags = KVM_XEN_EVTCHN_DEASSIGN,
        }
        self.set_xen(&attr, || format!("deliver Xen's event channel {port}"))
    }

    /// Makes an event channel pending, and tells the vCPU with that APIC id.
    pub fn send_event(&self, port: u32, apic_id: u32) -> Result<(), HvError> {
        let event = kvm_irq_routing_xen_evtchn {
            port,
            vcpu: apic_id,
            priority: PRIORITY_2_LEVEL,
        };
        // SAFETY: the kernel reads one structure from where `event` is.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_XEN_HVM_EVTCHN_SEND(), &event) };
        done(result, || format!("raise Xen's event channel {port}"))
    }
}

impl Vcpu {
    /// Its number in hypercalls.
    pub fn set_xen_id(&self, number: u32) -> Result<(), HvError> {
        let mut attr = vcpu_attr(KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID);
        attr.u.vcpu_id = number;
        self.set_xen(&attr, "number")
    }

    /// Where its information is; none: nowhere. On its own thread: KVM lets nobody else in while it runs.
    pub fn set_vcpu_info(&self, at: Option<Gpa>) -> Result<(), HvError> {
        let mut attr = vcpu_attr(KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO);
        attr.u.gpa = at.map_or(NOWHERE, |at| at.0);
        self.set_xen(&attr, "information")
    }

    /// Where an area of it is; none: nowhere. On its own thread.
    pub fn set_xen_area(&self, area: Area, at: Option<Gpa>) -> Result<(), HvError> {
        let (kind, what) = match area {
            Area::Runstate => (KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, "run state"),
            Area::Time => (KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, "time"),
        };
        let mut attr = vcpu_attr(kind);
        attr.u.gpa = at.map_or(NOWHERE, |at| at.0);
        self.set_xen(&attr, what)
    }

    /// The vector of its local APIC that tells of events; 0: none does. On its own thread.
    pub fn set_own_vector(&self, vector: u8) -> Result<(), HvError> {
        let mut attr = vcpu_attr(KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR);
        attr.u.vector = vector;
        self.set_xen(&attr, "vector")
    }

    /// The event channel of its timer, which KVM then starts and stops for the guest; 0: none. On its own thread.
    pub fn set_xen_timer(&self, port: u32) -> Result<(), HvError> {
        let mut attr = vcpu_attr(KVM_XEN_VCPU_ATTR_TYPE_TIMER);
        attr.u.timer.port = port;
        attr.u.timer.priority = PRIORITY_2_LEVEL;
        self.set_xen(&attr, "timer")
    }

    fn set_xen(&self, attr: &kvm_xen_vcpu_attr, what: &str) -> Result<(), HvError> {
        // SAFETY: the kernel reads one structure from where `attr` is.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_XEN_VCPU_SET_ATTR(), attr) };
        done(result, || format!("set the Xen {what} of vCPU {}", self.apic_id()))
    }
}

fn xen_attr(kind: u32) -> kvm_xen_hvm_attr {
    kvm_xen_hvm_attr {
        type_: u16::try_from(kind).unwrap_or(u16::MAX),
        ..Default::default()
    }
}

fn vcpu_attr(kind: u32) -> kvm_xen_vcpu_attr {
    kvm_xen_vcpu_attr {
        type_: u16::try_from(kind).unwrap_or(u16::MAX),
        ..Default::default()
    }
}
