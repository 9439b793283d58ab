//! `cargo xtask test`: everything that CI runs, tier by tier, and one line of counts at the end.

mod api;
pub mod executables;
mod fuzz;
mod guests;
mod kernels;
mod output;
pub mod report;
pub mod runner;
mod tally;
pub mod unit;

pub use tally::Tally;

use crate::{check, host, images, matrix, packages, process, workspace};
use anyhow::{Context, Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use executables::Executable;
use std::{process::ExitCode, time::Instant};

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only these tiers, repeatable [default: all of them, after the checks]
    #[arg(long = "tier", value_enum, value_name = "TIER")]
    tiers: Vec<Tier>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Where guests run
    #[arg(long, value_enum, default_value_t)]
    host: host::Choice,
    /// Seconds that each fuzz target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    fuzz_seconds: u32,
}

/// A group of tests with the same needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Unit tests, golden files, command line; needs nothing but this machine
    Unit,
    /// Guests of a few instructions; any KVM will do
    Payload,
    /// The nested host itself
    Nested,
    /// Linux guests, through the agent
    Linux,
    /// Kernels that are compiled here, with and without a patch
    Kernel,
    /// Requests made of the OpenAPI document, to a Linux guest
    Api,
    /// Fuzz targets, each for a bounded time
    Fuzz,
}

impl Tier {
    const ALL: [Self; 7] = [
        Self::Unit,
        Self::Payload,
        Self::Nested,
        Self::Linux,
        Self::Kernel,
        Self::Api,
        Self::Fuzz,
    ];

    /// Those that test executables belong to by their names, `linux` and `linux_host` to the tier `linux`.
    const BY_NAME: [Self; 4] = [Self::Payload, Self::Nested, Self::Linux, Self::Kernel];

