//! `cargo xtask bench poison`: what memory errors cost, and what they cost a guest that has none.
//!
//! No other monitor has them, so daxvisor is compared with itself: the same work in guests that never had an error, that had
//! many which were mended, and that have some elsewhere.

use super::{HostChoice, measure::statistics, measured_on, publish};
use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    poison::{LINE, MEMORY, Machine, PAGE},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Errors that are made at once.
const MANY: u32 = 100_000;
/// Errors of a guest that works beside them.
const SOME: u32 = 100;
/// Loads of bad lines whose latency is taken.
const LOADS: usize = 8;
/// Bytes that the guest's work reads, and how often.
const WORK: &str = "dd if=/tmp/data of=/dev/null bs=1M 2>/dev/null";
const MIB: u64 = 64;
/// The line of a process's status that says what it took, without its files.
const RESIDENT: &str = "RssAnon";

/// Arguments of `cargo xtask bench poison`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Rounds of all guests in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/poison.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.1-amd64")]
    kernel: String,
    /// The daxvisor to measure, instead of building one
    #[arg(long, value_name = "PATH")]
    daxvisor: Option<PathBuf>,
}

/// What the measuring process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    rounds: u32,
    kernel: String,
}

/// What a guest has behind it when it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Past {
    Clean,
    Mended,
    Bad,
}

/// The same work in one guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    past: Past,
    /// It was done before since the errors were made: KVM forgets its tables of the whole guest with each slot that goes.
    settled: bool,
    ns: u64,
    exits: u64,
}

/// All figures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    kind: String,
    work: Vec<Work>,
    /// Wall time of the request that makes [`MANY`] errors, and processor time of daxvisor meanwhile.
    injected_ns: Vec<u64>,
    injected_cpu_ns: Vec<u64>,
    /// Bytes of resident memory that they took.
    injected_bytes: Vec<u64>,
    /// From the load of a bad line to the machine check.
    latency_us: Vec<u64>,
    /// The same while [`MANY`] other lines are bad.
    latency_of_many_us: Vec<u64>,
}

/// Runs the verb.
pub(super) fn run(args: &Args) -> Result<()> {
    let plan = Plan {
        rounds: args.rounds,
        kernel: args.kernel.clone(),
    };
    let (mut report, kind): (Report, _) =
        measured_on(&plan, args.daxvisor.as_deref(), args.host, &[], "measure-poison")?;
    report.kind = kind;
    publish(&report, &args.json)
}

/// All rounds of a plan; the report goes to standard output.
pub(super) fn measure(plan: &Path) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?;
    let mut report = Report::default();
    for round in 1..=plan.rounds {
        for past in [Past::Clean, Past::Mended, Past::Bad] {
            eprintln!("round {round}, {past}");
            machine(&plan.kernel, past, &mut report)?;
        }
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn machine(kernel: &str, past: Past, report: &mut Report) -> Result<()> {
    let files = Scratch::new("bench")?;
    let guest = GuestBuilder::new(kernel)
        .timeout(900)
        .memory("1G")
        .arg("--cpu", "vendor=AuthenticAMD")
        .arg("--numa", "node=0")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--memory-slots", "1")
        .arg("--memory-device", "512M,node=1,id=hot")
        .arg("--api-socket", &files.text("api"))
        .hello_within(Duration::from_secs(240))
        .start()?;
    let mut m = Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?);
    let pid = m.api.get("/vm")?["pid"].as_u64().context("no pid")?;
    m.guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/data bs=1M count={MIB} 2>/dev/null && {WORK}"
    ))?;
    match past {
        Past::Clean => {}
        Past::Mended => {
            many(&mut m.api, pid, report)?;
            mend(&mut m.api)?;
        }
        Past::Bad => inject(&mut m.api, SOME)?,
    }
    let pid = u32::try_from(pid)?;
    let exits = || Ok::<_, anyhow::Error>(*statistics(pid)?.get("VM exits").context("no exits")?);
    for settled in [false, true] {
        let (before, begun) = (exits()?, Instant::now());
        m.guest.check(&format!("{WORK}; {WORK}; {WORK}; {WORK}"))?;
        report.work.push(Work {
            past,
            settled,
            ns: nanos(begun.elapsed()),
            exits: exits()? - before,
        });
    }
    match past {
        Past::Clean => report.latency_us.extend(loads(&mut m)?),
        Past::Mended => {
            inject(&mut m.api, MANY)?;
            report.latency_of_many_us.extend(loads(&mut m)?);
        }
        Past::Bad => {}
    }
    m.guest
        .end(0, |client| client.power_off(Instant::now() + Duration::from_secs(60)))?;
    Ok(())
}

/// Errors of memory that the guest has not put online.
fn inject(client: &mut ApiClient, count: u32) -> Result<()> {
    let asked = json!({"node": 1, "count": count, "seed": 1});
    let done = client.done("POST", "/faults", Some(&asked))?;
    ensure!(done["dry_run"] == false, "{done}");
    Ok(())
}

