//! Functions of a DIMM of Microsoft's family: three health pages. Labels are reached through `_LSI`, `_LSR` and `_LSW`.

use super::{DsmFamily, DsmFunction};
use crate::nvdimm::{
    Dimm,
    guid::MSFT_DIMM_DSM,
    health::{Alarms, Condition, Reading},
};
use zerocopy::{Immutable, IntoBytes, Unaligned, little_endian::U16};

/// The family.
pub static FAMILY: DsmFamily<Dimm> = DsmFamily {
    guid: MSFT_DIMM_DSM,
    latest: 1,
    functions: &[FUNCTIONS],
};

/// Critical health 10, health 11, energy source 12.
static FUNCTIONS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 10,
        since: 1,
        available: |dimm| dimm.allows(10),
        run: |dimm, _| Ok(vec![critical(&dimm.health.reading())].into()),
    },
    DsmFunction {
        index: 11,
        since: 1,
        available: |dimm| dimm.allows(11),
        run: |dimm, _| Ok(health(&dimm.health.reading()).into()),
    },
    DsmFunction {
        index: 12,
        since: 1,
        available: |dimm| dimm.allows(12),
        run: |dimm, _| Ok(energy_source(&dimm.health.reading()).to_vec().into()),
    },
];

bitflags::bitflags! {
    /// Thresholds that were passed, as errors or as warnings.
    struct Passed: u8 {
        const MODULE_LIFE = 1 << 0;
        const ENERGY_TEMPERATURE = 1 << 2;
    }
}

/// Output of function 11 after the status.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Health {
    health: U16,
    /// Degrees Celsius.
    temperature: U16,
    errors: u8,
    warnings: u8,
    /// Percent that is left, as ndctl reads it.
    life_left: u8,
    uncorrectable: u8,
    correctable: u8,
}
const _: () = assert!(size_of::<Health>() == 9);

fn is_critical(reading: &Reading) -> bool {
    reading.condition.intersects(Condition::CRITICAL | Condition::FATAL)
}

/// Bit 0: the contents may not survive.
fn critical(reading: &Reading) -> u8 {
    reading.condition.contains(Condition::FATAL).into()
}

/// ndctl takes any bit of health for critical, any warning for non-critical, and no life left for fatal.
fn health(reading: &Reading) -> Vec<u8> {
    let mut warnings = Passed::empty();
    let worn = reading.condition.contains(Condition::NON_CRITICAL) || reading.trips.contains(Alarms::SPARES);
    warnings.set(Passed::MODULE_LIFE, worn);
    warnings.set(
        Passed::ENERGY_TEMPERATURE,
        reading.trips.contains(Alarms::CONTROLLER_TEMPERATURE),
    );
    let left = 100u8.saturating_sub(reading.life_used);
    let health = Health {
        health: U16::new(is_critical(reading).into()),
        temperature: U16::new(u16::try_from(reading.media_temperature.degrees()).unwrap_or(0)),
        errors: 0,
        warnings: warnings.bits(),
        life_left: if reading.condition.contains(Condition::FATAL) {
            0
        } else {
            left.max(1)
        },
        uncorrectable: 0,
        correctable: 0,
    };
    health.as_bytes().to_vec()
}

/// Life left in percent, temperature u16 in degrees, hours of running u16.
fn energy_source(reading: &Reading) -> [u8; 5] {
    let degrees = u16::try_from(reading.controller_temperature.degrees()).unwrap_or(0);
    let [low, high] = degrees.to_le_bytes();
    [100, low, high, 0, 0]
}

#[cfg(test)]
#[path = "msft_tests.rs"]
mod tests;
