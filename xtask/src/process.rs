//! Other programs: run, listened to line by line, and explained when they fail.

use anyhow::{Context, Result, bail};
use std::{
    io::{self, BufRead, BufReader, Write},
    process::{ChildStdin, Command, ExitStatus, Stdio},
};

/// An error's chain on one line, then its hints, which a message carries as `...; hint: ...`.
pub fn explain(error: &anyhow::Error) -> String {
    let mut hints = String::new();
    let mut sentences = Vec::new();
    for cause in error.chain() {
        let whole = cause.to_string();
        let (sentence, hint) = whole
            .split_once("; hint: ")
            .map_or((whole.as_str(), None), |(sentence, hint)| (sentence, Some(hint)));
        sentences.push(sentence.to_owned());
        hints.extend(hint.map(|hint| format!("hint: {hint}\n")));
    }
    format!("error: {}\n{hints}", sentences.join(": "))
}

/// A command as one would type it.
pub fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs to success with our output streams.
pub fn check(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs to success in silence; the error shows the last lines of what it said.
pub fn quiet(command: &mut Command) -> Result<()> {
    const SHOWN: usize = 25;
    let line = line_of(command);
    let mut said = Vec::new();
    let status = listen(command, &mut io::sink(), |line| said.push(line.to_owned()))?;
    if !status.success() {
        let tail = said.split_off(said.len().saturating_sub(SHOWN));
        bail!("`{line}` failed ({status}):\n{}", tail.join("\n"));
    }
    Ok(())
}

/// Runs with standard output and error as one stream, copied to `copy` as it comes and shown to `each` line by line.
pub fn listen(command: &mut Command, copy: &mut dyn Write, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    hear(command.stdin(Stdio::null()), copy, |line, _| {
        if let Some(line) = line {
            each(line);
        }
    })
}

/// The same with a command that is spoken to: `each` sees no line before the first, and can answer.
pub fn converse(
    command: &mut Command,
    copy: &mut dyn Write,
    each: impl FnMut(Option<&str>, &mut Input),
) -> Result<ExitStatus> {
    hear(command.stdin(Stdio::piped()), copy, each)
}

/// Standard input of a command. One that no longer listens is no error: its exit code says what became of it.
pub struct Input(Option<ChildStdin>);

impl Input {
    /// Says a line.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.0 {
            let _ = writeln!(input, "{line}").and_then(|()| input.flush());
        }
    }

    /// Says no more.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

fn hear(
    command: &mut Command,
    copy: &mut dyn Write,
    mut each: impl FnMut(Option<&str>, &mut Input),
) -> Result<ExitStatus> {
    let line = line_of(command);
    let cannot = || format!("cannot run `{line}`");
    let (from, to) = io::pipe().with_context(cannot)?;
    command.stdout(to.try_clone().with_context(cannot)?).stderr(to);
    let mut child = command.spawn().with_context(cannot)?;
    // The command holds writing ends: without this the stream would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut input = Input(child.stdin.take());
    each(None, &mut input);
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes).with_context(cannot)? > 0 {
        // Nobody to show it to is no reason to stop the command.
        let _ = copy.write_all(&bytes).and_then(|()| copy.flush());
        each(
            Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r'])),
            &mut input,
        );
        bytes.clear();
    }
    drop(input);
    child.wait().with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_heard_in_order() {
        let (mut copy, mut lines) = (Vec::new(), Vec::new());
        let script = "echo a; echo b >&2; printf 'c'; exit 3";
        let status = listen(&mut sh(script), &mut copy, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!((lines.join(" ").as_str(), copy.as_slice()), ("a b c", &b"a\nb\nc"[..]));
    }

    #[test]
    fn command_is_answered_line_by_line() {
        let mut lines = Vec::new();
        let script = "while read -r word; do echo \"got $word\"; done; echo end";
        let status = converse(&mut sh(script), &mut io::sink(), |line, input| {
            lines.extend(line.map(str::to_owned));
            match line {
                None => input.say("one"),
                Some("got one") => input.say("two"),
                Some(_) => input.end(),
            }
        });
        assert!(status.unwrap().success());
        assert_eq!(lines, ["got one", "got two", "end"]);
        // Nobody listens.
        let status = converse(&mut sh("exec <&-; echo deaf; exit 4"), &mut io::sink(), |_, input| {
            input.say(&"x".repeat(1 << 17));
        });
        assert_eq!(status.unwrap().code(), Some(4));
    }

    #[test]
    fn failure_shows_what_was_said() {
        let error = quiet(&mut sh("echo disk on fire; exit 1")).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 1") && error.ends_with("disk on fire"),
            "{error}"
        );
        quiet(&mut sh("exit 0")).unwrap();
        let error = check(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"));
    }

    #[test]
    fn hints_come_after_the_chain() {
        let error = anyhow::anyhow!("no route; hint: plug it in").context("cannot fetch");
        assert_eq!(explain(&error), "error: cannot fetch: no route\nhint: plug it in\n");
    }
}
