//! Why a request was not done: an RFC 9457 problem document.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};
use utoipa::ToSchema;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not HTTP or JSON as it should be, or of another media type.
    Malformed,
    /// There is no such route.
    NoRoute,
    /// The route knows other methods.
    NoMethod,
    /// JSON, but with wrong fields or values.
    InvalidRequest,
    /// The body is longer than the API takes.
    TooLong,
    /// The client took too long to send it.
    TooSlow,
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
    /// The guest was asked and has refused.
    Refused,
    /// It was begun, took too long, and was undone.
    Deadline,
    /// The machine is being taken down.
    Ending,
    /// daxvisor or its host failed.
    Internal,
}

impl ErrorKind {
    /// All of them, with the stable name, the HTTP status and the title that a problem document has.
    pub const TABLE: [(Self, &'static str, u16, &'static str); 15] = [
        (Self::Malformed, "malformed", 400, "The request cannot be read"),
        (Self::NoRoute, "no-route", 404, "There is no such route"),
        (Self::NoMethod, "no-method", 405, "The route has no such method"),
        (
            Self::InvalidRequest,
            "invalid-request",
            422,
            "The request has a wrong value",
        ),
        (Self::TooLong, "too-long", 413, "The request is too long"),
        (Self::TooSlow, "too-slow", 408, "The request took too long to arrive"),
        (Self::Busy, "busy", 503, "Too much is under way"),
        (
            Self::NotPermitted,
            "not-permitted",
            403,
            "The machine belongs to another user",
        ),
        (Self::WrongState, "wrong-state", 409, "The machine is in another state"),
        (Self::NotFound, "not-found", 404, "What is named does not exist"),
        (
            Self::Conflict,
            "conflict",
            409,
            "It exists already, or excludes another",
        ),
        (Self::Refused, "refused", 409, "The guest has refused"),
        (Self::Deadline, "deadline", 504, "It took too long"),
        (Self::Ending, "ending", 503, "The machine is ending"),
        (Self::Internal, "internal", 500, "daxvisor or its host failed"),
    ];

    /// Name, status and title.
    fn row(self) -> (&'static str, u16, &'static str) {
        let row = Self::TABLE.into_iter().find(|row| row.0 == self);
        row.map_or(("internal", 500, ""), |(_, name, status, title)| (name, status, title))
    }

    /// The stable name: the last part of the document's `type`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }
}

/// What every `type` of a problem document begins with.
pub const TYPE_PREFIX: &str = "urn:daxvisor:problem:";

/// Why a request was not done. Nothing of it is left half done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(into = "Problem", try_from = "Problem")]
pub struct ControlError {
    /// What kind.
    pub kind: ErrorKind,
    /// One sentence with the offending value.
    pub detail: Cow<'static, str>,
    /// The part of the request that is wrong, as a path such as `nvdimm.id`.
    pub field: Option<Cow<'static, str>>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
}

/// The same as an RFC 9457 problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable URN of the kind of problem: programs compare it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence with the offending value.
    pub detail: String,
    /// The part of the request that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let (name, status, title) = error.kind.row();
        Self {
            kind: format!("{TYPE_PREFIX}{name}"),
            title: title.to_owned(),
            status,
            detail: error.detail.into_owned(),
            field: error.field.map(Cow::into_owned),
            hint: error.hint.map(Cow::into_owned),
        }
    }
}

/// A problem of another version's making.
#[derive(Debug, thiserror::Error)]
#[error("there is no problem type '{0}'")]
pub struct UnknownKind(String);

impl TryFrom<Problem> for ControlError {
    type Error = UnknownKind;

    fn try_from(problem: Problem) -> Result<Self, UnknownKind> {
        let name = problem.kind.strip_prefix(TYPE_PREFIX);
        let row = ErrorKind::TABLE.into_iter().find(|row| Some(row.1) == name);
        let kind = row.ok_or_else(|| UnknownKind(problem.kind.clone()))?.0;
        Ok(Self {
            kind,
            detail: problem.detail.into(),
            field: problem.field.map(Into::into),
            hint: problem.hint.map(Into::into),
        })
    }
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
        let text = r#"{"type":"urn:daxvisor:problem:invalid-request","title":"The request has a wrong value","status":422,"detail":"there is no DIMM x","field":"nvdimm.id","hint":"`nvdimm list` has them"}"#;
        assert_eq!(serde_json::to_string(&error).unwrap(), text);
        assert_eq!(serde_json::from_str::<ControlError>(text).unwrap(), error);
        assert_eq!(
            error.to_string(),
            "there is no DIMM x (field `nvdimm.id`); hint: `nvdimm list` has them"
        );
        assert!(serde_json::from_str::<ControlError>(&text.replace("invalid-r", "r")).is_err());
    }

    #[test]
    fn every_kind_has_a_name_and_a_status_of_its_own_class() {
        for (kind, name, status, _) in ErrorKind::TABLE {
            assert_eq!((kind.name(), kind.status()), (name, status));
            assert!((400..=504).contains(&status));
            assert_eq!(ErrorKind::TABLE.iter().filter(|row| row.1 == name).count(), 1, "{name}");
        }
    }
}
