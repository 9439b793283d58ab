//! The file of the guest's persistent error records (ERST): the records one after the other, replaced as a whole.

use crate::memory::state::{lock_beside, replace};
use devices::apei::{MAX_RECORDS_BYTES, NoRecord, RecordStore, Records};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why records cannot be kept. Nothing has been changed on disk, but that there may be an empty lock file.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The file, or its lock, cannot be opened.
    #[error("cannot open the error records {0}")]
    Open(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("the error records {0} are in use by another process; hint: one machine at a time keeps them")]
    InUse(PathBuf),
    /// It is not what it should be.
    #[error(
        "cannot use the error records {0}; hint: name another file with `records=`, or move this one away: the guest then starts \
         without records"
    )]
    Content(PathBuf, #[source] NoRecord),
}

/// Such a file in use.
pub struct RecordsFile {
    path: PathBuf,
    _lock: File,
}

impl fmt::Debug for RecordsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordsFile").field(&self.path).finish()
    }
}

impl RecordsFile {
    /// Opens and locks the records at `path`. A file that is not there has none, and is made with the first.
    pub fn open(path: &Path) -> Result<(Records, Self), RecordsError> {
        // A link stays one: its target is what is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lock = hold(&path)?;
        let records = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Records::default(),
            Err(e) => return Err(RecordsError::Open(path, e)),
            Ok(file) => {
                let mut bytes = Vec::new();
                // One byte more than there can be is told as such.
                let read = file.take(MAX_RECORDS_BYTES as u64 + 1).read_to_end(&mut bytes);
                read.map_err(|e| RecordsError::Open(path.clone(), e))?;
                Records::read(&bytes).map_err(|e| RecordsError::Content(path.clone(), e))?
            }
        };
        Ok((records, Self { path, _lock: lock }))
    }
}

/// Locks the records at `path`, also for somebody else who will open them on our behalf (the nested host).
pub fn hold(path: &Path) -> Result<File, RecordsError> {
    let lock = lock_beside(path).map_err(|(lock, error)| RecordsError::Open(lock, error))?;
    lock.ok_or_else(|| RecordsError::InUse(path.to_owned()))
}

impl RecordStore for RecordsFile {
    fn keep(&self, records: &Records) -> io::Result<()> {
        replace(&self.path, &records.write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{error::Error, fs};

    /// A record of the shortest kind.
    fn record(id: u64) -> Vec<u8> {
        let mut record = vec![0; 128];
        record[20..24].copy_from_slice(&128u32.to_le_bytes());
        record[96..104].copy_from_slice(&id.to_le_bytes());
        record
    }

    fn refusal(path: &Path) -> String {
        let error = RecordsFile::open(path).map(drop).unwrap_err();
        let source = error.source().map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn records_are_found_again_and_have_one_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let (none, file) = RecordsFile::open(&path).unwrap();
        assert!(none.is_empty() && !path.exists());
        let two = Records::read(&[record(1), record(2)].concat()).unwrap();
        file.keep(&two).unwrap();
        assert!(refusal(&path).contains("in use by another process; hint:"));
        drop(file);
        let (found, file) = RecordsFile::open(&path).unwrap();
        assert_eq!(found, two);
        file.keep(&Records::default()).unwrap();
        assert!(fs::read(&path).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_record_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        for bytes in [
            b"hello".to_vec(),
            [record(1), vec![0; 128]].concat(),
            vec![0; MAX_RECORDS_BYTES + 1],
        ] {
            fs::write(&path, &bytes).unwrap();
            let said = refusal(&path);
            assert!(
                said.contains("cannot use the error records") && said.contains("is none"),
                "{said}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal(&path).contains("cannot open the error records"));
    }
}
