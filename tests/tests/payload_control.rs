//! The control socket: requests to a running machine, and clients that mean no good.

use guest_tests::{
    control::{ControlClient, ctl},
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
use vmm::layout::ports;

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
    Guest::new(&program)
        .flag("cpus", "2")
        .flag("control-socket", "%/control")
}

fn idle() -> Guest {
    Guest::new(&Program::new(Script::new().say("on").halt())).flag("control-socket", "%/control")
}

fn socket(guest: &Guest) -> PathBuf {
    guest.file("control")
}

fn started(guest: &Guest) -> (Running<'_>, ControlClient) {
    let mut running = guest.start();
    running.wait_for("on");
    let client = ControlClient::connect(&socket(guest)).expect("a control socket");
    (running, client)
}

/// A request that must be done.
#[track_caller]
fn done(client: &mut ControlClient, request: Value) -> Value {
    let reply = client.call(&request).expect("a reply");
    assert_eq!(reply["id"], 7, "{reply}");
    assert!(reply["ok"].is_object(), "{request}: {reply}");
    reply["ok"].clone()
}

/// A request that must be refused; gives the error's type.
#[track_caller]
fn refused(client: &mut ControlClient, request: Value) -> String {
    let reply = client.call(&request).expect("a reply");
    let error = &reply["error"];
    assert!(error["detail"].is_string(), "{request}: {reply}");
    error["type"].as_str().expect("a type").to_owned()
}

fn quit(running: Running<'_>, client: &mut ControlClient) {
    assert_eq!(done(client, json!("quit"))["state"], "ending");
    assert_eq!(client.receive().expect("an end"), Value::Null);
    running.end().expect(6);
}

#[test]
fn limits_are_read_and_the_dynamic_ones_changed() {
    let guest = idle()
        .flag("memory", "128M")
        .flag("limits", "static-max=512M,dynamic-max=256M,dynamic-min=64M");
    let (running, mut client) = started(&guest);
    let get = json!({"limits": "get"});
    let before = done(&mut client, get.clone());
    let all = |max: &str, target: &str, min: &str| json!({"static-max": "512M", "dynamic-max": max, "target": target, "dynamic-min": min, "static-min": "64M"});
    assert_eq!(before["limits"], all("256M", "128M", "64M"));
    assert_eq!(
        before["used"],
        json!({"boot": "128M", "devices": "0", "resizable": "0"})
    );
    let changed = done(
        &mut client,
        json!({"limits": {"set": {"target": "300M", "dynamic-max": "512M"}}}),
    );
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
        assert_eq!(
            refused(&mut client, json!({"limits": {"set": change}})),
            kind,
            "{change}"
        );
        assert_eq!(done(&mut client, get.clone()), changed, "{change} must change nothing");
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
        .flag("control-socket", "%/control");
    let (running, mut client) = started(&guest);
    let mode = fs::metadata(socket(&guest)).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let machine = done(&mut client, json!("describe"));
    assert_eq!(machine["state"], "running");
    assert_eq!(machine["plan"]["vcpus"].as_array().map(Vec::len), Some(2));
    let ram: u64 = machine["plan"]["map"]
        .as_array()
        .expect("a map")
        .iter()
        .filter(|e| e["kind"] == "RAM")
        .count() as u64;
    assert!(ram >= 1 && machine["uptime_ms"].is_u64(), "{machine}");
    let list = done(&mut client, json!({"nvdimm": "list"}));
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
        assert_eq!(done(&mut client, json!("pause"))["state"], "paused");
        thread::sleep(SETTLED);
        let before = sent();
        thread::sleep(2 * SETTLED);
        assert_eq!(sent(), before, "a paused guest sent something");
        assert_eq!(refused(&mut client, json!("pause")), "wrong-state");
        assert_eq!(refused(&mut client, json!("power-button")), "wrong-state");
        let machine = done(&mut client, json!("describe"));
        assert_eq!(machine["state"], "paused");
        assert!(
            machine["paused_ms"].as_u64().expect("a time") >= 400,
            "{}",
            machine["paused_ms"]
        );
        assert_eq!(done(&mut client, json!("resume"))["state"], "running");
        assert_eq!(refused(&mut client, json!("resume")), "wrong-state");
    }
    // Without a breath between them, and with the client gone before its reply.
    for _ in 0..50 {
        done(&mut client, json!("pause"));
        done(&mut client, json!("resume"));
    }
    let mut hasty = ControlClient::connect(&socket(&guest)).expect("a second client");
    hasty.send(1, &json!("pause")).expect("room for a line");
    drop(hasty);
    let deadline = Instant::now() + Duration::from_secs(20);
    while done(&mut client, json!("describe"))["state"] != "paused" {
        assert!(Instant::now() < deadline, "the pause of a client that left is lost");
    }
    done(&mut client, json!("resume"));
    grows(sent());
    quit(running, &mut client);
}

