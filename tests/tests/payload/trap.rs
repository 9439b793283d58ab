//! More pages with bad lines than memory slots can do without: the others are as good as holes to whoever touches them.

use super::io::{ask_for_entropy, register};
use guest_tests::{
    api::ApiClient,
    payload::{Guest, Program, Running, SCRATCH, Script},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::FileExt, path::Path, thread, time::Duration};
use vmm::layout::ABOVE_4G;

/// Persistent memory, through which guest and test talk.
const PMEM: u64 = ABOVE_4G.0;
/// A memory device behind it, all of a node of its own.
const HOT: u64 = PMEM + (1 << 30);
const HOT_SIZE: u64 = 128 << 20;
/// Pages at its end, behind more bad pages than slots can do without.
const FIRST: u64 = HOT + HOT_SIZE - 0x8000;
const SECOND: u64 = FIRST + 0x2000;
/// Their bad line.
const LINE: u64 = 0x40;

fn machine(script: Script, file: &Path, memory: &str) -> Guest {
    Guest::new(&Program::new(script).data(SCRATCH, vec![0; 0x4000]))
        .flag("numa", "node=0,cpus=0,memory=64M")
        .flag("numa", "node=1,hotplug=1G")
        .flag("nvdimm", &format!("file={},size=16M,id=dimm", file.display()))
        .flag("memory-slots", "1")
        .flag("memory-device", &format!("128M,id=hot,node=1{memory}"))
        .flag("api-socket", "%/api")
}

fn word(file: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    fs::File::open(file)
        .expect("the backing")
        .read_exact_at(&mut bytes, at)
        .expect("a word");
    u64::from_le_bytes(bytes)
}

fn tell(file: &Path, word: u32) {
    let file = fs::File::options().write(true).open(file).expect("the backing");
    file.write_all_at(&word.to_le_bytes(), 0).expect("written");
}

/// A guest that runs, on a host that has what traps need. On any other one pages are left out, and told.
fn up(guest: &Guest) -> Option<(Running<'_>, ApiClient)> {
    let (running, mut client) = guest.up();
    has_traps(&mut client).then_some((running, client))
}

fn has_traps(client: &mut ApiClient) -> bool {
    let list = faults(client);
    let has = list["mechanisms"] == json!(["slot-hole", "userfaultfd"]);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next(), parts.next());
    assert_eq!(has, version >= (Some(6), Some(6)), "Linux {release}: {list}");
    if !has {
        let many = json!({"node": 1, "count": 3000, "seed": 7});
        client.done("POST", "/faults", Some(&many)).expect("a report");
        let list = faults(client);
        assert!(
            number(&list, "pages_left_out") > 1000 && number(&list, "pages_trapped") == 0,
            "{list}"
        );
    }
    has
}

fn faults(client: &mut ApiClient) -> Value {
    client.get("/faults").expect("a list")
}

fn number(list: &Value, key: &str) -> u64 {
    list[key].as_u64().unwrap_or_else(|| panic!("{key}: {list}"))
}

