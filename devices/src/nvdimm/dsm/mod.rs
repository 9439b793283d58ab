//! `_DSM` functions: one table per family, from which dispatch and function 0's mask are both derived.
//!
//! Pure: a call and the target it names give the reply's bytes. What firmware does not know it answers as firmware would:
//! function 0 of an unknown family or revision says "nothing is supported", any other function says so in its status.

pub mod dimm;
mod firmware;
pub mod hpe1;
mod hyperv;
mod intel_bus;
mod msft;
pub mod root;
mod security;
mod smart;

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

/// Status word of a reply: what the NVDIMM root and Intel-family DIMMs say in its low half; the high half carries what a
/// function adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DsmStatus(pub u32);

impl DsmStatus {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The function is not implemented.
    pub const NOT_SUPPORTED: Self = Self(1);
    /// No such DIMM.
    pub const NO_SUCH_DIMM: Self = Self(2);
    /// The input makes no sense.
    pub const INVALID_INPUT: Self = Self(3);
    /// The backing failed.
    pub const HARDWARE_ERROR: Self = Self(4);
    /// Not in this state; try again.
    pub const RETRY: Self = Self(5);
    /// Nothing of this kind is left.
    pub const NO_RESOURCES: Self = Self(8);
    /// Not yet.
    pub const NOT_READY: Self = Self(9);
    /// The security state does not allow it.
    pub const INVALID_SECURITY_STATE: Self = Self(10);
    /// Not the passphrase.
    pub const INVALID_PASSPHRASE: Self = Self(11);

    /// "See the extended code", with that code in the high half.
    pub const fn extended(code: u16) -> Self {
        Self(7 | (code as u32) << 16)
    }
}

/// What the guest is to be told after a call, beside its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tell {
    /// Nothing.
    #[default]
    Nothing,
    /// `Notify` 0x81 on the device that was called: on the root, an uncorrectable error was found; on a DIMM, its health
    /// or an alarm changed.
    Event,
}

/// A carried-out call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DsmReply {
    /// First word of the reply.
    pub status: DsmStatus,
    /// What follows it.
    pub output: Vec<u8>,
    /// What the guest hears of it.
    pub tell: Tell,
}

impl From<Vec<u8>> for DsmReply {
    fn from(output: Vec<u8>) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }
}

impl DsmReply {
    /// Status word, then output, as the guest reads them.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.status.0.to_le_bytes().to_vec();
        bytes.extend(self.output);
        bytes
    }
}

/// A reply, or the status of a call that failed and has no output.
pub type DsmResult = Result<DsmReply, DsmStatus>;

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
    pub run: fn(&mut T, &[u8]) -> DsmResult,
}

/// All functions behind one GUID.
#[derive(Debug)]
pub struct DsmFamily<T: 'static> {
    /// Family.
    pub guid: Guid,
    /// Newest revision.
    pub latest: u32,
    /// Functions but 0, which is derived, grouped by subject.
    pub functions: &'static [&'static [DsmFunction<T>]],
}

/// The answer to any call: the bytes of the reply, and what the guest hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Reply.
    pub bytes: Vec<u8>,
    /// Beside it.
    pub tell: Tell,
}

impl From<Vec<u8>> for Answer {
    fn from(bytes: Vec<u8>) -> Self {
        let tell = Tell::Nothing;
        Self { bytes, tell }
    }
}

impl<T> DsmFamily<T> {
    /// Answer to `call`, whose GUID is this family's.
    pub fn answer(&self, target: &mut T, call: &DsmCall<'_>) -> Answer {
        if call.function == 0 {
            return self.mask(target, call.revision).to_le_bytes().to_vec().into();
        }
        let known = |f: &&DsmFunction<T>| f.index == call.function && self.has(f, target, call.revision);
        let function = self.functions.iter().copied().flatten().find(known);
        reply(match function {
            Some(function) => (function.run)(target, call.input),
            None => Err(DsmStatus::NOT_SUPPORTED),
        })
    }

    /// Bit n: function n answers at `revision`; bit 0: any does. ACPI 6.5 9.1.1.
    pub fn mask(&self, target: &T, revision: u32) -> u32 {
        let all = self.functions.iter().copied().flatten();
        let supported = all.filter(|f| self.has(f, target, revision));
        supported.fold(0, |mask, f| mask | 1 | 1u32.checked_shl(f.index).unwrap_or(0))
    }

    fn has(&self, function: &DsmFunction<T>, target: &T, revision: u32) -> bool {
        (function.since..=self.latest).contains(&revision) && (function.available)(target)
    }
}

/// Answer to a call that no family claims.
pub fn unknown(call: &DsmCall<'_>, status: DsmStatus) -> Answer {
    if call.function == 0 {
        0u32.to_le_bytes().to_vec().into()
    } else {
        reply(Err(status))
    }
}

/// What the guest gets for `result`.
pub(crate) fn reply(result: DsmResult) -> Answer {
    let reply = result.unwrap_or_else(|status| DsmReply {
        status,
        ..DsmReply::default()
    });
    let tell = reply.tell;
    Answer {
        bytes: reply.into_bytes(),
        tell,
    }
}

/// The little-endian u32 at `at`, or what a short buffer deserves.
pub(crate) fn u32_at(input: &[u8], at: usize) -> Result<u32, DsmStatus> {
    array_at(input, at).map(u32::from_le_bytes)
}

/// The little-endian u64 at `at`, or what a short buffer deserves.
pub(crate) fn u64_at(input: &[u8], at: usize) -> Result<u64, DsmStatus> {
    array_at(input, at).map(u64::from_le_bytes)
}

/// The `N` bytes at `at`, or what a short buffer deserves.
pub(crate) fn array_at<const N: usize>(input: &[u8], at: usize) -> Result<[u8; N], DsmStatus> {
    let bytes = input.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().ok_or(DsmStatus::INVALID_INPUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm::guid::ROOT_DSM;

    static FAMILY: DsmFamily<bool> = DsmFamily {
        guid: ROOT_DSM,
        latest: 2,
        functions: &[&[
            DsmFunction {
                index: 1,
                since: 1,
                available: |_| true,
                run: |_, input| Ok(input.to_vec().into()),
            },
            DsmFunction {
                index: 3,
                since: 1,
                available: |on| *on,
                run: |_, _| Err(DsmStatus::HARDWARE_ERROR),
            },
            DsmFunction {
                index: 31,
                since: 2,
                available: |_| true,
                run: |_, _| Ok(DsmReply::default()),
            },
        ]],
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
        for (mut on, revision, mask) in [
            (true, 1, 0b1011u32),
            (false, 1, 0b0011),
            (true, 2, 0x8000_000b),
            (true, 0, 0),
            (true, 3, 0),
            (true, u32::MAX, 0),
        ] {
            assert_eq!(
                FAMILY.answer(&mut on, &call(revision, 0)).bytes,
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
                let not_supported = FAMILY.answer(&mut true, &call(revision, function)).bytes == [1, 0, 0, 0];
                assert_eq!(
                    not_supported,
                    mask & (1 << function) == 0,
                    "revision {revision} function {function}"
                );
            }
            assert_eq!(FAMILY.answer(&mut true, &call(revision, 32)).bytes, [1, 0, 0, 0]);
        }
    }

    #[test]
    fn reply_is_a_status_word_and_the_output() {
        assert_eq!(FAMILY.answer(&mut true, &call(1, 1)).bytes, [0, 0, 0, 0, 7]);
        assert_eq!(FAMILY.answer(&mut true, &call(1, 3)).bytes, [4, 0, 0, 0]);
    }
}
