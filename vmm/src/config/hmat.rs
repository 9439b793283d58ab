//! What the user says of performance: latency and bandwidth between nodes, memory-side caches, generic initiators.
//!
//! An `hmat` entry may leave out its initiator, its target or both, and then speaks of all of them. Of the entries that
//! state a value for a pair, the one that names most counts: both nodes, then the target, then the initiator, then neither.
//! What no entry states is absent from the table; nothing is derived or rounded.

mod check;

use super::{Bandwidth, Latency, VmConfig};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub use check::HmatError;

/// Most levels of memory-side caches of a node: the levels that the locality structure can name. ACPI 6.5 5.2.29.4.
pub const MAX_CACHE_LEVEL: u8 = 3;
/// Latency and bandwidth between initiators and targets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HmatConfig {
    /// Node with vCPUs or a generic initiator; none: every one.
    pub initiator: Option<u32>,
    /// Node with memory; none: every one.
    pub target: Option<u32>,
    /// Latency of reads and writes.
    pub latency: Option<Latency>,
    /// Latency of reads where it differs.
    pub read_latency: Option<Latency>,
    /// Latency of writes where it differs.
    pub write_latency: Option<Latency>,
    /// Bandwidth of reads and writes.
    pub bandwidth: Option<Bandwidth>,
    /// Bandwidth of reads where it differs.
    pub read_bandwidth: Option<Bandwidth>,
    /// Bandwidth of writes where it differs.
    pub write_bandwidth: Option<Bandwidth>,
}

/// One level of cache in front of a node's memory. ACPI 6.5 5.2.29.5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryCacheConfig {
    /// Node whose memory it is in front of.
    pub node: u32,
    /// Bytes of the cache.
    pub size: ByteSize,
    /// Level, 1 (nearest to the memory's users) to 3.
    #[serde(default = "MemoryCacheConfig::default_level")]
    pub level: u8,
    /// How addresses find their place.
    #[serde(default)]
    pub associativity: CacheAssociativity,
    /// When writes reach the memory.
    #[serde(default)]
    pub write_policy: CacheWritePolicy,
    /// Bytes of a line.
    #[serde(default = "MemoryCacheConfig::default_line")]
    pub line: u16,
}

impl MemoryCacheConfig {
    fn default_level() -> u8 {
        1
    }
    fn default_line() -> u16 {
        64
    }
}

/// How addresses find their place in a cache; the numbers are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum CacheAssociativity {
    /// Nothing is said.
    #[default]
    None = 0,
    /// One place for each address.
    Direct = 1,
    /// Any of several.
    Complex = 2,
}

/// When writes reach the memory; the numbers are those of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum CacheWritePolicy {
    /// Nothing is said.
    #[default]
    None = 0,
    /// When the line is given up.
    Back = 1,
    /// At once.
    Through = 2,
}

/// A device that reads and writes memory and is no processor, on a node of its own. ACPI 6.5 5.2.16.6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GenericInitiatorConfig {
    /// Node.
    pub node: u32,
    /// `_HID` of its ACPI device: four capital letters or digits, then four hexadecimal digits.
    #[serde(default = "GenericInitiatorConfig::default_hid")]
    pub hid: String,
    /// `_UID` of its ACPI device; none: its position among the generic initiators.
    #[serde(default)]
    pub uid: Option<u32>,
}

impl GenericInitiatorConfig {
    /// The id of a device that nothing drives.
    pub fn default_hid() -> String {
        "DAXV0001".to_owned()
    }

    /// The id as the table has it; none when it is no ACPI id (ACPI 6.5 6.1.5).
    pub fn hid_bytes(&self) -> Option<[u8; 8]> {
        let id: [u8; 8] = self.hid.as_bytes().try_into().ok()?;
        let (vendor, number) = id.split_at(4);
        let vendor = vendor.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let number = number.iter().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
        (vendor && number).then_some(id)
    }
}

