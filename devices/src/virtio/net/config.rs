//! What the user says of a network device.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Bytes of the longest name of an interface: Linux's `IFNAMSIZ` without its NUL.
pub const MAX_TAP_NAME: usize = 15;

/// A network device: one end of a wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetConfig {
    /// The wire is this tap interface of the host.
    #[serde(default)]
    pub tap: Option<String>,
    /// The wire is a link: by name to the other device of this machine that names it, by path to a device of another machine.
    #[serde(default)]
    pub link: Option<String>,
    /// Hardware address; default for a link within the machine: by position.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Most bytes of a packet.
    #[serde(default = "NetConfig::default_mtu")]
    pub mtu: u16,
    /// Name; default `netN` by position.
    #[serde(default)]
    pub id: Option<String>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            tap: None,
            link: None,
            mac: None,
            mtu: Self::default_mtu(),
            id: None,
        }
    }
}

/// What a device is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetWire<'c> {
    /// A tap interface of the host.
    Tap(&'c str),
    /// A link of this name within the machine.
    Inner(&'c str),
    /// A socket that two machines share.
    Outer(&'c Path),
}

impl NetConfig {
    /// That of Ethernet.
    pub fn default_mtu() -> u16 {
        1500
    }

    /// The wire, if exactly one is named. A link with a slash in it is a path.
    pub fn wire(&self) -> Option<NetWire<'_>> {
        match (&self.tap, &self.link) {
            (Some(name), None) => Some(NetWire::Tap(name)),
            (None, Some(link)) if link.contains('/') => Some(NetWire::Outer(Path::new(link))),
            (None, Some(name)) => Some(NetWire::Inner(name)),
            _ => None,
        }
    }

    /// The socket's path, where there is one.
    pub fn socket(&self) -> Option<PathBuf> {
        match self.wire() {
            Some(NetWire::Outer(path)) => Some(path.to_owned()),
            _ => None,
        }
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of the device at this position when none is given: locally administered, "dax" in it.
    pub fn of_position(position: usize) -> Self {
        Self([2, b'd', b'a', b'x', 0, u8::try_from(position).unwrap_or(u8::MAX)])
    }

    /// Whether it can be the address of a device: not a group's, not all zeros.
    pub fn is_unicast(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{text}' is not a hardware address: expected six pairs of hex digits such as 02:64:61:78:01:00")
        };
        let mut mac = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut mac {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(wrong)?;
            // `from_str_radix` would take a sign.
            let digits = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            *byte = u8::from_str_radix(pair, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        }
        match pairs.next() {
            None => Ok(Self(mac)),
            Some(_) => Err(wrong()),
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_six_pairs_and_prints_as_it_reads() {
        let mac: Mac = "02:64:61:78:aB:0f".parse().unwrap();
        assert_eq!(mac, Mac([2, 0x64, 0x61, 0x78, 0xab, 0x0f]));
        assert_eq!(mac.to_string(), "02:64:61:78:ab:0f");
        for wrong in [
            "",
            "02",
            "02:64:61:78:ab",
            "02:64:61:78:ab:0f:00",
            "2:64:61:78:ab:0f",
            "+2:64:61:78:ab:0f",
            "0x:64:61:78:ab:0f",
            "02-64-61-78-ab-0f",
        ] {
            let error = wrong.parse::<Mac>().unwrap_err();
            assert!(error.contains("six pairs"), "{wrong}: {error}");
        }
        assert!(Mac::of_position(3).is_unicast() && !Mac([0; 6]).is_unicast() && !Mac([0xff; 6]).is_unicast());
    }

    #[test]
    fn a_wire_is_one_thing() {
        let config = |tap: Option<&str>, link: Option<&str>| NetConfig {
            tap: tap.map(str::to_owned),
            link: link.map(str::to_owned),
            ..NetConfig::default()
        };
        assert_eq!(config(Some("tap0"), None).wire(), Some(NetWire::Tap("tap0")));
        assert_eq!(config(None, Some("a")).wire(), Some(NetWire::Inner("a")));
        let outer = config(None, Some("./a"));
        assert_eq!(outer.wire(), Some(NetWire::Outer(Path::new("./a"))));
        assert_eq!(outer.socket(), Some(PathBuf::from("./a")));
        assert_eq!(config(None, None).wire(), None);
        assert_eq!(config(Some("tap0"), Some("a")).wire(), None);
    }
}
