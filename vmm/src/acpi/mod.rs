//! ACPI tables: assembled from the layout, the topology and the devices.
//!
//! [`assemble`] is pure: plain data in, placed bytes out. The machine writes the bytes into guest memory and
//! `daxvisor acpi dump` writes them into files; both see the same. Every byte is guest ABI, kept by golden tests.
//!
//! The platform is hardware-reduced ACPI: no fixed hardware, no SCI, no FACS, unless a hypervisor is booted that knows no
//! other ([`AcpiInput::fixed_hardware`]). Events arrive through the generic event
//! device, sleep and reset through its registers ([`devices::acpi`]).

mod dsdt;
mod hmat;
mod numa;
mod platform;

pub use hmat::{HmatPlan, HmatTarget};

use crate::layout::{self, RamRegion};
use acpi_tables::{Aml, sdt::Sdt};
use devices::{
    apei::{self, ApeiPlan, ExtlogPlan},
    nvdimm::{NvdimmBusPlan, nfit},
    units::{Gpa, GpaRange},
};

/// OEM id of every table.
pub const OEM_ID: [u8; 6] = *b"DAXVSR";
/// OEM table id of every table.
pub const OEM_TABLE_ID: [u8; 8] = *b"DAXVISOR";
const OEM_REVISION: u32 = 1;
/// Alignment of every table; the RSDP needs 16 (ACPI 6.5 5.2.5.1).
const TABLE_ALIGN: u64 = 64;
/// Node numbers are below this, so that the SLIT (a square over all numbers) stays small.
const NODE_LIMIT: u32 = 256;

/// All that the tables say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcpiInput {
    /// vCPUs in order; the position is the processor UID.
    pub cpus: Vec<AcpiCpu>,
    /// RAM in address order.
    pub ram: Vec<RamRegion>,
    /// Nodes and distances. None, and no NVDIMM: neither SRAT nor SLIT.
    pub numa: Option<AcpiNuma>,
    /// NVDIMM buses by number; the first one's NFIT is the static table.
    pub nvdimm: Vec<NvdimmBusPlan>,
    /// Other memory that belongs to a node: ranges placed by hand, windows for memory added later.
    pub memory: Vec<AcpiMemory>,
    /// Initiators that are no processors.
    pub initiators: Vec<AcpiInitiator>,
    /// Performance. None: no HMAT.
    pub hmat: Option<HmatPlan>,
    /// virtio-mmio transports: registers and interrupt.
    pub virtio: Vec<(GpaRange, u32)>,
    /// Slots for memory devices; 0: no such devices in the namespace.
    pub memory_slots: u16,
    /// Error interfaces.
    pub apei: Option<ApeiPlan>,
    /// The extended error log.
    pub extlog: Option<ExtlogPlan>,
    /// The 16550 at [`layout::ports::COM1`] exists.
    pub serial: bool,
    /// pvpanic at [`layout::ports::PVPANIC`] exists.
    pub pvpanic: bool,
    /// Fixed hardware at [`layout::ports::ACPI_FIXED`] and a real-time clock exist: the platform is not hardware-reduced.
    pub fixed_hardware: bool,
}

/// One vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiCpu {
    /// x2APIC id.
    pub apic_id: u32,
    /// Proximity domain.
    pub node: u32,
}

/// Memory of a node that is not boot RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiMemory {
    /// Where.
    pub range: GpaRange,
    /// Proximity domain.
    pub node: u32,
    /// It, or memory in it, may come and go.
    pub hot_pluggable: bool,
    /// It keeps its content.
    pub non_volatile: bool,
}

/// A generic initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiInitiator {
    /// Proximity domain.
    pub node: u32,
    /// `_HID`, printable.
    pub hid: [u8; 8],
    /// `_UID`.
    pub uid: u32,
}

/// Nodes and the distances between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiNuma {
    /// Proximity domains, in the order of rows and columns of `distances`.
    pub nodes: Vec<u32>,
    /// Square; 10 on the diagonal, more elsewhere, 255 for unreachable.
    pub distances: Vec<Vec<u8>>,
}

impl AcpiNuma {
    /// Node 0 alone.
    pub fn single() -> Self {
        Self {
            nodes: vec![0],
            distances: vec![vec![numa::LOCAL_DISTANCE]],
        }
    }
}

/// Why no tables can be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AcpiError {
    /// The tables do not fit their place.
    #[error("the ACPI tables need {need:#x} bytes, but {range} has {have:#x}; hint: fewer devices", range = layout::ACPI_TABLES)]
    TooLarge {
        /// Bytes of all tables with padding.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// Something is on a node that does not exist.
    #[error("{what} is on node {node}, which is not among the nodes {nodes:?}")]
    UnknownNode {
        /// vCPU, RAM or NVDIMM.
        what: String,
        /// Its node.
        node: u32,
        /// The nodes there are.
        nodes: Vec<u32>,
    },
    /// A node number out of range.
    #[error("node {0} must be below {NODE_LIMIT}")]
    NodeNumber(u32),
    /// A matrix that Linux would refuse whole.
    #[error(
        "the distance from node {from} to node {to} is {value:?}, expected 10 for a node to itself and 11 to 255 otherwise"
    )]
    Distance {
        /// Row.
        from: u32,
        /// Column.
        to: u32,
        /// Entry; none when it is missing.
        value: Option<u8>,
    },
    /// More than the names in the DSDT can number.
    #[error("{count} {what} are more than the {max} the ACPI namespace has names for")]
    TooMany {
        /// vCPUs or virtio devices.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// An id that AML cannot hold.
    #[error("the _HID {0:02x?} of a generic initiator is not eight letters and digits")]
    Hid([u8; 8]),
    /// A device whose registers 32 bits cannot name.
    #[error("virtio device at {0} must lie below 4 GiB")]
    VirtioRange(GpaRange),
}

