//! Bad memory under a guest of a few instructions: what a page with a bad line still does, and what it does not.

use devices::{
    Bus, Effect,
    nvdimm::media::{ErrorSource, Mark},
    test_exit::TestExit,
    units::{Gpa, GpaRange},
};
use guest_tests::{
    api::ApiClient,
    payload::{
        Guest, Program, Script,
        bare::{Bare, real_mode},
    },
};
use serde_json::json;
use std::sync::Arc;
use vmm::{
    cpuid::Vendor,
    fault::{FaultError, awaited::Trigger},
    hv::Kvm,
    layout,
    mce::{CR4_MCE, Personality},
    vcpu::Report,
};

/// Segment of the code.
const CODE: u16 = 0x1000;
/// A page with one bad line, at its byte 0x40.
const PAGE: u64 = 0x3000;
const BAD: GpaRange = GpaRange {
    start: Gpa(PAGE + 0x40),
    len: 64,
};

/// A machine with `code` and the bad line.
fn machine(code: &[u8]) -> Bare {
    let bare = Bare::new();
    bare.write(u64::from(CODE) << 4, code);
    bare.write(PAGE + 0x3e, &[0x31, 0x32, 0x11, 0x22]);
    bare.write(PAGE + 0x80, &[0x2a, 0]);
    bare.faults
        .inject(GpaRange::new(Gpa(PAGE + 0x47), 1), Mark::latent(ErrorSource::Host))
        .unwrap();
    bare.faults.dig(bare.faults.plan()).unwrap();
    assert_eq!(pages(&bare), (1, 0));
    bare
}

/// Pages that are holes, and those that are left out.
fn pages(bare: &Bare) -> (u64, u64) {
    let caught = bare.faults.caught();
    (caught.pages(), caught.left_out)
}

fn ports() -> Bus {
    let mut ports = Bus::default();
    let range = GpaRange::new(Gpa(0xf4), TestExit::PORTS);
    ports.insert(range, Arc::new(TestExit)).unwrap();
    ports
}

/// Runs `code` with the bad line; the machine and its report.
fn run(code: &[u8]) -> (Bare, Report) {
    let mut bare = machine(code);
    let report = bare.run(&real_mode(CODE), ports());
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
    let (bare, report) = run(&[0xb0, 5, 0xa0, 0x41, 0x30, 0xe6, 0xf4, 0xf4]);
    assert_eq!(report, Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, 2, "the load is still to be done");
    assert_eq!(bare.faults.carried(), 0);

    // A copy of four bytes that runs into the line from below:
    // mov si, 0x303e; mov di, 0x5000; mov cx, 4; rep movsb; out 0xf4, al
    let mut bare = machine(&[
        0xbe, 0x3e, 0x30, 0xbf, 0x00, 0x50, 0xb9, 4, 0, 0xf3, 0xa4, 0xe6, 0xf4, 0xf4,
    ]);
    bare.write(0x5000, &[0xee; 4]);
    assert_eq!(bare.run(&real_mode(CODE), ports()), Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, 9, "the copy is still to go on");
    assert_eq!(
        bare.read(0x5000, 2),
        [0x31, 0x32],
        "what comes before the line is copied"
    );
    let behind = bare.read(0x5002, 2);
    assert!(
        behind[0] != 0x11 && behind[1] == 0xee,
        "nothing of the line is: {behind:x?}"
    );
    assert_eq!(bare.faults.carried(), 2);
}

/// A machine with `code` whose line becomes bad by an access.
fn waiting(code: &[u8], trigger: Trigger) -> Bare {
    let bare = Bare::new();
    bare.write(u64::from(CODE) << 4, code);
    bare.write(PAGE + 0x41, &[0x2a]);
    bare.faults.await_access(&[BAD], trigger).unwrap();
    bare.faults.dig(bare.faults.plan()).unwrap();
    assert_eq!((pages(&bare), bare.faults.ram_ranges().len()), ((1, 0), 0));
    bare
}

