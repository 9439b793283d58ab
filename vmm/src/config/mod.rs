//! What the user asks for: one struct per noun, one serde path.
//!
//! Command line flags (`key=value`, see [`kv`] and the table in [`flags`]), the TOML file of `--config` ([`file`]) and
//! the REST API deserialize into these structs. [`VmConfig::validate`] reports every problem at once and touches nothing;
//! [`probe`] then looks at the files that are named and still changes nothing.
//!
//! What no `numa` entry claims belongs to node 0, which every machine has: all vCPUs when no entry has `cpus`, all RAM when
//! no entry has `memory`. As soon as one entry has `cpus` (or `memory`), the entries together must account for all of it.

mod error;
pub mod file;
pub mod flags;
mod hmat;
pub mod kv;
mod limits;
mod memory_device;
mod module;
mod named;
pub mod probe;
pub mod profile;
mod ranges;
mod rates;
mod text;
mod validate;
mod virtio;
mod xen;

use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub use devices::acpi::memory_hotplug::{MemoryBacking, MemoryDeviceConfig};
pub use devices::apei::ApeiConfig;
pub use devices::{
    nvdimm::config::{ArsConfig, InterleaveSetConfig, NvdimmBacking, NvdimmBusConfig, NvdimmConfig, VirtualDiskConfig},
    virtio::{
        blk::config::{DiskConfig, DiskFault, DiskFaultConfig, DiskThrottle},
        config::{VirtioMemConfig, VirtioPmemConfig},
        net::config::{Mac, NetConfig, NetWire},
        p9::config::ShareConfig,
        vsock::config::VsockConfig,
    },
};
pub use error::ConfigError;
pub use hmat::{
    CacheAssociativity, CacheWritePolicy, GenericInitiatorConfig, HmatConfig, HmatError, MemoryCacheConfig,
    Performance, common_unit,
};
pub use limits::{LIMIT_UNIT, LimitBy, Limits, LimitsConfig, LimitsError, MemoryLimitConfig, UNLIMITED};
pub use memory_device::{file_of, memory_of};
pub use module::{MAX_MODULES, ModuleConfig, ModuleError};
pub use ranges::{HexAddress, MemoryRangeConfig, RangeError, RangeKind};
pub use rates::{Bandwidth, Latency};
pub use text::{ConsoleConfig, CpuList, NodeDistances};
pub use validate::{CpuShape, MAX_NODES, MAX_NVDIMMS, MAX_VCPUS, throttle_problem};
pub use virtio::VirtioDeviceId;
pub use xen::{XenConfig, XenError};

/// A whole virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VmConfig {
    /// Kernel image, bzImage or ELF vmlinux: a path, or `@NAME` for a guest image's kernel.
    pub kernel: Option<PathBuf>,
    /// Initial RAM file system: a path, or `@NAME` for a guest image's; none with a `@NAME` kernel: that image's.
    pub initrd: Option<PathBuf>,
    /// Appended to the default command line.
    pub cmdline: Option<String>,
    /// Modules for a multiboot kernel, in order: for Xen the first domain's kernel, then its initrd.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub module: Vec<ModuleConfig>,
    /// How the kernel is entered.
    pub boot: BootConfig,
    /// Number and shape of the vCPUs.
    pub cpus: CpusConfig,
    /// What CPUID says.
    pub cpu: CpuModelConfig,
    /// Boot RAM.
    pub memory: MemoryConfig,
    /// Where the RAM that the guest's kernel uses ends; none: it uses all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<MemoryLimitConfig>,
    /// What of Xen the guest finds; none: KVM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xen: Option<XenConfig>,
    /// What the machine's RAM may become.
    #[serde(skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
    /// NUMA nodes; empty: one node 0 with everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numa: Vec<NumaConfig>,
    /// SLIT entries that differ from the default (10 local, 20 remote).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distance: Vec<DistanceConfig>,
    /// Latency and bandwidth between nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hmat: Vec<HmatConfig>,
    /// Memory-side caches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_cache: Vec<MemoryCacheConfig>,
    /// Initiators that are no processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_initiator: Vec<GenericInitiatorConfig>,
    /// Ranges of the guest physical map placed or typed by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_range: Vec<MemoryRangeConfig>,
    /// Slots for hot-pluggable memory devices; 0: as many as devices are there at boot.
    #[serde(skip_serializing_if = "is_none")]
    pub memory_slots: u16,
    /// Hot-pluggable memory devices that are there at boot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory_device: Vec<MemoryDeviceConfig>,
    /// Virtual NVDIMMs in slot order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nvdimm: Vec<NvdimmConfig>,
    /// NVDIMM root devices that differ from the default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nvdimm_bus: Vec<NvdimmBusConfig>,
    /// SPA ranges over parts of one or several NVDIMMs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interleave_set: Vec<InterleaveSetConfig>,
    /// Disk and CD images that the NFIT describes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtual_disk: Vec<VirtualDiskConfig>,
    /// Address range scrubs of the NVDIMM buses.
    pub ars: ArsConfig,
    /// Error interfaces of the platform.
    pub apei: ApeiConfig,
    /// What becomes of bad memory.
    pub poison: PoisonConfig,
    /// Persistent memory behind virtio devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtio_pmem: Vec<VirtioPmemConfig>,
    /// Memory that grows and shrinks behind virtio devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub virtio_mem: Vec<VirtioMemConfig>,
    /// Disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<DiskConfig>,
    /// What is wrong with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disk_fault: Vec<DiskFaultConfig>,
    /// Network devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net: Vec<NetConfig>,
    /// Folders of the host that the guest reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub share: Vec<ShareConfig>,
    /// Streams between programs of the guest and of the host; none: no device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// The first serial port.
    pub console: ConsoleConfig,
    /// Unix socket on which the guest agent's channel is offered; none: no channel device.
    pub agent_socket: Option<PathBuf>,
    /// Unix socket on which the running machine serves the REST API; none: it serves none.
    pub api_socket: Option<PathBuf>,
}

