//! Debian packages that builds and tests need: looked for by what they bring, installed when that is missing.

use crate::process;
use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// A package, how to see that it is there, and why it is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    /// A program in PATH, or an absolute path.
    brings: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, brings: &'static str, why: &'static str) -> Package {
    Package { name, brings, why }
}

/// What building daxvisor and its images takes.
pub const BUILD: &[Package] = &[
    package("gcc", "cc", "cargo links with it"),
    package(
        "libc6-dev",
        "/usr/lib/x86_64-linux-gnu/libc.a",
        "the guest agent is linked statically",
    ),
    package(
        "dpkg",
        "dpkg-deb",
        "guest kernels and programs are unpacked from packages",
    ),
];

/// What the tests take on top.
pub const TEST: &[Package] = &[
    package(
        "python3-venv",
        "python3",
        "schemathesis and the validators of recipes are installed in virtual environments",
    ),
    package(
        "binutils",
        "objcopy",
        "the probe's payload is assembled again and compared",
    ),
    package(
        "acpica-tools",
        "iasl",
        "ACPI tables are disassembled and compiled again, methods are executed",
    ),
    package(
        "busybox-static",
        "busybox",
        "an initramfs is built from it and unpacked with it",
    ),
    package(
        "ndctl",
        "ndctl",
        "the nested host's own memory becomes a device-dax node",
    ),
    package("g++", "c++", "the fuzzing engine is C++"),
    package("munge", "munged", "Slurm's daemons know each other by it"),
    package(
        "slurmctld",
        "slurmctld",
        "the recipe for Slurm runs on a cluster of one machine",
    ),
    package("slurmd", "slurmd", "the cluster's one node"),
    package("slurm-client", "sbatch", "the recipe is submitted with it"),
    package(
        "chromium",
        "chromium",
        "the report of boot tests is looked at in a browser",
    ),
];

fn present(brings: &str) -> bool {
    if brings.starts_with('/') {
        return Path::new(brings).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path)
        .chain(system)
        .any(|dir| dir.join(brings).is_file())
}

/// Those of `packages` that are not there.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().filter(|p| !present(p.brings)).copied().collect()
}

/// Installs what is missing of `packages`; gives what it installed, for people.
pub fn install(packages: &[Package]) -> Result<Vec<String>> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(vec![]);
    }
    let names: Vec<_> = missing.iter().map(|p| p.name).collect();
    if !present("apt-get") {
        let wanted: Vec<_> = missing
            .iter()
            .map(|p| format!("{} ({}: {})", p.brings, p.name, p.why))
            .collect();
        bail!(
            "this machine has no apt-get and lacks: {}; hint: install them with its own package manager",
            wanted.join(", ")
        );
    }
    let install = || {
        process::quiet(
            apt_get()?
                .args(["install", "--yes", "--no-install-recommends"])
                .args(&names),
        )
    };
    // Package lists of a fresh machine may be missing or old, and fetching them takes a while: only when needed.
    if install().is_err() {
        process::quiet(apt_get()?.arg("update")).context("cannot fetch the package lists")?;
        install().with_context(|| {
            let names = names.join(" ");
            format!("cannot install packages; hint: run `apt-get install {names}` and see what it says")
        })?;
    }
    Ok(missing.iter().map(|p| format!("{} ({})", p.name, p.why)).collect())
}

/// apt-get as root, asking nothing.
fn apt_get() -> Result<Command> {
    let mut command = if is_root()? {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        // A password can be asked for on a terminal; without one sudo fails, and says so.
        sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
    command.stdin(Stdio::null());
    Ok(command)
}

fn is_root() -> Result<bool> {
    // Fields of the line: real, effective, saved and file system user id.
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)) == Some("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let packages = [
            package("a", "sh", ""),
            package("b", "no-such-program", ""),
            package("c", "/etc/passwd", ""),
            package("d", "/no/such/file", ""),
        ];
        let names: Vec<_> = missing(&packages).iter().map(|p| p.name).collect();
        assert_eq!(names, ["b", "d"]);
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        assert_eq!(install(&[package("a", "sh", "")]).unwrap(), Vec::<String>::new());
    }
}
