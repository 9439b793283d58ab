//! FADT and MADT: what kind of platform this is, and its interrupt controllers.

use super::{AcpiCpu, OEM_ID, OEM_REVISION, OEM_TABLE_ID, sdt};
use crate::layout::{self, ports};
use acpi_tables::{
    fadt::{FADT, FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
};
use devices::{
    acpi::{self, fixed},
    units::Gpa,
};
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{U16, U32},
};

/// IA-PC boot architecture flags: no VGA, no CMOS clock; neither legacy devices nor an 8042. ACPI 6.5 5.2.9.3.
const BOOT_ARCH: u16 = NO_VGA | (1 << 5);
/// The one of them that always holds.
const NO_VGA: u16 = 1 << 2;

/// Fixed ACPI description table of a hardware-reduced platform. ACPI 6.5 5.2.9.
pub(super) fn fadt(dsdt: Gpa) -> FADT {
    let mut fadt = common(dsdt).flag(Flags::HwReducedAcpi);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.finalize()
}

/// The same of a platform with PM1 registers, timer and real-time clock. ACPI is on from the start: there is no SMI command.
pub(super) fn fixed_fadt(dsdt: Gpa, facs: Gpa) -> FADT {
    let port = |offset| {
        let port = u32::try_from(ports::ACPI_FIXED + offset);
        U32::new(port.unwrap_or_else(|_| unreachable!("ports have 16 bits")))
    };
    let mut fadt = common(dsdt).firmware_ctrl_64(facs.0).flag(Flags::TmrValExt);
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.sci_int = u16::try_from(layout::gsi::SCI)
        .unwrap_or_else(|_| unreachable!("24 pins"))
        .into();
    (fadt.pm1a_evt_blk, fadt.pm1_evt_len) = (port(fixed::PM1_EVENT), 4);
    (fadt.pm1a_cnt_blk, fadt.pm1_cnt_len) = (port(fixed::PM1_CONTROL), 2);
    (fadt.pm_tmr_blk, fadt.pm_tmr_len) = (port(fixed::TIMER), 4);
    // No C2 and C3 states. ACPI 6.5 table 5.9.
    (fadt.p_lvl2_lat, fadt.p_lvl3_lat) = (101.into(), 1001.into());
    fadt.century = 0x32;
    fadt.finalize()
}

/// Firmware ACPI control structure: no global lock is held and nothing wakes. ACPI 6.5 5.2.10.
pub(super) fn facs() -> Vec<u8> {
    let mut facs = vec![0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    facs[32] = 2;
    facs
}

fn common(dsdt: Gpa) -> FADTBuilder {
    let register = |offset| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            ports::ACPI + offset,
        )
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt.0)
        .flag(Flags::Wbinvd)
        // No fixed power and sleep button: the power button is a device in the namespace.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.reset_reg = register(acpi::RESET);
    fadt.reset_value = acpi::RESET_VALUE;
    fadt.sleep_control_reg = register(acpi::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(acpi::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE_ID).into();
    fadt
}

/// ACPI 6.5 5.2.12.2, Processor Local APIC.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalApic {
    kind: u8,
    length: u8,
    uid: u8,
    apic_id: u8,
    flags: U32,
}
const _: () = assert!(size_of::<LocalApic>() == 8);

/// ACPI 6.5 5.2.12.12, Processor Local x2APIC.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    apic_id: U32,
    flags: U32,
    uid: U32,
}
const _: () = assert!(size_of::<LocalX2Apic>() == 16);

/// ACPI 6.5 5.2.12.3, I/O APIC.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    length: u8,
    id: u8,
    reserved: u8,
    address: U32,
    gsi_base: U32,
}
const _: () = assert!(size_of::<IoApic>() == 12);

/// The processor is there and usable.
const ENABLED: u32 = 1;
/// MADT revision of ACPI 6.5.
const MADT_REVISION: u8 = 6;

/// Ids from 255 on need the x2APIC forms: an 8-bit id of 255 is the broadcast.
pub(super) fn short_apic_id(apic_id: u32) -> Option<u8> {
    u8::try_from(apic_id).ok().filter(|id| *id != 0xff)
}

/// Multiple APIC description table. No PC-AT flag and no overrides: a hardware-reduced guest leaves the 8259s alone and
/// takes every interrupt by its GSI.
pub(super) fn madt(cpus: &[AcpiCpu]) -> Vec<u8> {
    let address = |gpa: Gpa| u32::try_from(gpa.0).unwrap_or_else(|_| unreachable!("APICs are below 4 GiB"));
    let mut body = address(layout::LAPIC).to_le_bytes().to_vec();
    body.extend_from_slice(&0u32.to_le_bytes());
    for (uid, cpu) in (0u32..).zip(cpus) {
        match (short_apic_id(cpu.apic_id), u8::try_from(uid)) {
            (Some(apic_id), Ok(uid)) => {
                body.extend_from_slice(
                    LocalApic {
                        kind: 0,
                        length: 8,
                        uid,
                        apic_id,
                        flags: ENABLED.into(),
                    }
                    .as_bytes(),
                );
            }
            _ => {
                let (apic_id, flags, uid) = (cpu.apic_id.into(), ENABLED.into(), uid.into());
                body.extend_from_slice(
                    LocalX2Apic {
                        kind: 9,
                        length: 16,
                        reserved: 0.into(),
                        apic_id,
                        flags,
                        uid,
                    }
                    .as_bytes(),
                );
            }
        }
    }
    let io_apic = IoApic {
        kind: 1,
        length: 12,
        id: 0,
        reserved: 0,
        address: address(layout::IOAPIC).into(),
        gsi_base: 0.into(),
    };
    body.extend_from_slice(io_apic.as_bytes());
    sdt(*b"APIC", MADT_REVISION, &body)
}
