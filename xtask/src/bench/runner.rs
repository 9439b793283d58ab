//! `cargo xtask bench runner`: what `daxvisor test` adds to the boot of a guest, and what guests in parallel bring.
//!
//! The same guest three times: booted and switched off by hand, by the runner one after the other, and by the runner in as many
//! jobs as there are processors.

use super::{
    HostChoice, measured_on,
    poison::{median, nanos, percent},
    publish,
};
use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use guest_tests::{GuestBuilder, Scratch, guest::program};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::available_parallelism,
    time::Instant,
};

/// One case: a boot, a command, the end. The same machine as by hand.
const SUITE: &str = "about = 'A boot and its end.'\nmachine = { cpus = { count = 1 }, memory = { size = '512M' } }\n\
                     [[scenario]]\nname = 'boot'\n[[scenario.step]]\nrun = 'true'\n";

/// Arguments of `cargo xtask bench runner`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Rounds of all three in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Guests of each round, for each job
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    guests: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/runner.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.1-cloud-amd64")]
    kernel: String,
    /// The daxvisor to measure, instead of building one
    #[arg(long, value_name = "PATH")]
    daxvisor: Option<PathBuf>,
}

/// What the measuring process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    rounds: u32,
    guests: u32,
    kernel: String,
}

/// All figures; nanoseconds for one guest, in each round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    kind: String,
    kernel: String,
    jobs: u32,
    by_hand_ns: Vec<u64>,
    runner_ns: Vec<u64>,
    /// Wall time of a round in parallel, by its guests.
    parallel_ns: Vec<u64>,
}

/// Runs the verb.
pub(super) fn run(args: &Args) -> Result<()> {
    let plan = Plan {
        rounds: args.rounds,
        guests: args.guests,
        kernel: args.kernel.clone(),
    };
    // As many guests at a time as this machine's processors.
    let cpus = available_parallelism()?.get().to_string();
    let (mut report, kind): (Report, _) = measured_on(
        &plan,
        args.daxvisor.as_deref(),
        args.host,
        &["--cpus", &cpus],
        "measure-runner",
    )?;
    report.kind = kind;
    publish(&report, &args.json)
}

/// All rounds of a plan; the report goes to standard output.
pub(super) fn measure(plan: &Path) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?;
    let jobs = u32::try_from(available_parallelism()?.get())?;
    let mut report = Report {
        kernel: plan.kernel.clone(),
        jobs,
        ..Report::default()
    };
    // What comes first reads the images for all.
    by_hand(&plan.kernel)?;
    for round in 1..=plan.rounds {
        eprintln!("round {round}");
        let begun = Instant::now();
        for _ in 0..plan.guests {
            by_hand(&plan.kernel)?;
        }
        let each = |begun: Instant, guests: u32| nanos(begun.elapsed() / guests);
        report.by_hand_ns.push(each(begun, plan.guests));
        let begun = Instant::now();
        runner(&plan.kernel, plan.guests, 1)?;
        report.runner_ns.push(each(begun, plan.guests));
        let begun = Instant::now();
        runner(&plan.kernel, plan.guests * jobs, jobs)?;
        report.parallel_ns.push(each(begun, plan.guests * jobs));
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn by_hand(kernel: &str) -> Result<()> {
    let mut guest = GuestBuilder::new(kernel).memory("512M").cpus("1").start()?;
    guest.check("true")?;
    guest.power_off()?;
    Ok(())
}

fn runner(kernel: &str, guests: u32, jobs: u32) -> Result<()> {
    let files = Scratch::new("bench")?;
    let suite = files.join("boot.toml");
    fs::write(&suite, SUITE)?;
    let mut command = Command::new(program()?);
    command
        .arg("test")
        .arg(&suite)
        .args(["--kernel", &format!("@{kernel}")]);
    command.args(["--repeat", &guests.to_string(), "--jobs", &jobs.to_string()]);
    command.arg("--out").arg(files.join("out"));
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && text.contains(&format!("{guests} cases: {guests} pass")),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |all: &[u64]| median(all.iter().copied());
        let (hand, runner, parallel) = (of(&self.by_hand_ns), of(&self.runner_ns), of(&self.parallel_ns));
        writeln!(f, "{}, {}; medians for one guest", self.kind, self.kernel)?;
        writeln!(f, "booted and switched off by hand   {:>6} ms", hand / 1_000_000)?;
        writeln!(
            f,
            "by the runner, one after another  {:>6} ms  {} % of that",
            runner / 1_000_000,
            percent(runner, hand)
        )?;
        // As many as there are jobs would bring so many times the guests of one job.
        writeln!(
            f,
            "by the runner, {} at a time        {:>6} ms  {} % of {} times the guests of one",
            self.jobs,
            parallel / 1_000_000,
            percent(runner, parallel * u64::from(self.jobs)),
            self.jobs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_compares_with_a_boot_by_hand_and_with_one_job() {
        let report = Report {
            kind: "x".into(),
            kernel: "k".into(),
            jobs: 2,
            by_hand_ns: vec![1_000_000_000],
            runner_ns: vec![1_040_000_000],
            parallel_ns: vec![578_000_000],
        };
        let text = report.to_string();
        assert!(text.contains("1040 ms  104 % of that"), "{text}");
        assert!(text.ends_with("578 ms  89 % of 2 times the guests of one\n"), "{text}");
    }

    #[test]
    fn its_suite_is_one() {
        let suite: toml::Table = SUITE.parse().unwrap();
        assert!(suite.contains_key("scenario"));
    }
}
