//! Pages of guest memory whose next touch this process is told of, whoever touches them, at no price before.
//!
//! ```text
//!   open --- set: what it holds goes to the attic, the page is poisoned ---> set
//!   set ---- a vCPU touches it, KVM sends SIGBUS -------------------------> sprung: the vCPU stands
//!   set ---- a thread of the monitor touches it, SIGBUS -------------------> opened: vCPUs stay outside, the access is done
//!   sprung, opened --- Traps::take, every vCPU stands ----------------------> open
//! ```
//! Memory that is shared (memfd, tmpfs) keeps what it holds in its file; what private memory holds is in the attic meanwhile,
//! memory as large, of which only the pages exist that are needed. States are bytes in memory of their own, where a signal handler finds
//! them; it waits for whoever sets or opens traps. No system call may be given a page with a trap as its buffer: the kernel does not wait
//! for a page that is on its way, nor does it get the signal.

use super::{
    Mapping, PAGE, lost, page_size,
    uffd::{self, SIZE},
};
use rustix::mm::{MapFlags, ProtFlags};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    ptr, slice,
    sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
};

/// `MADV_DONTNEED_LOCKED`, which also takes what the process has locked; older than what this file needs otherwise.
const DONTNEED_LOCKED: libc::c_int = 24;
/// Tries to poison a page that others bring back from its file at the same time.
const TRIES: u32 = 10_000;

/// States of a page; a trap that is set may hold something.
const OPEN: u8 = 0;
const SET: u8 = 1;
const SPRUNG: u8 = 2;
const OPENED: u8 = 3;
const STATE: u8 = 0xf;
const HOLDS: u8 = 0x10;

/// Pages that a thread of the monitor has opened and nobody has taken: vCPUs stay out of the guest.
static OPENED_PAGES: AtomicUsize = AtomicUsize::new(0);
/// One at a time sets or opens traps.
static BUSY: AtomicBool = AtomicBool::new(false);

struct Lock;

impl Lock {
    fn take() -> Self {
        while BUSY.swap(true, SeqCst) {
            lost::pause();
        }
        Self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        BUSY.store(false, SeqCst);
    }
}

/// Whether vCPUs have to stay out of the guest.
pub(super) fn is_any_opened() -> bool {
    OPENED_PAGES.load(SeqCst) != 0
}

/// Where the traps of a mapping are kept: a head, a page to move others to, a byte of state for each page, and the attic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground {
    /// First byte of the guest's memory.
    start: usize,
    /// First byte of the memory for states.
    area: usize,
}

#[repr(C)]
struct Head {
    /// Pages that are sprung or opened.
    touched: AtomicUsize,
    /// Where the attic is; 0: the memory is shared.
    attic: AtomicUsize,
    /// Bytes of all of it.
    len: AtomicUsize,
}

impl Ground {
    /// The traps of the mapping at `start`, if there are any.
    pub(super) fn of(start: usize, area: usize) -> Option<Self> {
        (area != 0).then_some(Self { start, area })
    }

    fn head(&self) -> &Head {
        // SAFETY: the area begins with one, of zeros at first, and lives as long as whoever watches the memory.
        unsafe { &*(self.area as *const Head) }
    }

    /// Whether an address is in there, where what guest memory held is kept.
    pub(super) fn keeps(&self, address: usize) -> bool {
        (self.area..self.area + self.head().len.load(SeqCst)).contains(&address)
    }

    fn spare(&self) -> usize {
        self.area + SIZE
    }

    fn state(&self, page: usize) -> &AtomicU8 {
        // SAFETY: the area has one for each page of the mapping.
        unsafe { &*((self.area + 2 * SIZE + page) as *const AtomicU8) }
    }

    fn attic(&self, page: usize) -> Option<usize> {
        let attic = self.head().attic.load(SeqCst);
        (attic != 0).then(|| attic + page * SIZE)
    }

