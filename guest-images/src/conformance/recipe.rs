//! What goes into the conformance image, as tables.

/// Source package of the tests.
pub const SOURCE: &str = "ndctl";
/// Suite of the source package: a released one, so that the list of tests stays what it is.
pub const SOURCE_SUITE: &str = "trixie";

/// What compiles it. Programs come from the suite of the guest's own tools, so that libraries fit.
pub const BUILD_PACKAGES: &[&str] = &[
    "bash",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "gcc",
    "libc6-dev",
    "meson",
    "ninja-build",
    "pkgconf",
    "libkmod-dev",
    "libudev-dev",
    "uuid-dev",
    "libjson-c-dev",
    "libkeyutils-dev",
    "libiniparser-dev",
    "libtraceevent-dev",
    "libtracefs-dev",
];

/// Options of its build. Without debugging information: nobody debugs it in a guest.
pub const BUILD_OPTIONS: &[&str] = &[
    "-Doptimization=2",
    "-Ddebug=false",
    "-Ddocs=disabled",
    "-Dasciidoctor=disabled",
    "-Dsystemd=disabled",
    "-Dtest=enabled",
    "-Ddestructive=enabled",
    "-Dpoison=enabled",
    "-Dbashcompletiondir=/usr/share/bash-completion/completions",
];

/// A text in a file of the sources that is replaced before the build; it must be there.
#[derive(Debug)]
pub struct Substitution {
    /// File below the sources.
    pub file: &'static str,
    /// What is there.
    pub from: &'static str,
    /// What comes in its place.
    pub to: &'static str,
}

const fn substitution(file: &'static str, from: &'static str, to: &'static str) -> Substitution {
    Substitution { file, from, to }
}

/// The mock's own sysfs folders are rebuilt below `/run/nfit-test` (nothing can be created in sysfs), and a request to the mock
/// becomes one to the host that waits for the answer.
pub const SUBSTITUTIONS: &[Substitution] = &[
    substitution("test/nfit-security", "/sys/devices/platform/", "/run/nfit-test/"),
    substitution(
        "test/nfit-security",
        "echo 1 > \"${test_dimm_path}/lock_dimm\"",
        "nfit-test-hook lock \"$handle\" \"$dev\"",
    ),
    substitution("test/daxdev-errors.c", "/sys/devices/platform/", "/run/nfit-test/"),
    substitution("test/daxdev-errors.sh", "/sys/bus/platform/devices/", "/run/nfit-test/"),
];

/// What the tests call.
pub const RUN_PACKAGES: &[&str] = &[
    "bash",
    "coreutils",
    "grep",
    "sed",
    "gawk",
    "findutils",
    "diffutils",
    "bsdextrautils",
    "util-linux",
    "mount",
    "uuid-runtime",
    "e2fsprogs",
    "xfsprogs",
    "parted",
    "keyutils",
    "trace-cmd",
    "dmsetup",
    "fio",
    "xxd",
    "kmod",
    "hostname",
    "jq",
    "libc-bin",
    "libudev1",
    "libiniparser1",
    "libtraceevent1",
    "libtracefs1",
    "libjson-c5",
];
/// Dependencies that nothing here loads (file name prefixes).
pub const RUN_WITHOUT: &[&str] = &["perl", "libperl", "python3", "libpython3", "dpkg", "tar_", "debconf"];
/// Programs of them.
pub const PROGRAMS: &[&str] = &[
    "bash",
    "gawk",
    "grep",
    "sed",
    "jq",
    "find",
    "xargs",
    "diff",
    "cmp",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "od",
    "printf",
    "readlink",
    "rm",
    "rmdir",
    "seq",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "truncate",
    "uname",
    "uniq",
    "wc",
    "hexdump",
    "xxd",
    "mount",
    "umount",
    "mountpoint",
    "lsblk",
    "blockdev",
    "findmnt",
    "fallocate",
    "losetup",
    "flock",
    "dmesg",
    "uuidgen",
    "setsid",
    "mkfs.ext4",
    "filefrag",
    "mkfs.xfs",
    "parted",
    "keyctl",
    "trace-cmd",
    "dmsetup",
    "kmod",
    "hostname",
    "getconf",
];
/// Programs whose libraries are larger than all the rest: only in images of tests that call them.
pub const LARGE_PROGRAMS: &[&str] = &["fio"];
/// Folders of libraries that only programs which know of them find.
pub const PRIVATE_LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu/ceph"];
/// Other names of those programs.
pub const ALIASES: &[(&str, &str)] = &[("awk", "gawk"), ("modinfo", "kmod"), ("lsmod", "kmod")];

/// A file of ours in the image.
#[derive(Debug)]
pub struct OwnFile {
    /// Place below [`super::ROOT`].
    pub path: &'static str,
    /// Mode.
    pub mode: u32,
    /// Contents.
    pub text: &'static str,
}

macro_rules! own {
    ($path:literal, $mode:literal) => {
        OwnFile {
            path: $path,
            mode: $mode,
            text: include_str!(concat!("../../../conformance/guest/", $path)),
        }
    };
}

/// Stand-ins for the mock module and for what a guest without systemd lacks.
pub const OWN_FILES: &[OwnFile] = &[
    own!("run-test", 0o755),
    own!("bin/modprobe", 0o755),
    own!("bin/journalctl", 0o755),
    own!("bin/nfit-test-hook", 0o755),
    own!("bin/nfit-test-pump", 0o755),
];
/// Loaded before the C library into the test programs: the mock's module, as they see it through libkmod.
pub const PRELOAD: &str = include_str!("../../../conformance/guest/preload.c");
