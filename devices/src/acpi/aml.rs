//! The generic event device, the power button and the hardware error device in the ACPI namespace.

use super::{AcpiEvent, memory_hotplug::aml::SCAN_METHOD};
use crate::nvdimm::aml::EVENTS_METHOD as NVDIMM_EVENTS;
use acpi_tables::{
    Aml, AmlSink,
    aml::{
        And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Interrupt,
        Local, Method, MethodCall, Name, Notify, OpRegion, OpRegionSpace, Path, ResourceTemplate, Store, ZERO,
    },
};

/// `Notify` value of a control-method power button that was pressed. ACPI 6.5 5.6.6.
const BUTTON_PRESSED: u8 = 0x80;
/// `Notify` value of the error device: a source with its kind of notification has something to tell. ACPI 6.5 5.6.6.
const HARDWARE_ERROR: u8 = 0x80;

/// `\_SB.GED_`, `\_SB.PWRB` and `\_SB.HED_` as AML for the scope `\_SB`.
#[derive(Debug, Clone)]
pub struct AcpiDeviceAml {
    /// First port of the block.
    pub port: u16,
    /// Interrupt of the generic event device.
    pub gsi: u32,
    /// Names of the NVDIMM root devices in the scope `\_SB`.
    pub nvdimm: Vec<String>,
    /// Whether there are slots for memory devices.
    pub memory: bool,
    /// Whether there is a hardware error device. ACPI 6.5 18.3.2.9.
    pub errors: bool,
}

impl Aml for AcpiDeviceAml {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let button = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
        Device::new("PWRB".into(), vec![&button, &Name::new("_UID".into(), &ZERO)]).to_aml_bytes(sink);

        if self.errors {
            let errors = Name::new("_HID".into(), &EISAName::new("PNP0C33"));
            Device::new("HED_".into(), vec![&errors, &Name::new("_UID".into(), &ZERO)]).to_aml_bytes(sink);
        }

        let selector = FieldEntry::Named(*b"ESEL", 32);
        // ACPI 6.5 5.6.9: edge-triggered, active high, not shared.
        let interrupt = Interrupt::new(true, true, false, false, self.gsi);
        Device::new(
            "GED_".into(),
            vec![
                &Name::new("_HID".into(), &"ACPI0013"),
                &Name::new("_UID".into(), &ZERO),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt])),
                &OpRegion::new("EREG".into(), OpRegionSpace::SystemIO, &self.port, &4u8),
                &Field::new(
                    "EREG".into(),
                    FieldAccessType::DWord,
                    FieldLockRule::NoLock,
                    FieldUpdateRule::Preserve,
                    vec![selector],
                ),
                &EventMethod(self),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `_EVT(gsi)`: reads the selector once, which clears it, and tells every device whose bit was set.
struct EventMethod<'a>(&'a AcpiDeviceAml);

impl Aml for EventMethod<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let pending = Local(0);
        let selector = Path::new("ESEL");
        let read = Store::new(&pending, &selector);
        let (button, nvdimm) = (AcpiEvent::PowerButton.bit(), AcpiEvent::Nvdimm.bit());
        let (is_button, is_nvdimm) = (And::new(&ZERO, &pending, &button), And::new(&ZERO, &pending, &nvdimm));
        let power_button = Path::new("\\_SB_.PWRB");
        let press = Notify::new(&power_button, &BUTTON_PRESSED);
        let call = |root: &String| MethodCall::new(Path::new(&format!("\\_SB_.{root}.{NVDIMM_EVENTS}")), vec![]);
        let calls: Vec<_> = self.0.nvdimm.iter().map(call).collect();
        let tell = calls.iter().map(|call| call as &dyn Aml).collect();
        let (on_button, on_nvdimm) = (If::new(&is_button, vec![&press]), If::new(&is_nvdimm, tell));
        let mut body: Vec<&dyn Aml> = vec![&read, &on_button];
        if !self.0.nvdimm.is_empty() {
            body.push(&on_nvdimm);
        }
        let memory = AcpiEvent::Memory.bit();
        let is_memory = And::new(&ZERO, &pending, &memory);
        let scan = MethodCall::new(Path::new(SCAN_METHOD), vec![]);
        let on_memory = If::new(&is_memory, vec![&scan]);
        if self.0.memory {
            body.push(&on_memory);
        }
        let error = AcpiEvent::HardwareError.bit();
        let is_error = And::new(&ZERO, &pending, &error);
        let error_device = Path::new("\\_SB_.HED_");
        let tell = Notify::new(&error_device, &HARDWARE_ERROR);
        let on_error = If::new(&is_error, vec![&tell]);
        if self.0.errors {
            body.push(&on_error);
        }
        Method::new("_EVT".into(), 1, true, body).to_aml_bytes(sink);
    }
}
