//! Documentation must be true: every flag that it names exists, and every file that it links to is there.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Flags of other programs that the pages name.
const FOREIGN: &[(&str, &str)] = &[
    ("--force", "daxctl"),
    ("--foreground", "rasdaemon"),
    ("--locked", "cargo"),
    ("--manifest-path", "cargo"),
    ("--map", "ndctl"),
    ("--media-errors", "ndctl"),
    ("--mode", "daxctl"),
    ("--no-install-recommends", "apt-get"),
    ("--no-notify", "ndctl"),
    ("--package", "cargo"),
    ("--record", "rasdaemon"),
    ("--release", "cargo"),
    ("--status", "ndctl"),
    ("--strict", "kubernetes-validate"),
    ("--test", "cargo"),
    ("--test-threads", "libtest"),
    ("--uninject", "ndctl"),
    ("--unix-socket", "curl"),
    ("--verbose", "ndctl"),
    ("--workspace", "cargo"),
];

/// Checks README.md, ARCHITECTURE.md and docs/; gives what was checked.
pub fn check() -> Result<String> {
    let known = known_flags()?;
    let (mut problems, mut flags) = (Vec::new(), 0);
    let pages = pages(workspace::root())?;
    for page in &pages {
        let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let shown = page.strip_prefix(workspace::root()).unwrap_or(page).display();
        for flag in flags_in(&text) {
            flags += 1;
            if !known.contains(&flag) {
                problems.push(format!("{shown} names {flag}, which no program here has"));
            }
        }
        let folder = page.parent().unwrap_or(Path::new("/"));
        for link in links_in(&text) {
            if !folder.join(&link).exists() {
                problems.push(format!("{shown} links to {link}, which is not there"));
            }
        }
    }
    if !problems.is_empty() {
        bail!(
            "{}; hint: flags of other programs are listed in xtask/src/docs.rs",
            problems.join("; ")
        );
    }
    Ok(format!("{} pages, {flags} flags", pages.len()))
}

fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = vec![
        root.join("README.md"),
        root.join("ARCHITECTURE.md"),
        root.join("CHANGELOG.md"),
    ];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// Every flag of the programs here, from their own `--help`, subcommand by subcommand.
fn known_flags() -> Result<BTreeSet<String>> {
    let mut known: BTreeSet<String> = FOREIGN.iter().map(|(flag, _)| (*flag).to_owned()).collect();
    let own = std::env::current_exe().context("cannot find this program")?;
    for program in [workspace::daxvisor(false), own] {
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let text = help(&program, &path)?;
            known.extend(flags_in(&text));
            todo.extend(
                subcommands(&text)
                    .into_iter()
                    .map(|name| [path.as_slice(), &[name]].concat()),
            );
        }
    }
    Ok(known)
}

fn help(program: &Path, path: &[String]) -> Result<String> {
    let output = Command::new(program)
        .args(path)
        .arg("--help")
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "`{} {} --help` failed ({})",
            program.display(),
            path.join(" "),
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Names of the indented rows below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let rows = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = rows.take_while(|line| line.starts_with("  "));
    let names = rows
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// `--word` with nothing of a word before it.
fn flags_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut flags = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| word(c) || c.is_ascii_alphabetic() || c == '=') {
            continue;
        }
        let rest = &text[at + 2..];
        let name = &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())];
        if name.starts_with(|c: char| c.is_ascii_lowercase()) {
            flags.insert(format!("--{}", name.trim_end_matches('-')));
        }
    }
    flags
}

/// Targets of Markdown links to files, without fragments.
fn links_in(text: &str) -> Vec<String> {
    let targets = text
        .match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split_once(')'));
    let targets = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    let files = targets.filter(|t| !t.is_empty() && !t.contains("://") && !t.contains(char::is_whitespace));
    let unique: BTreeMap<_, _> = files.map(|t| (t, ())).collect();
    unique.into_keys().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_words_after_two_dashes() {
        let text = "use `--dry-run`, `--memory 1G` or --host=kvm; a--b, x ---, -- CMD, `--[no]`, state --Hello--> next";
        let flags: Vec<_> = flags_in(text).into_iter().collect();
        assert_eq!(flags, ["--dry-run", "--host", "--memory"]);
    }

    #[test]
    fn subcommands_are_read_from_help() {
        let help = "About\n\nUsage: x\n\nCommands:\n  run   Run it\n        until it ends\n  acpi  Tables\n  help  Print\n\nOptions:\n  -h";
        assert_eq!(subcommands(help), ["run", "acpi"]);
    }

    #[test]
    fn links_are_files_without_fragments() {
        let text = "[a](docs/a.md#x) [b](https://example.org) [c](#here) [d](LICENSE)";
        assert_eq!(links_in(text), ["LICENSE", "docs/a.md"]);
    }
}
