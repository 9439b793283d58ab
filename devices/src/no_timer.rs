//! Where a PC has channel 2 of its interval timer, a machine without one.
//!
//! A kernel that nobody tells the processor's frequency (any but KVM's guests) measures it with that channel: it reads the counter
//! until the high byte changes from `0xff`, at most 50,000 times two reads (Linux `quick_pit_calibrate`). What no device answers
//! reads as `0xff`, and so each such boot would make 100,000 exits before the kernel gives up. A counter that stands at 0 is
//! given up at once. Stateless.

use crate::{BusDevice, Effect};

/// The data port of channel 2.
#[derive(Debug, Default)]
pub struct NoTimer;

impl NoTimer {
    /// Ports it decodes.
    pub const PORTS: u64 = 1;
}

impl BusDevice for NoTimer {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_stands_at_0_whatever_is_written() {
        for value in [0xff, 0] {
            assert_eq!(NoTimer.write(0, &[value]), Effect::None);
            let mut data = [0xaa; 2];
            NoTimer.read(0, &mut data);
            assert_eq!(data, [0, 0]);
        }
    }
}