/// What becomes of bad memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PoisonConfig {
    /// A line that the guest's processors have stored to from end to end is good again.
    pub clear_on_write: bool,
    /// Pages beyond what memory slots can do without are caught by the host's userfaultfd, where it can.
    pub userfaultfd: bool,
}

impl Default for PoisonConfig {
    fn default() -> Self {
        Self {
            clear_on_write: false,
            userfaultfd: true,
        }
    }
}

/// How the kernel is entered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BootConfig {
    /// Boot protocol.
    pub protocol: BootProtocol,
    /// Whether the monitor unpacks a compressed bzImage itself.
    pub unpack: Unpack,
}

/// Boot protocol; `auto` takes the 64-bit protocol for whatever the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootProtocol {
    /// 64-bit protocol; a bzImage is unpacked when that works.
    #[default]
    Auto,
    /// 64-bit Linux boot protocol (zero page in RSI).
    Linux64,
    /// PVH: 32-bit entry of the Xen note, start info in EBX.
    Pvh,
    /// Multiboot: 32-bit entry, information structure in EBX; taken by itself when there are modules.
    Multiboot,
}

/// Who unpacks a compressed bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// The monitor when it knows the compression, else the guest.
    #[default]
    Auto,
    /// The monitor, or an error.
    On,
    /// The guest's own decompressor.
    Off,
}

/// Number and shape of the vCPUs. `count` = sockets x cores x threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CpusConfig {
    /// vCPUs, 1 to 64.
    pub count: u8,
    /// Sockets; none: worked out from the others.
    pub sockets: Option<u8>,
    /// Cores in a socket.
    pub cores: Option<u8>,
    /// Threads in a core.
    pub threads: Option<u8>,
}

impl Default for CpusConfig {
    fn default() -> Self {
        Self {
            count: 1,
            sockets: None,
            cores: None,
            threads: None,
        }
    }
}

/// What CPUID says, as differences from what KVM offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CpuModelConfig {
    /// Vendor id string of leaf 0, for example `GenuineIntel`; none: the host's.
    pub vendor: Option<String>,
    /// Features that the host's processor need not have, by the kernel's `/proc/cpuinfo` names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Features taken away, by the same names.
    pub remove: Vec<String>,
}

/// Boot RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MemoryConfig {
    /// All nodes together; none: the sum of what the nodes state, or [`MemoryConfig::DEFAULT_SIZE`]. See [`VmConfig::ram`].
    pub size: Option<ByteSize>,
    /// Host huge page size to back RAM with (`2M`, `1G`); none: ordinary pages.
    pub hugepages: Option<ByteSize>,
    /// Map RAM shared instead of private.
    pub shared: bool,
}

impl MemoryConfig {
    /// RAM of a machine that says nothing of it.
    pub const DEFAULT_SIZE: ByteSize = ByteSize::gib(1);
}

