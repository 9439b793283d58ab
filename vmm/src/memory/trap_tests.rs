use super::*;
use crate::memory::{
    lost::{Seat, tests::alone},
    ram,
};
use devices::units::{ByteSize, Gpa, GpaRange};
use std::{
    sync::{Arc, Mutex},
    thread,
};
use vm_memory::{Bytes, VolatileMemory};

const PAGES: u64 = 64;

struct Memory {
    // In this order: nobody hears of traps when they go.
    _watched: lost::Watched,
    traps: Traps,
    mapping: Mapping,
}

impl Memory {
    /// None: the host's kernel has no traps, and says so.
    fn new(shared: bool) -> Option<Self> {
        lost::install().unwrap();
        let config = crate::config::MemoryConfig {
            shared,
            ..Default::default()
        };
        let mapping = ram::allocate(GpaRange::new(Gpa(0), PAGES * PAGE), &config).unwrap();
        assert_eq!(can_have(&mapping), uffd::ready());
        if !uffd::ready() {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap());
            assert!([parts.next(), parts.next()] < [Some(6), Some(6)], "{release}");
            return None;
        }
        let traps = Traps::new(&mapping).unwrap();
        let watched = lost::watch(mapping.as_ptr() as usize, mapping.size());
        assert!(watched.have_traps(traps.area()));
        Some(Self {
            _watched: watched,
            traps,
            mapping,
        })
    }

    fn set(&mut self, runs: impl IntoIterator<Item = Range<u64>>) {
        let pages = runs.into_iter().map(|run| run.start * PAGE..run.end * PAGE).collect();
        let (set, broken) = self.traps.set(pages);
        set.unwrap();
        assert!(broken.is_empty());
    }

    fn load(&self, page: u64) -> u64 {
        let at = usize::try_from(page * PAGE).unwrap();
        self.mapping.get_slice(at, 8).unwrap().read_obj(0).unwrap()
    }

    fn store(&self, page: u64, value: u64) {
        let at = usize::try_from(page * PAGE).unwrap();
        self.mapping.get_slice(at, 8).unwrap().write_obj(value, 0).unwrap();
    }

    fn address(&self, page: u64) -> usize {
        self.mapping.as_ptr() as usize + usize::try_from(page * PAGE).unwrap()
    }

    fn take(&mut self) -> Vec<u64> {
        let (taken, broken) = self.traps.take();
        assert!(broken.is_empty());
        taken.iter().map(|offset| offset / PAGE).collect()
    }
}

fn both(test: impl Fn(Memory)) {
    let _alone = alone();
    for shared in [false, true] {
        if let Some(memory) = Memory::new(shared) {
            test(memory);
        }
        assert!(!is_any_opened());
    }
}

#[test]
fn whoever_touches_a_page_finds_what_it_held_and_is_told_of() {
    both(|mut memory| {
        for page in 0..PAGES / 2 {
            memory.store(page, page + 100);
        }
        // Some hold something, some were never touched.
        memory.set([2..5, 30..34, 63..64]);
        assert!(!memory.traps.is_touched());
        for page in [1, 5, 29, 34, 62] {
            assert_eq!(memory.load(page), if page < 32 { page + 100 } else { 0 });
        }
        assert!(!memory.traps.is_touched() && !lost::is_there(memory.address(3) as *const u8));
        assert_eq!([3, 33].map(|page| memory.load(page)), [103, 0]);
        memory.store(63, 7);
        assert!(memory.traps.is_touched() && is_any_opened() && !lost::is_held());
        assert_eq!(memory.take(), [3, 33, 63]);
        assert!(!memory.traps.is_touched() && !is_any_opened());
        // They are open until they are set again.
        assert_eq!([3, 33, 63].map(|page| memory.load(page)), [103, 0, 7]);
        assert!(!memory.traps.is_touched());
        memory.set([2..5, 31..34]);
        assert_eq!(memory.load(3), 103);
        assert_eq!(memory.take(), [3]);
        memory.set([]);
        for page in 0..PAGES {
            let held = if page < 32 { page + 100 } else { 0 };
            assert_eq!(memory.load(page), if page == 63 { 7 } else { held });
        }
        assert!(!memory.traps.is_touched());
    });
}

