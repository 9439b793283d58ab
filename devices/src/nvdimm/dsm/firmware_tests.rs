use super::*;
use crate::{
    Clock,
    nvdimm::{
        NvdimmPlan,
        dsm::{DsmCall, dimm},
        guid::INTEL_DIMM_DSM,
    },
};
use proptest::prelude::*;

fn new_dimm() -> Dimm {
    let plan = NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 0, false);
    Dimm::new(plan, Box::new(vec![]), &Clock::manual())
}

fn call(dimm: &mut Dimm, function: u32, input: &[u8]) -> Vec<u8> {
    let call = DsmCall {
        handle: 1,
        guid: INTEL_DIMM_DSM,
        revision: 2,
        function,
        input,
    };
    dimm::answer(dimm, &call).bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn send(dimm: &mut Dimm, context: u32, offset: u32, piece: &[u8]) -> Vec<u8> {
    let len = u32::try_from(piece.len()).unwrap();
    call(dimm, 14, &[words(&[context, offset, len]), piece.to_vec()].concat())
}

const OK: [u8; 4] = [0; 4];

/// Status 7 with `code`.
fn extended(code: u8) -> [u8; 4] {
    [7, 0, code, 0]
}

#[test]
fn info_is_what_nfit_test_shows_but_for_the_piece_that_fits_the_mailbox() {
    let expected = [words(&[0, 1 << 20, 0xf000, 250_000, 3_000_000, 0, 0x105]), vec![0; 16]].concat();
    assert_eq!(expected.len(), 44);
    assert_eq!(call(&mut new_dimm(), 12, &[]), expected);
}

#[test]
fn the_largest_piece_fits_the_mailbox() {
    let mailbox = crate::nvdimm::MailboxPlan {
        memory: crate::units::GpaRange::new(crate::units::Gpa(0), 0x1_0000),
        doorbell: 0,
    };
    assert!(12 + firmware::MAX_PIECE as u64 <= mailbox.capacity());
}

#[test]
fn update_goes_through_start_send_finish_and_query() {
    let mut dimm = new_dimm();
    assert_eq!(call(&mut dimm, 13, &[]), words(&[0, 1]));
    assert_eq!(call(&mut dimm, 13, &[]), extended(1), "busy");
    assert_eq!(send(&mut dimm, 1, 0, &[0; 0xf000]), OK);
    assert_eq!(send(&mut dimm, 1, 0xf000, &[0; 100]), OK);
    assert_eq!(call(&mut dimm, 16, &words(&[1])), extended(4), "out of order");
    assert_eq!(call(&mut dimm, 15, &words(&[0, 2])), extended(1), "another context");
    assert_eq!(call(&mut dimm, 15, &words(&[2, 1])), [3, 0, 0, 0], "no such control");
    assert_eq!(call(&mut dimm, 15, &words(&[0, 1])), OK);
    assert_eq!(call(&mut dimm, 16, &words(&[1])), extended(2), "verifying");
    dimm.clock.advance(Duration::from_secs(1));
    let version = [0xcd, 0xab, 0xff, 0xff, 0xff, 0xff, 0, 0];
    assert_eq!(call(&mut dimm, 16, &words(&[1])), [&OK[..], &version].concat());
    assert_eq!(call(&mut dimm, 12, &[])[36..], version);
    assert_eq!(call(&mut dimm, 15, &words(&[0, 1])), extended(2), "done already");
    assert_eq!(call(&mut dimm, 15, &words(&[1, 1])), extended(2), "done already");
}

#[test]
fn abort_needs_no_context() {
    let mut dimm = new_dimm();
    call(&mut dimm, 13, &[]);
    assert_eq!(call(&mut dimm, 15, &words(&[1, 77])), extended(4));
    assert_eq!(call(&mut dimm, 13, &[]), words(&[0, 2]));
}

#[test]
fn bad_images_are_refused_at_the_finish_or_after_verification() {
    let mut dimm = new_dimm();
    call(&mut dimm, 13, &[]);
    assert_eq!(call(&mut dimm, 15, &words(&[0, 1])), extended(3), "empty");
    assert_eq!(send(&mut dimm, 1, 0, b"daxvisor-firmware 1 9999\n"), OK);
    assert_eq!(call(&mut dimm, 15, &words(&[0, 1])), OK);
    dimm.clock.advance(Duration::from_secs(1));
    assert_eq!(call(&mut dimm, 16, &words(&[1])), extended(3));
}

#[test]
fn pieces_in_the_wrong_state_or_place_are_refused() {
    let mut dimm = new_dimm();
    assert_eq!(send(&mut dimm, 0, 0, &[1]), [5, 0, 0, 0]);
    call(&mut dimm, 13, &[]);
    assert_eq!(send(&mut dimm, 0, 0, &[1]), extended(1));
    let invalid = [3, 0, 0, 0];
    assert_eq!(send(&mut dimm, 1, 1 << 20, &[1]), invalid);
    assert_eq!(send(&mut dimm, 1, u32::MAX, &[1]), invalid);
    assert_eq!(send(&mut dimm, 1, 0, &[1; 0xf001]), invalid);
    // Fewer bytes than the length says.
    assert_eq!(call(&mut dimm, 14, &words(&[1, 0, 8, 0])), invalid);
    assert_eq!(call(&mut dimm, 14, &words(&[1, 0])), invalid);
    assert_eq!(call(&mut dimm, 14, &words(&[1, 0, u32::MAX])), invalid);
}

#[test]
fn activation_info_shows_whether_the_dimm_is_armed() {
    let mut dimm = new_dimm();
    let info = |state| [0, 0, 0, 0, 0, 0, state, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(call(&mut dimm, 29, &[]), info(0));
    assert_eq!(call(&mut dimm, 30, &[1]), OK);
    assert_eq!(call(&mut dimm, 29, &[]), info(1));
    assert_eq!(call(&mut dimm, 30, &[2]), [3, 0, 0, 0]);
    assert_eq!(call(&mut dimm, 30, &[]), [3, 0, 0, 0]);
    assert_eq!(call(&mut dimm, 30, &[0]), OK);
    assert_eq!(call(&mut dimm, 29, &[]), info(0));
}

#[test]
fn the_first_revision_has_none_of_these() {
    let mut dimm = new_dimm();
    for function in [12, 13, 14, 15, 16, 29, 30] {
        let call = DsmCall {
            handle: 1,
            guid: INTEL_DIMM_DSM,
            revision: 1,
            function,
            input: &[1; 16],
        };
        assert_eq!(dimm::answer(&mut dimm, &call).bytes, [1, 0, 0, 0]);
    }
}

proptest! {
    #[test]
    fn any_calls_are_answered_with_a_known_status(
        calls in prop::collection::vec(
            (prop::sample::select(vec![12u32, 13, 14, 15, 16, 29, 30]), prop::collection::vec(0u8..4, 0..40)),
            1..30,
        ),
    ) {
        let mut dimm = new_dimm();
        for (function, input) in calls {
            let bytes = call(&mut dimm, function, &input);
            let status = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            prop_assert!([0, 3, 5, 0x1_0007, 0x2_0007, 0x3_0007, 0x4_0007].contains(&status), "{:#x}", status);
            dimm.clock.advance(Duration::from_millis(600));
        }
    }
}
