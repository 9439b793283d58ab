//! Kernel, initrd and modules: read and placed before there is a machine to load them into.

use super::BuildError;
use crate::{
    boot::{self, BootPlan, BootRequest, CpuState, Kernel, ModuleRequest},
    config::{ConsoleConfig, LimitBy, VmConfig},
    hv::Kvm,
    layout::Layout,
};
use devices::{GuestMemory, units::Gpa};
use std::{fs::File, path::PathBuf};
use vm_memory::GuestAddressSpace;

/// What is loaded, and where.
pub struct Images {
    kernel: Kernel,
    initrd: Option<File>,
    modules: Vec<File>,
    plan: BootPlan,
}

impl Images {
    /// Opens the files and decides where they go.
    pub fn open(config: &VmConfig, layout: &Layout, rsdp: Gpa, kvm: &Kvm) -> Result<Self, BuildError> {
        let path = config.kernel.as_deref().ok_or(BuildError::NoKernel)?;
        let kernel = Kernel::open(path).map_err(|e| BuildError::Image(path.to_owned(), e))?;
        let kernel = boot::prepare(kernel, &config.entry())?;
        let initrd = config
            .initrd
            .as_ref()
            .map(|path| open_with_len(path).map_err(|e| BuildError::Initrd(path.clone(), e)));
        let (initrd_len, initrd) = initrd.transpose()?.unzip();
        let mut modules = Vec::new();
        for (position, module) in config.module.iter().enumerate() {
            let (len, file) = open_with_len(&module.file).map_err(|e| BuildError::Module(module.file.clone(), e))?;
            // The first module is the kernel of the first domain.
            let default = if position == 0 {
                boot::dom0_cmdline()
            } else {
                String::new()
            };
            modules.push((len, file, boot::join_cmdline(&default, module.cmdline.as_deref())));
        }
        let requests: Vec<_> = modules
            .iter()
            .map(|(len, _, cmdline)| ModuleRequest { len: *len, cmdline })
            .collect();
        let e820: Vec<_> = layout
            .e820()
            .into_iter()
            .map(|(range, kind)| (range, kind as u32))
            .collect();
        let plan = boot::plan(
            &kernel,
            &BootRequest {
                e820: &e820,
                limit: layout.limit.map(|(limit, _)| limit),
                mirrored: &layout.mirrored,
                initrd_len,
                modules: &requests,
                cmdline: &cmdline(config, kvm)?,
                protocol: config.entry().protocol,
                rsdp,
                initial_domain: config.xen.as_ref().is_some_and(|xen| xen.dom0),
            },
        )?;
        Ok(Self {
            kernel,
            initrd,
            modules: modules.into_iter().map(|(_, file, _)| file).collect(),
            plan,
        })
    }

    /// Writes them into guest memory; the state to enter with.
    pub fn load(&self, memory: &GuestMemory) -> Result<CpuState, BuildError> {
        Ok(boot::load(
            &self.plan,
            &self.kernel,
            self.initrd.as_ref(),
            &self.modules,
            &*memory.memory(),
        )?)
    }
}

fn open_with_len(path: &PathBuf) -> std::io::Result<(u64, File)> {
    File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)))
}

/// The kernel's whole command line: the default one for what it is, what other flags ask for, then the user's own.
fn cmdline(config: &VmConfig, kvm: &Kvm) -> Result<String, BuildError> {
    let console = config.console != ConsoleConfig::None;
    let mut words = if config.is_multiboot() {
        boot::xen_cmdline(console)
    } else {
        boot::default_cmdline(console)
    };
    if config.is_multiboot() && !config.limits.is_empty() {
        let memory = boot::dom0_memory(&config.limits()?, config.limits.static_max.is_some());
        words = boot::join_cmdline(&words, Some(&memory));
    }
    let no_clock = config.cpu.remove.iter().any(|feature| feature == "hypervisor");
    if !config.is_multiboot() && no_clock {
        words = boot::join_cmdline(&words, Some(&boot::without_hypervisor(kvm.tsc_khz()?)));
    }
    if let Some(limit) = config.memory_limit.filter(|limit| limit.by == LimitBy::Parameter) {
        words = boot::join_cmdline(&words, Some(&format!("mem={}", limit.size)));
    }
    Ok(boot::join_cmdline(&words, config.cmdline.as_deref()))
}
