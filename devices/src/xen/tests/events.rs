//! Event channels, time and the store's port.

use super::*;

#[test]
fn an_event_that_came_while_its_port_was_masked_is_told_when_it_is_not() {
    let mut bench = Bench::new();
    assert_eq!(bench.add(0, 0, 16), 0);
    bench.guest.put(0x100, &[1u32, 1]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[1, 0x100]), 0);
    let port = bench.guest.word(0x108);
    let (pending, mask) = (16 * PAGE + shared_info::PENDING, 16 * PAGE + shared_info::MASK);
    bench.host.store(Gpa(pending), &[1 << port]);
    bench.guest.put(0x100, &port);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[9, 0x100]), 0);
    assert!(bench.host.raised.is_empty(), "it was not masked");
    bench.host.store(Gpa(mask), &[1 << port]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[9, 0x100]), 0);
    assert_eq!((&bench.host.raised[..], bench.host.bytes[&mask]), (&[(port, 1)][..], 0));
    bench.host.store(Gpa(pending), &[1 << port]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[3, 0x100]), 0);
    assert_eq!(bench.host.bytes[&pending], 0);
    bench.guest.put(0x100, &4096u32);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[9, 0x100]), -22);
}

#[test]
fn a_port_whose_number_cannot_be_told_is_not_bound() {
    let mut bench = Bench::new();
    // The last word of what is written lies beyond the end.
    for _ in 0..3 {
        bench.guest.put(0xfff8, &[0u32, 0]);
        assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[1, 0xfff8]), -14);
    }
    bench.guest.put(0x100, &[0u32, 0]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[1, 0x100]), 0);
    assert_eq!(bench.guest.word(0x108), 2, "the first is the store's");
}

#[test]
fn time_is_told_where_the_guest_wants_it_and_its_timer_has_a_port() {
    let mut bench = Bench::new();
    bench.guest.put(0x100, &0x2340u64);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[5, 1, 0x100]), 0);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[13, 0, 0x100]), 0);
    assert_eq!(
        bench.host.areas,
        BTreeMap::from([((1, Area::Runstate), 0x2340), ((0, Area::Time), 0x2340)])
    );
    bench.guest.put(0x100, &0xffe0u64);
    assert_eq!(
        (
            bench.call(hypercall::VCPU_OP, &[5, 0, 0x100]),
            bench.call(hypercall::VCPU_OP, &[13, 0, 0x100])
        ),
        (-14, 0)
    );
    bench.guest.put(0x100, &0u64);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[13, 0, 0x100]), 0);
    assert_eq!(bench.host.areas.len(), 1);
    assert_eq!(
        (
            bench.call(hypercall::VCPU_OP, &[7, 0, 0]),
            bench.call(hypercall::VCPU_OP, &[6, 0, 0])
        ),
        (0, -38)
    );
    bench.guest.put(0x100, &[0u32, 1]);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[1, 0x100]), 0);
    let port = bench.guest.word(0x108);
    assert_eq!(bench.host.timers, BTreeMap::from([(1, port)]));
    bench.guest.put(0x100, &port);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[3, 0x100]), 0);
    assert_eq!(bench.host.timers, BTreeMap::from([(1, 0)]));
}

#[test]
fn events_come_by_a_vector_or_not_at_all() {
    let mut bench = Bench::new();
    let mut set = |index: u32, value: u64| {
        bench.guest.put(0x100, &[u32::from(DOMID_SELF), index]);
        bench.guest.put(0x108, &value);
        let done = bench.call(hypercall::HVM_OP, &[0, 0x100]);
        (done, bench.host.vector)
    };
    assert_eq!(set(0, 2 << 56 | 0xf3), (0, 0xf3));
    assert_eq!(set(0, 2 << 56 | 0xf), (-22, 0xf3));
    assert_eq!(set(0, 1 << 56 | 3), (-22, 0xf3));
    assert_eq!(set(0, 0), (0, 0));
    assert_eq!((set(1, 5).0, set(39, 0).0, set(u32::MAX, 0).0), (-1, -22, -22));
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 1]);
    assert_eq!(
        (bench.call(hypercall::HVM_OP, &[1, 0x100]), bench.guest.long(0x108)),
        (0, STORE)
    );
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 17]);
    assert_eq!(
        (bench.call(hypercall::HVM_OP, &[1, 0x100]), bench.guest.long(0x108)),
        (0, 0),
        "there is no console"
    );
}

