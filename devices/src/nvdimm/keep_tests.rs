use super::*;
use crate::{
    nvdimm::{
        errors::{ChangeError, ErrorsError},
        guid::INTEL_DIMM_DSM,
        media::{BadRange, ErrorSource, ErrorState, Mark},
        state::{DimmState, StateStore},
    },
    units::{Dpa, Gpa, GpaRange},
};
use serde_json::{Value, json};
use std::{io, sync::Arc};

/// A store that counts its writes, or fails.
#[derive(Default)]
struct Memory {
    state: Mutex<Option<DimmState>>,
    writes: Mutex<u32>,
    broken: Mutex<bool>,
}

impl StateStore for Memory {
    fn put(&self, name: &str, value: Value) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(io::Error::other("full"));
        }
        *self.writes.lock().unwrap() += 1;
        let mut state = self.state.lock().unwrap();
        state.get_or_insert_with(|| DimmState::new(SERIAL)).put(name, value);
        Ok(())
    }
}

const SERIAL: u32 = 0x12_3456;

/// A machine with one DIMM whose state is in `memory`, at power-on.
fn bus(memory: &Arc<Memory>) -> BusState {
    let plan = NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, 256, false);
    let clock = Clock::manual();
    let mut dimm = Dimm::new(plan, Box::new(vec![0u8; 256]), &clock);
    let state = memory.state.lock().unwrap().clone();
    dimm.restore(&state.unwrap_or_else(|| DimmState::new(SERIAL)), memory.clone())
        .unwrap();
    let nfit = NfitPlan::plain([(dimm.plan.clone(), SPA, 0)]);
    let mut bus = BusState::new(nfit, vec![dimm], clock);
    bus.recall(|_| true);
    bus.keep().unwrap();
    bus
}

/// Where the guest sees the DIMM.
const SPA: Gpa = Gpa(1 << 32);

fn spas(offset: u64, len: u64) -> GpaRange {
    GpaRange::new(Gpa(SPA.0 + offset), len)
}

fn call(bus: &mut BusState, function: u32, input: &[u8]) -> Vec<u8> {
    bus.answer(&DsmCall {
        handle: 1,
        guid: INTEL_DIMM_DSM,
        revision: if function > 10 { 2 } else { 1 },
        function,
        input,
    })
}

/// Last shutdown and count.
fn shutdowns(bus: &mut BusState) -> (u8, u8) {
    let smart = call(bus, 1, &[]);
    (smart[35], smart[20])
}

#[test]
fn a_run_that_breaks_off_after_the_latch_counts_one() {
    let memory = Arc::new(Memory::default());
    let mut first = bus(&memory);
    assert_eq!(call(&mut first, 10, &[1]), [0; 4]);
    drop(first);
    let mut second = bus(&memory);
    assert_eq!(shutdowns(&mut second), (1, 43));
    // This one was not asked to count.
    drop(second);
    let mut third = bus(&memory);
    assert_eq!(shutdowns(&mut third), (0, 43));
    assert_eq!(call(&mut third, 10, &[1]), [0; 4]);
    third.shut_down().unwrap();
    assert_eq!(shutdowns(&mut bus(&memory)), (0, 43));
}

#[test]
fn changes_are_written_once_and_reads_never() {
    let memory = Arc::new(Memory::default());
    let mut bus = bus(&memory);
    let writes = || *memory.writes.lock().unwrap();
    // One for each section.
    assert_eq!(writes(), 2);
    for _ in 0..2 {
        call(&mut bus, 1, &[]);
        call(&mut bus, 17, &[1, 0, 9, 0, 0, 0, 0]);
        assert_eq!(writes(), 3);
    }
}

#[test]
fn a_change_that_cannot_be_kept_is_an_error_to_the_guest() {
    let memory = Arc::new(Memory::default());
    let mut bus = bus(&memory);
    *memory.broken.lock().unwrap() = true;
    assert_eq!(call(&mut bus, 10, &[1]), [4, 0, 0, 0]);
    // A call that changes nothing is answered.
    assert_eq!(call(&mut bus, 1, &[]).len(), 132);
    // It is tried again with each call.
    *memory.broken.lock().unwrap() = false;
    assert_eq!(call(&mut bus, 10, &[1]), [0; 4]);
    drop(bus);
    assert_eq!(shutdowns(&mut self::bus(&memory)), (1, 43));
}

#[test]
fn a_damaged_section_changes_nothing() {
    let memory = Arc::new(Memory::default());
    let mut bus = bus(&memory);
    let mut state = DimmState::new(SERIAL);
    state.put("health", Value::from(1));
    assert!(bus.dimms[0].restore(&state, memory.clone()).is_err());
    assert_eq!(shutdowns(&mut bus), (0, 42));
}

fn ranges(bus: &BusState) -> Vec<(u64, u64, ErrorSource, ErrorState)> {
    let tuple = |r: BadRange| (r.dpa.0, r.len, r.source, r.state);
    bus.dimms[0].media.ranges().map(tuple).collect()
}

