//! Functions of one DIMM: the `_DSM` of its family, here the labels of Intel's, our own calls behind `_LSI`, `_LSR` and `_LSW`.

use super::{
    Answer, DsmCall, DsmFamily, DsmFunction, DsmReply, DsmResult, DsmStatus, firmware, hpe1, hyperv, msft, smart,
    u32_at, u64_at, unknown,
};
use crate::nvdimm::{
    Dimm,
    guid::{INTEL_DIMM_DSM, METHODS},
    label::{LabelError, MAX_TRANSFER},
    plan::DimmFamily,
};

/// "NVDIMM DSM Interface". Linux asks function 0 in revision 1 and in revision 2, which adds functions from 11 on.
static INTEL: DsmFamily<Dimm> = DsmFamily {
    guid: INTEL_DIMM_DSM,
    latest: 2,
    functions: &[LABELS, smart::FUNCTIONS, firmware::FUNCTIONS, super::security::SECURITY],
};

pub(super) static LABELS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 4,
        since: 1,
        available: |dimm| dimm.has_labels() && dimm.allows(4),
        run: label_size,
    },
    DsmFunction {
        index: 5,
        since: 1,
        available: |dimm| dimm.has_labels() && dimm.allows(5),
        run: label_read,
    },
    DsmFunction {
        index: 6,
        since: 1,
        available: |dimm| dimm.has_labels() && dimm.allows(6),
        run: label_write,
    },
];

/// Answer to a call on a DIMM.
pub fn answer(dimm: &mut Dimm, call: &DsmCall<'_>) -> Answer {
    let family = match dimm.plan.family {
        DimmFamily::Intel => &INTEL,
        DimmFamily::Hpe1 => &hpe1::FAMILY,
        DimmFamily::Msft => &msft::FAMILY,
        DimmFamily::Hyperv => &hyperv::FAMILY,
    };
    match call.guid {
        guid if guid == family.guid => family.answer(dimm, call),
        METHODS if call.function != 0 => method(dimm, call),
        _ => unknown(call, DsmStatus::NOT_SUPPORTED),
    }
}

/// Bit of [`label_size`]'s status: the DIMM is locked.
const LOCKED: u32 = 1 << 16;

/// Out: area size, largest transfer.
fn label_size(dimm: &mut Dimm, _: &[u8]) -> DsmResult {
    let locked = dimm.security.as_ref().is_some_and(|s| s.is_locked());
    Ok(DsmReply {
        status: DsmStatus(if locked { LOCKED } else { 0 }),
        ..sizes(dimm).into()
    })
}

/// Labels are as far out of reach as the data, but that they can be read during an overwrite.
fn reachable(dimm: &mut Dimm) -> Result<(), DsmStatus> {
    if dimm.security.as_mut().is_none_or(|security| security.is_open()) {
        Ok(())
    } else {
        Err(DsmStatus::INVALID_SECURITY_STATE)
    }
}

/// In: offset, length. Out: the bytes.
fn label_read(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let (offset, len) = (u32_at(input, 0)?, u32_at(input, 4)?);
    if dimm.security.as_mut().is_some_and(|security| security.is_blank()) {
        return Ok(dimm.labels.blank(offset.into(), len.into())?.into());
    }
    reachable(dimm)?;
    Ok(dimm.labels.read(offset.into(), len.into())?.into())
}

/// In: offset, length, the bytes (more than length is not looked at).
fn label_write(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let (offset, len) = (u32_at(input, 0)?, u32_at(input, 4)?);
    let data = usize::try_from(len).ok().and_then(|len| input.get(8..)?.get(..len));
    let data = data.ok_or(DsmStatus::INVALID_INPUT)?;
    reachable(dimm)?;
    dimm.labels.write(offset.into(), data)?;
    Ok(DsmReply::default())
}

fn sizes(dimm: &Dimm) -> Vec<u8> {
    let words = [dimm.labels.size(), MAX_TRANSFER];
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

impl From<LabelError> for DsmStatus {
    fn from(error: LabelError) -> Self {
        match error {
            LabelError::OutOfRange { .. } | LabelError::TooLong(_) => Self::INVALID_INPUT,
            LabelError::ReadOnly => Self::NOT_SUPPORTED,
            LabelError::Store(source) => {
                tracing::warn!(%source, "the guest's label transfer failed on the host");
                Self::HARDWARE_ERROR
            }
        }
    }
}

/// `_LSI` behind [`METHODS`].
pub const LSI: u32 = 1;
/// `_LSR` behind [`METHODS`].
pub const LSR: u32 = 2;
/// `_LSW` behind [`METHODS`].
pub const LSW: u32 = 3;

/// Status of `_LSI`, `_LSR` and `_LSW`. ACPI 6.5 6.5.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum MethodStatus {
    Failure = 1,
    InvalidParameters = 2,
    Locked = 3,
    HardwareError = 4,
}

impl From<LabelError> for MethodStatus {
    fn from(error: LabelError) -> Self {
        match DsmStatus::from(error) {
            DsmStatus::INVALID_INPUT => Self::InvalidParameters,
            DsmStatus::HARDWARE_ERROR => Self::HardwareError,
            _ => Self::Failure,
        }
    }
}

