//! Memory errors over the API: made, shown, cleared and refused, in every kind of memory, and what outlasts what.

use guest_tests::{
    api::{ApiClient, ctl},
    facts::processor_time,
    payload::{Guest, Program, Running, Script, binary},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::FileExt, path::Path, thread, time::Duration};
use vmm::layout::ABOVE_4G;

const MIB: u64 = 1 << 20;
/// RAM that no script uses.
const RAM: u64 = 48 * MIB;
/// Where the persistent memory stands, and the memory device behind it.
const PMEM: u64 = ABOVE_4G.0;

fn machine(script: Script) -> Guest {
    Guest::new(&Program::new(script))
        .flag("numa", "node=0,hotplug=1G")
        .flag("nvdimm", "size=16M,id=bad")
        .flag("memory-slots", "2")
        .flag("memory-device", "128M,id=hot")
        .flag("virtio-mem", "size=256M,id=grow")
        .flag("api-socket", "%/api")
}

fn faults(client: &mut ApiClient) -> Value {
    client.get("/faults").expect("a list")
}

fn ids(client: &mut ApiClient) -> Vec<String> {
    let list = faults(client);
    let all = list["faults"].as_array().expect("a list").iter();
    all.map(|fault| fault["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn inject(client: &mut ApiClient, body: &Value) -> Value {
    client.done("POST", "/faults", Some(body)).expect("a report")
}

/// First byte of what the map has under `name`.
fn start_of(client: &mut ApiClient, name: &str) -> u64 {
    let map = client.get("/memory/map").expect("a map");
    let all = map["map"].as_array().expect("a list");
    let entry = all.iter().find(|entry| entry["name"] == name);
    entry.unwrap_or_else(|| panic!("{name}: {map}"))["start"]
        .as_u64()
        .expect("a number")
}

/// Writes the word that a guest waits for to the file of its persistent memory.
fn tell(file: &Path, word: u32) {
    let file = fs::File::options().write(true).open(file).expect("the backing");
    file.write_all_at(&word.to_le_bytes(), 0).expect("written");
}

fn quit(running: Running<'_>, client: &mut ApiClient) {
    client.post("/vm/shutdown").expect("an answer");
    running.end().expect(6);
}

#[test]
fn every_kind_of_memory_can_be_bad_and_good_again() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let (hot, grow) = (start_of(&mut client, "hot"), start_of(&mut client, "grow"));
    for (gpa, kind, name, id) in [
        (RAM, "RAM", Value::Null, format!("{RAM:#x}")),
        (PMEM + 4096, "NVDIMM", json!("bad"), "bad@0x1000".to_owned()),
        (hot + 64, "memory device", json!("hot"), format!("{:#x}", hot + 64)),
        (grow + 128, "virtio-mem", json!("grow"), format!("{:#x}", grow + 128)),
    ] {
        let asked = json!({"gpa": gpa, "dry-run": true});
        let told = inject(&mut client, &asked);
        assert_eq!((&told["dry_run"], ids(&mut client)), (&json!(true), vec![]), "{told}");
        let done = inject(&mut client, &json!({"gpa": gpa, "len": 128}));
        let place = &done["places"][0];
        assert_eq!(
            (&place["gpa"], &place["len"], &place["kind"], &place["name"]),
            (&json!(gpa), &json!(128), &json!(kind), &name),
            "{done}"
        );
        assert_eq!(
            (
                &place["node"],
                &place["linux_node"],
                &place["load"],
                &done["mechanisms"]
            ),
            (&json!(0), &json!(0), &json!("machine-check"), &json!(["slot-hole"])),
            "{done}"
        );
        assert_eq!(told["places"][0]["name"], name);
        let list = faults(&mut client);
        let fault = &list["faults"][0];
        assert_eq!(
            (
                &fault["id"],
                &fault["gpa"],
                &fault["len"],
                &fault["state"],
                &fault["consumable"]
            ),
            (&json!(id), &json!(gpa), &json!(128), &json!("latent"), &json!(true)),
            "{list}"
        );
        assert_eq!(list["pages"], 1, "{list}");
        // The first line alone, then what is left by its name.
        client
            .done("POST", "/faults/clear", Some(&json!({"gpa": gpa})))
            .expect("cleared");
        let left = ids(&mut client);
        assert_eq!(left.len(), 1, "{left:?}");
        client
            .done("DELETE", &format!("/faults/{}", left[0].replace('@', "%40")), None)
            .expect("cleared");
        let list = faults(&mut client);
        assert_eq!((&list["faults"], &list["pages"]), (&json!([]), &json!(0)), "{list}");
    }
    // By the DIMM's own address, and known.
    let done = inject(&mut client, &json!({"nvdimm": "bad", "dpa": 8192, "known": true}));
    assert_eq!(done["places"][0]["gpa"], PMEM + 8192, "{done}");
    assert_eq!(faults(&mut client)["faults"][0]["state"], "known");
    client
        .done("POST", "/faults/clear", Some(&json!({"nvdimm": "bad", "dpa": 8192})))
        .expect("cleared");
    assert_eq!(ids(&mut client), Vec::<String>::new());
    quit(running, &mut client);
}

#[test]
fn lines_at_random_are_the_same_for_a_seed() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let asked = |seed: u64, dry: bool| json!({"node": 0, "count": 50, "seed": seed, "dry-run": dry});
    let first = inject(&mut client, &asked(1, true));
    let places = first["places"].as_array().expect("a list").clone();
    assert_eq!(places.len(), 50);
    assert_ne!(inject(&mut client, &asked(2, true))["places"], first["places"]);
    assert_eq!(ids(&mut client), Vec::<String>::new());
    client.post("/vm/pause").expect("a pause");
    assert_eq!(inject(&mut client, &asked(1, false))["places"], first["places"]);
    let gpas = |list: &[Value]| {
        list.iter()
            .filter_map(|one| one["gpa"].as_u64())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let list = faults(&mut client);
    let listed = list["faults"].as_array().expect("a list");
    assert_eq!(gpas(listed), gpas(&places));
    client.post("/vm/resume").expect("a guest that runs");
    quit(running, &mut client);
}

#[test]
fn pages_that_are_not_caught_are_told() {
    let guest = machine(Script::new().say("on").halt()).flag("poison", "userfaultfd=off");
    let (running, mut client) = guest.up();
    let many = inject(&mut client, &json!({"node": 0, "count": 3000, "seed": 3}));
    let missed = many["places"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|place| place["load"] == "not-caught")
        .count();
    let list = faults(&mut client);
    assert!(
        missed > 1000 && list["pages_left_out"].as_u64() >= Some(1000),
        "{missed}"
    );
    assert_eq!(
        (&list["mechanisms"], &list["pages_trapped"]),
        (&json!(["slot-hole"]), &json!(0))
    );
    quit(running, &mut client);
}

/// As many errors as a storm has are made in one request, and the guest goes on. They take less than a second of the monitor's time,
/// wherever they are: close together, and so far apart that there are more pages than can be taken out of their slot.
#[test]
fn a_hundred_thousand_lines_are_one_request() {
    many_lines("64M");
    let pages = many_lines("1G");
    assert!(
        pages > 10 * 1024,
        "{pages} pages, of which 1024 runs are enough for slots"
    );
}

/// Pages whose accesses are caught.
fn many_lines(memory: &str) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let guest = Guest::new(&Program::new(Script::new().say("on").halt()))
        .flag("memory", memory)
        .flag("api-socket", "%/api");
    let (running, mut client) = guest.up();
    let pid = client.get("/vm").expect("a machine")["pid"].as_u64().expect("a number");
    let before = processor_time(pid).expect("a time");
    let report = inject(&mut client, &json!({"node": 0, "count": 100_000, "seed": 5}));
    let took = processor_time(pid).expect("a time") - before;
    assert!(took < SECOND, "{memory}: {took} ns");
    assert_eq!(report["places"].as_array().map(Vec::len), Some(100_000));
    let list = faults(&mut client);
    let lines: u64 = list["faults"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|fault| fault["len"].as_u64())
        .sum();
    assert_eq!(lines, 100_000 * 64, "neighbours are one range, and nothing is lost");
    assert_eq!(client.get("/vm/state").expect("a state")["state"], "running");
    let pages = ["pages", "pages_trapped"].map(|key| list[key].as_u64().expect("a number"));
    quit(running, &mut client);
    pages.iter().sum()
}

