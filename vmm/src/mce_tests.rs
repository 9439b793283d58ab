//! Machine check records against the manuals' words, and every reason for which one is refused.

use super::*;

const INTEL: Personality = Personality {
    vendor: Vendor::Intel,
    cap: BANKS as u64 | cap::CTL | cap::SER,
    held: BANKS as u64 | cap::CTL | cap::SER,
};
const AMD: Personality = Personality {
    vendor: Vendor::Amd,
    cap: INTEL.cap,
    held: INTEL.cap,
};
const AT: Gpa = Gpa(0x1_2345_6789);

/// A processor that takes everything.
fn ready() -> Banks {
    Banks {
        cr4: CR4_MCE,
        global: 0,
        global_ctl: Some(u64::MAX),
        ctl: [u64::MAX; BANKS as usize],
        extended_ctl: 0,
    }
}

#[test]
fn intel_records_have_the_words_of_the_manual() {
    let words = |kind| {
        let r = INTEL.record(kind, AT, 6, false);
        (r.status, r.global)
    };
    assert_eq!(words(Kind::Srar), (0xbd80_0000_0000_0134, 0x7));
    assert_eq!(words(Kind::SrarFetch), (0xbd80_0000_0000_0150, 0x7));
    assert_eq!(words(Kind::Srao), (0xbd00_0000_0000_00cf, 0x5));
    assert_eq!(words(Kind::Ucna), (0xbc00_0000_0000_009f, 0));
    assert_eq!(words(Kind::Corrected), (0x9c00_0000_0000_009f, 0));
    assert_eq!(words(Kind::Fatal), (0xbf00_0000_0000_0134, 0x4));
}

#[test]
fn firmware_says_how_bad_a_record_is() {
    for (personality, kinds) in [
        (INTEL, [Kind::Srar, Kind::SrarFetch, Kind::Srao, Kind::Ucna]),
        (AMD, [Kind::Srar, Kind::SrarFetch, Kind::Srao, Kind::Ucna]),
    ] {
        let severity = |kind| personality.record(kind, AT, 6, true).severity();
        for kind in kinds {
            assert_eq!(severity(kind), Severity::Recoverable, "{kind}");
        }
        assert_eq!(severity(Kind::Corrected), Severity::Corrected);
        assert_eq!(severity(Kind::Fatal), Severity::Fatal);
    }
}

#[test]
fn without_software_recovery_a_load_of_bad_memory_is_fatal_on_intel_alone() {
    let old = |vendor| Personality {
        vendor,
        cap: u64::from(BANKS) | cap::CTL,
        held: u64::from(BANKS) | cap::CTL,
    };
    let status = |vendor, kind| old(vendor).record(kind, AT, 6, false).status & status::PCC;
    for kind in [Kind::Srar, Kind::SrarFetch] {
        assert_eq!(
            (status(Vendor::Intel, kind), status(Vendor::Amd, kind)),
            (status::PCC, 0)
        );
    }
}

#[test]
fn amd_records_have_the_north_bridges_code_and_defer_what_nobody_consumed() {
    let words = |kind| {
        let r = AMD.record(kind, AT, 6, true);
        assert_eq!(r.bank, 4);
        (r.status, r.global)
    };
    assert_eq!(words(Kind::Srar), (0xbc00_0800_0008_0134, 0x7));
    assert_eq!(words(Kind::SrarFetch), (0xbc00_0800_0008_0150, 0x7));
    assert_eq!(words(Kind::Srao), (0x9c00_1800_0008_00cf, 0));
    assert_eq!(words(Kind::Ucna), (0x9c00_1800_0008_00cf, 0));
    assert_eq!(words(Kind::Corrected), (0x9c00_0000_0008_009f, 0));
    assert_eq!(words(Kind::Fatal), (0xbe00_0000_0008_0134, 0x4));
}

#[test]
fn addresses_are_as_precise_as_the_misc_register_says() {
    let line = INTEL.record(Kind::Srar, AT, 6, false);
    assert_eq!((line.bank, line.address, line.misc), (9, 0x1_2345_6780, 0x86));
    let page = INTEL.record(Kind::Srao, AT, 12, false);
    assert_eq!((page.address, page.misc), (0x1_2345_6000, 0x8c));
}

