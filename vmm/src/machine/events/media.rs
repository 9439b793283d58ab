//! Bad bytes of NVDIMMs that a client of the API makes, takes away and lists.

use super::Running;
use crate::control::{ControlError, ErrorKind, MediaErrorInfo, MediaErrorList, MediaRange};
use devices::{
    nvdimm::{
        BusState, NvdimmBus,
        errors::{ChangeError, ErrorsError},
        media::{ErrorSource, Mark},
    },
    units::{Dpa, Gpa, GpaRange},
};
use std::sync::Arc;

/// What happens to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is bad; the guest does not know of a latent error before it scrubs or reads.
    Inject {
        /// See above.
        latent: bool,
    },
    /// It is good.
    Clear,
}

/// Where a range is.
#[derive(Debug, Clone, Copy)]
enum Place {
    Dimm { slot: u8, dpa: Dpa, len: u64 },
    Guest(GpaRange),
}

impl Place {
    fn change(&self, bus: &mut BusState, change: Change) -> Result<(), ErrorsError> {
        let mark = |latent| match latent {
            true => Mark::latent(ErrorSource::Host),
            false => Mark::known(ErrorSource::Host),
        };
        match (*self, change) {
            (Self::Dimm { slot, dpa, len }, Change::Inject { latent }) => bus.inject_dimm(slot, dpa, len, mark(latent)),
            (Self::Dimm { slot, dpa, len }, Change::Clear) => bus.clear_errors_dimm(slot, dpa, len),
            (Self::Guest(range), Change::Inject { latent }) => bus.inject(range, mark(latent)),
            (Self::Guest(range), Change::Clear) => bus.clear_errors(range),
        }
    }
}

fn slot_of(bus: &NvdimmBus, id: &str) -> Option<u8> {
    bus.with(|bus| bus.nfit.dimms.iter().find(|dimm| dimm.id == id).map(|dimm| dimm.slot))
}

impl Running {
    /// Changes which bytes are bad, for good where the NVDIMM has a state.
    pub(super) fn change_media(&self, range: &MediaRange, change: Change) -> Result<(), ControlError> {
        let (bus, place) = self.place(range)?;
        bus.with(|bus| bus.change_errors(|bus| place.change(bus, change)))
            .map_err(|error| match error {
                ChangeError::Refused(error) => ControlError::split(ErrorKind::InvalidRequest, &error.to_string()),
                ChangeError::NotKept(ref cause) => ControlError::new(ErrorKind::Internal, format!("{error}: {cause}")),
            })
    }

    /// Whether `range` is of an NVDIMM.
    pub(super) fn check_media(&self, range: &MediaRange) -> Result<(), ControlError> {
        let (bus, place) = self.place(range)?;
        let Place::Dimm { slot, dpa, len } = place else {
            return Ok(());
        };
        let capacity = bus.with(|bus| bus.nfit.dimm(slot).map_or(0, |dimm| dimm.capacity));
        match dpa.0.checked_add(len).filter(|end| len != 0 && *end <= capacity) {
            Some(_) => Ok(()),
            None => {
                let dpa = dpa.0;
                let outside = ErrorsError::Outside { dpa, len, capacity };
                Err(ControlError::split(ErrorKind::InvalidRequest, &outside.to_string()).field("dpa"))
            }
        }
    }

    /// Where the guest sees the first byte of a part of an NVDIMM.
    pub(super) fn spa_of(&self, part: &MediaRange) -> Option<Gpa> {
        match self.place(part).ok()? {
            (bus, Place::Dimm { slot, dpa, .. }) => bus.with(|bus| bus.nfit.to_spa(slot, dpa)),
            (_, Place::Guest(range)) => Some(range.start),
        }
    }

    fn place(&self, range: &MediaRange) -> Result<(&Arc<NvdimmBus>, Place), ControlError> {
        let mut buses = self.parts.nvdimm.iter();
        let MediaRange { id, start, len } = range;
        if let Some(id) = id {
            let found = buses.find_map(|bus| Some((bus, slot_of(bus, id)?)));
            let (bus, slot) = found.ok_or_else(|| not_found(id))?;
            let (dpa, len) = (Dpa(*start), *len);
            return Ok((bus, Place::Dimm { slot, dpa, len }));
        }
        // A range that no NVDIMM has is refused in the words of any bus.
        let nowhere = || {
            let none = ErrorsError::NoNvdimm {
                start: Gpa(*start),
                len: *len,
            };
            ControlError::split(ErrorKind::InvalidRequest, &none.to_string())
        };
        start.checked_add(*len).filter(|_| *len > 0).ok_or_else(nowhere)?;
        let spas = GpaRange::new(Gpa(*start), *len);
        let bus = buses.find(|bus| bus.with(|bus| bus.nfit.spa_with(spas).is_some()));
        Ok((bus.ok_or_else(nowhere)?, Place::Guest(spas)))
    }

    /// All bad ranges, or those of one NVDIMM.
    pub(super) fn media_errors(&self, id: Option<&str>) -> Result<MediaErrorList, ControlError> {
        let buses = &self.parts.nvdimm;
        if let Some(id) = id.filter(|id| buses.iter().all(|bus| slot_of(bus, id).is_none())) {
            return Err(not_found(id));
        }
        let of = |bus: &mut BusState| -> Vec<(u8, MediaErrorInfo)> {
            let name = |slot| bus.nfit.dimm(slot).map(|dimm| dimm.id.clone());
            let all = bus.errors().into_iter().filter_map(|error| {
                let info = MediaErrorInfo {
                    id: name(error.slot)?,
                    dpa: error.range.dpa.0,
                    len: error.range.len,
                    spa: error.spa.map(|spa| spa.0),
                    source: error.range.source,
                    state: error.range.state,
                };
                Some((error.slot, info))
            });
            all.filter(|(_, info)| id.is_none_or(|id| info.id == id)).collect()
        };
        let mut errors: Vec<_> = buses.iter().flat_map(|bus| bus.with(of)).collect();
        errors.sort_by_key(|(slot, info)| (*slot, info.dpa));
        Ok(MediaErrorList {
            errors: errors.into_iter().map(|(_, info)| info).collect(),
        })
    }
}

fn not_found(id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("there is no NVDIMM '{id}'")).field("id")
}
