//! Watches over the measuring process, from outside of the host that may hang with it.
//!
//! Time inside the nested host's instruction-counting mode is no time at all to whoever waits, so the limit on a run's wall
//! time is kept here. A run that exceeds it, or takes the host down, costs the host: another one is started for the rest.

use super::record::{Event, Failure, Plan, Run};
use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// For the nested host to start, twice if it must, and for everything to be copied into memory.
const SETUP: Duration = Duration::from_secs(300);

/// How one start of the measuring process went.
enum Ended {
    /// Nothing is left.
    Done,
    /// The run that had begun, if one had, came to no end.
    Lost(Failure),
}

/// All runs of `plan`. `start` makes the command that measures the plan in a file; a run may take `limit`.
pub fn all(mut plan: Plan, plan_file: &Path, limit: Duration, start: impl Fn() -> Result<Command>) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut fruitless = 0;
    loop {
        fs::write(plan_file, serde_json::to_vec(&plan)?)?;
        let before = runs.len();
        let (ended, begun) = once(&mut plan, &mut start()?, limit, &mut runs)?;
        let Ended::Lost(failure) = ended else { return Ok(runs) };
        if let Some(job) = plan.queue.next().filter(|_| begun).cloned() {
            eprintln!("{job}: {failure}");
            let run = Run {
                job,
                figures: BTreeMap::new(),
                failure: Some(failure.clone()),
            };
            plan.queue.done(&run);
            runs.push(run);
        }
        fruitless = if runs.len() > before { 0 } else { fruitless + 1 };
        if fruitless == 2 {
            bail!("nothing can be measured: {failure}");
        }
        if plan.queue.next().is_none() {
            return Ok(runs);
        }
        eprintln!("a new host measures the rest");
    }
}

/// One start; also says whether a run had begun.
fn once(plan: &mut Plan, command: &mut Command, limit: Duration, runs: &mut Vec<Run>) -> Result<(Ended, bool)> {
    let mut child = Owned(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?,
    );
    let events = listen(&mut child.0)?;
    let mut begun = false;
    loop {
        match events.recv_timeout(if begun { limit } else { SETUP }) {
            Ok(Event::Begin(job)) => {
                if plan.queue.next() != Some(&job) {
                    bail!("{job} was begun out of turn");
                }
                begun = true;
            }
            Ok(Event::End(run)) => {
                plan.queue.done(&run);
                runs.push(run);
                begun = false;
            }
            Err(RecvTimeoutError::Timeout) => {
                let late = format!(
                    "not over after {} s of wall time",
                    if begun { limit } else { SETUP }.as_secs()
                );
                return Ok((Ended::Lost(Failure::DidNotEnd(late)), begun));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.0.wait()?;
                return Ok((judge(status, plan), begun));
            }
        }
    }
}

fn judge(status: ExitStatus, plan: &Plan) -> Ended {
    if status.success() && plan.queue.next().is_none() {
        return Ended::Done;
    }
    let host = match status.code() {
        Some(crate::host::HOST_FAILED) => "the nested host failed",
        _ => "the measuring process ended early",
    };
    Ended::Lost(Failure::Failed(format!("{host} ({status})")))
}

fn listen(child: &mut Child) -> Result<Receiver<Event>> {
    let output = child.stdout.take().context("the measuring process has no output")?;
    let (sender, events) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str(&line) else {
                eprintln!("{line}");
                continue;
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    Ok(events)
}

/// A process that ends with its owner. QEMU ends with daxvisor, however that ends.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Job, Queue};
    use std::path::PathBuf;
    use vmm::images::{KernelImage, QemuImage};

    fn plan() -> Plan {
        Plan {
            queue: Queue::new(1, std::iter::empty()),
            daxvisor: PathBuf::new(),
            qemu: QemuImage {
                program: PathBuf::new(),
                data: vec![],
                libraries: vec![],
            },
            kernel: KernelImage {
                release: String::new(),
                bzimage: PathBuf::new(),
                vmlinux: PathBuf::new(),
                initramfs: PathBuf::new(),
            },
            overcommit: false,
            unpack: BTreeMap::new(),
        }
    }

    fn sh(script: String) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        command
    }

    fn said(event: &Event) -> String {
        format!("echo '{}'", serde_json::to_string(event).unwrap())
    }

    fn begin(job: &Job) -> String {
        said(&Event::Begin(job.clone()))
    }

    #[test]
    fn a_run_beyond_its_limit_did_not_end_and_the_rest_goes_on_in_a_new_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plan.json");
        // Starts that hang in their first run, until the queue is down to its last one, which ends.
        let start = || {
            let plan: Plan = serde_json::from_slice(&fs::read(&file)?)?;
            let job = plan.queue.next().unwrap();
            let mut rest = plan.queue.clone();
            let end = Run {
                job: job.clone(),
                figures: BTreeMap::from([("exec to init".to_owned(), 7)]),
                failure: None,
            };
            rest.done(&end);
            Ok(match rest.next() {
                None => sh(format!("{}; {}", begin(job), said(&Event::End(end)))),
                Some(_) => sh(format!("{}; exec sleep 600", begin(job))),
            })
        };
        let runs = all(plan(), &file, Duration::from_millis(100), start).unwrap();
        let hung = |run: &&Run| matches!(&run.failure, Some(Failure::DidNotEnd(why)) if why.contains("wall time"));
        // 21 jobs; each of the first 20 was tried twice. The last one was tried as the first time, and ended.
        assert_eq!((runs.len(), runs.iter().filter(hung).count()), (41, 40));
        assert_eq!(runs.last().unwrap().figures["exec to init"], 7);
    }

    #[test]
    fn a_host_that_fails_is_not_the_programs_hang() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plan.json");
        let start = || {
            let plan: Plan = serde_json::from_slice(&fs::read(&file)?)?;
            Ok(sh(format!("{}; exit 125", begin(plan.queue.next().unwrap()))))
        };
        let runs = all(plan(), &file, Duration::from_secs(60), start).unwrap();
        let failed =
            |run: &Run| matches!(&run.failure, Some(Failure::Failed(why)) if why.contains("nested host failed"));
        assert!(runs.len() == 42 && runs.iter().all(failed), "{runs:?}");
    }

    #[test]
    fn a_process_that_never_begins_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let start = || Ok(sh("exit 3".into()));
        let error = all(plan(), &dir.path().join("p"), Duration::from_secs(60), start).unwrap_err();
        assert!(error.to_string().contains("nothing can be measured"), "{error}");
    }
}
