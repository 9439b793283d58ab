//! Memory errors of a whole machine: one set of bad lines of 64 bytes over all memory of the guest, and what an access to
//! them does. docs/poison.md has the states.
//!
//! The lines of NVDIMMs are those of the DIMMs themselves ([`devices::nvdimm::MediaState`], by DPA: what a scrub finds, a
//! guest clears and a restart remembers); the lines of all other memory are kept here, by guest physical address.
//!
//! ```text
//!   inject            pages with consumable lines           vCPU: load()          loop: machine check
//!   clear   --> lines -------- plan_holes --------> holes -------------> Poisoned ------------------> SRAR
//!   guest                     (loop, vCPUs stand)           load(), store(): carried out, byte by byte
//! ```
//! A page with a bad line is taken out of its memory slot, so that every access of the guest to it exits with its exact
//! address and length. Accesses that touch no bad line are carried out here: the neighbours of a bad line stay readable, and
//! everything stays writable. Where there are more such pages than slots can do without, the others have traps: nothing happens until
//! somebody touches one, and then it is taken out of its slot. Lines change at any time, on any thread; holes follow when all vCPUs stand. In between, a
//! hole without a bad line is slow memory, and a bad line without a hole is not consumed.

pub mod awaited;
mod caught;
pub mod decode;
mod holes;
mod random;
pub mod storm;
mod traps;

pub use random::lines_at_random;

use awaited::{Awaited, TooMany, Trigger};
pub use holes::{Holes, MAX_HOLES, Piece, plan_holes};
use traps::Traps;

use crate::memory::{PAGE, Window, Windows};
use devices::{
    BadLines,
    nvdimm::{
        BusState, MediaState, NvdimmBus,
        errors::{ChangeError, ErrorsError},
        media::{BadRange, ErrorSource, LINE, Mark, MediaFull},
    },
    units::{Gpa, GpaRange},
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most separate bad ranges of memory that is no NVDIMM.
pub const MAX_RAM_RANGES: usize = 1 << 18;

/// All memory errors of a machine. Shared by the loop and the vCPU threads.
pub struct Faults {
    windows: Windows,
    buses: Vec<Arc<NvdimmBus>>,
    ram: Mutex<MediaState>,
    holes: RwLock<Holes>,
    traps: Traps,
    devices: BadLines,
    /// Lines that are good until they are loaded from or stored to.
    awaited: Mutex<Awaited>,
    /// Accesses to holes that were carried out.
    carried: AtomicU64,
    /// Which bytes of bad lines were stored to, by line, where that mends them in the end.
    overwritten: Option<Mutex<BTreeMap<u64, u64>>>,
}

/// Why errors were not changed.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// Nothing there that can be bad.
    #[error(
        "{len:#x} bytes at {start} are not memory of the guest: expected at least one byte, all of one range of RAM or NVDIMM; \
         hint: `daxvisor ctl describe` lists the ranges"
    )]
    NotMemory {
        /// First byte.
        start: Gpa,
        /// Bytes.
        len: u64,
    },
    /// There are too many.
    #[error(transparent)]
    Full(#[from] MediaFull),
    /// There are too many that become bad by loads.
    #[error(transparent)]
    Awaited(#[from] TooMany),
    /// The NVDIMM's own reasons.
    #[error(transparent)]
    Nvdimm(#[from] ChangeError),
}

/// Where in the machine a range of memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An SPA range with DIMMs behind it, of this bus.
    Nvdimm(u8),
    /// Any other memory.
    Ram,
}

/// What an access to a hole comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It is done.
    Carried,
    /// The line at this address is bad; nothing is done.
    Poisoned(Gpa),
}

impl Faults {
    /// No errors but those that the DIMMs of `buses` have.
    pub fn new(windows: Windows, buses: Vec<Arc<NvdimmBus>>, devices: BadLines) -> Self {
        Self {
            windows,
            buses,
            ram: Mutex::new(MediaState::with_room(MAX_RAM_RANGES)),
            holes: RwLock::default(),
            traps: Traps::default(),
            devices,
            awaited: Mutex::default(),
            carried: AtomicU64::new(0),
            overwritten: None,
        }
    }

