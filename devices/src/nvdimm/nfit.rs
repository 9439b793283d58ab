//! The NFIT: what the guest learns of each NVDIMM, byte by byte.
//!
//! [`fit`] authors the structures from the plans; the static table ([`table`]) and the `_FIT` method carry the same bytes.
//! Linux compares every structure with what it saw before, so nothing here may depend on anything but the plan.
//!
//! A plain DIMM has the identity QEMU gives the DIMM of the same slot (handle, serial, vendor, region offset): the
//! interleave-set cookie in its namespace labels is then the same, and one backing file works under both monitors.

use super::guid::{Guid, PERSISTENT_MEMORY};
use crate::units::GpaRange;
use acpi_tables::sdt::Sdt;
use std::fmt;
use zerocopy::{
    Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

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

/// One NVDIMM as it was decided: everything the guest can see of it. Guest ABI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvdimmPlan {
    /// Position in the configuration, below [`MAX_SLOTS`].
    pub slot: u8,
    /// Name in errors and in the API.
    pub id: String,
    /// Device handle.
    pub handle: NfitHandle,
    /// Where the data (without the label area) is seen.
    pub spa: GpaRange,
    /// Proximity domain.
    pub proximity: u32,
    /// Bytes of the label area; 0: a DIMM without labels.
    pub label_size: u32,
    /// The guest is told "not armed" and makes its regions read-only.
    pub read_only: bool,
    /// Serial number; part of the interleave-set cookie.
    pub serial: u32,
}

impl NvdimmPlan {
    /// The plan of the DIMM in `slot`, with the identity QEMU would give it.
    pub fn new(slot: u8, id: String, spa: GpaRange, proximity: u32, label_size: u32, read_only: bool) -> Self {
        assert!(slot < MAX_SLOTS, "slot {slot} must be below {MAX_SLOTS}");
        let handle = NfitHandle(u32::from(slot) + 1);
        Self {
            slot,
            id,
            handle,
            spa,
            proximity,
            label_size,
            read_only,
            serial: 0x12_3456 + u32::from(slot),
        }
    }

    fn spa_index(&self) -> u16 {
        (u16::from(self.slot) + 1) * 2
    }

    fn control_region_index(&self) -> u16 {
        self.spa_index() + 1
    }
}

/// Vendor of every DIMM: Intel's number, as QEMU has it. Part of the interleave-set cookie.
pub const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 1;
const REVISION: u16 = 1;
/// Byte-addressable, no energy source needed (JEDEC annex L function 3, interface 1).
const FORMAT_INTERFACE: u16 = 0x301;

bitflags::bitflags! {
    /// SPA range flags. ACPI 6.5 5.2.25.2.
    #[derive(Debug, Clone, Copy)]
    struct SpaFlags: u16 {
        const CONTROL_ONLY_FOR_ADD = 1 << 0;
        const PROXIMITY_VALID = 1 << 1;
    }

    /// NVDIMM state flags of a mapping. ACPI 6.5 5.2.25.3. Constant for the life of a DIMM: Linux takes a changed
    /// structure in `_FIT` for a deleted one and refuses the update.
    #[derive(Debug, Clone, Copy)]
    struct StateFlags: u16 {
        const NOT_ARMED = 1 << 3;
    }

    /// Platform capabilities. ACPI 6.5 5.2.25.9.
    #[derive(Debug, Clone, Copy)]
    struct Capabilities: u32 {
        const CPU_CACHE_FLUSH = 1 << 0;
        const MEMORY_CONTROLLER_FLUSH = 1 << 1;
    }
}

/// EFI_MEMORY_WB | EFI_MEMORY_NV.
const MEMORY_ATTRIBUTES: u64 = 0x8008;

/// ACPI 6.5 5.2.25.2, System Physical Address Range Structure.
#[derive(Debug, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SpaRange {
    kind: U16,
    length: U16,
    index: U16,
    flags: U16,
    reserved: U32,
    proximity: U32,
    range_type: [u8; 16],
    base: U64,
    len: U64,
    attributes: U64,
}
const _: () = assert!(size_of::<SpaRange>() == 56);

