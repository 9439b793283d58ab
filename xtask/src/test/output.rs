//! What test programs say, read as counts. The result lines of libtest and nextest are the only source of numbers.

use super::Tally;

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
            Speaker::Libtest => self.libtest(line.trim()),
            Speaker::Nextest => self.nextest(line.trim()),
        }
    }

    fn libtest(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            // `ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.10s`
            let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
            self.count(counts.split(';'));
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.tally.failures.push(name.to_owned());
        }
    }

    fn nextest(&mut self, line: &str) {
        const BAD: [&str; 5] = ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV [", "SIGKILL ["];
        if let Some((_, counts)) = line.strip_prefix("Summary [").and_then(|l| l.split_once(" run: ")) {
            // `Summary [   1.2s] 120 tests run: 118 passed (1 slow), 1 failed, 1 timed out, 0 skipped`
            self.count(counts.split(','));
        } else if BAD.iter().any(|bad| line.starts_with(bad)) {
            let name = line.split_once("] ").map_or(line, |(_, name)| name).trim();
            // nextest says it again behind its summary.
            if !self.tally.failures.iter().any(|told| told == name) {
                self.tally.failures.push(name.to_owned());
            }
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
        if !success && self.tally.failed == failed_before {
            self.tally
                .fail(what, "error: it ended with an error and reported no failed test");
        }
    }
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
        assert_eq!(tally.failures, ["m::b"]);
    }

    #[test]
    fn nextest_lines_are_counted() {
        let tally = read(
            Speaker::Nextest,
            "        FAIL [   0.004s] (2/3) devices label::torn\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n     Summary [   1.234s] 120 tests run: 117 passed (1 slow), 1 failed, 2 timed out, 4 skipped\n\
             \x20       FAIL [   0.004s] (2/3) devices label::torn",
        );
        assert_eq!((tally.passed, tally.failed), (117, 3));
        assert_eq!(tally.failures.len(), 1);
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
    fn crash_without_a_result_line_is_a_failure() {
        let mut reader = Reader::default();
        reader.ended("vmm", false, 0);
        assert_eq!(reader.tally.failed, 1);
        reader.line("test result: FAILED. 0 passed; 1 failed; 0 ignored");
        reader.ended("devices", false, 1);
        assert_eq!(reader.tally.failed, 2);
    }
}
