//! Calls on NVDIMMs without AML: what it would write into the mailbox.

use super::Script;
use devices::nvdimm::{guid::Guid, mailbox::DATA};
use vmm::layout::{self, ports};

/// Where the mailbox is.
pub const MAILBOX: u64 = layout::DSM_MAILBOX.start.0;

/// Header and input of a call, as AML leaves them in the mailbox.
pub fn call(handle: u32, guid: Guid, revision: u32, function: u32, input: &[u8]) -> Vec<u8> {
    let len = u32::try_from(input.len()).expect("an input that fits the mailbox");
    let words = [handle, revision, function, len];
    let mut page: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    page.extend_from_slice(&guid.0);
    page.resize(usize::try_from(DATA).unwrap_or(usize::MAX), 0);
    page.extend_from_slice(input);
    page
}

impl Script {
    /// Makes the call of `len` bytes that lies at `from`, and sends the first `shown` bytes of the reply.
    pub fn nvdimm_call(self, from: u64, len: usize, shown: u64) -> Self {
        self.copy(MAILBOX, from, len as u64)
            .output(ports::DSM_DOORBELL, 4, 0)
            .dump(MAILBOX + DATA, shown)
    }
}
