//! What test programs say, read as counts. The result lines of libtest and nextest are the only source of numbers.

use super::{Tally, tally::Failure};
use std::mem::take;

/// Whose lines count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speaker {
    /// libtest's own.
    #[default]
    Libtest,
    /// nextest's. It quotes what libtest said of each failure, which must not count again.
    Nextest,
}

/// Collects the counts of a stream of lines.
#[derive(Debug, Default)]
pub struct Reader {
    /// Who is listened to.
    pub speaker: Speaker,
    /// So far.
    pub tally: Tally,
    /// A program of libtest's has begun and has not said its counts.
    unfinished: bool,
    /// The test whose line libtest has begun, and ends when other lines have come between.
    begun: Option<String>,
    /// The failure whose output follows.
    repeated: Option<String>,
    /// libtest lists the names of failures.
    listing: bool,
}

impl Reader {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        // libtest may have begun a line on the same terminal: `test name ... RETRY: what: why`.
        if let Some((_, retry)) = line.split_once("RETRY: ") {
            self.tally.retries.push(retry.trim().to_owned());
        }
        if let Some((_, cell)) = line.split_once("CELL: ") {
            self.tally.cells.push(cell.trim().to_owned());
        }
        match self.speaker {
            Speaker::Libtest => self.libtest(line),
            Speaker::Nextest => self.nextest(line),
        }
    }

    fn libtest(&mut self, line: &str) {
        let text = line.trim();
        if is_beginning(text) {
            self.cut_short();
            self.unfinished = true;
        } else if let Some(counts) = text.strip_prefix("test result: ") {
            // `ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.10s`
            let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
            self.count(counts.split(';'));
            (self.unfinished, self.listing) = (false, false);
            (self.begun, self.repeated) = (None, None);
        } else if let Some(name) = section(text) {
            self.listing = false;
            self.has_failed(name);
            self.repeated = Some(name.to_owned());
        } else if text == "failures:" {
            self.listing = true;
            self.repeated = None;
        } else if let Some(name) = &self.repeated {
            if let Some(failure) = self.tally.failures.iter_mut().rev().find(|one| one.name == *name) {
                failure.said(line);
            }
        } else if self.listing && line.starts_with("    ") && !text.is_empty() {
            self.has_failed(text);
        } else {
            self.verdict(line.trim_start());
        }
    }

    /// Lists a failure, once.
    fn has_failed(&mut self, name: &str) {
        if !self.tally.failures.iter().any(|one| one.name == name) {
            self.tally.failures.push(Failure::new(name));
        }
    }

    /// `test NAME ... FAILED`, or with what the test itself has printed between the two.
    fn verdict(&mut self, line: &str) {
        let begins = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let verdict = if let Some((name, verdict)) = begins {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.begun = Some(name.to_owned());
            verdict
        } else {
            line
        };
        match verdict.trim_end() {
            "FAILED" => self
                .tally
                .failures
                .extend(self.begun.take().as_deref().map(Failure::new)),
            "ok" | "ignored" => self.begun = None,
            _ => {}
        }
    }

    /// A program that has begun and says nothing more was cut short, which is a failure of the test that it was in.
    fn cut_short(&mut self) {
        if take(&mut self.unfinished) {
            let what = self.begun.take().unwrap_or_else(|| "a test program".to_owned());
            self.tally.fail(&what, "error: its program ended in the middle");
        }
        (self.begun, self.repeated, self.listing) = (None, None, false);
    }

    fn nextest(&mut self, line: &str) {
        let text = line.trim();
        if let Some((_, counts)) = text.strip_prefix("Summary [").and_then(|l| l.split_once(" run: ")) {
            // `Summary [   1.2s] 120 tests run: 118 passed (1 slow), 1 failed, 1 timed out, 0 skipped`
            self.count(counts.split(','));
            self.repeated = None;
        } else if let Some((status, name)) = status(text) {
            // nextest says it again behind its summary.
            let again = self.tally.failures.iter().any(|told| told.name == name);
            self.repeated = (is_bad(status) && !again).then(|| name.to_owned());
            if self.repeated.is_some() {
                self.tally.failures.push(Failure::new(name));
            }
        } else if text.starts_with("────") {
            self.repeated = None;
        } else if self.repeated.is_some()
            && let Some(failure) = self.tally.failures.last_mut()
        {
            failure.said(line);
        }
    }

    fn count<'a>(&mut self, counts: impl Iterator<Item = &'a str>) {
        for count in counts {
            let mut words = count.split_whitespace();
            let Some(n) = words.next().and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            match words.next() {
                Some("passed") => self.tally.passed += n,
                Some("failed" | "timed" | "exec") => self.tally.failed += n,
                _ => {}
            }
        }
    }

    /// The end of a program. One that failed without counting a failure (it crashed, or was not built) is a failure.
    pub fn ended(&mut self, what: &str, success: bool, failed_before: u64) {
        self.cut_short();
        if !success && self.tally.failed == failed_before {
            self.tally
                .fail(what, "error: it ended with an error and reported no failed test");
        }
    }
}

/// `running 3 tests`.
fn is_beginning(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], ["running", n, "test" | "tests"] if n.parse::<u64>().is_ok())
}

/// nextest's word on a test, and which one that is: `FAIL [   0.004s] (2/3) devices label::torn`.
fn status(line: &str) -> Option<(&str, &str)> {
    let (status, rest) = line.split_once(" [")?;
    let (_, name) = rest.split_once("] ")?;
    let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " +-#".contains(c);
    (!status.is_empty() && status.chars().all(is_word)).then(|| (status, name.trim()))
}

