//! daxvisor: a virtual machine monitor for people who work on Linux memory. ARCHITECTURE.md has the layers.

pub mod acpi;
pub mod api;
pub mod boot;
pub mod boottest;
pub mod cli;
pub mod config;
pub mod control;
pub mod cpuid;
pub mod fault;
pub mod hv;
pub mod images;
pub mod layout;
pub mod machine;
pub mod mce;
pub mod memory;
pub mod nested;
pub mod nvdimm;
pub mod smbios;
pub mod topology;
pub mod vcpu;
pub mod xen;
