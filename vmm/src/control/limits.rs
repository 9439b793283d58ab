//! Limits of a running machine: what can be asked, what is answered, and how a refusal is told.

use super::{ControlError, ErrorKind};
use crate::{
    config::{Limits, LimitsConfig, LimitsError},
    memory::limits::{DomainMemory, LimitExceeded, MemoryUse},
};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can be asked about limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LimitsRequest {
    /// The limits, and how much RAM there is.
    Get,
    /// Change the dynamic limits or the target, all that are named or none.
    Set(LimitsConfig),
}

/// The limits, and how much RAM there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitsInfo {
    /// The limits.
    pub limits: Limits,
    /// RAM by where it comes from.
    pub used: MemoryUse,
    /// All of it.
    pub total: ByteSize,
    /// Under the Xen personality: what of it the guest has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainMemory>,
}

impl From<LimitExceeded> for ControlError {
    fn from(error: LimitExceeded) -> Self {
        Self::split(ErrorKind::Conflict, &error.to_string()).field("size")
    }
}

/// The limits after `asked`: the static ones may be named, but not changed.
pub fn change_limits(limits: &Limits, asked: &LimitsConfig) -> Result<Limits, ControlError> {
    for ((name, asked), (_, fixed)) in asked.named().into_iter().zip(limits.named()) {
        if let Some(asked) = asked.filter(|asked| name.starts_with("static") && *asked != fixed) {
            let detail = format!("{name} is {fixed} and cannot become {asked} while the machine runs");
            let error = ControlError::new(ErrorKind::Conflict, detail).field(name);
            return Err(error.hint("start the machine anew with other --limits"));
        }
    }
    limits.with(asked).map_err(|error| {
        let (kind, field) = match &error {
            LimitsError::Unit { name, .. } | LimitsError::Range { name, .. } => (ErrorKind::InvalidRequest, *name),
            LimitsError::Order { upper, lower, .. } => {
                let named = |name: &str| asked.named().into_iter().any(|(n, v)| n == name && v.is_some());
                (ErrorKind::Conflict, if named(upper) { *upper } else { *lower })
            }
            LimitsError::MemoryLimit(_) => (ErrorKind::InvalidRequest, "memory-limit"),
            LimitsError::BootAbove { .. } => (ErrorKind::Conflict, "static-max"),
            LimitsError::BootBelow { .. } => (ErrorKind::Conflict, "static-min"),
        };
        ControlError::split(kind, &error.to_string()).field(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::limits::{Change, admit};

    const M: fn(u64) -> ByteSize = ByteSize::mib;

    fn limits() -> Limits {
        Limits {
            static_max: M(4096),
            dynamic_max: M(3072),
            target: M(2048),
            dynamic_min: M(1024),
            static_min: M(512),
        }
    }

    fn asked(json: &str) -> Result<Limits, ControlError> {
        change_limits(&limits(), &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn static_limits_are_fixed_while_the_machine_runs() {
        assert_eq!(asked(r#"{"static-max":"4G","target":"3G"}"#).unwrap().target, M(3072));
        let error = asked(r#"{"static-max":"8G"}"#).unwrap_err();
        assert_eq!(
            (error.kind, error.field.as_deref()),
            (ErrorKind::Conflict, Some("static-max"))
        );
        assert_eq!(
            error.detail,
            "static-max is 4G and cannot become 8G while the machine runs"
        );
        assert!(asked(r#"{"static-min":"64M"}"#).is_err());
    }

    #[test]
    fn a_change_out_of_order_names_the_limit_that_was_asked() {
        let error = asked(r#"{"target":"3074M"}"#).unwrap_err();
        assert_eq!(
            (error.kind, error.field.as_deref()),
            (ErrorKind::Conflict, Some("target"))
        );
        assert_eq!(error.detail, "limit dynamic-max=3G is below target=3074M");
        let error = asked(r#"{"target":3}"#).unwrap_err();
        assert_eq!(
            (error.kind, error.field.as_deref()),
            (ErrorKind::InvalidRequest, Some("target"))
        );
        assert_eq!(
            asked(r#"{"target":"2G","dynamic-max":"2G","dynamic-min":"2G"}"#)
                .unwrap()
                .target,
            M(2048)
        );
    }

    #[test]
    fn an_excess_is_a_conflict_with_the_numbers() {
        let used = MemoryUse {
            boot: M(4096),
            ..MemoryUse::default()
        };
        let error: ControlError = admit(&limits(), &used, Change::Add(M(128))).unwrap_err().into();
        assert_eq!(
            (error.kind, error.field.as_deref()),
            (ErrorKind::Conflict, Some("size"))
        );
        assert!(error.detail.ends_with("above static-max=4G"), "{}", error.detail);
        assert!(error.hint.is_some());
    }

    #[test]
    fn requests_are_json() {
        for text in [r#""get""#, r#"{"set":{"target":"2G"}}"#] {
            let request: LimitsRequest = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
        assert!(serde_json::from_str::<LimitsRequest>(r#"{"set":{"goal":1}}"#).is_err());
        assert!(serde_json::from_str::<LimitsRequest>(r#"{"set":{"target":-1}}"#).is_err());
    }
}
