//! ACPI platform error interfaces: errors that firmware reports, keeps and injects. ACPI 6.5 chapter 18.
//!
//! A run of guest memory (reserved, so that the guest may claim parts of it) and a block of ports:
//!
//! | offset | bytes | memory | |
//! |---|---|---|---|
//! | 0 | 8 each | error status addresses | one for each [`Source`]: where its block is |
//! | 0x100 | 64 | injection parameters | EINJ's "set error type with address" block |
//! | 0x200 | 8 each | injection results | trigger table's address, types there are, busy, status |
//! | 0x300 | 8 each | record values | what the guest says to ERST, and what it hears |
//! | 0x1000 | 0x1000 each | error status blocks | one for each [`Source`] |
//! | 0x3000 | 0x1000 | boot errors | BERT's region |
//! | 0x4000 | 0x1000 | trigger table | EINJ's |
//! | 0x8000 | 0x8000 | exchange buffer | ERST's records on their way |
//!
//! | port | bytes | |
//! |---|---|---|
//! | 0, 4 | 4 | read acknowledge register of each [`Source`] (bit 0: the block has been read) |
//! | 8 | 4 | injection: an action of EINJ |
//! | 12 | 4 | records: an action of ERST |
//!
//! The memory is the guest's and may hold anything at any time: what counts is copied out once, and what is written there is
//! never read back.

mod block;
pub mod config;
mod cper;
mod einj;
mod erst;
mod extlog;
mod ghes;
mod tables;

pub use config::ApeiConfig;
pub use cper::{Cper, MemoryError, ProcessorError, Severity};
pub use einj::{Injection, InjectionStatus, Target};
pub use erst::{MAX_RECORDS_BYTES, NoRecord, RecordStore, Records};
pub use extlog::{ExtendedLog, ExtlogDsm, ExtlogError, ExtlogInfo, ExtlogPlan, Logged, MAX_LOGGED};
pub use ghes::{MAX_WAITING, ReportsFull, SourceInfo};
pub use tables::{bert, einj as einj_table, erst as erst_table, hest};

use crate::{
    BusDevice, Effect, GuestMemory, Line,
    units::{Gpa, GpaRange},
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the error interfaces are. Guest ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApeiPlan {
    /// Guest memory, [`ApeiPlan::LEN`] bytes.
    pub memory: GpaRange,
    /// First of [`ApeiPlan::PORTS`] ports.
    pub port: u16,
    /// Milliseconds between two looks of the guest at [`Source::Polled`].
    pub poll_ms: u32,
}

/// Who reports errors: the generic hardware error sources of the HEST, by their source id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Notified through the generic event device and the hardware error device.
    Notified,
    /// Looked at by the guest now and then.
    Polled,
}

impl Source {
    /// In the order of their ids.
    pub const ALL: [Self; 2] = [Self::Notified, Self::Polled];

    /// Source id, and position of what belongs to it.
    pub const fn id(self) -> u16 {
        match self {
            Self::Notified => 0,
            Self::Polled => 1,
        }
    }
}

impl ApeiPlan {
    /// Bytes of guest memory.
    pub const LEN: u64 = 0x1_0000;
    /// Ports.
    pub const PORTS: u64 = 16;
    /// Bytes of one error status block.
    pub const BLOCK: u64 = 0x1000;
    /// Bytes of the exchange buffer: the longest record.
    pub const EXCHANGE: u64 = 0x8000;

    const fn at(&self, offset: u64) -> Gpa {
        Gpa(self.memory.start.0 + offset)
    }

    fn address_cell(&self, source: Source) -> Gpa {
        self.at(8 * u64::from(source.id()))
    }

    fn block(&self, source: Source) -> Gpa {
        self.at(0x1000 + Self::BLOCK * u64::from(source.id()))
    }

    const fn ack_port(&self, source: Source) -> u16 {
        self.port + 4 * source.id()
    }

    const fn einj_port(&self) -> u16 {
        self.port + EINJ
    }

    const fn erst_port(&self) -> u16 {
        self.port + ERST
    }

    const fn parameters(&self) -> Gpa {
        self.at(0x100)
    }

