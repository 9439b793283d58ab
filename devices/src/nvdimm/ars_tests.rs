use super::*;
use crate::{
    Clock,
    nvdimm::{
        Dimm, NfitPlan, NvdimmPlan,
        dsm::{Answer, DsmCall, root},
        guid::ROOT_DSM,
        mailbox::ROOT_HANDLE,
        media::{ErrorSource, Mark},
        plan::{InterleavePlan, MappingPlan},
    },
    units::Dpa,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
/// A DIMM of its own.
const PLAIN: u64 = 0x1_4000_0000;
/// Two DIMMs in lines of 4 KiB.
const SET: u64 = 0x1_8000_0000;
const VOLATILE: u64 = 0x1_c000_0000;
const CD: u64 = 0x2_0000_0000;

fn mapping(slot: u8, way: u64, len: u64) -> MappingPlan {
    MappingPlan {
        slot,
        region_id: 0,
        len,
        offset: way * 4096,
        dpa: 0,
    }
}

fn spa(index: u16, kind: SpaKind, start: u64, len: u64, mappings: Vec<MappingPlan>) -> SpaPlan {
    SpaPlan {
        index,
        kind,
        range: GpaRange::new(Gpa(start), len),
        proximity: 0,
        interleave: (mappings.len() > 1).then_some(InterleavePlan { index: 1, line: 4096 }),
        mappings,
    }
}

/// A range of each sort; DIMMs with the handles 1 to 4.
fn bus() -> BusState {
    let clock = Clock::manual();
    let plans = (0..4).map(|slot| NvdimmPlan::plain(slot, format!("nvdimm{slot}"), MIB, 0, false));
    let plans: Vec<_> = plans.collect();
    let dimms = plans
        .iter()
        .map(|plan| Dimm::new(plan.clone(), Box::new(vec![]), &clock));
    let dimms = dimms.collect();
    let nfit = NfitPlan {
        dimms: plans,
        spas: vec![
            spa(1, SpaKind::Persistent, PLAIN, MIB, vec![mapping(0, 0, MIB)]),
            spa(
                2,
                SpaKind::Persistent,
                SET,
                2 * MIB,
                vec![mapping(1, 0, MIB), mapping(2, 1, MIB)],
            ),
            spa(3, SpaKind::Volatile, VOLATILE, MIB, vec![mapping(3, 0, MIB)]),
            spa(0, SpaKind::VolatileCd, CD, MIB, vec![]),
        ],
        ..NfitPlan::default()
    };
    BusState {
        root: RootPlan {
            scan_time: Duration::from_millis(1500),
            records: 3,
            ..RootPlan::default()
        },
        ..BusState::new(nfit, dimms, clock)
    }
}

fn ask(bus: &mut BusState, function: u32, input: &[u8]) -> Answer {
    let call = DsmCall {
        handle: ROOT_HANDLE,
        guid: ROOT_DSM,
        revision: 1,
        function,
        input,
    };
    root::answer(bus, &call)
}

/// The reply's bytes in hexadecimal, a group for each 32-bit word.
fn hex(bus: &mut BusState, function: u32, input: &[u8]) -> String {
    let words: Vec<String> = ask(bus, function, input)
        .bytes
        .chunks(4)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    words.join(" ")
}

fn at(base: u64, len: u64) -> Vec<u8> {
    [base, len].map(u64::to_le_bytes).concat()
}

fn scrub(base: u64, len: u64, kind: u16, flags: u8) -> Vec<u8> {
    let mut input = at(base, len);
    input.extend(kind.to_le_bytes());
    input.extend([flags, 0, 0, 0, 0, 0]);
    input
}

fn injection(base: u64, len: u64, options: u8) -> Vec<u8> {
    [at(base, len), vec![options]].concat()
}

const NOTHING: &str = "00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000";

/// Start, length, restart, restart length, records of a finished scrub.
type Scrubbed = (u64, u64, u64, u64, Vec<(u32, u64, u64)>);

fn scrubbed(bus: &mut BusState) -> (u32, Scrubbed) {
    let reply = ask(bus, 3, &[]).bytes;
    let u32_at = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(reply[at..at + 8].try_into().unwrap());
    let count = u32_at(44) as usize;
    assert_eq!(reply.len(), 48 + 24 * count);
    assert_eq!(u32_at(4) as usize, reply.len() - 4);
    let records = (0..count)
        .map(|n| 48 + 24 * n)
        .map(|n| (u32_at(n), u64_at(n + 8), u64_at(n + 16)));
    (
        u32_at(0),
        (u64_at(8), u64_at(16), u64_at(24), u64_at(32), records.collect()),
    )
}

fn short(bus: &mut BusState, base: u64, len: u64) -> (u32, Scrubbed) {
    assert_eq!(hex(bus, 2, &scrub(base, len, 2, 2)), "00000000 00000000");
    scrubbed(bus)
}

#[test]
fn every_part_of_a_range_has_capabilities_and_nothing_else_has() {
    let mut bus = bus();
    for (base, len) in [
        (PLAIN, MIB),
        (PLAIN + 0x200, 0x100),
        (PLAIN + MIB - 1, 1),
        (SET + 4096, 8192),
    ] {
        // Persistent; 48 + 3 x 24 bytes; 256.
        assert_eq!(hex(&mut bus, 1, &at(base, len)), "00000200 78000000 00010000 01000000");
    }
    assert_eq!(
        hex(&mut bus, 1, &at(VOLATILE, MIB)),
        "00000100 78000000 00010000 01000000"
    );
    for (base, len) in [
        (PLAIN - 1, 2),
        (PLAIN, MIB + 1),
        (CD, MIB),
        (0, 1 << 62),
        (u64::MAX - 1, 1),
    ] {
        assert_eq!(hex(&mut bus, 1, &at(base, len)), "01000000 00000000 00000000 00000000");
    }
    for input in [at(PLAIN, 0), at(PLAIN, u64::MAX), at(PLAIN, 1)[..15].to_vec()] {
        assert_eq!(hex(&mut bus, 1, &input), "02000000 00000000 00000000 00000000");
    }
}

#[test]
fn short_scrub_is_done_at_once_and_full_one_takes_its_time() {
    let mut bus = bus();
    let head = "2c000000";
    assert_eq!(
        hex(&mut bus, 3, &[]),
        format!("00000200 {head} {NOTHING}"),
        "none since power-on"
    );
    assert_eq!(hex(&mut bus, 2, &scrub(PLAIN, MIB, 2, 2)), "00000000 00000000");
    let done =
        "00000000 2c000000 00000040 01000000 00001000 00000000 00000000 00000000 00000000 00000000 02000000 00000000";
    assert_eq!(hex(&mut bus, 3, &[]), done);

    assert_eq!(
        hex(&mut bus, 2, &scrub(PLAIN, MIB, 2, 0)),
        "00000000 02000000",
        "two seconds at most"
    );
    for _ in 0..2 {
        assert_eq!(hex(&mut bus, 3, &[]), format!("00000100 {head} {NOTHING}"));
        // One at a time for the bus, the short ones too.
        for other in [
            scrub(PLAIN, MIB, 2, 0),
            scrub(SET, MIB, 2, 2),
            scrub(VOLATILE, MIB, 1, 0),
        ] {
            assert_eq!(hex(&mut bus, 2, &other), "06000000 00000000");
        }
        bus.clock.advance(Duration::from_millis(749));
    }
    bus.clock.advance(Duration::from_millis(2));
    assert_eq!(hex(&mut bus, 3, &[]), done);
    assert_eq!(hex(&mut bus, 3, &[1, 2, 3]), done, "as often as the guest asks");
}

#[test]
fn next_scrub_can_start_when_nobody_asked_for_the_result() {
    let mut bus = bus();
    assert_eq!(hex(&mut bus, 2, &scrub(PLAIN, MIB, 2, 0)), "00000000 02000000");
    bus.clock.advance(Duration::from_millis(1500));
    assert_eq!(hex(&mut bus, 2, &scrub(VOLATILE, MIB, 1, 2)), "00000000 00000000");
    assert_eq!(hex(&mut bus, 3, &[])[81..89], *"00000000");
}

#[test]
fn scrub_of_what_cannot_be_scrubbed_is_refused() {
    let mut bus = bus();
    for input in [
        scrub(PLAIN, MIB, 1, 0),
        scrub(VOLATILE, MIB, 2, 0),
        scrub(PLAIN, MIB, 0, 0),
        scrub(PLAIN, MIB, 3, 2),
        scrub(PLAIN, 0, 2, 0),
        scrub(PLAIN, MIB + 1, 2, 0),
        scrub(PLAIN, u64::MAX, 2, 2),
        scrub(CD, MIB, 1, 0),
        scrub(0, 1 << 40, 2, 0),
        scrub(PLAIN, MIB, 2, 0)[..18].to_vec(),
        vec![],
    ] {
        assert_eq!(hex(&mut bus, 2, &input), "02000000 00000000", "{input:?}");
    }
    assert_eq!(hex(&mut bus, 3, &[])[..8], *"00000200");
}

#[test]
fn full_scrub_finds_latent_errors_and_short_one_only_repeats() {
    let mut bus = bus();
    let latent = Mark::latent(ErrorSource::Host);
    bus.inject(GpaRange::new(Gpa(PLAIN + 0x1000), 64), latent).unwrap();
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4, []);
    ask(&mut bus, 2, &scrub(PLAIN, MIB, 2, 0));
    bus.clock.advance(Duration::from_secs(2));
    let found = [(1, PLAIN + 0x1000, 64)];
    assert_eq!(scrubbed(&mut bus), (0, (PLAIN, MIB, 0, 0, found.to_vec())));
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4, found);
    // A part of the range, and of the error.
    assert_eq!(short(&mut bus, PLAIN + 0x1020, 0x10).1.4, [(1, PLAIN + 0x1020, 0x10)]);
    assert_eq!(short(&mut bus, SET, 2 * MIB).1.4, []);
}

