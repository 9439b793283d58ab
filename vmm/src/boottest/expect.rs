//! Whether what came of a step is what was expected. Pure; a failure is one sentence that quotes both.

use super::{
    scenario::{Expect, JsonExpect, TextExpect},
    steps::regex,
};
use agent_protocol::ExitStatus;
use serde_json::Value;
use serde_json_path::JsonPath;

/// Characters of an output that a failure quotes.
const QUOTE: usize = 400;

/// How a step's action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A program, with its status.
    Exit(ExitStatus),
    /// Something else was done.
    Done,
    /// Something else could not be done: the standard error says why.
    Refused,
}

/// What a step left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// How it ended.
    pub end: End,
    /// Standard output, a file's content, or an answer as JSON.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Says what is wrong, if anything is.
pub fn check(expect: &Expect, got: &Got) -> Result<(), String> {
    match got.end {
        End::Exit(status) => check_status(expect, status, got)?,
        End::Done if expect.fails => return Err(format!("it was done, expected a refusal: {}", quote(&got.stdout))),
        End::Refused if !expect.fails => return Err(quote(&got.stderr)),
        End::Done | End::Refused => {}
    }
    check_text("stdout", &expect.stdout, &got.stdout)?;
    check_text("stderr", &expect.stderr, &got.stderr)?;
    if expect.json.is_empty() {
        return Ok(());
    }
    // ndctl says nothing at all when there is nothing to list.
    let text = if got.stdout.trim().is_empty() {
        "[]"
    } else {
        got.stdout.as_str()
    };
    let value: Value = serde_json::from_str(text).map_err(|e| format!("stdout is no JSON ({e}): {}", quote(text)))?;
    expect.json.iter().try_for_each(|json| check_json(json, &value))
}

fn check_status(expect: &Expect, status: ExitStatus, got: &Got) -> Result<(), String> {
    let wanted = expect.status.unwrap_or(0);
    let fine = match status {
        ExitStatus::Code(code) if expect.fails => code != 0,
        ExitStatus::Code(code) => code == wanted,
        ExitStatus::Signal(_) => false,
    };
    if fine {
        return Ok(());
    }
    let was = match status {
        ExitStatus::Code(code) => format!("exit status {code}"),
        ExitStatus::Signal(signal) => format!("killed by signal {signal}"),
    };
    let wanted = if expect.fails {
        "a failure".to_owned()
    } else {
        wanted.to_string()
    };
    let said = if got.stderr.trim().is_empty() {
        &got.stdout
    } else {
        &got.stderr
    };
    Err(format!("{was}, expected {wanted}: {}", quote(said)))
}

fn check_text(what: &str, expect: &TextExpect, text: &str) -> Result<(), String> {
    let text = text.trim();
    let quoted = || quote(text);
    if let Some(wanted) = expect.equals.as_deref().map(str::trim).filter(|w| *w != text) {
        return Err(format!("{what} is {}, expected {}", quoted(), quote(wanted)));
    }
    if let Some(wanted) = expect.contains.iter().find(|w| !text.contains(w.as_str())) {
        return Err(format!("{what} has no {}: {}", quote(wanted), quoted()));
    }
    if let Some(bad) = expect.lacks.iter().find(|b| text.contains(b.as_str())) {
        return Err(format!("{what} has {}: {}", quote(bad), quoted()));
    }
    for pattern in &expect.matches {
        if !regex(pattern)?.is_match(text) {
            return Err(format!("{what} does not match {}: {}", quote(pattern), quoted()));
        }
    }
    if expect.at_least.is_some() || expect.at_most.is_some() {
        let number = parse_number(text).ok_or_else(|| format!("{what} is no number: {}", quoted()))?;
        check_bounds(number, expect.at_least, expect.at_most).map_err(|e| format!("{what} is {e}"))?;
    }
    Ok(())
}

pub(super) fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn check_bounds(number: i64, least: Option<i64>, most: Option<i64>) -> Result<(), String> {
    match (least, most) {
        (Some(least), _) if number < least => Err(format!("{number}, expected at least {least}")),
        (_, Some(most)) if number > most => Err(format!("{number}, expected at most {most}")),
        _ => Ok(()),
    }
}

