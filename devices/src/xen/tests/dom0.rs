//! What the first domain has beyond others.

use super::*;

fn dom0() -> Bench {
    Bench::of(domain(true))
}

/// A `platform_op` at 0x100.
fn platform(bench: &mut Bench, command: u32, body: [u32; 5]) -> Answer {
    bench.guest.put(0x100, &[command, 0x0300_0001]);
    bench.guest.put(0x108, &body);
    bench.answer(hypercall::PLATFORM_OP, &[0x100])
}

#[test]
fn it_is_number_0_and_its_features_say_that_it_is_the_first() {
    for (mut bench, features, own, other) in [(dom0(), 0x0001_2b05, 0u16, 1u16), (Bench::new(), 0x0001_2305, 1, 0)] {
        assert_eq!(bench.call(hypercall::XEN_VERSION, &[6, 0x100]), 0);
        assert_eq!(bench.guest.word(0x104), features);
        bench.guest.put(0x1000, &own);
        assert_eq!(bench.call(hypercall::MEMORY_OP, &[3, 0x1000]), 1024);
        bench.guest.put(0x1000, &other);
        assert_eq!(bench.call(hypercall::MEMORY_OP, &[3, 0x1000]), -3);
    }
}

#[test]
fn the_machines_map_is_its_own_map() {
    let ask = |bench: &mut Bench, operation| {
        bench.guest.put(0x100, &[8u64, 0x2000]);
        let result = bench.call(hypercall::MEMORY_OP, &[operation, 0x100]);
        let map: Vec<_> = (0..12).map(|n| bench.guest.long(0x2000 + 8 * n)).collect();
        (result, bench.guest.word(0x100), map)
    };
    let mut bench = dom0();
    let (own, machine) = (ask(&mut bench, 9), ask(&mut bench, 10));
    assert_eq!((own.0, own.1, own.2[0], own.2[1]), (0, 2, 0, 0x9_fc00));
    assert_eq!(own, machine);
    assert_eq!(ask(&mut Bench::new(), 10).0, -1);
}

#[test]
fn processors_are_told_by_number_with_both_ids() {
    let mut bench = dom0();
    for (number, highest, flags, apic_id, acpi_id) in [
        (0, 1, 1, 0, 0),
        (1, 1, 1, 4, 1),
        (2, 1, 2, 0, 0),
        (u32::MAX, 1, 2, 0, 0),
    ] {
        assert_eq!(platform(&mut bench, 55, [number, 9, 9, 9, 9]).result, 0);
        let told = [0x10c, 0x110, 0x114, 0x118].map(|at| bench.guest.word(at));
        assert_eq!(told, [highest, flags, apic_id, acpi_id], "processor {number}");
    }
}

#[test]
fn it_can_be_switched_off_and_not_put_to_sleep() {
    let mut bench = dom0();
    let off = platform(&mut bench, 51, [0, 5, 0, 0, 0]);
    assert_eq!((off.result, off.effect), (0, Effect::PowerOff));
    for state in [0, 1, 3, 4, 6] {
        let asleep = platform(&mut bench, 51, [0, state, 0, 0, 0]);
        assert_eq!((asleep.result, asleep.effect), (-95, Effect::None), "S{state}");
    }
    assert_eq!(platform(&mut bench, 62, [0; 5]).result, -1, "the clock is the host's");
    assert_eq!(platform(&mut bench, 50, [0; 5]).result, -38);
    bench.guest.put(0x104, &0x0300_0000u32);
    assert_eq!(bench.call(hypercall::PLATFORM_OP, &[0x100]), -13);
    assert_eq!(bench.call(hypercall::PLATFORM_OP, &[0xffff]), -14);
}

#[test]
fn its_interrupts_and_devices_are_there_already() {
    let mut bench = dom0();
    for (gsi, triggering, polarity, result) in [
        (0u32, 1u8, 1u8, 0),
        (23, 0, 0, 0),
        (24, 0, 0, -22),
        (1, 2, 0, -22),
        (1, 0, 2, -22),
    ] {
        bench.guest.put(0x100, &gsi);
        bench.guest.put(0x104, &[triggering, polarity, 0, 0]);
        assert_eq!(
            bench.call(hypercall::PHYSDEV_OP, &[21, 0x100]),
            result,
            "{gsi} {triggering} {polarity}"
        );
    }
    for operation in 24..27 {
        assert_eq!(bench.call(hypercall::PHYSDEV_OP, &[operation, 0x100]), 0);
    }
    // It has no paravirtual interrupts.
    assert_eq!(bench.call(hypercall::PHYSDEV_OP, &[13, 0x100]), -38);
}

#[test]
fn nobody_types_at_the_hypervisors_console() {
    assert_eq!(dom0().call(hypercall::CONSOLE_IO, &[1, 16, 0x100]), 0);
    assert_eq!(Bench::new().call(hypercall::CONSOLE_IO, &[1, 16, 0x100]), -38);
}

#[test]
fn others_may_not_ask() {
    let mut bench = Bench::new();
    assert_eq!(platform(&mut bench, 55, [0; 5]).result, -1);
    let off = platform(&mut bench, 51, [0, 5, 0, 0, 0]);
    assert_eq!((off.result, off.effect), (-1, Effect::None));
    for operation in [21, 24, 25, 26] {
        assert_eq!(bench.call(hypercall::PHYSDEV_OP, &[operation, 0x100]), -1);
    }
}