    fn at(&self, page: usize) -> usize {
        self.start + page * SIZE
    }

    /// Whoever touches the page is told of; `is_there`: it exists, or may. After an error it is as it was.
    fn set(&self, page: usize, mut is_there: bool) -> io::Result<()> {
        let at = self.at(page);
        let mut state = SET;
        for _ in 0..TRIES {
            match self.attic(page) {
                None => drop_page(at)?,
                Some(attic) if is_there => {
                    move_page(at, self.spare())?;
                    let kept = put_away(self.spare(), attic);
                    state = if matches!(kept, Ok(true)) { SET | HOLDS } else { SET };
                    if let Err(error) = kept {
                        move_page(self.spare(), at)?;
                        return Err(error);
                    }
                }
                Some(_) => {}
            }
            match uffd::poison(at) {
                Ok(()) => {
                    self.state(page).store(state, SeqCst);
                    return Ok(());
                }
                // Somebody has brought it there.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => is_there = true,
                Err(error) => {
                    if state & HOLDS != 0 {
                        move_page(self.spare(), at)?;
                    }
                    return Err(error);
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The page holds what it did. After an error it is poisoned still.
    fn open(&self, page: usize) -> io::Result<()> {
        let at = self.at(page);
        match self.attic(page) {
            Some(attic) if self.state(page).load(SeqCst) & HOLDS != 0 => {
                // Whoever else touches it in between waits.
                let watched = uffd::register(at, SIZE).is_ok();
                drop_page(at)?;
                if !watched {
                    // The kernel has no room for it: what the page holds counts more than who may look too early.
                    bring_back(attic, at)?;
                    return drop_page(attic);
                }
                let opened = uffd::copy(at, attic);
                if opened.is_err() {
                    // What was to come back is lost.
                    let _ = uffd::poison(at);
                }
                uffd::unregister(at, SIZE)?;
                opened?;
                drop_page(attic)
            }
            _ => drop_page(at),
        }
    }

    /// A thread has touched a page of these, from within the guest or not.
    pub(super) fn spring(&self, address: usize, inside: bool) -> Sprung {
        let page = (address - self.start) / SIZE;
        let state = self.state(page);
        let touched = &self.head().touched;
        if inside {
            let now = state.load(SeqCst);
            match now & STATE {
                SPRUNG => {}
                SET => {
                    let sprung = state.compare_exchange(now, now & HOLDS | SPRUNG, SeqCst, SeqCst);
                    touched.fetch_add(usize::from(sprung.is_ok()), SeqCst);
                }
                _ => return Sprung::NoTrap,
            }
            return Sprung::Done;
        }
        OPENED_PAGES.fetch_add(1, SeqCst);
        let done = lost::wait_outside().then(|| {
            // Others are through with the page then, and its state is what it says.
            let _lock = Lock::take();
            let before = state.load(SeqCst);
            if !matches!(before & STATE, SET | SPRUNG) {
                return (false, lost::is_there(address as *const u8));
            }
            let opened = self.open(page).is_ok();
            if opened {
                state.store(OPENED, SeqCst);
                touched.fetch_add(usize::from(before & STATE == SET), SeqCst);
            }
            (opened, opened)
        });
        let opened = matches!(done, Some((true, _)));
        OPENED_PAGES.fetch_sub(usize::from(!opened), SeqCst);
        match done {
            Some((_, true)) => Sprung::Done,
            Some((_, false)) => Sprung::NoTrap,
            None => Sprung::Stuck,
        }
    }
}

/// What came of a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sprung {
    /// The access is done again, now or when the loop has opened the trap.
    Done,
    /// It is no trap that was met, or what it kept is lost.
    NoTrap,
    /// A vCPU does not come out of the guest.
    Stuck,
}

/// The traps of a mapping.
#[derive(Debug)]
pub(super) struct Traps {
    ground: Ground,
    pages: usize,
    len: usize,
    /// Where traps are set: pages, ascending, disjoint.
    runs: Vec<Range<u64>>,
}

/// Whether traps can be set in `mapping`: private memory of no file, or shared memory of a file that only this process has, in pages of
/// 4 KiB.
pub(super) fn can_have(mapping: &Mapping) -> bool {
    let kind = match mapping.file_offset() {
        // Or of several files, as interleaved DIMMs are.
        None => is_anonymous(mapping.as_ptr() as usize, mapping.size()).unwrap_or(false),
        Some(file) => mapping.flags() & libc::MAP_SHARED != 0 && page_size::is_own_memory(file.file()),
    };
    kind && uffd::ready()
}

/// Whether all that this process has from `start` on is memory of no file.
fn is_anonymous(start: usize, len: usize) -> Option<bool> {
    let (start, end) = (start as u64, (start + len) as u64);
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut at = start;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (first, last) = words.next()?.split_once('-')?;
        let (first, last) = (
            u64::from_str_radix(first, 16).ok()?,
            u64::from_str_radix(last, 16).ok()?,
        );
        // Behind protection, offset and device.
        let is_file = words.nth(3)? != "0";
        if last <= start || first >= end {
            continue;
        }
        if is_file || first > at {
            return Some(false);
        }
        at = last;
    }
    Some(at >= end)
}

/// A page that was to be opened, and what it held is lost.
pub(super) type Broken = u64;

impl Traps {
    /// None set in `mapping`.
    pub(super) fn new(mapping: &Mapping) -> io::Result<Self> {
        let pages = mapping.size() / SIZE;
        let states = pages.next_multiple_of(SIZE);
        let private = mapping.file_offset().is_none();
        let attic = 2 * SIZE + states;
        let len = attic + if private { pages * SIZE } else { 0 };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at no address in particular.
        let area = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, prot, flags)? } as usize;
        let ground = Ground {
            start: mapping.as_ptr() as usize,
            area,
        };
        // A huge page for each small one that is put away would cost five hundred times as much, and one made of the guest's shared pages
        // would do away with their traps.
        keep_pages_small(area, len);
        if !private {
            keep_pages_small(ground.start, pages * SIZE);
        }
        ground.head().len.store(len, SeqCst);
        if private {
            ground.head().attic.store(area + attic, SeqCst);
        }
        Ok(Self {
            ground,
            pages,
            len,
            runs: vec![],
        })
    }

