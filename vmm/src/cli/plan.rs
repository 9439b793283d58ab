//! From a configuration to a machine that could be built: the pure plans, and the few facts of the host they need.

use super::Failure;
use crate::{
    config::{
        BootProtocol, ModuleConfig, Unpack, VmConfig,
        probe::{BackingFacts, Purpose},
    },
    images::{self, Hypervisors, KernelImage, Manifest},
    layout::{HostLimits, Layout},
    topology::Topology,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A machine, decided but not built: nothing has been opened yet.
#[derive(Debug)]
pub struct MachinePlan {
    /// What was asked for, valid, with the paths of guest images in place of their names.
    pub config: VmConfig,
    /// vCPUs and nodes.
    pub topology: Topology,
    /// Guest physical map.
    pub layout: Layout,
    /// Guest physical address bits that the map was made for.
    pub phys_bits: u8,
    /// NVDIMM backings by slot, then those of virtio-pmem devices.
    pub backings: Vec<BackingFacts>,
    /// Backings of the memory devices in their order.
    pub memory_devices: Vec<BackingFacts>,
}

impl MachinePlan {
    /// Checks and plans; every problem of the values is reported together with every problem of the files.
    pub fn prepare(mut config: VmConfig, purpose: Purpose) -> Result<Self, Failure> {
        let valid = config.validate().map_err(Failure::from);
        resolve_images(&mut config)?;
        let probed = config.probe(purpose).map_err(Failure::from);
        let backings = match (valid, probed) {
            (Ok(()), probed) => probed?,
            (Err(values), Err(files)) => return Err(values.and(files)),
            (Err(values), Ok(_)) => return Err(values),
        };
        let topology = Topology::plan(&config)?;
        let memory_devices = config.probe_memory_devices()?;
        let phys_bits = phys_bits()?;
        let layout = Layout::plan(
            &config,
            &topology,
            &HostLimits {
                phys_bits,
                backings: backings.clone(),
                memory_devices: memory_devices.clone(),
            },
        )?;
        Ok(Self {
            config,
            topology,
            layout,
            phys_bits,
            backings,
            memory_devices,
        })
    }
}

/// Puts paths in place of `@NAME`. A kernel of an image brings its initramfs when there is no other; it is the image's
/// vmlinux, which nobody has to unpack, unless unpacking is asked for or forbidden by name.
fn resolve_images(config: &mut VmConfig) -> Result<(), Failure> {
    let name = |path: &Option<PathBuf>| {
        path.as_deref()
            .and_then(Path::to_str)?
            .strip_prefix('@')
            .map(str::to_owned)
    };
    resolve_modules(config)?;
    let (kernel, initrd) = (name(&config.kernel), name(&config.initrd));
    if kernel.is_none() && initrd.is_none() {
        return Ok(());
    }
    if let Some(name) = kernel.as_ref().filter(|_| config.is_multiboot()) {
        config.kernel = Some(Hypervisors::load(&images::default_dir())?.get(name)?.image.clone());
        return Ok(());
    }
    let manifest = Manifest::load(&images::default_dir())?;
    if let Some(name) = initrd {
        config.initrd = Some(manifest.kernel(&name)?.initramfs.clone());
    }
    if let Some(name) = kernel {
        let KernelImage {
            bzimage,
            vmlinux,
            initramfs,
            ..
        } = manifest.kernel(&name)?;
        config.kernel = Some(
            if config.entry().protocol == BootProtocol::Pvh || config.boot.unpack == Unpack::Auto {
                vmlinux
            } else {
                bzimage
            }
            .clone(),
        );
        config.initrd.get_or_insert_with(|| initramfs.clone());
    }
    Ok(())
}

/// The same for modules: the first one is a kernel, and brings its initramfs when there is no second one.
fn resolve_modules(config: &mut VmConfig) -> Result<(), Failure> {
    let mut initramfs = None;
    let alone = config.module.len() == 1;
    for module in &mut config.module {
        let Some(name) = module.file.to_str().and_then(|name| name.strip_prefix('@')) else {
            continue;
        };
        let manifest = Manifest::load(&images::default_dir())?;
        let image = manifest.kernel(name)?;
        initramfs = Some(image.initramfs.clone()).filter(|_| alone);
        module.file = image.vmlinux.clone();
    }
    config
        .module
        .extend(initramfs.map(|file| ModuleConfig { file, cmdline: None }));
    Ok(())
}

/// Physical address bits of the processor, which KVM gives to guests.
fn phys_bits() -> Result<u8, Failure> {
    const PATH: &str = "/proc/cpuinfo";
    let text = fs::read_to_string(PATH)
        .map_err(|e| Failure::host(anyhow::anyhow!(e).context(format!("cannot read {PATH}"))))?;
    parse_phys_bits(&text).ok_or_else(|| {
        Failure::host(anyhow::anyhow!(
            "{PATH} does not tell the processor's physical address bits; hint: daxvisor needs x86-64"
        ))
    })
}

/// The line reads `address sizes : 46 bits physical, 48 bits virtual`.
fn parse_phys_bits(cpuinfo: &str) -> Option<u8> {
    let line = cpuinfo.lines().find(|line| line.starts_with("address sizes"))?;
    let (bits, _) = line.split_once(':')?.1.split_once("bits physical")?;
    bits.trim().parse().ok().filter(|bits| (32..=52).contains(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_bits_are_read_from_cpuinfo() {
        let text = "vendor_id\t: x\naddress sizes\t: 46 bits physical, 48 bits virtual\n";
        assert_eq!(parse_phys_bits(text), Some(46));
        for text in [
            "",
            "address sizes\t: many bits physical",
            "address sizes\t: 99 bits physical, 48 bits virtual",
        ] {
            assert_eq!(parse_phys_bits(text), None, "{text}");
        }
    }
}
