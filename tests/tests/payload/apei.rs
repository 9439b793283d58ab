//! Errors that a guest is told of and that it makes itself, with guests of a few instructions.

use guest_tests::{
    api::ApiClient,
    payload::{Guest, Program, Running, Script},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::FileExt, path::Path, thread, time::Duration};
use vmm::layout::{self, ABOVE_4G, ports};

const MIB: u64 = 1 << 20;
/// RAM that no script uses.
const RAM: u64 = 48 * MIB;
const PMEM: u64 = ABOVE_4G.0;
/// Parts of the error interfaces.
const ACKNOWLEDGE: u64 = ports::APEI;
const EINJ: u64 = ports::APEI + 8;
const PARAMETERS: u64 = layout::APEI.start.0 + 0x100;
const BUSY: u64 = layout::APEI.start.0 + 0x210;
const STATUS: u64 = layout::APEI.start.0 + 0x218;
const BLOCK: u64 = layout::APEI.start.0 + 0x1000;

fn machine(script: Script, file: &Path) -> Guest {
    Guest::new(&Program::new(script))
        .flag("nvdimm", &format!("file={},size=16M,id=bad", file.display()))
        .flag("api-socket", "%/api")
}

fn tell(file: &Path, word: u32) {
    let file = fs::File::options().write(true).open(file).expect("the backing");
    file.write_all_at(&word.to_le_bytes(), 0).expect("written");
}

fn notify(client: &mut ApiClient, body: &Value) -> Value {
    client.done("POST", "/faults/notify", Some(body)).expect("an answer")
}

/// Reported, acknowledged, waiting.
fn counts(client: &mut ApiClient, source: usize) -> [u64; 3] {
    let list = client.get("/faults").expect("a list");
    ["reported", "acknowledged", "waiting"].map(|name| list["sources"][source][name].as_u64().expect("a number"))
}

fn until(client: &mut ApiClient, source: usize, wanted: [u64; 3]) {
    for _ in 0..100 {
        if counts(client, source) == wanted {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?}, not {wanted:?}", counts(client, source));
}

fn quit(running: Running<'_>, client: &mut ApiClient) {
    client.post("/vm/shutdown").expect("an answer");
    running.end().expect(6);
}

#[test]
fn a_source_tells_one_error_at_a_time_until_it_is_full() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let script = Script::new()
        .tables()
        .say("on")
        .wait(PMEM, 1)
        .dump(BLOCK, 4)
        .output(ACKNOWLEDGE, 4, 1)
        .say("read")
        .wait(PMEM, 2)
        .exit(5);
    let guest = machine(script, &file).flag("apei", "on");
    let (mut running, mut client) = guest.up();
    assert_eq!(counts(&mut client, 0), [0, 0, 0]);
    let told = notify(&mut client, &json!({"gpa": RAM, "severity": "corrected"}));
    assert_eq!(
        told,
        json!({"via": "ghes", "severity": "corrected", "gpa": RAM, "vcpu": null, "waiting": 1})
    );
    let told = notify(
        &mut client,
        &json!({"nvdimm": "bad", "dpa": 4096, "via": "ghes-polled"}),
    );
    assert_eq!(
        (&told["gpa"], &told["waiting"]),
        (&json!(PMEM + 4096), &json!(1)),
        "{told}"
    );
    let told = notify(&mut client, &json!({"vcpu": 0, "severity": "recoverable"}));
    assert_eq!((&told["vcpu"], &told["waiting"]), (&json!(0), &json!(2)), "{told}");
    tell(&file, 1);
    running.wait_for("read");
    until(&mut client, 0, [2, 1, 1]);
    assert_eq!(counts(&mut client, 1), [1, 0, 1]);
    for waiting in 2..=256 {
        assert_eq!(notify(&mut client, &json!({"gpa": RAM}))["waiting"], waiting);
    }
    let before = client.get("/faults").expect("a list");
    for asked in [json!({"gpa": RAM}), json!({"vcpu": 0, "severity": "corrected"})] {
        let refused = client
            .refused("POST", "/faults/notify", Some(&asked))
            .expect("a refusal");
        assert_eq!(refused.0, 409, "{asked}");
    }
    // What the platform knows of is not made bad without being told.
    let known = json!({"gpa": RAM, "known": true});
    let refused = client.refused("POST", "/faults", Some(&known)).expect("a refusal");
    assert_eq!(refused.0, 409);
    assert_eq!(client.get("/faults").expect("a list"), before);
    tell(&file, 2);
    // The block of the first error said: corrected, one entry.
    let output = running.end().expect(64 + 5);
    assert!(output.windows(4).any(|word| word == [0x12, 0, 0, 0]), "{output:?}");
}

