//! What the user says of one virtual NVDIMM.

use super::{
    ars::{DEFAULT_RECORDS, DEFAULT_SCAN_TIME},
    flush::FlushMode,
    health_config::{AlarmName, HealthCondition},
    plan::{PersistenceDomain, SpaKind, StateFlags},
};
use crate::units::{ByteSize, Hex, TimeSpan};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// One virtual NVDIMM. `size` counts label area and data together, as QEMU counts them, so that one backing file serves
/// under both monitors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NvdimmConfig {
    /// Name in errors and in the API; default `nvdimmN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Backing file or device-dax node; none: anonymous memory (memfd) that dies with the monitor.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// Where in `file` the DIMM begins; then `size` bytes of it are used, and others may have the rest.
    #[serde(default)]
    pub offset: Option<ByteSize>,
    /// Bytes of the whole DIMM. Required but for a device-dax node, which knows its own.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Kind of backing; default: what `file` is.
    #[serde(default)]
    pub backing: NvdimmBacking,
    /// Proximity domain; default 0.
    #[serde(default)]
    pub node: u32,
    /// Label area at the end of the backing file; `0` for a DIMM without labels.
    #[serde(default = "NvdimmConfig::default_label")]
    pub label: ByteSize,
    /// Guest writes are refused; the backing file is opened read-only.
    #[serde(default)]
    pub readonly: bool,
    /// Contents of the backing file are encrypted; the keys are in a file of the same name with `.keys` appended.
    #[serde(default)]
    pub encrypt: bool,
    /// What the guest's flushes do; default: msync for a DIMM whose contents are encrypted, else none.
    #[serde(default)]
    pub flush: Option<FlushMode>,
    /// Shortest time in seconds that an overwrite takes; default 5.
    #[serde(default)]
    pub overwrite_time: Option<u32>,
    /// Number of the NVDIMM root device that holds it; default 0.
    #[serde(default)]
    pub bus: u8,
    /// NFIT device handle; default: slot + 1.
    #[serde(default)]
    pub handle: Option<Hex>,
    /// Whether the guest sees the DIMM in an SPA range of its own; default: unless a set has it.
    #[serde(default)]
    pub mapped: Option<bool>,
    /// What its state flags say, beside "not armed" for a read-only DIMM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<StateFlag>,
    /// `_DSM` functions it may have, bit n for function n; default: all that it has a use for.
    #[serde(default)]
    pub functions: Option<Hex>,
    /// SMBIOS handle of the memory device; default that of its structure.
    #[serde(default)]
    pub physical_id: Option<Hex>,
    /// JEDEC vendor; default 0x8086.
    #[serde(default)]
    pub vendor: Option<Hex>,
    /// Device; default 1.
    #[serde(default)]
    pub device: Option<Hex>,
    /// Revision; default 1.
    #[serde(default)]
    pub revision: Option<Hex>,
    /// Vendor of the memory subsystem controller; default 0.
    #[serde(default)]
    pub subsystem_vendor: Option<Hex>,
    /// Device of the controller; default 0.
    #[serde(default)]
    pub subsystem_device: Option<Hex>,
    /// Revision of the controller; default 0.
    #[serde(default)]
    pub subsystem_revision: Option<Hex>,
    /// Serial number; default 0x123456 + slot.
    #[serde(default)]
    pub serial: Option<Hex>,
    /// Manufacturing location; with or without `date`, makes manufacturing information valid.
    #[serde(default)]
    pub location: Option<Hex>,
    /// Manufacturing date as it is stored: first byte year, second byte week, both BCD.
    #[serde(default)]
    pub date: Option<Hex>,
    /// Format interface codes, a control region each; default 0x301.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub format: Vec<Hex>,
    /// File that keeps what the DIMM remembers beside its contents; none: it starts afresh with each run.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub state: Option<PathBuf>,
    /// Whose functions the DIMM speaks; default Intel's.
    #[serde(default)]
    pub family: DimmFamily,
    /// Health of a new DIMM; default non-critical. This and what follows: see [`NvdimmConfig::health_plan`].
    #[serde(default)]
    pub health_condition: Option<HealthCondition>,
    /// Spare capacity in percent; default 75.
    #[serde(default)]
    pub health_spares: Option<u8>,
    /// Life used in percent; default 5.
    #[serde(default)]
    pub health_life_used: Option<u8>,
    /// Temperature of the media in degrees Celsius; default 23.
    #[serde(default)]
    pub health_media_temperature: Option<i8>,
    /// Temperature of the controller in degrees Celsius; default 25.
    #[serde(default)]
    pub health_controller_temperature: Option<i8>,
    /// Unsafe shutdowns before the first power-on; default 42. Later ones count on in the state.
    #[serde(default)]
    pub health_shutdown_count: Option<u32>,
    /// Alarms that are armed at the first power-on; default spares and media temperature.
    #[serde(default)]
    pub health_alarms: Option<Vec<AlarmName>>,
    /// Alarm at or below this many percent of spare capacity; default 5.
    #[serde(default)]
    pub health_spares_threshold: Option<u8>,
    /// Alarm at or above this temperature of the media; default 40.
    #[serde(default)]
    pub health_media_temperature_threshold: Option<i8>,
    /// Alarm at or above this temperature of the controller; default 30.
    #[serde(default)]
    pub health_controller_temperature_threshold: Option<i8>,
}

