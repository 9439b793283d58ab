//! What was decided about the NVDIMMs of a machine: DIMMs, the SPA ranges they appear in, and the buses that hold them.
//!
//! A DIMM has a capacity, addressed by DPA (DIMM physical address). An SPA range is made of mappings, each a run of one
//! DIMM's DPAs; several mappings are interleaved line by line. Everything here is guest ABI.
//!
//! A plain DIMM (one range, one mapping) has the identity QEMU gives the DIMM of the same slot (handle, serial, vendor,
//! region offset): the interleave-set cookie in its namespace labels is then the same, and one backing file works under
//! both monitors.

pub use super::config::DimmFamily;
use super::{
    ars::RootPlan,
    guid::{self, Guid},
    health::HealthPlan,
    mailbox::MailboxPlan,
};
use crate::units::{Gpa, GpaRange};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most DIMMs of one machine.
pub const MAX_SLOTS: u8 = 32;

/// NFIT device handle: the `_ADR` of the DIMM's ACPI device. ACPI 6.5 5.2.25.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NfitHandle(pub u32);

impl fmt::Display for NfitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

bitflags::bitflags! {
    /// NVDIMM state flags of a mapping. ACPI 6.5 5.2.25.3. The same in every mapping of a DIMM and constant for its life:
    /// Linux takes a changed structure in `_FIT` for a deleted one and refuses the update.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct StateFlags: u16 {
        /// The last save of the contents failed.
        const SAVE_FAILED = 1 << 0;
        /// The last restore of the contents failed.
        const RESTORE_FAILED = 1 << 1;
        /// The platform could not flush its buffers to the DIMM.
        const FLUSH_FAILED = 1 << 2;
        /// The DIMM will not save its contents: Linux opens its regions read-only.
        const NOT_ARMED = 1 << 3;
        /// Health events were seen before the start of the operating system.
        const HEALTH_OBSERVED = 1 << 4;
        /// The DIMM's device is notified of health events.
        const HEALTH_NOTIFY = 1 << 5;
        /// Firmware did not map the DIMM into an SPA range.
        const MAP_FAILED = 1 << 6;
    }
}

/// Who made the DIMM, as its control region says. Serial, vendor, date and location are part of the interleave-set cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// JEDEC vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u16,
    /// Vendor of the non-volatile memory subsystem controller.
    pub subsystem_vendor: u16,
    /// Device of the controller.
    pub subsystem_device: u16,
    /// Revision of the controller.
    pub subsystem_revision: u16,
    /// Manufacturing location and date (as stored: BCD year, then week), when they are known.
    pub manufactured: Option<(u8, u16)>,
    /// Serial number.
    pub serial: u32,
    /// Format interface codes, one control region each; at least one.
    pub formats: Vec<u16>,
}

/// Vendor of a plain DIMM: Intel's number, as QEMU has it.
pub const VENDOR: u16 = 0x8086;
/// Byte-addressable, no energy source needed (JEDEC annex L function 3, interface 1).
pub const FORMAT_INTERFACE: u16 = 0x301;

impl Identity {
    /// The identity QEMU gives the DIMM in `slot`.
    pub fn plain(slot: u8) -> Self {
        Self {
            vendor: VENDOR,
            device: 1,
            revision: 1,
            subsystem_vendor: 0,
            subsystem_device: 0,
            subsystem_revision: 0,
            manufactured: None,
            serial: 0x12_3456 + u32::from(slot),
            formats: vec![FORMAT_INTERFACE],
        }
    }
}

/// One NVDIMM as it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmPlan {
    /// Position in the configuration, below [`MAX_SLOTS`].
    pub slot: u8,
    /// Name in errors and in the API.
    pub id: String,
    /// Device handle.
    pub handle: NfitHandle,
    /// Bytes of data, without the label area: DPAs are below this.
    pub capacity: u64,
    /// Bytes of the label area; 0: a DIMM without labels.
    pub label_size: u32,
    /// The backing takes no writes.
    pub read_only: bool,
    /// SMBIOS handle of the memory device.
    pub physical_id: u16,
    /// State flags of all its mappings.
    pub state: StateFlags,
    /// Control region.
    pub identity: Identity,
    /// Where the guest writes to flush the DIMM; empty: flushing is not needed.
    pub flush_hints: Vec<Gpa>,
    /// `_DSM` functions the DIMM may have, one bit each; functions it has no use for are left out in any case.
    pub functions: u32,
    /// Which `_DSM` functions it speaks.
    pub family: DimmFamily,
    /// Sensors and counters of a DIMM that was never used.
    pub health: HealthPlan,
}

impl NvdimmPlan {
    /// The plan of a DIMM in `slot` with the identity QEMU would give it.
    pub fn plain(slot: u8, id: String, capacity: u64, label_size: u32, read_only: bool) -> Self {
        assert!(slot < MAX_SLOTS, "slot {slot} must be below {MAX_SLOTS}");
        let state = if read_only {
            StateFlags::NOT_ARMED
        } else {
            StateFlags::empty()
        };
        Self {
            slot,
            id,
            handle: NfitHandle(u32::from(slot) + 1),
            capacity,
            label_size,
            read_only,
            physical_id: 0,
            state,
            identity: Identity::plain(slot),
            flush_hints: vec![],
            functions: u32::MAX,
            family: DimmFamily::default(),
            health: HealthPlan::default(),
        }
    }

