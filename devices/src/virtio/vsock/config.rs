//! What the user says of the socket device.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Streams between programs of the guest and of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VsockConfig {
    /// The guest's address: 3 or more.
    pub cid: u32,
    /// Unix socket at which programs of the host ask for a port of the guest. A port of the host is the socket `PATH_PORT`.
    pub socket: PathBuf,
}
