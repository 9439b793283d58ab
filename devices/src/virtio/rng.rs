//! Entropy device (virtio 1.2 section 5.4): fills what the guest asks for, up to [`PER_REQUEST`] bytes a request.

use super::{Activation, Memory, Occasional, Progress, Single, VirtioDevice, Writer, lock, queue::Next};
use std::{
    io::{self, Write},
    sync::Mutex,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vm_memory::GuestAddressSpace;

/// Most bytes one request gets; the driver asks again for more.
pub const PER_REQUEST: usize = 64 << 10;
/// Entries of the request queue.
const QUEUE_SIZE: u16 = 64;
/// Bytes taken from the source at once.
const PIECE: usize = 4096;
/// Most bytes one turn of the machine's loop gives.
const PER_TURN: usize = 256 << 10;

/// Where random bytes come from: fills the whole slice or fails.
pub type Source = Box<dyn FnMut(&mut [u8]) -> io::Result<()> + Send>;

/// The device.
pub struct Rng(Mutex<State>);

struct State {
    source: Source,
    failures: Occasional,
    active: Option<Single>,
}

impl Rng {
    /// A device that gives what `source` has.
    pub fn new(source: Source) -> Self {
        Self(Mutex::new(State {
            source,
            failures: Occasional::default(),
            active: None,
        }))
    }
}

impl State {
    fn serve(&mut self, mem: &Memory) -> Progress {
        let Self {
            source,
            failures,
            active: Some(Single { queue, .. }),
        } = self
        else {
            return Progress::Done;
        };
        let mut left = PER_TURN;
        for _ in 0..queue.size() {
            let chain = match queue.take_next(mem) {
                Next::Chain(chain) => chain,
                Next::LookAgain => continue,
                Next::Nothing => return Progress::Done,
            };
            let head = chain.head_index();
            let Some(mut to) = queue.writer(mem, chain) else {
                return Progress::Done;
            };
            match fill(&mut to, source) {
                Ok(given) => {
                    queue.complete(mem, head, given);
                    left = left.saturating_sub(given);
                }
                // A request must get at least one byte (virtio 1.2 5.4.6.2): without a source there is no going on.
                Err(error) => {
                    if let Some(count) = failures.hit() {
                        tracing::error!(count, %error, "the entropy source failed");
                    }
                    queue.fail("the host has no entropy");
                    return Progress::Done;
                }
            }
            if left == 0 {
                break;
            }
        }
        Progress::More
    }
}

fn fill(to: &mut Writer<'_>, source: &mut Source) -> io::Result<usize> {
    let wanted = PER_REQUEST.min(to.available_bytes());
    let mut piece = [0; PIECE];
    let mut given = 0;
    while given < wanted {
        let piece = &mut piece[..PIECE.min(wanted - given)];
        source(piece)?;
        to.write_all(piece)?;
        given += piece.len();
    }
    Ok(given)
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn config_generation(&self) -> u32 {
        0
    }

    fn activate(&self, activation: Activation) {
        lock(&self.0).active = activation.single();
    }

    fn reset(&self) {
        lock(&self.0).active = None;
    }

    fn process_queue(&self, _index: u16) -> Progress {
        let mut state = lock(&self.0);
        let Some(memory) = state.active.as_ref().map(|active| active.memory.memory()) else {
            return Progress::Done;
        };
        let progress = state.serve(&memory);
        let raise = state
            .active
            .as_mut()
            .and_then(|a| a.queue.take_signal(&memory).then(|| a.interrupt.clone()));
        drop(state);
        if let Some(interrupt) = raise {
            interrupt.pulse();
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::testing::{Buffer, Driver, conforms};
    use std::sync::Arc;
    use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;

    /// Counts up, never 0: what it did not fill is seen.
    fn counting() -> Arc<Rng> {
        let mut next = 0_u8;
        Arc::new(Rng::new(Box::new(move |data| {
            for byte in data {
                next = next.checked_add(1).unwrap_or(1);
                *byte = next;
            }
            Ok(())
        })))
    }

    conforms!(counting);

    #[test]
    fn requests_are_filled_and_the_driver_is_interrupted() {
        let mut driver = Driver::up(counting(), 0);
        let (a, b) = (driver.buffer(100), driver.buffer(5000));
        driver.offer(0, &[Buffer::Write(a, 60), Buffer::Write(a + 60, 40)]);
        driver.offer(0, &[Buffer::Write(b, 5000)]);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, 100), (2, 5000)]);
        assert!(
            driver
                .bytes(a, 100)
                .iter()
                .chain(&driver.bytes(b, 5000))
                .all(|byte| *byte != 0)
        );
        assert_eq!((driver.line.count(), driver.acknowledge()), (1, 1));
    }

    #[test]
    fn one_request_gets_a_bounded_share_and_readable_buffers_get_nothing() {
        let mut driver = Driver::up(counting(), 0);
        let at = driver.buffer(PER_REQUEST * 2);
        driver.offer(0, &[Buffer::Write(at, PER_REQUEST * 2)]);
        driver.offer(0, &[Buffer::Read(at, 64)]);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, PER_REQUEST), (1, 0)]);
    }

    #[test]
    fn a_turn_is_bounded_and_says_that_more_waits() {
        let mut driver = Driver::up(counting(), 0);
        let at = driver.buffer(PER_REQUEST);
        for _ in 0..10 {
            driver.offer(0, &[Buffer::Write(at, PER_REQUEST)]);
        }
        assert_eq!(driver.mmio.queue_notify(0), Progress::More);
        assert_eq!(driver.used(0).len(), PER_TURN / PER_REQUEST);
        while driver.mmio.queue_notify(0) == Progress::More {}
        assert_eq!(driver.used(0).len(), 10 - PER_TURN / PER_REQUEST);
    }

    #[test]
    fn a_dead_source_stops_the_device_and_tells_the_driver() {
        let rng = Rng::new(Box::new(|_| Err(io::ErrorKind::Other.into())));
        let mut driver = Driver::up(Arc::new(rng), 0);
        let at = driver.buffer(8);
        driver.offer(0, &[Buffer::Write(at, 8)]);
        driver.notify(0);
        assert_eq!(driver.used(0), []);
        assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        assert_eq!((driver.line.count(), driver.acknowledge()), (1, 2));
    }
}
