//! Functions of a DIMM of HPE's first family: health, thresholds, identity of module and energy source, error injection.
//! Labels are reached through `_LSI`, `_LSR` and `_LSW`; Linux leaves functions 4 to 6 alone.

use super::{DsmFamily, DsmFunction, DsmReply, DsmResult, DsmStatus, Tell, array_at, dimm::LABELS, u32_at};
use crate::nvdimm::{
    Dimm,
    guid::HPE1_DIMM_DSM,
    health::{Alarms, Condition, Injection, Reading},
};
use zerocopy::{
    FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

/// The family. Linux knows functions 1, 2, 4 to 6, 10 to 13 and 18 to 20.
pub static FAMILY: DsmFamily<Dimm> = DsmFamily {
    guid: HPE1_DIMM_DSM,
    latest: 1,
    functions: &[LABELS, FUNCTIONS],
};

static FUNCTIONS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 1,
        since: 1,
        available: |dimm| dimm.allows(1),
        run: smart,
    },
    DsmFunction {
        index: 2,
        since: 1,
        available: |dimm| dimm.allows(2),
        run: thresholds,
    },
    DsmFunction {
        index: 10,
        since: 1,
        available: |dimm| dimm.allows(10),
        run: |_, _| Ok(Identity::NEW.as_bytes().to_vec().into()),
    },
    DsmFunction {
        index: 11,
        since: 1,
        available: |dimm| dimm.allows(11),
        run: |_, _| Ok(EnergySource::NEW.as_bytes().to_vec().into()),
    },
    DsmFunction {
        index: 12,
        since: 1,
        available: |dimm| dimm.allows(12),
        run: |dimm, _| Ok(last_backup(&dimm.health.reading()).to_vec().into()),
    },
    DsmFunction {
        index: 13,
        since: 1,
        available: |dimm| dimm.allows(13),
        run: set_life_threshold,
    },
    DsmFunction {
        index: 18,
        since: 1,
        available: |dimm| dimm.allows(18),
        run: |_, _| Ok(injectable().to_vec().into()),
    },
    DsmFunction {
        index: 19,
        since: 1,
        available: |dimm| dimm.allows(19),
        run: inject,
    },
    DsmFunction {
        index: 20,
        since: 1,
        available: |dimm| dimm.allows(20),
        run: |dimm, _| Ok(injected(&dimm.hpe1).to_vec().into()),
    },
];

/// What this family remembers beside the DIMM's health. Gone with the power.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hpe1 {
    /// Percent of life left at which to warn.
    life_warning: u8,
    injection: Option<ErrorInjection>,
}

#[derive(Debug, Clone, Copy)]
struct ErrorInjection {
    kind: u8,
    once: bool,
    shown: bool,
}

bitflags::bitflags! {
    /// Fields of SMART that are asked for, and those that mean something.
    struct Valid: u32 {
        const HEALTH = 1 << 0;
        const TEMPERATURE = 1 << 1;
        const SPARES = 1 << 2;
        const ALARMS = 1 << 3;
        const LIFE_USED = 1 << 4;
        const SHUTDOWN = 1 << 5;
    }
}

/// The last shutdown saved the contents.
const LAST_SAVE_GOOD: u8 = 1 << 1;

/// Output of function 1 after the status.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Smart {
    valid: U32,
    health: u8,
    temperature: U16,
    spares: u8,
    trips: U16,
    life_used: u8,
    shutdown: u8,
    /// Durations and counts of saving, restoring and erasing, power cycles, module health, energy source, size of what
    /// follows.
    unused: [u8; 52],
    vendor: [u8; 60],
}
const _: () = assert!(size_of::<Smart>() == 124);

/// Temperature and spares have their bits the other way round than in the common health.
fn alarm_bits(alarms: Alarms) -> u16 {
    let bit = |alarm, bit| if alarms.contains(alarm) { bit } else { 0 };
    bit(Alarms::MEDIA_TEMPERATURE, 1 << 0) | bit(Alarms::SPARES, 1 << 1)
}

/// In: fields that are asked for.
fn smart(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let wanted = Valid::from_bits_truncate(u32_at(input, 0)?);
    let reading = dimm.health.reading();
    let mut smart = Smart::new_zeroed();
    smart.valid = U32::new(wanted.bits());
    smart.health = reading.condition.bits();
    smart.temperature = U16::new(reading.media_temperature.0);
    smart.spares = reading.spares;
    smart.trips = U16::new(alarm_bits(reading.trips));
    smart.life_used = reading.life_used;
    smart.shutdown = if reading.dirty { 0 } else { LAST_SAVE_GOOD };
    // An error that is injected once has been seen now.
    if let Some(injection) = &mut dimm.hpe1.injection {
        injection.shown = true;
        if injection.once {
            dimm.health.inject(Injection::Condition(None));
        }
    }
    Ok(smart.as_bytes().to_vec().into())
}

