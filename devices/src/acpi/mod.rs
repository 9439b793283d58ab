//! ACPI hardware: the generic event device with its sleep and reset registers.