    /// The same, and lines that vCPUs have stored to from end to end are good again.
    #[must_use]
    pub fn with_clear_on_write(self) -> Self {
        Self {
            overwritten: Some(Mutex::default()),
            ..self
        }
    }

    /// The same, and pages beyond [`MAX_HOLES`] runs have no traps.
    #[must_use]
    pub fn without_traps(mut self) -> Self {
        self.traps = Traps::unwanted();
        self
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ram(&self) -> MutexGuard<'_, MediaState> {
        self.ram.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where all of `range` is.
    pub fn place(&self, range: GpaRange) -> Result<Place, FaultError> {
        let GpaRange { start, len } = range;
        let within = |window: &Arc<Window>| len != 0 && range.end() <= window.range().end();
        self.windows
            .at(start)
            .filter(within)
            .ok_or(FaultError::NotMemory { start, len })?;
        let has = |bus: &&Arc<NvdimmBus>| {
            bus.with(|state| state.nfit.spa_with(range).is_some_and(|spa| !spa.mappings.is_empty()))
        };
        let bus = self.buses.iter().find(has);
        Ok(bus.map_or(Place::Ram, |bus| Place::Nvdimm(bus.number())))
    }

    /// Changes the lines behind `range` for good, or nothing.
    fn edit(
        &self,
        range: GpaRange,
        nvdimm: impl FnOnce(&mut BusState) -> Result<(), ErrorsError>,
        ram: impl FnOnce(&mut MediaState, Range<u64>) -> Result<(), MediaFull>,
    ) -> Result<(), FaultError> {
        match self.place(range)? {
            Place::Ram => Ok(ram(&mut self.ram(), range.start.0..range.end().0)?),
            Place::Nvdimm(number) => {
                let GpaRange { start, len } = range;
                let bus = self.buses.iter().find(|bus| bus.number() == number);
                let bus = bus.ok_or(FaultError::NotMemory { start, len })?;
                Ok(bus.with(|bus| bus.change_errors(nvdimm))?)
            }
        }
    }

    /// Makes `range` bad, widened to whole lines.
    pub fn inject(&self, range: GpaRange, mark: Mark) -> Result<(), FaultError> {
        self.forget_stores();
        self.edit(range, |bus| bus.inject(range, mark), |ram, gpas| ram.mark(gpas, mark))
    }

    /// Makes all of `ranges` bad, or nothing.
    pub fn inject_all(&self, ranges: &[GpaRange], mark: Mark) -> Result<(), FaultError> {
        self.forget_stores();
        let mut of_buses: BTreeMap<u8, Vec<GpaRange>> = BTreeMap::new();
        let mut ram = self.ram();
        let mut marked = ram.clone();
        for range in ranges {
            match self.place(*range)? {
                Place::Ram => marked.mark(range.start.0..range.end().0, mark)?,
                Place::Nvdimm(bus) => of_buses.entry(bus).or_default().push(*range),
            }
        }
        let mut done = vec![];
        for bus in &self.buses {
            let Some(ranges) = of_buses.remove(&bus.number()) else {
                continue;
            };
            let changed = bus.with(|state| {
                let before = state.errors_before();
                state.change_errors(|state| state.inject_all(&ranges, mark))?;
                Ok::<_, ChangeError>(before)
            });
            match changed {
                Ok(before) => done.push((bus, before)),
                Err(error) => {
                    for (bus, before) in done {
                        bus.with(|state| state.put_errors_back(before));
                    }
                    return Err(error.into());
                }
            }
        }
        *ram = marked;
        Ok(())
    }

    /// The lines of `ranges` become bad by `trigger`.
    pub fn await_access(&self, ranges: &[GpaRange], trigger: Trigger) -> Result<(), FaultError> {
        for range in ranges {
            self.place(*range)?;
        }
        Ok(self.awaited().add(ranges, trigger)?)
    }

    /// The lines that wait for loads or stores, and how many of each are still to come.
    pub fn awaited_lines(&self) -> Vec<(GpaRange, Trigger)> {
        self.awaited().all().collect()
    }

    /// The bad ranges of memory that is no NVDIMM, by guest physical address.
    pub fn ram_ranges(&self) -> Vec<BadRange> {
        self.ram().ranges().collect()
    }

    /// Makes `range` of memory that is no NVDIMM good, whatever windows it is in.
    pub fn clear_ram(&self, range: GpaRange) -> Result<(), FaultError> {
        self.awaited().forget(range);
        Ok(self.ram().clear(range.start.0..range.end().0)?)
    }

    /// The memory at `range`, no NVDIMM, has gone, and its errors with it. How many ranges and bytes that were.
    pub fn forget(&self, range: GpaRange) -> (u64, u64) {
        self.awaited().forget(range);
        let mut ram = self.ram();
        let gone = range.start.0..range.end().0;
        let runs = ram.runs_where(gone.clone(), |_| true);
        ram.forget(gone);
        let bytes = runs.iter().map(|run| run.end - run.start).sum();
        (runs.len() as u64, bytes)
    }

    /// Makes `range` good, widened to whole lines.
    pub fn clear(&self, range: GpaRange) -> Result<(), FaultError> {
        self.awaited().forget(range);
        self.edit(range, |bus| bus.clear_errors(range), MediaState::clear)
    }

    /// What of `range` is bad becomes known: somebody met it.
    pub fn discover(&self, range: GpaRange) -> Result<(), FaultError> {
        let found = |ram: &mut MediaState, gpas| {
            ram.discover(gpas);
            Ok(())
        };
        self.edit(range, |bus| bus.discover(range), found)
    }

    /// Counts the changes of all lines, so that whoever follows them can tell whether there is something to do. None: a call
    /// of the guest is at work on some.
    pub fn changes(&self) -> Option<u64> {
        let mut buses = self.buses.iter().map(|bus| bus.peek(|state| state.media_changes()));
        let awaited = self.awaited().changes();
        let others = self.ram().changes().wrapping_add(self.windows.changes());
        let others = others.wrapping_add(awaited);
        buses.try_fold(others, |sum, changes| Some(sum.wrapping_add(changes?)))
    }

    /// The bad runs of `within` that a load meets.
    fn bad(&self, within: GpaRange, most: usize) -> Vec<GpaRange> {
        let wanted = |mark: Mark| consumable(mark.source);
        let of_bus = |bus: &Arc<NvdimmBus>| bus.with(|state| state.bad_where(within, &wanted, most));
        let mut all: Vec<GpaRange> = self.buses.iter().flat_map(of_bus).collect();
        let ram = self.ram().runs_where(within.start.0..within.end().0, wanted);
        all.extend(
            ram.into_iter()
                .take(most)
                .map(|run| GpaRange::new(Gpa(run.start), run.end - run.start)),
        );
        all.sort_unstable();
        all
    }

    fn all_bad(&self, windows: &[GpaRange]) -> Vec<GpaRange> {
        let mut bad: Vec<GpaRange> = windows.iter().flat_map(|range| self.bad(*range, usize::MAX)).collect();
        // Windows are in the order in which they came.
        bad.sort_unstable();
        bad
    }

    /// From now on devices meet the lines that are bad now.
    pub fn tell_devices(&self) {
        let windows: Vec<GpaRange> = self.windows.all().iter().map(|window| window.range()).collect();
        self.devices.set(self.all_bad(&windows));
    }

    /// What devices met, and how many of their requests failed by it so far.
    pub fn met_by_devices(&self) -> (Vec<Gpa>, u64) {
        (self.devices.take_met(), self.devices.count())
    }

    /// Accesses to holes that touched no bad line.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// The window with `gpa` in it.
    pub fn window(&self, gpa: Gpa) -> Option<Arc<Window>> {
        self.windows.at(gpa)
    }

    /// The window with an address of this process in it, and the offset there.
    pub fn behind(&self, address: usize) -> Option<(Arc<Window>, u64)> {
        let mut all = self.windows.all().into_iter();
        all.find_map(|window| window.offset_of(address).map(|offset| (window, offset)))
    }

    /// The window of a hole with `gpa` in it.
    fn hole(&self, gpa: Gpa) -> Option<Arc<Window>> {
        let is_hole = self.is_hole(gpa);
        is_hole.then(|| self.windows.at(gpa)).flatten()
    }

    /// The first consumable line that `range` touches.
    pub fn first_bad(&self, range: GpaRange) -> Option<Gpa> {
        let first = self.bad(range, 1).into_iter().next()?;
        Some(Gpa(first.start.0 / LINE * LINE))
    }

    /// The guest loads from where no memory slot is. None: from no hole either.
    pub fn load(&self, gpa: Gpa, data: &mut [u8]) -> Option<Met> {
        let window = self.hole(gpa)?;
        let range = GpaRange::new(gpa, data.len() as u64);
        let due = self.awaited().load(range);
        self.make_due(&due);
        if let Some(line) = self.first_bad(range) {
            return Some(Met::Poisoned(line));
        }
        window.load(gpa.0 - window.range().start.0, data);
        self.carried.fetch_add(1, Ordering::Relaxed);
        Some(Met::Carried)
    }

    /// Makes lines bad whose loads or stores have come.
    fn make_due(&self, due: &[GpaRange]) {
        if !due.is_empty()
            && let Err(error) = self.inject_all(due, Mark::latent(ErrorSource::Host))
        {
            tracing::warn!(%error, "lines that were to become bad stay good");
        }
    }

    /// The guest stores to where no memory slot is: bad lines take stores, and stay bad. None: not into a hole.
    pub fn store(&self, gpa: Gpa, data: &[u8]) -> Option<Met> {
        let window = self.hole(gpa)?;
        window.store(gpa.0 - window.range().start.0, data);
        self.carried.fetch_add(1, Ordering::Relaxed);
        let due = self.awaited().store(GpaRange::new(gpa, data.len() as u64));
        self.make_due(&due);
        if let Some(overwritten) = &self.overwritten {
            self.note_store(overwritten, GpaRange::new(gpa, data.len() as u64));
        }
        Some(Met::Carried)
    }

    /// Makes the lines good that are stored to whole by now.
    fn note_store(&self, overwritten: &Mutex<BTreeMap<u64, u64>>, range: GpaRange) {
        let first = range.start.0 / LINE;
        let last = range.end().0.saturating_sub(1) / LINE;
        for line in first..=last {
            let whole = GpaRange::new(Gpa(line * LINE), LINE);
            let is_bad = self.first_bad(whole).is_some();
            let mut all = overwritten.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_bad {
                all.remove(&line);
                continue;
            }
            let bytes = all.entry(line).or_default();
            *bytes |= stored(whole, range);
            if *bytes == u64::MAX {
                all.remove(&line);
                drop(all);
                if let Err(error) = self.clear(whole) {
                    tracing::warn!(at = %whole.start, %error, "a line that was overwritten stays bad");
                }
            }
        }
    }

    /// Lines that become bad have to be stored to anew, whole.
    fn forget_stores(&self) {
        if let Some(overwritten) = &self.overwritten {
            overwritten.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The error that an access to `page`, of which no more is known, is taken to have met.
    pub fn bad_of_page(&self, gpa: Gpa) -> Option<Gpa> {
        let page = GpaRange::new(Gpa(gpa.0 / PAGE * PAGE), PAGE);
        self.first_bad(page).or_else(|| {
            let due = self.awaited().take(page);
            self.make_due(&due);
            self.first_bad(page)
        })
    }
}

/// The bytes of `line` that a store to `range` reaches, one bit each.
fn stored(line: GpaRange, range: GpaRange) -> u64 {
    let from = range.start.0.max(line.start.0) - line.start.0;
    let to = range.end().0.min(line.end().0).saturating_sub(line.start.0);
    match to.saturating_sub(from) {
        0 => 0,
        LINE.. => u64::MAX,
        len => ((1 << len) - 1) << from,
    }
}

/// Whether a load meets an error. Those that a guest injects through its NVDIMM root are for scrubs alone.
pub fn consumable(source: ErrorSource) -> bool {
    source != ErrorSource::Guest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_reaches_the_bytes_that_it_has_in_common_with_the_line() {
        let line = GpaRange::new(Gpa(128), LINE);
        for (start, len, bytes) in [
            (128, 64, u64::MAX),
            (0, 1024, u64::MAX),
            (128, 8, 0xff),
            (184, 8, 0xff << 56),
            (188, 8, 0xf << 60),
            (124, 8, 0xf),
            (191, 1, 1 << 63),
            (120, 8, 0),
            (192, 8, 0),
            (128, 0, 0),
        ] {
            assert_eq!(stored(line, GpaRange::new(Gpa(start), len)), bytes, "{start} {len}");
        }
    }
}
