//! The nested host against a fake QEMU: a script that stays (or does not), and a peer that speaks the agent's protocol.

mod failures;

use super::{
    HostError, HostOptions, Outcome, RunOptions,
    host::{Event, Host},
    run::{Offer, run_with},
};
use crate::{
    images::{HostImage, QemuImage},
    machine::socket::Socket,
};
use agent_protocol::{Exec, ExitStatus, FromAgent, Hello, ToAgent, VERSION, receive, send};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;

struct Fake {
    dir: TempDir,
}

impl Fake {
    /// A QEMU that notes its process and arguments and then does `rest`.
    fn new(rest: &str) -> Self {
        let fake = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let at = fake.dir.path().display();
        let script = format!(
            "#!/bin/sh\necho $$ >> {at}/pids\nprintf '%s\\n' \"$@\" > {at}/args.new\nmv {at}/args.new {at}/args\n{rest}\n"
        );
        // Written by a child, so that no other test's fork holds it open for writing while we execute it.
        let write = ["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""];
        let done = Command::new("sh")
            .args(write)
            .arg(fake.program())
            .arg(script)
            .status()
            .unwrap();
        assert!(done.success());
        fake
    }

    fn staying() -> Self {
        Self::new("exec sleep 600")
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("qemu")
    }

    fn image(&self) -> HostImage {
        let qemu = QemuImage {
            program: self.program(),
            data: vec![],
            libraries: vec![],
        };
        HostImage {
            release: "fake".into(),
            vmlinux: "/v".into(),
            initramfs: "/i".into(),
            qemu: Some(qemu),
        }
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir.path().join("pids")).unwrap_or_default();
        text.lines().map(|l| l.parse().unwrap()).collect()
    }

    /// Connects like QEMU would, says hello, and leaves the rest to `serve`.
    fn peer<T: Send + 'static>(&self, serve: impl FnOnce(Peer) -> T + Send + 'static) -> JoinHandle<T> {
        let args = self.dir.path().join("args");
        thread::spawn(move || {
            let args = wait_for(|| fs::read_to_string(&args).ok());
            let value = |prefix: &str| PathBuf::from(args.lines().find_map(|l| l.strip_prefix(prefix)).unwrap());
            let stream = UnixStream::connect(value("socket,id=agent,path=")).unwrap();
            serve(Peer {
                stream,
                log: value("file,id=serial,append=on,path="),
            })
        })
    }
}

fn wait_for<T>(ready: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long");
        thread::sleep(Duration::from_millis(5));
    }
}

struct Peer {
    stream: UnixStream,
    log: PathBuf,
}

impl Peer {
    fn say(&self, frame: &FromAgent) {
        send(&self.stream, frame).unwrap();
    }

    fn hello(&self) {
        self.hello_as(VERSION, &[]);
    }

    fn hello_as(&self, version: u32, problems: &[&str]) {
        let problems = problems.iter().map(|p| (*p).to_owned()).collect();
        self.say(&FromAgent::Hello(Hello {
            version,
            kernel: "fake".into(),
            uptime_us: 1,
            problems,
        }));
    }

    /// The next request that is no ping; those are answered. `None` at the end.
    fn request(&self) -> Option<ToAgent> {
        loop {
            match receive(&self.stream).ok().flatten()? {
                ToAgent::Ping(n) => drop(send(&self.stream, &FromAgent::Pong(n))),
                other => return Some(other),
            }
        }
    }

    fn exec(&self) -> Exec {
        match self.request() {
            Some(ToAgent::Exec(exec)) => exec,
            other => panic!("expected a command, got {other:?}"),
        }
    }

    fn exits(&self, id: u32, status: ExitStatus) {
        self.say(&FromAgent::Exited { id, status });
    }

    /// Swallows requests until the other side goes.
    fn drain(&self) {
        while self.request().is_some() {}
    }
}

fn options() -> RunOptions {
    let host = HostOptions {
        start_timeout: Duration::from_secs(30),
        ..HostOptions::default()
    };
    RunOptions {
        host,
        ..RunOptions::default()
    }
}

fn run(fake: &Fake, options: &RunOptions) -> (Result<Outcome, HostError>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = run_with(
        &fake.image(),
        options,
        &["cmd".into(), "arg".into()],
        None,
        &mut out,
        &mut err,
    );
    for pid in fake.pids() {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "QEMU {pid} was left behind"
        );
    }
    let err = String::from_utf8(err).unwrap();
    let told = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default() + &err;
    for log in told.split("kept in ").skip(1).filter_map(|t| t.split(", ends:").next()) {
        fs::remove_file(log).expect("the log is kept on failure");
    }
    (outcome, String::from_utf8(out).unwrap(), err)
}

#[test]
fn command_gets_its_place_and_its_streams_stay_apart() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello_as(VERSION, &["kvm_amd did not load"]);
        let exec = peer.exec();
        peer.say(&FromAgent::Stdout {
            id: exec.id,
            data: b"out".to_vec(),
        });
        peer.say(&FromAgent::Stderr {
            id: exec.id,
            data: b"err".to_vec(),
        });
        peer.exits(exec.id, ExitStatus::Code(7));
        // QEMU would end now; the script is killed when we hang up.
        assert_eq!(peer.request(), Some(ToAgent::PowerOff));
        exec
    });
    let mut options = options();
    options.env.push(("A".into(), "b".into()));
    // The fake does not turn itself off: the shutdown's own limit is not what this test is about.
    let killer = thread::spawn({
        let pids = fake.dir.path().join("pids");
        move || {
            (
                peer.join().unwrap(),
                Command::new("kill")
                    .arg(fs::read_to_string(pids).unwrap().trim())
                    .status()
                    .unwrap(),
            )
        }
    });
    let (outcome, out, err) = run(&fake, &options);
    let (exec, _) = killer.join().unwrap();
    assert_eq!(outcome.unwrap(), Outcome::Exited(ExitStatus::Code(7)));
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("out", "warning: nested host: kvm_amd did not load\nerr")
    );
    assert_eq!((exec.argv.join(" ").as_str(), exec.stdin), ("cmd arg", false));
    assert_eq!(exec.cwd.as_deref(), std::env::current_dir().unwrap().to_str());
    assert!(
        exec.env
            .ends_with(&[("DAXVISOR_HOST".into(), "nested".into()), ("A".into(), "b".into())])
    );
}

