//! Flush hints: pages that the guest writes to when what it stored has to be on the host's storage.
//!
//! ```text
//! guest: stores, cache flushes, fence, write to the DIMM's hint -> exit -> FlushHints::write -> Flusher -> FlushTarget
//! ```
//!
//! The write returns when a flush that began after it is over, so everything that the guest stored before it is there; only
//! the processor that wrote waits. Whoever comes while a flush runs waits for the next one, and all of them share that.
//!
//! A hint has no way to say that a flush failed. The DIMM tells instead: its health becomes fatal, with a notification.

use super::plan::MAX_SLOTS;
use crate::{BusDevice, Effect, units::Gpa};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
};

/// What makes a DIMM's contents durable.
pub trait FlushTarget: Send + Sync {
    /// Returns when what the guest has stored is on the host's storage.
    fn flush(&self) -> io::Result<()>;
}

/// What becomes of a guest's write to a flush hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlushMode {
    /// There is no hint.
    #[default]
    None,
    /// It is counted.
    Count,
    /// It returns when the DIMM's contents are on the host's storage.
    Msync,
}

/// How often the hint of a DIMM was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlushCounts {
    /// Writes of the guest.
    pub writes: u64,
    /// Flushes of the contents that are over; several writes may have shared one.
    pub flushes: u64,
    /// Those of them that failed.
    pub failed: u64,
}

/// Told when a flush has failed.
pub type Alarm = Box<dyn Fn() + Send + Sync>;

/// Flushes of one DIMM. The n-th flush runs while `begun` is n and `ended` is less.
#[derive(Default)]
struct Batch {
    begun: u64,
    ended: u64,
    counts: FlushCounts,
}

/// One DIMM's hint.
struct Flusher {
    target: Option<Arc<dyn FlushTarget>>,
    alarm: Alarm,
    batch: Mutex<Batch>,
    over: Condvar,
}

impl Flusher {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let mut batch = self.lock();
        batch.counts.writes += 1;
        let Some(target) = &self.target else { return };
        // One that runs already may have passed what this writer stored.
        let mine = batch.begun + 1;
        while batch.ended < mine {
            if batch.begun > batch.ended {
                batch = self.over.wait(batch).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            batch.begun += 1;
            drop(batch);
            let done = target.flush();
            batch = self.lock();
            batch.ended = batch.begun;
            batch.counts.flushes += 1;
            self.over.notify_all();
            if let Err(error) = done {
                batch.counts.failed += 1;
                drop(batch);
                tracing::error!(%error, "an NVDIMM cannot be flushed: what the guest stored may be lost");
                (self.alarm)();
                return;
            }
        }
    }
}

/// The hints of all DIMMs, a page for each slot. The device covers [`FlushHints::LEN`] bytes.
#[derive(Default)]
pub struct FlushHints {
    slots: RwLock<BTreeMap<u8, Arc<Flusher>>>,
}

impl FlushHints {
    /// Bytes between hints: Linux maps each with the page around it.
    pub const PAGE: u64 = 4096;
    /// Bytes of the device.
    pub const LEN: u64 = MAX_SLOTS as u64 * Self::PAGE;

    /// The hint of the DIMM in `slot` of a device at `base`.
    pub fn hint(base: Gpa, slot: u8) -> Gpa {
        Gpa(base.0 + u64::from(slot) * Self::PAGE)
    }

    /// Gives the DIMM in `slot` its hint. Without a target writes are counted.
    pub fn add(&self, slot: u8, target: Option<Arc<dyn FlushTarget>>, alarm: Alarm) {
        let flusher = Flusher {
            target,
            alarm,
            batch: Mutex::default(),
            over: Condvar::new(),
        };
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.insert(slot, Arc::new(flusher));
    }

    /// How often the hint of the DIMM in `slot` was used; none: it has none.
    pub fn counts(&self, slot: u8) -> Option<FlushCounts> {
        self.flusher(slot).map(|flusher| flusher.lock().counts)
    }

    fn flusher(&self, slot: u8) -> Option<Arc<Flusher>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(&slot).cloned()
    }
}

impl BusDevice for FlushHints {
    /// There is nothing to learn from a hint: it reads as zero, and as ones where there is none.
    fn read(&self, offset: u64, data: &mut [u8]) {
        let there = u8::try_from(offset / Self::PAGE).is_ok_and(|slot| self.flusher(slot).is_some());
        data.fill(if there { 0 } else { 0xff });
    }

