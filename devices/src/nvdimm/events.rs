//! What the root's event method has to notify the guest of.

/// Bit of the events word: `Notify(root, 0x80)`, the NFIT changed. ACPI 6.5 5.6.6.
pub const NFIT_UPDATE: u32 = 1 << 0;
/// Bit of the events word: `Notify(root, 0x81)`, an uncorrectable error was found. ACPI 6.5 5.6.6.
pub const UNCORRECTABLE_ERROR: u32 = 1 << 1;

/// Events since the guest last asked. Telling one twice before the guest looks is telling it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PendingEvents {
    root: u32,
    dimms: u32,
    new: bool,
}

impl PendingEvents {
    /// The NFIT changed.
    pub fn nfit_update(&mut self) {
        self.root |= NFIT_UPDATE;
        self.new = true;
    }

    /// A media error was found.
    pub fn uncorrectable_error(&mut self) {
        self.root |= UNCORRECTABLE_ERROR;
        self.new = true;
    }

    /// Health or an alarm of the DIMM in `slot` changed: `Notify` 0x81 on its device. ACPI 6.5 5.6.6.
    pub fn dimm_health(&mut self, slot: u8) {
        self.dimms |= 1u32.checked_shl(slot.into()).unwrap_or(0);
        self.new = true;
    }

    /// Whether something was added since the last call.
    pub(super) fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.new)
    }

    /// Hands the events to the guest: the root's word, then one bit for each DIMM's slot.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let Self { root, dimms, .. } = std::mem::take(self);
        [root, dimms].into_iter().flat_map(u32::to_le_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_once() {
        let mut events = PendingEvents::default();
        assert!(!events.take_new());
        events.nfit_update();
        events.uncorrectable_error();
        events.dimm_health(31);
        events.dimm_health(0);
        assert!(events.take_new() && !events.take_new());
        assert_eq!(events.take(), [3, 0, 0, 0, 1, 0, 0, 0x80]);
        assert_eq!(events.take(), [0; 8]);
    }
}
