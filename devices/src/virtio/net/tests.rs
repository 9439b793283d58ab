//! Two queues and a wire, as a driver and a host meet them.

use super::*;
use crate::{
    BadLines,
    units::{Gpa, GpaRange},
    virtio::testing::{Buffer, Driver, EVENT_IDX, conforms},
};
use std::{
    collections::VecDeque,
    sync::{Arc, MutexGuard},
};
use virtio_bindings::{
    virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET,
    virtio_mmio::{VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION},
};

const RX: usize = 0;
const TX: usize = 1;
const MTU: u16 = 100;
const ROOM: usize = HEADER + FRAMING + MTU as usize;
const MAC: Mac = Mac([2, 1, 2, 3, 4, 5]);

/// Both ends of a wire.
#[derive(Default)]
struct Ends {
    coming: VecDeque<Vec<u8>>,
    gone: Vec<Vec<u8>>,
    room: usize,
}

#[derive(Clone)]
struct Cable(Arc<Mutex<Ends>>);

impl Cable {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        lock(&self.0)
    }
}

impl Wire for Cable {
    fn send(&mut self, frame: &[u8]) -> bool {
        let mut ends = self.ends();
        let room = ends.gone.len() < ends.room;
        if room {
            ends.gone.push(frame.to_vec());
        }
        room
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let frame = self.ends().coming.pop_front()?;
        let len = frame.len().min(buffer.len());
        buffer[..len].copy_from_slice(&frame[..len]);
        Some(frame.len())
    }
}

struct Rig {
    net: Arc<Net>,
    cable: Cable,
    driver: Driver,
}

fn device() -> (Arc<Net>, Cable) {
    let cable = Cable(Arc::new(Mutex::new(Ends {
        room: usize::MAX,
        ..Ends::default()
    })));
    let plan = NetPlan { mac: MAC, mtu: MTU };
    (Arc::new(Net::new(plan, true, Box::new(cable.clone()))), cable)
}

fn plain() -> Arc<Net> {
    device().0
}

conforms!(plain);

fn rig_with(features: u64, lines: &BadLines) -> Rig {
    let (net, cable) = device();
    let driver = Driver::up_with(net.clone(), features, lines);
    Rig { net, cable, driver }
}

fn rig() -> Rig {
    rig_with(0, &BadLines::default())
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|n| seed.wrapping_add(u8::try_from(n % 251).unwrap()))
        .collect()
}

impl Rig {
    /// Offers a frame to send, cut into buffers of these lengths.
    fn send(&mut self, header: [u8; HEADER], frame: &[u8], cuts: &[usize]) {
        let mut rest = &[&header[..], frame].concat()[..];
        let mut chain = Vec::new();
        for cut in cuts {
            let (now, later) = rest.split_at(*cut);
            chain.push(self.driver.text(now));
            rest = later;
        }
        chain.push(self.driver.text(rest));
        self.driver.offer(TX, &chain);
    }

    /// Gives a buffer for a frame; where it is.
    fn give(&mut self, len: usize) -> u64 {
        let at = self.driver.buffer(len.max(16));
        self.driver.offer(RX, &[Buffer::Write(at, len)]);
        at
    }

    fn come(&self, frame: Vec<u8>) {
        self.cable.ends().coming.push_back(frame);
    }

    fn needs_reset(&self) -> bool {
        self.driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }
}

#[test]
fn configuration_says_address_carrier_and_mtu() {
    let Rig { net, driver, .. } = rig();
    let space = || driver.bytes_of_config(12);
    assert_eq!(space(), [2, 1, 2, 3, 4, 5, 1, 0, 1, 0, 100, 0]);
    let generation = driver.read(VIRTIO_MMIO_CONFIG_GENERATION);
    net.set_carrier(true);
    assert_eq!((driver.line.count(), driver.acknowledge()), (0, 0));
    net.set_carrier(false);
    assert_eq!(space()[6..8], [0, 0]);
    assert_ne!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert_eq!((driver.line.count(), driver.acknowledge()), (1, 2));
    assert!(!net.status().carrier && net.status().driver);
}

