use super::*;
use crate::{
    BusDevice, Clock, Effect,
    line::CountingLine,
    nvdimm::{
        Dimm, GrowError, LabelStore, NfitHandle, NfitPlan, NvdimmBus, NvdimmBusPlan, NvdimmPlan, RootPlan, SpaPlan,
        dsm::{dimm, root},
        guid::{INTEL_DIMM_DSM, METHODS, ROOT_DSM},
        nfit,
    },
    units::Gpa,
};
use proptest::prelude::*;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

const PLAN: MailboxPlan = MailboxPlan {
    memory: GpaRange {
        start: Gpa(0x18_0000),
        len: 0x1_0000,
    },
    doorbell: 0xa18,
};
const PAGE: u64 = 0x1000;

/// A machine with two DIMMs and guest memory one page beyond the mailbox on each side.
struct Machine {
    memory: GuestMemory,
    bus: NvdimmBus,
    line: Arc<CountingLine>,
    nfit: NfitPlan,
}

fn bus(memory: GuestMemory, nfit: NfitPlan, line: Arc<CountingLine>) -> NvdimmBus {
    let store = |plan: &NvdimmPlan| vec![0u8; usize::try_from(plan.label_size).unwrap()];
    let labels = nfit.dimms.iter().map(|p| Box::new(store(p)) as Box<dyn LabelStore>);
    let labels = labels.collect();
    let plan = NvdimmBusPlan {
        number: 0,
        mailbox: PLAN,
        slots: nfit.dimms.iter().map(|d| (d.slot, d.handle)).collect(),
        root: RootPlan::default(),
        nfit,
    };
    NvdimmBus::new(memory, plan, labels, line, &Clock::manual())
}

