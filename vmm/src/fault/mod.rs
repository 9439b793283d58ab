//! Memory errors of a whole machine: one set of bad lines of 64 bytes over all memory of the guest, and what an access to
//! them does. docs/faults.md has the states.
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
//! everything stays writable. Lines change at any time, on any thread; holes follow when all vCPUs stand. In between, a
//! hole without a bad line is slow memory, and a bad line without a hole is not consumed.

pub mod decode;
mod holes;
mod lines;

pub use holes::{Holes, MAX_HOLES, plan_holes};
pub use lines::StoredLine;

use crate::{
    config::FaultConfig,
    memory::{Access, PAGE, Window, Windows},
};
use devices::{
    nvdimm::{
        MediaState, NvdimmBus,
        errors::{ErrorsError, ErrorsSnapshot},
        media::{BadRange, ErrorSource, ErrorState, LINE, Mark},
    },
    units::{Dpa, Gpa, GpaRange},
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
    policy: FaultConfig,
    windows: Windows,
    buses: Vec<Arc<NvdimmBus>>,
    ram: Mutex<MediaState>,
    holes: RwLock<Holes>,
    /// Accesses to holes that were carried out.
    carried: AtomicU64,
}

/// Why errors were not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    /// The NVDIMM's own reasons.
    #[error(transparent)]
    Nvdimm(#[from] ErrorsError),
}

/// Where in the machine a range of memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An SPA range with DIMMs behind it, of this bus.
    Nvdimm(u8),
    /// Any other memory.
    Ram,
}

/// A bad range as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where the guest sees its first byte; none: in no range of its.
    pub gpa: Option<Gpa>,
    /// Slot and DPA, of an NVDIMM.
    pub dimm: Option<(u8, Dpa)>,
    /// Bytes.
    pub len: u64,
    /// Who made it and who knows of it.
    pub mark: Mark,
}

/// All lines of a machine at one time.
pub struct Snapshot {
    ram: MediaState,
    buses: Vec<ErrorsSnapshot>,
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
    pub fn new(policy: FaultConfig, windows: Windows, buses: Vec<Arc<NvdimmBus>>) -> Self {
        Self {
            policy,
            windows,
            buses,
            ram: Mutex::new(MediaState::with_room(MAX_RAM_RANGES)),
            holes: RwLock::default(),
            carried: AtomicU64::new(0),
        }
    }

    fn ram(&self) -> MutexGuard<'_, MediaState> {
        self.ram.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a load of a line with `mark` is an error to the guest.
    fn consumable(&self, mark: Mark) -> bool {
        mark.source != ErrorSource::Guest || self.policy.guest_injected
    }

    /// Where all of `range` is.
    pub fn place(&self, range: GpaRange) -> Result<Place, FaultError> {
        let GpaRange { start, len } = range;
        let not_memory = FaultError::NotMemory { start, len };
        let window = self.windows.at(start).filter(|_| len != 0).ok_or(not_memory)?;
        if range.end() > window.range().end() {
            return Err(not_memory);
        }
        let has = |bus: &&Arc<NvdimmBus>| {
            bus.with(|state| state.nfit.spa_with(range).is_some_and(|spa| !spa.mappings.is_empty()))
        };
        let bus = self.buses.iter().find(has);
        Ok(bus.map_or(Place::Ram, |bus| Place::Nvdimm(bus.number())))
    }

    /// Changes the lines behind `range`, or nothing.
    fn edit<T>(
        &self,
        range: GpaRange,
        nvdimm: impl FnOnce(&mut devices::nvdimm::BusState) -> Result<T, ErrorsError>,
        ram: impl FnOnce(&mut MediaState, Range<u64>) -> Result<T, devices::nvdimm::media::MediaFull>,
    ) -> Result<T, FaultError> {
        match self.place(range)? {
            Place::Ram => {
                let done = ram(&mut self.ram(), range.start.0..range.end().0);
                done.map_err(|full| ErrorsError::from(full).into())
            }
            Place::Nvdimm(number) => {
                let bus = self.buses.iter().find(|bus| bus.number() == number);
                let GpaRange { start, len } = range;
                let bus = bus.ok_or(FaultError::NotMemory { start, len })?;
                Ok(bus.with(nvdimm)?)
            }
        }
    }

    /// Makes `range` bad, widened to whole lines.
    pub fn inject(&self, range: GpaRange, mark: Mark) -> Result<(), FaultError> {
        self.edit(range, |bus| bus.inject(range, mark), |ram, gpas| ram.mark(gpas, mark))
    }

