//! Security functions 19 to 28 of the Intel family, all of revision 2.

use super::{DsmFunction, DsmReply, DsmResult, DsmStatus, array_at};
use crate::nvdimm::{
    Dimm,
    security::{PASSPHRASE, Passphrase, Result, Security, SecurityError},
};

macro_rules! function {
    ($index:literal, $run:expr) => {
        DsmFunction {
            index: $index,
            since: 2,
            available: |dimm| dimm.security.is_some() && dimm.allows($index),
            run: $run,
        }
    };
}

pub(super) static SECURITY: &[DsmFunction<Dimm>] = &[
    function!(19, state),
    function!(20, |dimm, input| {
        let (old, new) = (passphrase(input, 0)?, passphrase(input, PASSPHRASE)?);
        command(dimm, |security| security.set_passphrase(&old, &new))
    }),
    function!(21, |dimm, input| with_passphrase(dimm, input, Security::disable)),
    function!(22, |dimm, input| with_passphrase(dimm, input, Security::unlock)),
    function!(23, |dimm, _| command(dimm, Security::freeze)),
    function!(24, |dimm, input| with_passphrase(dimm, input, Security::erase)),
    function!(25, |dimm, input| with_passphrase(dimm, input, Security::overwrite)),
    function!(26, |dimm, _| command(dimm, Security::query_overwrite)),
    function!(27, |dimm, input| {
        let (old, new) = (passphrase(input, 0)?, passphrase(input, PASSPHRASE)?);
        command(dimm, |security| security.set_master(&old, &new))
    }),
    function!(28, |dimm, input| with_passphrase(dimm, input, Security::master_erase)),
];

/// Out: extended state u8, three reserved, state u8, three reserved.
fn state(dimm: &mut Dimm, _: &[u8]) -> DsmResult {
    let security = dimm.security.as_mut().ok_or(DsmStatus::NOT_SUPPORTED)?;
    let (user, master) = security.state();
    Ok(vec![master.bits(), 0, 0, 0, user.bits(), 0, 0, 0].into())
}

fn passphrase(input: &[u8], at: usize) -> std::result::Result<Passphrase, DsmStatus> {
    array_at(input, at).map(Passphrase::new)
}

fn with_passphrase(dimm: &mut Dimm, input: &[u8], run: fn(&mut Security, &Passphrase) -> Result) -> DsmResult {
    let passphrase = passphrase(input, 0)?;
    command(dimm, |security| run(security, &passphrase))
}

fn command(dimm: &mut Dimm, run: impl FnOnce(&mut Security) -> Result) -> DsmResult {
    let security = dimm.security.as_mut().ok_or(DsmStatus::NOT_SUPPORTED)?;
    if let Err(error) = run(security) {
        tracing::debug!(dimm = dimm.plan.id, %error, "a security command was refused");
        return Err(error.into());
    }
    Ok(DsmReply::default())
}

impl From<SecurityError> for DsmStatus {
    fn from(error: SecurityError) -> Self {
        match error {
            SecurityError::State => Self::INVALID_SECURITY_STATE,
            SecurityError::Passphrase => Self::INVALID_PASSPHRASE,
            SecurityError::Overwriting => Self::extended(1),
            SecurityError::Sequence => Self::extended(2),
            SecurityError::Media(error) => {
                tracing::warn!(%error, "a security command failed on the host");
                Self::HARDWARE_ERROR
            }
        }
    }
}

#[cfg(test)]
#[path = "security_tests.rs"]
mod tests;
