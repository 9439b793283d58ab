//! One kernel: packages to image, unpacked kernel and the modules we use.

use crate::{
    apt::{Apt, Fetched},
    modules::Available,
    recipe::{self, GUEST_BOOT, GUEST_ON_DEMAND, HOST_BOOT, Module},
    store::{Key, Store},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A kernel in the store.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Its folder, relative to the images' folder: `bzImage`, `vmlinux`, `modules/`.
    pub folder: PathBuf,
    /// Where its bytes came from.
    pub packages: Vec<Fetched>,
    /// Which modules it can be used without.
    pub modules: Modules,
}

/// What a kernel has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    /// All that the recipe needs.
    Recipe,
    /// What the agent cannot be reached without. A kernel that somebody configured small is a guest all the same.
    Least,
}

/// The agent's channel.
const LEAST: [&str; 2] = ["virtio_mmio", "virtio_console"];

impl Modules {
    /// The list with what is needed of it.
    pub fn of(self, list: &[Module]) -> Vec<Module> {
        let one = |module: &Module| match module {
            Module::Needed(name) if self == Self::Least && !LEAST.contains(name) => recipe::optional(*module),
            other => *other,
        };
        list.iter().map(one).collect()
    }
}

/// `lib/modules` of an unpacked package, with or without a merged `/usr`.
fn modules_folder(root: &Path) -> PathBuf {
    let merged = root.join("usr/lib/modules");
    if merged.is_dir() {
        merged
    } else {
        root.join("lib/modules")
    }
}

/// The one release whose modules are there.
fn release(modules: &Path) -> Result<String> {
    let entries = fs::read_dir(modules).with_context(|| format!("the kernel package has no {}", modules.display()))?;
    let names = entries
        .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    match &names[..] {
        [one] => Ok(one.clone()),
        _ => bail!(
            "the kernel package holds modules of {} kernels, not of one",
            names.len()
        ),
    }
}

/// The image: older packages have it in `/boot`, newer ones next to the modules.
fn image(root: &Path, modules: &Path, release: &str) -> Result<Vec<u8>> {
    let places = [
        root.join("boot").join(format!("vmlinuz-{release}")),
        modules.join(release).join("vmlinuz"),
    ];
    let found = places
        .iter()
        .find(|p| p.is_file())
        .context("the kernel package holds no image")?;
    fs::read(found).with_context(|| format!("cannot read {}", found.display()))
}

fn make(packages: &[Fetched], needed: Modules, scratch: &Path, out: &Path) -> Result<()> {
    packages.iter().try_for_each(|p| p.unpack(scratch))?;
    let modules = modules_folder(scratch);
    let release = release(&modules)?;
    let image = image(scratch, &modules, &release)?;
    fs::write(out.join("bzImage"), &image)?;
    fs::write(
        out.join("vmlinux"),
        vmm::boot::unpack::unpack(&image).context("cannot unpack the kernel")?,
    )?;
    let from = modules.join(&release);
    let to = out.join("modules");
    let available = Available::scan(&from)?;
    available.copy_closure(needed.of(GUEST_BOOT), &to)?;
    available.copy_closure(needed.of(GUEST_ON_DEMAND), &to)?;
    // A flavour without 9p or KVM is a guest all the same; the nested host's image checks for itself.
    available.copy_closure(HOST_BOOT.iter().map(|m| recipe::optional(*m)), &to)?;
    for index in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        let _ = fs::copy(from.join(index), to.join(index));
    }
    // The licence files stay with what they are about.
    for package in packages {
        let doc = format!("usr/share/doc/{}/copyright", package.package.name);
        if scratch.join(&doc).is_file() {
            fs::create_dir_all(out.join(&doc).parent().context("no folder")?)?;
            fs::copy(scratch.join(&doc), out.join(&doc))?;
        }
    }
    Ok(fs::write(out.join("release"), release)?)
}

/// Fetches and unpacks the kernel a metapackage names.
pub fn build(store: &Store, apt: &Apt, name: &str, metapackage: &str) -> Result<Kernel> {
    let packages = apt.fetch(&apt.kernel(metapackage)?)?;
    unpack(store, name, packages, Modules::Recipe)
}

/// Unpacks the kernel in a package file.
pub fn build_local(store: &Store, name: &str, package: Fetched) -> Result<Kernel> {
    unpack(store, name, vec![package], Modules::Least)
}

fn unpack(store: &Store, name: &str, packages: Vec<Fetched>, modules: Modules) -> Result<Kernel> {
    let mut key = Key::new("kernel");
    for package in &packages {
        key.add(&package.sha256);
    }
    key.add(format!("{GUEST_BOOT:?}{GUEST_ON_DEMAND:?}{HOST_BOOT:?}"));
    if modules == Modules::Least {
        key.add("least");
    }
    let folder = store.step(name, &key, |out| make(&packages, modules, store.scratch()?.path(), out))?;
    let release = fs::read_to_string(store.dir().join(&folder).join("release"))?;
    Ok(Kernel {
        release,
        folder,
        packages,
        modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_kernel_needs_the_agents_channel_and_nothing_else() {
        let needed = |modules: Modules| {
            let list = modules.of(GUEST_BOOT);
            let names = list.iter().filter_map(|m| match m {
                Module::Needed(name) => Some(*name),
                Module::Wanted(_) => None,
            });
            names.collect::<Vec<_>>()
        };
        assert_eq!(needed(Modules::Least), LEAST);
        assert!(needed(Modules::Recipe).contains(&"nfit"));
        assert_eq!(Modules::Least.of(GUEST_BOOT).len(), GUEST_BOOT.len());
    }
}
