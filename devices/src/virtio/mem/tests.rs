use super::*;
use crate::{
    BadLines,
    units::Gpa,
    virtio::testing::{Buffer, Driver, conforms},
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_mmio::VIRTIO_MMIO_CONFIG};

const BLOCK: u64 = 2 << 20;
const START: u64 = 0x1_4000_0000;
const PLAN: MemPlan = MemPlan {
    region: GpaRange {
        start: Gpa(START),
        len: 64 * BLOCK,
    },
    block: BLOCK,
    node: 3,
};

/// The bytes that the guest has, and whether it may have more.
#[derive(Default)]
struct Pieces {
    plugged: BTreeSet<u64>,
    full: bool,
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Pieces>>);

impl Media for Host {
    fn plug(&mut self, bytes: Range<u64>) -> io::Result<()> {
        let mut host = self.0.lock().unwrap();
        if host.full {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        for at in bytes.step_by(usize::try_from(BLOCK).unwrap()) {
            assert!(host.plugged.insert(at), "{at:#x} is plugged twice");
        }
        Ok(())
    }

    fn unplug(&mut self, bytes: Range<u64>) {
        let mut host = self.0.lock().unwrap();
        for at in bytes.step_by(usize::try_from(BLOCK).unwrap()) {
            assert!(host.plugged.remove(&at), "{at:#x} is not plugged");
        }
    }
}

fn device(blocks: u64) -> (Arc<Mem>, Host) {
    let host = Host::default();
    (Arc::new(Mem::new(PLAN, blocks * BLOCK, Box::new(host.clone()))), host)
}

fn plain() -> Arc<Mem> {
    device(8).0
}

conforms!(plain);

fn bytes(kind: u16, at: u64, blocks: u16) -> Vec<u8> {
    [
        &kind.to_le_bytes()[..],
        &[0; 6],
        &at.to_le_bytes(),
        &blocks.to_le_bytes(),
        &[0; 6],
    ]
    .concat()
}

/// One request; its answer and the state in it.
fn ask(driver: &mut Driver, kind: u16, at: u64, blocks: u16) -> (u16, u16) {
    let request = driver.text(&bytes(kind, at, blocks));
    let answer = driver.buffer(ANSWER);
    driver.put(answer, &[0xaa; ANSWER]);
    driver.offer(0, &[request, Buffer::Write(answer, ANSWER)]);
    driver.notify(0);
    assert_eq!(driver.used(0).last().map(|(_, len)| *len), Some(ANSWER));
    let said = driver.bytes(answer, ANSWER);
    assert_eq!(said[2..8], [0; 6]);
    (
        u16::from_le_bytes([said[0], said[1]]),
        u16::from_le_bytes([said[8], said[9]]),
    )
}

fn at(block: u64) -> u64 {
    START + block * BLOCK
}

fn space(driver: &Driver) -> [u64; 7] {
    let mut space = [0; 56];
    crate::BusDevice::read(&driver.mmio, VIRTIO_MMIO_CONFIG.into(), &mut space);
    std::array::from_fn(|n| u64::from_le_bytes(space[n * 8..n * 8 + 8].try_into().unwrap()))
}

#[test]
fn configuration_space_is_that_of_the_specification() {
    let (mem, _) = device(8);
    let mut driver = Driver::up(mem, F_ACPI_PXM | F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(space(&driver), [BLOCK, 3, START, 64 * BLOCK, 64 * BLOCK, 0, 8 * BLOCK]);
    assert_eq!(ask(&mut driver, 0, at(0), 5), (ACK, 0));
    assert_eq!(space(&driver)[5], 5 * BLOCK);
}

#[test]
fn blocks_are_plugged_up_to_what_is_asked_for_and_unplugged_again() {
    let (mem, host) = device(4);
    let mut driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(ask(&mut driver, 0, at(2), 3), (ACK, 0));
    assert_eq!(ask(&mut driver, 0, at(7), 2), (NACK, 0));
    assert_eq!(ask(&mut driver, 0, at(7), 1), (ACK, 0));
    assert_eq!(ask(&mut driver, 0, at(9), 1), (NACK, 0));
    assert_eq!(ask(&mut driver, 1, at(3), 1), (ACK, 0));
    let there: Vec<_> = host.0.lock().unwrap().plugged.iter().map(|at| at / BLOCK).collect();
    assert_eq!(there, [2, 4, 7]);
    for (block, blocks, state) in [(2, 1, 0), (3, 1, 1), (2, 3, 2), (10, 4, 1), (0, 64, 2)] {
        assert_eq!(ask(&mut driver, 3, at(block), blocks), (ACK, state), "{block} {blocks}");
    }
    assert_eq!(ask(&mut driver, 2, 0, 0), (ACK, 0));
    assert!(host.0.lock().unwrap().plugged.is_empty());
    let counts = mem.status().requests;
    assert_eq!((counts.plugs, counts.unplugs, counts.refused), (2, 2, 2));
}

#[test]
fn what_is_no_run_of_blocks_of_the_region_is_an_error_and_changes_nothing() {
    let (mem, host) = device(8);
    let mut driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(ask(&mut driver, 0, at(1), 1), (ACK, 0));
    let wrong = [
        (at(0), 0),
        (at(0) + 4096, 1),
        (at(0) - BLOCK, 1),
        (0, 1),
        (at(63), 2),
        (at(64), 1),
        (u64::MAX - BLOCK + 1, 1),
        (u64::MAX, u16::MAX),
        (at(0), u16::MAX),
    ];
    for kind in [0, 1, 3] {
        for (address, blocks) in wrong {
            assert_eq!(
                ask(&mut driver, kind, address, blocks),
                (ERROR, 0),
                "{kind} {address:#x}"
            );
        }
    }
    // Of the other state, wholly or in part.
    assert_eq!(ask(&mut driver, 0, at(1), 1).0, ERROR);
    assert_eq!(ask(&mut driver, 0, at(0), 3).0, ERROR);
    assert_eq!(ask(&mut driver, 1, at(1), 2).0, ERROR);
    assert_eq!(ask(&mut driver, 4, at(5), 1).0, ERROR);
    assert_eq!(ask(&mut driver, u16::MAX, at(5), 1).0, ERROR);
    assert_eq!(host.0.lock().unwrap().plugged, [BLOCK].into());
    assert_eq!(mem.status().requests.wrong, 3 * 9 + 5);
}

#[test]
fn another_size_interrupts_the_driver_and_changes_the_generation() {
    let (mem, _) = device(0);
    let driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(space(&driver)[4..], [0, 0, 0]);
    let before = mem.config_generation();
    mem.request(16 * BLOCK).unwrap();
    assert_ne!(mem.config_generation(), before);
    assert_eq!((driver.line.count(), driver.acknowledge()), (1, 2));
    assert_eq!(space(&driver)[4..], [64 * BLOCK, 0, 16 * BLOCK]);
    assert_eq!(
        mem.request(BLOCK + 1).unwrap_err().to_string(),
        "2097153 is not a multiple of the block size 2M"
    );
    assert_eq!(
        mem.request(65 * BLOCK).unwrap_err().to_string(),
        "130M is more than the region of 128M"
    );
    assert_eq!((driver.line.count(), mem.status().requested), (1, 16 * BLOCK));
}

#[test]
fn a_host_without_memory_is_busy_and_nothing_is_plugged() {
    let (mem, host) = device(4);
    let mut driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
    host.0.lock().unwrap().full = true;
    assert_eq!(ask(&mut driver, 0, at(0), 1), (BUSY, 0));
    assert_eq!((mem.status().plugged, mem.status().requests.busy), (0, 1));
    host.0.lock().unwrap().full = false;
    assert_eq!(ask(&mut driver, 0, at(0), 1), (ACK, 0));
}

#[test]
fn memory_survives_a_reset_of_the_device_and_goes_when_the_next_driver_says_so() {
    let (mem, host) = device(4);
    let mut driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(ask(&mut driver, 0, at(0), 4), (ACK, 0));
    driver.set_status(0);
    driver.start(F_UNPLUGGED_INACCESSIBLE);
    assert_eq!(space(&driver)[5], 4 * BLOCK);
    assert_eq!(ask(&mut driver, 2, 0, 0), (ACK, 0));
    assert!(host.0.lock().unwrap().plugged.is_empty());
}

#[test]
fn a_request_with_a_memory_error_is_an_error_and_plugs_nothing() {
    let lines = BadLines::default();
    let (device, host) = device(4);
    let mut driver = Driver::up_with(device, 0, &lines);
    let request = driver.text(&bytes(0, at(0), 1));
    let Buffer::Read(first, _) = request else {
        unreachable!("text is read")
    };
    lines.set([GpaRange::new(Gpa(first / 64 * 64), 64)]);
    let answer = driver.buffer(ANSWER);
    driver.offer(0, &[request, Buffer::Write(answer, ANSWER)]);
    driver.notify(0);
    assert_eq!(driver.bytes(answer, 2), ERROR.to_le_bytes());
    lines.set([]);
    assert_eq!((lines.count(), ask(&mut driver, 0, at(0), 1)), (1, (ACK, 0)));
    drop(host);
}

#[test]
fn requests_without_room_or_content_stop_the_device() {
    for (request, answer) in [(REQUEST - 1, ANSWER), (REQUEST, ANSWER - 1), (0, ANSWER)] {
        let mut driver = Driver::up(plain(), F_UNPLUGGED_INACCESSIBLE);
        let at = driver.buffer(64);
        driver.offer(0, &[Buffer::Read(at, request), Buffer::Write(at, answer)]);
        driver.notify(0);
        assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0, "{request} {answer}");
        assert_eq!(driver.used(0), []);
    }
}

proptest! {
    /// The device's account and the host's are the same after any requests, and never more than was asked for.
    #[test]
    fn any_requests_keep_the_account(requests in proptest::collection::vec((0u16..5, 0u64..70, 0u16..20, 0u64..2), 0..60)) {
        let (mem, host) = device(20);
        let mut driver = Driver::up(mem.clone(), F_UNPLUGGED_INACCESSIBLE);
        for (kind, block, blocks, odd) in requests {
            ask(&mut driver, kind, at(block) + odd, blocks);
            let plugged = host.0.lock().unwrap().plugged.len() as u64 * BLOCK;
            prop_assert_eq!(mem.status().plugged, plugged);
            prop_assert!(plugged <= 20 * BLOCK);
        }
    }
}
