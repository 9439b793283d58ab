//! NVDIMMs from inside: the mailbox as AML uses it, and the memory itself.

use devices::nvdimm::{
    dsm::{dimm, root},
    guid::{Guid, INTEL_DIMM_DSM, METHODS, ROOT_DSM},
    mailbox::{DATA, ROOT_HANDLE},
};
use guest_tests::payload::{Guest, Program, SCRATCH, Script};
use std::{fs, path::Path};
use vmm::layout::{self, ports};

const MAILBOX: u64 = layout::DSM_MAILBOX.start.0;
/// Base of the first NVDIMM of a small machine: the first GiB above 4 GiB.
const DIMM: u64 = layout::ABOVE_4G.0;
const MIB: usize = 1 << 20;
/// Default label area.
const LABEL: usize = 128 << 10;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Header and input as AML leaves them in the mailbox.
fn call(handle: u32, guid: Guid, function: u32, input: &[u8]) -> Vec<u8> {
    let len = u32::try_from(input.len()).unwrap();
    let mut page = words(&[handle, 1, function, len]);
    page.extend_from_slice(&guid.0);
    page.resize(usize::try_from(DATA).unwrap(), 0);
    page.extend_from_slice(input);
    page
}

/// Calls one after the other; each reply's length and its first bytes are sent.
struct Calls {
    script: Script,
    data: Vec<u8>,
    replies: Vec<usize>,
}

impl Calls {
    fn new() -> Self {
        Self {
            script: Script::new(),
            data: vec![],
            replies: vec![],
        }
    }

    /// `shown`: bytes of the reply to send.
    fn add(mut self, call: &[u8], shown: usize) -> Self {
        let from = SCRATCH + self.data.len() as u64;
        self.script = self
            .script
            .copy(MAILBOX, from, call.len() as u64)
            .output(ports::DSM_DOORBELL, 4, 0)
            .load(MAILBOX + 32, 4)
            .dump(MAILBOX + DATA, shown as u64);
        self.data.extend_from_slice(call);
        self.replies.push(shown);
        self
    }

    /// Length and shown bytes of each reply.
    fn run(self, flags: &[(&str, &str)]) -> Vec<(u32, Vec<u8>)> {
        let program = Program::new(self.script.exit(0)).data(SCRATCH, self.data);
        let guest = flags
            .iter()
            .fold(Guest::new(&program), |g, (name, value)| g.flag(name, value));
        let sent = guest.run().expect(64);
        let mut rest = sent.as_slice();
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken.to_vec()
        };
        let reply = |shown: &usize| (u32::from_le_bytes(take(4).try_into().unwrap()), take(*shown));
        self.replies.iter().map(reply).collect()
    }
}

#[test]
fn mailbox_serves_the_intel_label_functions() {
    let replies = Calls::new()
        .add(&call(1, INTEL_DIMM_DSM, 0, &[]), 4)
        .add(&call(1, INTEL_DIMM_DSM, 4, &[]), 12)
        .add(
            &call(1, INTEL_DIMM_DSM, 6, &words(&[256, 8, 0xdead_beef, 0x0123_4567])),
            4,
        )
        .add(&call(1, INTEL_DIMM_DSM, 5, &words(&[252, 16])), 20)
        .run(&[("nvdimm", "size=16M")]);
    let reply = |values: &[u32]| (u32::try_from(4 * values.len()).unwrap(), words(values));
    assert_eq!(replies[0], reply(&[0x47f]));
    assert_eq!(replies[1], reply(&[0, 128 << 10, 4096]));
    assert_eq!(replies[2], reply(&[0]));
    assert_eq!(replies[3], reply(&[0, 0, 0xdead_beef, 0x0123_4567, 0]));
}

