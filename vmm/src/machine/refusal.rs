//! Errors of lower layers as problems of a request: what is wrong with it names its field, what is wrong with the host does not.

use crate::{
    config::ConfigError,
    control::{ControlError, ErrorKind},
    machine::BuildError,
    memory::{
        backing::BackingError, device::DeviceError, encrypted::keys::KeyError, ram::RamError, state::StateFileError,
    },
};
use std::error::Error;

/// A value that cannot be.
pub fn refused(detail: String) -> ControlError {
    ControlError::split(ErrorKind::InvalidRequest, &detail)
}

/// Nothing that the request could have avoided.
pub fn internal(detail: &str) -> ControlError {
    ControlError::new(ErrorKind::Internal, detail.to_owned())
}

/// The same, with all its causes.
pub fn failed(error: &dyn Error) -> ControlError {
    told(ErrorKind::Internal, error)
}

/// The first problem of a configuration with an addition in it.
pub fn first(problems: &[ConfigError]) -> ControlError {
    let Some(problem) = problems.first() else {
        return refused("it is not valid".to_owned());
    };
    let error = told(ErrorKind::InvalidRequest, problem);
    match field_of(problem) {
        Some(field) => error.field(field),
        None => error,
    }
}

/// The field that a problem of a configuration is about.
fn field_of(problem: &ConfigError) -> Option<&'static str> {
    use ConfigError as E;
    Some(match problem {
        E::Unusable { .. } | E::WrongKind { .. } | E::SameFile { .. } => "file",
        E::NodeRange(_) | E::NodeUnknown { .. } => "node",
        E::NvdimmId(_) | E::NvdimmIdText(_) => "id",
        E::NvdimmNoSize { .. } | E::NvdimmSize { .. } | E::NvdimmFileSize { .. } | E::NvdimmPages { .. } => "size",
        E::BackingRange { .. } | E::BackingOffset { .. } => "offset",
        E::NvdimmLabel { .. } => "label",
        E::NvdimmBacking { .. } => "backing",
        _ => return None,
    })
}

/// Why a backing cannot be used.
pub fn backing(error: &BackingError) -> ControlError {
    use BackingError as E;
    use ErrorKind::{Conflict, Internal, InvalidRequest};
    let (kind, field) = match error {
        E::InUse(_) => (Conflict, "file"),
        E::Open(..) | E::ReadOnlyMissing(_) | E::Kind(..) | E::OnlyKeys(..) => (InvalidRequest, "file"),
        E::NotAsAsked(..) => (InvalidRequest, "backing"),
        E::Length { .. } | E::TooShort { .. } | E::Extend { .. } => (InvalidRequest, "size"),
        E::Encrypted(..) | E::NoKeys(..) => (InvalidRequest, "encrypt"),
        E::Keys(KeyError::Dimm(..)) => (InvalidRequest, "size"),
        E::Keys(_) => (InvalidRequest, "file"),
        E::NoStorage(_) => (InvalidRequest, "flush"),
        E::Map { .. } => (Internal, "file"),
    };
    told(kind, error).field(field)
}

/// Why the state of an NVDIMM cannot be used.
pub fn state(error: &BuildError) -> ControlError {
    let kind = match error {
        BuildError::NvdimmState {
            source: StateFileError::InUse(_),
            ..
        } => ErrorKind::Conflict,
        BuildError::NvdimmState { .. } => ErrorKind::InvalidRequest,
        _ => return failed(error),
    };
    told(kind, error).field("state")
}

/// Why a memory device has no memory.
pub fn device(error: &DeviceError) -> ControlError {
    match error {
        DeviceError::File(error) => backing(error),
        DeviceError::Memory(error @ RamError::NoHugePages { .. }) => told(ErrorKind::Conflict, error).field("backing"),
        DeviceError::Memory(error) => failed(error),
    }
}

/// An error with all its causes as one sentence, its hint last.
fn told(kind: ErrorKind, error: &dyn Error) -> ControlError {
    let mut hint = None;
    let mut sentence = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let (said, advice) = match text.split_once("; hint: ") {
            Some((said, advice)) => (said, Some(advice.to_owned())),
            None => (text.as_str(), None),
        };
        if !sentence.is_empty() {
            sentence += ": ";
        }
        sentence += said;
        hint = hint.or(advice);
        next = error.source();
    }
    let told = ControlError::new(kind, sentence);
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, path::PathBuf};

    #[test]
    fn what_is_wrong_with_a_file_names_its_field_and_keeps_cause_and_hint() {
        let path = || PathBuf::from("/x");
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let said = backing(&BackingError::Open(path(), denied()));
        assert_eq!(said.kind, ErrorKind::InvalidRequest);
        assert_eq!((said.field.as_deref(), said.hint), (Some("file"), None));
        assert_eq!(said.detail, "cannot open NVDIMM backing /x: permission denied");
        let said = backing(&BackingError::InUse(path()));
        assert_eq!((said.kind, said.field.as_deref()), (ErrorKind::Conflict, Some("file")));
        assert!(said.hint.is_some_and(|hint| hint.starts_with("a DIMM has one user")));
        let said = state(&BuildError::NvdimmState {
            id: "a".to_owned(),
            source: StateFileError::Open(path(), denied()),
        });
        assert_eq!(
            (said.kind, said.field.as_deref()),
            (ErrorKind::InvalidRequest, Some("state"))
        );
        let said = first(&[ConfigError::Unusable {
            role: "a".to_owned(),
            path: path(),
            source: denied(),
        }]);
        assert_eq!(said.detail, "cannot use /x as a: permission denied");
        assert_eq!(said.field.as_deref(), Some("file"));
        assert!(said.hint.is_some(), "{said}");
    }
}
