//! Processors that a payload starts by INIT and start-up interrupts.

use guest_tests::payload::{Guest, Program, SCRATCH, Script};

const RESULTS: u64 = SCRATCH;
/// Bytes for one processor: leaf 1, leaf 0xb subleaf 0 and 1, and a word that says it is done.
const EACH: u64 = 64;
const DONE: u32 = 0x600d;

/// Every processor writes what CPUID tells it, then all is sent.
fn program(apic_ids: &[u64]) -> Program {
    let at = |index: usize| RESULTS + EACH * index as u64;
    let ask = |index: usize| {
        Script::new()
            .cpuid(1, 0, at(index))
            .cpuid(0xb, 0, at(index) + 16)
            .cpuid(0xb, 1, at(index) + 32)
            .store(at(index) + 48, 4, DONE.into())
    };
    let others = || apic_ids.iter().enumerate().skip(1);
    let script = others().fold(ask(0), |script, (_, id)| script.start_processor(*id));
    let script = others().fold(script, |script, (index, _)| script.wait(at(index) + 48, DONE));
    let script = script.dump(RESULTS, EACH * apic_ids.len() as u64).exit(0);
    let program = Program::new(script).data(RESULTS, vec![0; 4096]);
    others().fold(program, |program, (index, id)| {
        program.processor(*id, ask(index).spin())
    })
}

#[track_caller]
fn processors_find(cpus: &str, apic_ids: &[u64], thread_bits: u32, package_bits: u32) {
    let sent = Guest::new(&program(apic_ids)).flag("cpus", cpus).run().expect(64);
    let word = |at: usize| u32::from_le_bytes(sent[at..at + 4].try_into().unwrap());
    for (base, id) in (0..).step_by(64).zip(apic_ids) {
        assert_eq!(u64::from(word(base + 4) >> 24), *id, "initial APIC id");
        assert_eq!(
            (u64::from(word(base + 28)), u64::from(word(base + 44))),
            (*id, *id),
            "x2APIC id"
        );
        assert_eq!(word(base + 16), thread_bits);
        assert_eq!(word(base + 32), package_bits);
    }
}

#[test]
fn four_processors_start_and_know_their_apic_ids() {
    processors_find("4", &[0, 1, 2, 3], 0, 2);
}

#[test]
fn apic_ids_follow_sockets_cores_and_threads() {
    // docs/guest-abi.md: two sockets of three cores of two threads.
    let ids = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13];
    processors_find("12,sockets=2,cores=3,threads=2", &ids, 1, 3);
}

#[test]
fn processor_that_is_not_there_cannot_be_started() {
    let script = Script::new()
        .start_processor(1)
        .start_processor(9)
        .wait(RESULTS, 1)
        .exit(3);
    let program = Program::new(script)
        .data(RESULTS, [0; 64])
        .processor(1, Script::new().store(RESULTS, 4, 1).spin())
        .processor(9, Script::new().exit(30));
    Guest::new(&program).flag("cpus", "2").run().expect(67);
}

#[test]
fn processors_share_memory_and_devices() {
    // Ping-pong over one word; each side also uses the serial port, so the letters alternate.
    let turn = RESULTS;
    let mut first = Script::new().start_processor(1);
    let mut second = Script::new();
    for n in 0..20u32 {
        first = first.wait(turn, 2 * n).say("a").store(turn, 4, u64::from(2 * n + 1));
        second = second
            .wait(turn, 2 * n + 1)
            .say("b")
            .store(turn, 4, u64::from(2 * n + 2));
    }
    let program = Program::new(first.wait(turn, 40).exit(0))
        .data(turn, [0; 64])
        .processor(1, second.spin());
    assert_eq!(
        Guest::new(&program).flag("cpus", "2").run().expect(64),
        "ab".repeat(20).as_bytes()
    );
}
