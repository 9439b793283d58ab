//! What the user asks for: one struct per noun, one serde path.
//!
//! Command line flags (`key=value`, see `kv`), the TOML file of `--config` and later the REST API deserialize into these
//! structs. `VmConfig::validate` reports every problem at once and touches nothing.

use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

pub use devices::nvdimm::config::{NvdimmBacking, NvdimmConfig};

/// A whole virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct VmConfig {
    /// Kernel image: bzImage or ELF vmlinux.
    pub kernel: Option<PathBuf>,
    /// Initial RAM file system.
    pub initrd: Option<PathBuf>,
    /// Appended to the default command line.
    pub cmdline: Option<String>,
    /// How the kernel is entered.
    pub boot: BootConfig,
    /// Number and shape of the vCPUs.
    pub cpus: CpusConfig,
    /// What CPUID says.
    pub cpu: CpuModelConfig,
    /// Boot RAM.
    pub memory: MemoryConfig,
    /// NUMA nodes; empty: one node 0 with everything.
    pub numa: Vec<NumaConfig>,
    /// SLIT entries that differ from the default (10 local, 20 remote).
    pub distance: Vec<DistanceConfig>,
    /// Virtual NVDIMMs in slot order.
    pub nvdimm: Vec<NvdimmConfig>,
    /// The first serial port.
    pub console: ConsoleConfig,
    /// Unix socket on which the guest agent's channel is offered; none: no channel device.
    pub agent_socket: Option<PathBuf>,
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
        Self { count: 1, sockets: None, cores: None, threads: None }
    }
}

/// What CPUID says, as differences from what KVM offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CpuModelConfig {
    /// Vendor id string of leaf 0, for example `GenuineIntel`; none: the host's.
    pub vendor: Option<String>,
    /// Features taken away, by the kernel's `/proc/cpuinfo` names.
    pub remove: Vec<String>,
}

/// Boot RAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MemoryConfig {
    /// All nodes together.
    pub size: ByteSize,
    /// Host huge page size to back RAM with (`2M`, `1G`); none: ordinary pages.
    pub hugepages: Option<ByteSize>,
    /// Map RAM shared instead of private.
    pub shared: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { size: ByteSize::gib(1), hugepages: None, shared: false }
    }
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
}

/// A list of vCPU numbers, written `0-1,4` (in TOML also as an array of numbers).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuList(pub Vec<u8>);

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

/// Where the first serial port goes: `stdio`, `file:PATH`, `pty` or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ConsoleConfig {
    /// The terminal or pipe daxvisor was started on.
    #[default]
    Stdio,
    /// A file, truncated at start.
    File(PathBuf),
    /// A new pseudo terminal, whose name is printed.
    Pty,
    /// Nowhere.
    None,
}
