//! The nested host against a fake QEMU: a script that stays (or does not), and a peer that speaks the agent's protocol.

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
fn host_that_does_not_come_up_is_tried_twice_and_said_so() {
    let fake = Fake::new("echo booting; exec sleep 600");
    let mut options = options();
    options.host.start_timeout = Duration::from_millis(700);
    let (outcome, _, err) = run(&fake, &options);
    let error = outcome.unwrap_err();
    assert!(matches!(error, HostError::NotUp { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 125);
    assert!(error.to_string().ends_with("ends:\n  | booting"), "{error}");
    assert!(
        err.starts_with("retry: the nested host did not come up within 700ms"),
        "{err}"
    );
    assert_eq!((err.matches("retry:").count(), fake.pids().len()), (1, 2));
}

#[test]
fn qemu_that_ends_is_named_with_its_last_words() {
    let fake = Fake::new("echo 'qemu: no such machine' >&2; exit 3");
    let (outcome, _, err) = run(&fake, &options());
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.starts_with("the nested host's QEMU ended unexpectedly (exit code 3)"),
        "{error}"
    );
    assert!(
        error.ends_with("| qemu: no such machine") && err.contains("retry: "),
        "{error} {err}"
    );
}

#[test]
fn missing_qemu_is_an_error_with_a_hint_and_no_retry() {
    let fake = Fake::staying();
    fs::remove_file(fake.program()).unwrap();
    let (outcome, _, err) = run(&fake, &options());
    assert!(outcome.unwrap_err().to_string().contains("hint: install the package"));
    assert_eq!(err, "");
}

#[test]
fn silence_is_the_hosts_failure() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        while let Ok(Some(_)) = receive::<ToAgent>(&peer.stream) {}
    });
    let mut options = options();
    options.host.silence = Duration::from_millis(600);
    let (outcome, _, _) = run(&fake, &options);
    assert!(matches!(outcome, Err(HostError::Hung { .. })), "{outcome:?}");
    peer.join().unwrap();
}

#[test]
fn quiet_command_and_slow_consumer_are_no_silence() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        let id = peer.exec().id;
        // Only pings are answered for a while: the command says nothing.
        peer.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            assert_eq!(peer.request(), None);
        }
        peer.stream.set_read_timeout(None).unwrap();
        for n in 0..200_u8 {
            peer.say(&FromAgent::Stdout { id, data: vec![n] });
        }
        peer.exits(id, ExitStatus::Code(0));
        peer.drain();
    });
    let silence = Duration::from_millis(800);
    let host = Host::launch(
        &fake.image(),
        &HostOptions {
            silence,
            ..options().host
        },
    )
    .unwrap();
    host.wait_up().unwrap();
    let running = host
        .exec(Exec {
            argv: vec!["x".into()],
            ..Exec::default()
        })
        .unwrap();
    let mut bytes = Vec::new();
    let status = loop {
        match running.next(None).unwrap().unwrap() {
            Event::Stdout(data) => {
                if bytes.is_empty() {
                    thread::sleep(3 * silence);
                }
                bytes.extend(data);
            }
            Event::Exited(status) => break status,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!((bytes, status), ((0..200).collect(), ExitStatus::Code(0)));
    drop((running, host));
    peer.join().unwrap();
}

#[test]
fn lasting_lockup_in_the_log_is_the_hosts_failure() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        let mut log = OpenOptions::new().append(true).open(&peer.log).unwrap();
        writeln!(log, "[   61.0] watchdog: BUG: soft lockup - CPU#1 stuck for 45s! [x:1]").unwrap();
        peer.drain();
    });
    let (outcome, _, _) = run(&fake, &options());
    match outcome {
        Err(HostError::LockedUp { report, .. }) => assert!(report.contains("stuck for 45s"), "{report}"),
        other => panic!("{other:?}"),
    }
    peer.join().unwrap();
}

/// What L1 said when its vCPU thread overran its stack, and what it would have said two minutes later.
const OOPS: &str = "\
[    7.868060] BUG: TASK stack guard page was hit at 000000008b6e0b38 (stack is 000000007de74116..0000000029b43566)
[    7.870408] Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI
[    7.870957] CPU: 0 UID: 0 PID: 369 Comm: vcpu0 Not tainted 6.12.95+deb12-amd64 #1  Debian 6.12.95-1~bpo12+1
[    7.871381] RIP: 0010:error_entry+0x17/0x140
";

#[test]
fn an_oops_ends_the_host_at_once_and_with_its_own_name() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello();
        peer.exec();
        let mut log = OpenOptions::new().append(true).open(&peer.log).unwrap();
        write!(log, "daxvisor-agent: ready\r\n{}", OOPS.replace('\n', "\r\n")).unwrap();
        let since = Instant::now();
        // The agent still answers: nothing else is wrong yet.
        peer.drain();
        since.elapsed()
    });
    let (outcome, _, _) = run(&fake, &options());
    let error = outcome.unwrap_err();
    assert_eq!(error.exit_code(), 125);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "the nested host is broken: its kernel reports \"[    7.868060] BUG: TASK stack guard page was hit"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("| [    7.871381] RIP: 0010:error_entry+0x17/0x140"),
        "{text}"
    );
    assert!(error.start_may_be_retried());
    let took = peer.join().unwrap();
    assert!(took < Duration::from_secs(20), "noticed after {took:?}");
}

#[test]
fn a_panic_that_ends_qemu_is_named_instead_of_its_exit_code() {
    let fake = Fake::new("echo '[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs'; exit 0");
    let (outcome, _, err) = run(&fake, &options());
    match outcome {
        Err(HostError::Broken { report, .. }) => assert!(report.contains("Unable to mount root fs"), "{report}"),
        other => panic!("{other:?}"),
    }
    assert!(
        err.starts_with("retry: the nested host is broken: its kernel reports"),
        "{err}"
    );
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
fn agent_of_another_version_is_refused_without_retry() {
    let fake = Fake::staying();
    let peer = fake.peer(|peer| {
        peer.hello_as(VERSION + 1, &[]);
        peer.drain();
    });
    let (outcome, _, err) = run(&fake, &options());
    assert!(
        matches!(outcome, Err(HostError::Version { theirs }) if theirs == VERSION + 1),
        "{outcome:?}"
    );
    assert_eq!(err, "");
    peer.join().unwrap();
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
