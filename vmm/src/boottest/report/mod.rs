//! Results for people and for programs: a table, JSON, JUnit, TAP, one page of HTML. Pure.

mod html;
mod junit;
mod summary;
mod tap;

pub use html::{Files, page};
pub use junit::junit;
pub use summary::summary;
pub use tap::tap;

use super::verdict::CaseResult;
use std::collections::BTreeSet;

/// Kernels' labels, in order.
fn kernels(results: &[CaseResult]) -> Vec<&str> {
    let all: BTreeSet<&str> = results.iter().map(|r| r.kernel.as_str()).collect();
    all.into_iter().collect()
}

/// `suite/scenario` of all cases, in order.
fn scenarios(results: &[CaseResult]) -> Vec<String> {
    let all: BTreeSet<String> = results.iter().map(scenario).collect();
    all.into_iter().collect()
}

fn scenario(result: &CaseResult) -> String {
    format!("{}/{}", result.suite, result.scenario)
}

/// The word for all repetitions of a scenario on a kernel: the worst.
fn cell(results: &[CaseResult], name: &str, kernel: &str) -> Option<String> {
    let ours = results.iter().filter(|r| r.kernel == kernel && scenario(r) == name);
    ours.max_by_key(|r| (!r.is_fine(), r.verdict)).map(CaseResult::word)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod browser_tests;
