//! How a guest is asked to end by itself.

use serde::{Deserialize, Serialize};

/// What a guest is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GuestPower {
    /// Turn itself off.
    PowerOff,
    /// Start again.
    Reboot,
}