/// Failed, whatever way: also by a signal (`SIGABRT`, `ABORT SIG 6`), or by what it left behind (`LEAK-FAIL`).
fn is_bad(status: &str) -> bool {
    ["FAIL", "TIMEOUT", "SIG", "ABORT"]
        .iter()
        .any(|bad| status.contains(bad))
}

/// The test whose output follows: `---- NAME stdout ----`.
fn section(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    name.strip_suffix(" stdout").or_else(|| name.strip_suffix(" stderr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(speaker: Speaker, text: &str) -> Tally {
        let mut reader = Reader {
            speaker,
            ..Reader::default()
        };
        text.lines().for_each(|line| reader.line(line));
        reader.tally
    }

    #[test]
    fn libtest_lines_are_counted() {
        let tally = read(
            Speaker::Libtest,
            "running 3 tests\ntest a ... ok\ntest m::b ... FAILED\ntest result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s\n\
             test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!((tally.passed, tally.failed), (7, 1));
        assert_eq!(tally.failures, [Failure::new("m::b")]);
    }

    #[test]
    fn failure_has_its_name_and_its_reason_whatever_the_test_prints() {
        let tally = read(
            Speaker::Libtest,
            "test m::a ... CELL: {}\nCELL: {}\nFAILED\ntest m::b ... ok\n\nfailures:\n\n---- m::a stdout ----\nError: it is 3\n  FAILED\n\n\n\
             failures:\n    m::a\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        assert_eq!((tally.passed, tally.failed, tally.cells.len()), (1, 1, 2));
        let [failure] = &tally.failures[..] else {
            panic!("{:?}", tally.failures)
        };
        assert_eq!(failure.name, "m::a");
        assert_eq!(failure.why, ["Error: it is 3", "  FAILED"]);
    }

    #[test]
    fn reason_is_cut_where_it_is_a_log() {
        let log = "x".repeat(5000) + "\n";
        let said = format!(
            "test a ... FAILED\n---- a stdout ----\n{}failures:\n    a\n",
            log.repeat(500)
        );
        let tally = read(Speaker::Libtest, &said);
        let characters: usize = tally.failures[0].why.iter().map(String::len).sum();
        assert!((1000..10_000).contains(&characters), "{characters}");
    }

    #[test]
    fn nextest_lines_are_counted() {
        let tally = read(
            Speaker::Nextest,
            "        FAIL [   0.004s] (2/3) devices label::torn\n  stdout ───\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n  stderr ───\n\n    it is 3\n\n\
             \x20    SIGBUS [   0.104s] (3/3) vmm memory::lost\n────────────\n     Summary [   1.234s] 120 tests run: 117 passed (1 slow), 1 failed, 2 timed out, 4 skipped\n\
             \x20       FAIL [   0.004s] (2/3) devices label::torn",
        );
        assert_eq!((tally.passed, tally.failed), (117, 3));
        let names: Vec<_> = tally.failures.iter().map(|failure| failure.name.as_str()).collect();
        assert_eq!(names, ["(2/3) devices label::torn", "(3/3) vmm memory::lost"]);
        assert_eq!(tally.failures[0].why.last().map(String::as_str), Some("    it is 3"));
        assert!(tally.failures[1].why.is_empty(), "{:?}", tally.failures[1]);
        let cut_short = read(
            Speaker::Nextest,
            "Summary [ 3s] 2/120 tests run: 1 passed, 1 failed, 0 skipped",
        );
        assert_eq!((cut_short.passed, cut_short.failed), (1, 1));
    }

    #[test]
    fn retries_are_counted_wherever_they_stand_in_a_line() {
        let tally = read(
            Speaker::Libtest,
            "RETRY: a guest: lost (retry 1 of this test program)\ntest a ... RETRY: b guest: lost\ntest a ... CELL: {}\nok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!((tally.passed, tally.failed), (1, 0));
        assert_eq!(
            tally.retries,
            ["a guest: lost (retry 1 of this test program)", "b guest: lost"]
        );
        assert_eq!(tally.cells, ["{}"]);
    }

    #[test]
    fn failure_has_a_name_where_others_print_into_its_line() {
        let tally = read(
            Speaker::Libtest,
            "running 2 tests\ntest a ... FAILEDRETRY: b: lost\ntest b - should panic ... FAILED\nfailures:\n\n---- a stdout ----\nit is 3\n\n\
             failures:\n    a\n    b\n    c\n\ntest result: FAILED. 0 passed; 3 failed; 0 ignored",
        );
        let names: Vec<_> = tally.failures.iter().map(|failure| failure.name.as_str()).collect();
        assert_eq!((tally.failed, names), (3, vec!["b", "a", "c"]));
        assert_eq!(tally.failures[1].why, ["it is 3"]);
    }

    #[test]
    fn program_that_ends_in_the_middle_is_a_failure_of_the_test_that_it_was_in() {
        let mut reader = Reader::default();
        let lines = "running 2 tests\ntest a ... FAILED\ntest b ... \nrunning 1 test\ntest c ... FAILED\n\
                     test result: FAILED. 0 passed; 1 failed; 0 ignored\nrunning 3 tests";
        lines.lines().for_each(|line| reader.line(line));
        reader.ended("vmm", false, 0);
        let names: Vec<_> = reader.tally.failures.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((reader.tally.failed, names), (3, vec!["a", "b", "c", "a test program"]));
    }

    #[test]
    fn crash_without_a_result_line_is_a_failure() {
        let mut reader = Reader::default();
        reader.ended("vmm", false, 0);
        assert_eq!(reader.tally.failed, 1);
        reader.line("test result: FAILED. 0 passed; 1 failed; 0 ignored");
        reader.ended("devices", false, 1);
        assert_eq!(reader.tally.failed, 2);
    }
}
