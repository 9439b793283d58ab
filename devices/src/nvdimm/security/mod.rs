//! Security of one DIMM: the passphrase state machine behind `_DSM` functions 19 to 28.
//!
//! ```text
//!            set passphrase             power cycle
//! disabled ----------------> unlocked -------------> locked
//!     ^                       |  ^                    |
//!     +-- disable, erase -----+  +----- unlock -------+       freeze, or too many wrong passphrases: no command is taken
//!     +------------- disable, erase, master erase ----+       before the next power cycle
//! ```
//!
//! The machine decides; what a decision does to the bytes is [`MediaControl`]'s, which the monitor implements. Every change is
//! durable before the guest hears of it, and a change that fails leaves the state as it was.

mod secret;

pub use secret::{KdfCost, PASSPHRASE, Passphrase, SALT, Verifier, WrappingKey, hex};

use crate::Clock;
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// Wrong passphrases of one kind before the DIMM takes no more of that kind until it is power-cycled.
pub const ATTEMPTS: u8 = 3;

bitflags::bitflags! {
    /// Security state, as function 19 reports it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct StateBits: u8 {
        /// There is a user passphrase.
        const ENABLED = 0x02;
        /// The contents are out of reach.
        const LOCKED = 0x04;
        /// No security command is taken.
        const FROZEN = 0x08;
        /// Too many wrong user passphrases.
        const ATTEMPTS_EXCEEDED = 0x10;
        /// The contents are being overwritten.
        const OVERWRITING = 0x40;
    }
}

bitflags::bitflags! {
    /// Extended security state, as function 19 reports it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct MasterBits: u8 {
        /// The master passphrase can be used.
        const ENABLED = 0x01;
        /// Too many wrong master passphrases.
        const ATTEMPTS_EXCEEDED = 0x02;
    }
}

/// What of the security of a DIMM outlives the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SecurityState {
    /// User passphrase; none: security is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Verifier>,
    /// Master passphrase; none: all zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<Verifier>,
    /// An overwrite began and has not ended.
    pub overwriting: bool,
}

impl SecurityState {
    /// Whether what a file says can be used at all.
    pub fn is_sound(&self) -> bool {
        [&self.user, &self.master].into_iter().flatten().all(Verifier::is_sound)
    }
}

/// The bytes of the DIMM, as far as security goes. A call that fails has changed nothing.
pub trait MediaControl: Send {
    /// Fills `bytes` with what nobody can guess.
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()>;
    /// Makes `state` durable.
    fn store(&mut self, state: &SecurityState) -> io::Result<()>;
    /// Makes `state` durable, in one step with keys that `new` opens from now on (none: that need no opening). `old`
    /// opens them now.
    fn protect(
        &mut self,
        state: &SecurityState,
        old: Option<&WrappingKey>,
        new: Option<&WrappingKey>,
    ) -> io::Result<()>;
    /// Takes the contents out of the guest's reach, and whatever secret they need out of memory. An overwrite goes on.
    fn lock(&mut self) -> io::Result<()>;
    /// Shows the contents to the guest; `key` opens them.
    fn unlock(&mut self, key: Option<&WrappingKey>) -> io::Result<()>;
    /// Destroys the data for good, and makes `state` durable in one step with that. Contents are out of reach afterwards and
    /// need no key. Labels stay if they can be read: they are in the guest's reach, or `key` opens them.
    fn erase(&mut self, state: &SecurityState, key: Option<&WrappingKey>) -> io::Result<()>;
    /// Makes `state` durable and begins to overwrite data and labels. The contents are out of reach meanwhile; the keys stay.
    fn start_overwrite(&mut self, state: &SecurityState) -> io::Result<()>;
    /// How the overwrite went; none: it goes on.
    fn overwritten(&mut self) -> Option<io::Result<()>>;
    /// Shows the contents again after an overwrite of a DIMM that was not locked.
    fn resume(&mut self) -> io::Result<()>;
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Not in this state.
    #[error("the security state does not allow this")]
    State,
    /// Not the passphrase.
    #[error("wrong passphrase")]
    Passphrase,
    /// An overwrite goes on.
    #[error("the overwrite goes on")]
    Overwriting,
    /// No overwrite was begun.
    #[error("no overwrite was begun")]
    Sequence,
    /// The host failed.
    #[error("the contents or their keys cannot be changed")]
    Media(#[from] io::Error),
}

/// Result of a command.
pub type Result<T = ()> = std::result::Result<T, SecurityError>;

/// What is not the guest's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What a new passphrase costs to guess.
    pub cost: KdfCost,
    /// Shortest time an overwrite takes.
    pub overwrite: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cost: KdfCost::default(),
            overwrite: Duration::from_secs(5),
        }
    }
}

/// Which passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    User,
    Master,
}

