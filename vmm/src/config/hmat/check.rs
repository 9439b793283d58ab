//! What can be wrong with what is said of performance.

use super::{HmatConfig, MAX_CACHE_LEVEL, MemoryCacheConfig, Performance, common_unit};
use crate::config::{Bandwidth, ConfigError, Latency, VmConfig};
use devices::units::ByteSize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Highest entry of a matrix; 0 means that nothing is known, 0xffff that there is no way. ACPI 6.5 table 5.146.
const MAX_ENTRY: u32 = 0xfffe;

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
    pub(in crate::config) fn check_hmat(&self, problems: &mut Vec<ConfigError>) {
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
