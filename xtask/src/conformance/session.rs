//! One test in a guest that is up: its output goes to its log as it comes, its requests to the host are answered.

use super::{
    hooks::Hooks,
    job::{Job, Outcome},
};
use agent_protocol::{
    Exec, ExitStatus, FromAgent, ToAgent,
    client::{Client, ClientError},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// The runner in the guest.
const RUN: &str = "/opt/conformance/run-test";
/// Carries requests of the guest.
const PUMP: &str = "/opt/conformance/bin/nfit-test-pump";
/// Exit status that means skipped, in the build system that ndctl uses.
const SKIPPED: i32 = 77;
/// The pump is a script that makes two pipes.
const PUMP_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of the log that tell why.
const TAIL: usize = 4096;
const SIGTERM: i32 = 15;

struct Session<'a> {
    client: &'a mut Client,
    hooks: &'a Hooks,
    log: File,
    tail: Vec<u8>,
    pump: u32,
    requests: Vec<u8>,
}

/// Runs the test of `job`.
pub fn run(client: &mut Client, job: &Job, buses: &str, hooks: &Hooks, log: &Path) -> Result<Outcome> {
    let log = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut session = Session {
        pump: client.new_id(),
        client,
        hooks,
        log,
        tail: vec![],
        requests: vec![],
    };
    session.start_pump()?;
    let script = format!("exec {RUN} {buses} {} 2>&1", job.program);
    let test = session.start(&["sh", "-c", &script], false)?;
    let deadline = Instant::now() + Duration::from_secs(job.seconds);
    let ended = session.wait(test, deadline)?;
    let outcome = match ended {
        Some(ExitStatus::Code(0)) => Outcome::Passed,
        Some(ExitStatus::Code(SKIPPED)) => Outcome::Skipped(session.last_words()),
        Some(status) => Outcome::Failed(format!("{status:?}: {}", session.last_words())),
        None => Outcome::Failed(format!("no end within {} s: {}", job.seconds, session.last_words())),
    };
    if outcome != Outcome::Passed {
        session.explain(ended.is_none().then_some(test));
    }
    Ok(outcome)
}

impl Session<'_> {
    fn start(&mut self, argv: &[&str], stdin: bool) -> Result<u32> {
        let id = self.client.new_id();
        self.send_exec(id, argv, stdin)?;
        Ok(id)
    }

    fn send_exec(&mut self, id: u32, argv: &[&str], stdin: bool) -> Result<()> {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        let exec = Exec {
            id,
            argv,
            stdin,
            ..Exec::default()
        };
        Ok(self.client.send(&ToAgent::Exec(exec))?)
    }

    fn start_pump(&mut self) -> Result<()> {
        let ours = self.pump;
        self.send_exec(ours, &[PUMP], true)?;
        let deadline = Instant::now() + PUMP_LIMIT;
        while !self.requests.ends_with(b"ready\n") {
            match self.client.next(deadline)? {
                Some(FromAgent::Stdout { id, data }) if id == ours => self.requests.extend(data),
                Some(FromAgent::Failed { id, error }) if id == ours => bail!("the guest's request pump: {error}"),
                Some(FromAgent::Exited { id, .. }) if id == ours => bail!("the guest's request pump ended at once"),
                Some(_) => {}
                None => bail!("the guest went away"),
            }
        }
        self.requests.clear();
        Ok(())
    }

    /// Until command `test` ends; none when the deadline comes first.
    fn wait(&mut self, test: u32, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let frame = match self.client.next(deadline) {
                Err(ClientError::Deadline(_)) => return Ok(None),
                other => other?,
            };
            match frame {
                Some(FromAgent::Stdout { id, data } | FromAgent::Stderr { id, data }) if id == self.pump => self.request(&data)?,
                Some(FromAgent::Stdout { id, data } | FromAgent::Stderr { id, data }) if id == test => self.keep(&data)?,
                Some(FromAgent::Exited { id, status }) if id == test => return Ok(Some(status)),
                Some(FromAgent::Failed { id, error }) if id == test => bail!("the test could not be started: {error}"),
                Some(_) => {}
                None => bail!("the guest went away in the middle of the test"),
            }
        }
    }

    fn keep(&mut self, data: &[u8]) -> Result<()> {
        self.log.write_all(data).context("cannot write the log")?;
        self.tail.extend(data);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        Ok(())
    }

    /// Bytes of the pump: whole lines are requests.
    fn request(&mut self, data: &[u8]) -> Result<()> {
        self.requests.extend(data);
        while let Some(end) = self.requests.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.requests.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let answer = self.hooks.serve(&line).err().unwrap_or_else(|| "ok".to_owned());
            self.keep(format!("# host: {line}: {answer}\n").as_bytes())?;
            let data = format!("{}\n", answer.replace('\n', " ")).into_bytes();
            self.client.send(&ToAgent::Stdin { id: self.pump, data })?;
        }
        Ok(())
    }

    /// The last line that is not the shell's own trace of tidying up, cut to a readable length.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let said = |l: &&&str| !l.starts_with('+') && !l.starts_with("# ");
        let line = lines.iter().rev().find(said).or(lines.last());
        line.map_or_else(|| "nothing was said".to_owned(), |l| l.chars().take(200).collect())
    }

    /// What the kernel said, for the log; a guest that hangs may not answer.
    fn explain(&mut self, hung: Option<u32>) {
        if let Some(id) = hung {
            let _ = self.client.send(&ToAgent::Signal { id, signal: SIGTERM });
        }
        let script = "echo; echo '# processes that wait'; for p in /proc/[0-9]*; do s=$(cut -d' ' -f3 $p/stat 2>/dev/null); \
                      [ \"$s\" = D ] && { cat $p/comm; cat $p/stack; }; done; echo '# kernel'; dmesg | tail -n 120";
        if let Ok(output) = self.client.sh_until(script, Instant::now() + PUMP_LIMIT) {
            let _ = self.log.write_all(&output.stdout);
        }
    }
}
