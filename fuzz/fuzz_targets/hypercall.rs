//! Any bytes are hypercalls and the memory that they point into: the domain answers without a panic, never has more memory than it
//! may, and asks the machine for nothing that it cannot do.
#![no_main]

use devices::{
    units::Gpa,
    xen::{Area, BadAddress, Call, Domain, Guest, Host, Plan, abi::PAGE},
};
use libfuzzer_sys::fuzz_target;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

const MEMORY: usize = 0x1_0000;
const BOOT: u64 = 4096;
const MAXIMUM: u64 = 3 * BOOT;
/// Pages of a section of memory beyond the boot map.
const SECTION: u64 = 1 << 15;

struct Flat<'a>(&'a RefCell<Vec<u8>>);

fn within(at: u64, len: usize) -> Result<Range<usize>, BadAddress> {
    let start = usize::try_from(at).map_err(|_| BadAddress)?;
    let end = start.checked_add(len).filter(|end| *end <= MEMORY);
    end.map(|end| start..end).ok_or(BadAddress)
}

impl Guest for Flat<'_> {
    fn place(&self, at: u64) -> Result<Gpa, BadAddress> {
        within(at, 1).map(|_| Gpa(at))
    }
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), BadAddress> {
        to.copy_from_slice(&self.0.borrow()[within(at, to.len())?]);
        Ok(())
    }
    fn write(&self, at: u64, from: &[u8]) -> Result<(), BadAddress> {
        self.0.borrow_mut()[within(at, from.len())?].copy_from_slice(from);
        Ok(())
    }
}

struct Machine<'a> {
    memory: &'a RefCell<Vec<u8>>,
    /// Sections that are provided.
    sections: BTreeSet<u64>,
    frames: BTreeSet<u64>,
    shared_info: Option<u64>,
    vcpu_info: BTreeMap<u32, Gpa>,
    ipis: BTreeSet<u32>,
}

impl Machine<'_> {
    fn is_ram(&self, page: u64) -> bool {
        page < BOOT || self.sections.contains(&(page / SECTION))
    }
}

impl Host for Machine<'_> {
    fn discard(&mut self, pages: Range<u64>) {
        assert!(pages.start < pages.end && pages.clone().all(|page| self.is_ram(page)));
    }
    fn provide(&mut self, pages: Range<u64>) -> bool {
        assert!(pages.start % SECTION == 0 && pages.end == pages.start + SECTION && pages.start >= BOOT);
        let free = self.frames.range(pages.clone()).next().is_none();
        assert!(
            !free || self.sections.insert(pages.start / SECTION),
            "a section is provided once"
        );
        assert!(self.sections.len() as u64 <= MAXIMUM / SECTION + 1);
        free
    }
    fn show_frame(&mut self, page: u64) -> bool {
        assert!(!self.is_ram(page) && self.frames.insert(page));
        true
    }
    fn hide_frame(&mut self, page: u64) {
        assert!(self.frames.remove(&page));
    }
    fn load(&self, at: Gpa, to: &mut [u8]) {
        to.fill(0);
        let _ = Flat(self.memory).read(at.0, to);
    }
    fn store(&mut self, at: Gpa, from: &[u8]) {
        let _ = Flat(self.memory).write(at.0, from);
    }
    fn clear_bit(&mut self, word: Gpa, bit: u32) -> bool {
        assert!(word.0 % 8 == 0 && bit < 64 && Some(word.0 / PAGE) == self.shared_info);
        let mut bytes = [0; 8];
        self.load(word, &mut bytes);
        let before = u64::from_le_bytes(bytes);
        self.store(word, &(before & !(1 << bit)).to_le_bytes());
        before & 1 << bit != 0
    }
    fn place_shared_info(&mut self, page: Option<u64>) -> bool {
        assert!(page.is_none_or(|page| self.is_ram(page) || self.frames.contains(&page)));
        self.shared_info = page;
        true
    }
    fn place_vcpu_info(&mut self, vcpu: u32, at: Option<Gpa>) -> bool {
        match at {
            Some(at) => self.vcpu_info.insert(vcpu, at),
            None => self.vcpu_info.remove(&vcpu),
        };
        true
    }
    fn place_area(&mut self, vcpu: u32, _: Area, at: Option<Gpa>) -> bool {
        assert!(vcpu < 2 && at.is_none_or(|at| at.0 < MEMORY as u64));
        true
    }
    fn set_timer_port(&mut self, vcpu: u32, port: u32) -> bool {
        assert!(vcpu < 2 && port < 4096);
        true
    }
    fn set_upcall_vector(&mut self, vector: u8) -> bool {
        vector == 0 || vector >= 0x10
    }
    fn set_own_vector(&mut self, vcpu: u32, vector: u8) -> bool {
        vcpu < 2 && (vector == 0 || vector >= 0x10)
    }
    fn interrupt(&mut self, vcpu: u32, vector: u8) {
        assert!(vcpu < 2 && vector >= 0x10);
    }
    fn apic_id(&self, vcpu: u32) -> Option<u32> {
        (vcpu < 2).then_some(vcpu)
    }
    fn raise(&mut self, port: u32, vcpu: u32) {
        assert!((1..4096).contains(&port) && vcpu < 2);
    }
    fn route_ipi(&mut self, port: u32, vcpu: Option<u32>) {
        assert!(vcpu.is_none_or(|vcpu| vcpu < 2));
        let changed = if vcpu.is_some() { self.ipis.insert(port) } else { self.ipis.remove(&port) };
        assert!(changed, "port {port} is routed once");
    }
    fn print(&mut self, bytes: &[u8]) -> usize {
        assert!((1..=2048).contains(&bytes.len()));
        bytes.len() / 2
    }
}

fuzz_target!(|data: &[u8]| {
    let mut memory = data.to_vec();
    memory.resize(MEMORY, 0);
    let memory = RefCell::new(memory);
    let mut machine = Machine {
        memory: &memory,
        sections: BTreeSet::new(),
        frames: BTreeSet::new(),
        shared_info: None,
        vcpu_info: BTreeMap::new(),
        ipis: BTreeSet::new(),
    };
    let mut domain = Domain::new(Plan {
        version: "4.17".parse().expect("a version"),
        // Either domain.
        initial: data.len() % 2 == 0,
        vcpus: 2,
        boot: vec![0..BOOT],
        maximum: MAXIMUM,
        map: vec![(0..BOOT * PAGE, 1)],
        store: 8,
        console: (data.len() % 3 == 0).then_some(9),
        target: BOOT,
    });
    // Each call is eight bytes: number, operation, and where its arguments are.
    for call in data.chunks_exact(8).take(256) {
        let wide = |n: usize| u64::from(u16::from_le_bytes([call[n], call[n + 1]]));
        let call = Call {
            number: (call[0] % 64).into(),
            args: [(call[1] % 32).into(), wide(2), wide(4), wide(6), 0, 0],
            vcpu: 0,
            is_64_bit: true,
            privilege: 0,
        };
        let answer = domain.call(&call, &Flat(&memory), &mut machine);
        assert!(answer.result >= -95);
        assert!(domain.typed(&[call.args[1].to_le_bytes()[0]; 3], &mut machine) <= 3);
        let pages = domain.reservation();
        assert_eq!(pages.current() + pages.ballooned(), MAXIMUM);
    }
    domain.reservation().audit().expect("memory that adds up");
});
