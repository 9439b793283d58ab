//! Guest memory that the host has lost: errors of its own memory, of which it tells this process with SIGBUS.
//!
//! ```text
//!   a vCPU in the guest touches it ------> noted; the thread stands until the loop has dealt with it
//!   a thread of the monitor touches it --> vCPUs brought out of the guest and held, zeros put there, noted; the access ends
//!   nobody does, the host tells ---------> noted
//!                                            |
//!                    loop, all vCPUs stand:  take() -> errors, a new page, holes -> release()
//! ```
//! A signal handler works on static memory alone: extents of guest memory, seats of vCPU threads, and notes. It waits for vCPUs
//! to leave the guest, because zeros in place of what is lost must not be seen before the loop has made them an error.

use super::trap::{self, Ground, Sprung};
use crate::hv::signal;
use rustix::process::{
    MachineCheckMemoryCorruptionKillPolicy as Policy, machine_check_memory_corruption_kill_policy,
    set_machine_check_memory_corruption_kill_policy,
};
use std::{
    io, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
};

/// Mappings of guest memory in one process, beyond which an error ends it.
const MOST_EXTENTS: usize = 4096;
/// vCPU threads in one process.
const MOST_SEATS: usize = 1024;
/// Errors that the loop has not dealt with.
const MOST_NOTES: usize = 256;
/// Looks for vCPUs to leave the guest, and nanoseconds from one to the next.
const LOOKS: u32 = 20_000;
const LOOK: libc::c_long = 100_000;

/// Codes of SIGBUS (`include/uapi/asm-generic/siginfo.h`): who touched it has to be told, and nobody has touched it.
const ACTION_REQUIRED: libc::c_int = 4;
const ACTION_OPTIONAL: libc::c_int = 5;
/// Where `siginfo_t` has `si_addr_lsb` on 64-bit machines, which the libc crate does not show.
const LSB_OFFSET: usize = 24;

/// A piece of guest memory in this process; one that ends at 0 is none.
struct Extent {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Where its traps are; 0: it has none.
    area: AtomicUsize,
}

/// A vCPU thread; number 0: nobody.
struct Place {
    thread: AtomicI32,
    inside: AtomicBool,
    struck: AtomicBool,
}

impl Place {
    fn is_inside(&self, thread: i32) -> bool {
        self.thread.load(SeqCst) == thread && self.inside.load(SeqCst)
    }
}

/// An error. Free, being written, to be read.
struct Note {
    state: AtomicU8,
    address: AtomicUsize,
    lsb: AtomicU32,
    how: AtomicU8,
}

const FREE: u8 = 0;
const WRITING: u8 = 1;
const READY: u8 = 2;

static EXTENTS: [Extent; MOST_EXTENTS] = [const {
    Extent {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        area: AtomicUsize::new(0),
    }
}; MOST_EXTENTS];
static PLACES: [Place; MOST_SEATS] = [const {
    Place {
        thread: AtomicI32::new(0),
        inside: AtomicBool::new(false),
        struck: AtomicBool::new(false),
    }
}; MOST_SEATS];
static NOTES: [Note; MOST_NOTES] = [const {
    Note {
        state: AtomicU8::new(FREE),
        address: AtomicUsize::new(0),
        lsb: AtomicU32::new(0),
        how: AtomicU8::new(0),
    }
}; MOST_NOTES];
/// Notes to be read.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// Notes of [`How::Replaced`] from before their page was replaced until they are released.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// Signal handlers under way.
static HEARING: AtomicUsize = AtomicUsize::new(0);
/// One at a time claims an extent.
static CLAIM: Mutex<()> = Mutex::new(());

/// How the host's error came to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A vCPU touched it and has still to do so.
    Touched,
    /// The host says so; nobody has touched it.
    Told,
    /// This process touched it, and found zeros: there is another page.
    Replaced,
}

/// An error of the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// In this process.
    pub address: usize,
    /// Bits of the address that say nothing: 12 for a page of 4 KiB.
    pub lsb: u32,
    /// See there.
    pub how: How,
}

/// Guest memory whose errors do not end the process, for as long as this lives.
#[derive(Debug)]
pub struct Watched(Option<usize>);

/// Watches `len` bytes at `start`.
pub fn watch(start: usize, len: usize) -> Watched {
    let _claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
    let free = EXTENTS.iter().position(|extent| extent.end.load(SeqCst) == 0);
    if let Some(extent) = free.and_then(|n| EXTENTS.get(n)) {
        extent.start.store(start, SeqCst);
        extent.end.store(start.saturating_add(len), SeqCst);
    }
    Watched(free)
}

