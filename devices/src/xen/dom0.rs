//! What the first domain may ask of the platform: its processors, its sleep states, its interrupts and devices.
//!
//! The platform is the guest's own machine, so most of it is said to be done already. Xen has no more for a first domain without
//! paravirtual interrupts (`hvm_physdev_op`).

use super::{
    Call, Context, Domain, Done, Errno,
    abi::{AcpiSleep, PlatformOp, ProcessorInfo, SetupGsi},
};
use crate::Effect;
use zerocopy::little_endian::U32;

/// Of `platform_op`.
const INTERFACE: u32 = 0x0300_0001;
/// Behind [`PlatformOp`].
const BODY: u64 = 8;
/// Interrupts of the I/O APIC.
const GSIS: u32 = 24;

/// Answers `platform_op`.
pub(super) fn platform_op(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    const SET_TIME_32: u32 = 17;
    const ENTER_ACPI_SLEEP: u32 = 51;
    const GET_PROCESSOR: u32 = 55;
    const SET_TIME: u32 = 62;
    if !domain.is_initial() {
        return Err(Errno::Perm);
    }
    let [at, ..] = call.args;
    let asked: PlatformOp = context.get(at)?;
    if asked.version.get() != INTERFACE {
        return Err(Errno::Access);
    }
    let body = at.wrapping_add(BODY);
    match asked.command.get() {
        // The clock is the host's.
        SET_TIME_32 | SET_TIME => Err(Errno::Perm),
        ENTER_ACPI_SLEEP => sleep(&context.get(body)?, context),
        GET_PROCESSOR => {
            let mut info: ProcessorInfo = context.get(body)?;
            processor(domain, &mut info, context);
            context.put(body, &info).map(|()| 0)
        }
        _ => Err(Errno::NoCall),
    }
}

/// A sleeping machine would have to be woken by somebody: it can only be switched off.
fn sleep(asked: &AcpiSleep, context: &mut Context<'_>) -> Done {
    const OFF: u32 = 5;
    if asked.state.get() != OFF {
        return Err(Errno::NotSupported);
    }
    context.effect = Effect::PowerOff;
    Ok(0)
}

fn processor(domain: &Domain, info: &mut ProcessorInfo, context: &Context<'_>) {
    const ONLINE: u32 = 1;
    const INVALID: u32 = 2;
    let number = info.number.get();
    let known = context.host.apic_id(number).filter(|_| number < domain.vcpus);
    info.highest = domain.vcpus.saturating_sub(1).into();
    info.flags = known.map_or(INVALID, |_| ONLINE).into();
    info.apic_id = known.unwrap_or_default().into();
    info.acpi_id = known.map_or(0, |_| number).into();
}

/// Answers `physdev_op`.
pub(super) fn physdev_op(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    const SETUP_GSI: u64 = 21;
    const MMCFG_RESERVED: u64 = 24;
    const PCI_DEVICE_ADD: u64 = 25;
    const PCI_DEVICE_REMOVE: u64 = 26;
    let [operation, at, ..] = call.args;
    match operation {
        SETUP_GSI if domain.is_initial() => {
            let asked: SetupGsi = context.get(at)?;
            let good = asked.gsi.get() < GSIS && asked.triggering < 2 && asked.polarity < 2;
            if good { Ok(0) } else { Err(Errno::Invalid) }
        }
        // Told, not asked: the devices are the guest's own.
        MMCFG_RESERVED | PCI_DEVICE_ADD | PCI_DEVICE_REMOVE if domain.is_initial() => {
            let _: U32 = context.get(at)?;
            Ok(0)
        }
        SETUP_GSI | MMCFG_RESERVED | PCI_DEVICE_ADD | PCI_DEVICE_REMOVE => Err(Errno::Perm),
        _ => Err(Errno::NoCall),
    }
}