#[test]
fn frames_go_out_however_they_are_cut() {
    for cuts in [&[][..], &[HEADER], &[1, 11, 14], &[5, 20]] {
        let mut rig = rig();
        let sent = frame(60, 7);
        rig.send([0; HEADER], &sent, cuts);
        rig.driver.notify(1);
        assert_eq!(rig.cable.ends().gone, [sent], "{cuts:?}");
        assert_eq!(rig.driver.used(TX), [(0, 0)]);
        let counts = NetCounts {
            frames: 1,
            bytes: 60,
            ..NetCounts::default()
        };
        assert_eq!(rig.net.status().sent, counts);
        assert_eq!((rig.driver.line.count(), rig.driver.acknowledge()), (1, 1));
    }
}

#[test]
fn the_shortest_and_the_longest_frame_pass_and_others_are_malformed() {
    let most = FRAMING + usize::from(MTU);
    for (len, fine) in [
        (MIN_FRAME, true),
        (most, true),
        (MIN_FRAME - 1, false),
        (most + 1, false),
        (0, false),
    ] {
        let mut rig = rig();
        rig.send([0; HEADER], &frame(len, 1), &[4]);
        rig.driver.notify(1);
        let sent = rig.net.status().sent;
        assert_eq!(
            (sent.frames, sent.malformed),
            (u64::from(fine), u64::from(!fine)),
            "{len}"
        );
        assert_eq!(rig.driver.used(TX).len(), 1, "the buffers go back all the same");
        assert!(!rig.needs_reset());
    }
    let mut rig = rig();
    // Less than a header, and none of it readable.
    let at = rig.driver.buffer(64);
    rig.driver.offer(TX, &[Buffer::Read(at, HEADER - 1)]);
    rig.driver.offer(TX, &[Buffer::Write(at, 60)]);
    rig.driver.notify(1);
    assert_eq!((rig.net.status().sent.malformed, rig.driver.used(TX).len()), (2, 2));
}

#[test]
fn offloads_that_were_not_agreed_on_are_malformed() {
    for (at, value) in [(0, 1), (1, 1), (1, 0x80)] {
        let mut rig = rig();
        let mut header = [0; HEADER];
        header[at] = value;
        rig.send(header, &frame(60, 1), &[]);
        rig.driver.notify(1);
        assert_eq!(rig.net.status().sent.malformed, 1, "{header:?}");
        assert_eq!(rig.cable.ends().gone.len(), 0);
    }
}

#[test]
fn a_full_wire_loses_frames_and_the_driver_has_its_buffers_back() {
    let mut rig = rig();
    rig.cable.ends().room = 2;
    for n in 0..5 {
        rig.send([0; HEADER], &frame(20, n), &[]);
    }
    rig.driver.notify(1);
    let sent = rig.net.status().sent;
    assert_eq!((sent.frames, sent.dropped, sent.malformed), (2, 3, 0));
    assert_eq!(rig.driver.used(TX).len(), 5);
}