/// One NUMA node (ACPI proximity domain of the same number).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NumaConfig {
    /// Node number, 0 to 63.
    pub node: u32,
    /// vCPUs of the node, as a list such as `0-1,4`; empty: a memory-only node.
    #[serde(default)]
    pub cpus: CpuList,
    /// Boot RAM of the node; absent or 0: a node without boot memory.
    #[serde(default)]
    pub memory: ByteSize,
    /// Distances from this node, as a list such as `1:20,2:30`; each is set in both directions.
    #[serde(default, skip_serializing_if = "NodeDistances::is_empty")]
    pub distance: NodeDistances,
    /// Addresses kept free for memory that is added to the node later; absent or 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hotplug: ByteSize,
    /// How much of the node's RAM, from its lowest address, is mirrored; absent or 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mirror: ByteSize,
    /// Node whose processors or generic initiator this node's memory is attached to (HMAT); none: itself, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(slots: &u16) -> bool {
    *slots == 0
}

fn is_zero(size: &ByteSize) -> bool {
    size.0 == 0
}

/// Distance between two nodes, set in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DistanceConfig {
    /// One node.
    pub from: u32,
    /// The other.
    pub to: u32,
    /// 11 to 254, or 255 for unreachable.
    pub value: u8,
}

impl VmConfig {
    /// The nodes of the machine: node 0 and every one that `numa` names.
    pub fn nodes(&self) -> BTreeSet<u32> {
        self.numa.iter().map(|n| n.node).chain([0]).collect()
    }

    /// The node that vCPU `index` belongs to; none when entries have `cpus` and leave it out.
    pub fn node_of_vcpu(&self, index: u8) -> Option<u32> {
        if self.numa.iter().all(|n| n.cpus.0.is_empty()) {
            return Some(0);
        }
        self.numa.iter().find(|n| n.cpus.0.contains(&index)).map(|n| n.node)
    }

    /// Boot RAM by node; nodes without any are left out.
    pub fn node_memory(&self) -> BTreeMap<u32, ByteSize> {
        let stated = self.numa.iter().filter(|n| n.memory.0 != 0).map(|n| (n.node, n.memory));
        let mut nodes: BTreeMap<_, _> = stated.collect();
        if nodes.is_empty() {
            nodes.insert(0, self.memory.size.unwrap_or(MemoryConfig::DEFAULT_SIZE));
        }
        nodes
    }

    /// Boot RAM of all nodes.
    pub fn ram(&self) -> ByteSize {
        ByteSize(
            self.node_memory()
                .values()
                .fold(0, |sum, size| sum.saturating_add(size.0)),
        )
    }

    /// What NVDIMM `slot` is called in errors and in the API.
    pub fn nvdimm_name(&self, slot: usize) -> String {
        self.nvdimm
            .get(slot)
            .and_then(|n| n.id.clone())
            .unwrap_or_else(|| format!("nvdimm{slot}"))
    }

    /// The slot of the NVDIMM called `id`.
    pub fn nvdimm_slot(&self, id: &str) -> Option<usize> {
        (0..self.nvdimm.len()).find(|slot| self.nvdimm_name(*slot) == id)
    }

    /// Whether the NVDIMM in `slot` is in an SPA range of its own: it is unless a set has it or the user says no.
    pub fn has_own_range(&self, slot: usize) -> bool {
        let id = self.nvdimm_name(slot);
        let in_set = self.interleave_set.iter().any(|set| set.dimms.contains(&id));
        let mapped = self.nvdimm.get(slot).and_then(|n| n.mapped);
        !in_set && mapped.unwrap_or(true)
    }

    /// NFIT device handle of the NVDIMM in `slot`.
    pub fn nvdimm_handle(&self, slot: usize) -> u32 {
        let own = self.nvdimm.get(slot).and_then(|n| n.handle);
        own.map_or_else(|| u32::try_from(slot + 1).unwrap_or(u32::MAX), |handle| handle.0)
    }

    /// Numbers of the NVDIMM root devices of the machine.
    pub fn nvdimm_buses(&self) -> BTreeSet<u8> {
        let dimms = self.nvdimm.iter().map(|n| n.bus);
        let disks = self.virtual_disk.iter().map(|d| d.bus);
        let named = self.nvdimm_bus.iter().map(|b| b.number);
        dimms.chain(disks).chain(named).collect()
    }
}