/// A guest whose pages with traps hold what it has put there, are read and written beside their bad lines, and end it when it loads one.
fn bad_pages_beyond_the_slots(memory: &str) {
    let script = Script::new()
        .tables()
        .store(FIRST + 0x100, 8, 0x1122_3344)
        .store(SECOND + 0x200, 8, 0x5566_7788)
        .say("on")
        .wait(PMEM, 1)
        // Neighbours of a bad line, and the line itself.
        .copy(PMEM + 0x1000, FIRST + 0x100, 8)
        .store(FIRST + LINE, 8, 0x99)
        .store(FIRST + 0x108, 8, 0xaabb)
        .copy(PMEM + 0x1008, FIRST + 0x108, 8)
        .say("read")
        .wait(PMEM, 2)
        .copy(PMEM + 0x1010, FIRST + LINE, 8)
        .copy(PMEM + 0x1018, SECOND + 0x200, 8)
        .say("good")
        .wait(PMEM, 3)
        .load(SECOND + LINE, 8)
        .exit(5);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("dimm");
    let guest = machine(script, &file, memory);
    let Some((mut running, mut client)) = up(&guest) else {
        return;
    };
    let map = client.get("/memory/map").expect("a map");
    let all = map["map"].as_array().expect("a list");
    assert!(
        all.iter().any(|entry| entry["name"] == "hot" && entry["start"] == HOT),
        "{map}"
    );
    let many = client
        .done("POST", "/faults", Some(&json!({"node": 1, "count": 3000, "seed": 7})))
        .expect("a report");
    let places = many["places"].as_array().expect("a list");
    assert!(places.iter().all(|place| place["load"] == "machine-check"));
    assert_eq!(many["mechanisms"], json!(["slot-hole", "userfaultfd"]));
    for page in [FIRST, SECOND] {
        let line = json!({"gpa": page, "len": 0x1000});
        client.done("POST", "/faults/clear", Some(&line)).expect("cleared");
        let bad = json!({"gpa": page + LINE});
        let told = client.done("POST", "/faults", Some(&bad)).expect("a report");
        assert_eq!(told["mechanisms"], json!(["userfaultfd"]), "{told}");
    }
    let before = faults(&mut client);
    let trapped = number(&before, "pages_trapped");
    assert!(trapped > 1000, "{before}");
    assert_eq!(
        (&before["mechanisms"], &before["pages_left_out"]),
        (&json!(["slot-hole", "userfaultfd"]), &json!(0))
    );
    tell(&file, 1);
    running.wait_for("read");
    assert_eq!([0x1000, 0x1008].map(|at| word(&file, at)), [0x1122_3344, 0xaabb]);
    let touched = faults(&mut client);
    assert_eq!(
        (number(&touched, "pages"), number(&touched, "pages_trapped")),
        (number(&before, "pages") + 1, trapped - 1),
        "the page that was touched is a hole"
    );
    // Two copies, byte by byte, and two stores.
    assert_eq!(number(&touched["counts"], "carried"), 2 * 8 + 2);
    assert_eq!(number(&touched["counts"], "host_errors"), 0);
    // Good again: what it holds is what it held, with the stores since.
    let all = json!({"gpa": FIRST + LINE});
    client.done("POST", "/faults/clear", Some(&all)).expect("cleared");
    tell(&file, 2);
    running.wait_for("good");
    assert_eq!([0x1010, 0x1018].map(|at| word(&file, at)), [0x99, 0x5566_7788]);
    assert_eq!(number(&faults(&mut client), "pages_trapped"), trapped - 2);
    // Machine checks are off.
    tell(&file, 3);
    let said = String::from_utf8_lossy(&running.end().expect(7)).into_owned();
    assert!(said.contains("good"), "{said}");
}

#[test]
fn pages_beyond_the_slots_are_caught_in_private_memory() {
    bad_pages_beyond_the_slots("");
}

#[test]
fn pages_beyond_the_slots_are_caught_in_shared_memory() {
    bad_pages_beyond_the_slots(",backing=memfd");
}

/// A device stores beside the bad line of a page that nobody has touched since it became bad.
#[test]
fn a_device_finds_what_such_a_page_held() {
    let script = Script::new()
        .tables()
        .store(FIRST + 0x7f8, 8, 0x1122_3344)
        .say("on")
        .wait(PMEM, 1);
    let script = ask_for_entropy(script, FIRST + 0x800)
        .wait(register::INTERRUPT_STATUS, 1)
        .copy(PMEM + 0x1000, FIRST + 0x7f8, 72)
        .say("filled")
        .wait(PMEM, 2)
        .exit(5);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("dimm");
    let guest = machine(script, &file, "");
    let Some((mut running, mut client)) = up(&guest) else {
        return;
    };
    for body in [
        json!({"node": 1, "count": 3000, "seed": 7}),
        json!({"gpa": FIRST + LINE}),
    ] {
        client.done("POST", "/faults", Some(&body)).expect("a report");
    }
    let trapped = number(&faults(&mut client), "pages_trapped");
    tell(&file, 1);
    running.wait_for("filled");
    let words: Vec<u64> = (0..9).map(|n| word(&file, 0x1000 + 8 * n)).collect();
    assert_eq!(words[0], 0x1122_3344);
    assert!(words[1..].iter().all(|word| *word != 0), "{words:x?}");
    let list = faults(&mut client);
    assert_eq!(number(&list, "pages_trapped"), trapped - 1);
    assert_eq!(number(&list["counts"], "device_requests"), 0);
    tell(&file, 2);
    running.end().expect(64 + 5);
}

