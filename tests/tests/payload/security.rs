//! Security of NVDIMMs from inside: what a locked DIMM shows, and what an encrypted one leaves in its file.

use devices::nvdimm::{guid::INTEL_DIMM_DSM, mailbox::DATA};
use guest_tests::payload::{Guest, Program, SCRATCH, Script};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use vmm::layout::{self, ports};

const MAILBOX: u64 = layout::DSM_MAILBOX.start.0;
/// Base of the first NVDIMM of a small machine: the first GiB above 4 GiB.
const DIMM: u64 = layout::ABOVE_4G.0;
/// Flush hint of the first NVDIMM.
const HINT: u64 = layout::FLUSH_HINTS.start.0;
const SECRET: u64 = 0x7465_7263_6573_2061;
const ONES: [u8; 8] = [0xff; 8];
/// Room for one call in the program's data.
const CALL: u64 = 0x80;

/// A program that makes calls; each reply's first words are sent.
struct Calls {
    script: Script,
    data: Vec<u8>,
}

impl Calls {
    fn new() -> Self {
        Self {
            script: Script::new().tables(),
            data: vec![],
        }
    }

    /// One call of the first DIMM's Intel family, revision 2, and `words` words of its reply.
    fn call(mut self, function: u32, input: &[u8], words: u64) -> Self {
        let len = u32::try_from(input.len()).unwrap();
        let mut page: Vec<u8> = [1, 2, function, len].into_iter().flat_map(u32::to_le_bytes).collect();
        page.extend_from_slice(&INTEL_DIMM_DSM.0);
        page.resize(usize::try_from(DATA).unwrap(), 0);
        page.extend_from_slice(input);
        assert!(page.len() as u64 <= 2 * CALL);
        let from = SCRATCH + self.data.len() as u64;
        self.script = self
            .script
            .copy(MAILBOX, from, page.len() as u64)
            .output(ports::DSM_DOORBELL, 4, 0)
            .dump(MAILBOX + DATA, 4 * words);
        page.resize(usize::try_from(2 * CALL).unwrap(), 0);
        self.data.extend(page);
        self
    }

    /// A command with passphrases of one byte each; its status is sent.
    fn command(self, function: u32, passphrases: &[u8]) -> Self {
        let input: Vec<u8> = passphrases.iter().flat_map(|byte| [*byte; 32]).collect();
        self.call(function, &input, 1)
    }

    fn then(mut self, more: impl FnOnce(Script) -> Script) -> Self {
        self.script = more(self.script);
        self
    }

    fn guest(self, dimm: &str) -> Guest {
        let program = Program::new(self.script.exit(0)).data(SCRATCH, self.data);
        Guest::new(&program).flag("nvdimm", dimm)
    }

    fn run(self, dimm: &str) -> Vec<u8> {
        self.guest(dimm).run().expect(64)
    }
}

/// A folder for files that outlive a machine, and the flag of an encrypted DIMM in it.
fn encrypted() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dimm");
    let flag = format!("file={},size=16M,encrypt=on", path.display());
    (dir, path, flag)
}

fn has_secret(path: &Path) -> bool {
    fs::read(path)
        .unwrap()
        .as_chunks::<8>()
        .0
        .contains(&SECRET.to_le_bytes())
}

fn stores() -> Calls {
    Calls::new().then(|script| {
        script
            .store(DIMM + 0x5000, 8, SECRET)
            .store(DIMM + 0x0f_e000, 8, SECRET)
    })
}

#[test]
fn stores_to_an_encrypted_dimm_are_found_again_and_are_not_in_its_file() {
    let (_dir, path, flag) = encrypted();
    assert!(stores().run(&flag).is_empty());
    assert!(!has_secret(&path), "the file must have ciphertext alone");
    assert!(
        fs::read(&path).unwrap()[0x5000..0x6000] != [0; 4096],
        "it must have something"
    );
    let loads = |script: Script| script.load(DIMM + 0x5000, 8).load(DIMM + 0x0f_e000, 8).load(DIMM, 8);
    let sent = Calls::new().then(loads).run(&flag);
    assert_eq!(sent, [SECRET, SECRET, 0].map(u64::to_le_bytes).as_flattened());
}

#[test]
fn killed_monitor_leaves_what_was_written_back() {
    let (_dir, path, flag) = encrypted();
    let guest = stores().then(|script| script.say("stored").spin()).guest(&flag);
    let mut running = guest.start();
    running.wait_for("stored");
    thread::sleep(Duration::from_secs(4));
    drop(running);
    assert!(!has_secret(&path));
    let sent = Calls::new().then(|script| script.load(DIMM + 0x5000, 8)).run(&flag);
    assert_eq!(sent, SECRET.to_le_bytes());
}

