//! The fuzz tier: every target is built with coverage and runs for a bounded time on its own corpus.

use super::Tally;
use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{fs, io, path::Path, process::Command, process::Stdio};

/// Coverage for libFuzzer without a nightly compiler: what cargo-fuzz passes, less the sanitizers that need one.
const COVERAGE: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Overflow and the product's own invariants are findings.
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// Lines of a target that tell why it failed.
const SHOWN: usize = 60;
/// A target of its own keeps the flags away from build scripts.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds the fuzz crate and runs the targets that match.
pub fn run(seconds: u32, filter: Option<&str>) -> Result<Tally> {
    let folder = workspace::root().join("fuzz");
    let manifest = folder.join("Cargo.toml");
    let target_dir = workspace::target().join("fuzz");
    let mut build = workspace::cargo();
    build
        .args(["build", "--release", "--bins", "--target", TRIPLE, "--manifest-path"])
        .arg(&manifest);
    build.arg("--target-dir").arg(&target_dir);
    build.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    process::quiet(&mut build)?;
    let mut tally = Tally::default();
    for name in targets(&manifest)? {
        if filter.is_none_or(|filter| name.contains(filter)) {
            let program = target_dir.join(TRIPLE).join("release").join(&name);
            run_target(&mut tally, &folder, &program, &name, seconds)?;
        }
    }
    Ok(tally)
}

fn targets(manifest: &Path) -> Result<Vec<String>> {
    let mut command = workspace::cargo();
    command
        .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
        .arg(manifest);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo metadata of the fuzz crate failed ({})", output.status);
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
    let targets = metadata.packages.into_iter().flat_map(|p| p.targets);
    Ok(targets.filter(|t| t.kind == ["bin"]).map(|t| t.name).collect())
}

/// Runs one target; what it finds stays in fuzz/artifacts, the corpus in fuzz/corpus.
fn run_target(tally: &mut Tally, folder: &Path, program: &Path, name: &str, seconds: u32) -> Result<()> {
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    }
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-print_final_stats=0"]);
    command
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus);
    let (mut runs, mut said) = (None, Vec::new());
    let status = process::listen(&mut command, &mut io::sink(), |line| {
        runs = runs.or_else(|| runs_in(line));
        // Lines of progress and of statistics; thousands of them.
        if !line.starts_with('#') {
            said.push(line.to_owned());
        }
    })?;
    if let (Some(runs), true) = (runs.filter(|n| *n > 0), status.success()) {
        println!("fuzz target {name}: ok, {runs} inputs in {seconds} s");
        tally.passed += 1;
    } else {
        let said = said.split_off(said.len().saturating_sub(SHOWN)).join("\n");
        tally.fail(name, &format!("error: the fuzz target failed ({status}):\n{said}"));
    }
    Ok(())
}

/// libFuzzer's last line: `Done 123456 runs in 21 second(s)`.
fn runs_in(line: &str) -> Option<u64> {
    line.strip_prefix("Done ")?.split_once(" runs in ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_from_the_last_line() {
        assert_eq!(runs_in("Done 123456 runs in 21 second(s)"), Some(123_456));
        assert_eq!(runs_in("Done"), None);
        assert_eq!(runs_in("#5 pulse"), None);
    }
}
