//! Which memory is meant, as clients say it.

use crate::{
    control::{ControlError, ErrorKind},
    fault::{
        awaited::{MAX_LOADS, Trigger},
        storm::MAX_RATE,
    },
};
use devices::nvdimm::media::LINE;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Most lines of an injection at random.
pub const MAX_RANDOM: u32 = 100_000;

/// Longest time until the first error of an injection.
pub const MAX_AFTER_MS: u64 = 24 * 60 * 60 * 1000;

/// Memory to make bad: at `gpa`, at `dpa` of `nvdimm`, or `count` lines of `node` at random.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultInject {
    /// Guest physical address of the first byte, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpa: Option<u64>,
    /// Name of an NVDIMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvdimm: Option<String>,
    /// Address of the first byte in the NVDIMM, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpa: Option<u64>,
    /// Bytes, whole lines; one line when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
    /// Proximity domain whose memory is meant: RAM, memory devices, persistent and soft-reserved memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// How many lines of the node; one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100_000)]
    pub count: Option<u32>,
    /// So many lines for each GiB of the node's memory, instead of `count`; at least one line, and at most 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100_000)]
    pub per_gib: Option<u32>,
    /// What the choice is made of: the same seed chooses the same lines of the same machine. 0 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The platform knows of it, and tells the guest where it has a way: NVDIMMs do, and other memory of a machine with error
    /// interfaces. Otherwise nobody knows before a load or
    /// a scrub meets it.
    #[serde(default)]
    pub known: bool,
    /// Milliseconds until the first line becomes bad, a day at most: the answer comes at once. 0 when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 86_400_000)]
    pub after_ms: Option<u64>,
    /// Lines, or ranges, that become bad in a second, in address order; all at once when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub rate: Option<u32>,
    /// The lines become bad with the load of this number that a vCPU makes of each; until then they are good. Each access of at most
    /// eight bytes counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub on_load: Option<u32>,
    /// The lines become bad when a vCPU has stored to each so many times, such as the first time that its page is put to use; until then
    /// they are good. Each access of at most eight bytes counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub on_store: Option<u32>,
    /// Change nothing, and tell what would be bad.
    #[serde(default)]
    pub dry_run: bool,
}

/// Memory to make good: at `gpa`, or at `dpa` of `nvdimm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultRange {
    /// Guest physical address of the first byte, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpa: Option<u64>,
    /// Name of an NVDIMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvdimm: Option<String>,
    /// Address of the first byte in the NVDIMM, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpa: Option<u64>,
    /// Bytes, whole lines; one line when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
}

/// Memory that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultTarget {
    /// Guest physical addresses.
    Guest {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// A part of an NVDIMM.
    Nvdimm {
        /// Its name.
        id: String,
        /// First byte.
        dpa: u64,
        /// Bytes.
        len: u64,
    },
    /// Lines at random.
    Node {
        /// Proximity domain.
        node: u32,
        /// How many.
        count: Count,
        /// What the choice is made of.
        seed: u64,
    },
}

/// How many lines of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Lines(u32),
    /// So many for each GiB.
    PerGib(u32),
}

impl Count {
    /// Lines of `bytes`, at most [`MAX_RANDOM`].
    pub fn of(self, bytes: u64) -> u32 {
        match self {
            Self::Lines(count) => count,
            Self::PerGib(count) => {
                let lines = (u128::from(count) * u128::from(bytes)) >> 30;
                u32::try_from(lines).unwrap_or(u32::MAX).clamp(1, MAX_RANDOM)
            }
        }
    }
}

impl fmt::Display for FaultTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest { start, len } => write!(f, "{len:#x} bytes at {start:#x}"),
            Self::Nvdimm { id, dpa, len } => write!(f, "{len:#x} bytes at DPA {dpa:#x} of {id}"),
            Self::Node {
                node,
                count: Count::Lines(count),
                ..
            } => write!(f, "{count} lines of node {node}"),
            Self::Node {
                node,
                count: Count::PerGib(count),
                ..
            } => write!(f, "{count} lines for each GiB of node {node}"),
        }
    }
}

