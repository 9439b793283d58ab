//! pvpanic: the one-byte port through which a dying kernel says so.
//!
//! The guest finds it as ACPI device `QEMU0001`. Reading tells which events the port takes; writing reports events.
//! Stateless: nothing to lock, nothing to reset.

use crate::{BusDevice, Effect};

/// The kernel panicked and stays down.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked and now runs its crash kernel, which is not the end of the run.
const CRASH_LOADED: u8 = 1 << 1;

/// The port.
#[derive(Debug, Default)]
pub struct PvPanic;

impl PvPanic {
    /// Ports it decodes.
    pub const PORTS: u64 = 1;
}

impl BusDevice for PvPanic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (0, Some(first)) = (offset, data.first_mut()) {
            *first = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let (0, Some(events)) = (offset, data.first()) else {
            return Effect::None;
        };
        if events & PANICKED != 0 {
            return Effect::Panicking;
        }
        if events & CRASH_LOADED != 0 {
            tracing::info!("the guest's kernel panicked and starts its crash kernel");
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_event_is_an_effect_and_crash_kernel_is_not() {
        assert_eq!(PvPanic.write(0, &[PANICKED]), Effect::Panicking);
        assert_eq!(PvPanic.write(0, &[PANICKED | CRASH_LOADED]), Effect::Panicking);
        for events in [0, CRASH_LOADED, 0xf0] {
            assert_eq!(PvPanic.write(0, &[events]), Effect::None, "{events:#x}");
        }
    }

    #[test]
    fn supported_events_are_read_from_the_first_byte() {
        let mut data = [0; 4];
        PvPanic.read(0, &mut data);
        assert_eq!(data, [3, 0xff, 0xff, 0xff]);
        PvPanic.read(1, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn odd_accesses_do_nothing() {
        PvPanic.read(0, &mut []);
        assert_eq!(PvPanic.write(0, &[]), Effect::None);
        assert_eq!(PvPanic.write(1, &[PANICKED]), Effect::None);
    }
}
