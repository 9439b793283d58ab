//! `cargo xtask check`, and the checks that are no tests: format, lints, licences, recipes, documentation.

use crate::{
    docs, packages, process, recipes,
    test::{self, Tally},
    workspace,
};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::{
    io,
    process::{Command, ExitCode},
};

/// What the unit tests are.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only unit tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<ExitCode> {
    let installed = packages::install(packages::BUILD)?
        .into_iter()
        .chain(packages::install(packages::TEST)?);
    installed.for_each(|package| println!("installed {package}"));
    let mut checks = checks();
    if checks.failed == 0 {
        checks.add(test::unit::run(args.filter.as_deref())?);
        checks.add(documentation());
    }
    Ok(test::report::finish(&[("check", checks)]))
}

/// Every check; one that fails counts as failed, one that passes is no test and counts as nothing.
pub fn checks() -> Tally {
    let mut tally = Tally::default();
    let mut clippy = workspace::cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--check"]);
    command(&mut tally, "format", "fmt", format);
    command(&mut tally, "lints", "clippy", clippy);
    dependencies(&mut tally);
    match recipes::check() {
        Ok(summary) => println!("check: recipes: ok, {summary}"),
        Err(error) => tally.fail("recipes", &process::explain(&error)),
    }
    tally
}

/// Dependencies against deny.toml. Advisories come from the network; without it they are said not to have been looked at.
fn dependencies(tally: &mut Tally) {
    let deny = |args: &[&str]| {
        let mut deny = workspace::cargo();
        deny.args(["deny", "--workspace"]).args(args);
        deny
    };
    if !workspace::cargo_has("deny") {
        println!(
            "check: licences, sources and advisories: NOT RUN, cargo-deny is not installed (`cargo install --locked cargo-deny`)"
        );
        return;
    }
    let local = deny(&["check", "licenses", "bans", "sources"]);
    command(tally, "licences and sources", "deny", local);
    match process::quiet(&mut deny(&["fetch", "db"])) {
        Ok(()) => {
            let known = deny(&["check", "--disable-fetch", "advisories"]);
            command(tally, "advisories", "deny", known);
        }
        Err(_) => println!("check: advisories: NOT RUN, their database cannot be fetched from here"),
    }
}

/// Documentation against the built programs.
pub fn documentation() -> Tally {
    let mut tally = Tally::default();
    match docs::check() {
        Ok(summary) => println!("check: documentation: ok, {summary}"),
        Err(error) => tally.fail("documentation", &process::explain(&error)),
    }
    tally
}

fn command(tally: &mut Tally, what: &str, subcommand: &str, mut command: Command) {
    if !workspace::cargo_has(subcommand) {
        let hint = format!("`rustup component add {subcommand}` installs it");
        return tally.fail(what, &format!("error: cargo has no `{subcommand}`\nhint: {hint}\n"));
    }
    match process::listen(&mut command, &mut io::stdout(), |_| ()) {
        Ok(status) if status.success() => println!("check: {what}: ok"),
        Ok(status) => tally.fail(
            what,
            &format!("error: `{}` failed ({status})\n", process::line_of(&command)),
        ),
        Err(error) => tally.fail(what, &process::explain(&error)),
    }
}
