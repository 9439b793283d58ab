//! Guest memory of the error interfaces, and bytes one after the other.

use crate::{GuestMemory, units::Gpa};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryError};

pub(super) fn put(memory: &GuestMemory, gpa: Gpa, bytes: &[u8]) -> Result<(), GuestMemoryError> {
    memory.memory().write_slice(bytes, GuestAddress(gpa.0))
}

pub(super) fn get(memory: &GuestMemory, gpa: Gpa, bytes: &mut [u8]) -> Result<(), GuestMemoryError> {
    memory.memory().read_slice(bytes, GuestAddress(gpa.0))
}

/// A little-endian word at `offset` of `bytes`; 0 past the end.
pub(super) fn word<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let end = offset.saturating_add(N);
    bytes
        .get(offset..end)
        .and_then(|word| word.try_into().ok())
        .unwrap_or([0; N])
}