#[test]
fn mailbox_answers_senseless_calls_with_a_status() {
    let status = |call: &[u8]| Calls::new().add(call, 4).run(&[("nvdimm", "size=16M")]).remove(0);
    let mut long = call(1, INTEL_DIMM_DSM, 5, &[]);
    long[12..16].fill(0xff);
    let answer = |value: u32| (4, words(&[value]));
    assert_eq!(status(&long), answer(3), "an input longer than the mailbox");
    assert_eq!(status(&call(9, INTEL_DIMM_DSM, 4, &[])), answer(2), "no such DIMM");
    assert_eq!(status(&call(1, ROOT_DSM, 4, &[])), answer(1), "no such family");
    assert_eq!(status(&call(1, INTEL_DIMM_DSM, 77, &[])), answer(1), "no such function");
    assert_eq!(
        status(&call(1, INTEL_DIMM_DSM, 5, &words(&[128 << 10, 1]))),
        answer(3),
        "past the labels"
    );
    assert_eq!(status(&[0xff; 96]), answer(3), "nothing but ones");
}

#[test]
fn fit_is_paged_through_the_mailbox_until_an_empty_piece() {
    let read = |offset: u32, generation: u32| {
        call(
            ROOT_HANDLE,
            METHODS,
            root::READ_FIT,
            &words(&[offset, 0, generation, 0]),
        )
    };
    let dimms = [("nvdimm", "size=16M"); 32];
    // 32 NVDIMMs describe themselves in more than one piece.
    let first = Calls::new().add(&read(0, 0), 8 + root::FIT_PIECE).run(&dimms).remove(0);
    assert_eq!(first.0 as usize, 8 + root::FIT_PIECE);
    let generation = u32::from_le_bytes(first.1[4..8].try_into().unwrap());
    let piece = u32::try_from(root::FIT_PIECE).unwrap();
    let second = Calls::new().add(&read(piece, generation), 8).run(&dimms).remove(0);
    let end = piece + second.0 - 8;
    let replies = Calls::new()
        .add(&read(0, 0), 8)
        .add(&read(piece, generation + 1), 4)
        .add(&read(end, generation), 8)
        .add(&read(end + 1, generation), 4)
        .run(&dimms);
    assert_eq!(
        replies[1],
        (4, words(&[root::FIT_CHANGED.0])),
        "pieces of another generation do not mix"
    );
    assert_eq!(replies[2], (8, words(&[0, generation])), "the end");
    assert_eq!(replies[3], (4, words(&[3])), "past the end");
    // The pieces together are structures whose lengths add up (ACPI 6.5 5.2.25.1).
    assert!(end > piece);
    let whole = Calls::new()
        .add(&read(piece, generation), (8 + end - piece) as usize)
        .run(&dimms)
        .remove(0)
        .1;
    let fit = [&first.1[8..], &whole[8..]].concat();
    let mut at = 0;
    let mut ranges = 0;
    while at < fit.len() {
        let field = |n: usize| u16::from_le_bytes(fit[at + n..at + n + 2].try_into().unwrap());
        ranges += usize::from(field(0) == 0);
        assert!(field(2) >= 8, "a structure has a length");
        at += usize::from(field(2));
    }
    assert_eq!((at, ranges), (fit.len(), 32), "one SPA range for each NVDIMM");
}

#[test]
fn injected_error_is_in_the_result_of_a_scrub_until_it_is_cleared() {
    let root = |function, input: &[u32]| call(ROOT_HANDLE, ROOT_DSM, function, &words(input));
    let u32s = |n: u64| [n & 0xffff_ffff, n >> 32].map(|half| u32::try_from(half).unwrap());
    let ([low, high], [page, _]) = (u32s(DIMM), u32s(DIMM + 0x1000));
    let replies = Calls::new()
        .add(&root(0, &[]), 4)
        .add(&root(7, &[page, high, 256, 0, 1]), 4)
        // Persistent, short.
        .add(&root(2, &[low, high, 8 << 20, 0, 2 | 2 << 16, 0]), 8)
        .add(&root(3, &[]), 48 + 24)
        .add(&root(5, &[page, high]), 36)
        .add(&root(4, &[page, high, 256, 0]), 16)
        .add(&root(3, &[]), 48)
        .add(&root(9, &[]), 8)
        .run(&[("nvdimm", "size=16M"), ("ars", "records=3")]);
    let reply = |values: &[u32]| (u32::try_from(4 * values.len()).unwrap(), words(values));
    let result = |count: u32| [0, 44 + 24 * count, low, high, 8 << 20, 0, 0, 0, 0, 0, 2, count];
    assert_eq!(replies[0], reply(&[0x3bf]));
    assert_eq!(replies[1], reply(&[0]));
    assert_eq!(replies[2], reply(&[0, 0]));
    assert_eq!(
        replies[3],
        reply(&[&result(1)[..], &[1, 0, page, high, 256, 0]].concat())
    );
    let rest = (16 << 20) - u32::try_from(LABEL).unwrap() - 0x1000;
    assert_eq!(replies[4], reply(&[0, 0, rest, 0, 1, 1, 0, 0x1000, 0]));
    assert_eq!(replies[5], reply(&[0, 0, 256, 0]));
    assert_eq!(replies[6], reply(&result(0)));
    assert_eq!(replies[7], reply(&[0, 0]));
}

