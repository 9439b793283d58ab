//! One run of the demo's guest: daxvisor as a child, and its agent.

use agent_protocol::client::Client;
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// From exec to the agent's hello.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// One command in the guest.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// From the request to the end of the process.
const END_LIMIT: Duration = Duration::from_secs(60);
/// A channel that closes is the first sign of an end; the reason follows.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Lines of a console that tell why.
const TAIL: usize = 25;

/// A guest that answers.
pub struct Guest {
    monitor: Monitor,
    /// What daxvisor says of itself.
    messages: PathBuf,
    client: Client,
    /// Wall time from exec to the agent's hello.
    pub boot: Duration,
}

/// The process; it does not outlive this.
struct Monitor {
    child: Child,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    /// Starts `daxvisor run` with `args` and waits for the agent. `messages` gets what daxvisor itself says.
    pub fn boot(daxvisor: &Path, args: &[String], socket: &Path, messages: &Path) -> Result<Self> {
        let log = File::create(messages).with_context(|| format!("cannot make {}", messages.display()))?;
        let start = Instant::now();
        let mut command = Command::new(daxvisor);
        command.arg("run").args(args).arg("--agent-socket").arg(socket);
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot run {}", daxvisor.display()))?;
        let mut monitor = Monitor { child };
        let alive = || matches!(monitor.child.try_wait(), Ok(None));
        let client = match Client::connect_while(socket, start + BOOT_LIMIT, alive) {
            Ok(client) => client,
            Err(error) => {
                let said = fs::read_to_string(messages).unwrap_or_default();
                let ended = monitor
                    .child
                    .try_wait()?
                    .map_or("it still runs".to_owned(), |s| s.to_string());
                return Err(error)
                    .with_context(|| format!("the guest did not come up; daxvisor ({ended}): {}", said.trim()));
            }
        };
        let boot = start.elapsed();
        if let Some(problem) = client.hello().problems.first() {
            bail!("the guest's agent had a problem: {problem}");
        }
        Ok(Self {
            monitor,
            messages: messages.to_owned(),
            client,
            boot,
        })
    }

    /// `uname -r`.
    pub fn kernel(&self) -> &str {
        &self.client.hello().kernel
    }

    /// Seconds from the kernel's start to the agent, by the guest's clock.
    pub fn uptime(&self) -> Duration {
        Duration::from_micros(self.client.hello().uptime_us)
    }

    /// The agent, for everything that has no method here.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What became of daxvisor, whose channel closed or went quiet.
    pub fn fate(&mut self) -> String {
        let limit = Instant::now() + LAST_WORDS;
        let mut ended = None;
        while ended.is_none() && Instant::now() < limit {
            ended = self.monitor.child.try_wait().ok().flatten();
            thread::sleep(Duration::from_millis(10));
        }
        let ended = ended.map_or("still runs".to_owned(), |status| format!("ended with {status}"));
        let said = fs::read_to_string(&self.messages).unwrap_or_default();
        format!("daxvisor {ended}, and said: {}", said.trim())
    }

    /// Runs a script that has to succeed; gives its standard output.
    pub fn sh(&mut self, script: &str) -> Result<String> {
        let output = self.client.sh_until(script, Instant::now() + COMMAND_LIMIT);
        let output = output.with_context(|| format!("cannot run `{script}` in the guest; {}", self.fate()))?;
        if !output.success() {
            bail!("`{script}` failed in the guest: {output}");
        }
        Ok(output.text())
    }

    /// Asks the guest to reset and waits for the end of daxvisor.
    pub fn reboot(self) -> Result<ExitStatus> {
        let Self { monitor, client, .. } = self;
        client
            .reboot(Instant::now() + END_LIMIT)
            .context("the guest does not reboot")?;
        monitor.end()
    }

    /// Asks the guest to power off and waits for the end of daxvisor.
    pub fn power_off(self) -> Result<ExitStatus> {
        let Self { monitor, client, .. } = self;
        client
            .power_off(Instant::now() + END_LIMIT)
            .context("the guest does not power off")?;
        monitor.end()
    }
}

impl Monitor {
    fn end(mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() >= deadline => bail!("daxvisor did not end within {END_LIMIT:?} of its guest"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// The last lines of a console.
pub fn tail(console: &Path) -> Vec<String> {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}
