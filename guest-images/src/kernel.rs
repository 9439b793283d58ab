//! One kernel: packages to image, unpacked kernel and the modules we use.

use crate::{
    apt::{Apt, Fetched},
    modules::Available,
    recipe::{GUEST_BOOT, GUEST_ON_DEMAND, HOST_BOOT},
    store::{Key, Store},
    unpack,
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
}

/// The single entry of a folder, by the rest of its name after `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("the kernel package has no {}", folder.display()))?;
    for entry in entries {
        if let Some(rest) = entry?.file_name().to_str().and_then(|n| n.strip_prefix(prefix)) {
            return Ok(rest.to_owned());
        }
    }
    bail!("the kernel package has no {prefix}* in {}", folder.display())
}

fn modules_folder(root: &Path) -> PathBuf {
    let merged = root.join("usr/lib/modules");
    if merged.is_dir() {
        merged
    } else {
        root.join("lib/modules")
    }
}

fn make(packages: &[Fetched], scratch: &Path, out: &Path) -> Result<()> {
    packages.iter().try_for_each(|p| p.unpack(scratch))?;
    let release = only(&scratch.join("boot"), "vmlinuz-")?;
    let image = fs::read(scratch.join("boot").join(format!("vmlinuz-{release}")))?;
    fs::write(out.join("bzImage"), &image)?;
    fs::write(
        out.join("vmlinux"),
        unpack::vmlinux(&image).context("cannot unpack the kernel")?,
    )?;
    let from = modules_folder(scratch).join(&release);
    let to = out.join("modules");
    let all = GUEST_BOOT.iter().chain(GUEST_ON_DEMAND).copied();
    let available = Available::scan(&from)?;
    available.copy_closure(all, &to)?;
    // A flavour without 9p or KVM is a guest all the same; the nested host's image checks for itself.
    available.copy_closure(HOST_BOOT.iter().map(|m| crate::recipe::optional(*m)), &to)?;
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
    let mut key = Key::new("kernel");
    for package in &packages {
        key.add(&package.sha256);
    }
    key.add(format!("{GUEST_BOOT:?}{GUEST_ON_DEMAND:?}{HOST_BOOT:?}"));
    let folder = store.step(name, &key, |out| make(&packages, store.scratch()?.path(), out))?;
    let release = fs::read_to_string(store.dir().join(&folder).join("release"))?;
    Ok(Kernel {
        release,
        folder,
        packages,
    })
}