impl NvdimmConfig {
    /// 128 KiB, the smallest area QEMU accepts.
    pub fn default_label() -> ByteSize {
        ByteSize::kib(128)
    }

    /// What the guest's flushes do. The memory of an encrypted DIMM is not its file: without flushes a guest could not even
    /// bring its data past the end of the monitor.
    pub fn flush_mode(&self) -> FlushMode {
        let default = if self.encrypt {
            FlushMode::Msync
        } else {
            FlushMode::None
        };
        self.flush.unwrap_or(default)
    }

    /// Where the keys are if the contents are encrypted: the name of the backing file with `.keys` appended.
    pub fn key_file(&self) -> Option<PathBuf> {
        let mut name = self.file.as_ref()?.clone().into_os_string();
        name.push(".keys");
        Some(name.into())
    }
}

/// Whose `_DSM` functions a DIMM speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DimmFamily {
    /// Intel: all that ndctl knows.
    #[default]
    Intel,
    /// HPE's first family.
    Hpe1,
    /// Microsoft.
    Msft,
    /// Hyper-V virtual DIMM.
    Hyperv,
}

/// What holds the bytes of an NVDIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NvdimmBacking {
    /// Decided by `file`: absent memfd, a character device devdax, else a file.
    #[default]
    Auto,
    /// A regular file, created sparse when it is not there.
    File,
    /// Anonymous shared memory.
    Memfd,
    /// A file on hugetlbfs.
    Hugetlbfs,
    /// A host device-dax node.
    Devdax,
}

/// A state flag of an NVDIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StateFlag {
    /// The last save failed.
    SaveFailed,
    /// The last restore failed.
    RestoreFailed,
    /// The platform could not flush its buffers.
    FlushFailed,
    /// Contents will not be saved: Linux opens regions read-only.
    NotArmed,
    /// Health events before the start of the operating system.
    HealthObserved,
    /// Health events are notified.
    HealthNotify,
    /// Not mapped by firmware.
    MapFailed,
}

impl StateFlag {
    /// Its bit.
    pub fn bit(self) -> StateFlags {
        match self {
            Self::SaveFailed => StateFlags::SAVE_FAILED,
            Self::RestoreFailed => StateFlags::RESTORE_FAILED,
            Self::FlushFailed => StateFlags::FLUSH_FAILED,
            Self::NotArmed => StateFlags::NOT_ARMED,
            Self::HealthObserved => StateFlags::HEALTH_OBSERVED,
            Self::HealthNotify => StateFlags::HEALTH_NOTIFY,
            Self::MapFailed => StateFlags::MAP_FAILED,
        }
    }
}