impl Watched {
    /// The memory has traps from now on, which are kept at `area`; false: nobody would hear of them.
    pub(super) fn have_traps(&self, area: usize) -> bool {
        let extent = self.0.and_then(|n| EXTENTS.get(n));
        extent.inspect(|extent| extent.area.store(area, SeqCst)).is_some()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(extent) = self.0.and_then(|n| EXTENTS.get(n)) else {
            return;
        };
        // Whoever is on its way with what is kept there gets to its end first.
        extent.area.store(0, SeqCst);
        while HEARING.load(SeqCst) != 0 {
            pause();
        }
        let end = extent.end.swap(0, SeqCst);
        let start = extent.start.load(SeqCst);
        // Nobody else deals with what is left.
        let left = take(|address| (start..end).contains(&address));
        release(&left);
    }
}

/// A vCPU thread's place among those that are brought out of the guest.
#[derive(Debug)]
pub struct Seat(usize);

impl Seat {
    /// A place for this thread, if there is one left.
    pub fn take() -> Option<Self> {
        let thread = this_thread();
        let free = |place: &Place| place.thread.compare_exchange(0, thread, SeqCst, SeqCst).is_ok();
        PLACES.iter().position(free).map(Self)
    }

    fn place(&self) -> &'static Place {
        &PLACES[self.0]
    }

    /// Runs the guest, unless vCPUs have to stay out of it.
    pub fn inside<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        self.place().inside.store(true, SeqCst);
        let ran = (HELD.load(SeqCst) == 0 && !trap::is_any_opened()).then(run);
        self.place().inside.store(false, SeqCst);
        ran
    }

    /// Whether the vCPU has touched what is lost since the last call: its instruction is still to be done.
    pub fn take_struck(&self) -> bool {
        self.place().struck.swap(false, SeqCst)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.place().struck.store(false, SeqCst);
        self.place().thread.store(0, SeqCst);
    }
}

/// Whether some of what this process has read may be zeros in place of what is lost.
pub fn is_held() -> bool {
    HELD.load(SeqCst) != 0
}

/// Whether there is something for whoever owns such an address.
pub fn is_any(owns: impl Fn(usize) -> bool) -> bool {
    let ready = |note: &&Note| note.state.load(SeqCst) == READY;
    WAITING.load(SeqCst) != 0 && NOTES.iter().filter(ready).any(|note| owns(note.address.load(SeqCst)))
}

/// What there is for whoever owns such an address, once.
pub fn take(owns: impl Fn(usize) -> bool) -> Vec<Lost> {
    let mut taken = vec![];
    if WAITING.load(SeqCst) == 0 {
        return taken;
    }
    for note in NOTES.iter().filter(|note| note.state.load(SeqCst) == READY) {
        let address = note.address.load(SeqCst);
        if owns(address) {
            let how = match note.how.load(SeqCst) {
                0 => How::Touched,
                1 => How::Told,
                _ => How::Replaced,
            };
            taken.push(Lost {
                address,
                lsb: note.lsb.load(SeqCst),
                how,
            });
            WAITING.fetch_sub(1, SeqCst);
            note.state.store(FREE, SeqCst);
        }
    }
    taken
}

/// What was taken has been dealt with: vCPUs may enter the guest.
pub fn release(taken: &[Lost]) {
    let held = taken.iter().filter(|one| one.how == How::Replaced).count();
    HELD.fetch_sub(held, SeqCst);
}

/// From now on errors of the host's memory are noted where they are guest memory. The calling thread hears of those that nobody
/// has touched, unless whoever started this process has decided who does.
pub fn install() -> io::Result<()> {
    vmm_sys_util::signal::register_signal_handler(libc::SIGBUS, handler)
        .map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
    if machine_check_memory_corruption_kill_policy() == Ok(Policy::Default) {
        // A kernel that knows none of this has no such errors either.
        let _ = set_machine_check_memory_corruption_kill_policy(Some(Policy::Early));
    }
    Ok(())
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a valid structure, which has the bits of the address behind it; errno is this
    // thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let address = (*info).si_addr() as usize;
        let lsb = info.cast::<u8>().add(LSB_OFFSET).cast::<u16>().read_unaligned();
        HEARING.fetch_add(1, SeqCst);
        let heard = hear((*info).si_code, address, lsb.into());
        HEARING.fetch_sub(1, SeqCst);
        if !heard {
            signal::die(signal);
        }
        *libc::__errno_location() = errno;
    }
}

