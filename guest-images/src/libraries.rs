//! Shared libraries that a program needs, as the loader of an unpacked file tree sees them.

use crate::process::output;
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders of libraries in a Debian tree, merged or not.
pub const FOLDERS: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib"];
const LOADERS: &[&str] = &[
    "lib64/ld-linux-x86-64.so.2",
    "usr/lib64/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
];
/// Folders of programs.
const PROGRAMS: &[&str] = &["usr/sbin", "usr/bin", "sbin", "bin"];

/// The tree's loader.
pub fn loader(tree: &Path) -> Result<PathBuf> {
    let found = LOADERS
        .iter()
        .map(|l| tree.join(l))
        .find_map(|l| fs::canonicalize(l).ok());
    // The package's link may be absolute and so lead out of the tree.
    found
        .filter(|l| l.starts_with(tree))
        .or_else(|| loader_by_name(tree))
        .context("the packages hold no dynamic loader")
}

fn loader_by_name(tree: &Path) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|f| tree.join(f).join("ld-linux-x86-64.so.2"))
        .find(|p| p.is_file())
}

/// `--library-path` for a tree.
pub fn library_path(tree: &Path) -> String {
    FOLDERS
        .iter()
        .map(|f| tree.join(f).display().to_string())
        .collect::<Vec<_>>()
        .join(":")
}

/// Where a program lies in a tree.
pub fn program(tree: &Path, name: &str) -> Result<PathBuf> {
    let found = PROGRAMS.iter().map(|f| tree.join(f).join(name)).find(|p| p.exists());
    found.with_context(|| format!("the packages hold no program '{name}'"))
}

/// A command that runs a program of the tree under the name `called`, with the tree's own loader and libraries.
pub fn run(tree: &Path, name: &str, called: &str) -> Result<Command> {
    let mut command = Command::new(loader(tree)?);
    command
        .args([
            "--inhibit-cache",
            "--library-path",
            &library_path(tree),
            "--argv0",
            called,
        ])
        .arg(program(tree, name)?);
    Ok(command)
}

/// Paths in `--list` output: `name => path (address)` or `path (address)`; the vDSO has none.
fn parse_list(text: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains("not found") {
            bail!("a library is missing: {line}");
        }
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(path.into());
        }
    }
    Ok(paths)
}

/// Everything that `program` loads, as paths in the tree.
pub fn closure(tree: &Path, program: &Path) -> Result<BTreeSet<PathBuf>> {
    closure_with(tree, &[], program)
}

/// The same for a program that also loads libraries of `own` folders, outside the tree.
pub fn closure_with(tree: &Path, own: &[PathBuf], program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new(loader(tree)?);
    let folders = own.iter().map(|o| o.display().to_string()).chain([library_path(tree)]);
    let path = folders.collect::<Vec<_>>().join(":");
    command
        .args(["--inhibit-cache", "--library-path", &path, "--list"])
        .arg(program);
    let libraries = parse_list(&output(&mut command)?)?;
    let known = |library: &Path| library.starts_with(tree) || own.iter().any(|o| library.starts_with(o));
    match libraries.iter().find(|l| !known(l)) {
        Some(stranger) => bail!(
            "{} needs {}, which no package brought",
            program.display(),
            stranger.display()
        ),
        None => Ok(libraries.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_list_is_read_and_a_missing_library_is_an_error() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /t/libc.so.6 (0x2)\n\t/t/ld.so (0x3)\n";
        assert_eq!(
            parse_list(text).unwrap(),
            [PathBuf::from("/t/libc.so.6"), PathBuf::from("/t/ld.so")]
        );
        assert!(parse_list("\tliba.so => not found\n").is_err());
    }
}