/// One table at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Signature; `RSDP` for the root pointer.
    pub signature: &'static str,
    /// Where.
    pub gpa: Gpa,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All tables, placed in [`layout::ACPI_TABLES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// In address order, the RSDP first.
    pub tables: Vec<Table>,
    /// Address of the RSDP.
    pub rsdp: Gpa,
}

impl Tables {
    /// The table with `signature`.
    pub fn get(&self, signature: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.signature == signature)
    }
}

/// Authors and places all tables.
pub fn assemble(input: &AcpiInput) -> Result<Tables, AcpiError> {
    let numa = match &input.numa {
        None if needs_nodes(input) => Some(AcpiNuma::single()),
        numa => numa.clone(),
    };
    if let Some(numa) = &numa {
        numa::check(numa, input)?;
    }

    let mut placer = Placer::new();
    let rsdp = placer.reserve(acpi_tables::rsdp::Rsdp::len() as u64);
    let dsdt = placer.put("DSDT", dsdt::dsdt(input, numa.is_some())?);
    let fadt = match input.fixed_hardware {
        false => platform::fadt(dsdt),
        true => platform::fixed_fadt(dsdt, placer.put("FACS", platform::facs())),
    };
    let mut listed = vec![
        placer.put("FACP", bytes(&fadt)),
        placer.put("APIC", platform::madt(&input.cpus)),
    ];
    if let Some(numa) = &numa {
        listed.push(placer.put("SRAT", numa::srat(input)));
        listed.push(placer.put("SLIT", numa::slit(numa)));
    }
    if let Some(plan) = &input.hmat {
        listed.push(placer.put("HMAT", hmat::table(plan)));
    }
    if let Some(bus) = input.nvdimm.first() {
        listed.push(placer.put("NFIT", nfit::table(&bus.nfit, OEM_ID, OEM_TABLE_ID)));
    }
    if let Some(plan) = &input.apei {
        listed.extend(error_tables(plan).map(|(signature, bytes)| placer.put(signature, bytes)));
    }
    let mut xsdt = acpi_tables::xsdt::XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    listed.iter().for_each(|gpa| xsdt.add_entry(gpa.0));
    let xsdt = placer.put("XSDT", bytes(&xsdt));
    placer.finish(rsdp, bytes(&acpi_tables::rsdp::Rsdp::new(OEM_ID, xsdt.0)))
}

/// ACPI 6.5 18.3 to 18.6.
fn error_tables(plan: &ApeiPlan) -> [(&'static str, Vec<u8>); 4] {
    [
        ("HEST", sdt(*b"HEST", 1, &apei::hest(plan))),
        ("BERT", sdt(*b"BERT", 1, &apei::bert(plan))),
        ("EINJ", sdt(*b"EINJ", 1, &apei::einj_table(plan))),
        ("ERST", sdt(*b"ERST", 1, &apei::erst_table(plan))),
    ]
}

/// Whether something is said of a node on a machine without any.
fn needs_nodes(input: &AcpiInput) -> bool {
    !input.nvdimm.is_empty() || !input.memory.is_empty() || !input.initiators.is_empty() || input.hmat.is_some()
}

/// Hands out addresses one after the other.
struct Placer {
    next: u64,
    tables: Vec<Table>,
}

impl Placer {
    fn new() -> Self {
        Self {
            next: layout::ACPI_TABLES.start.0,
            tables: Vec::new(),
        }
    }

    fn reserve(&mut self, len: u64) -> Gpa {
        let gpa = Gpa(self.next);
        self.next = (self.next + len).next_multiple_of(TABLE_ALIGN);
        gpa
    }

    fn put(&mut self, signature: &'static str, bytes: Vec<u8>) -> Gpa {
        let gpa = self.reserve(bytes.len() as u64);
        self.tables.push(Table { signature, gpa, bytes });
        gpa
    }

    fn finish(mut self, rsdp: Gpa, bytes: Vec<u8>) -> Result<Tables, AcpiError> {
        let (need, have) = (self.next - layout::ACPI_TABLES.start.0, layout::ACPI_TABLES.len);
        if need > have {
            return Err(AcpiError::TooLarge { need, have });
        }
        self.tables.insert(
            0,
            Table {
                signature: "RSDP",
                gpa: rsdp,
                bytes,
            },
        );
        Ok(Tables {
            tables: self.tables,
            rsdp,
        })
    }
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut out = Vec::new();
    aml.to_aml_bytes(&mut out);
    out
}

/// A table with our OEM ids: header, then `body`.
fn sdt(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

#[cfg(test)]
mod tests;
