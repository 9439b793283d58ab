//! What the user says of a shared folder.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A folder of the host that the guest reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShareConfig {
    /// The folder.
    pub path: PathBuf,
    /// What the guest mounts it by, and its name; default `shareN` by position.
    #[serde(default)]
    pub tag: Option<String>,
}
