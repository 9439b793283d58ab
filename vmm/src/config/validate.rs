//! `VmConfig::validate`: every problem of the values themselves, without a look at the host.

mod net;
mod nvdimm;
mod virtio;

use super::{ApeiConfig, ConfigError, MemoryConfig, VmConfig};
use devices::units::ByteSize;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
};

/// Most vCPUs of a machine.
pub const MAX_VCPUS: u8 = 64;
/// Most nodes of a machine.
pub const MAX_NODES: u32 = 64;
/// Most NVDIMMs of a machine.
pub const MAX_NVDIMMS: usize = 32;

/// What a guest kernel of a distribution needs to reach its init with an initramfs.
pub(super) const MIN_RAM: ByteSize = ByteSize::mib(64);
/// 46 address bits: nothing larger has been seen, and sums of valid sizes cannot overflow.
const MAX_RAM: ByteSize = ByteSize::gib(64 << 10);
const RAM_UNIT: ByteSize = ByteSize::mib(2);
/// A memory section of Linux on x86-64, the unit in which it gives memory to nodes and takes it away.
const NODE_UNIT: ByteSize = ByteSize::mib(128);
/// `sun_path` holds 108 bytes with its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// vCPUs as sockets x cores x threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuShape {
    /// Sockets of the machine.
    pub sockets: u8,
    /// Cores of a socket.
    pub cores: u8,
    /// Threads of a core.
    pub threads: u8,
}

