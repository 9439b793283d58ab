//! `_DSM` of the NVDIMM root device. ACPI 6.5 9.20.7.

use super::{DsmCall, DsmFamily, DsmStatus, u64_at, unknown};
use crate::nvdimm::guid::{METHODS, ROOT_DSM};

/// The root's state that its functions see.
pub struct Root<'a> {
    /// Structures of the NFIT.
    pub fit: &'a [u8],
    /// Counts the versions of `fit`.
    pub generation: u32,
}

/// The root has no functions of its own: it answers function 0 with an empty mask, so the guest uses no ARS.
static FAMILY: DsmFamily<()> = DsmFamily {
    guid: ROOT_DSM,
    latest: 1,
    functions: &[],
};

/// Function of [`METHODS`] that returns a piece of the FIT.
pub const READ_FIT: u32 = 1;
/// Status of [`READ_FIT`]: the FIT is no longer the one whose earlier pieces were read; start again.
pub const FIT_CHANGED: u32 = 0x100;
/// Most bytes of the FIT in one piece.
pub const FIT_PIECE: usize = 4096;

/// Reply to a call on the root.
pub fn answer(root: &Root<'_>, call: &DsmCall<'_>) -> Vec<u8> {
    match call.guid {
        ROOT_DSM => FAMILY.answer(&(), call),
        METHODS if call.function == READ_FIT => match read_fit(root, call.input) {
            Ok(Some(output)) => super::reply(Ok(output)),
            Ok(None) => FIT_CHANGED.to_le_bytes().to_vec(),
            Err(status) => super::reply(Err(status)),
        },
        _ => unknown(call, DsmStatus::NotSupported),
    }
}

/// Input: offset u64, generation u64 (of the earlier pieces; not looked at for offset 0). Output after the status: the
/// generation u32 and the piece; an empty piece is the end.
fn read_fit(root: &Root<'_>, input: &[u8]) -> Result<Option<Vec<u8>>, DsmStatus> {
    let (offset, generation) = (u64_at(input, 0)?, u64_at(input, 8)?);
    if offset != 0 && generation != u64::from(root.generation) {
        return Ok(None);
    }
    let offset = usize::try_from(offset).map_err(|_| DsmStatus::InvalidInput)?;
    let rest = root.fit.get(offset..).ok_or(DsmStatus::InvalidInput)?;
    let piece = rest.get(..FIT_PIECE).unwrap_or(rest);
    Ok(Some([&root.generation.to_le_bytes(), piece].concat()))
}

/// Whether `call` with its `reply` ended a read of the whole FIT.
pub fn ends_fit_read(call: &DsmCall<'_>, reply: &[u8]) -> bool {
    call.guid == METHODS && call.function == READ_FIT && reply.len() == 8 && reply.starts_with(&[0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm::guid::{Guid, INTEL_DIMM_DSM};

    fn call(guid: Guid, function: u32, input: &[u8]) -> DsmCall<'_> {
        DsmCall {
            handle: u32::MAX,
            guid,
            revision: 1,
            function,
            input,
        }
    }

    fn fit_input(offset: u64, generation: u64) -> [u8; 16] {
        let mut input = [0; 16];
        input[..8].copy_from_slice(&offset.to_le_bytes());
        input[8..].copy_from_slice(&generation.to_le_bytes());
        input
    }

    #[test]
    fn root_supports_nothing_and_says_so() {
        let root = Root {
            fit: &[],
            generation: 1,
        };
        for guid in [ROOT_DSM, INTEL_DIMM_DSM, METHODS] {
            assert_eq!(answer(&root, &call(guid, 0, &[])), [0; 4]);
            assert_eq!(answer(&root, &call(guid, 2, &[])), [1, 0, 0, 0]);
        }
    }

    #[test]
    fn fit_is_read_in_pieces_until_an_empty_one() {
        let fit: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let root = Root {
            fit: &fit,
            generation: 5,
        };
        let (mut read, mut generation) = (Vec::new(), 0u64);
        loop {
            let input = fit_input(read.len() as u64, generation);
            let call = call(METHODS, READ_FIT, &input);
            let reply = answer(&root, &call);
            assert_eq!(reply[..4], [0; 4]);
            generation = u32::from_le_bytes(reply[4..8].try_into().unwrap()).into();
            assert_eq!(ends_fit_read(&call, &reply), reply.len() == 8);
            if reply.len() == 8 {
                break;
            }
            read.extend_from_slice(&reply[8..]);
        }
        assert_eq!((read, generation), (fit, 5));
    }

    #[test]
    fn moved_generation_restarts_the_read() {
        let root = Root {
            fit: &[1; 100],
            generation: 2,
        };
        assert_eq!(answer(&root, &call(METHODS, READ_FIT, &fit_input(50, 1))), [0, 1, 0, 0]);
        assert_eq!(answer(&root, &call(METHODS, READ_FIT, &fit_input(0, 1))).len(), 108);
    }

    #[test]
    fn senseless_input_is_invalid() {
        let root = Root {
            fit: &[1; 100],
            generation: 2,
        };
        assert_eq!(
            answer(&root, &call(METHODS, READ_FIT, &fit_input(101, 2))),
            [3, 0, 0, 0]
        );
        assert_eq!(
            answer(&root, &call(METHODS, READ_FIT, &fit_input(u64::MAX, 2))),
            [3, 0, 0, 0]
        );
        assert_eq!(answer(&root, &call(METHODS, READ_FIT, &[0; 15])), [3, 0, 0, 0]);
    }
}
