//! Builds everything that daxvisor boots: guest kernels with their initramfs, and the nested host.
//!
//! ```text
//! build: agent (cargo, static) -> archive (the machine's own apt configuration) -> apt (private state, packages)
//!        -> tools, kernels, initramfs, qemu (one store entry each, keyed by what went in) -> manifest.json
//! ```
//! Nothing of the machine's package state changes: packages are downloaded and unpacked, never installed. Every step's
//! result lies in the store under a hash of its inputs, so a step is redone exactly when they change, and images in use
//! are never written to.

mod agent;
mod apt;
mod archive;
mod build;
pub mod conformance;
mod cpio;
mod hypervisor;
mod initramfs;
mod kernel;
mod libraries;
mod local;
mod modules;
mod process;
mod qemu;
mod recipe;
mod root;
mod source;
mod store;
mod tools;
mod unpack;

pub use build::{Options, build};
pub use local::LocalPackage;
pub use recipe::kernel_names;
pub use source::{SourceKernel, SourceName};