impl FaultInject {
    /// What is meant, if it makes sense by itself.
    pub fn target(&self) -> Result<FaultTarget, ControlError> {
        self.check_time()?;
        let Self {
            node,
            count,
            per_gib,
            seed,
            ..
        } = *self;
        let Some(node) = node else {
            for (field, given) in [
                ("count", count.is_some()),
                ("per-gib", per_gib.is_some()),
                ("seed", seed.is_some()),
            ] {
                if given {
                    return Err(
                        invalid(field, format!("{field} is for memory of a node, and none is named"))
                            .hint("add `node`"),
                    );
                }
            }
            return self.range().target();
        };
        for (field, given) in [
            ("gpa", self.gpa.is_some()),
            ("nvdimm", self.nvdimm.is_some()),
            ("dpa", self.dpa.is_some()),
            ("len", self.len.is_some()),
        ] {
            if given {
                return Err(invalid(
                    field,
                    format!("{field} excludes node {node}, whose lines are chosen at random"),
                ));
            }
        }
        let (field, number) = match (count, per_gib) {
            (Some(_), Some(_)) => {
                return Err(invalid("per-gib", "per-gib excludes count".to_owned()));
            }
            (None, Some(per_gib)) => ("per-gib", per_gib),
            (count, None) => ("count", count.unwrap_or(1)),
        };
        if !(1..=MAX_RANDOM).contains(&number) {
            return Err(invalid(
                field,
                format!("{field} is {number}: expected 1 to {MAX_RANDOM} lines"),
            ));
        }
        let count = match field {
            "count" => Count::Lines(number),
            _ => Count::PerGib(number),
        };
        let seed = seed.unwrap_or(0);
        Ok(FaultTarget::Node { node, count, seed })
    }

    /// Whether the lines become bad later.
    pub fn is_storm(&self) -> bool {
        self.after_ms.is_some() || self.rate.is_some()
    }

    /// The accesses that make it bad.
    pub fn trigger(&self) -> Option<Trigger> {
        self.on_load
            .map(Trigger::Load)
            .or_else(|| self.on_store.map(Trigger::Store))
    }

    fn check_time(&self) -> Result<(), ControlError> {
        if let Some(ms) = self.after_ms.filter(|ms| *ms > MAX_AFTER_MS) {
            let why = format!("after-ms is {ms}: expected at most {MAX_AFTER_MS}, a day");
            return Err(invalid("after-ms", why));
        }
        if let Some(rate) = self.rate.filter(|rate| !(1..=MAX_RATE).contains(rate)) {
            return Err(invalid(
                "rate",
                format!("rate is {rate}: expected 1 to {MAX_RATE} a second"),
            ));
        }
        for (field, number) in [("on-load", self.on_load), ("on-store", self.on_store)] {
            if let Some(number) = number.filter(|number| !(1..=MAX_LOADS).contains(number)) {
                return Err(invalid(
                    field,
                    format!("{field} is {number}: expected 1 to {MAX_LOADS}"),
                ));
            }
            if number.is_some() && self.is_storm() {
                let why = "a line becomes bad by its loads or stores, or in time";
                return Err(invalid(field, why.to_owned()).hint("leave out `after-ms` and `rate`"));
            }
        }
        if self.on_load.is_some() && self.on_store.is_some() {
            let why = "a line becomes bad by its loads or by its stores";
            return Err(invalid("on-store", why.to_owned()).hint("leave out `on-load` or `on-store`"));
        }
        let later = self.is_storm() || self.trigger().is_some();
        if later && self.known {
            let why = "known is for errors that are there at once";
            return Err(invalid("known", why.to_owned()).hint("leave out `after-ms`, `rate`, `on-load` and `on-store`"));
        }
        if later && self.nvdimm.is_some() {
            let why = "errors that come later are named by guest physical address or node";
            return Err(invalid("nvdimm", why.to_owned()).hint("name `gpa`"));
        }
        Ok(())
    }

