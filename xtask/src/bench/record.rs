//! What is to be measured, and what was.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf};
use vmm::images::{KernelImage, QemuImage};

/// Everything the measuring process needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Rounds of all programs in turn.
    pub rounds: u32,
    /// The program to measure.
    pub daxvisor: PathBuf,
    /// The program to compare with.
    pub qemu: QemuImage,
    /// What all of them boot.
    pub kernel: KernelImage,
    /// Whether the host may be told to promise more memory than it has; only a host that is ours.
    pub overcommit: bool,
    /// Kernels for the comparison of unpacking; may be empty.
    pub unpack: BTreeMap<String, KernelImage>,
}

/// A program with its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    Daxvisor,
    QemuMicrovm,
    QemuQ35,
}

impl Vmm {
    /// In the order of a round.
    pub const ALL: [Self; 3] = [Self::Daxvisor, Self::QemuMicrovm, Self::QemuQ35];
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Daxvisor => "daxvisor",
            Self::QemuMicrovm => "QEMU microvm",
            Self::QemuQ35 => "QEMU q35",
        })
    }
}

/// How much the kernel says on the serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// `quiet`.
    Quiet,
    /// Everything.
    Full,
}

/// One way to run a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Scenario {
    /// Until the first entry to the guest.
    Start {
        /// Guest RAM.
        gib: u32,
    },
    /// Until init says that it is ready.
    Boot {
        /// Kernel log.
        log: Log,
    },
    /// The same with exits to user space counted, which costs time.
    Count {
        /// Kernel log.
        log: Log,
    },
    /// Boot of another kernel file.
    Unpack {
        /// Kernel's name.
        kernel: String,
        /// Which of its files, and who unpacks it.
        how: Unpack,
    },
}

/// Who unpacks the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// Nobody: vmlinux.
    Vmlinux,
    /// bzImage, by daxvisor.
    Monitor,
    /// bzImage, by the guest.
    Guest,
}

/// One run and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// From 1.
    pub round: u32,
    /// Program.
    pub vmm: Vmm,
    /// How.
    pub scenario: Scenario,
    /// 1, or 2 for the one retry after a failure.
    pub attempt: u32,
    /// What was measured, by name; times in ns, memory in bytes.
    pub figures: BTreeMap<String, u64>,
    /// Why there are no figures.
    pub failure: Option<String>,
}
