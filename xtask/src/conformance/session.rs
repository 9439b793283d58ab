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
/// What programs say that find no device of the kind they test.
const NOTHING: &str = "failed to find suitable namespace";
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
    /// The test said that it found nothing to test.
    idle: bool,
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
        idle: false,
    };
    session.start_pump()?;
    let script = format!("exec {RUN} {buses} {} 2>&1", job.program);
    let test = session.start(&["sh", "-c", &script], false)?;
    let deadline = Instant::now() + Duration::from_secs(job.seconds);
    let ended = session.wait(test, deadline)?;
    let outcome = match ended {
        // Some programs report success when they found nothing to test.
        Some(ExitStatus::Code(0)) if session.idle => Outcome::Skipped(NOTHING.to_owned()),
        Some(status) => outcome(status, session.last_words()),
        None => Outcome::Failed(format!("no end within {} s: {}", job.seconds, session.last_words())),
    };
    if outcome != Outcome::Passed {
        session.explain(ended.is_none().then_some(test));
    }
    Ok(outcome)
}

fn outcome(status: ExitStatus, words: String) -> Outcome {
    match status {
        ExitStatus::Code(0) => Outcome::Passed,
        // Scripts also leave so when a command of theirs fails before the test proper: that is no reason to skip.
        ExitStatus::Code(SKIPPED) if complaint(&words) => Outcome::Failed(format!("before the test proper: {words}")),
        ExitStatus::Code(SKIPPED) => Outcome::Skipped(words),
        ExitStatus::Code(code) => Outcome::Failed(format!("exit status {code}: {words}")),
        ExitStatus::Signal(signal) => Outcome::Failed(format!("signal {signal}: {words}")),
    }
}

/// Whether a line is a script's own word that a command failed.
fn complaint(line: &str) -> bool {
    ["failed at line", "fail: ", "Error at line"]
        .iter()
        .any(|p| line.contains(p))
}

/// The script's complaint with what was said before it, or the last line; neither traces nor debugging talk of libraries.
fn last_words(text: &str) -> String {
    const NOISE: [&str; 5] = ["+", "# ", "libkmod: ", "libndctl: ", "libdaxctl: "];
    let lines = text.lines().map(str::trim);
    let said: Vec<_> = lines
        .filter(|l| !l.is_empty() && !NOISE.iter().any(|n| l.starts_with(n)))
        .collect();
    let at = said.iter().position(|l| complaint(l)).or(said.len().checked_sub(1));
    let words = match at {
        None => "nothing was said".to_owned(),
        Some(0) => said[0].to_owned(),
        Some(at) if complaint(said[at]) => format!("{} (after: {})", said[at], said[at - 1]),
        Some(at) => said[at].to_owned(),
    };
    words.chars().take(240).collect()
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
                Some(FromAgent::Stdout { id, data } | FromAgent::Stderr { id, data }) if id == self.pump => {
                    self.request(&data)?
                }
                Some(FromAgent::Stdout { id, data } | FromAgent::Stderr { id, data }) if id == test => {
                    self.keep(&data)?
                }
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
        self.idle |= String::from_utf8_lossy(&self.tail).contains(NOTHING);
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

    /// What the test gave as its reason.
    fn last_words(&self) -> String {
        last_words(&String::from_utf8_lossy(&self.tail))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_stumbles_on_its_way_has_not_skipped_itself() {
        let words = last_words("+ ndctl x\nno bus\n++ err 19\ntest/a.sh: failed at line 19\n+ umount\numount: no\n");
        assert_eq!(words, "test/a.sh: failed at line 19 (after: no bus)");
        let stumbled = outcome(ExitStatus::Code(SKIPPED), words);
        assert!(matches!(stumbled, Outcome::Failed(why) if why.starts_with("before the test proper")));
        let skipped = outcome(
            ExitStatus::Code(SKIPPED),
            last_words("+ do_skip x\nkernel 6.1: missing jq\n"),
        );
        assert_eq!(skipped, Outcome::Skipped("kernel 6.1: missing jq".to_owned()));
    }

    #[test]
    fn debugging_talk_is_not_the_reason() {
        assert_eq!(
            last_words("victim: nmem0\nlibndctl: ndctl_unref: released\n"),
            "victim: nmem0"
        );
        assert_eq!(last_words("+ true\n"), "nothing was said");
        assert_eq!(outcome(ExitStatus::Code(0), String::new()), Outcome::Passed);
        assert!(matches!(
            outcome(ExitStatus::Signal(11), String::new()),
            Outcome::Failed(_)
        ));
    }
}