    fn range(&self) -> FaultRange {
        FaultRange {
            gpa: self.gpa,
            nvdimm: self.nvdimm.clone(),
            dpa: self.dpa,
            len: self.len,
        }
    }
}

impl FaultRange {
    /// What is meant, if it makes sense by itself.
    pub fn target(&self) -> Result<FaultTarget, ControlError> {
        let len = self.len.unwrap_or(LINE);
        match (self.gpa, self.nvdimm.as_ref(), self.dpa) {
            (Some(start), None, None) => {
                check_lines("gpa", start, len)?;
                Ok(FaultTarget::Guest { start, len })
            }
            (None, Some(id), Some(dpa)) => {
                check_lines("dpa", dpa, len)?;
                let id = id.clone();
                Ok(FaultTarget::Nvdimm { id, dpa, len })
            }
            (None, Some(id), None) => Err(invalid("dpa", format!("of {id} no address is named")).hint("add `dpa`")),
            (None, None, Some(dpa)) => {
                Err(invalid("nvdimm", format!("no NVDIMM is named for DPA {dpa:#x}")).hint("add `nvdimm`"))
            }
            (Some(start), ..) => {
                let field = if self.nvdimm.is_some() { "nvdimm" } else { "dpa" };
                Err(invalid(
                    field,
                    format!("{field} excludes the guest physical address {start:#x}"),
                ))
            }
            (None, None, None) => Err(invalid("gpa", "no memory is named".to_owned())
                .hint("name `gpa`, or `nvdimm` and `dpa`; to inject at random, `node`")),
        }
    }
}

pub(super) fn invalid(field: &'static str, detail: String) -> ControlError {
    ControlError::new(ErrorKind::InvalidRequest, detail).field(field)
}

