//! The command server over a socket pair, on an ordinary machine: what the host of a guest relies upon.

use agent_protocol::{CHUNK, Exec, ExitStatus, FrameError, FromAgent, ToAgent, VERSION, receive, send};
use daxvisor_agent::{
    reaper::Reaper,
    server::{Power, Service, serve},
};
use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::Shutdown,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::Duration,
};

/// One per process: reapers would steal each other's children.
fn reaper() -> Arc<Reaper> {
    static REAPER: OnceLock<Arc<Reaper>> = OnceLock::new();
    Arc::clone(REAPER.get_or_init(Reaper::start))
}

fn power(_: Power) -> ! {
    // A test that turned its machine off has failed.
    process::exit(99)
}

struct Host {
    wire: UnixStream,
    server: JoinHandle<Result<(), FrameError>>,
}

impl Host {
    fn connect() -> Self {
        let (wire, theirs) = UnixStream::pair().unwrap();
        // Every wait has a deadline: a server that hangs is a failure, not a hang of the tests.
        wire.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        wire.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        let server = thread::spawn(move || {
            let service = Service {
                reaper: reaper(),
                problems: vec!["a module".into()],
                power,
            };
            let (to, end) = (theirs.try_clone().unwrap(), theirs.try_clone().unwrap());
            serve(&service, theirs, to, || end.shutdown(Shutdown::Both).unwrap())
        });
        Self { wire, server }
    }

    fn send(&mut self, request: &ToAgent) {
        send(&mut self.wire, request).unwrap();
    }

    fn next(&mut self) -> FromAgent {
        receive(&mut self.wire)
            .unwrap()
            .expect("the agent keeps the connection")
    }

    fn start(&mut self, id: u32, script: &str) {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.send(&ToAgent::Exec(Exec {
            id,
            argv,
            ..Exec::default()
        }));
    }

    /// Everything up to the end of command `id`, whose output must all have come before.
    fn finish(&mut self, id: u32) -> (String, String, ExitStatus) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                FromAgent::Stdout { id: of, data } if of == id => out.extend(data),
                FromAgent::Stderr { id: of, data } if of == id => err.extend(data),
                FromAgent::Exited { id: of, status } if of == id => {
                    return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), status);
                }
                other => panic!("unexpected frame {other:?}"),
            }
        }
    }
}

fn run(script: &str) -> (String, String, ExitStatus) {
    let mut host = Host::connect();
    host.start(1, script);
    host.finish(1)
}

#[test]
fn hello_names_version_kernel_and_problems() {
    let mut host = Host::connect();
    host.send(&ToAgent::Hello);
    let FromAgent::Hello(hello) = host.next() else {
        panic!("no hello")
    };
    assert_eq!(
        (hello.version, hello.problems.as_slice()),
        (VERSION, &["a module".to_owned()][..])
    );
    assert_eq!(
        hello.kernel,
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim()
    );
    host.send(&ToAgent::Ping(7));
    assert_eq!(host.next(), FromAgent::Pong(7));
}

#[test]
fn output_and_exit_status_come_apart_and_whole() {
    assert_eq!(
        run("echo out; echo err >&2; exit 3"),
        ("out\n".into(), "err\n".into(), ExitStatus::Code(3))
    );
    assert_eq!(run("kill -TERM $$").2, ExitStatus::Signal(15));
    // More than any pipe or queue on the way holds.
    let (out, _, status) = run("head -c 5000000 /dev/zero | tr '\\0' x");
    assert_eq!((out.len(), status), (5_000_000, ExitStatus::Code(0)));
}

#[test]
fn commands_run_side_by_side() {
    let mut host = Host::connect();
    // The first can only end after the second did.
    let pipe = tempfile::tempdir().unwrap();
    let path = pipe.path().join("p").display().to_string();
    host.start(1, &format!("mkfifo {path}; read word < {path}; echo got $word"));
    host.start(
        2,
        &format!("while ! test -p {path}; do sleep 0.01; done; echo hey > {path}"),
    );
    let mut ended = HashMap::new();
    let mut out = String::new();
    while ended.len() < 2 {
        match host.next() {
            FromAgent::Stdout { id: 1, data } => out.push_str(&String::from_utf8(data).unwrap()),
            FromAgent::Exited { id, status } => drop(ended.insert(id, status)),
            other => panic!("unexpected frame {other:?}"),
        }
    }
    assert_eq!(out, "got hey\n");
    assert!(ended.values().all(|s| *s == ExitStatus::Code(0)));
}

#[test]
fn standard_input_environment_and_folder_are_as_asked() {
    let mut host = Host::connect();
    let argv = ["sh", "-c", "cat; echo $COLOUR; pwd"].map(str::to_owned).to_vec();
    let env = vec![("COLOUR".to_owned(), "red".to_owned())];
    host.send(&ToAgent::Exec(Exec {
        id: 4,
        argv,
        env,
        cwd: Some("/usr".into()),
        stdin: true,
    }));
    host.send(&ToAgent::Stdin {
        id: 4,
        data: b"in\n".to_vec(),
    });
    host.send(&ToAgent::StdinEof { id: 4 });
    assert_eq!(
        host.finish(4),
        ("in\nred\n/usr\n".into(), String::new(), ExitStatus::Code(0))
    );
}