    /// As in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Payload => "payload",
            Self::Nested => "nested",
            Self::Linux => "linux",
            Self::Kernel => "kernel",
            Self::Api => "api",
            Self::Fuzz => "fuzz",
        }
    }

    /// The tier of a test executable by its name.
    pub fn of(executable: &str) -> Self {
        let named = |tier: &Self| {
            let rest = executable.strip_prefix(tier.name());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        Self::BY_NAME.into_iter().find(named).unwrap_or(Self::Unit)
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let tiers = if args.tiers.is_empty() {
        Tier::ALL.to_vec()
    } else {
        args.tiers.clone()
    };
    let mut rows = Vec::new();
    let (executables, prepared) = prepare(args);
    rows.push(("checks", prepared));
    // Without programs there is nothing that could run.
    if let Some(executables) = executables {
        for tier in Tier::ALL.into_iter().filter(|tier| tiers.contains(tier)) {
            println!("\n== {} ==", tier.name());
            let start = Instant::now();
            let mut tally = run_tier(tier, args, &executables).unwrap_or_else(|error| {
                let mut tally = Tally::default();
                tally.fail(tier.name(), &process::explain(&error));
                tally
            });
            if tally.total() == 0 && args.filter.is_none() {
                tally.fail(tier.name(), "error: this tier ran no test, and that is not a pass\n");
            }
            tally.seconds = start.elapsed().as_secs_f64();
            println!("== {}: {tally} ==", tier.name());
            rows.push((tier.name(), tally));
        }
    }
    if let Some(filter) = args.filter.as_deref().filter(|_| found_nothing(&rows)) {
        let mut tally = Tally::default();
        tally.fail("filter", &no_such_test(filter));
        rows.push(("filter", tally));
    }
    Ok(report::finish(&rows))
}

/// Whether tiers ran, and not one test in them. The first row is that of the checks.
fn found_nothing(rows: &[(&str, Tally)]) -> bool {
    rows.len() > 1 && rows.iter().skip(1).all(|(_, tally)| tally.total() == 0)
}

/// What is said when a filter leaves nothing to run.
fn no_such_test(filter: &str) -> String {
    format!(
        "error: no test's name contains '{filter}', and that is not a pass; hint: the filter is looked for in the names of tests, \
         `module::function`\n"
    )
}

/// Packages, checks and the build of every test; no executables when the build failed.
fn prepare(args: &Args) -> (Option<Vec<Executable>>, Tally) {
    println!("== checks ==");
    let start = Instant::now();
    let mut tally = Tally::default();
    let packages = [packages::BUILD, packages::TEST].concat();
    match packages::install(&packages) {
        Ok(installed) => installed.iter().for_each(|package| println!("installed {package}")),
        Err(error) => tally.fail("packages", &process::explain(&error)),
    }
    if args.tiers.is_empty() && args.filter.is_none() {
        tally.add(check::checks());
    }
    let executables = match executables::build() {
        Ok(executables) => Some(executables),
        Err(error) => {
            tally.fail("build", &process::explain(&error));
            None
        }
    };
    if args.tiers.is_empty() && args.filter.is_none() && executables.is_some() {
        tally.add(check::documentation());
    }
    tally.seconds = start.elapsed().as_secs_f64();
    println!(
        "== checks: {} in {:.0} s ==",
        if tally.failed == 0 { "ok" } else { "FAILED" },
        tally.seconds
    );
    (executables, tally)
}

fn run_tier(tier: Tier, args: &Args, all: &[Executable]) -> Result<Tally> {
    let filter = args.filter.as_deref();
    let ours: Vec<_> = all.iter().filter(|e| e.tier() == tier).cloned().collect();
    let daxvisor = workspace::daxvisor(false);
    match tier {
        Tier::Unit => unit::run_built(filter, &ours),
        Tier::Fuzz => fuzz::run(args.fuzz_seconds, filter),
        Tier::Api => {
            images::build_default()?;
            let (place, line) = host::check(&daxvisor)?.for_kernels(args.host)?;
            println!("{line}");
            api::run(place, filter)
        }
        Tier::Payload => {
            let (place, line) = host::check(&daxvisor)?.for_payloads(args.host);
            println!("payload guests run {line}");
            if place == host::Place::Nested {
                images::build_default()?;
            }
            guests::run(tier, place, &modules(&ours, filter)?)
        }
        Tier::Nested => {
            images::build_default()?;
            guests::run(tier, host::Place::Here, &modules(&ours, filter)?)
        }
        Tier::Linux | Tier::Kernel => {
            let modules = modules(&ours, filter)?;
            // Compiling takes minutes.
            if tier == Tier::Kernel && !modules.is_empty() {
                kernels::ensure()?;
            }
            images::build_default()?;
            if tier == Tier::Linux && !modules.is_empty() {
                kernels::fetch_newest();
            }
            let (place, line) = host::check(&daxvisor)?.for_kernels(args.host)?;
            println!("{line}");
            let mut tally = guests::run(tier, place, &modules)?;
            if tier == Tier::Linux && filter.is_none() {
                matrix::check(&mut tally)?;
            }
            Ok(tally)
        }
    }
}

/// What is run one by one.
fn modules(programs: &[Executable], filter: Option<&str>) -> Result<Vec<Executable>> {
    let modules = programs.iter().map(|program| program.modules(filter));
    Ok(modules.collect::<Result<Vec<_>>>()?.concat())
}

/// Builds everything and runs the Linux tests whose names contain `filter`.
pub fn linux(filter: &str, host: host::Choice) -> Result<Tally> {
    let args = Args {
        tiers: vec![Tier::Linux],
        filter: Some(filter.to_owned()),
        host,
        fuzz_seconds: 0,
    };
    let (executables, prepared) = prepare(&args);
    let executables = executables.filter(|_| prepared.failed == 0);
    let executables = executables.context("the tests cannot be built")?;
    let tally = run_tier(Tier::Linux, &args, &executables)?;
    ensure!(tally.total() > 0, "{}", no_such_test(filter));
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_finds_nothing_is_told_from_one_that_does() {
        let ran = |passed, failed| Tally {
            passed,
            failed,
            ..Tally::default()
        };
        let none = ran(0, 0);
        assert!(found_nothing(&[
            ("checks", none.clone()),
            ("unit", none.clone()),
            ("linux", none.clone())
        ]));
        assert!(!found_nothing(&[
            ("checks", none.clone()),
            ("unit", none.clone()),
            ("linux", ran(1, 0))
        ]));
        assert!(!found_nothing(&[("checks", none.clone()), ("linux", ran(0, 1))]));
        // The build failed: that has been said.
        assert!(!found_nothing(&[("checks", none)]));
        assert!(no_such_test("nix").contains("'nix'") && no_such_test("nix").contains("hint:"));
    }

    #[test]
    fn executables_belong_to_tiers_by_name() {
        assert_eq!(Tier::of("payload"), Tier::Payload);
        assert_eq!(Tier::of("linux"), Tier::Linux);
        assert_eq!(Tier::of("linuxes"), Tier::Unit);
        assert_eq!(Tier::of("kernel"), Tier::Kernel);
        assert_eq!(Tier::of("nested_host"), Tier::Nested);
        assert_eq!(Tier::of("acpi_tables"), Tier::Unit);
        assert_eq!(Tier::of("vmm"), Tier::Unit);
    }
}
