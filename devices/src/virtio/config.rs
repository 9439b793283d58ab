//! What the user says of virtio devices.

use crate::{
    nvdimm::config::{NvdimmBacking, NvdimmConfig},
    units::ByteSize,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Persistent memory behind a virtio device: no labels, no `_DSM`, a flush request instead of flush hints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VirtioPmemConfig {
    /// Name; default `virtio-pmemN` by position.
    pub id: Option<String>,
    /// Backing file or device-dax node; none: memory that dies with the machine.
    pub file: Option<PathBuf>,
    /// Bytes. Required but for a device-dax node, which knows its own.
    pub size: Option<ByteSize>,
    /// Kind of backing; default: what `file` is.
    pub backing: NvdimmBacking,
    /// Proximity domain.
    pub node: u32,
    /// The file stays as it is: the guest's stores go to a copy and its flushes fail.
    pub readonly: bool,
}

impl VirtioPmemConfig {
    /// The backing, as that of an NVDIMM without labels.
    pub fn backing(&self) -> NvdimmConfig {
        NvdimmConfig {
            id: self.id.clone(),
            file: self.file.clone(),
            size: self.size,
            backing: self.backing,
            readonly: self.readonly,
            label: ByteSize(0),
            ..NvdimmConfig::default()
        }
    }
}

/// Memory that the guest plugs and unplugs in blocks, as much as it is asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VirtioMemConfig {
    /// Name; default `virtio-memN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Bytes of the region: most that can be plugged.
    pub size: ByteSize,
    /// Bytes of a block, the unit of plugging; default 2M.
    #[serde(default = "VirtioMemConfig::default_block")]
    pub block: ByteSize,
    /// Proximity domain.
    #[serde(default)]
    pub node: u32,
    /// Bytes asked for at the start.
    #[serde(default)]
    pub requested: ByteSize,
}

impl VirtioMemConfig {
    /// Smallest block with which the host can use huge pages.
    pub fn default_block() -> ByteSize {
        ByteSize::mib(2)
    }
}
