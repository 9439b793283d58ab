//! `hvm_op`: how events are told, and where the rings are.
//!
//! There are two ways to tell of events. One vector for the domain (`HVM_PARAM_CALLBACK_IRQ`) is injected for as long as a vCPU has
//! events pending, past its local APIC. A vector of a vCPU's own (`HVMOP_set_evtchn_upcall_vector`) is an interrupt of its local APIC,
//! sent once when an event becomes pending; what is sent before that APIC is on is lost, so such a vCPU is reminded whenever it
//! makes a hypercall.

use super::{
    Call, Context, Domain, Done, Errno, Host,
    abi::{HvmParam, OwnVector, PAGE, shared_info},
};
use crate::units::Gpa;
use std::collections::BTreeMap;

/// How events are told.
#[derive(Debug, Default)]
pub(super) struct Upcalls {
    /// The parameter, as it was set.
    via: u64,
    /// Vectors that vCPUs have of their own.
    own: BTreeMap<u32, u8>,
}

/// First vector that is not an exception's, nor reserved for one.
const FIRST_VECTOR: u8 = 0x10;

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    const SET_PARAM: u64 = 0;
    const GET_PARAM: u64 = 1;
    const SET_OWN_VECTOR: u64 = 23;
    let [operation, at, ..] = call.args;
    match operation {
        SET_PARAM => {
            let asked: HvmParam = context.get(at)?;
            domain.set_param(&asked, context)
        }
        GET_PARAM => {
            let mut asked: HvmParam = context.get(at)?;
            asked.value = domain.param(&asked)?.into();
            context.put(at, &asked)?;
            Ok(0)
        }
        SET_OWN_VECTOR if domain.version.has_own_vectors() => {
            let asked: OwnVector = context.get(at)?;
            domain.set_own_vector(&asked, context)
        }
        _ => Err(Errno::NoCall),
    }
}

impl Domain {
    fn param(&self, asked: &HvmParam) -> Result<u64, Errno> {
        use param::{CALLBACK, CONSOLE_PAGE, CONSOLE_PORT, COUNT, STORE_PAGE, STORE_PORT};
        if !self.is_self(asked.domid.get()) {
            return Err(Errno::Perm);
        }
        match asked.index.get() {
            CALLBACK => Ok(self.upcalls.via),
            STORE_PAGE => Ok(self.store_page),
            STORE_PORT => Ok(self.store_port.into()),
            // There may be none: 0 says so.
            CONSOLE_PAGE => Ok(self.own_console.map_or(0, |console| console.page)),
            CONSOLE_PORT => Ok(self.own_console.map_or(0, |console| console.port.into())),
            index if index < COUNT => Err(Errno::Perm),
            _ => Err(Errno::Invalid),
        }
    }

    fn set_param(&mut self, asked: &HvmParam, context: &mut Context<'_>) -> Done {
        use param::{CALLBACK, COUNT};
        /// In the highest byte: how events are told. 2: by a vector; 0: by an interrupt line, of which there is none.
        const VECTOR: u64 = 2;
        const LINE: u64 = 0;
        if !self.is_self(asked.domid.get()) {
            return Err(Errno::Perm);
        }
        let value = asked.value.get();
        match asked.index.get() {
            CALLBACK => {
                let vector = match (value >> 56, value.to_le_bytes()) {
                    (VECTOR, [vector, ..]) if vector >= FIRST_VECTOR => vector,
                    // A guest whose vCPUs have vectors of their own names a line all the same, for its tools to see that it listens.
                    (LINE, _) if value == 0 || !self.upcalls.own.is_empty() => 0,
                    _ => return Err(Errno::Invalid),
                };
                if !context.host.set_upcall_vector(vector) {
                    return Err(Errno::Invalid);
                }
                self.upcalls.via = value;
                Ok(0)
            }
            index if index < COUNT => Err(Errno::Perm),
            _ => Err(Errno::Invalid),
        }
    }

    fn set_own_vector(&mut self, asked: &OwnVector, context: &mut Context<'_>) -> Done {
        let (vcpu, vector) = (asked.vcpu.get(), asked.vector);
        if vector < FIRST_VECTOR {
            return Err(Errno::Invalid);
        }
        if vcpu >= self.vcpus {
            return Err(Errno::NoEntry);
        }
        if !context.host.set_own_vector(vcpu, vector) {
            return Err(Errno::Invalid);
        }
        self.upcalls.own.insert(vcpu, vector);
        Ok(0)
    }

    /// Nobody is told of events any more.
    pub(super) fn forget_upcalls(&mut self, host: &mut dyn Host) {
        host.set_upcall_vector(0);
        for vcpu in std::mem::take(&mut self.upcalls).own.into_keys() {
            host.set_own_vector(vcpu, 0);
        }
    }

    /// Where a vCPU's information is.
    pub(super) fn info_of(&self, vcpu: u32) -> Option<Gpa> {
        let in_page = |page| Gpa(page * PAGE + u64::from(vcpu) * shared_info::VCPU_INFO);
        let shared = self.shared_info.filter(|_| vcpu < shared_info::VCPUS).map(in_page);
        self.moved.get(&vcpu).copied().or(shared)
    }

    /// Sends a vCPU its own vector once more, if it has events pending: one too many does nothing.
    pub(super) fn remind(&self, vcpu: u32, host: &mut dyn Host) {
        let (Some(vector), Some(info)) = (self.upcalls.own.get(&vcpu), self.info_of(vcpu)) else {
            return;
        };
        let mut pending = [0];
        host.load(info, &mut pending);
        if pending != [0] {
            host.interrupt(vcpu, *vector);
        }
    }
}

/// Parameters of hardware virtual machines (`hvm/params.h`).
mod param {
    pub const CALLBACK: u32 = 0;
    pub const STORE_PAGE: u32 = 1;
    pub const STORE_PORT: u32 = 2;
    pub const CONSOLE_PAGE: u32 = 17;
    pub const CONSOLE_PORT: u32 = 18;
    pub const COUNT: u32 = 39;
}
