use super::*;
use crate::{
    BadLines,
    units::{Gpa, GpaRange},
    virtio::testing::{Buffer, Driver, conforms},
};
use std::{
    io,
    sync::{
        PoisonError,
        atomic::{AtomicI32, Ordering},
        mpsc,
    },
    time::Duration,
};
use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG};

const SECTORS: u64 = 1 << 21;

fn plan(readonly: bool) -> BlkPlan {
    BlkPlan {
        sectors: SECTORS,
        readonly,
        serial: "d0-serial".to_owned(),
    }
}

/// A device whose requests wait in a channel.
fn waiting(readonly: bool) -> (Arc<Blk>, mpsc::Receiver<BlkOrder>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let submit = move |order| drop(sender.lock().unwrap_or_else(PoisonError::into_inner).send(order));
    (Blk::over(plan(readonly), Clock::manual(), Box::new(submit)), receiver)
}

/// Zeros for every read.
fn empty(act: &Act) -> io::Result<Vec<u8>> {
    match act {
        Act::Read(_, len) => Ok(vec![0; *len]),
        _ => Ok(Vec::new()),
    }
}

fn at_once() -> Arc<Blk> {
    Blk::over(
        plan(false),
        Clock::manual(),
        Box::new(|order| {
            order.run(|work| Reply {
                data: empty(&work.act).unwrap(),
                last: Some(OK),
            });
        }),
    )
}

conforms!(at_once);

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

/// Offers a request; where its data and its status will be.
fn offer(driver: &mut Driver, kind: u32, sector: u64, out: &[u8], room: usize) -> (u64, u64) {
    let mut chain = vec![driver.text(&header(kind, sector))];
    if !out.is_empty() {
        chain.push(driver.text(out));
    }
    let (data, status) = (driver.buffer(room.max(1)), driver.buffer(1));
    if room != 0 {
        chain.push(Buffer::Write(data, room));
    }
    driver.put(status, &[0xee]);
    chain.push(Buffer::Write(status, 1));
    driver.offer(0, &chain);
    driver.notify(0);
    (data, status)
}

