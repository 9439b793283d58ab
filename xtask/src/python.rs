//! Programs from PyPI, each set of them in a virtual environment below `target/`, in the versions that are asked for.

use crate::{process, workspace};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf, process::Command};

/// The folder of programs of an environment that has `packages`, each `NAME==VERSION`; installed the first time.
pub fn programs(packages: &[&str]) -> Result<PathBuf> {
    let name = packages.join("+").replace("==", "-");
    let folder = workspace::target().join("python").join(&name);
    let programs = folder.join("bin");
    // The last file that pip writes is not known; a mark of our own is.
    let mark = folder.join("complete");
    if mark.exists() {
        return Ok(programs);
    }
    let packages_said = packages.join(" ");
    println!("installing {packages_said} in {}", folder.display());
    let mut venv = Command::new("python3");
    process::quiet(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    process::quiet(pip.args(packages)).with_context(|| {
        format!("cannot install {packages_said}; hint: the first time pip fetches it from the network")
    })?;
    fs::write(&mark, packages_said).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(programs)
}
