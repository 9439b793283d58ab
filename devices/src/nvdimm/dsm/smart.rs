//! Health functions of the Intel family: 1, 2, 3, 10, 17 and 18. "NVDIMM DSM Interface".

use super::{DsmFunction, DsmReply, DsmResult, DsmStatus, Tell, array_at};
use crate::nvdimm::{
    Dimm,
    health::{Condition, Health, Injection, Reading, Temperature, Thresholds},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// SMART 1, thresholds 2, flags 3, latch of the shutdown status 10, set thresholds 17, inject 18.
pub static FUNCTIONS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 1,
        since: 1,
        available: |dimm| dimm.allows(1),
        run: |dimm, _| Ok(smart(&dimm.health.reading()).into()),
    },
    DsmFunction {
        index: 2,
        since: 1,
        available: |dimm| dimm.allows(2),
        run: |dimm, _| Ok(thresholds(&dimm.health).into()),
    },
    DsmFunction {
        index: 3,
        since: 1,
        available: |dimm| dimm.allows(3),
        run: |dimm, _| Ok(u32::from(dimm.plan.state.bits()).to_le_bytes().to_vec().into()),
    },
    DsmFunction {
        index: 10,
        since: 1,
        available: |dimm| dimm.allows(10),
        run: latch,
    },
    DsmFunction {
        index: 17,
        since: 2,
        available: |dimm| dimm.allows(17),
        run: set_thresholds,
    },
    DsmFunction {
        index: 18,
        since: 2,
        available: |dimm| dimm.allows(18),
        run: inject,
    },
];

bitflags::bitflags! {
    /// Fields of SMART that mean something.
    struct Valid: u32 {
        const HEALTH = 1 << 0;
        const SPARES = 1 << 1;
        const LIFE_USED = 1 << 2;
        const MEDIA_TEMPERATURE = 1 << 3;
        const CONTROLLER_TEMPERATURE = 1 << 4;
        const SHUTDOWN_COUNT = 1 << 5;
        const ALARMS = 1 << 9;
        const SHUTDOWN_STATE = 1 << 10;
    }
}

/// Output of function 1 after the status.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Smart {
    valid: U32,
    reserved: [u8; 4],
    health: u8,
    spares: u8,
    life_used: u8,
    trips: u8,
    media_temperature: U16,
    controller_temperature: U16,
    shutdown_count: U32,
    ait_status: u8,
    pmic_temperature: U16,
    reserved2: [u8; 8],
    shutdown_state: u8,
    vendor_len: U32,
    vendor: [u8; 92],
}
const _: () = assert!(size_of::<Smart>() == 128);

/// State of the address translation's memory that `nfit_test` shows; its field is not marked valid.
const AIT_STATUS: u8 = 1;
/// Temperature of the power supply, likewise.
const PMIC_TEMPERATURE: Temperature = Temperature::celsius(40);

fn smart(reading: &Reading) -> Vec<u8> {
    let smart = Smart {
        valid: U32::new(Valid::all().bits()),
        reserved: [0; 4],
        health: reading.condition.bits(),
        spares: reading.spares,
        life_used: reading.life_used,
        trips: reading.trips.bits().to_le_bytes()[0],
        media_temperature: U16::new(reading.media_temperature.0),
        controller_temperature: U16::new(reading.controller_temperature.0),
        shutdown_count: U32::new(reading.shutdown_count),
        ait_status: AIT_STATUS,
        pmic_temperature: U16::new(PMIC_TEMPERATURE.0),
        reserved2: [0; 8],
        shutdown_state: reading.dirty.into(),
        vendor_len: U32::new(0),
        vendor: [0; 92],
    };
    smart.as_bytes().to_vec()
}

/// Input of function 17, and output of function 2 after the status but for a last reserved byte.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Limits {
    enabled: U16,
    spares: u8,
    media_temperature: U16,
    controller_temperature: U16,
}
const _: () = assert!(size_of::<Limits>() == 7);

fn thresholds(health: &Health) -> Vec<u8> {
    let Thresholds {
        enabled,
        spares,
        media_temperature,
        controller_temperature,
    } = health.thresholds();
    let limits = Limits {
        enabled: U16::new(enabled),
        spares,
        media_temperature: U16::new(media_temperature.0),
        controller_temperature: U16::new(controller_temperature.0),
    };
    [limits.as_bytes(), &[0]].concat()
}

/// The structure at the start of an input; what follows it is not looked at.
fn prefix<T: FromBytes + KnownLayout + Immutable + Unaligned>(input: &[u8]) -> Result<T, DsmStatus> {
    let read = T::read_from_prefix(input).map_err(|_| DsmStatus::INVALID_INPUT)?;
    Ok(read.0)
}

fn told(alarm: bool) -> DsmReply {
    DsmReply {
        tell: if alarm { Tell::Event } else { Tell::Nothing },
        ..DsmReply::default()
    }
}

fn set_thresholds(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let limits: Limits = prefix(input)?;
    Ok(told(dimm.health.set_thresholds(Thresholds {
        enabled: limits.enabled.get(),
        spares: limits.spares,
        media_temperature: Temperature(limits.media_temperature.get()),
        controller_temperature: Temperature(limits.controller_temperature.get()),
    })))
}

/// Whether an unsafe shutdown from now on is counted.
fn latch(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    match array_at(input, 0)? {
        [0] => dimm.health.latch(false),
        [1] => dimm.health.latch(true),
        _ => return Err(DsmStatus::INVALID_INPUT),
    }
    Ok(DsmReply::default())
}

bitflags::bitflags! {
    /// Which parts of an injection are meant.
    struct Inject: u64 {
        const MEDIA_TEMPERATURE = 1 << 0;
        const SPARES = 1 << 1;
        const FATAL = 1 << 2;
        const UNSAFE_SHUTDOWN = 1 << 3;
    }
}

/// Input of function 18.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct InjectInput {
    fields: U64,
    media_temperature_on: u8,
    media_temperature: U16,
    spares_on: u8,
    spares: u8,
    fatal_on: u8,
    unsafe_shutdown_on: u8,
}
const _: () = assert!(size_of::<InjectInput>() == 15);

/// Bits for things that do not exist are not looked at.
fn inject(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let input: InjectInput = prefix(input)?;
    let fields = Inject::from_bits_truncate(input.fields.get());
    let temperature = Temperature(input.media_temperature.get());
    for (field, injection) in [
        (
            Inject::MEDIA_TEMPERATURE,
            Injection::MediaTemperature((input.media_temperature_on != 0).then_some(temperature)),
        ),
        (
            Inject::SPARES,
            Injection::Spares((input.spares_on != 0).then_some(input.spares)),
        ),
        (
            Inject::FATAL,
            Injection::Condition((input.fatal_on != 0).then_some(Condition::FATAL)),
        ),
        (
            Inject::UNSAFE_SHUTDOWN,
            Injection::UnsafeShutdown(input.unsafe_shutdown_on != 0),
        ),
    ] {
        if fields.contains(field) {
            dimm.health.inject(injection);
        }
    }
    Ok(told(dimm.health.is_alarming()))
}

#[cfg(test)]
mod tests;
