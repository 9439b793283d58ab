//! `daxvisor test` tells kernels apart that differ by one patch: the shipped suite passes on one side of it and says on the other what broke.

use anyhow::{Context, Result, ensure};
use guest_tests::{Scratch, guest, host, small};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// The scenario that the patches break, and one that they leave alone: a kernel that cannot boot would fail both.
const FILTER: &str = "scenario=memory-device or scenario=without-limit";

#[test]
fn the_limit_suite_fails_on_kernels_whose_patch_is_reverted_and_says_where() -> Result<()> {
    host::require()?;
    let files = Scratch::new("patches")?;
    let (out, html) = (files.join("out"), files.join("html"));
    let mut command = Command::new(guest::program()?);
    command
        .arg("test")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/limit.toml"))
        .args(["--host", "kvm", "--no-skip", "--filter", FILTER]);
    for name in [small::PLAIN, small::FORGETS, small::REFUSES] {
        command.arg("--kernel").arg(format!("@{name}"));
    }
    let output = command
        .arg("--out")
        .arg(&out)
        .arg("--html")
        .arg(&html)
        .stdin(Stdio::null())
        .output()?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = format!("{}\n{table}{}", output.status, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(1), "{said}");
    let whole: Value = serde_json::from_slice(&fs::read(out.join("results.json"))?)?;
    let results = whole["results"].as_array().context("no results")?;
    ensure!(results.len() == 6, "{said}");
    for (kernel, scenario, verdict, reason) in [
        (small::PLAIN, "memory-device", "pass", ""),
        (small::PLAIN, "without-limit", "pass", ""),
        (
            small::FORGETS,
            "memory-device",
            "fail",
            "the device of the boot is not among them: stdout is '640', expected '512'",
        ),
        (small::FORGETS, "without-limit", "pass", ""),
        (
            small::REFUSES,
            "memory-device",
            "fail",
            "its 128 MiB have been added, and no more than both devices have: stdout does not match '^(640|768)$': '512'",
        ),
        (small::REFUSES, "without-limit", "pass", ""),
    ] {
        let ours = |r: &&Value| r["kernel"] == kernel && r["scenario"] == scenario;
        let result = results.iter().find(ours).with_context(|| said.clone())?;
        let told = result["reason"].as_str().unwrap_or_default();
        ensure!(
            result["verdict"] == verdict && told.starts_with(reason) && told.is_empty() == reason.is_empty(),
            "{kernel}: {result:#}\n{said}"
        );
        // For people, the run's table and the report name it as well.
        let page = fs::read_to_string(html.join("index.html"))?;
        ensure!(
            told.is_empty() || (table.contains(told) && page.contains(kernel)),
            "{said}"
        );
    }
    Ok(())
}
