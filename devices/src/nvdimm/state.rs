//! What of one DIMM outlives the run beside its contents: counts, thresholds, firmware, and whatever else has a section.
//!
//! A state is a version, the serial number of the DIMM it belongs to, and sections by name, each the serde form of one
//! part of the DIMM. Sections this program knows nothing of are kept as they are. Here are its bytes, as JSON; where they
//! lie, and that a change is durable, is [`StateStore`]'s.
//!
//! ```json
//! { "format": "daxvisor-dimm", "version": 1, "serial": 1193046, "sections": { "health": { ... } } }
//! ```

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

/// Says what the file is.
const FORMAT: &str = "daxvisor-dimm";
/// Newest version that is understood, and the one that is written.
pub const VERSION: u64 = 1;
/// Most bytes of an encoded state: far more than any has, and nothing to wait for.
pub const MAX_LEN: usize = 4 << 20;

/// Why bytes are no state of this DIMM.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Longer than any state.
    #[error("it is longer than the {MAX_LEN} bytes of any DIMM state")]
    TooLong,
    /// No JSON, or cut off, or fields that do not fit.
    #[error("it is damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// JSON of something else.
    #[error("it is no DIMM state: expected `\"format\": \"{FORMAT}\"`")]
    Foreign,
    /// Made by a later program.
    #[error(
        "it has version {0}, and this program knows versions up to {VERSION}; hint: use the daxvisor that wrote it"
    )]
    Newer(u64),
    /// Another DIMM's.
    #[error(
        "it belongs to the DIMM with serial number {found:#010x}, and this one has {wanted:#010x}; hint: a serial number \
         comes with the slot, so keep the order of the DIMMs"
    )]
    Serial {
        /// In the state.
        found: u32,
        /// The DIMM's.
        wanted: u32,
    },
    /// A part does not fit.
    #[error("its section \"{0}\" is damaged: {1}")]
    Section(String, #[source] serde_json::Error),
}

/// Where a state is kept.
pub trait StateStore: Send + Sync {
    /// Makes `value` the section `name`. Durable when it returns; when it fails, what was there before is still there.
    fn put(&self, name: &str, value: Value) -> io::Result<()>;
}

/// The state of a DIMM that has no other place: it outlasts resets of the machine, and ends with the program.
#[derive(Debug)]
pub struct MemoryState(Mutex<DimmState>);

impl MemoryState {
    /// That of a DIMM that was never used.
    pub fn new(serial: u32) -> Self {
        Self(Mutex::new(DimmState::new(serial)))
    }

    /// What is there now.
    pub fn state(&self) -> DimmState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl StateStore for MemoryState {
    fn put(&self, name: &str, value: Value) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(name, value);
        Ok(())
    }
}

/// The state of one DIMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DimmState {
    serial: u32,
    sections: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    format: String,
    version: u64,
    serial: u32,
    sections: BTreeMap<String, Value>,
}

impl DimmState {
    /// The state of a DIMM that was never used.
    pub fn new(serial: u32) -> Self {
        Self {
            serial,
            sections: BTreeMap::new(),
        }
    }

