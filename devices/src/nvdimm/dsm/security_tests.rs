use super::*;
use crate::{
    Clock,
    nvdimm::{
        NvdimmPlan,
        dsm::{DsmCall, dimm::answer},
        guid::{Guid, INTEL_DIMM_DSM, METHODS},
        security::{KdfCost, MediaControl, SecurityState, Settings, WrappingKey},
    },
};
use std::{io, time::Duration};

/// Media that do as they are told and keep nothing.
struct Nothing;

impl MediaControl for Nothing {
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(3);
        Ok(())
    }
    fn store(&mut self, _: &SecurityState) -> io::Result<()> {
        Ok(())
    }
    fn protect(&mut self, _: &SecurityState, _: Option<&WrappingKey>, _: Option<&WrappingKey>) -> io::Result<()> {
        Ok(())
    }
    fn lock(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn unlock(&mut self, _: Option<&WrappingKey>) -> io::Result<()> {
        Ok(())
    }
    fn erase(&mut self, _: &SecurityState, _: Option<&WrappingKey>) -> io::Result<()> {
        Err(io::Error::other("a broken disk"))
    }
    fn start_overwrite(&mut self, _: &SecurityState) -> io::Result<()> {
        Ok(())
    }
    fn overwritten(&mut self) -> Option<io::Result<()>> {
        Some(Ok(()))
    }
    fn resume(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn new_dimm(clock: &Clock) -> Dimm {
    let plan = NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 0x2_0000, false);
    let mut dimm = Dimm::new(plan, Box::new(vec![0u8; 0x2_0000]), clock);
    let settings = Settings {
        cost: KdfCost {
            memory_kib: 8,
            passes: 1,
        },
        overwrite: Duration::from_secs(5),
    };
    let security = Security::new(SecurityState::default(), Box::new(Nothing), clock, settings);
    dimm.security = Some(security.unwrap());
    dimm
}

fn ask(dimm: &mut Dimm, guid: Guid, revision: u32, function: u32, input: &[u8]) -> Vec<u8> {
    let call = DsmCall {
        handle: 1,
        guid,
        revision,
        function,
        input,
    };
    answer(dimm, &call).bytes
}

fn intel(dimm: &mut Dimm, function: u32, input: &[u8]) -> Vec<u8> {
    ask(dimm, INTEL_DIMM_DSM, 2, function, input)
}

fn status(dimm: &mut Dimm, function: u32, passphrases: &[u8]) -> u32 {
    let input: Vec<u8> = passphrases.iter().flat_map(|byte| [*byte; PASSPHRASE]).collect();
    let reply = intel(dimm, function, &input);
    u32::from_le_bytes(reply.try_into().unwrap())
}

#[test]
fn security_functions_are_of_revision_two_and_of_dimms_that_have_security() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    let offered = |dimm: &mut Dimm, revision| {
        let mask = ask(dimm, INTEL_DIMM_DSM, revision, 0, &[]);
        u32::from_le_bytes(mask.try_into().unwrap()) & 0x1ff8_0000
    };
    assert_eq!(offered(&mut dimm, 1), 0);
    assert_eq!(offered(&mut dimm, 2), 0x1ff8_0000);
    assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 1, 19, &[]), [1, 0, 0, 0]);
    dimm.plan.functions = !(1 << 25);
    assert_eq!(offered(&mut dimm, 2), 0x1df8_0000);
    dimm.security = None;
    assert_eq!(offered(&mut dimm, 2), 0);
}

