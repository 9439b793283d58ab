//! `cargo xtask bench`: daxvisor and QEMU, measured side by side. [`nvdimm`] is a bench of its own; this is `bench boot`.
//!
//! ```text
//! cargo xtask bench boot --- plan ---> measure (where KVM is) --- begin, end of each run ---> drive ---> table, JSON
//! ```
//!
//! [`measure`] does all runs in one process on the machine whose /dev/kvm is used: here, or inside one run of the nested
//! host in instruction-counting mode, where this program starts itself again. [`drive`] watches from outside and starts
//! another host for the rest when a run takes one down. Rounds are interleaved, so that a machine that grows slower is
//! slower for everybody.

mod drive;
mod hotplug;
mod measure;
mod nvdimm;
mod poison;
mod record;
mod runner;
mod table;
mod trace;
mod vmms;
mod xen;

use anyhow::{Context, Result, ensure};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use record::{Plan, Queue};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
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
    /// Labels, lists, raw and mapped memory, exits and hot-add of NVDIMMs, beside QEMU's
    Nvdimm(nvdimm::Args),
    /// Do the runs of a plan of `nvdimm` on this machine's KVM
    #[command(hide = true)]
    MeasureNvdimm {
        /// The plan, as JSON.
        plan: PathBuf,
    },
    /// Answers of a running machine, and memory devices that are added to it, beside QEMU's monitor protocol
    Hotplug(HotplugArgs),
    /// What memory errors cost, and what they cost a guest that has none
    Poison(poison::Args),
    /// Do the rounds of a plan of `poison` on this machine's KVM
    #[command(hide = true)]
    MeasurePoison {
        /// The plan, as JSON.
        plan: PathBuf,
    },
    /// Hypercalls and the balloon of a Xen guest, beside virtio-mem
    Xen(xen::Args),
    /// Do the rounds of a plan of `xen` on this machine's KVM
    #[command(hide = true)]
    MeasureXen {
        /// The plan, as JSON.
        plan: PathBuf,
    },
    /// What `daxvisor test` adds to the boot of a guest, and what guests in parallel bring
    Runner(runner::Args),
    /// Do the rounds of a plan of `runner` on this machine's KVM
    #[command(hide = true)]
    MeasureRunner {
        /// The plan, as JSON.
        plan: PathBuf,
    },
    /// Do the rounds of a plan of `hotplug` on this machine's KVM
    #[command(hide = true)]
    MeasureHotplug {
        /// The plan, as JSON.
        plan: PathBuf,
    },
    /// Do the runs of a plan on this machine's KVM
    #[command(hide = true)]
    Measure {
        /// The plan, as JSON.
        plan: PathBuf,
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
    /// Longest wall time of one run; one that exceeds it did not end
    #[arg(long, value_name = "SECS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    run_limit: u64,
    /// Also how long a bzImage takes, unpacked by the VMM and by the guest, of every kernel there is
    #[arg(long)]
    unpack: bool,
}

#[derive(Debug, ClapArgs)]
struct HotplugArgs {
    /// Rounds of both programs in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/hotplug.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.1-cloud-amd64")]
    kernel: String,
    /// The daxvisor to measure, instead of building one
    #[arg(long, value_name = "PATH")]
    daxvisor: Option<PathBuf>,
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
        What::Nvdimm(args) => nvdimm::run(args),
        What::MeasureNvdimm { plan } => nvdimm::measure(plan),
        What::Poison(args) => poison::run(args),
        What::MeasurePoison { plan } => poison::measure(plan),
        What::Xen(args) => xen::run(args),
        What::MeasureXen { plan } => xen::measure(plan),
        What::Runner(args) => runner::run(args),
        What::MeasureRunner { plan } => runner::measure(plan),
        What::Hotplug(args) => hotplug(args),
        What::MeasureHotplug { plan } => hotplug::measure(plan),
        What::Measure { plan } => {
            measure::all(serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?)
        }
    }
}

fn hotplug(args: &HotplugArgs) -> Result<()> {
    let daxvisor = chosen(args.daxvisor.as_deref())?;
    let manifest = Manifest::load(&default_dir())?;
    let qemu = manifest.host.as_ref().and_then(|host| host.qemu.clone());
    let nested = is_nested(args.host, &daxvisor)?;
    let plan = Plan {
        queue: Queue::new(0, [].iter()),
        qemu: qemu.context("the images have no QEMU to compare with; hint: run `cargo xtask images`")?,
        kernel: manifest.kernel(&args.kernel)?.clone(),
        overcommit: nested,
        unpack: BTreeMap::new(),
        daxvisor,
    };
    hotplug::run(&plan, &args.kernel, args.rounds, nested, &args.json)
}

