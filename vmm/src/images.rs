//! Where guest images are and what is there: the manifest that `cargo xtask images` writes and everything else reads.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// A folder's manifest, `manifest.json` in it. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Guest kernels by name, for example `debian-6.1-cloud-amd64`.
    pub kernels: BTreeMap<String, KernelImage>,
    /// What the nested host boots.
    pub host: Option<HostImage>,
    /// Where every byte came from.
    pub packages: BTreeMap<String, PackageInfo>,
}

/// One guest kernel with the initramfs that carries its modules, the agent and the tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelImage {
    /// `uname -r`.
    pub release: String,
    /// The package's own image.
    pub bzimage: PathBuf,
    /// The same kernel unpacked.
    pub vmlinux: PathBuf,
    /// Uncompressed cpio.
    pub initramfs: PathBuf,
}

/// The nested host: QEMU and what it boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostImage {
    /// `uname -r` of the nested host's kernel.
    pub release: String,
    /// Unpacked kernel for QEMU's `-kernel` (PVH).
    pub vmlinux: PathBuf,
    /// Agent as init, and the modules for virtio, 9p and KVM.
    pub initramfs: PathBuf,
    /// QEMU to use when it is not the one in PATH.
    pub qemu: Option<QemuImage>,
}

/// A QEMU unpacked from packages into the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuImage {
    /// The program.
    pub program: PathBuf,
    /// Folders for `-L`, in order.
    pub data: Vec<PathBuf>,
    /// Folders for `LD_LIBRARY_PATH`, in order; may be empty.
    pub libraries: Vec<PathBuf>,
}

/// One package that went into the images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageInfo {
    /// Package version.
    pub version: String,
    /// SHA-256 of the package file.
    pub sha256: String,
    /// Licence as its copyright file names it, or where to read it.
    pub licence: String,
}

/// Why the images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Nothing has been built yet.
    #[error(
        "there are no guest images in {0}; hint: run `cargo xtask images`, or set DAXVISOR_IMAGES to a folder that has them"
    )]
    Missing(PathBuf),
    /// The folder cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// Not a manifest of this version.
    #[error("{0} is not a manifest of this version; hint: run `cargo xtask images` again")]
    Parse(PathBuf, #[source] serde_json::Error),
    /// A kernel of that name is not there.
    #[error(
        "there is no kernel image '{name}'; expected one of: {known}; hint: `cargo xtask images` fetches the default set"
    )]
    NoKernel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A hypervisor of that name is not there.
    #[error(
        "there is no hypervisor image '{name}'; expected one of: {known}; hint: `cargo xtask images` fetches the default set"
    )]
    NoHypervisor {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The nested host's image is not there.
    #[error("there is no nested host image in {0}; hint: run `cargo xtask images`")]
    NoHost(PathBuf),
}

/// The manifest's name in the folder of images.
pub const MANIFEST: &str = "manifest.json";

/// A folder's hypervisors, [`HYPERVISORS`] in it. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hypervisors {
    /// By name, for example `xen-4.17-amd64`.
    pub hypervisors: BTreeMap<String, HypervisorImage>,
    /// Where every byte came from.
    pub packages: BTreeMap<String, PackageInfo>,
}

/// One hypervisor that is booted by multiboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HypervisorImage {
    /// Version of its package.
    pub version: String,
    /// The package's own image.
    pub image: PathBuf,
}

/// The list of hypervisors in the folder of images.
pub const HYPERVISORS: &str = "hypervisors.json";

impl Hypervisors {
    /// Reads the list in `dir`; its paths become absolute.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(HYPERVISORS);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ManifestError::Missing(dir.to_owned())),
            other => other.map_err(|e| ManifestError::Read(path.clone(), e))?,
        };
        let mut list: Self = serde_json::from_slice(&text).map_err(|e| ManifestError::Parse(path, e))?;
        for hypervisor in list.hypervisors.values_mut() {
            hypervisor.image = dir.join(&hypervisor.image);
        }
        Ok(list)
    }

    /// The hypervisor called `name`.
    pub fn get(&self, name: &str) -> Result<&HypervisorImage, ManifestError> {
        self.hypervisors.get(name).ok_or_else(|| ManifestError::NoHypervisor {
            name: name.to_owned(),
            known: self
                .hypervisors
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// `$DAXVISOR_IMAGES`, else `$XDG_CACHE_HOME/daxvisor/images`, else `~/.cache/daxvisor/images`.
pub fn default_dir() -> PathBuf {
    if let Some(dir) = env::var_os("DAXVISOR_IMAGES") {
        return dir.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let cache = cache.or_else(|| env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
    cache
        .unwrap_or_else(|| PathBuf::from("/var/cache"))
        .join("daxvisor/images")
}

impl Manifest {
    /// Reads `dir/manifest.json` and makes every path absolute.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ManifestError::Missing(dir.to_owned())),
            other => other.map_err(|e| ManifestError::Read(path.clone(), e))?,
        };
        let mut manifest: Self = serde_json::from_slice(&text).map_err(|e| ManifestError::Parse(path, e))?;
        let absolute = |p: &mut PathBuf| *p = dir.join(&*p);
        for kernel in manifest.kernels.values_mut() {
            [&mut kernel.bzimage, &mut kernel.vmlinux, &mut kernel.initramfs]
                .into_iter()
                .for_each(absolute);
        }
        if let Some(host) = &mut manifest.host {
            [&mut host.vmlinux, &mut host.initramfs].into_iter().for_each(absolute);
            if let Some(qemu) = &mut host.qemu {
                absolute(&mut qemu.program);
                qemu.data.iter_mut().chain(&mut qemu.libraries).for_each(absolute);
            }
        }
        Ok(manifest)
    }

    /// The kernel called `name`.
    pub fn kernel(&self, name: &str) -> Result<&KernelImage, ManifestError> {
        self.kernels.get(name).ok_or_else(|| ManifestError::NoKernel {
            name: name.to_owned(),
            known: self.kernels.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}
