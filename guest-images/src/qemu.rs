//! QEMU for the nested host: the machine's own when it is new enough, else unpacked from packages.

use crate::{
    apt::{Apt, Fetched},
    archive::Archive,
    process::output,
    recipe::{QEMU_MAJOR, QEMU_PACKAGE, QEMU_WITHOUT},
    store::{Key, Store},
};
use anyhow::{Context, Result, bail};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};
use vmm::images::QemuImage;

const PROGRAM: &str = "qemu-system-x86_64";
/// Folders of firmware in Debian's packages.
const DATA: &[&str] = &["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];
const LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// What the nested host runs under.
pub struct Qemu {
    /// None: the one in PATH.
    pub image: Option<QemuImage>,
    /// Where its bytes came from.
    pub packages: Vec<Fetched>,
    /// Tree they were unpacked in.
    pub root: PathBuf,
}

/// Major version in `QEMU emulator version 10.0.2 (Debian ...)`.
fn major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// Major version in a package version such as `1:10.0.2+ds-2`.
fn package_major(version: &str) -> Option<u32> {
    version
        .split_once(':')
        .map_or(version, |(_, v)| v)
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn in_path() -> bool {
    output(Command::new(PROGRAM).arg("--version"))
        .ok()
        .and_then(|text| major(&text))
        .is_some_and(|v| v >= QEMU_MAJOR)
}

/// Suites to try: backports of what the machine runs, since it brings a new QEMU for its C library; then itself.
fn suites(codename: Option<&str>) -> Vec<String> {
    let base = codename.unwrap_or("bookworm");
    vec![format!("{base}-backports"), base.to_owned()]
}

/// The first suite with a QEMU new enough.
fn offer(dir: &Path, archive: &Archive, refresh: bool) -> Result<Option<Apt>> {
    for suite in suites(archive.codename.as_deref()) {
        // A suite that is not there (no backports for this release) is no reason to stop.
        let Ok(apt) = Apt::open(dir, archive, &suite, refresh) else {
            continue;
        };
        if apt
            .version(QEMU_PACKAGE)
            .and_then(|v| package_major(&v))
            .is_some_and(|v| v >= QEMU_MAJOR)
        {
            return Ok(Some(apt));
        }
    }
    Ok(None)
}

fn command(image: &QemuImage, dir: &Path) -> Command {
    let mut command = Command::new(dir.join(&image.program));
    for data in &image.data {
        command.arg("-L").arg(dir.join(data));
    }
    command.env(
        "LD_LIBRARY_PATH",
        image
            .libraries
            .iter()
            .map(|l| dir.join(l).display().to_string())
            .collect::<Vec<_>>()
            .join(":"),
    );
    command
}

/// Makes sure that it starts and knows the machine we boot.
fn check(image: &QemuImage, dir: &Path) -> Result<()> {
    let version = output(command(image, dir).arg("--version"))?;
    if major(&version).is_none() {
        bail!("the unpacked QEMU says '{}' for its version", version.trim());
    }
    let machines = output(command(image, dir).args(["-machine", "help"]))?;
    if !machines.lines().any(|l| l.starts_with("pc ")) {
        bail!("the unpacked QEMU knows no machine 'pc'");
    }
    Ok(())
}

fn from_packages(store: &Store, apt: &Apt) -> Result<Qemu> {
    let packages = apt.fetch(&apt.closure(&[QEMU_PACKAGE], QEMU_WITHOUT)?)?;
    let mut key = Key::new("qemu");
    for package in &packages {
        key.add(&package.sha256);
    }
    let image_in = |folder: &Path| {
        let present = |list: &[&str], root: &Path| {
            list.iter()
                .filter(|p| root.join(p).is_dir())
                .map(|p| folder.join(p))
                .collect::<Vec<_>>()
        };
        let root = store.dir().join(folder);
        QemuImage {
            program: folder.join("usr/bin").join(PROGRAM),
            data: present(DATA, &root),
            libraries: present(LIBRARIES, &root),
        }
    };
    let folder = store.step("qemu", &key, |out| {
        packages.iter().try_for_each(|p| p.unpack(out))?;
        check(&image_in(out), store.dir())
    })?;
    Ok(Qemu {
        image: Some(image_in(&folder)),
        packages,
        root: store.dir().join(&folder),
    })
}

/// Installs the machine's own QEMU, whatever its version: better than none.
fn install() -> Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = if root {
        Command::new("apt-get")
    } else {
        Command::new("sudo")
    };
    if !root {
        command.args(["-n", "apt-get"]);
    }
    command
        .args(["install", "-y", "-qq", "--no-install-recommends", QEMU_PACKAGE])
        .env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut command)
        .map(drop)
        .with_context(|| format!("cannot install QEMU; hint: install the package {QEMU_PACKAGE} by hand"))
}

/// Finds or fetches QEMU.
pub fn build(store: &Store, archive: &Archive, refresh: bool) -> Result<Qemu> {
    let own = Qemu {
        image: None,
        packages: Vec::new(),
        root: env::temp_dir(),
    };
    if in_path() {
        return Ok(own);
    }
    if let Some(apt) = offer(store.dir(), archive, refresh)? {
        return from_packages(store, &apt);
    }
    if output(Command::new(PROGRAM).arg("--version")).is_err() {
        install()?;
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_programs_and_packages() {
        assert_eq!(
            major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"),
            Some(10)
        );
        assert_eq!(major("what?"), None);
        assert_eq!(package_major("1:7.2+dfsg-7+deb12u18"), Some(7));
        assert_eq!(package_major("10.0.2+ds-2"), Some(10));
    }
}
