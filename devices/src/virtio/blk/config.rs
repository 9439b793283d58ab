//! What the user says of a disk and its faults.

use crate::{
    nvdimm::config::{NvdimmBacking, NvdimmConfig},
    units::{ByteSize, TimeSpan},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, ops::Range, path::PathBuf, str::FromStr};

/// A disk: a raw file behind a virtio device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// The file.
    pub file: PathBuf,
    /// Bytes of a file that is to be created; default: what the file has.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Writes are refused.
    #[serde(default)]
    pub readonly: bool,
    /// Name; default `diskN` by position.
    #[serde(default)]
    pub id: Option<String>,
    /// Serial number that the guest sees; default: the name.
    #[serde(default)]
    pub serial: Option<String>,
    /// Bytes in a second.
    #[serde(default)]
    pub bandwidth: Option<ByteSize>,
    /// Requests in a second.
    #[serde(default)]
    pub iops: Option<u32>,
    /// For how long a disk that was idle may exceed them.
    #[serde(default = "DiskThrottle::default_burst")]
    pub burst: TimeSpan,
}

impl DiskConfig {
    /// The file, as the backing of an NVDIMM without labels.
    pub fn backing(&self) -> NvdimmConfig {
        NvdimmConfig {
            file: Some(self.file.clone()),
            size: self.size,
            backing: NvdimmBacking::File,
            readonly: self.readonly,
            label: ByteSize(0),
            ..NvdimmConfig::default()
        }
    }

    /// The limits.
    pub fn throttle(&self) -> DiskThrottle {
        DiskThrottle {
            bandwidth: self.bandwidth,
            iops: self.iops,
            burst: self.burst,
        }
    }
}

/// Limits of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskThrottle {
    /// Bytes in a second; none: no limit.
    #[serde(default)]
    pub bandwidth: Option<ByteSize>,
    /// Requests in a second; none: no limit.
    #[serde(default)]
    pub iops: Option<u32>,
    /// For how long a disk that was idle may exceed them.
    #[serde(default = "DiskThrottle::default_burst")]
    pub burst: TimeSpan,
}

impl Default for DiskThrottle {
    fn default() -> Self {
        Self {
            bandwidth: None,
            iops: None,
            burst: Self::default_burst(),
        }
    }
}

impl DiskThrottle {
    /// A tenth of a second.
    pub fn default_burst() -> TimeSpan {
        TimeSpan(std::time::Duration::from_millis(100))
    }
}

/// What is wrong with a disk: which requests, and what becomes of them. Of several faults all have their effect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DiskFault {
    /// Requests of this kind; default: all.
    pub op: DiskOp,
    /// Requests that touch one of these sectors of 512 bytes, such as `0-7`; default: all, flushes among them.
    #[schema(value_type = Option<String>)]
    pub sectors: Option<SectorRange>,
    /// They take so much longer.
    pub latency: TimeSpan,
    /// And so much more by chance.
    pub jitter: TimeSpan,
    /// How that is distributed.
    pub distribution: Distribution,
    /// They fail with an I/O error.
    pub error: bool,
    /// They hang until the fault is taken away.
    pub hang: bool,
    /// Only the first so many; default: all.
    pub count: Option<u32>,
}

/// A fault of a disk that is there from the start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DiskFaultConfig {
    /// Name of the disk.
    pub disk: String,
    /// See [`DiskFault::op`].
    pub op: DiskOp,
    /// See [`DiskFault::sectors`].
    pub sectors: Option<SectorRange>,
    /// See [`DiskFault::latency`].
    pub latency: TimeSpan,
    /// See [`DiskFault::jitter`].
    pub jitter: TimeSpan,
    /// See [`DiskFault::distribution`].
    pub distribution: Distribution,
    /// See [`DiskFault::error`].
    pub error: bool,
    /// See [`DiskFault::hang`].
    pub hang: bool,
    /// See [`DiskFault::count`].
    pub count: Option<u32>,
}

impl DiskFaultConfig {
    /// The fault itself.
    pub fn fault(&self) -> DiskFault {
        DiskFault {
            op: self.op,
            sectors: self.sectors,
            latency: self.latency,
            jitter: self.jitter,
            distribution: self.distribution,
            error: self.error,
            hang: self.hang,
            count: self.count,
        }
    }
}

impl DiskFault {
    /// Why it makes no sense, if it does not.
    pub fn problem(&self) -> Option<&'static str> {
        let nothing = self.latency.0.is_zero() && self.jitter.0.is_zero() && !self.error && !self.hang;
        if nothing {
            return Some("does nothing: expected latency=, jitter=, error=on or hang=on");
        }
        if self.count == Some(0) {
            return Some("has count=0: expected 1 or more");
        }
        if self.op == DiskOp::Flush && self.sectors.is_some() {
            return Some("has sectors= for op=flush: a flush has none; hint: leave out sectors=");
        }
        None
    }
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskOp {
    /// Every kind.
    #[default]
    Any,
    /// Reads.
    Read,
    /// Writes, discards and zeroings.
    Write,
    /// Flushes.
    Flush,
}

/// How a latency that is left to chance is distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Anything from 0 to `jitter`.
    #[default]
    Uniform,
    /// `jitter` on average, at most ten times that: many short ones and a few long.
    Exponential,
    /// With the standard deviation `jitter` around `latency`, never below 0.
    Normal,
}

/// Sectors, first to last, written `8-15` or `8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectorRange {
    /// First.
    pub first: u64,
    /// Last, at or above the first.
    pub last: u64,
}

/// Why a text is no range of sectors.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a range of sectors: expected FIRST-LAST or one number, such as 0-7")]
pub struct SectorRangeError(String);

impl SectorRange {
    /// Whether it shares a sector with `other`.
    pub fn meets(&self, other: &Range<u64>) -> bool {
        self.first < other.end && other.start <= self.last
    }
}

impl FromStr for SectorRange {
    type Err = SectorRangeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| digits)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(SectorRangeError(text.to_owned())),
        }
    }
}

impl fmt::Display for SectorRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Serialize for SectorRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SectorRange {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_read_as_they_are_written() {
        for text in ["0", "8-15", "0-18446744073709551615"] {
            assert_eq!(text.parse::<SectorRange>().unwrap().to_string(), text);
        }
        for text in ["", "-", "8-", "-8", "9-8", "+1", "a", "1-2-3", "18446744073709551616"] {
            assert!(text.parse::<SectorRange>().is_err(), "{text}");
        }
        let range = SectorRange { first: 8, last: 15 };
        let meets = [0..8, 0..9, 8..16, 15..16, 16..20, 0..100, 9..9].map(|other| range.meets(&other));
        assert_eq!(meets, [false, true, true, true, false, true, true]);
    }

    #[test]
    fn a_fault_without_effect_is_named() {
        assert!(DiskFault::default().problem().is_some());
        let error = DiskFault {
            error: true,
            ..DiskFault::default()
        };
        assert_eq!(error.problem(), None);
        let sectors = Some(SectorRange { first: 0, last: 0 });
        let flush = DiskFault {
            op: DiskOp::Flush,
            sectors,
            ..error.clone()
        };
        assert!(flush.problem().unwrap().contains("op=flush"));
        assert!(
            DiskFault {
                count: Some(0),
                ..error
            }
            .problem()
            .is_some()
        );
    }
}
