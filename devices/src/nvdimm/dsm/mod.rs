//! `_DSM` functions: one table per family, from which dispatch and function 0's mask are both derived.
//!
//! Pure: a call and the target it names give the reply's bytes. What firmware does not know it answers as firmware would:
//! function 0 of an unknown family or revision says "nothing is supported", any other function says so in its status.

pub mod dimm;
pub mod root;

use super::guid::Guid;

/// One `_DSM` (or method) call as it came out of the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DsmCall<'a> {
    /// NFIT handle of the DIMM, or [`super::mailbox::ROOT_HANDLE`].
    pub handle: u32,
    /// Family.
    pub guid: Guid,
    /// Revision the guest asks for.
    pub revision: u32,
    /// Function index.
    pub function: u32,
    /// Input buffer; empty when the guest passed none.
    pub input: &'a [u8],
}

/// Status in the first four bytes of a reply, low half. The numbers that the NVDIMM root and Intel-family DIMMs share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DsmStatus {
    /// Done.
    Success = 0,
    /// The function is not implemented.
    NotSupported = 1,
    /// No such DIMM.
    NoSuchDimm = 2,
    /// The input makes no sense.
    InvalidInput = 3,
    /// The backing failed.
    HardwareError = 4,
}

/// Output after the status word, or the status of a failed call.
pub type DsmResult = Result<Vec<u8>, DsmStatus>;

/// One row of a family's function table.
#[derive(Debug)]
pub struct DsmFunction<T> {
    /// Index, 1 to 31.
    pub index: u32,
    /// First revision that has the function; later ones keep it.
    pub since: u32,
    /// Whether this target has the function.
    pub available: fn(&T) -> bool,
    /// Carries it out.
    pub run: fn(&T, &[u8]) -> DsmResult,
}

/// All functions behind one GUID.
#[derive(Debug)]
pub struct DsmFamily<T: 'static> {
    /// Family.
    pub guid: Guid,
    /// Newest revision.
    pub latest: u32,
    /// Functions but 0, which is derived.
    pub functions: &'static [DsmFunction<T>],
}

impl<T> DsmFamily<T> {
    /// Reply to `call`, whose GUID is this family's.
    pub fn answer(&self, target: &T, call: &DsmCall<'_>) -> Vec<u8> {
        if call.function == 0 {
            return self.mask(target, call.revision).to_le_bytes().to_vec();
        }
        let known = |f: &&DsmFunction<T>| f.index == call.function && self.has(f, target, call.revision);
        reply(match self.functions.iter().find(known) {
            Some(function) => (function.run)(target, call.input),
            None => Err(DsmStatus::NotSupported),
        })
    }

    /// Bit n: function n answers at `revision`; bit 0: any does. ACPI 6.5 9.1.1.
    pub fn mask(&self, target: &T, revision: u32) -> u32 {
        let supported = self.functions.iter().filter(|f| self.has(f, target, revision));
        supported.fold(0, |mask, f| mask | 1 | 1u32.checked_shl(f.index).unwrap_or(0))
    }

    fn has(&self, function: &DsmFunction<T>, target: &T, revision: u32) -> bool {
        (function.since..=self.latest).contains(&revision) && (function.available)(target)
    }
}

/// Reply to a call that no family claims.
pub fn unknown(call: &DsmCall<'_>, status: DsmStatus) -> Vec<u8> {
    if call.function == 0 {
        0u32.to_le_bytes().to_vec()
    } else {
        reply(Err(status))
    }
}

/// Status word, then output.
pub(crate) fn reply(result: DsmResult) -> Vec<u8> {
    match result {
        Ok(output) => [DsmStatus::Success as u32]
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .chain(output)
            .collect(),
        Err(status) => (status as u32).to_le_bytes().to_vec(),
    }
}

/// The little-endian u32 at `at`, or what a short buffer deserves.
pub(crate) fn u32_at(input: &[u8], at: usize) -> Result<u32, DsmStatus> {
    let bytes = input
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(DsmStatus::InvalidInput)?;
    Ok(u32::from_le_bytes(*bytes))
}

/// The little-endian u64 at `at`, or what a short buffer deserves.
pub(crate) fn u64_at(input: &[u8], at: usize) -> Result<u64, DsmStatus> {
    let bytes = input
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(DsmStatus::InvalidInput)?;
    Ok(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm::guid::ROOT_DSM;

    static FAMILY: DsmFamily<bool> = DsmFamily {
        guid: ROOT_DSM,
        latest: 2,
        functions: &[
            DsmFunction {
                index: 1,
                since: 1,
                available: |_| true,
                run: |_, input| Ok(input.to_vec()),
            },
            DsmFunction {
                index: 3,
                since: 1,
                available: |on| *on,
                run: |_, _| Err(DsmStatus::HardwareError),
            },
            DsmFunction {
                index: 31,
                since: 2,
                available: |_| true,
                run: |_, _| Ok(vec![]),
            },
        ],
    };

    fn call(revision: u32, function: u32) -> DsmCall<'static> {
        DsmCall {
            handle: 1,
            guid: ROOT_DSM,
            revision,
            function,
            input: &[7],
        }
    }

    #[test]
    fn function_zero_reports_the_table() {
        for (on, revision, mask) in [
            (true, 1, 0b1011u32),
            (false, 1, 0b0011),
            (true, 2, 0x8000_000b),
            (true, 0, 0),
            (true, 3, 0),
            (true, u32::MAX, 0),
        ] {
            assert_eq!(
                FAMILY.answer(&on, &call(revision, 0)),
                mask.to_le_bytes(),
                "{on} {revision}"
            );
        }
    }

    #[test]
    fn every_function_of_the_mask_answers_and_no_other() {
        for revision in 0..4 {
            let mask = FAMILY.mask(&true, revision);
            for function in 1..32 {
                let not_supported = FAMILY.answer(&true, &call(revision, function)) == [1, 0, 0, 0];
                assert_eq!(
                    not_supported,
                    mask & (1 << function) == 0,
                    "revision {revision} function {function}"
                );
            }
            assert_eq!(FAMILY.answer(&true, &call(revision, 32)), [1, 0, 0, 0]);
        }
    }

    #[test]
    fn reply_is_a_status_word_and_the_output() {
        assert_eq!(FAMILY.answer(&true, &call(1, 1)), [0, 0, 0, 0, 7]);
        assert_eq!(FAMILY.answer(&true, &call(1, 3)), [4, 0, 0, 0]);
    }
}
