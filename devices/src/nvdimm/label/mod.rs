//! Label storage: an opaque area of bytes behind each DIMM that the guest keeps its namespaces in.
//!
//! [`LabelArea`] checks what a guest asks for and hands it to a [`LabelStore`], which the monitor supplies (the last bytes
//! of the backing file). The monitor never interprets the area; [`format`] does so for tests and diagnostics.

pub mod format;

use std::{io, sync::Mutex};

/// Bytes that hold labels. Offsets and lengths are checked before they come here.
pub trait LabelStore: Send {
    /// Bytes of the area.
    fn size(&self) -> u32;
    /// Fills `data` from `offset`.
    fn read(&self, offset: u32, data: &mut [u8]) -> io::Result<()>;
    /// Takes `data` at `offset`; must be in the backing file when it returns, as far as a crash of the monitor goes.
    fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()>;
}

impl LabelStore for Vec<u8> {
    fn size(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn read(&self, offset: u32, data: &mut [u8]) -> io::Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|o| self.get(o..o.checked_add(data.len())?));
        data.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let target = usize::try_from(offset)
            .ok()
            .and_then(|o| self.get_mut(o..o.checked_add(data.len())?));
        target.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

/// Most bytes of one label transfer; the guest's kernel splits larger ones.
pub const MAX_TRANSFER: u32 = 4096;

/// Why a label transfer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// The range leaves the area.
    #[error("label transfer of {len:#x} bytes at {offset:#x} leaves the area of {size:#x} bytes")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes of the area.
        size: u32,
    },
    /// More than [`MAX_TRANSFER`].
    #[error("label transfer of {0:#x} bytes is longer than the announced {MAX_TRANSFER:#x}")]
    TooLong(u64),
    /// The DIMM's backing is read-only.
    #[error("the label area is read-only")]
    ReadOnly,
    /// The host failed.
    #[error("cannot access the label area's backing")]
    Store(#[from] io::Error),
}

/// The label area of one DIMM. Transfers do not mix: each holds the area's lock.
pub struct LabelArea {
    store: Mutex<Box<dyn LabelStore>>,
    size: u32,
    read_only: bool,
}

impl LabelArea {
    /// The area in `store`.
    pub fn new(store: Box<dyn LabelStore>, read_only: bool) -> Self {
        Self {
            size: store.size(),
            store: Mutex::new(store),
            read_only,
        }
    }

    /// Bytes of the area; 0: the DIMM has no labels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// `len` bytes from `offset`.
    pub fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, LabelError> {
        let (offset, len) = self.check(offset, len)?;
        let mut data = vec![0; len];
        self.lock().read(offset, &mut data)?;
        Ok(data)
    }

    /// What `len` bytes from `offset` would be in an area of zeros.
    pub fn blank(&self, offset: u64, len: u64) -> Result<Vec<u8>, LabelError> {
        let (_, len) = self.check(offset, len)?;
        Ok(vec![0; len])
    }

    /// Stores `data` at `offset`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), LabelError> {
        let (offset, _) = self.check(offset, data.len() as u64)?;
        if self.read_only {
            return Err(LabelError::ReadOnly);
        }
        Ok(self.lock().write(offset, data)?)
    }

    fn check(&self, offset: u64, len: u64) -> Result<(u32, usize), LabelError> {
        if len > u64::from(MAX_TRANSFER) {
            return Err(LabelError::TooLong(len));
        }
        let outside = LabelError::OutOfRange {
            offset,
            len,
            size: self.size,
        };
        match offset.checked_add(len) {
            Some(end) if end <= u64::from(self.size) => match (u32::try_from(offset), usize::try_from(len)) {
                (Ok(offset), Ok(len)) => Ok((offset, len)),
                _ => Err(outside),
            },
            _ => Err(outside),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn LabelStore>> {
        // A store that panicked half-way left bytes behind, as a torn write would; the guest's checksums handle that.
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn area(size: usize) -> LabelArea {
        LabelArea::new(Box::new(vec![0u8; size]), false)
    }

    #[test]
    fn written_bytes_are_read_back_and_neighbours_stay() {
        let area = area(1024);
        area.write(100, &[1, 2, 3]).unwrap();
        assert_eq!(area.read(99, 5).unwrap(), [0, 1, 2, 3, 0]);
        area.write(1023, &[9]).unwrap();
        assert_eq!(area.read(1023, 1).unwrap(), [9]);
        assert!(area.read(1024, 0).unwrap().is_empty());
    }

    #[test]
    fn transfers_outside_or_too_long_are_refused() {
        let area = area(0x2_0000);
        for (offset, len) in [
            (0x2_0000, 1),
            (0x1_ffff, 2),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (0x2_0001, 0),
        ] {
            assert!(area.read(offset, len).is_err(), "{offset:#x} {len:#x}");
        }
        assert!(matches!(area.read(0, 4097), Err(LabelError::TooLong(4097))));
        assert!(matches!(
            area.write(0x1_ffff, &[0; 2]),
            Err(LabelError::OutOfRange { .. })
        ));
    }

    #[test]
    fn read_only_area_refuses_writes_and_serves_reads() {
        let area = LabelArea::new(Box::new(vec![7u8; 256]), true);
        assert!(matches!(area.write(0, &[1]), Err(LabelError::ReadOnly)));
        assert_eq!(area.read(0, 2).unwrap(), [7, 7]);
    }

    proptest! {
        #[test]
        fn no_transfer_leaves_the_area(offset: u64, len in 0u64..10_000, size in 0usize..8192) {
            let area = area(size);
            let fits = len <= 4096 && offset.checked_add(len).is_some_and(|end| end <= size as u64);
            prop_assert_eq!(area.read(offset, len).is_ok(), fits);
            prop_assert_eq!(area.write(offset, &vec![1; usize::try_from(len).unwrap()]).is_ok(), fits);
        }
    }
}
