//! A DIMM whose contents are encrypted at rest.
//!
//! ```text
//! FILE       ciphertext: data under one key, labels (the last bytes) under another
//! FILE.keys  both keys, sealed by the passphrase if there is one (see keys)
//! memory     plaintext of the data while the DIMM is unlocked: anonymous, the guest's own to use
//! ```
//!
//! While the DIMM is unlocked the guest works on the memory at full speed. Pages that it stored to are encrypted into the file
//! by [`EncryptedDimm::write_back`], which the background thread calls, and by [`EncryptedDimm::flush`], which also waits for
//! the disk; KVM's dirty log says which they are. Label writes go to the disk at once. What a killed monitor leaves behind is
//! what was written back: each page as it was at some moment since the last flush, or later; pages are not ordered among each
//! other between flushes.
//!
//! When the DIMM is locked its windows are closed, the memory is overwritten and given back, and the keys are forgotten.

pub mod cipher;
mod contents;
pub mod keys;
mod media;
pub mod pending;
pub mod writeback;

pub(super) use contents::wipe;
pub use media::EncryptedMedia;

use super::{backing::Source, ram::memory_file};
use cipher::{PAGE, PageCipher};
use contents::Contents;
use devices::nvdimm::{label::LabelStore, security::SecurityState};
use keys::{DataKeys, KeyFile};
use pending::{Pending, Watched};
use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

const PAGE_BYTES: u64 = PAGE as u64;
/// Pages that are encrypted and written at once: 1 MiB.
const RUN: u64 = 256;

/// See the module.
pub struct EncryptedDimm {
    state: Mutex<State>,
    pending: Arc<Pending>,
    contents: Contents,
    label: u64,
}

struct State {
    key_file: KeyFile,
    /// Known while the DIMM is not locked.
    keys: Option<Unlocked>,
    windows: Vec<Arc<Watched>>,
    shown: bool,
    overwrite: Option<JoinHandle<io::Result<()>>>,
}

struct Unlocked {
    keys: DataKeys,
    data: PageCipher,
    labels: PageCipher,
}

impl Unlocked {
    fn new(keys: DataKeys) -> Self {
        Self {
            data: PageCipher::new(&keys.data),
            labels: PageCipher::new(&keys.labels),
            keys,
        }
    }
}

impl EncryptedDimm {
    /// The DIMM of `size` bytes in `file`, the last `label` of them labels, with its keys in `key_file`.
    pub fn new(file: Arc<File>, key_file: KeyFile, size: u64, label: u64) -> io::Result<Self> {
        let data = size.saturating_sub(label);
        if !data.is_multiple_of(PAGE_BYTES) || !label.is_multiple_of(PAGE_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "data and labels must be whole pages",
            ));
        }
        Ok(Self {
            state: Mutex::new(State {
                key_file,
                keys: None,
                windows: vec![],
                shown: false,
                overwrite: None,
            }),
            pending: Arc::new(Pending::new(data / PAGE_BYTES)),
            contents: Contents {
                memory: Arc::new(memory_file(size, None)?),
                file,
                data,
                size,
            },
            label,
        })
    }

    /// The plaintext, for mappings of it. All zeros while the DIMM is locked.
    pub fn source(&self) -> Source {
        Source {
            offset: 0,
            file: self.contents.memory.clone(),
            prot: libc::PROT_READ | libc::PROT_WRITE,
            flags: libc::MAP_SHARED | libc::MAP_NORESERVE,
            logged: true,
        }
    }

    /// What the key file says of passphrases.
    pub fn security(&self) -> SecurityState {
        self.lock().key_file.security().clone()
    }

    /// Pages that wait for [`EncryptedDimm::write_back`].
    pub fn pending(&self) -> Arc<Pending> {
        self.pending.clone()
    }

    /// A window that shows bytes of the DIMM, with a closed lock of the DIMM's.
    pub fn attach(&self, window: Arc<Watched>) {
        self.lock().windows.push(window);
    }

    /// Encrypts into the file what the guest has stored to. A crash of the monitor no longer loses it; a crash of the host
    /// may.
    pub fn write_back(&self) -> io::Result<()> {
        self.write_back_locked(&self.lock())
    }

    /// The same, and waits until it is on the disk.
    pub fn flush(&self) -> io::Result<()> {
        self.write_back()?;
        // Without the lock: nobody else has to wait for the disk.
        self.contents.file.sync_data()
    }

    fn write_back_locked(&self, state: &State) -> io::Result<()> {
        let Some(unlocked) = state.keys.as_ref().filter(|_| state.shown) else {
            return Ok(());
        };
        for window in &state.windows {
            window.collect().map_err(io::Error::other)?;
        }
        let runs = self.pending.take(RUN);
        for (n, (first, count)) in runs.iter().enumerate() {
            if let Err(error) = self.contents.encrypt(&unlocked.data, *first, *count) {
                // They wait for the next time.
                for (first, count) in runs.iter().skip(n) {
                    (*first..first + count).for_each(|page| self.pending.insert(page));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The guest sees the contents.
    fn show(&self, state: &mut State) -> io::Result<()> {
        for (n, watched) in state.windows.iter().enumerate() {
            if let Err(error) = watched.window.open() {
                state.windows.iter().take(n).for_each(|watched| watched.window.close());
                return Err(io::Error::other(error));
            }
        }
        state.shown = true;
        Ok(())
    }

    /// The guest does not see the contents, and there is no plaintext of them. What was not written back is lost.
    fn hide(&self, state: &mut State) -> io::Result<()> {
        if std::mem::take(&mut state.shown) {
            state.windows.iter().for_each(|watched| watched.window.close());
        }
        self.pending.clear();
        self.contents.forget()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The label area of an encrypted DIMM.
pub struct EncryptedLabels(pub Arc<EncryptedDimm>);

impl EncryptedLabels {
    /// Runs `with` on the plaintext of the pages around `len` bytes at `offset`, which begin at its second argument, and
    /// writes them back if it says so.
    fn pages(&self, offset: u32, len: usize, with: impl FnOnce(&mut [u8]) -> bool) -> io::Result<()> {
        let state = self.0.lock();
        let locked = || io::Error::new(io::ErrorKind::PermissionDenied, "the DIMM is locked");
        let unlocked = state.keys.as_ref().ok_or_else(locked)?;
        let (offset, end) = (u64::from(offset), u64::from(offset) + len as u64);
        if end > self.0.label {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let first = offset / PAGE_BYTES;
        let pages = end.div_ceil(PAGE_BYTES) - first;
        let at = self.0.contents.data + first * PAGE_BYTES;
        let start = usize::try_from(offset % PAGE_BYTES).map_err(io::Error::other)?;
        self.0.contents.change(&unlocked.labels, at, pages, |plain| {
            let bytes = start.checked_add(len).and_then(|end| plain.get_mut(start..end));
            bytes.is_some_and(with)
        })
    }
}

impl LabelStore for EncryptedLabels {
    fn size(&self) -> u32 {
        u32::try_from(self.0.label).unwrap_or(u32::MAX)
    }
    fn read(&self, offset: u32, data: &mut [u8]) -> io::Result<()> {
        self.pages(offset, data.len(), |plain| {
            data.copy_from_slice(plain);
            false
        })
    }
    fn write(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        self.pages(offset, data.len(), |plain| {
            plain.copy_from_slice(data);
            true
        })
    }
}

#[cfg(test)]
mod tests;