/// What is known of one initiator and one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Performance {
    /// Latency of reads.
    pub read_latency: Option<Latency>,
    /// Latency of writes.
    pub write_latency: Option<Latency>,
    /// Bandwidth of reads.
    pub read_bandwidth: Option<Bandwidth>,
    /// Bandwidth of writes.
    pub write_bandwidth: Option<Bandwidth>,
}

impl VmConfig {
    /// `_UID` of generic initiator `index`.
    pub fn generic_initiator_uid(&self, index: usize) -> u32 {
        let position = u32::try_from(index).unwrap_or(u32::MAX);
        self.generic_initiator
            .get(index)
            .and_then(|g| g.uid)
            .unwrap_or(position)
    }

    /// Nodes from which memory is reached: those with vCPUs and those with generic initiators.
    pub fn initiators(&self) -> BTreeSet<u32> {
        let vcpus = (0..self.cpus.count).filter_map(|v| self.node_of_vcpu(v));
        vcpus.chain(self.generic_initiator.iter().map(|g| g.node)).collect()
    }

    /// Nodes that have memory, or room for memory that comes later.
    pub fn memory_targets(&self) -> BTreeSet<u32> {
        let ram = self.node_memory().into_keys();
        let own = (0..self.nvdimm.len()).filter(|slot| self.has_own_range(*slot));
        let dimms = own.filter_map(|slot| Some(self.nvdimm.get(slot)?.node));
        let sets = self.interleave_set.iter().map(|set| set.node);
        let disks = self.virtual_disk.iter().map(|disk| disk.node);
        let dimms = dimms.chain(sets).chain(disks);
        let windows = self.numa.iter().filter(|n| n.hotplug.0 != 0).map(|n| n.node);
        let ranges = self.memory_range.iter().filter_map(|r| r.target_node());
        let pmem = self.virtio_pmem.iter().map(|device| device.node);
        let virtio = pmem.chain(self.virtio_mem.iter().map(|device| device.node));
        ram.chain(dimms).chain(windows).chain(ranges).chain(virtio).collect()
    }

    /// Whether the machine has an HMAT.
    pub fn has_hmat(&self) -> bool {
        let attached = self.numa.iter().any(|n| n.initiator.is_some());
        attached || !self.hmat.is_empty() || !self.memory_cache.is_empty()
    }

    /// The node whose processors or device the memory of `node` is attached to: what is said, or the node itself when it
    /// is an initiator.
    pub fn attached_initiator(&self, node: u32) -> Option<u32> {
        let said = self.numa.iter().find(|n| n.node == node).and_then(|n| n.initiator);
        said.or_else(|| self.initiators().contains(&node).then_some(node))
    }

    /// What the entries together say of a pair.
    pub fn performance(&self, initiator: u32, target: u32) -> Performance {
        let mut entries: Vec<_> = self
            .hmat
            .iter()
            .filter(|e| e.initiator.is_none_or(|i| i == initiator) && e.target.is_none_or(|t| t == target))
            .collect();
        entries.sort_by_key(|e| std::cmp::Reverse((e.target.is_some(), e.initiator.is_some())));
        let first = |read: fn(&HmatConfig) -> Option<Latency>| entries.iter().find_map(|e| read(e));
        let most = |read: fn(&HmatConfig) -> Option<Bandwidth>| entries.iter().find_map(|e| read(e));
        Performance {
            read_latency: first(|e| e.read_latency.or(e.latency)),
            write_latency: first(|e| e.write_latency.or(e.latency)),
            read_bandwidth: most(|e| e.read_bandwidth.or(e.bandwidth)),
            write_bandwidth: most(|e| e.write_bandwidth.or(e.bandwidth)),
        }
    }
}

/// The largest unit in which all values are whole: their greatest common divisor. None when there is no value.
pub fn common_unit(values: impl IntoIterator<Item = u32>) -> Option<u32> {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    values.into_iter().reduce(gcd).filter(|unit| *unit != 0)
}

#[cfg(test)]
mod tests;
