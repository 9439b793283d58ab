//! What a DIMM remembers from one run to the next, as the guest's firmware calls show it.

use devices::nvdimm::guid::INTEL_DIMM_DSM;
use guest_tests::{
    Scratch,
    api::ApiClient,
    payload::{Guest, Program, SCRATCH, Script, nvdimm},
};
use std::fs;
use vmm::layout::ports;

/// Sleep control: type 5 and the enable bit (ACPI 6.5 4.8.3.7).
const S5: u32 = 5 << 2 | 1 << 5;

/// A call of the Intel family on the first DIMM.
fn call(function: u32, input: &[u8]) -> Vec<u8> {
    let revision = if function > 10 { 2 } else { 1 };
    nvdimm::call(1, INTEL_DIMM_DSM, revision, function, input)
}

/// A guest that makes one call, sends `shown` bytes of the reply, and goes on with `then`.
fn guest(call: &[u8], shown: u64, state: &str, then: impl FnOnce(Script) -> Script) -> Guest {
    let script = Script::new().nvdimm_call(SCRATCH, call.len(), shown);
    let program = Program::new(then(script)).data(SCRATCH, call.to_vec());
    Guest::new(&program).flag("nvdimm", &format!("size=16M,state={state}"))
}

fn power_off(script: Script) -> Script {
    script.output(ports::ACPI + 4, 1, S5).spin()
}

/// Whether the last shutdown was unsafe, and how many were.
fn shutdowns(state: &str) -> (bool, u32) {
    let smart = guest(&call(1, &[]), 132, state, power_off).run().expect(0);
    (smart[35] != 0, u32::from_le_bytes(smart[20..24].try_into().unwrap()))
}

const LATCH: &[u8] = &[1];

#[test]
fn only_a_latched_guest_that_did_not_shut_down_counts_an_unsafe_shutdown() {
    let folder = Scratch::new("state").unwrap();
    let state = folder.text("dimm.json");
    assert_eq!(shutdowns(&state), (false, 42));
    let say = |script: Script| script.say("latched").spin();
    let killed = |input: &[u8]| {
        let guest = guest(&call(10, input), 4, &state, say);
        let mut running = guest.start();
        running.wait_for("latched");
        // The monitor is killed with its guest.
        drop(running);
    };
    killed(LATCH);
    assert_eq!(shutdowns(&state), (true, 43), "killed");
    assert_eq!(shutdowns(&state), (false, 43), "shut down since");
    killed(&[0]);
    assert_eq!(shutdowns(&state), (false, 43), "killed, not latched");
    guest(&call(10, LATCH), 4, &state, power_off).run().expect(0);
    assert_eq!(shutdowns(&state), (false, 43), "powered off");
    guest(&call(10, LATCH), 4, &state, |s| s.output(ports::ACPI + 6, 1, 1).spin())
        .run()
        .expect(3);
    assert_eq!(shutdowns(&state), (false, 43), "reset");
    guest(&call(10, LATCH), 4, &state, Script::fault).run().expect(5);
    assert_eq!(shutdowns(&state), (true, 44), "triple fault");
    let terminated = guest(&call(10, LATCH), 4, &state, say);
    let mut running = terminated.start();
    running.wait_for("latched");
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert_eq!(shutdowns(&state), (true, 45), "terminated");
    let reset = guest(&call(10, LATCH), 4, &state, say).flag("api-socket", "%/api");
    let mut running = reset.start();
    running.wait_for("latched");
    let mut client = ApiClient::connect(&reset.file("api")).unwrap();
    client.post("/vm/reboot").unwrap();
    // In between is what the call gave.
    running.wait_for("latched\0\0\0\0latched");
    client.post("/vm/shutdown").unwrap();
    running.end().expect(6);
    assert_eq!(shutdowns(&state), (true, 47), "reset and ended over the API");
}

#[test]
fn thresholds_are_remembered_and_without_a_state_nothing_is() {
    let folder = Scratch::new("state").unwrap();
    let state = folder.text("dimm.json");
    let set = [4, 0, 10, 1, 2, 3, 4];
    guest(&call(17, &set), 4, &state, power_off).run().expect(0);
    let thresholds = guest(&call(2, &[]), 12, &state, power_off).run().expect(0);
    assert_eq!(thresholds[4..11], set);

    let smart = call(2, &[]);
    let script = Script::new().nvdimm_call(SCRATCH, smart.len(), 12);
    let forgetful = Guest::new(&Program::new(power_off(script)).data(SCRATCH, smart)).flag("nvdimm", "size=16M");
    assert_eq!(forgetful.run().expect(0)[4..7], [3, 0, 5]);
}

#[test]
fn a_state_that_cannot_be_used_is_refused_and_stays() {
    let folder = Scratch::new("state").unwrap();
    let state = folder.text("dimm.json");
    let path = folder.join("dimm.json");
    let refused = |expected: &str| {
        let ended = guest(&call(1, &[]), 4, &state, power_off).run();
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert!(ended.stderr.contains("hint:"), "{}", ended.stderr);
        ended.expect(2);
    };
    assert_eq!(shutdowns(&state), (false, 42));
    let good = fs::read_to_string(&path).unwrap();
    for (bytes, expected) in [
        (String::new(), "it is damaged"),
        (good.replace("\"version\": 1", "\"version\": 9"), "it has version 9"),
        (
            good.replace("\"serial\": 119", "\"serial\": 118"),
            "it belongs to the DIMM",
        ),
        (
            good.replace("shutdown_count", "shutdowns"),
            "its section \"health\" is damaged",
        ),
        (good[..good.len() / 2].to_owned(), "it is damaged"),
    ] {
        fs::write(&path, &bytes).unwrap();
        refused(expected);
        assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
    }
    fs::write(&path, &good).unwrap();
    let first = guest(&call(1, &[]), 4, &state, |s| s.say("on").spin());
    let mut running = first.start();
    running.wait_for("on");
    refused("is in use by another process");
    drop(running);
    assert_eq!(shutdowns(&state), (false, 42));
}
