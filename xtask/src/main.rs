//! Chores of the workspace: `cargo xtask VERB`.
//!
//! ```text
//! demo: packages -> build -> images -> the same program again where KVM runs kernels (`demo::inner`) -> summary
//! test: checks -> unit -> payload -> images -> nested -> linux -> fuzz -> table, and `N passed, N failed`
//! ```
//! Verbs print what they did once; an error ends the program with exit code 1, `error:` and `hint:` lines.

mod bench;
mod bless;
mod check;
mod conformance;
mod demo;
mod docs;
mod host;
mod images;
mod matrix;
mod packages;
mod process;
mod python;
mod recipes;
mod test;
mod workspace;

use clap::Parser;
use std::process::ExitCode;

/// Chores of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
enum Verb {
    /// Boot Debian with two NVDIMMs, put namespaces and data on them, reboot and find everything again
    Demo(demo::Args),
    /// Run everything that CI runs, and print the counts
    Test(test::Args),
    /// Format, lints, documentation and unit tests: the quick loop
    Check(check::Args),
    /// Measure daxvisor beside QEMU
    Bench(bench::Args),
    /// Run ndctl's own tests against daxvisor's firmware, and write docs/conformance.md
    Conformance(conformance::Args),
    /// Run the tests of bad memory, and write docs/poison-matrix.md from what their guests did
    PoisonMatrix(matrix::Args),
    /// Rewrite the golden files with what the code makes now
    Bless,
    /// Fetch and build the guest kernels, their initramfs and the nested host
    Images(images::Args),
    /// Run a list of test programs (used by `test`, where the tests run)
    #[command(hide = true)]
    RunTests(test::runner::Args),
}

fn main() -> ExitCode {
    let result = match Verb::parse() {
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::Conformance(args) => conformance::run(&args),
        Verb::PoisonMatrix(args) => matrix::run(&args),
        Verb::Bless => bless::run(),
        Verb::Images(args) => images::run(&args).map(|()| ExitCode::SUCCESS),
        Verb::RunTests(args) => test::runner::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprint!("{}", process::explain(&error));
        ExitCode::FAILURE
    })
}
