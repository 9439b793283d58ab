//! Chores of the workspace: `cargo xtask VERB`.

mod images;

use anyhow::Result;
use clap::Parser;

/// Chores of the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
enum Verb {
    /// Fetch and build the guest kernels, their initramfs and the nested host.
    Images(images::Args),
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Images(args) => images::run(&args),
    }
}
