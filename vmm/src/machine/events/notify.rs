//! Errors that the guest is told of: by firmware (GHES), by a processor's machine check bank, and at its own wish (EINJ).

use super::{
    Running,
    faults::Notice,
    inject::{Found, refusal},
    serve::{Begun, End, FAULT_LIMIT, Goal},
};
use crate::{
    control::{
        ControlError, ErrorKind, FaultChange, FaultNotified, FaultNotify, Happening, NotifyPlan, NotifyTarget, Response,
    },
    fault::Place,
    memory::PAGE,
    smbios,
};
use devices::{
    apei::{Apei, Cper, InjectionStatus, MAX_WAITING, MemoryError, Severity, Source, Target},
    nvdimm::media::{ErrorSource, LINE, Mark},
    units::{Gpa, GpaRange},
};

impl Running {
    pub(super) fn notify(&mut self, asked: &FaultNotify) -> Result<Begun, ControlError> {
        match asked.plan()? {
            NotifyPlan::Bank(kind, memory) => {
                let gpa = self.seen_by_guest(&self.find(&memory)?)?;
                self.room_for_pending()?;
                let number = self.halt.ask_notice(Notice::new(kind, asked.severity, gpa));
                Ok(Begun::Until(Goal::Noticed(number), FAULT_LIMIT))
            }
            NotifyPlan::Firmware(source, severity, target) => {
                let (gpa, vcpu, mut error) = match target {
                    NotifyTarget::Memory(memory) => {
                        let gpa = self.seen_by_guest(&self.find(&memory)?)?;
                        (Some(gpa.0), None, self.memory_error(severity, gpa))
                    }
                    NotifyTarget::Processor(apic_id) => {
                        self.check_processor(apic_id)?;
                        (None, Some(apic_id), Cper::processor(severity, apic_id))
                    }
                };
                error.threshold_exceeded = asked.threshold_exceeded;
                let apei = self.apei()?;
                apei.report(source, &error).map_err(full)?;
                let waiting = apei.waiting(source);
                self.note_notified(gpa, vcpu);
                Ok(Begun::Done(Response::FaultNotified(FaultNotified {
                    via: asked.via,
                    severity: asked.severity,
                    gpa,
                    vcpu,
                    waiting,
                })))
            }
        }
    }

    fn check_processor(&self, apic_id: u32) -> Result<(), ControlError> {
        if self.parts.checks.ports.iter().any(|port| port.apic_id() == apic_id) {
            return Ok(());
        }
        let error = ControlError::new(ErrorKind::NotFound, format!("there is no processor {apic_id}"));
        Err(error.field("vcpu").hint("`describe` lists their APIC ids"))
    }

    pub(super) fn note_notified(&self, gpa: Option<u64>, vcpu: Option<u32>) {
        self.note(Happening::Fault {
            change: FaultChange::Notified,
            gpa,
            len: if gpa.is_some() { LINE } else { 0 },
            ranges: u64::from(gpa.is_some()),
            vcpu,
        });
    }

    fn apei(&self) -> Result<&Apei, ControlError> {
        self.parts.apei.as_deref().ok_or_else(|| {
            let why = "the machine has no error interfaces through which firmware could tell the guest";
            ControlError::new(ErrorKind::Conflict, why)
                .field("via")
                .hint("start it with `--apei on`")
        })
    }

    /// The first byte of what was found, as the guest sees it.
    fn seen_by_guest(&self, found: &Found) -> Result<Gpa, ControlError> {
        let seen = match found {
            Found::Guest(ranges) => ranges.first().map(|range| range.start),
            Found::Nvdimm(part) => self.seen_at(part).map(|range| range.start),
        };
        seen.ok_or_else(|| {
            let why = "no range of the guest has this part of the NVDIMM";
            ControlError::new(ErrorKind::Conflict, why).field("dpa")
        })
    }

    /// A memory error with all that the platform knows of its place.
    pub(super) fn memory_error(&self, severity: Severity, gpa: Gpa) -> Cper {
        let place = self.guest_place(GpaRange::new(gpa, LINE), &Default::default());
        let error = MemoryError {
            gpa,
            granule: LINE,
            node: place.node.and_then(|node| node.try_into().ok()),
            module: self.module_of(gpa),
        };
        let mut error = Cper::memory(severity, error);
        error.fru_text = place.nvdimm.or(place.name).or(place.kind);
        error
    }

    /// SMBIOS handle of the module with this memory.
    fn module_of(&self, gpa: Gpa) -> Option<u16> {
        let nvdimm = self
            .parts
            .nvdimm
            .iter()
            .find_map(|bus| bus.with(|state| Some(state.nfit.dimm(state.nfit.to_dpa(gpa)?.slot)?.physical_id)));
        nvdimm.or_else(|| smbios::module_of(&self.parts.growth.layout, gpa))
    }

