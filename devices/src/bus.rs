//! The two guest address spaces (port I/O and MMIO) as a map from ranges to devices.

use crate::{Effect, units::GpaRange};
use std::{collections::BTreeMap, sync::Arc};

/// A device that answers guest accesses.
///
/// `&self`: the device owns its lock and holds it briefly, never across a [`crate::Line`] call. Accesses of any width and
/// offset must be survived; what hardware would not decode reads as all ones and ignores writes.
pub trait BusDevice: Send + Sync {
    /// Fills `data` from `offset` (bytes from the start of the device's range).
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` at `offset` and says what the machine must do next.
    fn write(&self, offset: u64, data: &[u8]) -> Effect;
}

/// Why a device could not be put on the bus.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The range shares an address with one that is taken.
    #[error("range {0} overlaps {1}, which is taken")]
    Overlap(GpaRange, GpaRange),
    /// A range of no addresses.
    #[error("a device at {0:#x} needs a range of at least one byte")]
    Empty(u64),
}

/// An address space. Cloning is cheap: devices are shared.
#[derive(Clone, Default)]
pub struct Bus {
    devices: BTreeMap<u64, (GpaRange, Arc<dyn BusDevice>)>,
}

impl Bus {
    /// Puts `device` at `range`; refuses an overlap with what is there.
    pub fn insert(&mut self, range: GpaRange, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        if range.len == 0 {
            return Err(BusError::Empty(range.start.0));
        }
        if let Some((taken, _)) = self.devices.values().find(|(r, _)| r.overlaps(&range)) {
            return Err(BusError::Overlap(range, *taken));
        }
        self.devices.insert(range.start.0, (range, device));
        Ok(())
    }

    /// Reads `data.len()` bytes at `addr`; an address without a device, or an access that leaves its device's range,
    /// reads as all ones.
    pub fn read(&self, addr: u64, data: &mut [u8]) {
        match self.find(addr, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes `data` at `addr`; a write to no device is lost.
    pub fn write(&self, addr: u64, data: &[u8]) -> Effect {
        match self.find(addr, data.len()) {
            Some((offset, device)) => device.write(offset, data),
            None => Effect::None,
        }
    }

    /// Whether any device decodes `addr`.
    pub fn decodes(&self, addr: u64) -> bool {
        self.find(addr, 1).is_some()
    }

    fn find(&self, addr: u64, len: usize) -> Option<(u64, &dyn BusDevice)> {
        let (_, (range, device)) = self.devices.range(..=addr).next_back()?;
        let offset = addr - range.start.0;
        let end = offset.checked_add(len as u64)?;
        (end <= range.len).then_some((offset, device.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Gpa;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Probe(AtomicU64);
    impl BusDevice for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn write(&self, offset: u64, _: &[u8]) -> Effect {
            self.0.store(offset, Ordering::Relaxed);
            Effect::Reset
        }
    }

    fn range(start: u64, len: u64) -> GpaRange {
        GpaRange::new(Gpa(start), len)
    }

    #[test]
    fn access_reaches_the_device_with_its_own_offset() {
        let mut bus = Bus::default();
        let probe = Arc::new(Probe::default());
        bus.insert(range(0x100, 8), probe.clone()).unwrap();
        let mut byte = [0];
        bus.read(0x107, &mut byte);
        assert_eq!(byte, [7]);
        assert_eq!(bus.write(0x104, &[1, 2]), Effect::Reset);
        assert_eq!(probe.0.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn access_past_the_end_reads_ones_and_writes_nothing() {
        let mut bus = Bus::default();
        bus.insert(range(0x100, 8), Arc::new(Probe::default())).unwrap();
        for (addr, len) in [(0x0ff, 1), (0x108, 1), (0x106, 4), (u64::MAX, 8)] {
            let mut data = vec![0; len];
            bus.read(addr, &mut data);
            assert!(data.iter().all(|b| *b == 0xff), "{addr:#x}");
            assert_eq!(bus.write(addr, &data), Effect::None);
        }
    }

    #[test]
    fn overlap_is_refused_and_leaves_the_bus_as_it_was() {
        let mut bus = Bus::default();
        bus.insert(range(0x100, 8), Arc::new(Probe::default())).unwrap();
        for bad in [range(0x100, 1), range(0xf9, 8), range(0x107, 8), range(0x0, 0x1000)] {
            assert!(matches!(
                bus.insert(bad, Arc::new(Probe::default())),
                Err(BusError::Overlap(..))
            ));
        }
        assert_eq!(
            bus.insert(range(0x200, 0), Arc::new(Probe::default())),
            Err(BusError::Empty(0x200))
        );
        bus.insert(range(0x108, 8), Arc::new(Probe::default())).unwrap();
    }
}
