//! What happened to the machine, as a bounded log that any number of readers follow at their own pace.
//!
//! The loop writes and never waits. A reader that is slower than the log is told how much it missed.

use super::{FaultChange, OperationInfo, Phase};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};
use utoipa::ToSchema;

/// Events that are kept.
pub const KEPT: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Number, from 1; without gaps.
    pub seq: u64,
    /// Milliseconds of the machine's uptime.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The machine is in another phase.
    State {
        /// Which.
        state: Phase,
    },
    /// An operation has begun, has got further, or has ended.
    Operation {
        /// What it is now.
        operation: Box<OperationInfo>,
    },
    /// The guest has read the NFIT of the first root device.
    FitSeen {
        /// Newest version there is.
        generation: u32,
        /// Version that it read.
        seen: u32,
    },
    /// A request was made that may have changed something.
    Request {
        /// Its words, such as `nvdimm add`.
        request: String,
        /// Whether it was done, or begun.
        done: bool,
    },
    /// Something happened to bad memory.
    Fault {
        /// What.
        change: FaultChange,
        /// Where the guest sees the first byte; none: nowhere.
        gpa: Option<u64>,
        /// Bytes, of all ranges.
        len: u64,
        /// How many ranges.
        ranges: u64,
        /// APIC id of the vCPU that met it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vcpu: Option<u32>,
    },
    /// Under the Xen personality: the guest asked for memory that it may not have. Not told again while it has as much.
    #[serde(rename_all = "kebab-case")]
    MemoryRefused {
        /// What it asked for in vain.
        asked: ByteSize,
        /// What it has.
        current: ByteSize,
        /// What it may have.
        static_max: ByteSize,
    },
    /// The run is over.
    End {
        /// One sentence.
        outcome: String,
    },
    /// Only on the stream: the reader was too slow for these.
    Gap {
        /// How many events it missed.
        lost: u64,
    },
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<Event>,
    /// How many between the asked and the first of these are not kept any more.
    pub lost: u64,
}

/// The log.
#[derive(Default)]
pub struct EventLog {
    ring: Mutex<Ring>,
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").finish_non_exhaustive()
    }
}

impl EventLog {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings after each event; the first call counts.
    pub fn on_event(&self, bell: impl Fn() + Send + Sync + 'static) {
        let _ = self.bell.set(Box::new(bell));
    }

    /// Adds an event.
    pub fn push(&self, at_ms: u64, what: Happening) {
        let mut ring = self.ring();
        ring.last += 1;
        let seq = ring.last;
        if ring.events.len() >= KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(Event { seq, at_ms, what });
        drop(ring);
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// Number of the newest event; 0: none yet.
    pub fn last(&self) -> u64 {
        self.ring().last
    }

    /// At most `most` events after number `seq`.
    pub fn since(&self, seq: u64, most: usize) -> EventList {
        let ring = self.ring();
        let kept_from = ring.events.front().map_or(ring.last, |first| first.seq - 1);
        // A number from another machine's life is as good as none.
        let seq = if seq > ring.last { 0 } else { seq };
        let from = seq.max(kept_from);
        let skip = usize::try_from(from - kept_from).unwrap_or(usize::MAX);
        EventList {
            events: ring.events.iter().skip(skip).take(most).cloned().collect(),
            lost: from - seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    fn state() -> Happening {
        Happening::State { state: Phase::Running }
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let log = EventLog::default();
        assert_eq!((log.since(0, 9).events, log.since(7, 9).lost), (vec![], 0));
        for n in 0..u64::try_from(KEPT).unwrap() + 10 {
            log.push(n, state());
        }
        let read = log.since(3, usize::MAX);
        assert_eq!((read.lost, read.events.len(), read.events[0].seq), (7, KEPT, 11));
        let last = log.last();
        assert!(log.since(last, 9).events.is_empty());
        let two = log.since(last - 2, 1);
        assert_eq!((two.lost, two.events.len(), two.events[0].seq), (0, 1, last - 1));
        assert_eq!(log.since(last + 1, 1).events[0].seq, 11);
    }

    #[test]
    fn every_event_rings() {
        let log = EventLog::default();
        let rung = Arc::new(AtomicUsize::new(0));
        let count = rung.clone();
        log.on_event(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        log.push(0, state());
        log.push(0, state());
        assert_eq!(rung.load(Ordering::Relaxed), 2);
    }
}