#[test]
fn state_is_twelve_bytes_with_the_extended_state_first() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    assert_eq!(intel(&mut dimm, 19, &[]), [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(status(&mut dimm, 20, &[0, 1]), 0);
    assert_eq!(status(&mut dimm, 23, &[]), 0);
    assert_eq!(intel(&mut dimm, 19, &[]), [0, 0, 0, 0, 1, 0, 0, 0, 0x0a, 0, 0, 0]);
}

#[test]
fn statuses_are_those_the_guests_driver_knows() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    assert_eq!(status(&mut dimm, 21, &[0]), 10, "nothing to disable");
    assert_eq!(status(&mut dimm, 20, &[7, 1]), 11, "wrong passphrase");
    assert_eq!(status(&mut dimm, 20, &[0, 1]), 0);
    assert_eq!(status(&mut dimm, 26, &[]), 0x2_0007, "nothing was begun");
    assert_eq!(status(&mut dimm, 25, &[1]), 0);
    assert_eq!(status(&mut dimm, 26, &[]), 0x1_0007, "it goes on");
    clock.advance(Duration::from_secs(5));
    assert_eq!(status(&mut dimm, 26, &[]), 0);
    assert_eq!(status(&mut dimm, 24, &[1]), 4, "the host fails");
    assert_eq!(status(&mut dimm, 27, &[0, 2]), 0);
    assert_eq!(status(&mut dimm, 28, &[0]), 11);
    assert_eq!(status(&mut dimm, 21, &[1]), 0);
}

#[test]
fn short_passphrases_are_invalid_input() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    for function in [20, 21, 22, 24, 25, 27, 28] {
        let long = if matches!(function, 20 | 27) {
            2 * PASSPHRASE
        } else {
            PASSPHRASE
        };
        for len in [0, 31, long - 1] {
            assert_eq!(
                intel(&mut dimm, function, &vec![0; len]),
                [3, 0, 0, 0],
                "{function} {len}"
            );
        }
    }
}

#[test]
fn labels_read_as_zeros_during_an_overwrite_and_take_nothing() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    let write = [0, 0, 0, 0, 1, 0, 0, 0, 9];
    assert_eq!(intel(&mut dimm, 6, &write), [0; 4]);
    assert_eq!(status(&mut dimm, 25, &[0]), 0);
    assert_eq!(intel(&mut dimm, 4, &[])[..4], [0; 4]);
    assert_eq!(intel(&mut dimm, 5, &write[..8]), [0; 5]);
    assert_eq!(intel(&mut dimm, 5, &[0, 0, 2, 0, 1, 0, 0, 0]), [3, 0, 0, 0]);
    assert_eq!(intel(&mut dimm, 6, &write), [10, 0, 0, 0]);
    status(&mut dimm, 20, &[0, 1]);
    clock.advance(Duration::from_secs(5));
    assert_eq!(intel(&mut dimm, 6, &write), [0; 4]);
    assert_eq!(status(&mut dimm, 20, &[0, 1]), 0);
    assert_eq!(status(&mut dimm, 25, &[1]), 0);
    dimm.security.as_mut().unwrap().power_cycle().unwrap();
    assert_eq!(
        intel(&mut dimm, 5, &write[..8]),
        [10, 0, 0, 0],
        "a locked one has no labels"
    );
}

#[test]
fn labels_of_a_locked_dimm_are_announced_as_locked_and_refused() {
    let clock = Clock::manual();
    let mut dimm = new_dimm(&clock);
    status(&mut dimm, 20, &[0, 1]);
    dimm.security.as_mut().unwrap().power_cycle().unwrap();
    assert_eq!(intel(&mut dimm, 4, &[]), [0, 0, 1, 0, 0, 0, 2, 0, 0, 16, 0, 0]);
    assert_eq!(intel(&mut dimm, 5, &[0, 0, 0, 0, 4, 0, 0, 0]), [10, 0, 0, 0]);
    assert_eq!(intel(&mut dimm, 6, &[0, 0, 0, 0, 1, 0, 0, 0, 9]), [10, 0, 0, 0]);
    for method in 1..=3 {
        assert_eq!(
            ask(&mut dimm, METHODS, 1, method, &[0; 16]),
            [3, 0, 0, 0],
            "method {method}"
        );
    }
    assert_eq!(status(&mut dimm, 22, &[1]), 0);
    assert_eq!(intel(&mut dimm, 4, &[]), [0, 0, 0, 0, 0, 0, 2, 0, 0, 16, 0, 0]);
    assert_eq!(intel(&mut dimm, 5, &[0, 0, 0, 0, 1, 0, 0, 0]), [0, 0, 0, 0, 0]);
}
