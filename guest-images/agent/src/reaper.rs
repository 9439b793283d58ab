//! All children and orphans are waited for in one place, since the first process inherits everybody's orphans.
//!
//! The exit of a child is the end of file of a pipe: whoever waits for it can poll that next to the child's output.

use agent_protocol::ExitStatus;
use rustix::{
    io::Errno,
    process::{WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid},
};
use std::{
    collections::HashMap,
    io::{self, PipeReader, PipeWriter, Read},
    process::{self, Command},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

/// A running child whose exit the reaper will report.
#[derive(Debug)]
pub struct Child {
    /// The child; its pipes are the caller's to take, waiting is not.
    pub process: process::Child,
    /// Ends when the child did.
    pub ended: PipeReader,
    status: Arc<OnceLock<ExitStatus>>,
}

impl Child {
    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        let _ = self.ended.read(&mut [0]);
        self.status()
    }

    /// How it ended; only after `ended` is at its end.
    pub fn status(&self) -> ExitStatus {
        // The reaper fills the status before it closes the pipe. Should it ever not: killed is the honest guess.
        self.status.get().copied().unwrap_or(ExitStatus::Signal(9))
    }
}

#[derive(Debug, Default)]
struct Family {
    children: HashMap<i32, (Arc<OnceLock<ExitStatus>>, PipeWriter)>,
    /// Children ever started; a change ends the wait of a reaper that had none.
    generation: u64,
}

/// The only place that waits for processes.
#[derive(Debug, Default)]
pub struct Reaper {
    family: Mutex<Family>,
    born: Condvar,
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    status
        .exit_status()
        .map(ExitStatus::Code)
        .or_else(|| status.terminating_signal().map(ExitStatus::Signal))
}

impl Reaper {
    /// Starts the thread that reaps. One per process: two would steal each other's children.
    pub fn start() -> Arc<Self> {
        let reaper = Arc::new(Self::default());
        let this = Arc::clone(&reaper);
        thread::spawn(move || this.reap_for_ever());
        reaper
    }

    fn lock(&self) -> MutexGuard<'_, Family> {
        self.family.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child. The lock is held meanwhile, so that its exit cannot be collected before it is known, and so that
    /// the standard library can collect the child of a failed `exec` itself.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let (ended, on_end) = io::pipe()?;
        let status = Arc::new(OnceLock::new());
        let mut family = self.lock();
        let process = command.spawn()?;
        family
            .children
            .insert(process.id().cast_signed(), (Arc::clone(&status), on_end));
        family.generation = family.generation.wrapping_add(1);
        self.born.notify_all();
        Ok(Child { process, ended, status })
    }

    fn reap_for_ever(&self) {
        loop {
            let generation = self.lock().generation;
            // Looks without collecting: what is collected, is collected under the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => self.collect(),
                Err(Errno::CHILD) => {
                    let family = self.lock();
                    let born = self.born.wait_while(family, |f| f.generation == generation);
                    drop(born.unwrap_or_else(PoisonError::into_inner));
                }
                Err(Errno::INTR) => {}
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn collect(&self) {
        let mut family = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(ended) = exit_status(status) else { continue };
            if let Some((slot, _on_end)) = family.children.remove(&pid.as_raw_nonzero().get()) {
                let _ = slot.set(ended);
            }
        }
    }
}
