//! `conformance/tests.toml`: which test runs on which machine, and why the others do not. It is complete or it is refused.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The table's place in the repository.
pub const PATH: &str = "conformance/tests.toml";

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    /// The version of ndctl that it is about.
    pub ndctl: String,
    /// Guest kernels to run on.
    pub kernels: Vec<String>,
    /// Machines by name.
    pub machine: BTreeMap<String, Machine>,
    /// Tests by the name under which ndctl registers them.
    pub test: BTreeMap<String, Test>,
    /// The other files of its test folder, and what they are.
    pub support: BTreeMap<String, String>,
}

/// What tests see of the buses' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Buses {
    /// nfit_test.0 and so on, as the mock calls its own
    Mock,
    /// Their own names
    Real,
}

/// A virtual machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// For the report.
    pub about: String,
    /// Names of buses.
    pub buses: Buses,
    /// Flags of `daxvisor run`.
    pub args: Vec<String>,
    /// Kernel parameters.
    #[serde(default)]
    pub cmdline: String,
    /// It takes much of the host's memory: one such guest at a time.
    #[serde(default)]
    pub big: bool,
}

/// One test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Test {
    /// Its machine; none when it is not run.
    pub machine: Option<String>,
    /// Why it is not run.
    pub not_applicable: Option<String>,
    /// Its file in the test folder, when that is neither its name nor its name with `.c`.
    pub file: Option<String>,
    /// It calls programs that only the large image has.
    #[serde(default)]
    pub large: bool,
    /// Most that it may take.
    #[serde(default = "seconds")]
    pub seconds: u64,
}

/// Of a busy machine's emulated host.
fn seconds() -> u64 {
    400
}

impl Test {
    /// Its file in the test folder.
    fn file(&self, name: &str) -> String {
        let plain = if name.contains('.') {
            name.to_owned()
        } else {
            format!("{name}.c")
        };
        self.file.clone().unwrap_or(plain)
    }
}

impl Table {
    /// Reads the table of the repository at `root`.
    pub fn load(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a table of tests", path.display()))
    }

    /// Whether the table is about exactly what ndctl `version` has: its registered `tests` and the `files` of its folder.
    pub fn check<'a>(&self, version: &str, tests: impl Iterator<Item = &'a str>, files: &[String]) -> Result<()> {
        let mut problems = Vec::new();
        if self.ndctl != version {
            problems.push(format!("it is for ndctl {}, the image has {version}", self.ndctl));
        }
        let there: BTreeSet<_> = tests.collect();
        let listed: BTreeSet<_> = self.test.keys().map(String::as_str).collect();
        problems.extend(there.difference(&listed).map(|t| format!("test {t} is not listed")));
        problems.extend(
            listed
                .difference(&there)
                .map(|t| format!("test {t} is listed and does not exist")),
        );
        let there: BTreeSet<_> = files.iter().map(String::as_str).collect();
        let of_tests: BTreeSet<_> = self.test.iter().map(|(name, test)| test.file(name)).collect();
        let listed: BTreeSet<_> = of_tests.iter().chain(self.support.keys()).map(String::as_str).collect();
        problems.extend(there.difference(&listed).map(|f| format!("file {f} is not listed")));
        problems.extend(
            listed
                .difference(&there)
                .map(|f| format!("file {f} is listed and does not exist")),
        );
        for (name, test) in &self.test {
            match (&test.machine, &test.not_applicable) {
                (Some(machine), None) if self.machine.contains_key(machine) => {}
                (Some(machine), None) => {
                    problems.push(format!("test {name} wants machine '{machine}', which is not listed"))
                }
                (None, Some(reason)) if reason.len() > 10 => {}
                (None, Some(_)) => problems.push(format!("test {name} is not applicable without a reason")),
                _ => problems.push(format!(
                    "test {name} needs either a machine or a reason why it is not applicable"
                )),
            }
        }
        if !problems.is_empty() {
            bail!("{PATH} is wrong: {}", problems.join("; "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        ndctl = "81"
        kernels = ["k"]
        [machine.m]
        about = "a machine"
        buses = "mock"
        args = []
        [test."a.sh"]
        machine = "m"
        [test.b]
        not-applicable = "it tests something else"
        [support]
        common = "functions"
    "#;

    fn check(text: &str, tests: &[&str], files: &[&str]) -> String {
        let table: Table = toml::from_str(text).unwrap();
        let files: Vec<_> = files.iter().map(|f| (*f).to_owned()).collect();
        let done = table.check("81", tests.iter().copied(), &files);
        done.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_complete_table_is_accepted_and_the_repositorys_one_is_read() {
        assert_eq!(check(TEXT, &["a.sh", "b"], &["a.sh", "b.c", "common"]), "");
        Table::load(crate::workspace::root()).unwrap();
    }

    #[test]
    fn what_is_not_listed_or_has_vanished_is_an_error() {
        let said = check(TEXT, &["b", "new.sh"], &["b.c", "new.sh"]);
        for part in [
            "test new.sh is not listed",
            "test a.sh is listed and does not exist",
            "file new.sh is not listed",
            "file common is listed and does not exist",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn a_test_has_a_machine_or_a_reason() {
        let text = TEXT.replace("machine = \"m\"", "machine = \"n\"");
        assert!(check(&text, &["a.sh", "b"], &["a.sh", "b.c", "common"]).contains("wants machine 'n'"));
        let text = TEXT.replace("it tests something else", "");
        assert!(check(&text, &["a.sh", "b"], &["a.sh", "b.c", "common"]).contains("without a reason"));
    }
}
