//! The domain on a machine that is a few maps.

use super::{abi::*, reservation::SECTION, *};
use proptest::prelude::*;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};
use zerocopy::IntoBytes;

/// Memory of a caller: one flat piece from 0.
struct Flat(RefCell<Vec<u8>>);

impl Flat {
    fn new() -> Self {
        Self(RefCell::new(vec![0; 1 << 16]))
    }

    fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) {
        self.write(at, value.as_bytes()).unwrap();
    }

    fn word(&self, at: u64) -> u32 {
        let mut word = [0; 4];
        self.read(at, &mut word).unwrap();
        u32::from_le_bytes(word)
    }

    fn long(&self, at: u64) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at + 4)) << 32
    }
}

fn within(at: u64, len: usize, size: usize) -> Result<Range<usize>, BadAddress> {
    let start = usize::try_from(at).map_err(|_| BadAddress)?;
    let end = start.checked_add(len).filter(|end| *end <= size).ok_or(BadAddress)?;
    Ok(start..end)
}

impl Guest for Flat {
    fn place(&self, at: u64) -> Result<Gpa, BadAddress> {
        within(at, 1, 1 << 16).map(|_| Gpa(at))
    }
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), BadAddress> {
        let bytes = self.0.borrow();
        to.copy_from_slice(&bytes[within(at, to.len(), bytes.len())?]);
        Ok(())
    }

    fn write(&self, at: u64, from: &[u8]) -> Result<(), BadAddress> {
        let mut bytes = self.0.borrow_mut();
        let range = within(at, from.len(), bytes.len())?;
        bytes[range].copy_from_slice(from);
        Ok(())
    }
}

/// A machine that notes what it is asked for.
#[derive(Default)]
struct Notes {
    discarded: Vec<Range<u64>>,
    provided: Vec<Range<u64>>,
    frames: BTreeSet<u64>,
    bytes: BTreeMap<u64, u8>,
    shared_info: Option<u64>,
    vcpu_info: BTreeMap<u32, u64>,
    vector: u8,
    raised: Vec<(u32, u32)>,
    areas: BTreeMap<(u32, Area), u64>,
    timers: BTreeMap<u32, u32>,
    /// Nothing can be provided.
    full: bool,
}

impl Host for Notes {
    fn discard(&mut self, pages: Range<u64>) {
        self.bytes.retain(|at, _| !pages.contains(&(at / PAGE)));
        self.discarded.push(pages);
    }
    fn provide(&mut self, pages: Range<u64>) -> bool {
        let free = !self.full && self.frames.range(pages.clone()).next().is_none();
        if free {
            self.provided.push(pages);
        }
        free
    }
    fn show_frame(&mut self, page: u64) -> bool {
        assert!(self.full || self.frames.insert(page), "frame {page:#x} is shown twice");
        !self.full
    }
    fn hide_frame(&mut self, page: u64) {
        assert!(self.frames.remove(&page), "frame {page:#x} is not shown");
        self.bytes.retain(|at, _| at / PAGE != page);
    }
    fn load(&self, at: Gpa, to: &mut [u8]) {
        for (at, to) in (at.0..).zip(to) {
            *to = self.bytes.get(&at).copied().unwrap_or_default();
        }
    }
    fn store(&mut self, at: Gpa, from: &[u8]) {
        for (at, from) in (at.0..).zip(from) {
            match from {
                0 => self.bytes.remove(&at),
                byte => self.bytes.insert(at, *byte),
            };
        }
    }
    fn clear_bit(&mut self, word: Gpa, bit: u32) -> bool {
        let byte = self.bytes.entry(word.0 + u64::from(bit / 8)).or_default();
        let before = *byte & 1 << (bit % 8) != 0;
        *byte &= !(1 << (bit % 8));
        before
    }
    fn place_shared_info(&mut self, page: Option<u64>) -> bool {
        self.shared_info = page;
        true
    }
    fn place_vcpu_info(&mut self, vcpu: u32, at: Option<Gpa>) -> bool {
        match at {
            Some(at) => self.vcpu_info.insert(vcpu, at.0),
            None => self.vcpu_info.remove(&vcpu),
        };
        true
    }
    fn place_area(&mut self, vcpu: u32, area: Area, at: Option<Gpa>) -> bool {
        match at {
            Some(at) => self.areas.insert((vcpu, area), at.0),
            None => self.areas.remove(&(vcpu, area)),
        };
        true
    }
    fn set_timer_port(&mut self, vcpu: u32, port: u32) -> bool {
        self.timers.insert(vcpu, port);
        true
    }
    fn set_upcall_vector(&mut self, vector: u8) -> bool {
        self.vector = vector;
        true
    }
    fn raise(&mut self, port: u32, vcpu: u32) {
        self.raised.push((port, vcpu));
    }
}

