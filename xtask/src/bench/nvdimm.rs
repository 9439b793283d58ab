//! `cargo xtask bench nvdimm`: the same work on NVDIMMs of daxvisor and of QEMU, in guests that run one after the other.
//!
//! ```text
//! bench nvdimm --- plan ---> measure (where KVM is) --- a line of JSON for each machine ---> table, JSON
//! ```

mod measure;
mod table;

use super::{HostChoice, build, in_nested_host, publish, runs_kernels};
use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use vmm::images::{Manifest, default_dir};

/// Arguments of `cargo xtask bench nvdimm`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Rounds of both programs in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/nvdimm.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.1-cloud-amd64")]
    kernel: String,
    /// The daxvisor to measure, instead of building one
    #[arg(long, value_name = "PATH")]
    daxvisor: Option<PathBuf>,
}

/// What the measuring process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    rounds: u32,
    kernel: String,
}

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Vmm {
    Daxvisor,
    Qemu,
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Daxvisor => "daxvisor",
            Self::Qemu => "QEMU",
        })
    }
}

/// What came of the machines of one program in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Run {
    /// From 1.
    round: u32,
    vmm: Vmm,
    /// By name; times in ns, all else counts.
    figures: BTreeMap<String, u64>,
    /// Why figures are missing.
    failure: Option<String>,
}

/// Runs the verb.
pub(super) fn run(args: &Args) -> Result<()> {
    let daxvisor = match &args.daxvisor {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()))?,
        None => build()?,
    };
    Manifest::load(&default_dir())?.kernel(&args.kernel)?;
    let nested = match args.host {
        HostChoice::Kvm => false,
        HostChoice::Nested => true,
        HostChoice::Auto => !runs_kernels(&daxvisor)?,
    };
    let plan = Plan {
        rounds: args.rounds,
        kernel: args.kernel.clone(),
    };
    let dir = tempfile::Builder::new().prefix("daxvisor-bench-").tempdir()?;
    let plan_file = dir.path().join("plan.json");
    fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
    let program = env::current_exe()?;
    let mut command = if nested {
        // In real time: counting instructions, a round does not end in minutes.
        let bin = format!("DAXVISOR_BIN={}", daxvisor.display());
        in_nested_host(&daxvisor, &program, dir.path(), &["--env", &bin])
    } else {
        let mut command = Command::new(&program);
        command.env("DAXVISOR_BIN", &daxvisor);
        command
    };
    command.args(["bench", "measure-nvdimm"]).arg(&plan_file);
    let runs = runs_of(&mut command)?;
    let machine = if nested { "nested host" } else { "this machine's KVM" };
    let report = table::Report::new(machine, &args.kernel, &runs);
    publish(&report, &args.json)?;
    let failed = runs.iter().filter(|run| run.failure.is_some()).count();
    ensure!(
        failed == 0,
        "{failed} of {} runs failed; they are part of no median",
        runs.len()
    );
    Ok(())
}

/// Does the runs of the plan in a file on this machine's KVM.
pub(super) fn measure(plan: &Path) -> Result<()> {
    measure::all(&serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?)
}

fn runs_of(command: &mut Command) -> Result<Vec<Run>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let output = child.stdout.take().context("the measuring process has no output")?;
    let mut runs = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match serde_json::from_str::<Run>(&line) {
            Ok(run) => {
                eprintln!(
                    "round {}, {}: {}",
                    run.round,
                    run.vmm,
                    run.failure.as_deref().unwrap_or("done")
                );
                runs.push(run);
            }
            Err(_) => eprintln!("{line}"),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the measuring process failed ({status})");
    }
    Ok(runs)
}