#[test]
fn a_line_is_good_until_its_third_load() {
    // mov al, [0x3080]; mov [0x3042], al; mov al, [0x3041]; mov bl, al; mov al, [0x3041]; mov al, [0x3041]; out 0xf4, al
    let code = [
        0xa0, 0x80, 0x30, 0xa2, 0x42, 0x30, 0xa0, 0x41, 0x30, 0x88, 0xc3, 0xa0, 0x41, 0x30, 0xa0, 0x41, 0x30, 0xe6,
        0xf4, 0xf4,
    ];
    let mut bare = waiting(&code, Trigger::Load(3));
    assert_eq!(bare.run(&real_mode(CODE), ports()), Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, 14, "the third load is still to be done");
    assert_eq!(bare.faults.carried(), 4, "loads of other lines and stores do not count");
    let bad = bare.faults.ram_ranges();
    assert_eq!((bad.len(), bad[0].dpa.0, bad[0].len), (1, BAD.start.0, 64));
    assert_eq!(bare.faults.awaited_lines(), []);

    // One load more, and nothing has happened.
    let mut bare = waiting(&code, Trigger::Load(4));
    assert_eq!(
        bare.run(&real_mode(CODE), ports()),
        Report::Effect(Effect::TestExit(0x2a))
    );
    assert_eq!(bare.faults.awaited_lines(), [(BAD, Trigger::Load(1))]);
    bare.faults.clear(BAD).unwrap();
    bare.faults.dig(bare.faults.plan()).unwrap();
    assert_eq!((bare.faults.awaited_lines(), pages(&bare)), (vec![], (0, 0)));
}

#[test]
fn a_line_is_good_until_its_second_store() {
    // mov al, [0x3041]; mov [0x3042], al; mov al, [0x3041]; mov [0x3043], al; mov al, [0x3041]; out 0xf4, al
    let code = [
        0xa0, 0x41, 0x30, 0xa2, 0x42, 0x30, 0xa0, 0x41, 0x30, 0xa2, 0x43, 0x30, 0xa0, 0x41, 0x30, 0xe6, 0xf4, 0xf4,
    ];
    let mut bare = waiting(&code, Trigger::Store(2));
    assert_eq!(bare.run(&real_mode(CODE), ports()), Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, 12, "the load behind the second store");
    assert_eq!(bare.read(BAD.start.0, 4), [0, 0x2a, 0x2a, 0x2a], "the store is done");
    assert_eq!(
        (bare.faults.awaited_lines(), bare.faults.ram_ranges().len()),
        (vec![], 1)
    );
}

#[test]
fn a_fetch_from_a_page_meets_the_lines_there_that_wait_for_loads() {
    // jmp 0:0x3080
    let mut bare = waiting(&[0xea, 0x80, 0x30, 0, 0], Trigger::Load(1000));
    assert_eq!(bare.run(&real_mode(CODE), ports()), Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, PAGE + 0x80);
    assert_eq!(
        (bare.faults.awaited_lines(), bare.faults.ram_ranges().len()),
        (vec![], 1)
    );
}

#[test]
fn no_instruction_is_fetched_from_a_page_with_a_bad_line() {
    // jmp 0:0x3080
    let (bare, report) = run(&[0xea, 0x80, 0x30, 0, 0]);
    assert_eq!(report, Report::Poisoned);
    assert_eq!(bare.stopped_at().unwrap().rip, PAGE + 0x80);
}

#[test]
fn a_good_page_is_fast_memory_again() {
    // mov al, [0x3041]; out 0xf4, al; hlt
    let mut bare = machine(&[0xa0, 0x41, 0x30, 0xe6, 0xf4, 0xf4]);
    bare.faults.clear(BAD).unwrap();
    bare.faults.dig(bare.faults.plan()).unwrap();
    assert_eq!(pages(&bare), (0, 0));
    assert_eq!(
        bare.run(&real_mode(CODE), ports()),
        Report::Effect(Effect::TestExit(0x22))
    );
    assert_eq!(bare.faults.carried(), 0, "without an exit");
}