    const fn trigger_cell(&self) -> Gpa {
        self.at(0x200)
    }

    const fn types_cell(&self) -> Gpa {
        self.at(0x208)
    }

    const fn busy_cell(&self) -> Gpa {
        self.at(0x210)
    }

    const fn einj_status_cell(&self) -> Gpa {
        self.at(0x218)
    }

    const fn erst_value(&self) -> Gpa {
        self.at(0x300)
    }

    const fn erst_result(&self) -> Gpa {
        self.at(0x308)
    }

    const fn boot_errors(&self) -> Gpa {
        self.at(0x3000)
    }

    const fn trigger_table(&self) -> Gpa {
        self.at(0x4000)
    }

    const fn exchange(&self) -> Gpa {
        self.at(0x8000)
    }
}

/// Offsets of the ports of actions.
const EINJ: u16 = 8;
const ERST: u16 = 12;

/// What of the error interfaces outlasts a reset.
#[derive(Debug, Clone, Default)]
pub struct ApeiKept {
    /// Persistent records.
    pub records: Records,
    /// What keeps them beyond the run, if something does.
    pub store: Option<Arc<dyn RecordStore>>,
    /// The error status block of an error that ended the boot before: the next one finds it.
    pub fatal: Option<Vec<u8>>,
}

/// The error interfaces of one machine.
pub struct Apei {
    memory: GuestMemory,
    plan: ApeiPlan,
    line: Box<dyn Line>,
    state: Mutex<State>,
}

struct State {
    sources: [ghes::Reports; 2],
    einj: einj::Einj,
    erst: erst::Erst,
    fatal: Option<Vec<u8>>,
}