#[test]
fn label_methods_write_where_the_backing_keeps_labels() {
    let lsw = call(1, METHODS, dimm::LSW, &words(&[16, 0, 4, 0, 0x5a5a_a5a5]));
    let script = Script::new()
        .copy(MAILBOX, SCRATCH, lsw.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0);
    let program = Program::new(script.load(MAILBOX + DATA, 4).exit(0)).data(SCRATCH, lsw);
    let guest = Guest::new(&program).flag("nvdimm", "file=%/dimm,size=16M");
    assert_eq!(guest.run().expect(64), [0; 4]);
    let file = fs::read(guest.file("dimm")).unwrap();
    assert_eq!(file[16 * MIB - LABEL + 16..][..4], 0x5a5a_a5a5u32.to_le_bytes());
    assert!(file[..16 * MIB - LABEL].iter().all(|b| *b == 0), "data is untouched");
}

#[test]
fn mailbox_survives_garbage_from_two_processors_at_once() {
    let done = SCRATCH + 0x1000;
    // One side mangles label reads of the DIMM, the other reads of the FIT; label writes are left out, so that labels must
    // be what they were.
    let labels = call(1, INTEL_DIMM_DSM, 5, &words(&[0, 64, 0, 0, 0, 0, 0, 0]));
    let fit = call(ROOT_HANDLE, METHODS, root::READ_FIT, &words(&[0, 0, 1, 0, 0, 0, 0, 0]));
    let ask = call(1, INTEL_DIMM_DSM, 4, &[]);
    let script = Script::new()
        .start_processor(1)
        .storm(3000, 0x9e37_79b9_7f4a_7c15, SCRATCH)
        .wait(done, 1)
        .copy(MAILBOX, SCRATCH + 0x200, ask.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0)
        .dump(MAILBOX + DATA, 12)
        .exit(0);
    let other = Script::new()
        .storm(3000, 0xdead_beef_cafe_f00d, SCRATCH + 0x100)
        .store(done, 4, 1)
        .spin();
    let program = Program::new(script)
        .processor(1, other)
        .data(SCRATCH, labels)
        .data(SCRATCH + 0x100, fit)
        .data(SCRATCH + 0x200, ask)
        .data(done, [0; 64]);
    let guest = Guest::new(&program)
        .flag("cpus", "2")
        .flag("nvdimm", "file=%/dimm,size=16M");
    assert_eq!(
        guest.run().expect(64),
        words(&[0, 128 << 10, 4096]),
        "the mailbox serves the next proper call"
    );
    assert!(
        fs::read(guest.file("dimm")).unwrap().iter().all(|b| *b == 0),
        "no byte of the backing changed"
    );
}