const MAXIMUM: u64 = 2048;
/// Page of the store's rings.
const STORE: u64 = 900;

fn domain() -> Domain {
    Domain::new(Plan {
        version: "4.17".parse().unwrap(),
        vcpus: 2,
        boot: vec![0..512, 512..1024],
        maximum: MAXIMUM,
        map: vec![(0..0x9_fc00, 1), (0x10_0000..0x40_0000, 1)],
        store: STORE,
        target: 512,
    })
}

struct Bench {
    domain: Domain,
    guest: Flat,
    host: Notes,
}

impl Bench {
    fn new() -> Self {
        Self {
            domain: domain(),
            guest: Flat::new(),
            host: Notes::default(),
        }
    }

    fn answer(&mut self, number: u64, args: &[u64]) -> Answer {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let call = Call {
            number,
            args: all,
            vcpu: 0,
            is_64_bit: true,
            privilege: 0,
        };
        self.domain.call(&call, &self.guest, &mut self.host)
    }

    fn call(&mut self, number: u64, args: &[u64]) -> i64 {
        self.answer(number, args).result
    }

    /// `populate_physmap` or `decrease_reservation` of a list.
    fn reserve(&mut self, operation: u64, pages: &[u64], order: u32) -> i64 {
        for (n, page) in (0..).zip(pages) {
            self.guest.put(0x2000 + 8 * n, page);
        }
        self.reserve_at(operation, 0x2000, pages.len() as u64, order)
    }

    fn reserve_at(&mut self, operation: u64, list: u64, count: u64, order: u32) -> i64 {
        self.guest.put(0x1000, &[list, count]);
        self.guest.put(0x1010, &[order, 0]);
        self.guest.put(0x1018, &u64::from(DOMID_SELF));
        self.call(hypercall::MEMORY_OP, &[operation, 0x1000])
    }

    fn add(&mut self, space: u32, index: u64, page: u64) -> i64 {
        self.guest.put(0x1000, &[u32::from(DOMID_SELF), space]);
        self.guest.put(0x1008, &[index, page]);
        self.call(hypercall::MEMORY_OP, &[7, 0x1000])
    }

    fn current(&mut self) -> i64 {
        self.guest.put(0x1000, &DOMID_SELF);
        self.call(hypercall::MEMORY_OP, &[3, 0x1000])
    }
}

const POPULATE: u64 = 6;
const DECREASE: u64 = 1;

#[test]
fn the_version_is_that_of_the_plan_and_features_are_those_of_a_translated_guest() {
    let mut bench = Bench::new();
    assert_eq!(bench.call(hypercall::XEN_VERSION, &[0]), 0x0004_0011);
    assert_eq!(bench.call(hypercall::XEN_VERSION, &[6, 0x100]), 0);
    assert_eq!(bench.guest.word(0x104), 0x0001_2305);
    bench.guest.put(0x100, &2u32);
    assert_eq!(bench.call(hypercall::XEN_VERSION, &[6, 0x100]), -22);
    assert_eq!(bench.call(hypercall::XEN_VERSION, &[1, 0x100]), 0);
    let mut extra = [0; 16];
    bench.guest.read(0x100, &mut extra).unwrap();
    assert_eq!(&extra, b".0-daxvisor\0\0\0\0\0");
    assert_eq!(
        bench.call(hypercall::XEN_VERSION, &[3, 0xfff0]),
        -14,
        "1024 bytes do not fit there"
    );
}

#[test]
fn memory_given_back_leaves_the_host_in_runs_and_comes_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.current(), 1024);
    assert_eq!(bench.reserve(DECREASE, &[12, 11, 10, 500, 13], 0), 5);
    assert_eq!(bench.host.discarded, [10..14, 500..501]);
    assert_eq!(bench.current(), 1019);
    assert_eq!(bench.reserve(DECREASE, &[20, 11, 21], 0), 1, "page 11 is not there");
    assert_eq!(bench.reserve(POPULATE, &[11, 12, 12], 0), 2, "page 12 is there");
    assert_eq!(bench.current(), 1020);
    assert_eq!(bench.reserve(DECREASE, &[512], 9), 1);
    assert_eq!(
        bench.reserve(DECREASE, &[0], 10),
        0,
        "the extent is larger than a guest's may be"
    );
    assert_eq!(bench.current(), 508);
}

