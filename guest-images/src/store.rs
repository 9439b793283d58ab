//! Results of steps, each in a folder named after a hash of everything that went into it.
//!
//! A folder appears whole (rename) or not at all, and never changes afterwards: a running guest keeps its files.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Folder of results below the images' folder.
pub const FOLDER: &str = "store";

/// Inputs of a step, hashed in order; every part carries its length, so that parts cannot run into each other.
#[derive(Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key for a kind of step.
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.add(kind).add(crate::recipe::REVISION.to_le_bytes());
        key
    }

    /// Adds an input.
    pub fn add(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// The key as text.
    pub fn text(&self) -> String {
        hex(&self.0.clone().finalize())[..20].to_owned()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// SHA-256 of a file.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The images' folder, locked against a second builder.
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens and locks `dir`, creating it; `waiting` runs when another builder has it.
    pub fn open(dir: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let store = dir.join(FOLDER);
        fs::create_dir_all(&store).with_context(|| format!("cannot create {}", store.display()))?;
        let path = dir.join(".lock");
        let lock = File::options().create(true).write(true).truncate(false).open(&path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// The images' folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a result relative to the images' folder; `make` fills it when it is not there yet.
    pub fn step(&self, name: &str, key: &Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let relative = Path::new(FOLDER).join(format!("{name}-{}", key.text()));
        let target = self.dir.join(&relative);
        if target.is_dir() {
            return Ok(relative);
        }
        let scratch = self.scratch()?;
        let fresh = scratch.path().join("result");
        fs::create_dir(&fresh)?;
        make(&fresh).with_context(|| format!("cannot build {name}"))?;
        fs::rename(&fresh, &target).with_context(|| format!("cannot move the result to {}", target.display()))?;
        Ok(relative)
    }

    /// A private folder on the same file system, removed when dropped.
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(".scratch-")
            .tempdir_in(&self.dir)
            .context("cannot create a scratch folder")
    }

    /// Removes results that `keep` does not want, and scratch folders of builders that were killed.
    pub fn prune(&self, keep: impl Fn(&str) -> bool) -> Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.dir.join(FOLDER))?.chain(fs::read_dir(&self.dir)?) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let in_store = entry.path().parent().is_some_and(|p| p.ends_with(FOLDER));
            if (in_store && !keep(&name)) || name.starts_with(".scratch-") {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Writes a file that is whole or not there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(folder) = path.parent() else {
        bail!("{} has no folder", path.display())
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).context("cannot create a temporary file")?;
    io::Write::write_all(&mut file, bytes)?;
    fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)
        .with_context(|| format!("cannot replace {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(part: &str) -> Key {
        let mut key = Key::new("test");
        key.add(part);
        key
    }

    #[test]
    fn a_step_is_done_once_per_key_and_leaves_nothing_when_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), || ()).unwrap();
        let write = |folder: &Path| Ok(fs::write(folder.join("f"), "x")?);
        let first = store.step("thing", &key("a"), write).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(&first).join("f")).unwrap(), "x");
        assert_eq!(store.step("thing", &key("a"), |_| bail!("done twice")).unwrap(), first);
        assert!(store.step("thing", &key("b"), |_| bail!("broken")).is_err());
        assert_ne!(store.step("thing", &key("b"), write).unwrap(), first);
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            names.iter().all(|n| !n.to_string_lossy().starts_with(".scratch")),
            "{names:?}"
        );
    }

    #[test]
    fn prune_keeps_what_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), || ()).unwrap();
        let kept = store.step("kept", &key("a"), |_| Ok(())).unwrap();
        let gone = store.step("gone", &key("a"), |_| Ok(())).unwrap();
        assert_eq!(store.prune(|name| name.starts_with("kept")).unwrap(), 1);
        assert!(dir.path().join(kept).exists() && !dir.path().join(gone).exists());
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let text = |parts: &[&str]| {
            let mut key = Key::new("k");
            for part in parts {
                key.add(part);
            }
            key.text()
        };
        assert_ne!(text(&["ab", "c"]), text(&["a", "bc"]));
    }
}
