//! What is to be measured, and what was.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::PathBuf,
};
use vmm::images::{KernelImage, QemuImage};

/// Everything the measuring process needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// What is left to run.
    pub queue: Queue,
    /// The program to measure.
    pub daxvisor: PathBuf,
    /// The program to compare with.
    pub qemu: QemuImage,
    /// What all of them boot.
    pub kernel: KernelImage,
    /// Whether the host may be told to promise more memory than it has; only a host that is ours.
    pub overcommit: bool,
    /// Kernels for the comparison of unpacking; may be empty.
    pub unpack: BTreeMap<String, KernelImage>,
}

/// A program with its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    Daxvisor,
    QemuMicrovm,
    QemuQ35,
}

impl Vmm {
    /// In the order of a round.
    pub const ALL: [Self; 3] = [Self::Daxvisor, Self::QemuMicrovm, Self::QemuQ35];
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Daxvisor => "daxvisor",
            Self::QemuMicrovm => "QEMU microvm",
            Self::QemuQ35 => "QEMU q35",
        })
    }
}

/// How much the kernel says on the serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    /// `quiet`.
    Quiet,
    /// Everything.
    Full,
}

/// One way to run a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Scenario {
    /// Until the first entry to the guest.
    Start {
        /// Guest RAM.
        gib: u32,
    },
    /// Until init says that it is ready.
    Boot {
        /// Kernel log.
        log: Log,
    },
    /// The same with exits to user space counted, which costs time.
    Count {
        /// Kernel log.
        log: Log,
    },
    /// Boot of another kernel file.
    Unpack {
        /// Kernel's name.
        kernel: String,
        /// Which of its files, and who unpacks it.
        how: Unpack,
    },
}

/// Who unpacks the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unpack {
    /// Nobody: vmlinux.
    Vmlinux,
    /// bzImage, by daxvisor.
    Monitor,
    /// bzImage, by the guest.
    Guest,
}

/// One run to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// From 1.
    pub round: u32,
    /// Program.
    pub vmm: Vmm,
    /// How.
    pub scenario: Scenario,
    /// 1, or 2 for the one retry after a failure.
    pub attempt: u32,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {} {:?}", self.round, self.vmm, self.scenario)
    }
}

/// One run and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// What was run.
    #[serde(flatten)]
    pub job: Job,
    /// What was measured, by name; times in ns, memory in bytes. Empty after a failure.
    pub figures: BTreeMap<String, u64>,
    /// Why there are no figures.
    pub failure: Option<Failure>,
}

/// Why a run has no figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "why")]
pub enum Failure {
    /// It exceeded a limit.
    DidNotEnd(String),
    /// It ended otherwise than it should have, or its host failed.
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DidNotEnd(why) => write!(f, "did not end: {why}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// What the measuring process tells, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A run begins.
    Begin(Job),
    /// It is over, one way or the other.
    End(Run),
}

/// The runs that are left, and what a failure means for them. It is kept on both sides of the nested host, which may be
/// lost with a run: both do the same with the same outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    jobs: VecDeque<Job>,
}

impl Queue {
    /// All scenarios with all programs in turn, `rounds` times. `kernels` are those to be unpacked.
    pub fn new<'a>(rounds: u32, kernels: impl Iterator<Item = &'a String>) -> Self {
        let kernels: Vec<_> = kernels.collect();
        let mut jobs = VecDeque::new();
        for round in 1..=rounds {
            for scenario in scenarios(round, &kernels) {
                let unpack = matches!(scenario, Scenario::Unpack { .. });
                for vmm in Vmm::ALL.into_iter().filter(|vmm| !unpack || *vmm == Vmm::Daxvisor) {
                    jobs.push_back(Job {
                        round,
                        vmm,
                        scenario: scenario.clone(),
                        attempt: 1,
                    });
                }
            }
        }
        Self { jobs }
    }

    /// The next one.
    pub fn next(&self) -> Option<&Job> {
        self.jobs.front()
    }

    /// Takes the outcome of the next one. A run that fails is tried once more at once; when that fails too, the program is
    /// not run that way in the rounds that follow.
    pub fn done(&mut self, run: &Run) {
        let Some(job) = self.jobs.pop_front() else { return };
        if run.failure.is_none() {
            return;
        }
        if job.attempt == 1 {
            self.jobs.push_front(Job { attempt: 2, ..job });
        } else {
            self.jobs
                .retain(|left| (left.vmm, &left.scenario) != (job.vmm, &job.scenario));
        }
    }
}