fn check_json(expect: &JsonExpect, value: &Value) -> Result<(), String> {
    let JsonExpect { path, .. } = expect;
    let query = JsonPath::parse(path).map_err(|e| format!("'{path}' is no JSONPath: {e}"))?;
    let found = query.query(value).all();
    let whole = || quote(&value.to_string());
    match expect.count {
        Some(count) if found.len() != count => {
            return Err(format!(
                "{path} has {} values, expected {count}: {}",
                found.len(),
                whole()
            ));
        }
        None if found.is_empty() => return Err(format!("{path} is not there: {}", whole())),
        _ => {}
    }
    for value in found {
        if let Some(wanted) = &expect.equals {
            let wanted = serde_json::to_value(wanted).map_err(|e| format!("{path}: {e}"))?;
            if *value != wanted {
                return Err(format!("{path} is {value}, expected {wanted}"));
            }
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let Some(pattern) = &expect.matches
            && !regex(pattern)?.is_match(&text)
        {
            return Err(format!("{path} does not match {}: {}", quote(pattern), quote(&text)));
        }
        if expect.at_least.is_some() || expect.at_most.is_some() {
            let number = value.as_i64().or_else(|| parse_number(&text));
            let number = number.ok_or_else(|| format!("{path} is no number: {}", quote(&text)))?;
            check_bounds(number, expect.at_least, expect.at_most).map_err(|e| format!("{path} is {e}"))?;
        }
    }
    Ok(())
}

/// One line in quotes, shortened.
pub(super) fn quote(text: &str) -> String {
    let mut short: String = text.trim().chars().take(QUOTE).collect();
    if text.trim().chars().count() > QUOTE {
        short.push('…');
    }
    format!("'{}'", short.replace('\n', " | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(stdout: &str) -> Got {
        Got {
            end: End::Exit(ExitStatus::Code(0)),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }

    fn expect(text: &str) -> Expect {
        toml::from_str(text).unwrap()
    }

    fn fails(text: &str, stdout: &str, with: &str) {
        let error = check(&expect(text), &got(stdout)).unwrap_err();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn nothing_said_means_exit_status_0() {
        check(&Expect::default(), &got("x")).unwrap();
        let bad = Got {
            end: End::Exit(ExitStatus::Code(3)),
            stderr: "no such device\n".into(),
            ..got("")
        };
        assert_eq!(
            check(&Expect::default(), &bad).unwrap_err(),
            "exit status 3, expected 0: 'no such device'"
        );
        check(&expect("status = 3"), &bad).unwrap();
        check(&expect("fails = true"), &bad).unwrap();
        let killed = Got {
            end: End::Exit(ExitStatus::Signal(9)),
            ..got("")
        };
        assert!(
            check(&expect("fails = true"), &killed)
                .unwrap_err()
                .contains("signal 9")
        );
    }

    #[test]
    fn a_refusal_is_a_failure_unless_it_is_expected() {
        let refused = Got {
            end: End::Refused,
            stderr: "the slot is taken".into(),
            ..got("")
        };
        let done = Got {
            end: End::Done,
            ..got("{}")
        };
        assert_eq!(check(&Expect::default(), &refused).unwrap_err(), "'the slot is taken'");
        check(&expect("fails = true\nstderr.contains = ['taken']"), &refused).unwrap();
        check(&Expect::default(), &done).unwrap();
        assert_eq!(
            check(&expect("fails = true"), &done).unwrap_err(),
            "it was done, expected a refusal: '{}'"
        );
    }

    #[test]
    fn texts_are_compared_without_blanks_at_their_ends() {
        check(&expect("stdout.equals = 'a b'"), &got("a b\n")).unwrap();
        check(
            &expect("stdout = { contains = ['a'], lacks = ['c'], matches = ['^b$'] }"),
            &got("a\nb\n"),
        )
        .unwrap();
        check(&expect("stdout.at-least = 16"), &got("0x10\n")).unwrap();
        fails("stdout.equals = 'a'", "b", "stdout is 'b', expected 'a'");
        fails("stdout.lacks = ['b']", "b", "has 'b'");
        fails("stdout.matches = ['^c']", "b\nac", "does not match '^c': 'b | ac'");
        fails("stdout.at-most = 3", "4", "stdout is 4, expected at most 3");
        fails("stdout.at-most = 3", "four", "is no number");
    }

    #[test]
    fn json_is_looked_into_by_path() {
        let text = r#"[{"dev":"region0","size":4096},{"dev":"region1","size":8192}]"#;
        check(
            &expect("json = [{ path = '$[*].dev', count = 2, matches = '^region' }]"),
            &got(text),
        )
        .unwrap();
        check(
            &expect("json = [{ path = '$[0].size', equals = 4096, at-least = 1 }]"),
            &got(text),
        )
        .unwrap();
        check(&expect("json = [{ path = '$[*]', count = 0 }]"), &got("")).unwrap();
        fails("json = [{ path = '$[2]' }]", text, "$[2] is not there");
        fails(
            "json = [{ path = '$[0].dev', equals = 'x' }]",
            text,
            "is \"region0\", expected \"x\"",
        );
        fails(
            "json = [{ path = '$[*].size', at-most = 5000 }]",
            text,
            "8192, expected at most 5000",
        );
        fails("json = [{ path = '$' }]", "{", "is no JSON");
    }
}