#[test]
fn a_vcpu_that_touches_a_page_leaves_it_for_the_loop() {
    both(|mut memory| {
        memory.store(9, 9);
        memory.set(Some(9..10));
        let seat = Seat::take().unwrap();
        let address = memory.address(9) + 8;
        assert_eq!(seat.inside(|| lost::hear(4, address, 12)), Some(true));
        assert_eq!(seat.inside(|| lost::hear(4, address, 12)), Some(true));
        assert!(seat.take_struck() && !seat.take_struck());
        assert!(memory.traps.is_touched() && !is_any_opened() && !lost::is_there(address as *const u8));
        // A thread of the monitor opens it meanwhile: then vCPUs stay outside, and a late signal says nothing.
        assert_eq!(memory.load(9), 9);
        assert!(is_any_opened() && seat.inside(|| ()).is_none());
        assert!(lost::hear(4, address, 12) && !seat.take_struck());
        assert_eq!(memory.take(), [9]);
        assert!(seat.inside(|| ()).is_some() && memory.take().is_empty());
        // With nobody else it is the loop that opens it.
        memory.set([]);
        memory.set(Some(9..10));
        assert_eq!(seat.inside(|| lost::hear(4, address, 12)), Some(true));
        assert_eq!(memory.take(), [9]);
        assert!(lost::is_there(address as *const u8));
        assert_eq!(memory.load(9), 9);
    });
}

#[test]
fn what_is_given_back_is_zeros_behind_a_trap_as_well() {
    let _alone = alone();
    let Some(mut memory) = Memory::new(false) else { return };
    for page in 0..8 {
        memory.store(page, 5);
    }
    memory.set([2..4, 6..7]);
    let parts = memory.traps.forget(&(PAGE..7 * PAGE)).unwrap();
    assert_eq!(parts, [PAGE..2 * PAGE, 4 * PAGE..6 * PAGE]);
    assert_eq!(memory.traps.forget(&(2 * PAGE..4 * PAGE)).unwrap(), []);
    assert_eq!([1, 2, 3, 5, 6, 7].map(|page| memory.load(page)), [5, 0, 0, 5, 0, 5]);
    assert_eq!(memory.take(), [2, 3, 6]);
}

#[test]
fn nothing_is_lost_while_others_are_at_work() {
    both(|memory| {
        let memory = Arc::new(Mutex::new(memory));
        let (start, rounds) = (memory.lock().unwrap().address(0), 3000_u64);
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                thread::spawn(move || {
                    for n in 0..rounds {
                        let page = usize::try_from((n * 7 + worker) % PAGES).unwrap();
                        let at = (start + page * SIZE + 8 * usize::try_from(worker).unwrap()) as *mut u64;
                        // SAFETY: eight bytes of the mapping that the other worker does not use; it lives until both are joined.
                        unsafe { at.write_volatile(at.read_volatile() + 1) };
                    }
                })
            })
            .collect();
        let mut all: u64 = 0;
        while workers.iter().any(|worker| !worker.is_finished()) {
            let mut memory = memory.lock().unwrap();
            memory.set(Some(0..PAGES / 2));
            memory.set(Some(PAGES / 4..PAGES));
            memory.take();
            all += 1;
        }
        for worker in workers {
            worker.join().unwrap();
        }
        let mut memory = memory.lock().unwrap();
        memory.set([]);
        let mut counted = 0;
        for page in 0..PAGES {
            let at = usize::try_from(page * PAGE).unwrap();
            let two: [u64; 2] = memory.mapping.get_slice(at, 16).unwrap().read_obj(0).unwrap();
            counted += two[0] + two[1];
        }
        assert_eq!((counted, all > 0), (2 * rounds, true));
    });
}