/// A reader that has stopped holds the guest's processors, and nothing else.
#[test]
fn console_that_nobody_reads_stops_neither_control_nor_a_pause() {
    const SOON: Duration = Duration::from_secs(2);
    let guest = counting().flag("console", "stdio");
    let mut running = guest.start();
    running.wait_for_full_pipe();
    let mut client = ControlClient::connect(&socket(&guest)).expect("a control socket");
    for _ in 0..5 {
        let since = Instant::now();
        assert_eq!(done(&mut client, json!("describe"))["state"], "running");
        assert_eq!(done(&mut client, json!("pause"))["state"], "paused");
        assert_eq!(done(&mut client, json!("resume"))["state"], "running");
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        // More than the pipe and the monitor hold: the guest has gone on.
        running.read_some(300_000);
        running.wait_for_full_pipe();
    }
    let since = Instant::now();
    quit(running, &mut client);
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[test]
fn paused_machine_still_ends() {
    let guest = counting();
    let (running, mut client) = started(&guest);
    done(&mut client, json!("pause"));
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert!(!socket(&guest).exists());

    let guest = counting();
    let (running, mut client) = started(&guest);
    done(&mut client, json!("pause"));
    quit(running, &mut client);
}

#[test]
fn replies_carry_their_ids_and_a_last_line_needs_no_end() {
    let guest = idle();
    let (running, mut client) = started(&guest);
    for id in 0..200 {
        client.send(id, &json!({"nvdimm": "list"})).expect("room");
    }
    for id in 0..200 {
        assert_eq!(client.receive().expect("a reply")["id"], id);
    }
    let mut piped = UnixStream::connect(socket(&guest)).expect("a client");
    piped
        .write_all(b"{\"request\":\"pause\"}\n{\"request\":\"describe\"}")
        .expect("room");
    piped.shutdown(std::net::Shutdown::Write).expect("half a connection");
    let mut text = String::new();
    piped.read_to_string(&mut text).expect("two replies and an end");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(r#"{"id":null,"ok":{"state":"paused"}}"#), "{text}");
    quit(running, &mut client);
}

#[test]
fn hostile_clients_hurt_nobody_else() {
    let guest = counting();
    let (running, mut client) = started(&guest);
    let connect = || ControlClient::connect(&socket(&guest)).expect("a client");

    let mut garbage = connect();
    for line in ["hello", "\u{0}\u{1}", "{}", "[1,2", r#"{"request":"fly"}"#] {
        garbage
            .stream()
            .write_all(format!("{line}\n").as_bytes())
            .expect("room");
        let reply = garbage.receive().expect("a reply");
        assert!(
            ["malformed", "invalid-request"]
                .iter()
                .any(|t| reply["error"]["type"] == *t),
            "{reply}"
        );
    }
    assert_eq!(done(&mut garbage, json!("describe"))["state"], "running");

    let mut endless = connect();
    let chunk = [b'x'; 64 << 10];
    while endless.stream().write_all(&chunk).is_ok() {}
    assert_eq!(endless.receive().expect("a reply")["error"]["type"], "too-long");

    // Asks and asks and never reads.
    let mut deaf = connect();
    deaf.stream().set_nonblocking(true).expect("a socket");
    let questions = "{\"request\":\"describe\"}\n".repeat(1000);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let _ = deaf.stream().write(questions.as_bytes());
    }
    let asked = Instant::now();
    assert_eq!(done(&mut client, json!("describe"))["state"], "running");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());

    let mut crowd: Vec<_> = (0..100).map(|_| connect()).collect();
    let served = crowd.iter_mut().filter_map(|c| {
        c.send(7, &json!("describe")).ok();
        let reply = c.receive().ok()?;
        assert!(reply["ok"].is_object() || reply["error"]["type"] == "busy", "{reply}");
        reply["ok"].is_object().then_some(())
    });
    // This one, the one with the garbage and the deaf one have their places.
    assert_eq!(served.count(), 13);
    drop(crowd);
    let deadline = Instant::now() + Duration::from_secs(20);
    while connect().call(&json!("describe")).expect("a reply")["ok"].is_null() {
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
    assert_eq!(done(&mut client, json!("describe"))["state"], "running");
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
    assert!(err.contains("nothing") && err.contains("--control-socket"), "{err}");
    quit(running, &mut client);
    assert_eq!(run(&["describe"]).0, 3);
}
