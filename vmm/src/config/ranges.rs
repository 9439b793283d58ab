//! Ranges of the guest physical map that the user places or types himself.

use super::{ConfigError, NvdimmConfig, VmConfig};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// Most ranges: what the zero page and its extension carry, with room for everything else.
pub const MAX_RANGES: usize = 1024;
const PAGE: u64 = 4096;

/// One range of the guest physical map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryRangeConfig {
    /// Name in errors and in `--dry-run`; default `rangeN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Bytes.
    pub size: ByteSize,
    /// First address; none: above all RAM and everything that is placed by hand.
    #[serde(default)]
    pub start: Option<HexAddress>,
    /// What the guest is told that it is.
    #[serde(rename = "type")]
    pub kind: RangeKind,
    /// Proximity domain in the SRAT; none: not in the SRAT, but for RAM node 0.
    #[serde(default)]
    pub node: Option<u32>,
    /// RAM with a copy elsewhere: "more reliable" in the EFI memory map.
    #[serde(default)]
    pub mirror: bool,
    /// File or device-dax node that keeps the content; none: memory that dies with the monitor.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Where in it the range begins; none: the range is all of it.
    #[serde(default)]
    pub offset: Option<ByteSize>,
}

impl MemoryRangeConfig {
    /// The node whose memory the range is part of.
    pub fn target_node(&self) -> Option<u32> {
        match self.kind {
            RangeKind::Ram => Some(self.node.unwrap_or(0)),
            _ => self.node,
        }
    }

    /// The file that keeps the content, in the terms of an NVDIMM without labels, which it is to the host.
    pub fn backing(&self) -> Option<NvdimmConfig> {
        Some(NvdimmConfig {
            file: Some(self.file.clone()?),
            size: Some(self.size),
            offset: self.offset,
            label: ByteSize(0),
            ..NvdimmConfig::default()
        })
    }
}

/// What the guest is told that a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeKind {
    /// Usable at boot, in addition to the RAM of the nodes.
    Ram,
    /// Kept from the kernel, with memory behind it.
    Reserved,
    /// Bad memory: nothing answers there.
    Unusable,
    /// Memory for a special purpose (EFI_MEMORY_SP).
    SoftReserved,
    /// Persistent memory as firmware reports it.
    Pmem,
    /// Persistent memory as it was reported before there was a standard.
    Pram,
    /// Nothing at all: RAM and devices stay out of it.
    Hole,
}

impl RangeKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Reserved => "reserved",
            Self::Unusable => "unusable",
            Self::SoftReserved => "soft-reserved",
            Self::Pmem => "pmem",
            Self::Pram => "pram",
            Self::Hole => "hole",
        }
    }

    /// Whether a guest access finds memory.
    pub fn has_memory(self) -> bool {
        !matches!(self, Self::Unusable | Self::Hole)
    }
}

/// A guest physical address, written `0x100000000`, or with a suffix as sizes are (`4G`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexAddress(pub u64);

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not an address: expected a number such as 0x100000000, or with a suffix K, M, G or T (powers of 1024)"
)]
pub struct HexAddressError(String);

impl std::str::FromStr for HexAddress {
    type Err = HexAddressError;
    fn from_str(text: &str) -> Result<Self, HexAddressError> {
        let bad = || HexAddressError(text.to_owned());
        match text.strip_prefix("0x") {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).map(Self).map_err(|_| bad())
            }
            Some(_) => Err(bad()),
            None => text.parse::<ByteSize>().map(|size| Self(size.0)).map_err(|_| bad()),
        }
    }
}

