//! The console as Linux's driver meets it.

use super::{
    control::*,
    state::{Role, role},
    *,
};
use crate::virtio::testing::{Buffer, Driver, EVENT_IDX, conforms};
use std::sync::Arc;
use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG_GENERATION};
use zerocopy::IntoBytes;

const NAME: &str = "org.daxvisor.test.0";
const MULTIPORT: u64 = F_MULTIPORT | F_SIZE;
/// Queues: receive and transmit of ports 0 and 1.
const RX: [usize; 2] = [0, 4];
const TX: [usize; 2] = [1, 5];

/// What a sink saw, and how much it will take.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    room: usize,
    calls: usize,
    offers: usize,
    opened: Vec<bool>,
}

#[derive(Clone)]
struct Sink(Arc<Mutex<Seen>>);

impl PortSink for Sink {
    fn write(&mut self, data: &[u8]) -> usize {
        let mut seen = lock(&self.0);
        let taken = seen.room.min(data.len());
        seen.room -= taken;
        seen.calls += 1;
        seen.bytes.extend(&data[..taken]);
        taken
    }
    fn input_room(&mut self) {
        lock(&self.0).offers += 1;
    }
    fn guest_open(&mut self, open: bool) {
        lock(&self.0).opened.push(open);
    }
}

impl Sink {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            room: usize::MAX,
            ..Seen::default()
        })))
    }
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        lock(&self.0)
    }
}

fn port(kind: PortKind, sink: &Sink, open: bool) -> Option<PortConfig> {
    Some(PortConfig {
        kind,
        sink: Box::new(sink.clone()),
        open,
    })
}

fn device() -> Arc<Console> {
    let (a, b) = (Sink::new(), Sink::new());
    Arc::new(Console::new(vec![
        port(PortKind::Console, &a, true),
        port(PortKind::Named(NAME.into()), &b, true),
    ]))
}

conforms!(device);

struct Rig {
    console: Arc<Console>,
    sinks: [Sink; 2],
    driver: Driver,
    /// Control buffers the driver gave: head and address.
    control: Vec<(u16, u64)>,
}

impl Rig {
    /// A driver that is up and has given `buffers` control buffers.
    fn new(features: u64, buffers: usize) -> Self {
        let sinks = [Sink::new(), Sink::new()];
        let console = Arc::new(Console::new(vec![
            port(PortKind::Console, &sinks[0], true),
            port(PortKind::Named(NAME.into()), &sinks[1], false),
        ]));
        let driver = Driver::up(console.clone(), features);
        let mut rig = Self {
            console,
            sinks,
            driver,
            control: Vec::new(),
        };
        (0..buffers).for_each(|_| rig.give_control());
        rig
    }

    /// Past the introduction, with both guest ends open.
    fn introduced() -> Self {
        let mut rig = Self::new(MULTIPORT | EVENT_IDX, 16);
        rig.say(u32::MAX, DEVICE_READY, 1);
        for id in 0..2 {
            rig.say(id, PORT_READY, 1);
            rig.say(id, PORT_OPEN, 1);
        }
        rig.heard();
        rig
    }

    fn give_control(&mut self) {
        let at = self.driver.buffer(64);
        let head = self.driver.offer(CONTROL_RX, &[Buffer::Write(at, 64)]);
        self.control.push((head, at));
        self.driver.notify(2);
    }

    fn say(&mut self, id: u32, event: u16, value: u16) {
        let header = Header {
            id: id.into(),
            event: event.into(),
            value: value.into(),
        };
        self.say_bytes(header.as_bytes());
    }

    fn say_bytes(&mut self, bytes: &[u8]) {
        let message = self.driver.text(bytes);
        let head = self.driver.offer(CONTROL_TX, &[message]);
        self.driver.notify(3);
        assert_eq!(self.driver.used(CONTROL_TX), [(head, 0)]);
    }

    /// Control messages since the last call: port, event, value, and what follows. Their buffers are given again.
    fn heard(&mut self) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let mut messages = Vec::new();
        for (head, len) in self.driver.used(CONTROL_RX) {
            let place = self.control.iter().position(|(h, _)| *h == head).unwrap();
            let (_, at) = self.control.remove(place);
            let bytes = self.driver.bytes(at, len);
            let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let id = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            messages.push((id, u16_at(4), u16_at(6), bytes[8..].to_vec()));
        }
        messages.iter().for_each(|_| self.give_control());
        messages
    }

    fn give_receive(&mut self, port: usize, len: usize) -> u64 {
        let at = self.driver.buffer(len);
        self.driver.offer(RX[port], &[Buffer::Write(at, len)]);
        self.driver.notify(u32::try_from(RX[port]).unwrap());
        at
    }

    fn transmit(&mut self, port: usize, bytes: &[u8]) {
        let message = self.driver.text(bytes);
        self.driver.offer(TX[port], &[message]);
        self.driver.notify(u32::try_from(TX[port]).unwrap());
    }
}