/// ACPI 6.5 5.2.25.3, NVDIMM Region Mapping Structure.
#[derive(Debug, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RegionMapping {
    kind: U16,
    length: U16,
    handle: U32,
    physical_id: U16,
    region_id: U16,
    spa_index: U16,
    control_region_index: U16,
    region_size: U64,
    region_offset: U64,
    dpa_base: U64,
    interleave_index: U16,
    interleave_ways: U16,
    state: U16,
    reserved: U16,
}
const _: () = assert!(size_of::<RegionMapping>() == 48);

/// ACPI 6.5 5.2.25.6, NVDIMM Control Region Structure, in the short form without block windows.
#[derive(Debug, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ControlRegion {
    kind: U16,
    length: U16,
    index: U16,
    vendor: U16,
    device: U16,
    revision: U16,
    subsystem_vendor: U16,
    subsystem_device: U16,
    subsystem_revision: U16,
    valid_fields: u8,
    manufacturing_location: u8,
    manufacturing_date: U16,
    reserved: U16,
    serial: U32,
    format_interface: U16,
    block_windows: U16,
}
const _: () = assert!(size_of::<ControlRegion>() == 32);

/// ACPI 6.5 5.2.25.9, Platform Capabilities Structure.
#[derive(Debug, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PlatformCapabilities {
    kind: U16,
    length: U16,
    highest_valid: u8,
    reserved: [u8; 3],
    capabilities: U32,
    reserved2: U32,
}
const _: () = assert!(size_of::<PlatformCapabilities>() == 16);

/// `size_of` as the length field wants it.
const fn length_of<T>() -> U16 {
    let size = size_of::<T>();
    assert!(size <= 0xffff);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked in the line above, at compile time"
    )]
    U16::new(size as u16)
}

fn spa_range(plan: &NvdimmPlan) -> SpaRange {
    let Guid(range_type) = PERSISTENT_MEMORY;
    SpaRange {
        kind: 0.into(),
        length: const { length_of::<SpaRange>() },
        index: plan.spa_index().into(),
        flags: (SpaFlags::CONTROL_ONLY_FOR_ADD | SpaFlags::PROXIMITY_VALID)
            .bits()
            .into(),
        reserved: 0.into(),
        proximity: plan.proximity.into(),
        range_type,
        base: plan.spa.start.0.into(),
        len: plan.spa.len.into(),
        attributes: MEMORY_ATTRIBUTES.into(),
    }
}

fn region_mapping(plan: &NvdimmPlan) -> RegionMapping {
    let state = if plan.read_only {
        StateFlags::NOT_ARMED
    } else {
        StateFlags::empty()
    };
    RegionMapping {
        kind: 1.into(),
        length: const { length_of::<RegionMapping>() },
        handle: plan.handle.0.into(),
        physical_id: 0.into(),
        region_id: 0.into(),
        spa_index: plan.spa_index().into(),
        control_region_index: plan.control_region_index().into(),
        region_size: plan.spa.len.into(),
        region_offset: 0.into(),
        dpa_base: 0.into(),
        interleave_index: 0.into(),
        interleave_ways: 1.into(),
        state: state.bits().into(),
        reserved: 0.into(),
    }
}

fn control_region(plan: &NvdimmPlan) -> ControlRegion {
    ControlRegion {
        kind: 4.into(),
        length: const { length_of::<ControlRegion>() },
        index: plan.control_region_index().into(),
        vendor: VENDOR.into(),
        device: DEVICE.into(),
        revision: REVISION.into(),
        subsystem_vendor: 0.into(),
        subsystem_device: 0.into(),
        subsystem_revision: 0.into(),
        valid_fields: 0,
        manufacturing_location: 0,
        manufacturing_date: 0.into(),
        reserved: 0.into(),
        serial: plan.serial.into(),
        format_interface: FORMAT_INTERFACE.into(),
        block_windows: 0.into(),
    }
}

