//! Persistent error records: ERST's actions. ACPI 6.5 18.5.

use super::block::{self, word};
use crate::{
    GuestMemory,
    units::{Gpa, GpaRange},
};
use std::{fmt, io, sync::Arc};

/// Most bytes of all records.
pub const MAX_RECORDS_BYTES: usize = 1 << 20;
/// Bytes of a record's header. UEFI 2.10 N.2.1.
const HEADER: usize = 128;
/// Where a record's header has its length and its id.
const RECORD_LEN: usize = 20;
const RECORD_ID: usize = 96;
/// No record.
const NO_ID: u64 = u64::MAX;

/// Actions, as their register has them. ACPI 6.5 table 18.20.
pub(super) mod action {
    pub const BEGIN_WRITE: u32 = 0;
    pub const BEGIN_READ: u32 = 1;
    pub const BEGIN_CLEAR: u32 = 2;
    pub const END: u32 = 3;
    pub const SET_OFFSET: u32 = 4;
    pub const EXECUTE: u32 = 5;
    pub const BUSY: u32 = 6;
    pub const STATUS: u32 = 7;
    pub const GET_ID: u32 = 8;
    pub const SET_ID: u32 = 9;
    pub const COUNT: u32 = 10;
    pub const BEGIN_DUMMY: u32 = 11;
    pub const RANGE: u32 = 13;
    pub const RANGE_LEN: u32 = 14;
    pub const RANGE_ATTRIBUTES: u32 = 15;
    pub const TIMINGS: u32 = 16;
}

/// How an operation ended. ACPI 6.5 table 18.24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u64)]
enum Status {
    #[default]
    Success = 0,
    NoSpace = 1,
    Failed = 3,
    Empty = 4,
    NotFound = 5,
}

/// Records in the order in which they were written first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(Vec<(u64, Vec<u8>)>);

/// Bytes that are no records one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the error record at byte {0} is none: expected a header of {HEADER} bytes with the length of the record, at most {MAX_RECORDS_BYTES} bytes together"
)]
pub struct NoRecord(usize);

impl Records {
    /// The records that lie in `bytes` one after the other.
    pub fn read(bytes: &[u8]) -> Result<Self, NoRecord> {
        let (mut records, mut at) = (Self::default(), 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let record = first(rest).ok_or(NoRecord(at))?;
            if records.put(record.to_vec()) != Status::Success {
                return Err(NoRecord(at));
            }
            at += record.len();
        }
        Ok(records)
    }

    /// The same bytes.
    pub fn write(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(_, record)| record).copied().collect()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes_without(&self, id: u64) -> usize {
        let others = self.0.iter().filter(|(other, _)| *other != id);
        others.map(|(_, record)| record.len()).sum()
    }

    fn put(&mut self, record: Vec<u8>) -> Status {
        let id = u64::from_le_bytes(word(&record, RECORD_ID));
        if id == 0 || id == NO_ID {
            return Status::Failed;
        }
        if self.bytes_without(id) + record.len() > MAX_RECORDS_BYTES {
            return Status::NoSpace;
        }
        match self.0.iter_mut().find(|(other, _)| *other == id) {
            Some((_, old)) => *old = record,
            None => self.0.push((id, record)),
        }
        Status::Success
    }

    fn get(&self, id: u64) -> Option<&[u8]> {
        let mut all = self.0.iter();
        let found = match id {
            0 | NO_ID => all.next(),
            id => all.find(|(other, _)| *other == id),
        };
        found.map(|(_, record)| record.as_slice())
    }

    fn clear(&mut self, id: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != id);
        self.0.len() != before
    }
}

/// What keeps records beyond the run. The guest is told that a record is written when it is.
pub trait RecordStore: Send + Sync + fmt::Debug {
    /// These are all there are.
    fn keep(&self, records: &Records) -> io::Result<()>;
}

/// The record at the beginning of `bytes`.
fn first(bytes: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(u32::from_le_bytes(word(bytes, RECORD_LEN))).ok()?;
    (len >= HEADER).then(|| bytes.get(..len)).flatten()
}

/// Where records are exchanged with the guest.
pub(super) struct Buffer<'a> {
    pub(super) memory: &'a GuestMemory,
    pub(super) range: GpaRange,
}

