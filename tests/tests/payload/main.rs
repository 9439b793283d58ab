//! Guests of a few instructions: a module for each subject, and each module is run by itself.

mod apei;
mod api;
mod boot;
mod end;
mod extlog;
mod fault;
mod flush;
mod host_errors;
mod io;
mod memory;
mod nvdimm;
mod poison;
mod reboot;
mod security;
mod smp;
mod sparse;
mod state;
mod storm;
mod trap;
