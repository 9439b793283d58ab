//! What the user says of one virtual NVDIMM.

use crate::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One virtual NVDIMM. `size` counts label area and data together, as QEMU counts them, so that one backing file serves
/// under both monitors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NvdimmConfig {
    /// Name in errors and in the API; default `nvdimmN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Backing file or device-dax node; none: anonymous memory (memfd) that dies with the monitor.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Bytes of the whole DIMM. Required but for a device-dax node, which knows its own.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Kind of backing; default: what `file` is.
    #[serde(default)]
    pub backing: NvdimmBacking,
    /// Proximity domain; default 0.
    #[serde(default)]
    pub node: u32,
    /// Label area at the end of the backing file; `0` for a DIMM without labels.
    #[serde(default = "NvdimmConfig::default_label")]
    pub label: ByteSize,
    /// Guest writes are refused; the backing file is opened read-only.
    #[serde(default)]
    pub readonly: bool,
    /// File that keeps what the DIMM remembers beside its contents; none: it starts afresh with each run.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// Whose functions the DIMM speaks; default Intel's.
    #[serde(default)]
    pub family: DimmFamily,
}

impl NvdimmConfig {
    /// 128 KiB, the smallest area QEMU accepts.
    pub fn default_label() -> ByteSize {
        ByteSize::kib(128)
    }
}

/// Whose `_DSM` functions a DIMM speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DimmFamily {
    /// Intel: all that ndctl knows.
    #[default]
    Intel,
    /// HPE's first family.
    Hpe1,
    /// Microsoft.
    Msft,
    /// Hyper-V virtual DIMM.
    Hyperv,
}

/// What holds the bytes of an NVDIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NvdimmBacking {
    /// Decided by `file`: absent memfd, a character device devdax, else a file.
    #[default]
    Auto,
    /// A regular file, created sparse when it is not there.
    File,
    /// Anonymous shared memory.
    Memfd,
    /// A file on hugetlbfs.
    Hugetlbfs,
    /// A host device-dax node.
    Devdax,
}
