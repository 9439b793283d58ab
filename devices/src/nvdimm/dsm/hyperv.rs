//! Functions of a Hyper-V virtual DIMM: health and the count of unsafe shutdowns. Labels are reached through `_LSI`, `_LSR`
//! and `_LSW`.

use super::{DsmFamily, DsmFunction};
use crate::nvdimm::{Dimm, guid::HYPERV_DIMM_DSM, health::Condition};

/// The family.
pub static FAMILY: DsmFamily<Dimm> = DsmFamily {
    guid: HYPERV_DIMM_DSM,
    latest: 1,
    functions: &[FUNCTIONS],
};

/// Health 1, unsafe shutdowns 2.
static FUNCTIONS: &[DsmFunction<Dimm>] = &[
    DsmFunction {
        index: 1,
        since: 1,
        available: |dimm| dimm.allows(1),
        run: |dimm, _| {
            let health = health(dimm.health.reading().condition);
            Ok(health.to_le_bytes().to_vec().into())
        },
    },
    DsmFunction {
        index: 2,
        since: 1,
        available: |dimm| dimm.allows(2),
        run: |dimm, _| {
            let count = dimm.health.reading().shutdown_count;
            Ok(count.to_le_bytes().to_vec().into())
        },
    },
];

/// One bit for each degree: 0 critical, 2 fatal, 3 worth a look.
fn health(condition: Condition) -> u32 {
    [
        (Condition::CRITICAL, 1 << 0),
        (Condition::FATAL, 1 << 2),
        (Condition::NON_CRITICAL, 1 << 3),
    ]
    .into_iter()
    .filter(|(degree, _)| condition.contains(*degree))
    .fold(0, |bits, (_, bit)| bits | bit)
}

#[cfg(test)]
#[path = "hyperv_tests.rs"]
mod tests;
