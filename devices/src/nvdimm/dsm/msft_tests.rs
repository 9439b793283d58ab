use crate::{
    Clock,
    nvdimm::{
        Dimm, NvdimmPlan,
        dsm::{DsmCall, dimm},
        guid::MSFT_DIMM_DSM,
        health::{Condition, HealthPlan, Injection, Temperature},
        plan::DimmFamily,
    },
};

fn new_dimm() -> Dimm {
    let plan = NvdimmPlan {
        family: DimmFamily::Msft,
        ..NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 256, false)
    };
    Dimm::new(plan, Box::new(vec![0u8; 256]), &Clock::manual())
}

fn call(dimm: &mut Dimm, function: u32) -> Vec<u8> {
    let call = DsmCall {
        handle: 1,
        guid: MSFT_DIMM_DSM,
        revision: 1,
        function,
        input: &[],
    };
    dimm::answer(dimm, &call).bytes
}

#[test]
fn the_family_has_three_pages() {
    assert_eq!(call(&mut new_dimm(), 0), [1, 0x1c, 0, 0]);
}

#[test]
fn health_is_spread_over_the_fields_that_ndctl_reads() {
    for (condition, health, warnings, life) in [
        (None, 0, 1, 95),
        (Some(Condition::CRITICAL), 1, 1, 95),
        (Some(Condition::FATAL), 1, 1, 0),
    ] {
        let mut dimm = new_dimm();
        dimm.health.inject(Injection::Condition(condition));
        let expected = [0, 0, 0, 0, health, 0, 23, 0, 0, warnings, life, 0, 0];
        assert_eq!(call(&mut dimm, 11), expected, "{condition:?}");
    }
}

#[test]
fn a_sound_dimm_warns_of_nothing() {
    let mut dimm = new_dimm();
    dimm.health = crate::nvdimm::Health::new(HealthPlan {
        condition: Condition::empty(),
        trips: crate::nvdimm::health::Alarms::empty(),
        life_used: 0,
        ..HealthPlan::NFIT_TEST
    });
    assert_eq!(call(&mut dimm, 11), [0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 100, 0, 0]);
    // Frost has no place in the field.
    let frost = Temperature::celsius(-5);
    dimm.health.inject(Injection::MediaTemperature(Some(frost)));
    assert_eq!(call(&mut dimm, 11)[6..8], [0, 0]);
}

#[test]
fn critical_health_and_energy_source_have_pages_of_their_own() {
    let mut dimm = new_dimm();
    assert_eq!(call(&mut dimm, 10), [0; 5]);
    assert_eq!(call(&mut dimm, 12), [0, 0, 0, 0, 100, 25, 0, 0, 0]);
    dimm.health.inject(Injection::Condition(Some(Condition::FATAL)));
    assert_eq!(call(&mut dimm, 10), [0, 0, 0, 0, 1]);
}
