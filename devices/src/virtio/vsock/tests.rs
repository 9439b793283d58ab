use super::{
    packet::{HEADER, NO_RECEIVE, NO_SEND},
    *,
};
use crate::virtio::testing::{Buffer, Driver, conforms};
use proptest::prelude::*;
use std::sync::{Arc, MutexGuard};
use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG};

mod hostile;

const CID: u32 = 42;

/// What a program of the host sees and does.
#[derive(Default)]
struct Program {
    /// For the guest.
    says: VecDeque<u8>,
    /// It has said all.
    ends: bool,
    /// Of the guest.
    heard: Vec<u8>,
    /// Bytes that it takes still.
    takes: usize,
    /// It hears no more.
    deaf: bool,
    /// The guest has said all, and the stream is gone.
    finished: bool,
    gone: bool,
}

#[derive(Clone, Default)]
struct End(Arc<Mutex<Program>>);

impl End {
    fn eager() -> Self {
        let end = Self::default();
        end.at().takes = usize::MAX;
        end
    }

    fn at(&self) -> MutexGuard<'_, Program> {
        self.0.lock().unwrap()
    }

    fn stream(&self) -> Option<Box<dyn Stream>> {
        Some(Box::new(Held(self.clone())))
    }
}

struct Held(End);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.at().gone = true;
    }
}

impl Stream for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut program = self.0.at();
        assert!(!buffer.is_empty());
        let len = program.says.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(program.says.drain(..len)) {
            *to = from;
        }
        match len {
            0 if !program.ends => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut program = self.0.at();
        if program.deaf {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(program.takes);
        program.takes -= len;
        program.heard.extend(&bytes[..len]);
        match len {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }

    fn finish(&mut self) {
        self.0.at().finished = true;
    }
}

/// Programs of the host by port.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<HashMap<u32, End>>>);

impl Peers for Doors {
    fn connect(&mut self, key: Key) -> Option<Box<dyn Stream>> {
        assert_ne!(key.host, ANY_PORT);
        self.0.lock().unwrap().get(&key.host)?.stream()
    }
}

/// A guest's driver with receive buffers.
struct Guest {
    device: Arc<Vsock>,
    driver: Driver,
    doors: Doors,
    buffers: HashMap<u16, u64>,
    buffer: usize,
}

impl Guest {
    fn new() -> Self {
        Self::with(32, 4096)
    }

    fn with(buffers: usize, buffer: usize) -> Self {
        let doors = Doors::default();
        let device = Arc::new(Vsock::new(CID, Box::new(doors.clone())));
        let driver = Driver::up(device.clone(), 0);
        let mut guest = Self {
            device,
            driver,
            doors,
            buffers: HashMap::new(),
            buffer,
        };
        guest.give(buffers);
        guest
    }

    fn give(&mut self, buffers: usize) {
        for _ in 0..buffers {
            let at = self.driver.buffer(self.buffer);
            self.offer(at);
        }
    }

    fn offer(&mut self, at: u64) {
        let head = self.driver.offer(0, &[Buffer::Write(at, self.buffer)]);
        self.buffers.insert(head, at);
    }

    /// Packets that have come, whose buffers go back without a notification.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut all = Vec::new();
        for (head, len) in self.driver.used(0) {
            let at = self.buffers.remove(&head).unwrap();
            let bytes = self.driver.bytes(at, len);
            let (header, data) = bytes.split_at(HEADER);
            let header = Header::read(header.try_into().unwrap());
            assert_eq!(header.len as usize, data.len());
            assert_eq!(
                (header.from_cid, header.to_cid, header.kind),
                (HOST, CID.into(), STREAM)
            );
            assert_eq!(header.room, if header.op == op::RST { header.room } else { ROOM });
            all.push((header, data.to_vec()));
            self.offer(at);
        }
        all
    }

    fn header(key: Key, op: u16) -> Header {
        Header {
            from_cid: CID.into(),
            to_cid: HOST,
            from_port: key.guest,
            to_port: key.host,
            kind: STREAM,
            op,
            room: 64 << 10,
            ..Header::default()
        }
    }

    fn send(&mut self, header: &Header, data: &[u8]) {
        let header = Header {
            len: u32::try_from(data.len()).unwrap(),
            ..*header
        };
        let mut chain = vec![self.driver.text(&header.bytes())];
        if !data.is_empty() {
            chain.push(self.driver.text(data));
        }
        self.driver.offer(1, &chain);
        self.driver.notify(1);
        self.driver.used(1);
    }

    fn say(&mut self, key: Key, op: u16, data: &[u8]) {
        self.send(&Self::header(key, op), data);
    }

    fn ops(&mut self) -> Vec<u16> {
        self.received().iter().map(|(header, _)| header.op).collect()
    }

    /// A connection that the guest has asked for.
    fn opened(&mut self, key: Key, end: &End) {
        self.doors.0.lock().unwrap().insert(key.host, end.clone());
        self.say(key, op::REQUEST, &[]);
        assert_eq!(self.ops(), [op::RESPONSE]);
    }

    fn ready(&mut self, key: Key) {
        while self.device.ready(key, false) == Progress::More {}
    }
}

