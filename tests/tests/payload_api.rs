//! The API: requests to a running machine, and clients that mean no good.

use guest_tests::{
    api::{ApiClient, ctl, raw},
    payload::{Guest, Program, Running, SCRATCH, Script, binary},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};
use vmm::{api::MAX_CLIENTS, layout::ports};

/// More bytes than a payload sends while a test lasts.
const ENDLESS: u64 = 1 << 40;
/// Two ticks of the machine's loop: what the guest has sent before is in the file by then.
const SETTLED: Duration = Duration::from_millis(150);

/// Counts on the console as fast as it can, for ever; a second processor spins.
fn counting() -> Guest {
    let count = Script::new()
        .start_processor(1)
        .say("on")
        .output_string(ports::COM1, 1, SCRATCH, ENDLESS);
    let program = Program::new(count).processor(1, Script::new().spin());
    Guest::new(&program).flag("cpus", "2").flag("api-socket", "%/api")
}

fn idle() -> Guest {
    Guest::new(&Program::new(Script::new().say("on").halt())).flag("api-socket", "%/api")
}

fn socket(guest: &Guest) -> PathBuf {
    guest.file("api")
}

fn started(guest: &Guest) -> (Running<'_>, ApiClient) {
    let mut running = guest.start();
    running.wait_for("on");
    let client = ApiClient::connect(&socket(guest)).expect("an API socket");
    (running, client)
}

/// Looks at something, which must succeed.
#[track_caller]
fn get(client: &mut ApiClient, path: &str) -> Value {
    client.get(path).expect("an answer")
}

/// Does something to the machine, which must succeed; gives its state.
#[track_caller]
fn act(client: &mut ApiClient, verb: &str) -> Value {
    client.post(&format!("/vm/{verb}")).expect("an answer")["state"].clone()
}

/// Something that must be refused; gives the error's type.
#[track_caller]
fn refused(client: &mut ApiClient, verb: &str) -> (u16, String) {
    let refused = client.refused("POST", &format!("/vm/{verb}"), None);
    refused.expect("an answer")
}

fn wrong_state() -> (u16, String) {
    (409, "wrong-state".to_owned())
}

fn quit(running: Running<'_>, client: &mut ApiClient) {
    assert_eq!(act(client, "shutdown"), "ending");
    running.end().expect(6);
    assert!(client.get("/vm").is_err(), "the connection outlives the machine");
}

#[test]
fn limits_are_read_and_the_dynamic_ones_changed() {
    let guest = idle()
        .flag("memory", "128M")
        .flag("limits", "static-max=512M,dynamic-max=256M,dynamic-min=64M");
    let (running, mut client) = started(&guest);
    let before = get(&mut client, "/limits");
    let all = |max: &str, target: &str, min: &str| json!({"static-max": "512M", "dynamic-max": max, "target": target, "dynamic-min": min, "static-min": "64M"});
    assert_eq!(before["limits"], all("256M", "128M", "64M"));
    assert_eq!(
        before["used"],
        json!({"boot": "128M", "devices": "0", "resizable": "0"})
    );
    let wider = json!({"target": "300M", "dynamic-max": "512M"});
    let changed = client.done("PUT", "/limits", Some(&wider)).expect("an answer");
    assert_eq!(changed["limits"], all("512M", "300M", "64M"));
    for (change, kind) in [
        (json!({"static-max": "1G"}), "conflict"),
        (json!({"static-min": "66M"}), "conflict"),
        (json!({"dynamic-max": "514M"}), "conflict"),
        (json!({"target": "514M"}), "conflict"),
        (json!({"dynamic-min": "302M"}), "conflict"),
        (json!({"target": "200M", "dynamic-min": "202M"}), "conflict"),
        (json!({"target": "129M"}), "invalid-request"),
        (json!({"target": "62M"}), "invalid-request"),
        (json!({"target": -1}), "invalid-request"),
        (json!({"target": "much"}), "invalid-request"),
        (json!({"goal": "128M"}), "invalid-request"),
    ] {
        let refused = client.refused("PUT", "/limits", Some(&change)).expect("an answer");
        assert_eq!(refused.1, kind, "{change}");
        assert_eq!(get(&mut client, "/limits"), changed, "{change} must change nothing");
    }
    let shown = ctl(&binary(), &socket(&guest), &["limits", "set", "target=128M"]).expect("a client");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("target: 128M"), "{text}");
    quit(running, &mut client);
}

