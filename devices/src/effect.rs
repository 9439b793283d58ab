//! What a device asks of the machine after a guest write.

/// The consequence of a guest access that the device itself cannot carry out.
///
/// Returned by [`crate::BusDevice::write`]; the vCPU thread hands everything but [`Effect::None`] to the one thread that
/// owns the machine.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond the device's own state changed.
    None,
    /// The guest entered ACPI S5.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked (pvpanic event) and may still print of what.
    Panicking,
    /// The guest's kernel panicked, and that was its last word.
    Panicked,
    /// The guest ended the run through the test-exit port with this value.
    TestExit(u8),
    /// The guest has given back the memory device in this slot.
    MemoryEjected(u16),
    /// The guest asks for an error to be injected (EINJ).
    InjectError,
    /// The guest has said something that a request may wait for.
    Progress,
}
