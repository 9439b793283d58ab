//! What goes into the images, as tables. The rest of the crate is mechanism.

/// Goes into every key of the store: a change of mechanism that changes results raises it.
pub const REVISION: u32 = 2;

/// One guest kernel that can be asked for by name.
#[derive(Debug)]
pub struct Kernel {
    /// Name in the manifest.
    pub name: &'static str,
    /// Metapackage that names the newest real package.
    pub package: &'static str,
    /// Suites to try in order.
    pub suites: &'static [&'static str],
    /// The version must begin so; a suite that moved on is passed over.
    pub version: &'static str,
    /// Fetched when nothing is asked for.
    pub default: bool,
}

/// Guest kernels.
pub const KERNELS: &[Kernel] = &[
    kernel(
        "debian-6.1-cloud-amd64",
        "linux-image-cloud-amd64",
        &["bookworm"],
        "6.1.",
        true,
    ),
    kernel("debian-6.1-amd64", "linux-image-amd64", &["bookworm"], "6.1.", true),
    kernel("debian-6.12-amd64", "linux-image-amd64", SUITES_6_12, "6.12.", true),
    kernel(
        "debian-6.12-cloud-amd64",
        "linux-image-cloud-amd64",
        SUITES_6_12,
        "6.12.",
        false,
    ),
    kernel("debian-5.10-amd64", "linux-image-amd64", &["bullseye"], "5.10.", false),
    kernel(
        "debian-5.10-cloud-amd64",
        "linux-image-cloud-amd64",
        &["bullseye"],
        "5.10.",
        false,
    ),
    kernel("debian-7-amd64", "linux-image-amd64", &["sid"], "7.", false),
    kernel("debian-7-cloud-amd64", "linux-image-cloud-amd64", &["sid"], "7.", false),
];

/// One hypervisor that can be booted by name.
#[derive(Debug)]
pub struct Hypervisor {
    /// Name in the list.
    pub name: &'static str,
    /// Its package.
    pub package: &'static str,
    /// Suites to try in order.
    pub suites: &'static [&'static str],
}

/// Hypervisors; all of them are fetched, being small.
pub const HYPERVISORS: &[Hypervisor] = &[Hypervisor {
    name: "xen-4.17-amd64",
    package: "xen-hypervisor-4.17-amd64",
    suites: &["bookworm"],
}];

/// The nested host's kernel by preference: 6.12 has KVM's guest_memfd and Xen support, and `amd64` (not `cloud`) has 9p.
pub const HOST_KERNELS: &[&str] = &["debian-6.12-amd64", "debian-6.1-amd64"];

const SUITES_6_12: &[&str] = &["bookworm-backports", "trixie"];

const fn kernel(
    name: &'static str,
    package: &'static str,
    suites: &'static [&'static str],
    version: &'static str,
    default: bool,
) -> Kernel {
    Kernel {
        name,
        package,
        suites,
        version,
        default,
    }
}

/// Names that `--kernel` takes, with whether they are fetched by default.
pub fn kernel_names() -> impl Iterator<Item = (&'static str, bool)> {
    KERNELS.iter().map(|k| (k.name, k.default))
}

/// A package with a kernel's source that can be compiled here.
#[derive(Debug)]
pub struct Source {
    /// The package.
    pub package: &'static str,
    /// Its suite.
    pub suite: &'static str,
}

/// Kernel sources.
pub const SOURCES: &[Source] = &[Source {
    package: "linux-source-6.1",
    suite: "bookworm",
}];

/// What compiles a kernel, from [`TOOLS_SUITE`].
pub const KERNEL_BUILD_PACKAGES: &[&str] = &[
    "dash",
    "coreutils",
    "findutils",
    "diffutils",
    "sed",
    "grep",
    "gawk",
    "gcc",
    "libc6-dev",
    "make",
    "flex",
    "bison",
    "bc",
    "libelf-dev",
    "gzip",
    "patch",
];

/// The configuration under all fragments: a guest that the agent can live in.
pub const KERNEL_CONFIG: &str = include_str!("../kernel/guest.config");

