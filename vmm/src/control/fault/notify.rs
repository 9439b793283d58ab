//! Errors that the guest is told of, whether memory is bad or not.

use super::{FaultRange, FaultTarget, ask::invalid};
use crate::{control::ControlError, mce::Kind};
use devices::apei::{Severity, Source};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// How bad an error is that the guest is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NotifySeverity {
    /// Corrected: nothing is lost
    Corrected,
    /// Uncorrected, no action required (UCNA, deferred): nobody has consumed it; machine checks only
    Deferred,
    /// Uncorrected, action optional (SRAO): found by a scrubber
    #[default]
    Recoverable,
    /// The guest cannot go on
    Fatal,
}

impl fmt::Display for NotifySeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrected => "corrected",
            Self::Deferred => "deferred",
            Self::Recoverable => "recoverable",
            Self::Fatal => "fatal",
        })
    }
}

/// Who tells the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyVia {
    /// Firmware, with an interrupt (GHESv2 by the generic event device)
    #[default]
    Ghes,
    /// Firmware, at the guest's next look (GHESv2, polled)
    GhesPolled,
    /// A processor's machine check bank
    MachineCheck,
}

/// An error to tell the guest of: at `gpa`, at `dpa` of `nvdimm`, or of the processor `vcpu`. Memory does not become bad by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FaultNotify {
    /// Guest physical address of the first byte, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpa: Option<u64>,
    /// Name of an NVDIMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvdimm: Option<String>,
    /// Address of the first byte in the NVDIMM, at a line of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpa: Option<u64>,
    /// APIC id of a processor whose error it is; with firmware only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// How bad it is; recoverable when it is left out.
    #[serde(default)]
    pub severity: NotifySeverity,
    /// Who tells the guest; `ghes` when it is left out.
    #[serde(default)]
    pub via: NotifyVia,
    /// Corrected errors came more often than they should, and the guest had better not use the memory: with firmware only.
    #[serde(default)]
    pub threshold_exceeded: bool,
}

/// What an error is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyTarget {
    /// A line of memory.
    Memory(FaultTarget),
    /// A processor, by its APIC id.
    Processor(u32),
}

/// Who tells what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyPlan {
    /// A machine check bank, of memory.
    Bank(Kind, FaultTarget),
    /// Firmware.
    Firmware(Source, Severity, NotifyTarget),
}

/// An error that the guest was told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultNotified {
    /// Who tells it.
    pub via: NotifyVia,
    /// How bad it is.
    pub severity: NotifySeverity,
    /// Where the guest sees the memory.
    pub gpa: Option<u64>,
    /// APIC id of the processor that has the error, or whose bank has the record.
    pub vcpu: Option<u32>,
    /// Errors of this source that the guest has still to read, this one included; 0 for a machine check.
    pub waiting: u64,
}

impl FaultNotify {
    /// What is meant, if it makes sense by itself.
    pub fn plan(&self) -> Result<NotifyPlan, ControlError> {
        let source = match self.via {
            NotifyVia::Ghes => Source::Notified,
            NotifyVia::GhesPolled => Source::Polled,
            NotifyVia::MachineCheck => return self.plan_bank(),
        };
        let severity = match self.severity {
            NotifySeverity::Corrected => Severity::Corrected,
            NotifySeverity::Recoverable => Severity::Recoverable,
            NotifySeverity::Fatal => Severity::Fatal,
            NotifySeverity::Deferred => {
                let why = "firmware has no deferred errors: expected corrected, recoverable or fatal";
                return Err(invalid("severity", why.to_owned()).hint("or `via` machine-check"));
            }
        };
        if self.threshold_exceeded && (severity != Severity::Corrected || self.vcpu.is_some()) {
            let why = "threshold-exceeded is for corrected errors of memory";
            return Err(invalid("threshold-exceeded", why.to_owned()));
        }
        let target = match self.vcpu {
            None => NotifyTarget::Memory(self.range().target()?),
            Some(vcpu) if self.range() == FaultRange::default() => NotifyTarget::Processor(vcpu),
            Some(vcpu) => return Err(invalid("vcpu", format!("an error of processor {vcpu} has no memory"))),
        };
        Ok(NotifyPlan::Firmware(source, severity, target))
    }

    fn plan_bank(&self) -> Result<NotifyPlan, ControlError> {
        let kind = match self.severity {
            NotifySeverity::Corrected => Kind::Corrected,
            NotifySeverity::Deferred => Kind::Ucna,
            NotifySeverity::Recoverable => Kind::Srao,
            NotifySeverity::Fatal => Kind::Fatal,
        };
        if self.threshold_exceeded {
            let why = "threshold-exceeded is for errors that firmware tells of";
            return Err(invalid("threshold-exceeded", why.to_owned()));
        }
        if self.vcpu.is_some() {
            let why = "machine checks of this machine are memory errors";
            return Err(invalid("vcpu", why.to_owned()).hint("name memory, or let firmware tell: `via` ghes"));
        }
        Ok(NotifyPlan::Bank(kind, self.range().target()?))
    }

    fn range(&self) -> FaultRange {
        FaultRange {
            gpa: self.gpa,
            nvdimm: self.nvdimm.clone(),
            dpa: self.dpa,
            len: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(text: Value) -> Result<NotifyPlan, ControlError> {
        serde_json::from_value::<FaultNotify>(text).unwrap().plan()
    }

    #[test]
    fn an_error_is_of_memory_or_of_a_processor() {
        let memory = NotifyTarget::Memory(FaultTarget::Guest { start: 128, len: 64 });
        let told = NotifyPlan::Firmware(Source::Notified, Severity::Recoverable, memory);
        assert_eq!(plan(json!({"gpa": 128})), Ok(told));
        let (id, dpa, len) = ("a".to_owned(), 0, 64);
        let told = NotifyPlan::Bank(Kind::Ucna, FaultTarget::Nvdimm { id, dpa, len });
        let asked = json!({"nvdimm": "a", "dpa": 0, "via": "machine-check", "severity": "deferred"});
        assert_eq!(plan(asked), Ok(told));
        let told = NotifyPlan::Firmware(Source::Polled, Severity::Fatal, NotifyTarget::Processor(3));
        let asked = json!({"vcpu": 3, "severity": "fatal", "via": "ghes-polled"});
        assert_eq!(plan(asked), Ok(told));
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        for (asked, field) in [
            (json!({}), "gpa"),
            (json!({"gpa": 1}), "gpa"),
            (json!({"gpa": 64, "severity": "deferred"}), "severity"),
            (json!({"gpa": 64, "threshold-exceeded": true}), "threshold-exceeded"),
            (
                json!({"gpa": 64, "severity": "corrected", "via": "machine-check", "threshold-exceeded": true}),
                "threshold-exceeded",
            ),
            (
                json!({"vcpu": 0, "severity": "corrected", "threshold-exceeded": true}),
                "threshold-exceeded",
            ),
            (json!({"vcpu": 0, "gpa": 64}), "vcpu"),
            (json!({"vcpu": 0, "nvdimm": "a"}), "vcpu"),
            (json!({"vcpu": 0, "via": "machine-check"}), "vcpu"),
        ] {
            let error = plan(asked.clone()).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{asked}");
        }
    }
}
