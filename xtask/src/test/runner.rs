//! The inner half of a guest tier: runs the test programs that standard input names, one after another, where KVM runs guests.
//!
//! Each program's output passes through; a line of ours behind it says how it ended, and asks for the next name.

use super::executables::Executable;
use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

const MARK: &str = "run-tests: ";

/// What to run.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The list
    list: PathBuf,
}

/// The file that the outer half writes.
#[derive(Debug, Serialize, Deserialize)]
pub struct List {
    /// All that may be named.
    pub executables: Vec<Executable>,
    /// For all of them together.
    pub limit_seconds: u64,
    /// One test at a time.
    pub serial: bool,
}

/// Reads a line that says how a program ended: its name, and whether all was well.
pub fn ended(line: &str) -> Option<(&str, bool)> {
    let (name, status) = line.strip_prefix(MARK)?.split_once(": ")?;
    Some((name, status == "ok"))
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let text = fs::read(&args.list).with_context(|| format!("cannot read {}", args.list.display()))?;
    let list: List = serde_json::from_slice(&text).with_context(|| format!("cannot read {}", args.list.display()))?;
    let deadline = Instant::now() + Duration::from_secs(list.limit_seconds);
    let mut all = true;
    for name in io::stdin().lines() {
        let name = name.context("cannot read standard input")?;
        let known = list.executables.iter().find(|e| e.name == name);
        let executable =
            known.with_context(|| format!("'{name}' is none of the programs in {}", args.list.display()))?;
        let start = Instant::now();
        println!("\nrunning {}", executable.name);
        let end = run_one(executable, &list, deadline)?;
        all &= end.is_none();
        // A program that was cut short may have left half a line.
        println!("\n{} took {:.1} s", executable.name, start.elapsed().as_secs_f64());
        println!("{MARK}{}: {}", executable.name, end.as_deref().unwrap_or("ok"));
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one; says how it failed.
fn run_one(executable: &Executable, list: &List, deadline: Instant) -> Result<Option<String>> {
    let mut command = Command::new(&executable.path);
    if !executable.tests.is_empty() {
        command.arg("--exact").args(&executable.tests);
    }
    command.current_dir(&executable.folder).stdin(Stdio::null());
    command.env("CARGO_MANIFEST_DIR", &executable.folder);
    // Symbols are read over 9p in the nested host: a backtrace there costs more than the test, and says less than the panic.
    command.env("RUST_BACKTRACE", "0");
    if list.serial {
        command.arg("--test-threads=1");
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {}", executable.path.display()))?;
    wait(child, deadline)
}

fn wait(mut child: Child, deadline: Instant) -> Result<Option<String>> {
    const LOOK: Duration = Duration::from_millis(20);
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(None),
            Some(status) => return Ok(Some(status.to_string())),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                return Ok(Some("killed, the tier's time was over".to_owned()));
            }
            None => thread::sleep(LOOK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_from_output() {
        assert_eq!(ended("run-tests: linux_boot: ok"), Some(("linux_boot", true)));
        assert_eq!(
            ended("run-tests: linux_boot: exit status: 101"),
            Some(("linux_boot", false))
        );
        assert_eq!(ended("test linux_boot ... ok"), None);
    }

    #[test]
    fn program_that_never_ends_is_killed() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let end = wait(child, Instant::now() + Duration::from_millis(50))
            .unwrap()
            .unwrap();
        assert!(end.contains("time was over"), "{end}");
    }
}
