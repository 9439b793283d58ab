//! One kernel: packages to image, unpacked kernel and the modules we use.

use crate::{
    apt::{Apt, Fetched},
    modules::Available,
    recipe::{GUEST_BOOT, GUEST_ON_DEMAND, HOST_BOOT},
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

fn make(packages: &[Fetched], scratch: &Path, out: &Path) -> Result<()> {
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
