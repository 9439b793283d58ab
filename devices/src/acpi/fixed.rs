//! Fixed ACPI hardware (ACPI 6.5 4.8.3): the PM1 registers and the power management timer, for operating systems that do
//! not know platforms without it.
//!
//! | offset | bytes | register | |
//! |---|---|---|---|
//! | 0 | 2 | PM1 status | reads as 0: no fixed event happens here |
//! | 2 | 2 | PM1 enable | remembers what is written |
//! | 4 | 2 | PM1 control | ACPI is always on; sleep type 5 with the enable bit powers the machine off |
//! | 8 | 4 | timer | 32 bits at 3.579545 MHz |
//!
//! There is nothing to raise the system control interrupt for: events arrive through the generic event device.

use super::SLEEP_TYPE_S5;
use crate::{BusDevice, Clock, Effect};
use std::sync::atomic::{AtomicU16, Ordering};

/// Offset of the event block: status, then enable.
pub const PM1_EVENT: u64 = 0;
const PM1_ENABLE: u64 = 2;
/// Offset of the control register.
pub const PM1_CONTROL: u64 = 4;
/// Offset of the timer.
pub const TIMER: u64 = 8;

/// Ticks of the timer in a second.
const TIMER_HZ: u128 = 3_579_545;
/// PM1 control: ACPI mode (bit 0), sleep type (bits 10 to 12), sleep enable (bit 13).
const SCI_ENABLE: u16 = 1;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 0b111;
const SLEEP_ENABLE: u16 = 1 << 13;

const _: () = assert!(FixedHardware::PORTS == 12);

/// The registers.
#[derive(Debug)]
pub struct FixedHardware {
    clock: Clock,
    enabled: AtomicU16,
    sleep_type: AtomicU16,
}

impl FixedHardware {
    /// Ports of the block.
    pub const PORTS: u64 = 12;

    /// The registers with a timer that follows `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            enabled: AtomicU16::new(0),
            sleep_type: AtomicU16::new(0),
        }
    }

    fn ticks(&self) -> u32 {
        let ticks = self.clock.now().as_nanos() * TIMER_HZ / 1_000_000_000;
        #[expect(clippy::cast_possible_truncation, reason = "a counter of 32 bits wraps")]
        return ticks as u32;
    }

    fn block(&self) -> [u8; 12] {
        let mut block = [0; 12];
        let control = SCI_ENABLE | self.sleep_type.load(Ordering::Relaxed) << SLEEP_TYPE_SHIFT;
        block[2..4].copy_from_slice(&self.enabled.load(Ordering::Relaxed).to_le_bytes());
        block[4..6].copy_from_slice(&control.to_le_bytes());
        block[8..12].copy_from_slice(&self.ticks().to_le_bytes());
        block
    }
}

impl BusDevice for FixedHardware {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let block = self.block();
        for (at, byte) in (offset..).zip(data) {
            let at = usize::try_from(at).ok();
            *byte = at.and_then(|at| block.get(at)).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let Ok(value) = <[u8; 2]>::try_from(data).map(u16::from_le_bytes) else {
            return Effect::None;
        };
        match offset {
            PM1_ENABLE => self.enabled.store(value, Ordering::Relaxed),
            PM1_CONTROL => {
                let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                self.sleep_type.store(sleep_type, Ordering::Relaxed);
                if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
                    return Effect::PowerOff;
                }
            }
            _ => {}
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn word(device: &FixedHardware, offset: u64) -> u16 {
        let mut data = [0xff; 2];
        device.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn timer_counts_at_its_frequency_and_wraps() {
        let clock = Clock::manual();
        let device = FixedHardware::new(clock.clone());
        let read = || {
            let mut data = [0; 4];
            device.read(TIMER, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!(read(), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(read(), 3_579_545);
        clock.advance(Duration::from_secs(1199));
        assert_eq!(u64::from(read()), 3_579_545 * 1200 - (1 << 32));
    }

    #[test]
    fn s5_powers_off_and_other_control_values_do_not() {
        let device = FixedHardware::new(Clock::manual());
        assert_eq!(word(&device, PM1_CONTROL), 1);
        for value in [5u16 << 10, 1 << 13, 3 << 10 | 1 << 13, 1] {
            assert_eq!(device.write(PM1_CONTROL, &value.to_le_bytes()), Effect::None);
            assert_eq!(word(&device, PM1_CONTROL), value & 0x1c00 | 1);
        }
        let s5 = (5u16 << 10 | 1 << 13).to_le_bytes();
        assert_eq!(device.write(PM1_CONTROL, &s5), Effect::PowerOff);
        assert_eq!(device.write(PM1_EVENT, &s5), Effect::None);
    }

    #[test]
    fn enable_register_remembers_and_status_stays_clear() {
        let device = FixedHardware::new(Clock::manual());
        assert_eq!(device.write(2, &[0x20, 1]), Effect::None);
        assert_eq!(device.write(0, &[0xff, 0xff]), Effect::None);
        assert_eq!((word(&device, 0), word(&device, 2)), (0, 0x120));
    }

    proptest! {
        #[test]
        fn any_access_is_survived(offset: u64, data in proptest::collection::vec(any::<u8>(), 0..16)) {
            let device = FixedHardware::new(Clock::manual());
            let mut read = data.clone();
            device.read(offset, &mut read);
            let _ = device.write(offset, &data);
        }
    }
}
