//! KVM: the only importer of the kvm crates.

pub mod probe;
pub mod spawn;
