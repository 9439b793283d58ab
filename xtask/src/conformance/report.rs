//! docs/conformance.md and results.json, from the results.

use super::{
    job::{Outcome, Result as TestResult},
    table::Table,
};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Everything that the report is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of ndctl.
    pub ndctl: String,
    /// SHA-256 of its source archive.
    pub source: String,
    /// What happened.
    pub results: Vec<TestResult>,
}

/// Numbers of one kernel, or of all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Exit status 0.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped by the test itself.
    pub skipped: usize,
    /// Not run.
    pub not_applicable: usize,
}

impl Report {
    /// Of one kernel, or of all.
    pub fn counts(&self, kernel: Option<&str>) -> Counts {
        let mut counts = Counts::default();
        for result in self.results.iter().filter(|r| kernel.is_none_or(|k| r.kernel == k)) {
            match result.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
                Outcome::NotApplicable(_) => counts.not_applicable += 1,
            }
        }
        counts
    }

    /// Kernel names with the release that ran.
    pub fn kernels(&self) -> BTreeMap<&str, &str> {
        let mut kernels = BTreeMap::new();
        for result in &self.results {
            let release = kernels.entry(result.kernel.as_str()).or_insert("");
            *release = result.release.as_deref().unwrap_or(release);
        }
        kernels
    }

    /// Adds results of an earlier run for tests of the table that were not run now.
    pub fn keep(&mut self, before: Self, table: &Table) -> Result<()> {
        if before.source != self.source {
            bail!(
                "the earlier run was of ndctl {}; hint: run all tests once",
                before.ndctl
            );
        }
        let missing = |r: &TestResult| self.of(&r.test, &r.kernel).is_none() && table.test.contains_key(&r.test);
        let kept: Vec<_> = before.results.into_iter().filter(missing).collect();
        self.results.extend(kept);
        Ok(())
    }

    fn revisions(&self) -> String {
        let all: BTreeSet<_> = self
            .results
            .iter()
            .map(|r| r.revision.as_str())
            .filter(|r| !r.is_empty())
            .collect();
        all.into_iter().collect::<Vec<_>>().join(", ")
    }

    fn of(&self, test: &str, kernel: &str) -> Option<&TestResult> {
        self.results.iter().find(|r| r.test == test && r.kernel == kernel)
    }

    /// The page.
    pub fn markdown(&self, table: &Table) -> String {
        let mut page = String::from(HEAD);
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "ndctl {} (Debian source package, SHA-256 {}).",
            self.ndctl, self.source
        );
        let _ = writeln!(page, "daxvisor at commit {}.\n", self.revisions());
        page.push_str("| kernel | release | passed | failed | skipped by the test | not applicable |\n|---|---|---|---|---|---|\n");
        for (kernel, release) in self.kernels() {
            let c = self.counts(Some(kernel));
            let _ = writeln!(
                page,
                "| {kernel} | {release} | {} | {} | {} | {} |",
                c.passed, c.failed, c.skipped, c.not_applicable
            );
        }
        page.push_str("\n## Machines\n| name | what |\n|---|---|\n");
        for (name, machine) in &table.machine {
            let _ = writeln!(page, "| {name} | {} |", machine.about);
        }
        page.push_str("\n## Tests\n| test | machine |");
        self.kernels().keys().for_each(|k| page.push_str(&format!(" {k} |")));
        page.push_str("\n|---|---|");
        self.kernels().keys().for_each(|_| page.push_str("---|"));
        page.push('\n');
        for (name, test) in table.test.iter().filter(|(_, t)| t.machine.is_some()) {
            let _ = write!(page, "| {name} | {} |", test.machine.as_deref().unwrap_or_default());
            for kernel in self.kernels().keys() {
                let _ = write!(
                    page,
                    " {} |",
                    self.of(name, kernel).map_or("did not run".to_owned(), cell)
                );
            }
            page.push('\n');
        }
        page.push_str("\n## Not applicable\n| test | why |\n|---|---|\n");
        for (name, test) in &table.test {
            if let Some(reason) = &test.not_applicable {
                let _ = writeln!(page, "| {name} | {reason} |");
            }
        }
        page
    }
}

const HEAD: &str = "# Conformance\n\n\
<!-- Written by `cargo xtask conformance`; changes here are lost. -->\n\n\
ndctl's own tests judge an NVDIMM stack through nfit_test, a module that replaces the firmware inside the kernel. Here the same tests,\n\
from ndctl's source package, run in guests with unmodified Debian kernels, and daxvisor's firmware is what they judge.\n\
[testing.md](testing.md) says how. A test that skips itself has not passed.\n\n";

fn cell(result: &TestResult) -> String {
    let reason = result.outcome.reason().lines().next().unwrap_or_default();
    let reason = reason.replace('|', "\\|").replace('<', "&lt;");
    match result.outcome {
        Outcome::Passed => format!("passed ({:.0} s)", result.seconds),
        _ => format!("**{}**: {reason}", result.outcome.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(test: &str, outcome: Outcome) -> TestResult {
        TestResult {
            kernel: "k".into(),
            test: test.into(),
            outcome,
            seconds: 2.4,
            release: Some("6.1".into()),
            revision: "abc".into(),
        }
    }

    #[test]
    fn a_skip_is_not_a_pass_and_every_test_has_its_row() {
        let table = "ndctl = '81'\nkernels = ['k']\n[machine.m]\nabout = 'x'\nbuses = 'real'\nargs = []\n[test.a]\nmachine = 'm'\n\
            [test.b]\nmachine = 'm'\n[test.c]\nmachine = 'm'\n[test.d]\nnot-applicable = 'of another kind'\n[support]\n";
        let table: Table = toml::from_str(table).unwrap();
        let results = vec![
            result("a", Outcome::Passed),
            result("b", Outcome::Skipped("no | jq\nmore".into())),
            result("d", Outcome::NotApplicable("of another kind".into())),
        ];
        let report = Report {
            ndctl: "81".into(),
            source: "0".into(),
            results,
        };
        let counts = report.counts(None);
        assert_eq!(
            (counts.passed, counts.failed, counts.skipped, counts.not_applicable),
            (1, 0, 1, 1)
        );
        let page = report.markdown(&table);
        assert!(page.contains("| a | m | passed (2 s) |\n"), "{page}");
        assert!(
            page.contains("| b | m | **skipped by the test**: no \\| jq |\n"),
            "{page}"
        );
        assert!(page.contains("| c | m | did not run |\n"), "{page}");
        assert!(page.contains("| d | of another kind |\n"), "{page}");
    }

    #[test]
    fn an_update_keeps_what_was_not_run_and_names_both_commits() {
        let table = "ndctl = '81'\nkernels = ['k']\n[machine]\n[test.a]\n[test.b]\n[support]\n";
        let table: Table = toml::from_str(table).unwrap();
        let report = |results| Report {
            ndctl: "81".into(),
            source: "0".into(),
            results,
        };
        let mut old = result("b", Outcome::Passed);
        old.revision = "aaa".into();
        let before = report(vec![
            result("a", Outcome::Failed("x".into())),
            old,
            result("gone", Outcome::Passed),
        ]);
        let mut now = report(vec![result("a", Outcome::Passed)]);
        now.keep(before, &table).unwrap();
        assert_eq!(now.results.len(), 2);
        assert_eq!(now.counts(Some("k")).passed, 2);
        assert_eq!(now.revisions(), "aaa, abc");
        let mut other = report(vec![]);
        other.source = "1".into();
        assert!(now.keep(other, &table).is_err());
    }
}
