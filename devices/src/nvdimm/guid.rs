//! GUIDs in the byte order ACPI stores them in: the first three groups little-endian.

use uuid::{Uuid, uuid};

/// A GUID as it lies in tables and `_DSM` arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The stored form of `uuid`.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid.to_bytes_le())
    }
}

/// Type of an SPA range that is persistent memory. ACPI 6.5 5.2.25.2.
pub const PERSISTENT_MEMORY: Guid = Guid::new(uuid!("66f0d379-b4f3-4074-ac43-0d3318b78cdb"));
/// `_DSM` of the NVDIMM root device. ACPI 6.5 9.20.7.
pub const ROOT_DSM: Guid = Guid::new(uuid!("2f10e7a4-9e91-11e4-89d3-123b93f75cba"));
/// `_DSM` of an Intel-family NVDIMM.
pub const INTEL_DIMM_DSM: Guid = Guid::new(uuid!("4309ac30-0d11-11e4-9191-0800200c9a66"));
/// Our own: how `_FIT`, `_LSI`, `_LSR` and `_LSW` reach the mailbox.
pub const METHODS: Guid = Guid::new(uuid!("b5a8e9f4-6c35-4d0c-9d0e-6461787673f1"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_three_groups_are_stored_little_endian() {
        let bytes = |text: &str| -> Vec<u8> { text.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect() };
        for (guid, stored) in [
            (PERSISTENT_MEMORY, "79 d3 f0 66 f3 b4 74 40 ac 43 0d 33 18 b7 8c db"),
            (ROOT_DSM, "a4 e7 10 2f 91 9e e4 11 89 d3 12 3b 93 f7 5c ba"),
            (INTEL_DIMM_DSM, "30 ac 09 43 11 0d e4 11 91 91 08 00 20 0c 9a 66"),
        ] {
            assert_eq!(guid.0.to_vec(), bytes(stored));
        }
    }
}
