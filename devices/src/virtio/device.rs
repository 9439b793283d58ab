//! What a virtio device is to its transport, and the transport to the device.

use super::{Memory, queue::Virtqueue};
use crate::{GuestMemory, Line};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use virtio_bindings::{
    virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET},
    virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING},
};

/// A virtio device behind any transport.
///
/// ```text
/// (inactive) --activate--> (active) --reset--> (inactive)      process_queue and config accesses come in both
/// ```
///
/// `&self`: the device owns its lock. It marks interrupts while it holds the lock, so that none outlives `reset`, and
/// pulses after releasing it. It never calls the transport.
pub trait VirtioDevice: Send + Sync {
    /// Device type (virtio 1.2 section 5).
    fn device_type(&self) -> u32;
    /// Feature bits of this device type; the transport adds its own.
    fn features(&self) -> u64;
    /// Largest size of each queue, a power of two.
    fn queue_max_sizes(&self) -> &[u16];
    /// Reads the device's configuration space; bytes beyond it stay as they are.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Changes whenever the configuration space does, under the same lock (virtio 1.2 section 2.5).
    fn config_generation(&self) -> u32;
    /// The driver is ready: the queues are the device's until [`Self::reset`].
    fn activate(&self, activation: Activation);
    /// Back to the state after construction: when this returns, no queue is touched and no interrupt marked.
    fn reset(&self);
    /// The driver notified this queue. Does a bounded piece of work.
    fn process_queue(&self, index: u16) -> Progress;
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// One per [`VirtioDevice::queue_max_sizes`]; those the driver did not set up stay empty for ever.
    pub queues: Vec<Virtqueue>,
    /// Where the queues and buffers are.
    pub memory: GuestMemory,
    /// How to call the driver.
    pub interrupt: Interrupt,
    /// Feature bits that both sides agreed on.
    pub features: u64,
}

impl Activation {
    /// For a device that works on its first queue.
    pub(super) fn single(self) -> Option<Single> {
        Some(Single {
            queue: self.queues.into_iter().next()?,
            memory: self.memory,
            interrupt: self.interrupt,
        })
    }

    /// For a device whose first two queues are the two directions of something.
    pub(super) fn pair(self) -> Option<Pair> {
        let mut queues = self.queues.into_iter();
        Some(Pair {
            receive: queues.next()?,
            transmit: queues.next()?,
            memory: self.memory,
            interrupt: self.interrupt,
        })
    }
}

/// An active device of one queue.
pub(super) struct Single {
    pub queue: Virtqueue,
    pub memory: GuestMemory,
    pub interrupt: Interrupt,
}

/// An active device that receives and transmits, as its driver calls it.
pub(super) struct Pair {
    pub receive: Virtqueue,
    pub transmit: Virtqueue,
    pub memory: GuestMemory,
    pub interrupt: Interrupt,
}

impl Pair {
    /// Marks what was done for the driver; the interrupt to pulse, if it wants one.
    pub(super) fn settle(&mut self, mem: &Memory) -> Option<Interrupt> {
        let received = self.receive.take_signal(mem);
        let sent = self.transmit.take_signal(mem);
        (received || sent).then(|| self.interrupt.clone())
    }
}

/// Whether a bounded piece of work was all of it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing left; the driver will notify.
    Done,
    /// More is waiting and nobody will notify: call again, after others had their turn.
    More,
}

/// The device's side of the interrupt and of the status register.
#[derive(Clone)]
pub struct Interrupt(Arc<Shared>);

struct Shared {
    line: Arc<dyn Line>,
    /// InterruptStatus register.
    pending: AtomicU32,
    /// Status register.
    status: AtomicU32,
}

impl Interrupt {
    pub(super) fn new(line: Arc<dyn Line>) -> Self {
        Self(Arc::new(Shared {
            line,
            pending: AtomicU32::new(0),
            status: AtomicU32::new(0),
        }))
    }

    /// Buffers were used. Call under the device's lock; [`Self::pulse`] after it.
    pub fn mark_used(&self) {
        self.0.pending.fetch_or(VIRTIO_MMIO_INT_VRING, Ordering::SeqCst);
    }

    /// The configuration space changed. Call under the device's lock; [`Self::pulse`] after it.
    pub fn mark_config_changed(&self) {
        self.0.pending.fetch_or(VIRTIO_MMIO_INT_CONFIG, Ordering::SeqCst);
    }

    /// The device cannot go on. Call under the device's lock; [`Self::pulse`] after it.
    pub fn mark_needs_reset(&self) {
        let before = self.0.status.fetch_or(VIRTIO_CONFIG_S_NEEDS_RESET, Ordering::SeqCst);
        // virtio 1.2 2.1.2: a driver that is up is told by a configuration change notification.
        if before & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.mark_config_changed();
        }
    }

    /// Sends the edge for what was marked. A driver that found it already sees one interrupt too many, which is allowed.
    pub fn pulse(&self) {
        self.0.line.pulse();
    }

    pub(super) fn pending(&self) -> u32 {
        self.0.pending.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.0.pending.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(super) fn status(&self) -> u32 {
        self.0.status.load(Ordering::SeqCst)
    }

    pub(super) fn add_status(&self, bits: u32) {
        self.0.status.fetch_or(bits, Ordering::SeqCst);
    }

    pub(super) fn clear(&self) {
        self.0.pending.store(0, Ordering::SeqCst);
        self.0.status.store(0, Ordering::SeqCst);
    }
}
