//! Virtual NVDIMMs: configuration, NFIT, label area, `_DSM` functions, their mailbox and AML.
//!
//! [`NvdimmBus`] owns the DIMMs of a machine and answers the mailbox doorbell. What the guest reads before it rings is
//! authored by pure functions from [`NvdimmPlan`]s: the tables by [`nfit`], the ACPI devices by [`aml::NvdimmAml`].
//!
//! ```text
//! guest: _DSM, _FIT, _LSx -> AML (aml) -> mailbox page, doorbell -> NvdimmBus -> dsm::{root, dimm} -> label, ars
//! ```

pub mod aml;
pub mod ars;
pub mod config;
pub mod dsm;
pub mod errors;
mod events;
pub mod firmware;
pub mod flush;
pub mod guid;
pub mod health;
pub mod health_config;
mod interleave;
mod kept;
pub mod label;
pub mod mailbox;
pub mod media;
pub mod nfit;
pub mod plan;
pub mod security;
pub mod state;

pub use aml::NvdimmAml;
pub use ars::RootPlan;
pub use events::PendingEvents;
pub use flush::{FlushHints, FlushMode, FlushTarget};
pub use interleave::DimmAddress;
pub use label::{LabelArea, LabelStore};
pub use mailbox::MailboxPlan;
pub use media::MediaState;
pub use plan::{NfitHandle, NfitPlan, NvdimmBusPlan, NvdimmPlan, SpaPlan};
pub use security::Security;

use crate::{BusDevice, Clock, Effect, GuestMemory, Line};
use ars::Ars;
use dsm::{Answer, DsmCall, DsmStatus, Tell, hpe1::Hpe1, root};
use errors::Injected;
use firmware::{Firmware, FirmwareState};
use health::Health;
use kept::Kept;
use mailbox::{Mailbox, ROOT_HANDLE};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// One live NVDIMM.
pub struct Dimm {
    /// What was decided.
    pub plan: NvdimmPlan,
    /// Label area.
    pub labels: LabelArea,
    /// Bad ranges.
    pub media: MediaState,
    /// Sensors, thresholds and shutdown count.
    pub health: Health,
    /// Firmware versions and updates.
    pub firmware: Firmware,
    hpe1: Hpe1,
    /// Time, for what takes some.
    pub clock: Clock,
    /// Passphrases; none: the DIMM has no security functions.
    pub security: Option<Security>,
    kept: Option<Kept>,
}

impl Dimm {
    /// The DIMM of `plan` with its labels in `store`.
    pub fn new(plan: NvdimmPlan, store: Box<dyn LabelStore>, clock: &Clock) -> Self {
        let labels = LabelArea::new(store, plan.read_only);
        let (found, planned) = (labels.size(), plan.label_size);
        assert_eq!(
            found, planned,
            "the label store of {} must have the planned size",
            plan.id
        );
        Self {
            health: Health::new(plan.health),
            firmware: Firmware::restore(FirmwareState::default()),
            hpe1: Hpe1::default(),
            plan,
            labels,
            media: MediaState::default(),
            clock: clock.clone(),
            security: None,
            kept: None,
        }
    }

    fn has_labels(&self) -> bool {
        self.labels.size() != 0
    }

    /// Whether it speaks the Intel family.
    fn is_intel(&self) -> bool {
        self.plan.family == plan::DimmFamily::Intel
    }

    /// Whether the configuration leaves the DIMM its `_DSM` function `index`.
    fn allows(&self, index: u32) -> bool {
        self.plan.functions & (1 << index) != 0
    }
}

/// Everything behind one NVDIMM root device that a guest or the machine can change. Mailbox calls work on it one at a
/// time.
pub struct BusState {
    /// What `_FIT` describes.
    pub nfit: NfitPlan,
    /// How the root's functions behave.
    pub root: RootPlan,
    /// DIMMs in slot order.
    pub dimms: Vec<Dimm>,
    /// Structures that `_FIT` returns.
    pub fit: Vec<u8>,
    /// Counts the versions of `fit`, from 1.
    pub fit_generation: u32,
    /// Newest version that the guest has read to the end; 0: none yet.
    pub fit_seen: u32,
    /// What the guest has not been notified of yet.
    pub events: PendingEvents,
    /// The scrub.
    pub ars: Ars,
    /// What the guest injected.
    injected: Injected,
    /// [`Injected::changes`] of what is kept.
    injected_kept: u64,
    /// Time, for what takes some.
    pub clock: Clock,
}

impl BusState {
    /// The state at power-on.
    pub fn new(nfit: NfitPlan, dimms: Vec<Dimm>, clock: Clock) -> Self {
        Self {
            fit: nfit::fit(&nfit),
            nfit,
            root: RootPlan::default(),
            dimms,
            fit_generation: 1,
            fit_seen: 0,
            events: PendingEvents::default(),
            ars: Ars::default(),
            injected: Injected::default(),
            injected_kept: 0,
            clock,
        }
    }

    /// Goes on with a plan that has one more DIMM, and tells the guest. The plan is refused, and nothing changes, unless
    /// every structure that the guest may have read is in it unchanged: Linux refuses such an update whole.
    pub fn grow(&mut self, nfit: NfitPlan, dimm: Dimm) -> Result<(), GrowError> {
        let slot = dimm.plan.slot;
        if self.nfit.dimm(slot).is_some() || nfit.dimm(slot) != Some(&dimm.plan) {
            return Err(GrowError::NoNewDimm);
        }
        let fit = nfit::fit(&nfit);
        let all: Vec<_> = nfit::structures(&fit).collect();
        if !nfit::structures(&self.fit).all(|old| all.contains(&old)) {
            return Err(GrowError::Changed);
        }
        self.dimms.push(dimm);
        self.dimms.sort_by_key(|dimm| dimm.plan.slot);
        self.nfit = nfit;
        self.recall(|added| added == slot);
        self.fit = fit;
        self.fit_generation += 1;
        self.events.nfit_update();
        Ok(())
    }

