//! `cargo xtask bless`: golden files as the code makes them now.

use crate::{packages, process, workspace};
use anyhow::Result;
use std::process::ExitCode;

/// Runs the golden tests in the mode in which they write, then shows what changed.
pub fn run() -> Result<ExitCode> {
    packages::install(packages::BUILD)?;
    packages::install(packages::TEST)?;
    let mut command = workspace::cargo();
    command
        .args(["test", "--package", "guest-tests", "--test", "acpi_tables"])
        .env("DAXVISOR_BLESS", "1");
    process::check(&mut command)?;
    let mut command = workspace::cargo();
    command
        .args(["test", "--package", "vmm", "--lib"])
        .env("INSTA_UPDATE", "always")
        .env("DAXVISOR_BLESS", "1")
        .env_remove("CI");
    process::check(&mut command)?;
    let mut command = std::process::Command::new("git");
    command
        .args([
            "--no-pager",
            "diff",
            "--stat",
            "--",
            "*.hex",
            "*.dsl",
            "*.snap",
            "*.schema.json",
            "docs/openapi.json",
        ])
        .current_dir(workspace::root());
    process::check(&mut command)?;
    eprintln!("golden files are what the code makes; a change of guest ABI is a line in CHANGELOG.md");
    Ok(ExitCode::SUCCESS)
}
