//! Counts of one tier.

use std::fmt;

/// What passed and failed, and how long it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests, and things that are no tests, that failed.
    pub failed: u64,
    /// Wall time.
    pub seconds: f64,
    /// Names of failures.
    pub failures: Vec<String>,
    /// What was tried a second time because the host had failed it, and why.
    pub retries: Vec<String>,
    /// Cells of the poison matrix that tests have seen, as they wrote them.
    pub cells: Vec<String>,
}

impl Tally {
    /// Passed and failed.
    pub fn total(&self) -> u64 {
        self.passed + self.failed
    }

    /// Takes the counts of another; time is this one's own.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.retries.extend(other.retries);
        self.cells.extend(other.cells);
    }

    /// Counts one failure and prints why.
    pub fn fail(&mut self, what: &str, why: &str) {
        println!("FAILED: {what}\n{}", why.trim_end());
        self.failed += 1;
        self.failures.push(what.to_owned());
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed in {:.0} s",
            self.passed, self.failed, self.seconds
        )
    }
}
