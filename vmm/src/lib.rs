//! daxvisor: a virtual machine monitor for people who work on Linux memory. See ARCHITECTURE.md.

pub mod config;
pub mod layout;
