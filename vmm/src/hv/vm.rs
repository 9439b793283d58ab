//! One virtual machine: interrupt controllers, memory slots, eventfds.

use super::{HvError, Vcpu, refused};
use devices::{Line, units::GpaRange};
use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY,
    kvm_enable_cap, kvm_msi, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use vmm_sys_util::eventfd::EventFd;

/// Three pages that KVM on Intel needs for real-mode emulation; below the I/O APIC, never RAM.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// One page for the identity map of the same mode.
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// A virtual machine with the in-kernel PIC, I/O APIC and local APICs.
///
/// Handles ([`MemorySlot`], [`IrqLine`], [`Vcpu`]) keep the machine alive, so they may be dropped in any order.
/// Clones are the same machine.
#[derive(Clone)]
pub struct Vm {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) fd: VmFd,
    readonly_slots: bool,
    slots: Mutex<BTreeSet<u32>>,
}

/// How the guest may use a memory slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFlags {
    /// Loads and stores.
    ReadWrite,
    /// Loads and stores; KVM notes which pages are stored to, see [`MemorySlot::take_dirty`].
    Logged,
    /// Loads; a store exits as MMIO.
    ReadOnly,
}

impl Vm {
    pub(super) fn new(fd: VmFd, readonly_slots: bool) -> Result<Self, HvError> {
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(refused("place its task state segment"))?;
        fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(refused("place its identity map"))?;
        fd.create_irq_chip()
            .map_err(refused("create the interrupt controllers"))?;
        Ok(Self {
            shared: Arc::new(Shared {
                fd,
                readonly_slots,
                slots: Mutex::default(),
            }),
        })
    }

