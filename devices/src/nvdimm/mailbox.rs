//! The DSM mailbox: how AML in the guest reaches the functions here.
//!
//! A run of guest memory (ACPI NVS) and a doorbell port. The AML method fills the header and the data area and writes the
//! doorbell; the vCPU that rang is inside [`Mailbox::serve`] until the reply is in place. The memory is the guest's: it
//! may hold anything, and another vCPU may change it at any time. Header and input are therefore copied out once and only
//! the copies are looked at; replies are cut to the data area.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | handle of the DIMM, or [`ROOT_HANDLE`] |
//! | 4 | 4 | revision |
//! | 8 | 4 | function |
//! | 12 | 4 | bytes of input |
//! | 16 | 16 | GUID |
//! | 32 | 4 | bytes of output (written here) |
//! | 64 | ... | input, then output |

use super::{
    dsm::{DsmCall, DsmStatus},
    guid::Guid,
};
use crate::{GuestMemory, units::GpaRange};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryError};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, little_endian::U32};
use zeroize::Zeroizing;

/// Handle that names the root device. 0 is a legal DIMM handle.
pub const ROOT_HANDLE: u32 = 0xffff_ffff;
/// Where input and output start.
pub const DATA: u64 = 64;
/// Where the output length is.
const OUTPUT_LEN: u64 = 32;

/// What the guest writes before it rings.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    handle: U32,
    revision: U32,
    function: U32,
    input_len: U32,
    guid: [u8; 16],
}
const _: () = assert!(size_of::<Header>() as u64 == OUTPUT_LEN);

/// Where the mailbox is. Guest ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxPlan {
    /// Guest memory, at least 8 KiB, 4 KiB-aligned.
    pub memory: GpaRange,
    /// Doorbell, [`MailboxPlan::DOORBELL_PORTS`] ports.
    pub doorbell: u16,
}

impl MailboxPlan {
    /// Ports of the doorbell.
    pub const DOORBELL_PORTS: u64 = 4;

    /// Bytes for input and for output.
    pub fn capacity(&self) -> u64 {
        self.memory.len - DATA
    }
}

/// The guest's side of a call cannot be served at all: its memory is not there.
#[derive(Debug, thiserror::Error)]
#[error("the NVDIMM mailbox at {0} is not in guest memory")]
pub struct MailboxError(GpaRange, #[source] GuestMemoryError);

/// The mailbox of one machine.
pub struct Mailbox {
    memory: GuestMemory,
    plan: MailboxPlan,
}

impl Mailbox {
    /// The mailbox in `memory` at the place `plan` says.
    pub fn new(memory: GuestMemory, plan: MailboxPlan) -> Self {
        assert!(
            plan.memory.len >= 0x2000,
            "a mailbox of {:#x} bytes must hold a label transfer",
            plan.memory.len
        );
        Self { memory, plan }
    }

    /// Takes the call out of guest memory, lets `answer` reply, and puts the reply back.
    pub fn serve(&self, answer: impl FnOnce(&DsmCall<'_>) -> Vec<u8>) -> Result<(), MailboxError> {
        let failed = |source| MailboxError(self.plan.memory, source);
        let memory = self.memory.memory();
        let at = |offset: u64| GuestAddress(self.plan.memory.start.0 + offset);

        let mut header: Header = FromZeros::new_zeroed();
        memory.read_slice(header.as_mut_bytes(), at(0)).map_err(failed)?;
        let capacity = usize::try_from(self.plan.capacity()).unwrap_or(usize::MAX);
        let input_len = usize::try_from(header.input_len.get())
            .ok()
            .filter(|len| *len <= capacity);

        let mut output = match input_len {
            Some(len) => {
                // It may be a passphrase.
                let mut input = Zeroizing::new(vec![0; len]);
                memory.read_slice(&mut input, at(DATA)).map_err(failed)?;
                answer(&DsmCall {
                    handle: header.handle.get(),
                    guid: Guid(header.guid),
                    revision: header.revision.get(),
                    function: header.function.get(),
                    input: &input,
                })
            }
            None => super::dsm::reply(Err(DsmStatus::INVALID_INPUT)).bytes,
        };
        output.truncate(capacity);
        memory.write_slice(&output, at(DATA)).map_err(failed)?;
        let len = u32::try_from(output.len()).unwrap_or(u32::MAX);
        memory.write_slice(&len.to_le_bytes(), at(OUTPUT_LEN)).map_err(failed)
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
