//! The NFIT: what the guest learns of its NVDIMMs, byte by byte.
//!
//! [`fit`] authors the structures from the plan; the static table ([`table`]) and the `_FIT` method carry the same bytes.
//! Linux compares every structure with what it saw before, so nothing here may depend on anything but the plan of the
//! structure itself.

use super::plan::{InterleavePlan, MappingPlan, NfitPlan, NvdimmPlan, PersistenceDomain, SpaPlan};
use acpi_tables::sdt::Sdt;
use zerocopy::{
    Immutable, IntoBytes, KnownLayout,
    little_endian::{U16, U32, U64},
};

bitflags::bitflags! {
    /// SPA range flags. ACPI 6.5 5.2.25.2.
    #[derive(Debug, Clone, Copy)]
    struct SpaFlags: u16 {
        const CONTROL_ONLY_FOR_ADD = 1 << 0;
        const PROXIMITY_VALID = 1 << 1;
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

fn spa_range(plan: &SpaPlan) -> SpaRange {
    SpaRange {
        kind: 0.into(),
        length: const { length_of::<SpaRange>() },
        index: plan.index.into(),
        flags: (SpaFlags::CONTROL_ONLY_FOR_ADD | SpaFlags::PROXIMITY_VALID)
            .bits()
            .into(),
        reserved: 0.into(),
        proximity: plan.proximity.into(),
        range_type: plan.kind.guid().0,
        base: plan.range.start.0.into(),
        len: plan.range.len.into(),
        attributes: MEMORY_ATTRIBUTES.into(),
    }
}

/// The mapping of `dimm` into `spa`; without one, the structure that shows a DIMM without any range.
fn region_mapping(dimm: &NvdimmPlan, in_spa: Option<(&SpaPlan, &MappingPlan)>) -> RegionMapping {
    let (spa, mapping) = in_spa.unzip();
    let interleave = spa.and_then(|spa| spa.interleave);
    let ways = spa.map_or(0, |spa| u16::try_from(spa.mappings.len()).unwrap_or(u16::MAX));
    RegionMapping {
        kind: 1.into(),
        length: const { length_of::<RegionMapping>() },
        handle: dimm.handle.0.into(),
        physical_id: dimm.physical_id.into(),
        region_id: mapping.map_or(0, |m| m.region_id).into(),
        spa_index: spa.map_or(0, |spa| spa.index).into(),
        control_region_index: dimm.control_region_index(0).into(),
        region_size: mapping.map_or(0, |m| m.len).into(),
        region_offset: mapping.map_or(0, |m| m.offset).into(),
        dpa_base: mapping.map_or(0, |m| m.dpa).into(),
        interleave_index: interleave.map_or(0, |i| i.index).into(),
        interleave_ways: ways.into(),
        state: dimm.state.bits().into(),
        reserved: 0.into(),
    }
}

/// ACPI 6.5 5.2.25.4, Interleave Structure, with one line: the lines of the DIMMs simply take turns, so each line of a
/// DIMM is at the start of its share of the round.
fn interleave(plan: &InterleavePlan) -> Vec<u8> {
    let words = [U16::new(2), U16::new(20), U16::new(plan.index), U16::new(0)];
    let lines = [U32::new(1), U32::new(plan.line), U32::new(0)];
    [words.as_bytes(), lines.as_bytes()].concat()
}

fn control_region(dimm: &NvdimmPlan, format: usize) -> ControlRegion {
    let identity = &dimm.identity;
    let (location, date) = identity.manufactured.unwrap_or_default();
    ControlRegion {
        kind: 4.into(),
        length: const { length_of::<ControlRegion>() },
        index: dimm.control_region_index(format).into(),
        vendor: identity.vendor.into(),
        device: identity.device.into(),
        revision: identity.revision.into(),
        subsystem_vendor: identity.subsystem_vendor.into(),
        subsystem_device: identity.subsystem_device.into(),
        subsystem_revision: identity.subsystem_revision.into(),
        valid_fields: identity.manufactured.is_some().into(),
        manufacturing_location: location,
        manufacturing_date: date.into(),
        reserved: 0.into(),
        serial: identity.serial.into(),
        format_interface: identity.formats.get(format).copied().unwrap_or_default().into(),
        block_windows: 0.into(),
    }
}

/// ACPI 6.5 5.2.25.8, Flush Hint Address Structure.
fn flush_hints(dimm: &NvdimmPlan) -> Vec<u8> {
    let count = u16::try_from(dimm.flush_hints.len()).unwrap_or(u16::MAX);
    let mut bytes = [U16::new(6), U16::new(count.saturating_mul(8).saturating_add(16))]
        .as_bytes()
        .to_vec();
    bytes.extend_from_slice(&dimm.handle.0.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend(dimm.flush_hints.iter().flat_map(|hint| hint.0.to_le_bytes()));
    bytes
}

fn platform_capabilities(domain: PersistenceDomain) -> PlatformCapabilities {
    let capabilities = match domain {
        PersistenceDomain::CpuCache => Capabilities::all(),
        PersistenceDomain::MemoryController => Capabilities::MEMORY_CONTROLLER_FLUSH,
        PersistenceDomain::None => Capabilities::empty(),
    };
    PlatformCapabilities {
        kind: 7.into(),
        length: const { length_of::<PlatformCapabilities>() },
        highest_valid: 1,
        reserved: [0; 3],
        capabilities: capabilities.bits().into(),
        reserved2: 0.into(),
    }
}

/// The structures alone, as `_FIT` returns them: SPA ranges, each with its mappings and interleave structure; what shows
/// DIMMs in no range; control regions and flush hints of each DIMM; the platform capabilities.
pub fn fit(plan: &NfitPlan) -> Vec<u8> {
    let mut bytes = Vec::new();
    for spa in &plan.spas {
        bytes.extend_from_slice(spa_range(spa).as_bytes());
        bytes.extend(spa.interleave.iter().flat_map(interleave));
        for mapping in &spa.mappings {
            let Some(dimm) = plan.dimm(mapping.slot) else { continue };
            bytes.extend_from_slice(region_mapping(dimm, Some((spa, mapping))).as_bytes());
        }
    }
    for dimm in &plan.dimms {
        let mut mappings = plan.spas.iter().flat_map(|spa| &spa.mappings);
        if !mappings.any(|mapping| mapping.slot == dimm.slot) {
            bytes.extend_from_slice(region_mapping(dimm, None).as_bytes());
        }
        for format in 0..dimm.identity.formats.len() {
            bytes.extend_from_slice(control_region(dimm, format).as_bytes());
        }
        if !dimm.flush_hints.is_empty() {
            bytes.extend(flush_hints(dimm));
        }
    }
    bytes.extend_from_slice(platform_capabilities(plan.domain).as_bytes());
    bytes
}

/// The structures in `fit`, each with its head.
pub fn structures(fit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = fit;
    std::iter::from_fn(move || {
        let [_, _, low, high, ..] = *rest else { return None };
        let len = usize::from(u16::from_le_bytes([low, high]));
        let structure = rest.get(..len).filter(|s| !s.is_empty())?;
        rest = rest.get(len..)?;
        Some(structure)
    })
}

/// The whole NFIT: header, four reserved bytes, structures. ACPI 6.5 5.2.25.
pub fn table(plan: &NfitPlan, oem_id: [u8; 6], oem_table_id: [u8; 8]) -> Vec<u8> {
    let mut sdt = Sdt::new(*b"NFIT", 40, 1, oem_id, oem_table_id, 1);
    sdt.append_slice(&fit(plan));
    sdt.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nvdimm::plan::{SpaKind, StateFlags},
        units::{Gpa, GpaRange},
    };

    fn plan(slot: u8, read_only: bool) -> NvdimmPlan {
        NvdimmPlan::plain(slot, format!("nvdimm{slot}"), 0x1ffe_0000, 0x2_0000, read_only)
    }

    fn spa(dimm: &NvdimmPlan) -> SpaPlan {
        SpaPlan::plain(dimm, Gpa(0x1_4000_0000), 3)
    }

    fn mapping(dimm: &NvdimmPlan) -> RegionMapping {
        let spa = spa(dimm);
        region_mapping(dimm, Some((&spa, &spa.mappings[0])))
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
        assert_eq!(spa_range(&spa(&plan(0, false))).as_bytes(), expected);
    }

    #[test]
    fn region_mapping_is_as_computed_by_hand() {
        let expected = hex(
            "0100 3000 02000000 0000 0000 0400 0500 0000fe1f00000000 0000000000000000
             0000000000000000 0000 0100 0000 0000",
        );
        assert_eq!(mapping(&plan(1, false)).as_bytes(), expected);
    }

    #[test]
    fn read_only_dimm_is_not_armed_and_differs_in_nothing_else() {
        let (rw, ro) = (mapping(&plan(0, false)), mapping(&plan(0, true)));
        let differing: Vec<_> = rw
            .as_bytes()
            .iter()
            .zip(ro.as_bytes())
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .collect();
        assert_eq!(differing, [(44, (&0, &8))]);
        assert_eq!(
            control_region(&plan(0, false), 0).as_bytes(),
            control_region(&plan(0, true), 0).as_bytes()
        );
        assert_eq!(
            spa_range(&spa(&plan(0, false))).as_bytes(),
            spa_range(&spa(&plan(0, true))).as_bytes()
        );
    }

    #[test]
    fn control_region_has_the_identity_qemu_gives() {
        let expected = hex("0400 2000 0500 8680 0100 0100 0000 0000 0000 00 00 0000 0000 57341200 0103 0000");
        assert_eq!(control_region(&plan(1, false), 0).as_bytes(), expected);
    }

    #[test]
    fn platform_capabilities_name_the_persistence_domain() {
        for (domain, bits) in [
            (PersistenceDomain::CpuCache, "03"),
            (PersistenceDomain::MemoryController, "02"),
            (PersistenceDomain::None, "00"),
        ] {
            let expected = hex(&format!("0700 1000 01 000000 {bits}000000 00000000"));
            assert_eq!(platform_capabilities(domain).as_bytes(), expected);
        }
    }

    #[test]
    fn set_of_two_dimms_is_as_computed_by_hand() {
        let dimms = [plan(0, false), plan(1, false)];
        let share = |slot: u8, offset, dpa| MappingPlan {
            slot,
            region_id: 1,
            len: 0x100_0000,
            offset,
            dpa,
        };
        let set = SpaPlan {
            index: 65,
            kind: SpaKind::Persistent,
            range: GpaRange::new(Gpa(0x1_4000_0000), 0x200_0000),
            proximity: 0,
            interleave: Some(InterleavePlan { index: 1, line: 4096 }),
            mappings: vec![share(0, 0, 0x100_0000), share(1, 4096, 0)],
        };
        let plan = NfitPlan {
            dimms: dimms.to_vec(),
            spas: vec![set],
            ..NfitPlan::default()
        };
        let fit = fit(&plan);
        assert_eq!(
            fit[56..76],
            hex("0200 1400 0100 0000 01000000 00100000 00000000"),
            "interleave structure"
        );
        let expected = "0100 3000 02000000 0000 0100 4100 0500 0000000100000000 0010000000000000
             0000000000000000 0100 0200 0000 0000";
        assert_eq!(fit[76 + 48..76 + 96], hex(expected), "second mapping");
        assert_eq!(fit[76 + 32..76 + 40], 0x100_0000u64.to_le_bytes(), "DPA of the first");
        assert_eq!(fit.len(), 56 + 20 + 2 * (48 + 32) + 16);
    }

    #[test]
    fn dimm_in_no_range_is_shown_and_has_its_hints() {
        let mut dimm = plan(2, false);
        dimm.state = StateFlags::MAP_FAILED;
        dimm.flush_hints = vec![Gpa(0xd010_0000), Gpa(0xd010_0040)];
        let plan = NfitPlan {
            dimms: vec![dimm],
            ..NfitPlan::default()
        };
        let fit = fit(&plan);
        let expected = "0100 3000 03000000 0000 0000 0000 0700 0000000000000000 0000000000000000
             0000000000000000 0000 0000 4000 0000";
        assert_eq!(fit[..48], hex(expected));
        let hints = hex("0600 2000 03000000 0200 000000000000 000010d000000000 400010d000000000");
        assert_eq!(fit[80..112], hints);
    }

    #[test]
    fn table_is_a_header_and_the_fit() {
        let at = |slot: u64| Gpa((4 + slot) << 30);
        let plans = NfitPlan::plain([(plan(0, false), at(0), 0), (plan(1, true), at(1), 0)]);
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
