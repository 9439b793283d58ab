//! `event_channel_op`: event channels through memory of the caller.

use super::{
    Call, Context, Domain, Done, Errno,
    abi::{AllocUnbound, BindInterdomain, BindIpi, BindVcpu, BindVirq, PAGE, PortStatus, shared_info},
    events::{Bound, PORTS, Sent},
};
use crate::units::Gpa;
use zerocopy::little_endian::{U16, U32};

/// The vCPU's timer.
const VIRQ_TIMER: u32 = 0;

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    let [operation, at, ..] = call.args;
    match operation {
        0 => {
            let mut asked: BindInterdomain = context.get(at)?;
            let (remote, port) = (asked.remote.get(), asked.remote_port.get());
            asked.port = domain.events.bind_interdomain(remote, port)?.into();
            bound(domain, asked.port, context.put(at, &asked))
        }
        1 => {
            let mut asked: BindVirq = context.get(at)?;
            asked.port = domain.events.bind_virq(asked.virq.get(), asked.vcpu.get())?.into();
            bound(domain, asked.port, context.put(at, &asked))?;
            if asked.virq.get() == VIRQ_TIMER {
                context.host.set_timer_port(asked.vcpu.get(), asked.port.get());
            }
            Ok(0)
        }
        3 => {
            let port: U32 = context.get(at)?;
            if let Some((Bound::Virq(VIRQ_TIMER), vcpu)) = domain.events.look(port.get()) {
                context.host.set_timer_port(vcpu, 0);
            }
            let was = domain.events.look(port.get());
            domain.events.close(port.get())?;
            if let Some((Bound::Ipi, _)) = was {
                context.host.route_ipi(port.get(), None);
            }
            clear(domain, port.get(), context);
            Ok(0)
        }
        4 => {
            let port: U32 = context.get(at)?;
            match domain.events.send(port.get())? {
                Sent::Nowhere => {}
                Sent::Raise { port, vcpu } => context.host.raise(port, vcpu),
                Sent::Store => domain.attend_store(context.host),
                Sent::Console => domain.attend_console(context.host),
            }
            Ok(0)
        }
        5 => {
            let mut asked: PortStatus = context.get(at)?;
            status(domain, &mut asked)?;
            context.put(at, &asked).map(|()| 0)
        }
        6 => {
            let mut asked: AllocUnbound = context.get(at)?;
            let (domid, remote) = (asked.domid.get(), asked.remote.get());
            asked.port = domain.events.alloc_unbound(domid, remote)?.into();
            bound(domain, asked.port, context.put(at, &asked))
        }
        7 => {
            let mut asked: BindIpi = context.get(at)?;
            asked.port = domain.events.bind_ipi(asked.vcpu.get())?.into();
            bound(domain, asked.port, context.put(at, &asked))?;
            context.host.route_ipi(asked.port.get(), Some(asked.vcpu.get()));
            Ok(0)
        }
        8 => {
            let asked: BindVcpu = context.get(at)?;
            domain.events.bind_vcpu(asked.port.get(), asked.vcpu.get()).map(|()| 0)
        }
        9 => {
            let port: U32 = context.get(at)?;
            unmask(domain, port.get(), context)
        }
        10 => {
            let domid: U16 = context.get(at)?;
            if !domain.is_self(domid.get()) {
                return Err(Errno::Perm);
            }
            for port in domain.reset_channels(context.host) {
                clear(domain, port, context);
            }
            Ok(0)
        }
        _ => Err(Errno::NoCall),
    }
}

/// The answer to the binding of a port; one that the guest is not told of is not bound.
fn bound(domain: &mut Domain, port: U32, told: Result<(), Errno>) -> Done {
    if let Err(error) = told {
        domain.events.close(port.get())?;
        return Err(error);
    }
    Ok(0)
}

/// The word of a port's bit, in the bits that begin at `bits` of the shared information page.
fn word(domain: &Domain, bits: u64, port: u32) -> Option<(Gpa, u32)> {
    let page = domain.shared_info?;
    let at = page * PAGE + bits + u64::from(port / 64) * 8;
    (port < PORTS).then_some((Gpa(at), port % 64))
}

/// A port that is not bound is not pending.
fn clear(domain: &Domain, port: u32, context: &mut Context<'_>) {
    if let Some((word, bit)) = word(domain, shared_info::PENDING, port) {
        context.host.clear_bit(word, bit);
    }
}

fn unmask(domain: &Domain, port: u32, context: &mut Context<'_>) -> Done {
    let (_, vcpu) = domain.events.look(port).ok_or(Errno::Invalid)?;
    let words = word(domain, shared_info::MASK, port).zip(word(domain, shared_info::PENDING, port));
    let Some(((mask, bit), (pending, _))) = words else {
        return Err(Errno::Invalid);
    };
    let was_masked = context.host.clear_bit(mask, bit);
    // Made pending again, so that its vCPU is told.
    if was_masked && context.host.clear_bit(pending, bit) {
        context.host.raise(port, vcpu);
    }
    Ok(0)
}

fn status(domain: &Domain, asked: &mut PortStatus) -> Result<(), Errno> {
    if !domain.is_self(asked.domid.get()) {
        return Err(Errno::Perm);
    }
    let (bound, vcpu) = domain.events.look(asked.port.get()).ok_or(Errno::Invalid)?;
    let (status, about) = match bound {
        Bound::Free => (0, [0, 0]),
        Bound::Unbound { remote } => (1, [remote.into(), 0]),
        Bound::Loop { port } => (2, [domain.domid.into(), port]),
        Bound::Virq(virq) => (4, [virq, 0]),
        Bound::Ipi => (5, [0, 0]),
        // Port 0 of the first domain's: it is none that the guest can name.
        Bound::Store | Bound::Console => (2, [0, 0]),
    };
    asked.status = status.into();
    asked.vcpu = vcpu.into();
    asked.about = about.map(U32::new);
    Ok(())
}
