//! Lines that become bad when they are loaded from, or stored to, for the so-many-th time.

use devices::{
    nvdimm::media::LINE,
    units::{Gpa, GpaRange},
};
use std::collections::BTreeMap;

/// Most such lines: accesses to their pages are carried out one by one from the start.
pub const MAX_AWAITED: usize = 4096;
/// Most loads or stores that are waited for.
pub const MAX_LOADS: u32 = 1_000_000;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The load of this number from now on meets the line.
    Load(u32),
    /// The line is bad when the store of this number from now on is done.
    Store(u32),
}

impl Trigger {
    /// How many are still to come.
    pub fn left(&mut self) -> &mut u32 {
        match self {
            Self::Load(left) | Self::Store(left) => left,
        }
    }
}

/// Loads and stores that are still to come, by line.
#[derive(Debug, Default)]
pub struct Awaited {
    lines: BTreeMap<u64, Trigger>,
    changes: u64,
}

/// There would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} lines would wait for their loads or stores: expected at most {MAX_AWAITED}; hint: clear some, or choose fewer"
)]
pub struct TooMany(usize);

fn lines_of(range: GpaRange) -> std::ops::RangeInclusive<u64> {
    range.start.0 / LINE..=range.end().0.saturating_sub(1) / LINE
}

impl Awaited {
    /// The lines of `ranges` become bad by `trigger`, whatever was said of them before; all, or none.
    pub fn add(&mut self, ranges: &[GpaRange], mut trigger: Trigger) -> Result<(), TooMany> {
        let wanted = ranges.iter().map(|range| range.len.div_ceil(LINE)).sum::<u64>();
        let wanted = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .saturating_add(self.lines.len());
        if wanted > MAX_AWAITED {
            return Err(TooMany(wanted));
        }
        *trigger.left() = (*trigger.left()).max(1);
        let lines = ranges.iter().copied().flat_map(lines_of);
        self.lines.extend(lines.map(|line| (line, trigger)));
        self.changes += 1;
        Ok(())
    }

    /// Nothing is waited for in `range` any more.
    pub fn forget(&mut self, range: GpaRange) {
        let before = self.lines.len();
        let gone = lines_of(range);
        self.lines.retain(|line, _| !gone.contains(line));
        self.changes += u64::from(self.lines.len() != before);
    }

    /// A load of `range`: the lines that are bad from it on.
    pub fn load(&mut self, range: GpaRange) -> Vec<GpaRange> {
        self.accessed(range, |trigger| matches!(trigger, Trigger::Load(_)))
    }

    /// A store to `range`: the lines that are bad after it.
    pub fn store(&mut self, range: GpaRange) -> Vec<GpaRange> {
        self.accessed(range, |trigger| matches!(trigger, Trigger::Store(_)))
    }

    fn accessed(&mut self, range: GpaRange, counts: impl Fn(&Trigger) -> bool) -> Vec<GpaRange> {
        if self.lines.is_empty() {
            return vec![];
        }
        let mut due = vec![];
        let lines = self.lines.range_mut(lines_of(range));
        for (line, trigger) in lines.filter(|(_, trigger)| counts(trigger)) {
            let left = trigger.left();
            *left -= 1;
            if *left == 0 {
                due.push(GpaRange::new(Gpa(line * LINE), LINE));
            }
        }
        for line in &due {
            self.lines.remove(&(line.start.0 / LINE));
        }
        self.changes += due.len() as u64;
        due
    }

    /// All lines of `range` are bad from now on: what is done there cannot be seen access by access.
    pub fn take(&mut self, range: GpaRange) -> Vec<GpaRange> {
        let due = self.lines.range(lines_of(range)).map(|(line, _)| *line);
        let due: Vec<GpaRange> = due.map(|line| GpaRange::new(Gpa(line * LINE), LINE)).collect();
        self.forget(range);
        due
    }

