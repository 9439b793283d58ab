//! vCPUs, nodes and distances as the guest sees them: a pure function of the configuration.
//!
//! CPUID, MADT, SRAT and SLIT all read this one plan. APIC ids are guest ABI (docs/guest-abi.md).

use crate::config::{ConfigError, CpuList, CpuShape, VmConfig};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Distance of a node to itself (ACPI 6.5 5.2.17).
pub const LOCAL_DISTANCE: u8 = 10;
/// Distance between two nodes of which nothing is said.
pub const REMOTE_DISTANCE: u8 = 20;

/// An initial APIC id, which is also the x2APIC id. Below 255 for every machine of up to 64 vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApicId(pub u32);

impl fmt::Display for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Where one vCPU sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VcpuPlan {
    /// Number of the vCPU; also its ACPI processor uid.
    pub vcpu: u8,
    /// APIC id: socket, core and thread as bit fields.
    #[schema(value_type = u32)]
    pub apic_id: ApicId,
    /// Proximity domain.
    pub node: u32,
    /// Socket in the machine.
    pub socket: u8,
    /// Core in the socket.
    pub core: u8,
    /// Thread in the core.
    pub thread: u8,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePlan {
    /// Proximity domain.
    pub node: u32,
    /// Its vCPUs; may be none.
    pub vcpus: CpuList,
    /// Its boot RAM; may be none.
    pub memory: ByteSize,
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Sockets, cores and threads.
    pub shape: CpuShape,
    /// vCPUs in order of their number.
    pub vcpus: Vec<VcpuPlan>,
    /// Nodes in order of their number; node 0 is always there.
    pub nodes: Vec<NodePlan>,
    /// Distances that differ from the default, in both directions.
    distances: BTreeMap<(u32, u32), u8>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Sockets, cores and threads do not fit the count.
    #[error(transparent)]
    Shape(#[from] ConfigError),
    /// Nodes list vCPUs, but not this one.
    #[error("no node lists vCPU {0}; hint: list every vCPU in some node's cpus=, or leave cpus= out of all of them")]
    VcpuWithoutNode(u8),
    /// Threads of one core in two nodes, which no processor has and Linux warns of.
    #[error(
        "vCPUs {first} and {second} are threads of one core, but node {first_node} lists one and node {second_node} the \
         other; hint: keep the threads of a core in one node, or use threads=1"
    )]
    CoreSpansNodes {
        /// A thread.
        first: u8,
        /// Another thread of its core.
        second: u8,
        /// Node of the first.
        first_node: u32,
        /// Node of the second.
        second_node: u32,
    },
}

impl Topology {
    /// Plans a validated configuration.
    pub fn plan(config: &VmConfig) -> Result<Self, TopologyError> {
        let shape = config.cpu_shape()?;
        let place = |vcpu| {
            let node = config.node_of_vcpu(vcpu).ok_or(TopologyError::VcpuWithoutNode(vcpu))?;
            Ok(place(shape, vcpu, node))
        };
        let vcpus = (0..config.cpus.count)
            .map(place)
            .collect::<Result<Vec<_>, TopologyError>>()?;
        for core in vcpus.chunk_by(|a, b| (a.socket, a.core) == (b.socket, b.core)) {
            if let [first, rest @ ..] = core
                && let Some(second) = rest.iter().find(|v| v.node != first.node)
            {
                return Err(TopologyError::CoreSpansNodes {
                    first: first.vcpu,
                    second: second.vcpu,
                    first_node: first.node,
                    second_node: second.node,
                });
            }
        }
        let memory = config.node_memory();
        let node = |node| NodePlan {
            node,
            vcpus: CpuList(vcpus.iter().filter(|v| v.node == node).map(|v| v.vcpu).collect()),
            memory: memory.get(&node).copied().unwrap_or_default(),
        };
        let nodes = config.nodes().into_iter().map(node).collect();
        let both = |(from, to, value)| [((from, to), value), ((to, from), value)];
        let distances = config.distances().flat_map(both).collect();
        Ok(Self {
            shape,
            vcpus,
            nodes,
            distances,
        })
    }

    /// SLIT distance between two nodes.
    pub fn distance(&self, from: u32, to: u32) -> u8 {
        match self.distances.get(&(from, to)) {
            _ if from == to => LOCAL_DISTANCE,
            Some(value) => *value,
            None => REMOTE_DISTANCE,
        }
    }

    /// Every distance by proximity domain, from 0 to the highest node, as SLIT has them: a domain that no node uses stands
    /// in the matrix with the default distances.
    pub fn distance_matrix(&self) -> Vec<Vec<u8>> {
        let last = self.nodes.last().map_or(0, |n| n.node);
        (0..=last)
            .map(|from| (0..=last).map(|to| self.distance(from, to)).collect())
            .collect()
    }

    /// APIC id bits that number the threads of a core (CPUID 0xb, level 0 shift).
    pub fn thread_bits(&self) -> u32 {
        bits(self.shape.threads)
    }

    /// APIC id bits that number cores and threads of a socket (CPUID 0xb, level 1 shift).
    pub fn socket_shift(&self) -> u32 {
        bits(self.shape.threads) + bits(self.shape.cores)
    }
}

/// vCPUs are numbered thread by thread, then core by core, then socket by socket.
fn place(shape: CpuShape, vcpu: u8, node: u32) -> VcpuPlan {
    let thread = vcpu % shape.threads;
    let core = vcpu / shape.threads % shape.cores;
    let socket = vcpu / shape.threads / shape.cores;
    let core_shift = bits(shape.threads);
    let socket_shift = core_shift + bits(shape.cores);
    let apic_id = u32::from(socket) << socket_shift | u32::from(core) << core_shift | u32::from(thread);
    VcpuPlan {
        vcpu,
        apic_id: ApicId(apic_id),
        node,
        socket,
        core,
        thread,
    }
}

