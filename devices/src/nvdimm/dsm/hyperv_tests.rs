use crate::{
    Clock,
    nvdimm::{
        Dimm, NvdimmPlan,
        dsm::{DsmCall, dimm},
        guid::HYPERV_DIMM_DSM,
        health::{Condition, Injection},
        plan::DimmFamily,
    },
};

fn new_dimm() -> Dimm {
    let plan = NvdimmPlan {
        family: DimmFamily::Hyperv,
        ..NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 256, false)
    };
    Dimm::new(plan, Box::new(vec![0u8; 256]), &Clock::manual())
}

fn call(dimm: &mut Dimm, function: u32) -> Vec<u8> {
    let call = DsmCall {
        handle: 1,
        guid: HYPERV_DIMM_DSM,
        revision: 1,
        function,
        input: &[],
    };
    dimm::answer(dimm, &call).bytes
}

#[test]
fn health_and_shutdowns_are_words() {
    let mut dimm = new_dimm();
    assert_eq!(call(&mut dimm, 0), [7, 0, 0, 0]);
    assert_eq!(call(&mut dimm, 1), [0, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(call(&mut dimm, 2), [0, 0, 0, 0, 42, 0, 0, 0]);
    for (condition, bit) in [
        (Condition::empty(), 0),
        (Condition::CRITICAL, 1),
        (Condition::FATAL, 4),
        (Condition::all(), 13),
    ] {
        dimm.health.inject(Injection::Condition(Some(condition)));
        assert_eq!(call(&mut dimm, 1), [0, 0, 0, 0, bit, 0, 0, 0]);
    }
}
