//! `cargo xtask conformance`: ndctl's own tests against our firmware.
//!
//! ```text
//! outer: table complete? -> build, images -> plan -> the same program again where guests run (`inner`) -> report
//! inner: for each test a fresh guest -> runner in the guest -> outcome, log
//! ```
//! The image is built by `guest_images::conformance`; what stands in for the mock is in `conformance/guest`.

mod hooks;
mod inner;
mod job;
mod page;
mod report;
mod session;
mod table;

use crate::{
    host::{self, Place},
    images, packages, process, workspace,
};
use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use guest_images::conformance::Conformance;
use job::{Job, Outcome, Plan, Result as TestResult};
use report::Report;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};
use table::Table;

/// The page that a whole run writes.
const PAGE: &str = "docs/conformance.md";
/// Starts of a nested host before giving up.
const ATTEMPTS: usize = 4;
/// Seconds that a guest takes besides its test.
const BOOT_SECONDS: u64 = 40;

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only tests whose name contains this, repeatable; the page is not written unless with --update
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// Only this guest kernel, repeatable [default: those of conformance/tests.toml]; as with --filter
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// Take the results of tests that are not run now from the run before, or from the page, and write the page
    #[arg(long)]
    update: bool,
    /// Guests at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Where guests run
    #[arg(long, value_enum, default_value_t)]
    host: host::Choice,
    /// Be the half that runs the guests of this plan
    #[arg(long, value_name = "FILE", hide = true)]
    inner: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(plan) = &args.inner {
        return inner::run(plan);
    }
    let table = Table::load(workspace::root())?;
    for package in packages::install(packages::BUILD)? {
        println!("installed {package}");
    }
    let mut build = workspace::cargo();
    build.args(["build", "--quiet", "--package", "vmm", "--bins"]);
    process::check(&mut build)?;
    let kernels = if args.kernels.is_empty() {
        &table.kernels
    } else {
        &args.kernels
    };
    let mut say = |stage: &str| println!("images: {stage}");
    images::ensure(kernels, &mut say)?;
    let image = guest_images::conformance::build(&vmm::images::default_dir(), kernels, &mut say)?;
    table.check(&image.version, image.tests.keys().map(String::as_str), &image.files)?;
    let jobs = jobs(args, &table, &image)?;
    let dir = workspace::target().join("conformance");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    let mut report = Report {
        ndctl: image.version.clone(),
        source: image.source.clone(),
        results: play(args, dir.clone(), jobs)?,
    };
    report.results.extend(not_applicable(args, &table, kernels));
    finish(args, &table, report, &dir)
}

fn wanted(args: &Args, test: &str) -> bool {
    args.filters.is_empty() || args.filters.iter().any(|filter| test.contains(filter.as_str()))
}

fn jobs(args: &Args, table: &Table, image: &Conformance) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for ((kernel, initramfs), large) in image.initramfs.iter().zip(image.large.values()) {
        for (name, test) in table.test.iter().filter(|(name, _)| wanted(args, name)) {
            let Some(machine) = test.machine.as_ref().and_then(|m| table.machine.get(m)) else {
                continue;
            };
            let program = image
                .tests
                .get(name)
                .with_context(|| format!("{name} starts nothing"))?;
            jobs.push(Job {
                kernel: kernel.clone(),
                test: name.clone(),
                program: program.clone(),
                machine: machine.clone(),
                seconds: test.seconds,
                initramfs: if test.large { large.clone() } else { initramfs.clone() },
            });
        }
    }
    // The longest first: at the end nobody waits for one of them alone.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.seconds));
    if jobs.is_empty() {
        bail!(
            "no test of the table is to be run; hint: see the names in {}",
            table::PATH
        );
    }
    Ok(jobs)
}

fn not_applicable(args: &Args, table: &Table, kernels: &[String]) -> Vec<TestResult> {
    let mut results = Vec::new();
    for kernel in kernels {
        for (name, test) in table.test.iter().filter(|(name, _)| wanted(args, name)) {
            if let Some(reason) = &test.not_applicable {
                results.push(TestResult {
                    kernel: kernel.clone(),
                    test: name.clone(),
                    outcome: Outcome::NotApplicable(reason.clone()),
                    seconds: 0.0,
                    release: None,
                    revision: String::new(),
                });
            }
        }
    }
    results
}

