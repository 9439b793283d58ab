//! Other programs, with errors that show what they said.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Runs to success; returns standard output. The error holds the last lines of standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("cannot run {program}; hint: install the package that has it"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let last: Vec<_> = said.lines().rev().filter(|l| !l.starts_with("W:")).take(8).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        bail!("{program} failed ({}): {}", done.status, last.join(" | "));
    }
    String::from_utf8(done.stdout).with_context(|| format!("{program} printed what is not text"))
}
