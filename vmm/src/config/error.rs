//! What can be wrong with a configuration: one sentence each, with the value, what was expected and a hint.

use super::{MAX_NODES, MAX_NVDIMMS, MAX_VCPUS, kv};
use devices::units::{ByteSize, TimeSpan};
use std::{io, path::PathBuf};

/// One problem of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag's text does not read.
    #[error("--{flag} '{text}'{}", see_help(flag, source))]
    Flag {
        /// Flag without dashes.
        flag: &'static str,
        /// What stands behind it.
        text: String,
        /// Why.
        #[source]
        source: kv::Error,
    },
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {0}")]
    ReadFile(PathBuf, #[source] io::Error),
    /// The configuration file is not what it should be; the text carries line and column.
    #[error("{0}: {1}")]
    ParseFile(PathBuf, String),

    /// A profile that does not exist.
    #[error("there is no profile '{name}': expected one of {known}")]
    Profile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },

    /// No kernel to boot.
    #[error("there is no kernel to boot; hint: add --kernel PATH, or --kernel @NAME for a guest image")]
    NoKernel,
    /// A control character in the command line.
    #[error("the kernel command line has the control character {0:?}: expected one line of text")]
    Cmdline(char),
    /// A named file that cannot be used.
    #[error("cannot use {path} as {role}{}", hint(source))]
    Unusable {
        /// What it is named for.
        role: String,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A named file of the wrong kind.
    #[error("cannot use {path} as {role}: it is {found}, expected {expected}")]
    WrongKind {
        /// What it is named for.
        role: String,
        /// The path.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// One file in two roles, one of which writes it.
    #[error(
        "{path} is named both for {first} and for {second}, and would be overwritten; hint: give each a file of its own"
    )]
    SameFile {
        /// The path of the second.
        path: PathBuf,
        /// One role.
        first: String,
        /// The other.
        second: String,
    },
    /// A socket path that no socket address holds.
    #[error("the agent socket path {path} has {len} bytes: expected at most 107; hint: use a shorter folder name")]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },

    /// Error sources that would be looked at too often, or hardly ever.
    #[error("poll={0} of apei is out of range: expected 100ms to 60min; hint: the notified source needs no polling")]
    ApeiPoll(TimeSpan),
    /// Records without interfaces that would write them.
    #[error("records={} of apei has nobody who writes it: expected enabled=on as well; hint: --apei on,records=FILE", .0.display())]
    ApeiRecords(PathBuf),
    /// An extended error log without the other error interfaces.
    #[error(
        "extlog=on of apei is part of what is switched off: expected enabled=on as well; hint: --apei on,extlog=on"
    )]
    ApeiExtlog,

    /// Too few or too many vCPUs.
    #[error("{0} vCPUs are asked for: expected 1 to {MAX_VCPUS}; hint: --cpus N")]
    VcpuCount(u8),
    /// Sockets, cores and threads do not multiply to the count.
    #[error("{count} vCPUs do not divide into {shape}; hint: sockets x cores x threads must be the number of vCPUs")]
    CpuShape {
        /// vCPUs.
        count: u8,
        /// What was given, as `sockets=2 cores=3`.
        shape: String,
    },
    /// A vendor CPUID cannot hold.
    #[error(
        "cpu vendor '{0}' cannot be put in CPUID: expected 12 printable characters, such as GenuineIntel or AuthenticAMD"
    )]
    CpuVendor(String),
    /// A name no feature has.
    #[error("'{0}' is no cpu feature's name: expected letters, digits, '_' and '.', as in /proc/cpuinfo")]
    CpuFeature(String),

    /// RAM outside what a guest can have.
    #[error("memory size {0} is out of range: expected 64M to 64T")]
    MemorySize(ByteSize),
    /// RAM that is not whole pages of its host memory.
    #[error("memory {size} of node {node} is no multiple of {unit}: expected whole {what}")]
    MemoryMultiple {
        /// Bytes asked for.
        size: ByteSize,
        /// Node.
        node: u32,
        /// Unit.
        unit: ByteSize,
        /// What the unit is.
        what: &'static str,
    },
    /// Nodes and machine disagree.
    #[error(
        "the nodes' memory adds up to {sum}, but memory size is {size}; hint: leave one of the two out, or make them equal"
    )]
    MemorySum {
        /// Of the nodes.
        sum: ByteSize,
        /// Of the machine.
        size: ByteSize,
    },
    /// No such huge page.
    #[error("hugepages {0} is no huge page size: expected 2M or 1G")]
    Hugepages(ByteSize),

    /// A node number that is too high.
    #[error("node {0} is out of range: expected 0 to {last}", last = MAX_NODES - 1)]
    NodeRange(u32),
    /// A node defined twice.
    #[error("node {0} is defined twice; hint: one numa entry for each node")]
    NodeTwice(u32),
    /// A node that something names and nothing defines.
    #[error("{what} names node {node}, which is not defined: the nodes are {known}; hint: add --numa node={node}")]
    NodeUnknown {
        /// What names it.
        what: String,
        /// The node.
        node: u32,
        /// The nodes there are.
        known: String,
    },
    /// A vCPU in a list that the machine does not have.
    #[error("node {node} lists vCPU {vcpu}, but there are only {count}, from 0 on; hint: --cpus {needed}", needed = u32::from(*vcpu) + 1)]
    VcpuUnknown {
        /// Node.
        node: u32,
        /// vCPU.
        vcpu: u8,
        /// vCPUs of the machine.
        count: u8,
    },
    /// A vCPU of two nodes, or twice in one.
    #[error("vCPU {vcpu} is listed more than once, last in node {node}; hint: each vCPU belongs to one node")]
    VcpuTwice {
        /// vCPU.
        vcpu: u8,
        /// Last node that lists it.
        node: u32,
    },
    /// vCPUs that no node claims although nodes claim others.
    #[error("no node lists vCPU {0}; hint: list every vCPU in some node's cpus=, or leave cpus= out of all of them")]
    VcpuUnassigned(String),
    /// No such distance.
    #[error(
        "distance {value} from node {from} to node {to} is out of range: expected 11 to 254, or 255 for unreachable; 10 is kept for the node itself"
    )]
    DistanceRange {
        /// One node.
        from: u32,
        /// The other.
        to: u32,
        /// Distance.
        value: u8,
    },
    /// A node and itself.
    #[error("a distance from node {0} to itself is given: it is always 10; hint: remove it")]
    DistanceSelf(u32),
    /// Two values for one pair.
    #[error(
        "the distance between node {from} and node {to} is given as {first} and as {second}: it is the same in both directions; hint: give it once"
    )]
    DistanceConflict {
        /// One node.
        from: u32,
        /// The other.
        to: u32,
        /// One value.
        first: u8,
        /// Another.
        second: u8,
    },

    /// Something of an NVDIMM, a set, a bus or a virtual disk.
    #[error("{what} {why}")]
    Nvdimm {
        /// Which.
        what: String,
        /// The value, what was expected, and a hint.
        why: String,
    },
    /// Something of a memory device.
    #[error("{what} {why}")]
    MemoryDevice {
        /// Which.
        what: String,
        /// The value, what was expected, and a hint.
        why: String,
    },
    /// Something of a virtio device.
    #[error("{what} {why}")]
    Virtio {
        /// Which.
        what: String,
        /// The value, what was expected, and a hint.
        why: String,
    },
    /// Latency, bandwidth, caches, initiators.
    #[error(transparent)]
    Hmat(#[from] super::HmatError),
    /// Modules.
    #[error(transparent)]
    Module(#[from] super::ModuleError),
    /// The Xen personality.
    #[error(transparent)]
    Xen(#[from] super::XenError),
    /// Limits of RAM.
    #[error(transparent)]
    Limits(#[from] super::LimitsError),
    /// Ranges of the guest physical map.
    #[error(transparent)]
    Range(#[from] super::RangeError),

    /// More NVDIMMs than slots.
    #[error("{0} nvdimms are asked for: expected at most {MAX_NVDIMMS}")]
    NvdimmCount(usize),
    /// Two of one name.
    #[error(
        "two nvdimms are called '{0}'; hint: ids must differ, and an nvdimm without one is called nvdimmN by its position"
    )]
    NvdimmId(String),
    /// A name that could not be used everywhere.
    #[error("'{0}' is no nvdimm id: expected 1 to 32 letters, digits, '-', '_' or '.'")]
    NvdimmIdText(String),
    /// A size is needed.
    #[error("{id} has no size; hint: {hint}")]
    NvdimmNoSize {
        /// Name.
        id: String,
        /// What to write.
        hint: String,
    },
    /// A size outside the limits.
    #[error("size {size} of {id} is out of range: expected 16M to 1T, a multiple of 4K")]
    NvdimmSize {
        /// Name.
        id: String,
        /// Size.
        size: ByteSize,
    },
    /// A label area outside the limits.
    #[error(
        "label {label} of {id} is out of range: expected 0 (no labels) or 128K to 64M, a multiple of 4K, and at most half of the size"
    )]
    NvdimmLabel {
        /// Name.
        id: String,
        /// Label area.
        label: ByteSize,
    },
    /// A file where none belongs, or none where one does.
    #[error("{id} has backing={backing} and {found}; hint: {hint}")]
    NvdimmBacking {
        /// Name.
        id: String,
        /// Kind of backing.
        backing: &'static str,
        /// What is the matter.
        found: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A file of another size.
    #[error(
        "the size of {path} is {found}, but size= of {id} is {size}; hint: nothing is cut or extended; write size={found}, or use another file"
    )]
    NvdimmFileSize {
        /// Name.
        id: String,
        /// File.
        path: PathBuf,
        /// Bytes of the file.
        found: ByteSize,
        /// Bytes asked for.
        size: ByteSize,
    },
    /// A part that is not in the file.
    #[error(
        "{id} begins at offset {offset} of {path} and has {size}, but {path} has {found}; hint: use a smaller offset= or size="
    )]
    BackingRange {
        /// Name.
        id: String,
        /// File.
        path: PathBuf,
        /// Where it begins.
        offset: ByteSize,
        /// Bytes asked for.
        size: ByteSize,
        /// Bytes there are.
        found: ByteSize,
    },
    /// A part that does not begin with a page.
    #[error("offset {offset} of {id} is no multiple of {page}, the page size of {path}")]
    BackingOffset {
        /// Name.
        id: String,
        /// File.
        path: PathBuf,
        /// Where it begins.
        offset: ByteSize,
        /// Page size of the backing.
        page: ByteSize,
    },
    /// A size that is not whole pages of the backing.
    #[error("size {size} of {id} is no multiple of {page}, the page size of {path}; hint: size={rounded}")]
    NvdimmPages {
        /// Name.
        id: String,
        /// File.
        path: PathBuf,
        /// Bytes asked for.
        size: ByteSize,
        /// Page size of the backing.
        page: ByteSize,
        /// Next size that fits.
        rounded: ByteSize,
    },
}

/// Where to look for what the flag takes, unless the error knows better.
fn see_help(flag: &str, error: &kv::Error) -> String {
    if error.to_string().contains("; hint: ") {
        return String::new();
    }
    format!("; hint: `daxvisor run --help` shows what --{flag} takes")
}

/// What to do about a file that cannot be used.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; hint: check the path, which begins at the working directory unless it is absolute"
        }
        io::ErrorKind::PermissionDenied => "; hint: give this user the right to it, or run as its owner",
        _ => "",
    }
}