/// Output of function 2 after the status.
#[derive(FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Limits {
    enabled: U16,
    temperature: U16,
    spares: u8,
    reserved: [u8; 3],
    life_warning: u8,
    /// Life at which there is an error, and the same four of the energy source.
    unused: [u8; 23],
}
const _: () = assert!(size_of::<Limits>() == 32);

fn thresholds(dimm: &mut Dimm, _: &[u8]) -> DsmResult {
    let set = dimm.health.thresholds();
    let mut limits = Limits::new_zeroed();
    limits.enabled = U16::new(alarm_bits(set.armed()));
    limits.temperature = U16::new(set.media_temperature.0);
    limits.spares = set.spares;
    limits.life_warning = dimm.hpe1.life_warning;
    Ok(limits.as_bytes().to_vec().into())
}

/// In: percent u8.
fn set_life_threshold(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let [percent @ 0..=100] = array_at(input, 0)? else {
        return Err(DsmStatus::INVALID_INPUT);
    };
    dimm.hpe1.life_warning = percent;
    Ok(DsmReply::default())
}

/// Output of function 10 after the status: a module that saves at once and never fails.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Identity {
    specification: u8,
    pages: u8,
    hardware: U32,
    triggers: u8,
    retries: U16,
    reserved: [u8; 3],
    /// Backup, restore, erase, arm, firmware.
    timeouts: [U32; 5],
    block: U32,
    lowest: U16,
    highest: U16,
    slot: u8,
    reserved2: u8,
    slots: U16,
    revision: u8,
}
const _: () = assert!(size_of::<Identity>() == 45);

impl Identity {
    const NEW: Self = Self {
        specification: 0x10,
        pages: 1,
        hardware: U32::new(1),
        // The host's save signal.
        triggers: 1 << 4,
        retries: U16::new(0),
        reserved: [0; 3],
        timeouts: [U32::new(1); 5],
        block: U32::new(4096),
        lowest: U16::new(0),
        highest: U16::new(85 * 16),
        slot: 0,
        reserved2: 0,
        slots: U16::new(1),
        revision: 1,
    };
}

/// Output of function 11 after the status.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct EnergySource {
    policy: u8,
    attributes: u8,
    technology: u8,
    reserved: u8,
    hardware: U16,
    firmware: U16,
    charge_timeout: U32,
    lowest: U16,
    highest: U16,
}
const _: () = assert!(size_of::<EnergySource>() == 16);

impl EnergySource {
    /// Built in, a capacitor.
    const NEW: Self = Self {
        policy: 0,
        attributes: 1 << 0,
        technology: 1 << 1,
        reserved: 0,
        hardware: U16::new(1),
        firmware: U16::new(1),
        charge_timeout: U32::new(1),
        lowest: U16::new(0),
        highest: U16::new(85 * 16),
    };
}

/// Image present, complete, initiator (save signal), controller (good, or a fault).
fn last_backup(reading: &Reading) -> [u8; 4] {
    if reading.dirty {
        [1, 0, 1, 1 << 2]
    } else {
        [1, 1, 1, 1 << 0]
    }
}

/// Health that an injected error shows.
fn condition(kind: u8) -> Option<Condition> {
    match kind {
        1 => Some(Condition::NON_CRITICAL),
        2 => Some(Condition::CRITICAL),
        3 => Some(Condition::FATAL),
        _ => None,
    }
}

/// Bit n: error n can be injected.
fn injectable() -> [u8; 32] {
    let mut bits = [0; 32];
    bits[0] = (1..8)
        .filter(|kind| condition(*kind).is_some())
        .fold(0, |bits, kind| bits | 1 << kind);
    bits
}

/// In: kind u8, option u8: 0 until it has been seen once, 1 until it is cleared, 2 clear.
fn inject(dimm: &mut Dimm, input: &[u8]) -> DsmResult {
    let [kind, option] = array_at(input, 0)?;
    let condition = condition(kind).ok_or(DsmStatus::INVALID_INPUT)?;
    let (condition, injection) = match option {
        0 | 1 => {
            let once = option == 0;
            let shown = !once;
            (Some(condition), Some(ErrorInjection { kind, once, shown }))
        }
        2 => (None, None),
        _ => return Err(DsmStatus::INVALID_INPUT),
    };
    dimm.health.inject(Injection::Condition(condition));
    dimm.hpe1.injection = injection;
    Ok(DsmReply {
        tell: if dimm.health.is_alarming() {
            Tell::Event
        } else {
            Tell::Nothing
        },
        ..DsmReply::default()
    })
}

/// Status (0 nothing, 1 injected, 2 to be shown yet), kind, option.
fn injected(state: &Hpe1) -> [u8; 3] {
    match state.injection {
        None => [0; 3],
        Some(ErrorInjection { kind, once, shown }) => [if shown { 1 } else { 2 }, kind, u8::from(!once)],
    }
}

#[cfg(test)]
#[path = "hpe1_tests.rs"]
mod tests;
