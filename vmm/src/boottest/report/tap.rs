//! TAP version 14 with sub-tests.

use crate::boottest::{
    ktap::{Status, Subtest},
    verdict::{CaseResult, Verdict},
};
use std::fmt::Write;

/// One line for each case, reasons as comments.
pub fn tap(results: &[CaseResult]) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", results.len());
    for (at, result) in results.iter().enumerate() {
        if !result.subtests.is_empty() {
            let _ = writeln!(
                text,
                "# Subtest: {}\n    1..{}",
                name(&result.id),
                result.subtests.len()
            );
            for (at, test) in result.subtests.iter().enumerate() {
                let _ = writeln!(text, "    {}", subtest(at + 1, test));
            }
        }
        let ok = if matches!(result.verdict, Verdict::Pass | Verdict::Skip) && !result.is_flaky() {
            "ok"
        } else {
            "not ok"
        };
        let directive = match (&result.expected, result.verdict) {
            (Some(why), _) => format!(" # TODO {}", one_line(why)),
            (None, Verdict::Skip) => format!(" # SKIP {}", one_line(&result.reason)),
            _ => String::new(),
        };
        let _ = writeln!(text, "{ok} {} - {}{directive}", at + 1, name(&result.id));
        if !matches!(result.verdict, Verdict::Pass | Verdict::Skip) {
            let _ = writeln!(text, "# {}: {}", result.verdict, one_line(&result.reason));
        }
        for attempt in &result.earlier {
            let _ = writeln!(
                text,
                "# attempt before: {}: {}",
                attempt.verdict,
                one_line(&attempt.reason)
            );
        }
    }
    text
}

fn subtest(number: usize, test: &Subtest) -> String {
    let (ok, directive) = match test.status {
        Status::Pass => ("ok", String::new()),
        Status::Fail => ("not ok", String::new()),
        Status::Skip => ("ok", " # SKIP".to_owned()),
    };
    format!("{ok} {number} - {}{directive}", name(&test.name))
}

/// A name may not look like a directive.
fn name(text: &str) -> String {
    one_line(text).replace('#', "\\#")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
