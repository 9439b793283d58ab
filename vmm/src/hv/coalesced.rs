//! Port writes that KVM collects instead of exiting for each.
//!
//! A guest that prints writes one character per `out`: an exit to this process each, tens of microseconds in a nested
//! host. KVM can queue such writes in a ring (KVM_CAP_COALESCED_PIO) that every vCPU thread drains before it handles
//! an exit of its own, so that the device sees all accesses in the order in which the guest made them. The machine's
//! loop drains as well, now and then, for a guest that prints and then never exits.

use super::{HvError, Vcpu, Vm, refused};
use kvm_ioctls::{Cap, IoEventAddress};

/// One collected write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortWrite {
    /// Port number.
    pub port: u64,
    /// Bytes in access order; `len` of them count.
    pub data: [u8; 8],
    /// 1, 2 or 4.
    pub len: usize,
}

/// The ring of one machine. Whoever drains it holds it exclusively.
pub struct CoalescedPorts {
    reader: Ring,
}

/// The ring page is one per machine, reachable through any vCPU; this keeps a mapping of its own.
struct Ring(vm_memory::MmapRegion<()>);

/// Offsets in the ring page (`struct kvm_coalesced_mmio_ring`): consumer index, producer index, entries of 24 bytes
/// (address u64, length u32, pio u32, data 8).
const FIRST: usize = 0;
const LAST: usize = 4;
const ENTRIES: usize = 8;
const ENTRY: usize = 24;

impl CoalescedPorts {
    /// Collects one-byte writes to `ports`; `None` where KVM cannot.
    pub fn new(vm: &Vm, vcpu: &Vcpu, ports: &[u64]) -> Result<Option<Self>, HvError> {
        if !vm.fd().check_extension(Cap::CoalescedPio) {
            return Ok(None);
        }
        let reader = Ring(vcpu.coalesced_ring_page()?);
        for port in ports {
            let what = format!("collect writes to port {port:#x}");
            vm.fd()
                .register_coalesced_mmio(IoEventAddress::Pio(*port), 1)
                .map_err(refused(what))?;
        }
        Ok(Some(Self { reader }))
    }

    /// The next collected write, oldest first.
    pub fn pop(&mut self) -> Option<PortWrite> {
        use std::sync::atomic::Ordering;
        use vm_memory::{Bytes, VolatileMemory};
        let page = self.reader.0.as_volatile_slice();
        let slots = (page.len() - ENTRIES) / ENTRY;
        let first = page.load::<u32>(FIRST, Ordering::Relaxed).ok()? as usize;
        // Acquire: the entry was written before the index that covers it.
        let last = page.load::<u32>(LAST, Ordering::Acquire).ok()? as usize;
        if first == last || first >= slots {
            return None;
        }
        let at = ENTRIES + first * ENTRY;
        let port = page.read_obj::<u64>(at).ok()?;
        let len = page.read_obj::<u32>(at + 8).ok()? as usize;
        let data = page.read_obj::<[u8; 8]>(at + 16).ok()?;
        let next = u32::try_from((first + 1) % slots).ok()?;
        page.store::<u32>(next, FIRST, Ordering::Release).ok()?;
        Some(PortWrite {
            port,
            data,
            len: len.min(8),
        })
    }

    /// Whether something waits; a hint that needs no exclusive hold.
    pub fn is_empty_hint(&self) -> bool {
        use std::sync::atomic::Ordering;
        use vm_memory::{Bytes, VolatileMemory};
        let page = self.reader.0.as_volatile_slice();
        page.load::<u32>(FIRST, Ordering::Relaxed).ok() == page.load::<u32>(LAST, Ordering::Relaxed).ok()
    }
}
