//! Where things are, and cargo.

use crate::process;
use anyhow::{Context, Result};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the workspace.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The folder that cargo builds in.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A folder of ours below [`target`], made when it is missing.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let dir = target().join("xtask").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make folder {}", dir.display()))?;
    Ok(dir)
}

/// cargo in the root of the workspace, without what it told us as its own child.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        // Build scripts that look at these would see them change from one caller to the next.
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(name);
        }
    }
    command
}

/// Whether cargo has a subcommand.
pub fn cargo_has(subcommand: &str) -> bool {
    let mut command = cargo();
    command.args([subcommand, "--version"]);
    process::quiet(&mut command).is_ok()
}

/// The path of the monitor that [`cargo`] builds.
pub fn daxvisor(release: bool) -> PathBuf {
    target()
        .join(if release { "release" } else { "debug" })
        .join("daxvisor")
}