#[test]
fn what_is_no_memory_is_refused_and_changes_nothing() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    inject(&mut client, &json!({"gpa": RAM}));
    let before = faults(&mut client);
    let end = 64 * MIB;
    for (body, status, kind, field) in [
        (json!({"gpa": 0xf_0000}), 422, "invalid-request", "gpa"),
        (json!({"gpa": 0xa_0000}), 422, "invalid-request", "gpa"),
        (json!({"gpa": 0xd000_0000u64}), 422, "invalid-request", "gpa"),
        (json!({"gpa": 0xfee0_0000u64}), 422, "invalid-request", "gpa"),
        (json!({"gpa": end}), 422, "invalid-request", "gpa"),
        (json!({"gpa": end - 64, "len": 128}), 422, "invalid-request", "gpa"),
        (
            json!({"gpa": PMEM + 16 * MIB - 64, "len": 128}),
            422,
            "invalid-request",
            "gpa",
        ),
        (json!({"gpa": 1u64 << 46}), 422, "invalid-request", "gpa"),
        (json!({"gpa": RAM, "len": 0}), 422, "invalid-request", "len"),
        (json!({"gpa": RAM, "len": 65}), 422, "invalid-request", "len"),
        (json!({"gpa": RAM + 1}), 422, "invalid-request", "gpa"),
        (json!({"gpa": u64::MAX - 63}), 422, "invalid-request", "len"),
        (
            json!({"gpa": u64::MAX - 127, "len": u64::MAX - 63}),
            422,
            "invalid-request",
            "len",
        ),
        (json!({"nvdimm": "none", "dpa": 0}), 404, "not-found", "nvdimm"),
        (json!({"nvdimm": "bad", "dpa": 16 * MIB}), 422, "invalid-request", "dpa"),
        (
            json!({"nvdimm": "bad", "dpa": 0, "len": 32 * MIB}),
            422,
            "invalid-request",
            "dpa",
        ),
        (json!({"nvdimm": "bad"}), 422, "invalid-request", "dpa"),
        (json!({"node": 7}), 404, "not-found", "node"),
        (json!({"node": 0, "count": 0}), 422, "invalid-request", "count"),
        (json!({"node": 0, "count": 100_001}), 422, "invalid-request", "count"),
        (json!({"node": 0, "gpa": RAM}), 422, "invalid-request", "gpa"),
        (json!({}), 422, "invalid-request", "gpa"),
        (json!({"gpa": RAM, "latent": true}), 422, "invalid-request", "latent"),
    ] {
        for dry in [true, false] {
            let mut asked = body.clone();
            asked["dry-run"] = dry.into();
            let answer = client.send("POST", "/faults", Some(&asked)).expect("an answer");
            let problem = answer.json().expect("a problem");
            let found = problem["type"].as_str().and_then(|kind| kind.rsplit(':').next());
            assert_eq!(
                (answer.status, found, problem["field"].as_str()),
                (status, Some(kind), Some(field)),
                "{asked}: {problem}"
            );
            assert_eq!(faults(&mut client), before, "{asked}");
        }
    }
    for (method, path, body, status) in [
        ("POST", "/faults/clear", Some(json!({"gpa": RAM + 1})), 422),
        ("POST", "/faults/clear", Some(json!({"gpa": end})), 422),
        ("POST", "/faults/clear", Some(json!({})), 422),
        ("POST", "/faults/clear", Some(json!({"node": 0})), 422),
        ("DELETE", "/faults/0x0", None, 404),
        ("DELETE", "/faults/bad%400x0", None, 404),
    ] {
        let refused = client.refused(method, path, body.as_ref()).expect("a refusal");
        assert_eq!(refused.0, status, "{method} {path}");
        assert_eq!(faults(&mut client), before, "{method} {path}");
    }
    quit(running, &mut client);
}

