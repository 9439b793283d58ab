//! Error injection by the guest: EINJ's actions. ACPI 6.5 18.6.

use super::{
    block::word,
    cper::{Cper, MemoryError, Severity},
};
use crate::units::{Gpa, GpaRange};

/// Bytes of the block of "set error type with address" that are looked at: it has no vendor's part.
pub(super) const PARAMETERS: usize = 36;

/// Actions, as their register has them.
pub(super) mod action {
    pub const BEGIN: u32 = 0;
    pub const END: u32 = 4;
    pub const EXECUTE: u32 = 5;
    /// What the trigger table asks for.
    pub const TRIGGER: u32 = 0xff;
}

/// Error types. ACPI 6.5 table 18.29.
const PROCESSOR_CORRECTED: u32 = 1 << 0;
const PROCESSOR_RECOVERABLE: u32 = 1 << 1;
const PROCESSOR_FATAL: u32 = 1 << 2;
const MEMORY_CORRECTED: u32 = 1 << 3;
const MEMORY_RECOVERABLE: u32 = 1 << 4;
const MEMORY_FATAL: u32 = 1 << 5;
/// All that can be injected.
pub(super) const TYPES: u32 = PROCESSOR_CORRECTED
    | PROCESSOR_RECOVERABLE
    | PROCESSOR_FATAL
    | MEMORY_CORRECTED
    | MEMORY_RECOVERABLE
    | MEMORY_FATAL;
/// Which of the block's fields are meant.
const PROCESSOR_VALID: u32 = 1 << 0;
const MEMORY_VALID: u32 = 1 << 1;
/// Longest range of one injection.
const MAX_LEN: u64 = 1 << 21;
/// A line.
const LINE: u64 = 64;

/// How an injection ended. ACPI 6.5 table 18.31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum InjectionStatus {
    /// It is done.
    Success = 0,
    /// It could not be done.
    Failure = 1,
    /// It makes no sense.
    Invalid = 2,
}

/// What an injected error hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Memory at this place.
    Memory(GpaRange),
    /// The processor with this APIC id; none: any.
    Processor(Option<u32>),
}

/// What the guest asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// How bad the error is.
    pub severity: Severity,
    /// What it hits.
    pub target: Target,
}

impl Injection {
    /// The memory that becomes bad.
    pub fn spoils(&self) -> Option<GpaRange> {
        match self.target {
            Target::Memory(range) if self.severity != Severity::Corrected => Some(range),
            _ => None,
        }
    }

    /// What the guest's words ask for.
    fn read(block: &[u8; PARAMETERS]) -> Result<Self, InjectionStatus> {
        let field = |offset| u32::from_le_bytes(word(block, offset));
        let (kind, flags) = (field(0), field(8));
        let severity = match kind {
            PROCESSOR_CORRECTED | MEMORY_CORRECTED => Severity::Corrected,
            PROCESSOR_RECOVERABLE | MEMORY_RECOVERABLE => Severity::Recoverable,
            PROCESSOR_FATAL | MEMORY_FATAL => Severity::Fatal,
            _ => return Err(InjectionStatus::Invalid),
        };
        let target = if kind & (PROCESSOR_CORRECTED | PROCESSOR_RECOVERABLE | PROCESSOR_FATAL) != 0 {
            Target::Processor((flags & PROCESSOR_VALID != 0).then(|| field(12)))
        } else if flags & MEMORY_VALID != 0 {
            let (address, mask) = (u64::from_le_bytes(word(block, 16)), u64::from_le_bytes(word(block, 24)));
            Target::Memory(range(address, mask).ok_or(InjectionStatus::Invalid)?)
        } else {
            // The platform chooses no place by itself: it would be none that the guest can look at.
            return Err(InjectionStatus::Invalid);
        };
        Ok(Self { severity, target })
    }

    /// How the platform tells of it.
    fn report(&self) -> Cper {
        match self.target {
            Target::Memory(range) => {
                let error = MemoryError {
                    gpa: range.start,
                    granule: range.len,
                    node: None,
                    module: None,
                };
                Cper::memory(self.severity, error)
            }
            Target::Processor(apic_id) => Cper::processor(self.severity, apic_id.unwrap_or(0)),
        }
    }
}

/// The lines that an address and a mask of its valid bits name; none: the mask is none.
fn range(address: u64, mask: u64) -> Option<GpaRange> {
    let len = (!mask).checked_add(1)?.max(LINE);
    let start = address & mask & !(LINE - 1);
    (len.is_power_of_two() && len <= MAX_LEN && start.checked_add(len).is_some())
        .then(|| GpaRange::new(Gpa(start), len))
}

/// What an action comes to.
pub(super) enum Asked {
    Nothing,
    /// The parameters are forgotten.
    Clear,
    /// It is not done.
    Refused(InjectionStatus),
    /// An injection waits to be carried out.
    Inject,
    /// The platform tells of the error.
    Report(Cper),
}

#[derive(Debug, Default)]
pub(super) struct Einj {
    /// Asked for, and not taken yet.
    asked: Option<Injection>,
    /// Being carried out.
    running: Option<Injection>,
    /// Done, and not yet triggered.
    armed: Option<Injection>,
}

impl Einj {
    pub(super) fn act(&mut self, action: u32, parameters: impl FnOnce() -> Option<[u8; PARAMETERS]>) -> Asked {
        match action {
            action::BEGIN | action::END => Asked::Clear,
            action::EXECUTE if self.asked.is_some() || self.running.is_some() => Asked::Nothing,
            action::EXECUTE => {
                self.armed = None;
                let Some(block) = parameters() else {
                    return Asked::Refused(InjectionStatus::Failure);
                };
                match Injection::read(&block) {
                    Ok(injection) => {
                        self.asked = Some(injection);
                        Asked::Inject
                    }
                    Err(status) => Asked::Refused(status),
                }
            }
            action::TRIGGER => match self.armed.take().map(|injection| injection.report()) {
                Some(error) => Asked::Report(error),
                None => Asked::Nothing,
            },
            _ => Asked::Nothing,
        }
    }

    pub(super) fn take(&mut self) -> Option<Injection> {
        let asked = self.asked.take()?;
        self.running = Some(asked);
        Some(asked)
    }

    /// What was being carried out has ended; whether there is something to trigger now.
    pub(super) fn done(&mut self, status: InjectionStatus) -> bool {
        self.armed = self.running.take().filter(|_| status == InjectionStatus::Success);
        self.armed.is_some()
    }
}
