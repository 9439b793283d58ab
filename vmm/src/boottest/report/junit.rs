//! JUnit XML, for CI systems.

use crate::boottest::{
    ktap::Status,
    verdict::{CaseResult, Verdict},
};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};
use std::{collections::BTreeMap, time::Duration};

/// A suite for each suite and kernel; sub-tests are test cases of their own behind their scenario.
pub fn junit(results: &[CaseResult]) -> Result<String, quick_junit::SerializeError> {
    let mut suites: BTreeMap<String, TestSuite> = BTreeMap::new();
    for result in results {
        let name = format!("{}@{}", result.suite, result.kernel);
        let suite = suites.entry(name.clone()).or_insert_with(|| TestSuite::new(name));
        suite.add_test_case(case(result));
        for test in &result.subtests {
            let mut status = match test.status {
                Status::Pass => TestCaseStatus::success(),
                Status::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Status::Skip => TestCaseStatus::skipped(),
            };
            if !test.detail.is_empty() && test.status != Status::Pass {
                status.set_message(test.detail.clone());
            }
            suite.add_test_case(TestCase::new(format!("{}: {}", result.scenario, test.name), status));
        }
    }
    let mut report = Report::new("daxvisor");
    report.add_test_suites(suites.into_values());
    report.to_string()
}

fn case(result: &CaseResult) -> TestCase {
    let mut status = match result.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Skip => TestCaseStatus::skipped(),
        // An expected failure is none, and is no pass either.
        _ if result.expected.is_some() => TestCaseStatus::skipped(),
        Verdict::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Verdict::Fail | Verdict::Crash | Verdict::Timeout => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    for attempt in &result.earlier {
        let kind = if attempt.verdict == Verdict::Error {
            NonSuccessKind::Error
        } else {
            NonSuccessKind::Failure
        };
        let mut rerun = TestRerun::new(kind);
        rerun
            .set_message(attempt.reason.clone())
            .set_type(attempt.verdict.to_string());
        status.add_rerun(rerun);
    }
    if result.verdict != Verdict::Pass {
        let message = match &result.expected {
            Some(expected) => format!("expected failure ({expected}): {}", result.reason),
            None => result.reason.clone(),
        };
        status.set_message(message);
        if !matches!(status, TestCaseStatus::Skipped { .. }) {
            status.set_type(result.verdict.to_string());
            let trace = result
                .oops
                .iter()
                .flat_map(|o| &o.trace)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n");
            status.set_description(format!("{}\n{trace}\nfiles: {}", result.reason, result.folder));
        }
    }
    let mut case = TestCase::new(result.id.clone(), status);
    case.set_classname(format!("{}.{}", result.suite, result.kernel));
    case.set_time(Duration::try_from_secs_f64(result.seconds).unwrap_or_default());
    case
}
