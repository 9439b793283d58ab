use super::*;
use crate::{
    Clock,
    nvdimm::{
        NfitPlan, NvdimmPlan,
        plan::{InterleavePlan, MappingPlan, SpaKind},
    },
};
use proptest::prelude::*;

const BASE: u64 = 0x1_4000_0000;
const DIMM: u64 = 0x1_0000;
const SPACE: u64 = DIMM / 2;

/// A set over the first halves of `ways` DIMMs.
fn bus(ways: u8, line: u32) -> BusState {
    let clock = Clock::manual();
    let plans: Vec<_> = (0..ways)
        .map(|slot| NvdimmPlan::plain(slot, format!("nvdimm{slot}"), DIMM, 0, false))
        .collect();
    let dimms = plans
        .iter()
        .map(|plan| Dimm::new(plan.clone(), Box::new(vec![]), &clock));
    let dimms = dimms.collect();
    let spa = SpaPlan {
        index: 1,
        kind: SpaKind::Persistent,
        range: GpaRange::new(Gpa(BASE), SPACE * u64::from(ways)),
        proximity: 0,
        interleave: (ways > 1).then_some(InterleavePlan { index: 1, line }),
        mappings: (0..ways)
            .map(|slot| MappingPlan {
                slot,
                region_id: 0,
                len: SPACE,
                offset: u64::from(slot) * u64::from(line),
                dpa: 0,
            })
            .collect(),
    };
    let nfit = NfitPlan {
        dimms: plans,
        spas: vec![spa],
        ..NfitPlan::default()
    };
    BusState::new(nfit, dimms, clock)
}

fn spas(offset: u64, len: u64) -> GpaRange {
    GpaRange::new(Gpa(BASE + offset), len)
}

#[test]
fn known_errors_are_told_and_latent_ones_are_not() {
    let mut bus = bus(1, 4096);
    bus.inject(spas(0, 64), Mark::latent(ErrorSource::Host)).unwrap();
    bus.inject_dimm(0, Dpa(64), 64, Mark::latent(ErrorSource::Host))
        .unwrap();
    bus.inject_dimm(0, Dpa(SPACE), 64, Mark::known(ErrorSource::Host))
        .unwrap();
    assert!(!bus.events.take_new());
    bus.inject_dimm(0, Dpa(64), 64, Mark::known(ErrorSource::Host)).unwrap();
    assert!(bus.events.take_new());
    bus.inject(spas(128, 1), Mark::known(ErrorSource::Backing)).unwrap();
    assert!(bus.events.take_new());
    let listed: Vec<_> = bus.errors().iter().map(|e| (e.range.dpa.0, e.spa)).collect();
    let gpa = |offset: u64| Some(Gpa(BASE + offset));
    assert_eq!(listed, [(0, gpa(0)), (64, gpa(64)), (128, gpa(128)), (SPACE, None)]);
}

#[test]
fn load_finds_the_first_bad_byte() {
    let mut bus = bus(2, 256);
    bus.inject_dimm(1, Dpa(256), 64, Mark::latent(ErrorSource::Host))
        .unwrap();
    let bad = Some(Gpa(BASE + 3 * 256));
    assert_eq!(bus.first_error(spas(0, 0x1000), ErrorState::Latent), bad);
    assert_eq!(bus.first_error(spas(0, 0x1000), ErrorState::Known), None);
    assert_eq!(bus.first_error(spas(0, 3 * 256), ErrorState::Latent), None);
    assert_eq!(bus.first_error(GpaRange::new(Gpa(0), 64), ErrorState::Latent), None);
    bus.discover(spas(3 * 256, 8)).unwrap();
    assert_eq!(bus.first_error(spas(0, 0x1000), ErrorState::Known), bad);
    assert!(!bus.events.take_new());
}

#[test]
fn places_outside_are_refused_with_their_values() {
    let mut bus = bus(1, 4096);
    let mark = Mark::known(ErrorSource::Host);
    let error = bus.inject(spas(SPACE - 64, 128), mark).unwrap_err().to_string();
    assert!(error.contains("0x80 bytes at 0x140007fc0"), "{error}");
    let error = bus.inject_dimm(0, Dpa(DIMM), 64, mark).unwrap_err().to_string();
    assert!(
        error.contains("DPA 0x10000") && error.contains("below its 0x10000"),
        "{error}"
    );
    assert_eq!(bus.clear_errors_dimm(7, Dpa(0), 64), Err(ErrorsError::NoDimm(7)));
    assert!(bus.inject_dimm(0, Dpa(u64::MAX), 64, mark).is_err());
    assert!(bus.inject_dimm(0, Dpa(0), 0, mark).is_err());
    assert!(bus.clear_errors(spas(0, 0)).is_err());
    assert!(bus.errors().is_empty() && !bus.events.take_new());
}

