//! What a write to an NVDIMM's flush hint waits for.

use super::encrypted::EncryptedDimm;
use devices::nvdimm::FlushTarget;
use rustix::io::ReadWriteFlags;
use std::{fs::File, io, sync::Arc};

/// A file that the guest has mapped: its dirty pages, also those that were stored to through mappings, are written out.
pub struct MappedFile(pub Arc<File>);

impl FlushTarget for MappedFile {
    fn flush(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Memory that is the storage itself: the guest has written its processor's caches back before it asks.
pub struct DirectMemory;

impl FlushTarget for DirectMemory {
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

impl FlushTarget for EncryptedDimm {
    fn flush(&self) -> io::Result<()> {
        Self::flush(self)
    }
}

/// Writes all of `data` at `at`, and waits until these bytes are on the storage.
pub fn write_durably(file: &File, data: &[u8], at: u64) -> io::Result<()> {
    let (mut left, mut at) = (data, at);
    while !left.is_empty() {
        let written = match rustix::io::pwritev2(file, &[io::IoSlice::new(left)], at, ReadWriteFlags::DSYNC) {
            Err(rustix::io::Errno::INTR) => continue,
            // A kernel or a file system that does not know the flag.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                std::os::unix::fs::FileExt::write_all_at(file, left, at)?;
                return file.sync_data();
            }
            done => done?,
        };
        left = left
            .get(written..)
            .filter(|_| written > 0)
            .ok_or(io::ErrorKind::WriteZero)?;
        at = at.saturating_add(written as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::{Seek, SeekFrom, Write},
    };

    #[test]
    fn durable_writes_are_writes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 100]).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        write_durably(file.as_file(), b"labels", 50).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        assert_eq!((&bytes[50..56], bytes[49], bytes[56]), (&b"labels"[..], 7, 7));
        let read_only = File::open(file.path()).unwrap();
        assert!(write_durably(&read_only, b"x", 0).is_err());
    }
}
