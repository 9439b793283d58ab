//! Folders that go when all is well and stay when a test failed.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    thread,
};
use tempfile::TempDir;

/// A private folder under TMPDIR.
pub struct Scratch {
    /// `None` once it is to stay.
    owned: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new folder.
    pub fn new(name: &str) -> io::Result<Self> {
        let owned = tempfile::Builder::new()
            .prefix(&format!("daxvisor-{name}-"))
            .tempdir()?;
        let path = owned.path().to_owned();
        Ok(Self {
            owned: Some(owned),
            path,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A path in it, as text for a flag.
    pub fn text(&self, name: &str) -> String {
        self.join(name).display().to_string()
    }

    /// Leaves the folder where it is when this goes.
    pub fn keep(&mut self) {
        if let Some(owned) = self.owned.take() {
            self.path = owned.keep();
        }
    }

    /// The end of a log in the folder, at most `lines` lines; empty when there is none.
    pub fn tail(&self, name: &str, lines: usize) -> String {
        let bytes = fs::read(self.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Bytes of a file in the folder; none when it is not there.
    pub fn size(&self, name: &str) -> u64 {
        fs::metadata(self.join(name)).map_or(0, |meta| meta.len())
    }

    /// What a log in the folder has behind its first bytes.
    pub fn text_after(&self, name: &str, bytes: u64) -> String {
        let all = fs::read(self.join(name)).unwrap_or_default();
        let from = usize::try_from(bytes).unwrap_or(usize::MAX).min(all.len());
        String::from_utf8_lossy(&all[from..]).into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
        }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
