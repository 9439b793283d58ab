//! Memory of the domain, page by page: what it has, and what it may have.
//!
//! ```text
//!   |<------------- maximum (static-max) ------------->|
//!   |<-- current: pages that are there -->|<-ballooned->|
//! ```
//! The boot map is there at first. A page that is given back leaves the host's memory; a page is taken again at its own place,
//! or beyond the boot map in a section of 128 MiB that nothing else has.

use super::pages::PageSet;
use std::{collections::BTreeSet, ops::Range};

/// Pages of a section: what Linux adds at once.
pub const SECTION: u64 = 1 << 15;

/// Why a page cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The domain has all that it may have.
    AtMaximum,
    /// It has the page.
    Present,
    /// There can be no memory.
    NoPlace,
}

/// Memory of the domain.
#[derive(Debug, Clone)]
pub struct Reservation {
    maximum: u64,
    /// Pages of the boot map, ascending.
    boot: Vec<Range<u64>>,
    /// Pages of it that are not there.
    absent: PageSet,
    /// Pages beyond it that are.
    extra: PageSet,
    /// Sections beyond it that have been provided.
    sections: BTreeSet<u64>,
    current: u64,
    ballooned: u64,
}

impl Reservation {
    /// A domain that has `boot`, ascending ranges of pages, and may have `maximum` pages, at least as many.
    pub fn new(boot: Vec<Range<u64>>, maximum: u64) -> Self {
        let current: u64 = boot.iter().map(|range| range.end - range.start).sum();
        assert!(
            current <= maximum,
            "the boot map's {current} pages must not be above the maximum of {maximum}"
        );
        Self {
            maximum,
            boot,
            absent: PageSet::default(),
            extra: PageSet::default(),
            sections: BTreeSet::new(),
            current,
            ballooned: maximum - current,
        }
    }

    /// Most pages.
    pub fn maximum(&self) -> u64 {
        self.maximum
    }

    /// Pages that are there.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// Pages that are not.
    pub fn ballooned(&self) -> u64 {
        self.ballooned
    }

    fn is_boot(&self, page: u64) -> bool {
        let after = self.boot.partition_point(|range| range.end <= page);
        self.boot.get(after).is_some_and(|range| range.contains(&page))
    }

    /// Whether memory is, was or can be there without anything being provided.
    pub fn is_ram(&self, page: u64) -> bool {
        self.is_boot(page) || self.sections.contains(&(page / SECTION))
    }

    /// Whether the domain has the page.
    pub fn has(&self, page: u64) -> bool {
        self.extra.contains(page) || self.is_boot(page) && !self.absent.contains(page)
    }

    /// Whether `page` could be taken; `Ok(true)`: once its section has been provided.
    pub fn may_take(&self, page: u64) -> Result<bool, Refusal> {
        if self.has(page) {
            return Err(Refusal::Present);
        }
        if self.current >= self.maximum {
            return Err(Refusal::AtMaximum);
        }
        if self.is_ram(page) {
            return Ok(false);
        }
        let section = page / SECTION * SECTION;
        let touches = |range: &Range<u64>| range.start < section.saturating_add(SECTION) && section < range.end;
        // A guest that takes one page of each section would have the host map all of them.
        let full = self.sections.len() as u64 > self.maximum / SECTION;
        if full || self.boot.iter().any(touches) {
            return Err(Refusal::NoPlace);
        }
        Ok(true)
    }

    /// The section of `page` has been provided.
    pub fn provided(&mut self, page: u64) {
        self.sections.insert(page / SECTION);
    }

    /// Takes a page that [`Self::may_take`] allows and whose section there is.
    pub fn take(&mut self, page: u64) -> Result<(), Refusal> {
        if self.may_take(page)? {
            return Err(Refusal::NoPlace);
        }
        let new = if self.is_boot(page) {
            self.absent.remove(page)
        } else {
            self.extra.insert(page)
        };
        assert!(new, "page {page:#x} must be there once");
        self.current += 1;
        self.ballooned -= 1;
        Ok(())
    }

    /// Gives a page back; false: the domain does not have it.
    pub fn give(&mut self, page: u64) -> bool {
        let had = self.extra.remove(page) || self.is_boot(page) && self.absent.insert(page);
        if had {
            self.current -= 1;
            self.ballooned += 1;
        }
        had
    }

    /// Counts everything anew: what is wrong, if anything is.
    pub fn audit(&self) -> Result<(), String> {
        let boot: u64 = self.boot.iter().map(|range| range.end - range.start).sum();
        let there = boot - self.absent.count() + self.extra.count();
        if there != self.current || self.absent.len() != self.absent.count() || self.extra.len() != self.extra.count() {
            return Err(format!("{there} pages are there, and {} are counted", self.current));
        }
        match self.current + self.ballooned == self.maximum {
            true => Ok(()),
            false => Err(format!(
                "{} pages and {} ballooned ones are not {}",
                self.current, self.ballooned, self.maximum
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Reservation {
        Reservation::new(vec![0..100, 200..300], 250)
    }

    #[test]
    fn pages_come_and_go_and_the_sum_stays() {
        let mut memory = small();
        assert_eq!((memory.current(), memory.ballooned(), memory.maximum()), (200, 50, 250));
        assert!(memory.give(99) && !memory.give(99) && !memory.give(100) && !memory.give(u64::MAX));
        assert!(!memory.has(99) && memory.has(98) && memory.has(200) && !memory.has(150));
        assert_eq!((memory.current(), memory.ballooned()), (199, 51));
        assert_eq!(memory.take(99), Ok(()));
        assert_eq!(memory.take(99), Err(Refusal::Present));
        memory.audit().unwrap();
    }

    #[test]
    fn memory_beyond_the_boot_map_is_in_sections_of_its_own_up_to_the_maximum() {
        let mut memory = small();
        assert_eq!(memory.may_take(150), Err(Refusal::NoPlace), "the section has boot RAM");
        let far = 5 * SECTION + 3;
        assert_eq!(
            (memory.may_take(far), memory.take(far)),
            (Ok(true), Err(Refusal::NoPlace))
        );
        memory.provided(far);
        for page in far..far + 50 {
            assert_eq!(memory.take(page), Ok(()));
        }
        assert_eq!(memory.take(far + 50), Err(Refusal::AtMaximum));
        assert_eq!((memory.current(), memory.ballooned()), (250, 0));
        assert!(memory.give(far) && memory.give(0) && memory.take(0).is_ok());
        assert_eq!(
            memory.may_take(far + 9 * SECTION),
            Err(Refusal::NoPlace),
            "one section is enough for 250 pages"
        );
        memory.audit().unwrap();
    }

    #[test]
    fn the_highest_page_number_is_no_place_that_overflows() {
        let mut memory = Reservation::new(vec![0..4, 4..10], u64::MAX);
        assert_eq!(memory.may_take(u64::MAX), Ok(true));
        memory.provided(u64::MAX);
        assert_eq!(memory.take(u64::MAX), Ok(()));
        memory.audit().unwrap();
    }
}