impl VmConfig {
    /// Every problem of the values. Touches nothing; [`VmConfig::probe`](super::VmConfig::probe) looks at the files.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut problems = Vec::new();
        self.check_texts(&mut problems);
        problems.extend(self.cpu_shape().err());
        self.check_nodes(&mut problems);
        self.check_distances(&mut problems);
        self.check_memory(&mut problems);
        self.check_limits(&mut problems);
        self.check_modules(&mut problems);
        self.check_xen(&mut problems);
        self.check_hotplug(&mut problems);
        self.check_hmat(&mut problems);
        self.check_ranges(&mut problems);
        self.check_memory_devices(&mut problems);
        self.check_nvdimms(&mut problems);
        self.check_nvdimm_buses(&mut problems);
        self.check_virtio(&mut problems);
        if self.apei.enabled && !ApeiConfig::POLL.contains(&self.apei.poll.0) {
            problems.push(ConfigError::ApeiPoll(self.apei.poll));
        }
        if let Some(path) = self.apei.records.as_ref().filter(|_| !self.apei.enabled) {
            problems.push(ConfigError::ApeiRecords(path.clone()));
        }
        if self.apei.extlog && !self.apei.enabled {
            problems.push(ConfigError::ApeiExtlog);
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Sockets, cores and threads. What is not given follows: threads are 1; without sockets and cores, nodes with vCPUs
    /// become sockets when each has an equal, contiguous run of them; when they do not, every core is a socket, so that no
    /// socket spans nodes; a machine of one node has one socket.
    pub fn cpu_shape(&self) -> Result<CpuShape, ConfigError> {
        let c = &self.cpus;
        if !(1..=MAX_VCPUS).contains(&c.count) {
            return Err(ConfigError::VcpuCount(c.count));
        }
        let given = [("sockets", c.sockets), ("cores", c.cores), ("threads", c.threads)];
        let product = given
            .iter()
            .try_fold(1u8, |product, (_, n)| product.checked_mul(n.unwrap_or(1)));
        let complete = given.iter().all(|(_, n)| n.is_some());
        let rest = match product {
            Some(p) if p != 0 && c.count.is_multiple_of(p) && (!complete || p == c.count) => c.count / p,
            _ => {
                let known = given.iter().filter_map(|(name, n)| Some(format!("{name}={}", (*n)?)));
                return Err(ConfigError::CpuShape {
                    count: c.count,
                    shape: known.collect::<Vec<_>>().join(" "),
                });
            }
        };
        let threads = c.threads.unwrap_or(1);
        Ok(match (c.sockets, c.cores) {
            (Some(sockets), Some(cores)) => CpuShape {
                sockets,
                cores,
                threads: c.threads.unwrap_or(rest),
            },
            (Some(sockets), None) => CpuShape {
                sockets,
                cores: rest,
                threads,
            },
            (None, Some(cores)) => CpuShape {
                sockets: rest,
                cores,
                threads,
            },
            (None, None) => {
                let sockets = self.sockets_by_node(rest);
                CpuShape {
                    sockets,
                    cores: rest / sockets,
                    threads,
                }
            }
        })
    }

    /// A divisor of `cores` such that no socket spans nodes.
    fn sockets_by_node(&self, cores: u8) -> u8 {
        let nodes: Vec<_> = (0..self.cpus.count).map(|v| self.node_of_vcpu(v)).collect();
        let count = nodes.iter().collect::<BTreeSet<_>>().len();
        let block = nodes.len() / count.max(1);
        let even = nodes
            .chunks(block.max(1))
            .all(|b| b.iter().all(|n| Some(n) == b.first()));
        match u8::try_from(count) {
            Ok(count) if even && cores.is_multiple_of(count) => count,
            _ => cores,
        }
    }

    fn check_texts(&self, problems: &mut Vec<ConfigError>) {
        let control = self.cmdline.iter().flat_map(|c| c.chars()).find(|c| c.is_control());
        problems.extend(control.map(ConfigError::Cmdline));
        for path in [&self.agent_socket, &self.api_socket].into_iter().flatten() {
            let len = path.as_os_str().as_bytes().len();
            if len > MAX_SOCKET_PATH {
                problems.push(ConfigError::SocketPath {
                    path: path.clone(),
                    len,
                });
            }
        }
        if let Some(vendor) = &self.cpu.vendor
            && (vendor.len() != 12 || !vendor.bytes().all(|b| (0x20..0x7f).contains(&b)))
        {
            problems.push(ConfigError::CpuVendor(vendor.clone()));
        }
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
        let named = self.cpu.add.iter().chain(&self.cpu.remove);
        let odd = named.filter(|name| name.is_empty() || !plain(name));
        problems.extend(odd.map(|name| ConfigError::CpuFeature(name.clone())));
    }

    fn check_nodes(&self, problems: &mut Vec<ConfigError>) {
        let mut seen = BTreeSet::new();
        let mut owner = BTreeMap::new();
        for numa in &self.numa {
            if numa.node >= MAX_NODES {
                problems.push(ConfigError::NodeRange(numa.node));
            }
            if !seen.insert(numa.node) {
                problems.push(ConfigError::NodeTwice(numa.node));
            }
            for &vcpu in &numa.cpus.0 {
                if vcpu >= self.cpus.count {
                    problems.push(ConfigError::VcpuUnknown {
                        node: numa.node,
                        vcpu,
                        count: self.cpus.count,
                    });
                }
                if owner.insert(vcpu, numa.node).is_some() {
                    problems.push(ConfigError::VcpuTwice { vcpu, node: numa.node });
                }
            }
        }
        let left: Vec<_> = (0..self.cpus.count).filter(|vcpu| !owner.contains_key(vcpu)).collect();
        if !owner.is_empty() && !left.is_empty() {
            problems.push(ConfigError::VcpuUnassigned(super::CpuList(left).to_string()));
        }
    }

    /// Every distance that is given, in whichever place, as (from, to, value).
    pub(crate) fn distances(&self) -> impl Iterator<Item = (u32, u32, u8)> {
        let own = |n: &super::NumaConfig| n.distance.0.iter().map(|(to, v)| (n.node, *to, *v)).collect::<Vec<_>>();
        self.distance
            .iter()
            .map(|d| (d.from, d.to, d.value))
            .chain(self.numa.iter().flat_map(own))
    }

    fn check_distances(&self, problems: &mut Vec<ConfigError>) {
        let mut pairs = BTreeMap::new();
        for (from, to, value) in self.distances() {
            for node in [from, to] {
                problems.extend(self.unknown_node(node, || format!("a distance from {from} to {to}")));
            }
            if from == to {
                problems.push(ConfigError::DistanceSelf(from));
                continue;
            }
            if value < 11 {
                problems.push(ConfigError::DistanceRange { from, to, value });
            }
            match pairs.insert((from.min(to), from.max(to)), value) {
                Some(first) if first != value => {
                    problems.push(ConfigError::DistanceConflict {
                        from,
                        to,
                        first,
                        second: value,
                    });
                }
                _ => {}
            }
        }
    }

    pub(super) fn unknown_node(&self, node: u32, what: impl FnOnce() -> String) -> Option<ConfigError> {
        let nodes = self.nodes();
        let known = || nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        (!nodes.contains(&node)).then(|| ConfigError::NodeUnknown {
            what: what(),
            node,
            known: known(),
        })
    }

    fn check_memory(&self, problems: &mut Vec<ConfigError>) {
        let MemoryConfig { size, hugepages, .. } = &self.memory;
        let sum = self.ram();
        match size {
            Some(size) if *size != sum => problems.push(ConfigError::MemorySum { sum, size: *size }),
            _ => {}
        }
        if !(MIN_RAM..=MAX_RAM).contains(&sum) {
            problems.push(ConfigError::MemorySize(sum));
        }
        if let Some(page) = hugepages
            && ![ByteSize::mib(2), ByteSize::gib(1)].contains(page)
        {
            problems.push(ConfigError::Hugepages(*page));
        }
        let page = hugepages.filter(|p| *p > RAM_UNIT).unwrap_or(RAM_UNIT);
        let nodes = self.node_memory();
        let last = nodes.keys().next_back();
        for (node, size) in &nodes {
            let bad = |unit: ByteSize, what| {
                let odd = unit.0 == 0 || !size.0.is_multiple_of(unit.0);
                odd.then_some(ConfigError::MemoryMultiple {
                    size: *size,
                    node: *node,
                    unit,
                    what,
                })
            };
            let section =
                || (Some(node) != last).then(|| bad(NODE_UNIT, "memory sections before another node's memory"));
            problems.extend(bad(page, "pages").or_else(|| section().flatten()));
        }
    }
}

pub(super) use nvdimm::check_size;
pub use virtio::throttle_problem;

#[cfg(test)]
mod tests;