const KEY: Key = Key { host: 80, guest: 1000 };

fn device() -> Arc<Vsock> {
    Arc::new(Vsock::new(CID, Box::new(Doors::default())))
}

conforms!(device);

#[test]
fn a_driver_has_the_address() {
    let driver = Driver::new(device());
    let mut space = [0xff; 10];
    crate::BusDevice::read(&driver.mmio, VIRTIO_MMIO_CONFIG.into(), &mut space);
    assert_eq!(space, [42, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let key = Key {
        host: 0x1234_5678,
        guest: 0x9abc_def0,
    };
    assert_eq!(Key::of(key.word()), key);
}

#[test]
fn the_guest_talks_with_whoever_listens() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.opened(KEY, &end);
    guest.say(KEY, op::RW, b"hello");
    assert_eq!(end.at().heard, b"hello");
    end.at().says.extend(b"good day");
    guest.ready(KEY);
    let got = guest.received();
    assert_eq!(got.len(), 1);
    let (header, data) = &got[0];
    assert_eq!((header.op, header.passed, &data[..]), (op::RW, 5, &b"good day"[..]));
    assert_eq!((header.from_port, header.to_port), (80, 1000));
    let status = guest.device.status();
    assert_eq!((status.connections, status.received, status.sent), (1, 8, 5));
}

#[test]
fn nobody_listens_and_the_guest_is_told() {
    let mut guest = Guest::new();
    guest.say(KEY, op::REQUEST, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    // Of what there is not, and of another kind than streams.
    for op in [
        op::RESPONSE,
        op::RW,
        op::SHUTDOWN,
        op::CREDIT_UPDATE,
        op::CREDIT_REQUEST,
        99,
    ] {
        guest.say(KEY, op, &[]);
        assert_eq!(guest.ops(), [op::RST], "{op}");
    }
    let datagram = Header {
        kind: 3,
        ..Guest::header(KEY, op::RW)
    };
    guest.send(&datagram, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    // A reset is not answered with one.
    guest.say(KEY, op::RST, &[]);
    assert_eq!(guest.ops(), [0; 0]);
}

#[test]
fn packets_of_others_are_counted_and_nothing_else() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.opened(KEY, &end);
    for header in [
        Header {
            from_cid: 7,
            ..Guest::header(KEY, op::RW)
        },
        Header {
            to_cid: 3,
            ..Guest::header(KEY, op::RST)
        },
    ] {
        guest.send(&header, b"x");
    }
    let short = guest.driver.text(&[0; HEADER - 1]);
    guest.driver.offer(1, &[short]);
    let mut long = Guest::header(KEY, op::RW);
    long.len = 1;
    let long = guest.driver.text(&long.bytes());
    guest.driver.offer(1, &[long]);
    guest.driver.notify(1);
    let status = guest.device.status();
    assert_eq!((status.malformed, status.connections, status.sent), (4, 1, 0));
    assert_eq!((guest.ops(), end.at().heard.len()), (vec![], 0));
}

#[test]
fn the_host_asks_for_a_port_of_the_guest() {
    let (mut guest, end) = (Guest::new(), End::eager());
    let mut key = KEY;
    assert!(guest.device.connect(5000, |made| {
        key = made;
        end.stream()
    }));
    assert_eq!((key.guest, key.host >= HOST_PORTS), (5000, true));
    assert_eq!(guest.ops(), [op::REQUEST]);
    assert_eq!(end.at().heard, b"", "nobody has agreed");
    // What is said before waits at the host.
    end.at().says.extend(b"early");
    guest.ready(key);
    assert_eq!(guest.ops(), [0; 0]);
    guest.say(key, op::RESPONSE, &[]);
    let got = guest.received();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].1, b"early");
    assert_eq!(end.at().heard, format!("OK {}\n", key.host).into_bytes());
    guest.say(key, op::RW, b"yes");
    assert!(end.at().heard.ends_with(b"\nyes"));
    // Another one that the guest refuses.
    let other = End::eager();
    assert!(guest.device.connect(5001, |made| {
        key = made;
        other.stream()
    }));
    guest.say(key, op::RST, &[]);
    assert!(other.at().gone);
    assert_eq!(other.at().heard.len(), 0);
    assert_eq!(guest.device.status().connections, 1);
}