fn many(client: &mut ApiClient, pid: u64, report: &mut Report) -> Result<()> {
    let (cpu, resident) = (facts::processor_time(pid)?, facts::resident(pid, RESIDENT)?);
    let begun = Instant::now();
    inject(client, MANY)?;
    report.injected_ns.push(nanos(begun.elapsed()));
    report.injected_cpu_ns.push(facts::processor_time(pid)? - cpu);
    report
        .injected_bytes
        .push(facts::resident(pid, RESIDENT)?.saturating_sub(resident));
    Ok(())
}

fn mend(client: &mut ApiClient) -> Result<()> {
    let map = client.get("/memory/map")?;
    let device = facts::find(&map["map"], "name", "hot")?;
    let (start, last) = (facts::number(device, "start")?, facts::number(device, "last")?);
    client.done(
        "POST",
        "/faults/clear",
        Some(&json!({"gpa": start, "len": last - start + 1})),
    )?;
    let faults = client.get("/faults")?;
    ensure!(faults["pages"] == 0, "{}", faults["pages"]);
    Ok(())
}

/// Programs that load a bad line of their own memory; how long each took to its machine check.
fn loads(m: &mut Machine) -> Result<Vec<u64>> {
    let mut latency = vec![];
    for _ in 0..LOADS {
        let program = m.program("", &format!("anon {MEMORY}"), "", &format!("load:{}", PAGE + LINE))?;
        m.inject(&program, "RAM", 0)?;
        let (code, said) = m.go_on(&program)?;
        ensure!(code == "7", "memprobe ended with {code}, not with SIGBUS: {said}");
        let faults = m.faults()?;
        latency.push(facts::number(&faults["counts"], "last_latency_us")?);
    }
    Ok(latency)
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "never an error",
            Self::Mended => "errors that were mended",
            Self::Bad => "errors elsewhere",
        })
    }
}

pub(super) fn median(figures: impl IntoIterator<Item = u64>) -> u64 {
    let mut all: Vec<u64> = figures.into_iter().collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// `part` in per cent of `whole`.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; medians", self.kind)?;
        for (settled, when) in [(false, "for the first time"), (true, "again")] {
            let of = |past, which: fn(&Work) -> u64| {
                let same = self
                    .work
                    .iter()
                    .filter(|work| work.past == past && work.settled == settled);
                median(same.map(which))
            };
            let (time, exits) = (of(Past::Clean, |w| w.ns), of(Past::Clean, |w| w.exits));
            writeln!(f, "reading {} MiB {when}, in a guest with", 4 * MIB)?;
            for past in [Past::Clean, Past::Mended, Past::Bad] {
                let (ns, n) = (of(past, |w| w.ns), of(past, |w| w.exits));
                let ratios = (percent(ns, time), percent(n, exits));
                writeln!(
                    f,
                    "{past:<24} {:>9} us {n:>9} exits  {} % and {} % of the first",
                    ns / 1000,
                    ratios.0,
                    ratios.1
                )?;
            }
        }
        let bytes = median(self.injected_bytes.iter().copied());
        writeln!(
            f,
            "{MANY} errors at once: {} us, of which daxvisor ran {} us; {bytes} bytes, {} for each",
            median(self.injected_ns.iter().copied()) / 1000,
            median(self.injected_cpu_ns.iter().copied()) / 1000,
            bytes / u64::from(MANY)
        )?;
        writeln!(
            f,
            "from a load of a bad line to its machine check: {} us ({} loads); while {MANY} others are bad: {} us ({})",
            median(self.latency_us.iter().copied()),
            self.latency_us.len(),
            median(self.latency_of_many_us.iter().copied()),
            self.latency_of_many_us.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_compares_with_the_guest_that_never_had_an_error() {
        let work = |past, ns, exits| Work {
            past,
            settled: true,
            ns,
            exits,
        };
        let report = Report {
            kind: "x".into(),
            work: vec![
                work(Past::Clean, 2_000_000, 100),
                work(Past::Mended, 2_000_000, 100),
                work(Past::Bad, 3_000_000, 150),
            ],
            injected_ns: vec![5_000_000],
            injected_cpu_ns: vec![4_000_000],
            injected_bytes: vec![8_000_000],
            latency_us: vec![3, 9, 5],
            latency_of_many_us: vec![70, 80, 90],
        };
        let text = report.to_string();
        assert!(
            text.contains("errors elsewhere              3000 us       150 exits  150 % and 150 % of the first"),
            "{text}"
        );
        assert!(
            text.contains("of which daxvisor ran 4000 us; 8000000 bytes, 80 for each"),
            "{text}"
        );
        assert!(
            text.ends_with("machine check: 5 us (3 loads); while 100000 others are bad: 80 us (3)\n"),
            "{text}"
        );
    }
}
