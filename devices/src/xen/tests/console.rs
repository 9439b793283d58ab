use super::*;
use proptest::prelude::*;

/// Page of the console's rings.
const CONSOLE: u64 = 901;
const TYPED: u64 = CONSOLE * PAGE;
const PRINTED: u64 = TYPED + 1024;
/// Indices: reader and writer of what is typed, of what is printed.
const INDICES: u64 = TYPED + 3072;

fn bench() -> Bench {
    Bench::of(Domain::new(Plan {
        console: Some(CONSOLE),
        ..plan(false)
    }))
}

fn index(bench: &Bench, n: u64) -> u32 {
    let mut word = [0; 4];
    bench.host.load(Gpa(INDICES + 4 * n), &mut word);
    u32::from_le_bytes(word)
}

fn set_index(bench: &mut Bench, n: u64, to: u32) {
    bench.host.store(Gpa(INDICES + 4 * n), &to.to_le_bytes());
}

/// As the guest's driver writes; what it has room for.
fn print(bench: &mut Bench, text: &[u8]) {
    let (read, written) = (index(bench, 2), index(bench, 3));
    assert!(written.wrapping_sub(read) as usize + text.len() <= 2048);
    for (n, byte) in (0..).zip(text) {
        let at = PRINTED + u64::from(written.wrapping_add(n) % 2048);
        bench.host.store(Gpa(at), &[*byte]);
    }
    set_index(bench, 3, written.wrapping_add(u32::try_from(text.len()).unwrap()));
    let port = port(bench);
    bench.guest.put(0x100, &port);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[4, 0x100]), 0);
}

fn parameter(bench: &mut Bench, index: u32) -> u64 {
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), index, 0, 0]);
    assert_eq!(bench.call(hypercall::HVM_OP, &[1, 0x100]), 0);
    bench.guest.long(0x108)
}

fn port(bench: &mut Bench) -> u32 {
    u32::try_from(parameter(bench, 18)).unwrap()
}

#[test]
fn a_guest_finds_its_console_by_parameters_and_in_the_store() {
    let mut bench = bench();
    assert_eq!((parameter(&mut bench, 17), port(&mut bench)), (CONSOLE, 2));
    let node = |name: &str| bench.domain.store().value(name).map(<[u8]>::to_vec);
    assert_eq!(node("console/ring-ref"), Some(b"901".to_vec()));
    assert_eq!(node("console/port"), Some(b"2".to_vec()));
    let mut without = Bench::new();
    assert_eq!((parameter(&mut without, 17), port(&mut without)), (0, 0));
    assert_eq!(without.domain.store().value("console/port"), None);
}

#[test]
fn what_is_printed_waits_in_the_ring_for_a_reader() {
    let mut bench = bench();
    bench.host.patience = 7;
    print(&mut bench, b"Hello, reader");
    assert_eq!(
        (&bench.host.printed[..], index(&bench, 2), index(&bench, 3)),
        (&b"Hello, "[..], 7, 13)
    );
    assert_eq!(bench.host.raised, [], "nobody can wait for room");
    assert!(!bench.domain.has_printed_all(&bench.host));
    bench.domain.attend_console(&mut bench.host);
    bench.host.patience = 100;
    assert_eq!(bench.call(hypercall::SCHED_OP, &[0]), 0, "who yields is attended to");
    assert_eq!((&bench.host.printed[..], index(&bench, 2)), (&b"Hello, reader"[..], 13));
    bench.domain.attend_console(&mut bench.host);
    assert!(bench.domain.has_printed_all(&bench.host));
    assert_eq!(bench.host.raised, []);
}

#[test]
fn guest_whose_ring_was_full_is_told_of_room() {
    let mut bench = bench();
    print(&mut bench, &[b'x'; 2048]);
    assert_eq!(bench.host.raised, [], "nothing was taken, and nobody is told");
    bench.host.patience = 1;
    bench.domain.attend_console(&mut bench.host);
    assert_eq!(bench.host.raised, [(2, 0)]);
    bench.host.patience = 100;
    bench.domain.attend_console(&mut bench.host);
    assert_eq!(bench.host.raised.len(), 1);
}

#[test]
fn what_is_typed_comes_as_far_as_there_is_room() {
    let mut bench = bench();
    assert_eq!(bench.domain.room_to_type(&bench.host), 1024);
    assert_eq!(bench.domain.typed(&[b'a'; 1000], &mut bench.host), 1000);
    assert_eq!(bench.domain.typed(&[b'b'; 1000], &mut bench.host), 24);
    assert_eq!(bench.domain.typed(b"c", &mut bench.host), 0);
    assert_eq!(
        (bench.domain.room_to_type(&bench.host), bench.host.raised.len()),
        (0, 2)
    );
    let mut typed = [0; 1024];
    bench.host.load(Gpa(TYPED), &mut typed);
    assert!(typed[..1000].iter().all(|b| *b == b'a') && typed[1000..].iter().all(|b| *b == b'b'));
    set_index(&mut bench, 0, 1000);
    assert_eq!(bench.domain.typed(b"cd", &mut bench.host), 2);
    bench.host.load(Gpa(TYPED), &mut typed);
    assert_eq!(&typed[..3], b"cda");
    let mut without = Bench::new();
    assert_eq!(without.domain.room_to_type(&without.host), 0);
    assert_eq!(without.domain.typed(b"x", &mut without.host), 0);
}

#[test]
fn another_kernel_finds_the_console_where_it_was() {
    let mut bench = bench();
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 0]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[7, 0x104]), 0);
    bench.guest.put(0x100, &5u32);
    assert_eq!(bench.call(hypercall::SCHED_OP, &[2, 0x100]), 0);
    assert_eq!(port(&mut bench), 2);
    bench.host.patience = 5;
    print(&mut bench, b"again");
    assert_eq!(bench.host.printed, b"again");
}

proptest! {
    /// Whatever the guest puts into the indices, at most a ring is printed and typed.
    #[test]
    fn indices_are_never_trusted(read: u32, written: u32, typed_read: u32, typed_written: u32, many in 0usize..5000) {
        let mut bench = bench();
        bench.host.patience = usize::MAX;
        for (n, to) in (0..).zip([typed_read, typed_written, read, written]) {
            set_index(&mut bench, n, to);
        }
        bench.domain.attend_console(&mut bench.host);
        let there = written.wrapping_sub(read);
        let expected = if there <= 2048 { there as usize } else { 0 };
        prop_assert_eq!(bench.host.printed.len(), expected);
        let room = bench.domain.room_to_type(&bench.host);
        let taken = bench.domain.typed(&vec![1; many], &mut bench.host);
        prop_assert_eq!(taken, many.min(room));
        prop_assert!(room <= 1024);
        prop_assert!(bench.host.bytes.keys().all(|at| (TYPED..TYPED + PAGE).contains(at)));
    }

    /// Text comes out as it went in, whatever the reader's patience.
    #[test]
    fn text_comes_out_as_it_went_in(parts in proptest::collection::vec((proptest::collection::vec(1u8..127, 1..700), 0usize..900), 1..20)) {
        let mut bench = bench();
        let mut all = vec![];
        for (part, patience) in parts {
            if index(&bench, 3).wrapping_sub(index(&bench, 2)) as usize + part.len() > 2048 {
                bench.host.patience = usize::MAX;
                bench.domain.attend_console(&mut bench.host);
            }
            bench.host.patience = patience;
            print(&mut bench, &part);
            all.extend(part);
        }
        bench.host.patience = usize::MAX;
        bench.domain.attend_console(&mut bench.host);
        prop_assert_eq!(&bench.host.printed, &all);
    }
}
