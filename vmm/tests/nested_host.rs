//! `daxvisor host run` with the real images: QEMU boots, and what passes through does so exactly.
//!
//! Needs the images of `cargo xtask images`. Without them every test fails and says so.

use std::{
    fs,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use vmm::{
    images::{Manifest, default_dir},
    nested::{Host, HostOptions},
};

/// One nested host at a time: they are slow enough alone.
static ALONE: Mutex<()> = Mutex::new(());

struct Setup {
    /// Shared with the command: its working directory.
    work: tempfile::TempDir,
    /// daxvisor's own temporary files. In /tmp, since a socket's name must be short.
    temporary: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Setup {
    fn new() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        match Manifest::load(&default_dir()) {
            Err(e) => panic!("this test needs the guest images: {e}"),
            Ok(manifest) => assert!(
                manifest.host.is_some(),
                "this test needs the nested host's image; hint: run `cargo xtask images`"
            ),
        }
        Self {
            work: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            temporary: tempfile::tempdir().unwrap(),
            _alone: alone,
        }
    }

    fn host_run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
        program.args(["host", "run"]).args(options).arg("--").args(command);
        program.current_dir(self.work.path()).stdin(Stdio::null());
        program.env("TMPDIR", self.temporary.path());
        program
    }

    fn output(&self, options: &[&str], command: &[&str]) -> Output {
        let output = self.host_run(options, command).output().unwrap();
        assert_eq!(self.qemus(), Vec::<u32>::new(), "QEMU was left behind");
        let left = fs::read_dir(self.temporary.path()).unwrap().count();
        let logs = usize::from(code(&output) == 125);
        assert_eq!(left, logs, "temporary files, but for the log of a failed host");
        output
    }

    /// Processes that share our working directory with a guest.
    fn qemus(&self) -> Vec<u32> {
        let mark = format!("path={},mount_tag=", self.work.path().canonicalize().unwrap().display());
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        processes
            .filter(|pid| {
                String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).contains(&mark)
            })
            .collect()
    }

    /// Starts a command that writes `started` when it runs, and waits for that.
    fn started(&self, options: &[&str], script: &str) -> Child {
        let script = format!("echo started; {script}");
        let mut child = self
            .host_run(options, &["sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = [0; 8];
        if child.stdout.as_mut().unwrap().read_exact(&mut seen).is_err() {
            let output = child.wait_with_output().unwrap();
            panic!("the command did not start: {}", text(&output.stderr));
        }
        assert_eq!(&seen, b"started\n");
        child
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("daxvisor itself was killed by signal {:?}", output.status.signal()))
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

#[test]
fn streams_files_and_exit_code_pass_through() {
    let setup = Setup::new();
    fs::write(setup.work.path().join("in"), "from outside").unwrap();
    let script =
        "cat in; echo problem >&2; pwd > where; echo \"$WORD $DAXVISOR_HOST\" > env; test -c /dev/kvm && exit 7";
    let output = setup.output(&["--env", "WORD=two words"], &["sh", "-c", script]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr), code(&output)),
        ("from outside", "problem\n", 7)
    );
    let work = setup.work.path().canonicalize().unwrap();
    let written = |name| fs::read_to_string(work.join(name)).unwrap();
    assert_eq!(
        (written("where").trim_end(), written("env").as_str()),
        (work.to_str().unwrap(), "two words nested\n")
    );
}

#[test]
fn only_shared_folders_can_be_written() {
    let setup = Setup::new();
    let [open, closed] = ["open", "closed"].map(|n| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{n}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    });
    let script = format!(
        "echo x > {}/file && ! echo x > {}/file && echo y > /tmp/file",
        open.display(),
        closed.display()
    );
    let output = setup.output(&["--share", open.to_str().unwrap()], &["sh", "-c", &script]);
    let written = |p: &PathBuf| p.join("file").exists();
    assert_eq!(
        (code(&output), written(&open), written(&closed)),
        (0, true, false),
        "{}",
        text(&output.stderr)
    );
    // Below /tmp the nested host has a folder of its own, where ours is not at all.
    let why = match closed.starts_with("/tmp") {
        true => "nonexistent",
        false => "Read-only file system",
    };
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    fs::remove_dir_all(open).unwrap();
    fs::remove_dir_all(closed).unwrap();
}

