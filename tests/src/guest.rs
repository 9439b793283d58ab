//! A guest under daxvisor with its agent.

use crate::{
    Ended, Scratch, facts,
    host::{self, Mark},
    process::{CONSOLE, Monitor},
};
use agent_protocol::client::{Client, ClientError, Output};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// From the monitor's start to the agent's hello. Nested and shared hosts are slow: 6 to 13 s is usual there, ten times that
/// with more vCPUs than a busy host has processors.
const HELLO: Duration = Duration::from_secs(180);
/// From the agent's order to the monitor's end.
const END: Duration = Duration::from_secs(40);
/// The last that Linux says before it resets the machine, which may come after its agent has gone.
const GOODBYE: &str = "reboot: ";
/// What Xen says when its check of the timer fails, before it resets the machine.
pub const NO_TICKS: &str = "IO-APIC + timer doesn't work";
/// Exit code of a monitor whose guest triple-faulted.
const TRIPLE_FAULT: i32 = 5;
/// A monitor that only refuses or plans.
const SHORT: Duration = Duration::from_secs(30);
/// The monitor's own end of the run: a guest that a killed test left behind does not stay.
const RUN: Duration = Duration::from_secs(600);

/// The `daxvisor` program under test: `$DAXVISOR_BIN`, else the one that was built with this test program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = env::var_os("DAXVISOR_BIN") {
        return Ok(path.into());
    }
    let me = env::current_exe().context("cannot tell where this test program is")?;
    // target/PROFILE/deps/TEST
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join("daxvisor"));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("there is no daxvisor beside {}; hint: set DAXVISOR_BIN", me.display()))
}

/// What to boot.
#[derive(Debug, Clone)]
pub struct GuestBuilder {
    kernel: String,
    machine: Vec<String>,
    cmdline: Vec<String>,
    run: Vec<String>,
    hello: Duration,
    agent: bool,
    console: Option<String>,
}

impl GuestBuilder {
    /// A guest image's kernel, or a path.
    pub fn new(kernel: &str) -> Self {
        let path = kernel.starts_with('/');
        Self {
            kernel: if path { kernel.to_owned() } else { format!("@{kernel}") },
            machine: vec![],
            // The log costs half of a nested guest's boot.
            cmdline: vec!["quiet".into()],
            run: vec!["--timeout".into(), RUN.as_secs().to_string()],
            hello: HELLO,
            agent: true,
            console: None,
        }
    }

    /// A flag of the machine with its value.
    pub fn arg(mut self, flag: &str, value: &str) -> Self {
        self.machine.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// `--cpus`.
    pub fn cpus(self, value: &str) -> Self {
        self.arg("--cpus", value)
    }

    /// `--memory`.
    pub fn memory(self, value: &str) -> Self {
        self.arg("--memory", value)
    }

    /// One more `--nvdimm`.
    pub fn nvdimm(self, value: &str) -> Self {
        self.arg("--nvdimm", value)
    }

    /// More kernel parameters.
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline.push(words.to_owned());
        self
    }

    /// The whole kernel log on the console.
    pub fn loud(mut self) -> Self {
        self.cmdline.retain(|w| w != "quiet");
        self
    }

    /// `--timeout` of the monitor.
    pub fn timeout(mut self, seconds: u64) -> Self {
        self.run = vec!["--timeout".into(), seconds.to_string()];
        self
    }

    /// How long the agent may take to say hello.
    pub fn hello_within(mut self, limit: Duration) -> Self {
        self.hello = limit;
        self
    }

    /// Another `--console` than a file in the guest's folder.
    pub fn console(mut self, value: &str) -> Self {
        self.console = Some(value.to_owned());
        self
    }

    /// No agent channel: [`GuestBuilder::launch`] only.
    pub fn without_agent(mut self) -> Self {
        self.agent = false;
        self
    }

    fn machine_args(&self, folder: &Path) -> Vec<String> {
        let mut args = vec!["--kernel".to_owned(), self.kernel.clone()];
        args.extend(self.machine.iter().cloned());
        if !self.cmdline.is_empty() {
            args.extend(["--cmdline".to_owned(), self.cmdline.join(" ")]);
        }
        let file = || format!("file:{}", folder.join(CONSOLE).display());
        args.extend(["--console".to_owned(), self.console.clone().unwrap_or_else(file)]);
        if self.agent {
            args.extend(["--agent-socket".to_owned(), socket(folder).display().to_string()]);
        }
        args
    }

