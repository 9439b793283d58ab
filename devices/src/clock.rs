//! Time as devices see it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Monotonic time from an arbitrary start. Clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    Host(Instant),
    Manual(Arc<Mutex<Duration>>),
}

impl Default for Clock {
    fn default() -> Self {
        Self(Source::Host(Instant::now()))
    }
}

impl Clock {
    /// A clock that stands until [`Clock::advance`] moves it: for tests and for replays.
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::Host(start) => start.elapsed(),
            Source::Manual(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a manual clock; the host's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(time) = &self.0 {
            *time.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_stands_until_it_is_moved() {
        let clock = Clock::manual();
        let twin = clock.clone();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_secs(3));
        assert_eq!(twin.now(), Duration::from_secs(3));
    }

    #[test]
    fn host_clock_does_not_go_back() {
        let clock = Clock::default();
        let first = clock.now();
        clock.advance(Duration::from_secs(100));
        assert!(clock.now() >= first && clock.now() < Duration::from_secs(100));
    }
}