#[test]
fn records_of_a_set_name_the_dimm_and_join_what_is_contiguous() {
    let mut bus = bus();
    let known = Mark::known(ErrorSource::Host);
    // The end of DIMM 1's first line, all of DIMM 2's, the start of DIMM 1's second.
    bus.inject(GpaRange::new(Gpa(SET + 4096 - 64), 4096 + 128), known)
        .unwrap();
    bus.inject_dimm(2, Dpa(8192), 128, known).unwrap();
    let records = [(2, SET + 4096 - 64, 4096 + 128), (3, SET + 5 * 4096, 128)];
    assert_eq!(
        short(&mut bus, SET, 2 * MIB),
        (0, (SET, 2 * MIB, 0, 0, records.to_vec()))
    );
    let parts: Vec<_> = bus
        .errors()
        .iter()
        .map(|e| (e.slot, e.range.dpa.0, e.range.len))
        .collect();
    assert_eq!(parts, [(1, 4096 - 64, 128), (2, 0, 4096), (2, 8192, 128)]);
}

#[test]
fn scrub_with_more_errors_than_fit_stops_and_goes_on_where_it_stopped() {
    let mut bus = bus();
    for n in 0..5 {
        let range = GpaRange::new(Gpa(PLAIN + n * 0x1000), 64);
        bus.inject(range, Mark::latent(ErrorSource::Host)).unwrap();
    }
    let record = |n: u64| (1, PLAIN + n * 0x1000, 64);
    ask(&mut bus, 2, &scrub(PLAIN, MIB, 2, 0));
    bus.clock.advance(Duration::from_secs(2));
    let first = (
        PLAIN,
        0x3000,
        PLAIN + 0x3000,
        MIB - 0x3000,
        vec![record(0), record(1), record(2)],
    );
    assert_eq!(scrubbed(&mut bus), (0x3_0000, first.clone()));
    assert_eq!(ask(&mut bus, 3, &[]).bytes[42..44], [1, 0], "overflow");
    // What lies behind is not found yet.
    assert_eq!(short(&mut bus, PLAIN, MIB), (0, (PLAIN, MIB, 0, 0, first.4.clone())));

    ask(&mut bus, 2, &scrub(first.2, first.3, 2, 0));
    bus.clock.advance(Duration::from_secs(2));
    let rest = (PLAIN + 0x3000, MIB - 0x3000, 0, 0, vec![record(3), record(4)]);
    assert_eq!(scrubbed(&mut bus), (0, rest));
    // Now a short one overflows as well.
    assert_eq!(short(&mut bus, PLAIN, MIB), (0x3_0000, first));
}