/// Security of one live DIMM.
pub struct Security {
    stored: SecurityState,
    settings: Settings,
    clock: Clock,
    media: Box<dyn MediaControl>,
    locked: bool,
    frozen: bool,
    wrong_user: u8,
    wrong_master: u8,
    /// An overwrite goes on, at least until then.
    overwriting: Option<Duration>,
    /// How the last overwrite ended, until the guest has asked.
    overwritten: Option<io::Result<()>>,
}

impl Security {
    /// The DIMM at power-on: locked if it has a passphrase, else with its contents shown.
    pub fn new(
        stored: SecurityState,
        media: Box<dyn MediaControl>,
        clock: &Clock,
        settings: Settings,
    ) -> std::result::Result<Self, io::Error> {
        let mut security = Self {
            locked: stored.user.is_some(),
            stored,
            settings,
            clock: clock.clone(),
            media,
            frozen: false,
            wrong_user: 0,
            wrong_master: 0,
            overwriting: None,
            overwritten: None,
        };
        if security.stored.overwriting {
            security.media.start_overwrite(&security.stored)?;
            security.overwriting = Some(clock.now() + settings.overwrite);
        } else if !security.locked {
            security.media.unlock(None)?;
        }
        Ok(security)
    }

    /// State for the guest.
    pub fn state(&mut self) -> (StateBits, MasterBits) {
        self.settle();
        let mut master = MasterBits::ENABLED;
        master.set(MasterBits::ATTEMPTS_EXCEEDED, self.wrong_master >= ATTEMPTS);
        if self.overwriting.is_some() {
            return (StateBits::OVERWRITING, master);
        }
        let mut user = StateBits::empty();
        user.set(StateBits::ENABLED, self.stored.user.is_some());
        user.set(StateBits::LOCKED, self.locked);
        user.set(StateBits::FROZEN, self.frozen);
        user.set(StateBits::ATTEMPTS_EXCEEDED, self.wrong_user >= ATTEMPTS);
        (user, master)
    }

    /// What outlives the monitor.
    pub fn stored(&self) -> &SecurityState {
        &self.stored
    }

    /// Whether data and labels are in the guest's reach.
    pub fn is_open(&mut self) -> bool {
        self.settle();
        !self.locked && self.overwriting.is_none()
    }

    /// Whether labels read as the zeros that an overwrite is about to leave: ndctl enables the DIMM again as soon as an
    /// overwrite has begun, and takes it for failed if the labels cannot be read.
    pub fn is_blank(&mut self) -> bool {
        self.settle();
        !self.locked && self.overwriting.is_some()
    }

    /// Whether the contents are locked away.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Function 20: replaces the user passphrase `old` (all zeros: there is none).
    pub fn set_passphrase(&mut self, old: &Passphrase, new: &Passphrase) -> Result {
        self.take_commands()?;
        let old = self.check(Who::User, old)?;
        let (user, key) = self.verifier(new)?;
        let state = SecurityState {
            user: Some(user),
            ..self.stored.clone()
        };
        self.media.protect(&state, old.as_ref(), Some(&key))?;
        self.stored = state;
        Ok(())
    }

    /// Function 21: security is disabled again.
    pub fn disable(&mut self, passphrase: &Passphrase) -> Result {
        self.take_commands()?;
        self.when(self.stored.user.is_some())?;
        let old = self.check(Who::User, passphrase)?;
        let state = SecurityState {
            user: None,
            ..self.stored.clone()
        };
        self.media.protect(&state, old.as_ref(), None)?;
        self.stored = state;
        if self.locked {
            self.locked = false;
            self.media.unlock(None)?;
        }
        Ok(())
    }

    /// Function 22.
    pub fn unlock(&mut self, passphrase: &Passphrase) -> Result {
        self.take_commands()?;
        self.when(self.locked)?;
        let key = self.check(Who::User, passphrase)?;
        self.media.unlock(key.as_ref())?;
        self.locked = false;
        Ok(())
    }

    /// Function 23: no security command is taken before the next power cycle.
    pub fn freeze(&mut self) -> Result {
        self.settle();
        self.when(self.overwriting.is_none() && self.stored.user.is_some())?;
        self.frozen = true;
        Ok(())
    }

    /// Function 24: the data is destroyed, and security is disabled with both passphrases forgotten.
    pub fn erase(&mut self, passphrase: &Passphrase) -> Result {
        self.take_commands()?;
        let key = self.check(Who::User, passphrase)?;
        self.destroy(SecurityState::default(), key.as_ref())
    }

    /// Function 28: the same for who forgot the user passphrase; the master passphrase stays.
    pub fn master_erase(&mut self, passphrase: &Passphrase) -> Result {
        self.take_commands()?;
        self.check(Who::Master, passphrase)?;
        let state = SecurityState {
            user: None,
            ..self.stored.clone()
        };
        self.destroy(state, None)
    }