/// The program to measure: the one that is named, or a new one.
fn chosen(named: Option<&Path>) -> Result<PathBuf> {
    let Some(path) = named else { return build() };
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}

fn is_nested(host: HostChoice, daxvisor: &Path) -> Result<bool> {
    Ok(match host {
        HostChoice::Kvm => false,
        HostChoice::Nested => true,
        HostChoice::Auto => !runs_kernels(daxvisor)?,
    })
}

fn boot(args: &BootArgs) -> Result<()> {
    let daxvisor = chosen(args.daxvisor.as_deref())?;
    let manifest = Manifest::load(&default_dir())?;
    let qemu = manifest.host.as_ref().and_then(|host| host.qemu.clone());
    let nested = is_nested(args.host, &daxvisor)?;
    let unpack = if args.unpack {
        manifest.kernels.clone()
    } else {
        BTreeMap::new()
    };
    let plan = Plan {
        queue: Queue::new(args.rounds, unpack.keys()),
        qemu: qemu.context("the images have no QEMU to compare with; hint: run `cargo xtask images`")?,
        kernel: manifest.kernel(&args.kernel)?.clone(),
        overcommit: nested,
        unpack,
        daxvisor,
    };
    let dir = tempfile::Builder::new().prefix("daxvisor-bench-").tempdir()?;
    let plan_file = dir.path().join("plan.json");
    let (daxvisor, program) = (plan.daxvisor.clone(), env::current_exe()?);
    let runs = drive::all(plan, &plan_file, Duration::from_secs(args.run_limit), || {
        let mut command = if nested {
            in_nested_host(&daxvisor, &program, dir.path(), &["--icount"])
        } else {
            Command::new(&program)
        };
        command.args(["bench", "measure"]).arg(&plan_file);
        Ok(command)
    })?;
    let kind = if nested {
        "nested host, instruction-counting mode"
    } else {
        "this machine's KVM"
    };
    let report = table::Report::new(kind, &args.kernel, &runs);
    publish(&report, &args.json)?;
    Ok(())
}

/// Prints a report and writes it to `json`.
fn publish(report: &(impl fmt::Display + Serialize), json: &Path) -> Result<()> {
    print!("{report}");
    if let Some(dir) = json.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(json, serde_json::to_vec_pretty(report)?).with_context(|| format!("cannot write {}", json.display()))?;
    eprintln!("figures and single runs: {}", json.display());
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

/// What this program's `verb` tells of a plan on the KVM that is chosen, the nested host's with these flags; and whose that is.
fn measured_on<T: DeserializeOwned>(
    plan: &impl Serialize,
    daxvisor: Option<&Path>,
    host: HostChoice,
    flags: &[&str],
    verb: &str,
) -> Result<(T, String)> {
    let daxvisor = chosen(daxvisor)?;
    let nested = is_nested(host, &daxvisor)?;
    let kind = if nested { "nested host" } else { "this machine's KVM" };
    let report = measured(plan, &daxvisor, nested.then_some(flags), verb)?;
    Ok((report, kind.to_owned()))
}

/// What this program's `verb` tells, in its last line, of the plan in a file: here, or in the nested host with these flags.
fn measured<T: DeserializeOwned>(
    plan: &impl Serialize,
    daxvisor: &Path,
    nested: Option<&[&str]>,
    verb: &str,
) -> Result<T> {
    let dir = tempfile::Builder::new().prefix("daxvisor-bench-").tempdir()?;
    let file = dir.path().join("plan.json");
    fs::write(&file, serde_json::to_vec(plan)?)?;
    let program = env::current_exe()?;
    let mut command = match nested {
        Some(flags) => in_nested_host(daxvisor, &program, dir.path(), flags),
        None => Command::new(&program),
    };
    command.env("DAXVISOR_BIN", daxvisor);
    command.args(["bench", verb]).arg(&file);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the measurement failed ({})", output.status);
    let mut lines = output.stdout.split(|b| *b == b'\n');
    let line = lines.rfind(|line| line.starts_with(b"{"));
    Ok(serde_json::from_slice(line.context("the measurement said nothing")?)?)
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

/// The front of a command that runs `program` inside the nested host, which sees this machine's files; `flags` say what else the
/// host is.
fn in_nested_host(daxvisor: &Path, program: &Path, dir: &Path, flags: &[&str]) -> Command {
    let mut host = Command::new(daxvisor);
    host.args(["host", "run", "--no-stdin", "--memory", "4G"]).args(flags);
    host.arg("--share").arg(dir);
    for folder in unseen([program.parent(), daxvisor.parent(), Some(&default_dir())]) {
        host.arg("--share").arg(folder);
    }
    host.arg("--env").arg(format!("DAXVISOR_BIN={}", daxvisor.display()));
    host.arg("--").arg(program);
    host
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
