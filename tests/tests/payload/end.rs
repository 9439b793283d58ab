//! Every way in which a guest ends, and its exit code.

use guest_tests::payload::{Guest, Program, Running, SCRATCH, Script};
use std::time::{Duration, Instant};
use vmm::layout::ports;

/// Sleep control: type 5 and the enable bit (ACPI 6.5 4.8.3.7).
const S5: u32 = 5 << 2 | 1 << 5;

fn guest(script: Script) -> Guest {
    Guest::new(&Program::new(script))
}

#[test]
fn sleep_state_5_is_exit_code_0() {
    let ended = guest(Script::new().output(ports::ACPI + 4, 1, S5).spin()).run();
    assert_eq!(ended.stderr, "", "a power-off is nothing to talk about");
    ended.expect(0);
}

#[test]
fn other_sleep_states_and_half_written_ones_are_ignored() {
    let values = [5 << 2, 1 << 5, 3 << 2 | 1 << 5];
    let script = values
        .iter()
        .fold(Script::new(), |s, v| s.output(ports::ACPI + 4, 1, *v));
    guest(script.exit(1)).run().expect(65);
}

#[test]
fn reset_register_is_exit_code_3() {
    guest(Script::new().output(ports::ACPI + 6, 1, 1).spin())
        .run()
        .expect(3);
    guest(Script::new().output(ports::ACPI + 6, 1, 2).exit(1))
        .run()
        .expect(65);
}

#[test]
fn pvpanic_is_exit_code_4_unless_a_crash_kernel_follows() {
    guest(Script::new().output(ports::PVPANIC, 1, 1).spin()).run().expect(4);
    guest(Script::new().output(ports::PVPANIC, 1, 2).exit(1))
        .run()
        .expect(65);
}

#[test]
fn triple_fault_is_exit_code_5() {
    let ended = guest(Script::new().fault()).run();
    assert!(ended.stderr.contains("triple-faulted"), "{}", ended.stderr);
    ended.expect(5);
}

#[test]
fn triple_fault_of_a_started_processor_is_exit_code_5() {
    let program = Program::new(Script::new().start_processor(1).spin()).processor(1, Script::new().fault());
    let ended = Guest::new(&program).flag("cpus", "2").run();
    assert!(ended.stderr.contains("vCPU 1"), "{}", ended.stderr);
    ended.expect(5);
}

#[test]
fn output_before_the_end_is_not_lost() {
    let text = "the last words";
    for (script, code) in [
        (Script::new().say(text).exit(0), 64),
        (Script::new().say(text).output(ports::ACPI + 4, 1, S5).spin(), 0),
        (Script::new().say(text).fault(), 5),
    ] {
        assert_eq!(guest(script).run().expect(code), text.as_bytes());
    }
}

#[test]
fn signals_end_a_guest_that_spins_or_halts_within_a_second() {
    for (script, signal, code) in [
        (Script::new().say("on").spin(), libc::SIGTERM, 143),
        (Script::new().say("on").halt(), libc::SIGTERM, 143),
        (Script::new().say("on").spin(), libc::SIGINT, 130),
        (Script::new().say("on").spin(), libc::SIGHUP, 129),
    ] {
        let guest = guest(script);
        let mut running = guest.start();
        running.wait_for("on");
        let since = Instant::now();
        running.signal(signal);
        let ended = running.end();
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        ended.expect(code);
    }
}

#[test]
fn signal_ends_every_processor() {
    let program = Program::new(Script::new().start_processor(1).start_processor(2).say("on").spin())
        .processor(1, Script::new().spin())
        .processor(2, Script::new().halt());
    // The fourth still waits for its start-up interrupt.
    let guest = Guest::new(&program).flag("cpus", "4");
    let mut running = guest.start();
    running.wait_for("on");
    let since = Instant::now();
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn timeout_is_exit_code_124() {
    let ended = guest(Script::new().spin()).flag("timeout", "1").run();
    assert!(
        ended.took >= Duration::from_secs(1) && ended.took < Duration::from_secs(4),
        "{:?}",
        ended.took
    );
    ended.expect(124);
}

#[test]
fn first_of_several_ends_counts() {
    let script = Script::new()
        .output(ports::PVPANIC, 1, 1)
        .output(ports::ACPI + 4, 1, S5)
        .fault();
    guest(script).run().expect(4);
}

/// A guest that sends more than a pipe holds, to a standard output that nobody reads.
fn stalled(guest: &Guest) -> Running<'_> {
    let mut running = guest.start();
    running.wait_for_full_pipe();
    running
}

/// More than a pipe and the monitor hold; by a string instruction, which costs a slow KVM least.
const TALK: usize = 300_000;
/// More than a pipe holds, but what is left the monitor keeps.
const LAST_WORDS: usize = 100_000;

fn talker(bytes: usize) -> Guest {
    let script = Script::new()
        .output_string(ports::COM1, 1, SCRATCH, bytes as u64)
        .exit(0);
    guest(script).flag("console", "stdio")
}

#[test]
fn signal_ends_a_guest_whose_output_nobody_reads() {
    let guest = talker(TALK);
    let running = stalled(&guest);
    let since = Instant::now();
    running.signal(libc::SIGTERM);
    running.end().expect(143);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn timeout_ends_a_guest_whose_output_nobody_reads() {
    let guest = talker(TALK).flag("timeout", "2");
    let ended = guest.run();
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    ended.expect(124);
}

#[test]
fn slow_reader_gets_every_byte_also_of_a_guest_that_has_ended() {
    for bytes in [TALK, LAST_WORDS] {
        let guest = talker(bytes);
        let mut running = stalled(&guest);
        assert_eq!(running.read_pipe().len(), bytes);
        running.end().expect(64);
    }
}

#[test]
fn signal_ends_the_wait_for_the_reader_of_a_guest_that_has_ended() {
    let guest = talker(LAST_WORDS);
    let running = stalled(&guest);
    let since = Instant::now();
    running.signal(libc::SIGTERM);
    running.end().expect(64);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

/// The end comes from any of several processors, while the others spin, halt and wait for their start.
#[test]
fn every_power_off_of_many_ends_the_monitor() {
    const ROUNDS: usize = 50;
    let off = || Script::new().output(ports::ACPI + 4, 1, S5).spin();
    let last = Program::new(Script::new().start_processor(1).start_processor(2).spin())
        .processor(1, Script::new().halt())
        .processor(2, off());
    let first = Program::new(
        Script::new()
            .start_processor(1)
            .start_processor(2)
            .output(ports::ACPI + 4, 1, S5)
            .spin(),
    )
    .processor(1, Script::new().spin())
    .processor(2, Script::new().spin());
    let all = Program::new(
        Script::new()
            .start_processor(1)
            .start_processor(2)
            .output(ports::ACPI + 4, 1, S5)
            .spin(),
    )
    .processor(1, off())
    .processor(2, off());
    for (name, program) in [("last", last), ("first", first), ("all at once", all)] {
        let guest = Guest::new(&program).flag("cpus", "4");
        for round in 0..ROUNDS {
            let ended = guest.run();
            assert!(
                ended.took < Duration::from_secs(20),
                "{name}, round {round}: {:?}",
                ended.took
            );
            ended.expect(0);
        }
    }
}
