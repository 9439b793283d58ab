//! The file of a DIMM's state: what [`DimmState`] says, one JSON object that is replaced as a whole.
//!
//! A change is written to a new file beside it, synchronised, and renamed over it: a reader finds the old state or the
//! new one. A file that is not understood is never replaced. `PATH.lock` is locked for as long as the state is in use; a
//! lock on the file itself would end with its first replacement.

use devices::nvdimm::state::{DimmState, MAX_LEN, StateError, StateStore};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Why a state cannot be used. Nothing has been changed on disk when one of these is returned, but that there may be an
/// empty lock file.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file, or its lock, cannot be opened.
    #[error("cannot open DIMM state {0}")]
    Open(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("DIMM state {0} is in use by another process; hint: a DIMM has one user at a time")]
    InUse(PathBuf),
    /// It is not what it should be.
    #[error(
        "cannot use DIMM state {0}; hint: name another file with `state=`, or move this one away: the DIMM then starts as a \
         new one, without its shutdown count, thresholds, firmware, errors and passphrases"
    )]
    Content(PathBuf, #[source] StateError),
}

/// A state file in use.
pub struct StateFile {
    path: PathBuf,
    state: Mutex<DimmState>,
    _lock: File,
}

impl StateFile {
    /// Opens and locks the state at `path` of the DIMM with `serial`. One that is not there is that of a new DIMM, and is
    /// made with the first change.
    pub fn open(path: &Path, serial: u32) -> Result<(DimmState, Arc<Self>), StateFileError> {
        // A link stays one: its target is what is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lock = hold(&path)?;
        let content = |e| StateFileError::Content(path.clone(), e);
        let state = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => DimmState::new(serial),
            Err(e) => return Err(StateFileError::Open(path, e)),
            Ok(file) => {
                let mut bytes = Vec::new();
                let limit = u64::try_from(MAX_LEN).unwrap_or(u64::MAX).saturating_add(1);
                let read = file.take(limit).read_to_end(&mut bytes);
                read.map_err(|e| StateFileError::Open(path.clone(), e))?;
                DimmState::decode(&bytes, serial).map_err(content)?
            }
        };
        let file = Self {
            path,
            state: Mutex::new(state.clone()),
            _lock: lock,
        };
        Ok((state, Arc::new(file)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Locks the state at `path`, also for somebody else who will open it on our behalf (the nested host).
pub fn hold(path: &Path) -> Result<File, StateFileError> {
    let lock = lock_beside(path).map_err(|(lock, error)| StateFileError::Open(lock, error))?;
    lock.ok_or_else(|| StateFileError::InUse(path.to_owned()))
}

/// Locks `PATH.lock`, for as long as the file is open; none: another process has it. A lock on the file itself would end when it is
/// replaced. An error has what could not be locked.
pub fn lock_beside(path: &Path) -> Result<Option<File>, (PathBuf, io::Error)> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".lock");
    let lock_path = path.with_file_name(name);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let file = opened.map_err(|e| (lock_path.clone(), e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err((lock_path, e.into())),
    }
}

impl StateStore for StateFile {
    fn put(&self, name: &str, value: Value) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = state.clone();
        next.put(name, value);
        let bytes = next.encode();
        if bytes.len() > MAX_LEN {
            return Err(io::Error::other(StateError::TooLong));
        }
        replace(&self.path, &bytes)?;
        *state = next;
        Ok(())
    }
}

/// Puts `bytes` in the place of the file at `path`: a reader finds the old ones or the new ones.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|e| e.error)?;
    // The name is durable as well.
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SERIAL: u32 = 7;

    fn refusal(path: &Path) -> String {
        match StateFile::open(path, SERIAL) {
            Ok(_) => panic!("must be refused"),
            Err(e) => {
                let source = std::error::Error::source(&e).map(ToString::to_string);
                format!("{e}: {}", source.unwrap_or_default())
            }
        }
    }

    #[test]
    fn a_state_is_made_with_its_first_change_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dimm.json");
        let (state, file) = StateFile::open(&path, SERIAL).unwrap();
        assert_eq!(state, DimmState::new(SERIAL));
        assert!(!path.exists());
        file.put("a", json!(1)).unwrap();
        file.put("b", json!([2])).unwrap();
        drop(file);
        let (state, _file) = StateFile::open(&path, SERIAL).unwrap();
        assert_eq!(state.section::<u32>("a").unwrap(), Some(1));
        assert_eq!(state.section::<Vec<u32>>("b").unwrap(), Some(vec![2]));
        // Nothing else is left behind.
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["dimm.json", "dimm.json.lock"]);
    }

    #[test]
    fn a_state_has_one_user_and_the_lock_outlives_replacements() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dimm.json");
        let (_, file) = StateFile::open(&path, SERIAL).unwrap();
        file.put("a", json!(1)).unwrap();
        assert!(refusal(&path).contains("is in use by another process; hint:"));
        drop(file);
        StateFile::open(&path, SERIAL).unwrap();
    }

    #[test]
    fn what_is_not_understood_is_refused_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dimm.json");
        let other = String::from_utf8(DimmState::new(8).encode()).unwrap();
        let newer = other.replace("\"version\": 1", "\"version\": 2");
        let half = &other[..other.len() / 2];
        for bytes in ["", "garbage", "{}", half, &other, &newer] {
            fs::write(&path, bytes).unwrap();
            let error = refusal(&path);
            assert!(error.contains("dimm.json; hint: name another file"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes.as_bytes());
        }
        fs::write(&path, vec![b' '; MAX_LEN + 1]).unwrap();
        assert!(refusal(&path).contains("it is longer than"), "{}", refusal(&path));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refusal(&path).contains("cannot open DIMM state"), "{}", refusal(&path));
    }

    #[test]
    fn a_change_that_fails_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dimm.json");
        let (_, file) = StateFile::open(&path, SERIAL).unwrap();
        file.put("a", json!(1)).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(file.put("a", json!("x".repeat(MAX_LEN))).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
        file.put("b", json!(2)).unwrap();
        drop(file);
        let (state, _file) = StateFile::open(&path, SERIAL).unwrap();
        assert_eq!(state.section::<u32>("a").unwrap(), Some(1));
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, DimmState::new(SERIAL).encode()).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let (_, file) = StateFile::open(&link, SERIAL).unwrap();
        file.put("a", json!(1)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&target).unwrap().contains("\"a\": 1"));
    }
}