#[test]
fn errors_and_what_was_injected_outlast_the_run() {
    use ErrorSource::{Guest, Host};
    use ErrorState::{Known, Latent};
    let memory = Arc::new(Memory::default());
    let mut first = bus(&memory);
    first.guest_injects(spas(0x1001, 8)).unwrap();
    first
        .change_errors(|bus| bus.inject_dimm(0, Dpa(0x4000), 64, Mark::latent(Host)))
        .unwrap();
    let mut second = bus(&memory);
    let expected = [(0x1000, 64, Guest, Known), (0x4000, 64, Host, Latent)];
    assert_eq!(ranges(&second), expected);
    assert_eq!(second.injected().records().collect::<Vec<_>>(), [spas(0x1001, 8)]);
    second.change_errors(|bus| bus.clear_errors(spas(0x1000, 64))).unwrap();
    let third = bus(&memory);
    assert_eq!(ranges(&third), expected[1..]);
    assert_eq!(third.injected().records().count(), 0);
}

#[test]
fn a_scrub_that_finds_an_error_is_remembered_and_one_that_does_not_writes_nothing() {
    let memory = Arc::new(Memory::default());
    let mut first = bus(&memory);
    first
        .change_errors(|bus| bus.inject(spas(0, 64), Mark::latent(ErrorSource::Host)))
        .unwrap();
    let writes = *memory.writes.lock().unwrap();
    for _ in 0..2 {
        first.discover(spas(0, 4096)).unwrap();
        first.keep().unwrap();
        assert_eq!(*memory.writes.lock().unwrap(), writes + 1);
    }
    assert_eq!(ranges(&bus(&memory)), [(0, 64, ErrorSource::Host, ErrorState::Known)]);
}

#[test]
fn a_host_error_that_cannot_be_kept_is_not_made() {
    let memory = Arc::new(Memory::default());
    let mut bus = bus(&memory);
    *memory.broken.lock().unwrap() = true;
    let mark = Mark::known(ErrorSource::Host);
    let refused = bus.change_errors(|bus| bus.inject(spas(0, 64), mark)).unwrap_err();
    assert!(matches!(refused, ChangeError::NotKept(_)), "{refused}");
    assert_eq!(ranges(&bus), []);
    let refused = bus
        .change_errors(|bus| bus.inject_dimm(9, Dpa(0), 64, mark))
        .unwrap_err();
    assert!(
        matches!(refused, ChangeError::Refused(ErrorsError::NoDimm(9))),
        "{refused}"
    );
    *memory.broken.lock().unwrap() = false;
    bus.change_errors(|bus| bus.inject(spas(64, 64), mark)).unwrap();
    assert_eq!(ranges(&self::bus(&memory)), ranges(&bus));
}

#[test]
fn errors_that_the_dimm_cannot_have_are_refused_and_others_of_another_place_left_out() {
    let memory = Arc::new(Memory::default());
    let mut bus = bus(&memory);
    let range = |dpa: u64, len: u64| json!({"dpa": dpa, "len": len, "source": "host", "state": "known"});
    let at = |dpa: u64, len: u64| json!({"dpa": dpa, "len": len});
    for (section, why) in [
        (
            json!({"ranges": [range(0, 64), range(1 << 24, 64)], "injected": []}),
            "0x40 bad bytes at DPA 0x1000000",
        ),
        (
            json!({"ranges": [range(u64::MAX - 63, 64)], "injected": []}),
            "bad range 0x40 bytes",
        ),
        (
            json!({"ranges": [range(1, 64)], "injected": []}),
            "expected whole lines",
        ),
        (
            json!({"ranges": [], "injected": [at(1 << 24, 1)]}),
            "0x1 bad bytes at DPA 0x1000000",
        ),
        (
            json!({"ranges": [], "injected": [at(0, 0)]}),
            "0x0 bad bytes at DPA 0x0",
        ),
        (
            json!({"ranges": [], "injected": vec![at(0, 1); 4097]}),
            "4097 injected errors: expected at most 4096",
        ),
        (json!({"ranges": []}), "missing field"),
    ] {
        let mut state = DimmState::new(SERIAL);
        state.put("media", section);
        let error = bus.dimms[0].restore(&state, memory.clone()).unwrap_err().to_string();
        assert!(
            error.starts_with("its section \"media\" is damaged: ") && error.contains(why),
            "{error}"
        );
    }
    // Bytes beyond the DIMM's range are no record of it any more.
    let mut state = DimmState::new(SERIAL);
    state.put(
        "media",
        json!({"ranges": [], "injected": [at(0, u64::MAX), at(64, 1 << 24), at(128, 1)]}),
    );
    bus.dimms[0].restore(&state, memory.clone()).unwrap();
    bus.recall(|_| true);
    assert_eq!(bus.injected().records().collect::<Vec<_>>(), [spas(128, 1)]);
}
