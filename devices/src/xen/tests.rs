//! The domain on a machine that is a few maps.

mod console;
mod dom0;
mod events;
mod memory;
mod power;
mod random;

use super::{abi::*, reservation::SECTION, *};
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
    own_vectors: BTreeMap<u32, u8>,
    interrupts: Vec<(u32, u8)>,
    raised: Vec<(u32, u32)>,
    areas: BTreeMap<(u32, Area), u64>,
    timers: BTreeMap<u32, u32>,
    /// Nothing can be provided.
    full: bool,
    /// Channels between vCPUs, and to whom they go.
    ipis: BTreeMap<u32, u32>,
    printed: Vec<u8>,
    /// Bytes that the console's reader still takes.
    patience: usize,
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
    fn set_own_vector(&mut self, vcpu: u32, vector: u8) -> bool {
        self.own_vectors.insert(vcpu, vector);
        true
    }
    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        self.interrupts.push((vcpu, vector));
    }
    fn apic_id(&self, vcpu: u32) -> Option<u32> {
        (vcpu < 2).then(|| 4 * vcpu)
    }
    fn raise(&mut self, port: u32, vcpu: u32) {
        self.raised.push((port, vcpu));
    }
    fn route_ipi(&mut self, port: u32, vcpu: Option<u32>) {
        let before = match vcpu {
            Some(vcpu) => self.ipis.insert(port, vcpu),
            None => self.ipis.remove(&port),
        };
        assert_eq!(before.is_some(), vcpu.is_none(), "port {port} is routed once");
    }
    fn print(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.patience);
        self.patience -= taken;
        self.printed.extend(&bytes[..taken]);
        taken
    }
}

const MAXIMUM: u64 = 2048;
/// Page of the store's rings.
const STORE: u64 = 900;

fn domain(initial: bool) -> Domain {
    Domain::new(plan(initial))
}

fn plan(initial: bool) -> Plan {
    Plan {
        version: "4.17".parse().unwrap(),
        initial,
        vcpus: 2,
        boot: vec![0..512, 512..1024],
        maximum: MAXIMUM,
        map: vec![(0..0x9_fc00, 1), (0x10_0000..0x40_0000, 1)],
        store: STORE,
        console: None,
        target: 512,
    }
}

struct Bench {
    domain: Domain,
    guest: Flat,
    host: Notes,
}

impl Bench {
    fn new() -> Self {
        Self::of(domain(false))
    }

    fn of(domain: Domain) -> Self {
        Self {
            domain,
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

#[test]
fn calls_that_point_to_their_operation_are_named_by_it() {
    let mut bench = Bench::new();
    // The machine checks of the host, with the same operation at two places, and another one.
    for (at, operation) in [(0x100, 4u32), (0x200, 4), (0x300, 5)] {
        bench.guest.put(at, &operation);
        assert_eq!(bench.call(hypercall::MCA, &[at]), -38);
    }
    assert_eq!(
        bench.domain.told,
        BTreeSet::from([(hypercall::MCA, 4), (hypercall::MCA, 5)])
    );
}
