//! Bad bytes of NVDIMMs as the host speaks of them.

use devices::nvdimm::media::{ErrorSource, ErrorState};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Bytes of one NVDIMM, or of what the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MediaRange {
    /// Name of the NVDIMM, whose DPAs these are; none: guest physical addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, start, len } = self;
        match id {
            Some(id) => write!(f, "{len:#x} bytes at DPA {start:#x} of {id}"),
            None => write!(f, "{len:#x} bytes at {start:#x}"),
        }
    }
}

/// A range to make bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MediaInject {
    /// Name of the NVDIMM, whose DPAs these are; none: guest physical addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// The guest does not learn of it before it scrubs or reads them.
    #[serde(default)]
    pub latent: bool,
}

/// The bad ranges there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MediaErrorList {
    /// By slot and DPA.
    pub errors: Vec<MediaErrorInfo>,
}

/// One bad range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MediaErrorInfo {
    /// Name of the NVDIMM.
    pub id: String,
    /// First byte in the NVDIMM.
    pub dpa: u64,
    /// Bytes, whole lines of 64.
    pub len: u64,
    /// Where the guest sees its first byte; none: in no range.
    pub spa: Option<u64>,
    /// Who made it.
    pub source: ErrorSource,
    /// Who knows of it.
    pub state: ErrorState,
}
