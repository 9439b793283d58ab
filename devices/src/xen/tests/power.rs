use super::*;
use crate::xen::store::wire::{Message, kind};

/// A write of the guest's through the ring.
fn write(bench: &mut Bench, path: &str, value: &str) {
    let message = Message {
        kind: kind::WRITE,
        request: 1,
        transaction: 0,
        payload: format!("{path}\0{value}").into_bytes(),
    };
    let index = |bench: &Bench, n: u64| {
        let mut word = [0; 4];
        bench.host.load(Gpa(STORE * PAGE + 2048 + 4 * n), &mut word);
        u32::from_le_bytes(word)
    };
    let produced = index(bench, 1);
    let bytes = message.bytes();
    for (at, byte) in (produced..).zip(&bytes) {
        bench.host.store(Gpa(STORE * PAGE + u64::from(at % 1024)), &[*byte]);
    }
    let end = produced + u32::try_from(bytes.len()).unwrap();
    bench.host.store(Gpa(STORE * PAGE + 2048 + 4), &end.to_le_bytes());
    bench.domain.attend_store(&mut bench.host);
    // The answer is not looked at.
    let answered = index(bench, 3);
    bench.host.store(Gpa(STORE * PAGE + 2048 + 8), &answered.to_le_bytes());
}

#[test]
fn a_guest_is_asked_for_what_it_takes_and_once_at_a_time() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, what| bench.domain.ask(what, &mut bench.host);
    assert_eq!(ask(&mut bench, Asked::PowerOff), Err(NotAsked::Unsupported));
    write(&mut bench, "control/feature-poweroff", "1");
    write(&mut bench, "control/feature-reboot", "0");
    assert_eq!(ask(&mut bench, Asked::Reboot), Err(NotAsked::Unsupported));
    assert_eq!(
        (ask(&mut bench, Asked::PowerOff), bench.domain.asked()),
        (Ok(()), Some(Asked::PowerOff))
    );
    assert_eq!(bench.domain.store().value("control/shutdown"), Some(&b"poweroff"[..]));
    write(&mut bench, "control/feature-reboot", "1");
    assert_eq!(ask(&mut bench, Asked::Reboot), Err(NotAsked::Waiting("poweroff")));

    // It takes it.
    write(&mut bench, "control/shutdown", "");
    assert_eq!(bench.domain.asked(), None);
    assert!(!bench.domain.take_back(Asked::PowerOff, &mut bench.host));
    assert_eq!(ask(&mut bench, Asked::Reboot), Ok(()));
    assert!(!bench.domain.take_back(Asked::PowerOff, &mut bench.host));
    assert!(bench.domain.take_back(Asked::Reboot, &mut bench.host));
    assert_eq!(bench.domain.store().value("control/shutdown"), Some(&b""[..]));
}

#[test]
fn a_guest_that_takes_the_node_away_has_taken_what_it_was_asked_for() {
    let mut bench = Bench::new();
    write(&mut bench, "control/feature-poweroff", "1");
    bench.domain.ask(Asked::PowerOff, &mut bench.host).unwrap();
    write(&mut bench, "control/shutdown", "nonsense");
    assert_eq!(bench.domain.asked(), None);
    // What a guest writes there itself asks it for nothing, and is in nobody's way.
    assert_eq!(bench.domain.ask(Asked::PowerOff, &mut bench.host), Ok(()));
}

#[test]
fn the_next_kernel_says_anew_what_it_takes() {
    let mut bench = Bench::new();
    write(&mut bench, "control/feature-poweroff", "1");
    write(&mut bench, "data/left", "x");
    assert_eq!(bench.domain.ask(Asked::PowerOff, &mut bench.host), Ok(()));
    bench.domain.set_target(256, &mut bench.host);
    // A soft reset.
    bench.guest.put(0x100, &5u32);
    assert_eq!(bench.call(hypercall::SCHED_OP, &[2, 0x100]), 0);
    assert_eq!(bench.domain.asked(), None);
    assert_eq!(
        bench.domain.ask(Asked::PowerOff, &mut bench.host),
        Err(NotAsked::Unsupported)
    );
    let store = bench.domain.store();
    assert_eq!(
        (store.value("data/left"), store.value("control/shutdown")),
        (None, Some(&b""[..]))
    );
    // What the host has said holds.
    assert_eq!(store.value("memory/target"), Some(&b"1024"[..]));
}