/// A guest store reaches the host's page cache (or the device-dax memory) at once, so it survives whatever the guest or
/// the monitor does next: the persistence domain begins at the CPU cache.
fn platform_capabilities() -> PlatformCapabilities {
    PlatformCapabilities {
        kind: 7.into(),
        length: const { length_of::<PlatformCapabilities>() },
        highest_valid: 1,
        reserved: [0; 3],
        capabilities: (Capabilities::CPU_CACHE_FLUSH | Capabilities::MEMORY_CONTROLLER_FLUSH)
            .bits()
            .into(),
        reserved2: 0.into(),
    }
}

/// The structures alone, as `_FIT` returns them: SPA range, mapping and control region of each DIMM, then the platform
/// capabilities.
pub fn fit(plans: &[NvdimmPlan]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for plan in plans {
        bytes.extend_from_slice(spa_range(plan).as_bytes());
        bytes.extend_from_slice(region_mapping(plan).as_bytes());
        bytes.extend_from_slice(control_region(plan).as_bytes());
    }
    bytes.extend_from_slice(platform_capabilities().as_bytes());
    bytes
}

/// The whole NFIT: header, four reserved bytes, structures. ACPI 6.5 5.2.25.
pub fn table(plans: &[NvdimmPlan], oem_id: [u8; 6], oem_table_id: [u8; 8]) -> Vec<u8> {
    let mut sdt = Sdt::new(*b"NFIT", 40, 1, oem_id, oem_table_id, 1);
    sdt.append_slice(&fit(plans));
    sdt.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Gpa;

    fn plan(slot: u8, read_only: bool) -> NvdimmPlan {
        let spa = GpaRange::new(Gpa(0x1_4000_0000), 0x1ffe_0000);
        NvdimmPlan::new(slot, format!("nvdimm{slot}"), spa, 3, 0x2_0000, read_only)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn spa_range_is_as_computed_by_hand() {
        let expected = hex("0000 3800 0200 0300 00000000 03000000 79d3f066f3b47440ac430d3318b78cdb
             0000004001000000 0000fe1f00000000 0880000000000000");
        assert_eq!(spa_range(&plan(0, false)).as_bytes(), expected);
    }

    #[test]
    fn region_mapping_is_as_computed_by_hand() {
        let expected = hex(
            "0100 3000 02000000 0000 0000 0400 0500 0000fe1f00000000 0000000000000000
             0000000000000000 0000 0100 0000 0000",
        );
        assert_eq!(region_mapping(&plan(1, false)).as_bytes(), expected);
    }

    #[test]
    fn read_only_dimm_is_not_armed_and_differs_in_nothing_else() {
        let (rw, ro) = (region_mapping(&plan(0, false)), region_mapping(&plan(0, true)));
        let differing: Vec<_> = rw
            .as_bytes()
            .iter()
            .zip(ro.as_bytes())
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .collect();
        assert_eq!(differing, [(44, (&0, &8))]);
        assert_eq!(
            control_region(&plan(0, false)).as_bytes(),
            control_region(&plan(0, true)).as_bytes()
        );
        assert_eq!(
            spa_range(&plan(0, false)).as_bytes(),
            spa_range(&plan(0, true)).as_bytes()
        );
    }

    #[test]
    fn control_region_has_the_identity_qemu_gives() {
        let expected = hex("0400 2000 0500 8680 0100 0100 0000 0000 0000 00 00 0000 0000 57341200 0103 0000");
        assert_eq!(control_region(&plan(1, false)).as_bytes(), expected);
    }

    #[test]
    fn platform_capabilities_name_the_cpu_cache() {
        assert_eq!(
            platform_capabilities().as_bytes(),
            hex("0700 1000 01 000000 03000000 00000000")
        );
    }

    #[test]
    fn table_is_a_header_and_the_fit() {
        let plans = [plan(0, false), plan(1, true)];
        let table = table(&plans, *b"DAXVSR", *b"DAXVISOR");
        assert_eq!(&table[..4], b"NFIT");
        assert_eq!(table[4..8], u32::try_from(table.len()).unwrap().to_le_bytes());
        assert_eq!(table[8], 1);
        assert_eq!(&table[10..24], b"DAXVSRDAXVISOR");
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        assert_eq!(table[36..40], [0; 4]);
        assert_eq!(table[40..], fit(&plans));
        assert_eq!(table.len(), 40 + 2 * (56 + 48 + 32) + 16);
    }
}
