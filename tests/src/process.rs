//! A monitor as a process: its folder, its logs, its end.

use crate::{Scratch, host::Mark};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Lines of a log that a failure quotes.
const QUOTE: usize = 40;
/// The guest's serial log in the monitor's folder.
pub const CONSOLE: &str = "console.log";
/// The monitor's standard output.
pub const STDOUT: &str = "stdout.log";
/// The monitor's standard error.
pub const STDERR: &str = "stderr.log";

/// How a monitor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; 128 + the signal's number for one that was killed.
    pub code: i32,
    /// Signal that killed it.
    pub killed: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// What the guest wrote to its serial console.
    pub console: String,
}

/// A running monitor. Killed and reaped when it goes; quotes its logs when that is because a test panicked.
#[derive(Debug)]
pub struct Monitor {
    folder: Scratch,
    child: Child,
    ended: Option<ExitStatus>,
    since: Mark,
}

impl Monitor {
    /// Starts `command` with its output in the folder; standard input is empty unless the caller set it.
    pub fn start(mut command: Command, folder: Scratch, own_terminal: bool) -> Result<Self> {
        if !own_terminal {
            let log = |name| File::create(folder.join(name)).with_context(|| format!("cannot write {name}"));
            command.stdin(Stdio::null()).stdout(log(STDOUT)?).stderr(log(STDERR)?);
        }
        let since = Mark::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self {
            folder,
            child,
            ended: None,
            since,
        })
    }

    /// Its folder.
    pub fn folder(&self) -> &Scratch {
        &self.folder
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, unless it has been reaped.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.is_running() {
            kill_process(self.pid(), signal)?;
        }
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Its exit code, if it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.is_running();
        self.ended?.code()
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<Ended> {
        let deadline = Instant::now() + timeout;
        while self.is_running() {
            if Instant::now() >= deadline {
                bail!("the monitor did not end within {} s{}", timeout.as_secs(), self.quote());
            }
            thread::sleep(LOOK);
        }
        let status = self.ended.context("the monitor was not started")?;
        let text = |name| fs::read(self.folder.join(name)).unwrap_or_default();
        let text = |name| String::from_utf8_lossy(&text(name)).into_owned();
        Ok(Ended {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            killed: status.signal(),
            stdout: text(STDOUT),
            stderr: text(STDERR),
            console: text(CONSOLE),
        })
    }

    /// What console and monitor said last, and what became of it, for the end of a failure's text. The folder stays from now on.
    pub fn quote(&mut self) -> String {
        self.folder.keep();
        let state = self.state();
        let remarks = self.since.remarks();
        let host = if remarks.is_empty() {
            "nothing"
        } else {
            &remarks.join("\n")
        };
        let console = self.folder.tail(CONSOLE, QUOTE);
        let stderr = self.folder.tail(STDERR, QUOTE);
        format!(
            "\n--- the monitor {state}\n--- its last words\n{stderr}\n--- the console's last lines\n{console}\n\
             --- the host's kernel said meanwhile: {host}\n--- logs stay in {}",
            self.folder.path().display()
        )
    }
}

/// How long a monitor whose channel closed may take to be gone.
const GOING: Duration = Duration::from_secs(2);

impl Monitor {
    /// How it ended; while it has not, what each of its threads waits for in the host's kernel.
    fn state(&mut self) -> String {
        let limit = Instant::now() + GOING;
        while self.is_running() && Instant::now() < limit {
            thread::sleep(LOOK);
        }
        match self.ended {
            Some(status) => format!("ended: {status}"),
            None => format!("runs:{}", threads(self.child.id())),
        }
    }
}

/// Name, state and kernel stack of each thread of a process.
fn threads(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let of = |task: fs::DirEntry| {
        let text = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let status = text("status");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(name))
                .unwrap_or("?")
                .trim()
                .to_owned()
        };
        let (name, state) = (field("Name:"), field("State:"));
        let (call, stack) = (text("syscall"), text("stack"));
        format!("\n{name}: {state}, system call {}\n{}", call.trim(), stack.trim_end())
    };
    tasks.map(of).collect()
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if thread::panicking() {
            let quote = self.quote();
            let _ = writeln!(io::stderr().lock(), "{quote}");
        }
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