/// Deals with an error; false: it is none that can be dealt with.
pub(super) fn hear(code: libc::c_int, address: usize, lsb: u32) -> bool {
    let Some((within, traps)) = extent_of(address).filter(|_| lsb < usize::BITS) else {
        // Whoever opens a trap finds that what it kept is lost. A vCPU can have touched memory that is gone by now: it tries again.
        let kept = || grounds().any(|ground| ground.keeps(address));
        let inside = || PLACES.iter().any(|place| place.is_inside(this_thread()));
        return code == ACTION_OPTIONAL && kept() || code == ACTION_REQUIRED && inside();
    };
    if let Some(traps) = traps.filter(|_| code != ACTION_OPTIONAL) {
        let thread = this_thread();
        let place = PLACES.iter().find(|place| place.is_inside(thread));
        match traps.spring(address, place.is_some()) {
            Sprung::Done => {
                if let Some(place) = place {
                    place.struck.store(true, SeqCst);
                }
                return true;
            }
            Sprung::Stuck => return false,
            Sprung::NoTrap => {}
        }
        if place.is_some() && is_there(address as *const u8) {
            // Another thread has opened it meanwhile.
            return true;
        }
    }
    match code {
        ACTION_OPTIONAL => {
            // What there is no room for is heard of by whoever touches it.
            let _ = claim_note().is_some_and(|note| write_note(note, address, lsb, How::Told));
            true
        }
        ACTION_REQUIRED => {
            let thread = this_thread();
            match PLACES.iter().find(|place| place.is_inside(thread)) {
                Some(place) => {
                    // Without room for it the vCPU stands until others are dealt with, and touches it again.
                    let _ = claim_note().is_some_and(|note| write_note(note, address, lsb, How::Touched));
                    place.struck.store(true, SeqCst);
                    true
                }
                None => claim_note().is_some_and(|note| {
                    HELD.fetch_add(1, SeqCst);
                    wait_outside() && put_zeros(within, address, lsb) && write_note(note, address, lsb, How::Replaced)
                }),
            }
        }
        _ => false,
    }
}

/// First byte and end of the guest memory with `address` in it, and its traps.
fn extent_of(address: usize) -> Option<((usize, usize), Option<Ground>)> {
    let bounds = |extent: &Extent| {
        let end = extent.end.load(SeqCst);
        let start = extent.start.load(SeqCst);
        ((start, end), Ground::of(start, extent.area.load(SeqCst)))
    };
    EXTENTS
        .iter()
        .map(bounds)
        .find(|((start, end), _)| (*start..*end).contains(&address))
}

/// All memory of traps.
fn grounds() -> impl Iterator<Item = Ground> {
    let ground = |extent: &Extent| Ground::of(extent.start.load(SeqCst), extent.area.load(SeqCst));
    EXTENTS.iter().filter_map(ground)
}

fn claim_note() -> Option<&'static Note> {
    let claim = |note: &&Note| note.state.compare_exchange(FREE, WRITING, SeqCst, SeqCst).is_ok();
    NOTES.iter().find(claim)
}

fn write_note(note: &Note, address: usize, lsb: u32, how: How) -> bool {
    note.address.store(address, SeqCst);
    note.lsb.store(lsb, SeqCst);
    note.how.store(how as u8, SeqCst);
    note.state.store(READY, SeqCst);
    WAITING.fetch_add(1, SeqCst);
    true
}

/// Lets others get on. A signal handler may call it.
pub(super) fn pause() {
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: LOOK,
    };
    // SAFETY: sleeps; nothing is written.
    unsafe { libc::nanosleep(&raw const pause, ptr::null_mut()) };
}

/// Waits until no vCPU of this process is in the guest; false: one does not come out.
pub(super) fn wait_outside() -> bool {
    for _ in 0..LOOKS {
        let mut all = true;
        for place in PLACES.iter().filter(|place| place.inside.load(SeqCst)) {
            all = false;
            // SAFETY: signals a thread of this process; one that has ended is no thread.
            unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    libc::getpid(),
                    place.thread.load(SeqCst),
                    signal::kick(),
                )
            };
        }
        if all {
            return true;
        }
        pause();
    }
    false
}

/// Whole units of `1 << lsb` bytes around `address`, within an extent.
fn unit((start, end): (usize, usize), address: usize, lsb: u32) -> (usize, usize) {
    let size = 1_usize << lsb;
    let first = address & !(size - 1);
    (first.max(start), first.saturating_add(size).min(end))
}

fn put_zeros(within: (usize, usize), address: usize, lsb: u32) -> bool {
    let (first, end) = unit(within, address, lsb);
    // SAFETY: as whoever watches this memory has promised.
    unsafe { put_zeros_at(first as *mut u8, end - first) }.is_ok()
}

/// Puts private memory of zeros in place of what is there.
///
/// # Safety
/// `len` bytes at `first` are guest memory, whose bytes nothing in this process relies on.
pub(super) unsafe fn put_zeros_at(first: *mut u8, len: usize) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: as promised.
    let at = unsafe { libc::mmap(first.cast(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether the byte at `at` can be read, found out without reading it.
pub(super) fn is_there(at: *const u8) -> bool {
    read(at, &mut [0])
}

/// Copies what is at `at`; false: not all of it can be read.
pub(super) fn read(at: *const u8, into: &mut [u8]) -> bool {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: at.cast_mut().cast(),
        iov_len: into.len(),
    };
    // SAFETY: the kernel writes to the bytes above alone, and checks the other address.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).is_ok_and(|read| read == into.len())
}

fn this_thread() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    let number = unsafe { libc::syscall(libc::SYS_gettid) };
    i32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
#[path = "lost_tests.rs"]
pub(super) mod tests;
