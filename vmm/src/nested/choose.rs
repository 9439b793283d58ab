//! Where a guest runs: on /dev/kvm here, or in the nested host.

use crate::hv::probe::{KvmKind, Probe, cached};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{env, fs};

/// What the user asks for with `--host`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostChoice {
    /// /dev/kvm when it runs kernels, else the nested host.
    #[default]
    Auto,
    /// /dev/kvm here.
    Kvm,
    /// The nested host.
    Nested,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// /dev/kvm here.
    Here,
    /// The nested host; when that was our own idea, a line for stderr that says so.
    Nested(Option<String>),
}

/// Decides; probes /dev/kvm (once per boot) only when that matters.
pub fn choose(choice: HostChoice) -> Place {
    match choice {
        HostChoice::Kvm => Place::Here,
        HostChoice::Nested => Place::Nested(None),
        // A host in a host in a host helps nobody: what fails there is to be seen.
        HostChoice::Auto if inside() => Place::Here,
        HostChoice::Auto => decide(&cached()),
    }
}

fn decide(probe: &Probe) -> Place {
    if probe.kind.runs_kernels() {
        Place::Here
    } else {
        Place::Nested(Some(announcement(probe.kind)))
    }
}

/// Whether this process runs in a nested host.
pub fn inside() -> bool {
    let (name, value) = super::run::INSIDE;
    let cmdline = || fs::read_to_string("/proc/cmdline").unwrap_or_default();
    env::var_os(name).is_some_and(|v| v == value) || cmdline().split_whitespace().any(|w| w == "daxvisor.host=1")
}

/// The line that tells the user of a choice we made for them.
pub fn announcement(kind: KvmKind) -> String {
    let why = match kind {
        KvmKind::Paravirtual => "/dev/kvm here is paravirtual and cannot run a kernel",
        KvmKind::Absent => "there is no /dev/kvm here",
        KvmKind::NoPermission => "this user may not open /dev/kvm",
        KvmKind::Broken => "/dev/kvm here makes no virtual machine",
        KvmKind::Hardware | KvmKind::Nested => "/dev/kvm here runs kernels, but is not wanted",
    };
    format!("daxvisor: {why}; using the nested host (QEMU TCG with SVM)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nested_host_is_taken_where_kvm_runs_no_kernel_and_said_so() {
        let probe = |kind| Probe {
            kind,
            rate: None,
            detail: String::new(),
        };
        for kind in [KvmKind::Hardware, KvmKind::Nested] {
            assert_eq!(decide(&probe(kind)), Place::Here);
        }
        for kind in [
            KvmKind::Paravirtual,
            KvmKind::Absent,
            KvmKind::NoPermission,
            KvmKind::Broken,
        ] {
            let Place::Nested(Some(line)) = decide(&probe(kind)) else {
                panic!("{kind} is no place for a kernel")
            };
            assert!(line.starts_with("daxvisor: ") && line.ends_with("; using the nested host (QEMU TCG with SVM)"));
        }
        assert_eq!(choose(HostChoice::Kvm), Place::Here);
        assert_eq!(choose(HostChoice::Nested), Place::Nested(None));
    }
}
