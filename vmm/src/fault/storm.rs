//! Errors that come later, one after the other. Pure: whoever has the clock asks what is due.

use devices::{nvdimm::media::Mark, units::GpaRange};
use std::collections::VecDeque;

/// Most storms at a time.
pub const MAX_STORMS: usize = 16;
/// Most lines or ranges that become bad in a second.
pub const MAX_RATE: u32 = 100_000;

/// Ranges that become bad in their order.
#[derive(Debug)]
pub struct Storm {
    /// Number.
    pub id: u64,
    /// How they become bad.
    pub mark: Mark,
    left: VecDeque<GpaRange>,
    /// Ranges that are bad by now.
    done: u64,
    /// The machine's time at which the first is due.
    begin_ms: u64,
    /// Ranges a second; none: all at once.
    rate: Option<u32>,
}

impl Storm {
    /// `ranges` from `begin_ms` on, so many a second, or all at once.
    pub fn new(id: u64, mark: Mark, ranges: Vec<GpaRange>, begin_ms: u64, rate: Option<u32>) -> Self {
        Self {
            id,
            mark,
            left: ranges.into(),
            done: 0,
            begin_ms,
            rate,
        }
    }

    /// What has to be bad by `now_ms` and is not yet.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<GpaRange> {
        let Some(since) = now_ms.checked_sub(self.begin_ms) else {
            return vec![];
        };
        let by_now = match self.rate {
            None => u64::MAX,
            // The first at once.
            Some(rate) => since.saturating_mul(rate.into()) / 1000 + 1,
        };
        let due = usize::try_from(by_now.saturating_sub(self.done)).unwrap_or(usize::MAX);
        let due: Vec<GpaRange> = self.left.drain(..due.min(self.left.len())).collect();
        self.done += due.len() as u64;
        due
    }

    /// Ranges that are still good.
    pub fn left(&self) -> u64 {
        self.left.len() as u64
    }

    /// Ranges that are bad by now.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// When the first is due.
    pub fn begin_ms(&self) -> u64 {
        self.begin_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::{nvdimm::media::ErrorSource, units::Gpa};

    fn storm(count: u64, rate: Option<u32>) -> Storm {
        let ranges = (0..count).map(|n| GpaRange::new(Gpa(n * 64), 64)).collect();
        Storm::new(1, Mark::latent(ErrorSource::Host), ranges, 1000, rate)
    }

    #[test]
    fn nothing_is_due_before_it_begins_and_everything_once() {
        let mut storm = storm(5, None);
        assert_eq!(storm.take_due(999), []);
        assert_eq!((storm.take_due(1000).len(), storm.left(), storm.done()), (5, 0, 5));
        assert_eq!(storm.take_due(u64::MAX), []);
    }

    #[test]
    fn as_many_a_second_as_were_asked_for_however_rarely_somebody_looks() {
        let mut storm = storm(100, Some(10));
        let mut starts = vec![];
        for now in [1000, 1050, 1100, 1350, 2000] {
            starts.push(storm.take_due(now).len());
        }
        assert_eq!(starts, [1, 0, 1, 2, 7]);
        assert_eq!(storm.take_due(2001), []);
        assert_eq!(storm.take_due(u64::MAX).len(), 89);
    }
}
