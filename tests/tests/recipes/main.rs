//! docs/recipes, each run as its system runs it: the commands are taken from the recipe, and so is what the system is told
//! about them. Slurm itself runs its recipe; of Kubernetes, GitHub and GitLab this program does what their documentation says.
//!
//! Shards and their results are what this is about, and need no guest: the kernels are not there, so that each case is an error.

mod checkout;
mod github;
mod gitlab;
mod kubernetes;
mod slurm;

use anyhow::{Context, Result, ensure};
use guest_images::kernel_names;
use guest_tests::{Scratch, guest};
use serde_json::Value;
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Four scenarios.
const SUITE: &str = r#"
about = "four"
[[scenario]]
name = "each"
parameters = { n = [1, 2, 3, 4] }
step = [{ run = "echo ${n}" }]
"#;
/// Two kernels have twice as many cases.
const CASES: usize = 8;
/// What is said of a kernel that is asked for by the name of an image.
const NO_IMAGES: &str = "there are no guest images in ";
/// Exit code: something could not be tested, here every kernel.
const ERROR: i32 = 3;

fn recipe_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes").join(name)
}

/// A recipe, its comments with it.
fn read(name: &str) -> Result<String> {
    let path = recipe_file(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A recipe as a value. Every image that it names is of the default set, which is what it fetches.
fn recipe(name: &str) -> Result<Value> {
    let text = read(name)?;
    let named = text.split("--kernel @").skip(1);
    for kernel in named.map(|rest| rest.split_whitespace().next().unwrap_or_default()) {
        let found = kernel_names().find(|(name, _)| *name == kernel);
        ensure!(
            found == Some((kernel, true)),
            "{name}: {kernel} is not fetched by default"
        );
    }
    serde_saphyr::from_str(&text).with_context(|| format!("{name} is no YAML"))
}

fn text_at<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let found = value[key].as_str();
    found.with_context(|| format!("no text '{key}' in {value}"))
}

fn list_at<'a>(value: &'a Value, key: &str) -> Result<&'a [Value]> {
    let found = value[key].as_array();
    Ok(found.with_context(|| format!("no list '{key}' in {value}"))?)
}

fn words(list: &[Value]) -> Result<Vec<&str>> {
    let words = list.iter().map(|word| word.as_str().with_context(|| word.to_string()));
    words.collect()
}

fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}; hint: `cargo xtask test` installs what the tests need"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    format!("{}: {}{error}", output.status, text(output))
}

/// PATH with a folder before the others.
fn path_with(folder: &Path) -> Result<String> {
    let others = env::var("PATH").context("PATH is not set, or is no text")?;
    Ok(format!("{}:{others}", folder.display()))
}

/// A program in `folder`, which is made where it has to be.
fn program(folder: &Path, name: &str, script: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
}

/// What stands for daxvisor where it would have been installed or compiled: this build of it.
fn wrapper() -> Result<String> {
    Ok(format!("exec '{}' \"$@\"", guest::program()?.display()))
}

/// A command that finds this build of daxvisor, and no guest images; it takes this machine as it is for one that runs guests.
fn without_images(command: &mut Command, programs: &Path) -> Result<()> {
    command
        .env("PATH", path_with(programs)?)
        .env("DAXVISOR_HOST", "nested")
        .env("DAXVISOR_IMAGES", "/nonexistent/images");
    Ok(())
}

/// Names of the cases that a folder has results of, each an error whose reason begins so.
fn cases(folder: &Path, reason: &str) -> Result<Vec<String>> {
    let path = folder.join("results.json");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole: Value = serde_json::from_slice(&bytes)?;
    let one = |result: &Value| {
        let why = text_at(result, "reason")?;
        ensure!(result["verdict"] == "error" && why.starts_with(reason), "{result}");
        Ok(text_at(result, "id")?.to_owned())
    };
    list_at(&whole, "results")?.iter().map(one).collect()
}

/// The folder `all` has each case of `parts` once, and nothing else; its page and, where there is one, its report count them.
fn merged(parts: &[Vec<String>], all: &Path, page: &Path, junit: Option<&Path>, reason: &str) -> Result<()> {
    let mut of_parts = parts.concat();
    of_parts.sort();
    let mut found = cases(all, reason)?;
    found.sort();
    ensure!(found == of_parts, "{found:?}, and the parts have {of_parts:?}");
    let mut names = found.clone();
    names.dedup();
    ensure!(names == found, "a case is there twice: {found:?}");
    let count = found.len();
    let page = fs::read_to_string(page.join("index.html")).context("no page")?;
    ensure!(page.contains(&format!("{count} cases, {count} to be looked at")));
    if let Some(path) = junit {
        let report = fs::read_to_string(path).context("no JUnit report")?;
        let tests = report.matches("<testcase ").count();
        let errors = report.matches("<error").count();
        ensure!((tests, errors) == (count, count), "{report}");
    }
    Ok(())
}

/// Copies a folder's contents, files over files of the same name, as archives are unpacked.
fn copy_contents(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let done = output(Command::new("cp").arg("-R").arg(from.join(".")).arg(to))?;
    ensure!(done.status.success(), "{}", said(&done));
    Ok(())
}
