use crate::{
    Clock,
    nvdimm::{
        Dimm, NvdimmPlan,
        dsm::{Answer, DsmCall, Tell, dimm},
        guid::{HPE1_DIMM_DSM, INTEL_DIMM_DSM},
        health::Injection,
        plan::DimmFamily,
    },
};

fn new_dimm() -> Dimm {
    let plan = NvdimmPlan {
        family: DimmFamily::Hpe1,
        ..NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 256, false)
    };
    Dimm::new(plan, Box::new(vec![0u8; 256]), &Clock::manual())
}

fn call(dimm: &mut Dimm, function: u32, input: &[u8]) -> Answer {
    let call = DsmCall {
        handle: 1,
        guid: HPE1_DIMM_DSM,
        revision: 1,
        function,
        input,
    };
    dimm::answer(dimm, &call)
}

fn bytes(dimm: &mut Dimm, function: u32, input: &[u8]) -> Vec<u8> {
    call(dimm, function, input).bytes
}

const OK: [u8; 4] = [0; 4];
const INVALID: [u8; 4] = [3, 0, 0, 0];
/// What ndctl asks for.
const ALL: [u8; 4] = [0x3f, 0x02, 0, 0];

/// Function 1 for `valid` with health and shutdown state, at the offsets of ndctl's structure.
fn smart(valid: u8, health: u8, shutdown: u8) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    for (at, value) in [
        (4, valid),
        (8, health),
        (9, 0x70),
        (10, 0x01),
        (11, 75),
        (12, 3),
        (14, 5),
        (15, shutdown),
    ] {
        bytes[at] = value;
    }
    bytes
}

#[test]
fn the_family_has_the_functions_linux_knows_and_no_other() {
    let mut dimm = new_dimm();
    assert_eq!(bytes(&mut dimm, 0, &[]), 0x1c_3c77_u32.to_le_bytes());
    let intel = DsmCall {
        handle: 1,
        guid: INTEL_DIMM_DSM,
        revision: 1,
        function: 0,
        input: &[],
    };
    assert_eq!(dimm::answer(&mut dimm, &intel).bytes, [0; 4]);
}

#[test]
fn smart_has_what_was_asked_for() {
    let mut dimm = new_dimm();
    assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 1, 2));
    assert_eq!(bytes(&mut dimm, 1, &[3, 0, 0, 0]), smart(3, 1, 2));
    assert_eq!(bytes(&mut dimm, 1, &[]), INVALID);
    dimm.health.inject(Injection::UnsafeShutdown(true));
    assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 1, 0));
}

#[test]
fn thresholds_have_the_life_that_was_set() {
    let mut dimm = new_dimm();
    let expected = |life| {
        let mut bytes = vec![0; 36];
        bytes[4..9].copy_from_slice(&[3, 0, 0x80, 0x02, 5]);
        bytes[12] = life;
        bytes
    };
    assert_eq!(bytes(&mut dimm, 2, &[]), expected(0));
    assert_eq!(bytes(&mut dimm, 13, &[20]), OK);
    assert_eq!(bytes(&mut dimm, 2, &[]), expected(20));
    assert_eq!(bytes(&mut dimm, 13, &[101]), INVALID);
    assert_eq!(bytes(&mut dimm, 13, &[]), INVALID);
}

#[test]
fn identities_have_the_lengths_of_their_structures() {
    let mut dimm = new_dimm();
    let identity = bytes(&mut dimm, 10, &[]);
    assert_eq!((identity.len(), &identity[46..48]), (49, &[1, 0][..]));
    let source = [0, 0, 0, 0, 0, 1, 2, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0x50, 0x05];
    assert_eq!(bytes(&mut dimm, 11, &[]), source);
    assert_eq!(bytes(&mut dimm, 12, &[]), [0, 0, 0, 0, 1, 1, 1, 1]);
    dimm.health.inject(Injection::UnsafeShutdown(true));
    assert_eq!(bytes(&mut dimm, 12, &[]), [0, 0, 0, 0, 1, 0, 1, 4]);
}

#[test]
fn injected_errors_show_once_or_until_they_are_cleared() {
    let mut dimm = new_dimm();
    let mut capabilities = vec![0; 36];
    capabilities[4] = 0b1110;
    assert_eq!(bytes(&mut dimm, 18, &[]), capabilities);
    assert_eq!(bytes(&mut dimm, 20, &[]), [0; 7]);

    assert_eq!(call(&mut dimm, 19, &[3, 0]).tell, Tell::Event);
    assert_eq!(bytes(&mut dimm, 20, &[]), [0, 0, 0, 0, 2, 3, 0]);
    assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 4, 2));
    assert_eq!(bytes(&mut dimm, 20, &[]), [0, 0, 0, 0, 1, 3, 0]);
    assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 1, 2));

    assert_eq!(bytes(&mut dimm, 19, &[2, 1]), OK);
    for _ in 0..2 {
        assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 2, 2));
    }
    assert_eq!(bytes(&mut dimm, 20, &[]), [0, 0, 0, 0, 1, 2, 1]);
    assert_eq!(call(&mut dimm, 19, &[2, 2]).tell, Tell::Nothing);
    assert_eq!(bytes(&mut dimm, 1, &ALL), smart(0x3f, 1, 2));
    assert_eq!(bytes(&mut dimm, 20, &[]), [0; 7]);

    for input in [&[0, 0][..], &[4, 0], &[18, 1], &[1, 3], &[1], &[]] {
        assert_eq!(bytes(&mut dimm, 19, input), INVALID, "{input:?}");
    }
}

#[test]
fn labels_are_behind_the_functions_as_well() {
    let mut dimm = new_dimm();
    assert_eq!(bytes(&mut dimm, 4, &[]), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0x10, 0, 0]);
}