    /// Whether firmware can tell the guest of all of `ranges` that are no NVDIMMs: those have a way of their own.
    pub(super) fn room_to_tell(&self, ranges: &[GpaRange]) -> Result<(), ControlError> {
        let Some(apei) = &self.parts.apei else { return Ok(()) };
        let pages = self.pages_to_tell(ranges).count();
        let room = apei.room(Source::Notified);
        if pages <= room {
            return Ok(());
        }
        let why = format!("the guest would have to be told of {pages} pages, and there is room for {room}");
        Err(ControlError::new(ErrorKind::Conflict, why)
            .field("known")
            .hint("use fewer, or leave `known` out: whoever meets them learns of them"))
    }

    fn pages_to_tell<'a>(&'a self, ranges: &'a [GpaRange]) -> impl Iterator<Item = Gpa> + 'a {
        let ram = |range: &&GpaRange| matches!(self.faults().place(**range), Ok(Place::Ram));
        let pages = |range: &GpaRange| {
            let (start, end) = (range.start.0, range.end().0);
            let next = (start / PAGE + 1) * PAGE;
            std::iter::once(start).chain((next..end).step_by(usize::try_from(PAGE).unwrap_or(usize::MAX)))
        };
        // One more than there ever is room for is as good as all of them.
        ranges.iter().filter(ram).flat_map(pages).map(Gpa).take(MAX_WAITING + 1)
    }

    /// Firmware tells the guest of what has become bad in `ranges`.
    pub(super) fn tell_of(&self, ranges: &[GpaRange]) {
        let Some(apei) = &self.parts.apei else { return };
        for gpa in self.pages_to_tell(ranges) {
            let error = self.memory_error(Severity::Recoverable, gpa);
            match apei.report(Source::Notified, &error) {
                Ok(()) => self.note_notified(Some(gpa.0), None),
                Err(error) => tracing::warn!(at = %gpa, "the guest is not told of an error: {error}"),
            }
        }
    }

    /// How the notice of this number ends.
    pub(super) fn noticed(&mut self, number: u64, late: bool) -> Option<End> {
        if let Some(done) = self.halt.take_notice(number) {
            return Some(match done {
                Err(error) => End::Failed(error),
                Ok(told) => {
                    self.note_notified(told.gpa, told.vcpu);
                    End::Answer(Response::FaultNotified(told))
                }
            });
        }
        late.then(|| {
            self.halt.forget_notice(number);
            End::Failed(ControlError::new(
                ErrorKind::Deadline,
                "the vCPUs do not stand still; the guest is told nothing",
            ))
        })
    }

    /// The guest asks for an error.
    pub(super) fn inject_for_guest(&mut self) {
        let Some(injection) = self.parts.apei.as_ref().and_then(|apei| apei.take_injection()) else {
            return;
        };
        tracing::debug!(?injection, "the guest injects an error");
        let done = match (injection.target, injection.spoils()) {
            (Target::Processor(Some(apic_id)), _) => self.check_processor(apic_id),
            (_, Some(range)) => self.spoil(range),
            (Target::Memory(range), None) => self.check_memory(range),
            (Target::Processor(None), None) => Ok(()),
        };
        match done {
            // Done once loads meet it.
            Ok(()) if injection.spoils().is_some() => self.halt.injecting = true,
            Ok(()) => self.injected(InjectionStatus::Success),
            Err(error) => {
                tracing::warn!("the guest's injection is refused: {error}");
                self.injected(InjectionStatus::Invalid);
            }
        }
    }

    fn spoil(&mut self, range: GpaRange) -> Result<(), ControlError> {
        self.check_memory(range)?;
        self.faults()
            .inject_all(&[range], Mark::latent(ErrorSource::Einj))
            .map_err(refusal)?;
        self.note(Happening::Fault {
            change: FaultChange::InjectedByGuest,
            gpa: Some(range.start.0),
            len: range.len,
            ranges: 1,
            vcpu: None,
        });
        Ok(())
    }

    pub(super) fn injected(&self, status: InjectionStatus) {
        if let Some(Err(error)) = self.parts.apei.as_ref().map(|apei| apei.injected(status)) {
            tracing::warn!("the guest does not learn how its injection ended: {error}");
        }
    }
}

fn full(error: devices::apei::ReportsFull) -> ControlError {
    ControlError::split(ErrorKind::Conflict, &error.to_string()).field("via")
}
