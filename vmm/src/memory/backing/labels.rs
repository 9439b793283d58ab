//! The label area at the end of a backing.

use crate::memory::{Mapping, flush::write_durably};
use devices::{DeviceWrites, nvdimm::label::LabelStore};
use std::{fs, io, os::unix::fs::FileExt, sync::Arc};
use vm_memory::{Bytes, VolatileMemory};

/// Labels read and written as file bytes, so that a failing disk is an error and no signal.
pub(super) struct FileLabels {
    /// The backing.
    pub file: Arc<fs::File>,
    /// Where the area begins in it.
    pub at: u64,
    /// Bytes of the area.
    pub label: u64,
    /// Whether a write is over only when it is on the storage.
    pub durable: bool,
}

impl LabelStore for FileLabels {
    fn size(&self) -> u32 {
        u32::try_from(self.label).unwrap_or(u32::MAX)
    }
    fn read(&self, offset: u32, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, self.at + u64::from(offset))
    }
    fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let at = self.at + u64::from(offset);
        match self.durable {
            true => write_durably(&self.file, data, at),
            false => self.file.write_all_at(data, at),
        }
    }
}

/// Labels reached through a mapping.
pub(super) struct MappedLabels {
    /// All of the backing.
    pub mapping: Mapping,
    /// Where the area begins in it.
    pub at: u64,
    /// Bytes of the area.
    pub label: u64,
}

impl MappedLabels {
    fn slice(
        &self,
        offset: u32,
        len: usize,
    ) -> io::Result<vm_memory::VolatileSlice<'_, vm_memory::bitmap::BS<'_, DeviceWrites>>> {
        let at = usize::try_from(self.at + u64::from(offset)).map_err(io::Error::other)?;
        self.mapping.get_slice(at, len).map_err(io::Error::other)
    }
}

impl LabelStore for MappedLabels {
    fn size(&self) -> u32 {
        u32::try_from(self.label).unwrap_or(u32::MAX)
    }
    fn read(&self, offset: u32, data: &mut [u8]) -> io::Result<()> {
        self.slice(offset, data.len())?
            .read_slice(data, 0)
            .map_err(io::Error::other)
    }
    fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        self.slice(offset, data.len())?
            .write_slice(data, 0)
            .map_err(io::Error::other)
    }
}
