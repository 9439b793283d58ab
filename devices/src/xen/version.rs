//! `xen_version`: what Xen this is, and what it can do.

use super::{Call, Context, Domain, Done, Errno, abi::FeatureInfo};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use zerocopy::little_endian::U64;

/// The version that Xen says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Before the dot.
    pub major: u16,
    /// Behind it.
    pub minor: u16,
}

impl Version {
    /// As Xen itself has it in one word.
    pub fn word(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// Whether it offers each vCPU a vector of its own for events, as Xen does from 4.17 on.
    pub fn has_own_vectors(self) -> bool {
        (self.major, self.minor) >= (4, 17)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// No version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a version of Xen: expected two numbers such as 4.17, from 4.0 to 4.99")]
pub struct NoVersion(String);

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let parts = text.split_once('.');
        let version = parts.and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match version {
            Some((4, minor @ 0..=99)) => Ok(Self { major: 4, minor }),
            _ => Err(NoVersion(text.to_owned())),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Features of the first word that a guest has (`features.h`): it may write its page tables; its pages are where it believes;
/// events come by a vector; time goes on in a page; nodes can be named in memory operations; its pages are not the machine's.
const FEATURES: u32 = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 9 | 1 << 13 | 1 << 16;
/// Beside them: it is the first domain.
const FEATURE_DOM0: u32 = 1 << 11;

/// Behind the version, as `/sys/hypervisor/version/extra` shows it.
const EXTRA: &str = ".0-daxvisor";
/// What kinds of guests there are: this one.
const CAPABILITIES: &str = "hvm-3.0-x86_64";

/// Bytes of text that a guest has room for: the text, then zeros.
fn text(at: u64, text: &str, room: usize, context: &Context<'_>) -> Done {
    let mut bytes = text.as_bytes().to_vec();
    bytes.truncate(room - 1);
    bytes.resize(room, 0);
    context.guest.write(at, &bytes)?;
    Ok(0)
}

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    let [operation, at, ..] = call.args;
    match operation {
        0 => Ok(domain.version.word().into()),
        1 => text(at, EXTRA, 16, context),
        // Compiler, who compiled, where, when: 64, 16, 32 and 32 bytes.
        2 => text(at, "", 144, context),
        3 => text(at, CAPABILITIES, 1024, context),
        4 => text(at, "unavailable", 64, context),
        // Where Xen is in every address space: nowhere.
        5 => context.put(at, &U64::ZERO).map(|()| 0),
        6 => {
            let mut info: FeatureInfo = context.get(at)?;
            info.bits = match info.index.get() {
                0 if domain.is_initial() => FEATURES | FEATURE_DOM0,
                0 => FEATURES,
                1 => 0,
                _ => return Err(Errno::Invalid),
            }
            .into();
            context.put(at, &info).map(|()| 0)
        }
        7 => Ok(4096),
        // Its name, which nobody has given it.
        8 => context.put(at, &[0u8; 16]).map(|()| 0),
        9 => text(at, "", 1024, context),
        _ => Err(Errno::NoCall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers() {
        let version = |text: &str| text.parse::<Version>();
        assert_eq!(version("4.17").map(Version::word), Ok(0x0004_0011));
        assert_eq!(version("4.17").map(|v| v.to_string()), Ok("4.17".to_owned()));
        for bad in [
            "", "4", "4.", ".17", "4.100", "3.4", "4.-1", "4.+1", "4.1.2", "4.x", "99999.1",
        ] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