/// The status of a request that is answered at once.
fn ask(driver: &mut Driver, kind: u32, sector: u64, out: &[u8], room: usize) -> u8 {
    let (_, status) = offer(driver, kind, sector, out, room);
    driver.bytes(status, 1)[0]
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn configuration_and_identity_are_those_of_the_plan() {
    let mut driver = Driver::up(at_once(), 0);
    let mut space = [0; 60];
    crate::BusDevice::read(&driver.mmio, VIRTIO_MMIO_CONFIG.into(), &mut space);
    assert_eq!(space[..8], SECTORS.to_le_bytes());
    assert_eq!((space[20..24].to_vec(), space[56]), (512_u32.to_le_bytes().to_vec(), 1));
    let (data, status) = offer(&mut driver, VIRTIO_BLK_T_GET_ID, 0, &[], 20);
    assert_eq!(driver.bytes(data, 20), *b"d0-serial\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!((driver.bytes(status, 1), driver.used(0)), (vec![OK], vec![(0, 21)]));
    let ro = Driver::new(waiting(true).0);
    assert_eq!(ro.offered() >> VIRTIO_BLK_F_RO & 1, 1);
    assert_eq!(ro.offered() >> VIRTIO_BLK_F_DISCARD & 1, 0);
}

#[test]
fn requests_are_taken_apart_and_answered_when_they_are_done() {
    let (blk, orders) = waiting(false);
    let mut driver = Driver::up(blk.clone(), 0);
    let (data, read) = offer(&mut driver, VIRTIO_BLK_T_IN, 8, &[], 1024);
    let (_, write) = offer(&mut driver, VIRTIO_BLK_T_OUT, SECTORS - 1, &[7; 512], 0);
    offer(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[], 0);
    let discard = [range(0, 8, 0), range(64, 1, 0)].concat();
    offer(&mut driver, VIRTIO_BLK_T_DISCARD, 0, &discard, 0);
    offer(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(5, 3, 1), 0);
    assert_eq!((driver.used(0), blk.in_flight()), (vec![], 5));
    let taken: Vec<_> = orders.try_iter().collect();
    let acts: Vec<_> = taken.iter().map(|order| order.work.act.clone()).collect();
    assert_eq!(
        acts,
        [
            Act::Read(8, 1024),
            Act::Write(SECTORS - 1, vec![7; 512]),
            Act::Flush,
            Act::Discard(vec![0..8, 64..65]),
            Act::Zero(vec![(5..8, true)]),
        ]
    );
    // The second first: there is no order among requests.
    let mut taken = taken.into_iter();
    let (first, second) = (taken.next().unwrap(), taken.next().unwrap());
    second.run(|_| blk.requests().answer(Err(io::ErrorKind::Other.into())));
    first.run(|_| blk.requests().answer(Ok((0..=255).cycle().take(1024).collect())));
    assert_eq!(driver.used(0), [(3, 1), (0, 1025)]);
    assert_eq!(
        (driver.bytes(write, 1), driver.bytes(read, 1)),
        (vec![FAILED], vec![OK])
    );
    assert_eq!(driver.bytes(data + 510, 4), [254, 255, 0, 1]);
    let counts = blk.requests().counts();
    assert_eq!(
        (counts.reads, counts.writes, counts.flushes, counts.failed),
        (1, 3, 1, 1)
    );
}

#[test]
fn what_is_not_on_the_medium_fails_and_reaches_no_worker() {
    let (blk, orders) = waiting(false);
    let mut driver = Driver::up(blk, 0);
    for (kind, sector, out, room) in [
        (VIRTIO_BLK_T_IN, SECTORS, vec![], 512),
        (VIRTIO_BLK_T_IN, SECTORS - 1, vec![], 1024),
        (VIRTIO_BLK_T_IN, u64::MAX, vec![], 512),
        (VIRTIO_BLK_T_IN, 0, vec![], 511),
        (VIRTIO_BLK_T_OUT, SECTORS, vec![0; 512], 0),
        (VIRTIO_BLK_T_OUT, 0, vec![0; 513], 0),
        (VIRTIO_BLK_T_DISCARD, 0, range(SECTORS - 1, 2, 0), 0),
        (VIRTIO_BLK_T_DISCARD, 0, range(u64::MAX, 2, 0), 0),
        (VIRTIO_BLK_T_DISCARD, 0, range(0, 0, 0), 0),
        (VIRTIO_BLK_T_DISCARD, 0, range(0, MAX_RANGE + 1, 0), 0),
        (VIRTIO_BLK_T_DISCARD, 0, vec![0; 17], 0),
        (VIRTIO_BLK_T_DISCARD, 0, vec![], 0),
        (VIRTIO_BLK_T_WRITE_ZEROES, 0, range(0, 1, 0).repeat(33), 0),
    ] {
        let said = ask(&mut driver, kind, sector, &out, room);
        assert_eq!(said, FAILED, "{kind} {sector} {} {room}", out.len());
    }
    for (kind, out) in [
        (VIRTIO_BLK_T_SCSI_CMD, vec![]),
        (VIRTIO_BLK_T_SECURE_ERASE, range(0, 1, 0)),
        (0xffff_ffff, vec![]),
        (VIRTIO_BLK_T_DISCARD, range(0, 1, 1)),
        (VIRTIO_BLK_T_WRITE_ZEROES, range(0, 1, 2)),
    ] {
        assert_eq!(ask(&mut driver, kind, 0, &out, 0), UNSUPPORTED, "{kind}");
    }
    assert!(orders.try_recv().is_err());
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let (blk, orders) = waiting(true);
    let mut driver = Driver::up(blk, 0);
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_OUT, 0, &[0; 512], 0), FAILED);
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_DISCARD, 0, &range(0, 8, 0), 0), FAILED);
    assert_eq!(
        ask(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range(0, 8, 0), 0),
        FAILED
    );
    assert!(orders.try_recv().is_err());
    assert_eq!(ask(&mut driver, VIRTIO_BLK_T_IN, 0, &[], 512), 0xee);
    assert!(orders.try_recv().is_ok());
}

#[test]
fn requests_without_header_or_status_stop_the_device() {
    for (out, room) in [(15, 1), (16, 0), (0, 1)] {
        let mut driver = Driver::up(at_once(), 0);
        let at = driver.buffer(32);
        driver.offer(0, &[Buffer::Read(at, out), Buffer::Write(at, room)]);
        driver.notify(0);
        assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0, "{out} {room}");
        assert_eq!(driver.used(0), []);
    }
}

#[test]
fn verdicts_travel_with_their_requests() {
    let (blk, orders) = waiting(false);
    let mut driver = Driver::up(blk.clone(), 0);
    blk.requests().clock().advance(Duration::from_secs(10));
    let fault = DiskFault {
        op: config::DiskOp::Read,
        latency: "2s".parse().unwrap(),
        hang: true,
        ..DiskFault::default()
    };
    let number = blk.requests().add_fault(fault);
    offer(&mut driver, VIRTIO_BLK_T_IN, 0, &[], 512);
    offer(&mut driver, VIRTIO_BLK_T_OUT, 0, &[0; 512], 0);
    let [read, write]: [_; 2] = orders.try_iter().collect::<Vec<_>>().try_into().ok().unwrap();
    let seconds = |n| Duration::from_secs(n);
    assert_eq!(
        (read.work.verdict.due, write.work.verdict.due),
        (seconds(12), seconds(10))
    );
    assert!(blk.requests().hangs(&read.work.verdict));
    assert!(!blk.requests().hangs(&write.work.verdict));
    blk.requests().remove_fault(Some(number));
    assert!(!blk.requests().hangs(&read.work.verdict));
}

