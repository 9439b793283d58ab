//! The end of a test run: what failed, a table, and the line of counts, which is the last.

use super::Tally;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Prints the report; the exit code says whether nothing failed.
pub fn finish(rows: &[(&str, Tally)]) -> ExitCode {
    let text = text(rows);
    // A reader that has gone does not change the verdict.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
    if rows.iter().all(|(_, tally)| tally.failed == 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn text(rows: &[(&str, Tally)]) -> String {
    let mut text = String::new();
    for (name, tally) in rows {
        for failure in &tally.failures {
            text += &format!("\nfailed: {name}: {}", failure.name);
            for line in &failure.why {
                text += &format!("\n    {line}");
            }
        }
        for retry in &tally.retries {
            text += &format!("\nretried: {name}: {retry}");
        }
    }
    text += &format!(
        "\n{:<10} {:>7} {:>7} {:>7} {:>8}\n",
        "tier", "passed", "failed", "retried", "seconds"
    );
    let (mut passed, mut failed, mut retried, mut seconds) = (0, 0, 0, 0.0);
    for (name, tally) in rows {
        text += &format!(
            "{name:<10} {:>7} {:>7} {:>7} {:>8.0}\n",
            tally.passed,
            tally.failed,
            tally.retries.len(),
            tally.seconds
        );
        passed += tally.passed;
        failed += tally.failed;
        retried += tally.retries.len();
        seconds += tally.seconds;
    }
    text += &format!("{:<10} {passed:>7} {failed:>7} {retried:>7} {seconds:>8.0}\n", "all");
    text + &format!("{passed} passed, {failed} failed\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::tally::Failure;

    #[test]
    fn counts_are_the_last_line() {
        let mut unit = Tally {
            passed: 40,
            seconds: 2.0,
            ..Tally::default()
        };
        unit.failed = 1;
        let mut failure = Failure::new("a::b");
        failure.said("it is 3");
        unit.failures.push(failure);
        let linux = Tally {
            passed: 2,
            retries: vec!["a guest: lost".into()],
            ..Tally::default()
        };
        let text = text(&[("unit", unit), ("linux", linux)]);
        assert!(text.contains("failed: unit: a::b\n    it is 3\n"), "{text}");
        assert!(text.contains("retried: linux: a guest: lost\n"), "{text}");
        assert!(text.ends_with("\n42 passed, 1 failed\n"), "{text}");
    }
}
