//! A payload through the binary, as a user would run it.

use super::Program;
use crate::api::ApiClient;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// No payload needs this long, on any KVM; one that does hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// Exit status of the monitor.
    pub code: i32,
    /// What the guest sent.
    pub console: Vec<u8>,
    /// What the monitor said.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// The console's bytes, of a run that ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Vec<u8> {
        assert_eq!(
            self.code,
            code,
            "the monitor said: {}\nthe guest said: {:?}",
            self.stderr,
            String::from_utf8_lossy(&self.console)
        );
        self.console
    }
}

/// A payload guest with its folder.
pub struct Guest {
    dir: TempDir,
    args: Vec<String>,
}

impl Guest {
    /// `program` in a machine of 64 MiB and one vCPU.
    pub fn new(program: &Program) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("payload.elf"), program.elf()).expect("room for the payload");
        Self { dir, args: vec![] }
    }

    /// One more flag; a `%` in its value is the guest's folder.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.args.push(format!("--{name}"));
        self.args.push(value.replace('%', &self.dir.path().to_string_lossy()));
        self
    }

    /// A file in the guest's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it and waits for its word "on"; with a client of the API socket `api` in its folder.
    pub fn up(&self) -> (Running<'_>, ApiClient) {
        let mut running = self.start();
        running.wait_for("on");
        let client = ApiClient::connect(&self.file("api")).expect("an API socket");
        (running, client)
    }

    /// Starts it.
    pub fn start(&self) -> Running<'_> {
        let mut command = Command::new(binary());
        let has = |name: &str| self.args.iter().any(|a| a == name);
        command.args(["run", "--kernel"]).arg(self.file("payload.elf"));
        if !has("--host") {
            command.args(["--host", "kvm"]);
        }
        if !has("--memory") {
            command.args(["--memory", "64M"]);
        }
        if !has("--console") {
            command
                .arg("--console")
                .arg(format!("file:{}", self.file("console").display()));
        }
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(if has("--console") {
                Stdio::piped()
            } else {
                Stdio::null()
            });
        let stderr = fs::File::create(self.file("stderr")).expect("a file for the monitor's talk");
        let child = command
            .stderr(stderr)
            .spawn()
            .expect("the daxvisor binary can be started");
        Running {
            guest: self,
            child,
            since: Instant::now(),
        }
    }

    /// Runs it to its end.
    pub fn run(&self) -> Ended {
        self.start().end()
    }
}

/// A started guest; dropped, it is killed.
pub struct Running<'a> {
    guest: &'a Guest,
    child: Child,
    since: Instant,
}

impl Running<'_> {
    /// Waits until the guest has sent `text`.
    pub fn wait_for(&mut self, text: &str) {
        let sent =
            |console: io::Result<Vec<u8>>| console.is_ok_and(|c| c.windows(text.len()).any(|w| w == text.as_bytes()));
        while !sent(fs::read(self.guest.file("console"))) {
            assert!(self.since.elapsed() < DEADLINE, "the guest did not say {text:?}");
            assert!(
                self.child.try_wait().expect("a child").is_none(),
                "the guest ended and did not say {text:?}: {}",
                fs::read_to_string(self.guest.file("stderr")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the monitor's standard output, which nobody reads, has no room left.
    pub fn wait_for_full_pipe(&mut self) {
        let pipe = self.child.stdout.as_ref().expect("a guest with its console on a pipe");
        // A pipe of 16 pages is full when its last page has been begun, and small writes do not straddle pages.
        let full = || rustix::io::ioctl_fionread(pipe).expect("a pipe") >= 56 << 10;
        while !full() {
            assert!(self.since.elapsed() < DEADLINE, "the pipe does not fill");
            thread::sleep(Duration::from_millis(5));
        }
        // Two ticks of the monitor's loop, which must not get stuck in the pipe either.
        thread::sleep(Duration::from_millis(120));
    }

    /// Reads the monitor's standard output to its end.
    pub fn read_pipe(&mut self) -> Vec<u8> {
        let mut bytes = vec![];
        let mut pipe = self.child.stdout.take().expect("a guest with its console on a pipe");
        pipe.read_to_end(&mut bytes).expect("a pipe");
        bytes
    }

    /// Reads so much of the monitor's standard output.
    pub fn read_some(&mut self, bytes: usize) {
        let pipe = self.child.stdout.as_mut().expect("a guest with its console on a pipe");
        pipe.read_exact(&mut vec![0; bytes]).expect("a guest that sends enough");
    }

    /// Process id of the monitor.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the monitor a signal.
    pub fn signal(&self, number: i32) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        let signal = Signal::from_named_raw(number).expect("a signal's number");
        kill_process(pid, signal).expect("a process of ours");
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(
                self.since.elapsed() < DEADLINE,
                "the guest runs for more than {DEADLINE:?}"
            );
            thread::sleep(Duration::from_millis(2));
        };
        let stderr = fs::read_to_string(self.guest.file("stderr")).unwrap_or_default();
        Ended {
            code: status
                .code()
                .unwrap_or_else(|| panic!("the monitor died: {status}: {stderr}")),
            console: fs::read(self.guest.file("console")).unwrap_or_default(),
            stderr,
            took: self.since.elapsed(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("DAXVISOR_BIN") {
        return path.into();
    }
    // target/PROFILE/deps/THIS: the binary is one folder up.
    let this = env::current_exe().expect("the test's own path");
    let path = this
        .parent()
        .and_then(Path::parent)
        .expect("a target folder")
        .join("daxvisor");
    assert!(
        path.exists(),
        "{} is not there; hint: run `cargo build -p vmm`, or set DAXVISOR_BIN",
        path.display()
    );
    path
}
