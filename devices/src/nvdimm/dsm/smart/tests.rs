use crate::{
    Clock,
    nvdimm::{
        Dimm, NvdimmPlan,
        dsm::{Answer, DsmCall, Tell, dimm},
        guid::INTEL_DIMM_DSM,
        plan::StateFlags,
    },
};
use proptest::prelude::*;

fn new_dimm() -> Dimm {
    let plan = NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 256, false);
    Dimm::new(plan, Box::new(vec![0u8; 256]), &Clock::manual())
}

fn call(dimm: &mut Dimm, function: u32, input: &[u8]) -> Answer {
    let revision = if function > 10 { 2 } else { 1 };
    let call = DsmCall {
        handle: 1,
        guid: INTEL_DIMM_DSM,
        revision,
        function,
        input,
    };
    dimm::answer(dimm, &call)
}

fn bytes(dimm: &mut Dimm, function: u32, input: &[u8]) -> Vec<u8> {
    call(dimm, function, input).bytes
}

/// Status, and whether the guest was notified.
fn done(dimm: &mut Dimm, function: u32, input: &[u8]) -> (Vec<u8>, bool) {
    let Answer { bytes, tell } = call(dimm, function, input);
    (bytes, tell == Tell::Event)
}

/// Function 1 as it is before anything happens, at the offsets of the interface.
fn smart_at_rest() -> Vec<u8> {
    let mut smart = vec![0; 132];
    for (at, value) in [
        (4, 0x3f),
        (5, 0x06),
        (12, 1),
        (13, 75),
        (14, 5),
        (15, 3),
        // 23 and 25 degrees in sixteenths.
        (16, 0x70),
        (17, 0x01),
        (18, 0x90),
        (19, 0x01),
        (20, 42),
        (24, 1),
        // 40 degrees.
        (25, 0x80),
        (26, 0x02),
    ] {
        smart[at] = value;
    }
    smart
}

const OK: [u8; 4] = [0; 4];
const INVALID: [u8; 4] = [3, 0, 0, 0];

#[test]
fn smart_is_what_nfit_test_shows() {
    assert_eq!(bytes(&mut new_dimm(), 1, &[]), smart_at_rest());
}

#[test]
fn thresholds_are_what_nfit_test_shows_and_keep_what_is_set() {
    let mut dimm = new_dimm();
    assert_eq!(
        bytes(&mut dimm, 2, &[]),
        [0, 0, 0, 0, 3, 0, 5, 0x80, 0x02, 0xe0, 0x01, 0]
    );
    let set = [4, 0, 10, 0x21, 0x43, 0x65, 0x07];
    assert_eq!(done(&mut dimm, 17, &set), (OK.to_vec(), false));
    assert_eq!(bytes(&mut dimm, 2, &[]), [&OK[..], &set, &[0]].concat());
    assert_eq!(bytes(&mut dimm, 17, &set[..6]), INVALID);
}

#[test]
fn flags_are_those_of_the_mappings() {
    let mut dimm = new_dimm();
    assert_eq!(bytes(&mut dimm, 3, &[]), [0; 8]);
    dimm.plan.state = StateFlags::NOT_ARMED | StateFlags::SAVE_FAILED;
    assert_eq!(bytes(&mut dimm, 3, &[]), [0, 0, 0, 0, 9, 0, 0, 0]);
}

#[test]
fn latch_takes_zero_and_one() {
    let mut dimm = new_dimm();
    for (input, status, latched) in [
        (&[1][..], OK, true),
        (&[2], INVALID, true),
        (&[], INVALID, true),
        (&[0], OK, false),
    ] {
        assert_eq!(bytes(&mut dimm, 10, input), status);
        assert_eq!(dimm.health.state().latched, latched, "{input:?}");
    }
}

/// Input of function 18 for the fields in `fields`, with everything switched on or off.
fn injection(fields: u8, on: u8) -> [u8; 15] {
    // 100 degrees, 3 percent.
    [fields, 0, 0, 0, 0, 0, 0, 0, on, 0x40, 0x06, on, 3, on, on]
}

#[test]
fn each_injection_shows_in_smart_and_goes_away_again() {
    for (field, changes) in [
        (1, &[(16, 0x40), (17, 0x06)][..]),
        (2, &[(13, 3)]),
        (4, &[(12, 4)]),
        (8, &[(35, 1), (20, 43)]),
    ] {
        let mut dimm = new_dimm();
        let mut expected = smart_at_rest();
        for (at, value) in changes {
            expected[*at] = *value;
        }
        assert_eq!(done(&mut dimm, 18, &injection(field, 1)), (OK.to_vec(), true));
        assert_eq!(bytes(&mut dimm, 1, &[]), expected, "field {field}");
        assert_eq!(done(&mut dimm, 18, &injection(field, 0)), (OK.to_vec(), false));
        let mut after = smart_at_rest();
        after[20] = expected[20];
        assert_eq!(bytes(&mut dimm, 1, &[]), after, "field {field}");
    }
}

#[test]
fn injection_of_nothing_says_nothing() {
    let mut dimm = new_dimm();
    assert_eq!(done(&mut dimm, 18, &injection(0, 1)), (OK.to_vec(), false));
    assert_eq!(bytes(&mut dimm, 1, &[]), smart_at_rest());
    assert_eq!(bytes(&mut dimm, 18, &injection(1, 1)[..14]), INVALID);
}

#[test]
fn lower_thresholds_alarm_at_once() {
    let mut dimm = new_dimm();
    // Spares at or below 99 %.
    assert!(done(&mut dimm, 17, &[1, 0, 99, 0, 0, 0, 0]).1);
    // Media at or above 11.5 degrees.
    assert!(done(&mut dimm, 17, &[2, 0, 5, 0xb8, 0, 0, 0]).1);
    // Controller at or above 25 degrees.
    assert!(done(&mut dimm, 17, &[4, 0, 5, 0, 0, 0x90, 0x01]).1);
    // The same, and nobody asked.
    assert!(!done(&mut dimm, 17, &[0, 0, 99, 0, 0, 0x90, 0x01]).1);
}

#[test]
fn masked_functions_are_not_there() {
    let mut dimm = new_dimm();
    dimm.plan.functions = !(1 << 1 | 1 << 18);
    assert_eq!(bytes(&mut dimm, 1, &[]), [1, 0, 0, 0]);
    assert_eq!(bytes(&mut dimm, 18, &injection(1, 1)), [1, 0, 0, 0]);
    assert_eq!(bytes(&mut dimm, 2, &[]).len(), 12);
}

proptest! {
    #[test]
    fn any_input_is_answered_and_smart_keeps_its_shape(
        function in prop::sample::select(vec![1u32, 2, 3, 10, 17, 18]),
        input in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut dimm = new_dimm();
        let answer = call(&mut dimm, function, &input);
        let status = u32::from_le_bytes(answer.bytes[..4].try_into().unwrap());
        prop_assert!(status == 0 || status == 3);
        // The guest is told exactly of what alarms.
        let changes = function >= 17 && status == 0;
        prop_assert_eq!(answer.tell == Tell::Event, changes && dimm.health.is_alarming());
        let smart = bytes(&mut dimm, 1, &[]);
        prop_assert_eq!(smart.len(), 132);
        prop_assert_eq!(&smart[..12], &smart_at_rest()[..12]);
        prop_assert_eq!(&smart[36..], &[0; 96]);
    }
}
