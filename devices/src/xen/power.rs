//! What the host asks a domain to do by itself: `control/shutdown` of its store.
//!
//! ```text
//! guest, once:  control/feature-poweroff = 1
//! host:         control/shutdown = poweroff  --watch-->  guest: control/shutdown = "", then does it
//! ```

use super::{Domain, Host};

/// Where it is asked, and where the guest says that it has taken it.
const NODE: &str = "control/shutdown";

/// What a domain can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Turn itself off.
    PowerOff,
    /// Start again.
    Reboot,
}

impl Asked {
    /// As the node has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        }
    }

    fn of(word: &[u8]) -> Option<Self> {
        let both = [Self::PowerOff, Self::Reboot];
        both.into_iter().find(|asked| asked.word().as_bytes() == word)
    }
}

/// Why it is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAsked {
    /// The guest does not say that it takes this.
    Unsupported,
    /// It has not taken this, which it was asked for before.
    Waiting(&'static str),
}

impl Domain {
    /// What the guest is asked for, and has not taken.
    pub fn asked(&self) -> Option<Asked> {
        Asked::of(self.store.value(NODE)?)
    }

    /// Asks the guest, if it says that it takes that.
    pub fn ask(&mut self, what: Asked, host: &mut dyn Host) -> Result<(), NotAsked> {
        let feature = format!("control/feature-{}", what.word());
        if self.store.value(&feature) != Some(b"1") {
            return Err(NotAsked::Unsupported);
        }
        if let Some(before) = self.asked() {
            return Err(NotAsked::Waiting(before.word()));
        }
        self.set_node(NODE, what.word(), host);
        Ok(())
    }

    /// Does not ask any more. False: the guest has taken it.
    pub fn take_back(&mut self, what: Asked, host: &mut dyn Host) -> bool {
        let waits = self.asked() == Some(what);
        if waits {
            self.set_node(NODE, "", host);
        }
        waits
    }
}
