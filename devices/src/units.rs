//! Types for addresses and sizes, so that none of them is just an integer.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, time::Duration};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::OneOfBuilder},
};

/// A number, or the text that people write for it.
fn number_or_text(about: &str, pattern: &str, most: Option<u32>) -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    let either = OneOfBuilder::new().description(Some(about));
    either.item(number.maximum(most)).item(text).into()
}

/// A guest physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gpa(pub u64);

impl fmt::Display for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A device physical address: an offset into one DIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dpa(pub u64);

/// `len` bytes from `start`. Never wraps: `start + len` fits 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpaRange {
    /// First address.
    pub start: Gpa,
    /// Bytes.
    pub len: u64,
}

impl GpaRange {
    /// A range; a broken caller that would wrap is stopped here.
    pub fn new(start: Gpa, len: u64) -> Self {
        assert!(
            start.0.checked_add(len).is_some(),
            "range {start} + {len:#x} must not wrap"
        );
        Self { start, len }
    }
    /// First address after the range.
    pub fn end(&self) -> Gpa {
        Gpa(self.start.0 + self.len)
    }
    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
    /// Whether `gpa` lies in the range.
    pub fn contains(&self, gpa: Gpa) -> bool {
        self.start <= gpa && gpa < self.end()
    }
}

impl fmt::Display for GpaRange {
    /// Inclusive, as `/proc/iomem` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#x}-{:#x}",
            self.start.0,
            (self.start.0 + self.len).wrapping_sub(1)
        )
    }
}

/// A number of bytes, written with a binary suffix: `512M`, `1G`, `64K`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// `n` GiB.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
}

/// Why a text is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not a size: expected a whole number with an optional suffix K, M, G or T (powers of 1024), below 16E"
)]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ByteSizeError(text.to_owned());
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(bad()),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    /// The shortest exact form; parses back to the same size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size in bytes such as 4096, 128K, 512M or 1G")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<ByteSize, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(v))
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<ByteSize, E> {
                u64::try_from(v).map(ByteSize).map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl PartialSchema for ByteSize {
    fn schema() -> RefOr<Schema> {
        let pattern = "^[0-9]+([Bb]|[KkMmGgTt]([Bb]|[Ii][Bb])?)?$";
        number_or_text("Bytes, as a number or as text such as 128K, 512M or 1G.", pattern, None)
    }
}

impl ToSchema for ByteSize {}

/// A number that people write in hexadecimal: a handle, an identifier, a mask. Read as `0x101` or `257`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hex(pub u32);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why a text is no such number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a 32-bit number: expected hexadecimal such as 0x101, or decimal")]
pub struct HexError(String);

impl FromStr for Hex {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
            Some(_) => return Err(HexError(text.to_owned())),
            None => text.parse(),
        };
        number.map(Self).map_err(|_| HexError(text.to_owned()))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Hex;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a 32-bit number such as 0x101 or 257")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Hex, E> {
                v.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Hex, E> {
                u32::try_from(v).map(Hex).map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Hex, E> {
                u32::try_from(v).map(Hex).map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl PartialSchema for Hex {
    fn schema() -> RefOr<Schema> {
        let about = "A 32-bit number, as a number or as text such as 0x101 or 257.";
        number_or_text(about, "^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})$", Some(u32::MAX))
    }
}

impl ToSchema for Hex {}

/// A length of time, written with a unit: `500ms`, `2s`, `5min`, `0s`. Whole milliseconds, a day at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan(pub Duration);

/// Why a text is no length of time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not a length of time: expected a whole number with the unit ms, s or min, at most a day, such as 500ms or 2s"
)]
pub struct TimeSpanError(String);

impl TimeSpan {
    const UNITS: [(&str, u64); 3] = [("min", 60_000), ("ms", 1), ("s", 1000)];
    const MAX: Duration = Duration::from_secs(24 * 60 * 60);
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = Self::UNITS
            .iter()
            .find_map(|(name, ms)| Some((text.strip_suffix(name)?, ms)));
        let number = unit.filter(|(digits, _)| digits.bytes().all(|b| b.is_ascii_digit()));
        let ms = number.and_then(|(digits, ms)| digits.parse::<u64>().ok()?.checked_mul(*ms));
        let span = ms.map(Duration::from_millis).filter(|span| *span <= Self::MAX);
        span.map(Self).ok_or_else(|| TimeSpanError(text.to_owned()))
    }
}

impl fmt::Display for TimeSpan {
    /// The shortest exact form; parses back to the same time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}min", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for TimeSpan {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let about = "A length of time such as 500ms, 2s or 5min, a day at most.";
        text.description(Some(about)).pattern(Some("^[0-9]+(ms|s|min)$")).into()
    }
}

impl ToSchema for TimeSpan {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_take_binary_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("128K", 128 << 10),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("3MiB", 3 << 20),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "G", "1X", "-1", "1.5G", "0x10", "99999999999T", "1 G", "+1"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_sizes_parse_back(n: u64) {
            prop_assert_eq!(ByteSize(n).to_string().parse::<ByteSize>().unwrap(), ByteSize(n));
        }
        #[test]
        fn any_text_is_a_size_or_an_error(text in "\\PC{0,12}") {
            let _ = text.parse::<ByteSize>();
        }
    }

    #[test]
    fn times_have_units_and_read_back() {
        for (text, ms) in [
            ("0s", 0),
            ("1ms", 1),
            ("1500ms", 1500),
            ("2s", 2000),
            ("60s", 60_000),
            ("1440min", 86_400_000),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), ms, "{text}");
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
        for text in [
            "",
            "2",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "+1s",
            "86401s",
            "99999999999999999999min",
            "2h",
        ] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }

    #[test]
    fn hex_numbers_read_back_as_they_are_written() {
        for (text, number) in [("0x101", 0x101), ("257", 257), ("0XFFFFFFFF", u32::MAX), ("0", 0)] {
            let hex: Hex = text.parse().unwrap();
            assert_eq!((hex, hex.to_string().parse()), (Hex(number), Ok(hex)));
        }
        for text in ["", "0x", "0x+1", "-1", "0x100000000", "1g"] {
            assert!(text.parse::<Hex>().is_err(), "{text}");
        }
    }
}
