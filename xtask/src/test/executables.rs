//! The test programs that cargo built, found in its messages.

use super::Tier;
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One test program, or a module of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Name of its target (the crate's for unit tests), with the module's where it is one: `linux_boot`.
    pub name: String,
    /// What the target is: `test` (a file of its own), `lib` or `bin`.
    pub kind: String,
    /// The program.
    pub path: PathBuf,
    /// Folder of its package, the working directory that cargo gives it.
    pub folder: PathBuf,
    /// The only tests that are meant; none: all of them.
    #[serde(default)]
    pub tests: Vec<String>,
}

impl Executable {
    /// Where it belongs.
    pub fn tier(&self) -> Tier {
        match self.kind.as_str() {
            "test" => Tier::of(&self.name),
            _ => Tier::Unit,
        }
    }

    /// Its modules of tests, each to be run by itself, with those tests whose name contains `filter`.
    pub fn modules(&self, filter: Option<&str>) -> Result<Vec<Self>> {
        let mut command = Command::new(&self.path);
        command.args(["--list", "--format", "terse"]).stdin(Stdio::null());
        let listed = command
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        if !listed.status.success() {
            bail!("{} does not list its tests ({})", self.path.display(), listed.status);
        }
        Ok(self.divide(&String::from_utf8_lossy(&listed.stdout), filter))
    }

    fn divide(&self, listed: &str, filter: Option<&str>) -> Vec<Self> {
        let mut modules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        for name in names.filter(|name| filter.is_none_or(|filter| name.contains(filter))) {
            let module = name.split_once("::").map_or("", |(module, _)| module);
            modules.entry(module).or_default().push(name.to_owned());
        }
        let named = |module: &str| match module {
            "" => self.name.clone(),
            module => format!("{}_{module}", self.name),
        };
        let divided = modules.into_iter().map(|(module, tests)| Self {
            name: named(module),
            tests,
            ..self.clone()
        });
        divided.collect()
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
                tests: Vec::new(),
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
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],"name":"linux"},"profile":{"test":true},"executable":"/w/t/linux-1"}
{"reason":"compiler-artifact","manifest_path":"/w/vmm/Cargo.toml","target":{"kind":["lib"],"name":"linux_lib"},"profile":{"test":true},"executable":"/w/t/vmm-1"}
{"reason":"build-finished","success":true}"#;
        let found = parse(messages).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|e| (e.name.as_str(), e.tier(), e.folder.to_str().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [("linux", Tier::Linux, "/w/tests"), ("linux_lib", Tier::Unit, "/w/vmm")]
        );
    }

    #[test]
    fn a_program_is_divided_into_modules_and_a_filter_looks_at_whole_names() {
        let program = Executable {
            name: "linux".to_owned(),
            kind: "test".to_owned(),
            path: PathBuf::from("/w/t/linux-1"),
            folder: PathBuf::from("/w/tests"),
            tests: Vec::new(),
        };
        let listed =
            "boot::a_guest_boots: test\nxen::dom0_boots: test\nboot::it_ends: test\nalone: test\na: benchmark\n";
        let divided = |filter| -> Vec<_> {
            let modules = program.divide(listed, filter).into_iter();
            modules.map(|module| (module.name, module.tests.join(" "))).collect()
        };
        let module = |name: &str, tests: &str| (name.to_owned(), tests.to_owned());
        let boot = module("linux_boot", "boot::a_guest_boots boot::it_ends");
        let xen = module("linux_xen", "xen::dom0_boots");
        assert_eq!(divided(None), [module("linux", "alone"), boot.clone(), xen.clone()]);
        assert_eq!(divided(Some("boot::")), [boot]);
        assert_eq!(
            divided(Some("boots")),
            [module("linux_boot", "boot::a_guest_boots"), xen]
        );
        assert_eq!(divided(Some("nothing")), []);
    }
}
