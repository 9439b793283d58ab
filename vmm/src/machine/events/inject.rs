//! Memory errors that a client of the API makes, takes away, and asks about.

use super::{
    Running,
    media::Change,
    serve::{Begun, FAULT_LIMIT, Goal},
};
use crate::{
    control::{
        ControlError, Count, ErrorKind, FaultChange, FaultInject, FaultLoad, FaultPlace, FaultReport, FaultRequest,
        FaultTarget, Happening, Mechanism, MediaRange, Response,
    },
    fault::{FaultError, Holes, lines_at_random},
    layout::map::Entry,
};
use devices::{
    nvdimm::{
        errors::{ChangeError, ErrorsError},
        media::{ErrorSource, Mark},
    },
    units::{Dpa, Gpa, GpaRange},
};
use std::sync::Arc;

/// Kinds of ranges of the guest physical map whose bytes can be bad. What the firmware has is not among them.
const CAN_BE_BAD: [&str; 9] = [
    "RAM",
    "NVDIMM",
    "memory device",
    "virtio-pmem",
    "virtio-mem",
    "soft-reserved",
    "pmem",
    "pram",
    "reserved",
];

/// Memory that is meant, found.
pub(super) enum Found {
    /// Each within one range of the map.
    Guest(Vec<GpaRange>),
    /// A part of an NVDIMM.
    Nvdimm(MediaRange),
}

impl Running {
    pub(super) fn fault(&mut self, request: &FaultRequest) -> Result<Begun, ControlError> {
        match request {
            FaultRequest::List => return Ok(Begun::Done(Response::Faults(Box::new(self.list_faults()?)))),
            FaultRequest::Inject(asked) => return self.inject_faults(asked),
            FaultRequest::Stop { storm } => return self.stop_storm(*storm),
            FaultRequest::Notify(asked) => return self.notify(asked),
            FaultRequest::Clear(range) => {
                let target = range.target()?;
                let found = self.find(&target)?;
                self.room_for_pending()?;
                match &found {
                    Found::Guest(ranges) => {
                        for range in ranges {
                            self.faults().clear(*range).map_err(refusal)?;
                        }
                    }
                    Found::Nvdimm(range) => self.change_media(range, Change::Clear)?,
                }
                self.note_change(FaultChange::Cleared, &self.places(&found, &Holes::default()));
            }
            FaultRequest::Remove { id } => {
                self.room_for_pending()?;
                self.remove_fault(id)?;
            }
        }
        Ok(Begun::Until(Goal::ErrorsInForce(None), FAULT_LIMIT))
    }

    fn inject_faults(&mut self, asked: &FaultInject) -> Result<Begun, ControlError> {
        let found = self.find(&asked.target()?)?;
        let seen: Vec<GpaRange> = match &found {
            Found::Guest(ranges) => ranges.clone(),
            Found::Nvdimm(range) => self.seen_at(range).into_iter().collect(),
        };
        let plan = self.faults().plan_with(&seen);
        let places = self.places(&found, &plan);
        let report = FaultReport {
            dry_run: asked.dry_run,
            mechanisms: mechanisms(&seen, &plan),
            delivery: self.delivery(),
            places,
            storm: None,
        };
        if asked.dry_run {
            return Ok(Begun::Done(Response::FaultReport(Box::new(report))));
        }
        if asked.is_storm() {
            return self.begin_storm(asked, seen, report);
        }
        self.room_for_pending()?;
        if let Some(trigger) = asked.trigger() {
            self.faults().await_access(&seen, trigger).map_err(refusal)?;
            return Ok(Begun::Until(Goal::ErrorsInForce(Some(Arc::new(report))), FAULT_LIMIT));
        }
        match &found {
            Found::Guest(ranges) => {
                let mark = match asked.known {
                    true => Mark::known(ErrorSource::Host),
                    false => Mark::latent(ErrorSource::Host),
                };
                let told: &[GpaRange] = if asked.known { ranges } else { &[] };
                self.room_to_tell(told)?;
                self.faults().inject_all(ranges, mark).map_err(refusal)?;
                self.tell_of(told);
            }
            Found::Nvdimm(range) => self.change_media(range, Change::Inject { latent: !asked.known })?,
        }
        self.note_change(FaultChange::Injected, &report.places);
        Ok(Begun::Until(Goal::ErrorsInForce(Some(Arc::new(report))), FAULT_LIMIT))
    }

