//! Machines that are reset and start again, with guests of a few instructions.

use guest_tests::{
    api::{ApiClient, ctl},
    payload::{Guest, Program, Script, binary},
};
use serde_json::json;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What the guest leaves in its NVDIMM.
const MARK: u64 = 0x216e_6961_6761_6f6e;
/// A restart of the monitor on a busy host.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the console has `text` so many times.
fn said(guest: &Guest, text: &str, times: usize) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        let console = fs::read(guest.file("console")).unwrap_or_default();
        let found = console.windows(text.len()).filter(|w| *w == text.as_bytes()).count();
        if found >= times {
            return console;
        }
        assert!(begun.elapsed() < LIMIT, "{text} {found} times, not {times}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn guest_that_resets_itself_starts_again_over_the_same_nvdimm() {
    let guest = Guest::new(&Program::new(Script::marks_and_resets(MARK)))
        .flag("nvdimm", "size=16M")
        .flag("on-reset", "restart")
        .flag("api-socket", "%/api");
    let running = guest.start();
    let console = said(&guest, "on", 4);
    assert_eq!(console[..10], [&b"on"[..], &[0; 8]].concat());
    assert_eq!(console[10..20], [&b"on"[..], &MARK.to_le_bytes()].concat());
    // Also in the midst of resets it answers, or says that it cannot now, and ends when it is told to.
    let mut client = ApiClient::connect(&guest.file("api")).expect("an API socket");
    for _ in 0..20 {
        client.get("/vm").expect("an answer");
    }
    let requests = client.get("/vm/metrics").expect("an answer")["requests"].as_u64();
    assert!(requests >= Some(21), "requests are forgotten: {requests:?}");
    let ended = client.post("/vm/shutdown").expect("an answer");
    assert_eq!(ended["state"], "ending");
    running.end().expect(6);
}

#[test]
fn reboot_keeps_what_was_added_and_ends_what_was_under_way() {
    let guest = Guest::new(&Program::new(Script::new().say("on").halt()))
        .flag("numa", "node=0,hotplug=1G")
        .flag("memory-slots", "4")
        // Each has a file that has one user at a time: all of the first machine is gone when the second is built.
        .flag("nvdimm", "file=%/dimm,size=16M,encrypt=on,state=%/dimm.json")
        .flag("virtio-pmem", "file=%/pmem,size=128M")
        .flag("disk", "file=%/disk")
        .flag("limits", "static-max=1G")
        .flag("api-socket", "%/api");
    let disk = fs::File::create(guest.file("disk")).expect("room");
    disk.set_len(1 << 20).expect("room");
    let running = guest.start();
    said(&guest, "on", 1);
    let mut client = ApiClient::connect(&guest.file("api")).expect("an API socket");
    let limits = json!({"dynamic-max": "1G"});
    client.done("PUT", "/limits", Some(&limits)).expect("an answer");
    let file = guest.file("backing");
    let dimm = json!({"size": "128M", "id": "more", "file": file});
    let adding = client.begin("POST", "/memory/devices", Some(&dimm)).expect("begun");
    let nvdimm = json!({"size": "64M", "id": "late"});
    let second = client.begin("POST", "/nvdimms", Some(&nvdimm)).expect("begun");
    let since = client.get("/vm/metrics").expect("an answer")["events"].clone();
    client.post("/vm/pause").expect("an answer");
    assert_eq!(client.post("/vm/reboot").expect("an answer")["state"], "restarting");
    said(&guest, "on", 2);
    // The guest never looked; what it was given is there at its next boot.
    for operation in [adding, second] {
        let ended = client.ended(&operation).expect("an operation");
        assert_eq!(ended["state"], "unanswered", "{ended}");
    }
    let memory = client.get("/memory/devices").expect("a list");
    let device = &memory["devices"][0];
    assert_eq!(
        (&device["id"], &device["guest"]),
        (&json!("more"), &json!("at-boot")),
        "{memory}"
    );
    assert!(file.exists());
    let listed = client.get("/nvdimms").expect("a list");
    assert_eq!(listed["dimms"][1]["id"], "late", "{listed}");
    let map = client.get("/memory/map").expect("a map");
    let names: Vec<_> = map["map"].as_array().expect("a list").iter().collect();
    assert!(names.iter().any(|entry| entry["name"] == "late"), "{map}");
    let limits = client.get("/limits").expect("limits");
    assert_eq!(limits["limits"]["dynamic-max"], "1G", "{limits}");
    let events = client.get(&format!("/vm/events?since={since}")).expect("events");
    let states: Vec<_> = events["events"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["state"].as_str())
        .collect();
    assert_eq!(states, ["pausing", "paused", "restarting", "running"], "{events}");
    let shown = ctl(&binary(), &guest.file("api"), &["reboot"]).expect("a client");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "the machine is restarting\n");
    said(&guest, "on", 3);
    client.post("/vm/shutdown").expect("an answer");
    running.end().expect(6);
}