#[test]
fn what_is_under_way_is_bounded_in_bytes() {
    let (blk, orders) = waiting(false);
    let mut driver = Driver::up(blk.clone(), 0);
    let at = driver.buffer(4 << 20);
    let header = driver.text(&header(VIRTIO_BLK_T_IN, 0));
    for _ in 0..10 {
        driver.offer(0, &[header, Buffer::Write(at, 4 << 20), Buffer::Write(at, 1)]);
    }
    driver.notify(0);
    assert_eq!(blk.in_flight(), 4);
    let mut done = 0;
    while let Ok(order) = orders.try_recv() {
        order.run(|work| blk.requests().answer(empty(&work.act)));
        done += 1;
    }
    assert_eq!((done, blk.in_flight()), (10, 0));
}

#[test]
fn a_reset_drops_what_waits_and_waits_for_what_runs() {
    let (blk, orders) = waiting(false);
    let mut driver = Driver::up(blk.clone(), 0);
    offer(&mut driver, VIRTIO_BLK_T_OUT, 0, &[1; 512], 0);
    offer(&mut driver, VIRTIO_BLK_T_OUT, 1, &[1; 512], 0);
    let (running, waits) = (orders.recv().unwrap(), orders.recv().unwrap());
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            running.run(|_| {
                begun.send(()).unwrap();
                may_go.recv().unwrap();
                Reply::default()
            });
        });
        has_begun.recv().unwrap();
        let reset = scope.spawn(|| driver.mmio.reset());
        // It cannot be through: what it waits for has not been let go.
        std::thread::sleep(Duration::from_millis(20));
        assert!(!reset.is_finished());
        go.send(()).unwrap();
    });
    waits.run(|_| unreachable!("its device was reset"));
    assert_eq!(driver.used(0), []);
    driver.start(0);
    assert_eq!(blk.in_flight(), 0);
}

#[test]
fn what_goes_bad_while_it_is_read_is_put_back_until_it_is_among_the_bad_lines() {
    /// Looks until there is doubt.
    static LOOKS: AtomicI32 = AtomicI32::new(i32::MAX);
    let lines = BadLines::doubted(|| LOOKS.fetch_sub(1, Ordering::SeqCst) <= 0);
    let device = at_once();
    let mut driver = Driver::up_with(device.clone(), 0, &lines);
    for looks in 0_u8..3 {
        let at = driver.text(&header(VIRTIO_BLK_T_OUT, 0));
        let (out, status) = (driver.buffer(512), driver.buffer(64));
        driver.put(status, &[9]);
        driver.offer(0, &[at, Buffer::Read(out, 512), Buffer::Write(status, 1)]);
        LOOKS.store(looks.into(), Ordering::SeqCst);
        driver.notify(0);
        assert_eq!((driver.bytes(status, 1), device.in_flight()), (vec![9], 0), "{looks}");
        assert_eq!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        LOOKS.store(i32::MAX, Ordering::SeqCst);
        lines.set([GpaRange::new(Gpa(out / 64 * 64), 64)]);
        driver.notify(0);
        assert_eq!(
            (driver.bytes(status, 1), lines.count()),
            (vec![FAILED], u64::from(looks) + 1)
        );
        lines.set([]);
    }
}

#[test]
fn a_request_with_a_memory_error_in_what_is_read_of_it_fails_and_the_next_one_does_not() {
    let lines = BadLines::default();
    let device = at_once();
    let mut driver = Driver::up_with(device.clone(), 0, &lines);
    // In the header, in the data that is to be written, and in room for what is read.
    for (kind, bad, wanted) in [
        (VIRTIO_BLK_T_OUT, 0, FAILED),
        (VIRTIO_BLK_T_OUT, 1, FAILED),
        (VIRTIO_BLK_T_OUT, 2, OK),
        (VIRTIO_BLK_T_IN, 0, FAILED),
        (VIRTIO_BLK_T_IN, 1, OK),
    ] {
        let (at, out) = (driver.text(&header(kind, 0)), driver.buffer(512));
        // In a line of its own.
        driver.buffer(64);
        let status = driver.buffer(64);
        let data = match kind {
            VIRTIO_BLK_T_OUT => Buffer::Read(out, 512),
            _ => Buffer::Write(out, 512),
        };
        let Buffer::Read(first, _) = at else {
            unreachable!("text is read")
        };
        let line = [first, out + 256, status][bad];
        lines.set([GpaRange::new(Gpa(line / 64 * 64), 64)]);
        let failed = device.requests().counts().failed;
        driver.offer(0, &[at, data, Buffer::Write(status, 1)]);
        driver.notify(0);
        assert_eq!(driver.bytes(status, 1), [wanted], "{kind} {bad}");
        assert_eq!(
            device.requests().counts().failed - failed,
            u64::from(wanted),
            "{kind} {bad}"
        );
        lines.set([]);
    }
    assert_eq!(
        (lines.count(), ask(&mut driver, VIRTIO_BLK_T_OUT, 0, &[7; 512], 0)),
        (3, OK)
    );
}