/// The memory goes with traps in it, and other memory comes to its place.
#[test]
fn traps_go_with_their_memory_device() {
    let script = Script::new()
        .tables()
        .store(FIRST + 0x100, 8, 0x1122_3344)
        .say("on")
        .wait(PMEM, 1)
        .eject(0)
        .say("gone")
        .wait(PMEM, 2)
        .copy(PMEM + 0x1000, FIRST + 0x100, 8)
        .store(FIRST + 0x108, 8, 0x55)
        .copy(PMEM + 0x1008, FIRST + 0x108, 8)
        .say("read")
        .wait(PMEM, 3)
        .exit(5);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("dimm");
    let guest = machine(script, &file, "");
    let Some((mut running, mut client)) = up(&guest) else {
        return;
    };
    let many = json!({"node": 1, "count": 3000, "seed": 7});
    client.done("POST", "/faults", Some(&many)).expect("a report");
    assert!(number(&faults(&mut client), "pages_trapped") > 1000);
    tell(&file, 1);
    running.wait_for("gone");
    for _ in 0..100 {
        // The holes and traps go when the loop has looked.
        let list = faults(&mut client);
        if ["pages", "pages_trapped"].map(|key| number(&list, key)) == [0; 2] {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let list = faults(&mut client);
    assert_eq!(
        ["pages", "pages_trapped"].map(|key| number(&list, key)),
        [0; 2],
        "{list}"
    );
    let device = json!({"size": "128M", "id": "again", "node": 1});
    client
        .begin("POST", "/memory/devices", Some(&device))
        .expect("an operation");
    client.done("POST", "/faults", Some(&many)).expect("a report");
    let page = json!({"gpa": FIRST, "len": 0x1000});
    client.done("POST", "/faults/clear", Some(&page)).expect("cleared");
    let bad = json!({"gpa": FIRST + LINE});
    let told = client.done("POST", "/faults", Some(&bad)).expect("a report");
    assert_eq!(told["mechanisms"], json!(["userfaultfd"]), "{told}");
    tell(&file, 2);
    running.wait_for("read");
    assert_eq!([0x1000, 0x1008].map(|at| word(&file, at)), [0, 0x55]);
    tell(&file, 3);
    running.end().expect(64 + 5);
}

/// Errors come and go; nobody has touched what they were on.
#[test]
fn what_is_good_again_is_what_it_was() {
    let pages = 64;
    // At the end, where holes are last.
    let at = |page: u64| FIRST - 2 * page * 0x1000;
    let mut script = Script::new().tables();
    for page in 0..pages {
        script = script.store(at(page), 8, 0x100 + page);
    }
    script = script.say("on").wait(PMEM, 1);
    for page in 0..pages {
        script = script.copy(PMEM + 0x1000 + 8 * page, at(page), 8);
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("dimm");
    let guest = machine(script.say("copied").wait(PMEM, 2).exit(5), &file, "");
    let Some((mut running, mut client)) = up(&guest) else {
        return;
    };
    for seed in [1, 2] {
        let many = json!({"node": 1, "count": 20_000, "seed": seed});
        client.done("POST", "/faults", Some(&many)).expect("a report");
        // Those of a long run are holes.
        let mut trapped = 0;
        for page in 0..pages {
            let bad = json!({"gpa": at(page) + LINE});
            let told = client.done("POST", "/faults", Some(&bad)).expect("a report");
            trapped += u64::from(told["mechanisms"] == json!(["userfaultfd"]));
        }
        assert!(trapped > pages / 2, "{trapped} of {pages}");
        let list = faults(&mut client);
        assert!(number(&list, "pages_trapped") > 5000, "{seed}");
        let all = json!({"gpa": HOT, "len": HOT_SIZE});
        client.done("POST", "/faults/clear", Some(&all)).expect("cleared");
        let list = faults(&mut client);
        assert_eq!(
            ["pages", "pages_trapped", "pages_left_out"].map(|key| number(&list, key)),
            [0; 3]
        );
    }
    tell(&file, 1);
    running.wait_for("copied");
    for page in 0..pages {
        assert_eq!(word(&file, 0x1000 + 8 * page), 0x100 + page);
    }
    assert_eq!(number(&faults(&mut client)["counts"], "carried"), 0);
    tell(&file, 2);
    running.end().expect(64 + 5);
}
