use super::*;
use crate::{
    Clock,
    nvdimm::{Dimm, NfitPlan, NvdimmPlan},
};

fn bus(dimms: u8) -> BusState {
    let clock = Clock::manual();
    let dimm = |slot| {
        let plan = NvdimmPlan::plain(slot, format!("nvdimm{slot}"), 1 << 24, 0, false);
        Dimm::new(plan, Box::new(vec![]), &clock)
    };
    let dimms = (0..dimms).map(dimm).collect();
    BusState::new(NfitPlan::default(), dimms, clock)
}

fn call(bus: &mut BusState, function: u32, input: &[u8]) -> Vec<u8> {
    let call = DsmCall {
        handle: u32::MAX,
        guid: INTEL_BUS_DSM,
        revision: 1,
        function,
        input,
    };
    super::super::root::answer(bus, &call).bytes
}

/// Function 1's output in `state` with `seconds` of activation.
fn expected(state: u8, seconds: u64) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 0, state, 7];
    for time in [seconds, seconds, seconds, 3] {
        bytes.extend_from_slice(&(time * 1_000_000).to_le_bytes());
    }
    bytes
}

fn arm(bus: &mut BusState, dimms: usize) {
    for dimm in &mut bus.dimms[..dimms] {
        dimm.firmware.arm(true);
    }
}

/// Makes a staged image of each DIMM.
fn stage(bus: &mut BusState) {
    let now = bus.clock.now();
    for dimm in &mut bus.dimms {
        let context = dimm.firmware.start().unwrap();
        dimm.firmware.send(context, 0, &[1]).unwrap();
        dimm.firmware.finish(context, now).unwrap();
        dimm.firmware.query(context, now + Duration::from_secs(1)).unwrap();
    }
}

const OK: [u8; 4] = [0; 4];

#[test]
fn info_counts_armed_dimms() {
    let mut bus = bus(4);
    assert_eq!(call(&mut bus, 0, &[]), [7, 0, 0, 0]);
    assert_eq!(call(&mut bus, 1, &[]), expected(0, 0));
    for armed in 1..=4 {
        arm(&mut bus, armed);
        assert_eq!(call(&mut bus, 1, &[]), expected(1, armed as u64));
    }
}

#[test]
fn activation_keeps_the_bus_busy_and_starts_what_was_staged() {
    let mut bus = bus(2);
    assert_eq!(call(&mut bus, 2, &[0]), [6, 0, 1, 0], "none armed");
    stage(&mut bus);
    arm(&mut bus, 1);
    assert_eq!(call(&mut bus, 2, &[2]), [3, 0, 0, 0]);
    assert_eq!(call(&mut bus, 2, &[]), [3, 0, 0, 0]);
    assert_eq!(call(&mut bus, 2, &[1]), OK);
    assert_eq!(call(&mut bus, 1, &[]), expected(2, 0));
    assert_eq!(call(&mut bus, 2, &[0]), [6, 0, 2, 0], "busy");
    bus.clock.advance(Duration::from_secs(3));
    assert_eq!(call(&mut bus, 1, &[]), expected(0, 0));
    let running: Vec<_> = bus.dimms.iter().map(|d| d.firmware.state().running).collect();
    assert_eq!(running, [0xffff_ffff_abcd, 0]);
}

#[test]
fn too_many_armed_dimms_are_activated_and_said_to_be_too_many() {
    let mut bus = bus(4);
    arm(&mut bus, 4);
    assert_eq!(call(&mut bus, 2, &[0]), [6, 0, 4, 0]);
    assert_eq!(call(&mut bus, 1, &[]), expected(2, 0));
}

#[test]
fn a_bus_without_armable_dimms_has_no_activation() {
    let mut bus = bus(1);
    bus.dimms[0].plan.functions = !(1 << 30);
    assert_eq!(call(&mut bus, 0, &[]), [0; 4]);
    assert_eq!(call(&mut bus, 1, &[]), [1, 0, 0, 0]);
}
