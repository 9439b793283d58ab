//! Common platform error records: what an error status block says. UEFI 2.10 appendix N, ACPI 6.5 18.3.2.7.

use crate::{nvdimm::guid::Guid, units::Gpa};
use serde::{Deserialize, Serialize};
use uuid::uuid;
use zerocopy::{
    FromZeros, Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// Memory error section.
const MEMORY: Guid = Guid::new(uuid!("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"));
/// Generic processor error section.
const PROCESSOR: Guid = Guid::new(uuid!("9876ccad-47b4-4bdb-b65e-16f193c4f3db"));
/// Bytes of the text that names the part.
pub const FRU_TEXT: usize = 20;

/// How bad an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Severity {
    /// Software can live with it if it acts.
    Recoverable = 0,
    /// It ends the guest.
    Fatal = 1,
    /// Nothing was lost.
    Corrected = 2,
    /// Nothing happened at all.
    Informational = 3,
}

impl Severity {
    /// Whether something was lost.
    pub(super) fn is_uncorrected(self) -> bool {
        matches!(self, Self::Recoverable | Self::Fatal)
    }
}

/// A memory error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryError {
    /// Physical address.
    pub gpa: Gpa,
    /// Bytes of the place, a power of two.
    pub granule: u64,
    /// Proximity domain.
    pub node: Option<u16>,
    /// SMBIOS handle of the memory module.
    pub module: Option<u16>,
}

/// An error of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorError {
    /// APIC id.
    pub apic_id: u32,
}

/// Where the error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Memory.
    Memory(MemoryError),
    /// A processor.
    Processor(ProcessorError),
}

/// One error, as a status block tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cper {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub part: Part,
    /// Corrected errors of the part came more often than they should.
    pub threshold_exceeded: bool,
    /// Names the part, cut to [`FRU_TEXT`] bytes.
    pub fru_text: Option<String>,
}

/// ACPI 6.5 18.3.2.7.1, Generic Error Status Block.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct StatusBlock {
    status: U32,
    raw_offset: U32,
    raw_len: U32,
    data_len: U32,
    severity: U32,
}
const _: () = assert!(size_of::<StatusBlock>() == 20);

/// ACPI 6.5 18.3.2.7.1, Generic Error Data Entry of revision 3.
#[derive(IntoBytes, Immutable, FromZeros)]
#[repr(C)]
struct DataEntry {
    section: [u8; 16],
    severity: U32,
    revision: U16,
    valid: u8,
    flags: u8,
    len: U32,
    fru_id: [u8; 16],
    fru_text: [u8; FRU_TEXT],
    timestamp: U64,
}
const _: () = assert!(size_of::<DataEntry>() == 72);

/// UEFI 2.10 N.2.5, Memory Error Section.
#[derive(IntoBytes, Immutable, FromZeros)]
#[repr(C)]
struct MemorySection {
    valid: U64,
    status: U64,
    address: U64,
    mask: U64,
    node: U16,
    card: U16,
    module: U16,
    bank: U16,
    device: U16,
    row: U16,
    column: U16,
    bit: U16,
    requestor: U64,
    responder: U64,
    target: U64,
    kind: u8,
    extended: u8,
    rank: U16,
    card_handle: U16,
    module_handle: U16,
}
const _: () = assert!(size_of::<MemorySection>() == 80);

/// UEFI 2.10 N.2.4.1, Generic Processor Error Section.
#[derive(IntoBytes, Immutable, FromZeros)]
#[repr(C)]
struct ProcessorSection {
    valid: U64,
    processor: u8,
    isa: u8,
    kind: u8,
    operation: u8,
    flags: u8,
    level: u8,
    reserved: U16,
    version: U64,
    brand: [u8; 128],
    id: U64,
    target: U64,
    requestor: U64,
    responder: U64,
    instruction: U64,
}
const _: () = assert!(size_of::<ProcessorSection>() == 192);

bitflags::bitflags! {
    /// Of a status block.
    struct Status: u32 {
        const UNCORRECTABLE = 1 << 0;
        const CORRECTABLE = 1 << 1;
        /// There was more than one of them.
        const MULTIPLE_UNCORRECTABLE = 1 << 2;
        const MULTIPLE_CORRECTABLE = 1 << 3;
    }

    /// What a memory error section has.
    struct MemoryValid: u64 {
        const ADDRESS = 1 << 1;
        const MASK = 1 << 2;
        const NODE = 1 << 3;
        const KIND = 1 << 14;
        const MODULE_HANDLE = 1 << 17;
    }

    /// What a processor error section has.
    struct ProcessorValid: u64 {
        const TYPE = 1 << 0;
        const ISA = 1 << 1;
        const KIND = 1 << 2;
        const ID = 1 << 8;
    }
}

/// Where the number of entries begins in a block's status.
const ENTRIES_SHIFT: u32 = 4;
/// Bytes of a status block before its entries.
pub(super) const HEAD: usize = size_of::<StatusBlock>();
/// Bytes of the entry of a memory error without a time stamp.
pub(super) const MEMORY_ENTRY: usize = UNDATED + size_of::<MemorySection>();
/// Revision of a data entry with a time stamp, and of one without; bytes of the latter.
const REVISION: u16 = 0x300;
const REVISION_UNDATED: u16 = 0x201;
const UNDATED: usize = size_of::<DataEntry>() - size_of::<U64>();
/// The text is there.
const FRU_TEXT_VALID: u8 = 1 << 1;
/// Entry flag: error threshold exceeded. UEFI 2.10 N.2.2.
const THRESHOLD: u8 = 1 << 3;
/// Kinds of memory errors: single-bit and multi-bit ECC.
const SINGLE_BIT: u8 = 2;
const MULTI_BIT: u8 = 3;
/// Processor type and instruction set: IA-32/X64.
const X64: (u8, u8) = (0, 2);
/// Kind of a processor error: cache.
const CACHE: u8 = 1;

