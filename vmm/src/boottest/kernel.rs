//! Kernels to test: where they are, what they are called, which release they are.

use super::oops::SystemMap;
use crate::images::{self, Hypervisors, Manifest};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

/// `[HYPERVISOR,dom0=]KERNEL[:LABEL]`, as given; both are a path or `@NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelArg {
    /// The Xen whose first domain the kernel is: path, or `@NAME` of a hypervisor image.
    pub hypervisor: Option<String>,
    /// Path, or `@NAME` of a guest image.
    pub kernel: String,
    /// What it is called in reports.
    pub label: String,
}

impl FromStr for KernelArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kernel, label) = match text.rsplit_once(':') {
            Some((kernel, label)) if !label.contains('/') => (kernel, Some(label)),
            _ => (text, None),
        };
        let (hypervisor, kernel) = match kernel.split_once(",dom0=") {
            Some((hypervisor, kernel)) => (Some(hypervisor), kernel),
            None => (None, kernel),
        };
        let file = Path::new(kernel.trim_start_matches('@'))
            .file_name()
            .and_then(|n| n.to_str());
        let label = label.or(file).unwrap_or_default();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if kernel.is_empty()
            || hypervisor == Some("")
            || label.is_empty()
            || label.starts_with('.')
            || !label.chars().all(fine)
        {
            return Err(format!(
                "'{text}' is no kernel: expected PATH, @NAME or one of them with :LABEL, a label of letters, digits, '-', '_', '.' and '+', perhaps \
                 behind HYPERVISOR,dom0="
            ));
        }
        Ok(Self {
            hypervisor: hypervisor.map(str::to_owned),
            kernel: kernel.to_owned(),
            label: label.to_owned(),
        })
    }
}

/// A kernel that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// What it is called in reports.
    pub label: String,
    /// For `kernel` of a configuration.
    pub kernel: PathBuf,
    /// For `initrd`; none: the image's own.
    pub initrd: Option<PathBuf>,
    /// It runs as the first domain of this Xen.
    pub hypervisor: Option<PathBuf>,
    /// `uname -r`, where the file tells it.
    pub release: Option<String>,
    /// Its symbols.
    pub map: SystemMap,
    /// Why no guest can boot it.
    pub problem: Option<String>,
}

/// Looks at the file and finds what the guest needs beside it.
pub fn look(arg: &KernelArg, initrd: Option<&Path>, map: Option<&Path>) -> Kernel {
    let mut kernel = Kernel {
        label: arg.label.clone(),
        kernel: PathBuf::from(&arg.kernel),
        initrd: initrd.map(Path::to_owned),
        hypervisor: arg.hypervisor.as_ref().map(PathBuf::from),
        ..Kernel::default()
    };
    kernel.problem = fill(&mut kernel, arg, map).err();
    kernel
}

fn fill(kernel: &mut Kernel, arg: &KernelArg, map: Option<&Path>) -> Result<(), String> {
    if let Some(path) = map {
        let text = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        kernel.map = SystemMap::parse(&String::from_utf8_lossy(&text));
        if kernel.map.is_empty() {
            return Err(format!(
                "{} has no symbol; hint: a System.map has lines such as 'ffffffff81000000 T _text'",
                path.display()
            ));
        }
    }
    if let Some(hypervisor) = &arg.hypervisor {
        find_hypervisor(hypervisor)?;
    }
    if let Some(name) = arg.kernel.strip_prefix('@') {
        let manifest = Manifest::load(&images::default_dir()).map_err(|e| e.to_string())?;
        kernel.release = Some(manifest.kernel(name).map_err(|e| e.to_string())?.release.clone());
        return Ok(());
    }
    let unread = |e| format!("cannot read kernel {}: {e}", kernel.kernel.display());
    let mut head = Vec::new();
    let file = File::open(&kernel.kernel).map_err(unread)?;
    file.take(64 << 10).read_to_end(&mut head).map_err(unread)?;
    kernel.release = release(&head);
    if kernel.initrd.is_none() {
        // Any image's agent serves a kernel whose virtio drivers are built in.
        let manifest = Manifest::load(&images::default_dir()).map_err(|e| e.to_string())?;
        let same = manifest
            .kernels
            .iter()
            .find(|(_, image)| Some(&image.release) == kernel.release.as_ref());
        let (name, image) = same
            .or(manifest.kernels.first_key_value())
            .ok_or("there is no guest image; hint: run `cargo xtask images`")?;
        // As a module `@NAME` would be that image's kernel.
        kernel.initrd = Some(match kernel.hypervisor {
            Some(_) => image.initramfs.clone(),
            None => PathBuf::from(format!("@{name}")),
        });
    }
    Ok(())
}

