//! Memory devices and guests of a few instructions: the registers through a real exit, memory that comes and goes, and
//! guests that refuse, or never answer.

use guest_tests::{
    api::ApiClient,
    payload::{Guest, Program, Running, SCRATCH, Script, binary},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use vmm::layout::ports;

const BASE: u64 = ports::MEMORY_HOTPLUG;
const MIB: u64 = 1 << 20;
const WINDOW: u64 = 4 << 30;
/// Flags: clear an insertion, clear a removal, eject.
const CLEAR_INSERT: u32 = 2;
const CLEAR_REMOVE: u32 = 4;
const EJECT: u32 = 8;

fn machine(script: Script) -> Guest {
    Guest::new(&Program::new(script))
        .flag("numa", "node=0,hotplug=2G")
        .flag("memory-slots", "4")
        .flag("api-socket", "%/api")
}

fn list(client: &mut ApiClient) -> Value {
    client.get("/memory/devices").expect("a list")
}

/// A request that does not come to what was asked; its problem.
fn problem(client: &mut ApiClient, request: &Value) -> Value {
    let done = client.memory(request).expect("an answer");
    done.expect_err("a problem")
}

/// Begins an addition or a removal.
fn begin(client: &mut ApiClient, request: &Value) -> Value {
    let begun = match request.get("add") {
        Some(device) => client.begin("POST", "/memory/devices", Some(device)),
        None => {
            let id = request["remove"]["id"].as_str().expect("a name");
            client.begin("DELETE", &format!("/memory/devices/{id}"), None)
        }
    };
    begun.expect("an operation")
}

/// Why an operation failed.
fn failure(client: &mut ApiClient, operation: &Value) -> (String, String) {
    let ended = client.ended(operation).expect("an operation");
    let text = |key: &str| ended["error"][key].as_str().unwrap_or("none").to_owned();
    let kind = text("type").rsplit(':').next().unwrap_or_default().to_owned();
    (kind, text("detail"))
}

fn error(problem: &Value) -> (&str, &str) {
    let text = |key: &str| problem[key].as_str().unwrap_or("none");
    (text("type"), text("detail"))
}

fn quit(running: Running<'_>, client: &mut ApiClient) {
    client.post("/vm/shutdown").expect("an answer");
    running.end().expect(6);
}

/// Sends flags, base and the low half of the length of slot 0.
fn taking(script: Script) -> Script {
    script
        .output(BASE, 4, 0)
        .input(BASE + 20, 4)
        .input(BASE, 4)
        .input(BASE + 4, 4)
        .input(BASE + 8, 4)
}

#[test]
fn memory_of_a_device_that_is_there_at_boot_is_the_guests_until_it_ejects_it() {
    let script = taking(Script::new().tables().say("on"))
        .store(WINDOW, 8, 0x1122_3344_5566_7788)
        .store(WINDOW + 128 * MIB - 8, 8, 7)
        .load(WINDOW, 8)
        .output(BASE + 4, 4, 0x103)
        .output(BASE + 8, 4, 0x84)
        .output(BASE + 20, 4, EJECT)
        .input(BASE + 20, 4)
        .say("gone")
        .halt();
    let guest = machine(script).flag("memory-device", "128M,id=a");
    let (mut running, mut client) = guest.up();
    running.wait_for("gone");
    // The loop hears of the ejection while the guest goes on.
    for _ in 0..100 {
        if list(&mut client)["devices"] == json!([]) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(list(&mut client)["devices"], json!([]));
    let console = fs::read(guest.file("console")).expect("a console");
    let sent = console.strip_prefix(b"on").expect("it began with that");
    let words = [1u32, 0, 1, 0x800_0000].map(u32::to_le_bytes).concat();
    let all = [&words[..], &0x1122_3344_5566_7788u64.to_le_bytes(), &[0; 4], b"gone"].concat();
    assert_eq!(sent, all);
    let reply = problem(&mut client, &json!({"remove": {"id": "a"}}));
    assert_eq!(error(&reply).0, "not-found");
    quit(running, &mut client);
}

#[test]
fn device_that_nobody_looks_at_is_taken_back_and_a_request_is_withdrawn() {
    let guest = machine(Script::new().say("on").halt()).flag("memory-device", "256M,id=cold,node=0");
    let (running, mut client) = guest.up();
    let before = list(&mut client);
    assert_eq!((&before["slots"], &before["block"]), (&json!(4), &json!(128 * MIB)));
    let cold = &before["devices"][0];
    assert_eq!(
        (&cold["id"], &cold["guest"], &cold["slot"], &cold["start"]),
        (&json!("cold"), &json!("at-boot"), &json!(0), &json!(WINDOW))
    );
    // What is wrong is told at once and changes nothing.
    for (request, kind, words) in [
        (
            json!({"add": {"size": "128M", "id": "cold"}}),
            "conflict",
            "there is a memory device cold already",
        ),
        (
            json!({"add": {"size": "128M", "slot": 0}}),
            "conflict",
            "slot 0 has the memory device cold",
        ),
        (
            json!({"add": {"size": "128M", "slot": 4}}),
            "invalid-request",
            "there are only 4",
        ),
        (
            json!({"add": {"size": "4G"}}),
            "invalid-request",
            "largest free range there is 1792M",
        ),
        (
            json!({"add": {"size": "100M"}}),
            "invalid-request",
            "expected 128M to 64T",
        ),
        (json!({"add": {"size": "128M", "node": 3}}), "invalid-request", "node 3"),
        (
            json!({"add": {"size": "128M", "cold": true}}),
            "invalid-request",
            "cold=on",
        ),
        (
            json!({"add": {"size": "128M", "file": "/does/not/exist"}}),
            "invalid-request",
            "/does/not",
        ),
        (json!({"add": {}}), "invalid-request", "has no size"),
        (json!({"add": {"size": -1}}), "invalid-request", ""),
        (
            json!({"remove": {"id": "x"}}),
            "not-found",
            "there is no memory device 'x'",
        ),
    ] {
        let reply = problem(&mut client, &request);
        let (found, detail) = error(&reply);
        assert!(found == kind && detail.contains(words), "{request}: {reply}");
        assert_eq!(list(&mut client), before, "{request}");
    }
    let reply = problem(&mut client, &json!({"remove": {"id": "cold", "deadline": 1}}));
    let (kind, detail) = error(&reply);
    assert_eq!(kind, "deadline", "{reply}");
    assert!(
        detail.contains("has not looked at the request, which is withdrawn"),
        "{reply}"
    );
    // Two at a time exclude each other; the one for a device that is added waits its 30 s.
    let file = guest.file("backing");
    let adding = begin(
        &mut client,
        &json!({"add": {"size": "128M", "id": "hot", "file": file}}),
    );
    let mut second = ApiClient::connect(&guest.file("api")).expect("a second client");
    let during = list(&mut second);
    assert_eq!(during["devices"][1]["guest"], "announced", "{during}");
    assert!(file.exists());
    let reply = problem(&mut second, &json!({"remove": {"id": "hot"}}));
    assert_eq!(error(&reply).0, "conflict", "{reply}");
    let (kind, detail) = failure(&mut client, &adding);
    assert_eq!(kind, "deadline", "{detail}");
    assert!(
        detail.contains("the guest has not looked at hot within 30 s; it is taken back"),
        "{detail}"
    );
    let after = list(&mut client);
    assert_eq!(after["devices"].as_array().map(Vec::len), Some(1), "{after}");
    assert!(!file.exists(), "the file of a failed addition is left");
    quit(running, &mut client);
}

#[test]
fn clients_killed_in_mid_request_leave_it_whole_or_undone() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let ids = |client: &mut ApiClient| -> Vec<String> {
        let list = list(client);
        let devices = list["devices"].as_array().expect("a list");
        devices
            .iter()
            .map(|device| device["id"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let until = |client: &mut ApiClient, expected: &[&str]| {
        let begun = Instant::now();
        while ids(client) != expected {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{:?}, not {expected:?}",
                ids(client)
            );
            thread::sleep(Duration::from_millis(5));
        }
    };
    let post = |body: &str, len: usize| {
        let head = "POST /api/v1/memory/devices HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let mut socket = UnixStream::connect(guest.file("api")).expect("a socket");
        let request = format!("{head}content-length: {len}\r\n\r\n{body}");
        socket.write_all(request.as_bytes()).expect("room");
    };
    // Half of a request is none.
    let body = r#"{"size": "128M", "id": "whole"}"#;
    post(&body[..12], body.len());
    client.get("/vm").expect("an answer");
    until(&mut client, &[]);
    // Whoever goes before the answer has asked all the same.
    post(body, body.len());
    until(&mut client, &["whole"]);
    let mut ctl = Command::new(binary())
        .args(["ctl", "--wait", "--api-socket"])
        .arg(guest.file("api"))
        .args(["memory", "add", "128M,id=killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a client");
    until(&mut client, &["whole", "killed"]);
    ctl.kill().expect("a child");
    ctl.wait().expect("a child");
    // Nobody waits for the guest's word, which does not come: both are taken back as for any client.
    let operations = client.get("/operations").expect("an answer");
    let running_ones = operations["operations"].as_array().map(Vec::len);
    assert_eq!(running_ones, Some(2), "{operations}");
    for operation in operations["operations"].as_array().expect("a list") {
        assert_eq!(failure(&mut client, operation).0, "deadline");
    }
    until(&mut client, &[]);
    quit(running, &mut client);
}

#[test]
fn refusals_are_told_with_what_the_guest_said() {
    // The guest would have to poll for events; a word in the backing's file tells it when there is one.
    let script = Script::new()
        .tables()
        .say("on")
        .wait(WINDOW, 1)
        .input(BASE + 24, 4)
        .output(BASE + 20, 4, CLEAR_REMOVE)
        .output(BASE + 4, 4, 3)
        .output(BASE + 8, 4, 0x84)
        .output(BASE + 4, 4, 3)
        .output(BASE + 8, 4, 0x82)
        .say("kept")
        .wait(WINDOW, 2)
        .input(BASE + 24, 4)
        .output(BASE + 20, 4, CLEAR_INSERT)
        .output(BASE + 4, 4, 1)
        .output(BASE + 8, 4, 1)
        .say("refused")
        .halt();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let guest = machine(script).flag("memory-device", &format!("128M,id=a,file={}", file.display()));
    let (mut running, mut client) = guest.up();
    let go = |word: u32| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&file).expect("the backing");
        file.write_all_at(&word.to_le_bytes(), 0).expect("written");
    };
    let removing = begin(&mut client, &json!({"remove": {"id": "a"}}));
    let mut second = ApiClient::connect(&guest.file("api")).expect("a second client");
    while list(&mut second)["devices"][0]["guest"] != "unplug-announced" {
        thread::sleep(Duration::from_millis(5));
    }
    go(1);
    let (kind, detail) = failure(&mut client, &removing);
    assert_eq!(kind, "refused", "{detail}");
    assert_eq!(
        detail,
        "the guest keeps a: _OST event 0x3 (eject request), status 0x82 (device busy)"
    );
    let steps = client.ended(&removing).expect("an operation")["steps"].clone();
    let last = steps.as_array().and_then(|steps| steps.last()).expect("a step");
    assert_eq!(
        (&last["action"], &last["event"], &last["status"], &last["meaning"]),
        (
            &json!("ost"),
            &json!(3),
            &json!(0x82),
            &json!("eject request: device busy")
        )
    );
    running.wait_for("kept");
    let kept = list(&mut second);
    let ost = json!({"event": 3, "status": 0x82, "text": "eject request: device busy"});
    assert_eq!(
        (&kept["devices"][0]["guest"], &kept["devices"][0]["ost"]),
        (&json!("unplug-refused"), &ost)
    );
    let adding = begin(&mut client, &json!({"add": {"size": "128M", "id": "b"}}));
    while list(&mut second)["devices"].as_array().map(Vec::len) != Some(2) {
        thread::sleep(Duration::from_millis(5));
    }
    go(2);
    let (kind, detail) = failure(&mut client, &adding);
    assert_eq!(
        (kind.as_str(), detail.as_str()),
        (
            "refused",
            "the guest does not add b: _OST event 0x1 (device check), status 0x1 (non-specific failure); it is taken back"
        )
    );
    assert_eq!(list(&mut second), kept, "a refused device is left");
    quit(running, &mut client);
}

#[test]
fn machine_without_slots_has_no_registers_and_says_so() {
    let script = Script::new().input(BASE + 20, 4).say("on").halt();
    let guest = Guest::new(&Program::new(script)).flag("api-socket", "%/api");
    let (running, mut client) = guest.up();
    let console = fs::read(guest.file("console")).expect("a console");
    assert_eq!(console, [&[0xff; 4][..], b"on"].concat());
    let reply = problem(&mut client, &json!({"add": {"size": "1G"}}));
    let (kind, detail) = error(&reply);
    assert_eq!(
        (kind, detail),
        ("invalid-request", "the machine has no slots for memory devices")
    );
    assert_eq!(
        list(&mut client),
        json!({"slots": 0, "block": 128 * MIB, "devices": []})
    );
    quit(running, &mut client);
}

#[test]
fn any_access_to_the_registers_is_survived() {
    let (mut script, mut seed) = (Script::new().tables(), 0x9e37_79b9_u32);
    for _ in 0..400 {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        let (offset, size) = (u64::from(seed >> 8) % 28, [1, 2, 4][(seed % 3) as usize]);
        script = match seed & 0x8000_0000 {
            0 => script.output(BASE + offset, size, seed),
            _ => script.input(BASE + offset, size),
        };
    }
    let guest = machine(script.store(SCRATCH, 4, 1).exit(3)).flag("memory-device", "128M");
    let ended = guest.flag("memory-device", "128M,slot=3").run();
    ended.expect(64 + 3);
}
