//! The kernels of the `kernel` tier: one source as it is, with a patch, and without one that it has.

use super::executables::Executable;
use crate::{images, workspace};
use anyhow::{Context, Result};
use guest_images::{SourceKernel, SourceName};
use guest_tests::small;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// Package of the source.
const SOURCE: &str = "linux-source-6.1";

/// Name, patch and whether it is taken out.
const KERNELS: [(&str, Option<&str>, bool); 3] = [
    (small::PLAIN, None, false),
    (small::FORGETS, Some("mem-limit-forgets-devices.patch"), false),
    (small::REFUSES, Some("mem-limits-boot-alone.patch"), true),
];

/// Whether a test of these programs is asked for: compiling takes minutes.
pub fn wanted(executables: &[Executable], filter: Option<&str>) -> Result<bool> {
    let Some(filter) = filter else { return Ok(true) };
    for executable in executables {
        let mut command = Command::new(&executable.path);
        command.args(["--list", "--format", "terse", filter]);
        let listed = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", executable.path.display()))?;
        if String::from_utf8_lossy(&listed.stdout)
            .lines()
            .any(|l| l.ends_with(": test"))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compiles what is not there yet.
pub fn ensure() -> Result<()> {
    let sources = KERNELS.iter().map(|(name, patch, reverse)| {
        let folder = workspace::root().join("guest-images/kernel/patches");
        let patches: Vec<PathBuf> = patch.iter().map(|p| folder.join(p)).collect();
        let name = SourceName {
            package: SOURCE.to_owned(),
            name: (*name).to_owned(),
        };
        SourceKernel::read(name, &[], &patches, *reverse)
    });
    images::ensure_sources(sources.collect::<Result<_>>()?)
}