    /// The command that runs this guest, with its files in `folder`.
    pub fn command(&self, folder: &Path) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.args(["run", "--host", "kvm"]).args(&self.run);
        command.args(self.machine_args(folder));
        Ok(command)
    }

    /// What `--dry-run --json` says of this guest.
    pub fn dry_run(&self) -> Result<Value> {
        let folder = Scratch::new("plan")?;
        let mut command = self.command(folder.path())?;
        command.args(["--dry-run", "--json"]);
        let ended = Monitor::start(command, folder, false)?.wait(SHORT)?;
        ensure!(ended.code == 0, "--dry-run: exit code {}: {}", ended.code, ended.stderr);
        Ok(serde_json::from_str(&ended.stdout)?)
    }

    /// Writes the tables of this guest with `daxvisor acpi dump`.
    pub fn acpi_dump(&self, to: &Path) -> Result<()> {
        let folder = Scratch::new("dump")?;
        let mut command = Command::new(program()?);
        command
            .args(["acpi", "dump"])
            .arg(to)
            .args(self.machine_args(folder.path()));
        let ended = Monitor::start(command, folder, false)?.wait(SHORT)?;
        ensure!(ended.code == 0, "acpi dump: exit code {}: {}", ended.code, ended.stderr);
        Ok(())
    }

    /// Starts the monitor and does not wait for the guest.
    pub fn launch(&self) -> Result<Monitor> {
        host::require()?;
        let folder = Scratch::new("guest")?;
        let command = self.command(folder.path())?;
        Monitor::start(command, folder, false)
    }

    /// Runs a monitor that is to end by itself at once, as after a bad flag.
    pub fn refused(&self) -> Result<Ended> {
        self.launch()?.wait(SHORT)
    }

    /// Boots to the agent's hello; twice at most, as [`patiently`] has it.
    pub fn start(&self) -> Result<Guest> {
        patiently(|| self.start_once())
    }

    /// Boots once, in tests that are done patiently as a whole.
    pub fn start_once(&self) -> Result<Guest> {
        Guest::boot(self.launch()?, &self.kernel, self.hello)
    }
}

