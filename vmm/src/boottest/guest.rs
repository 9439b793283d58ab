//! One guest of one case: a child `daxvisor run`, its console as it comes, its agent. The thin shell around the pure parts.
//!
//! ```text
//! Guest::start --hello--> up --do_step*--> up --finish--> gone
//!      |                   |                            ^
//!      +------Trouble------+-----------drop: killed-----+
//! ```
//! Every wait ends: at its deadline, when the machine ends, when the kernel dies, when the disk is full, when the user stops.

use super::{
    console::{Forbidden, Severity},
    expect::{self, End, Got},
    steps::{Action, ReadyStep},
    verdict::Trouble,
};
use agent_protocol::{
    Exec, ExitStatus, FromAgent, ToAgent,
    client::{Client, ClientError},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often everything but the agent is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A kernel that has died may still say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A machine that ends closes the agent's channel a little before.
const ENDING: Duration = Duration::from_secs(10);
/// From the agent's order to the machine's end.
const POWER_OFF: Duration = Duration::from_secs(40);
/// Between two tries of a step that is done `until` its expectation holds.
const AGAIN: Duration = Duration::from_millis(200);
/// What a guest may say: lines, and bytes of each, and bytes of one command's output.
const MOST_LINES: usize = 200_000;
const LONGEST_LINE: usize = 4096;
const MOST_OUTPUT: usize = 16 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The console as it comes.
#[derive(Debug)]
pub struct Console {
    lines: Mutex<Vec<String>>,
    crashed: Mutex<Option<Instant>>,
    failed: Mutex<Option<String>>,
    ended: AtomicBool,
    forbidden: Forbidden,
}

impl Console {
    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    fn line(&self, log: &mut File, begun: Instant, bytes: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes);
        let text: String = text
            .trim_end()
            .chars()
            .filter(|c| !c.is_control() || *c == '\t')
            .take(LONGEST_LINE)
            .collect();
        let mut lines = lock(&self.lines);
        if lines.len() >= MOST_LINES {
            return Ok(());
        }
        if matches!(self.forbidden.matching(&text), Some((_, Severity::Crash))) {
            lock(&self.crashed).get_or_insert_with(Instant::now);
        }
        let at = begun.elapsed().as_secs_f64();
        let written = writeln!(log, "{at:10.3} {text}");
        lines.push(text);
        written
    }

    /// Takes the guest's output until it ends; what cannot be written is remembered once.
    fn read(&self, from: ChildStdout, mut log: File, begun: Instant) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A guest may never end its line.
            let mut limited = io::Read::take(&mut from, (LONGEST_LINE * 4) as u64);
            match limited.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    if let Err(e) = self.line(&mut log, begun, &line) {
                        lock(&self.failed).get_or_insert(format!("cannot write console.log: {e}"));
                    }
                }
            }
        }
        self.ended.store(true, Ordering::SeqCst);
    }
}

/// How the child is started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// This program.
    pub program: &'a Path,
    /// The machine's file.
    pub config: &'a Path,
    /// Folder of logs.
    pub folder: &'a Path,
    /// Private folder with a short path, for sockets.
    pub sockets: &'a Path,
    /// The machine's own end, behind all deadlines of ours.
    pub limit: Duration,
}

/// A machine that was started.
pub struct Guest<'a> {
    child: Child,
    client: Option<Client>,
    console: Arc<Console>,
    reader: Option<thread::JoinHandle<()>>,
    events: Option<thread::JoinHandle<()>>,
    stop: &'a AtomicBool,
    deadline: Instant,
    begun: Instant,
    api: PathBuf,
    vmm_log: PathBuf,
}

