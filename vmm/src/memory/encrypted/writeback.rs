//! The thread that keeps the files of encrypted DIMMs close behind the guest.

use super::EncryptedDimm;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longest time between two rounds; with what a round takes, the longest that a killed monitor loses.
pub const INTERVAL: Duration = Duration::from_secs(1);

type Dimms = Arc<Mutex<Vec<Arc<EncryptedDimm>>>>;

/// Encrypted DIMMs of a machine, and the thread that looks after them as soon as there is one. Dropping it ends the
/// thread after a last round.
pub struct WriteBack {
    dimms: Dimms,
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

fn all(dimms: &Dimms) -> MutexGuard<'_, Vec<Arc<EncryptedDimm>>> {
    dimms.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WriteBack {
    /// Looks after `dimms`.
    pub fn start(dimms: Vec<Arc<EncryptedDimm>>) -> io::Result<Self> {
        let mut write_back = Self {
            dimms: Dimms::default(),
            thread: None,
        };
        dimms.into_iter().try_for_each(|dimm| write_back.add(dimm))?;
        Ok(write_back)
    }

    /// Looks after one more.
    pub fn add(&mut self, dimm: Arc<EncryptedDimm>) -> io::Result<()> {
        all(&self.dimms).push(dimm);
        if self.thread.is_some() {
            return Ok(());
        }
        let (stop, stopped) = mpsc::channel();
        let dimms = self.dimms.clone();
        let run = move || {
            while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let watched = all(&dimms).clone();
                for dimm in watched {
                    if let Err(error) = dimm.write_back() {
                        tracing::warn!(%error, "an encrypted NVDIMM cannot be written back; it is tried again");
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("write-back".to_owned()).spawn(run)?;
        self.thread = Some((stop, thread));
        Ok(())
    }

    /// Brings every file up to date, on the disk. What the guest stores meanwhile may or may not be there.
    pub fn flush(&self) -> io::Result<()> {
        let dimms = all(&self.dimms).clone();
        let results: Vec<_> = dimms.iter().map(|dimm| dimm.flush()).collect();
        results.into_iter().collect()
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // A thread that panicked has said so itself.
            let _ = thread.join();
            if let Err(error) = self.flush() {
                tracing::error!(%error, "an encrypted NVDIMM cannot be written back");
            }
        }
    }
}
