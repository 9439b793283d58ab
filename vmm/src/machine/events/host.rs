//! Memory that the host has lost: its errors become the guest's.
//!
//! A page of the host is lost as a whole, so all lines of its unit are bad. The memory itself is new and holds zeros, or what a
//! file's disk has; who loads from it meets an error until it is cleared.

use super::{Outcome, Running, faults::Notice};
use crate::{
    control::{FaultChange, Happening, NotifySeverity},
    cpuid::Vendor,
    fault::Place,
    mce::Kind,
    memory::{
        PAGE,
        lost::{self, How, Lost},
    },
};
use devices::{
    nvdimm::media::{ErrorSource, Mark},
    units::{Gpa, GpaRange},
};
use std::collections::BTreeMap;

/// Why the machine cannot go on.
type Why = String;

impl Running {
    /// Whether the host has lost some of the machine's memory, or somebody has touched a page with a trap, and nothing has been done
    /// about it.
    pub(super) fn has_lost(&self) -> bool {
        lost::is_any(|address| self.faults().behind(address).is_some()) || self.faults().is_sprung()
    }

    /// Opens the traps that were touched, and makes errors of what the host has lost. Every vCPU stands. Gives what the guest has to be kept from.
    pub(super) fn take_lost(&mut self) -> Vec<GpaRange> {
        let all = lost::take(|address| self.faults().behind(address).is_some());
        let mut ranges = vec![];
        // What a trap kept can be lost as well.
        let kept = self.faults().take_sprung().into_iter().map(|address| Lost {
            address,
            lsb: PAGE.trailing_zeros(),
            how: How::Touched,
        });
        let both: Vec<Lost> = all.iter().copied().chain(kept).collect();
        for (one, how) in merged(&both) {
            match self.replace_lost(&one, &how) {
                Ok(range) => ranges.extend(range),
                Err(why) => self.end(Outcome::Failed { apic_id: 0, why }),
            }
        }
        lost::release(&all);
        ranges
    }

    /// What the guest may not load from is in no memory slot now, or behind a trap; else the machine ends.
    pub(super) fn check_caught(&mut self, ranges: &[GpaRange]) {
        let open = ranges.iter().find(|range| !self.faults().is_hole(range.start));
        if let Some(range) = open {
            let why = format!(
                "the host has lost {:#x} bytes at {}, and loads from there cannot be caught: there are too many bad pages",
                range.len, range.start
            );
            self.end(Outcome::MachineCheck { apic_id: 0, why });
        }
    }

    fn replace_lost(&mut self, one: &Lost, how: &[How]) -> Result<Option<GpaRange>, Why> {
        let Some((window, offset)) = self.faults().behind(one.address) else {
            return Ok(None);
        };
        let range = window.range();
        let replaced = how.contains(&How::Replaced);
        let unit = self.faults().renew(&window, offset, one.lsb, replaced).map_err(|error| {
            format!("the host has lost the memory at {offset:#x} of {range}, and nothing can be put in its place: {error}")
        })?;
        self.halt.counts.host_errors += 1;
        let len = unit.end.min(range.len).saturating_sub(unit.start);
        let bad = GpaRange::new(Gpa(range.start.0.saturating_add(unit.start)), len);
        tracing::warn!(at = %bad.start, len, "the host has lost memory of the guest");
        if len == 0 {
            // Beyond what the guest sees of it.
            return Ok(None);
        }
        let told = how.contains(&How::Told);
        let mark = match told {
            true => Mark::known(ErrorSource::Backing),
            false => Mark::latent(ErrorSource::Backing),
        };
        let marked = self.faults().inject(bad, mark);
        marked.map_err(|error| format!("the host has lost {len:#x} bytes at {}: {error}", bad.start))?;
        self.note(Happening::Fault {
            change: FaultChange::Lost,
            gpa: Some(bad.start.0),
            len,
            ranges: 1,
            vcpu: None,
        });
        if told {
            self.tell_of_lost(bad);
        }
        Ok(Some(bad))
    }

    /// The guest is told before it touches it: of NVDIMMs by their root device, which the mark has done, of all else by firmware or,
    /// where there is none, by a machine check.
    fn tell_of_lost(&mut self, range: GpaRange) {
        if !matches!(self.faults().place(range), Ok(Place::Ram)) {
            return;
        }
        if self.parts.apei.is_some() {
            return self.tell_of(&[range]);
        }
        let severity = match self.parts.checks.personality.vendor {
            Vendor::Amd => NotifySeverity::Deferred,
            _ => NotifySeverity::Recoverable,
        };
        self.halt
            .ask_notice(Notice::new(Kind::Srao, severity, range.start).of_nobody());
    }
}

/// One for each unit, with all the ways in which it came to light.
fn merged(all: &[Lost]) -> Vec<(Lost, Vec<How>)> {
    let mut units: BTreeMap<usize, (Lost, Vec<How>)> = BTreeMap::new();
    for one in all {
        let unit = one.address >> one.lsb.min(usize::BITS - 1) << one.lsb.min(usize::BITS - 1);
        let (_, how) = units.entry(unit).or_insert((*one, vec![]));
        how.push(one.how);
    }
    units.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_page_are_one() {
        let lost = |address, how| Lost { address, lsb: 12, how };
        let all = [
            lost(0x5008, How::Touched),
            lost(0x9000, How::Told),
            lost(0x5ff0, How::Told),
        ];
        assert_eq!(
            merged(&all),
            [(all[0], vec![How::Touched, How::Told]), (all[1], vec![How::Told])]
        );
    }
}
