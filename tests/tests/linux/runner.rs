//! `daxvisor test`: each end that a guest, a host or the runner itself can come to has the verdict that names it, on real guests.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{QUICK, Scratch, guest, host};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// For a wait that a busy host may stretch.
const SOON: Duration = Duration::from_secs(120);

/// One guest for each end.
const ENDS: &str = r##"
about = "ends of guests"
machine = { memory = { size = "256M" } }

[[scenario]]
name = "pass"
step = [
  { run = "echo '{\"nodes\":[1,2]}'", expect.json = [{ path = "$.nodes[*]", count = 2 }] },
  { file = "/proc/sys/kernel/ostype", expect.stdout.equals = "Linux" },
  { push = { to = "/t", executable = true, content = "#!/bin/sh\nprintf 'KTAP version 1\\n1..2\\nok 1 one\\nok 2 two # SKIP none\\n'\n" } },
  { run = "/t", ktap = true },
  { run = "(sleep 2; echo yes > /late) > /dev/null 2>&1 &" },
  { file = "/late", until = true, expect.stdout.equals = "yes" },
]

[[scenario]]
name = "expectation"
step = [{ name = "sum", run = "echo 3", expect.stdout.equals = "4" }]

[[scenario]]
name = "subtest"
step = [{ name = "tests", run = "printf '1..2\\nok 1 one\\nnot ok 2 two # it broke\\n'", ktap = true }]

[[scenario]]
name = "warning"
step = [{ run = "echo '<4>WARNING: CPU: 0 PID: 1 at mm/a.c:3 f+0x1/0x2' > /dev/kmsg" }]

[[scenario]]
name = "allowed-warning"
step = [{ run = "echo '<4>WARNING: CPU: 0 PID: 1 at mm/a.c:3 f+0x1/0x2' > /dev/kmsg" }]
allow = [{ pattern = "warning", line = "mm/a.c:3", reason = "written by this test" }]

[[scenario]]
name = "panic"
step = [{ run = "echo c > /proc/sysrq-trigger; sleep 100" }]

[[scenario]]
name = "hang"
step = [{ name = "forever", run = "sleep 1000", deadline = "2s" }]

[[scenario]]
name = "memory"
step = [{ name = "eat", run = "tail /dev/zero" }]

[[scenario]]
name = "leaves"
step = [{ run = "poweroff -f; sleep 100" }]

[[scenario]]
name = "unmet"
requires = { modules = ["no_such_module"] }
step = [{ run = "true" }]

[[scenario]]
name = "old"
requires = { kernel = "<3" }
step = [{ run = "true" }]

[[scenario]]
name = "known"
step = [{ run = "exit 7" }]
expected-failure = [{ kernel = ">=6", contains = "exit status 7", reason = "this test wants it so" }]
"##;

/// A runner that is about to be started, with everything of its in `files`.
fn runner(files: &Scratch, suite: &str, more: &[&str]) -> Result<Command> {
    host::require()?;
    let path = files.join("suite.toml");
    fs::write(&path, suite)?;
    fs::create_dir_all(files.join("tmp"))?;
    let mut command = Command::new(guest::program()?);
    command.arg("test").arg(path).args(["--host", "kvm"]).args(more);
    command.env("TMPDIR", files.join("tmp")).stdin(Stdio::null());
    if !more.contains(&"--out") {
        command.arg("--out").arg(files.join("out"));
    }
    Ok(command)
}

fn quick() -> String {
    format!("@{QUICK}:quick")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn results(out: &Path) -> Result<Vec<Value>> {
    let path = out.join("results.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole: Value = serde_json::from_slice(&text)?;
    Ok(whole["results"].as_array().context("no results")?.clone())
}

/// Runs it to its end. A boot that the host lost, which says nothing of the runner, is a reason to do so once more.
fn run(mut command: Command, out: &Path) -> Result<Output> {
    let output = command.output()?;
    let lost = |r: &Value| {
        let late = r["reason"].as_str().is_some_and(|w| w.starts_with("the agent's hello"));
        let console = out.join(r["folder"].as_str().unwrap_or_default()).join("console.log");
        late && fs::metadata(console).is_ok_and(|m| m.len() == 0)
    };
    match results(out).unwrap_or_default().iter().find(|r| lost(r)) {
        Some(case) => {
            host::report_retry("a boot of the runner", &case["id"].to_string());
            Ok(command.output()?)
        }
        None => Ok(output),
    }
}

fn find<'a>(results: &'a [Value], scenario: &str) -> Result<&'a Value> {
    results
        .iter()
        .find(|r| r["scenario"] == scenario)
        .with_context(|| format!("no result of {scenario}"))
}

