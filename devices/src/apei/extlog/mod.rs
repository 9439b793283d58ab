//! Extended error log: beside a processor's machine check bank, firmware's record of the error in it (enhanced machine check
//! architecture; Intel 329176, "Machine Check Architecture Enhancements"; `MCG_CAP.ELOG_P`). A `_DSM` of `\_SB` says where
//! the directory is ([`ExtlogDsm`]).
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 64 | header of the directory |
//! | 0x40 | 8 each | an entry for each bank of each APIC id: bit 63 valid, bits 0 to 51 address of an error status block |
//! | 0x8000 | 0x400 each | two error status blocks for each processor, in their order |
//! | 0x18000 | 0x1000 | nothing: readers take 4 KiB from where a block begins |
//!
//! ```text
//!             log                                        log, and the status word is 0
//!  no error ------> waiting, in one block of the two  -------------------------------> waiting, the new one alone
//!                     ^    |
//!                     +----+ log: the other block has those that wait and the new one
//! ```
//! The guest clears the status word of a block when it has read it. A block that it may be reading is not changed: the next one
//! goes to the other. So an error may be told twice, but none is lost between the guest's read and its clearing. Nothing that the
//! guest can write is looked at but whether that word is 0, and bit 0 of the header's flags.

mod aml;

pub use aml::ExtlogDsm;

use super::{
    ApeiError, block,
    cper::{self, Cper, Entries},
};
use crate::{
    GuestMemory,
    units::{Gpa, GpaRange},
};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zerocopy::{
    FromZeros, Immutable, IntoBytes,
    little_endian::{U32, U64},
};

/// Where the extended error log is, and whose errors it has. Guest ABI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtlogPlan {
    /// Guest memory, [`ExtlogPlan::LEN`] bytes.
    pub memory: GpaRange,
    /// APIC ids of the processors, at most [`ExtlogPlan::PROCESSORS`], each below [`ExtlogPlan::APIC_IDS`].
    pub processors: Vec<u32>,
    /// Machine check banks of each, at most [`ExtlogPlan::BANKS`].
    pub banks: u8,
}

/// The directory's header.
#[derive(IntoBytes, Immutable, FromZeros)]
#[repr(C)]
struct Header {
    version: U32,
    header_len: U32,
    total_len: U64,
    log_base: U64,
    log_len: U64,
    flags: U32,
    reserved: [u8; 12],
    entries: U32,
    reserved2: [u8; 12],
}
const _: () = assert!(size_of::<Header>() as u64 == HEADER);

/// Bytes of the header, and where the entries begin.
const HEADER: u64 = 64;
const VERSION: u32 = 1;
/// Where its flags are. Bit 0, which is the guest's: it uses the log.
const FLAGS: u64 = 32;
const OPTED_IN: u32 = 1;
/// Bit of an entry: there is a block.
const VALID: u64 = 1 << 63;
/// Offset of the blocks, bytes of one, and what follows the last one.
const BLOCKS: u64 = 0x8000;
const BLOCK: u64 = 0x200;
const TAIL: u64 = 0x1000;

impl ExtlogPlan {
    /// Bytes of guest memory.
    pub const LEN: u64 = 0x1_9000;
    /// Most processors.
    pub const PROCESSORS: usize = 64;
    /// APIC ids are below.
    pub const APIC_IDS: u32 = 255;
    /// Most banks of a processor.
    pub const BANKS: u8 = 16;

    const fn at(&self, offset: u64) -> Gpa {
        Gpa(self.memory.start.0 + offset)
    }

    /// Address of the directory.
    pub const fn directory(&self) -> Gpa {
        self.at(0)
    }

    /// The entry of this bank; none: there is no such processor, or no such bank.
    fn entry(&self, apic_id: u32, bank: u8) -> Option<Gpa> {
        let there =
            self.processors.contains(&apic_id) && apic_id < Self::APIC_IDS && bank < self.banks.min(Self::BANKS);
        let index = u64::from(apic_id) * u64::from(self.banks) + u64::from(bank);
        there.then(|| self.at(HEADER + 8 * index))
    }

    /// One of the two blocks of a processor by its position.
    fn block(&self, processor: usize, second: bool) -> Gpa {
        self.at(BLOCKS + (2 * processor as u64 + u64::from(second)) * BLOCK)
    }

    fn header(&self) -> Header {
        let ids = self.processors.iter().max().map_or(0, |id| id + 1);
        let entries = u64::from(ids.min(Self::APIC_IDS)) * u64::from(self.banks);
        let mut header = Header::new_zeroed();
        header.version = VERSION.into();
        header.header_len = u32::try_from(HEADER).unwrap_or(u32::MAX).into();
        header.total_len = (HEADER + 8 * entries).into();
        header.log_base = self.at(BLOCKS).0.into();
        header.log_len = (Self::LEN - BLOCKS).into();
        header.entries = u32::from(self.banks).into();
        header
    }
}

const _: () = assert!(HEADER + 8 * ExtlogPlan::APIC_IDS as u64 * ExtlogPlan::BANKS as u64 <= BLOCKS);
const _: () = assert!(BLOCKS + 2 * BLOCK * ExtlogPlan::PROCESSORS as u64 + TAIL == ExtlogPlan::LEN);

/// Most errors that wait for the guest in one bank: what a block has room for.
pub const MAX_LOGGED: usize = 3;
const _: () = assert!((cper::HEAD + MAX_LOGGED * cper::MEMORY_ENTRY) as u64 <= BLOCK);