#[test]
fn full_dimm_of_a_set_leaves_the_others_as_they_were() {
    let mut bus = bus(2, 4096);
    // No room in the second DIMM.
    bus.dimms[1].plan.capacity = 1 << 40;
    for n in 0..MAX_RANGES as u64 {
        bus.inject_dimm(1, Dpa(DIMM + n * 128), 64, Mark::latent(ErrorSource::Host))
            .unwrap();
    }
    let full = Err(ErrorsError::Full(MediaFull));
    assert_eq!(bus.inject(spas(0, 8192), Mark::known(ErrorSource::Host)), full);
    assert_eq!(bus.guest_injects(spas(0, 8192)), full);
    assert!(bus.dimms[0].media.is_empty() && bus.injected().records().count() == 0);
    assert!(!bus.events.take_new());
    assert_eq!(bus.inject(spas(0, 4096), Mark::known(ErrorSource::Host)), Ok(()));
}

#[test]
fn injections_are_bounded() {
    let mut injected = Injected::default();
    for n in 0..MAX_RANGES as u64 {
        injected.add(spas(n * 32, 16)).unwrap();
    }
    assert_eq!(injected.add(spas(8, 8)), Err(MediaFull));
    injected.add(spas(32, 4)).unwrap();
    let before = injected.clone();
    assert_eq!(injected.cut(spas(36, 4)), Err(MediaFull), "one would become two");
    assert_eq!(injected, before);
    injected.cut(spas(8, 30)).unwrap();
    assert_eq!(
        injected.records().take(3).collect::<Vec<_>>(),
        [spas(0, 8), spas(38, 10), spas(64, 16)]
    );
}

#[test]
fn longest_of_the_injections_that_a_cut_leaves_stays() {
    let mut injected = Injected::default();
    for (start, len) in [(0, 64), (8, 80), (16, 16), (40, 8)] {
        injected.add(spas(start, len)).unwrap();
    }
    injected.cut(spas(32, 8)).unwrap();
    let left = [spas(0, 32), spas(8, 24), spas(16, 16), spas(40, 48)];
    assert_eq!(injected.records().collect::<Vec<_>>(), left);
}

#[test]
fn host_that_clears_a_dimm_takes_the_injections_with_it() {
    let mut bus = bus(2, 256);
    bus.guest_injects(spas(0, 512)).unwrap();
    bus.guest_injects(spas(1024, 64)).unwrap();
    bus.clear_errors_dimm(0, Dpa(0), DIMM).unwrap();
    // The first one's other half is on the other DIMM.
    assert_eq!(bus.injected().records().collect::<Vec<_>>(), [spas(0, 512)]);
    bus.clear_errors_dimm(1, Dpa(0), DIMM).unwrap();
    assert_eq!(bus.injected().records().count(), 0);
}

proptest! {
    #[test]
    fn runs_are_the_bad_bytes_of_all_dimms(
        ways in prop::sample::select(vec![1u8, 2, 4]),
        line in prop::sample::select(vec![64u32, 256, 4096]),
        marks in prop::collection::vec((0u8..4, 0..SPACE / 64, 1u64..200, any::<bool>()), 0..12),
        from in 0..SPACE, len in 1..SPACE,
    ) {
        let mut bus = bus(ways, line);
        for (slot, first, count, known) in marks {
            let mark = if known { Mark::known(ErrorSource::Host) } else { Mark::latent(ErrorSource::Guest) };
            let len = (count * 64).min(DIMM - first * 64);
            bus.inject_dimm(slot % ways, Dpa(first * 64), len, mark).unwrap();
        }
        let spa = &bus.nfit.spas[0];
        let within = spas(from, len.min(spa.range.len - from));
        for state in [ErrorState::Latent, ErrorState::Known] {
            let all = runs(&bus.dimms, spa, within, state, usize::MAX);
            prop_assert_eq!(all.next, None);
            prop_assert!(all.found.windows(2).all(|pair| pair[0].end < pair[1].start));
            for at in within.start.0..within.end().0 {
                let place = spa.to_dpa(Gpa(at)).unwrap();
                let mut there = bus.dimms[usize::from(place.slot)].media.ranges();
                let bad = there.any(|r| (r.dpa.0..r.dpa.0 + r.len).contains(&place.dpa.0) && r.state >= state);
                let run = all.found.iter().find(|run| run.start <= at && at < run.end);
                prop_assert_eq!(run.is_some(), bad, "{:#x}", at);
                if let Some(run) = run.filter(|run| run.start == at) {
                    prop_assert_eq!(run.slot, place.slot);
                }
            }
            // Fewer are the first of them.
            let some = runs(&bus.dimms, spa, within, state, 2);
            let (first, rest) = all.found.split_at(all.found.len().min(2));
            prop_assert_eq!((some.found.as_slice(), some.next), (first, rest.first().map(|run| run.start)));
        }
    }
}