#[test]
fn frames_come_in_behind_a_header_with_one_buffer_in_it() {
    let mut rig = rig();
    let (a, b) = (rig.give(ROOM), rig.give(ROOM));
    rig.driver.notify(0);
    assert_eq!(rig.driver.used(RX), []);
    for n in [1, 2] {
        rig.come(frame(40 + usize::from(n), n));
    }
    assert_eq!(rig.net.arrived(), Progress::Done);
    assert_eq!(rig.driver.used(RX), [(0, HEADER + 41), (1, HEADER + 42)]);
    for (at, n) in [(a, 1), (b, 2)] {
        assert_eq!(rig.driver.bytes(at, HEADER), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let len = 40 + usize::from(n);
        assert_eq!(rig.driver.bytes(at + HEADER as u64, len), frame(len, n));
    }
    assert_eq!((rig.driver.line.count(), rig.driver.acknowledge()), (1, 1));
    assert_eq!(rig.net.status().received.frames, 2);
}

#[test]
fn without_buffers_a_frame_stays_on_the_wire_until_there_is_one() {
    for features in [0, EVENT_IDX] {
        let mut rig = rig_with(features, &BadLines::default());
        rig.come(frame(30, 1));
        assert_eq!(rig.net.arrived(), Progress::Done);
        assert_eq!(rig.cable.ends().coming.len(), 1);
        rig.give(ROOM);
        rig.driver.notify(0);
        assert_eq!(rig.driver.used(RX), [(0, HEADER + 30)]);
        assert_eq!(rig.net.status().received.dropped, 0);
    }
}

#[test]
fn frames_that_do_not_fit_are_lost_and_their_buffers_are_not() {
    let mut rig = rig();
    let at = rig.give(HEADER + 20);
    // Too long for the buffer, too long for any, too short to be one.
    for len in [21, FRAMING + usize::from(MTU) + 1, MIN_FRAME - 1] {
        rig.come(frame(len, 1));
        assert_eq!(rig.net.arrived(), Progress::Done);
        assert_eq!(rig.driver.used(RX), [], "{len}");
    }
    assert_eq!(rig.net.status().received.dropped, 3);
    rig.come(frame(20, 9));
    assert_eq!(rig.net.arrived(), Progress::Done);
    assert_eq!(rig.driver.used(RX), [(0, HEADER + 20)]);
    assert_eq!(rig.driver.bytes(at + HEADER as u64, 20), frame(20, 9));
}

#[test]
fn without_a_driver_frames_are_lost() {
    let mut rig = rig();
    rig.driver.set_status(0);
    for n in 0..PER_TURN + 3 {
        rig.come(frame(30, u8::try_from(n).unwrap()));
    }
    assert_eq!(rig.net.arrived(), Progress::More);
    assert_eq!(rig.net.arrived(), Progress::Done);
    assert_eq!(rig.net.status().received.dropped, u64::from(PER_TURN) + 3);
    rig.driver.start(0);
    rig.give(ROOM);
    rig.driver.notify(0);
    assert_eq!(rig.driver.used(RX), []);
}

#[test]
fn a_turn_is_bounded_in_both_directions() {
    let mut rig = rig();
    for n in 0..PER_TURN + 6 {
        let seed = u8::try_from(n).unwrap();
        rig.send([0; HEADER], &frame(20, seed), &[]);
        rig.give(ROOM);
        rig.come(frame(20, seed));
    }
    assert_eq!(rig.driver.mmio.queue_notify(1), Progress::More);
    assert_eq!(rig.cable.ends().gone.len(), usize::from(PER_TURN));
    assert_eq!(rig.driver.mmio.queue_notify(1), Progress::Done);
    assert_eq!(rig.net.arrived(), Progress::More);
    assert_eq!(rig.driver.used(RX).len(), usize::from(PER_TURN));
    assert_eq!(rig.net.arrived(), Progress::Done);
    assert_eq!(rig.driver.used(RX).len(), 6);
}

#[test]
fn a_bad_line_in_a_frame_loses_that_frame_alone() {
    let lines = BadLines::default();
    let mut rig = rig_with(0, &lines);
    let at = rig.driver.buffer(256);
    rig.driver.put(at, &[0; 200]);
    lines.set([GpaRange::new(Gpa((at + 64) / 64 * 64), 64)]);
    rig.driver.offer(TX, &[Buffer::Read(at, 100)]);
    rig.send([0; HEADER], &frame(30, 3), &[]);
    rig.driver.notify(1);
    assert_eq!(rig.cable.ends().gone, [frame(30, 3)]);
    let sent = rig.net.status().sent;
    assert_eq!((sent.frames, sent.malformed, lines.count()), (1, 1, 1));
    assert_eq!(rig.driver.used(TX).len(), 2);
    assert!(!rig.needs_reset());
}

#[test]
fn a_receive_buffer_outside_memory_stops_the_device() {
    let mut rig = rig();
    rig.driver
        .offer(RX, &[Buffer::Write(crate::virtio::testing::MEMORY, ROOM)]);
    rig.come(frame(30, 1));
    assert_eq!(rig.net.arrived(), Progress::Done);
    assert!(rig.needs_reset());
    assert_eq!((rig.driver.line.count(), rig.driver.acknowledge()), (1, 2));
    assert_eq!(rig.net.status().received.dropped, 1);
}

impl Driver {
    fn bytes_of_config(&self, len: usize) -> Vec<u8> {
        use crate::BusDevice;
        let mut data = vec![0; len];
        self.mmio.read(VIRTIO_MMIO_CONFIG.into(), &mut data);
        data
    }
}