#[test]
fn memory_beyond_the_boot_map_ends_at_the_maximum_and_not_a_page_later() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    let pages: Vec<_> = (first..first + 1025).collect();
    assert_eq!(bench.reserve(POPULATE, &pages, 0), 1024);
    let provided = (bench.host.provided.len(), bench.host.provided.first());
    assert_eq!(provided, (1, Some(&(first..first + SECTION))));
    assert_eq!(bench.current(), 2048);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 0);
    assert_eq!(bench.reserve(DECREASE, &[3], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[3], 0), 0);
    bench.host.full = true;
    assert_eq!(bench.reserve(DECREASE, &[4], 0), 1);
    assert_eq!(bench.reserve(POPULATE, &[9 * SECTION], 0), 0, "the host has no place");
    assert_eq!(bench.reserve(POPULATE, &[(1 << 40) - 1, 1 << 40], 0), 0);
}

#[test]
fn a_refusal_is_told_with_its_numbers_once() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    let pages: Vec<_> = (first..first + 1030).collect();
    let told = |bench: &mut Bench, pages: &[u64]| {
        for (n, page) in (0..).zip(pages) {
            bench.guest.put(0x2000 + 8 * n, page);
        }
        bench.guest.put(0x1000, &[0x2000, pages.len() as u64]);
        bench.guest.put(0x1010, &[0u32, 0]);
        bench.guest.put(0x1018, &u64::from(DOMID_SELF));
        bench.answer(hypercall::MEMORY_OP, &[POPULATE, 0x1000]).refused
    };
    let refused = |asked| {
        Some(Refused {
            asked,
            current: MAXIMUM,
            maximum: MAXIMUM,
        })
    };
    assert_eq!(told(&mut bench, &pages[..1000]), None);
    assert_eq!(told(&mut bench, &pages[1000..]), refused(6));
    assert_eq!(told(&mut bench, &pages[1024..]), None, "as before");
    assert_eq!(bench.reserve(DECREASE, &[5], 0), 1);
    assert_eq!(
        told(&mut bench, &[5, first + 1029]).map(|refused| refused.asked),
        None,
        "it has as much as before"
    );
}

#[test]
fn an_extent_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::new();
    let first = 4 * SECTION;
    assert_eq!(bench.reserve(POPULATE, &[first], 9), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 512], 9), 1);
    assert_eq!(bench.reserve(POPULATE, &[first + 1024], 0), 0);
    assert_eq!(bench.reserve(DECREASE, &[first + 1], 0), 1);
    assert_eq!(bench.reserve(DECREASE, &[first], 9), 0, "one of its pages is not there");
    assert_eq!(bench.current(), 2047);
}

#[test]
fn lists_of_any_length_and_anywhere_are_a_bounded_amount_of_work() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.reserve_at(DECREASE, 0x2000, u64::MAX, 0),
        1,
        "page 0 is not there a second time"
    );
    assert_eq!(bench.reserve_at(DECREASE, u64::MAX - 3, 9, 0), 0);
    assert_eq!(bench.reserve_at(POPULATE, 0xffff_f000, u64::MAX, 9), 0);
    assert_eq!(bench.reserve_at(DECREASE, 0x2000, u64::MAX, u32::MAX), 0);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[DECREASE, u64::MAX]), -14);
    assert_eq!(bench.current(), 1023);
}

