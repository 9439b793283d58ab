//! Virtual NVDIMMs: configuration, NFIT, label area, `_DSM` functions, their mailbox and AML.
//!
//! [`NvdimmBus`] owns the DIMMs of a machine and answers the mailbox doorbell. What the guest reads before it rings is
//! authored by pure functions from [`NvdimmPlan`]s: the tables by [`nfit`], the ACPI devices by [`aml::NvdimmAml`].
//!
//! ```text
//! guest: _DSM, _FIT, _LSx -> AML (aml) -> mailbox page, doorbell -> NvdimmBus -> dsm::{root, dimm} -> label
//! ```

pub mod aml;
pub mod config;
pub mod dsm;
pub mod guid;
pub mod label;
pub mod mailbox;
pub mod nfit;

pub use aml::NvdimmAml;
pub use label::{LabelArea, LabelStore};
pub use mailbox::MailboxPlan;
pub use nfit::{NfitHandle, NvdimmPlan};

use crate::{BusDevice, Effect, GuestMemory};
use dsm::{DsmCall, DsmStatus, root};
use mailbox::{Mailbox, ROOT_HANDLE};
use std::sync::{Mutex, PoisonError};

/// One live NVDIMM.
pub struct Dimm {
    /// What was decided.
    pub plan: NvdimmPlan,
    /// Label area.
    pub labels: LabelArea,
}

impl Dimm {
    /// The DIMM of `plan` with its labels in `store`.
    pub fn new(plan: NvdimmPlan, store: Box<dyn LabelStore>) -> Self {
        let labels = LabelArea::new(store, plan.read_only);
        let (found, planned) = (labels.size(), plan.label_size);
        assert_eq!(
            found, planned,
            "the label store of {} must have the planned size",
            plan.id
        );
        Self { plan, labels }
    }

    fn has_labels(&self) -> bool {
        self.labels.size() != 0
    }
}

/// All NVDIMMs of a machine behind their mailbox. The bus device is the doorbell.
pub struct NvdimmBus {
    mailbox: Mailbox,
    dimms: Vec<Dimm>,
    fit: Vec<u8>,
    state: Mutex<State>,
}

/// Volatile state. Its lock also makes mailbox calls one at a time.
struct State {
    fit_generation: u32,
    fit_seen: u32,
}

impl NvdimmBus {
    /// The bus with `dimms`, its mailbox in `memory` at the place `plan` says.
    pub fn new(memory: GuestMemory, plan: MailboxPlan, dimms: Vec<(NvdimmPlan, Box<dyn LabelStore>)>) -> Self {
        let dimms: Vec<_> = dimms.into_iter().map(|(plan, store)| Dimm::new(plan, store)).collect();
        let plans: Vec<_> = dimms.iter().map(|d| d.plan.clone()).collect();
        Self {
            mailbox: Mailbox::new(memory, plan),
            fit: nfit::fit(&plans),
            dimms,
            state: Mutex::new(State {
                fit_generation: 1,
                fit_seen: 0,
            }),
        }
    }

    /// DIMMs in slot order.
    pub fn dimms(&self) -> &[Dimm] {
        &self.dimms
    }

    /// Version of what `_FIT` returns.
    pub fn fit_generation(&self) -> u32 {
        self.lock().fit_generation
    }

    /// Newest version that the guest has read to the end; 0: none yet.
    pub fn fit_seen(&self) -> u32 {
        self.lock().fit_seen
    }

    fn answer(&self, state: &mut State, call: &DsmCall<'_>) -> Vec<u8> {
        if call.handle == ROOT_HANDLE {
            let reply = root::answer(
                &root::Root {
                    fit: &self.fit,
                    generation: state.fit_generation,
                },
                call,
            );
            if root::ends_fit_read(call, &reply) {
                state.fit_seen = state.fit_generation;
            }
            return reply;
        }
        match self.dimms.iter().find(|dimm| dimm.plan.handle.0 == call.handle) {
            Some(dimm) => dsm::dimm::answer(dimm, call),
            None => dsm::unknown(call, DsmStatus::NoSuchDimm),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Err(error) = self.mailbox.serve(|call| self.answer(&mut state, call)) {
            tracing::warn!(%error, "an NVDIMM mailbox call is lost");
        }
        Effect::None
    }
}
