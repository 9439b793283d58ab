//! When a line has been overwritten whole.

use devices::{nvdimm::media::LINE, units::Gpa};

/// The line that a vCPU stored to last, and which bytes of it since it turned to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredLine {
    line: u64,
    /// A bit for each byte.
    bytes: u64,
}

impl StoredLine {
    /// Notes a store of at most 8 bytes, which is all that KVM makes of one access; the line, when it is now whole.
    pub fn add(&mut self, gpa: Gpa, len: usize) -> Option<Gpa> {
        let line = gpa.0 / LINE * LINE;
        if line != self.line {
            *self = Self { line, bytes: 0 };
        }
        for byte in (gpa.0 - line..LINE).take(len) {
            self.bytes |= 1 << byte;
        }
        if self.bytes != u64::MAX {
            return None;
        }
        self.bytes = 0;
        Some(Gpa(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_after_its_last_byte_in_any_order() {
        let mut line = StoredLine::default();
        for offset in [8, 0, 16, 32, 24, 48, 40] {
            assert_eq!(line.add(Gpa(0x1000 + offset), 8), None);
        }
        assert_eq!(line.add(Gpa(0x1038), 8), Some(Gpa(0x1000)));
        assert_eq!(line.add(Gpa(0x1038), 8), None, "it begins anew");
    }

    #[test]
    fn turning_to_another_line_begins_anew() {
        let mut line = StoredLine::default();
        for offset in (0..56).step_by(8) {
            assert_eq!(line.add(Gpa(0x40 + offset), 8), None);
        }
        assert_eq!(line.add(Gpa(0x80), 1), None);
        assert_eq!(line.add(Gpa(0x78), 8), None);
        // Bytes behind the line's end are another line's.
        assert_eq!(line.add(Gpa(0x7f), 8), None);
    }
}