#[test]
fn cleared_error_is_gone_from_a_result_that_is_there_already() {
    let mut bus = bus();
    ask(&mut bus, 7, &injection(PLAIN, 256, 0));
    ask(&mut bus, 7, &injection(PLAIN + 0x1000, 256, 0));
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4.len(), 2);
    assert_eq!(hex(&mut bus, 4, &at(PLAIN, 256)), "00000000 00000000 00010000 00000000");
    assert_eq!(scrubbed(&mut bus).1.4, [(1, PLAIN + 0x1000, 256)]);
}

#[test]
fn clearing_makes_good_and_forgets_the_injection() {
    let mut bus = bus();
    bus.inject(GpaRange::new(Gpa(SET), 0x3000), Mark::known(ErrorSource::Host))
        .unwrap();
    ask(&mut bus, 7, &injection(SET + 0x1000, 0x300, 0));
    assert_eq!(
        hex(&mut bus, 4, &at(SET + 0x1000, 0x100)),
        "00000000 00000000 00010000 00000000"
    );
    let left = [(2, SET, 0x1000), (3, SET + 0x1100, 0x1f00)];
    assert_eq!(short(&mut bus, SET, MIB).1.4, left);
    let rest = "00000000 01000000 00110080 01000000 00020000 00000000";
    assert_eq!(hex(&mut bus, 9, &[]), rest);
    // Up to the range's end and no further.
    assert_eq!(
        hex(&mut bus, 4, &at(SET + 0x1000, 4 * MIB)),
        "00000000 00000000 00f01f00 00000000"
    );
    assert_eq!(short(&mut bus, SET, MIB).1.4, [(2, SET, 0x1000)]);
    assert_eq!(hex(&mut bus, 9, &[]), "00000000 00000000");
    // Nothing was there: cleared all the same.
    assert_eq!(
        hex(&mut bus, 4, &at(VOLATILE, 0x100)),
        "00000000 00000000 00010000 00000000"
    );
}