/// Suite of the programs inside the initramfs: the same on every machine.
pub const TOOLS_SUITE: &str = "bookworm";
/// Packages asked for; their dependencies come along.
pub const TOOLS_PACKAGES: &[&str] = &[
    "busybox-static",
    "ndctl",
    "daxctl",
    "numactl",
    "e2fsprogs",
    "xfsprogs",
    "util-linux",
    "keyutils",
    "kmod",
    "checkpolicy",
    "iproute2",
    "ibverbs-utils",
    "ibverbs-providers",
];
/// Dependencies that only maintainer scripts or unused programs need (name prefixes).
pub const TOOLS_WITHOUT: &[&str] = &[
    "perl",
    "libperl",
    "python3",
    "libpython3",
    "libdbd-sqlite3-perl",
    "libdbi-perl",
    "pci.ids",
    "usrmerge",
    "dpkg",
    "tar_",
    "libicu",
    "debconf",
];
/// Programs of those packages that guests get, with the libraries they ask for.
pub const PROGRAMS: &[&str] = &[
    "ndctl",
    "daxctl",
    "numactl",
    "numastat",
    "mke2fs",
    "mkfs.ext4",
    "e2fsck",
    "dumpe2fs",
    "mkfs.xfs",
    "xfs_io",
    "lsblk",
    "lscpu",
    "findmnt",
    "keyctl",
    "checkpolicy",
    "ip",
    "rdma",
    "ibv_rc_pingpong",
    "setpriv",
];
/// Suite of programs that are too old in the other one, or lack what guests need: its rasdaemon knows of no lost pages.
pub const NEWER_SUITE: &str = "trixie";
/// What they come from.
pub const NEWER_PACKAGES: &[&str] = &["rasdaemon", "sqlite3"];
/// Programs of those packages. They do not run with the others' libraries, and bring their own.
pub const NEWER_PROGRAMS: &[&str] = &["rasdaemon", "sqlite3"];
/// Configuration that goes along, where it exists, and what programs load by name.
pub const CONFIGURATION: &[&str] = &[
    "etc/mke2fs.conf",
    "etc/ndctl.conf.d",
    "etc/ndctl",
    "etc/libibverbs.d/rxe.driver",
    "usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav34.so",
];

/// A module by the name in its file, and whether an image without it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// Built in or present, or the image fails.
    Needed(&'static str),
    /// Taken where the kernel has it.
    Wanted(&'static str),
}

use Module::{Needed, Wanted};

/// Loaded by the agent at boot of a guest, in this order (dependencies first). `virtio_pci` is there for other VMMs.
pub const GUEST_BOOT: &[Module] = &[
    Needed("virtio_mmio"),
    Wanted("virtio_pci"),
    Needed("virtio_console"),
    Wanted("virtio_rng"),
    Needed("nfit"),
    Needed("nd_pmem"),
    Needed("nd_btt"),
    Needed("device_dax"),
    Wanted("dax_pmem"),
    Wanted("dax_hmem"),
    Wanted("nd_e820"),
    Wanted("pvpanic_mmio"),
    Wanted("button"),
    Wanted("evdev"),
];

/// In the guest's file system for the kernel or the user to ask for.
pub const GUEST_ON_DEMAND: &[Module] = &[
    Needed("ext4"),
    Needed("xfs"),
    Wanted("crc32c_generic"),
    Wanted("crc32c_intel"),
    Wanted("libcrc32c"),
    Wanted("kmem"),
    Wanted("trusted"),
    Wanted("encrypted_keys"),
    Wanted("loop"),
    Wanted("dm_mod"),
    Wanted("dm_linear"),
    Wanted("virtio_blk"),
    Wanted("virtio_net"),
    Wanted("rdma_rxe"),
    Wanted("ib_uverbs"),
    // The checksum of RDMA packets.
    Wanted("crc32_generic"),
    Wanted("crc32_pclmul"),
    Wanted("virtio_pmem"),
    Wanted("virtio_mem"),
    Wanted("vmw_vsock_virtio_transport"),
    Wanted("9p"),
    Wanted("9pnet_virtio"),
    Wanted("virtiofs"),
    Wanted("einj"),
    Wanted("mce_inject"),
    Wanted("hwpoison_inject"),
    Wanted("memory_notifier_error_inject"),
];

/// Loaded by the agent at boot of the nested host.
pub const HOST_BOOT: &[Module] = &[
    Needed("virtio_pci"),
    Needed("virtio_console"),
    Wanted("virtio_rng"),
    Needed("9pnet_virtio"),
    Needed("9p"),
    Needed("kvm"),
    Needed("kvm_amd"),
    Wanted("overlay"),
    // Memory that `memmap=SIZE!ADDRESS` sets aside becomes an NVDIMM region, and a device-dax node of it a backing.
    Wanted("nd_e820"),
    Wanted("nd_pmem"),
    Wanted("device_dax"),
    Wanted("dax_pmem"),
    Wanted("tun"),
];

/// QEMU for the nested host: package, the first major version good enough, and the one we would rather not go below.
pub const QEMU_PACKAGE: &str = "qemu-system-x86";
/// QEMU below this makes guests slower and some newer kernels die early.
pub const QEMU_MAJOR: u32 = 9;
/// Packages of QEMU's closure that must come from the machine itself: they belong to its loader.
pub const QEMU_WITHOUT: &[&str] = &["libc6_", "debconf", "adduser", "passwd", "libpam"];

/// The same module, not missed when the kernel lacks it.
pub const fn optional(module: Module) -> Module {
    let (Needed(name) | Wanted(name)) = module;
    Wanted(name)
}
