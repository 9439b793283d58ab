//! Latency and bandwidth in the units people write and the units HMAT holds: never rounded on the way.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Time from a request to its data: whole picoseconds, the unit of HMAT revision 2 (ACPI 6.5 5.2.29.4). Written `300ns`.
///
/// 32 bits, because Linux takes a larger value for no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, examples("300ns"))]
pub struct Latency(u32);

/// Bytes in a time: whole megabytes (10^6 bytes) per second, the unit of HMAT. Written `2GB/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, examples("2GB/s"))]
pub struct Bandwidth(u32);

/// Why a text is neither.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RateError {
    /// Not a latency.
    #[error(
        "'{0}' is not a latency: expected 1ps to 4294967295ps, written with ps, ns, us or ms, such as 300ns or 12.5ns"
    )]
    Latency(String),
    /// Not a bandwidth.
    #[error(
        "'{0}' is not a bandwidth: expected 1MB/s to 4294967295MB/s in whole megabytes (10^6 bytes), such as 2GB/s or 25.6GB/s"
    )]
    Bandwidth(String),
}

/// Suffixes with their worth in the type's unit, the largest last.
type Units = [(&'static str, u64)];

const LATENCY: &Units = &[("ps", 1), ("ns", 1_000), ("us", 1_000_000), ("ms", 1_000_000_000)];
const BANDWIDTH: &Units = &[("MB/s", 1), ("GB/s", 1_000), ("TB/s", 1_000_000)];

impl Latency {
    /// `ns` nanoseconds, for small constants.
    pub const fn ns(ns: u16) -> Self {
        Self(ns as u32 * 1000)
    }
    /// Picoseconds.
    pub const fn picoseconds(self) -> u32 {
        self.0
    }
}

impl Bandwidth {
    /// `mb` megabytes per second, for small constants.
    pub const fn mb(mb: u32) -> Self {
        Self(mb)
    }
    /// Megabytes per second.
    pub const fn megabytes(self) -> u32 {
        self.0
    }
}

/// `text` in the smallest of `units`, if it is a positive whole number of them that fits.
fn parse(text: &str, units: &Units) -> Option<u32> {
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then_some(());
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, suffix) = text.split_at(at);
    let (_, worth) = units.iter().find(|(name, _)| *name == suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    digits(whole).and_then(|()| digits(fraction))?;
    let places = u32::try_from(fraction.len()).ok()?;
    let part = worth.checked_mul(fraction.parse().ok()?)?;
    let scale = 10_u64.checked_pow(places)?;
    if !part.is_multiple_of(scale) {
        return None;
    }
    let value = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(*worth)?
        .checked_add(part / scale)?;
    u32::try_from(value).ok().filter(|v| *v != 0)
}

/// The whole number with the largest unit; parses back to the same value.
fn print(value: u32, units: &Units, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let value = u64::from(value);
    let best = units.iter().rev().find(|(_, worth)| value.is_multiple_of(*worth));
    match best {
        Some((suffix, worth)) => write!(f, "{}{suffix}", value / worth),
        None => write!(f, "{value}"),
    }
}

macro_rules! rate {
    ($kind:ident $units:ident $what:literal) => {
        impl FromStr for $kind {
            type Err = RateError;
            fn from_str(text: &str) -> Result<Self, RateError> {
                parse(text, $units)
                    .map(Self)
                    .ok_or_else(|| RateError::$kind(text.to_owned()))
            }
        }
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(self.0, $units, f)
            }
        }
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $kind;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, v: &str) -> Result<$kind, E> {
                        v.parse().map_err(E::custom)
                    }
                }
                d.deserialize_any(Visitor)
            }
        }
    };
}

rate!(Latency LATENCY "a latency with its unit, such as \"300ns\"");
rate!(Bandwidth BANDWIDTH "a bandwidth with its unit, such as \"2GB/s\"");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn latencies_are_exact_picoseconds() {
        for (text, picoseconds) in [
            ("300ns", 300_000),
            ("1ps", 1),
            ("12.5ns", 12_500),
            ("0.001ns", 1),
            ("4ms", 4_000_000_000),
            ("4.294967295ms", u32::MAX),
            ("1.50us", 1_500_000),
        ] {
            assert_eq!(text.parse::<Latency>().unwrap().picoseconds(), picoseconds, "{text}");
        }
        for text in [
            "", "300", "0ns", "0.0001ns", "1.5ps", "5ms", "ns", "-1ns", "+1ns", "1 ns", "1.ns.", ".ns", "1NS",
        ] {
            assert!(text.parse::<Latency>().is_err(), "{text}");
        }
    }

    #[test]
    fn bandwidths_are_exact_decimal_megabytes() {
        for (text, megabytes) in [
            ("2GB/s", 2000),
            ("25.6GB/s", 25_600),
            ("1MB/s", 1),
            ("1.5TB/s", 1_500_000),
        ] {
            assert_eq!(text.parse::<Bandwidth>().unwrap().megabytes(), megabytes, "{text}");
        }
        for text in [
            "2",
            "2GB",
            "2GiB/s",
            "0.5MB/s",
            "2.0005GB/s",
            "4294967296MB/s",
            "0MB/s",
            "99999999999999999999GB/s",
        ] {
            assert!(text.parse::<Bandwidth>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_rates_parse_back(n in 1..=u32::MAX) {
            prop_assert_eq!(Latency(n).to_string().parse(), Ok(Latency(n)));
            prop_assert_eq!(Bandwidth(n).to_string().parse(), Ok(Bandwidth(n)));
        }
        #[test]
        fn any_text_is_a_rate_or_an_error(text in "\\PC{0,14}", digits in "[0-9.]{0,30}(ns|GB/s)") {
            let _ = (text.parse::<Latency>(), text.parse::<Bandwidth>());
            let _ = (digits.parse::<Latency>(), digits.parse::<Bandwidth>());
        }
    }
}