#[test]
fn others_take_part_in_a_broadcast_without_an_address() {
    let companion = INTEL.companion();
    assert_eq!((companion.bank, companion.status), (1, 0xa000_0000_0000_0000));
    assert_eq!((companion.address, companion.misc, companion.global), (0, 0, 0x5));
}

#[test]
fn local_machine_checks_need_the_promise_and_the_guests_consent() {
    let local = Personality::plan(Vendor::Intel, cap::CTL | cap::SER | cap::LMCE);
    assert!(local.has_local() && !local.is_local(&ready()));
    let consenting = Banks {
        extended_ctl: 1,
        ..ready()
    };
    assert!(local.is_local(&consenting) && !INTEL.is_local(&consenting));
    assert!(AMD.is_local(&ready()), "AMD processors have no others");
    assert_eq!(local.record(Kind::Srar, AT, 6, true).global, 0xf);
    assert_eq!(AMD.record(Kind::Srar, AT, 6, true).global, 0x7);
}

#[test]
fn what_is_promised_is_what_kvm_supports_and_the_vendor_has() {
    let all = u64::MAX << 8;
    assert_eq!(Personality::plan(Vendor::Intel, all).cap, 0x0900_010a);
    assert_eq!(Personality::plan(Vendor::Amd, all).cap, 0x0100_010a);
    assert_eq!(Personality::plan(Vendor::Other, cap::SER).cap, 0x0100_000a);
    let none = Personality::plan(Vendor::Intel, 0);
    assert!(none.cap == 10 && !none.recovers() && INTEL.recovers());
    // KVM on AMD's processors holds less than it says: it takes the records, and the guest reads that it can recover.
    let intel = Personality::plan(Vendor::Intel, all).with_held(0x10a, true);
    assert_eq!((intel.cap, intel.held, intel.shown()), (0x0100_010a, 0x10a, cap::SER));
    assert!(intel.recovers() && !intel.has_local());
    let alone = Personality::plan(Vendor::Intel, all).with_held(0x10a, false);
    assert!(!alone.recovers() && alone.shown() == 0);
    // Linux takes AMD's records for nothing where it reads that.
    let amd = Personality::plan(Vendor::Amd, all).with_held(0x10a, true);
    assert_eq!((amd.cap, amd.shown()), (0x10a, 0));
}

#[test]
fn each_state_that_would_lose_a_record_or_the_processor_is_named() {
    let srar = INTEL.record(Kind::Srar, AT, 6, false);
    assert_eq!(srar.admit(&ready()), Ok(()));
    let without_global = Banks {
        global_ctl: None,
        ..ready()
    };
    assert_eq!(srar.admit(&without_global), Ok(()));

    let mut banks = ready();
    banks.ctl[9] = !(1 << 3);
    let off = Refusal::BankControl {
        bank: 9,
        ctl: !(1 << 3),
    };
    assert_eq!(srar.admit(&banks), Err(off));
    assert_eq!(INTEL.companion().admit(&banks), Ok(()));
    banks.global_ctl = Some(1);
    assert_eq!(srar.admit(&banks), Err(Refusal::GlobalControl(1)));
    banks.global = global::MCIP;
    assert_eq!(srar.admit(&banks), Err(Refusal::InProgress));
    banks.cr4 = 0;
    assert_eq!(srar.admit(&banks), Err(Refusal::Disabled));

    // What makes no exception is stored whatever the guest does.
    for kind in [Kind::Ucna, Kind::Corrected] {
        assert!(!kind.is_exception());
        assert_eq!(INTEL.record(kind, AT, 6, false).admit(&banks), Ok(()));
    }
    let nowhere = Record { bank: 10, ..srar };
    assert_eq!(nowhere.admit(&ready()), Err(Refusal::NoBank(10)));
    assert!(Refusal::Disabled.to_string().starts_with("CR4.MCE"));
    assert!(Refusal::InProgress.to_string().starts_with("MCG_STATUS.MCIP"));
    assert!(Refusal::GlobalControl(1).to_string().starts_with("MCG_CTL is 0x1"));
    assert!(off.to_string().starts_with("MC9_CTL"));
}
