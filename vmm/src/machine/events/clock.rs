//! The machine's own time, and how much of it was spent in pauses.

use std::time::{Duration, Instant};

/// Since when the machine runs, and how long it did not.
pub(super) struct Clock {
    started: Instant,
    paused: Option<Instant>,
    paused_before: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            paused: None,
            paused_before: Duration::ZERO,
        }
    }

    pub(super) fn pause(&mut self) {
        self.paused = Some(Instant::now());
    }

    pub(super) fn resume(&mut self) {
        self.paused_before += self.paused.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Milliseconds since the start, and those in pauses.
    pub(super) fn read(&self) -> (u64, u64) {
        let paused = self.paused.map_or(Duration::ZERO, |since| since.elapsed()) + self.paused_before;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        (ms(self.started.elapsed()), ms(paused))
    }
}
