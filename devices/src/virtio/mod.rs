//! virtio devices over the MMIO transport (virtio 1.2).
//!
//! ```text
//! vCPU: register access --> mmio::VirtioMmio --activate, reset, config--> VirtioDevice
//! machine's loop: ioeventfd --> VirtioMmio::queue_notify --process_queue--> VirtioDevice --> queue::Virtqueue
//! VirtioDevice --mark (under its lock), pulse (after it)--> Interrupt --> Line
//! ```
//!
//! The guest is hostile: a queue that breaks the rules stops its device, which then asks for a reset (DEVICE_NEEDS_RESET),
//! and the log hears of it at a bounded rate.

pub mod blk;
pub mod config;
pub mod console;
pub mod deferred;
mod device;
pub mod mem;
pub mod mmio;
pub mod net;
pub mod p9;
pub mod pmem;
pub mod queue;
pub mod rng;
#[cfg(test)]
mod testing;
pub mod vsock;

pub use device::{Activation, Interrupt, Progress, VirtioDevice};
use device::{Pair, Single};
pub use mmio::VirtioMmio;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use vm_memory::bitmap::MS;

/// Guest memory at one moment.
pub type Memory = vm_memory::GuestMemoryMmap<crate::DeviceWrites>;
/// What a guest wants read.
pub type Reader<'m> = virtio_queue::Reader<'m, MS<'m, Memory>>;
/// Where a guest wants something written.
pub type Writer<'m> = virtio_queue::Writer<'m, MS<'m, Memory>>;

/// Counts what the guest can repeat at will, and says when it is worth a line in the log: at the 1st, 2nd, 4th, 8th ...
/// time, so that no guest can fill a disk.
#[derive(Debug, Default)]
pub(crate) struct Occasional(AtomicU64);

impl Occasional {
    /// One more time; the count when it should be told.
    pub(crate) fn hit(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        count.is_power_of_two().then_some(count)
    }
}

/// Takes a lock. Device state is consistent at every point where a thread could panic, so poison carries no news.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_warnings_thin_out() {
        let occasional = Occasional::default();
        assert_eq!((0..1000).filter(|_| occasional.hit().is_some()).count(), 10);
    }
}