#[test]
fn a_machine_check_names_the_line_and_the_load() {
    for vendor in [Vendor::Amd, Vendor::Intel] {
        // mov al, [0x3041]; out 0xf4, al; hlt
        let mut code = vec![0xa0, 0x41, 0x30, 0xe6, 0xf4, 0xf4];
        code.resize(0x20, 0xf4);
        let bank = if vendor == Vendor::Amd { 4u8 } else { 9 };
        // The handler of #MC: mov ecx, MCi_ADDR; rdmsr; mov [0x6000], eax; mov ecx, MCG_STATUS; rdmsr; mov [0x6004], eax;
        // pop bx; mov [0x6008], bx; mov al, 7; out 0xf4, al; hlt
        code.extend([0x66, 0xb9, 2 + 4 * bank, 0x04, 0, 0, 0x0f, 0x32, 0x66, 0xa3, 0x00, 0x60]);
        code.extend([0x66, 0xb9, 0x7a, 0x01, 0, 0, 0x0f, 0x32, 0x66, 0xa3, 0x04, 0x60]);
        code.extend([0x5b, 0x89, 0x1e, 0x08, 0x60, 0xb0, 7, 0xe6, 0xf4, 0xf4]);
        let mut bare = machine(&code);
        // Vector 18.
        bare.write(18 * 4, &[0x20, 0, 0, (CODE >> 8) as u8]);
        let supported = Kvm::open().unwrap().mce_supported().unwrap();
        let personality = Personality::plan(vendor, supported);
        let checks = bare.machine_checks(&personality);
        let mut state = real_mode(CODE);
        state.cr4 |= CR4_MCE;
        let (report, met) = bare.run_checked(&state, ports(), &personality, &checks);
        assert_eq!(report, Report::Effect(Effect::TestExit(7)), "{vendor:?}");
        assert_eq!(met.len(), 1);
        assert_eq!((met[0].0, met[0].1.global), (BAD.start, 0));
        assert_eq!(bare.read(0x6000, 4), [0x40, 0x30, 0, 0], "{vendor:?}: the line");
        let global = bare.read(0x6004, 1)[0];
        assert_eq!(global & 7, 7, "{vendor:?}: RIPV, EIPV and MCIP");
        assert_eq!(bare.read(0x6008, 2), [0, 0], "{vendor:?}: the load");
    }
}

/// Processors begin with `CR4.MCE` clear, and this program leaves it so.
#[test]
fn a_processor_that_can_take_no_machine_check_shuts_down_also_after_a_pause() {
    for paused in [false, true] {
        let line = layout::ABOVE_4G.0 + 0x1040;
        let script = Script::new().tables().say("on").wait(line + 8, 1).exit(1);
        let guest = Guest::new(&Program::new(script))
            .flag("nvdimm", "size=16M,id=bad")
            .flag("api-socket", "%/api");
        let mut running = guest.start();
        running.wait_for("on");
        let mut api = ApiClient::connect(&guest.file("api")).unwrap();
        if paused {
            api.post("/vm/pause").unwrap();
        }
        let range = json!({"start": line, "len": 1, "latent": true});
        let done = api.done("POST", "/media-errors", Some(&range));
        if paused {
            assert_eq!(done.unwrap()["state"], "paused");
            let faults = api.get("/faults").unwrap();
            assert_eq!(
                (&faults["pages"], &faults["counts"]["consumed"]),
                (&json!(1), &json!(0))
            );
            assert_eq!(
                faults["faults"],
                json!([{"id": "bad@0x1040", "gpa": line, "nvdimm": "bad", "dpa": 0x1040, "len": 64, "source": "host", "state": "latent", "consumable": true}])
            );
            api.post("/vm/resume").unwrap();
        }
        let ended = running.end();
        assert!(ended.stderr.contains("CR4.MCE is clear"), "{}", ended.stderr);
        ended.expect(7);
    }
}

#[test]
fn what_is_no_memory_cannot_be_bad() {
    let bare = Bare::new();
    let mark = Mark::latent(ErrorSource::Host);
    for (start, len) in [(0x10_0000, 1), (0xf_ffff, 2), (0x3000, 0), (u64::MAX - 1, 1)] {
        let refused = bare
            .faults
            .inject(GpaRange { start: Gpa(start), len }, mark)
            .unwrap_err();
        assert!(matches!(refused, FaultError::NotMemory { .. }), "{refused}");
    }
    assert!(bare.faults.plan().is_empty());
}