#[test]
fn each_end_of_a_guest_has_the_verdict_that_names_it() -> Result<()> {
    let files = Scratch::new("runner")?;
    let html = files.text("html");
    let junit = files.text("junit.xml");
    let more = [
        "--kernel",
        &quick(),
        "--kernel",
        "/nonexistent/bzImage:gone",
        "--jobs",
        "2",
        "--html",
        &html,
        "--junit",
        &junit,
    ];
    let output = run(runner(&files, ENDS, &more)?, &files.join("out"))?;
    ensure!(output.status.code() == Some(1), "{}", said(&output));
    let all = results(&files.join("out"))?;
    ensure!(all.len() == 24, "{} results", all.len());
    for (scenario, verdict, reason) in [
        ("pass", "pass", ""),
        ("expectation", "fail", "sum: stdout is '3', expected '4'"),
        (
            "subtest",
            "fail",
            "tests: 1 of 2 sub-tests failed, first two (it broke)",
        ),
        (
            "warning",
            "fail",
            "console (warning): WARNING: CPU: 0 PID: 1 at mm/a.c:3 f+0x1/0x2",
        ),
        ("allowed-warning", "pass", ""),
        (
            "panic",
            "crash",
            "Kernel panic - not syncing: sysrq triggered crash in ",
        ),
        ("hang", "timeout", "the end of `sleep 1000` was not there in time"),
        ("memory", "fail", "the guest is out of memory: "),
        ("leaves", "fail", "the guest powered off before the scenario's end"),
        (
            "unmet",
            "skip",
            "it needs module no_such_module, which the guest has not",
        ),
        ("old", "skip", "it needs a kernel <3; this one is 6."),
        ("known", "fail", "exit status 7, expected 0"),
    ] {
        let here: Vec<_> = all.iter().filter(|r| r["kernel"] == "quick").cloned().collect();
        let result = find(&here, scenario)?;
        ensure!(
            result["verdict"] == verdict,
            "{scenario}: {result:#}\n{}",
            said(&output)
        );
        let told = result["reason"].as_str().unwrap_or_default();
        ensure!(
            told.contains(reason) && told.is_empty() == reason.is_empty(),
            "{scenario}: {told}"
        );
    }
    let here: Vec<_> = all.iter().filter(|r| r["kernel"] == "quick").cloned().collect();
    let gone = all.iter().filter(|r| r["kernel"] == "gone");
    for result in gone {
        let told = result["reason"].as_str().unwrap_or_default();
        ensure!(
            result["verdict"] == "error" && told.contains("cannot read kernel /nonexistent/bzImage"),
            "{result}"
        );
    }
    ensure!(find(&here, "known")?["expected"] == "this test wants it so");
    ensure!(find(&here, "pass")?["subtests"].as_array().map(Vec::len) == Some(2));
    // The report of the kernel that died, from its console alone.
    let panic = find(&here, "panic")?;
    let trace = panic["oops"]["trace"].to_string();
    ensure!(
        trace.contains("sysrq_handle_crash+0x") && trace.contains("write_sysrq_trigger+0x"),
        "{panic:#}"
    );
    let folder = files.join("out").join("quick/suite/panic");
    for (file, part) in [
        ("console.log", "sysrq triggered crash"),
        ("config.toml", "256M"),
        ("memory-map.json", "\"kind\": \"RAM\""),
        ("memory-map.svg", "<svg"),
        ("reproduce.sh", "daxvisor run --config config.toml"),
        ("vmm.log", ""),
        ("events.jsonl", "\"state\":\"ending\""),
    ] {
        let text = fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
        ensure!(text.contains(part), "{file}: {text}");
    }
    ensure!(folder.join("acpi/apic.dat").is_file());
    ensure!(fs::read_to_string(files.join("out").join("quick/suite/pass/dmesg.log"))?.contains("Linux version 6.1"));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        table.contains("suite/panic") && table.contains("24 cases: ") && table.contains("trace: "),
        "{table}"
    );
    ensure!(fs::read_to_string(&junit)?.contains("type=\"crash\""));
    ensure!(fs::read_to_string(files.join("html/index.html"))?.contains("class='crash'"));
    nothing_is_left(&files)?;
    Ok(())
}

const TWO: &str = r#"
about = "two"
machine = { memory = { size = "256M" } }
[[scenario]]
name = "first"
step = [{ run = "true" }]
[[scenario]]
name = "second"
step = [{ run = "[ -e /never ]", until = true, deadline = "5min" }]
timeout = "6min"
"#;

/// Processes whose command line names the folder.
fn processes(files: &Scratch) -> Result<Vec<String>> {
    let ours = files.path().display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let cmdline = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        if text.contains(&ours) {
            found.push(text);
        }
    }
    Ok(found)
}