impl MemoryError {
    fn section(&self, severity: Severity) -> Vec<u8> {
        let mut section = MemorySection::new_zeroed();
        let mut valid = MemoryValid::ADDRESS | MemoryValid::MASK | MemoryValid::KIND;
        section.address = self.gpa.0.into();
        section.mask = (!(self.granule.max(1) - 1)).into();
        section.kind = match severity {
            Severity::Corrected | Severity::Informational => SINGLE_BIT,
            Severity::Recoverable | Severity::Fatal => MULTI_BIT,
        };
        if let Some(node) = self.node {
            section.node = node.into();
            valid |= MemoryValid::NODE;
        }
        if let Some(module) = self.module {
            section.module_handle = module.into();
            valid |= MemoryValid::MODULE_HANDLE;
        }
        section.valid = valid.bits().into();
        section.as_bytes().to_vec()
    }
}

impl ProcessorError {
    fn section(self) -> Vec<u8> {
        let mut section = ProcessorSection::new_zeroed();
        let valid = ProcessorValid::TYPE | ProcessorValid::ISA | ProcessorValid::KIND | ProcessorValid::ID;
        section.valid = valid.bits().into();
        (section.processor, section.isa) = X64;
        section.kind = CACHE;
        section.id = u64::from(self.apic_id).into();
        section.as_bytes().to_vec()
    }
}

impl Cper {
    /// A memory error.
    pub fn memory(severity: Severity, error: MemoryError) -> Self {
        Self {
            severity,
            part: Part::Memory(error),
            threshold_exceeded: false,
            fru_text: None,
        }
    }

    /// An error of a processor.
    pub fn processor(severity: Severity, apic_id: u32) -> Self {
        Self {
            severity,
            part: Part::Processor(ProcessorError { apic_id }),
            threshold_exceeded: false,
            fru_text: None,
        }
    }

    /// Where in memory it is, if it is there.
    pub fn address(&self) -> Option<Gpa> {
        match self.part {
            Part::Memory(error) => Some(error.gpa),
            Part::Processor(_) => None,
        }
    }

    /// The error status block with this one error.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut seen = Counts::default();
        seen.add(self.severity);
        block(std::slice::from_ref(self), seen, Entries::Dated)
    }

    /// Its entry in a status block.
    fn entry(&self, form: Entries) -> Vec<u8> {
        let (guid, section) = match &self.part {
            Part::Memory(error) => (MEMORY, error.section(self.severity)),
            Part::Processor(error) => (PROCESSOR, error.section()),
        };
        let mut entry = DataEntry::new_zeroed();
        entry.section = guid.0;
        entry.severity = (self.severity as u32).into();
        let (revision, len) = match form {
            Entries::Dated => (REVISION, size_of::<DataEntry>()),
            Entries::Undated => (REVISION_UNDATED, UNDATED),
        };
        entry.revision = revision.into();
        entry.flags = if self.threshold_exceeded { THRESHOLD } else { 0 };
        entry.len = length(section.len());
        if let Some(text) = &self.fru_text {
            entry.valid |= FRU_TEXT_VALID;
            // Readers expect a NUL.
            let text = text.bytes().filter(u8::is_ascii_graphic).take(FRU_TEXT - 1);
            entry.fru_text.iter_mut().zip(text).for_each(|(to, byte)| *to = byte);
        }
        // The time stamp comes last.
        let head = entry.as_bytes().get(..len).unwrap_or_default();
        [head, &section].concat()
    }
}

/// Forms of the entries in a status block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// With room for a time stamp.
    Dated,
    /// As they were before ACPI 6.1.
    Undated,
}

/// Errors by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    uncorrectable: u64,
    correctable: u64,
}

impl Counts {
    pub(super) fn add(&mut self, severity: Severity) {
        match severity.is_uncorrected() {
            true => self.uncorrectable += 1,
            false => self.correctable += 1,
        }
    }

    fn status(self) -> Status {
        let bits = |count, one, multiple| match count {
            0 => Status::empty(),
            1 => one,
            _ => one | multiple,
        };
        let uncorrectable = bits(
            self.uncorrectable,
            Status::UNCORRECTABLE,
            Status::MULTIPLE_UNCORRECTABLE,
        );
        uncorrectable | bits(self.correctable, Status::CORRECTABLE, Status::MULTIPLE_CORRECTABLE)
    }
}

/// The error status block with `errors`, of all those in `seen`: some may have no entry any more.
pub(super) fn block(errors: &[Cper], seen: Counts, form: Entries) -> Vec<u8> {
    // In the order of what they mean for the guest.
    let order = [Severity::Fatal, Severity::Recoverable, Severity::Corrected];
    let has = |severity: &Severity| errors.iter().any(|error| error.severity == *severity);
    let severity = order.into_iter().find(has).unwrap_or(Severity::Informational);
    let entries: Vec<u8> = errors.iter().flat_map(|error| error.entry(form)).collect();
    let count = u32::try_from(errors.len()).unwrap_or(u32::MAX);
    let head = StatusBlock {
        status: (seen.status().bits() | count << ENTRIES_SHIFT).into(),
        raw_offset: 0.into(),
        raw_len: 0.into(),
        data_len: length(entries.len()),
        severity: (severity as u32).into(),
    };
    [head.as_bytes(), &entries].concat()
}

fn length(len: usize) -> U32 {
    u32::try_from(len)
        .unwrap_or_else(|_| unreachable!("sections are short"))
        .into()
}