    /// Makes `range` good, widened to whole lines.
    pub fn clear(&self, range: GpaRange) -> Result<(), FaultError> {
        self.edit(range, |bus| bus.clear_errors(range), MediaState::clear)
    }

    /// Runs `change` on the bus with the DIMM in `slot`.
    fn on_bus<T>(
        &self,
        slot: u8,
        change: impl FnOnce(&mut devices::nvdimm::BusState) -> Result<T, ErrorsError>,
    ) -> Result<T, FaultError> {
        let has = |bus: &&Arc<NvdimmBus>| bus.with(|state| state.nfit.dimm(slot).is_some());
        let bus = self.buses.iter().find(has).ok_or(ErrorsError::NoDimm(slot))?;
        Ok(bus.with(change)?)
    }

    /// Makes a part of an NVDIMM bad, wherever the guest sees it.
    pub fn inject_dimm(&self, slot: u8, dpa: Dpa, len: u64, mark: Mark) -> Result<(), FaultError> {
        self.on_bus(slot, |bus| bus.inject_dimm(slot, dpa, len, mark))
    }

    /// Makes a part of an NVDIMM good.
    pub fn clear_dimm(&self, slot: u8, dpa: Dpa, len: u64) -> Result<(), FaultError> {
        self.on_bus(slot, |bus| bus.clear_errors_dimm(slot, dpa, len))
    }

    /// Slot and DPA of an address in an NVDIMM.
    pub fn to_dpa(&self, gpa: Gpa) -> Option<(u8, Dpa)> {
        let found = |bus: &Arc<NvdimmBus>| bus.with(|state| state.nfit.to_dpa(gpa));
        self.buses.iter().find_map(found).map(|place| (place.slot, place.dpa))
    }

    /// Where the guest sees a byte of an NVDIMM.
    pub fn to_gpa(&self, slot: u8, dpa: Dpa) -> Option<Gpa> {
        let found = |bus: &Arc<NvdimmBus>| bus.with(|state| state.nfit.to_spa(slot, dpa));
        self.buses.iter().find_map(found)
    }

    /// All lines as they are, for [`Faults::put_back`]. No vCPU may run in between.
    pub fn snapshot(&self) -> Snapshot {
        let media = |bus: &Arc<NvdimmBus>| bus.with(|state| state.snapshot_errors());
        Snapshot {
            ram: self.ram().clone(),
            buses: self.buses.iter().map(media).collect(),
        }
    }

    /// Undoes every change since the snapshot.
    pub fn put_back(&self, snapshot: Snapshot) {
        *self.ram() = snapshot.ram;
        for (bus, errors) in self.buses.iter().zip(snapshot.buses) {
            bus.with(|state| state.put_back_errors(errors));
        }
    }

    /// What of `range` is bad becomes known: somebody met it.
    pub fn discover(&self, range: GpaRange) -> Result<(), FaultError> {
        let found = |ram: &mut MediaState, gpas| {
            ram.discover(gpas);
            Ok(())
        };
        self.edit(range, |bus| bus.discover(range), found)
    }

    /// All bad ranges: NVDIMMs by slot and DPA, then other memory by address.
    pub fn list(&self) -> Vec<Fault> {
        let mark = |range: &BadRange| Mark {
            source: range.source,
            state: range.state,
        };
        let mut all = vec![];
        for bus in &self.buses {
            all.extend(bus.with(|state| state.errors()).into_iter().map(|error| Fault {
                gpa: error.spa,
                dimm: Some((error.slot, error.range.dpa)),
                len: error.range.len,
                mark: mark(&error.range),
            }));
        }
        all.sort_by_key(|fault| fault.dimm.map(|(slot, dpa)| (slot, dpa.0)));
        all.extend(self.ram().ranges().map(|range| Fault {
            gpa: Some(Gpa(range.dpa.0)),
            dimm: None,
            len: range.len,
            mark: mark(&range),
        }));
        all
    }

    /// Counts the changes of all lines, so that whoever follows them can tell whether there is something to do. None: a call
    /// of the guest is at work on some.
    pub fn changes(&self) -> Option<u64> {
        let mut buses = self.buses.iter().map(|bus| bus.peek(|state| state.media_changes()));
        let memory = self.windows.all().len() as u64;
        let others = self.ram().changes().wrapping_add(memory);
        buses.try_fold(others, |sum, changes| Some(sum.wrapping_add(changes?)))
    }

