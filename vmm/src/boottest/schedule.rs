//! All cases: as many guests at once as the host's cores and memory hold, each result written down as soon as it is there.

use super::{
    case::{Case, Context, Results},
    verdict::{Attempt, CaseResult, Verdict},
};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
};

/// Results, one line of JSON each, in the order of their ends: what `--resume` goes on from.
pub const JOURNAL: &str = "results.jsonl";
/// All cases of the run, those of other shards among them, so that a result that is missing is missed.
pub const PLAN: &str = "plan.json";

/// How cases are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most guests at once.
    pub jobs: usize,
    /// vCPUs of all guests together, unless one needs more.
    pub cores: u64,
    /// Bytes of all guests together, unless one needs more.
    pub memory: u64,
    /// How often a case that did not pass is tried again.
    pub retry: u32,
    /// Begin no case after one that is not fine.
    pub fail_fast: bool,
    /// A requirement that is not met is an error.
    pub no_skip: bool,
}

/// Hears of what happens, from any thread.
pub trait Observer: Sync {
    /// A case begins.
    fn started(&self, case: &Case);
    /// A case has a result.
    fn finished(&self, result: &CaseResult);
}

/// What a run left.
#[derive(Debug, Default)]
pub struct Ran {
    /// In the order of their ends.
    pub results: Vec<CaseResult>,
    /// Cases that were not begun, or stopped on their way.
    pub left: usize,
    /// Why results could not be written down, if they could not.
    pub unwritten: Option<String>,
}

struct Queue {
    cases: VecDeque<Case>,
    running: usize,
    cores: u64,
    memory: u64,
    ran: Ran,
}

struct Shop<'a> {
    queue: Mutex<Queue>,
    changed: Condvar,
    journal: Mutex<File>,
    context: &'a Context<'a>,
    options: &'a Options,
    observer: &'a dyn Observer,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the cases in order, some beside each other.
pub fn run(cases: Vec<Case>, context: &Context<'_>, options: &Options, observer: &dyn Observer) -> io::Result<Ran> {
    let journal = open(&context.out)?;
    let threads = options.jobs.clamp(1, cases.len().max(1));
    let shop = Shop {
        queue: Mutex::new(Queue {
            cases: cases.into(),
            running: 0,
            cores: 0,
            memory: 0,
            ran: Ran::default(),
        }),
        changed: Condvar::new(),
        journal: Mutex::new(journal),
        context,
        options,
        observer,
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shop.work());
        }
    });
    let queue = shop.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut ran = queue.ran;
    ran.left += queue.cases.len();
    Ok(ran)
}

/// The journal, to be gone on with. Half a line of a run before gets its end, so that the next result has a line to itself.
fn open(folder: &Path) -> io::Result<File> {
    let path = folder.join(JOURNAL);
    let mut journal = OpenOptions::new().create(true).append(true).open(&path)?;
    if fs::read(&path)?.last().is_some_and(|last| *last != b'\n') {
        journal.write_all(b"\n")?;
    }
    Ok(journal)
}

impl Shop<'_> {
    fn work(&self) {
        while let Some(case) = self.take() {
            self.observer.started(&case);
            let result = self.attempts(&case);
            let (cores, memory) = case.weight();
            let mut queue = lock(&self.queue);
            queue.running -= 1;
            queue.cores -= cores;
            queue.memory -= memory;
            match result {
                None => queue.ran.left += 1,
                Some(result) => {
                    if let Err(e) = self.note(&result) {
                        queue
                            .ran
                            .unwritten
                            .get_or_insert(format!("cannot write {JOURNAL}: {e}"));
                    }
                    if self.options.fail_fast && !result.is_fine() {
                        queue.ran.left += queue.cases.len();
                        queue.cases.clear();
                    }
                    self.observer.finished(&result);
                    queue.ran.results.push(result);
                }
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    /// The next case that has room beside those that run; waits for one.
    fn take(&self) -> Option<Case> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.cases.is_empty() || self.context.stop.load(Ordering::SeqCst) {
                return None;
            }
            let fits = |case: &Case| {
                let (cores, memory) = case.weight();
                queue.cores + cores <= self.options.cores && queue.memory + memory <= self.options.memory
            };
            // What never fits runs alone.
            let next = queue.cases.iter().position(fits).or((queue.running == 0).then_some(0));
            if let Some(case) = next.and_then(|at| queue.cases.remove(at)) {
                let (cores, memory) = case.weight();
                queue.running += 1;
                queue.cores += cores;
                queue.memory += memory;
                return Some(case);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn attempts(&self, case: &Case) -> Option<CaseResult> {
        let mut earlier = Vec::new();
        loop {
            let mut result = case.run(self.context)?;
            if self.options.no_skip && result.verdict == Verdict::Skip {
                result.verdict = Verdict::Error;
            }
            if result.is_fine() || earlier.len() >= usize::try_from(self.options.retry).unwrap_or(0) {
                result.earlier = earlier;
                return Some(result);
            }
            earlier.push(Attempt {
                verdict: result.verdict,
                reason: result.reason,
            });
        }
    }

    fn note(&self, result: &CaseResult) -> io::Result<()> {
        let mut line = serde_json::to_vec(result)?;
        line.push(b'\n');
        lock(&self.journal).write_all(&line)
    }
}

/// The cases that a folder is a part of, each without a result.
pub fn plan(folder: &Path) -> io::Result<Vec<CaseResult>> {
    let plan: Results = serde_json::from_slice(&fs::read(folder.join(PLAN))?)?;
    Ok(plan.results)
}

/// The results that a folder has. Half a line, which a killed run may leave, is no result.
pub fn journal(folder: &Path) -> io::Result<Vec<CaseResult>> {
    let path: PathBuf = folder.join(JOURNAL);
    let lines = BufReader::new(File::open(path)?).split(b'\n');
    let mut results: Vec<CaseResult> = Vec::new();
    for line in lines {
        if let Ok(result) = serde_json::from_slice::<CaseResult>(&line?) {
            // A later run of a case counts instead of an earlier one.
            results.retain(|r| r.id != result.id);
            results.push(result);
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boottest::verdict::tests::result;

    #[test]
    fn a_journal_keeps_the_last_result_of_a_case_and_forgives_half_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let line = |id, verdict| serde_json::to_string(&result(id, verdict)).unwrap() + "\n";
        let text = line("a/b@k", Verdict::Error)
            + &line("a/c@k", Verdict::Pass)
            + &line("a/b@k", Verdict::Pass)
            + "{\"id\":\"a/d";
        fs::write(dir.path().join(JOURNAL), text).unwrap();
        let mut gone_on = open(dir.path()).unwrap();
        gone_on.write_all(line("a/e@k", Verdict::Fail).as_bytes()).unwrap();
        let found: Vec<_> = journal(dir.path())
            .unwrap()
            .into_iter()
            .map(|r| (r.id, r.verdict))
            .collect();
        assert_eq!(
            found,
            [
                ("a/c@k".to_owned(), Verdict::Pass),
                ("a/b@k".to_owned(), Verdict::Pass),
                ("a/e@k".to_owned(), Verdict::Fail)
            ]
        );
    }
}