/// An SPA range over one or more DIMMs: a part of one, or equal parts of several that take turns line by line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InterleaveSetConfig {
    /// Ids of its DIMMs in the order of their lines. Each gives its next free DIMM physical addresses.
    pub dimms: Vec<String>,
    /// Bytes of the range, all DIMMs together.
    pub size: ByteSize,
    /// Bytes of a line, a power of two from 4 KiB; default: the smallest with at most 4096 lines.
    #[serde(default)]
    pub line: Option<ByteSize>,
    /// Name in errors; default `setN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Proximity domain; default 0.
    #[serde(default)]
    pub node: u32,
    /// Index of the SPA range structure; default 65 + position.
    #[serde(default)]
    pub range_index: Option<Hex>,
    /// DIMM physical address at which each DIMM's share begins, a multiple of its pages; default: its next free one.
    #[serde(default)]
    pub dpa: Option<ByteSize>,
    /// Region offsets that the mappings state, one for each DIMM and no two equal; default: where its first line is in the
    /// range. Linux makes the interleave-set cookie of them, and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub region_offset: Vec<ByteSize>,
    /// Persistent or volatile; default persistent.
    #[serde(default, rename = "type")]
    pub kind: SetKind,
}

/// What an interleave set is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetKind {
    /// Persistent memory.
    #[default]
    Persistent,
    /// Volatile memory.
    Volatile,
}

/// A disk or CD image in memory: an SPA range without a DIMM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VirtualDiskConfig {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: VirtualDiskKind,
    /// Contents; none: zeros.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Bytes.
    pub size: ByteSize,
    /// Proximity domain; default 0.
    #[serde(default)]
    pub node: u32,
    /// Number of the NVDIMM root device that describes it; default 0.
    #[serde(default)]
    pub bus: u8,
}

/// Kind of a virtual disk. ACPI 6.5 5.2.25.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualDiskKind {
    /// RAM disk whose contents are lost.
    #[default]
    VolatileDisk,
    /// RAM CD whose contents are lost.
    VolatileCd,
    /// RAM disk whose contents stay.
    PersistentDisk,
    /// RAM CD whose contents stay.
    PersistentCd,
}

impl From<VirtualDiskKind> for SpaKind {
    fn from(kind: VirtualDiskKind) -> Self {
        match kind {
            VirtualDiskKind::VolatileDisk => Self::VolatileDisk,
            VirtualDiskKind::VolatileCd => Self::VolatileCd,
            VirtualDiskKind::PersistentDisk => Self::PersistentDisk,
            VirtualDiskKind::PersistentCd => Self::PersistentCd,
        }
    }
}

/// One NVDIMM root device. There is one for each number that something names; one without DIMMs can be given some later.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NvdimmBusConfig {
    /// Its number, from 0.
    #[serde(default)]
    pub number: u8,
    /// Where the persistence domain begins; default: at the processors' caches unless a DIMM of it has flush hints.
    #[serde(default)]
    pub persistence: Option<PersistenceDomain>,
    /// `_DSM` functions of the root, bit n for function n; default: all.
    #[serde(default)]
    pub functions: Option<Hex>,
}

/// Address range scrubs of all NVDIMM buses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ArsConfig {
    /// Time of a full scrub of one range, whatever its size.
    pub scan_time: TimeSpan,
    /// Most error records of one scrub's result, 1 to [`MAX_RECORDS`](super::ars::MAX_RECORDS).
    pub records: u32,
}

impl Default for ArsConfig {
    fn default() -> Self {
        Self {
            scan_time: TimeSpan(DEFAULT_SCAN_TIME),
            records: DEFAULT_RECORDS,
        }
    }
}
