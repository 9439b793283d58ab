//! DSDT: the ACPI namespace. Devices that are more than resources bring their own AML.

use super::{AcpiCpu, AcpiError, AcpiInitiator, AcpiInput, bytes, sdt};
use crate::layout::{gsi, ports};
use acpi_tables::{
    Aml, AmlSink,
    aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, PackageBuilder, Path, ResourceTemplate, Scope, ZERO},
};
use devices::{
    acpi::{self, aml::AcpiDeviceAml, memory_hotplug::aml::MemoryHotplugAml},
    apei::ExtlogDsm,
    nvdimm::{NvdimmAml, NvdimmBusPlan},
    units::GpaRange,
};

/// Integers of 64 bits need revision 2. ACPI 6.5 5.2.11.1.
const DSDT_REVISION: u8 = 2;
/// `_STA`: present, enabled, shown, working.
const PRESENT: u8 = 0xf;

/// The differentiated system description table.
pub(super) fn dsdt(input: &AcpiInput, numa: bool) -> Result<Vec<u8>, AcpiError> {
    for (what, count, max) in [
        ("vCPUs", input.cpus.len(), 1 << 12),
        ("virtio devices", input.virtio.len(), 1 << 8),
        ("generic initiators", input.initiators.len(), 1 << 8),
    ] {
        if count > max {
            return Err(AcpiError::TooMany { what, count, max });
        }
    }
    let mut devices: Vec<Vec<u8>> = Vec::new();
    for (uid, cpu) in (0u32..).zip(&input.cpus) {
        devices.push(processor(uid, cpu, numa));
    }
    if input.serial {
        devices.push(serial());
    }
    for (uid, (registers, gsi)) in (0u32..).zip(&input.virtio) {
        devices.push(virtio(uid, *registers, *gsi)?);
    }
    for (at, initiator) in input.initiators.iter().enumerate() {
        devices.push(generic_initiator(at, initiator)?);
    }
    if input.pvpanic {
        devices.push(pvpanic());
    }
    devices.push(bytes(&AcpiDeviceAml {
        port: port(ports::ACPI),
        gsi: gsi::GED,
        nvdimm: input.nvdimm.iter().map(NvdimmBusPlan::name).collect(),
        memory: input.memory_slots > 0,
        errors: input.apei.is_some(),
    }));
    devices.extend(input.nvdimm.iter().map(|bus| bytes(&NvdimmAml::new(bus))));

    if input.memory_slots > 0 {
        devices.push(bytes(&MemoryHotplugAml {
            port: port(ports::MEMORY_HOTPLUG),
            slots: input.memory_slots,
        }));
    }

    devices.extend(input.extlog.iter().map(|plan| bytes(&ExtlogDsm::new(plan))));

    let encoded = Encoded(devices.concat());
    let mut body = bytes(&Scope::new("\\_SB_".into(), vec![&encoded]));
    body.extend(soft_off());
    Ok(sdt(*b"DSDT", DSDT_REVISION, &body))
}

/// AML that is already encoded.
struct Encoded(Vec<u8>);

impl Aml for Encoded {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

const fn port(number: u64) -> u16 {
    assert!(number <= 0xffff);
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
    return number as u16;
}

fn device(name: &str, parts: Vec<&dyn Aml>) -> Vec<u8> {
    bytes(&Device::new(Path::new(name), parts))
}

/// Edge-triggered, active high, not shared.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// `\_SB.Cxxx`, xxx the UID in hex.
fn processor(uid: u32, cpu: &AcpiCpu, numa: bool) -> Vec<u8> {
    let (hid, uid_name) = (Name::new("_HID".into(), &"ACPI0007"), Name::new("_UID".into(), &uid));
    let proximity = Name::new("_PXM".into(), &cpu.node);
    let mut parts: Vec<&dyn Aml> = vec![&hid, &uid_name];
    if numa {
        parts.push(&proximity);
    }
    device(&format!("C{uid:03X}"), parts)
}

fn serial() -> Vec<u8> {
    let registers = IO::new(port(ports::COM1), port(ports::COM1), 0, 8);
    device(
        "COM1",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&registers, &interrupt(gsi::COM1)]),
            ),
        ],
    )
}

/// `\_SB.VMxx`, xx the position in hex: a virtio-mmio transport.
fn virtio(uid: u32, registers: GpaRange, gsi: u32) -> Result<Vec<u8>, AcpiError> {
    let low = |value: u64| u32::try_from(value).map_err(|_| AcpiError::VirtioRange(registers));
    let memory = Memory32Fixed::new(true, low(registers.start.0)?, low(registers.len)?);
    Ok(device(
        &format!("VM{uid:02X}"),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &uid),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory, &interrupt(gsi)])),
        ],
    ))
}

/// `\_SB.GIxx`, xx the position in hex: what the handle of an SRAT entry names.
fn generic_initiator(at: usize, initiator: &AcpiInitiator) -> Result<Vec<u8>, AcpiError> {
    let hid = String::from_utf8(initiator.hid.to_vec())
        .ok()
        .filter(|hid| hid.bytes().all(|b| b.is_ascii_alphanumeric()))
        .ok_or(AcpiError::Hid(initiator.hid))?;
    Ok(device(
        &format!("GI{at:02X}"),
        vec![
            &Name::new("_HID".into(), &hid),
            &Name::new("_UID".into(), &initiator.uid),
            &Name::new("_PXM".into(), &initiator.node),
        ],
    ))
}

fn pvpanic() -> Vec<u8> {
    let register = IO::new(port(ports::PVPANIC), port(ports::PVPANIC), 1, 1);
    device(
        "PEVT",
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &PRESENT),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&register])),
        ],
    )
}

/// `\_S5`: the value for the sleep control register. ACPI 6.5 7.4.2.
fn soft_off() -> Vec<u8> {
    let mut package = PackageBuilder::new();
    package.add_element(&acpi::SLEEP_TYPE_S5);
    (0..3).for_each(|_| package.add_element(&ZERO));
    bytes(&Name::new("_S5_".into(), &package))
}