    /// The lines, and what each waits for.
    pub fn all(&self) -> impl Iterator<Item = (GpaRange, Trigger)> {
        self.lines
            .iter()
            .map(|(line, trigger)| (GpaRange::new(Gpa(line * LINE), LINE), *trigger))
    }

    /// Counts changes of which lines there are.
    pub fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> GpaRange {
        GpaRange::new(Gpa(start), len)
    }

    #[test]
    fn a_line_is_due_with_its_last_load_and_once() {
        let mut awaited = Awaited::default();
        awaited.add(&[range(0x1000, 128)], Trigger::Load(3)).unwrap();
        assert_eq!(
            awaited.all().collect::<Vec<_>>(),
            [
                (range(0x1000, 64), Trigger::Load(3)),
                (range(0x1040, 64), Trigger::Load(3))
            ]
        );
        for load in [range(0x1000, 8), range(0x103c, 8), range(0xff8, 8), range(0x1080, 8)] {
            assert_eq!(awaited.load(load), [], "{load}");
        }
        // The second load was one of both lines.
        assert_eq!(awaited.load(range(0x1008, 1)), [range(0x1000, 64)]);
        assert_eq!(awaited.load(range(0x1008, 1)), []);
        assert_eq!(
            awaited.all().collect::<Vec<_>>(),
            [(range(0x1040, 64), Trigger::Load(2))]
        );
        let before = awaited.changes();
        awaited.forget(range(0x1000, 0x1000));
        assert_eq!((awaited.all().count(), awaited.changes()), (0, before + 1));
        awaited.forget(range(0, 64));
        assert_eq!(awaited.take(range(0, 64)), []);
        assert_eq!(awaited.changes(), before + 1);
    }

    #[test]
    fn stores_and_loads_are_counted_apart() {
        let mut awaited = Awaited::default();
        awaited.add(&[range(0, 64)], Trigger::Store(2)).unwrap();
        awaited.add(&[range(64, 64)], Trigger::Load(1)).unwrap();
        assert_eq!(awaited.load(range(0, 8)), []);
        assert_eq!(awaited.store(range(64, 8)), []);
        assert_eq!(awaited.store(range(0, 1)), []);
        assert_eq!(
            awaited.all().collect::<Vec<_>>(),
            [(range(0, 64), Trigger::Store(1)), (range(64, 64), Trigger::Load(1))]
        );
        assert_eq!(awaited.store(range(60, 8)), [range(0, 64)]);
        assert_eq!(awaited.load(range(60, 8)), [range(64, 64)]);
        assert_eq!(awaited.all().count(), 0);
        // None at all is the next one.
        awaited.add(&[range(0, 64)], Trigger::Store(0)).unwrap();
        assert_eq!(awaited.store(range(0, 1)), [range(0, 64)]);
    }

    #[test]
    fn what_cannot_be_seen_access_by_access_meets_all_of_its_lines() {
        let mut awaited = Awaited::default();
        awaited
            .add(&[range(0x1000, 64), range(0x1fc0, 128)], Trigger::Load(9))
            .unwrap();
        assert_eq!(
            awaited.take(range(0x1000, 0x1000)),
            [range(0x1000, 64), range(0x1fc0, 64)]
        );
        assert_eq!(
            awaited.all().collect::<Vec<_>>(),
            [(range(0x2000, 64), Trigger::Load(9))]
        );
    }

    #[test]
    fn there_are_not_too_many_and_a_refusal_changes_nothing() {
        let mut awaited = Awaited::default();
        awaited.add(&[range(0, 64 * 4000)], Trigger::Load(1)).unwrap();
        assert_eq!(
            awaited.add(&[range(1 << 30, 64 * 97)], Trigger::Store(1)),
            Err(TooMany(4097))
        );
        assert_eq!(awaited.all().count(), 4000);
        awaited.add(&[range(1 << 30, 64 * 96)], Trigger::Store(1)).unwrap();
    }
}