impl Machine {
    fn new() -> Self {
        let (start, len) = (
            PLAN.memory.start.0 - PAGE,
            usize::try_from(PLAN.memory.len + 2 * PAGE).unwrap(),
        );
        let memory = GuestMemory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(start), len)]).unwrap());
        let line = Arc::new(CountingLine::default());
        let nfit = NfitPlan::plain([
            (
                NvdimmPlan::plain(0, "a".into(), 1 << 24, 0x2_0000, false),
                Gpa(4 << 30),
                0,
            ),
            (NvdimmPlan::plain(1, "b".into(), 1 << 24, 0x1000, true), Gpa(5 << 30), 1),
        ]);
        let bus = bus(memory.clone(), nfit.clone(), line.clone());
        Self {
            memory,
            line,
            bus,
            nfit,
        }
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.memory
            .memory()
            .write_slice(bytes, GuestAddress(PLAN.memory.start.0 + offset))
            .unwrap();
    }

    fn get(&self, start: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.memory
            .memory()
            .read_slice(&mut bytes, GuestAddress(start))
            .unwrap();
        bytes
    }

    fn ring(&self) {
        assert_eq!(self.bus.write(0, &1u32.to_le_bytes()), Effect::None);
    }

    fn output(&self) -> Vec<u8> {
        let len = self
            .get(PLAN.memory.start.0 + OUTPUT_LEN, 4)
            .try_into()
            .map(u32::from_le_bytes)
            .unwrap();
        self.get(PLAN.memory.start.0 + DATA, len.into())
    }

    fn call(&self, handle: u32, guid: Guid, function: u32, input: &[u8]) -> Vec<u8> {
        let header = Header {
            handle: handle.into(),
            revision: 1.into(),
            function: function.into(),
            input_len: u32::try_from(input.len()).unwrap().into(),
            guid: guid.0,
        };
        self.put(0, header.as_bytes());
        self.put(DATA, input);
        self.ring();
        self.output()
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn calls_are_routed_by_handle_and_guid() {
    let machine = Machine::new();
    assert_eq!(machine.call(1, INTEL_DIMM_DSM, 4, &[]), words(&[0, 0x2_0000, 4096]));
    assert_eq!(machine.call(2, INTEL_DIMM_DSM, 4, &[]), words(&[0, 0x1000, 4096]));
    assert_eq!(machine.call(2, METHODS, dimm::LSI, &[]), words(&[0, 0x1000, 4096]));
    assert_eq!(machine.call(ROOT_HANDLE, ROOT_DSM, 0, &[]), words(&[0x3bf]));
    assert_eq!(machine.call(ROOT_HANDLE, INTEL_DIMM_DSM, 4, &[]), words(&[1]));
    assert_eq!(machine.call(1, INTEL_DIMM_DSM, 0, &[]), words(&[0x47f]));
}

#[test]
fn unknown_handle_has_no_functions() {
    let machine = Machine::new();
    for handle in [0, 3, 0x10000] {
        assert_eq!(machine.call(handle, INTEL_DIMM_DSM, 0, &[]), words(&[0]));
        assert_eq!(machine.call(handle, INTEL_DIMM_DSM, 5, &words(&[0, 4])), words(&[2]));
    }
}

#[test]
fn a_full_label_transfer_fits() {
    let machine = Machine::new();
    let data = [0xa5; 4096];
    assert_eq!(
        machine.call(
            1,
            INTEL_DIMM_DSM,
            6,
            &[words(&[0x1_f000, 4096]), data.to_vec()].concat()
        ),
        words(&[0])
    );
    let read = machine.call(1, INTEL_DIMM_DSM, 5, &words(&[0x1_f000, 4096]));
    assert_eq!(read, [words(&[0]), data.to_vec()].concat());
}

#[test]
fn fit_read_to_its_end_is_seen() {
    let machine = Machine::new();
    assert_eq!((machine.bus.fit_generation(), machine.bus.fit_seen()), (1, 0));
    let fit = nfit::fit(&machine.nfit);
    let first = machine.call(ROOT_HANDLE, METHODS, root::READ_FIT, &[0; 16]);
    assert_eq!(first, [words(&[0, 1]), fit.clone()].concat());
    assert_eq!(machine.bus.fit_seen(), 0);
    let end = words(&[u32::try_from(fit.len()).unwrap(), 0, 1, 0]);
    assert_eq!(machine.call(ROOT_HANDLE, METHODS, root::READ_FIT, &end), words(&[0, 1]));
    assert_eq!(machine.bus.fit_seen(), 1);
}

#[test]
fn added_dimm_is_announced_and_what_was_there_stays_byte_for_byte() {
    let machine = Machine::new();
    let old = nfit::fit(&machine.nfit);
    let more = NvdimmPlan::plain(2, "c".into(), 1 << 24, 0x1000, false);
    let dimm = || Dimm::new(more.clone(), Box::new(vec![0; 0x1000]), &Clock::manual());
    let mut grown = machine.nfit.clone();
    grown.spas.push(SpaPlan::plain(&more, Gpa(6 << 30), 2));
    grown.dimms.push(more.clone());
    let mut moved = grown.clone();
    moved.spas[0].range.start.0 += 1 << 30;
    machine.bus.with(|bus| {
        assert_eq!(bus.grow(moved, dimm()), Err(GrowError::Changed));
        let same = bus.nfit.clone();
        assert_eq!(bus.grow(same, dimm()), Err(GrowError::NoNewDimm));
    });
    assert_eq!(
        (machine.bus.fit_generation(), machine.line.count()),
        (1, 0),
        "nothing happened"
    );

    machine.bus.with(|bus| bus.grow(grown.clone(), dimm())).unwrap();
    assert_eq!((machine.bus.fit_generation(), machine.line.count()), (2, 1));
    assert_eq!(machine.call(3, INTEL_DIMM_DSM, 4, &[]), words(&[0, 0x1000, 4096]));
    let half_read = [words(&[8, 0]), words(&[1, 0])].concat();
    assert_eq!(
        machine.call(ROOT_HANDLE, METHODS, root::READ_FIT, &half_read),
        words(&[0x100])
    );
    let new = machine
        .call(ROOT_HANDLE, METHODS, root::READ_FIT, &[0; 16])
        .split_off(8);
    let all: Vec<_> = nfit::structures(&new).collect();
    assert_eq!(all.len(), nfit::structures(&old).count() + 3);
    assert!(nfit::structures(&old).all(|structure| all.contains(&structure)));
    assert_eq!(
        machine.call(ROOT_HANDLE, METHODS, root::TAKE_EVENTS, &[]),
        words(&[0, 1, 0])
    );
}

#[test]
fn events_interrupt_once_and_are_handed_out_once() {
    let machine = Machine::new();
    machine.bus.with(|state| assert!(state.dimm(NfitHandle(3)).is_none()));
    assert_eq!(machine.line.count(), 0, "nothing happened");
    machine.bus.with(|state| {
        state.events.nfit_update();
        state.events.dimm_health(1);
    });
    assert_eq!(machine.line.count(), 1);
    assert_eq!(machine.call(1, INTEL_DIMM_DSM, 4, &[])[..4], [0; 4]);
    assert_eq!(machine.line.count(), 1, "a call in between tells nothing new");
    let take = || machine.call(ROOT_HANDLE, METHODS, root::TAKE_EVENTS, &[]);
    assert_eq!(take(), words(&[0, 1, 2]));
    assert_eq!(take(), words(&[0, 0, 0]));
    assert_eq!(machine.line.count(), 1);
}

#[test]
fn input_longer_than_the_mailbox_is_invalid() {
    let machine = Machine::new();
    for len in [0xffff_ffff_u32, 0x1_0000 - 63] {
        machine.put(12, &len.to_le_bytes());
        machine.ring();
        assert_eq!(machine.output(), words(&[3]));
    }
}

#[test]
fn doorbell_reads_zero_and_rings_at_any_width() {
    let machine = Machine::new();
    let mut data = [0xff; 8];
    machine.bus.read(2, &mut data);
    assert_eq!(data, [0; 8]);
    for value in [&[][..], &[1], &[1, 2], &[0; 8]] {
        assert_eq!(machine.bus.write(3, value), Effect::None);
    }
}

#[test]
fn mailbox_outside_guest_memory_loses_the_call_only() {
    let memory = GuestMemory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap());
    let bus = bus(memory, NfitPlan::default(), Arc::default());
    assert_eq!(bus.write(0, &[1]), Effect::None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_mailbox_bytes_are_survived_and_nothing_outside_is_written(
        noise in proptest::collection::vec(any::<u8>(), 4096),
        handle in prop_oneof![Just(ROOT_HANDLE), 0u32..4, any::<u32>()],
        guid in prop_oneof![Just(INTEL_DIMM_DSM.0), Just(METHODS.0), Just(ROOT_DSM.0), any::<[u8; 16]>()],
        function in prop_oneof![0u32..8, any::<u32>()],
        revision in prop_oneof![0u32..4, any::<u32>()],
        input_len in prop_oneof![0u32..5000, any::<u32>()],
    ) {
        let machine = Machine::new();
        let fence = vec![0x5a; usize::try_from(PAGE).unwrap()];
        let memory = PLAN.memory;
        let fences = [memory.start.0 - PAGE, memory.end().0];
        for start in fences {
            machine.memory.memory().write_slice(&fence, GuestAddress(start)).unwrap();
        }
        machine.put(0, &noise);
        let header = Header {
            handle: handle.into(),
            revision: revision.into(),
            function: function.into(),
            input_len: input_len.into(),
            guid,
        };
        machine.put(0, header.as_bytes());
        machine.ring();
        prop_assert!(machine.output().len() as u64 <= PLAN.capacity());
        for start in fences {
            prop_assert_eq!(machine.get(start, PAGE), fence.clone());
        }
    }
}
