//! The API: requests to a running machine, and clients that mean no good.

use guest_tests::{
    api::{ApiClient, ctl, raw},
    contract,
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
    let (running, mut client) = guest.up();
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
    let (running, mut client) = guest.up();
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
    let (running, mut client) = guest.up();
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

/// A reader that has stopped holds the guest's processors, and nothing else.
#[test]
fn console_that_nobody_reads_stops_neither_the_api_nor_a_pause() {
    const SOON: Duration = Duration::from_secs(2);
    let guest = counting().flag("console", "stdio");
    let mut running = guest.start();
    running.wait_for_full_pipe();
    let mut client = ApiClient::connect(&socket(&guest)).expect("an API socket");
    for _ in 0..5 {
        let since = Instant::now();
        assert_eq!(get(&mut client, "/vm")["state"], "running");
        assert_eq!(act(&mut client, "pause"), "paused");
        assert_eq!(act(&mut client, "resume"), "running");
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
    let (running, mut client) = guest.up();
    act(&mut client, "pause");
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert!(!socket(&guest).exists());

    let guest = counting();
    let (running, mut client) = guest.up();
    act(&mut client, "pause");
    quit(running, &mut client);
}

#[test]
fn one_connection_carries_many_requests_and_half_of_one_is_enough_for_answers() {
    let guest = idle();
    let (running, mut client) = guest.up();
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
    let (running, mut client) = guest.up();
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

/// Everything about the machine but the time.
fn snapshot(client: &mut ApiClient) -> Value {
    let mut whole = get(client, "/vm");
    for moving in ["uptime_ms", "paused_ms"] {
        whole[moving].take();
    }
    json!([whole, get(client, "/limits"), get(client, "/operations")])
}

#[test]
fn bad_values_of_every_field_of_every_route_are_refused_and_change_nothing() {
    let program = Program::new(Script::new().say("on").halt());
    let guest = Guest::new(&program)
        .flag("numa", "node=0,hotplug=1G")
        .flag("memory-slots", "4")
        .flag("nvdimm", "size=64M,id=first")
        .flag("api-socket", "%/api");
    let (running, mut client) = guest.up();
    let before = snapshot(&mut client);
    let file = |name: &str| guest.file(name).to_string_lossy().into_owned();
    let posted = |path: &str, body: Value| contract::Bad {
        method: "POST".into(),
        path: path.into(),
        body: Some(body),
    };
    // A backing that another process has, and a state that is none.
    let taken = fs::File::create(file("taken")).expect("a file");
    taken.set_len(64 << 20).expect("room");
    taken.try_lock().expect("nobody else");
    fs::write(file("garbage"), "not a state").expect("room");
    let by_hand = [
        json!({}),
        json!({"size": "1M"}),
        json!({"size": "64M", "id": "first"}),
        json!({"size": "64M", "id": ""}),
        json!({"size": "64M", "node": 64}),
        json!({"size": "64M", "node": 3}),
        json!({"size": "64M", "bus": 3}),
        json!({"size": "64M", "handle": "0x77"}),
        json!({"size": 67_108_865}),
        json!({"size": 0}),
        json!({"size": "16E"}),
        json!({"size": u64::MAX}),
        json!({"size": "64M", "label": "1G"}),
        json!({"size": "64M", "label": 5}),
        json!({"size": "64M", "file": file("no/such/folder")}),
        json!({"size": "64M", "file": file("no/../../such/../folder/x")}),
        json!({"size": "64M", "file": "/dev/null"}),
        json!({"size": "64M", "file": "/etc"}),
        json!({"size": "64M", "file": ""}),
        json!({"size": "64M", "encrypt": true}),
        json!({"size": "64M", "state": file("no/such/folder")}),
        json!({"size": "64M", "backing": "devdax"}),
        json!({"size": "64M", "file": file("taken")}),
        json!({"size": "64M", "state": file("garbage")}),
    ];
    let memory = [
        json!({}),
        json!({"size": "1M"}),
        json!({"size": "129M"}),
        json!({"size": "2G"}),
        json!({"size": "128M", "id": ""}),
        json!({"size": "128M", "node": 1}),
        json!({"size": "128M", "slot": 4}),
        json!({"size": "128M", "cold": true}),
        json!({"size": "128M", "file": file("no/such/folder")}),
        json!({"size": "128M", "file": "/etc"}),
        json!({"size": "64M", "file": file("taken")}),
        json!({"file": file("taken")}),
        json!({"size": "128M", "file": file("taken"), "offset": "64M"}),
    ];
    let ranges = [
        json!({"file": "/dev/null", "as": "memory"}),
        json!({"file": file("taken"), "as": "memory", "size": "128M"}),
        json!({"file": file("taken"), "as": "nvdimm"}),
        json!({"file": file("taken"), "as": "soft-reserved", "size": "64M"}),
        json!({"file": file("no/such/node"), "as": "soft-reserved", "size": "128M"}),
        json!({"file": "/dev/null", "as": "soft-reserved", "size": "128M"}),
        json!({"file": "/dev/null", "as": "soft-reserved"}),
        json!({"file": "/dev/null", "as": "ram", "size": "128M"}),
    ];
    let mut bad: Vec<_> = by_hand.into_iter().map(|body| posted("/nvdimms", body)).collect();
    bad.extend(memory.into_iter().map(|body| posted("/memory/devices", body)));
    bad.extend(ranges.into_iter().map(|body| posted("/dax-ranges", body)));
    bad.extend(contract::bad_requests());
    let mut fields = 0;
    for request in &bad {
        let said = client.send(&request.method, &request.path, request.body.as_ref());
        let said = said.unwrap_or_else(|e| panic!("{request:?}: {e}"));
        assert!((400..500).contains(&said.status), "{request:?}: {said:?}");
        let problem = said.json().expect("a problem");
        fields += usize::from(problem["field"].is_string());
        assert_eq!(snapshot(&mut client), before, "{request:?} changed something");
    }
    assert!(bad.len() > 300, "{}", bad.len());
    assert!(
        fields * 10 > bad.len() * 8,
        "{fields} of {} problems name a field",
        bad.len()
    );
    quit(running, &mut client);
}

#[test]
fn a_guest_that_never_answers_leaves_its_operation_unanswered() {
    let program = Program::new(Script::new().say("on").halt());
    let guest = Guest::new(&program).flag("nvdimm-bus", "0").flag("api-socket", "%/api");
    let (running, mut client) = guest.up();
    let body = json!({"size": "64M", "id": "late"});
    let answer = client.send("POST", "/nvdimms", Some(&body)).expect("an answer");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.location.as_deref(), Some("/api/v1/operations/1"));
    let operation = answer.json().expect("an operation");
    assert_eq!(
        (&operation["state"], &operation["target"]),
        (&json!("running"), &json!("late"))
    );
    let again = client.refused("POST", "/nvdimms", Some(&body)).expect("an answer");
    assert_eq!(again, (409, "conflict".to_owned()));
    assert_eq!(
        get(&mut client, "/operations")["operations"].as_array().map(Vec::len),
        Some(1)
    );
    let waited = ctl(
        &binary(),
        &socket(&guest),
        &["operation", "show", "1", "--wait", "--timeout", "2"],
    );
    let waited = waited.expect("a client");
    let text = String::from_utf8_lossy(&waited.stdout).into_owned();
    assert!(
        waited.status.code() == Some(5) && text.contains("waits for the guest"),
        "{waited:?}"
    );
    let ended = get(&mut client, "/operations/1?wait=60");
    assert_eq!(
        (&ended["state"], &ended["error"]),
        (&json!("unanswered"), &Value::Null),
        "{ended}"
    );
    assert_eq!(ended["result"]["fit_seen"], 0);
    // The DIMM is there all the same.
    assert_eq!(get(&mut client, "/nvdimms/late")["slot"], 0);
    quit(running, &mut client);
}

#[test]
fn events_reach_every_reader_and_the_log_remembers_them() {
    let guest = idle();
    let (running, mut client) = guest.up();
    let mut follower = std::process::Command::new(binary());
    follower.arg("ctl").arg("--api-socket").arg(socket(&guest));
    let follower = follower.args(["events", "--follow", "--since", "0"]);
    let followed = guest.file("followed");
    let output = fs::File::create(&followed).expect("room");
    let mut follower = follower.stdout(output).spawn().expect("a client");
    // Never reads what it asked for.
    let mut deaf = UnixStream::connect(socket(&guest)).expect("a client");
    deaf.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("room");
    for _ in 0..600 {
        act(&mut client, "pause");
        act(&mut client, "resume");
    }
    let list = get(&mut client, "/vm/events");
    let (events, lost) = (list["events"].as_array().expect("a list"), list["lost"].as_u64());
    assert_eq!(events.len(), 256);
    assert_eq!(events[0]["seq"].as_u64(), lost.map(|lost| lost + 1), "{}", events[0]);
    let newest = get(&mut client, "/vm/metrics")["events"].as_u64().expect("a number");
    let mut seen = vec![];
    let mut second = ApiClient::connect(&socket(&guest)).expect("a client");
    let path = format!("/events?since={}", newest - 3);
    let read = second.stream(&path, |event| {
        seen.push(event);
        seen.len() < 3
    });
    read.expect("a stream");
    assert_eq!(seen[2]["seq"], newest, "{seen:?}");
    let told = get(&mut client, &format!("/vm/events?since={}", newest - 3));
    assert_eq!(told["events"].as_array(), Some(&seen));
    quit(running, &mut client);
    let status = follower.wait().expect("its end");
    let text = fs::read_to_string(&followed).expect("text");
    assert!(
        status.success() && text.contains("the end: ended over the API"),
        "{text}"
    );
    assert!(
        text.contains("the machine is paused") && text.contains("request: pause"),
        "{text}"
    );
}

#[test]
fn socket_is_replaced_only_when_nobody_listens() {
    let guest = idle();
    let (running, mut client) = guest.up();
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
    let (running, mut client) = guest.up();
    quit(running, &mut client);
}

#[test]
fn ctl_says_what_became_of_the_request() {
    let guest = idle();
    let (running, mut client) = guest.up();
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
