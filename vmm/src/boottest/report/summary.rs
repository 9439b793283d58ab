//! The table at the end of a run.

use super::{cell, kernels, scenarios};
use crate::boottest::verdict::{CaseResult, Verdict};
use std::{fmt::Write, path::Path};

/// Scenarios by kernels, then what is to be looked at, then counts.
pub fn summary(results: &[CaseResult], out: &Path) -> String {
    let kernels = kernels(results);
    let scenarios = scenarios(results);
    let first = scenarios.iter().map(String::len).chain([8]).max().unwrap_or(8);
    let mut text = format!("\n{:first$}", "scenario");
    for kernel in &kernels {
        let _ = write!(text, "  {kernel:8}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    for scenario in &scenarios {
        let _ = write!(text, "{scenario:first$}");
        for kernel in &kernels {
            let width = kernel.len().max(8);
            let _ = write!(
                text,
                "  {:width$}",
                cell(results, scenario, kernel).as_deref().unwrap_or("-")
            );
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for result in results.iter().filter(|r| r.verdict != Verdict::Pass || r.is_flaky()) {
        text += &told(result, out);
    }
    let counts: Vec<_> = Verdict::ALL
        .iter()
        .map(|v| (results.iter().filter(|r| r.verdict == *v).count(), v))
        .filter(|(n, _)| *n > 0)
        .map(|(n, v)| format!("{n} {v}"))
        .collect();
    let expected = results.iter().filter(|r| r.expected.is_some()).count();
    let flaky = results.iter().filter(|r| r.is_flaky()).count();
    let _ = write!(text, "\n{} cases: {}", results.len(), counts.join(", "));
    if expected > 0 {
        let _ = write!(text, "; {expected} of the failures expected");
    }
    if flaky > 0 {
        let _ = write!(text, "; {flaky} passed only on a retry");
    }
    text.push('\n');
    text
}

fn told(result: &CaseResult, out: &Path) -> String {
    let reason = if result.is_flaky() {
        "it passed only on a retry"
    } else {
        result.reason.as_str()
    };
    let mut text = format!("\n{}: {}: {reason}\n", result.word(), result.id);
    if let Some(expected) = &result.expected {
        let _ = writeln!(text, "  expected: {expected}");
    }
    for attempt in &result.earlier {
        let _ = writeln!(text, "  attempt before: {}: {}", attempt.verdict, attempt.reason);
    }
    if let Some(bad) = &result.bad_line {
        let _ = writeln!(text, "  console: {}", bad.line);
    }
    if let Some(oops) = result.oops.as_ref().filter(|o| o.rip.is_some() || !o.trace.is_empty()) {
        let place = oops.culprit().unwrap_or_default();
        let trace: Vec<_> = oops.trace.iter().take(6).map(String::as_str).collect();
        let _ = writeln!(text, "  in {place}; trace: {}", trace.join(" < "));
    }
    if result.verdict != Verdict::Skip {
        let _ = writeln!(text, "  files: {}", out.join(&result.folder).display());
    }
    text
}