    /// Index of the control region of the `n`-th format interface. Plain DIMMs have one, at QEMU's index.
    pub fn control_region_index(&self, format: usize) -> u16 {
        let more = u16::try_from(format).unwrap_or(u16::MAX).saturating_mul(0x100);
        (more + u16::from(self.slot) + 1) * 2 + 1
    }
}

/// What an SPA range is. ACPI 6.5 5.2.25.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaKind {
    /// Persistent memory.
    Persistent,
    /// Volatile memory.
    Volatile,
    /// Control region.
    Control,
    /// Volatile virtual disk.
    VolatileDisk,
    /// Volatile virtual CD.
    VolatileCd,
    /// Persistent virtual disk.
    PersistentDisk,
    /// Persistent virtual CD.
    PersistentCd,
}

impl SpaKind {
    /// Range type GUID.
    pub fn guid(self) -> Guid {
        match self {
            Self::Persistent => guid::PERSISTENT_MEMORY,
            Self::Volatile => guid::VOLATILE_MEMORY,
            Self::Control => guid::CONTROL_REGION,
            Self::VolatileDisk => guid::VOLATILE_DISK,
            Self::VolatileCd => guid::VOLATILE_CD,
            Self::PersistentDisk => guid::PERSISTENT_DISK,
            Self::PersistentCd => guid::PERSISTENT_CD,
        }
    }

    /// Whether contents outlive the machine.
    pub fn is_persistent(self) -> bool {
        matches!(self, Self::Persistent | Self::PersistentDisk | Self::PersistentCd)
    }

    /// Virtual disks and CDs have no mappings, and index 0.
    pub fn is_virtual(self) -> bool {
        !matches!(self, Self::Persistent | Self::Volatile | Self::Control)
    }
}

/// A run of one DIMM in an SPA range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingPlan {
    /// Slot of the DIMM.
    pub slot: u8,
    /// Distinguishes the mappings of one DIMM.
    pub region_id: u16,
    /// Bytes that the DIMM contributes.
    pub len: u64,
    /// Offset of the DIMM's first line in the range. Distinct for each DIMM of a set.
    pub offset: u64,
    /// DPA of the first byte.
    pub dpa: u64,
}

/// How the mappings of a range alternate. Line `k` of mapping `i` of `n` is line `k * n + i` of the range.
/// ACPI 6.5 5.2.25.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterleavePlan {
    /// Index of the interleave structure, from 1.
    pub index: u16,
    /// Bytes of a line.
    pub line: u32,
}

/// One SPA range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaPlan {
    /// Index of the structure; 0 for virtual disks and CDs.
    pub index: u16,
    /// What it is.
    pub kind: SpaKind,
    /// Where the guest sees it.
    pub range: GpaRange,
    /// Proximity domain.
    pub proximity: u32,
    /// None: one mapping, or none at all.
    pub interleave: Option<InterleavePlan>,
    /// In the order of their offsets.
    pub mappings: Vec<MappingPlan>,
}

impl SpaPlan {
    /// The range of a plain DIMM: all of it, not interleaved, at QEMU's index.
    pub fn plain(dimm: &NvdimmPlan, start: Gpa, proximity: u32) -> Self {
        Self {
            index: (u16::from(dimm.slot) + 1) * 2,
            kind: SpaKind::Persistent,
            range: GpaRange::new(start, dimm.capacity),
            proximity,
            interleave: None,
            mappings: vec![MappingPlan {
                slot: dimm.slot,
                region_id: 0,
                len: dimm.capacity,
                offset: 0,
                dpa: 0,
            }],
        }
    }
}

/// Where the persistence domain begins. ACPI 6.5 5.2.25.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PersistenceDomain {
    /// The processors' caches are flushed on power loss.
    #[default]
    CpuCache,
    /// The memory controller's buffers are; caches are the guest's business.
    MemoryController,
    /// Nothing is said.
    None,
}

/// All of one NFIT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NfitPlan {
    /// DIMMs by slot.
    pub dimms: Vec<NvdimmPlan>,
    /// SPA ranges by address.
    pub spas: Vec<SpaPlan>,
    /// Platform capabilities.
    pub domain: PersistenceDomain,
}

impl NfitPlan {
    /// The DIMM in `slot`.
    pub fn dimm(&self, slot: u8) -> Option<&NvdimmPlan> {
        self.dimms.iter().find(|dimm| dimm.slot == slot)
    }

    /// One DIMM with a range of its own, for tests and examples.
    pub fn plain(dimms: impl IntoIterator<Item = (NvdimmPlan, Gpa, u32)>) -> Self {
        let (dimms, spas) = dimms
            .into_iter()
            .map(|(dimm, start, proximity)| {
                let spa = SpaPlan::plain(&dimm, start, proximity);
                (dimm, spa)
            })
            .unzip();
        Self {
            dimms,
            spas,
            ..Self::default()
        }
    }
}

/// One NVDIMM root device with all it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmBusPlan {
    /// 0 for the first, whose NFIT is also the static table.
    pub number: u8,
    /// Its mailbox.
    pub mailbox: MailboxPlan,
    /// Slots and handles of its DIMMs, those included that may be added later.
    pub slots: Vec<(u8, NfitHandle)>,
    /// What it says.
    pub nfit: NfitPlan,
    /// How its root's functions behave.
    pub root: RootPlan,
}

impl NvdimmBusPlan {
    /// Name of the root device in the scope `\_SB`.
    pub fn name(&self) -> String {
        match self.number {
            0 => "NVDR".to_owned(),
            n => format!("NVR{n:X}"),
        }
    }
}