#[test]
fn events_come_by_a_vector_of_each_vcpu_and_are_not_lost_before_its_apic_is_on() {
    const SET_OWN_VECTOR: u64 = 23;
    /// Asks for the version, which changes nothing.
    fn any_call(bench: &mut Bench) {
        assert_eq!(bench.call(hypercall::XEN_VERSION, &[0, 0]), 0x4_0011);
    }
    let mut bench = Bench::new();
    let own = |bench: &mut Bench, vcpu: u32, vector: u32| {
        bench.guest.put(0x100, &[vcpu, vector]);
        bench.call(hypercall::HVM_OP, &[SET_OWN_VECTOR, 0x100])
    };
    let via = |bench: &mut Bench, value: u64| {
        bench.guest.put(0x100, &[u32::from(DOMID_SELF), 0]);
        bench.guest.put(0x108, &value);
        bench.call(hypercall::HVM_OP, &[0, 0x100])
    };
    assert_eq!(via(&mut bench, 1), -22, "nobody would pull the line");
    assert_eq!((own(&mut bench, 0, 0xf), own(&mut bench, 2, 0xf3)), (-22, -2));
    assert_eq!((own(&mut bench, 0, 0xf3), own(&mut bench, 1, 0xf4)), (0, 0));
    assert_eq!(bench.host.own_vectors, BTreeMap::from([(0, 0xf3), (1, 0xf4)]));
    assert_eq!((via(&mut bench, 1), bench.host.vector), (0, 0));
    any_call(&mut bench);
    assert_eq!(bench.host.interrupts, [], "nothing is pending");
    // vCPU 0 has the store's port; what came before its information moved is looked for, and told of for as long as it is pending.
    let move_info = |bench: &mut Bench, vcpu: u64, page: u64| {
        bench.guest.put(0x100, &page);
        bench.guest.put(0x108, &0u64);
        assert_eq!(bench.call(hypercall::VCPU_OP, &[10, vcpu, 0x100]), 0);
        let mut info = [0; 16];
        bench.host.load(Gpa(page * PAGE), &mut info);
        info
    };
    let looked_for = [1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(move_info(&mut bench, 0, 5), looked_for);
    any_call(&mut bench);
    assert_eq!(bench.host.interrupts, [(0, 0xf3); 2]);
    bench.host.store(Gpa(5 * PAGE), &[0]);
    any_call(&mut bench);
    assert_eq!(bench.host.interrupts.len(), 2);
    // vCPU 1 has no port: nothing can be pending, and its first event is told of.
    assert_eq!(move_info(&mut bench, 1, 6), [0; 16]);
    // A soft reset, for another kernel.
    bench.guest.put(0x100, &5u32);
    assert_eq!(bench.call(hypercall::SCHED_OP, &[2, 0x100]), 0);
    assert_eq!(bench.host.own_vectors, BTreeMap::from([(0, 0), (1, 0)]));
    assert_eq!(via(&mut bench, 1), -22);
}

#[test]
fn a_version_before_4_17_has_one_vector_for_all() {
    let older = Plan {
        version: "4.16".parse().unwrap(),
        ..plan(false)
    };
    let mut bench = Bench::new();
    bench.domain = Domain::new(older);
    bench.guest.put(0x100, &[0u32, 0xf3]);
    assert_eq!(bench.call(hypercall::HVM_OP, &[23, 0x100]), -38);
}

#[test]
fn the_store_answers_on_its_port_and_tells_of_a_new_target() {
    let mut bench = Bench::new();
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 2]);
    assert_eq!(bench.call(hypercall::HVM_OP, &[1, 0x100]), 0);
    let port = bench.guest.word(0x108);
    let ask = |bench: &mut Bench, kind: u32, payload: &[u8]| {
        let message = store::wire::Message {
            kind,
            request: 1,
            transaction: 0,
            payload: payload.to_vec(),
        };
        let at = Gpa(STORE * PAGE + 2048);
        let mut indices = [0; 16];
        bench.host.load(at, &mut indices);
        let produced = u32::from_le_bytes(indices[4..8].try_into().unwrap());
        bench
            .host
            .store(Gpa(STORE * PAGE + u64::from(produced)), &message.bytes());
        let len = u32::try_from(message.bytes().len()).unwrap();
        bench.host.store(Gpa(at.0 + 4), &(produced + len).to_le_bytes());
        bench.guest.put(0x100, &port);
        assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[4, 0x100]), 0);
    };
    ask(&mut bench, store::wire::kind::WATCH, b"memory/target\0t\0");
    assert_eq!(bench.host.raised, [(port, 0)]);
    bench.domain.set_target(256, &mut bench.host);
    assert_eq!(bench.host.raised.len(), 2);
    assert_eq!(bench.domain.store().value("memory/target"), Some(&b"1024"[..]));
    assert_eq!(bench.domain.store().value("memory/static-max"), Some(&b"4096"[..]));
    // A guest that closes the port is not told.
    bench.guest.put(0x100, &port);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[3, 0x100]), 0);
    bench.domain.set_target(257, &mut bench.host);
    assert_eq!(bench.host.raised.len(), 2);
}

#[test]
fn interrupts_between_vcpus_are_the_machines_to_deliver_until_their_port_is_closed() {
    let mut bench = Bench::new();
    let bind = |bench: &mut Bench, vcpu: u32| {
        bench.guest.put(0x100, &[vcpu, 0]);
        let done = bench.call(hypercall::EVENT_CHANNEL_OP, &[7, 0x100]);
        (done, bench.guest.word(0x104))
    };
    let (first, second) = (bind(&mut bench, 0), bind(&mut bench, 1));
    assert_eq!((first, second), ((0, 2), (0, 3)));
    assert_eq!(bind(&mut bench, 2).0, -2, "there is no third vCPU");
    assert_eq!(bench.host.ipis, BTreeMap::from([(2, 0), (3, 1)]));
    let close = |bench: &mut Bench, port: u32| {
        bench.guest.put(0x100, &port);
        bench.call(hypercall::EVENT_CHANNEL_OP, &[3, 0x100])
    };
    assert_eq!((close(&mut bench, 2), close(&mut bench, 2)), (0, -22));
    assert_eq!(bench.host.ipis, BTreeMap::from([(3, 1)]));
    // A soft reset, for another kernel.
    bench.guest.put(0x100, &5u32);
    assert_eq!(bench.call(hypercall::SCHED_OP, &[2, 0x100]), 0);
    assert_eq!(bench.host.ipis, BTreeMap::new());
    assert_eq!(bind(&mut bench, 1), (0, 2));
    bench.guest.put(0x100, &DOMID_SELF);
    assert_eq!(bench.call(hypercall::EVENT_CHANNEL_OP, &[10, 0x100]), 0);
    assert_eq!(bench.host.ipis, BTreeMap::new());
}
