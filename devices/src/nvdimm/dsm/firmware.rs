//! Firmware functions of the Intel family: update 12 to 16, activation 29 and 30. "NVDIMM DSM Interface".

use super::{DsmFunction, DsmReply, DsmResult, DsmStatus, array_at, u32_at};
use crate::nvdimm::{
    Dimm,
    firmware::{self, Activation, ActivationResult, FirmwareError},
};
use std::time::Duration;

/// Info 12, start 13, send 14, finish 15, query 16, activation info 29, arm 30.
pub static FUNCTIONS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 12,
        since: 2,
        available: |dimm| dimm.allows(12),
        run: info,
    },
    DsmFunction {
        index: 13,
        since: 2,
        available: |dimm| dimm.allows(13),
        run: |dimm, _| Ok(dimm.firmware.start().map_err(status)?.to_le_bytes().to_vec().into()),
    },
    DsmFunction {
        index: 14,
        since: 2,
        available: |dimm| dimm.allows(14),
        run: send,
    },
    DsmFunction {
        index: 15,
        since: 2,
        available: |dimm| dimm.allows(15),
        run: finish,
    },
    DsmFunction {
        index: 16,
        since: 2,
        available: |dimm| dimm.allows(16),
        run: query,
    },
    DsmFunction {
        index: 29,
        since: 2,
        available: |dimm| dimm.allows(29),
        run: activation,
    },
    DsmFunction {
        index: 30,
        since: 2,
        available: |dimm| dimm.allows(30),
        run: arm,
    },
];

/// Version of the firmware interface that function 12 reports.
const INTERFACE: u32 = 0x0105;

/// Extended codes say different things in different functions; the numbers of each happen to agree.
fn status(error: FirmwareError) -> DsmStatus {
    match error {
        FirmwareError::NotReceiving => DsmStatus::RETRY,
        FirmwareError::BadPiece => DsmStatus::INVALID_INPUT,
        FirmwareError::Busy | FirmwareError::WrongContext => DsmStatus::extended(1),
        FirmwareError::AlreadyDone | FirmwareError::Verifying => DsmStatus::extended(2),
        FirmwareError::BadImage => DsmStatus::extended(3),
        FirmwareError::OutOfOrder => DsmStatus::extended(4),
    }
}

/// An update was given up: the answer to an abort that worked.
const ABORTED: DsmStatus = DsmStatus::extended(4);

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Out: storage, largest piece, query interval and longest query in µs, capability u8 and three reserved, interface
/// version, running version u64, updated version u64.
fn info(dimm: &mut Dimm, _: &[u8]) -> DsmResult {
    let words = [
        u32::try_from(firmware::STORAGE).unwrap_or(u32::MAX),
        u32::try_from(firmware::MAX_PIECE).unwrap_or(u32::MAX),
        micros(firmware::QUERY_INTERVAL),
        micros(firmware::MAX_QUERY),
        0,
        INTERFACE,
    ];
    let versions = [dimm.firmware.state().running, dimm.firmware.updated()];
    let words = words.into_iter().flat_map(u32::to_le_bytes);
    let output: Vec<u8> = words.chain(versions.into_iter().flat_map(u64::to_le_bytes)).collect();
    Ok(output.into())
}

/// In: context, offset, length, the bytes.
fn send(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let (context, offset, len) = (u32_at(input, 0)?, u32_at(input, 4)?, u32_at(input, 8)?);
    let offset = usize::try_from(offset).map_err(|_| DsmStatus::INVALID_INPUT)?;
    let len = usize::try_from(len).map_err(|_| DsmStatus::INVALID_INPUT)?;
    let piece = input.get(12..).and_then(|rest| rest.get(..len));
    let piece = piece.ok_or(DsmStatus::INVALID_INPUT)?;
    dimm.firmware.send(context, offset, piece).map_err(status)?;
    Ok(DsmReply::default())
}

/// In: control u8 (0 finish, 1 abort) and three reserved, context.
fn finish(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let [control] = array_at(input, 0)?;
    let context = u32_at(input, 4)?;
    match control {
        0 => dimm.firmware.finish(context, dimm.clock.now()).map_err(status)?,
        // Whoever forces an update knows no context of the one it gives up.
        1 => return Err(dimm.firmware.abort().map_or_else(status, |()| ABORTED)),
        _ => return Err(DsmStatus::INVALID_INPUT),
    }
    Ok(DsmReply::default())
}

/// In: context. Out: version u64.
fn query(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let context = u32_at(input, 0)?;
    let version = dimm.firmware.query(context, dimm.clock.now()).map_err(status)?;
    Ok(version.to_le_bytes().to_vec().into())
}

/// Number of a state of activation, also of a bus.
pub(super) fn activation_number(state: Activation) -> u8 {
    match state {
        Activation::Idle => 0,
        Activation::Armed => 1,
        Activation::Busy => 2,
    }
}

/// Out: result u16, state u8, seven reserved.
fn activation(dimm: &mut Dimm, _: &[u8]) -> DsmResult {
    let now = dimm.clock.now();
    let result: u16 = match dimm.firmware.result(now) {
        ActivationResult::None => 0,
        ActivationResult::NotStaged => 1,
        ActivationResult::Success => 2,
    };
    let [low, high] = result.to_le_bytes();
    let state = activation_number(dimm.firmware.activation(now));
    Ok(vec![low, high, state, 0, 0, 0, 0, 0, 0, 0].into())
}

/// In: u8, whether the next activation includes the DIMM.
fn arm(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    match array_at(input, 0)? {
        [0] => dimm.firmware.arm(false),
        [1] => dimm.firmware.arm(true),
        _ => return Err(DsmStatus::INVALID_INPUT),
    }
    Ok(DsmReply::default())
}

#[cfg(test)]
#[path = "firmware_tests.rs"]
mod tests;
