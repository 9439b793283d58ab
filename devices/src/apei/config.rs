//! What the user says of the error interfaces.

use crate::units::TimeSpan;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// ACPI platform error interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ApeiConfig {
    /// Whether the guest has them.
    pub enabled: bool,
    /// Time between two looks of the guest at the polled error source.
    pub poll: TimeSpan,
    /// File that keeps the guest's persistent error records (ERST); none: they end with the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<PathBuf>,
    /// Whether machine checks of memory errors have a record in the extended error log.
    pub extlog: bool,
}

impl ApeiConfig {
    /// Shortest and longest time between two looks.
    pub const POLL: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

    /// Whether there is an extended error log.
    pub fn has_extlog(&self) -> bool {
        self.enabled && self.extlog
    }

    /// In the unit of the table.
    pub fn poll_ms(&self) -> u32 {
        u32::try_from(self.poll.0.as_millis()).unwrap_or(u32::MAX)
    }
}

impl Default for ApeiConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            poll: TimeSpan(Duration::from_secs(5)),
            records: None,
            extlog: false,
        }
    }
}