    /// The state in `bytes`, which must be that of the DIMM with `serial`.
    pub fn decode(bytes: &[u8], serial: u32) -> Result<Self, StateError> {
        if bytes.len() > MAX_LEN {
            return Err(StateError::TooLong);
        }
        let any: Value = serde_json::from_slice(bytes).map_err(StateError::Damaged)?;
        if any.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(StateError::Foreign);
        }
        // Before the fields, which a later version may have changed.
        if let Some(version) = any.get("version").and_then(Value::as_u64).filter(|v| *v > VERSION) {
            return Err(StateError::Newer(version));
        }
        let Encoded {
            serial: found,
            sections,
            ..
        } = serde_json::from_value(any).map_err(StateError::Damaged)?;
        if found != serial {
            return Err(StateError::Serial { found, wanted: serial });
        }
        Ok(Self { serial, sections })
    }

    /// The bytes of the state.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = Encoded {
            format: FORMAT.to_owned(),
            version: VERSION,
            serial: self.serial,
            sections: self.sections.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&encoded)
            .unwrap_or_else(|e| unreachable!("maps of strings are always JSON: {e}"));
        bytes.push(b'\n');
        bytes
    }

    /// The section `name`, if there is one.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let section = self.sections.get(name).cloned().map(serde_json::from_value);
        section.transpose().map_err(|e| StateError::Section(name.to_owned(), e))
    }

    /// Replaces the section `name`.
    pub fn put(&mut self, name: &str, value: Value) {
        self.sections.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm::health::{Health, HealthPlan, HealthState};
    use proptest::prelude::*;
    use serde_json::json;

    fn text(state: &str) -> Result<DimmState, String> {
        DimmState::decode(state.as_bytes(), 7).map_err(|e| e.to_string())
    }

    #[test]
    fn sections_come_back_and_unknown_ones_stay() {
        let mut state = DimmState::new(7);
        let mut health = Health::new(HealthPlan::NFIT_TEST);
        health.latch(true);
        state.put("health", serde_json::to_value(health.state()).unwrap());
        state.put("to come", json!({"a": [1, 2]}));
        let back = DimmState::decode(&state.encode(), 7).unwrap();
        assert_eq!(back, state);
        assert_eq!(back.section::<HealthState>("health").unwrap(), Some(*health.state()));
        assert_eq!(back.section::<HealthState>("none").unwrap(), None);
        assert!(back.section::<HealthState>("to come").is_err());
    }

    #[test]
    fn what_is_not_ours_is_refused_with_the_reason() {
        let sections = r#""sections": {}"#;
        for (bytes, reason) in [
            (String::new(), "it is damaged: EOF"),
            ("{".to_owned(), "it is damaged: EOF"),
            ("[]".to_owned(), "it is no DIMM state"),
            ("{}".to_owned(), "it is no DIMM state"),
            (r#"{"format": "other"}"#.to_owned(), "it is no DIMM state"),
            (
                r#"{"format": "daxvisor-dimm", "version": 2, "new": 1}"#.to_owned(),
                "it has version 2, and this program knows versions up to 1; hint:",
            ),
            (
                r#"{"format": "daxvisor-dimm", "version": 1}"#.to_owned(),
                "it is damaged: missing field",
            ),
            (
                format!(r#"{{"format": "daxvisor-dimm", "version": 1, "serial": 8, {sections}}}"#),
                "it belongs to the DIMM with serial number 0x00000008, and this one has 0x00000007; hint:",
            ),
            (
                format!(r#"{{"format": "daxvisor-dimm", "version": -1, "serial": 7, {sections}}}"#),
                "it is damaged: invalid value",
            ),
            (
                format!(r#"{{"format": "daxvisor-dimm", "version": 1, "serial": 7, "x": 1, {sections}}}"#),
                "it is damaged: unknown field",
            ),
            (" ".repeat(MAX_LEN + 1), "it is longer than the 4194304 bytes"),
        ] {
            let error = text(&bytes).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
        assert!(
            text(&format!(
                r#"{{"format": "daxvisor-dimm", "version": 1, "serial": 7, {sections}}}"#
            ))
            .is_ok()
        );
    }

    #[test]
    fn a_part_that_does_not_fit_is_named() {
        let mut state = DimmState::new(7);
        state.put("health", json!({"latched": true}));
        let error = state.section::<HealthState>("health").unwrap_err().to_string();
        assert!(
            error.starts_with("its section \"health\" is damaged: missing field"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(DimmState::decode(&bytes, 7).is_err());
        }

        #[test]
        fn a_state_with_one_byte_changed_is_a_state_or_an_error(at in 0usize..300, to in any::<u8>()) {
            let mut state = DimmState::new(7);
            state.put("health", serde_json::to_value(Health::new(HealthPlan::NFIT_TEST).state()).unwrap());
            let mut bytes = state.encode();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(read) = DimmState::decode(&bytes, 7) {
                drop(read.section::<HealthState>("health"));
                prop_assert_eq!(DimmState::decode(&read.encode(), 7).unwrap(), read);
            }
        }
    }
}