#[test]
fn clearing_of_odd_places_is_refused() {
    let mut bus = bus();
    for (base, len) in [
        (PLAIN + 64, 256),
        (PLAIN, 128),
        (PLAIN, 0),
        (0, 256),
        (PLAIN - 256, 512),
        (PLAIN, 1 << 63),
    ] {
        let expected = if len == 1 << 63 {
            "00000000 00000000 00001000 00000000"
        } else {
            "02000000 00000000 00000000 00000000"
        };
        assert_eq!(hex(&mut bus, 4, &at(base, len)), expected, "{base:#x} {len:#x}");
    }
    assert_eq!(hex(&mut bus, 4, &at(CD, 256)), "01000000 00000000 00000000 00000000");
    assert_eq!(hex(&mut bus, 4, &[0; 8]), "02000000 00000000 00000000 00000000");
}

#[test]
fn translation_follows_the_interleave() {
    let mut bus = bus();
    let spa = |spa: u64| spa.to_le_bytes().to_vec();
    assert_eq!(
        hex(&mut bus, 5, &spa(PLAIN + 0x123)),
        "00000000 00000000 ddfe0f00 00000000 01000000 01000000 00000000 23010000 00000000"
    );
    // The second line is DIMM 3's first; the third DIMM 2's second.
    assert_eq!(
        hex(&mut bus, 5, &spa(SET + 0x1010)),
        "00000000 00000000 f00f0000 00000000 01000000 03000000 00000000 10000000 00000000"
    );
    assert_eq!(
        hex(&mut bus, 5, &spa(SET + 0x2000)),
        "00000000 00000000 00100000 00000000 01000000 02000000 00000000 00100000 00000000"
    );
    let invalid = format!("02000000 {}", NOTHING[..71].trim_end());
    for input in [spa(0), spa(CD), spa(PLAIN + MIB), spa(u64::MAX), vec![0; 7]] {
        assert_eq!(hex(&mut bus, 5, &input), invalid, "{input:?}");
    }
}

#[test]
fn injected_errors_are_known_listed_and_taken_back() {
    let mut bus = bus();
    assert_eq!(hex(&mut bus, 9, &[]), "00000000 00000000");
    let quiet = ask(&mut bus, 7, &injection(PLAIN + 0x5200, 0x100, 0));
    assert_eq!((quiet.bytes, quiet.tell), (vec![0; 4], Tell::Nothing));
    // A longer buffer, and with the wish to be told.
    let mut longer = injection(SET + 0x1fc1, 0x7e, 0xff);
    longer.extend([0xaa; 40]);
    let told = ask(&mut bus, 7, &longer);
    assert_eq!((told.bytes, told.tell), (vec![0; 4], Tell::Event));
    let listed = "00000000 02000000 00520040 01000000 00010000 00000000 c11f0080 01000000 7e000000 00000000";
    assert_eq!(hex(&mut bus, 9, &[]), listed, "as it was said");
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4, [(1, PLAIN + 0x5200, 0x100)]);
    assert_eq!(
        short(&mut bus, SET, MIB).1.4,
        [(3, SET + 0x1fc0, 0x80)],
        "whole lines are bad"
    );

    assert_eq!(hex(&mut bus, 8, &at(PLAIN + 0x5200, 0x100)), "00000000");
    assert_eq!(hex(&mut bus, 8, &at(SET + 0x1000, 0x2000)), "00000000");
    assert_eq!(hex(&mut bus, 9, &[]), "00000000 00000000");
    assert!(bus.errors().is_empty());
}