    /// Function 27: replaces the master passphrase `old`, all zeros at first.
    pub fn set_master(&mut self, old: &Passphrase, new: &Passphrase) -> Result {
        self.take_commands()?;
        self.check(Who::Master, old)?;
        let (master, _) = self.verifier(new)?;
        let state = SecurityState {
            master: Some(master),
            ..self.stored.clone()
        };
        self.media.store(&state)?;
        self.stored = state;
        Ok(())
    }

    /// Function 25: begins to overwrite data and labels; the passphrases stay.
    pub fn overwrite(&mut self, passphrase: &Passphrase) -> Result {
        self.take_commands()?;
        if self.stored.user.is_some() {
            self.check(Who::User, passphrase)?;
        }
        let state = SecurityState {
            overwriting: true,
            ..self.stored.clone()
        };
        self.media.start_overwrite(&state)?;
        self.stored = state;
        self.overwriting = Some(self.clock.now() + self.settings.overwrite);
        self.overwritten = None;
        Ok(())
    }

    /// Function 26: how the overwrite goes. Its end is told once.
    pub fn query_overwrite(&mut self) -> Result {
        self.settle();
        if self.overwriting.is_some() {
            return Err(SecurityError::Overwriting);
        }
        Ok(self.overwritten.take().ok_or(SecurityError::Sequence)??)
    }

    /// Power goes and comes back: a DIMM with a passphrase is locked, nothing is frozen, wrong passphrases are forgotten.
    pub fn power_cycle(&mut self) -> Result {
        self.settle();
        self.frozen = false;
        (self.wrong_user, self.wrong_master) = (0, 0);
        self.overwritten = None;
        if self.stored.user.is_none() || self.locked {
            return Ok(());
        }
        self.media.lock()?;
        self.locked = true;
        Ok(())
    }

    /// Locks the DIMM while the guest runs: firmware never does, but a test may want to.
    pub fn lock_now(&mut self) -> Result {
        self.settle();
        self.when(self.overwriting.is_none() && self.stored.user.is_some())?;
        if !self.locked {
            self.media.lock()?;
            self.locked = true;
        }
        Ok(())
    }

    /// Security commands are taken at all.
    fn take_commands(&mut self) -> Result {
        self.settle();
        self.when(!self.frozen && self.overwriting.is_none())
    }

    fn when(&self, allowed: bool) -> Result {
        if allowed { Ok(()) } else { Err(SecurityError::State) }
    }

    /// The key that `passphrase` stands for, none where there is no passphrase. A wrong one counts, but for all zeros,
    /// which Linux sends by itself whenever it enables a DIMM whose key it does not have.
    fn check(&mut self, who: Who, passphrase: &Passphrase) -> Result<Option<WrappingKey>> {
        let (verifier, wrong) = match who {
            Who::User => (&self.stored.user, &mut self.wrong_user),
            Who::Master => (&self.stored.master, &mut self.wrong_master),
        };
        let Some(verifier) = verifier else {
            return if passphrase.is_none() {
                Ok(None)
            } else {
                Err(SecurityError::Passphrase)
            };
        };
        if *wrong >= ATTEMPTS {
            return Err(SecurityError::State);
        }
        if let Some(key) = verifier.verify(passphrase) {
            *wrong = 0;
            return Ok(Some(key));
        }
        *wrong += u8::from(!passphrase.is_none());
        Err(SecurityError::Passphrase)
    }

    fn verifier(&mut self, passphrase: &Passphrase) -> Result<(Verifier, WrappingKey)> {
        let mut salt = [0; SALT];
        self.media.random(&mut salt)?;
        let made = Verifier::new(passphrase, salt, self.settings.cost);
        made.ok_or_else(|| io::Error::other("the cost of passphrases is out of bounds").into())
    }

    fn destroy(&mut self, state: SecurityState, key: Option<&WrappingKey>) -> Result {
        self.media.erase(&state, key)?;
        self.stored = state;
        self.locked = false;
        (self.wrong_user, self.wrong_master) = (0, 0);
        Ok(self.media.unlock(None)?)
    }

    /// Takes note of an overwrite that has ended.
    fn settle(&mut self) {
        let Some(until) = self.overwriting else { return };
        if self.clock.now() < until {
            return;
        }
        let Some(mut result) = self.media.overwritten() else {
            return;
        };
        let state = SecurityState {
            overwriting: false,
            ..self.stored.clone()
        };
        result = result.and_then(|()| self.media.store(&state));
        if !self.locked {
            result = result.and_then(|()| self.media.resume());
        }
        if let Err(error) = &result {
            tracing::warn!(%error, "an overwrite of an NVDIMM failed");
        }
        self.stored = state;
        self.overwriting = None;
        self.overwritten = Some(result);
    }
}

#[cfg(test)]
mod tests;
