//! What the tests that boot kernels stand on.
//!
//! ```text
//! GuestBuilder --start--> Guest (monitor process, agent channel) --power_off, reboot, wait--> Ended
//! QemuBuilder  --start--> Guest
//! ```
//! The tests run where `/dev/kvm` can run a kernel ([`host::require`]): on hardware, or in the nested host. Every wait has a
//! deadline; a guest that is dropped is killed and reaped; one that fails says what its console and its monitor said, and its
//! folder stays. What is retried is reported on standard error as a line that begins with `RETRY:`.

pub mod api;
pub mod contract;
pub mod facts;
pub mod guest;
pub mod host;
pub mod matrix;
pub mod payload;
pub mod poison;
pub mod process;
pub mod qemu;
pub mod scratch;
pub mod terminal;

pub use guest::{Guest, GuestBuilder};
pub use process::Ended;
pub use qemu::QemuBuilder;
pub use scratch::Scratch;

/// Flavours of Debian kernels that the tests boot.
pub const KERNELS: [&str; 3] = ["debian-6.1-amd64", "debian-6.1-cloud-amd64", "debian-6.12-amd64"];
/// The newest series, for what kernels change often. It comes from a suite that moves on, so `cargo xtask test` fetches it by itself.
pub const NEWEST: &str = "debian-7-amd64";
/// The one that boots fastest: for tests of something else than the kernel.
pub const QUICK: &str = "debian-6.1-cloud-amd64";
/// Kernels of one source, which tests of the runner compare. `cargo xtask test` compiles them.
pub mod small {
    /// As it is.
    pub const PLAIN: &str = "small-6.1";
    /// With guest-images/kernel/patches/mem-limit-forgets-devices.patch.
    pub const FORGETS: &str = "small-6.1-mem-limit-forgets-devices";
    /// Without guest-images/kernel/patches/mem-limits-boot-alone.patch, which the source has.
    pub const REFUSES: &str = "small-6.1-no-mem-limits-boot-alone";
}
