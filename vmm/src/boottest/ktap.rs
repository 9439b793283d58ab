//! KTAP, the kernel's form of TAP: results with nested tests, from a guest. Pure; the input is hostile.

use serde::{Deserialize, Serialize};

/// Most tests that are kept.
const MOST: usize = 10_000;

/// How a sub-test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// `ok`.
    Pass,
    /// `not ok`.
    Fail,
    /// `# SKIP`.
    Skip,
}

/// One result line without results below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtest {
    /// Names from the outermost test to this one, with `/` between them.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What it said of that.
    pub detail: String,
}

struct Node {
    indent: usize,
    name: String,
    status: Status,
    detail: String,
    below: Vec<Subtest>,
}

/// Reads the tests; an error says what is missing from them.
pub fn parse(text: &str) -> Result<Vec<Subtest>, String> {
    let mut pending: Vec<Node> = Vec::new();
    // Promised and seen, by indentation.
    let mut plan: Option<(usize, usize)> = None;
    let mut results = 0;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(count) = trimmed
            .strip_prefix("1..")
            .and_then(|n| n.split_whitespace().next()?.parse().ok())
        {
            if plan.is_none_or(|(at, _)| indent <= at) {
                plan = Some((indent, count));
            }
        } else if let Some((status, name, detail)) = result(trimmed) {
            results += 1;
            if results > MOST {
                return Err(format!("it has more than {MOST} results"));
            }
            let first = pending.iter().rposition(|n| n.indent <= indent).map_or(0, |at| at + 1);
            let below: Vec<_> = pending.split_off(first).into_iter().flat_map(Node::flat).collect();
            pending.push(Node {
                indent,
                name,
                status,
                detail,
                below,
            });
        } else if trimmed.starts_with("Bail out!") {
            return Err(trimmed.to_owned());
        }
    }
    let outer = pending.iter().map(|n| n.indent).min().unwrap_or(0);
    let seen = pending.iter().filter(|n| n.indent == outer).count();
    match plan {
        Some((at, promised)) if at <= outer && promised != seen => {
            return Err(format!("it promised {promised} tests and has results of {seen}"));
        }
        _ if results == 0 && plan.is_none_or(|(_, promised)| promised != 0) => {
            return Err("it has no result".to_owned());
        }
        _ => {}
    }
    Ok(pending.into_iter().flat_map(Node::flat).collect())
}

impl Node {
    fn flat(self) -> Vec<Subtest> {
        let Self {
            name,
            status,
            detail,
            mut below,
            ..
        } = self;
        for test in &mut below {
            test.name = format!("{name}/{}", test.name);
        }
        // A test that failed although all below it passed has a reason of its own.
        let own = below.is_empty() || status == Status::Fail && below.iter().all(|t| t.status != Status::Fail);
        if own {
            below.push(Subtest { name, status, detail });
        }
        below
    }
}

/// `ok 3 - name # SKIP why` -> its parts.
fn result(line: &str) -> Option<(Status, String, String)> {
    let (ok, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let rest = rest.trim_start().strip_prefix("- ").unwrap_or(rest).trim();
    let (name, detail) = rest.split_once(" # ").map_or((rest, ""), |(n, d)| (n.trim(), d.trim()));
    let (name, detail) = match name.strip_prefix("# ") {
        Some(detail) => ("", detail),
        None => (name, detail),
    };
    let skipped = detail.get(..4).is_some_and(|d| d.eq_ignore_ascii_case("skip"));
    let status = match (skipped, ok) {
        (true, _) => Status::Skip,
        (false, true) => Status::Pass,
        (false, false) => Status::Fail,
    };
    let name = if name.is_empty() { number } else { name };
    Some((status, name.to_owned(), detail.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_results_belong_to_the_result_behind_them() {
        let text = "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n    # Subtest: inner\n    ok 1 a\n  ok 1 inner\n  not ok 2 b # it broke\n# b: failed\nnot ok 1 suite\nok 2 - other # SKIP no device\n";
        let tests = parse(text).unwrap();
        let seen: Vec<_> = tests
            .iter()
            .map(|t| (t.name.as_str(), t.status, t.detail.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("suite/inner/a", Status::Pass, ""),
                ("suite/b", Status::Fail, "it broke"),
                ("other", Status::Skip, "SKIP no device")
            ]
        );
    }

    #[test]
    fn tests_that_are_missing_are_told() {
        assert_eq!(
            parse("1..2\nok 1 a\n").unwrap_err(),
            "it promised 2 tests and has results of 1"
        );
        assert_eq!(parse("hello\n").unwrap_err(), "it has no result");
        assert_eq!(parse("1..0 # SKIP\n").unwrap(), []);
        assert!(parse("1..1\nBail out! no memory\n").unwrap_err().contains("no memory"));
    }

    proptest! {
        #[test]
        fn any_text_is_ktap_or_an_error(text in "((not )?ok|1\\.\\.| |#|\n|[0-9]|a){0,60}") {
            let _ = parse(&text);
        }
    }
}
