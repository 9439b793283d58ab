//! The unit tier: everything that needs nothing but this machine.

use super::{
    Tally, Tier, executables,
    executables::Executable,
    output::{Reader, Speaker},
};
use crate::{process, workspace};
use anyhow::Result;
use std::{io, process::Command};

/// Builds and runs.
pub fn run(filter: Option<&str>) -> Result<Tally> {
    let ours: Vec<_> = executables::build()?
        .into_iter()
        .filter(|e| e.tier() == Tier::Unit)
        .collect();
    run_built(filter, &ours)
}

/// Runs what is built: by cargo-nextest where it is installed (a process and a deadline for each test), else by `cargo test`.
pub fn run_built(filter: Option<&str>, ours: &[Executable]) -> Result<Tally> {
    let mut reader = Reader::default();
    if workspace::cargo_has("nextest") {
        reader.speaker = Speaker::Nextest;
        run_one(&mut reader, nextest(filter))?;
    } else {
        println!("cargo-nextest is not installed: `cargo test` runs the tests");
        run_one(&mut reader, cargo_test(filter, ours))?;
    }
    reader.speaker = Speaker::Libtest;
    let mut doc = workspace::cargo();
    doc.args(["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"]);
    doc.args(filter);
    run_one(&mut reader, doc)?;
    Ok(reader.tally)
}

fn run_one(reader: &mut Reader, mut command: Command) -> Result<()> {
    // A snapshot that is not there is a failure, not a file.
    command.env("INSTA_UPDATE", "no").env_remove("DAXVISOR_BLESS");
    let before = reader.tally.failed;
    let status = process::listen(&mut command, &mut io::stdout(), |line| reader.line(line))?;
    reader.ended(&process::line_of(&command), status.success(), before);
    Ok(())
}

fn nextest(filter: Option<&str>) -> Command {
    let mut command = workspace::cargo();
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--profile",
        "ci",
        "--no-fail-fast",
        "--color",
        "never",
    ]);
    // A filter may leave nothing; whether that is an error is decided for the tier.
    command.args([
        "--no-tests",
        "pass",
        "--status-level",
        "fail",
        "--final-status-level",
        "slow",
    ]);
    // Whatever has a tier of its own is not ours.
    let others = Tier::BY_NAME.map(|tier| format!("binary(/^{}(_|$)/)", tier.name()));
    command.args(["-E", &format!("not (kind(test) & ({}))", others.join(" | "))]);
    command.args(filter);
    command
}

fn cargo_test(filter: Option<&str>, ours: &[Executable]) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    for test in ours.iter().filter(|e| e.kind == "test") {
        command.args(["--test", &test.name]);
    }
    command.args(filter);
    command
}
