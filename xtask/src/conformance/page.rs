//! The page read back: what is in the repository is an earlier run too, for a checkout that has seen none.

use super::{
    job::{Outcome, Result as TestResult},
    report::Report,
};
use anyhow::{Context, Result};

/// The cells of a row.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
    // A bar in a text is escaped.
    let inner = inner.replace("\\|", "\0");
    Some(inner.split('|').map(|cell| cell.trim().replace('\0', "|")).collect())
}

/// Rows of the table whose head begins with `first`; the head is the first of them.
fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(first));
    lines
        .map_while(cells)
        .filter(|row| !row.iter().all(|cell| cell.bytes().all(|b| b == b'-')))
        .collect()
}

/// A cell of the table of tests; none when the test did not run.
fn outcome(cell: &str) -> Option<(Outcome, f64)> {
    if let Some(rest) = cell.strip_prefix("passed (") {
        return Some((Outcome::Passed, rest.strip_suffix(" s)")?.parse().ok()?));
    }
    let (word, reason) = cell.strip_prefix("**")?.split_once("**: ")?;
    let reason = reason.replace("&lt;", "<");
    let of = [Outcome::Failed(reason.clone()), Outcome::Skipped(reason)];
    Some((of.into_iter().find(|outcome| outcome.word() == word)?, 0.0))
}

/// What the page says.
pub fn read(page: &str) -> Result<Report> {
    let said = |before: &str, after: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(before))?;
        Some(line.strip_suffix(after)?.to_owned())
    };
    let sources = said("ndctl ", ").").context("it names no version of ndctl")?;
    let (ndctl, source) = sources
        .split_once(" (Debian source package, SHA-256 ")
        .context("it names no source of ndctl")?;
    let revision = said("daxvisor at commit ", ".").unwrap_or_default();
    let kernels = table(page, "| kernel |");
    let tests = table(page, "| test | machine |");
    let mut results = vec![];
    for (column, kernel) in tests.first().into_iter().flatten().enumerate().skip(2) {
        let result = |test: &str, outcome, seconds| TestResult {
            kernel: kernel.clone(),
            test: test.to_owned(),
            outcome,
            seconds,
            release: kernels
                .iter()
                .find(|row| row[0] == *kernel)
                .and_then(|row| row.get(1).cloned()),
            revision: revision.clone(),
        };
        let ran = tests.iter().skip(1).filter_map(|row| {
            let (outcome, seconds) = outcome(row.get(column)?)?;
            Some(result(row.first()?, outcome, seconds))
        });
        results.extend(ran);
        for row in table(page, "| test | why |").iter().skip(1) {
            if let [test, why] = &row[..] {
                results.push(result(test, Outcome::NotApplicable(why.clone()), 0.0));
            }
        }
    }
    Ok(Report {
        ndctl: ndctl.to_owned(),
        source: source.to_owned(),
        results,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conformance::table::Table, workspace};

    #[test]
    fn what_is_written_is_read_back() {
        let table = Table::load(workspace::root()).unwrap();
        let page = std::fs::read_to_string(workspace::root().join(crate::conformance::PAGE)).unwrap();
        let report = read(&page).unwrap();
        assert!(report.results.len() > 40, "{}", report.results.len());
        assert_eq!(report.markdown(&table).replace("\ndaxvisor at commit .\n", "\n"), page);
    }

    #[test]
    fn reasons_keep_their_bars_and_brackets() {
        let row = cells("| a | **failed**: x \\| y &lt;z> |").unwrap();
        assert_eq!(row, ["a", "**failed**: x | y &lt;z>"]);
        assert_eq!(outcome(&row[1]), Some((Outcome::Failed("x | y <z>".into()), 0.0)));
        assert_eq!(outcome("passed (39 s)"), Some((Outcome::Passed, 39.0)));
        assert_eq!(outcome("did not run"), None);
    }
}
