//! `cargo xtask demo`: from a fresh machine to data that survives a guest's reboot on a virtual NVDIMM.
//!
//! The outer half prepares this machine and draws; the inner half ([`inner`]) talks to the guest's agent, whose socket
//! exists only where daxvisor runs, and tells its progress in JSON lines.

mod events;
pub mod guest;
mod inner;
mod progress;

use crate::{
    host::{self, Place},
    images, packages, process, workspace,
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args as ClapArgs;
use events::{Event, Stage};
use progress::Progress;
use std::{env, fs, io, path::PathBuf, process::ExitCode};

/// The guest kernel of the demo.
const KERNEL: &str = "debian-6.1-cloud-amd64";
/// Most that the inner half may take.
const LIMIT_SECONDS: u64 = 15 * 60;

/// Which guest, and where.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Guest kernel, one of those that `cargo xtask images --list` names
    #[arg(long, value_name = "NAME", default_value = KERNEL)]
    kernel: String,
    /// Where the guest runs
    #[arg(long, value_enum, default_value_t)]
    host: host::Choice,
    /// Be the half that talks to the guest, with files in this folder
    #[arg(long, value_name = "DIR", hide = true)]
    inner: Option<PathBuf>,
    /// The monitor that the inner half runs
    #[arg(long, value_name = "PROGRAM", hide = true, requires = "inner")]
    daxvisor: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(dir) = &args.inner {
        let daxvisor = args.daxvisor.clone().unwrap_or_else(|| workspace::daxvisor(true));
        return Ok(inner::run(&inner::Options {
            daxvisor,
            kernel: args.kernel.clone(),
            dir: dir.clone(),
        }));
    }
    let mut progress = Progress::new();
    match outer(args, &mut progress) {
        Ok(facts) => {
            let total = progress.finish();
            summary(&facts, total.as_secs_f64());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let stage = progress.fail();
            Err(error.context(format!("the demo failed at `{stage}`")))
        }
    }
}

/// Rows of the closing table.
type Facts = Vec<(String, String)>;

fn outer(args: &Args, progress: &mut Progress) -> Result<Facts> {
    progress.begin(Stage::Packages);
    for package in packages::install(packages::BUILD)? {
        progress.line(&format!("installed {package}"));
    }
    progress.begin(Stage::Build);
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--package", "vmm", "--bins"]);
    process::quiet(&mut build)?;
    progress.begin(Stage::Images);
    images::ensure(std::slice::from_ref(&args.kernel), &mut |stage| progress.detail(stage))?;
    progress.begin(Stage::Host);
    let (place, line) = host::check(&workspace::daxvisor(true))?.for_kernels(args.host)?;
    progress.line(&line);
    let mut facts = vec![("host".to_owned(), line)];
    progress.begin(Stage::Boot);
    facts.extend(play(place, &args.kernel, progress)?);
    Ok(facts)
}

/// Runs the inner half where the guest can run; a nested host that failed gets a second chance, for all to see.
fn play(place: Place, kernel: &str, progress: &mut Progress) -> Result<Facts> {
    let first = play_once(place, kernel, progress)?;
    match first {
        Ended::Well(facts) => Ok(facts),
        Ended::HostFailed(said) => {
            progress.line(&format!(
                "{said}\nRETRY: the nested host failed, which is not the guest's doing: once more"
            ));
            match play_once(place, kernel, progress)? {
                Ended::Well(facts) => Ok(facts),
                Ended::HostFailed(said) => bail!("the nested host failed twice: {said}"),
            }
        }
    }
}

enum Ended {
    Well(Facts),
    HostFailed(String),
}

fn play_once(place: Place, kernel: &str, progress: &mut Progress) -> Result<Ended> {
    let dir = workspace::scratch("demo")?;
    let own = env::current_exe().context("cannot find this program")?;
    let daxvisor = workspace::daxvisor(true);
    for file in inner::FILES {
        match fs::remove_file(dir.join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {file} of an earlier demo in {}", dir.display()));
            }
            _ => {}
        }
    }
    let mut command = host::command(place, &daxvisor, &["--no-stdin"], &[&dir], LIMIT_SECONDS, &own);
    command
        .args(["demo", "--kernel", kernel, "--inner"])
        .arg(&dir)
        .arg("--daxvisor")
        .arg(&daxvisor);
    command.current_dir(&dir);
    let (mut facts, mut failure, mut other) = (Facts::new(), None, Vec::new());
    let status = process::listen(&mut command, &mut io::sink(), |line| match Event::parse(line) {
        Some(Event::Begin { stage }) => progress.begin(stage),
        Some(Event::Show { title, text }) => progress.line(&format!("\n# {title}\n{text}")),
        Some(Event::Fact { name, value }) => facts.push((name, value)),
        Some(Event::Failed { reason, console }) => failure = Some((reason, console)),
        None => other.push(line.to_owned()),
    })?;
    if let Some((reason, console)) = failure {
        let console = if console.is_empty() {
            "nothing".to_owned()
        } else {
            console.join("\n  ")
        };
        return Err(anyhow!("{reason}\nthe guest's console ended with:\n  {console}\n"));
    }
    match status.code() {
        Some(0) => Ok(Ended::Well(facts)),
        Some(host::HOST_FAILED) if place == Place::Nested => Ok(Ended::HostFailed(other.join("\n"))),
        _ => bail!(
            "the half that talks to the guest ended early ({status}): {}",
            other.join("\n")
        ),
    }
}

fn summary(facts: &Facts, seconds: f64) {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    println!();
    for (name, value) in facts {
        println!("{name:<width$}  {value}");
    }
    println!("{:<width$}  {seconds:.1} s", "all stages");
    let dir = workspace::target().join("xtask/demo");
    println!(
        "\nThe backing files are in {}. Namespaces and data are found again by every guest that gets them.",
        dir.display()
    );
}
