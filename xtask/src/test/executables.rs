//! The test programs that cargo built, found in its messages.

use super::Tier;
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

/// One test program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Name of its target: `linux_boot`, or the crate's for unit tests.
    pub name: String,
    /// What the target is: `test` (a file of its own), `lib` or `bin`.
    pub kind: String,
    /// The program.
    pub path: PathBuf,
    /// Folder of its package, the working directory that cargo gives it.
    pub folder: PathBuf,
}

impl Executable {
    /// Where it belongs.
    pub fn tier(&self) -> Tier {
        match self.kind.as_str() {
            "test" => Tier::of(&self.name),
            _ => Tier::Unit,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds every program and every test; compiler messages go to standard error.
pub fn build() -> Result<Vec<Executable>> {
    let mut bins = workspace::cargo();
    bins.args(["build", "--quiet", "--workspace", "--bins"]);
    crate::process::check(&mut bins)?;
    let mut command = workspace::cargo();
    command.args([
        "test",
        "--quiet",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build ({})", output.status);
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(messages: &str) -> Result<Vec<Executable>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("cannot read cargo's messages")?;
        let test = message.reason == "compiler-artifact" && message.profile.is_some_and(|p| p.test);
        if let (true, Some(path), Some(manifest), Some(target)) =
            (test, message.executable, message.manifest_path, message.target)
        {
            found.push(Executable {
                kind: target.kind.into_iter().next().unwrap_or_default(),
                name: target.name,
                path,
                folder: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/vmm/Cargo.toml","target":{"kind":["bin"],"name":"daxvisor"},"profile":{"test":false},"executable":"/w/t/daxvisor"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],"name":"linux_boot"},"profile":{"test":true},"executable":"/w/t/linux_boot-1"}
{"reason":"compiler-artifact","manifest_path":"/w/vmm/Cargo.toml","target":{"kind":["lib"],"name":"linux_lib"},"profile":{"test":true},"executable":"/w/t/vmm-1"}
{"reason":"build-finished","success":true}"#;
        let found = parse(messages).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|e| (e.name.as_str(), e.tier(), e.folder.to_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                ("linux_boot", Tier::Linux, "/w/tests"),
                ("linux_lib", Tier::Unit, "/w/vmm")
            ]
        );
    }
}
