//! Flush hints of NVDIMMs from inside, as the API counts them.

use devices::nvdimm::FlushHints;
use guest_tests::{
    api::ApiClient,
    payload::{Guest, Program, SCRATCH, Script},
};
use serde_json::{Value, json};
use vmm::layout::{self, ABOVE_4G};

fn hint(slot: u8) -> u64 {
    FlushHints::hint(layout::FLUSH_HINTS.start, slot).0
}

/// Writes, flushes and failures of each DIMM's hint.
fn counts(guest: &Guest) -> Vec<Value> {
    let mut client = ApiClient::connect(&guest.file("api")).unwrap();
    let list = client.get("/nvdimms").unwrap();
    let dimms = list["dimms"].as_array().unwrap_or_else(|| panic!("{list}"));
    dimms.iter().map(|dimm| dimm["flush"].clone()).collect()
}

#[test]
fn hints_are_counted_by_dimm_and_only_those_that_promise_it_flush() {
    let script = Script::new()
        .tables()
        .store(ABOVE_4G.0, 8, 0xfeed)
        .store(hint(0), 8, 1)
        .store(hint(0) + 0x800, 4, 1)
        .store(hint(1), 8, 1)
        .store(hint(2), 8, 1)
        .store(hint(31), 1, 1)
        // A hint reads as zero, what is none as ones.
        .load(hint(0), 8)
        .load(hint(2), 8)
        .say("done")
        .spin();
    let guest = Guest::new(&Program::new(script))
        .flag("nvdimm", "file=%/a,size=16M,flush=msync")
        .flag("nvdimm", "file=%/b,size=16M,flush=count")
        .flag("nvdimm", "file=%/c,size=16M")
        .flag("api-socket", "%/api");
    let mut running = guest.start();
    running.wait_for("done");
    let counted = |writes: u64, flushes: u64| json!({"writes": writes, "flushes": flushes, "failed": 0});
    assert_eq!(counts(&guest), [counted(2, 2), counted(1, 0), Value::Null]);
    let sent = std::fs::read(guest.file("console")).unwrap();
    assert_eq!(sent[..16], [[0u8; 8], [0xff; 8]].concat());
    assert_eq!(std::fs::read(guest.file("a")).unwrap()[..8], 0xfeedu64.to_le_bytes());
}

#[test]
fn processors_flush_at_once_and_all_of_them_go_on() {
    // Each processor flushes both DIMMs many times; the machine is paused and resumed in the midst of it.
    const ROUNDS: u64 = 200;
    let done = SCRATCH + 0x1000;
    let flushes = |n: u64| {
        let round = |script: Script, round: u64| {
            script.store(ABOVE_4G.0 + (n << 16) + round * 64, 8, round).store(
                hint(u8::try_from(round % 2).unwrap()),
                8,
                1,
            )
        };
        (0..ROUNDS).fold(Script::new().tables(), round)
    };
    let other = |n: u64| flushes(n).store(done + 64 * n, 4, 1).spin();
    let mut script = Script::new();
    for n in 1..4 {
        script = script.start_processor(n);
    }
    let mut script = script.say("begun");
    for n in 1..4 {
        script = script.wait(done + 64 * n, 1);
    }
    let script = script.say("over").spin();
    let program = (1..4).fold(Program::new(script), |program, n| program.processor(n, other(n)));
    let guest = Guest::new(&program.data(done, [0; 512]))
        .flag("cpus", "4")
        .flag("nvdimm", "file=%/a,size=16M,flush=msync")
        .flag("nvdimm", "file=%/b,size=16M,encrypt=on")
        .flag("api-socket", "%/api");
    let mut running = guest.start();
    running.wait_for("begun");
    let mut client = ApiClient::connect(&guest.file("api")).unwrap();
    for verb in ["/vm/pause", "/vm/resume"] {
        client.post(verb).unwrap();
    }
    running.wait_for("over");
    for dimm in counts(&guest) {
        let number = |key: &str| dimm[key].as_u64().unwrap();
        assert_eq!((number("writes"), number("failed")), (3 * ROUNDS / 2, 0));
        assert!((1..=3 * ROUNDS / 2).contains(&number("flushes")), "{dimm}");
    }
}
