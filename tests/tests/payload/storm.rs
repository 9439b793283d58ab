//! A hostile guest: four processors write garbage to the NVDIMM mailbox and ring its doorbell, all at once.

use devices::nvdimm::{
    guid::{INTEL_DIMM_DSM, ROOT_DSM},
    mailbox::{DATA, ROOT_HANDLE},
    state::DimmState,
};
use guest_tests::payload::{
    Guest, Program, SCRATCH, Script,
    nvdimm::{MAILBOX, call},
};
use std::fs;
use vmm::layout::{self, ABOVE_4G, ports};

/// Where each processor says that it is done, a line apart.
const DONE: u64 = SCRATCH + 0x1000;
/// Template of each processor's calls.
const TEMPLATES: u64 = SCRATCH + 0x2000;
/// What lies behind the mailbox of the first bus: nobody but the guest writes there.
const FENCE: u64 = MAILBOX + layout::DSM_MAILBOX.len;
const FENCED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const SERIAL: [u32; 2] = [0x12_3456, 0x12_3457];

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// What processor `n` does again and again, with one word of noise each time.
fn template(n: u64) -> Vec<u8> {
    let spa = u32::try_from(ABOVE_4G.0 >> 32).unwrap();
    match n {
        // Labels are written.
        0 => call(1, INTEL_DIMM_DSM, 1, 6, &words(&[0, 16, 1, 2, 3, 4, 0, 0])),
        // Errors are injected, each of which is kept.
        1 => call(ROOT_HANDLE, ROOT_DSM, 1, 7, &words(&[0x1000, spa, 64, 0, 1, 0, 0, 0])),
        // Passphrases are set, and with the wrong noise the second DIMM is frozen.
        2 => call(2, INTEL_DIMM_DSM, 2, 20, &words(&[0; 8])),
        // A firmware update is begun.
        _ => call(1, INTEL_DIMM_DSM, 2, 13, &[]),
    }
}

fn storm(n: u64) -> Script {
    let rounds = if n == 1 { 200 } else { 800 };
    let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n + 1);
    Script::new()
        .tables()
        .storm(rounds, seed, TEMPLATES + 0x100 * n)
        .fuzz_mmio(400, seed ^ 1, MAILBOX, 16)
        .storm(rounds, seed ^ 2, TEMPLATES + 0x100 * n)
}

#[test]
fn garbage_from_four_processors_ends_and_breaks_nothing() {
    let mut script = Script::new().tables().store(FENCE, 8, FENCED);
    for n in 1..4 {
        script = script.start_processor(n);
    }
    script = script.then(storm(0));
    for n in 1..4 {
        script = script.wait(DONE + 64 * n, 1);
    }
    // A proper call is served as if nothing had been: the size of the labels.
    let ask = call(1, INTEL_DIMM_DSM, 1, 4, &[]);
    let script = script
        .copy(MAILBOX, SCRATCH, ask.len() as u64)
        .output(ports::DSM_DOORBELL, 4, 0)
        .dump(MAILBOX + DATA, 12)
        .load(FENCE, 8)
        .exit(0);
    let mut program = Program::new(script).data(SCRATCH, ask).data(DONE, [0; 512]);
    for n in 0..4 {
        program = program.data(TEMPLATES + 0x100 * n, template(n));
    }
    for n in 1..4 {
        program = program.processor(n, storm(n).store(DONE + 64 * n, 4, 1).spin());
    }
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    let dimm = |name: &str, more: &str| {
        let (backing, state) = (file(name), file(&format!("{name}.json")));
        format!("file={},size=16M,state={}{more}", backing.display(), state.display())
    };
    let guest = |program: &Program| {
        Guest::new(program)
            .flag("cpus", "4")
            .flag("nvdimm", &dimm("a", ",flush=msync"))
            .flag("nvdimm", &dimm("b", ",encrypt=on"))
    };
    let sent = guest(&program).run().expect(64);
    assert_eq!(
        sent,
        [words(&[0, 128 << 10, 4096]), FENCED.to_le_bytes().to_vec()].concat()
    );
    // What is left on the host is whole: sizes, states, and the DIMMs start again.
    for (name, serial) in ["a", "b"].iter().zip(SERIAL) {
        assert_eq!(fs::metadata(file(name)).unwrap().len(), 16 << 20);
        DimmState::decode(&fs::read(file(&format!("{name}.json"))).unwrap(), serial).unwrap();
    }
    let data = fs::read(file("a")).unwrap();
    assert!(
        data[..data.len() - (128 << 10)].iter().all(|byte| *byte == 0),
        "no call reaches the data of a DIMM"
    );
    assert!(guest(&Program::new(Script::new().exit(3))).run().expect(67).is_empty());
}
