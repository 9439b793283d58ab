//! `cargo xtask bench hotplug`: how long a running machine takes to answer, beside QEMU's monitor protocol.
//!
//! Both boot the same guest on the same KVM, in turn; when the guest is up and idle they are asked over a unix socket, each on
//! one connection that stays. What an open connection costs while nothing is asked is read from the scheduler. Then memory devices
//! are added to other guests of both.
//!
//! Each round has a nested host of its own, and a limit: in instruction-counting mode QEMU can come to run one instruction at a
//! time, with a timer that is due and that nobody serves. Such a round is lost, and told.

mod memory;

use super::{
    measure::READY,
    measured, publish,
    record::{Log, Plan, Scenario, Vmm},
    vmms::Staged,
};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fmt, fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};
use vmm::api::client::Client;

/// Questions of one kind in a row.
const QUESTIONS: usize = 200;
/// Without a question.
const IDLE: Duration = Duration::from_secs(5);
/// From the start to the agent's hello, on any host.
const BOOT: Duration = Duration::from_secs(90);
/// For one round, by the clock of whoever waits.
const ROUND: Duration = Duration::from_secs(600);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(20);

/// One series of figures.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    vmm: Vmm,
    what: String,
    /// Nanoseconds, in the order in which they were measured.
    ns: Vec<u64>,
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    kind: String,
    rows: Vec<Row>,
    /// Nanoseconds of processor time that daxvisor's API used in [`IDLE`], one a round.
    idle_ns: Vec<u64>,
    /// Attempts at a round that came to no end.
    #[serde(default)]
    lost: u32,
}

impl Report {
    fn add(&mut self, round: Self) {
        self.rows.extend(round.rows);
        self.idle_ns.extend(round.idle_ns);
    }
}

/// Runs the rounds where KVM is, and shows what came of them.
pub fn run(plan: &Plan, kernel: &str, rounds: u32, nested: bool, json: &Path) -> Result<()> {
    let limit = ROUND.as_secs().to_string();
    let flags = ["--icount", "--timeout", &limit];
    let flags = nested.then_some(&flags[..]);
    let kind = match nested {
        true => "nested host, instruction-counting mode",
        false => "this machine's KVM",
    };
    let mut report = Report {
        kind: kind.to_owned(),
        ..Report::default()
    };
    let plan = (plan, kernel);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let measured = measured(&plan, &plan.0.daxvisor, flags, "measure-hotplug").or_else(|error| {
            eprintln!("it came to no end ({error:#}): a new host measures it again");
            report.lost += 1;
            measured(&plan, &plan.0.daxvisor, flags, "measure-hotplug")
        });
        match measured {
            Ok(measured) => report.add(measured),
            Err(error) => {
                eprintln!("it came to no end a second time ({error:#})");
                report.lost += 1;
            }
        }
    }
    ensure!(!report.rows.is_empty(), "no round came to an end");
    publish(&report, json)
}