impl std::fmt::Display for HexAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for HexAddress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexAddress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = HexAddress;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address such as 0x100000000 or \"4G\"")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<HexAddress, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<HexAddress, E> {
                Ok(HexAddress(v))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<HexAddress, E> {
                u64::try_from(v).map(HexAddress).map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// The unit in which Linux adds memory (x86-64).
const SECTION: ByteSize = ByteSize::mib(128);
/// Largest window: 46 address bits.
const MAX_WINDOW: ByteSize = ByteSize::gib(64 << 10);

/// What is wrong with a range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// Too many.
    #[error("{0} memory ranges are asked for: expected at most {MAX_RANGES}")]
    Count(usize),
    /// A name that could not be used everywhere.
    #[error("'{0}' is no memory range id: expected 1 to 32 letters, digits, '-', '_' or '.'")]
    IdText(String),
    /// Two of one name.
    #[error(
        "two memory ranges are called '{0}'; hint: ids must differ, and a range without one is called rangeN by its position"
    )]
    IdTwice(String),
    /// A window of no use.
    #[error("hotplug {size} of node {node} is out of range: expected 0 to 64T, a multiple of 128M")]
    Hotplug {
        /// Node.
        node: u32,
        /// Bytes.
        size: ByteSize,
    },
    /// More mirrored than there is.
    #[error("mirror {size} of node {node} is out of range: expected a multiple of 4K up to the node's RAM of {ram}")]
    Mirror {
        /// Node.
        node: u32,
        /// Bytes.
        size: ByteSize,
        /// RAM of the node.
        ram: ByteSize,
    },
    /// Bytes that are no pages.
    #[error("size {size} of memory range {id} is out of range: expected 4K to 16T, a multiple of 4K")]
    Size {
        /// Name.
        id: String,
        /// Bytes.
        size: ByteSize,
    },
    /// An address that is no page.
    #[error("start {start} of memory range {id} is no multiple of 4K; hint: start={rounded}")]
    Start {
        /// Name.
        id: String,
        /// Address.
        start: HexAddress,
        /// Page below.
        rounded: HexAddress,
    },
    /// A key that means nothing for this type.
    #[error("memory range {id} has type={kind} and {key}, which {why}; hint: {hint}")]
    Key {
        /// Name.
        id: String,
        /// Its type.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// What is the matter.
        why: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

impl VmConfig {
    /// What memory range `index` is called.
    pub fn memory_range_name(&self, index: usize) -> String {
        self.memory_range
            .get(index)
            .and_then(|r| r.id.clone())
            .unwrap_or_else(|| format!("range{index}"))
    }

    /// What nodes say of memory beyond their size: windows and mirrors.
    pub(super) fn check_hotplug(&self, problems: &mut Vec<ConfigError>) {
        let memory = self.node_memory();
        for numa in &self.numa {
            let node = numa.node;
            let window = numa.hotplug;
            if window > MAX_WINDOW || !window.0.is_multiple_of(SECTION.0) {
                problems.push(RangeError::Hotplug { node, size: window }.into());
            }
            let ram = memory.get(&node).copied().unwrap_or_default();
            if numa.mirror > ram || !numa.mirror.0.is_multiple_of(PAGE) {
                let size = numa.mirror;
                problems.push(RangeError::Mirror { node, size, ram }.into());
            }
        }
    }

    pub(super) fn check_ranges(&self, problems: &mut Vec<ConfigError>) {
        if self.memory_range.len() > MAX_RANGES {
            problems.push(RangeError::Count(self.memory_range.len()).into());
        }
        let mut ids = BTreeSet::new();
        for (index, range) in self.memory_range.iter().enumerate() {
            let id = self.memory_range_name(index);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            if !(1..=32).contains(&id.len()) || !id.bytes().all(plain) {
                problems.push(RangeError::IdText(id.clone()).into());
            }
            if !ids.insert(id.clone()) {
                problems.push(RangeError::IdTwice(id.clone()).into());
            }
            if let Some(node) = range.node {
                problems.extend(self.unknown_node(node, || format!("memory range {id}")));
            }
            problems.extend(check_range(&id, range).into_iter().map(ConfigError::from));
        }
    }
}

fn check_range(id: &str, range: &MemoryRangeConfig) -> Vec<RangeError> {
    let mut problems = Vec::new();
    let size = range.size;
    if !(PAGE..=16 << 40).contains(&size.0) || !size.0.is_multiple_of(PAGE) {
        problems.push(RangeError::Size {
            id: id.to_owned(),
            size,
        });
    }
    if let Some(start) = range.start
        && !start.0.is_multiple_of(PAGE)
    {
        problems.push(RangeError::Start {
            id: id.to_owned(),
            start,
            rounded: HexAddress(start.0 - start.0 % PAGE),
        });
    }
    let mut key = |key, why, hint| {
        problems.push(RangeError::Key {
            id: id.to_owned(),
            kind: range.kind.name(),
            key,
            why,
            hint,
        });
    };
    if range.kind == RangeKind::Hole && range.start.is_none() {
        key("no start=", "keeps nothing free", "add start=ADDRESS");
    }
    if !range.kind.has_memory() {
        if range.node.is_some() {
            key("node=", "has no memory to belong to a node", "leave out node=");
        }
        if range.file.is_some() {
            key("file=", "has no memory to keep", "leave out file=");
        }
    }
    if range.kind == RangeKind::Ram && range.file.is_some() {
        key("file=", "starts empty at every boot", "leave out file=");
    }
    if let Some(offset) = range.offset {
        if range.file.is_none() {
            key("offset=", "is a place in a file", "add file=PATH");
        } else if !offset.0.is_multiple_of(PAGE) {
            key("offset=", "is no multiple of 4K", "begin at a whole page");
        }
    }
    if range.kind != RangeKind::Ram && range.mirror {
        key("mirror=on", "is a property of RAM", "leave out mirror=");
    }
    problems
}

#[cfg(test)]
mod tests;
