//! KVM: the only importer of the kvm crates.
