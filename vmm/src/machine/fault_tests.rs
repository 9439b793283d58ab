//! Which vCPU hears what.

use super::*;
use crate::{
    cpuid::Vendor,
    mce::{BANKS, CR4_MCE, cap, global},
};
use std::collections::BTreeMap;

const INTEL: Personality = Personality {
    vendor: Vendor::Intel,
    cap: BANKS as u64 | cap::CTL | cap::SER,
    held: BANKS as u64 | cap::CTL | cap::SER,
};

fn ready() -> Banks {
    Banks {
        cr4: CR4_MCE,
        global_ctl: Some(u64::MAX),
        ctl: [u64::MAX; BANKS as usize],
        ..Banks::default()
    }
}

fn given(banks: &[(u32, Banks)], errors: &[(u32, Kind, Gpa)]) -> Result<BTreeMap<u32, Record>, Blocked> {
    let given = plan_checks(&INTEL, banks, errors)?;
    Ok(given.into_iter().map(|given| (given.apic_id, given.record)).collect())
}

#[test]
fn a_broadcast_reaches_every_processor_that_listens() {
    let asleep = Banks { cr4: 0, ..ready() };
    let banks = [(0, ready()), (1, ready()), (2, asleep)];
    let error = (1, Kind::Srar, Gpa(0x1000));
    let records = given(&banks, &[error]).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[&1], INTEL.record(Kind::Srar, Gpa(0x1000), 6, false));
    assert_eq!(records[&0], INTEL.companion());

    // Two at once: each has its own.
    let records = given(&banks, &[error, (0, Kind::Srar, Gpa(0x2000))]).unwrap();
    assert_eq!(records[&0].address, 0x2000);
    assert_eq!(records[&1].address, 0x1000);

    // What is no exception concerns one.
    assert_eq!(given(&banks, &[(0, Kind::Corrected, Gpa(0))]).unwrap().len(), 1);
    let local = Personality {
        cap: INTEL.cap | cap::LMCE,
        ..INTEL
    };
    let consenting = Banks {
        extended_ctl: 1,
        ..ready()
    };
    let alone = plan_checks(&local, &[(0, ready()), (1, consenting)], &[error]).unwrap();
    assert_eq!(
        (alone.len(), alone[0].record.global & global::LMCES),
        (1, global::LMCES)
    );
}

#[test]
fn a_processor_in_a_handler_is_waited_for_unless_it_is_the_one_in_trouble() {
    let busy = Banks {
        global: global::MCIP,
        ..ready()
    };
    let error = (1, Kind::Srar, Gpa(0x1000));
    let blocked = given(&[(0, busy), (1, ready())], &[error]).unwrap_err();
    assert_eq!((blocked.apic_id, blocked.why), (0, Refusal::InProgress));
    assert!(passes(&blocked, &[1]));
    let blocked = given(&[(0, ready()), (1, busy)], &[error]).unwrap_err();
    assert!(!passes(&blocked, &[1]));
    let deaf = given(&[(1, Banks { cr4: 0, ..ready() })], &[error]).unwrap_err();
    assert!(deaf.why == Refusal::Disabled && !passes(&deaf, &[1]));
}