    /// For whoever hears of a touch.
    pub(super) fn area(&self) -> usize {
        self.ground.area
    }

    fn page(offset: u64) -> usize {
        usize::try_from(offset / PAGE).unwrap_or(usize::MAX)
    }

    fn is_open(&self, page: usize) -> bool {
        self.ground.state(page).load(SeqCst) & STATE == OPEN
    }

    /// A page that was touched is open for good.
    fn settle(&self, page: usize) {
        let before = self.ground.state(page).swap(OPEN, SeqCst) & STATE;
        OPENED_PAGES.fetch_sub(usize::from(before == OPENED), SeqCst);
        let touched = usize::from(matches!(before, SPRUNG | OPENED));
        self.ground.head().touched.fetch_sub(touched, SeqCst);
    }

    /// Has traps in the pages at `runs` (offsets, ascending, disjoint) and in no other. Every vCPU stands. After an error those that
    /// could not be set are open; what the pages hold is as it was, but for those that are given back.
    pub(super) fn set(&mut self, runs: Vec<Range<u64>>) -> (io::Result<()>, Vec<Broken>) {
        let mut broken = vec![];
        let _lock = Lock::take();
        for offset in pages_of(&without(&self.runs, &runs)) {
            self.open(offset, &mut broken);
        }
        let wanted: Vec<usize> = pages_of(&without(&runs, &self.runs))
            .map(Self::page)
            .filter(|page| *page < self.pages && self.is_open(*page))
            .collect();
        self.runs = runs;
        if wanted.is_empty() {
            return (Ok(()), broken);
        }
        let (start, len) = (self.ground.start, self.pages * SIZE);
        // Whoever else touches a page while what it holds is moved waits.
        let mut set = uffd::register(start, len);
        if set.is_ok() {
            let mut there = There::default();
            set = wanted
                .into_iter()
                .try_for_each(|page| self.ground.set(page, there.is(self.ground.at(page))));
            set = set.and(uffd::unregister(start, len));
        }
        (set, broken)
    }

