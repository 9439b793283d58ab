//! The programs of the guest: unpacked once, shared by all initramfs images.

use crate::{
    apt::{Apt, Fetched},
    cpio::Tree,
    libraries,
    process::output,
    recipe,
    store::{Key, Store},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folder of the newer programs in guests.
const NEWER: &str = "opt/newer";

/// An unpacked file tree of packages.
pub struct Tools {
    /// The tree.
    pub root: PathBuf,
    /// What is in it.
    pub packages: Vec<Fetched>,
}

/// Those of every image.
pub struct Sets {
    /// Nearly all.
    pub plain: Tools,
    /// Programs of the newer suite.
    pub newer: Tools,
}

/// Fetches and unpacks.
pub fn unpack(store: &Store, apt: &Apt) -> Result<Tools> {
    unpack_set(store, apt, "tools", recipe::TOOLS_PACKAGES, recipe::TOOLS_WITHOUT)
}

/// The same for the programs of the newer suite.
pub fn unpack_newer(store: &Store, apt: &Apt) -> Result<Tools> {
    unpack_set(store, apt, "tools-newer", recipe::NEWER_PACKAGES, recipe::TOOLS_WITHOUT)
}

/// The same for a set of packages with a name of its own.
pub fn unpack_set(store: &Store, apt: &Apt, name: &str, packages: &[&str], without: &[&str]) -> Result<Tools> {
    let packages = apt.fetch(&apt.closure(packages, without)?)?;
    let mut key = Key::new(name);
    for package in &packages {
        key.add(&package.sha256);
    }
    let root = store.step(name, &key, |root| packages.iter().try_for_each(|p| p.unpack(root)))?;
    Ok(Tools {
        root: store.dir().join(root),
        packages,
    })
}

fn name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|n| n.to_str())
        .with_context(|| format!("{} has no plain name", path.display()))
}

impl Tools {
    fn add_file(tree: &mut Tree, from: &Path, to: &str, mode: u32) -> Result<()> {
        // Follows links: what is a link in the package becomes a file of that name here.
        tree.file(
            to,
            mode,
            fs::read(from).with_context(|| format!("cannot read {}", from.display()))?,
        )
    }

    /// busybox and a link for each of its applets that nothing real stands for.
    pub fn add_busybox(&self, tree: &mut Tree) -> Result<()> {
        let busybox = libraries::program(&self.root, "busybox")?;
        Self::add_file(tree, &busybox, "usr/bin/busybox", 0o755)?;
        let applets = output(Command::new(&busybox).arg("--list-full"))?;
        for applet in applets.lines() {
            // `sbin/modprobe`, `usr/bin/env`: the folder counts, because the kernel asks for /sbin/modprobe by path.
            let Some((folder, applet)) = applet.rsplit_once('/') else {
                continue;
            };
            let folder = if folder.ends_with("sbin") {
                "usr/sbin"
            } else {
                "usr/bin"
            };
            if !["usr/bin", "usr/sbin"]
                .iter()
                .any(|f| tree.contains(&format!("{f}/{applet}")))
            {
                tree.link(&format!("{folder}/{applet}"), "/usr/bin/busybox")?;
            }
        }
        Ok(())
    }

    /// The programs of the recipe, the libraries they load, and their configuration.
    pub fn add_programs(&self, tree: &mut Tree) -> Result<()> {
        for program in recipe::PROGRAMS {
            let from = libraries::program(&self.root, program)?;
            // Programs that are links to others of the same package keep that (`mkfs.ext4` is `mke2fs` by name).
            let real = fs::canonicalize(&from)?;
            Self::add_file(tree, &real, &format!("usr/bin/{program}"), 0o755)?;
            for library in libraries::closure(&self.root, &real)? {
                let file = name(&library)?;
                let folder = if file.starts_with("ld-linux") {
                    "usr/lib64"
                } else {
                    "usr/lib/x86_64-linux-gnu"
                };
                Self::add_file(tree, &library, &format!("{folder}/{file}"), 0o755)?;
            }
        }
        for path in recipe::CONFIGURATION {
            let from = self.root.join(path);
            if from.exists() {
                tree.copy(&from, path)?;
            }
        }
        Ok(())
    }

    /// Programs of the newer suite, below `/opt/newer` with their own loader and libraries, and scripts of their names.
    pub fn add_newer(&self, tree: &mut Tree) -> Result<()> {
        let mut loader = None;
        for program in recipe::NEWER_PROGRAMS {
            let real = fs::canonicalize(libraries::program(&self.root, program)?)?;
            Self::add_file(tree, &real, &format!("{NEWER}/bin/{program}"), 0o755)?;
            for library in libraries::closure(&self.root, &real)? {
                let file = name(&library)?;
                Self::add_file(tree, &library, &format!("{NEWER}/lib/{file}"), 0o755)?;
                if file.starts_with("ld-linux") {
                    loader = Some(file.to_owned());
                }
            }
            let loader = loader.as_deref().context("the newer programs have no loader")?;
            let script = format!(
                "#!/bin/sh\nexec /{NEWER}/lib/{loader} --argv0 {program} --library-path /{NEWER}/lib /{NEWER}/bin/{program} \"$@\"\n"
            );
            tree.file(&format!("usr/bin/{program}"), 0o755, script)?;
        }
        Ok(())
    }

    /// Lets depmod index the modules below `root` for `release`.
    pub fn depmod(&self, root: &Path, release: &str) -> Result<()> {
        // kmod decides by its name what it is.
        let mut command = libraries::run(&self.root, "kmod", "depmod")?;
        output(command.args(["-b"]).arg(root).arg(release))
            .map(drop)
            .context("cannot index the kernel's modules")
    }
}
