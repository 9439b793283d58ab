//! docs/recipes/gitlab.yml: jobs of a stage run on fresh checkouts, and have the artifacts of the stages before.

use crate::{
    CASES, ERROR, NO_IMAGES, Scratch, cases, checkout::Checkout, copy_contents, list_at, merged, output, recipe, said,
    text_at, words,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Runs a job's script, line by line in one shell that ends at the first failure.
fn script(job: &Value, checkout: &Checkout, variables: &[(&str, String)]) -> Result<Output> {
    let lines = words(list_at(job, "script")?)?.join("\n");
    checkout.bash(&["-e", "-o", "pipefail"], &lines, variables)
}

/// Keeps what a job has made, also of one that failed, where jobs of later stages find it.
fn keep(job: &Value, checkout: &Checkout, artifacts: &Path) -> Result<()> {
    ensure!(
        job["artifacts"]["when"] == "always",
        "those of a job that failed are lost: {job}"
    );
    for path in words(list_at(&job["artifacts"], "paths")?)? {
        let (from, to) = (checkout.folder.join(path), artifacts.join(path));
        ensure!(from.exists(), "the job has made no {path}");
        fs::create_dir_all(to.parent().context("no folder")?)?;
        if from.is_dir() {
            copy_contents(&from, &to)?;
        } else {
            let done = output(Command::new("cp").arg(&from).arg(&to))?;
            ensure!(done.status.success(), "{}", said(&done));
        }
    }
    Ok(())
}

#[test]
fn parallel_jobs_run_shards_and_a_later_stage_merges_them() -> Result<()> {
    let files = Scratch::new("gitlab")?;
    let recipe = recipe("gitlab.yml")?;
    let (parts, report) = (&recipe["parts"], &recipe["report"]);
    let stages = words(list_at(&recipe, "stages")?)?;
    ensure!(
        stages == [text_at(parts, "stage")?, text_at(report, "stage")?],
        "{stages:?}"
    );
    // A part that failed does not keep the report from being made.
    ensure!(report["when"] == "always", "{report}");
    let total = parts["parallel"].as_u64().context("no number of jobs")?;
    let artifacts = files.join("artifacts");
    let mut found = Vec::new();
    for index in 1..=total {
        let checkout = Checkout::new(files.path(), &format!("part{index}"))?;
        let variables = [
            ("CI_NODE_INDEX", index.to_string()),
            ("CI_NODE_TOTAL", total.to_string()),
        ];
        let done = script(parts, &checkout, &variables)?;
        ensure!(done.status.code() == Some(ERROR), "{}", said(&done));
        found.push(cases(&checkout.folder.join(format!("results/{index}")), NO_IMAGES)?);
        keep(parts, &checkout, &artifacts)?;
    }
    ensure!(
        found.iter().all(|part| !part.is_empty()) && found.concat().len() == CASES,
        "{found:?}"
    );

    let checkout = Checkout::new(files.path(), "report")?;
    copy_contents(&artifacts, &checkout.folder)?;
    let done = script(report, &checkout, &[])?;
    ensure!(done.status.code() == Some(ERROR), "{}", said(&done));
    keep(report, &checkout, &files.join("kept"))?;
    let junit = checkout.folder.join(text_at(&report["artifacts"]["reports"], "junit")?);
    let page = files.join("kept/page");
    merged(&found, &checkout.folder.join("all"), &page, Some(&junit), NO_IMAGES)
}