    /// Shows `len` bytes of this process at `host` to the guest at `range`, until the slot is dropped.
    ///
    /// # Safety
    /// The host memory must stay mapped for as long as the returned slot lives; for a read-write slot it must be writable,
    /// and nothing in this process may assume that its content keeps still.
    pub unsafe fn map(&self, range: GpaRange, host: *const u8, flags: SlotFlags) -> Result<MemorySlot, HvError> {
        let readonly = flags == SlotFlags::ReadOnly;
        if readonly && !self.shared.readonly_slots {
            let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(HvError {
                what: format!("map {range} read-only"),
                source,
            });
        }
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = (0..).find(|n| !slots.contains(n)).unwrap_or(u32::MAX);
        let region = kvm_userspace_memory_region {
            slot,
            flags: match flags {
                SlotFlags::ReadWrite => 0,
                SlotFlags::Logged => KVM_MEM_LOG_DIRTY_PAGES,
                SlotFlags::ReadOnly => KVM_MEM_READONLY,
            },
            guest_phys_addr: range.start.0,
            memory_size: range.len,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller keeps the host memory mapped while the slot lives, and dropping the slot takes it away first.
        unsafe { self.shared.fd.set_user_memory_region(region) }
            .map_err(refused(format!("map guest memory at {range}")))?;
        slots.insert(slot);
        Ok(MemorySlot {
            vm: self.shared.clone(),
            slot,
            range,
        })
    }

    /// Adds KVM's programmable interval timer, with its speaker port. Before the first vCPU.
    pub fn create_pit(&self) -> Result<(), HvError> {
        let config = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        self.shared
            .fd
            .create_pit2(config)
            .map_err(refused("create the interval timer"))
    }

    /// An interrupt line into pin `gsi` of the I/O APIC.
    pub fn irq_line(&self, gsi: u32) -> Result<IrqLine, HvError> {
        let event = eventfd()?;
        self.shared
            .fd
            .register_irqfd(&event, gsi)
            .map_err(refused(format!("route interrupt {gsi}")))?;
        Ok(IrqLine(event))
    }

    /// Sends a vector to the local APIC with that id; one that is off takes none.
    pub fn interrupt(&self, apic_id: u32, vector: u8) -> Result<(), HvError> {
        /// Where local APICs take messages: bits 12 to 19 have the low bits of the id, the high word the others.
        const MESSAGES: u32 = 0xfee0_0000;
        let message = kvm_msi {
            address_lo: MESSAGES | (apic_id & 0xff) << 12,
            address_hi: apic_id & !0xff,
            data: vector.into(),
            ..Default::default()
        };
        let sent = self.shared.fd.signal_msi(message);
        sent.map(drop)
            .map_err(refused(format!("send vector {vector:#x} to APIC {apic_id}")))
    }

    /// An eventfd that fires when the guest writes the 32-bit `value` to the MMIO register at `address`; such writes no
    /// longer exit.
    pub fn doorbell(&self, address: u64, value: u32) -> Result<EventFd, HvError> {
        let event = eventfd()?;
        let what = format!("watch the doorbell at {address:#x}");
        self.shared
            .fd
            .register_ioevent(&event, &IoEventAddress::Mmio(address), value)
            .map_err(refused(what))?;
        Ok(event)
    }

    /// The same for any value.
    pub fn any_doorbell(&self, address: u64) -> Result<EventFd, HvError> {
        let event = eventfd()?;
        let what = format!("watch the doorbell at {address:#x}");
        self.shared
            .fd
            .register_ioevent(&event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(refused(what))?;
        Ok(event)
    }

    /// The vCPU whose local APIC has `apic_id`; the first one made must be the boot processor, APIC id 0.
    pub fn create_vcpu(&self, apic_id: u32) -> Result<Vcpu, HvError> {
        let fd = self
            .shared
            .fd
            .create_vcpu(u64::from(apic_id))
            .map_err(refused(format!("create vCPU {apic_id}")))?;
        Ok(Vcpu::new(fd, apic_id))
    }

    /// Whether an instruction of a user program that KVM has to carry out and cannot comes back as an exit, instead of as an
    /// exception of the guest's. False: this KVM does not know that.
    pub fn report_all_not_emulated(&self, on: bool) -> Result<bool, HvError> {
        if !self
            .shared
            .fd
            .check_extension_raw(KVM_CAP_EXIT_ON_EMULATION_FAILURE.into())
            .is_positive()
        {
            return Ok(false);
        }
        let cap = kvm_enable_cap {
            cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
            args: [u64::from(on), 0, 0, 0],
            ..Default::default()
        };
        let what = "report instructions that it cannot carry out";
        self.shared.fd.enable_cap(&cap).map_err(refused(what))?;
        Ok(true)
    }

    pub(super) fn fd(&self) -> &VmFd {
        &self.shared.fd
    }
}

fn eventfd() -> Result<EventFd, HvError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(|source| HvError {
        what: "create an eventfd".into(),
        source,
    })
}

/// A piece of host memory in the guest's physical address space. Dropping it takes the memory away.
pub struct MemorySlot {
    vm: Arc<Shared>,
    slot: u32,
    range: GpaRange,
}

impl MemorySlot {
    /// Where the guest sees it.
    pub fn range(&self) -> GpaRange {
        self.range
    }

    /// The pages of a [`SlotFlags::Logged`] slot that the guest has stored to since the last call, one bit each, bit 0 of
    /// the first word for the first. A store that goes on meanwhile is in this answer or in the next.
    pub fn take_dirty(&self) -> Result<Vec<u64>, HvError> {
        let what = || format!("tell which pages of guest memory at {} changed", self.range);
        let len = usize::try_from(self.range.len).map_err(|e| HvError {
            what: what(),
            source: std::io::Error::other(e),
        })?;
        self.vm.fd.get_dirty_log(self.slot, len).map_err(refused(what()))
    }
}

impl Drop for MemorySlot {
    fn drop(&mut self) {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            guest_phys_addr: self.range.start.0,
            ..Default::default()
        };
        // SAFETY: a size of zero removes the slot and refers to no memory.
        let removed = unsafe { self.vm.fd.set_user_memory_region(region) };
        // A slot that stayed would let the guest write to memory this process is about to unmap or reuse.
        assert!(
            removed.is_ok(),
            "KVM must give up memory slot {} at {}: {removed:?}",
            self.slot,
            self.range
        );
        self.vm
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.slot);
    }
}

/// An interrupt line backed by an irqfd.
pub struct IrqLine(EventFd);

impl Line for IrqLine {
    fn pulse(&self) {
        // The counter cannot overflow: KVM drains it. A failure here has no meaning for the device.
        let _ = self.0.write(1);
    }
}