#[test]
fn ctl_speaks_of_faults_and_watches_them() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let socket = guest.file("api");
    let said = |args: &[&str]| {
        let done = ctl(&binary(), &socket, args).expect("a client");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        (done.status.code(), text + &String::from_utf8_lossy(&done.stderr))
    };
    let at = format!("{RAM:#x}");
    let dry = said(&["fault", "inject", &at, "--dry-run"]);
    assert!(
        dry.0 == Some(0) && dry.1.contains("(RAM, node 0)") && dry.1.ends_with("nothing was changed\n"),
        "{dry:?}"
    );
    assert_eq!(said(&["fault", "inject", &at]).0, Some(0));
    assert!(
        said(&["fault", "list"])
            .1
            .contains(&format!("{at}: 0x40 bytes at {at}, latent, made by the host"))
    );
    assert_eq!(
        said(&["fault", "inject", "--dimm", "bad", "--dpa", "4K", "--len", "128"]).0,
        Some(0)
    );
    assert_eq!(
        said(&["fault", "clear", "--id", "bad@0x1000"]),
        (Some(0), "bad@0x1000 is good\n".to_owned())
    );
    assert_eq!(
        said(&["fault", "clear", &at]),
        (Some(0), format!("0x40 bytes at {at} are good\n"))
    );
    assert_eq!(
        said(&["fault", "inject", "--node", "0", "--count", "3", "--seed", "9"]).0,
        Some(0)
    );
    for wrong in [
        &["fault", "inject", "--count", "3"][..],
        &["fault", "inject", &at, "--node", "0"],
        &["fault", "clear", &at, "--id", "x"],
        &["fault", "inject", "--dimm", "bad"],
    ] {
        assert_eq!(said(wrong).0, Some(2), "{wrong:?}");
    }
    let refused = said(&["fault", "inject", "0x31"]);
    assert!(
        refused.0 == Some(1) && refused.1.contains("the line begins at 0x0"),
        "{refused:?}"
    );
    assert_eq!(faults(&mut client)["faults"].as_array().map(Vec::len), Some(3));
    let watching = {
        let (program, socket) = (binary(), socket.clone());
        thread::spawn(move || ctl(&program, &socket, &["fault", "watch", "--since", "0"]).expect("a client"))
    };
    thread::sleep(Duration::from_millis(200));
    quit(running, &mut client);
    let watched = watching.join().expect("a thread");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    let words: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("memory error: "))
        .map(|(_, words)| words)
        .collect();
    assert_eq!(
        words[..4],
        [
            &format!("0x40 bytes at {at} made bad"),
            &format!("0x80 bytes at {:#x} made bad", PMEM + 4096),
            &format!("0x80 bytes at {:#x} made good", PMEM + 4096),
            &format!("0x40 bytes at {at} made good"),
        ],
        "{text}"
    );
    assert!(words[4].starts_with("0xc0 bytes in 3 ranges, the first at "), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
}

