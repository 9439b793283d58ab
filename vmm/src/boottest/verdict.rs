//! From what became of a guest to a verdict, and from verdicts to an exit code. Pure.

use super::{
    console::{BadLine, Severity},
    ktap::Subtest,
    oops::Oops,
    scenario::ExpectedFailure,
    version,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is said of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything was as expected.
    Pass,
    /// An expectation did not hold, or the console has a forbidden line.
    Fail,
    /// The kernel died.
    Crash,
    /// Something did not happen in time.
    Timeout,
    /// The test could not be run: host, monitor, kernel file or disk.
    Error,
    /// A requirement is not met.
    Skip,
}

impl Verdict {
    /// In the order of tables.
    pub const ALL: [Self; 6] = [
        Self::Pass,
        Self::Fail,
        Self::Crash,
        Self::Timeout,
        Self::Error,
        Self::Skip,
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Skip => "skip",
        })
    }
}

/// Why the steps of a case were not done to their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// An expectation did not hold.
    Failed(String),
    /// A deadline passed.
    Late(String),
    /// Not the guest's fault.
    Broken(String),
    /// The machine ended by itself, with this exit code of `daxvisor run`.
    Gone(i32),
    /// A requirement is not met.
    Unmet(String),
    /// The user wants to stop.
    Interrupted,
}

/// The verdict and its reason in one sentence; none when there is none because the user stopped it.
pub fn decide(
    trouble: Option<&Trouble>,
    bad: Option<&(BadLine, Severity)>,
    oops: Option<&Oops>,
) -> Option<(Verdict, String)> {
    let quoted = bad.map(|(bad, _)| format!("console ({}): {}", bad.pattern, bad.line));
    let with = |reason: String| match &quoted {
        Some(line) => format!("{reason}; {line}"),
        None => reason,
    };
    Some(match (trouble, bad) {
        (Some(Trouble::Interrupted), _) => return None,
        (Some(Trouble::Broken(why)), _) => (Verdict::Error, why.clone()),
        (Some(Trouble::Unmet(why)), _) => (Verdict::Skip, why.clone()),
        (_, Some((bad, Severity::Crash))) => {
            let place = oops
                .and_then(Oops::culprit)
                .map(|c| format!(" in {c}"))
                .unwrap_or_default();
            (Verdict::Crash, format!("{}{place}", bad.line))
        }
        (Some(Trouble::Gone(4)), _) => (Verdict::Crash, with("the guest's kernel panicked".to_owned())),
        (Some(Trouble::Gone(5)), _) => (Verdict::Crash, with("triple fault in the guest".to_owned())),
        (Some(Trouble::Gone(code @ (0 | 3))), _) => {
            let how = if *code == 0 { "powered off" } else { "reset" };
            (
                Verdict::Fail,
                with(format!("the guest {how} before the scenario's end")),
            )
        }
        (Some(Trouble::Gone(124)), _) => (Verdict::Timeout, with("the machine's time was over".to_owned())),
        (Some(Trouble::Gone(code)), _) => (Verdict::Error, with(format!("daxvisor ended with exit code {code}"))),
        (Some(Trouble::Failed(why) | Trouble::Late(why)), Some((bad, _))) if bad.pattern == "oom" => (
            Verdict::Fail,
            format!("the guest is out of memory: {}; {why}", bad.line),
        ),
        (Some(Trouble::Late(why)), _) => (Verdict::Timeout, with(why.clone())),
        (Some(Trouble::Failed(why)), _) => (Verdict::Fail, with(why.clone())),
        (None, Some((bad, _))) => (Verdict::Fail, format!("console ({}): {}", bad.pattern, bad.line)),
        (None, None) => (Verdict::Pass, String::new()),
    })
}