#[test]
fn the_shared_page_takes_the_place_of_a_page_and_vcpus_are_in_it_until_they_move() {
    let mut bench = Bench::new();
    assert_eq!(bench.add(0, 0, 16), 0);
    assert_eq!((bench.host.shared_info, bench.current()), (Some(16), 1023));
    assert_eq!(bench.host.vcpu_info, BTreeMap::from([(0, 0x1_0000), (1, 0x1_0040)]));
    assert_eq!(bench.reserve(DECREASE, &[16], 0), 0, "it is not the domain's memory");
    assert_eq!(bench.reserve(POPULATE, &[16], 0), 0);
    bench.guest.put(0x100, &[20u64, 0x40]);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 1, 0x100]), 0);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 1, 0x100]), -22, "once");
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 2, 0x100]), -2);
    assert_eq!(bench.host.vcpu_info[&1], 20 * PAGE + 0x40);
    bench.guest.put(0x100, &[16u64, 0]);
    assert_eq!(
        bench.call(hypercall::VCPU_OP, &[10, 0, 0x100]),
        -22,
        "that page is not the domain's"
    );

    // It moves with what it holds.
    bench.host.store(Gpa(16 * PAGE + 8), &[7]);
    assert_eq!(bench.add(0, 0, 17), 0);
    assert_eq!(bench.host.bytes.get(&(17 * PAGE + 8)), Some(&7));
    assert_eq!((bench.host.shared_info, bench.current()), (Some(17), 1022));
    assert_eq!(bench.host.vcpu_info[&1], 20 * PAGE + 0x40);
    assert_eq!(bench.reserve(POPULATE, &[16], 0), 1);
    bench.guest.put(0x1000, &[u64::from(DOMID_SELF), 17]);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[15, 0x1000]), 0);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[15, 0x1000]), -2);
    assert_eq!((bench.host.shared_info, bench.host.vcpu_info.len()), (None, 1));
}

#[test]
fn frames_of_the_grant_table_are_where_the_guest_wants_them() {
    let mut bench = Bench::new();
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 0, 0, 0]);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[6, 0x100, 1]), 0);
    assert_eq!((bench.guest.word(0x104), bench.guest.word(0x108)), (1, MAX_FRAMES));
    let far = 7 * SECTION;
    assert_eq!(
        (bench.add(1, 2, far), bench.add(1, 0, 30), bench.add(1, 64, 31)),
        (0, 0, -22)
    );
    assert_eq!(bench.host.frames, BTreeSet::from([far]));
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[6, 0x100, 1]), 0);
    assert_eq!(bench.guest.word(0x104), 3);
    bench.guest.put(0x100, &[u32::from(DOMID_SELF), 3, 0, 0]);
    bench.guest.put(0x110, &0x200u64);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[2, 0x100, 1]), 0);
    let told = [0x200, 0x208, 0x210].map(|at| bench.guest.long(at));
    assert_eq!(told, [30, u64::MAX, far]);
    bench.guest.put(0x110, &u64::MAX);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[2, 0x100, 1]), -14);
    bench.guest.put(0x100, &2u32);
    assert_eq!(bench.call(hypercall::GRANT_TABLE_OP, &[8, 0x100, 1]), -22);
    assert_eq!(
        bench.call(hypercall::GRANT_TABLE_OP, &[8, 0x100, 1]),
        0,
        "it was told version 1"
    );
    assert_eq!(bench.current(), 1023);
}

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
fn reasons_to_shut_down_end_the_machine_each_in_its_way() {
    let mut bench = Bench::new();
    let mut shut_down = |reason: u32| {
        bench.guest.put(0x100, &reason);
        let answer = bench.answer(hypercall::SCHED_OP, &[2, 0x100]);
        (answer.result, answer.effect)
    };
    assert_eq!(shut_down(0), (0, Effect::PowerOff));
    assert_eq!(shut_down(1), (0, Effect::Reset));
    assert_eq!(shut_down(2), (-95, Effect::None), "nobody would wake it");
    assert_eq!(shut_down(3), (0, Effect::Panicked));
    assert_eq!(shut_down(6), (-22, Effect::None));
}

#[test]
fn a_kernel_that_starts_another_leaves_nothing_of_its_own() {
    let mut bench = Bench::new();
    assert_eq!((bench.add(0, 0, 16), bench.add(1, 0, 9 * SECTION)), (0, 0));
    bench.guest.put(0x100, &[20u64, 0]);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 0, 0x100]), 0);
    bench.guest.put(0x100, &5u32);
    assert_eq!(bench.call(hypercall::SCHED_OP, &[2, 0x100]), 0);
    assert_eq!((bench.host.shared_info, bench.host.frames.len()), (None, 0));
    assert!(bench.host.vcpu_info.is_empty());
    assert_eq!(bench.add(0, 0, 17), 0);
    bench.guest.put(0x100, &[20u64, 0]);
    assert_eq!(bench.call(hypercall::VCPU_OP, &[10, 0, 0x100]), 0);
}

