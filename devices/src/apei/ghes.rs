//! Generic hardware error sources, version 2: one error at a time, the next one once the guest has read it.
//! ACPI 6.5 18.3.2.8.

use super::Source;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Most errors of one source that the guest has not read.
pub const MAX_WAITING: usize = 256;

/// The guest has not read what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_WAITING} errors wait for the guest to read them: expected fewer; hint: a guest without GHES (`ghes.disable=1`) reads none"
)]
pub struct ReportsFull;

/// What one source has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceInfo {
    /// Which.
    pub source: Source,
    /// Errors that were to be told.
    pub reported: u64,
    /// Errors that the guest has read and acknowledged.
    pub acknowledged: u64,
    /// Errors that are still to be read.
    pub waiting: u64,
}

/// The errors of one source.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<Vec<u8>>,
    /// One is where the guest looks.
    offered: bool,
    reported: u64,
    acknowledged: u64,
}

impl Reports {
    pub(super) fn room(&self) -> usize {
        MAX_WAITING - self.unread()
    }

    fn unread(&self) -> usize {
        self.waiting.len() + usize::from(self.offered)
    }

    pub(super) fn push(&mut self, block: Vec<u8>) -> Result<(), ReportsFull> {
        if self.room() == 0 {
            return Err(ReportsFull);
        }
        self.waiting.push_back(block);
        self.reported += 1;
        Ok(())
    }

    /// The next block, if none is being read.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if self.offered {
            return None;
        }
        let next = self.waiting.pop_front();
        self.offered = next.is_some();
        next
    }

    /// Whether the guest may be given another block.
    pub(super) fn is_read(&self) -> bool {
        !self.offered
    }

    /// The guest has read its block; false: there was none.
    pub(super) fn acknowledge(&mut self) -> bool {
        let had = std::mem::take(&mut self.offered);
        self.acknowledged += u64::from(had);
        had
    }

    pub(super) fn info(&self, source: Source) -> SourceInfo {
        SourceInfo {
            source,
            reported: self.reported,
            acknowledged: self.acknowledged,
            waiting: self.unread() as u64,
        }
    }
}