/// Runs all jobs where guests run. A nested host that fails is replaced, for all to see; tests that had ended are not repeated.
fn play(args: &Args, dir: PathBuf, jobs: Vec<Job>) -> Result<Vec<TestResult>> {
    let daxvisor = workspace::daxvisor(false);
    let (place, line) = host::check(&daxvisor)?.for_kernels(args.host)?;
    println!("{line}");
    let mut plan = Plan {
        daxvisor: copy(&daxvisor, &dir.join("daxvisor"))?,
        // This very program, though a build may have put another in its place.
        xtask: copy(Path::new("/proc/self/exe"), &dir.join("xtask"))?,
        dir,
        revision: revision(),
        guests: args.jobs.max(1),
        jobs,
    };
    let mut results = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let code = play_once(place, &plan, &mut results)?;
        plan.jobs.retain(|job| {
            !results
                .iter()
                .any(|r: &TestResult| r.test == job.test && r.kernel == job.kernel)
        });
        if plan.jobs.is_empty() {
            return Ok(results);
        }
        if code != Some(host::HOST_FAILED) || place == Place::Here {
            bail!(
                "the half that runs the guests ended early, {} tests are left",
                plan.jobs.len()
            );
        }
        if attempt < ATTEMPTS {
            println!(
                "RETRY: the nested host failed, which says nothing of the tests: {} are left",
                plan.jobs.len()
            );
        }
    }
    bail!(
        "the nested host failed {ATTEMPTS} times, {} tests are left",
        plan.jobs.len()
    )
}

/// The commit that is tested, as git tells it; empty without git.
fn revision() -> String {
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args(args)
            .current_dir(workspace::root())
            .output()
            .ok()?;
        done.status
            .success()
            .then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::new();
    };
    // The page is what this writes.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!docs/conformance.md",
    ]);
    commit
        + if changed.is_some_and(|c| !c.is_empty()) {
            " with changes"
        } else {
            ""
        }
}

/// A nested host sees files of this machine as they were when it first looked; a build during the run must not matter.
fn copy(program: &Path, to: &Path) -> Result<PathBuf> {
    // A new file: the old one may still be running.
    let _ = fs::remove_file(to);
    fs::copy(program, to).with_context(|| format!("cannot copy {} to {}", program.display(), to.display()))?;
    Ok(to.to_owned())
}

fn play_once(place: Place, plan: &Plan, results: &mut Vec<TestResult>) -> Result<Option<i32>> {
    let file = plan.dir.join("plan.json");
    fs::write(&file, serde_json::to_vec(plan)?).with_context(|| format!("cannot write {}", file.display()))?;
    let limit: u64 = plan.jobs.iter().map(|job| job.seconds + BOOT_SECONDS).sum();
    let cpus = plan.guests.to_string();
    let flags = ["--no-stdin", "--cpus", &cpus];
    let mut command = host::command(place, &plan.daxvisor, &flags, &[&plan.dir], limit, &plan.xtask);
    command
        .arg("conformance")
        .arg("--inner")
        .arg(&file)
        .current_dir(&plan.dir);
    let status = process::listen(&mut command, &mut io::sink(), |line| match TestResult::parse(line) {
        Some(mut result) => {
            show(&result);
            result.revision.clone_from(&plan.revision);
            results.push(result);
        }
        None => println!("{line}"),
    })?;
    Ok(status.code())
}

fn show(result: &TestResult) {
    let (word, reason) = (result.outcome.word(), result.outcome.reason());
    let dots = if reason.is_empty() { "" } else { ": " };
    println!(
        "{} {} ({:.0} s): {word}{dots}{reason}",
        result.kernel, result.test, result.seconds
    );
}

/// The results of the run before here, if there was one, and of the run that the page is of, which is the older one.
fn earlier(file: &Path) -> Result<Vec<Report>> {
    let here = fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let text = fs::read_to_string(workspace::root().join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let page = page::read(&text).with_context(|| format!("{PAGE} has no results of an earlier run"))?;
    Ok(here.into_iter().chain([page]).collect())
}

fn finish(args: &Args, table: &Table, mut report: Report, dir: &Path) -> Result<ExitCode> {
    let whole = args.filters.is_empty() && args.kernels.is_empty();
    let file = dir.join("results.json");
    if args.update {
        for earlier in earlier(&file)? {
            report.keep(earlier, table)?;
        }
    }
    let json = serde_json::to_string_pretty(&report)? + "\n";
    fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    if whole || args.update {
        let page = workspace::root().join(PAGE);
        fs::write(&page, report.markdown(table)).with_context(|| format!("cannot write {}", page.display()))?;
        println!("{PAGE} is written");
    }
    for (kernel, c) in report.kernels().keys().map(|k| (k, report.counts(Some(k)))) {
        println!(
            "{kernel}: {} passed, {} failed, {} skipped by the test, {} not applicable",
            c.passed, c.failed, c.skipped, c.not_applicable
        );
    }
    println!("logs are in {}", dir.display());
    let all = report.counts(None);
    println!("{} passed, {} failed", all.passed, all.failed);
    Ok(if all.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