#[test]
fn ports_are_introduced_as_the_driver_gets_ready() {
    let mut rig = Rig::new(MULTIPORT, 16);
    assert_eq!(rig.heard(), []);
    rig.say(u32::MAX, DEVICE_READY, 1);
    assert_eq!(rig.heard(), [(0, DEVICE_ADD, 1, vec![]), (1, DEVICE_ADD, 1, vec![])]);
    rig.say(0, PORT_READY, 1);
    assert_eq!(rig.heard(), [(0, CONSOLE_PORT, 1, vec![]), (0, PORT_OPEN, 1, vec![])]);
    rig.say(1, PORT_READY, 1);
    assert_eq!(rig.heard(), [(1, PORT_NAME, 1, NAME.into())]);
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    assert_eq!(rig.heard(), [(1, PORT_OPEN, 1, vec![])]);
    rig.say(1, PORT_OPEN, 1);
    assert_eq!(
        (&rig.sinks[1].seen().opened, rig.sinks[0].seen().opened.len()),
        (&vec![true], 0)
    );
}

#[test]
fn an_absent_console_leaves_the_other_port_its_number() {
    let sink = Sink::new();
    let console = Arc::new(Console::new(vec![
        None,
        port(PortKind::Named(NAME.into()), &sink, true),
    ]));
    let driver = Driver::up(console.clone(), MULTIPORT);
    let mut rig = Rig {
        console,
        sinks: [Sink::new(), sink.clone()],
        driver,
        control: Vec::new(),
    };
    (0..4).for_each(|_| rig.give_control());
    rig.say(u32::MAX, DEVICE_READY, 1);
    rig.say(1, PORT_READY, 1);
    let told = [
        (1, DEVICE_ADD, 1, vec![]),
        (1, PORT_NAME, 1, NAME.into()),
        (1, PORT_OPEN, 1, vec![]),
    ];
    assert_eq!(rig.heard(), told);
    rig.transmit(1, b"hello");
    rig.transmit(0, b"nobody");
    assert_eq!(sink.seen().bytes, b"hello");
    assert_eq!(rig.console.input(0, b"nobody"), 0);
}

#[test]
fn messages_wait_for_control_buffers_and_do_not_pile_up() {
    let mut rig = Rig::new(MULTIPORT, 0);
    (0..100).for_each(|_| rig.say(u32::MAX, DEVICE_READY, 1));
    (0..100).for_each(|_| rig.say(0, PORT_READY, 1));
    assert_eq!(rig.heard(), []);
    (0..8).for_each(|_| rig.give_control());
    let told = [
        (0, DEVICE_ADD, 1, vec![]),
        (0, CONSOLE_PORT, 1, vec![]),
        (0, PORT_OPEN, 1, vec![]),
        (1, DEVICE_ADD, 1, vec![]),
    ];
    assert_eq!(rig.heard(), told);
}

#[test]
fn a_reconnection_is_heard_as_an_end_and_a_beginning() {
    let mut rig = Rig::introduced();
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    assert_eq!(rig.heard(), [(1, PORT_OPEN, 1, vec![])]);
    assert_eq!(rig.console.set_open(1, false), Progress::Done);
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    assert_eq!(rig.heard(), [(1, PORT_OPEN, 0, vec![]), (1, PORT_OPEN, 1, vec![])]);
    let absent = rig.console.set_open(7, true);
    assert_eq!((absent, rig.heard()), (Progress::Done, vec![]));
}

#[test]
fn the_size_is_told_by_message_and_in_the_configuration_space() {
    let mut rig = Rig::introduced();
    let (edges, generation) = (rig.driver.line.count(), rig.driver.read(VIRTIO_MMIO_CONFIG_GENERATION));
    rig.console.resize(132, 43);
    rig.console.resize(132, 43);
    assert_eq!(rig.heard(), [(0, RESIZE, 0, vec![132, 0, 43, 0])]);
    assert_eq!(rig.driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation + 1);
    assert_eq!((rig.driver.read(0x100), rig.driver.read(0x104)), (43 << 16 | 132, 2));
    assert_eq!(
        (rig.driver.acknowledge() & 2, rig.driver.line.count() > edges),
        (2, true)
    );
}