#[test]
fn line_stays_bad_while_another_injection_has_a_part_of_it() {
    let mut bus = bus();
    for (base, len) in [(PLAIN + 10, 10), (PLAIN + 30, 100), (PLAIN + 140, 1)] {
        ask(&mut bus, 7, &injection(base, len, 0));
    }
    assert_eq!(hex(&mut bus, 8, &at(PLAIN + 30, 100)), "00000000");
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4, [(1, PLAIN, 64), (1, PLAIN + 128, 64)]);
    assert_eq!(bus.injected().records().count(), 2);
}

#[test]
fn what_the_guest_takes_back_leaves_other_errors_alone() {
    let mut bus = bus();
    bus.inject(GpaRange::new(Gpa(PLAIN), 64), Mark::latent(ErrorSource::Host))
        .unwrap();
    ask(&mut bus, 7, &injection(PLAIN, 256, 0));
    assert_eq!(hex(&mut bus, 8, &at(PLAIN, 256)), "00000000");
    assert_eq!(bus.errors().len(), 1);
    assert_eq!(short(&mut bus, PLAIN, MIB).1.4, [(1, PLAIN, 64)]);
}

#[test]
fn senseless_injections_are_refused() {
    let mut bus = bus();
    for function in [7, 8] {
        for (base, len) in [
            (PLAIN, 0),
            (PLAIN, MIB + 1),
            (PLAIN - 1, 2),
            (CD, 256),
            (0, 1),
            (1, u64::MAX),
            (u64::MAX - 1, 1),
        ] {
            assert_eq!(
                hex(&mut bus, function, &injection(base, len, 1)),
                "02000000",
                "{base:#x} {len:#x}"
            );
        }
        assert_eq!(hex(&mut bus, function, &[0; 15]), "02000000");
    }
    assert_eq!(hex(&mut bus, 7, &at(PLAIN, 1)), "02000000", "no options");
    assert!(bus.errors().is_empty() && bus.injected().records().count() == 0);
}

#[test]
fn list_of_injections_fits_where_a_scrubs_result_does() {
    let mut bus = bus();
    for n in 0..20 {
        ask(&mut bus, 7, &injection(PLAIN + n * 512, 256, 0));
    }
    let reply = ask(&mut bus, 9, &[]).bytes;
    let largest = bus.root.max_output() as usize;
    assert_eq!((reply.len(), largest), (8 + 7 * 16, 120));
    assert_eq!(reply[4..8], [7, 0, 0, 0]);
}

#[test]
fn bus_has_only_the_functions_it_is_allowed() {
    let mut bus = bus();
    bus.root.functions = 0x1e;
    assert_eq!(hex(&mut bus, 0, &[]), "1f000000");
    for function in [5, 7, 8, 9] {
        assert_eq!(hex(&mut bus, function, &injection(PLAIN, 256, 0)), "01000000");
    }
    assert_eq!(hex(&mut bus, 4, &at(PLAIN, 256)), "00000000 00000000 00010000 00000000");
}

/// Inputs of any bytes, and those with sensible beginnings.
fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let base = prop::sample::select(vec![PLAIN, SET, VOLATILE, CD, 0, u64::MAX - MIB]);
    let offset = prop_oneof![0..2 * MIB, (0..16 * MIB / 256).prop_map(|n| n * 256)];
    let len = prop_oneof![Just(256u64), 0..4 * MIB, any::<u64>()];
    let rest = prop::collection::vec(any::<u8>(), 0..12);
    let likely = (base, offset, len, 0u8..4, 0u8..4, rest).prop_map(|(base, offset, len, kind, flags, rest)| {
        let mut input = scrub(base.wrapping_add(offset), len, kind.into(), flags);
        input.truncate(19);
        input.extend(rest);
        input
    });
    prop_oneof![4 => likely, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #[test]
    fn any_calls_are_answered_in_bounds(calls in prop::collection::vec((0u32..34, inputs(), 0u64..2000), 1..60)) {
        let mut bus = bus();
        for (function, input, passed) in calls {
            bus.clock.advance(Duration::from_millis(passed));
            let reply = ask(&mut bus, function, &input).bytes;
            prop_assert!(reply.len() >= 4);
            prop_assert!(reply.len() <= bus.root.max_output() as usize);
        }
        // Everything can be made good again.
        for spa in bus.nfit.spas.clone() {
            ask(&mut bus, 4, &at(spa.range.start.0, spa.range.len));
        }
        prop_assert!(bus.errors().is_empty());
        prop_assert_eq!(bus.injected().records().count(), 0);
    }
}
