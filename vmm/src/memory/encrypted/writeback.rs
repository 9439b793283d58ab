//! The thread that keeps the files of encrypted DIMMs close behind the guest.

use super::EncryptedDimm;
use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longest time between two rounds, and with what a round takes the longest that a killed monitor loses.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Encrypted DIMMs of a machine. Dropping it stops the thread after a last round.
pub struct WriteBack {
    dimms: Vec<Arc<EncryptedDimm>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBack {
    /// Starts the thread, if there is anything to do for it.
    pub fn start(dimms: Vec<Arc<EncryptedDimm>>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let watched = dimms.clone();
        let run = move || {
            while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                for dimm in &watched {
                    if let Err(error) = dimm.write_back() {
                        tracing::warn!(%error, "an encrypted NVDIMM cannot be written back; it is tried again");
                    }
                }
            }
        };
        let thread = match dimms.is_empty() {
            true => None,
            false => Some(thread::Builder::new().name("write-back".to_owned()).spawn(run)?),
        };
        Ok(Self {
            dimms,
            stop: Some(stop),
            thread,
        })
    }

    /// Stops the thread and brings every file up to date, on the disk. The guest must not run any more.
    pub fn finish(mut self) -> io::Result<()> {
        self.stop();
        self.flush()
    }

    /// Brings every file up to date, on the disk.
    pub fn flush(&self) -> io::Result<()> {
        let results: Vec<_> = self.dimms.iter().map(|dimm| dimm.flush()).collect();
        results.into_iter().collect()
    }

    fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.stop();
    }
}
