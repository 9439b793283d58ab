use super::*;
use crate::nvdimm::plan::{InterleavePlan, SpaKind};
use proptest::prelude::*;

const BASE: u64 = 0x1_4000_0000;

/// A set of `ways` DIMMs with `lines` lines each; DIMM `i` begins at DPA `i` x 64 KiB.
fn set(ways: u8, line: u32, lines: u64) -> SpaPlan {
    let len = u64::from(line) * lines;
    SpaPlan {
        index: 1,
        kind: SpaKind::Persistent,
        range: GpaRange::new(Gpa(BASE), len * u64::from(ways)),
        proximity: 0,
        interleave: (ways > 1).then_some(InterleavePlan { index: 1, line }),
        mappings: (0..ways)
            .map(|slot| MappingPlan {
                slot,
                region_id: 0,
                len,
                offset: u64::from(slot) * u64::from(line),
                dpa: u64::from(slot) << 16,
            })
            .collect(),
    }
}

fn address(slot: u8, dpa: u64, len: u64) -> Option<DimmAddress> {
    let dpa = Dpa(dpa);
    Some(DimmAddress { slot, dpa, len })
}

/// ACPI 6.5 5.2.25.4 in general: line `k` of a DIMM whose table has `table.len()` lines.
fn by_the_book(spa: &SpaPlan, way: usize, table: &[u64], line: u64, offset: u64) -> u64 {
    let count = table.len() as u64;
    let (k, rest) = (offset / line, offset % line);
    let ways = spa.mappings.len() as u64;
    let round = k / count * (count * line * ways);
    let place = usize::try_from(k % count).unwrap();
    spa.range.start.0 + spa.mappings[way].offset + round + table[place] * line + rest
}

#[test]
fn plain_range_is_one_run() {
    let plain = set(1, 4096, 16);
    assert_eq!(plain.to_dpa(Gpa(BASE)), address(0, 0, 0x1_0000));
    assert_eq!(plain.to_dpa(Gpa(BASE + 0x1234)), address(0, 0x1234, 0x1_0000 - 0x1234));
    assert_eq!(plain.to_dpa(Gpa(BASE + 0x1_0000)), None);
    assert_eq!(plain.to_dpa(Gpa(BASE - 1)), None);
    assert_eq!(plain.to_spa(0, Dpa(0xffff)), Some(Gpa(BASE + 0xffff)));
    assert_eq!(plain.to_spa(0, Dpa(0x1_0000)), None);
    assert_eq!(plain.to_spa(1, Dpa(0)), None);
}

#[test]
fn lines_take_turns() {
    let four = set(4, 256, 8);
    assert_eq!(four.to_dpa(Gpa(BASE + 255)), address(0, 255, 1));
    assert_eq!(four.to_dpa(Gpa(BASE + 256)), address(1, 0x1_0000, 256));
    assert_eq!(four.to_dpa(Gpa(BASE + 5 * 256 + 16)), address(1, 0x1_0110, 240));
    assert_eq!(four.to_dpa(Gpa(BASE + 7 * 256)), address(3, 0x3_0100, 256));
    assert_eq!(four.to_spa(2, Dpa(0x2_0100)), Some(Gpa(BASE + 6 * 256)));
    assert_eq!(four.to_spa(2, Dpa(0x1_ffff)), None, "before the mapping");
    assert_eq!(four.to_spa(2, Dpa(0x2_0800)), None, "behind it");
    // From the middle of DIMM 1's first line to the middle of its second.
    let spas = GpaRange::new(Gpa(BASE + 256 + 128), 1024);
    let dpas: Vec<_> = four.lanes().map(|lane| lane.dpas(spas)).collect();
    assert_eq!(
        dpas,
        [0x100..0x200, 0x1_0080..0x1_0180, 0x2_0000..0x2_0100, 0x3_0000..0x3_0100]
    );
}

#[test]
fn range_without_dimms_leads_nowhere() {
    let mut disk = set(1, 4096, 1);
    disk.kind = SpaKind::VolatileCd;
    disk.mappings.clear();
    assert_eq!(disk.to_dpa(Gpa(BASE)), None);
    assert_eq!(disk.to_spa(0, Dpa(0)), None);
}

fn sets() -> impl Strategy<Value = SpaPlan> {
    let ways = prop::sample::select(vec![1u8, 2, 3, 4, 6, 8]);
    let line = prop::sample::select(vec![64u32, 256, 4096]);
    (ways, line, 1u64..9).prop_map(|(ways, line, lines)| set(ways, line, lines))
}

proptest! {
    #[test]
    fn every_byte_of_the_range_is_one_byte_of_one_dimm(spa in sets(), at in any::<prop::sample::Index>()) {
        let len = usize::try_from(spa.range.len).unwrap();
        let gpa = Gpa(BASE + at.index(len) as u64);
        let found = spa.to_dpa(gpa).unwrap();
        prop_assert_eq!(spa.to_spa(found.slot, found.dpa), Some(gpa));
        let last = DimmAddress { dpa: Dpa(found.dpa.0 + found.len - 1), len: 1, ..found };
        prop_assert_eq!(spa.to_dpa(Gpa(gpa.0 + found.len - 1)), Some(last));
    }

    #[test]
    fn every_byte_of_every_dimm_is_in_the_range(spa in sets(), way in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let mapping = &spa.mappings[way.index(spa.mappings.len())];
        let dpa = Dpa(mapping.dpa + at.index(usize::try_from(mapping.len).unwrap()) as u64);
        let gpa = spa.to_spa(mapping.slot, dpa).unwrap();
        let found = spa.to_dpa(gpa).unwrap();
        prop_assert_eq!((found.slot, found.dpa), (mapping.slot, dpa));
    }

    #[test]
    fn general_formula_gives_the_same_places(spa in sets(), way in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let way = way.index(spa.mappings.len());
        let mapping = &spa.mappings[way];
        let offset = at.index(usize::try_from(mapping.len).unwrap()) as u64;
        let line = spa.interleave.map_or(mapping.len, |i| i.line.into());
        let found = spa.to_spa(mapping.slot, Dpa(mapping.dpa + offset)).unwrap();
        // The table of the NFIT, and a longer one that means the same.
        let ways = spa.mappings.len() as u64;
        let mut tables = vec![vec![0]];
        tables.push(vec![0, ways, 2 * ways]);
        for table in tables {
            prop_assert_eq!(by_the_book(&spa, way, &table, line, offset), found.0, "{:?}", table);
        }
    }

    #[test]
    fn run_of_the_range_is_one_run_of_each_dimm(spa in sets(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let len = usize::try_from(spa.range.len).unwrap();
        let (a, b) = (a.index(len + 1), b.index(len + 1));
        let (first, last) = (a.min(b) as u64, a.max(b) as u64);
        let spas = GpaRange::new(Gpa(BASE + first), last - first);
        let mut bytes = 0;
        for lane in spa.lanes() {
            let dpas = lane.dpas(spas);
            bytes += dpas.end - dpas.start;
            for dpa in [dpas.start, dpas.end.saturating_sub(1)] {
                if dpas.contains(&dpa) {
                    prop_assert!(spas.contains(spa.to_spa(lane.slot(), Dpa(dpa)).unwrap()));
                }
            }
        }
        prop_assert_eq!(bytes, spas.len);
    }
}
