//! Resets of a machine that runs in the nested host: `--on-reset` reaches the run in there, and the API goes on out here.

use guest_tests::{
    api::ApiClient,
    payload::{Guest, Program, Script},
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What the guest leaves in its NVDIMM.
const MARK: u64 = 0x6e65_7374_6564_2121;
/// The nested host's start and a few restarts in it.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn guest_that_resets_itself_starts_again_in_the_nested_host() {
    let guest = Guest::new(&Program::new(Script::marks_and_resets(MARK)))
        .flag("host", "nested")
        .flag("nvdimm", "size=16M")
        .flag("on-reset", "restart")
        .flag("api-socket", "%/api");
    let begun = Instant::now();
    let running = guest.start();
    let console = loop {
        let console = fs::read(guest.file("console")).unwrap_or_default();
        if console.len() >= 40 {
            break console;
        }
        let said = fs::read_to_string(guest.file("stderr")).unwrap_or_default();
        assert!(
            begun.elapsed() < LIMIT,
            "{} bytes from the guest: {said}",
            console.len()
        );
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(console[..10], [&b"on"[..], &[0; 8]].concat());
    assert_eq!(console[10..20], [&b"on"[..], &MARK.to_le_bytes()].concat());
    assert_eq!(console[30..40], console[10..20]);
    let mut client = ApiClient::connect(&guest.file("api")).expect("an API socket");
    let list = client.get("/nvdimms").expect("an answer");
    assert_eq!(list["dimms"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(client.post("/vm/shutdown").expect("an answer")["state"], "ending");
    running.end().expect(6);
}