    fn open(&self, offset: u64, broken: &mut Vec<Broken>) {
        let page = Self::page(offset);
        let state = self.ground.state(page).load(SeqCst) & STATE;
        if matches!(state, SET | SPRUNG) && self.ground.open(page).is_err() {
            broken.push(offset);
            // The host may have lost it there, and whatever is kept there next needs a page that is good.
            let _ = self.ground.attic(page).map(drop_page);
        }
        self.settle(page);
    }

    /// Whether one was touched.
    pub(super) fn is_touched(&self) -> bool {
        self.ground.head().touched.load(SeqCst) != 0
    }

    /// Offsets of the pages that were touched, which are open now and have no trap. Every vCPU stands.
    pub(super) fn take(&mut self) -> (Vec<u64>, Vec<Broken>) {
        let (mut taken, mut broken) = (vec![], vec![]);
        if !self.is_touched() {
            return (taken, broken);
        }
        let _lock = Lock::take();
        for offset in pages_of(&self.runs) {
            let state = self.ground.state(Self::page(offset)).load(SeqCst) & STATE;
            if matches!(state, SPRUNG | OPENED) {
                self.open(offset, &mut broken);
                taken.push(offset);
            }
        }
        let pages: Vec<Range<u64>> = taken.iter().map(|offset| *offset..offset + PAGE).collect();
        self.runs = without(&self.runs, &pages);
        (taken, broken)
    }

    /// The pages of `bytes` have no trap from now on, and what they held is of no matter.
    pub(super) fn give_up(&mut self, bytes: &Range<u64>) {
        let _lock = Lock::take();
        let kept = without(&self.runs, slice::from_ref(bytes));
        for offset in pages_of(&without(&self.runs, &kept)) {
            let page = Self::page(offset);
            // What is put there is somebody else's matter.
            let _ = drop_page(self.ground.at(page));
            let _ = self.ground.attic(page).map(drop_page);
            self.settle(page);
        }
        self.runs = kept;
    }

    /// Parts of `bytes` without a trap; what the others hold is gone.
    pub(super) fn forget(&self, bytes: &Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let _lock = Lock::take();
        let mut parts = vec![];
        let mut at = bytes.start;
        for offset in pages_of(&self.runs) {
            let page = Self::page(offset);
            let state = self.ground.state(page).load(SeqCst);
            if !bytes.contains(&offset) || !matches!(state & STATE, SET | SPRUNG) {
                continue;
            }
            if let Some(attic) = self.ground.attic(page) {
                drop_page(attic)?;
                self.ground.state(page).fetch_and(!HOLDS, SeqCst);
            }
            if at < offset {
                parts.push(at..offset);
            }
            at = offset + PAGE;
        }
        if at < bytes.end {
            parts.push(at..bytes.end);
        }
        Ok(parts)
    }
}

impl Drop for Traps {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; nobody watches the memory any more, so that no signal handler knows of it.
        let _ = unsafe { rustix::mm::munmap(self.ground.area as *mut _, self.len) };
    }
}

/// The pages of `runs`.
fn pages_of(runs: &[Range<u64>]) -> impl Iterator<Item = u64> {
    runs.iter().flat_map(|run| run.clone().step_by(SIZE))
}

