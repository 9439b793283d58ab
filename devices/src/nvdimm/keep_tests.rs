use super::*;
use crate::nvdimm::guid::INTEL_DIMM_DSM;
use serde_json::Value;

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
    let mut bus = BusState::new(NfitPlan::default(), vec![dimm], clock);
    bus.keep().unwrap();
    bus
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