    /// Makes the bad range called `id` good.
    fn remove_fault(&self, id: &str) -> Result<(), ControlError> {
        let found = self.list_faults()?.faults.into_iter().find(|fault| fault.id == *id);
        let found = found.ok_or_else(|| {
            let error = ControlError::new(ErrorKind::NotFound, format!("there is no bad range '{id}'"));
            error.field("id").hint("`fault list` names those that there are")
        })?;
        match (found.nvdimm, found.dpa, found.gpa) {
            (Some(nvdimm), Some(dpa), _) => {
                let range = MediaRange {
                    id: Some(nvdimm),
                    start: dpa,
                    len: found.len,
                };
                self.change_media(&range, Change::Clear)?;
            }
            (_, _, Some(gpa)) => {
                let range = GpaRange::new(Gpa(gpa), found.len);
                self.faults().clear_ram(range).map_err(refusal)?;
            }
            _ => {}
        }
        self.note(Happening::Fault {
            change: FaultChange::Cleared,
            gpa: found.gpa,
            len: found.len,
            ranges: 1,
            vcpu: None,
        });
        Ok(())
    }

    /// The memory device at `range` has gone, and its errors with it.
    pub(super) fn forget_faults(&self, range: GpaRange) {
        let (ranges, len) = self.faults().forget(range);
        if ranges != 0 {
            self.note(Happening::Fault {
                change: FaultChange::Unplugged,
                gpa: Some(range.start.0),
                len,
                ranges,
                vcpu: None,
            });
        }
    }

    fn note_change(&self, change: FaultChange, places: &[FaultPlace]) {
        self.note(Happening::Fault {
            change,
            gpa: places.first().and_then(|place| place.gpa),
            len: places.iter().map(|place| place.len).sum(),
            ranges: places.len() as u64,
            vcpu: None,
        });
    }

    /// Where what is meant is.
    pub(super) fn find(&self, target: &FaultTarget) -> Result<Found, ControlError> {
        match target {
            FaultTarget::Guest { start, len } => {
                let range = GpaRange::new(Gpa(*start), *len);
                self.check_memory(range)?;
                Ok(Found::Guest(vec![range]))
            }
            FaultTarget::Nvdimm { id, dpa, len } => {
                let range = MediaRange {
                    id: Some(id.clone()),
                    start: *dpa,
                    len: *len,
                };
                self.check_media(&range).map_err(|error| match error.kind {
                    // What other routes call `id`.
                    ErrorKind::NotFound => error.field("nvdimm"),
                    _ => error,
                })?;
                Ok(Found::Nvdimm(range))
            }
            FaultTarget::Node { node, count, seed } => self.lines_of_node(*node, *count, *seed).map(Found::Guest),
        }
    }

    /// The range of the map with all of `range`.
    fn entry(&self, range: GpaRange) -> Option<&Entry> {
        let last = range.end().0 - 1;
        let within = |entry: &&Entry| entry.start <= range.start.0 && last <= entry.last && entry.kind != "hotplug";
        self.parts.plan.map.iter().find(within)
    }

    pub(super) fn check_memory(&self, range: GpaRange) -> Result<(), ControlError> {
        let entry = self.entry(range);
        if let Some(entry) = entry.filter(|entry| !CAN_BE_BAD.contains(&entry.kind.as_ref())) {
            let GpaRange { start, len } = range;
            let what = format!("{len:#x} bytes at {start} are {}: expected memory", entry.kind);
            return Err(ControlError::new(ErrorKind::InvalidRequest, what)
                .field("gpa")
                .hint("`map` lists the ranges"));
        }
        let GpaRange { start, len } = range;
        entry.ok_or_else(|| refusal(FaultError::NotMemory { start, len }))?;
        self.faults().place(range).map_err(refusal)?;
        Ok(())
    }

    fn lines_of_node(&self, node: u32, count: Count, seed: u64) -> Result<Vec<GpaRange>, ControlError> {
        let plan = &self.parts.plan;
        if plan.nodes.iter().all(|known| known.node != node) && plan.map.iter().all(|entry| entry.node != Some(node)) {
            let error = ControlError::new(ErrorKind::NotFound, format!("there is no node {node}"));
            return Err(error.field("node").hint("`nodes` lists those that there are"));
        }
        let of_node = |entry: &&Entry| entry.node == Some(node) && CAN_BE_BAD.contains(&entry.kind.as_ref());
        let range = |entry: &Entry| GpaRange::new(Gpa(entry.start), entry.last - entry.start + 1);
        let memory: Vec<GpaRange> = plan.map.iter().filter(of_node).map(range).collect();
        let memory: Vec<GpaRange> = memory
            .into_iter()
            .filter(|range| self.faults().place(*range).is_ok())
            .collect();
        let bytes: u64 = memory.iter().map(|range| range.len).sum();
        let count = count.of(bytes);
        lines_at_random(&memory, count, seed).ok_or_else(|| {
            let why = format!(
                "node {node} has {bytes:#x} bytes of memory: expected twice as many lines as the {count} wanted"
            );
            ControlError::new(ErrorKind::Conflict, why).field("count")
        })
    }

