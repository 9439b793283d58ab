//! Which memory a request means, and which vCPU hears what.

use super::*;
use crate::{
    config::{HexAddress, VmConfig},
    cpuid::Vendor,
    mce::{BANKS, CR4_MCE, cap, global},
    topology::Topology,
};
use devices::units::ByteSize;
use std::collections::BTreeMap;

const INTEL: Personality = Personality {
    vendor: Vendor::Intel,
    cap: BANKS as u64 | cap::CTL | cap::SER,
};

fn layout() -> Layout {
    let mut config = VmConfig::default();
    config.memory.size = Some(ByteSize::mib(256));
    config.numa = vec![];
    let topology = Topology::plan(&config).unwrap();
    Layout::plan(
        &config,
        &topology,
        &crate::layout::HostLimits {
            phys_bits: 46,
            backings: vec![],
        },
    )
    .unwrap()
}

fn with<T>(look: impl FnOnce(&Memory<'_>) -> T) -> T {
    let layout = layout();
    look(&Memory {
        layout: &layout,
        dimms: vec![("pmem0".into(), 0), ("pmem1".into(), 3)],
    })
}

fn inject(change: impl FnOnce(&mut FaultInject)) -> Result<Vec<Target>, ControlError> {
    let mut said = FaultInject::default();
    change(&mut said);
    with(|memory| memory.plan_injection(&said))
}

#[test]
fn places_are_widened_to_whole_lines() {
    let targets = inject(|said| said.gpa = Some(HexAddress(0x1_0047))).unwrap();
    assert_eq!(targets, [Target::Gpa(GpaRange::new(Gpa(0x1_0040), 64))]);
    let targets = inject(|said| {
        (said.gpa, said.len) = (Some(HexAddress(0x3f)), Some(ByteSize(2)));
    });
    assert_eq!(targets.unwrap(), [Target::Gpa(GpaRange::new(Gpa(0), 128))]);
    let targets = inject(|said| {
        (said.nvdimm, said.dpa) = (Some("pmem1".into()), Some(HexAddress(100)));
    });
    assert_eq!(targets.unwrap(), [Target::Dimm(3, 64, 64)]);
}

#[test]
fn what_is_no_place_is_refused_with_its_field() {
    let field = |error: ControlError| (error.kind, error.field.unwrap_or_default());
    let none = inject(|_| ()).unwrap_err();
    assert_eq!(field(none), (ErrorKind::InvalidRequest, "gpa".into()));
    let two = inject(|said| (said.gpa, said.node) = (Some(HexAddress(0)), Some(0))).unwrap_err();
    assert_eq!(field(two), (ErrorKind::InvalidRequest, "gpa".into()));
    let empty = inject(|said| (said.gpa, said.len) = (Some(HexAddress(0)), Some(ByteSize(0)))).unwrap_err();
    assert_eq!(field(empty), (ErrorKind::InvalidRequest, "len".into()));
    let beyond = inject(|said| said.gpa = Some(HexAddress(u64::MAX))).unwrap_err();
    assert_eq!(field(beyond), (ErrorKind::InvalidRequest, "gpa".into()));
    let unknown = inject(|said| (said.nvdimm, said.dpa) = (Some("x".into()), Some(HexAddress(0)))).unwrap_err();
    assert_eq!(field(unknown), (ErrorKind::NotFound, "nvdimm".into()));
    let many = inject(|said| (said.node, said.count) = (Some(0), Some(MAX_TARGETS + 1))).unwrap_err();
    assert_eq!(field(many), (ErrorKind::InvalidRequest, "count".into()));
    let full = inject(|said| {
        (said.node, said.count, said.len) = (Some(0), Some(3), Some(ByteSize::mib(100)));
    });
    assert_eq!(field(full.unwrap_err()), (ErrorKind::InvalidRequest, "node".into()));
    let nowhere = inject(|said| said.node = Some(9)).unwrap_err();
    assert_eq!(field(nowhere), (ErrorKind::InvalidRequest, "node".into()));
}

#[test]
fn the_same_seed_chooses_the_same_separate_places_of_the_node() {
    let choose = |seed, count| {
        inject(|said| (said.node, said.count, said.seed) = (Some(0), Some(count), Some(seed))).unwrap()
    };
    let first = choose(1, 1000);
    assert_eq!(first, choose(1, 1000));
    assert_ne!(first, choose(2, 1000));
    let distinct: BTreeSet<Target> = first.iter().copied().collect();
    assert_eq!(distinct.len(), 1000);
    let ram = layout().ram;
    for target in &first {
        let Target::Gpa(range) = target else { panic!("{target:?}") };
        assert!(range.len == 64 && ram.iter().any(|ram| ram.range.contains(range.start)));
    }
    // Nearly all there are.
    let pages = inject(|said| {
        (said.node, said.count, said.len) = (Some(0), Some(100), Some(ByteSize::mib(2)));
    });
    let pages: BTreeSet<Target> = pages.unwrap().into_iter().collect();
    assert_eq!(pages.len(), 100);
}

#[test]
fn clearing_means_a_place_or_everything() {
    let clear = |said: &FaultClear| with(|memory| memory.plan_clearing(said));
    let all = FaultClear {
        all: true,
        ..FaultClear::default()
    };
    assert_eq!(clear(&all).unwrap(), None);
    let one = FaultClear {
        gpa: Some(HexAddress(64)),
        ..FaultClear::default()
    };
    assert_eq!(clear(&one).unwrap(), Some(vec![Target::Gpa(GpaRange::new(Gpa(64), 64))]));
    assert!(clear(&FaultClear { all: true, ..one }).is_err());
    assert!(clear(&FaultClear::default()).is_err());
}

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
    assert_eq!((alone.len(), alone[0].record.global & global::LMCES), (1, global::LMCES));
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

#[test]
fn expectations_name_the_place_and_what_the_guest_can_do() {
    let target = FaultTarget {
        gpa: Some(0x1000),
        nvdimm: None,
        dpa: None,
        len: 64,
    };
    let ram = expectation(&target, None, &INTEL);
    assert!(ram.contains("0x1000 takes SRAR") && ram.contains("out of use"), "{ram}");
    let weak = Personality { cap: 10, ..INTEL };
    assert!(expectation(&target, None, &weak).contains("brings the guest down"));
    let dimm = FaultTarget {
        nvdimm: Some("a".into()),
        ..target
    };
    let signalled = expectation(&dimm, Some(Kind::Srao), &INTEL);
    assert!(signalled.starts_with("SRAO reports 0x1000 now") && signalled.contains("badblocks"), "{signalled}");
    let hidden = FaultTarget { gpa: None, ..dimm };
    assert!(expectation(&hidden, None, &INTEL).contains("nothing loads them"));
}
