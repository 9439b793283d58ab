//! Modules that a multiboot loader hands over: the kernel of Xen's first domain, its initial file system.

use super::{BootProtocol, ConfigError, VmConfig, kv};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most modules.
pub const MAX_MODULES: usize = 8;

/// One module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModuleConfig {
    /// A path, or `@NAME` for a guest image's kernel.
    pub file: PathBuf,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

impl ModuleConfig {
    /// From the text of its flag: a path, and after the first blank its command line.
    pub fn parse(text: &str) -> Result<Self, kv::Error> {
        let (file, cmdline) = match text.trim_start().split_once(char::is_whitespace) {
            Some((file, cmdline)) => (file, Some(cmdline.trim()).filter(|c| !c.is_empty()).map(str::to_owned)),
            None => (text.trim_start(), None),
        };
        if file.is_empty() {
            return Err(kv::Error::Empty("module".into()));
        }
        Ok(Self {
            file: file.into(),
            cmdline,
        })
    }

    /// The text of its flag.
    pub fn text(&self) -> Result<String, kv::Error> {
        let path = self.file.to_str().filter(|path| !path.contains(char::is_whitespace));
        let path = path.ok_or_else(|| kv::Error::Unwritable(self.file.display().to_string()))?;
        Ok(match &self.cmdline {
            Some(cmdline) => format!("{path} {cmdline}"),
            None => path.to_owned(),
        })
    }
}

/// What is wrong with modules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Too many.
    #[error("{0} modules are asked for: expected at most {MAX_MODULES}")]
    Count(usize),
    /// None, where there must be one.
    #[error(
        "protocol=multiboot needs modules; hint: add --module 'VMLINUX CMDLINE' for the kernel of the first domain"
    )]
    None,
    /// An initrd beside modules.
    #[error("--initrd has no place beside modules; hint: make it the second --module")]
    Initrd,
    /// Another protocol.
    #[error("modules are handed over by the multiboot protocol, not by protocol={0}; hint: leave out --boot")]
    Protocol(&'static str),
    /// A character that ends the command line.
    #[error("the command line of module {0} has a control character: expected one line of text")]
    Cmdline(PathBuf),
}

impl VmConfig {
    /// Whether a hypervisor is booted by multiboot, with the platform that it needs.
    pub fn is_multiboot(&self) -> bool {
        !self.module.is_empty() || self.boot.protocol == BootProtocol::Multiboot
    }

    pub(super) fn check_modules(&self, problems: &mut Vec<ConfigError>) {
        let mut problem = |error: ModuleError| problems.push(error.into());
        if self.module.len() > MAX_MODULES {
            problem(ModuleError::Count(self.module.len()));
        }
        match (self.boot.protocol, self.module.is_empty()) {
            (BootProtocol::Multiboot, true) => problem(ModuleError::None),
            (BootProtocol::Linux64, false) => problem(ModuleError::Protocol("linux64")),
            (BootProtocol::Pvh, false) => problem(ModuleError::Protocol("pvh")),
            _ => {}
        }
        if self.is_multiboot() && self.initrd.is_some() {
            problem(ModuleError::Initrd);
        }
        let control = |m: &&ModuleConfig| m.cmdline.iter().any(|c| c.contains(char::is_control));
        for module in self.module.iter().filter(control) {
            problem(ModuleError::Cmdline(module.file.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_a_path_and_its_command_line() {
        let module = |text| ModuleConfig::parse(text).map(|m| (m.file, m.cmdline));
        assert_eq!(module("/boot/vmlinuz"), Ok(("/boot/vmlinuz".into(), None)));
        let with = Ok(("a".into(), Some("quiet x=1,2".to_owned())));
        assert_eq!(module(" a  quiet x=1,2 "), with);
        assert!(module("  ").is_err());
        let written = ModuleConfig::parse("a b c").unwrap();
        assert_eq!(ModuleConfig::parse(&written.text().unwrap()), Ok(written));
        let odd = ModuleConfig {
            file: "/a b".into(),
            cmdline: None,
        };
        assert!(odd.text().is_err(), "it would read as another module");
    }

    #[test]
    fn modules_go_with_multiboot_and_nothing_else() {
        let problems = |change: fn(&mut VmConfig)| {
            let mut config = VmConfig {
                module: vec![ModuleConfig::parse("k").unwrap()],
                ..VmConfig::default()
            };
            change(&mut config);
            let found = config.validate().err().unwrap_or_default();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        for (change, why) in [
            (
                (|c| c.boot.protocol = BootProtocol::Pvh) as fn(&mut VmConfig),
                "protocol=pvh",
            ),
            (|c| c.initrd = Some("i".into()), "second --module"),
            (|c| c.module = vec![c.module[0].clone(); 9], "9 modules"),
            (|c| c.module[0].cmdline = Some("a\nb".into()), "control character"),
            (
                |c| {
                    c.module.clear();
                    c.boot.protocol = BootProtocol::Multiboot;
                },
                "needs modules",
            ),
        ] {
            let found = problems(change);
            assert!(matches!(&found[..], [one] if one.contains(why)), "{why}: {found:?}");
        }
    }
}