#[test]
fn control_client_out_here_is_a_command_in_there() {
    let fake = Fake::staying();
    let path = fake.dir.path().join("control");
    let offer = Offer {
        socket: Socket::listen("control", &path).unwrap(),
        argv: vec!["client".into()],
    };
    let peer = fake.peer(|peer| {
        peer.hello();
        let machine = peer.exec();
        let client = peer.exec();
        let Some(ToAgent::Stdin { id, data }) = peer.request() else {
            panic!("the client's bytes must come")
        };
        assert_eq!((id, data.as_slice()), (client.id, b"ask\n".as_slice()));
        let data = b"answer\n".to_vec();
        peer.say(&FromAgent::Stdout { id, data });
        peer.exits(client.id, ExitStatus::Code(0));
        peer.exits(machine.id, ExitStatus::Code(6));
        peer.drain();
        (machine, client)
    });
    let user = thread::spawn({
        let path = path.clone();
        move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"ask\n").unwrap();
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
            answer
        }
    });
    let killer = thread::spawn({
        let pids = fake.dir.path().join("pids");
        move || {
            let answer = user.join().unwrap();
            let pid = fs::read_to_string(pids).unwrap();
            assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
            answer
        }
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = run_with(
        &fake.image(),
        &options(),
        &["machine".into()],
        Some(offer),
        &mut out,
        &mut err,
    );
    assert_eq!(killer.join().unwrap(), "answer\n");
    assert_eq!(outcome.unwrap().code(), 6, "{}", String::from_utf8_lossy(&err));
    let (machine, client) = peer.join().unwrap();
    assert_eq!((machine.argv.concat(), machine.stdin), ("machine".to_owned(), false));
    assert_eq!((client.argv.concat(), client.stdin), ("client".to_owned(), true));
    assert!(!path.exists(), "the socket is left");
}

#[test]
fn timeout_asks_first_and_kills_next() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        let id = peer.exec().id;
        assert_eq!(
            peer.request(),
            Some(ToAgent::Signal {
                id,
                signal: libc::SIGTERM
            })
        );
        assert_eq!(
            peer.request(),
            Some(ToAgent::Signal {
                id,
                signal: libc::SIGKILL
            })
        );
        peer.exits(id, ExitStatus::Signal(libc::SIGKILL));
        peer.request();
        peer.log
    });
    let mut options = options();
    options.timeout = Some(Duration::from_millis(200));
    let killer = thread::spawn({
        let pids = fake.dir.path().join("pids");
        move || {
            peer.join().unwrap();
            Command::new("kill")
                .arg(fs::read_to_string(pids).unwrap().trim())
                .status()
                .unwrap()
        }
    });
    let (outcome, _, _) = run(&fake, &options);
    assert_eq!(outcome.unwrap().code(), 124);
    killer.join().unwrap();
}

#[test]
fn command_that_does_not_start_has_a_code_of_its_own() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        let id = peer.exec().id;
        peer.say(&FromAgent::Failed {
            id,
            error: "cannot start 'cmd'".into(),
        });
        peer.drain();
    });
    let host = Host::launch(&fake.image(), &options().host).unwrap();
    host.wait_up().unwrap();
    let running = host
        .exec(Exec {
            argv: vec!["cmd".into()],
            ..Exec::default()
        })
        .unwrap();
    assert_eq!(
        running.next(None).unwrap(),
        Some(Event::NotStarted("cannot start 'cmd'".into()))
    );
    drop((running, host));
    peer.join().unwrap();
}

#[test]
fn stdin_arrives_whole_and_a_dropped_command_is_killed() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        let id = peer.exec().id;
        let mut input = Vec::new();
        loop {
            match peer.request().unwrap() {
                ToAgent::Stdin { id: to, data } if to == id => input.extend(data),
                ToAgent::StdinEof { id: to } if to == id => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(
            peer.request(),
            Some(ToAgent::Signal {
                id,
                signal: libc::SIGKILL
            })
        );
        input
    });
    let host = Host::launch(&fake.image(), &options().host).unwrap();
    host.wait_up().unwrap();
    let running = host
        .exec(Exec {
            argv: vec!["cat".into()],
            stdin: true,
            ..Exec::default()
        })
        .unwrap();
    let (reading, mut writing) = std::io::pipe().unwrap();
    let feed = super::stdin::Feed::start(reading, running.control()).unwrap();
    let text = "line\n".repeat(20_000);
    writing.write_all(text.as_bytes()).unwrap();
    drop(writing);
    let nothing_yet = running.next(Some(Instant::now() + Duration::from_millis(300))).unwrap();
    assert_eq!(nothing_yet, None);
    drop(feed);
    drop(running);
    assert_eq!(String::from_utf8(peer.join().unwrap()).unwrap(), text);
}
