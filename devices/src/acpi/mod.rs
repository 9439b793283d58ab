//! ACPI hardware: the generic event device with its sleep and reset registers; [`fixed`] for those who need more.
//!
//! | offset | bytes | register | |
//! |---|---|---|---|
//! | 0 | 4 | event selector | pending [`AcpiEvent`]s, one bit each; a read clears what it returned |
//! | 4 | 1 | sleep control | ACPI 6.5 4.8.3.7: S5 with the enable bit set powers the machine off |
//! | 5 | 1 | sleep status | reads as 0: nothing wakes |
//! | 6 | 1 | reset | [`RESET_VALUE`] resets the machine |
//!
//! An event sets its bit and then pulses the interrupt line, so that a guest that looks late still finds it.

pub mod aml;
pub mod fixed;
pub mod memory_hotplug;

use crate::{BusDevice, Effect, Line};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What the machine tells the guest through the generic event device. The number is the bit of the selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AcpiEvent {
    /// Memory devices changed.
    Memory = 0,
    /// The power button was pressed.
    PowerButton = 1,
    /// An NVDIMM root device has events: see its event method.
    Nvdimm = 2,
    /// A hardware error source has something to tell.
    HardwareError = 3,
}

impl AcpiEvent {
    /// Mask of the event in the selector.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// One event of a generic event device, as the line of the device that raises it.
pub struct EventLine(pub Arc<AcpiDevice>, pub AcpiEvent);

impl Line for EventLine {
    fn pulse(&self) {
        self.0.raise(self.1);
    }
}

/// Sleep type of S5, as `\_S5` in the DSDT names it.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Value of the reset register that resets.
pub const RESET_VALUE: u8 = 1;

const SELECTOR: std::ops::Range<u64> = 0..4;
/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 4;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 5;
/// Offset of the reset register.
pub const RESET: u64 = 6;

/// Sleep control register fields. ACPI 6.5 4.8.3.7.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// The generic event device and the fixed registers beside it.
pub struct AcpiDevice {
    line: Box<dyn Line>,
    pending: AtomicU32,
}

impl AcpiDevice {
    /// Ports of the block.
    pub const PORTS: u64 = 8;

    /// The device with the interrupt `line`.
    pub fn new(line: impl Line + 'static) -> Self {
        Self {
            line: Box::new(line),
            pending: AtomicU32::new(0),
        }
    }

    /// Makes `event` pending and interrupts the guest.
    pub fn raise(&self, event: AcpiEvent) {
        self.pending.fetch_or(event.bit(), Ordering::SeqCst);
        self.line.pulse();
    }

    /// Back to power-on: nothing pending.
    pub fn reset(&self) {
        self.pending.store(0, Ordering::SeqCst);
    }

    /// Reads bytes `offset..end` of the selector and clears them.
    fn take_selector(&self, offset: u64, data: &mut [u8]) {
        let wanted = |at: u64| at >= offset && at - offset < data.len() as u64;
        let mask = SELECTOR
            .filter(|at| wanted(*at))
            .fold(0, |mask, at| mask | (0xff << (8 * at)));
        let taken = (self.pending.fetch_and(!mask, Ordering::SeqCst) & mask).to_le_bytes();
        for (at, byte) in (offset..).zip(data) {
            *byte = usize::try_from(at)
                .ok()
                .and_then(|at| taken.get(at))
                .copied()
                .unwrap_or(0);
        }
    }
}

impl BusDevice for AcpiDevice {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.take_selector(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let effects = (offset..).zip(data).map(|(at, value)| match (at, *value) {
            (SLEEP_CONTROL, value)
                if value & SLEEP_ENABLE != 0 && (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK == SLEEP_TYPE_S5 =>
            {
                Effect::PowerOff
            }
            (RESET, RESET_VALUE) => Effect::Reset,
            _ => Effect::None,
        });
        effects
            .into_iter()
            .find(|effect| *effect != Effect::None)
            .unwrap_or(Effect::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::CountingLine;
    use proptest::prelude::*;

    fn device() -> (Arc<CountingLine>, AcpiDevice) {
        let line = Arc::new(CountingLine::default());
        (line.clone(), AcpiDevice::new(line))
    }

    fn selector(device: &AcpiDevice) -> u32 {
        let mut data = [0xff; 4];
        device.read(0, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn selector_is_cleared_by_its_read() {
        let (line, device) = device();
        assert_eq!(selector(&device), 0);
        device.raise(AcpiEvent::PowerButton);
        device.raise(AcpiEvent::Nvdimm);
        device.raise(AcpiEvent::Nvdimm);
        assert_eq!(line.count(), 3);
        assert_eq!(selector(&device), 0b110);
        assert_eq!(selector(&device), 0);
    }

    #[test]
    fn narrow_read_clears_what_it_returned_and_no_more() {
        let (_, device) = device();
        device.raise(AcpiEvent::Memory);
        let mut byte = [0xff];
        device.read(1, &mut byte);
        assert_eq!(byte, [0]);
        device.read(0, &mut byte);
        assert_eq!(byte, [1]);
        assert_eq!(selector(&device), 0);
    }

    #[test]
    fn event_after_reset_is_the_only_one() {
        let (_, device) = device();
        device.raise(AcpiEvent::PowerButton);
        device.reset();
        device.raise(AcpiEvent::Memory);
        assert_eq!(selector(&device), 1);
    }

    #[test]
    fn s5_powers_off_and_other_sleep_values_do_not() {
        let (_, device) = device();
        assert_eq!(device.write(SLEEP_CONTROL, &[5 << 2 | 1 << 5]), Effect::PowerOff);
        for value in [5 << 2, 1 << 5, 3 << 2 | 1 << 5, 0] {
            assert_eq!(device.write(SLEEP_CONTROL, &[value]), Effect::None);
        }
        let mut status = [0xff];
        device.read(SLEEP_STATUS, &mut status);
        assert_eq!(status, [0]);
        assert_eq!(device.write(SLEEP_STATUS, &[5 << 2 | 1 << 5]), Effect::None);
    }

    #[test]
    fn reset_register_takes_its_value_only() {
        let (_, device) = device();
        assert_eq!(device.write(RESET, &[RESET_VALUE]), Effect::Reset);
        assert_eq!(device.write(RESET, &[0]), Effect::None);
        assert_eq!(device.write(0, &[1, 1, 1, 1]), Effect::None);
    }

    proptest! {
        #[test]
        fn any_access_is_survived(offset: u64, data in proptest::collection::vec(any::<u8>(), 0..16)) {
            let (_, device) = device();
            let mut read = data.clone();
            device.read(offset, &mut read);
            let _ = device.write(offset, &data);
        }
    }
}
