//! The Xen personality: what the user says of it, and what it does not go with.

use super::{BootConfig, BootProtocol, ConfigError, ConsoleConfig, LimitBy, VmConfig};
use devices::xen::Version;
use serde::{Deserialize, Serialize};

/// What of Xen the guest finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct XenConfig {
    /// Version that it says it has.
    pub version: Version,
    /// The guest is the first domain.
    #[serde(default)]
    pub dom0: bool,
    /// Where its own console goes; none: it has no console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<ConsoleConfig>,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XenError {
    /// A real Xen.
    #[error("--xen has no place beside modules, which boot a real Xen; hint: leave out one of the two")]
    Modules,
    /// Not by PVH.
    #[error("protocol={0} does not go with --xen, whose guests are entered by PVH; hint: leave out --boot")]
    Protocol(&'static str),
    /// Memory that cannot be given back page by page.
    #[error("memory {0} does not go with --xen, whose guests give back single pages; hint: leave it out")]
    Memory(&'static str),
    /// A guest that does not look for a hypervisor, or calls it in the wrong way.
    #[error(
        "cpu {0} does not go with --xen: the kernel looks for a hypervisor, and calls it by the instruction of the processor's \
         vendor; hint: leave it out"
    )]
    Cpu(String),
    /// A first domain has the hypervisor's console.
    #[error(
        "xen.console={0} does not go with dom0=on, whose console is the hypervisor's; hint: leave out one of the two"
    )]
    Console(ConsoleConfig),
    /// One terminal for two.
    #[error("both --console and the console of --xen are {0}; hint: give one of them a file: or pty")]
    Twice(ConsoleConfig),
    /// Memory that Xen knows nothing of.
    #[error(
        "--{0} does not go with --xen: Linux puts all memory that is added into the balloon, and only Xen's comes out; hint: raise \
         static-max, and the target in the guest"
    )]
    Hotplug(&'static str),
    /// A memory device that the kernel would take.
    #[error(
        "--memory-device goes with --xen where the kernel refuses it: Linux puts all memory that is added into the balloon, and only \
         Xen's comes out; hint: --memory-limit SIZE, which Linux keeps by refusing memory devices at boot"
    )]
    Device,
}

impl VmConfig {
    /// How the kernel is entered, all considered.
    pub fn entry(&self) -> BootConfig {
        let protocol = match (self.boot.protocol, &self.xen) {
            (BootProtocol::Auto, Some(_)) => BootProtocol::Pvh,
            (protocol, _) => protocol,
        };
        BootConfig {
            protocol,
            ..self.boot.clone()
        }
    }

    /// Whether somebody can type where daxvisor was started.
    pub fn is_interactive(&self) -> bool {
        let domain = self.xen.as_ref().and_then(|xen| xen.console.as_ref());
        [Some(&self.console), domain].contains(&Some(&ConsoleConfig::Stdio))
    }

    pub(super) fn check_xen(&self, problems: &mut Vec<ConfigError>) {
        let Some(xen) = &self.xen else { return };
        let mut problem = |error: XenError| problems.push(error.into());
        if let Some(console) = &xen.console {
            if xen.dom0 {
                problem(XenError::Console(console.clone()));
            }
            if *console == ConsoleConfig::Stdio && self.console == ConsoleConfig::Stdio {
                problem(XenError::Twice(console.clone()));
            }
        }
        if !self.module.is_empty() {
            problem(XenError::Modules);
        }
        match self.boot.protocol {
            BootProtocol::Linux64 => problem(XenError::Protocol("linux64")),
            BootProtocol::Multiboot => problem(XenError::Protocol("multiboot")),
            BootProtocol::Auto | BootProtocol::Pvh => {}
        }
        if self.memory.hugepages.is_some() {
            problem(XenError::Memory("hugepages="));
        }
        if self.memory.shared {
            problem(XenError::Memory("shared=on"));
        }
        if let Some(vendor) = &self.cpu.vendor {
            problem(XenError::Cpu(format!("vendor={vendor}")));
        }
        if self.cpu.remove.iter().any(|feature| feature == "hypervisor") {
            problem(XenError::Cpu("-hypervisor".into()));
        }
        let hotplug = [
            ("memory-slots", self.memory_slots != 0),
            ("virtio-mem", !self.virtio_mem.is_empty()),
        ];
        for (flag, _) in hotplug.into_iter().filter(|(_, given)| *given) {
            problem(XenError::Hotplug(flag));
        }
        let kept = self
            .memory_limit
            .is_some_and(|limit| limit.by == LimitBy::Parameter && limit.size <= self.boot_ram());
        if !self.memory_device.is_empty() && !kept {
            problem(XenError::Device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemoryLimitConfig;
    use devices::units::ByteSize;

    fn xen(config: &mut VmConfig) -> &mut XenConfig {
        config.xen.as_mut().unwrap()
    }

    fn with_device(config: &mut VmConfig) {
        config.numa = vec![crate::config::NumaConfig {
            memory: ByteSize::mib(512),
            hotplug: ByteSize::mib(1024),
            ..Default::default()
        }];
        config.memory_device = vec![crate::config::MemoryDeviceConfig {
            size: Some(ByteSize::mib(128)),
            ..Default::default()
        }];
    }

    #[test]
    fn it_goes_with_what_its_guests_can_use() {
        let problems = |change: fn(&mut VmConfig)| {
            let version = "4.17".parse().unwrap();
            let mut config = VmConfig {
                xen: Some(XenConfig {
                    version,
                    dom0: false,
                    console: None,
                }),
                ..VmConfig::default()
            };
            assert_eq!(config.entry().protocol, BootProtocol::Pvh);
            change(&mut config);
            let found = config.validate().err().unwrap_or_default();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        let refused_by_the_kernel = problems(|c| {
            with_device(c);
            c.memory_limit = Some(MemoryLimitConfig {
                size: c.boot_ram(),
                by: LimitBy::Parameter,
            });
        });
        assert_eq!(refused_by_the_kernel, Vec::<String>::new());
        assert_eq!(problems(|c| c.boot.protocol = BootProtocol::Pvh), Vec::<String>::new());
        for (change, why) in [
            (
                (|c| c.boot.protocol = BootProtocol::Linux64) as fn(&mut VmConfig),
                "protocol=linux64",
            ),
            (|c| xen(c).console = Some(ConsoleConfig::Stdio), "both --console"),
            (
                |c| (xen(c).console, xen(c).dom0) = (Some(ConsoleConfig::Pty), true),
                "console=pty",
            ),
            (|c| c.memory.shared = true, "shared=on"),
            (|c| c.memory.hugepages = Some(ByteSize::mib(2)), "hugepages="),
            (|c| c.cpu.vendor = Some("GenuineIntel".into()), "vendor=GenuineIntel"),
            (|c| c.cpu.remove = vec!["hypervisor".into()], "-hypervisor"),
            (|c| c.memory_slots = 1, "--memory-slots"),
            (with_device, "--memory-limit"),
            (
                |c| {
                    with_device(c);
                    c.memory_limit = Some(MemoryLimitConfig {
                        size: c.boot_ram(),
                        by: LimitBy::Map,
                    });
                },
                "--memory-limit",
            ),
            (
                |c| c.module = vec![crate::config::ModuleConfig::parse("k").unwrap()],
                "modules",
            ),
        ] {
            let found = problems(change);
            assert!(matches!(&found[..], [one] if one.contains(why)), "{why}: {found:?}");
        }
    }

    #[test]
    fn a_machine_without_it_is_entered_as_it_says() {
        assert_eq!(VmConfig::default().entry(), BootConfig::default());
    }
}