impl<'a> Guest<'a> {
    /// Starts the machine.
    pub fn start(
        launch: &Launch<'_>,
        forbidden: Forbidden,
        deadline: Duration,
        stop: &'a AtomicBool,
    ) -> Result<Self, Trouble> {
        let begun = Instant::now();
        let broken = |what: &str, e: io::Error| Trouble::Broken(format!("cannot {what}: {e}"));
        let vmm_log = launch.folder.join("vmm.log");
        let log = File::create(&vmm_log).map_err(|e| broken("write vmm.log", e))?;
        let console_log =
            File::create(launch.folder.join("console.log")).map_err(|e| broken("write console.log", e))?;
        let api = launch.sockets.join("api");
        let mut command = Command::new(launch.program);
        command
            .args([
                "--log",
                "info",
                "run",
                "--host",
                "kvm",
                "--console",
                "stdio",
                "--config",
            ])
            .arg(launch.config);
        command.arg("--agent-socket").arg(launch.sockets.join("agent"));
        command.arg("--api-socket").arg(&api);
        command.args(["--timeout", &launch.limit.as_secs().max(1).to_string()]);
        command.args(["--parent", &std::process::id().to_string()]);
        // Keys of the terminal are for the runner.
        command.process_group(0);
        command.env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|e| broken("start daxvisor", e))?;
        let console = Arc::new(Console {
            lines: Mutex::default(),
            crashed: Mutex::default(),
            failed: Mutex::default(),
            ended: AtomicBool::new(false),
            forbidden,
        });
        let reader = child.stdout.take().map(|from| {
            let console = Arc::clone(&console);
            thread::Builder::new()
                .name("console".into())
                .spawn(move || console.read(from, console_log, begun))
        });
        let mut guest = Self {
            child,
            client: None,
            console,
            reader: None,
            events: None,
            stop,
            deadline: begun + deadline,
            begun,
            api,
            vmm_log,
        };
        // From here on a failure drops the guest, which kills the child.
        guest.reader = reader.transpose().map_err(|e| broken("start a thread", e))?;
        let events = File::create(launch.folder.join("events.jsonl")).map_err(|e| broken("write events.jsonl", e))?;
        let (socket, failed) = (guest.api.clone(), Arc::clone(&guest.console));
        let follow = move || {
            if let Err(e) = super::host::follow(&socket, events, ENDING) {
                lock(&failed.failed).get_or_insert(format!("cannot write events.jsonl: {e}"));
            }
        };
        let thread = thread::Builder::new().name("events".into()).spawn(follow);
        guest.events = Some(thread.map_err(|e| broken("start a thread", e))?);
        Ok(guest)
    }

    /// Waits for the agent; gives the kernel's release and the guest's own time.
    pub fn hello(&mut self, socket: &Path, within: Duration) -> Result<(String, Duration), Trouble> {
        let deadline = self.deadline.min(self.begun + within);
        let stream = loop {
            match std::os::unix::net::UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) => {
                    self.look(deadline, "the agent's socket")?;
                    thread::sleep(LOOK / 10);
                }
            }
        };
        // The agent answers one greeting when it comes up. Only then is it greeted in earnest: that wait looks at nothing else.
        let broken = |e: &dyn std::fmt::Display| Trouble::Broken(format!("cannot talk to the agent: {e}"));
        if agent_protocol::send(&stream, &ToAgent::Hello).is_err() {
            return Err(self.gone("the agent's hello"));
        }
        let look = Timespec::try_from(LOOK).map_err(|e| broken(&e))?;
        loop {
            self.look(deadline, "the agent's hello")?;
            let mut fds = [PollFd::new(&stream, PollFlags::IN)];
            if poll(&mut fds, Some(&look)).is_ok_and(|ready| ready > 0) {
                break;
            }
        }
        let client = match Client::greet(stream, deadline.min(Instant::now() + ENDING)) {
            Ok(client) => Some(client),
            Err(e @ ClientError::Version(_)) => return Err(broken(&e)),
            Err(ClientError::Deadline(_)) => {
                return Err(Trouble::Late("the agent does not finish its hello".to_owned()));
            }
            Err(_) => return Err(self.gone("the agent's hello")),
        };
        let hello = client.as_ref().map(|c| c.hello().clone());
        self.client = client;
        let hello = hello.ok_or_else(|| Trouble::Broken("there is no agent".to_owned()))?;
        Ok((hello.kernel, Duration::from_micros(hello.uptime_us)))
    }

    /// What may end a wait for `what`, looked at once.
    fn look(&mut self, deadline: Instant, what: &str) -> Result<(), Trouble> {
        if self.stop.load(Ordering::SeqCst) {
            return Err(Trouble::Interrupted);
        }
        if let Some(why) = lock(&self.console.failed).clone() {
            return Err(Trouble::Broken(why));
        }
        if lock(&self.console.crashed).is_some_and(|at| at.elapsed() > LAST_WORDS) {
            return Err(Trouble::Failed(format!("the kernel died before {what}")));
        }
        if let Ok(Some(_)) = self.child.try_wait() {
            return Err(self.gone(what));
        }
        if Instant::now() >= deadline {
            let at = self.begun.elapsed().as_secs_f64();
            return Err(Trouble::Late(format!(
                "{what} was not there in time, {at:.1} s after the machine's start"
            )));
        }
        Ok(())
    }

    /// The machine has ended, or is about to.
    fn gone(&mut self, what: &str) -> Trouble {
        match self.end_code(ENDING) {
            Some(code) => self.ended(code),
            None => Trouble::Failed(format!(
                "the agent's channel closed before {what}, and the machine runs on"
            )),
        }
    }

    fn ended(&self, code: i32) -> Trouble {
        // What daxvisor says of a machine that it cannot build, or of its host.
        let refused = matches!(code, 1 | 2 | 125);
        let said = fs::read_to_string(&self.vmm_log).unwrap_or_default();
        let error = said.lines().find(|l| l.contains("error: ")).filter(|_| refused);
        match error {
            Some(line) => Trouble::Broken(format!("daxvisor ended with exit code {code}: {line}")),
            None => Trouble::Gone(code),
        }
    }

    /// Waits for the child's end and for the rest of its console.
    fn end_code(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                _ if Instant::now() >= deadline => return None,
                _ => thread::sleep(LOOK / 10),
            }
        };
        while !self.console.ended.load(Ordering::SeqCst) && Instant::now() < deadline {
            thread::sleep(LOOK / 10);
        }
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Runs a command of the guest to its end.
    pub fn exec(&mut self, argv: &[&str], within: Duration) -> Result<Got, Trouble> {
        let deadline = self.deadline.min(Instant::now() + within);
        let what = format!("the end of `{}`", first_line(argv.last().copied().unwrap_or_default()));
        let Some(client) = self.client.as_mut() else {
            return Err(Trouble::Broken("there is no agent".to_owned()));
        };
        let ours = client.new_id();
        let exec = Exec {
            id: ours,
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            ..Exec::default()
        };
        if client.send(&ToAgent::Exec(exec)).is_err() {
            return Err(self.gone(&what));
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let keep =
            |to: &mut Vec<u8>, data: Vec<u8>| to.extend(data.into_iter().take(MOST_OUTPUT.saturating_sub(to.len())));
        let status = loop {
            let Some(client) = self.client.as_mut() else {
                return Err(Trouble::Broken("there is no agent".to_owned()));
            };
            match client.next(deadline.min(Instant::now() + LOOK)) {
                Ok(Some(FromAgent::Stdout { id, data })) if id == ours => keep(&mut stdout, data),
                Ok(Some(FromAgent::Stderr { id, data })) if id == ours => keep(&mut stderr, data),
                Ok(Some(FromAgent::Exited { id, status })) if id == ours => break status,
                Ok(Some(FromAgent::Failed { id, error })) if id == ours => {
                    return Err(Trouble::Failed(format!("cannot run `{}`: {error}", argv.join(" "))));
                }
                Ok(Some(_)) => {}
                Err(ClientError::Deadline(_)) => {
                    if let Err(trouble) = self.look(deadline, &what) {
                        if let (Trouble::Late(_), Some(client)) = (&trouble, self.client.as_mut()) {
                            const SIGKILL: i32 = 9;
                            let _ = client.send(&ToAgent::Signal {
                                id: ours,
                                signal: SIGKILL,
                            });
                        }
                        return Err(trouble);
                    }
                }
                Ok(None) | Err(_) => return Err(self.gone(&what)),
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Got {
            end: End::Exit(status),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }

    /// Does a step; gives what came of it when its expectation held.
    pub fn do_step(&mut self, step: &ReadyStep) -> Result<Got, Trouble> {
        let begun = Instant::now();
        loop {
            let left = step.deadline.saturating_sub(begun.elapsed());
            let got = self.act(&step.action, left)?;
            let Err(why) = expect::check(&step.expect, &got) else {
                return Ok(got);
            };
            let over = begun.elapsed() + AGAIN >= step.deadline;
            if !step.until {
                return Err(Trouble::Failed(format!("{}: {why}", step.name)));
            }
            if over {
                let limit = step.deadline.as_secs_f64();
                return Err(Trouble::Late(format!("{}: not within {limit} s: {why}", step.name)));
            }
            self.look(self.deadline, "the expectation")?;
            thread::sleep(AGAIN);
        }
    }

    fn act(&mut self, action: &Action, within: Duration) -> Result<Got, Trouble> {
        let done = |stdout: String| Got {
            end: End::Done,
            stdout,
            stderr: String::new(),
        };
        let refused = |stderr: String| Got {
            end: End::Refused,
            stdout: String::new(),
            stderr,
        };
        match action {
            Action::Run(script) => self.exec(&["sh", "-c", script], within),
            Action::File(path) => {
                let got = self.exec(&["cat", path], within)?;
                Ok(match got.end {
                    End::Exit(ExitStatus::Code(0)) => Got { end: End::Done, ..got },
                    _ => refused(format!("cannot read {path}: {}", got.stderr.trim())),
                })
            }
            Action::Console(pattern) => {
                let deadline = self.deadline.min(Instant::now() + within);
                loop {
                    if let Some(line) = lock(&self.console.lines).iter().find(|l| pattern.is_match(l)) {
                        return Ok(done(line.clone()));
                    }
                    self.look(deadline, &format!("a line of the console that matches '{pattern}'"))?;
                    thread::sleep(LOOK / 2);
                }
            }
            Action::Host(request) => Ok(super::host::call(&self.api, request, within).map_or_else(refused, done)),
            Action::Push { to, from, mode } => {
                let data = match from {
                    Ok(path) => {
                        fs::read(path).map_err(|e| Trouble::Broken(format!("cannot read {}: {e}", path.display())))?
                    }
                    Err(content) => content.clone().into_bytes(),
                };
                let Some(client) = self.client.as_mut() else {
                    return Err(Trouble::Broken("there is no agent".to_owned()));
                };
                match client.put_file(to, *mode, &data) {
                    Ok(()) => Ok(done(String::new())),
                    Err(ClientError::Refused(why)) => Ok(refused(format!("cannot write {to}: {why}"))),
                    Err(_) => Err(self.gone(&format!("writing {to}"))),
                }
            }
        }
    }

    /// The kernel's log, as far as it can be had.
    pub fn dmesg(&mut self) -> Option<String> {
        const LIMIT: Duration = Duration::from_secs(20);
        if lock(&self.console.crashed).is_some() || self.client.is_none() {
            return None;
        }
        self.exec(&["dmesg"], LIMIT).ok().map(|got| got.stdout)
    }

    /// Turns the guest off.
    pub fn power_off(&mut self) -> Result<(), Trouble> {
        if let Some(client) = self.client.take() {
            let deadline = self.deadline.min(Instant::now() + POWER_OFF);
            if let Err(ClientError::Deadline(_)) = client.power_off(deadline) {
                return Err(Trouble::Late("the guest did not power off".to_owned()));
            }
        }
        match self.end_code(ENDING) {
            Some(0) => Ok(()),
            Some(code) => Err(self.ended(code)),
            None => Err(Trouble::Late("the machine did not end".to_owned())),
        }
    }

    /// Ends the machine whatever it does, and gives the console.
    pub fn end(mut self) -> Vec<String> {
        self.kill();
        self.console.lines()
    }

    /// Why a file of the case could not be written, if one could not.
    pub fn disk_trouble(&self) -> Option<String> {
        lock(&self.console.failed).clone()
    }

    fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It removes its sockets when it is asked to end.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&self.child),
                rustix::process::Signal::TERM,
            );
            if self.end_code(ENDING / 2).is_none() {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        // The stream has ended with the machine; a socket that never was is still looked for.
        let soon = Instant::now() + LAST_WORDS;
        while self.events.as_ref().is_some_and(|events| !events.is_finished()) && Instant::now() < soon {
            thread::sleep(LOOK / 10);
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

fn first_line(script: &str) -> String {
    let line = script
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or_default();
    line.chars().take(80).collect()
}
