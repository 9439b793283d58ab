//! Virtual NVDIMMs: configuration, NFIT, label area, `_DSM` functions, their mailbox and AML.

pub mod config;
