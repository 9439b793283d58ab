//! The extended error log, with guests of a few instructions: the register that promises it, and where records lie.

use guest_tests::payload::{Guest, Program, Script};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::FileExt, path::Path};
use vmm::{
    layout::{self, ABOVE_4G},
    mce::{self, cap, msr},
};

/// RAM that no script uses.
const RAM: u64 = 48 << 20;
/// What the host changes while the guest waits.
const SHARED: u64 = ABOVE_4G.0;
const DIRECTORY: u64 = layout::EXTLOG.start.0;
const BLOCKS: u64 = DIRECTORY + 0x8000;
/// Reads of the register in a script.
const READS: usize = 200;

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn machine(script: Script, file: &Path, apei: &str) -> Guest {
    Guest::new(&Program::new(script))
        .flag("nvdimm", &format!("file={},size=16M,id=shared", file.display()))
        .flag("api-socket", "%/api")
        .flag("apei", apei)
}

fn tell(file: &Path, word: u32) {
    let file = fs::File::options().write(true).open(file).expect("the backing");
    file.write_all_at(&word.to_le_bytes(), 0).expect("written");
}

/// What the guest reads from `MCG_CAP`, and the exits that were for nothing else.
fn mcg_cap(apei: &str) -> (u64, u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let reads = (0..READS).fold(Script::new().tables(), |script, _| script.register(msr::MCG_CAP));
    let guest = machine(reads.say("on").wait(SHARED, 1).exit(5), &file, apei);
    let (running, mut client) = guest.up();
    let metrics = client.get("/vm/metrics").expect("counts");
    let exits = metrics["exits"]["other"].as_u64().expect("a number");
    tell(&file, 1);
    let sent = running.end().expect(64 + 5);
    let words: Vec<u64> = (0..READS).map(|n| long(&sent, 8 * n)).collect();
    assert!(words.iter().all(|word| *word == words[0]), "{apei}: {words:x?}");
    (words[0], exits)
}

#[test]
fn mcg_cap_promises_the_log_where_there_is_one_and_is_read_without_an_exit_elsewhere() {
    let (with, exits) = mcg_cap("on,extlog=on");
    let (without, fewer) = mcg_cap("on");
    assert_eq!((with ^ without, without & cap::ELOG), (cap::ELOG, 0));
    assert_eq!(without & 0xff, u64::from(mce::BANKS));
    assert!(
        exits >= READS as u64 && fewer < READS as u64 / 2,
        "{exits} exits with the log, {fewer} without"
    );
}

/// What there is to say of the log.
fn log(client: &mut guest_tests::api::ApiClient) -> Value {
    client.get("/faults").expect("a list")["extended_log"].clone()
}

#[test]
fn a_machine_check_has_its_record_before_the_guest_looks() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    // Says that it uses the log; reads the first block, then the second, and clears them.
    let script = Script::new()
        .tables()
        .dump(DIRECTORY, 64)
        .store(DIRECTORY + 32, 4, 1)
        .say("on")
        .wait(SHARED, 1)
        .dump(DIRECTORY + 64, 8 * u64::from(mce::BANKS))
        .dump(BLOCKS + 0x200, 0x200)
        .store(BLOCKS + 0x200, 4, 0)
        .say("read")
        .wait(SHARED, 2)
        .dump(BLOCKS, 0x200)
        .store(BLOCKS, 4, 0)
        .exit(5);
    let guest = machine(script, &file, "on,extlog=on");
    let (mut running, mut client) = guest.up();
    let none = json!({"opted_in": true, "logged": 0, "read": 0, "waiting": 0, "lost": 0});
    assert_eq!(log(&mut client), none);
    let notify = |client: &mut guest_tests::api::ApiClient, gpa: u64, severity: &str| {
        let asked = json!({"gpa": gpa, "severity": severity, "via": "machine-check"});
        let told = client.done("POST", "/faults/notify", Some(&asked)).expect("an answer");
        assert_eq!(told["vcpu"], 0, "{told}");
    };
    notify(&mut client, RAM, "corrected");
    tell(&file, 1);
    running.wait_for("read");
    let read = json!({"opted_in": true, "logged": 1, "read": 1, "waiting": 0, "lost": 0});
    assert_eq!(log(&mut client), read);
    notify(&mut client, RAM + 4096, "deferred");
    let waits = json!({"opted_in": true, "logged": 2, "read": 1, "waiting": 1, "lost": 0});
    assert_eq!(log(&mut client), waits);
    tell(&file, 2);
    let sent = running.end().expect(64 + 5);
    assert_eq!(long(&sent, 0), 64 << 32 | 1, "version and length of the header");
    assert_eq!(long(&sent, 8), 64 + 8 * u64::from(mce::BANKS));
    assert_eq!((long(&sent, 16), sent[48]), (BLOCKS, mce::BANKS));
    let rest = &sent[64 + 2..];
    let entries: Vec<u64> = (0..usize::from(mce::BANKS)).map(|bank| long(rest, 8 * bank)).collect();
    let set: Vec<_> = entries.iter().filter(|entry| **entry != 0).collect();
    assert_eq!(set, [&(1 << 63 | (BLOCKS + 0x200))], "{entries:x?}");
    let first = &rest[8 * usize::from(mce::BANKS)..];
    assert_eq!((long(first, 0) & 0xffff_ffff, long(first, 20 + 64 + 16)), (0x12, RAM));
    let second = &first[0x200 + 4..];
    assert_eq!(
        (long(second, 0) & 0xffff_ffff, long(second, 20 + 64 + 16)),
        (0x11, RAM + 4096)
    );
}

#[test]
fn without_the_log_nothing_is_told_of_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shared");
    let script = Script::new()
        .tables()
        .say("on")
        .wait(SHARED, 1)
        .dump(DIRECTORY, 64)
        .exit(5);
    let guest = machine(script, &file, "on");
    let (running, mut client) = guest.up();
    assert_eq!(log(&mut client), Value::Null);
    let asked = json!({"gpa": RAM, "severity": "corrected", "via": "machine-check"});
    client.done("POST", "/faults/notify", Some(&asked)).expect("an answer");
    assert_eq!(log(&mut client), Value::Null);
    tell(&file, 1);
    let sent = running.end().expect(64 + 5);
    assert_eq!(&sent[2..], [0; 64], "what firmware keeps is empty");
}
