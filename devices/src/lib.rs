//! Device models of daxvisor: pure state machines that know nothing of KVM, sockets or command lines.
//!
//! A device sees guest accesses through [`BusDevice`], raises its interrupt through a [`Line`] and tells the machine what
//! must happen next by returning an [`Effect`]. It never holds a handle to the machine. See ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod apei;
pub mod bad_lines;
pub mod bus;
pub mod clock;
pub mod effect;
pub mod line;
pub mod no_timer;
pub mod nvdimm;
pub mod pci_config;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
pub mod smbios;
pub mod test_exit;
pub mod units;
pub mod virtio;
pub mod writes;
pub mod xen;

pub use bad_lines::BadLines;
pub use bus::{Bus, BusDevice, BusError};
pub use clock::Clock;
pub use effect::Effect;
pub use line::Line;
pub use writes::DeviceWrites;

/// Guest memory as every device sees it: a snapshot that follows hotplug.
pub type GuestMemory = vm_memory::GuestMemoryAtomic<vm_memory::GuestMemoryMmap<DeviceWrites>>;