#[test]
fn machine_describes_itself() {
    let program = Program::new(Script::new().say("on").halt());
    let guest = Guest::new(&program)
        .flag("cpus", "2")
        .flag("nvdimm", "size=64M,id=first")
        .flag("nvdimm", "size=32M,label=0")
        .flag("api-socket", "%/api");
    let (running, mut client) = started(&guest);
    let mode = fs::metadata(socket(&guest)).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let machine = get(&mut client, "/vm");
    assert_eq!(machine["state"], "running");
    assert_eq!(machine["plan"]["vcpus"].as_array().map(Vec::len), Some(2));
    let ram: u64 = machine["plan"]["map"]
        .as_array()
        .expect("a map")
        .iter()
        .filter(|e| e["kind"] == "RAM")
        .count() as u64;
    assert!(ram >= 1 && machine["uptime_ms"].is_u64(), "{machine}");
    let list = get(&mut client, "/nvdimms");
    assert_eq!(list, machine["nvdimm"]);
    assert_eq!((&list["fit_generation"], &list["fit_seen"]), (&json!(1), &json!(0)));
    let (first, second) = (&list["dimms"][0], &list["dimms"][1]);
    assert_eq!(
        (&first["id"], &first["slot"], &first["handle"]),
        (&json!("first"), &json!(0), &json!(1))
    );
    assert_eq!(first["len"], (64 << 20) - (128 << 10));
    assert_eq!(
        (&first["label_size"], &second["label_size"]),
        (&json!(128 << 10), &json!(0))
    );
    assert_eq!(second["start"], machine["plan"]["nvdimms"][1]["start"]);

    let shown = ctl(&binary(), &socket(&guest), &["describe"]).expect("a client");
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0));
    for words in ["machine: running", "guest physical map", "vCPU 1:", "first: slot 0"] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    let shown = ctl(&binary(), &socket(&guest), &["--json", "nvdimm", "list"]).expect("a client");
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).expect("JSON"), list);
    quit(running, &mut client);
    assert!(!socket(&guest).exists(), "the socket is left");
}

#[test]
fn paused_guest_stands_still_and_goes_on() {
    let guest = counting();
    let (running, mut client) = started(&guest);
    let sent = || fs::metadata(guest.file("console")).expect("a console").len();
    let grows = |from: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while sent() <= from {
            assert!(Instant::now() < deadline, "the guest does not go on after {from} bytes");
            thread::sleep(Duration::from_millis(5));
        }
    };
    for _ in 0..5 {
        grows(sent());
        assert_eq!(act(&mut client, "pause"), "paused");
        thread::sleep(SETTLED);
        let before = sent();
        thread::sleep(2 * SETTLED);
        assert_eq!(sent(), before, "a paused guest sent something");
        assert_eq!(refused(&mut client, "pause"), wrong_state());
        assert_eq!(refused(&mut client, "power-button"), wrong_state());
        let machine = get(&mut client, "/vm");
        assert_eq!(machine["state"], "paused");
        assert!(
            machine["paused_ms"].as_u64().expect("a time") >= 400,
            "{}",
            machine["paused_ms"]
        );
        assert_eq!(act(&mut client, "resume"), "running");
        assert_eq!(refused(&mut client, "resume"), wrong_state());
    }
    // Without a breath between them, and with the client gone before its reply.
    for _ in 0..50 {
        act(&mut client, "pause");
        act(&mut client, "resume");
    }
    let mut hasty = UnixStream::connect(socket(&guest)).expect("a second client");
    hasty
        .write_all(b"POST /api/v1/vm/pause HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("room for a request");
    drop(hasty);
    let deadline = Instant::now() + Duration::from_secs(20);
    while get(&mut client, "/vm")["state"] != "paused" {
        assert!(Instant::now() < deadline, "the pause of a client that left is lost");
    }
    act(&mut client, "resume");
    grows(sent());
    quit(running, &mut client);
}

#[test]
fn paused_machine_still_ends() {
    let guest = counting();
    let (running, mut client) = started(&guest);
    act(&mut client, "pause");
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert!(!socket(&guest).exists());

    let guest = counting();
    let (running, mut client) = started(&guest);
    act(&mut client, "pause");
    quit(running, &mut client);
}

