//! SPA <-> (DIMM, DPA).
//!
//! The mappings of an SPA range take turns: with `n` of them and lines of `L` bytes, line `k` of mapping `i` is line
//! `k * n + i` of the range (ACPI 6.5 5.2.25.4 with a table of one line). Without interleaving there is one mapping, and
//! one line as long as it. Seen from one mapping both directions grow together, so what a run of the range takes from a
//! DIMM is always one run of DPAs.

use super::plan::{MappingPlan, NfitPlan, SpaPlan};
use crate::units::{Dpa, Gpa, GpaRange};
use std::ops::Range;

/// Where an SPA lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DimmAddress {
    /// Slot of the DIMM.
    pub slot: u8,
    /// Address in the DIMM.
    pub dpa: Dpa,
    /// Bytes from here on that are contiguous in SPA and DPA.
    pub len: u64,
}

/// One mapping of a range, with its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane<'a> {
    mapping: &'a MappingPlan,
    range: GpaRange,
    way: u64,
    ways: u64,
    line: u64,
}

impl Lane<'_> {
    /// Slot of the DIMM.
    pub fn slot(&self) -> u8 {
        self.mapping.slot
    }

    /// The SPA of `offset` bytes into the mapping.
    fn spa(&self, offset: u64) -> Gpa {
        let (line, rest) = (offset / self.line, offset % self.line);
        Gpa(self.range.start.0 + (line * self.ways + self.way) * self.line + rest)
    }

    /// Offset into the mapping of its first byte at `spa` or behind; the mapping's length when there is none.
    fn first_at(&self, spa: Gpa) -> u64 {
        let offset = spa.0.saturating_sub(self.range.start.0);
        let round = self.line.saturating_mul(self.ways);
        let turn = self.way * self.line;
        let into_line = (offset % round).saturating_sub(turn).min(self.line);
        (offset / round)
            .saturating_mul(self.line)
            .saturating_add(into_line)
            .min(self.mapping.len)
    }

    /// The DPAs that `spas` take from the DIMM; empty when it has no part in them.
    pub fn dpas(&self, spas: GpaRange) -> Range<u64> {
        let (first, last) = (self.first_at(spas.start), self.first_at(spas.end()));
        self.mapping.dpa + first..self.mapping.dpa + last
    }

    /// The SPA of the first of the DIMM's bytes at `dpa` or behind; none behind the mapping's end.
    pub fn spa_of(&self, dpa: u64) -> Option<Gpa> {
        let offset = dpa.saturating_sub(self.mapping.dpa);
        (offset < self.mapping.len).then(|| self.spa(offset))
    }

    /// The DPA of the first of the DIMM's bytes at `spa` or behind; none when there is none.
    pub fn dpa_at(&self, spa: Gpa) -> Option<u64> {
        let offset = self.first_at(spa);
        (offset < self.mapping.len).then(|| self.mapping.dpa + offset)
    }

    /// Bytes from `dpa`, which the mapping holds, to the end of its line.
    fn contiguous(&self, dpa: u64) -> u64 {
        let offset = dpa - self.mapping.dpa;
        (self.line - offset % self.line).min(self.mapping.len - offset)
    }
}

impl SpaPlan {
    /// The range's mappings with their turns.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane<'_>> {
        let line = self.interleave.map(|i| u64::from(i.line).max(1));
        let ways = if line.is_some() { self.mappings.len() as u64 } else { 1 };
        (0..ways.max(1)).zip(&self.mappings).map(move |(way, mapping)| Lane {
            mapping,
            range: self.range,
            way,
            ways,
            line: line.unwrap_or_else(|| mapping.len.max(1)),
        })
    }

    /// Where `spa` lies; none when it is not in the range, or no DIMM is behind it.
    pub fn to_dpa(&self, spa: Gpa) -> Option<DimmAddress> {
        if !self.range.contains(spa) {
            return None;
        }
        let here = |lane: &Lane<'_>| lane.dpa_at(spa).is_some_and(|dpa| lane.spa_of(dpa) == Some(spa));
        let lane = self.lanes().find(here)?;
        let dpa = lane.dpa_at(spa)?;
        Some(DimmAddress {
            slot: lane.slot(),
            dpa: Dpa(dpa),
            len: lane.contiguous(dpa),
        })
    }

    /// Where the range shows `dpa` of the DIMM in `slot`; none when it does not.
    pub fn to_spa(&self, slot: u8, dpa: Dpa) -> Option<Gpa> {
        self.lanes()
            .filter(|lane| lane.slot() == slot && lane.mapping.dpa <= dpa.0)
            .find_map(|lane| lane.spa_of(dpa.0))
    }
}

impl NfitPlan {
    /// The SPA range that holds all of `range`.
    pub fn spa_with(&self, range: GpaRange) -> Option<&SpaPlan> {
        let holds = |spa: &&SpaPlan| spa.range.start <= range.start && range.end() <= spa.range.end();
        self.spas.iter().find(holds)
    }

    /// Where `spa` lies.
    pub fn to_dpa(&self, spa: Gpa) -> Option<DimmAddress> {
        self.spas.iter().find_map(|range| range.to_dpa(spa))
    }

    /// Where the guest sees `dpa` of the DIMM in `slot`.
    pub fn to_spa(&self, slot: u8, dpa: Dpa) -> Option<Gpa> {
        self.spas.iter().find_map(|range| range.to_spa(slot, dpa))
    }
}

#[cfg(test)]
#[path = "interleave_tests.rs"]
mod tests;