impl Buffer<'_> {
    /// The record at `offset`.
    fn take(&self, offset: u64) -> Option<Vec<u8>> {
        let left = usize::try_from(self.range.len.checked_sub(offset)?).ok()?;
        let mut bytes = vec![0; left];
        block::get(self.memory, Gpa(self.range.start.0 + offset), &mut bytes).ok()?;
        first(&bytes).map(<[u8]>::to_vec)
    }

    fn put(&self, offset: u64, record: &[u8]) -> Option<()> {
        let left = self.range.len.checked_sub(offset)?;
        (record.len() as u64 <= left).then_some(())?;
        block::put(self.memory, Gpa(self.range.start.0 + offset), record).ok()
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum Operation {
    #[default]
    None,
    Write,
    Read,
    Clear,
    /// A write that goes nowhere.
    Dummy,
}

/// The interface's side of it.
#[derive(Debug, Default)]
pub(super) struct Erst {
    records: Records,
    /// None: they end with the run.
    store: Option<Arc<dyn RecordStore>>,
    operation: Operation,
    offset: u64,
    id: u64,
    status: Status,
    /// Position of the id that is asked for next.
    next: usize,
}

impl Erst {
    pub(super) fn new(records: Records, store: Option<Arc<dyn RecordStore>>) -> Self {
        Self {
            records,
            store,
            ..Self::default()
        }
    }

    pub(super) fn store(&self) -> Option<Arc<dyn RecordStore>> {
        self.store.clone()
    }

    /// These are the records from now on, if they are kept.
    fn become_of(&mut self, records: Records) -> Status {
        let kept = self.store.as_ref().map_or(Ok(()), |store| store.keep(&records));
        if let Err(error) = kept {
            tracing::warn!(%error, "an error record of the guest cannot be kept");
            return Status::Failed;
        }
        self.records = records;
        Status::Success
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// Does what the guest asks for, and tells what it hears, if the action has an answer.
    pub(super) fn act(&mut self, action: u32, value: u64, buffer: &Buffer<'_>) -> Option<u64> {
        match action {
            action::BEGIN_WRITE => self.begin(Operation::Write),
            action::BEGIN_READ => self.begin(Operation::Read),
            action::BEGIN_CLEAR => self.begin(Operation::Clear),
            action::BEGIN_DUMMY => self.begin(Operation::Dummy),
            action::END => self.operation = Operation::None,
            action::SET_OFFSET => self.offset = value,
            action::SET_ID => self.id = value,
            action::EXECUTE => self.status = self.execute(buffer),
            action::BUSY => return Some(0),
            action::STATUS => return Some(self.status as u64),
            action::GET_ID => return Some(self.next_id()),
            action::COUNT => return Some(self.records.len() as u64),
            action::RANGE => return Some(buffer.range.start.0),
            action::RANGE_LEN => return Some(buffer.range.len),
            // Neither slow nor non-volatile by itself.
            action::RANGE_ATTRIBUTES => return Some(0),
            // Microseconds, longest above and usual below.
            action::TIMINGS => return Some(1000 << 32 | 10),
            _ => {}
        }
        None
    }

    fn begin(&mut self, operation: Operation) {
        (self.operation, self.offset, self.status) = (operation, 0, Status::Success);
    }

    /// Ids one after the other, and [`NO_ID`] after the last.
    fn next_id(&mut self) -> u64 {
        let id = self.records.0.get(self.next).map(|(id, _)| *id);
        self.next = if id.is_some() { self.next + 1 } else { 0 };
        id.unwrap_or(NO_ID)
    }

    fn execute(&mut self, buffer: &Buffer<'_>) -> Status {
        match self.operation {
            Operation::None => Status::Failed,
            Operation::Dummy => match buffer.take(self.offset) {
                Some(_) => Status::Success,
                None => Status::Failed,
            },
            Operation::Write => {
                let Some(record) = buffer.take(self.offset) else {
                    return Status::Failed;
                };
                let mut records = self.records.clone();
                match records.put(record) {
                    Status::Success => self.become_of(records),
                    refused => refused,
                }
            }
            Operation::Read if self.records.is_empty() => Status::Empty,
            Operation::Read => match self.records.get(self.id) {
                None => Status::NotFound,
                Some(record) => match buffer.put(self.offset, record) {
                    Some(()) => Status::Success,
                    None => Status::Failed,
                },
            },
            Operation::Clear if self.records.is_empty() => Status::Empty,
            Operation::Clear => {
                let mut records = self.records.clone();
                if !records.clear(self.id) {
                    return Status::NotFound;
                }
                let done = self.become_of(records);
                if done == Status::Success {
                    self.next = 0;
                }
                done
            }
        }
    }
}
