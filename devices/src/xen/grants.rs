//! `grant_table_op`: the guest's grant table, version 1. Nobody maps what it grants: there is no other domain.

use super::{
    Call, Context, Domain, Done, Errno,
    abi::{GrantSetup, GrantSize, GrantVersion},
    memory::{MAX_FRAMES, Special},
};
use zerocopy::little_endian::{U32, U64};

/// Status values of single operations (`grant_table.h`).
const OKAY: i16 = 0;
const BAD_DOMAIN: i16 = -2;
const GENERAL_ERROR: i16 = -1;
/// The only layout.
const VERSION: u32 = 1;

/// Answers the call; only the first of several operations that come together is looked at.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    let [operation, at, count, ..] = call.args;
    if !matches!(operation, 2 | 6 | 8 | 10) {
        return Err(Errno::NoCall);
    }
    if count != 1 {
        return Err(Errno::Invalid);
    }
    match operation {
        2 => setup(domain, at, context),
        6 => {
            let mut asked: GrantSize = context.get(at)?;
            asked.status = if domain.is_self(asked.domid.get()) {
                OKAY
            } else {
                BAD_DOMAIN
            }
            .into();
            asked.frames = domain.memory.grant_frames().into();
            asked.most = MAX_FRAMES.into();
            context.put(at, &asked).map(|()| 0)
        }
        8 => {
            let asked: U32 = context.get(at)?;
            context.put(at, &U32::new(VERSION))?;
            if asked.get() == VERSION {
                Ok(0)
            } else {
                Err(Errno::Invalid)
            }
        }
        _ => {
            let mut asked: GrantVersion = context.get(at)?;
            if !domain.is_self(asked.domid.get()) {
                return Err(Errno::Perm);
            }
            asked.version = VERSION.into();
            context.put(at, &asked).map(|()| 0)
        }
    }
}

/// Tells where the table's first frames are, as far as the guest has placed them.
fn setup(domain: &Domain, at: u64, context: &Context<'_>) -> Done {
    let mut asked: GrantSetup = context.get(at)?;
    let wanted = asked.frames.get();
    asked.status = match (domain.is_self(asked.domid.get()), wanted <= MAX_FRAMES) {
        (false, _) => BAD_DOMAIN,
        (true, false) => GENERAL_ERROR,
        (true, true) => OKAY,
    }
    .into();
    if asked.status.get() == OKAY {
        for frame in 0..wanted {
            let to = asked.list.get().wrapping_add(8 * u64::from(frame));
            let page = domain.memory.place_of(Special::Grant(frame)).unwrap_or(u64::MAX);
            context.put(to, &U64::new(page))?;
        }
    }
    context.put(at, &asked).map(|()| 0)
}