/// The memory of the error interfaces is not there.
#[derive(Debug, thiserror::Error)]
#[error("the memory of the error interfaces at {0} is not in guest memory")]
pub struct ApeiError(GpaRange, #[source] vm_memory::GuestMemoryError);

impl Apei {
    /// The interfaces in `memory` at the place `plan` says; `line` has the guest look at [`Source::Notified`]. What the guest
    /// finds at boot is written: an error that ended the boot before is in BERT's region, and is not kept again.
    pub fn new(
        memory: GuestMemory,
        plan: ApeiPlan,
        line: impl Line + 'static,
        kept: ApeiKept,
    ) -> Result<Self, ApeiError> {
        let apei = Self {
            memory,
            plan,
            line: Box::new(line),
            state: Mutex::new(State {
                sources: Default::default(),
                einj: einj::Einj::default(),
                erst: erst::Erst::new(kept.records, kept.store),
                fatal: None,
            }),
        };
        let words = Source::ALL
            .map(|source| (plan.address_cell(source), plan.block(source).0))
            .into_iter()
            .chain([
                (plan.trigger_cell(), plan.trigger_table().0),
                (plan.types_cell(), u64::from(einj::TYPES)),
            ]);
        for (cell, word) in words {
            apei.put(cell, &word.to_le_bytes())?;
        }
        if let Some(block) = kept.fatal {
            apei.put(plan.boot_errors(), &block)?;
        }
        Ok(apei)
    }

    /// Where it is.
    pub fn plan(&self) -> ApeiPlan {
        self.plan
    }

    /// What outlasts a reset.
    pub fn keep(&self) -> ApeiKept {
        let state = self.state();
        ApeiKept {
            records: state.erst.records().clone(),
            store: state.erst.store(),
            fatal: state.fatal.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), ApeiError> {
        block::put(&self.memory, gpa, bytes).map_err(|source| ApeiError(self.plan.memory, source))
    }

    /// Reports an error to the guest through `source`. A source tells of one error at a time: others wait for the guest.
    pub fn report(&self, source: Source, error: &Cper) -> Result<(), ReportsFull> {
        let block = error.block();
        let mut state = self.state();
        state.sources[usize::from(source.id())].push(block.clone())?;
        if error.severity == Severity::Fatal {
            state.fatal = Some(block);
        }
        drop(state);
        self.offer(source);
        Ok(())
    }

    /// How many more errors `source` has room for.
    pub fn room(&self, source: Source) -> usize {
        self.state().sources[usize::from(source.id())].room()
    }

    /// Errors of `source` that the guest has still to read.
    pub fn waiting(&self, source: Source) -> u64 {
        self.state().sources[usize::from(source.id())].info(source).waiting
    }

    /// What the sources have told so far.
    pub fn sources(&self) -> Vec<SourceInfo> {
        let state = self.state();
        let info = |source: Source| state.sources[usize::from(source.id())].info(source);
        Source::ALL.map(info).into()
    }

    /// Puts the next error of `source` where the guest looks, if it is the next one's turn.
    fn offer(&self, source: Source) {
        let next = self.state().sources[usize::from(source.id())].next();
        let Some(block) = next else { return };
        // The status word makes the block valid: it comes last.
        let (at, (status, rest)) = (self.plan.block(source), block.split_at(4));
        let written = self.put(Gpa(at.0 + 4), rest).and_then(|()| self.put(at, status));
        if written.is_ok() && source == Source::Notified {
            self.line.pulse();
        }
    }

    /// What the guest has asked to be injected, once: whoever carries it out says so with [`Self::injected`].
    pub fn take_injection(&self) -> Option<Injection> {
        self.state().einj.take()
    }

    /// An injection was carried out, or refused.
    pub fn injected(&self, status: InjectionStatus) -> Result<(), ApeiError> {
        let done = self.state().einj.done(status);
        if done {
            self.put(self.plan.trigger_table(), &tables::trigger(&self.plan))?;
        }
        self.put(self.plan.einj_status_cell(), &(status as u64).to_le_bytes())?;
        self.put(self.plan.busy_cell(), &0u64.to_le_bytes())
    }

    fn injection_action(&self, action: u32) -> Effect {
        let asked = self.state().einj.act(action, || {
            let mut block = [0; einj::PARAMETERS];
            let read = block::get(&self.memory, self.plan.parameters(), &mut block);
            read.map(|()| block).ok()
        });
        match asked {
            einj::Asked::Nothing => Effect::None,
            einj::Asked::Clear => {
                // A guest without its own memory harms nobody else.
                drop(self.put(self.plan.parameters(), &[0; einj::PARAMETERS]));
                Effect::None
            }
            einj::Asked::Refused(status) => {
                drop(self.put(self.plan.einj_status_cell(), &(status as u64).to_le_bytes()));
                Effect::None
            }
            einj::Asked::Inject => {
                drop(self.put(self.plan.busy_cell(), &1u64.to_le_bytes()));
                Effect::InjectError
            }
            einj::Asked::Report(error) => {
                // An error that there is no room for is one of those that firmware loses.
                match self.report(Source::Notified, &error) {
                    Ok(()) => Effect::Progress,
                    Err(ReportsFull) => Effect::None,
                }
            }
        }
    }

    fn record_action(&self, action: u32) {
        let mut word = [0; 8];
        if block::get(&self.memory, self.plan.erst_value(), &mut word).is_err() {
            return;
        }
        let buffer = erst::Buffer {
            memory: &self.memory,
            range: GpaRange::new(self.plan.exchange(), ApeiPlan::EXCHANGE),
        };
        if let Some(result) = self.state().erst.act(action, u64::from_le_bytes(word), &buffer) {
            drop(self.put(self.plan.erst_result(), &result.to_le_bytes()));
        }
    }
}

impl BusDevice for Apei {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let source = Source::ALL
            .into_iter()
            .find(|source| offset == 4 * u64::from(source.id()));
        if let (Some(source), Some(first)) = (source, data.first_mut()) {
            *first = u8::from(self.state().sources[usize::from(source.id())].is_read());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let Ok(word) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return Effect::None;
        };
        if let Some(source) = Source::ALL
            .into_iter()
            .find(|source| offset == 4 * u64::from(source.id()))
        {
            if word & 1 != 0 && self.state().sources[usize::from(source.id())].acknowledge() {
                self.offer(source);
                return Effect::Progress;
            }
            return Effect::None;
        }
        match u16::try_from(offset) {
            Ok(EINJ) => self.injection_action(word),
            Ok(ERST) => {
                self.record_action(word);
                Effect::None
            }
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests;
