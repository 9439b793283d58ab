//! What the outer half hands to the inner one, and what comes back, a JSON line each.

use super::table::Machine;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One test on one kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Kernel by name.
    pub kernel: String,
    /// The test's name.
    pub test: String,
    /// What it starts.
    pub program: String,
    /// Where it runs.
    pub machine: Machine,
    /// Most that it may take.
    pub seconds: u64,
    /// Its initramfs.
    pub initramfs: PathBuf,
}

/// All of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The monitor.
    pub daxvisor: PathBuf,
    /// This program.
    pub xtask: PathBuf,
    /// Folder of logs, one folder a kernel.
    pub dir: PathBuf,
    /// Commit of daxvisor.
    pub revision: String,
    /// Guests at a time.
    pub guests: usize,
    /// What to run.
    pub jobs: Vec<Job>,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Exit status 0.
    Passed,
    /// Anything that is not told apart below.
    Failed(String),
    /// Exit status 77, with the test's reason. Not a pass.
    Skipped(String),
    /// It was not run, for the reason in the table.
    NotApplicable(String),
}

impl Outcome {
    /// One word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped by the test",
            Self::NotApplicable(_) => "not applicable",
        }
    }

    /// Why, if there is a why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::Failed(reason) | Self::Skipped(reason) | Self::NotApplicable(reason) => reason,
        }
    }
}

/// A result, as a line of the inner half and as an entry of the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Result {
    /// Kernel by name.
    pub kernel: String,
    /// The test's name.
    pub test: String,
    /// How it ended.
    pub outcome: Outcome,
    /// From the guest's start to its end.
    pub seconds: f64,
    /// `uname -r` of the guest, when it came up.
    pub release: Option<String>,
    /// Commit of daxvisor; empty where nothing ran.
    #[serde(default)]
    pub revision: String,
}

impl Result {
    /// Reads a line; `None` when it is something else.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok())?
    }
}
