//! `cargo xtask bench boot`: daxvisor and QEMU, measured side by side.
//!
//! ```text
//! cargo xtask bench boot --- plan ---> measure (in the host that has KVM) --- runs ---> table, JSON
//! ```
//!
//! [`measure`] does all runs in one process on the machine whose /dev/kvm is used: here, or inside one run of the nested
//! host in instruction-counting mode, where this program starts itself again. Rounds are interleaved, so that a machine
//! that grows slower is slower for everybody.

mod measure;
mod record;
mod table;
mod trace;
mod vmms;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use record::{Plan, Run};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use vmm::images::{Manifest, default_dir};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start-up, boot, memory and exits of daxvisor, QEMU q35 and QEMU microvm
    Boot(BootArgs),
    /// Do the runs of a plan on this machine's KVM
    #[command(hide = true)]
    Measure {
        /// The plan, as JSON.
        plan: PathBuf,
        /// Where the runs go, as JSON.
        runs: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
struct BootArgs {
    /// Rounds of all programs in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/boot.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.1-cloud-amd64")]
    kernel: String,
    /// The daxvisor to measure, instead of building one
    #[arg(long, value_name = "PATH")]
    daxvisor: Option<PathBuf>,
    /// Also how long a bzImage takes, unpacked by the VMM and by the guest, of every kernel there is
    #[arg(long)]
    unpack: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum HostChoice {
    #[default]
    Auto,
    Kvm,
    Nested,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Boot(args) => boot(args),
        What::Measure { plan, runs } => {
            let plan: Plan = serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?;
            let done = measure::all(&plan)?;
            fs::write(runs, serde_json::to_vec_pretty(&done)?)
                .with_context(|| format!("cannot write {}", runs.display()))
        }
    }
}

fn boot(args: &BootArgs) -> Result<()> {
    let daxvisor = match &args.daxvisor {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()))?,
        None => build()?,
    };
    let manifest = Manifest::load(&default_dir())?;
    let qemu = manifest.host.as_ref().and_then(|host| host.qemu.clone());
    let nested = match args.host {
        HostChoice::Kvm => false,
        HostChoice::Nested => true,
        HostChoice::Auto => !runs_kernels(&daxvisor)?,
    };
    let plan = Plan {
        rounds: args.rounds,
        qemu: qemu.context("the images have no QEMU to compare with; hint: run `cargo xtask images`")?,
        kernel: manifest.kernel(&args.kernel)?.clone(),
        overcommit: nested,
        unpack: if args.unpack {
            manifest.kernels.clone()
        } else {
            BTreeMap::new()
        },
        daxvisor,
    };
    let runs = if nested {
        in_nested_host(&plan)?
    } else {
        measure::all(&plan)?
    };
    let kind = if nested {
        "nested host, instruction-counting mode"
    } else {
        "this machine's KVM"
    };
    let report = table::Report::new(kind, &args.kernel, &runs);
    print!("{report}");
    if let Some(dir) = args.json.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&args.json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", args.json.display()))?;
    eprintln!("figures and single runs: {}", args.json.display());
    Ok(())
}

/// The release build is what is measured: it is what people install.
fn build() -> Result<PathBuf> {
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", "vmm"])
        .status()?;
    ensure!(built.success(), "daxvisor does not build");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = target.join("release/daxvisor");
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

fn runs_kernels(daxvisor: &Path) -> Result<bool> {
    let mut check = Command::new(daxvisor);
    check.args(["host", "check"]).stdout(Stdio::null());
    Ok(check
        .status()
        .with_context(|| format!("cannot run {}", daxvisor.display()))?
        .success())
}

/// Those of `folders` that the nested host has an empty folder of its own in place of.
fn unseen<const N: usize>(folders: [Option<&Path>; N]) -> Vec<PathBuf> {
    let private = |path: &Path| {
        ["/tmp", "/run", "/var/tmp", "/dev/shm"]
            .iter()
            .any(|p| path.starts_with(p))
    };
    let unseen = folders.into_iter().flatten().filter(|path| private(path));
    unseen.map(Path::to_owned).collect()
}

/// All runs inside one start of the nested host, which sees this machine's files.
fn in_nested_host(plan: &Plan) -> Result<Vec<Run>> {
    let dir = tempfile::Builder::new().prefix("daxvisor-bench-").tempdir()?;
    let (plan_file, runs) = (dir.path().join("plan.json"), dir.path().join("runs.json"));
    fs::write(&plan_file, serde_json::to_vec(plan)?)?;
    let program = env::current_exe()?;
    let mut host = Command::new(&plan.daxvisor);
    host.args(["host", "run", "--icount", "--no-stdin", "--memory", "4G", "--share"])
        .arg(dir.path());
    for folder in unseen([program.parent(), plan.daxvisor.parent(), Some(&default_dir())]) {
        host.arg("--share").arg(folder);
    }
    let status = host
        .arg("--")
        .arg(&program)
        .args(["bench", "measure"])
        .args([&plan_file, &runs])
        .status()
        .with_context(|| format!("cannot run {}", plan.daxvisor.display()))?;
    if !status.success() {
        bail!("the runs in the nested host ended with {status}");
    }
    serde_json::from_slice(&fs::read(&runs)?).context("the nested host's figures cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_the_nested_host_hides_are_shared() {
        let folders = [
            Some(Path::new("/tmp/a")),
            None,
            Some(Path::new("/home/a")),
            Some(Path::new("/tmpfs")),
        ];
        assert_eq!(unseen(folders), [PathBuf::from("/tmp/a")]);
    }
}
