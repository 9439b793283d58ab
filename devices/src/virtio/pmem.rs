//! Persistent memory (virtio 1.2 section 5.19): a range of guest memory and a queue of flush requests.
//!
//! The memory itself is the machine's. A flush is an order for the machine's worker, which makes what the guest stored
//! durable and answers; the driver gives a failure on as an I/O error.

use super::{
    Reader,
    deferred::{Deferred, Order, Reply, Requests, Taken},
};
use crate::units::GpaRange;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;

/// Entries of the request queue.
const QUEUE_SIZE: u16 = 64;
/// VIRTIO_PMEM_REQ_TYPE_FLUSH (virtio 1.2 5.19.6).
const FLUSH: u32 = 0;
/// Bytes of a request, and of its answer.
const WORD: u64 = 4;

/// The device.
pub type Pmem = Deferred<PmemRequests>;
/// A flush under way.
pub type FlushOrder = Order<PmemRequests>;

/// What the device is and has done.
#[derive(Debug)]
pub struct PmemRequests {
    config: [u8; 16],
    flushes: AtomicU64,
    failures: AtomicU64,
}

impl Pmem {
    /// The device of the memory at `range`.
    pub fn at(range: GpaRange, submit: Box<dyn Fn(FlushOrder) + Send + Sync>) -> Arc<Self> {
        let mut config = [0; 16];
        let (start, len) = config.split_at_mut(8);
        start.copy_from_slice(&range.start.0.to_le_bytes());
        len.copy_from_slice(&range.len.to_le_bytes());
        let requests = PmemRequests {
            config,
            flushes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        Self::new(requests, submit)
    }

    /// Flushes that were answered, and how many of them failed.
    pub fn flushes(&self) -> (u64, u64) {
        let requests = self.requests();
        (
            requests.flushes.load(Ordering::Relaxed),
            requests.failures.load(Ordering::Relaxed),
        )
    }

    /// Counts a flush; what the driver is told of it.
    pub fn flushed(&self, done: &io::Result<()>) -> Reply {
        let requests = self.requests();
        requests.flushes.fetch_add(1, Ordering::Relaxed);
        if done.is_err() {
            requests.failures.fetch_add(1, Ordering::Relaxed);
        }
        result(done.is_ok())
    }
}

/// Zero: done. Anything else: not.
fn result(done: bool) -> Reply {
    Reply {
        data: u32::from(!done).to_le_bytes().to_vec(),
        last: None,
    }
}

impl Requests for PmemRequests {
    type Work = ();
    const DEVICE_TYPE: u32 = VIRTIO_ID_PMEM;
    const QUEUE: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        // VIRTIO_PMEM_F_SHMEM_REGION is for transports with shared memory regions.
        0
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn unreadable(&self) -> Reply {
        result(false)
    }