#[test]
fn a_signal_reaches_the_whole_process_group() {
    let mut host = Host::connect();
    host.start(1, "sleep 100 & echo ready; wait");
    assert_eq!(
        host.next(),
        FromAgent::Stdout {
            id: 1,
            data: b"ready\n".to_vec()
        }
    );
    host.send(&ToAgent::Signal { id: 1, signal: 15 });
    assert_eq!(host.finish(1).2, ExitStatus::Signal(15));
    host.send(&ToAgent::Signal { id: 1, signal: 15 });
    host.send(&ToAgent::Ping(1));
    assert_eq!(
        host.next(),
        FromAgent::Pong(1),
        "a signal to a command that is gone is nothing"
    );
}

#[test]
fn what_cannot_start_says_why() {
    let mut host = Host::connect();
    let mut ask = |argv: &[&str], cwd: Option<&str>| {
        let argv = argv.iter().map(|s| (*s).to_owned()).collect();
        host.send(&ToAgent::Exec(Exec {
            id: 1,
            argv,
            cwd: cwd.map(str::to_owned),
            ..Exec::default()
        }));
        match host.next() {
            FromAgent::Failed { id: 1, error } => error,
            other => panic!("unexpected frame {other:?}"),
        }
    };
    assert!(ask(&["no-such-program"], None).contains("no-such-program"));
    assert!(ask(&["true"], Some("/no/such/folder")).contains("/no/such/folder"));
    assert!(ask(&[], None).contains("no program"));
}

#[test]
fn a_daemon_left_behind_does_not_hold_the_exit_status() {
    let (out, _, status) = run("sleep 20 & echo done");
    assert_eq!((out.as_str(), status), ("done\n", ExitStatus::Code(0)));
}

#[test]
fn files_are_written_in_pieces_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f").display().to_string();
    let data: Vec<u8> = (0..CHUNK + 10).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut host = Host::connect();
    for (n, piece) in data.chunks(CHUNK).enumerate() {
        let offset = (n * CHUNK) as u64;
        host.send(&ToAgent::PutFile {
            id: 1,
            path: path.clone(),
            mode: 0o600,
            offset,
            data: piece.to_vec(),
        });
        assert_eq!(host.next(), FromAgent::FileDone { id: 1 });
    }
    let mut back = Vec::new();
    loop {
        host.send(&ToAgent::GetFile {
            id: 2,
            path: path.clone(),
            offset: back.len() as u64,
        });
        match host.next() {
            FromAgent::FileData { id: 2, data } if data.is_empty() => break,
            FromAgent::FileData { id: 2, data } => back.extend(data),
            other => panic!("unexpected frame {other:?}"),
        }
    }
    assert_eq!(back, data);
    host.send(&ToAgent::GetFile {
        id: 3,
        path: "/no/such/file".into(),
        offset: 0,
    });
    assert!(matches!(host.next(), FromAgent::Failed { id: 3, error } if error.contains("/no/such/file")));
}

#[test]
fn a_host_that_does_not_read_stops_nothing_but_output() {
    let mut host = Host::connect();
    let marker = tempfile::tempdir().unwrap();
    let path = marker.path().join("done");
    host.start(1, "head -c 50000000 /dev/zero");
    host.start(2, &format!("touch {}", path.display()));
    // Nothing is read here, yet the second command runs, and requests keep being taken.
    while !path.exists() {
        host.send(&ToAgent::Ping(0));
        thread::sleep(Duration::from_millis(20));
    }
    let mut total = 0;
    loop {
        match host.next() {
            FromAgent::Stdout { id: 1, data } => total += data.len(),
            FromAgent::Exited { id: 1, status } => break assert_eq!(status, ExitStatus::Code(0)),
            FromAgent::Exited { id: 2, .. } | FromAgent::Pong(0) => {}
            other => panic!("unexpected frame {other:?}"),
        }
    }
    assert_eq!(total, 50_000_000);
}

#[test]
fn the_commands_of_a_connection_end_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let mut host = Host::connect();
    host.start(1, &format!("echo $$ > {}; echo up; exec sleep 100", path.display()));
    assert_eq!(
        host.next(),
        FromAgent::Stdout {
            id: 1,
            data: b"up\n".to_vec()
        }
    );
    let pid = fs::read_to_string(path).unwrap();
    let Host { wire, server } = host;
    drop(wire);
    server.join().unwrap().unwrap();
    let process = format!("/proc/{}", pid.trim());
    for _ in 0..1000 {
        if !fs::exists(&process).unwrap() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the command outlived its connection");
}

#[test]
fn a_host_that_takes_over_hears_nothing_of_the_one_before() {
    let mut host = Host::connect();
    host.start(1, "echo up; exec sleep 100");
    assert_eq!(
        host.next(),
        FromAgent::Stdout {
            id: 1,
            data: b"up\n".to_vec()
        }
    );
    host.send(&ToAgent::Hello);
    assert!(matches!(host.next(), FromAgent::Hello(_)));
    // The id is free at once, and the old command's end is not mistaken for the new one's.
    host.start(1, "sleep 0.5; echo new");
    assert_eq!(host.finish(1), ("new\n".into(), String::new(), ExitStatus::Code(0)));
}

#[test]
fn a_broken_frame_ends_the_connection_and_is_told_apart_from_a_hangup() {
    let Host { mut wire, server } = Host::connect();
    wire.write_all(&[0xff; 8]).unwrap();
    assert!(matches!(server.join().unwrap(), Err(FrameError::TooLarge(_))));
    let Host { mut wire, server } = Host::connect();
    wire.write_all(&[1, 0, 0, 0, 0xee]).unwrap();
    assert!(matches!(server.join().unwrap(), Err(FrameError::Decode(_))));
}