/// Input: `_LSR` offset u64, length u64; `_LSW` the same and the bytes. Output: status u32 of the method, then what the
/// method returns.
fn method(dimm: &mut Dimm, call: &DsmCall<'_>) -> Answer {
    let mut run = || -> Result<Vec<u8>, MethodStatus> {
        if !dimm.has_labels() {
            return Err(MethodStatus::Failure);
        }
        reachable(dimm).map_err(|_| MethodStatus::Locked)?;
        let argument = |at| u64_at(call.input, at).map_err(|_| MethodStatus::InvalidParameters);
        match call.function {
            LSI => Ok(sizes(dimm)),
            LSR => Ok(dimm.labels.read(argument(0)?, argument(8)?)?),
            LSW => {
                let (offset, len) = (argument(0)?, argument(8)?);
                let data = usize::try_from(len)
                    .ok()
                    .and_then(|len| call.input.get(16..)?.get(..len));
                dimm.labels
                    .write(offset, data.ok_or(MethodStatus::InvalidParameters)?)?;
                Ok(Vec::new())
            }
            _ => Err(MethodStatus::Failure),
        }
    };
    match run() {
        Ok(output) => super::reply(Ok(output.into())),
        Err(status) => super::reply(Err(DsmStatus(status as u32))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Clock,
        nvdimm::{
            NvdimmPlan,
            guid::{Guid, ROOT_DSM},
        },
    };

    fn new_dimm(label_size: u32, read_only: bool) -> Dimm {
        let plan = NvdimmPlan::plain(0, "nvdimm0".into(), 1 << 24, label_size, read_only);
        let store = Box::new(vec![0u8; usize::try_from(label_size).unwrap()]);
        Dimm::new(plan, store, &Clock::manual())
    }

    fn ask(dimm: &mut Dimm, guid: Guid, function: u32, input: &[u8]) -> Vec<u8> {
        answer(
            dimm,
            &DsmCall {
                handle: 1,
                guid,
                revision: 1,
                function,
                input,
            },
        )
        .bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn mask(dimm: &mut Dimm, revision: u32) -> u32 {
        let call = DsmCall {
            handle: 1,
            guid: INTEL_DIMM_DSM,
            revision,
            function: 0,
            input: &[],
        };
        u32::from_le_bytes(answer(dimm, &call).bytes.try_into().unwrap())
    }

    #[test]
    fn intel_family_offers_the_old_functions_in_both_revisions_and_the_new_in_the_second() {
        let mut dimm = new_dimm(0x2_0000, false);
        assert_eq!(mask(&mut dimm, 1), 0x47f);
        let both = mask(&mut dimm, 2);
        assert_eq!(both & 0x6007_f47f, 0x6007_f47f);
        assert_eq!((mask(&mut dimm, 0), mask(&mut dimm, 3)), (0, 0));
    }

    #[test]
    fn dimm_without_labels_offers_no_label_functions() {
        let mut dimm = new_dimm(0, false);
        assert_eq!(mask(&mut dimm, 1), 0x40f);
        assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 4, &[]), [1, 0, 0, 0]);
        assert_eq!(ask(&mut dimm, METHODS, LSI, &[]), [1, 0, 0, 0]);
    }

    #[test]
    fn dimm_whose_functions_are_all_masked_has_none() {
        let mut dimm = new_dimm(0x2_0000, false);
        dimm.plan.functions = 0;
        assert_eq!(mask(&mut dimm, 2), 0);
    }

    #[test]
    fn labels_written_by_one_interface_are_read_by_the_other() {
        let mut dimm = new_dimm(0x2_0000, false);
        assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 4, &[]), words(&[0, 0x2_0000, 4096]));
        assert_eq!(ask(&mut dimm, METHODS, LSI, &[]), words(&[0, 0x2_0000, 4096]));
        assert_eq!(
            ask(&mut dimm, INTEL_DIMM_DSM, 6, &words(&[8, 4, 0xdead_beef])),
            words(&[0])
        );
        assert_eq!(
            ask(&mut dimm, METHODS, LSR, &words(&[8, 0, 4, 0])),
            words(&[0, 0xdead_beef])
        );
        assert_eq!(
            ask(&mut dimm, METHODS, LSW, &words(&[8, 0, 4, 0, 0x1234_5678])),
            words(&[0])
        );
        assert_eq!(
            ask(&mut dimm, INTEL_DIMM_DSM, 5, &words(&[8, 4])),
            words(&[0, 0x1234_5678])
        );
    }

    #[test]
    fn senseless_transfers_get_the_status_of_their_interface() {
        let mut dimm = new_dimm(0x2_0000, false);
        for input in [
            vec![],
            words(&[0]),
            words(&[0x2_0000, 1]),
            words(&[0, 4097]),
            words(&[u32::MAX, u32::MAX]),
        ] {
            assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 5, &input), words(&[3]), "{input:?}");
            assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 6, &input), words(&[3]), "{input:?}");
        }
        // Fewer bytes than the length says.
        assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 6, &words(&[0, 8, 1])), words(&[3]));
        assert_eq!(ask(&mut dimm, METHODS, LSR, &words(&[0, 1, 1, 0])), words(&[2]));
        assert_eq!(ask(&mut dimm, METHODS, LSW, &words(&[0, 0, 8, 0, 1])), words(&[2]));
    }

    #[test]
    fn read_only_dimm_serves_labels_and_keeps_them() {
        let mut dimm = new_dimm(256, true);
        assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 6, &words(&[0, 4, 1])), words(&[1]));
        assert_eq!(ask(&mut dimm, METHODS, LSW, &words(&[0, 0, 4, 0, 1])), words(&[1]));
        assert_eq!(ask(&mut dimm, INTEL_DIMM_DSM, 5, &words(&[0, 4])), words(&[0, 0]));
    }

    #[test]
    fn unknown_family_is_answered_as_firmware_would() {
        let mut dimm = new_dimm(256, false);
        assert_eq!(ask(&mut dimm, ROOT_DSM, 0, &[]), [0; 4]);
        assert_eq!(ask(&mut dimm, METHODS, 0, &[]), [0; 4]);
        assert_eq!(ask(&mut dimm, ROOT_DSM, 4, &[]), [1, 0, 0, 0]);
    }
}
