//! `_DSM` of the NVDIMM root device. ACPI 6.5 9.20.7.

use super::{Answer, DsmCall, DsmFamily, DsmReply, DsmStatus, intel_bus, u64_at, unknown};
use crate::nvdimm::{
    BusState, ars,
    guid::{INTEL_BUS_DSM, METHODS, ROOT_DSM},
};

static FAMILY: DsmFamily<BusState> = DsmFamily {
    guid: ROOT_DSM,
    latest: 1,
    functions: &[ars::FUNCTIONS],
};

/// Function of [`METHODS`] that returns a piece of the FIT.
pub const READ_FIT: u32 = 1;
/// Function of [`METHODS`] that returns, and forgets, what the guest is to be notified of.
pub const TAKE_EVENTS: u32 = 2;
/// Status of [`READ_FIT`]: the FIT is no longer the one whose earlier pieces were read; start again.
pub const FIT_CHANGED: DsmStatus = DsmStatus(0x100);
/// Most bytes of the FIT in one piece.
pub const FIT_PIECE: usize = 4096;

/// Answer to a call on the root.
pub fn answer(bus: &mut BusState, call: &DsmCall<'_>) -> Answer {
    match (call.guid, call.function) {
        (ROOT_DSM, _) => FAMILY.answer(bus, call),
        (INTEL_BUS_DSM, _) => intel_bus::answer(bus, call),
        (METHODS, READ_FIT) => super::reply(read_fit(bus, call.input)),
        (METHODS, TAKE_EVENTS) => super::reply(Ok(bus.events.take().into())),
        _ => unknown(call, DsmStatus::NOT_SUPPORTED),
    }
}

/// Input: offset u64, generation u64 (of the earlier pieces; not looked at for offset 0). Output after the status: the
/// generation u32 and the piece; an empty piece is the end.
fn read_fit(bus: &mut BusState, input: &[u8]) -> Result<DsmReply, DsmStatus> {
    let (offset, generation) = (u64_at(input, 0)?, u64_at(input, 8)?);
    if offset != 0 && generation != u64::from(bus.fit_generation) {
        return Err(FIT_CHANGED);
    }
    let offset = usize::try_from(offset).map_err(|_| DsmStatus::INVALID_INPUT)?;
    let rest = bus.fit.get(offset..).ok_or(DsmStatus::INVALID_INPUT)?;
    let piece = rest.get(..FIT_PIECE).unwrap_or(rest);
    if piece.is_empty() {
        bus.fit_seen = bus.fit_generation;
    }
    Ok([&bus.fit_generation.to_le_bytes(), piece].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Clock,
        nvdimm::{
            NfitPlan,
            guid::{Guid, INTEL_DIMM_DSM},
        },
    };

    fn bus(fit: Vec<u8>, fit_generation: u32) -> BusState {
        BusState {
            fit,
            fit_generation,
            ..BusState::new(NfitPlan::default(), vec![], Clock::manual())
        }
    }

    fn ask(bus: &mut BusState, call: &DsmCall<'_>) -> Vec<u8> {
        answer(bus, call).bytes
    }

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
    fn root_supports_its_family_alone_and_says_so() {
        let mut root = bus(vec![], 1);
        assert_eq!(ask(&mut root, &call(ROOT_DSM, 0, &[])), 0x3bf_u32.to_le_bytes());
        for guid in [INTEL_DIMM_DSM, METHODS] {
            assert_eq!(ask(&mut root, &call(guid, 0, &[])), [0; 4]);
        }
        for guid in [ROOT_DSM, INTEL_DIMM_DSM, METHODS] {
            assert_eq!(ask(&mut root, &call(guid, 6, &[])), [1, 0, 0, 0]);
        }
    }

    #[test]
    fn fit_is_read_in_pieces_until_an_empty_one() {
        let fit: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut root = bus(fit.clone(), 5);
        let (mut read, mut generation) = (Vec::new(), 0u64);
        loop {
            let input = fit_input(read.len() as u64, generation);
            let call = call(METHODS, READ_FIT, &input);
            let reply = ask(&mut root, &call);
            assert_eq!(reply[..4], [0; 4]);
            generation = u32::from_le_bytes(reply[4..8].try_into().unwrap()).into();
            assert_eq!(root.fit_seen == 5, reply.len() == 8);
            if reply.len() == 8 {
                break;
            }
            read.extend_from_slice(&reply[8..]);
        }
        assert_eq!((read, generation), (fit, 5));
    }

    #[test]
    fn moved_generation_restarts_the_read() {
        let mut root = bus(vec![1; 100], 2);
        assert_eq!(
            ask(&mut root, &call(METHODS, READ_FIT, &fit_input(50, 1))),
            [0, 1, 0, 0]
        );
        assert_eq!(ask(&mut root, &call(METHODS, READ_FIT, &fit_input(0, 1))).len(), 108);
    }

    #[test]
    fn senseless_input_is_invalid() {
        let mut root = bus(vec![1; 100], 2);
        assert_eq!(
            ask(&mut root, &call(METHODS, READ_FIT, &fit_input(101, 2))),
            [3, 0, 0, 0]
        );
        assert_eq!(
            ask(&mut root, &call(METHODS, READ_FIT, &fit_input(u64::MAX, 2))),
            [3, 0, 0, 0]
        );
        assert_eq!(ask(&mut root, &call(METHODS, READ_FIT, &[0; 15])), [3, 0, 0, 0]);
    }
}
