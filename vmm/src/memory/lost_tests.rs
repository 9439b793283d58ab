use super::*;
use crate::hv::install_kick_handler;
use std::{
    sync::{Arc, MutexGuard, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const PAGE: usize = 4096;
const PAGES: usize = 8;

/// All of this is one for a process.
pub(in crate::memory) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of ones, watched.
fn memory() -> (MmapRegion<()>, Watched) {
    // In one unit of two MiB: what is larger than a page is lost around an address.
    let mut others = vec![];
    let memory = loop {
        let memory = MmapRegion::new(PAGES * PAGE).unwrap();
        let start = memory.as_ptr() as usize;
        if start >> 21 == (start + PAGES * PAGE - 1) >> 21 {
            break memory;
        }
        others.push(memory);
    };
    let slice = memory.get_slice(0, PAGES * PAGE).unwrap();
    slice.write_slice(&[1; PAGES * PAGE], 0).unwrap();
    let watched = watch(memory.as_ptr() as usize, memory.size());
    (memory, watched)
}

fn byte(memory: &MmapRegion<()>, at: usize) -> u8 {
    memory.get_slice(at, 1).unwrap().read_obj(0).unwrap()
}

#[test]
fn what_a_thread_touches_is_zeros_until_it_is_dealt_with() {
    let _alone = alone();
    let (memory, watched) = memory();
    let start = memory.as_ptr() as usize;
    let ours = |address: usize| (start..start + PAGES * PAGE).contains(&address);
    assert!(!hear(ACTION_REQUIRED, start + PAGES * PAGE, 12) && !hear(2, start, 12));
    assert!(!is_any(ours) && !is_held());

    assert!(hear(ACTION_REQUIRED, start + PAGE + 70, 12));
    assert!(is_held() && is_any(ours) && !is_any(|address| !ours(address)));
    assert_eq!(
        [0, 1, 2].map(|n| (byte(&memory, n * PAGE), byte(&memory, n * PAGE + PAGE - 1))),
        [(1, 1), (0, 0), (1, 1)]
    );
    assert!(is_there(memory.as_ptr()) && !is_there(std::ptr::null()));
    assert!(take(|address| !ours(address)).is_empty());
    let taken = take(ours);
    let lost = |address, how| Lost { address, lsb: 12, how };
    assert_eq!(taken, [lost(start + PAGE + 70, How::Replaced)]);
    assert!(is_held() && take(ours).is_empty());
    release(&taken);
    assert!(!is_held());

    // Nothing is touched when the host tells.
    assert!(hear(ACTION_OPTIONAL, start + 3 * PAGE, 12));
    assert_eq!((byte(&memory, 3 * PAGE), is_held()), (1, false));
    assert_eq!(take(ours), [lost(start + 3 * PAGE, How::Told)]);

    // A larger unit is cut where the memory ends.
    assert!(hear(ACTION_REQUIRED, start + 4 * PAGE, 21));
    assert!((0..PAGES).all(|n| byte(&memory, n * PAGE) == 0));
    // What nobody has dealt with goes with its memory.
    drop(watched);
    assert!(!is_held() && !is_any(ours) && !hear(ACTION_REQUIRED, start, 12));
}

#[test]
fn vcpus_are_brought_out_and_stay_out_until_it_is_dealt_with() {
    let _alone = alone();
    install_kick_handler().unwrap();
    let (memory, _watched) = memory();
    let start = memory.as_ptr() as usize;
    let (stop, entries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let guest = {
        let (stop, entries) = (stop.clone(), entries.clone());
        thread::spawn(move || {
            let seat = Seat::take().unwrap();
            let mut refused = 0_u64;
            while !stop.load(SeqCst) {
                let entered = seat.inside(|| {
                    entries.fetch_add(1, SeqCst);
                    // A kick ends it.
                    thread::sleep(Duration::from_millis(1));
                });
                refused += u64::from(entered.is_none());
                thread::yield_now();
            }
            refused
        })
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while entries.load(SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the guest does not run");
        thread::yield_now();
    }
    assert!(hear(ACTION_REQUIRED, start, 12));
    // It is out: nothing enters before the release.
    let before = entries.load(SeqCst);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(entries.load(SeqCst), before);
    release(&take(|address| address == start));
    while entries.load(SeqCst) == before {
        assert!(Instant::now() < deadline, "the guest does not go on");
        thread::yield_now();
    }
    stop.store(true, SeqCst);
    assert!(guest.join().unwrap() > 0);
}

#[test]
fn a_vcpu_that_touches_it_stands_with_its_instruction_undone() {
    let _alone = alone();
    let (memory, _watched) = memory();
    let start = memory.as_ptr() as usize;
    let seat = Seat::take().unwrap();
    assert!(seat.inside(|| hear(ACTION_REQUIRED, start + PAGE, 12)).unwrap());
    assert_eq!((byte(&memory, PAGE), is_held()), (1, false));
    assert!(seat.take_struck() && !seat.take_struck());
    let taken = take(|address| address == start + PAGE);
    assert_eq!(taken.first().map(|one| one.how), Some(How::Touched));
    // So many that there is no room for one more note: it stands all the same.
    for n in 0..MOST_NOTES {
        assert!(hear(ACTION_OPTIONAL, start + n, 12));
    }
    assert!(seat.inside(|| hear(ACTION_REQUIRED, start + PAGE, 12)).unwrap());
    assert!(seat.take_struck());
    assert!(
        !hear(ACTION_REQUIRED, start + PAGE, 12),
        "zeros that nobody would hear of"
    );
    assert_eq!(take(|_| true).len(), MOST_NOTES);
}