#[test]
fn without_a_driver_there_are_no_connections() {
    let vsock = device();
    assert!(!vsock.connect(1, |_| unreachable!("nobody is there")));
    assert_eq!(vsock.ready(KEY, false), Progress::Done);
}

#[test]
fn a_host_that_does_not_take_makes_the_guest_wait() {
    let (mut guest, end) = (Guest::new(), End::default());
    guest.opened(KEY, &end);
    for _ in 0..ROOM / 4096 {
        guest.say(KEY, op::RW, &[1; 4096]);
    }
    assert_eq!(guest.ops(), [0; 0], "there is no more room to tell of");
    end.at().takes = 80 << 10;
    guest.ready(KEY);
    let told = guest.received();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].0.op, told[0].0.passed), (op::CREDIT_UPDATE, 80 << 10));
    guest.say(KEY, op::CREDIT_REQUEST, &[]);
    assert_eq!(guest.ops(), [op::CREDIT_UPDATE]);
    // One that does not wait is cut off.
    for _ in 0..(80 << 10) / 4096 {
        guest.say(KEY, op::RW, &[1; 4096]);
    }
    assert_eq!(guest.device.status().connections, 1);
    guest.say(KEY, op::RW, &[1]);
    assert_eq!(guest.ops(), [op::RST]);
    assert_eq!((guest.device.status().connections, end.at().gone), (0, true));
}

#[test]
fn a_guest_without_room_is_asked_once_and_heard() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.doors.0.lock().unwrap().insert(KEY.host, end.clone());
    let small = |passed| Header {
        room: 10,
        passed,
        ..Guest::header(KEY, op::CREDIT_UPDATE)
    };
    let request = Header {
        op: op::REQUEST,
        ..small(0)
    };
    end.at().says.extend(0..25);
    guest.send(&request, &[]);
    let got = guest.received();
    let ops: Vec<_> = got.iter().map(|(header, _)| header.op).collect();
    assert_eq!(ops, [op::RESPONSE, op::RW, op::CREDIT_REQUEST]);
    assert_eq!(got[1].1, (0..10).collect::<Vec<_>>());
    guest.ready(KEY);
    guest.send(&small(0), &[]);
    assert_eq!(guest.ops(), [0; 0], "it was asked");
    guest.send(&small(4), &[]);
    let got = guest.received();
    assert_eq!(got[0].1, (10..14).collect::<Vec<_>>());
    guest.send(&small(14), &[]);
    guest.send(&small(24), &[]);
    let rest: Vec<_> = guest.received().into_iter().flat_map(|(_, data)| data).collect();
    assert_eq!(rest, (14..25).collect::<Vec<_>>());
}

#[test]
fn each_end_says_when_it_has_said_all() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.opened(KEY, &end);
    // The host's.
    end.at().says.extend(b"last");
    end.at().ends = true;
    guest.ready(KEY);
    let got = guest.received();
    assert_eq!((got[0].0.op, &got[0].1[..]), (op::RW, &b"last"[..]));
    assert_eq!((got[1].0.op, got[1].0.flags), (op::SHUTDOWN, NO_SEND));
    // The other way still goes.
    guest.say(KEY, op::RW, b"more");
    assert_eq!(end.at().heard, b"more");
    let mut shutdown = Guest::header(KEY, op::SHUTDOWN);
    shutdown.flags = NO_SEND;
    end.at().takes = 0;
    guest.say(KEY, op::RW, b"and more");
    guest.send(&shutdown, &[]);
    assert!(!end.at().finished, "not before the host has all");
    end.at().takes = usize::MAX;
    guest.ready(KEY);
    assert!(end.at().finished);
    assert!(end.at().heard.ends_with(b"and more"));
    // Both: a reset ends it.
    shutdown.flags = NO_SEND | NO_RECEIVE;
    guest.send(&shutdown, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    assert!(end.at().gone);
}