/// Puts known failures in: they count as well when they fail as they are known to, and as failures when they pass.
pub fn settle(
    verdict: Verdict,
    reason: String,
    known: &[ExpectedFailure],
    case: &str,
    kernel: (&str, &str),
) -> (Verdict, String, Option<String>) {
    let (label, release) = kernel;
    let here = |e: &&ExpectedFailure| {
        let kernel = e.kernel == label || version::satisfies(release, &e.kernel).unwrap_or(false);
        kernel && e.case.as_deref().is_none_or(|piece| case.contains(piece))
    };
    let Some(expected) = known.iter().find(here) else {
        return (verdict, reason, None);
    };
    match verdict {
        Verdict::Pass => {
            let why = format!(
                "it passed, and was expected to fail on '{}': {}; hint: remove the entry",
                expected.kernel, expected.reason
            );
            (Verdict::Fail, why, None)
        }
        Verdict::Fail | Verdict::Crash | Verdict::Timeout
            if expected.contains.as_deref().is_none_or(|text| reason.contains(text)) =>
        {
            (verdict, reason, Some(expected.reason.clone()))
        }
        _ => (verdict, reason, None),
    }
}

/// What is known of one case that was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CaseResult {
    /// `suite/scenario[shape]@kernel`, with `#n` when it is repeated.
    pub id: String,
    /// Suite.
    pub suite: String,
    /// Scenario with its shape.
    pub scenario: String,
    /// Kernel's label.
    pub kernel: String,
    /// `uname -r`, once known.
    pub release: Option<String>,
    /// What is said of it.
    pub verdict: Verdict,
    /// Why, in one sentence; empty when it passed.
    pub reason: String,
    /// Why a failure was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Attempts before this one, which did not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// The console's first bad line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_line: Option<BadLine>,
    /// The kernel's report behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oops: Option<Oops>,
    /// Steps that were begun.
    #[serde(default)]
    pub steps: Vec<StepResult>,
    /// Tests that the guest told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtests: Vec<Subtest>,
    /// Wall time of all of it.
    pub seconds: f64,
    /// Wall time from the monitor's start to the agent's hello.
    pub boot_seconds: Option<f64>,
    /// The guest's own time at the hello.
    pub guest_boot_seconds: Option<f64>,
    /// Folder of its files, relative to the results.
    pub folder: String,
}

/// An attempt that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What was said of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// A step that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// Its name.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Whether its expectation held.
    pub ok: bool,
}

impl CaseResult {
    /// Whether it passed only after it had not.
    pub fn is_flaky(&self) -> bool {
        self.verdict == Verdict::Pass && !self.earlier.is_empty()
    }

    /// Whether nobody has to look at it.
    pub fn is_fine(&self) -> bool {
        match self.verdict {
            Verdict::Pass => self.earlier.is_empty(),
            Verdict::Skip => true,
            Verdict::Fail | Verdict::Crash | Verdict::Timeout => self.expected.is_some(),
            Verdict::Error => false,
        }
    }

    /// One word for tables.
    pub fn word(&self) -> String {
        match (self.is_flaky(), &self.expected) {
            (true, _) => "flaky".to_owned(),
            (_, Some(_)) => format!("x{}", self.verdict),
            _ => self.verdict.to_string(),
        }
    }
}

/// What the program ends with: 0 nothing to complain of, 1 something failed, 3 something could not be tested. A failure is
/// known whatever else is not, so it comes first.
pub fn exit_code<'a>(results: impl IntoIterator<Item = &'a CaseResult>, bisect: bool) -> u8 {
    let infrastructure = if bisect { 125 } else { 3 };
    let (mut tested, mut error, mut failed) = (false, false, false);
    for result in results {
        tested |= !matches!(result.verdict, Verdict::Skip | Verdict::Error);
        error |= result.verdict == Verdict::Error;
        failed |= !result.is_fine() && result.verdict != Verdict::Error;
    }
    match (failed, error || !tested) {
        (true, _) => 1,
        (false, true) => infrastructure,
        (false, false) => 0,
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
pub(crate) mod tests;