    fn take(&self, from: &mut Reader<'_>, room: u64) -> Taken<()> {
        if room < WORD {
            return Taken::Broken(format!("a request has {room} bytes for its answer, which has {WORD}"));
        }
        match from.read_obj::<u32>().map(u32::from_le) {
            Ok(FLUSH) => Taken::Work((), 0),
            Ok(_) => Taken::Now(result(false)),
            Err(_) => Taken::Broken(format!("a request has less than {WORD} bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BadLines,
        units::Gpa,
        virtio::testing::{Buffer, Driver, conforms},
    };
    use std::sync::{Mutex, mpsc};
    use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG};

    const RANGE: GpaRange = GpaRange {
        start: Gpa(0x1_4000_0000),
        len: 64 << 20,
    };

    /// A device whose flushes wait in a channel.
    fn waiting() -> (Arc<Pmem>, mpsc::Receiver<FlushOrder>) {
        let (sender, receiver) = mpsc::channel();
        let sender = Mutex::new(sender);
        let pmem = Pmem::at(RANGE, Box::new(move |order| drop(sender.lock().unwrap().send(order))));
        (pmem, receiver)
    }

    fn at_once() -> Arc<Pmem> {
        Pmem::at(RANGE, Box::new(|order| order.run(|()| result(true))))
    }

    conforms!(at_once);

    fn flush(driver: &mut Driver, kind: u32) -> u64 {
        let request = driver.text(&kind.to_le_bytes());
        let answer = driver.buffer(4);
        driver.put(answer, &[0xaa; 4]);
        driver.offer(0, &[request, Buffer::Write(answer, 4)]);
        driver.notify(0);
        answer
    }

    #[test]
    fn configuration_is_start_and_size() {
        let driver = Driver::new(at_once());
        let mut space = [0; 20];
        crate::BusDevice::read(&driver.mmio, VIRTIO_MMIO_CONFIG.into(), &mut space);
        assert_eq!(space[..8], RANGE.start.0.to_le_bytes());
        assert_eq!(space[8..16], RANGE.len.to_le_bytes());
        assert_eq!(space[16..], [0xff; 4]);
    }

    #[test]
    fn a_flush_is_answered_when_it_is_done_and_not_before() {
        let (pmem, orders) = waiting();
        let mut driver = Driver::up(pmem.clone(), 0);
        let answer = flush(&mut driver, FLUSH);
        assert_eq!((driver.used(0), driver.line.count()), (vec![], 0));
        orders.recv().unwrap().run(|()| pmem.flushed(&Ok(())));
        assert_eq!(driver.used(0), [(0, 4)]);
        assert_eq!(driver.bytes(answer, 4), [0; 4]);
        assert_eq!((driver.line.count(), driver.acknowledge()), (1, 1));
        assert_eq!(pmem.flushes(), (1, 0));
    }

    #[test]
    fn a_failed_flush_and_an_unknown_request_are_errors_to_the_guest() {
        let (pmem, orders) = waiting();
        let mut driver = Driver::up(pmem.clone(), 0);
        let failed = flush(&mut driver, FLUSH);
        let error = Err(io::ErrorKind::StorageFull.into());
        orders.recv().unwrap().run(|()| pmem.flushed(&error));
        let unknown = flush(&mut driver, 7);
        assert_eq!(driver.used(0).len(), 2);
        assert_eq!(driver.bytes(failed, 4), [1, 0, 0, 0]);
        assert_eq!(driver.bytes(unknown, 4), [1, 0, 0, 0]);
        assert_eq!(pmem.flushes(), (1, 1));
    }

    #[test]
    fn a_request_with_a_memory_error_fails() {
        let lines = BadLines::default();
        let mut driver = Driver::up_with(at_once(), 0, &lines);
        let request = driver.text(&FLUSH.to_le_bytes());
        let Buffer::Read(at, _) = request else {
            unreachable!("text is read")
        };
        lines.set([GpaRange::new(Gpa(at / 64 * 64), 64)]);
        let answer = driver.buffer(4);
        driver.offer(0, &[request, Buffer::Write(answer, 4)]);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, 4)]);
        assert_eq!((driver.bytes(answer, 4), lines.count()), (vec![1, 0, 0, 0], 1));
    }

    #[test]
    fn a_flush_from_before_a_reset_is_neither_done_nor_answered() {
        let (pmem, orders) = waiting();
        let mut driver = Driver::up(pmem.clone(), 0);
        flush(&mut driver, FLUSH);
        driver.set_status(0);
        driver.start(0);
        orders.recv().unwrap().run(|()| unreachable!("its device was reset"));
        assert_eq!((driver.used(0), pmem.in_flight()), (vec![], 0));
    }

    #[test]
    fn no_more_than_a_queue_of_flushes_is_under_way() {
        let (pmem, orders) = waiting();
        let mut driver = Driver::up(pmem.clone(), 0);
        // The same descriptors again and again: a driver that waits for nothing.
        let request = driver.text(&FLUSH.to_le_bytes());
        let answer = driver.buffer(4);
        for _ in 0..2 * QUEUE_SIZE {
            driver.offer(0, &[request, Buffer::Write(answer, 4)]);
            driver.notify(0);
        }
        assert_eq!(pmem.in_flight(), usize::from(QUEUE_SIZE));
        // What waited is taken when something is answered, without another notification.
        let mut done = 0;
        while let Ok(order) = orders.try_recv() {
            order.run(|()| result(true));
            done += 1;
        }
        assert_eq!((done, pmem.in_flight()), (2 * usize::from(QUEUE_SIZE), 0));
    }

    #[test]
    fn requests_without_room_or_content_stop_the_device() {
        for (request, answer) in [(3, 4), (4, 3), (0, 4)] {
            let mut driver = Driver::up(at_once(), 0);
            let at = driver.buffer(16);
            driver.offer(0, &[Buffer::Read(at, request), Buffer::Write(at, answer)]);
            driver.notify(0);
            assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0, "{request} {answer}");
            assert_eq!(driver.used(0), []);
        }
    }
}
