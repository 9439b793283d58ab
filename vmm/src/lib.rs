//! daxvisor: a virtual machine monitor for people who work on Linux memory. See ARCHITECTURE.md.

pub mod config;
pub mod images;
pub mod topology;
pub mod layout;
pub mod hv;
pub mod memory;
pub mod acpi;
pub mod boot;
pub mod vcpu;
pub mod machine;
pub mod nested;
pub mod cli;
