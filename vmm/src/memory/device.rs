//! The memory behind a hot-pluggable memory device.

use super::{
    Mapping,
    backing::{self, BackingError},
    ram::{self, RamError},
};
use crate::config::{MemoryDeviceConfig, file_of, memory_of, probe::BackingFacts};
use devices::units::GpaRange;

/// Why a device has no memory. Nothing has been changed on disk when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Its file.
    #[error(transparent)]
    File(#[from] BackingError),
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] RamError),
}

/// Opens and maps what the guest will see at `range`. Nothing is touched: the time this takes does not depend on the size.
pub fn open(device: &MemoryDeviceConfig, facts: BackingFacts, range: GpaRange) -> Result<Mapping, DeviceError> {
    match file_of(device) {
        Some(file) => Ok(backing::open_as(&file, facts, !device.is_shared())?.mapping),
        None => Ok(ram::allocate(range, &memory_of(device))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;
    use devices::units::{ByteSize, Gpa};
    use std::{fs::File, os::unix::fs::FileExt};
    use vm_memory::{Bytes, VolatileMemory};

    const SIZE: u64 = 128 << 20;

    fn mapped(text: &str) -> Result<Mapping, DeviceError> {
        let facts = BackingFacts {
            size: ByteSize(SIZE),
            page: ByteSize(4096),
        };
        open(
            &flags::memory_device(text).unwrap(),
            facts,
            GpaRange::new(Gpa(4 << 30), SIZE),
        )
    }

    #[test]
    fn every_kind_of_memory_is_zeroed_and_writable() {
        for text in ["128M", "128M,backing=anonymous", "128M,backing=memfd"] {
            let mapping = mapped(text).unwrap();
            let slice = mapping.get_slice(0, mapping.size()).unwrap();
            assert_eq!(slice.read_obj::<u64>(4096).unwrap(), 0, "{text}");
            slice.write_obj(5u64, 4096).unwrap();
            assert_eq!(slice.read_obj::<u64>(4096).unwrap(), 5, "{text}");
        }
    }

    #[test]
    fn parts_of_a_file_are_apart_and_private_stores_stay_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create_new(&path).unwrap();
        file.set_len(3 * SIZE).unwrap();
        file.write_all_at(b"here", SIZE).unwrap();
        let part = |offset: u64, more: &str| format!("128M,file={},offset={offset}{more}", path.display());
        let first = mapped(&part(0, "")).unwrap();
        let second = mapped(&part(SIZE, "")).unwrap();
        assert_eq!(
            second.get_slice(0, 4).unwrap().read_obj::<[u8; 4]>(0).unwrap(),
            *b"here"
        );
        first.get_slice(0, 8).unwrap().write_obj(7u64, 0).unwrap();
        let private = mapped(&part(2 * SIZE, ",shared=off")).unwrap();
        private.get_slice(0, 8).unwrap().write_obj(9u64, 0).unwrap();
        let byte = |at| {
            let mut byte = [0];
            File::open(&path).unwrap().read_exact_at(&mut byte, at).unwrap();
            byte[0]
        };
        assert_eq!((byte(0), byte(2 * SIZE)), (7, 0));
        for taken in [
            part(SIZE / 2, ""),
            part(SIZE, ""),
            format!("128M,file={}", path.display()),
        ] {
            assert!(
                matches!(mapped(&taken), Err(DeviceError::File(BackingError::InUse(_)))),
                "{taken}"
            );
        }
        drop(first);
        mapped(&part(0, "")).unwrap();
        assert!(matches!(
            mapped(&part(3 * SIZE, "")),
            Err(DeviceError::File(BackingError::TooShort { .. }))
        ));
    }
}
