//! What the user says of performance: latency and bandwidth between nodes, memory-side caches, generic initiators.
//!
//! An `hmat` entry may leave out its initiator, its target or both, and then speaks of all of them. Of the entries that
//! state a value for a pair, the one that names most counts: both nodes, then the target, then the initiator, then neither.
//! What no entry states is absent from the table; nothing is derived or rounded.

use super::{Bandwidth, ConfigError, Latency, VmConfig};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Most levels of memory-side caches of a node: the levels that the locality structure can name. ACPI 6.5 5.2.29.4.
pub const MAX_CACHE_LEVEL: u8 = 3;
/// Highest entry of a matrix; 0 means that nothing is known, 0xffff that there is no way. ACPI 6.5 table 5.146.
const MAX_ENTRY: u32 = 0xfffe;

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

/// What is wrong with what is said of performance.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HmatError {
    /// A node that cannot be an initiator.
    #[error(
        "hmat entry {entry} has initiator={node}, a node with neither vCPUs nor a generic initiator; hint: --generic-initiator node={node}"
    )]
    NoInitiator {
        /// What the entry is for.
        entry: String,
        /// The node.
        node: u32,
    },
    /// A node that cannot be a target.
    #[error(
        "{what} names node {node} as memory, but the node has none; hint: give it memory=, hotplug=, an nvdimm or a memory range"
    )]
    NoMemory {
        /// Entry.
        what: String,
        /// The node.
        node: u32,
    },
    /// The same nodes in two entries.
    #[error("two hmat entries are for {0}; hint: put the values into one")]
    Twice(String),
    /// An entry that says nothing.
    #[error("the hmat entry for {0} states no value; hint: add latency=300ns, bandwidth=2GB/s or the like")]
    Empty(String),
    /// A value that the two more precise ones replace.
    #[error(
        "the hmat entry for {entry} states {kind}=, read-{kind}= and write-{kind}=; hint: {kind}= stands for both, leave it out"
    )]
    Redundant {
        /// What the entry is for.
        entry: String,
        /// `latency` or `bandwidth`.
        kind: &'static str,
    },
    /// Values that no common unit holds.
    #[error(
        "the {what} from {least} to {most} do not fit one table: each must be 1 to 65534 times their common unit {unit}; hint: round the values to a larger common unit"
    )]
    Unit {
        /// `read latencies` and the like.
        what: &'static str,
        /// Smallest value.
        least: String,
        /// Largest value.
        most: String,
        /// Greatest common divisor.
        unit: String,
    },
    /// Levels with a gap, or too many.
    #[error(
        "the memory caches of node {node} have the levels {levels}: expected each of 1 to N once, with N at most {MAX_CACHE_LEVEL}"
    )]
    CacheLevels {
        /// Node.
        node: u32,
        /// Levels given.
        levels: String,
    },
    /// A cache without bytes, or a line that is none.
    #[error(
        "the level {level} memory cache of node {node} has size={size} and line={line}: expected a size that is a multiple of the line, and a line of a power of two from 1 to 32768"
    )]
    CacheSize {
        /// Node.
        node: u32,
        /// Level.
        level: u8,
        /// Bytes.
        size: ByteSize,
        /// Bytes of a line.
        line: u16,
    },
    /// Not an ACPI id.
    #[error(
        "hid '{0}' of a generic initiator is no ACPI id: expected four capital letters or digits and four hexadecimal digits, such as ACPI0016"
    )]
    Hid(String),
    /// Two devices of one name.
    #[error("two generic initiators have hid={hid} and uid={uid}; hint: uids of one hid must differ")]
    InitiatorTwice {
        /// `_HID`.
        hid: String,
        /// `_UID`.
        uid: u32,
    },
    /// More than the namespace has names for.
    #[error("{0} generic initiators are asked for: expected at most 256")]
    Initiators(usize),
    /// `initiator=` of a node.
    #[error("node {node} has initiator={initiator}, which is {why}; hint: {hint}")]
    Attached {
        /// Node with the memory.
        node: u32,
        /// Its initiator.
        initiator: u32,
        /// What is the matter.
        why: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

/// The nodes an entry is for, for messages.
fn pair(entry: &HmatConfig) -> String {
    let node = |n: Option<u32>| n.map_or_else(|| "every node".to_owned(), |n| format!("node {n}"));
    format!("{} to {}", node(entry.initiator), node(entry.target))
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
        ram.chain(dimms).chain(windows).chain(ranges).collect()
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

    pub(super) fn check_hmat(&self, problems: &mut Vec<ConfigError>) {
        self.check_pairs(problems);
        self.check_units(problems);
        self.check_caches(problems);
        self.check_generic_initiators(problems);
        self.check_attached(problems);
    }

    fn check_pairs(&self, problems: &mut Vec<ConfigError>) {
        let (initiators, targets) = (self.initiators(), self.memory_targets());
        let mut seen = BTreeSet::new();
        for entry in &self.hmat {
            let what = || format!("the hmat entry for {}", pair(entry));
            for (node, known, wrong) in [(entry.initiator, &initiators, true), (entry.target, &targets, false)] {
                let Some(node) = node else { continue };
                if let Some(unknown) = self.unknown_node(node, what) {
                    problems.push(unknown);
                } else if !known.contains(&node) {
                    let problem = match wrong {
                        true => HmatError::NoInitiator {
                            entry: pair(entry),
                            node,
                        },
                        false => HmatError::NoMemory { what: what(), node },
                    };
                    problems.push(problem.into());
                }
            }
            if !seen.insert((entry.initiator, entry.target)) {
                problems.push(HmatError::Twice(pair(entry)).into());
            }
            let latency = [entry.latency, entry.read_latency, entry.write_latency].map(|v| v.is_some());
            let bandwidth = [entry.bandwidth, entry.read_bandwidth, entry.write_bandwidth].map(|v| v.is_some());
            if latency.iter().chain(&bandwidth).all(|given| !given) {
                problems.push(HmatError::Empty(pair(entry)).into());
            }
            for (kind, given) in [("latency", latency), ("bandwidth", bandwidth)] {
                if given == [true; 3] {
                    problems.push(
                        HmatError::Redundant {
                            entry: pair(entry),
                            kind,
                        }
                        .into(),
                    );
                }
            }
        }
    }

    fn check_units(&self, problems: &mut Vec<ConfigError>) {
        let (initiators, targets) = (self.initiators(), self.memory_targets());
        let pairs: Vec<_> = initiators
            .iter()
            .flat_map(|i| targets.iter().map(|t| self.performance(*i, *t)))
            .collect();
        let latencies = |read: fn(&Performance) -> Option<Latency>| pairs.iter().filter_map(read).collect::<Vec<_>>();
        let bandwidths =
            |read: fn(&Performance) -> Option<Bandwidth>| pairs.iter().filter_map(read).collect::<Vec<_>>();
        let found = [
            no_unit(
                "read latencies",
                &latencies(|p| p.read_latency),
                Latency::picoseconds,
                "ps",
            ),
            no_unit(
                "write latencies",
                &latencies(|p| p.write_latency),
                Latency::picoseconds,
                "ps",
            ),
            no_unit(
                "read bandwidths",
                &bandwidths(|p| p.read_bandwidth),
                Bandwidth::megabytes,
                "MB/s",
            ),
            no_unit(
                "write bandwidths",
                &bandwidths(|p| p.write_bandwidth),
                Bandwidth::megabytes,
                "MB/s",
            ),
        ];
        problems.extend(found.into_iter().flatten().map(ConfigError::from));
    }

    fn check_caches(&self, problems: &mut Vec<ConfigError>) {
        let targets = self.memory_targets();
        let mut levels: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for MemoryCacheConfig {
            node,
            size,
            level,
            line,
            ..
        } in &self.memory_cache
        {
            let (node, size, level, line) = (*node, *size, *level, *line);
            let what = || format!("the level {level} memory cache");
            match self.unknown_node(node, what) {
                Some(unknown) => problems.push(unknown),
                None if !targets.contains(&node) => {
                    problems.push(HmatError::NoMemory { what: what(), node }.into());
                }
                None => {}
            }
            if size.0 == 0 || !line.is_power_of_two() || !size.0.is_multiple_of(line.max(1).into()) {
                problems.push(
                    HmatError::CacheSize {
                        node,
                        level,
                        size,
                        line,
                    }
                    .into(),
                );
            }
            levels.entry(node).or_default().push(level);
        }
        for (node, mut levels) in levels {
            levels.sort_unstable();
            let text: Vec<_> = levels.iter().map(u8::to_string).collect();
            if levels.len() > MAX_CACHE_LEVEL.into() || !levels.iter().copied().eq((1..).take(levels.len())) {
                let levels = text.join(", ");
                problems.push(HmatError::CacheLevels { node, levels }.into());
            }
        }
    }

    fn check_generic_initiators(&self, problems: &mut Vec<ConfigError>) {
        // Their devices have two hexadecimal digits for a name.
        if self.generic_initiator.len() > 256 {
            problems.push(HmatError::Initiators(self.generic_initiator.len()).into());
        }
        let mut seen = BTreeSet::new();
        for (index, initiator) in self.generic_initiator.iter().enumerate() {
            let uid = self.generic_initiator_uid(index);
            problems.extend(self.unknown_node(initiator.node, || format!("generic initiator {index}")));
            if initiator.hid_bytes().is_none() {
                problems.push(HmatError::Hid(initiator.hid.clone()).into());
            }
            if !seen.insert((&initiator.hid, uid)) {
                let hid = initiator.hid.clone();
                problems.push(HmatError::InitiatorTwice { hid, uid }.into());
            }
        }
    }

    fn check_attached(&self, problems: &mut Vec<ConfigError>) {
        let (initiators, targets) = (self.initiators(), self.memory_targets());
        for numa in &self.numa {
            let Some(initiator) = numa.initiator else { continue };
            let node = numa.node;
            let what = || format!("initiator= of node {node}");
            if let Some(unknown) = self.unknown_node(initiator, what) {
                problems.push(unknown);
                continue;
            }
            let mut bad = |why, hint| {
                let problem = HmatError::Attached {
                    node,
                    initiator,
                    why,
                    hint,
                };
                problems.push(problem.into());
            };
            if !targets.contains(&node) {
                bad("of no use on a node without memory", "leave it out");
            } else if initiators.contains(&node) && initiator != node {
                bad(
                    "not the node itself, which has vCPUs or a generic initiator",
                    "leave it out",
                );
            } else if !initiators.contains(&initiator) {
                bad(
                    "a node with neither vCPUs nor a generic initiator",
                    "name a node that has one of them",
                );
            }
        }
    }
}

/// Whether `values` have no common unit that makes table entries of them all.
fn no_unit<T: Copy + Ord + fmt::Display>(
    what: &'static str,
    values: &[T],
    number: fn(T) -> u32,
    suffix: &str,
) -> Option<HmatError> {
    let (least, most) = (values.iter().min()?, values.iter().max()?);
    let unit = common_unit(values.iter().map(|v| number(*v)))?;
    (number(*most) / unit > MAX_ENTRY).then(|| HmatError::Unit {
        what,
        least: least.to_string(),
        most: most.to_string(),
        unit: format!("{unit}{suffix}"),
    })
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