#[test]
fn standard_input_reaches_the_command() {
    let setup = Setup::new();
    let mut child = setup
        .host_run(&[], &["wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 300_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout).trim(), code(&output)), ("300000", 0));
}

#[test]
fn first_signal_is_the_commands_and_its_answer_counts() {
    let setup = Setup::new();
    let child = setup.started(&[], "trap 'echo caught; exit 9' INT; while :; do sleep 0.1; done");
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (text(&output.stdout), code(&output)),
        ("caught\n", 9),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn second_signal_kills() {
    let setup = Setup::new();
    let mut child = setup.started(&[], "trap 'echo again' TERM; while :; do sleep 0.1; done");
    signal(&child, "TERM");
    let mut seen = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    signal(&child, "TERM");
    assert_eq!(code(&child.wait_with_output().unwrap()), 137);
}

#[test]
fn timeout_has_its_own_code() {
    let setup = Setup::new();
    let output = setup.output(&["--timeout", "1"], &["sleep", "300"]);
    assert_eq!(code(&output), 124);
    assert_eq!(text(&output.stderr), "daxvisor: 'sleep 300' was ended after 1s\n");
}

#[test]
fn command_that_is_not_there_has_its_own_code() {
    let setup = Setup::new();
    let output = setup.output(&[], &["no-such-command"]);
    assert_eq!(code(&output), 127);
    assert!(
        text(&output.stderr).contains("'no-such-command'"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn killing_daxvisor_leaves_no_qemu() {
    let setup = Setup::new();
    let mut child = setup.started(&[], "sleep 300");
    assert_eq!(setup.qemus().len(), 1, "the QEMU of this run");
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while !setup.qemus().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "QEMU lives on");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_backing_file_that_is_new_has_one_user_as_well() {
    let setup = Setup::new();
    let file = setup.work.path().join("new");
    let run = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
        program.args([
            "run",
            "--host",
            "nested",
            "--kernel",
            "@debian-6.1-cloud-amd64",
            "--console",
            "none",
        ]);
        program.args(["--nvdimm", &format!("file={},size=128M", file.display())]);
        program.current_dir(setup.work.path()).stdin(Stdio::null());
        program.env("TMPDIR", setup.temporary.path());
        program
    };
    let mut first = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the file is not created");
        thread::sleep(Duration::from_millis(5));
    }
    let second = run().output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(code(&second), 2, "{}", text(&second.stderr));
    assert!(
        text(&second.stderr).contains("in use by another process"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(fs::metadata(&file).unwrap().len(), 128 << 20);
    while !setup.qemus().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(40), "QEMU lives on");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn host_that_panics_is_not_the_commands_failure() {
    let setup = Setup::new();
    let output = setup.output(&[], &["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60"]);
    let error = text(&output.stderr);
    assert_eq!(code(&output), 125, "{error}");
    assert!(
        error.contains("the nested host is broken: its kernel reports")
            && error.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{error}"
    );
    let log = error
        .split("kept in ")
        .nth(1)
        .and_then(|r| r.split(", ends:").next())
        .expect("the log is named");
    fs::remove_file(log).expect("the log is kept");
}

#[test]
fn instruction_counting_makes_time_repeat() {
    let setup = Setup::new();
    let _ = &setup;
    let uptime = || {
        let host = Host::start(&HostOptions {
            icount: true,
            ..HostOptions::default()
        })
        .unwrap();
        let hello = host.hello().unwrap();
        host.shutdown();
        hello.uptime_us
    };
    let (first, second) = (uptime(), uptime());
    assert!(first.abs_diff(second) * 10 < first, "{first} us, then {second} us");
}

#[test]
fn this_hosts_kvm_runs_kernels() {
    let setup = Setup::new();
    let output = setup.output(&[], &[env!("CARGO_BIN_EXE_daxvisor"), "host", "check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (code(&output), report["kind"].as_str()),
        (0, Some("nested")),
        "{report}"
    );
}

#[test]
fn machine_in_there_is_controlled_from_here() {
    let setup = Setup::new();
    let socket = setup.temporary.path().join("api");
    let mut run = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
    run.args(["run", "--host", "nested", "--kernel", "@debian-6.1-cloud-amd64"])
        .args(["--memory", "512M", "--nvdimm", "size=64M,id=far", "--console", "none"])
        .args(["--timeout", "200", "--api-socket"])
        .arg(&socket);
    run.current_dir(setup.work.path()).stdin(Stdio::null());
    let machine = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ctl = |args: &[&str]| {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_daxvisor"));
        ctl.args(["ctl", "--timeout", "150", "--connect-timeout", "30", "--api-socket"])
            .arg(&socket);
        ctl.args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let done = |child: Child| {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    // Both at once, and before the machine is up.
    let (first, second) = (ctl(&["describe"]), ctl(&["--json", "nvdimm", "list"]));
    let described = done(first);
    assert!(
        described.contains("machine: running") && described.contains("far: slot 0"),
        "{described}"
    );
    assert!(done(second).contains("\"id\": \"far\""));
    assert_eq!(done(ctl(&["pause"])), "the machine is paused\n");
    let refused = ctl(&["pause"]).wait_with_output().unwrap();
    assert_eq!(code(&refused), 1);
    assert!(
        text(&refused.stderr).contains("the machine is paused"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(done(ctl(&["resume"])), "the machine is running\n");
    assert_eq!(done(ctl(&["quit"])), "the machine is ending\n");
    let ended = machine.wait_with_output().unwrap();
    assert_eq!(code(&ended), 6, "{}", text(&ended.stderr));
    assert!(!socket.exists(), "the socket is left");
    assert_eq!(setup.qemus(), Vec::<u32>::new(), "QEMU was left behind");
}
