//! `vcpu_op`: where the guest has things written for its vCPUs.

use super::{
    Area, Call, Context, Domain, Done, Errno,
    abi::{PAGE, RegisterVcpuInfo, shared_info},
};
use crate::units::Gpa;

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    const REGISTER_RUNSTATE: u64 = 5;
    /// It was never started.
    const STOP_PERIODIC_TIMER: u64 = 7;
    const REGISTER_VCPU_INFO: u64 = 10;
    const REGISTER_TIME: u64 = 13;
    let [operation, vcpu, at, ..] = call.args;
    let vcpu = u32::try_from(vcpu).ok().filter(|vcpu| *vcpu < domain.vcpus);
    let vcpu = vcpu.ok_or(Errno::NoEntry)?;
    match operation {
        REGISTER_VCPU_INFO => move_info(domain, vcpu, at, context),
        REGISTER_RUNSTATE => place_area(vcpu, Area::Runstate, at, context),
        REGISTER_TIME => place_area(vcpu, Area::Time, at, context),
        STOP_PERIODIC_TIMER => Ok(0),
        _ => Err(Errno::NoCall),
    }
}

fn move_info(domain: &mut Domain, vcpu: u32, at: u64, context: &mut Context<'_>) -> Done {
    let asked: RegisterVcpuInfo = context.get(at)?;
    let (page, offset) = (asked.page.get(), u64::from(asked.offset.get()));
    let fits = offset <= PAGE - shared_info::VCPU_INFO && offset.is_multiple_of(8);
    if !fits || domain.moved.contains_key(&vcpu) || !domain.reservation().has(page) {
        return Err(Errno::Invalid);
    }
    let to = Gpa(page * PAGE + offset);
    let mut info = [0; 16];
    if domain.events.tells(vcpu) {
        // Whatever came meanwhile is looked for at the new place.
        info[0] = 1;
        info[shared_info::PENDING_SELECTOR..].fill(0xff);
    }
    context.host.store(to, &info);
    if !context.host.place_vcpu_info(vcpu, Some(to)) {
        return Err(Errno::Invalid);
    }
    domain.moved.insert(vcpu, to);
    Ok(0)
}

/// Has an area of a vCPU written where the guest says, which is the address of an address.
fn place_area(vcpu: u32, area: Area, at: u64, context: &mut Context<'_>) -> Done {
    let at: zerocopy::little_endian::U64 = context.get(at)?;
    if at.get() == 0 {
        context.host.place_area(vcpu, area, None);
        return Ok(0);
    }
    let first = context.guest.place(at.get())?;
    let last = context.guest.place(at.get().wrapping_add(area.len() - 1))?;
    let whole = last.0.checked_sub(first.0) == Some(area.len() - 1);
    if whole && context.host.place_area(vcpu, area, Some(first)) {
        Ok(0)
    } else {
        Err(Errno::Invalid)
    }
}