/// What the extended error log has told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExtlogInfo {
    /// The guest has said that it uses the log.
    pub opted_in: bool,
    /// Errors that were logged.
    pub logged: u64,
    /// Errors that the guest has read.
    pub read: u64,
    /// Errors that are still to be read.
    pub waiting: u64,
    /// Errors that had to make room for others before the guest had read them.
    pub lost: u64,
}

/// What came of an error that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logged {
    /// It is where the guest looks.
    Told,
    /// It is, or it was less than those that wait; this one had to make room and is lost.
    Lost(Box<Cper>),
}

/// An error cannot be logged.
#[derive(Debug, thiserror::Error)]
pub enum ExtlogError {
    /// There is no such bank.
    #[error("the extended error log has no entry for bank {bank} of processor {apic_id}")]
    NoEntry {
        /// APIC id.
        apic_id: u32,
        /// Number of the bank.
        bank: u8,
    },
    /// The memory is not there.
    #[error(transparent)]
    Memory(#[from] ApeiError),
}

/// What waits in the bank of one processor.
#[derive(Debug, Clone, Default)]
struct Waiting {
    errors: Vec<Cper>,
    /// They are in the second block.
    second: bool,
    /// Those that wait, and those that made room for them.
    since_read: cper::Counts,
}

#[derive(Debug, Default)]
struct State {
    processors: Vec<Waiting>,
    info: ExtlogInfo,
}

/// The extended error log of one machine. Whoever logs sees to it that no processor runs meanwhile.
pub struct ExtendedLog {
    memory: GuestMemory,
    plan: ExtlogPlan,
    state: Mutex<State>,
}

impl ExtendedLog {
    /// The log in `memory` at the place `plan` says, with an empty directory.
    pub fn new(memory: GuestMemory, plan: ExtlogPlan) -> Result<Self, ApeiError> {
        assert!(
            plan.processors.len() <= ExtlogPlan::PROCESSORS && plan.banks <= ExtlogPlan::BANKS,
            "the extended error log must have room for all banks"
        );
        let state = State {
            processors: vec![Waiting::default(); plan.processors.len()],
            ..State::default()
        };
        let log = Self {
            memory,
            plan,
            state: Mutex::new(state),
        };
        log.put(log.plan.directory(), log.plan.header().as_bytes())?;
        Ok(log)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), ApeiError> {
        block::put(&self.memory, gpa, bytes).map_err(|source| ApeiError(self.plan.memory, source))
    }

    fn word(&self, gpa: Gpa) -> Option<u32> {
        let mut word = [0; 4];
        let read = block::get(&self.memory, gpa, &mut word);
        read.ok().map(|()| u32::from_le_bytes(word))
    }

    /// Whether the guest has read what waits.
    fn is_read(&self, processor: usize, waiting: &Waiting) -> bool {
        self.word(self.plan.block(processor, waiting.second)) == Some(0)
    }

    /// Puts an error of memory where the guest looks for that of `bank`, the one bank in which this processor reports such.
    pub fn log(&self, apic_id: u32, bank: u8, error: &Cper) -> Result<Logged, ExtlogError> {
        let none = ExtlogError::NoEntry { apic_id, bank };
        let place = self.plan.processors.iter().position(|id| *id == apic_id);
        let (Some(place), Some(entry)) = (place, self.plan.entry(apic_id, bank)) else {
            return Err(none);
        };
        let mut state = self.state();
        let State { processors, info } = &mut *state;
        let Some(waiting) = processors.get_mut(place) else {
            return Err(none);
        };
        if !waiting.errors.is_empty() && self.is_read(place, waiting) {
            info.read += waiting.errors.len() as u64;
            *waiting = Waiting {
                second: waiting.second,
                ..Waiting::default()
            };
        }
        waiting.second = !waiting.second;
        waiting.errors.push(error.clone());
        waiting.since_read.add(error.severity);
        info.logged += 1;
        let lost = (waiting.errors.len() > MAX_LOGGED).then(|| waiting.make_room());
        info.lost += u64::from(lost.is_some());
        // Linux looks for the section where it is behind an entry without a time stamp, whatever the entry's revision.
        let block = cper::block(&waiting.errors, waiting.since_read, Entries::Undated);
        let at = self.plan.block(place, waiting.second);
        // The status word makes the block one that is to be read, the entry makes it the one of the bank.
        let (status, rest) = block.split_at(4);
        self.put(Gpa(at.0 + 4), rest)?;
        self.put(at, status)?;
        self.put(entry, &(VALID | at.0).to_le_bytes())?;
        Ok(lost.map_or(Logged::Told, |lost| Logged::Lost(Box::new(lost))))
    }

    /// What the log has told so far.
    pub fn info(&self) -> ExtlogInfo {
        let state = self.state();
        let mut info = state.info;
        for (place, waiting) in state.processors.iter().enumerate() {
            let count = waiting.errors.len() as u64;
            match count > 0 && self.is_read(place, waiting) {
                true => info.read += count,
                false => info.waiting += count,
            }
        }
        let flags = self.word(self.plan.at(FLAGS));
        info.opted_in = flags.is_some_and(|flags| flags & OPTED_IN != 0);
        info
    }
}

impl Waiting {
    /// Takes out the oldest error of those that were corrected, else the oldest.
    fn make_room(&mut self) -> Cper {
        let least = self.errors.iter().position(|error| !error.severity.is_uncorrected());
        self.errors.remove(least.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