/// Processors begin with `CR4.MCE` clear, and this program leaves it so.
#[test]
fn a_load_of_bad_ram_ends_a_machine_that_takes_no_machine_checks() {
    let guest = machine(Script::new().tables().say("on").wait(RAM + 8, 1).exit(1));
    let (running, mut client) = guest.up();
    let body = json!({"gpa": RAM});
    // The guest may be gone before it can be answered.
    let _ = client.send("POST", "/faults", Some(&body));
    let ended = running.end();
    assert!(ended.stderr.contains("CR4.MCE is clear"), "{}", ended.stderr);
    ended.expect(7);
}

/// Where the payload has its page tables.
const TABLES: u64 = 0x130_0000;

#[test]
fn a_page_table_on_bad_memory_ends_the_machine_with_the_reason() {
    let guest = machine(Script::new().tables().say("on").wait(RAM + 8, 1).exit(1));
    let (running, mut client) = guest.up();
    // A line that the walk has no use for: of such a page nothing can be walked.
    let _ = client.send("POST", "/faults", Some(&json!({"gpa": TABLES + 0xfc0})));
    let ended = running.end();
    let wanted = format!("the page table at {TABLES:#x}, on the way to the instruction at ");
    assert!(ended.stderr.contains(&wanted), "{}", ended.stderr);
    ended.expect(7);
}