/// What of `all` is not in `others`; both are ascending and disjoint.
fn without(all: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = vec![];
    let mut others = others.iter().peekable();
    for run in all {
        let mut at = run.start;
        while others.next_if(|other| other.end <= at).is_some() {}
        while let Some(other) = others.peek().filter(|other| other.start < run.end) {
            if at < other.start {
                left.push(at..other.start);
            }
            at = other.end;
            if other.end > run.end {
                break;
            }
            others.next();
        }
        if at < run.end {
            left.push(at..run.end);
        }
    }
    left
}

/// Gives up what a page of this process shows.
fn drop_page(at: usize) -> io::Result<()> {
    // SAFETY: a page of guest memory or of the attic, of which nothing in this process relies on what it holds.
    match unsafe { libc::madvise(at as *mut libc::c_void, SIZE, DONTNEED_LOCKED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the page at `from` to `to`, whose own goes; `from` stays as memory without one.
fn move_page(from: usize, to: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: one is a page of guest memory, whose bytes nothing in this process relies on, the other one the area's spare page.
    let moved = unsafe { libc::mremap(from as *mut libc::c_void, SIZE, SIZE, flags, to as *mut libc::c_void) };
    match moved == libc::MAP_FAILED {
        false => Ok(()),
        true => Err(io::Error::last_os_error()),
    }
}

/// Copies the page at `from` to the attic; false: it holds zeros, as the attic does.
fn put_away(from: usize, attic: usize) -> io::Result<bool> {
    let mut page = [0_u8; SIZE];
    if !lost::read(from as *const u8, &mut page) {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    }
    if page.iter().all(|byte| *byte == 0) {
        return Ok(false);
    }
    // SAFETY: a page of the attic, which nobody else knows; of bytes.
    unsafe { slice::from_raw_parts_mut(attic as *mut u8, SIZE) }.copy_from_slice(&page);
    Ok(true)
}

/// Copies a page of the attic to where it came from.
fn bring_back(attic: usize, at: usize) -> io::Result<()> {
    let mut page = [0_u8; SIZE];
    if !lost::read(attic as *const u8, &mut page) {
        return Err(io::Error::from_raw_os_error(libc::EFAULT));
    }
    // SAFETY: a page of guest memory, which is only ever accessed as volatile.
    unsafe { ptr::copy_nonoverlapping(page.as_ptr(), at as *mut u8, SIZE) };
    Ok(())
}

/// No huge pages in `len` bytes at `start`.
fn keep_pages_small(start: usize, len: usize) {
    // SAFETY: the advice changes nothing about the content or the extent of our own mappings.
    let advised = unsafe { rustix::mm::madvise(start as *mut _, len, rustix::mm::Advice::LinuxNoHugepage) };
    if let Err(error) = advised {
        tracing::debug!(%error, "a kernel without huge pages");
    }
}

/// Which pages of this process exist, looked up in pieces.
#[derive(Default)]
struct There {
    map: Option<File>,
    piece: Option<(usize, Vec<u8>)>,
}

impl There {
    const PAGES: usize = 512;

    /// Whether the page at `at` exists, or may.
    fn is(&mut self, at: usize) -> bool {
        let page = at / SIZE;
        let first = page / Self::PAGES * Self::PAGES;
        if self.piece.as_ref().is_none_or(|(of, _)| *of != first) {
            if self.map.is_none() {
                self.map = File::open("/proc/self/pagemap").ok();
            }
            let mut entries = vec![0xff; Self::PAGES * 8];
            let read = self.map.as_ref().map(|map| map.read_at(&mut entries, first as u64 * 8));
            if !matches!(read, Some(Ok(n)) if n == entries.len()) {
                entries.fill(0xff);
            }
            self.piece = Some((first, entries));
        }
        let entry = self
            .piece
            .as_ref()
            .and_then(|(of, entries)| entries.get((page - of) * 8 + 7));
        // Present, or in swap.
        entry.is_none_or(|top| top & 0xc0 != 0)
    }
}

#[cfg(test)]
#[path = "trap_tests.rs"]
mod tests;