/// Does once more what lost a boot that the host may have broken, and reports it: `cargo xtask test` counts retries, and has a
/// limit to them.
pub fn patiently<T>(mut what: impl FnMut() -> Result<T>) -> Result<T> {
    let mark = Mark::now();
    let error = match what() {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let Some(lost) = error.downcast_ref::<Lost>() else {
        return Err(error);
    };
    let Some(cause) = mark.trouble().or_else(|| lost.cause()) else {
        return Err(error);
    };
    host::report_retry(&format!("{} never said hello", lost.name), &cause);
    what()
}

/// Where a guest's agent is reached.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

/// A guest that hung or triple-faulted before its hello.
#[derive(Debug)]
pub struct Lost {
    /// Its kernel.
    name: String,
    text: String,
    /// The kernel wrote nothing either: it got no further than its first instructions, or stands with interrupts off.
    silent: bool,
    /// It was Xen, whose check of the timer failed: ten ticks are to come within a tenth of a second.
    no_ticks: bool,
}

impl Lost {
    /// What of an emulated host can be the cause. An emulated machine loses a guest now and then before the kernel's first
    /// line, and no sign tells it from a fault of ours: it is a guess, and retries are few. A guest that said anything at all has
    /// to explain itself.
    fn cause(&self) -> Option<String> {
        if !host::is_emulated() {
            return None;
        }
        let first = self.text.lines().next().unwrap_or_default();
        match (self.silent, self.no_ticks) {
            (true, _) => Some(format!("lost without a word in an emulated host: {first}")),
            (false, true) => Some(format!(
                "the emulated host was too slow for Xen's check of the timer: {first}"
            )),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Lost {}

/// A running guest with its agent.
#[derive(Debug)]
pub struct Guest {
    client: Client,
    /// The monitor; the client goes first.
    monitor: Monitor,
    name: String,
}

impl Guest {
    /// Memory of the monitor that is there, in bytes, that of the guest included.
    pub fn resident(&self) -> Result<u64> {
        let pid = u64::try_from(self.monitor.pid().as_raw_nonzero().get())?;
        facts::resident(pid, "VmRSS")
    }

    /// Waits until the guest of a monitor says hello.
    pub fn boot(mut monitor: Monitor, name: &str, limit: Duration) -> Result<Self> {
        let path = socket(monitor.folder().path());
        let begun = Instant::now();
        let before = monitor.folder().size(CONSOLE);
        let client = Client::connect_while(&path, begun + limit, || monitor.is_running());
        match client {
            Ok(client) => Ok(Self {
                client,
                monitor,
                name: name.to_owned(),
            }),
            Err(e) => {
                let hung = monitor.is_running() && matches!(e, ClientError::Deadline(_));
                let text = format!(
                    "{name} did not say hello in {:.1} s: {e}{}",
                    begun.elapsed().as_secs_f32(),
                    monitor.quote()
                );
                // The quote has waited for the end of a monitor that is going.
                let said = monitor.folder().text_after(CONSOLE, before);
                let no_ticks = said.contains(NO_TICKS);
                if hung || no_ticks || monitor.exit_code() == Some(TRIPLE_FAULT) {
                    let silent = said
                        .lines()
                        .all(|line| line.trim().is_empty() || line.contains(GOODBYE));
                    let name = name.to_owned();
                    Err(Lost {
                        name,
                        text,
                        silent,
                        no_ticks,
                    }
                    .into())
                } else {
                    Err(anyhow!(text))
                }
            }
        }
    }

    /// Adds what guest and monitor said to a failure.
    fn explain<T>(&mut self, done: Result<T, ClientError>) -> Result<T> {
        done.map_err(|e| anyhow!("{}: {e}{}", self.name, self.monitor.quote()))
    }

    /// The agent, for everything that has no method here.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The monitor's process and files.
    pub fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// Runs a script that may fail.
    pub fn sh(&mut self, script: &str) -> Result<Output> {
        let done = self.client.sh(script);
        self.explain(done)
    }

    /// Runs a script that has to succeed; gives its standard output without the last line's end.
    pub fn check(&mut self, script: &str) -> Result<String> {
        let done = self.client.check(script);
        Ok(self.explain(done)?.trim_end().to_owned())
    }

    /// Runs a script that has to fail; gives all it said.
    pub fn fails(&mut self, script: &str) -> Result<String> {
        let output = self.sh(script)?;
        if output.success() {
            bail!("`{script}` should have failed: {output}{}", self.monitor.quote());
        }
        Ok(output.to_string())
    }

    /// Runs a script whose standard output is JSON; no output is an empty list, as ndctl has it.
    pub fn json(&mut self, script: &str) -> Result<Value> {
        let text = self.check(script)?;
        if text.is_empty() {
            return Ok(Value::Array(vec![]));
        }
        serde_json::from_str(&text).with_context(|| format!("`{script}` is no JSON: {text}"))
    }

    /// Reads a file of the guest.
    pub fn file(&mut self, path: &str) -> Result<Vec<u8>> {
        let done = self.client.get_file(path);
        self.explain(done)
    }

    /// Makes sure that a region whose labels have namespaces has a free one for `ndctl create-namespace`.
    ///
    /// Linux (all of 6.x) registers a region's namespaces in the background and notes the first of them as the seed only then
    /// (`nd_region_register_namespaces`); the next seed is made when the seed's driver takes it. When the driver was quicker
    /// than the note, which happens in about a third of all starts here, no seed is left: `ndctl create-namespace` finds none
    /// idle and says "No space left on device" for as long as the region stays as it is. Taking the driver off the seed and
    /// giving it back makes the next one.
    pub fn free_seed(&mut self, region: usize) -> Result<()> {
        let seed = format!("cat ndbus*/wait_probe > /dev/null; seed=$(cat region{region}/namespace_seed)");
        let script = format!(
            "cd /sys/bus/nd/devices; {seed}; [ -e $seed/driver ] || exit 0; \
             ndctl disable-namespace $seed && ndctl enable-namespace $seed || exit 1; {seed}; \
             [ -n \"$seed\" ] && [ ! -e $seed/driver ]"
        );
        self.check(&script)
            .with_context(|| format!("region{region} has no seed"))
            .map(drop)
    }

    /// Turns the guest off; the monitor has to end with 0.
    pub fn power_off(self) -> Result<Ended> {
        self.end(0, |client| client.power_off(Instant::now() + END))
    }

    /// Resets the guest; the monitor has to end with 3.
    pub fn reboot(self) -> Result<Ended> {
        self.end(3, |client| client.reboot(Instant::now() + END))
    }

    /// Reboots a guest whose monitor has `--on-reset restart`; gives it when its agent is there again.
    pub fn rebooted(self) -> Result<Self> {
        let Self {
            client,
            mut monitor,
            name,
        } = self;
        let gone = client.reboot(Instant::now() + END);
        gone.map_err(|e| anyhow!("{name}: {e}{}", monitor.quote()))?;
        Self::boot(monitor, &name, HELLO)
    }

    /// A guest that is being reset, when its agent is there again.
    pub fn again(mut self) -> Result<Self> {
        let begun = Instant::now();
        while self.client.sh("true").is_ok() {
            ensure!(begun.elapsed() < END, "{} goes on: it was not reset", self.name);
        }
        let Self {
            client, monitor, name, ..
        } = self;
        drop(client);
        Self::boot(monitor, &name, HELLO)
    }

    /// Ends a guest of QEMU, whose `-no-reboot` makes every end 0.
    pub fn end(self, code: i32, how: impl FnOnce(Client) -> Result<(), ClientError>) -> Result<Ended> {
        let Self {
            client,
            mut monitor,
            name,
        } = self;
        how(client).map_err(|e| anyhow!("{name}: {e}{}", monitor.quote()))?;
        let ended = monitor.wait(END)?;
        if ended.code != code {
            bail!("{name}: exit code {}, expected {code}{}", ended.code, monitor.quote());
        }
        Ok(ended)
    }

    /// Waits for an end that is under way.
    pub fn wait(self) -> Result<Ended> {
        let Self {
            client, mut monitor, ..
        } = self;
        let ended = monitor.wait(END);
        drop(client);
        ended
    }

    /// Signals the monitor and waits for its end.
    pub fn signal(mut self, signal: Signal) -> Result<Ended> {
        self.monitor.signal(signal)?;
        self.wait()
    }
}
