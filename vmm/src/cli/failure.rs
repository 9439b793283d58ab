//! What went wrong, as the user reads it.

use super::ExitCode;
use crate::{
    config::ConfigError, images::ManifestError, layout::LayoutError, machine::BuildError, topology::TopologyError,
};
use std::io::Write;

/// One or more errors, and how the program ends for them.
#[derive(Debug)]
pub struct Failure {
    code: ExitCode,
    errors: Vec<anyhow::Error>,
}

impl Failure {
    /// One error that ends the program with `code`.
    pub fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            errors: vec![error.into()],
        }
    }

    /// daxvisor itself failed.
    pub fn vmm(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::VmmError, error)
    }

    /// The host cannot run guests.
    pub fn host(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::HostFailure, error)
    }

    /// Adds the errors of `other` that are not told yet; the program ends as for `self`.
    pub(super) fn and(mut self, other: Self) -> Self {
        for error in other.errors {
            if self.errors.iter().all(|told| text(told) != text(&error)) {
                self.errors.push(error);
            }
        }
        self
    }

    /// All errors on one line, hints as they are in messages.
    pub(super) fn sentence(&self) -> String {
        let texts: Vec<_> = self.errors.iter().map(|e| format!("{e:#}")).collect();
        texts.join("; ")
    }

    /// Prints every error to stderr.
    pub(super) fn print(&self) -> ExitCode {
        let text: String = self.errors.iter().map(text).collect();
        // Nobody is left to tell when stderr is gone.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        self.code
    }
}

/// An error's chain on one line, then its hints. A message carries its hint as `...; hint: ...`.
fn text(error: &anyhow::Error) -> String {
    let mut hints = String::new();
    let mut sentences: Vec<String> = Vec::new();
    for cause in error.chain() {
        let whole = cause.to_string();
        let (sentence, hint) = whole
            .split_once("; hint: ")
            .map_or((whole.as_str(), None), |(s, h)| (s, Some(h)));
        // A transparent error repeats its source.
        if sentences.last().is_none_or(|last| last != sentence) {
            sentences.push(sentence.to_owned());
            hints.extend(hint.map(|hint| format!("hint: {hint}\n")));
        }
    }
    format!("error: {}\n{hints}", sentences.join(": "))
}

impl From<Vec<ConfigError>> for Failure {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self {
            code: ExitCode::BadConfig,
            errors: errors.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(ExitCode::BadConfig, error)
    }
}

impl From<TopologyError> for Failure {
    fn from(error: TopologyError) -> Self {
        Self::new(ExitCode::BadConfig, error)
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        Self::new(ExitCode::BadConfig, error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Kvm(_) | BuildError::Xen(_) => Self::host(error),
            BuildError::Hv(_)
            | BuildError::Host(..)
            | BuildError::Map(_)
            | BuildError::Bus(_)
            | BuildError::Load(_) => Self::vmm(error),
            _ => Self::new(ExitCode::BadConfig, error),
        }
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::NoKernel { .. } | ManifestError::NoHypervisor { .. } => {
                Self::new(ExitCode::BadConfig, error)
            }
            _ => Self::host(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn chain_is_one_line_and_hints_follow() {
        let inner: Result<(), _> = Err(std::io::Error::other("disk on fire"));
        let error = inner
            .context("cannot read a; hint: try b")
            .context("cannot start; hint: wait")
            .unwrap_err();
        assert_eq!(
            text(&error),
            "error: cannot start: cannot read a: disk on fire\nhint: wait\nhint: try b\n"
        );
        assert_eq!(text(&anyhow::anyhow!("plain")), "error: plain\n");
    }
}
