//! The API tier: schemathesis, which makes requests of the OpenAPI document, against a Linux guest.
//!
//! ```text
//! schemathesis --TCP--> Proxy --unix socket--> daxvisor run, with a guest (here or in the nested host)
//! ```
//! schemathesis comes from PyPI, in a virtual environment below `target/`, in the one version that is named here.

use super::Tally;
use crate::{host, process, python, workspace};
use anyhow::{Context, Result};
use std::{
    fs, io,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

/// What pip installs.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// Requests made up for each route, beside those that cover its schema.
const EXAMPLES: u32 = 15;
/// For schemathesis and the guest together, in seconds.
const LIMIT: u64 = 1500;
/// The same requests each time.
const SEED: u32 = 1;
/// Routes that end the guest, or never end themselves.
const LEFT_OUT: &str = "^(shutdown|reboot|powerButton|askPowerOff|askReboot|streamEvents)$";
/// A machine may refuse, on its merits, what its document allows.
const CHECKS_LEFT_OUT: &str = "positive_data_acceptance";

/// Runs the tier.
pub fn run(place: host::Place, filter: Option<&str>) -> Result<Tally> {
    let mut tally = Tally::default();
    let name = "schemathesis_runs_clean_against_a_guest";
    if filter.is_some_and(|filter| !name.contains(filter)) {
        return Ok(tally);
    }
    let program = python::programs(&[SCHEMATHESIS])?.join("schemathesis");
    let folder = workspace::scratch("api")?;
    // A backing file that a request names is made where the machine runs.
    let work = folder.join("work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("cannot make folder {}", work.display()))?;
    let mut machine = Machine::start(place, &folder, &work)?;
    let proxy = Proxy::start(&machine.socket)?;
    let mut command = Command::new(program);
    command.current_dir(&work).arg("run");
    command.arg(workspace::root().join("docs/openapi.json"));
    command.args(["--url", &format!("http://127.0.0.1:{}", proxy.port)]);
    command.args(["--checks", "all", "--exclude-checks", CHECKS_LEFT_OUT]);
    command.args(["--exclude-operation-id-regex", LEFT_OUT]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        &EXAMPLES.to_string(),
    ]);
    command.args(["--seed", &SEED.to_string(), "--request-timeout", "90", "--no-color"]);
    let log = folder.join("schemathesis.log");
    let mut copy = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = process::listen(&mut command, &mut copy, |line| println!("{line}"))?;
    let alive = machine.ctl(&["state"]);
    match (status.success(), alive) {
        (true, Ok(())) => tally.passed += 1,
        (false, _) => tally.fail(name, &format!("schemathesis failed ({status}); see {}", log.display())),
        (true, Err(error)) => tally.fail(name, &format!("the machine did not survive: {error:#}")),
    }
    machine.end();
    Ok(tally)
}

/// A machine with a Linux guest; killed when dropped.
struct Machine {
    child: Child,
    socket: PathBuf,
}

impl Machine {
    fn start(place: host::Place, folder: &Path, work: &Path) -> Result<Self> {
        let socket = folder.join("socket");
        let talk = folder.join("machine.log");
        let stderr = fs::File::create(&talk).with_context(|| format!("cannot write {}", talk.display()))?;
        let mut command = Command::new(workspace::daxvisor(false));
        let host = if place == host::Place::Here { "kvm" } else { "nested" };
        command
            .current_dir(work)
            .args(["run", "--host", host, "--console", "none"]);
        command.args(["--kernel", "@debian-6.1-cloud-amd64", "--memory", "512M", "--cpus", "2"]);
        command.args([
            "--nvdimm",
            "size=64M,id=dimm0",
            "--timeout",
            &LIMIT.to_string(),
            "--api-socket",
        ]);
        let child = command
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let child = child.spawn().context("cannot run daxvisor")?;
        let machine = Self { child, socket };
        // The guest has read its NFIT when its kernel is up.
        let wait = ["--connect-timeout", "120", "--timeout", "180", "state"];
        machine
            .ctl(&wait)
            .with_context(|| format!("the machine did not start; see {}", talk.display()))?;
        Ok(machine)
    }

    fn ctl(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(workspace::daxvisor(false));
        command.arg("ctl").arg("--api-socket").arg(&self.socket).args(words);
        process::quiet(&mut command)
    }

    fn end(&mut self) {
        if self.ctl(&["quit"]).is_ok() {
            let _ = self.child.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// TCP connections to this machine alone, carried to a unix socket.
struct Proxy {
    port: u16,
}

impl Proxy {
    fn start(socket: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on a port of this machine")?;
        let port = listener.local_addr().context("a socket without an address")?.port();
        let socket = socket.to_owned();
        let body = move || {
            for client in listener.incoming().flatten() {
                // A machine that is gone is a closed connection.
                if let Ok(machine) = UnixStream::connect(&socket) {
                    let _ = carry(client, machine);
                }
            }
        };
        thread::Builder::new().spawn(body).context("cannot start a thread")?;
        Ok(Self { port })
    }
}

fn carry(client: TcpStream, machine: UnixStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from, mut to) = (client.try_clone()?, machine.try_clone()?);
    thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    })?;
    let (mut from, mut to) = (machine, client);
    thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    })?;
    Ok(())
}
