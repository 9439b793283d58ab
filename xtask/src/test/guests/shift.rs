//! One run of a tier: programs are handed out one by one to whoever runs them.

use super::queue::Queue;
use crate::{
    host::{self, Place},
    process,
    test::{
        Tally, Tier,
        executables::Executable,
        output::Reader,
        runner::{self, List},
    },
    workspace,
};
use anyhow::{Context, Result};
use std::{
    env, fs,
    io::{self, Write},
    mem,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Most that a whole tier may take; each test has shorter deadlines of its own.
const LIMIT: Duration = Duration::from_secs(50 * 60);

/// What is run, where, and what came of it.
pub struct Shift {
    place: Place,
    scratch: PathBuf,
    /// The programs, for the inner half.
    list: PathBuf,
    until: Instant,
    queue: Mutex<Queue>,
}

impl Shift {
    /// Of these programs.
    pub fn new(tier: Tier, place: Place, executables: &[Executable]) -> Result<Self> {
        let scratch = workspace::scratch(tier.name())?;
        let list = scratch.join("tests.json");
        let content = List {
            executables: executables.to_vec(),
            limit_seconds: LIMIT.as_secs(),
            serial: tier == Tier::Nested,
        };
        fs::write(&list, serde_json::to_vec(&content)?).with_context(|| format!("cannot write {}", list.display()))?;
        Ok(Self {
            place,
            scratch,
            list,
            until: Instant::now() + LIMIT,
            queue: Mutex::new(Queue::new(executables)),
        })
    }

    /// What came of all of it.
    pub fn end(self) -> Tally {
        self.queue.into_inner().unwrap_or_else(PoisonError::into_inner).tally
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs programs until none waits, on one host after another should they fail. Lines of output follow `prefix`.
    pub fn work(&self, prefix: String) -> Result<()> {
        let mut copy = Prefixed(prefix);
        loop {
            let Some(first) = self.queue().take() else {
                return Ok(());
            };
            let (code, interrupted) = self.one_host(first, &mut copy)?;
            let over = Instant::now() >= self.until;
            let mut queue = self.queue();
            match interrupted {
                None => {}
                Some(program) if code == Some(host::HOST_FAILED) && self.place == Place::Nested && !over => {
                    queue.host_failed_in(program);
                }
                Some(program) => {
                    let why = "error: it did not run to its end: what ran it failed, or the tier's time was over";
                    queue.tally.fail(&program.name, why);
                }
            }
            if over {
                queue.give_up("error: it did not run: the tier's time was over");
            }
        }
    }

    /// Runs programs until none waits or the host ends; its exit code, and the program that it was in.
    fn one_host(&self, first: Executable, copy: &mut Prefixed) -> Result<(Option<i32>, Option<Executable>)> {
        let mut current = Some(first);
        // Counts of a program that the host takes down with it are not of a whole run.
        let mut one = Reader::default();
        let status = process::converse(&mut self.command()?, copy, |event, input| {
            match event {
                None => {}
                Some(line) => match runner::ended(line) {
                    None => return one.line(line),
                    Some((name, success)) => {
                        one.ended(name, success, 0);
                        let mut queue = self.queue();
                        queue.tally.add(mem::take(&mut one).tally);
                        current = queue.take();
                    }
                },
            }
            match &current {
                Some(program) => input.say(&program.name),
                None => input.end(),
            }
        })?;
        Ok((status.code(), current))
    }

    /// The inner half, which is told the programs one by one.
    fn command(&self) -> Result<Command> {
        let own = env::current_exe().context("cannot find this program")?;
        // Tests may write to cargo's folder for that; the sources are read-only in the nested host.
        let writable = workspace::target().join("tmp");
        fs::create_dir_all(&writable).with_context(|| format!("cannot make folder {}", writable.display()))?;
        let daxvisor = workspace::daxvisor(false);
        let seconds = self.until.saturating_duration_since(Instant::now()).as_secs() + 60;
        let mut command = host::command(self.place, &daxvisor, &[], &[&writable], seconds, &own);
        command
            .arg("run-tests")
            .arg(&self.list)
            .current_dir(&self.scratch)
            .env("DAXVISOR_BIN", &daxvisor)
            .env("INSTA_UPDATE", "no")
            .env_remove("DAXVISOR_BLESS");
        Ok(command)
    }
}

/// Standard output, each line behind a prefix.
struct Prefixed(String);

impl Write for Prefixed {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stdout().lock();
        out.write_all(self.0.as_bytes())?;
        out.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
