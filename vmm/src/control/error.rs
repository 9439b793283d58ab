//! Why a request was not done: the members of an RFC 9457 problem document, as far as they do not belong to HTTP.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// What kind of failure it is. The written names are stable: programs compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The line is not JSON, or not an object with `request`.
    Malformed,
    /// JSON, but no request that this version knows, or one with wrong fields.
    InvalidRequest,
    /// The line is longer than [`super::wire::MAX_LINE`].
    TooLong,
    /// More clients, or more requests that wait, than are taken.
    Busy,
    /// Not for this user.
    NotPermitted,
    /// The machine is in another phase.
    WrongState,
    /// What is named does not exist.
    NotFound,
    /// What is to be made exists already, or two changes exclude each other.
    Conflict,
    /// It was begun, took too long, and was undone.
    Deadline,
    /// The machine is being taken down.
    Ending,
    /// daxvisor or its host failed.
    Internal,
}

/// Why a request was not done. Nothing of it is left half done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ControlError {
    /// What kind.
    #[serde(rename = "type")]
    pub kind: ErrorKind,
    /// One sentence with the offending value.
    pub detail: Cow<'static, str>,
    /// The part of the request that is wrong, as a path such as `nvdimm.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Cow<'static, str>>,
}

impl ControlError {
    /// An error of `kind`; `detail` is one sentence.
    pub fn new(kind: ErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            field: None,
            hint: None,
        }
    }

    /// An error of `kind` from a message of this program, which carries its hint in the text.
    pub fn split(kind: ErrorKind, text: &str) -> Self {
        match text.split_once("; hint: ") {
            Some((detail, hint)) => Self::new(kind, detail.to_owned()).hint(hint.to_owned()),
            None => Self::new(kind, text.to_owned()),
        }
    }

    /// Names the offending field.
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// As every message of this program: the sentence, then its hint.
impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if let Some(field) = &self.field {
            write!(f, " (field `{field}`)")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_problem_documents() {
        let error = ControlError::new(ErrorKind::InvalidRequest, "there is no DIMM x")
            .field("nvdimm.id")
            .hint("`nvdimm list` has them");
        let text = r#"{"type":"invalid-request","detail":"there is no DIMM x","field":"nvdimm.id","hint":"`nvdimm list` has them"}"#;
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
        assert_eq!(serde_json::from_str::<ControlError>(text).unwrap(), error);
        assert_eq!(
            error.to_string(),
            "there is no DIMM x (field `nvdimm.id`); hint: `nvdimm list` has them"
        );
    }
}
