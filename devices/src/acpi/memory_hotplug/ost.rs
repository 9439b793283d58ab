//! `_OST`: what the operating system says of an event. ACPI 6.5 6.3.5.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Source event: device check, the `Notify` value of a device that was inserted.
pub const DEVICE_CHECK: u32 = 1;
/// Source event: eject request, the `Notify` value.
pub const EJECT_REQUEST: u32 = 3;
/// Source event: the operating system ejects by itself.
pub const OS_EJECT: u32 = 0x103;
/// Source event: the operating system processes an insertion.
pub const INSERTION: u32 = 0x200;

/// Status of any event: done.
pub const SUCCESS: u32 = 0;
/// Status: under way, of an insertion.
const INSERTION_IN_PROGRESS: u32 = 0x80;
/// Status: under way, of an ejection.
const EJECT_IN_PROGRESS: u32 = 0x84;

/// One call of `_OST`: its first two arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ost {
    /// Source event.
    pub event: u32,
    /// Status.
    pub status: u32,
}

/// What a call says of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It has begun.
    UnderWay,
    /// It will not be done.
    Refused,
}

impl Ost {
    /// Whether it speaks of an insertion.
    pub fn is_insertion(self) -> bool {
        matches!(self.event, DEVICE_CHECK | INSERTION)
    }

    /// Whether it speaks of an ejection.
    pub fn is_ejection(self) -> bool {
        matches!(self.event, EJECT_REQUEST | OS_EJECT)
    }

    /// What has become of the event.
    pub fn verdict(self) -> Verdict {
        match self.status {
            SUCCESS => Verdict::Done,
            INSERTION_IN_PROGRESS if self.is_insertion() => Verdict::UnderWay,
            EJECT_IN_PROGRESS if self.is_ejection() => Verdict::UnderWay,
            _ => Verdict::Refused,
        }
    }

    /// The source event in words.
    pub fn event_text(self) -> &'static str {
        match self.event {
            DEVICE_CHECK => "device check",
            EJECT_REQUEST => "eject request",
            OS_EJECT => "ejection by the operating system",
            INSERTION => "insertion",
            _ => "unknown event",
        }
    }

    /// The status in words. Tables 6.62 to 6.64.
    pub fn status_text(self) -> &'static str {
        match self.status {
            SUCCESS => "success",
            1 => "non-specific failure",
            2 => "unrecognized notify code",
            0x80 if self.is_ejection() => "device ejection not supported",
            0x81 if self.is_ejection() => "device in use by an application",
            0x82 if self.is_ejection() => "device busy",
            0x83 if self.is_ejection() => "ejection dependency is busy or not supported",
            EJECT_IN_PROGRESS if self.is_ejection() => "ejection in progress",
            INSERTION_IN_PROGRESS if self.is_insertion() => "device insertion in progress",
            0x81 if self.is_insertion() => "device driver load failure",
            0x82 if self.is_insertion() => "device insertion not supported",
            _ => "unknown status",
        }
    }
}

impl fmt::Display for Ost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "_OST event {:#x} ({}), status {:#x} ({})",
            self.event,
            self.event_text(),
            self.status,
            self.status_text()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_different_things_to_different_events() {
        for (event, status, verdict, text) in [
            (1, 0, Verdict::Done, "success"),
            (1, 1, Verdict::Refused, "non-specific failure"),
            (1, 0x80, Verdict::UnderWay, "device insertion in progress"),
            (0x200, 0x82, Verdict::Refused, "device insertion not supported"),
            (3, 0x80, Verdict::Refused, "device ejection not supported"),
            (3, 0x82, Verdict::Refused, "device busy"),
            (3, 0x84, Verdict::UnderWay, "ejection in progress"),
            (0x103, 0x84, Verdict::UnderWay, "ejection in progress"),
            (0x103, 2, Verdict::Refused, "unrecognized notify code"),
            (7, 0x84, Verdict::Refused, "unknown status"),
        ] {
            let ost = Ost { event, status };
            assert_eq!((ost.verdict(), ost.status_text()), (verdict, text), "{ost}");
        }
        let busy = Ost { event: 3, status: 0x82 };
        assert_eq!(
            busy.to_string(),
            "_OST event 0x3 (eject request), status 0x82 (device busy)"
        );
    }
}
