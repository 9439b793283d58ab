//! The half that runs where daxvisor runs: a fresh guest for each test, a few at a time.

use super::{
    hooks::Hooks,
    job::{Job, Outcome, Plan, Result as TestResult},
    session,
    table::Buses,
};
use crate::{
    demo::guest::{Guest, tail},
    process,
};
use anyhow::{Context, Result, anyhow};
use std::{
    collections::VecDeque,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

/// Jobs that nobody has taken, and whether a big guest runs.
struct Queue {
    jobs: VecDeque<Job>,
    big: bool,
}

/// Runs the plan in the file.
pub fn run(plan: &Path) -> Result<ExitCode> {
    let text = fs::read(plan).with_context(|| format!("cannot read {}", plan.display()))?;
    let plan: Plan = serde_json::from_slice(&text)?;
    let queue = Mutex::new(Queue {
        jobs: plan.jobs.iter().cloned().collect(),
        big: false,
    });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..plan.guests.max(1) {
            scope.spawn(|| work(&plan, &queue, &changed));
        }
    });
    Ok(ExitCode::SUCCESS)
}

/// Takes jobs until none is left.
fn work(plan: &Plan, queue: &Mutex<Queue>, changed: &Condvar) {
    while let Some(job) = take(queue, changed) {
        let start = Instant::now();
        let (outcome, release) = attempt(plan, &job);
        let result = TestResult {
            kernel: job.kernel.clone(),
            test: job.test.clone(),
            outcome,
            seconds: start.elapsed().as_secs_f64(),
            release,
            revision: String::new(),
        };
        tell(&result);
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.big &= !job.machine.big;
        drop(queue);
        changed.notify_all();
    }
}

/// The next job that may run beside those that do; waits for one.
fn take(queue: &Mutex<Queue>, changed: &Condvar) -> Option<Job> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if queue.jobs.is_empty() {
            return None;
        }
        let busy = queue.big;
        let next = queue.jobs.iter().position(|job| !(busy && job.machine.big));
        if let Some(job) = next.and_then(|index| queue.jobs.remove(index)) {
            queue.big |= job.machine.big;
            return Some(job);
        }
        queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

fn tell(result: &TestResult) {
    // Strings and numbers: there is nothing in it that JSON cannot hold. The outer half may be gone.
    let _ = writeln!(io::stdout(), "{}", serde_json::to_string(result).unwrap_or_default());
}

/// Files of one job.
pub struct Files {
    /// What the test said.
    pub log: PathBuf,
    /// The guest's console.
    pub console: PathBuf,
    /// What daxvisor said.
    pub messages: PathBuf,
}

fn attempt(plan: &Plan, job: &Job) -> (Outcome, Option<String>) {
    let file = |kind: &str| plan.dir.join(&job.kernel).join(format!("{}.{kind}", job.test));
    let files = Files {
        log: file("log"),
        console: file("console"),
        messages: file("daxvisor"),
    };
    let mut release = None;
    let outcome = in_guest(plan, job, &files, &mut release).unwrap_or_else(|error| {
        let reason = process::explain(&error)
            .trim_start_matches("error: ")
            .trim_end()
            .to_owned();
        let console = tail(&files.console).join("\n");
        let note = format!("\n# {reason}\n# the console ended with:\n{console}\n");
        if let Ok(mut log) = fs::File::options().create(true).append(true).open(&files.log) {
            let _ = log.write_all(note.as_bytes());
        }
        Outcome::Failed(reason)
    });
    (outcome, release)
}

fn in_guest(plan: &Plan, job: &Job, files: &Files, release: &mut Option<String>) -> Result<Outcome> {
    let folder = files.log.parent().context("a log without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
    let _ = fs::remove_file(&files.log);
    // Sockets have short paths, in a place that only we and daxvisor see.
    let private = tempfile::Builder::new()
        .prefix("conf")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let hooks = Hooks::new(&plan.daxvisor, private.path());
    let mut args = vec!["--host=kvm".to_owned(), format!("--kernel=@{}", job.kernel)];
    args.push(format!("--initrd={}", job.initramfs.display()));
    args.push(format!("--cmdline=quiet {}", job.machine.cmdline).trim_end().to_owned());
    args.push(format!("--console=file:{}", files.console.display()));
    args.extend(job.machine.args.iter().cloned());
    args.extend(hooks.args());
    let mut guest = Guest::boot(&plan.daxvisor, &args, &private.path().join("agent"), &files.messages)?;
    *release = Some(guest.kernel().to_owned());
    let buses = match job.machine.buses {
        Buses::Mock => "mock",
        Buses::Real => "real",
    };
    session::run(guest.client(), job, buses, &hooks, &files.log).map_err(|e| anyhow!("{e:#}; {}", guest.fate()))
}