/// Counts repeat, and unpacking is a matter of seconds: the first round has them.
fn scenarios(round: u32, kernels: &[&String]) -> Vec<Scenario> {
    let mut all: Vec<_> = [1, 4, 16].map(|gib| Scenario::Start { gib }).into();
    for log in [Log::Quiet, Log::Full] {
        all.push(Scenario::Boot { log });
        if round == 1 {
            all.push(Scenario::Count { log });
        }
    }
    for kernel in kernels.iter().filter(|_| round == 1) {
        for how in [Unpack::Vmlinux, Unpack::Monitor, Unpack::Guest] {
            let kernel = (*kernel).clone();
            all.push(Scenario::Unpack { kernel, how });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(job: &Job, failure: Option<Failure>) -> Run {
        Run {
            job: job.clone(),
            figures: BTreeMap::new(),
            failure,
        }
    }

    #[test]
    fn rounds_are_interleaved_and_counts_are_of_the_first() {
        let kernel = "k".to_owned();
        let queue = Queue::new(2, [&kernel].into_iter());
        let order: Vec<_> = queue.jobs.iter().take(3).map(|job| job.vmm).collect();
        assert_eq!(order, Vmm::ALL);
        let of = |round| queue.jobs.iter().filter(move |job| job.round == round).count();
        // Three sizes and two boots; two counts more in the first round, and one kernel in three ways by daxvisor alone.
        assert_eq!((of(1), of(2)), (7 * 3 + 3, 5 * 3));
    }

    #[test]
    fn a_failure_is_tried_once_more_and_given_up_for_good_when_it_repeats() {
        let mut queue = Queue::new(2, std::iter::empty());
        let first = queue.next().unwrap().clone();
        let hang = Failure::DidNotEnd("no init".into());
        queue.done(&outcome(&first, Some(hang.clone())));
        let again = queue.next().unwrap().clone();
        assert_eq!(
            again,
            Job {
                attempt: 2,
                ..first.clone()
            }
        );
        queue.done(&outcome(&again, Some(hang)));
        let same = |job: &&Job| job.vmm == first.vmm && job.scenario == first.scenario;
        assert_eq!(queue.jobs.iter().filter(same).count(), 0);
        assert_eq!(queue.next().map(|job| job.vmm), Some(Vmm::QemuMicrovm));
        assert_eq!(queue.jobs.len(), 7 * 3 + 5 * 3 - 2);
    }

    #[test]
    fn a_second_attempt_that_ends_keeps_later_rounds() {
        let mut queue = Queue::new(2, std::iter::empty());
        let first = queue.next().unwrap().clone();
        queue.done(&outcome(&first, Some(Failure::Failed("exit code 1".into()))));
        let again = queue.next().unwrap().clone();
        queue.done(&outcome(&again, None));
        assert_eq!(queue.jobs.len(), 7 * 3 + 5 * 3 - 1);
    }

    #[test]
    fn runs_are_flat_in_json() {
        let job = Queue::new(1, std::iter::empty()).next().unwrap().clone();
        let run = outcome(&job, Some(Failure::DidNotEnd("x".into())));
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!((&json["vmm"], &json["attempt"]), (&"daxvisor".into(), &1.into()));
        assert_eq!(json["failure"]["kind"], "did-not-end");
        let back: Run = serde_json::from_value(json).unwrap();
        assert_eq!(back.job, job);
    }
}