/// One round of a plan; the report goes to standard output.
pub fn measure(plan: &Path) -> Result<()> {
    let (plan, kernel): (Plan, String) = serde_json::from_slice(&fs::read(plan)?)?;
    let staged = Staged::new(&plan)?;
    let mut report = Report::default();
    eprintln!("questions to daxvisor");
    let guest = Guest::start(&staged, Vmm::Daxvisor)?;
    let mut client = Client::connect(&guest.socket, Some(ANSWER))?;
    for path in ["/vm/state", "/vm", "/nvdimms"] {
        let ask = || {
            let answer = client.send("GET", path, None, ANSWER)?;
            ensure!(answer.status == 200, "GET {path}: {}", answer.status);
            Ok(())
        };
        report.rows.push(series(Vmm::Daxvisor, format!("GET {path}"), ask)?);
    }
    report.idle_ns.push(guest.idle("api")?);
    drop(guest);
    eprintln!("questions to QEMU");
    let guest = Guest::start(&staged, Vmm::QemuQ35)?;
    let mut monitor = Monitor::connect(&guest.socket)?;
    for command in ["query-status", "query-memory-devices", "query-version"] {
        let ask = || monitor.execute(command, &Value::Null).map(drop);
        report.rows.push(series(Vmm::QemuQ35, command.to_owned(), ask)?);
    }
    drop(guest);
    for vmm in [Vmm::Daxvisor, Vmm::QemuQ35] {
        eprintln!("memory devices of {vmm}");
        report.rows.extend(memory::measure(vmm, &kernel)?);
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn series(vmm: Vmm, what: String, mut ask: impl FnMut() -> Result<()>) -> Result<Row> {
    // The first questions compile what answers them, where code is translated.
    for _ in 0..QUESTIONS / 10 {
        ask()?;
    }
    let mut ns = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let asked = Instant::now();
        ask()?;
        ns.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(Row { vmm, what, ns })
}

/// A program with a guest that is up; killed when dropped.
struct Guest {
    child: Child,
    socket: std::path::PathBuf,
}

impl Guest {
    fn start(staged: &Staged, vmm: Vmm) -> Result<Self> {
        let console = staged.console();
        let socket = console.with_extension("socket");
        for stale in [&console, &socket] {
            let _ = fs::remove_file(stale);
        }
        let mut command = staged.command(vmm, &Scenario::Boot { log: Log::Quiet })?;
        match vmm {
            Vmm::Daxvisor => command.arg("--api-socket").arg(&socket),
            _ => command
                .arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", socket.display())),
        };
        let guest = Self {
            child: command.spawn().context("cannot start the program")?,
            socket,
        };
        let deadline = Instant::now() + BOOT;
        let up = || fs::read(&console).is_ok_and(|text| text.windows(READY.len()).any(|w| w == READY));
        while !up() {
            ensure!(Instant::now() < deadline, "{vmm} has not booted within {BOOT:?}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(guest)
    }

    /// Nanoseconds of processor time that the thread called `name` uses while nothing is asked.
    fn idle(&self, name: &str) -> Result<u64> {
        let tasks = format!("/proc/{}/task", self.child.id());
        for task in fs::read_dir(&tasks)? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim() == name {
                let used = || -> Result<u64> {
                    let text = fs::read_to_string(task.join("schedstat"))?;
                    Ok(text.split(' ').next().unwrap_or_default().parse()?)
                };
                let before = used()?;
                thread::sleep(IDLE);
                return Ok(used()? - before);
            }
        }
        bail!("{tasks} has no thread {name}")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// QEMU's monitor, by its protocol.
struct Monitor {
    stream: BufReader<UnixStream>,
    /// Events that came before an answer.
    events: Vec<Value>,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
            events: vec![],
        };
        monitor.line()?;
        monitor.execute("qmp_capabilities", &Value::Null)?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut request = json!({ "execute": command });
        if arguments.is_object() {
            request["arguments"] = arguments.clone();
        }
        writeln!(self.stream.get_mut(), "{request}")?;
        loop {
            let mut line = self.line()?;
            ensure!(line["error"].is_null(), "{command}: {line}");
            if !line["return"].is_null() {
                return Ok(line["return"].take());
            }
            self.events.push(line);
        }
    }

    /// Waits for an event of this name, one that has come already included.
    fn event(&mut self, name: &str) -> Result<Value> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(at));
            }
            let line = self.line()?;
            self.events.push(line);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; microseconds from the question to the whole answer", self.kind)?;
        writeln!(
            f,
            "{:<12} {:<38} {:>6} {:>9} {:>9}",
            "program", "question", "n", "p50", "p99"
        )?;
        let mut shown: Vec<(Vmm, &str)> = vec![];
        for row in &self.rows {
            if shown.contains(&(row.vmm, &row.what)) {
                continue;
            }
            shown.push((row.vmm, &row.what));
            let same = self.rows.iter().filter(|r| r.vmm == row.vmm && r.what == row.what);
            let mut ns: Vec<_> = same.flat_map(|r| r.ns.iter().copied()).collect();
            ns.sort_unstable();
            let (p50, p99) = (us(quantile(&ns, 50)), us(quantile(&ns, 99)));
            writeln!(
                f,
                "{:<12} {:<38} {:>6} {p50:>9} {p99:>9}",
                row.vmm.to_string(),
                row.what,
                ns.len()
            )?;
        }
        let idle: Vec<_> = self.idle_ns.iter().map(|ns| us(*ns)).collect();
        writeln!(
            f,
            "processor time of daxvisor's API in {} s with an open connection and no question: {} us",
            IDLE.as_secs(),
            idle.join(", ")
        )?;
        match self.lost {
            0 => Ok(()),
            lost => writeln!(f, "{lost} attempts at a round came to no end, and are in no figure"),
        }
    }
}

fn us(ns: u64) -> String {
    format!("{}.{}", ns / 1000, ns % 1000 / 100)
}

/// The smallest of sorted figures that at least `percent` of them do not exceed.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_figures_that_were_measured() {
        let ns: Vec<u64> = (1..=200).collect();
        assert_eq!((quantile(&ns, 50), quantile(&ns, 99)), (100, 198));
        assert_eq!((quantile(&[7], 50), quantile(&[7], 99), quantile(&[], 50)), (7, 7, 0));
    }

    #[test]
    fn a_row_has_all_rounds_of_its_question() {
        let row = |ns: &[u64]| Row {
            vmm: Vmm::Daxvisor,
            what: "GET /vm".into(),
            ns: ns.to_vec(),
        };
        let report = Report {
            kind: "x".into(),
            rows: vec![row(&[1000, 2000]), row(&[3000])],
            idle_ns: vec![0, 1500],
            lost: 0,
        };
        let text = report.to_string();
        assert!(
            text.contains("daxvisor     GET /vm                                     3       2.0       3.0"),
            "{text}"
        );
        assert!(text.ends_with("no question: 0.0, 1.5 us\n"), "{text}");
        let lossy = Report { lost: 2, ..report };
        assert!(
            lossy
                .to_string()
                .ends_with("us\n2 attempts at a round came to no end, and are in no figure\n")
        );
    }
}
