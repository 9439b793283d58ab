//! Intel's functions of the root device: firmware activation of all DIMMs at once. "NVDIMM DSM Interface".

use super::{Answer, DsmCall, DsmFamily, DsmFunction, DsmReply, DsmResult, DsmStatus, array_at, firmware};
use crate::nvdimm::{BusState, firmware::Activation, guid::INTEL_BUS_DSM};
use std::time::Duration;

static FAMILY: DsmFamily<BusState> = DsmFamily {
    guid: INTEL_BUS_DSM,
    latest: 1,
    functions: &[FUNCTIONS],
};

static FUNCTIONS: &[DsmFunction<BusState>] = &[
    DsmFunction {
        index: 1,
        since: 1,
        available: can_activate,
        run: info,
    },
    DsmFunction {
        index: 2,
        since: 1,
        available: can_activate,
        run: activate,
    },
];

/// How long the machine must stand still for each armed DIMM.
const QUIESCE: Duration = Duration::from_secs(1);
/// How long it may.
const MAX_QUIESCE: Duration = Duration::from_secs(3);
/// Firmware can make processors and devices stand still, the operating system may, and a reset activates as well.
const CAPABILITY: u8 = 0b111;

/// Reasons why [`activate`] did nothing; status 6 and the reason.
const fn refused(reason: u16) -> DsmStatus {
    DsmStatus(6 | (reason as u32) << 16)
}
const NONE_ARMED: DsmStatus = refused(1);
const BUSY: DsmStatus = refused(2);
const TIMEOUT: DsmStatus = refused(4);

/// Answer to a call of this family.
pub fn answer(bus: &mut BusState, call: &DsmCall<'_>) -> Answer {
    FAMILY.answer(bus, call)
}

/// Whether any DIMM can be armed.
fn can_activate(bus: &BusState) -> bool {
    bus.dimms.iter().any(|dimm| dimm.is_intel() && dimm.allows(30))
}

struct Info {
    state: Activation,
    quiesce: Duration,
}

fn look(bus: &BusState) -> Info {
    let now = bus.clock.now();
    let armed = bus.dimms.iter().filter(|dimm| dimm.firmware.is_armed()).count();
    let busy = |dimm: &crate::nvdimm::Dimm| dimm.firmware.activation(now) == Activation::Busy;
    Info {
        state: match armed {
            0 if bus.dimms.iter().any(busy) => Activation::Busy,
            0 => Activation::Idle,
            _ => Activation::Armed,
        },
        quiesce: QUIESCE.saturating_mul(u32::try_from(armed).unwrap_or(u32::MAX)),
    }
}

/// Out: reserved u16, state u8, capability u8, times in µs as u64: activation, processors and devices standing still, and
/// the longest that may take. Linux calls it an overflow when activation takes longer than that.
fn info(bus: &mut BusState, _: &[u8]) -> DsmResult {
    let Info { state, quiesce } = look(bus);
    let mut output = vec![0, 0, firmware::activation_number(state), CAPABILITY];
    for time in [quiesce, quiesce, quiesce, MAX_QUIESCE] {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        output.extend_from_slice(&micros.to_le_bytes());
    }
    Ok(output.into())
}

/// In: u8, devices are to be made idle (0) or already are (1). Nothing of ours needs either. With more DIMMs than the time
/// is for, all are activated all the same and the status says so.
fn activate(bus: &mut BusState, input: &[u8]) -> DsmResult {
    let (0 | 1) = array_at::<1>(input, 0)?[0] else {
        return Err(DsmStatus::INVALID_INPUT);
    };
    let Info { state, quiesce } = look(bus);
    match state {
        Activation::Busy => return Err(BUSY),
        Activation::Idle => return Err(NONE_ARMED),
        Activation::Armed => {}
    }
    let now = bus.clock.now();
    for dimm in &mut bus.dimms {
        dimm.firmware.activate(now);
    }
    if quiesce > MAX_QUIESCE {
        return Err(TIMEOUT);
    }
    Ok(DsmReply::default())
}

#[cfg(test)]
#[path = "intel_bus_tests.rs"]
mod tests;