fn nothing_is_left(files: &Scratch) -> Result<()> {
    let left = processes(files)?;
    ensure!(left.is_empty(), "processes are left: {left:?}");
    let tmp: Vec<_> = fs::read_dir(files.join("tmp"))?.collect();
    ensure!(tmp.is_empty(), "files are left: {tmp:?}");
    Ok(())
}

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !done()? {
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", SOON.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Starts a runner of [`TWO`] and waits until its second guest is up.
fn until_the_second(files: &Scratch, more: &[&str]) -> Result<Child> {
    let quick = quick();
    let more: Vec<_> = ["--kernel", &quick, "--jobs", "1"]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let mut child = runner(files, TWO, &more)?.stdout(Stdio::null()).spawn()?;
    let up = wait("the second guest", || {
        ensure!(child.try_wait()?.is_none(), "the runner ended");
        Ok(processes(files)?
            .iter()
            .any(|p| p.contains(" run ") && p.contains("/suite/second")))
    });
    if up.is_err() {
        child.kill()?;
        child.wait()?;
    }
    up.map(|()| child)
}

#[test]
fn a_runner_that_is_killed_or_interrupted_leaves_no_guest_and_is_resumed() -> Result<()> {
    let files = Scratch::new("killed")?;
    let mut child = until_the_second(&files, &[])?;
    child.kill()?;
    child.wait()?;
    wait("the end of the guest", || Ok(processes(&files)?.is_empty()))?;
    // Nobody was left to remove the folder of the sockets; the sockets themselves are gone.
    for folder in fs::read_dir(files.join("tmp"))? {
        let left: Vec<_> = fs::read_dir(folder?.path())?.collect();
        ensure!(left.is_empty(), "{left:?}");
    }
    fs::remove_dir_all(files.join("tmp"))?;

    let mut child = until_the_second(&files, &["--resume"])?;
    kill_process(Pid::from_child(&child), Signal::INT)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(130), "{status}");
    nothing_is_left(&files)?;

    // What is missing is run, and nothing else; with another suite text the second one can end.
    let ends = TWO.replace("[ -e /never ]", "true");
    let output = runner(&files, &ends, &["--kernel", &quick(), "--resume"])?.output()?;
    ensure!(output.status.code() == Some(0), "{}", said(&output));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        told.contains("1 of 2 cases have a result already") && !told.contains("suite/first@"),
        "{told}"
    );
    ensure!(results(&files.join("out"))?.iter().all(|r| r["verdict"] == "pass"));
    nothing_is_left(&files)?;

    // Shards are put together again.
    let part = files.join("out");
    let merge = Command::new(guest::program()?)
        .args(["test", "merge"])
        .arg(&part)
        .arg("--out")
        .arg(files.join("all"))
        .output()?;
    ensure!(
        merge.status.code() == Some(0) && results(&files.join("all"))?.len() == 2,
        "{}",
        said(&merge)
    );
    Ok(())
}

/// A file system that is full soon.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn new(path: &'a Path, size: &str) -> Result<Self> {
        fs::create_dir_all(path)?;
        let options = std::ffi::CString::new(format!("size={size}"))?;
        mount("none", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?;
        Ok(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_and_a_missing_kernel_are_errors_of_the_host_and_never_of_the_kernel() -> Result<()> {
    let files = Scratch::new("full")?;
    let out = files.join("small");
    let _small = Small::new(&out, "128K")?;
    // The guest fills what the files of its plan leave.
    let suite = "about = 'x'\nmachine = { memory = { size = '256M' } }\n[[scenario]]\nname = 'loud'\nstep = [{ run = \"i=0; while [ $i -lt 4000 ]; do echo '<1>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' > /dev/kmsg; i=$((i+1)); done\" }]\n";
    let text = out.display().to_string();
    let output = runner(&files, suite, &["--kernel", &quick(), "--out", &text])?.output()?;
    ensure!(output.status.code() == Some(3), "{}", said(&output));
    let told = said(&output);
    ensure!(
        told.contains("error: suite/loud@quick: cannot write") && told.contains("No space left on device"),
        "{told}"
    );
    nothing_is_left(&files)?;
    for (flags, code) in [
        (&["--kernel", "/nonexistent/k"][..], 3),
        (&["--kernel", "/nonexistent/k", "--bisect"], 125),
    ] {
        let output = runner(&files, TWO, flags)?.output()?;
        ensure!(output.status.code() == Some(code), "{}", said(&output));
    }
    Ok(())
}

/// One case of each shipped suite; all of them on all kernels take longer than a change can wait.
#[test]
fn shipped_suites_pass_in_part() -> Result<()> {
    host::require()?;
    let files = Scratch::new("suites")?;
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let filter = [
        "scenario=bus",
        "scenario=hot-add",
        "scenario=memory-device",
        "(suite=errors and scenario=scrub)",
        "scenario=third-load",
        "scenario=device",
        "scenario=selinux",
        "scenario=dirty-limit",
        "name=*memory*devdax*",
        "name=*tiny*",
        "name=*proc-readers*write*",
        "name=*removal*link*",
        "name=*selftest*loose*",
    ]
    .join(" or ");
    let output = Command::new(guest::program()?)
        .arg("test")
        .arg(suites)
        .args([
            "--host",
            "kvm",
            "--no-skip",
            "--filter",
            &filter,
            "--kernel",
            "@debian-6.12-amd64",
        ])
        .arg("--out")
        .arg(files.join("out"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.code() == Some(0), "{}", said(&output));
    let all = results(&files.join("out"))?;
    ensure!(
        all.len() == 13 && all.iter().all(|r| r["verdict"] == "pass"),
        "{}",
        said(&output)
    );
    Ok(())
}