/// Whether the hypervisor is there: path, or `@NAME`.
fn find_hypervisor(said: &str) -> Result<(), String> {
    match said.strip_prefix('@') {
        Some(name) => {
            let list = Hypervisors::load(&images::default_dir()).map_err(|e| e.to_string())?;
            list.get(name).map_err(|e| e.to_string())?;
        }
        None => drop(File::open(said).map_err(|e| format!("cannot read hypervisor {said}: {e}"))?),
    }
    Ok(())
}

/// The release in a bzImage's header: Linux boot protocol 2.00, field `kernel_version` at 0x20e, an offset less 0x200.
fn release(head: &[u8]) -> Option<String> {
    (head.get(0x202..0x206)? == b"HdrS").then_some(())?;
    let offset = u16::from_le_bytes(head.get(0x20e..0x210)?.try_into().ok()?);
    let text = head.get(usize::from(offset) + 0x200..)?;
    let end = text.iter().take(256).position(|b| *b == b' ' || *b == 0)?;
    String::from_utf8(text[..end].to_vec()).ok().filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_have_labels() {
        let label = |text: &str| text.parse::<KernelArg>().map(|k| (k.kernel, k.label)).unwrap();
        assert_eq!(
            label("@debian-6.1-amd64"),
            ("@debian-6.1-amd64".into(), "debian-6.1-amd64".into())
        );
        assert_eq!(label("a:b/bzImage"), ("a:b/bzImage".into(), "bzImage".into()));
        assert_eq!(label("/x/bzImage:patched"), ("/x/bzImage".into(), "patched".into()));
        let under: KernelArg = "@xen-4.17-amd64,dom0=@debian-6.1-amd64:xen".parse().unwrap();
        assert_eq!(
            (under.hypervisor.as_deref(), &*under.kernel, &*under.label),
            (Some("@xen-4.17-amd64"), "@debian-6.1-amd64", "xen")
        );
        let unnamed: KernelArg = "xen.gz,dom0=boot/vmlinuz".parse().unwrap();
        assert_eq!((&*unnamed.kernel, &*unnamed.label), ("boot/vmlinuz", "vmlinuz"));
        for bad in ["", ":x", "/", "a: b", "a:", ",dom0=a:x", "a,dom0=:x"] {
            assert!(bad.parse::<KernelArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_kernel_is_a_problem_and_no_panic() {
        let arg = "/nonexistent/bzImage:x".parse().unwrap();
        let kernel = look(&arg, None, None);
        assert!(
            kernel
                .problem
                .unwrap()
                .contains("cannot read kernel /nonexistent/bzImage")
        );
    }

    #[test]
    fn a_missing_hypervisor_is_a_problem_before_a_guest_starts() {
        let problem = |arg: &str| look(&arg.parse().unwrap(), None, None).problem.unwrap();
        let missing = problem("/nonexistent/xen.gz,dom0=/nonexistent/bzImage:x");
        assert!(
            missing.contains("cannot read hypervisor /nonexistent/xen.gz"),
            "{missing}"
        );
        let unknown = problem("@no-such-hypervisor,dom0=@no-such-kernel:x");
        assert!(
            unknown.contains("hint: `cargo xtask images`") || unknown.contains("hint: run `cargo xtask images"),
            "{unknown}"
        );
    }

    #[test]
    fn the_release_is_in_the_header() {
        let mut head = vec![0; 0x400];
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        head[0x300..0x30a].copy_from_slice(b"6.1.0-56 (");
        assert_eq!(release(&head).as_deref(), Some("6.1.0-56"));
        head[0x20e..0x210].copy_from_slice(&0xffff_u16.to_le_bytes());
        assert_eq!(release(&head), None);
        assert_eq!(release(b"\x7fELF"), None);
    }
}