    /// Where the guest sees the first byte of a part of an NVDIMM, with as much of the part as stands there in one piece.
    pub(super) fn seen_at(&self, part: &MediaRange) -> Option<GpaRange> {
        let gpa = self.spa_of(part)?;
        let whole = self
            .parts
            .nvdimm
            .iter()
            .find_map(|bus| bus.with(|state| state.nfit.to_dpa(gpa)));
        Some(GpaRange::new(
            gpa,
            whole.map_or(part.len, |whole| whole.len.min(part.len)),
        ))
    }

    fn places(&self, found: &Found, plan: &Holes) -> Vec<FaultPlace> {
        match found {
            Found::Guest(ranges) => ranges.iter().map(|range| self.guest_place(*range, plan)).collect(),
            Found::Nvdimm(part) => {
                let place = self.seen_at(part).map(|range| self.guest_place(range, plan));
                let nowhere = || FaultPlace {
                    gpa: None,
                    len: part.len,
                    kind: None,
                    name: None,
                    node: None,
                    linux_node: None,
                    nvdimm: part.id.clone(),
                    dpa: Some(part.start),
                    load: FaultLoad::OutOfReach,
                };
                let place = place.unwrap_or_else(nowhere);
                vec![FaultPlace { len: part.len, ..place }]
            }
        }
    }

    pub(super) fn guest_place(&self, range: GpaRange, plan: &Holes) -> FaultPlace {
        let entry = self.entry(range);
        let node = entry.and_then(|entry| entry.node);
        let linux = |node| self.parts.plan.nodes.iter().find(|known| known.node == node);
        let dimm = self.parts.nvdimm.iter().find_map(|bus| {
            bus.with(|state| {
                let at = state.nfit.to_dpa(range.start)?;
                Some((state.nfit.dimm(at.slot)?.id.clone(), at.dpa))
            })
        });
        let (nvdimm, dpa) = dimm.unzip();
        FaultPlace {
            gpa: Some(range.start.0),
            len: range.len,
            kind: entry.map(|entry| entry.kind.to_string()),
            name: entry.and_then(|entry| entry.name.clone()),
            node,
            linux_node: node.and_then(linux).and_then(|node| node.linux_node),
            nvdimm,
            dpa: dpa.map(|Dpa(dpa)| dpa),
            load: match plan.contains(range.start) {
                true => FaultLoad::MachineCheck,
                false => FaultLoad::NotCaught,
            },
        }
    }
}

/// How accesses to `ranges` are caught with the holes and traps of `plan`.
fn mechanisms(ranges: &[GpaRange], plan: &Holes) -> Vec<Mechanism> {
    let any = |of: &dyn Fn(Gpa) -> bool| ranges.iter().any(|range| of(range.start));
    let hole = any(&|gpa| plan.contains(gpa) && !plan.has_trap(gpa)).then_some(Mechanism::SlotHole);
    let trap = any(&|gpa| plan.has_trap(gpa)).then_some(Mechanism::Userfaultfd);
    hole.into_iter().chain(trap).collect()
}

/// Why errors were not changed, as a problem.
pub(super) fn refusal(error: FaultError) -> ControlError {
    let kind = match &error {
        FaultError::NotMemory { .. } | FaultError::Nvdimm(ChangeError::Refused(_)) => ErrorKind::InvalidRequest,
        FaultError::Full(_) | FaultError::Awaited(_) => ErrorKind::Conflict,
        FaultError::Nvdimm(ChangeError::NotKept(cause)) => {
            return ControlError::new(ErrorKind::Internal, format!("{error}: {cause}"));
        }
    };
    if let FaultError::Nvdimm(ChangeError::Refused(ErrorsError::Full(full))) = &error {
        return ControlError::split(ErrorKind::Conflict, &full.to_string());
    }
    let problem = ControlError::split(kind, &error.to_string());
    match error {
        FaultError::NotMemory { .. } => problem.field("gpa"),
        _ => problem,
    }
}