#[test]
fn a_machine_check_that_cannot_be_taken_is_refused_and_without_firmware_nothing_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let guest = machine(Script::new().say("on").halt(), &dir.path().join("shared"));
    let (running, mut client) = guest.up();
    for severity in ["recoverable", "fatal"] {
        let asked = json!({"gpa": RAM, "severity": severity, "via": "machine-check"});
        let answer = client.send("POST", "/faults/notify", Some(&asked)).expect("an answer");
        let problem = answer.json().expect("a problem");
        // AMD's processors have no machine check for what nobody has consumed.
        if severity == "recoverable" && answer.status == 200 {
            assert_eq!(problem["vcpu"], 0, "{problem}");
            continue;
        }
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(answer.status == 409 && detail.contains("CR4.MCE is clear"), "{problem}");
    }
    for severity in ["corrected", "deferred"] {
        let asked = json!({"gpa": RAM, "severity": severity, "via": "machine-check"});
        let told = notify(&mut client, &asked);
        assert_eq!((&told["vcpu"], &told["waiting"]), (&json!(0), &json!(0)), "{told}");
    }
    let list = client.get("/faults").expect("a list");
    assert_eq!((&list["sources"], &list["faults"]), (&json!([]), &json!([])), "{list}");
    for (asked, status, field) in [
        (json!({"gpa": RAM}), 409, "via"),
        (json!({"vcpu": 0}), 409, "via"),
        (json!({"vcpu": 9}), 404, "vcpu"),
        (json!({"vcpu": -1}), 422, "vcpu"),
        (json!({"vcpu": 0, "via": "machine-check"}), 422, "vcpu"),
        (json!({"gpa": RAM + 1}), 422, "gpa"),
        (json!({"gpa": 0x10_0000}), 422, "gpa"),
        (json!({"gpa": "x"}), 422, "gpa"),
        (json!({"nvdimm": "none", "dpa": 0}), 404, "nvdimm"),
        (json!({"nvdimm": "bad", "dpa": 16 * MIB}), 422, "dpa"),
        (json!({"gpa": RAM, "severity": "bad"}), 422, "severity"),
        (json!({"gpa": RAM, "severity": "deferred"}), 422, "severity"),
        (json!({"gpa": RAM, "via": "mail"}), 422, "via"),
        (
            json!({"gpa": RAM, "threshold-exceeded": true}),
            422,
            "threshold-exceeded",
        ),
        (json!({"gpa": RAM, "len": 64}), 422, "len"),
    ] {
        let answer = client.send("POST", "/faults/notify", Some(&asked)).expect("an answer");
        let problem = answer.json().expect("a problem");
        assert_eq!(
            (answer.status, problem["field"].as_str()),
            (status, Some(field)),
            "{asked}: {problem}"
        );
    }
    quit(running, &mut client);
}

/// An injection: parameters, then EINJ's "execute", and the word that is waited for until it is done.
fn inject(script: Script, kind: u64, address: u64, mask: u64) -> Script {
    script
        .store(PARAMETERS, 4, kind)
        .store(PARAMETERS + 8, 4, 2)
        .store(PARAMETERS + 16, 8, address)
        .store(PARAMETERS + 24, 8, mask)
        .output(EINJ, 4, 5)
        .wait(BUSY, 0)
        .dump(STATUS, 8)
}

#[test]
fn a_guest_makes_its_own_memory_bad_and_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let page = !0xfffu64;
    let mut script = Script::new().tables();
    for (address, mask) in [
        (RAM, page),
        (PMEM + 8192, !63),
        (0x10_0000, page),
        (layout::APEI.start.0, page),
        (1 << 39, page),
        (u64::MAX, page),
    ] {
        script = inject(script, 1 << 4, address, mask);
    }
    // A corrected error has to be of memory as well, and a processor has to be there.
    script = inject(script, 1 << 3, 1 << 39, page);
    for apic_id in [9, 0] {
        script = script
            .store(PARAMETERS, 4, 1 << 1)
            .store(PARAMETERS + 8, 4, 1)
            .store(PARAMETERS + 12, 4, apic_id)
            .output(EINJ, 4, 5)
            .wait(BUSY, 0)
            .dump(STATUS, 8);
    }
    let script = script.say("on").wait(PMEM, 1).exit(5);
    let guest = machine(script, &file).flag("apei", "on");
    let (running, mut client) = guest.up();
    let list = client.get("/faults").expect("a list");
    let found: Vec<_> = list["faults"].as_array().expect("a list").iter().collect();
    let facts: Vec<_> = found
        .iter()
        .map(|fault| (&fault["gpa"], &fault["len"], &fault["source"], &fault["state"]))
        .collect();
    let (einj, latent) = (json!("einj"), json!("latent"));
    let (pmem, ram) = (json!(PMEM + 8192), json!(RAM));
    let (line, whole) = (json!(64), json!(4096));
    assert_eq!(
        facts,
        [(&pmem, &line, &einj, &latent), (&ram, &whole, &einj, &latent)],
        "{list}"
    );
    tell(&file, 1);
    let output = running.end().expect(64 + 5);
    let status: Vec<u8> = output.chunks(8).take(9).map(|word| word[0]).collect();
    assert_eq!(status, [0, 0, 2, 2, 2, 2, 2, 2, 0], "{output:?}");
}
