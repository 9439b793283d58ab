//! Any bytes are a DIMM's state file: reading them must neither panic nor make a DIMM with bad ranges that it cannot have, and
//! what is understood is written back as it was.
#![no_main]

use devices::{
    Clock,
    nvdimm::{
        BusState, NfitPlan, NvdimmPlan,
        media::LINE,
        state::{DimmState, StateStore},
    },
    units::Gpa,
};
use libfuzzer_sys::fuzz_target;
use std::{io, sync::Arc};

const SERIAL: u32 = 0x12_3456;
const CAPACITY: u64 = 1 << 24;

/// The sections that are read. The fuzzer fills in one of them, so that it need not find the frame around it.
const SECTIONS: [&str; 4] = ["health", "firmware", "media", "security"];

struct Nowhere;

impl StateStore for Nowhere {
    fn put(&self, _: &str, _: serde_json::Value) -> io::Result<()> {
        Ok(())
    }
}

fn check(bytes: &[u8]) {
    let Ok(state) = DimmState::decode(bytes, SERIAL) else {
        return;
    };
    let again = DimmState::decode(&state.encode(), SERIAL).expect("what was written is read");
    assert_eq!(again, state);
    let plan = NvdimmPlan::plain(0, "nvdimm0".to_owned(), CAPACITY, 256, false);
    let nfit = NfitPlan::plain([(plan.clone(), Gpa(1 << 32), 0)]);
    let clock = Clock::manual();
    let mut dimm = devices::nvdimm::Dimm::new(plan, Box::new(vec![0u8; 256]), &clock);
    if dimm.restore(&state, Arc::new(Nowhere)).is_err() {
        assert!(dimm.media.is_empty(), "an error changes nothing");
        return;
    }
    for range in dimm.media.ranges() {
        assert!(range.len > 0 && range.len % LINE == 0 && range.dpa.0 % LINE == 0);
        assert!(range.dpa.0 + range.len <= CAPACITY);
    }
    let mut bus = BusState::new(nfit, vec![dimm], clock);
    bus.recall(|_| true);
    for record in bus.injected().records() {
        assert!(record.start >= Gpa(1 << 32) && record.end() <= Gpa((1 << 32) + CAPACITY));
    }
    bus.shut_down().expect("it can be kept");
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let Some((choice, text)) = data.split_first() else {
        return;
    };
    let (Some(name), Ok(text)) = (SECTIONS.get(usize::from(*choice)), str::from_utf8(text)) else {
        return;
    };
    let whole = format!(
        r#"{{"format":"daxvisor-dimm","version":1,"serial":{SERIAL},"sections":{{"{name}":{text}}}}}"#
    );
    check(whole.as_bytes());
});
