//! PCI configuration mechanism 1 (PCI 3.0 3.2.2.3.2) of a machine without PCI devices: an address register that remembers,
//! and a data register behind which nothing answers.
//!
//! Linux puts what its memory map says of anything but RAM into `/proc/iomem` only where it has found a way to PCI
//! configuration space, and soft-reserved and legacy persistent memory become devices only from there. The register is
//! what it takes for one.

use crate::{BusDevice, Effect};
use std::sync::atomic::{AtomicU32, Ordering};

/// The register pair.
#[derive(Debug, Default)]
pub struct PciConfig {
    address: AtomicU32,
}

impl PciConfig {
    /// Ports it decodes: the address register, then the data register.
    pub const PORTS: u64 = 8;
}

impl BusDevice for PciConfig {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        // Whole accesses only: bytes at these ports are other devices' on real machines.
        if let (0, Ok(data)) = (offset, <&mut [u8; 4]>::try_from(data)) {
            *data = self.address.load(Ordering::Relaxed).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        if let (0, Ok(data)) = (offset, <[u8; 4]>::try_from(data)) {
            self.address.store(u32::from_le_bytes(data), Ordering::Relaxed);
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &PciConfig, offset: u64) -> u32 {
        let mut data = [0; 4];
        device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_address_register_remembers_whole_words_and_no_device_answers() {
        let device = PciConfig::default();
        let writes: [(u64, &[u8]); 4] = [(0, &[0, 0, 0, 0x80]), (3, &[1]), (4, &[0; 4]), (0, &[7; 2])];
        for (offset, data) in writes {
            assert_eq!(device.write(offset, data), Effect::None);
        }
        assert_eq!((read(&device, 0), read(&device, 4)), (0x8000_0000, u32::MAX));
        let mut byte = [0];
        device.read(0, &mut byte);
        assert_eq!(byte, [0xff]);
    }
}