#[test]
fn killed_monitor_leaves_all_that_was_flushed() {
    let (_dir, path, flag) = encrypted();
    // Each round stores and flushes; the monitor dies at once when the last one is told.
    let store = |script: Script, n: u64| script.store(DIMM + n * 0x1000, 8, SECRET + n).store(HINT, 8, 1);
    let script = (0..8).fold(Script::new().tables(), store).say("flushed").spin();
    let calls = Calls { script, data: vec![] };
    let guest = calls.guest(&flag);
    let mut running = guest.start();
    running.wait_for("flushed");
    drop(running);
    assert!(!has_secret(&path));
    let loads = |script: Script| (0..8).fold(script, |script: Script, n| script.load(DIMM + n * 0x1000, 8));
    let expected: Vec<u8> = (0..8).flat_map(|n| (SECRET + n).to_le_bytes()).collect();
    assert_eq!(Calls::new().then(loads).run(&flag), expected);
}

#[test]
fn locked_dimm_reads_as_ones_until_its_passphrase_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (_encrypted, path, encrypted) = encrypted();
    let plain = dir.path().join("plain");
    let state = dir.path().join("state");
    let plain = format!("file={},size=16M,state={}", plain.display(), state.display());
    for flag in [&encrypted, &plain] {
        let sent = stores().command(20, &[0, 1]).run(flag);
        assert_eq!(sent, [0; 4], "{flag}: set passphrase");
        let load = |script: Script| script.load(DIMM + 0x5000, 8);
        let sent = Calls::new()
            .call(19, &[], 3)
            .then(load)
            .then(|script| script.store(DIMM + 0x5000, 8, 7))
            .command(22, &[2])
            .then(load)
            .command(22, &[1])
            .then(load)
            .call(19, &[], 3)
            .run(flag);
        let mut expected = vec![0, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0];
        expected.extend(ONES);
        expected.extend([11, 0, 0, 0]);
        expected.extend(ONES);
        expected.extend([0; 4]);
        expected.extend(SECRET.to_le_bytes());
        expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(sent, expected, "{flag}");
    }
    assert!(!has_secret(&path));
}

#[test]
fn erased_dimm_reads_as_noise_or_zeros_and_keeps_its_labels() {
    let (_dir, path, flag) = encrypted();
    let label = [[0, 0, 0, 0], [4, 0, 0, 0], *b"name"].concat();
    for (flag, noise) in [(flag.as_str(), true), ("size=16M", false)] {
        let sent = stores()
            .call(6, &label, 1)
            .command(24, &[0])
            .then(|script| script.load(DIMM + 0x5000, 8))
            .call(5, &label[..8], 2)
            .run(flag);
        assert_eq!(sent[..8], [0; 8], "{flag}: statuses");
        assert_ne!(sent[8..16], SECRET.to_le_bytes());
        // What an encrypted DIMM had not written back yet was never there; either way it is not the secret.
        assert!(noise || sent[8..16] == [0; 8], "{flag}");
        assert_eq!(sent[16..], *b"\0\0\0\0name", "{flag}");
    }
    assert!(!has_secret(&path));
}

#[test]
fn set_with_a_locked_dimm_is_out_of_reach_as_a_whole_and_stores_reach_the_right_dimm() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let dimm = |name: &str, more: &str| format!("file={},size=16512K,id={name}{more}", file(name).display());
    let run = |calls: Calls| {
        let program = Program::new(calls.script.exit(0)).data(SCRATCH, calls.data);
        let guest = Guest::new(&program)
            .flag("nvdimm", &dimm("a", ",encrypt=on"))
            .flag("nvdimm", &dimm("b", ""))
            .flag("interleave-set", "dimms=[a,b],size=32M,line=4K");
        guest.run().expect(64)
    };
    // Page 0 is a's first, page 1 b's first, page 2 a's second.
    let store = |script: Script| {
        let store = |script: Script, page: u64| script.store(DIMM + page * 4096, 8, SECRET + page);
        (0..4).fold(script, store)
    };
    assert!(run(Calls::new().then(store)).is_empty());
    let b = fs::read(file("b")).unwrap();
    assert_eq!(b[..8], (SECRET + 1).to_le_bytes());
    assert_eq!(b[4096..4104], (SECRET + 3).to_le_bytes());
    assert!(!has_secret(&file("a")));
    let load = |script: Script| (0..4).fold(script, |script: Script, page| script.load(DIMM + page * 4096, 8));
    let all: Vec<u8> = (0..4).flat_map(|page| (SECRET + page).to_le_bytes()).collect();
    let sent = run(Calls::new().then(load).command(20, &[0, 1]));
    assert_eq!(sent, [&all[..], &[0; 4]].concat());
    let sent = run(Calls::new().then(load).command(22, &[1]).then(load));
    assert_eq!(sent, [&[0xff; 32][..], &[0; 4], &all].concat());
}
