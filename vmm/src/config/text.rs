//! Values that are written as one text of their own: CPU lists, distance lists, console targets.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};
use std::{fmt, path::PathBuf, str::FromStr};

/// Why a text is none of these values.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// Not a list of vCPUs.
    #[error("'{0}' is not a list of vCPUs: expected numbers from 0 to 63 and ranges, such as 0-1,4")]
    CpuList(String),
    /// Not a list of distances.
    #[error("'{0}' is not a list of distances: expected NODE:DISTANCE items, such as 1:20,2:30")]
    Distances(String),
    /// Not a console target.
    #[error("'{0}' is not a console: expected stdio, file:PATH, pty or none")]
    Console(String),
}

/// A list of vCPU numbers, written `0-1,4` (in TOML also as an array of numbers). Sorted when read; a number given twice
/// stays twice, for validation to report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuList(pub Vec<u8>);

impl FromStr for CpuList {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        let bad = || TextError::CpuList(text.to_owned());
        let number = |t: &str| {
            t.parse::<u8>()
                .ok()
                .filter(|n| *n < 64 && !t.starts_with('+'))
                .ok_or_else(bad)
        };
        let mut cpus = Vec::new();
        for item in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad());
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    /// The shortest form; parses back to the same list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        while let [first, ..] = rest {
            let follows = u16::from(*first)..;
            let run = rest
                .iter()
                .zip(follows)
                .take_while(|(cpu, expected)| u16::from(**cpu) == *expected)
                .count();
            let (head, tail) = rest.split_at(run);
            let comma = if tail.is_empty() { "" } else { "," };
            match head {
                [.., last] if last != first => write!(f, "{first}-{last}{comma}")?,
                _ => write!(f, "{first}{comma}")?,
            }
            rest = tail;
        }
        Ok(())
    }
}

/// Distances from one node to others, written `1:20,2:30` (in TOML also as an array of such texts).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeDistances(pub Vec<(u32, u8)>);

impl NodeDistances {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for NodeDistances {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        let item = |item: &str| {
            let (node, value) = item.split_once(':')?;
            Some((node.parse().ok()?, value.parse().ok()?))
        };
        let items = text
            .split(',')
            .filter(|_| !text.is_empty())
            .map(item)
            .collect::<Option<_>>();
        items.map(Self).ok_or_else(|| TextError::Distances(text.to_owned()))
    }
}

impl fmt::Display for NodeDistances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<_> = self.0.iter().map(|(node, value)| format!("{node}:{value}")).collect();
        f.write_str(&items.join(","))
    }
}

/// Where the first serial port goes: `stdio`, `file:PATH`, `pty` or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConsoleConfig {
    /// The terminal or pipe daxvisor was started on.
    #[default]
    Stdio,
    /// A file, truncated at start.
    File(PathBuf),
    /// A new pseudo terminal, whose name is printed.
    Pty,
    /// Nowhere.
    None,
}

impl FromStr for ConsoleConfig {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        match text {
            "stdio" => Ok(Self::Stdio),
            "pty" => Ok(Self::Pty),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err(TextError::Console(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for ConsoleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pty => f.write_str("pty"),
            Self::None => f.write_str("none"),
        }
    }
}

/// Reads a text, or a list of items whose texts are joined with commas.
struct TextVisitor<T>(&'static str, std::marker::PhantomData<T>);

impl<'de, T: FromStr<Err = TextError>> Visitor<'de> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Item>()? {
            items.push(match item {
                Item::Number(n) => n.to_string(),
                Item::Text(text) => text,
            });
        }
        items.join(",").parse().map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Number(i64),
    Text(String),
}

macro_rules! serde_as_text {
    ($($kind:ty: $expected:literal)*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(TextVisitor($expected, std::marker::PhantomData))
            }
        }
    )*};
}

serde_as_text! {
    CpuList: "a list of vCPUs such as \"0-1,4\" or [0, 1, 4]"
    NodeDistances: "a list of distances such as \"1:20,2:30\""
    ConsoleConfig: "a console: stdio, file:PATH, pty or none"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpu_lists_are_numbers_and_ranges() {
        for (text, cpus) in [
            ("", &[][..]),
            ("3", &[3]),
            ("0-1,4", &[0, 1, 4]),
            ("5,0-2,63", &[0, 1, 2, 5, 63]),
            ("1,1", &[1, 1]),
        ] {
            assert_eq!(text.parse::<CpuList>().unwrap().0, cpus, "{text}");
        }
        for text in ["x", "1-", "-1", "2-1", "64", "0-300", "1,,2", "1 ,2", "+1"] {
            assert_eq!(
                text.parse::<CpuList>(),
                Err(TextError::CpuList(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn toml_takes_texts_and_arrays() {
        #[derive(Deserialize)]
        struct Doc {
            cpus: CpuList,
            distance: NodeDistances,
        }
        for text in [
            "cpus = '0-1,4'\ndistance = '1:20,2:30'",
            "cpus = [0, 1, 4]\ndistance = ['1:20', '2:30']",
        ] {
            let doc: Doc = toml::from_str(text).unwrap();
            assert_eq!(doc.cpus.0, [0, 1, 4], "{text}");
            assert_eq!(doc.distance.0, [(1, 20), (2, 30)], "{text}");
        }
        assert!(toml::from_str::<Doc>("cpus = [-1]\ndistance = ''").is_err());
    }

    #[test]
    fn consoles_are_one_of_four_texts() {
        for text in ["stdio", "pty", "none", "file:/tmp/a,b"] {
            assert_eq!(text.parse::<ConsoleConfig>().unwrap().to_string(), text);
        }
        for text in ["", "file:", "tty", "STDIO"] {
            assert_eq!(text.parse::<ConsoleConfig>(), Err(TextError::Console(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn printed_lists_parse_back(mut cpus in proptest::collection::vec(0u8..64, 0..20)) {
            cpus.sort_unstable();
            let list = CpuList(cpus);
            prop_assert_eq!(list.to_string().parse::<CpuList>().unwrap(), list);
        }
        #[test]
        fn printed_distances_parse_back(items: Vec<(u32, u8)>) {
            let list = NodeDistances(items);
            prop_assert_eq!(list.to_string().parse::<NodeDistances>().unwrap(), list);
        }
    }
}
