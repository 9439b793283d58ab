//! What the user says of one memory device.

use crate::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One hot-pluggable memory device (PNP0C80).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryDeviceConfig {
    /// Name; default `memN` by slot.
    #[serde(default)]
    pub id: Option<String>,
    /// Bytes, whole memory blocks of the guest. Required but for a device-dax node, which knows its own.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Proximity domain, which has a hotplug window; default 0.
    #[serde(default)]
    pub node: u32,
    /// Slot; default: the lowest free one.
    #[serde(default)]
    pub slot: Option<u16>,
    /// Whether it is there when the guest starts; default: if it is part of the configuration. Nothing else can be asked for.
    #[serde(default)]
    pub cold: Option<bool>,
    /// Kind of backing; default: what `file` is, or anonymous memory.
    #[serde(default)]
    pub backing: MemoryBacking,
    /// File, file on hugetlbfs or device-dax node.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
    /// Where in `file` the memory begins; then `size` bytes of it are used, and others may have the rest.
    #[serde(default)]
    pub offset: Option<ByteSize>,
    /// Huge page size of `backing=hugetlb` without a file; default 2M.
    #[serde(default)]
    pub hugepages: Option<ByteSize>,
    /// Whether what the guest writes reaches `file`; default: on with a file, off without.
    #[serde(default)]
    pub shared: Option<bool>,
}

/// What holds the bytes of a memory device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryBacking {
    /// Decided by `file`: absent anonymous, else what it is.
    #[default]
    Auto,
    /// Anonymous memory.
    Anonymous,
    /// A memory file without a name.
    Memfd,
    /// Huge pages: a file on hugetlbfs, or without a name.
    Hugetlb,
    /// A regular file, created sparse when it is not there.
    File,
    /// A device-dax node of the host.
    Devdax,
}

impl MemoryBacking {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Anonymous => "anonymous",
            Self::Memfd => "memfd",
            Self::Hugetlb => "hugetlb",
            Self::File => "file",
            Self::Devdax => "devdax",
        }
    }
}

impl MemoryDeviceConfig {
    /// What it is called in `slot`.
    pub fn name(&self, slot: u16) -> String {
        self.id.clone().unwrap_or_else(|| format!("mem{slot}"))
    }

    /// Whether what the guest writes reaches the backing.
    pub fn is_shared(&self) -> bool {
        self.shared.unwrap_or(self.file.is_some())
    }
}
