//! Counts of one tier.

use std::fmt;

/// Lines of a failure's reason that the end of a run repeats, and characters of each.
const LINES: usize = 20;
const CHARACTERS: usize = 400;

/// A failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// Of the test, or of what is no test.
    pub name: String,
    /// The first lines of what it said.
    pub why: Vec<String>,
}

impl Failure {
    /// Nothing is known yet but the name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            why: Vec::new(),
        }
    }

    /// Takes the next line of the reason: so many, and so much of each.
    pub fn said(&mut self, line: &str) {
        if self.why.len() < LINES && !line.trim().is_empty() {
            self.why.push(line.chars().take(CHARACTERS).collect());
        }
    }
}

/// What passed and failed, and how long it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests, and things that are no tests, that failed.
    pub failed: u64,
    /// Wall time.
    pub seconds: f64,
    /// What failed, and why.
    pub failures: Vec<Failure>,
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
        let mut failure = Failure::new(what);
        why.lines().for_each(|line| failure.said(line));
        self.failures.push(failure);
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