/// Whole lines below the end of the address space.
fn check_lines(field: &'static str, start: u64, len: u64) -> Result<(), ControlError> {
    let line = format!("expected whole lines of {LINE} bytes");
    if len == 0 || !len.is_multiple_of(LINE) {
        return Err(
            invalid("len", format!("{len:#x} bytes at {start:#x} cannot be bad: {line}")).hint(format!(
                "the nearest length is {:#x}",
                len.max(1).checked_next_multiple_of(LINE).unwrap_or(LINE)
            )),
        );
    }
    if !start.is_multiple_of(LINE) {
        return Err(invalid(
            field,
            format!("{len:#x} bytes at {start:#x} begin inside a line: {line}"),
        )
        .hint(format!("the line begins at {:#x}", start / LINE * LINE)));
    }
    match start.checked_add(len) {
        Some(_) => Ok(()),
        None => Err(invalid(
            "len",
            format!("{len:#x} bytes at {start:#x} reach over the end of all addresses"),
        )
        .hint("use a smaller `len`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn inject(text: Value) -> Result<FaultTarget, ControlError> {
        serde_json::from_value::<FaultInject>(text).unwrap().target()
    }

    #[test]
    fn memory_is_named_in_one_of_three_ways() {
        let guest = |start, len| FaultTarget::Guest { start, len };
        assert_eq!(inject(json!({"gpa": 64})), Ok(guest(64, 64)));
        assert_eq!(
            inject(json!({"gpa": 0, "len": 4096, "dry-run": true})),
            Ok(guest(0, 4096))
        );
        let (id, dpa, len) = ("a".to_owned(), 128, 64);
        let nvdimm = FaultTarget::Nvdimm { id, dpa, len };
        assert_eq!(inject(json!({"nvdimm": "a", "dpa": 128, "known": true})), Ok(nvdimm));
        let some = |count, seed| FaultTarget::Node { node: 1, count, seed };
        let node = |count, seed| some(Count::Lines(count), seed);
        assert_eq!(inject(json!({"node": 1})), Ok(node(1, 0)));
        let dense = inject(json!({"node": 1, "per-gib": 3, "after-ms": 5, "rate": 7}));
        assert_eq!(dense, Ok(some(Count::PerGib(3), 0)));
        assert_eq!(
            inject(json!({"node": 1, "count": 100_000, "seed": 7})),
            Ok(node(100_000, 7))
        );
    }

    #[test]
    fn a_density_is_at_least_a_line_and_never_too_many() {
        for (per_gib, bytes, lines) in [
            (1, 1 << 30, 1),
            (3, 5 << 30, 15),
            (1, 4096, 1),
            (100_000, 1 << 40, MAX_RANDOM),
        ] {
            assert_eq!(Count::PerGib(per_gib).of(bytes), lines, "{per_gib} {bytes}");
        }
        assert_eq!(Count::Lines(7).of(0), 7);
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        let end = u64::MAX - 63;
        for (text, field) in [
            (json!({}), "gpa"),
            (json!({"gpa": 1}), "gpa"),
            (json!({"gpa": 0, "len": 0}), "len"),
            (json!({"gpa": 0, "len": 63}), "len"),
            (json!({"gpa": 0, "len": u64::MAX}), "len"),
            (json!({"gpa": end, "len": 64}), "len"),
            (json!({"gpa": 0, "nvdimm": "a"}), "nvdimm"),
            (json!({"gpa": 0, "dpa": 0}), "dpa"),
            (json!({"nvdimm": "a"}), "dpa"),
            (json!({"dpa": 0}), "nvdimm"),
            (json!({"nvdimm": "a", "dpa": 32}), "dpa"),
            (json!({"gpa": 0, "count": 2}), "count"),
            (json!({"gpa": 0, "seed": 2}), "seed"),
            (json!({"node": 0, "gpa": 0}), "gpa"),
            (json!({"node": 0, "len": 64}), "len"),
            (json!({"node": 0, "nvdimm": "a", "dpa": 0}), "nvdimm"),
            (json!({"node": 0, "count": 0}), "count"),
            (json!({"node": 0, "count": 100_001}), "count"),
            (json!({"gpa": 0, "per-gib": 1}), "per-gib"),
            (json!({"node": 0, "per-gib": 0}), "per-gib"),
            (json!({"node": 0, "per-gib": 1, "count": 1}), "per-gib"),
            (json!({"gpa": 0, "after-ms": 86_400_001}), "after-ms"),
            (json!({"gpa": 0, "rate": 0}), "rate"),
            (json!({"gpa": 0, "rate": 100_001}), "rate"),
            (json!({"gpa": 0, "rate": 1, "known": true}), "known"),
            (json!({"gpa": 0, "on-load": 0}), "on-load"),
            (json!({"gpa": 0, "on-load": 1_000_001}), "on-load"),
            (json!({"gpa": 0, "on-load": 1, "after-ms": 1}), "on-load"),
            (json!({"gpa": 0, "on-load": 1, "known": true}), "known"),
            (json!({"gpa": 0, "on-store": 0}), "on-store"),
            (json!({"gpa": 0, "on-store": 1_000_001}), "on-store"),
            (json!({"gpa": 0, "on-store": 1, "rate": 1}), "on-store"),
            (json!({"gpa": 0, "on-store": 1, "on-load": 1}), "on-store"),
            (json!({"gpa": 0, "on-store": 1, "known": true}), "known"),
            (json!({"nvdimm": "a", "dpa": 0, "on-load": 1}), "nvdimm"),
            (json!({"nvdimm": "a", "dpa": 0, "after-ms": 1}), "nvdimm"),
        ] {
            let error = inject(text.clone()).unwrap_err();
            assert_eq!(
                (error.kind, error.field.as_deref()),
                (ErrorKind::InvalidRequest, Some(field)),
                "{text}"
            );
        }
        let clear: FaultRange = serde_json::from_value(json!({"gpa": 65})).unwrap();
        let error = clear.target().unwrap_err();
        assert_eq!(
            error.to_string(),
            "0x40 bytes at 0x41 begin inside a line: expected whole lines of 64 bytes (field `gpa`); hint: the line begins at 0x40"
        );
    }
}
