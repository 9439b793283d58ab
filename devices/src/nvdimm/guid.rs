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
/// Volatile memory.
pub const VOLATILE_MEMORY: Guid = Guid::new(uuid!("7305944f-fdda-44e3-b16c-3f22d252e5d0"));
/// NVDIMM control region.
pub const CONTROL_REGION: Guid = Guid::new(uuid!("92f701f6-13b4-405d-910b-299367e8234c"));
/// RAM disk whose contents are lost.
pub const VOLATILE_DISK: Guid = Guid::new(uuid!("77ab535a-45fc-624b-5560-f7b281d1f96e"));
/// RAM CD whose contents are lost.
pub const VOLATILE_CD: Guid = Guid::new(uuid!("3d5abd30-4175-87ce-6d64-d2ade523c4bb"));
/// RAM disk whose contents stay.
pub const PERSISTENT_DISK: Guid = Guid::new(uuid!("5cea02c9-4d07-69d3-269f-4496fbe096f9"));
/// RAM CD whose contents stay.
pub const PERSISTENT_CD: Guid = Guid::new(uuid!("08018188-42cd-bb48-100f-5387d53ded3d"));
/// `_DSM` of the NVDIMM root device. ACPI 6.5 9.20.7.
pub const ROOT_DSM: Guid = Guid::new(uuid!("2f10e7a4-9e91-11e4-89d3-123b93f75cba"));
/// `_DSM` of an Intel-family NVDIMM.
pub const INTEL_DIMM_DSM: Guid = Guid::new(uuid!("4309ac30-0d11-11e4-9191-0800200c9a66"));
/// `_DSM` of the NVDIMM root device for firmware activation, as Intel has it.
pub const INTEL_BUS_DSM: Guid = Guid::new(uuid!("c7d8acd4-2df8-4b82-9f65-a325335af149"));
/// `_DSM` of an NVDIMM of HPE's first family.
pub const HPE1_DIMM_DSM: Guid = Guid::new(uuid!("9002c334-acf3-4c0e-9642-a235f0d53bc6"));
/// `_DSM` of an NVDIMM of Microsoft's family.
pub const MSFT_DIMM_DSM: Guid = Guid::new(uuid!("1ee68b36-d4bd-4a1a-9a16-4f8e53d46e05"));
/// `_DSM` of a Hyper-V virtual NVDIMM.
pub const HYPERV_DIMM_DSM: Guid = Guid::new(uuid!("5746c5f2-a9a2-4264-ad0e-e4ddc9e09e80"));
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
            (INTEL_BUS_DSM, "d4 ac d8 c7 f8 2d 82 4b 9f 65 a3 25 33 5a f1 49"),
            (INTEL_DIMM_DSM, "30 ac 09 43 11 0d e4 11 91 91 08 00 20 0c 9a 66"),
        ] {
            assert_eq!(guid.0.to_vec(), bytes(stored));
        }
    }
}