#[test]
fn other_memory_has_none() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE).unwrap();
    let build = |file: File, flags| {
        let builder = vm_memory::mmap::MmapRegionBuilder::new(SIZE).with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        let builder = builder.with_file_offset(vm_memory::FileOffset::new(file, 0));
        builder.with_mmap_flags(flags).build().unwrap()
    };
    let memory = ram::memory_file(ByteSize(PAGE).0, None).unwrap();
    assert!(!can_have(&build(memory, libc::MAP_PRIVATE)));
    assert!(!can_have(&build(file, libc::MAP_PRIVATE)));
    // A name, by which others find it.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let named = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.path().join("named"))
        .unwrap();
    named.set_len(PAGE).unwrap();
    assert!(!can_have(&build(named, libc::MAP_SHARED)));
    // Pieces of files, in addresses that were of none.
    let pieces = ram::allocate(GpaRange::new(Gpa(0), 4 * PAGE), &crate::config::MemoryConfig::default()).unwrap();
    assert_eq!(can_have(&pieces), uffd::ready());
    let memory = ram::memory_file(PAGE, None).unwrap();
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    // SAFETY: a page within the mapping above, which nobody has a reference into.
    let at = unsafe {
        let at = pieces.as_ptr().add(2 * SIZE);
        libc::mmap(
            at.cast(),
            SIZE,
            prot,
            flags,
            std::os::fd::AsRawFd::as_raw_fd(&memory),
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED);
    assert!(!can_have(&pieces));
}

#[test]
fn what_is_put_in_place_of_a_page_has_no_trap() {
    both(|mut memory| {
        for page in 0..4 {
            memory.store(page, 5);
        }
        memory.set([0..2, 3..4]);
        memory.traps.give_up(&(PAGE..4 * PAGE));
        assert!(lost::is_there(memory.address(1) as *const u8) && lost::is_there(memory.address(3) as *const u8));
        assert!(!memory.traps.is_touched() && !lost::is_there(memory.address(0) as *const u8));
        memory.store(1, 7);
        memory.set(Some(0..2));
        assert_eq!([0, 1, 2].map(|page| memory.load(page)), [5, 7, 5]);
        assert_eq!(memory.take(), [0, 1]);
    });
}

/// The host loses what a trap keeps.
#[test]
fn a_page_whose_keep_was_lost_can_have_a_trap_again() {
    let _alone = alone();
    let Some(mut memory) = Memory::new(false) else { return };
    memory.store(3, 7);
    memory.set(vec![3..4; 1]);
    let kept = memory.traps.ground.attic(3).unwrap();
    uffd::register(kept, SIZE).unwrap();
    drop_page(kept).unwrap();
    uffd::poison(kept).unwrap();
    uffd::unregister(kept, SIZE).unwrap();
    assert_eq!(memory.traps.ground.spring(memory.address(3), true), Sprung::Done);
    let (taken, broken) = memory.traps.take();
    assert_eq!((taken, broken), (vec![3 * PAGE], vec![3 * PAGE]));
    // What the loop puts there.
    drop_page(memory.address(3)).unwrap();
    memory.store(3, 9);
    memory.set(vec![3..4; 1]);
    assert_eq!(memory.load(3), 9);
    assert_eq!(memory.take(), [3]);
}

#[test]
fn runs_without_others() {
    let runs = |all: &[(u64, u64)]| all.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
    for (all, others, left) in [
        (&[(0, 9)][..], &[][..], &[(0, 9)][..]),
        (&[(0, 9)], &[(0, 9)], &[]),
        (&[(2, 5), (6, 9)], &[(0, 3), (4, 7), (8, 20)], &[(3, 4), (7, 8)]),
        (&[(0, 10)], &[(2, 3), (5, 6)], &[(0, 2), (3, 5), (6, 10)]),
        (&[(0, 2), (4, 6), (8, 10)], &[(1, 9)], &[(0, 1), (9, 10)]),
        (&[(5, 6)], &[(0, 1), (9, 10)], &[(5, 6)]),
    ] {
        assert_eq!(without(&runs(all), &runs(others)), runs(left), "{all:?} {others:?}");
    }
}
