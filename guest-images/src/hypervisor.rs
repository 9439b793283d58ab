//! A hypervisor: its package unpacked, and the one image in it.

use crate::{
    apt::{Apt, Fetched},
    recipe,
    store::{Key, Store},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A hypervisor in the store.
pub struct Hypervisor {
    /// Version of its package.
    pub version: String,
    /// The image, relative to the images' folder.
    pub image: PathBuf,
    /// Folder with its licence.
    pub root: PathBuf,
    /// Where its bytes came from.
    pub packages: Vec<Fetched>,
}

/// The one `*.gz` in `/boot` of an unpacked package.
fn image(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).context("the hypervisor package has no /boot")?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "gz") && !path.is_symlink() {
            images.push(path);
        }
    }
    match images.pop() {
        Some(one) if images.is_empty() => Ok(one),
        _ => bail!("the hypervisor package holds no image, or several"),
    }
}

fn make(packages: &[Fetched], scratch: &Path, out: &Path) -> Result<()> {
    packages.iter().try_for_each(|p| p.unpack(scratch))?;
    fs::copy(image(scratch)?, out.join("image.gz"))?;
    for package in packages {
        let doc = format!("usr/share/doc/{}/copyright", package.package.name);
        if scratch.join(&doc).is_file() {
            fs::create_dir_all(out.join(&doc).parent().context("no folder")?)?;
            fs::copy(scratch.join(&doc), out.join(&doc))?;
        }
    }
    Ok(())
}

/// Fetches and unpacks it, without anything it depends on.
pub fn build(store: &Store, apt: &Apt, wanted: &recipe::Hypervisor) -> Result<Hypervisor> {
    let closure = apt.closure(&[wanted.package], &[])?;
    let own: Vec<_> = closure.into_iter().filter(|p| p.name == wanted.package).collect();
    let packages = apt.fetch(&own)?;
    let version = packages
        .first()
        .map(|p| p.package.version.clone())
        .with_context(|| format!("the archive has no {}", wanted.package))?;
    let mut key = Key::new("hypervisor");
    for package in &packages {
        key.add(&package.sha256);
    }
    let folder = store.step(wanted.name, &key, |out| make(&packages, store.scratch()?.path(), out))?;
    Ok(Hypervisor {
        version,
        image: folder.join("image.gz"),
        root: store.dir().join(&folder),
        packages,
    })
}