#[test]
fn a_triple_fault_beside_bad_memory_is_a_triple_fault() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let guest = Guest::new(&Program::new(Script::new().tables().say("on").wait(PMEM, 1).fault()))
        .flag("nvdimm", &format!("file={},size=16M,id=bad", file.display()))
        .flag("api-socket", "%/api");
    let (running, mut client) = guest.up();
    inject(&mut client, &json!({"gpa": RAM}));
    inject(&mut client, &json!({"gpa": PMEM + 4096}));
    tell(&file, 1);
    running.end().expect(5);
}

#[test]
fn errors_go_with_their_memory_device() {
    let script = Script::new()
        .tables()
        .say("on")
        .wait(PMEM, 1)
        .eject(0)
        .say("gone")
        .wait(PMEM, 2)
        .exit(5);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let guest = Guest::new(&Program::new(script))
        .flag("numa", "node=0,hotplug=1G")
        .flag("nvdimm", &format!("file={},size=16M,id=bad", file.display()))
        .flag("memory-slots", "2")
        .flag("memory-device", "128M,id=hot")
        .flag("api-socket", "%/api");
    let (mut running, mut client) = guest.up();
    let hot = start_of(&mut client, "hot");
    inject(&mut client, &json!({"gpa": hot + 4096, "known": true}));
    inject(&mut client, &json!({"gpa": hot + 8192, "len": 4096}));
    inject(&mut client, &json!({"gpa": RAM}));
    assert_eq!(faults(&mut client)["pages"], 3);
    tell(&file, 1);
    running.wait_for("gone");
    for _ in 0..100 {
        if ids(&mut client).len() == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ids(&mut client), [format!("{RAM:#x}")]);
    let events = client.get("/vm/events").expect("events");
    let all = events["events"].as_array().expect("a list");
    let gone = all
        .iter()
        .find(|event| event["change"] == "unplugged")
        .expect("an event");
    assert_eq!(
        (&gone["event"], &gone["gpa"], &gone["len"], &gone["ranges"]),
        (&json!("fault"), &json!(hot), &json!(4096 + 64), &json!(2))
    );
    // Memory that comes to the same place is good, and its pages are no holes.
    let device = json!({"size": "128M", "id": "again"});
    client
        .begin("POST", "/memory/devices", Some(&device))
        .expect("an operation");
    let list = faults(&mut client);
    assert_eq!(list["pages"], 1, "{list}");
    let refused = inject(&mut client, &json!({"gpa": hot, "dry-run": true}));
    assert_eq!(refused["places"][0]["name"], "again");
    tell(&file, 2);
    running.end().expect(64 + 5);
}

