//! The generic event device and the power button in the ACPI namespace.

use super::AcpiEvent;
use acpi_tables::{
    Aml, AmlSink,
    aml::{
        And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, Interrupt,
        Local, Method, Name, Notify, OpRegion, OpRegionSpace, Path, ResourceTemplate, Store, ZERO,
    },
};

/// `Notify` value of a control-method power button that was pressed. ACPI 6.5 5.6.6.
const BUTTON_PRESSED: u8 = 0x80;
/// `Notify` value of the NVDIMM root: evaluate `_FIT` again. ACPI 6.5 5.6.6.
const NFIT_UPDATE: u8 = 0x80;

/// `\_SB.GED_` and `\_SB.PWRB` as AML for the scope `\_SB`.
#[derive(Debug, Clone)]
pub struct AcpiDeviceAml {
    /// First port of the block.
    pub port: u16,
    /// Interrupt of the generic event device.
    pub gsi: u32,
    /// Whether `\_SB.NVDR` exists.
    pub nvdimm: bool,
}

impl Aml for AcpiDeviceAml {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let button = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
        Device::new("PWRB".into(), vec![&button, &Name::new("_UID".into(), &ZERO)]).to_aml_bytes(sink);

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
                &EventMethod { nvdimm: self.nvdimm },
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// `_EVT(gsi)`: reads the selector once, which clears it, and tells every device whose bit was set.
struct EventMethod {
    nvdimm: bool,
}

impl Aml for EventMethod {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let pending = Local(0);
        let selector = Path::new("ESEL");
        let read = Store::new(&pending, &selector);
        let (button, nvdimm) = (AcpiEvent::PowerButton.bit(), AcpiEvent::Nvdimm.bit());
        let (is_button, is_nvdimm) = (And::new(&ZERO, &pending, &button), And::new(&ZERO, &pending, &nvdimm));
        let (power_button, root) = (Path::new("\\_SB_.PWRB"), Path::new("\\_SB_.NVDR"));
        let press = Notify::new(&power_button, &BUTTON_PRESSED);
        let update = Notify::new(&root, &NFIT_UPDATE);
        let (on_button, on_nvdimm) = (If::new(&is_button, vec![&press]), If::new(&is_nvdimm, vec![&update]));
        let mut body: Vec<&dyn Aml> = vec![&read, &on_button];
        if self.nvdimm {
            body.push(&on_nvdimm);
        }
        Method::new("_EVT".into(), 1, true, body).to_aml_bytes(sink);
    }
}