    /// Any write to its page is one to the hint.
    fn write(&self, offset: u64, _: &[u8]) -> Effect {
        let flusher = u8::try_from(offset / Self::PAGE)
            .ok()
            .and_then(|slot| self.flusher(slot));
        if let Some(flusher) = flusher {
            flusher.write();
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            atomic::{AtomicBool, AtomicU64, Ordering},
            mpsc,
        },
        thread,
    };

    /// A flush that takes until it is told to end, and then makes durable what was stored when it began.
    struct Slow {
        stored: AtomicU64,
        durable: AtomicU64,
        begun: Mutex<mpsc::Sender<()>>,
        go: Mutex<mpsc::Receiver<()>>,
    }

    impl FlushTarget for Slow {
        fn flush(&self) -> io::Result<()> {
            let stored = self.stored.load(Ordering::SeqCst);
            self.begun.lock().unwrap().send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
            self.durable.store(stored, Ordering::SeqCst);
            Ok(())
        }
    }

    fn counts(writes: u64, flushes: u64, failed: u64) -> Option<FlushCounts> {
        Some(FlushCounts {
            writes,
            flushes,
            failed,
        })
    }

    fn quiet() -> Alarm {
        Box::new(|| panic!("nothing has failed"))
    }

    #[test]
    fn writers_that_come_during_a_flush_share_the_next_one() {
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let slow = Arc::new(Slow {
            stored: AtomicU64::new(1),
            durable: AtomicU64::new(0),
            begun: Mutex::new(begun),
            go: Mutex::new(may_go),
        });
        let hints = FlushHints::default();
        hints.add(3, Some(slow.clone()), quiet());
        let write = || assert_eq!(hints.write(3 * FlushHints::PAGE, &[1; 8]), Effect::None);
        thread::scope(|scope| {
            let first = scope.spawn(write);
            has_begun.recv().unwrap();
            // Too late for the flush that runs.
            slow.stored.store(2, Ordering::SeqCst);
            let late: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        write();
                        assert_eq!(
                            slow.durable.load(Ordering::SeqCst),
                            2,
                            "a writer that goes on is durable"
                        );
                    })
                })
                .collect();
            while hints.counts(3).unwrap().writes < 5 {
                thread::yield_now();
            }
            go.send(()).unwrap();
            first.join().unwrap();
            has_begun.recv().unwrap();
            go.send(()).unwrap();
            late.into_iter().for_each(|writer| writer.join().unwrap());
        });
        assert_eq!(hints.counts(3), counts(5, 2, 0));
    }

    #[test]
    fn hints_are_pages_and_other_pages_are_nothing() {
        let hints = FlushHints::default();
        hints.add(0, None, quiet());
        hints.add(31, None, quiet());
        for (offset, data) in [(0, 8), (8, 1), (FlushHints::LEN - 4096, 4), (4096, 8), (u64::MAX, 2)] {
            assert_eq!(hints.write(offset, &vec![1; data]), Effect::None);
        }
        assert_eq!(hints.counts(0), counts(2, 0, 0));
        assert_eq!(hints.counts(31), counts(1, 0, 0));
        assert_eq!(hints.counts(1), None);
        let read = |offset| {
            let mut data = [7; 8];
            hints.read(offset, &mut data);
            data
        };
        assert_eq!(
            (read(0), read(4096), read(FlushHints::LEN - 4096)),
            ([0; 8], [0xff; 8], [0; 8])
        );
        assert_eq!(FlushHints::hint(Gpa(0xd010_0000), 2), Gpa(0xd010_2000));
    }

    struct Broken;
    impl FlushTarget for Broken {
        fn flush(&self) -> io::Result<()> {
            Err(io::Error::other("no storage"))
        }
    }

    #[test]
    fn a_flush_that_fails_is_counted_and_told() {
        let told = Arc::new(AtomicBool::new(false));
        let hints = FlushHints::default();
        let tell = told.clone();
        hints.add(
            0,
            Some(Arc::new(Broken)),
            Box::new(move || tell.store(true, Ordering::SeqCst)),
        );
        assert_eq!(hints.write(0, &[1; 8]), Effect::None);
        assert!(told.load(Ordering::SeqCst));
        assert_eq!(hints.counts(0), counts(1, 1, 1));
    }
}