#[test]
fn a_reset_leaves_the_errors_of_nvdimms_alone() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let hot = start_of(&mut client, "hot");
    for gpa in [RAM, hot, PMEM + 4096] {
        inject(&mut client, &json!({"gpa": gpa}));
    }
    assert_eq!(faults(&mut client)["pages"], 3);
    client.post("/vm/reboot").expect("a reset");
    for _ in 0..1000 {
        if client.get("/vm/state").expect("a state")["state"] == "running" {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ids(&mut client), ["bad@0x1000"]);
    // The new machine has the hole as soon as its loop has looked.
    for _ in 0..100 {
        if faults(&mut client)["pages"] == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(faults(&mut client)["pages"], 1);
    quit(running, &mut client);
}

#[test]
fn a_line_that_is_stored_to_whole_is_good_again_where_that_is_wanted() {
    for (flag, left) in [("on", 0), ("off", 2)] {
        let mut script = Script::new().tables().say("on").wait(PMEM, 1);
        for word in 0..7 {
            script = script.store(RAM + 8 * word, 8, 0x5a);
        }
        script = script.say("most").wait(PMEM, 2).store(RAM + 56, 8, 0x5a);
        for word in 0..8 {
            script = script.store(PMEM + 4096 + 8 * word, 8, 0x5a);
        }
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("shared");
        let guest = Guest::new(&Program::new(script.say("all").wait(PMEM, 3).exit(5)))
            .flag("nvdimm", &format!("file={},size=16M,id=bad", file.display()))
            .flag("poison", &format!("clear-on-write={flag}"))
            .flag("api-socket", "%/api");
        let (mut running, mut client) = guest.up();
        for gpa in [RAM, PMEM + 4096] {
            inject(&mut client, &json!({"gpa": gpa}));
        }
        tell(&file, 1);
        running.wait_for("most");
        assert_eq!(ids(&mut client).len(), 2);
        tell(&file, 2);
        running.wait_for("all");
        assert_eq!(ids(&mut client).len(), left, "clear-on-write={flag}");
        tell(&file, 3);
        running.end().expect(64 + 5);
    }
}

#[test]
fn a_storm_comes_when_it_is_due_at_its_rate_and_can_be_stopped() {
    let guest = machine(Script::new().say("on").halt());
    let (running, mut client) = guest.up();
    let hot = start_of(&mut client, "hot");
    // All at once, a while later.
    let told = inject(&mut client, &json!({"gpa": RAM, "after-ms": 300}));
    assert_eq!(told["storm"], 1, "{told}");
    let list = faults(&mut client);
    assert_eq!(
        (&list["storms"][0]["left"], &list["faults"]),
        (&json!(1), &json!([])),
        "{list}"
    );
    wait_until(&mut client, |list| {
        list["faults"][0]["gpa"] == RAM && list["storms"] == json!([])
    });
    // One after the other; what is left is not made bad.
    let told = inject(&mut client, &json!({"node": 0, "per-gib": 4000, "seed": 5, "rate": 50}));
    let (storm, places) = (
        told["storm"].as_u64().expect("a number"),
        told["places"].as_array().expect("a list").len(),
    );
    assert!(places > 400, "{places}");
    wait_until(&mut client, |list| list["storms"][0]["done"].as_u64() >= Some(10));
    client
        .done("DELETE", &format!("/faults/storms/{storm}"), None)
        .expect("an answer");
    let count = ids(&mut client).len();
    assert!((11..places).contains(&count), "{count}");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ids(&mut client).len(), count);
    let again = client
        .refused("DELETE", &format!("/faults/storms/{storm}"), None)
        .expect("a refusal");
    assert_eq!(again.0, 404);
    // No guest, no time.
    client.post("/vm/pause").expect("an answer");
    inject(&mut client, &json!({"gpa": hot, "after-ms": 50}));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ids(&mut client).len(), count);
    client.post("/vm/resume").expect("an answer");
    wait_until(&mut client, |list| list["storms"] == json!([]));
    assert_eq!(ids(&mut client).len(), count + 1);
    for _ in 0..16 {
        inject(&mut client, &json!({"gpa": RAM, "after-ms": 3_600_000}));
    }
    let late = json!({"gpa": RAM, "rate": 1});
    let refused = client.refused("POST", "/faults", Some(&late)).expect("a refusal");
    assert_eq!(refused.0, 503);
    quit(running, &mut client);
}

fn wait_until(client: &mut ApiClient, wanted: impl Fn(&Value) -> bool) {
    for _ in 0..200 {
        if wanted(&faults(client)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{}", faults(client));
}
