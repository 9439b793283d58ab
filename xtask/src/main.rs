//! Chores of the workspace: `cargo xtask VERB`.

mod bench;
mod images;

use anyhow::Result;
use clap::Parser;

/// Chores of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
enum Verb {
    /// Measure daxvisor beside QEMU.
    Bench(bench::Args),
    /// Fetch and build the guest kernels, their initramfs and the nested host.
    Images(images::Args),
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Bench(args) => bench::run(&args),
        Verb::Images(args) => images::run(&args),
    }
}
