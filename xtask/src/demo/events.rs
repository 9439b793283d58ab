//! What the inner half of the demo tells the outer one: a JSON line each.

use serde::{Deserialize, Serialize};

/// The demo's stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Install packages.
    Packages,
    /// Build daxvisor.
    Build,
    /// Fetch and build images.
    Images,
    /// Choose the host.
    Host,
    /// First boot.
    Boot,
    /// The guest's own view of its NVDIMMs.
    Look,
    /// Create namespaces.
    Namespaces,
    /// File system, files, device-dax data.
    Write,
    /// Second boot, over the same backing files.
    Reboot,
    /// Find everything again.
    Verify,
    /// Turn off.
    PowerOff,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Packages,
        Self::Build,
        Self::Images,
        Self::Host,
        Self::Boot,
        Self::Look,
        Self::Namespaces,
        Self::Write,
        Self::Reboot,
        Self::Verify,
        Self::PowerOff,
    ];

    /// Its place, from 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().take_while(|stage| **stage != self).count() + 1
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Packages => "install what is missing",
            Self::Build => "build daxvisor",
            Self::Images => "fetch and build guest images",
            Self::Host => "choose a host",
            Self::Boot => "boot Linux with two NVDIMMs",
            Self::Look => "look at them in the guest",
            Self::Namespaces => "create namespaces",
            Self::Write => "write files and device-dax data",
            Self::Reboot => "reboot",
            Self::Verify => "find everything again",
            Self::PowerOff => "power off",
        }
    }
}

/// One line of the inner half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A stage begins; the one before it is done.
    Begin {
        /// Which.
        stage: Stage,
    },
    /// Something to see, as the guest printed it.
    Show {
        /// The command.
        title: String,
        /// Its output.
        text: String,
    },
    /// A row of the closing table.
    Fact {
        /// What.
        name: String,
        /// How much.
        value: String,
    },
    /// The demo is over, and did not work.
    Failed {
        /// Why.
        reason: String,
        /// The last lines of the guest's console.
        console: Vec<String>,
    },
}

impl Event {
    /// Reads a line; `None` when it is something else.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok())?
    }

    /// Its line, without an end.
    pub fn line(&self) -> String {
        // Strings and names: there is nothing in it that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_their_line() {
        let events = [
            Event::Begin { stage: Stage::PowerOff },
            Event::Show {
                title: "ndctl list".into(),
                text: "[\n]\n".into(),
            },
            Event::Failed {
                reason: "no \"luck\"".into(),
                console: vec!["panic".into()],
            },
        ];
        for event in events {
            assert!(!event.line().contains('\n'));
            assert_eq!(Event::parse(&event.line()), Some(event));
        }
        assert_eq!(Event::parse("retry: the nested host"), None);
    }

    #[test]
    fn stages_are_numbered_in_order() {
        let numbers: Vec<_> = Stage::ALL.iter().map(|s| s.number()).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
    }
}