#[test]
fn input_waits_until_a_guest_program_opens_the_port() {
    let mut rig = Rig::new(MULTIPORT, 16);
    rig.say(u32::MAX, DEVICE_READY, 1);
    rig.say(1, PORT_READY, 1);
    let at = rig.give_receive(1, 16);
    assert_eq!((rig.console.input(1, b"early"), rig.console.wants_input(1)), (0, false));
    assert_eq!(rig.driver.used(RX[1]), []);
    rig.say(1, PORT_OPEN, 1);
    assert_eq!(rig.sinks[1].seen().offers, 1);
    assert_eq!(rig.console.input(1, b"early"), 5);
    assert_eq!(
        (rig.driver.used(RX[1]), rig.driver.bytes(at, 5)),
        (vec![(0, 5)], b"early".to_vec())
    );
}

#[test]
fn input_refused_before_there_is_a_driver_is_asked_for_later() {
    let sinks = [Sink::new(), Sink::new()];
    let console = Arc::new(Console::new(vec![
        port(PortKind::Console, &sinks[0], true),
        port(PortKind::Named(NAME.into()), &sinks[1], true),
    ]));
    assert_eq!((console.input(1, b"early"), console.wants_input(1)), (0, false));
    let driver = Driver::up(console.clone(), MULTIPORT);
    let mut rig = Rig {
        console,
        sinks,
        driver,
        control: Vec::new(),
    };
    (0..16).for_each(|_| rig.give_control());
    rig.say(u32::MAX, DEVICE_READY, 1);
    rig.say(1, PORT_READY, 1);
    rig.give_receive(1, 16);
    assert_eq!(rig.sinks[1].seen().offers, 0);
    rig.say(1, PORT_OPEN, 1);
    assert_eq!(rig.sinks[1].seen().offers, 1);
    assert_eq!(rig.console.input(1, b"early"), 5);
}

#[test]
fn input_that_does_not_fit_is_refused_and_asked_for_again() {
    let mut rig = Rig::introduced();
    let (a, b) = (rig.give_receive(1, 4), rig.give_receive(1, 4));
    assert_eq!(rig.sinks[1].seen().offers, 0);
    assert!(rig.console.wants_input(1));
    assert_eq!(rig.console.input(1, b"0123456789"), 8);
    assert_eq!(
        (rig.driver.bytes(a, 4), rig.driver.bytes(b, 4)),
        (b"0123".to_vec(), b"4567".to_vec())
    );
    assert_eq!((rig.console.input(1, b"89"), rig.sinks[1].seen().offers), (0, 0));
    // The driver has to notify of the next buffer: the device asked for it.
    assert_eq!(rig.driver.avail_event(RX[1]), 2);
    rig.give_receive(1, 4);
    assert_eq!(rig.sinks[1].seen().offers, 1);
    assert_eq!(rig.console.input(1, b"89"), 2);
    rig.give_receive(1, 4);
    assert_eq!(rig.sinks[1].seen().offers, 1, "nobody waits");
}

#[test]
fn receive_buffers_without_room_do_not_hold_the_host() {
    let mut rig = Rig::introduced();
    for _ in 0..32 {
        rig.give_receive(1, 0);
    }
    assert_eq!(rig.console.input(1, b"x"), 0);
    assert_eq!(rig.driver.used(RX[1]).len(), 32);
}

#[test]
fn output_reaches_the_sink_in_order_and_whole() {
    let mut rig = Rig::introduced();
    let (a, b) = (rig.driver.text(b"one "), rig.driver.text(b"two "));
    rig.driver.offer(TX[0], &[a, b]);
    rig.transmit(0, b"three");
    assert_eq!(rig.sinks[0].seen().bytes, b"one two three");
    let long: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    rig.transmit(1, &long);
    assert_eq!(rig.sinks[1].seen().bytes, long);
    assert_eq!((rig.driver.used(TX[0]).len(), rig.driver.used(TX[1]).len()), (2, 1));
}

#[test]
fn a_slow_sink_holds_the_chain_and_gets_the_rest_later() {
    let mut rig = Rig::introduced();
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    rig.sinks[1].seen().room = 7;
    let (a, b) = (rig.driver.text(b"0123"), rig.driver.text(b"456789"));
    rig.driver.offer(TX[1], &[a, b]);
    rig.transmit(1, b"next");
    assert_eq!((rig.driver.used(TX[1]).len(), rig.sinks[1].seen().calls), (0, 1));
    rig.driver.notify(5);
    assert_eq!(rig.sinks[1].seen().calls, 1, "a blocked sink is left alone");
    rig.sinks[1].seen().room = 5;
    assert_eq!(rig.console.output_ready(1), Progress::Done);
    assert_eq!(
        (rig.driver.used(TX[1]).len(), rig.sinks[1].seen().bytes.clone()),
        (1, b"0123456789ne".to_vec())
    );
    rig.sinks[1].seen().room = usize::MAX;
    assert_eq!(rig.console.output_ready(1), Progress::Done);
    assert_eq!(
        (rig.driver.used(TX[1]).len(), rig.sinks[1].seen().bytes.clone()),
        (1, b"0123456789next".to_vec())
    );
}