/// Bits that number `n` things (Intel SDM vol. 3A 9.9.1: fields are rounded up to powers of two).
fn bits(n: u8) -> u32 {
    u32::from(n).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CpusConfig, DistanceConfig, NumaConfig};
    use proptest::prelude::*;

    fn machine(count: u8, sockets: u8, cores: u8, threads: u8) -> VmConfig {
        let cpus = CpusConfig {
            count,
            sockets: Some(sockets),
            cores: Some(cores),
            threads: Some(threads),
        };
        VmConfig {
            cpus,
            ..VmConfig::default()
        }
    }

    fn node(node: u32, cpus: &str) -> NumaConfig {
        NumaConfig {
            node,
            cpus: cpus.parse().unwrap(),
            ..NumaConfig::default()
        }
    }

    fn apic_ids(config: &VmConfig) -> Vec<u32> {
        Topology::plan(config)
            .unwrap()
            .vcpus
            .iter()
            .map(|v| v.apic_id.0)
            .collect()
    }

    #[test]
    fn apic_ids_are_bit_fields_of_socket_core_and_thread() {
        assert_eq!(apic_ids(&machine(4, 1, 4, 1)), [0, 1, 2, 3]);
        assert_eq!(
            apic_ids(&machine(6, 2, 3, 1)),
            [0, 1, 2, 4, 5, 6],
            "three cores take two bits"
        );
        assert_eq!(
            apic_ids(&machine(12, 2, 3, 2)),
            [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
        );
        let plan = Topology::plan(&machine(12, 2, 3, 2)).unwrap();
        assert_eq!((plan.thread_bits(), plan.socket_shift()), (1, 3));
    }

    #[test]
    fn every_machine_has_distinct_apic_ids_below_255() {
        for count in 1..=64u8 {
            for sockets in (1..=count).filter(|s| count.is_multiple_of(*s)) {
                for cores in (1..=count / sockets).filter(|c| (count / sockets).is_multiple_of(*c)) {
                    let ids = apic_ids(&machine(count, sockets, cores, count / sockets / cores));
                    assert!(ids.is_sorted_by(|a, b| a < b), "{count} {sockets} {cores}: {ids:?}");
                    assert!(ids.iter().all(|id| *id < 255), "{count} {sockets} {cores}: {ids:?}");
                }
            }
        }
    }

    #[test]
    fn nodes_have_their_vcpus_and_memory() {
        let mut config = VmConfig {
            numa: vec![node(2, "2-3"), node(0, "0-1"), node(5, "")],
            ..machine(4, 2, 2, 1)
        };
        let summary = |config: &VmConfig| -> Vec<_> {
            let plan = Topology::plan(config).unwrap();
            plan.nodes
                .iter()
                .map(|n| (n.node, n.vcpus.to_string(), n.memory.to_string()))
                .collect()
        };
        let text = |node, vcpus: &str, memory: &str| (node, vcpus.to_owned(), memory.to_owned());
        assert_eq!(
            summary(&config),
            [text(0, "0-1", "1G"), text(2, "2-3", "0"), text(5, "", "0")]
        );
        config.numa[0].memory = ByteSize::mib(128);
        assert_eq!(
            summary(&config),
            [text(0, "0-1", "0"), text(2, "2-3", "128M"), text(5, "", "0")]
        );
        assert_eq!(summary(&machine(4, 2, 2, 1)), [text(0, "0-3", "1G")]);
    }

    #[test]
    fn distances_go_both_ways_and_default_to_10_and_20() {
        let mut far = node(3, "");
        far.distance.0.push((0, 31));
        let config = VmConfig {
            numa: vec![node(1, ""), far],
            distance: vec![DistanceConfig {
                from: 1,
                to: 3,
                value: 255,
            }],
            ..VmConfig::default()
        };
        let plan = Topology::plan(&config).unwrap();
        let expected = [[10, 20, 20, 31], [20, 10, 20, 255], [20, 20, 10, 20], [31, 255, 20, 10]];
        assert_eq!(plan.distance_matrix(), expected);
    }

    #[test]
    fn core_in_two_nodes_is_refused() {
        let config = VmConfig {
            numa: vec![node(0, "0"), node(1, "1")],
            ..machine(2, 1, 1, 2)
        };
        let error = Topology::plan(&config).unwrap_err().to_string();
        assert!(
            error.starts_with("vCPUs 0 and 1 are threads of one core, but node 0 lists one"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_configuration_is_a_plan_or_an_error(
            count: u8, sockets: Option<u8>, cores: Option<u8>, threads: Option<u8>,
            nodes in proptest::collection::vec((0u32..80, proptest::collection::vec(any::<u8>(), 0..6)), 0..4),
        ) {
            let node = |(node, cpus)| NumaConfig { node, cpus: CpuList(cpus), ..NumaConfig::default() };
            let numa: Vec<_> = nodes.into_iter().map(node).collect();
            let cpus = CpusConfig { count, sockets, cores, threads };
            let config = VmConfig { cpus, numa, ..VmConfig::default() };
            if let Ok(plan) = Topology::plan(&config) {
                prop_assert_eq!(plan.vcpus.len(), usize::from(count));
                let CpuShape { sockets, cores, threads } = plan.shape;
                prop_assert_eq!(u32::from(sockets) * u32::from(cores) * u32::from(threads), u32::from(count));
            }
        }
    }
}
