//! Recipes for CI systems, held against the schemas of these systems, which the validators bring along: no network is asked.

use crate::{process, python, workspace};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus},
};

/// What pip installs. A newer version is one with newer schemas.
const PACKAGES: &[&str] = &["check-jsonschema==0.39.0", "kubernetes-validate==1.37.0"];

/// Files of docs/recipes, each with its validator.
const RECIPES: &[(&str, &[&str])] = &[
    ("kubernetes.yaml", &["kubernetes-validate", "--strict"]),
    (
        "github.yml",
        &["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
    ),
    (
        "gitlab.yml",
        &[
            "check-jsonschema",
            "--builtin-schema",
            "vendor.gitlab-ci",
            "--data-transform",
            "gitlab-ci",
        ],
    ),
];
/// A line that none of the systems takes: a validator that takes it proves nothing.
const WRONG: &str = "nonsense: 1\n";

/// Validates every recipe; gives a summary.
pub fn check() -> Result<String> {
    let programs = python::programs(PACKAGES)?;
    let scratch = workspace::scratch("recipes")?;
    for (name, validator) in RECIPES {
        let path = workspace::root().join("docs/recipes").join(name);
        let (status, said) = run(&programs, validator, &path)?;
        ensure!(status.success(), "docs/recipes/{name} is refused:\n{said}");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wrong = scratch.join(name);
        fs::write(&wrong, text + WRONG).with_context(|| format!("cannot write {}", wrong.display()))?;
        let (status, said) = run(&programs, validator, &wrong)?;
        ensure!(
            !status.success() && said.contains("nonsense"),
            "{} takes a recipe with a key that there is not ({status}):\n{said}",
            validator[0]
        );
    }
    Ok(format!("{} files fit their schemas", RECIPES.len()))
}

fn run(programs: &Path, validator: &[&str], file: &Path) -> Result<(ExitStatus, String)> {
    let mut command = Command::new(programs.join(validator[0]));
    let mut said = Vec::new();
    let status = process::listen(command.args(&validator[1..]).arg(file), &mut said, |_| ())?;
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}