#[test]
fn a_turn_of_output_is_bounded() {
    let mut rig = Rig::introduced();
    let at = rig.driver.buffer(300 << 10);
    rig.driver.offer(TX[0], &[Buffer::Read(at, 300 << 10)]);
    assert_eq!(rig.driver.mmio.queue_notify(1), Progress::More);
    assert_eq!(
        (rig.sinks[0].seen().bytes.len(), rig.driver.used(TX[0]).len()),
        (256 << 10, 0)
    );
    assert_eq!(rig.driver.mmio.queue_notify(1), Progress::Done);
    assert_eq!(
        (rig.sinks[0].seen().bytes.len(), rig.driver.used(TX[0]).len()),
        (300 << 10, 1)
    );
}

#[test]
fn closing_the_host_end_drops_what_was_under_way_and_nothing_later() {
    let mut rig = Rig::introduced();
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    rig.sinks[1].seen().room = 2;
    rig.transmit(1, b"old connection");
    assert_eq!(rig.driver.used(TX[1]).len(), 0);
    rig.sinks[1].seen().room = usize::MAX;
    assert_eq!(rig.console.set_open(1, false), Progress::Done);
    rig.transmit(1, b"to nobody");
    assert_eq!(rig.driver.used(TX[1]).len(), 2);
    assert_eq!(rig.console.set_open(1, true), Progress::Done);
    rig.transmit(1, b"new");
    assert_eq!(rig.sinks[1].seen().bytes, b"olnew");
}

#[test]
fn a_reset_closes_the_guest_ends_and_forgets_half_chains() {
    let mut rig = Rig::introduced();
    rig.sinks[0].seen().room = 2;
    rig.transmit(0, b"half");
    rig.sinks[0].seen().room = usize::MAX;
    rig.driver.set_status(0);
    assert_eq!(rig.sinks[1].seen().opened, [true, false]);
    assert_eq!(
        (rig.console.input(0, b"x"), rig.console.output_ready(0)),
        (0, Progress::Done)
    );
    rig.driver.start(MULTIPORT);
    rig.transmit(0, b"whole");
    assert_eq!(rig.sinks[0].seen().bytes, b"hawhole");
}

#[test]
fn a_driver_without_multiport_has_port_zero_and_it_is_open() {
    let mut rig = Rig::new(F_SIZE, 0);
    rig.give_receive(0, 8);
    assert_eq!((rig.console.input(0, b"in"), rig.console.input(1, b"in")), (2, 0));
    rig.transmit(0, b"out");
    rig.transmit(1, b"nowhere");
    assert_eq!(
        (rig.sinks[0].seen().bytes.as_slice(), rig.sinks[1].seen().bytes.len()),
        (&b"out"[..], 0)
    );
    assert_eq!(rig.sinks[0].seen().opened, [true]);
}

#[test]
fn control_messages_without_sense_are_taken_and_ignored() {
    let mut rig = Rig::introduced();
    for (id, event, value) in [
        (9, PORT_READY, 1),
        (u32::MAX, PORT_OPEN, 1),
        (0, DEVICE_ADD, 1),
        (0, 77, 1),
        (0, DEVICE_READY, 0),
    ] {
        rig.say(id, event, value);
    }
    rig.say_bytes(&[1, 2, 3]);
    assert_eq!(
        (rig.heard(), rig.driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET),
        (vec![], 0)
    );
}

#[test]
fn a_control_buffer_too_small_for_its_message_needs_a_reset() {
    let mut rig = Rig::new(MULTIPORT, 0);
    let at = rig.driver.buffer(16);
    rig.driver.offer(CONTROL_RX, &[Buffer::Write(at, 7)]);
    rig.say(u32::MAX, DEVICE_READY, 1);
    assert_ne!(rig.driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#[test]
fn queues_and_ports_find_each_other() {
    for port in 0..31 {
        let queue = u16::try_from(receive_queue(port)).unwrap();
        assert_eq!(
            (role(queue), role(queue + 1)),
            (Role::Receive(port), Role::Transmit(port))
        );
    }
    assert_eq!((role(2), role(3)), (Role::ControlReceive, Role::ControlTransmit));
    assert_eq!(
        [0, 1, 2, 3].map(|n| Console::new((0..n).map(|_| None).collect()).queue_max_sizes().len()),
        [4, 4, 6, 8]
    );
}
