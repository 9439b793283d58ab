//! Errors of the command line itself, told as all others are: a sentence with the value and what was expected, and a hint.

use super::{ExitCode, Failure};
use clap::{
    Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};
use std::{ffi::OsString, num::IntErrorKind, num::ParseIntError};

/// Whether this is no error, but a text that was asked for, or what a command without arguments shows.
pub(super) fn is_help(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// What is wrong with `args`, which are those of `command` and begin with its name.
pub(super) fn failure(error: &Error, command: &Command, args: impl IntoIterator<Item = OsString>) -> Failure {
    let Told { what, hint } = tell(error, &path(command, args));
    Failure::new(ExitCode::BadConfig, anyhow::anyhow!("{what}; hint: {hint}"))
}

struct Told {
    what: String,
    hint: String,
}

fn tell(error: &Error, command: &str) -> Told {
    let said = |kind| words(error, kind);
    let arg = said(ContextKind::InvalidArg);
    let see = format!("`{command} --help` shows what there is");
    let (what, hint) = match error.kind() {
        ErrorKind::MissingRequiredArgument => (format!("`{command}` needs {arg}"), None),
        ErrorKind::ValueValidation => value(error, name(&arg)),
        ErrorKind::InvalidValue => choice(error, name(&arg)),
        ErrorKind::UnknownArgument => {
            let meant = error.get(ContextKind::SuggestedArg);
            let meant = meant.map(|meant| format!("did you mean {meant}?"));
            (format!("`{command}` does not know '{arg}'"), meant)
        }
        ErrorKind::InvalidSubcommand => {
            let meant = said(ContextKind::SuggestedSubcommand);
            let meant = (!meant.is_empty()).then(|| format!("did you mean {meant}?"));
            let word = said(ContextKind::InvalidSubcommand);
            (format!("`{command}` has no command '{word}'"), meant)
        }
        ErrorKind::MissingSubcommand => {
            let known = said(ContextKind::ValidSubcommand);
            (format!("`{command}` needs a command: expected one of {known}"), None)
        }
        ErrorKind::ArgumentConflict => {
            let other = said(ContextKind::PriorArg);
            match other.is_empty() || other == arg {
                true => (format!("{arg} is given twice: expected once"), None),
                false => (
                    format!("{arg} cannot be given together with {other}"),
                    Some("leave one of them out".to_owned()),
                ),
            }
        }
        _ => (first_line(error), None),
    };
    Told {
        what,
        hint: hint.unwrap_or(see),
    }
}

/// A value that its own parser refuses.
fn value(error: &Error, name: &str) -> (String, Option<String>) {
    use std::error::Error as _;
    let value = words(error, ContextKind::InvalidValue);
    let source = error.source();
    let number = source.and_then(|source| source.downcast_ref::<ParseIntError>());
    let why = source.map_or_else(String::new, ToString::to_string);
    let range = why
        .split_once(" is not in ")
        .and_then(|(_, range)| range.split_once("..="));
    let what = match (number.map(ParseIntError::kind), range) {
        (Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow), _) => {
            format!("{name} '{value}' is out of range: expected less than 64 bits of a number")
        }
        (Some(_), _) => format!("{name} '{value}' is no number: expected a whole one"),
        (None, Some((first, last))) => format!("{name} '{value}' is out of range: expected {first} to {last}"),
        (None, None) => {
            let (why, hint) = why
                .split_once("; hint: ")
                .map_or((why.as_str(), None), |(why, hint)| (why, Some(hint.to_owned())));
            let told = match why.strip_prefix(&format!("'{value}'")) {
                Some(rest) => format!("{name} '{value}'{rest}"),
                None => format!("{name} '{value}': {why}"),
            };
            return (told, hint);
        }
    };
    (what, None)
}

/// A value that is none of those there are, or none at all.
fn choice(error: &Error, name: &str) -> (String, Option<String>) {
    let value = words(error, ContextKind::InvalidValue);
    let known = words(error, ContextKind::ValidValue);
    let expected = match known.is_empty() {
        true => String::new(),
        false => format!(": expected one of {known}"),
    };
    let meant = words(error, ContextKind::SuggestedValue);
    let meant = (!meant.is_empty()).then(|| format!("did you mean {meant}?"));
    match value.is_empty() {
        true => (format!("{name} has no value{expected}"), meant),
        false => (format!("{name} '{value}' is no choice{expected}"), meant),
    }
}

/// An argument without what its value is called: `--cpus` of `--cpus <N>`, and `SIZE` of `<SIZE>`.
fn name(arg: &str) -> &str {
    let first = arg.split([' ', '=']).next().unwrap_or(arg);
    first.trim_matches(['<', '>', '[', ']', '.'])
}

/// What the library says of an error that has no sentence here.
fn first_line(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn words(error: &Error, kind: ContextKind) -> String {
    match error.get(kind) {
        None | Some(ContextValue::None) => String::new(),
        Some(ContextValue::Strings(all)) => all.join(", "),
        Some(other) => other.to_string(),
    }
}

/// The command that was meant, from its first word on.
fn path(command: &Command, args: impl IntoIterator<Item = OsString>) -> String {
    let (mut at, mut words) = (command, vec![command.get_name()]);
    for arg in args.into_iter().skip(1) {
        if let Some(next) = arg.to_str().and_then(|arg| at.find_subcommand(arg)) {
            words.push(next.get_name());
            at = next;
        }
    }
    words.join(" ")
}
