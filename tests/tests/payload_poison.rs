//! Bad memory under a guest of a few instructions: what a page with a bad line still does, and what it does not.

use devices::{
    Bus, Effect,
    nvdimm::media::ErrorSource,
    test_exit::TestExit,
    units::{Gpa, GpaRange},
};
use guest_tests::payload::bare::{Bare, real_mode};
use std::sync::Arc;
use vmm::{fault::Faults, vcpu::Report};

/// Segment of the code.
const CODE: u16 = 0x1000;
/// A page with one bad line, at its byte 0x40.
const PAGE: u64 = 0x3000;

/// Runs `code` with the bad line; the machine and its report.
fn run(code: &[u8]) -> (Bare, Report) {
    let mut bare = Bare::new();
    bare.write(u64::from(CODE) << 4, code);
    bare.write(PAGE + 0x80, &[0x2a, 0]);
    bare.write(PAGE + 0x40, &[0x11, 0x22]);
    let mark = Faults::mark(ErrorSource::Host, false);
    bare.faults.inject(GpaRange::new(Gpa(PAGE + 0x47), 1), mark).unwrap();
    bare.faults.dig(bare.faults.plan()).unwrap();
    assert_eq!(bare.faults.pages(), (1, 0));
    let mut ports = Bus::default();
    ports
        .insert(GpaRange::new(Gpa(0xf4), TestExit::PORTS), Arc::new(TestExit))
        .unwrap();
    let report = bare.run(&real_mode(CODE), ports);
    (bare, report)
}

#[test]
fn neighbours_of_a_bad_line_are_read_and_written() {
    // mov al, [0x3080]; mov [0x3090], al; mov word [0x3040], 0x7777; mov al, [0x3090]; out 0xf4, al; hlt
    let code = [
        0xa0, 0x80, 0x30, 0xa2, 0x90, 0x30, 0xc7, 0x06, 0x40, 0x30, 0x77, 0x77, 0xa0, 0x90, 0x30, 0xe6, 0xf4, 0xf4,
    ];
    let (bare, report) = run(&code);
    assert_eq!(report, Report::Effect(Effect::TestExit(0x2a)));
    assert_eq!(bare.read(PAGE + 0x40, 2), [0x77, 0x77], "a bad line takes stores");
    assert_eq!(bare.faults.carried(), 4);
}

#[test]
fn a_load_of_a_bad_line_never_completes() {
    // mov al, 5; mov al, [0x3041]; out 0xf4, al; hlt
    let (_, report) = run(&[0xb0, 5, 0xa0, 0x41, 0x30, 0xe6, 0xf4, 0xf4]);
    assert_eq!(report, Report::Poisoned);
    // xor si, si with a string copy of four bytes that runs into the line from below: mov si, 0x303e; mov di, 0x5000;
    // mov cx, 4; rep movsb; out 0xf4, al
    let (bare, report) = run(&[
        0xbe, 0x3e, 0x30, 0xbf, 0x00, 0x50, 0xb9, 4, 0, 0xf3, 0xa4, 0xe6, 0xf4, 0xf4,
    ]);
    assert_eq!(report, Report::Poisoned);
    assert_eq!(bare.read(0x5003, 1), [0], "nothing behind the first bad byte is copied");
    assert_eq!(bare.faults.carried(), 2);
}
