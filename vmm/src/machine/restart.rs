//! What outlasts a reset of the machine.
//!
//! A reset takes the whole machine down, guest memory included, and builds it again from its configuration as it is by then:
//! what was added while it ran is part of it, and is there at boot. What follows is carried over.

use super::{
    console::Console,
    control::Calls,
    events::{Life, Loop},
    tail::Tail,
};
use crate::{
    config::{Limits, VmConfig},
    control::EventLog,
};
use devices::{apei::ApeiKept, nvdimm::state::MemoryState};
use std::{
    collections::BTreeMap,
    fs::File,
    mem::take,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a thread of the machine before may still be at its last work.
const LAST_WORK: Duration = Duration::from_secs(10);

/// Memory and states of the persistent devices that have no file for them.
#[derive(Debug, Default)]
pub struct Files {
    /// NVDIMMs by slot.
    pub nvdimm: BTreeMap<u8, Arc<File>>,
    /// States of NVDIMMs by slot.
    pub states: BTreeMap<u8, Arc<MemoryState>>,
    /// virtio-pmem devices by position.
    pub pmem: BTreeMap<usize, Arc<File>>,
}

/// What becomes of a machine that its guest resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnReset {
    /// The run ends
    #[default]
    Exit,
    /// The machine starts again, with everything that was added to it
    Restart,
}

/// What a run is bounded by.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunLimits {
    /// How long it may take, restarts included.
    pub limit: Option<Duration>,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
}

/// What is left of a machine that starts again.
pub struct Kept {
    /// The machine as it was at the reset.
    pub config: VmConfig,
    pub(super) limits: Limits,
    pub(super) files: Files,
    pub(super) console: Console,
    pub(super) domain_console: Console,
    pub(super) tail: Arc<Tail>,
    pub(super) apei: ApeiKept,
    events: Arc<EventLog>,
    calls: Option<Calls>,
    deadline: Option<Instant>,
    life: Life,
    workers: Vec<JoinHandle<()>>,
}

impl Kept {
    /// Takes what is left from a machine whose processors have stopped; the rest of it goes.
    pub(super) fn new(mut parts: Loop, life: Life) -> Self {
        let growth = &mut parts.growth;
        let (config, limits, files) = (growth.config.clone(), growth.limits, take(&mut growth.files));
        Self {
            config,
            limits,
            files,
            console: take(&mut parts.console),
            domain_console: take(&mut parts.domain_console.console),
            tail: parts.tail.clone(),
            apei: parts.apei.as_ref().map(|apei| apei.keep()).unwrap_or_default(),
            events: parts.events.clone(),
            calls: parts.calls.take(),
            deadline: parts.deadline,
            life,
            workers: take(&mut parts.live.workers),
        }
    }

    /// Gives what persistent devices are made of, as soon as no thread of the machine before has files any more.
    pub(super) fn take_files(&mut self) -> Files {
        let begun = Instant::now();
        while self.workers.iter().any(|worker| !worker.is_finished()) && begun.elapsed() < LAST_WORK {
            thread::sleep(Duration::from_millis(1));
        }
        take(&mut self.files)
    }
}

impl Loop {
    /// Goes on where the machine of `kept` was reset.
    pub(super) fn resume(&mut self, kept: Kept) {
        self.events = kept.events;
        self.calls = kept.calls;
        self.deadline = kept.deadline;
        self.life = Some(kept.life);
    }
}