    /// The DIMM with `handle`.
    pub fn dimm(&mut self, handle: NfitHandle) -> Option<&mut Dimm> {
        self.dimms.iter_mut().find(|dimm| dimm.plan.handle == handle)
    }

    /// Answers a call. What it changed is durable before the guest reads the answer.
    fn answer(&mut self, call: &DsmCall<'_>) -> Vec<u8> {
        let before = self.lasting();
        let bytes = self.run(call);
        let Err(error) = self.keep() else { return bytes };
        tracing::error!(%error, "the state of an NVDIMM cannot be written");
        // What an earlier call changed is no fault of this one's.
        if self.lasting() == before {
            return bytes;
        }
        dsm::unknown(call, DsmStatus::HARDWARE_ERROR).bytes
    }

    /// What the guest flushed on the DIMM in `slot` did not reach the host's storage: its health says so from now on.
    pub fn flush_failed(&mut self, slot: u8) {
        if let Some(dimm) = self.dimms.iter_mut().find(|dimm| dimm.plan.slot == slot) {
            dimm.health.lose_data();
            self.events.dimm_health(slot);
        }
    }

    fn run(&mut self, call: &DsmCall<'_>) -> Vec<u8> {
        if call.handle == ROOT_HANDLE {
            let Answer { bytes, tell } = root::answer(self, call);
            if tell == Tell::Event {
                self.events.uncorrectable_error();
            }
            return bytes;
        }
        let Some(dimm) = self.dimm(NfitHandle(call.handle)) else {
            return dsm::unknown(call, DsmStatus::NO_SUCH_DIMM).bytes;
        };
        let Answer { bytes, tell } = dsm::dimm::answer(dimm, call);
        let slot = dimm.plan.slot;
        if tell == Tell::Event {
            self.events.dimm_health(slot);
        }
        bytes
    }
}

/// Why an NFIT cannot grow into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrowError {
    /// Nothing is new.
    #[error("the new NFIT has no new DIMM")]
    NoNewDimm,
    /// Something is gone or different.
    #[error("the new NFIT changes a structure that the guest may have read")]
    Changed,
}

/// The NVDIMMs behind one root device and its mailbox. The bus device is the doorbell.
pub struct NvdimmBus {
    number: u8,
    mailbox: Mailbox,
    line: Box<dyn Line>,
    state: Mutex<BusState>,
}

impl NvdimmBus {
    /// The bus of `plan` with `labels` of its DIMMs in the plan's order, its mailbox in `memory`. `line` makes the guest
    /// evaluate the root's event method.
    pub fn new(
        memory: GuestMemory,
        plan: NvdimmBusPlan,
        labels: Vec<Box<dyn LabelStore>>,
        line: impl Line + 'static,
        clock: &Clock,
    ) -> Self {
        let NvdimmBusPlan {
            number,
            mailbox,
            nfit,
            root,
            ..
        } = plan;
        assert_eq!(nfit.dimms.len(), labels.len(), "each NVDIMM must have a label store");
        let dimms = nfit.dimms.iter().cloned().zip(labels);
        let dimms = dimms.map(|(plan, store)| Dimm::new(plan, store, clock)).collect();
        let state = BusState {
            root,
            ..BusState::new(nfit, dimms, clock.clone())
        };
        Self {
            number,
            mailbox: Mailbox::new(memory, mailbox),
            line: Box::new(line),
            state: Mutex::new(state),
        }
    }

    /// Number of the root device.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Runs `change` on the state, between two calls of the guest, and interrupts the guest if there is something new to
    /// tell it.
    pub fn with<T>(&self, change: impl FnOnce(&mut BusState) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        self.ring(state);
        result
    }

    /// Looks at the state, unless a call of the guest is at work on it: such a call may take its time.
    pub fn peek<T>(&self, look: impl FnOnce(&BusState) -> T) -> Option<T> {
        match self.state.try_lock() {
            Ok(state) => Some(look(&state)),
            Err(TryLockError::Poisoned(state)) => Some(look(&state.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Version of what `_FIT` returns.
    pub fn fit_generation(&self) -> u32 {
        self.lock().fit_generation
    }

    /// Newest version that the guest has read to the end; 0: none yet.
    pub fn fit_seen(&self) -> u32 {
        self.lock().fit_seen
    }

    fn lock(&self) -> MutexGuard<'_, BusState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, mut state: MutexGuard<'_, BusState>) {
        let is_new = state.events.take_new();
        drop(state);
        if is_new {
            self.line.pulse();
        }
    }
}

impl BusDevice for NvdimmBus {
    /// The doorbell reads as zero: there is nothing to learn from it.
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    /// Any write rings.
    fn write(&self, _: u64, _: &[u8]) -> Effect {
        let mut state = self.lock();
        if let Err(error) = self.mailbox.serve(|call| state.answer(call)) {
            tracing::warn!(%error, "an NVDIMM mailbox call is lost");
        }
        self.ring(state);
        Effect::None
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
