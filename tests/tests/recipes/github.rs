//! docs/recipes/github.yml: jobs are steps on fresh machines, a matrix is one job for each of its values, and artifacts go from
//! job to job.

use crate::{
    CASES, ERROR, NO_IMAGES, Scratch, cases, checkout::Checkout, copy_contents, list_at, merged, output, recipe, said,
    text_at,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names with one of these are refused by upload-artifact.
const FORBIDDEN: &str = "\":<>|*?\r\n\\";

/// A job on its machine.
struct Job<'a> {
    checkout: Checkout,
    /// What `${{ matrix.NAME }}` is.
    matrix: Vec<(&'a str, String)>,
    /// Artifacts of the whole run, a folder each.
    artifacts: PathBuf,
    /// Exit code of the step that failed; none did so far.
    failed: Option<i32>,
}

impl Job<'_> {
    /// Text with the expressions in it replaced. Those that it does not know are an error.
    fn expand(&self, text: &str) -> Result<String> {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${{") {
            let (expression, after) = after.split_once("}}").context("an expression has no end")?;
            let known = self
                .matrix
                .iter()
                .find(|(name, _)| format!("matrix.{name}") == expression.trim());
            let (_, value) = known.with_context(|| format!("'{expression}' is not known to this job"))?;
            whole.extend([before, value]);
            rest = after;
        }
        Ok(whole + rest)
    }

    /// Steps in their order; behind one that failed only those which always run.
    fn steps(&mut self, job: &Value) -> Result<()> {
        for step in list_at(job, "steps")? {
            let always = match step["if"].as_str() {
                None => false,
                Some("always()") => true,
                Some(other) => bail!("'{other}' is not known here"),
            };
            if self.failed.is_some() && !always {
                continue;
            }
            match (step["run"].as_str(), step["uses"].as_str()) {
                (Some(script), None) => {
                    let done = self.checkout.bash(&["-e"], &self.expand(script)?, &[])?;
                    if !done.status.success() {
                        let code = done.status.code().with_context(|| said(&done))?;
                        ensure!(code == ERROR, "{script}\n{}", said(&done));
                        self.failed = Some(code);
                    }
                }
                (None, Some(action)) => self.action(action, &step["with"])?,
                _ => bail!("{step} is no step"),
            }
        }
        Ok(())
    }

    fn action(&self, action: &str, with: &Value) -> Result<()> {
        match action.split_once('@').context("an action without a version")?.0 {
            // The machine has it from the start.
            "actions/checkout" => Ok(()),
            "actions/upload-artifact" => self.upload(&self.expand(text_at(with, "name")?)?, text_at(with, "path")?),
            "actions/download-artifact" => {
                // No name: all of them; merged: not a folder for each.
                ensure!(with["merge-multiple"] == true && with["name"].is_null(), "{with}");
                let to = self.checkout.folder.join(text_at(with, "path")?);
                let all = fs::read_dir(&self.artifacts)?;
                all.into_iter().try_for_each(|one| copy_contents(&one?.path(), &to))
            }
            _ => bail!("{action} is not known here"),
        }
    }

    /// One folder is kept as its contents, several paths as they are below the checkout.
    fn upload(&self, name: &str, paths: &str) -> Result<()> {
        let artifact = self.artifacts.join(name);
        ensure!(!artifact.exists(), "there is an artifact '{name}' already");
        let paths: Vec<_> = paths
            .lines()
            .map(|path| self.checkout.folder.join(path.trim()))
            .collect();
        if let [folder] = &paths[..] {
            copy_contents(folder, &artifact)?;
        } else {
            fs::create_dir_all(&artifact)?;
            let done = output(Command::new("cp").arg("-R").args(&paths).arg(&artifact))?;
            ensure!(done.status.success(), "{}", said(&done));
        }
        can_be_kept(&artifact)
    }
}

/// Every file has a name that upload-artifact takes, and keeps without being told to.
fn can_be_kept(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).context("a name is no text")?;
        ensure!(
            !name.contains(|c| FORBIDDEN.contains(c)) && !name.starts_with('.'),
            "{}",
            path.display()
        );
        if path.is_dir() {
            can_be_kept(&path)?;
        }
    }
    Ok(())
}

#[test]
fn a_matrix_of_jobs_runs_shards_and_another_job_merges_them() -> Result<()> {
    let files = Scratch::new("github")?;
    let workflow = recipe("github.yml")?;
    let (part, report) = (&workflow["jobs"]["part"], &workflow["jobs"]["report"]);
    let strategy = &part["strategy"];
    // A part that failed ends neither the others nor the report.
    ensure!(strategy["fail-fast"] == false, "{strategy}");
    ensure!(report["needs"] == "part" && report["if"] == "always()", "{report}");
    let start = |name: &str, matrix| -> Result<Job<'_>> {
        Ok(Job {
            checkout: Checkout::new(files.path(), name)?,
            matrix,
            artifacts: files.join("artifacts"),
            failed: None,
        })
    };
    let mut found = Vec::new();
    for value in list_at(&strategy["matrix"], "part")? {
        let mut job = start(&format!("part{value}"), vec![("part", value.to_string())])?;
        job.steps(part)?;
        ensure!(job.failed == Some(ERROR), "part {value}: {:?}", job.failed);
        found.push(cases(&job.checkout.folder.join(format!("results/{value}")), NO_IMAGES)?);
    }
    ensure!(
        found.iter().all(|part| !part.is_empty()) && found.concat().len() == CASES,
        "{found:?}"
    );

    let mut job = start("report", vec![])?;
    job.steps(report)?;
    ensure!(job.failed == Some(ERROR), "{:?}", job.failed);
    let kept = files.join("artifacts/report");
    let all = job.checkout.folder.join("all");
    merged(
        &found,
        &all,
        &kept.join("page"),
        Some(&kept.join("junit.xml")),
        NO_IMAGES,
    )
}