#[test]
fn the_memory_map_is_handed_over_whole() {
    let mut bench = Bench::new();
    bench.guest.put(0x100, &[1u32, 0]);
    bench.guest.put(0x108, &0x200u64);
    assert_eq!(
        bench.call(hypercall::MEMORY_OP, &[9, 0x100]),
        -22,
        "there are two entries"
    );
    bench.guest.put(0x100, &[128u32, 0]);
    assert_eq!(bench.call(hypercall::MEMORY_OP, &[9, 0x100]), 0);
    assert_eq!(
        (
            bench.guest.word(0x100),
            bench.guest.long(0x214),
            bench.guest.long(0x21c)
        ),
        (2, 0x10_0000, 0x30_0000)
    );
    assert_eq!(
        (
            bench.call(hypercall::MEMORY_OP, &[10, 0x100]),
            bench.call(hypercall::MEMORY_OP, &[11, 0x100])
        ),
        (-1, -95)
    );
}

#[test]
fn only_64_bit_kernels_are_answered() {
    let mut bench = Bench::new();
    let call = |number, is_64_bit, privilege| Call {
        number,
        args: [0; 6],
        vcpu: 0,
        is_64_bit,
        privilege,
    };
    let mut result = |call| bench.domain.call(&call, &bench.guest, &mut bench.host).result;
    assert_eq!(result(call(hypercall::XEN_VERSION, true, 3)), -1);
    assert_eq!(result(call(hypercall::XEN_VERSION, false, 0)), -38);
    assert_eq!(result(call(u64::MAX, true, 0)), -38);
}

/// One random operation on memory.
#[derive(Debug, Clone)]
enum Step {
    Give(Vec<u64>, u32),
    Take(Vec<u64>, u32),
    Place(u32, u64, u64),
    Unplace(u64),
    Move(u32, u64),
}

fn a_page() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..1040,
        8 => 4 * SECTION..4 * SECTION + 1500,
        1 => (0u64..8).prop_map(|section| section * SECTION),
        1 => any::<u64>(),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let list = || proptest::collection::vec(a_page(), 1..40);
    let order = || prop_oneof![6 => Just(0u32), 2 => 0u32..10, 1 => any::<u32>()];
    prop_oneof![
        6 => (list(), order()).prop_map(|(pages, order)| Step::Give(pages, order)),
        6 => (list(), order()).prop_map(|(pages, order)| Step::Take(pages, order)),
        2 => (0u32..6, 0u64..70, a_page()).prop_map(|(space, index, page)| Step::Place(space, index, page)),
        1 => a_page().prop_map(Step::Unplace),
        1 => (0u32..3, a_page()).prop_map(|(vcpu, page)| Step::Move(vcpu, page)),
    ]
}

proptest! {
    // 20 replays of 500 operations: 10,000 of them, and the memory is counted anew after each.
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn memory_adds_up_after_every_operation(steps in proptest::collection::vec(a_step(), 500)) {
        let mut bench = Bench::new();
        for step in steps {
            let result = match step {
                Step::Give(pages, order) => bench.reserve(DECREASE, &pages, order),
                Step::Take(pages, order) => bench.reserve(POPULATE, &pages, order),
                Step::Place(space, index, page) => bench.add(space, index, page),
                Step::Unplace(page) => {
                    bench.guest.put(0x1000, &[u64::from(DOMID_SELF), page]);
                    bench.call(hypercall::MEMORY_OP, &[15, 0x1000])
                }
                Step::Move(vcpu, page) => {
                    bench.guest.put(0x100, &[page, 0]);
                    bench.call(hypercall::VCPU_OP, &[10, vcpu.into(), 0x100])
                }
            };
            prop_assert!(result >= -95);
            let memory = bench.domain.reservation();
            prop_assert_eq!(memory.audit(), Ok(()));
            prop_assert_eq!(memory.current() + memory.ballooned(), MAXIMUM);
            // What Xen keeps is not the domain's memory.
            prop_assert!(bench.host.shared_info.is_none_or(|page| !memory.has(page)));
            prop_assert!(bench.host.frames.iter().all(|page| !memory.has(*page)));
        }
    }

    #[test]
    fn any_call_is_survived(calls in proptest::collection::vec((0u64..56, any::<[u64; 6]>(), 0u64..40, any::<bool>()), 1..60), noise in proptest::collection::vec(any::<u8>(), 4096)) {
        let mut bench = Bench::new();
        bench.guest.write(0, &noise).unwrap();
        for (number, mut args, small, low) in calls {
            if low {
                args[0] = small;
                args[1] %= 0x1000;
                args[2] %= 4;
            }
            let answer = bench.answer(number, &args);
            prop_assert!(answer.result >= -95);
        }
    }
}
