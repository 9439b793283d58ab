//! What the guest's security commands do to an encrypted DIMM.

use super::{DataKeys, EncryptedDimm, Unlocked};
use devices::nvdimm::security::{MediaControl, SecurityState, WrappingKey};
use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

/// The handle that security has on a DIMM.
pub struct EncryptedMedia(pub Arc<EncryptedDimm>);

/// The guest gave the right passphrase, and yet its key does not open what it should.
fn does_not_open() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the passphrase is right, but the key file has been changed and does not open with it",
    )
}

impl MediaControl for EncryptedMedia {
    fn random(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }

    fn store(&mut self, state: &SecurityState) -> io::Result<()> {
        self.0.lock().key_file.store(state)
    }

    fn protect(
        &mut self,
        state: &SecurityState,
        old: Option<&WrappingKey>,
        new: Option<&WrappingKey>,
    ) -> io::Result<()> {
        let mut dimm = self.0.lock();
        let keys = match &dimm.keys {
            Some(unlocked) => unlocked.keys.clone(),
            None => dimm.key_file.keys(old).ok_or_else(does_not_open)?,
        };
        dimm.key_file.seal(state, &keys, new)
    }

    fn lock(&mut self) -> io::Result<()> {
        let mut dimm = self.0.lock();
        self.0.write_back_locked(&dimm)?;
        dimm.keys = None;
        self.0.hide(&mut dimm)
    }

    fn unlock(&mut self, key: Option<&WrappingKey>) -> io::Result<()> {
        let mut dimm = self.0.lock();
        let unlocked = Unlocked::new(dimm.key_file.keys(key).ok_or_else(does_not_open)?);
        let shown = self
            .0
            .contents
            .decrypt(&unlocked.data)
            .and_then(|()| self.0.show(&mut dimm));
        if shown.is_err() {
            self.0.hide(&mut dimm)?;
        } else {
            dimm.keys = Some(unlocked);
        }
        shown
    }

    fn erase(&mut self, state: &SecurityState, key: Option<&WrappingKey>) -> io::Result<()> {
        let mut dimm = self.0.lock();
        let known = match &dimm.keys {
            Some(unlocked) => Some(unlocked.keys.clone()),
            None => dimm.key_file.keys(key),
        };
        let fresh = DataKeys::random()?;
        let keys = DataKeys {
            data: fresh.data.clone(),
            labels: known.as_ref().unwrap_or(&fresh).labels.clone(),
        };
        dimm.key_file.seal(state, &keys, None)?;
        // The old data key is gone, and with it the data: nothing that fails from here on brings it back.
        dimm.keys = None;
        let mut cleared = self.0.hide(&mut dimm);
        if known.is_none() {
            // Nobody can read them any more: without labels the DIMM is at least usable.
            cleared = cleared.and(self.0.contents.destroy_labels());
        }
        if let Err(error) = cleared {
            tracing::warn!(%error, "an erased NVDIMM has leftovers in memory or in its label area");
        }
        Ok(())
    }

    fn start_overwrite(&mut self, state: &SecurityState) -> io::Result<()> {
        let mut dimm = self.0.lock();
        let contents = self.0.contents.clone();
        let (begin, begun) = mpsc::channel();
        // The thread first, because there may be none to be had.
        let worker = thread::Builder::new()
            .name("overwrite".to_owned())
            .spawn(move || match begun.recv() {
                Ok(()) => contents.destroy(),
                Err(_) => Ok(()),
            })?;
        dimm.key_file.store(state)?;
        if let Err(error) = self.0.hide(&mut dimm) {
            tracing::warn!(%error, "the memory of an NVDIMM cannot be cleared");
        }
        // It waits for this.
        let _ = begin.send(());
        dimm.overwrite = Some(worker);
        Ok(())
    }

    fn overwritten(&mut self) -> Option<io::Result<()>> {
        let mut dimm = self.0.lock();
        let worker = dimm.overwrite.take_if(|worker| worker.is_finished())?;
        let died = |_| Err(io::Error::other("the thread that overwrites died"));
        Some(worker.join().unwrap_or_else(died))
    }

    fn resume(&mut self) -> io::Result<()> {
        let mut dimm = self.0.lock();
        if dimm.keys.is_none() {
            // The monitor was started while an overwrite went on, and there is no passphrase.
            let keys = dimm.key_file.keys(None).ok_or_else(does_not_open)?;
            dimm.keys = Some(Unlocked::new(keys));
        }
        self.0.show(&mut dimm)
    }
}