#[test]
fn one_connection_carries_many_requests_and_half_of_one_is_enough_for_answers() {
    let guest = idle();
    let (running, mut client) = started(&guest);
    for _ in 0..200 {
        assert_eq!(get(&mut client, "/nvdimms")["fit_generation"], 0);
    }
    let request = |verb: &str, path: &str| format!("{verb} /api/v1{path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let both = request("POST", "/vm/pause") + &request("GET", "/vm");
    let answers = raw(&socket(&guest), both.as_bytes()).expect("two answers and an end");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(answers.contains(r#"{"state":"paused"}"#), "{answers}");
    quit(running, &mut client);
}

#[test]
fn hostile_clients_hurt_nobody_else() {
    let guest = counting();
    let (running, mut client) = started(&guest);
    let connect = || ApiClient::connect(&socket(&guest)).expect("a client");

    for nonsense in ["hello\r\n\r\n", "\u{0}\u{1}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let answer = raw(&socket(&guest), nonsense.as_bytes()).expect("an end");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{nonsense}: {answer}"
        );
    }
    let endless_head = [b"GET /".to_vec(), vec![b'x'; 1 << 20]].concat();
    let answer = raw(&socket(&guest), &endless_head).unwrap_or_default();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    let mut endless = UnixStream::connect(socket(&guest)).expect("a client");
    let head = "POST /api/v1/nvdimms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1099511627776\r\n\r\n";
    endless.write_all(head.as_bytes()).expect("room");
    let chunk = [b' '; 64 << 10];
    while endless.write_all(&chunk).is_ok() {}
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("problem:too-long"),
        "{answer}"
    );

    // Asks and asks and never reads.
    let mut deaf = UnixStream::connect(socket(&guest)).expect("a client");
    deaf.set_nonblocking(true).expect("a socket");
    let questions = "GET /api/v1/vm HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let _ = deaf.write(questions.as_bytes());
    }
    let asked = Instant::now();
    assert_eq!(get(&mut client, "/vm")["state"], "running");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());

    // A head that never ends holds its place, and nothing else.
    let mut slow = UnixStream::connect(socket(&guest)).expect("a client");
    slow.write_all(b"GET /api/v1/vm HT").expect("room");

    let mut crowd: Vec<_> = (0..200).map(|_| connect()).collect();
    let served = crowd.iter_mut().filter_map(|c| {
        let answer = c.send("GET", "/vm", None).ok()?;
        let content = answer.json().expect("JSON");
        let busy = content["type"] == "urn:daxvisor:problem:busy";
        assert!(answer.status == 200 || (answer.status == 503 && busy), "{content}");
        (answer.status == 200).then_some(())
    });
    // This one, the deaf one and the slow one have their places.
    assert_eq!(served.count(), MAX_CLIENTS - 3);
    drop(crowd);
    let deadline = Instant::now() + Duration::from_secs(20);
    while connect().get("/vm").is_err() {
        assert!(Instant::now() < deadline, "places are not given back");
    }
    quit(running, &mut client);
}

#[test]
fn socket_is_replaced_only_when_nobody_listens() {
    let guest = idle();
    let (running, mut client) = started(&guest);
    let second = guest.run();
    assert!(
        second.stderr.contains("in use") && second.stderr.contains("hint:"),
        "{}",
        second.stderr
    );
    second.expect(2);
    assert_eq!(get(&mut client, "/vm")["state"], "running");
    running.signal(libc::SIGKILL);
    drop(running);
    assert!(socket(&guest).exists(), "a killed monitor cannot clean up");
    let dead = ctl(&binary(), &socket(&guest), &["describe"]).expect("a client");
    assert_eq!(dead.status.code(), Some(3), "{dead:?}");
    fs::remove_file(guest.file("console")).expect("the first run's console");
    let (running, mut client) = started(&guest);
    quit(running, &mut client);
}

#[test]
fn ctl_says_what_became_of_the_request() {
    let guest = idle();
    let (running, mut client) = started(&guest);
    let run = |args: &[&str]| {
        let output = ctl(&binary(), &socket(&guest), args).expect("a client");
        (
            output.status.code().expect("an exit code"),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run(&["pause"]), (0, "the machine is paused\n".into(), String::new()));
    let (code, out, err) = run(&["power-button"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("error: the machine is paused") && err.contains("hint: resume"),
        "{err}"
    );
    assert_eq!(run(&["--json", "resume"]).1, "{\n  \"state\": \"running\"\n}\n");
    assert_eq!(run(&["explode"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    let missing = ctl(&binary(), &guest.file("nothing"), &["describe"]).expect("a client");
    let err = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(3));
    assert!(err.contains("nothing") && err.contains("--api-socket"), "{err}");
    quit(running, &mut client);
    assert_eq!(run(&["describe"]).0, 3);
}