#[test]
fn what_a_closed_guest_has_said_is_the_hosts_to_take() {
    let (mut guest, end) = (Guest::new(), End::default());
    guest.opened(KEY, &end);
    guest.say(KEY, op::RW, b"testament");
    let mut shutdown = Guest::header(KEY, op::SHUTDOWN);
    shutdown.flags = NO_SEND | NO_RECEIVE;
    guest.send(&shutdown, &[]);
    guest.say(KEY, op::RST, &[]);
    assert!(!end.at().gone);
    end.at().takes = usize::MAX;
    guest.ready(KEY);
    assert_eq!(guest.ops(), [op::RST]);
    assert_eq!(end.at().heard, b"testament");
    assert!(end.at().gone);
}

#[test]
fn a_program_that_is_gone_ends_both_ways() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.opened(KEY, &end);
    end.at().says.extend(b"bye");
    end.at().ends = true;
    assert_eq!(guest.device.ready(KEY, true), Progress::Done);
    let got = guest.received();
    assert_eq!(got[0].1, b"bye");
    assert_eq!((got[1].0.op, got[1].0.flags), (op::SHUTDOWN, NO_RECEIVE | NO_SEND));
    // Whoever writes all the same meets a reset.
    end.at().deaf = true;
    guest.say(KEY, op::RW, b"?");
    assert_eq!(guest.ops(), [op::RST]);
    assert_eq!(guest.device.status().connections, 0);
}

#[test]
fn connections_are_bounded() {
    let (mut guest, end) = (Guest::with(64, 4096), End::eager());
    guest.doors.0.lock().unwrap().insert(80, end.clone());
    for port in 0..u32::try_from(MAX_CONNECTIONS).unwrap() {
        guest.say(Key { host: 80, guest: port }, op::REQUEST, &[]);
        assert_eq!(guest.ops(), [op::RESPONSE]);
    }
    guest.say(Key { host: 80, guest: 999 }, op::REQUEST, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    assert!(!guest.device.connect(1, |_| end.stream()));
    // One that asks twice has neither.
    guest.say(Key { host: 80, guest: 7 }, op::REQUEST, &[]);
    assert_eq!(guest.ops(), [op::RST]);
    assert_eq!(guest.device.status().connections, MAX_CONNECTIONS - 1);
}

#[test]
fn a_driver_without_receive_buffers_is_not_listened_to() {
    let mut guest = Guest::with(0, 4096);
    let mut taken = 0;
    for port in 0..400 {
        let header = guest
            .driver
            .text(&Guest::header(Key { host: 1, guest: port }, op::REQUEST).bytes());
        guest.driver.offer(1, &[header]);
        guest.driver.notify(1);
        taken += guest.driver.used(1).len();
    }
    assert_eq!(taken, MAX_RESETS);
    let answered = |guest: &mut Guest| {
        let mut all = Vec::new();
        loop {
            guest.driver.notify(0);
            let got = guest.received();
            if got.is_empty() {
                return all;
            }
            all.extend(got);
        }
    };
    guest.give(16);
    assert_eq!(answered(&mut guest).len(), 400);
}

#[test]
fn a_reset_ends_the_streams_and_a_new_driver_has_none() {
    let (mut guest, end) = (Guest::new(), End::eager());
    guest.opened(KEY, &end);
    guest.driver.set_status(0);
    assert!(end.at().gone);
    assert_eq!(
        guest.device.status(),
        VsockStatus {
            driver: false,
            connections: 0,
            ..guest.device.status()
        }
    );
    guest.driver.start(0);
    guest.buffers.clear();
    guest.give(8);
    let other = End::eager();
    guest.opened(KEY, &other);
    guest.say(KEY, op::RW, b"anew");
    assert_eq!(other.at().heard, b"anew");
}

#[test]
fn a_receive_buffer_that_holds_no_header_needs_a_reset() {
    let mut guest = Guest::with(1, HEADER - 1);
    guest.say(KEY, op::REQUEST, &[]);
    assert_ne!(guest.driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    // One that holds nothing else carries no data, and loses none.
    let (mut guest, end) = (Guest::with(4, HEADER), End::eager());
    end.at().says.extend(b"data");
    guest.opened(KEY, &end);
    guest.ready(KEY);
    assert_eq!((guest.ops(), end.at().says.len()), (vec![], 4));
}