fn backing(path: &Path) -> Vec<u8> {
    let bytes: Vec<u8> = (0..16 * MIB).map(|n| u8::try_from(n % 251).unwrap()).collect();
    fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn stores_to_an_nvdimm_reach_its_file() {
    let last = DIMM + (16 * MIB - LABEL) as u64 - 8;
    let script = Script::new()
        .tables()
        .load(DIMM + 4096, 8)
        .store(DIMM, 8, 0x1122_3344_5566_7788)
        .store(last, 8, 0x99)
        .load(DIMM, 8)
        // The label area is not in the guest's memory.
        .load(last + 8, 4)
        .exit(0);
    let guest = Guest::new(&Program::new(script)).flag("nvdimm", "file=%/dimm,size=16M");
    let mut expected = backing(&guest.file("dimm"));
    let sent = guest.run().expect(64);
    assert_eq!(sent[..8], expected[4096..4104]);
    assert_eq!(sent[8..16], 0x1122_3344_5566_7788u64.to_le_bytes());
    assert_eq!(sent[16..], [0xff; 4]);
    expected[..8].copy_from_slice(&0x1122_3344_5566_7788u64.to_le_bytes());
    expected[16 * MIB - LABEL - 8..16 * MIB - LABEL].copy_from_slice(&0x99u64.to_le_bytes());
    assert!(
        fs::read(guest.file("dimm")).unwrap() == expected,
        "the file is what the guest wrote"
    );
}

#[test]
fn stores_to_a_read_only_nvdimm_do_not_reach_its_file() {
    let store = |script: Script, size| script.store(DIMM + 16, size, u64::MAX);
    let script = [1, 2, 4, 8].into_iter().fold(Script::new().tables(), store);
    let labels = call(1, INTEL_DIMM_DSM, 6, &words(&[0, 4, 1]));
    let script = script
        .load(DIMM + 16, 8)
        .copy(MAILBOX, SCRATCH, labels.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0)
        .load(MAILBOX + DATA, 4)
        .exit(0);
    let guest =
        Guest::new(&Program::new(script).data(SCRATCH, labels)).flag("nvdimm", "file=%/dimm,size=16M,readonly=on");
    let before = backing(&guest.file("dimm"));
    let sent = guest.run().expect(64);
    assert_eq!(sent[..8], [0xff; 8], "the guest has a copy of its own");
    assert_eq!(sent[8..], words(&[1]), "labels are refused as well");
    assert!(fs::read(guest.file("dimm")).unwrap() == before, "the file is untouched");
}

#[test]
fn what_one_run_stores_the_next_one_loads() {
    let guest = |script: Script| Guest::new(&Program::new(script.exit(0)));
    let first = guest(Script::new().tables().store(DIMM + 8, 8, 0xfeed)).flag("nvdimm", "file=%/dimm,size=16M");
    first.run().expect(64);
    let path = format!("file={},size=16M", first.file("dimm").display());
    let second = guest(Script::new().tables().load(DIMM + 8, 8)).flag("nvdimm", &path);
    assert_eq!(second.run().expect(64), 0xfeedu64.to_le_bytes());
}

#[test]
fn killed_monitor_leaves_data_and_labels_to_the_next_one() {
    let lsw = call(1, METHODS, dimm::LSW, &words(&[0, 0, 8, 0, 0xaaaa_bbbb, 0xcccc_dddd]));
    // Label writes far from those bytes, with noise, go on until the monitor dies in the midst of them.
    let noise = call(1, INTEL_DIMM_DSM, 6, &words(&[64 << 10, 16, 0, 0, 0, 0, 0, 0]));
    let script = Script::new()
        .tables()
        .store(DIMM + 64, 8, 0xfeed)
        .copy(MAILBOX, SCRATCH, lsw.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0)
        .say("stored")
        .storm(u64::MAX, 0x9e37_79b9_7f4a_7c15, SCRATCH + 0x100);
    let program = Program::new(script).data(SCRATCH, lsw).data(SCRATCH + 0x100, noise);
    let first = Guest::new(&program).flag("nvdimm", "file=%/dimm,size=16M");
    let mut running = first.start();
    running.wait_for("stored");
    drop(running);

    let lsr = call(1, METHODS, dimm::LSR, &words(&[0, 0, 8, 0]));
    let script = Script::new()
        .tables()
        .load(DIMM + 64, 8)
        .copy(MAILBOX, SCRATCH, lsr.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0)
        .dump(MAILBOX + DATA, 4)
        .exit(0);
    let path = format!("file={},size=16M", first.file("dimm").display());
    let second = Guest::new(&Program::new(script).data(SCRATCH, lsr)).flag("nvdimm", &path);
    let sent = second.run().expect(64);
    assert_eq!(sent[..8], 0xfeedu64.to_le_bytes());
    assert_eq!(sent[8..], [0; 4], "labels are read");
    assert_eq!(fs::metadata(first.file("dimm")).unwrap().len(), 16 << 20);
}
