//! Test exit: a four-port register through which a guest program ends the run with a verdict.
//!
//! Writing `v` (one byte, or the low byte of a wider write at the first port) is [`Effect::TestExit`]`(v)`. Reads see
//! nothing. Stateless.

use crate::{BusDevice, Effect};

/// The register.
#[derive(Debug, Default)]
pub struct TestExit;

impl TestExit {
    /// Ports it decodes.
    pub const PORTS: u64 = 4;
}

impl BusDevice for TestExit {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data.first()) {
            (0, Some(value)) => Effect::TestExit(*value),
            _ => Effect::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_byte_of_any_width_ends_the_run() {
        assert_eq!(TestExit.write(0, &[0]), Effect::TestExit(0));
        assert_eq!(TestExit.write(0, &[7, 1]), Effect::TestExit(7));
        assert_eq!(
            TestExit.write(0, &0xffff_ff2a_u32.to_le_bytes()),
            Effect::TestExit(0x2a)
        );
    }

    #[test]
    fn other_ports_and_reads_do_nothing() {
        assert_eq!(TestExit.write(1, &[7]), Effect::None);
        assert_eq!(TestExit.write(0, &[]), Effect::None);
        let mut data = [0; 4];
        TestExit.read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