    /// The bad runs of `within` that a load meets.
    fn bad(&self, within: GpaRange, most: usize) -> Vec<GpaRange> {
        let wanted = |mark: Mark| self.consumable(mark);
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

    /// The holes that the lines ask for.
    pub fn plan(&self) -> Holes {
        let windows: Vec<GpaRange> = self.windows.all().iter().map(|window| window.range()).collect();
        let bad = windows.iter().flat_map(|range| self.bad(*range, usize::MAX));
        plan_holes(&bad.collect::<Vec<_>>(), &windows, MAX_HOLES)
    }

    /// Whether the holes are those of `plan`.
    pub fn has(&self, plan: &Holes) -> bool {
        *self.holes.read().unwrap_or_else(PoisonError::into_inner) == *plan
    }

    /// Whether there are holes at all.
    pub fn any(&self) -> bool {
        !self.holes.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Pages that are holes, and pages that were too many to be one.
    pub fn pages(&self) -> (u64, u64) {
        let holes = self.holes.read().unwrap_or_else(PoisonError::into_inner);
        (holes.pages(), holes.left_out)
    }

    /// Accesses to holes that touched no bad line.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Makes the holes those of `plan`. Every vCPU stands. After an error some holes may be missing, none is too many.
    pub fn dig(&self, plan: Holes) -> Result<(), crate::memory::GuestMapError> {
        let mut holes = self.holes.write().unwrap_or_else(PoisonError::into_inner);
        let mut dug = Ok(());
        let mut done = BTreeMap::new();
        for window in self.windows.all() {
            let range = window.range();
            match window.set_holes(plan.offsets(range)) {
                Ok(()) => done.extend(plan.of(range)),
                Err(error) => {
                    done.extend(holes.of(range));
                    dug = Err(error);
                }
            }
        }
        *holes = Holes::new(done, plan.left_out);
        dug
    }

    /// The window with `gpa` in it.
    pub fn window(&self, gpa: Gpa) -> Option<Arc<Window>> {
        self.windows.at(gpa)
    }

    /// The window of a hole with `gpa` in it.
    fn hole(&self, gpa: Gpa) -> Option<Arc<Window>> {
        let is_hole = self.is_hole(gpa);
        is_hole.then(|| self.windows.at(gpa)).flatten()
    }

    /// Whether `gpa` is in a hole.
    pub fn is_hole(&self, gpa: Gpa) -> bool {
        self.holes.read().unwrap_or_else(PoisonError::into_inner).contains(gpa)
    }

    /// The first consumable line that `range` touches.
    pub fn first_bad(&self, range: GpaRange) -> Option<Gpa> {
        let first = self.bad(range, 1).into_iter().next()?;
        Some(Gpa(first.start.0 / LINE * LINE))
    }

    /// The guest loads from where no memory slot is. None: from no hole either.
    pub fn load(&self, gpa: Gpa, data: &mut [u8]) -> Option<Met> {
        let window = self.hole(gpa)?;
        if let Some(line) = self.first_bad(GpaRange::new(gpa, data.len() as u64)) {
            return Some(Met::Poisoned(line));
        }
        window.load(gpa.0 - window.range().start.0, data);
        self.carried.fetch_add(1, Ordering::Relaxed);
        Some(Met::Carried)
    }

    /// The guest stores to where no memory slot is: bad lines take stores, and stay bad until one is overwritten whole and
    /// that is to clear it. `line` is what the vCPU has stored last.
    pub fn store(&self, gpa: Gpa, data: &[u8], line: &mut StoredLine) -> Option<Met> {
        let window = self.hole(gpa)?;
        window.store(gpa.0 - window.range().start.0, data);
        self.carried.fetch_add(1, Ordering::Relaxed);
        if let Some(line) = line.add(gpa, data.len()).filter(|_| self.policy.clear_on_write)
            && window.access() != Access::ReadOnly
        {
            let line = GpaRange::new(line, LINE);
            if self.first_bad(line).is_some()
                && let Err(error) = self.clear(line)
            {
                tracing::warn!(%error, at = %line, "an overwritten line stays bad");
            }
        }
        Some(Met::Carried)
    }

    /// The error that an access to `page`, of which no more is known, is taken to have met.
    pub fn bad_of_page(&self, gpa: Gpa) -> Option<Gpa> {
        self.first_bad(GpaRange::new(Gpa(gpa.0 / PAGE * PAGE), PAGE))
    }

    /// Known errors stay; what a mark says of who made it, for messages.
    pub fn mark(source: ErrorSource, known: bool) -> Mark {
        let state = if known { ErrorState::Known } else { ErrorState::Latent };
        Mark { source, state }
    }
}

#[cfg(test)]
mod tests;
