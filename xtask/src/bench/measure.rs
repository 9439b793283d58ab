//! The runs, one after the other, on this machine's KVM. Each is told on standard output as it begins and ends.

use super::{
    record::{Event, Failure, Job, Plan, Run, Scenario, Vmm},
    trace::{self, Trace},
    vmms::Staged,
};
use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Child,
    thread,
    time::Duration,
};

/// What the agent says when it is up.
pub const READY: &[u8] = b"daxvisor-agent: ready";
/// Longest boot that is no hang, in the time of the machine that measures: twice and more what the slowest program takes.
const BOOT_LIMIT: Duration = Duration::from_secs(4);
/// The same where somebody unpacks the kernel.
const UNPACK_LIMIT: Duration = Duration::from_secs(15);
/// How often the console is looked at; half of it is the mean error of a boot's time.
const LOOK: Duration = Duration::from_millis(2);
/// The same while exits are counted: each look is one more of them.
const SELDOM_LOOK: Duration = Duration::from_millis(50);

/// KVM's exit reasons (Linux 6.1, `include/uapi/linux/kvm.h`) that have a row.
const REASONS: [(u64, &str); 3] = [
    (2, "user exits: port"),
    (6, "user exits: mmio"),
    (10, "user exits: interrupted"),
];

/// All runs of a plan.
pub fn all(mut plan: Plan) -> Result<()> {
    if plan.overcommit {
        // QEMU reserves its guest's RAM, of which the nested host has less than the largest of the rows.
        fs::write("/proc/sys/vm/overcommit_memory", "1").context("cannot let memory be overcommitted")?;
    }
    let bench = Bench {
        staged: Staged::new(&plan)?,
        trace: Trace::new()?,
    };
    // The first run of a program reads it and its libraries, and compiles it where code is translated.
    for vmm in Vmm::ALL {
        if let Err(error) = bench.one(vmm, &Scenario::Start { gib: 1 }) {
            eprintln!("{vmm}, before the first round: {error:#}");
        }
    }
    while let Some(job) = plan.queue.next().cloned() {
        tell(&Event::Begin(job.clone()))?;
        let run = bench.run(job);
        plan.queue.done(&run);
        tell(&Event::End(run))?;
    }
    Ok(())
}

fn tell(event: &Event) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, event)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

struct Bench {
    staged: Staged,
    trace: Trace,
}

type Figures = BTreeMap<String, u64>;

impl Bench {
    fn run(&self, job: Job) -> Run {
        let (figures, failure) = match self.one(job.vmm, &job.scenario) {
            Ok(figures) => (figures, None),
            Err(error) if error.is::<Hang>() => (Figures::new(), Some(Failure::DidNotEnd(format!("{error:#}")))),
            Err(error) => (Figures::new(), Some(Failure::Failed(format!("{error:#}")))),
        };
        let outcome = failure.as_ref().map_or(format!("{figures:?}"), Failure::to_string);
        eprintln!("{job}: {outcome}");
        Run { job, figures, failure }
    }

    fn one(&self, vmm: Vmm, scenario: &Scenario) -> Result<Figures> {
        let start = matches!(scenario, Scenario::Start { .. });
        let counting = matches!(scenario, Scenario::Count { .. });
        let limit = match scenario {
            Scenario::Unpack { .. } => UNPACK_LIMIT,
            _ => BOOT_LIMIT,
        };
        self.trace.restart(if start {
            &[trace::EXEC, trace::ENTRY]
        } else {
            &[trace::EXEC]
        })?;
        let counter = if counting {
            Some(self.trace.count_user_exits()?)
        } else {
            None
        };
        fs::write(self.staged.console(), b"")?;
        let complaints = self.staged.console().with_extension("err");
        let mut child = Running(
            self.staged
                .command(vmm, scenario)?
                .stderr(File::create(&complaints)?)
                .spawn()?,
        );
        let wanted: &mut dyn FnMut() -> Result<Option<u64>> = if start {
            &mut || self.trace.first("kvm_entry:")
        } else {
            &mut || ready(&self.staged.console())
        };
        let reached = child
            .wait_for(limit, if counting { SELDOM_LOOK } else { LOOK }, wanted)
            .map_err(|error| {
                let said = format!(
                    "console, last line first: {}; stderr: {}",
                    tail(&self.staged.console()),
                    tail(&complaints)
                );
                match error.downcast::<Hang>() {
                    Ok(Hang(why)) => anyhow::Error::new(Hang(format!("{why}; {said}"))),
                    Err(error) => error.context(said),
                }
            })?;
        let exec = self
            .trace
            .first(&format!("filename={}", self.staged.program(vmm).display()))?;
        let took = reached - exec.context("the trace has no execution of the program")?;
        let pid = child.0.id();
        let mut figures = Figures::new();
        match scenario {
            Scenario::Start { .. } => {
                figures.insert("exec to first KVM_RUN".into(), took);
            }
            Scenario::Boot { .. } | Scenario::Unpack { .. } => {
                figures.insert("exec to init".into(), took);
                figures.insert(
                    "memory beyond guest RAM".into(),
                    overhead(&fs::read_to_string(format!("/proc/{pid}/smaps"))?, 1 << 30),
                );
            }
            Scenario::Count { .. } => figures.extend(statistics(pid)?),
        }
        if let Some(counter) = counter {
            let counts = counter.read()?;
            figures.insert("user exits".into(), counts.iter().map(|(_, n)| n).sum());
            for (reason, name) in REASONS {
                let count = counts
                    .iter()
                    .find(|(number, _)| *number == reason)
                    .map_or(0, |(_, n)| *n);
                figures.insert(name.into(), count);
            }
        }
        Ok(figures)
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
}

/// The limit was exceeded.
#[derive(Debug)]
struct Hang(String);

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hang {}

/// A program that ends with its owner.
struct Running(Child);

impl Running {
    fn wait_for(
        &mut self,
        limit: Duration,
        look: Duration,
        wanted: &mut dyn FnMut() -> Result<Option<u64>>,
    ) -> Result<u64> {
        let from = now();
        loop {
            if let Some(at) = wanted()? {
                return Ok(at);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!(
                    "ended early with code {:?}, signal {:?}",
                    status.code(),
                    status.signal()
                );
            }
            if now() - from > limit.as_nanos().try_into().unwrap_or(u64::MAX) {
                return Err(Hang(format!("not there after {limit:?} of the host's time")).into());
            }
            thread::sleep(look);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The clock of the trace.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The time, once the agent has said that it is ready.
fn ready(console: &Path) -> Result<Option<u64>> {
    let at = now();
    let mut text = Vec::new();
    File::open(console)?.read_to_end(&mut text)?;
    Ok(text.windows(READY.len()).any(|part| part == READY).then_some(at))
}

/// What KVM counted for the machine of `pid`.
pub(super) fn statistics(pid: u32) -> Result<Figures> {
    let mut figures = Figures::new();
    for entry in fs::read_dir("/sys/kernel/debug/kvm").context("cannot read KVM's statistics; hint: are you root?")? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(&format!("{pid}-")) {
            continue;
        }
        for file in [
            "exits",
            "io_exits",
            "mmio_exits",
            "halt_exits",
            "irq_exits",
            "irq_injections",
            "pf_taken",
        ] {
            let text =
                fs::read_to_string(entry.path().join(file)).with_context(|| format!("KVM has no statistic {file}"))?;
            let name = if file == "exits" {
                "VM exits".to_owned()
            } else {
                format!("VM exits: {file}")
            };
            figures.insert(name, text.trim().parse()?);
        }
    }
    if figures.is_empty() {
        bail!("KVM has no statistics of process {pid}");
    }
    Ok(figures)
}

/// Pss of a process in bytes without its guest's RAM: the run of adjoining mappings that is `ram` long, or, where neighbours
/// have grown together, the largest mapping.
fn overhead(smaps: &str, ram: u64) -> u64 {
    let mut maps: Vec<(u64, u64, u64)> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(head), value) = (words.next(), words.next()) else {
            continue;
        };
        if head == "Pss:" {
            let kib: u64 = value.and_then(|v| v.parse().ok()).unwrap_or(0);
            if let Some(map) = maps.last_mut() {
                map.2 += kib * 1024;
            }
        } else if let Some((start, end)) = head.split_once('-')
            && let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            maps.push((start, end, 0));
        }
    }
    let all: u64 = maps.iter().map(|map| map.2).sum();
    let window = (0..maps.len()).find_map(|first| {
        let mut end = maps.get(first)?.0;
        let mut pss = 0;
        for map in maps.get(first..)?.iter().take_while(|map| map.1 - maps[first].0 <= ram) {
            if map.0 != end {
                return None;
            }
            end = map.1;
            pss += map.2;
            if end - maps[first].0 == ram {
                return Some(pss);
            }
        }
        None
    });
    let largest = maps.iter().max_by_key(|map| map.1 - map.0).map_or(0, |map| map.2);
    all - window.unwrap_or(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ram_is_left_out_in_one_mapping_or_in_several() {
        let map = |range: &str, kib: u64| {
            format!("{range} rw-p 00000000 00:00 0 \nSize: 4 kB\nPss: {kib} kB\nPss_Dirty: 9 kB\n")
        };
        let small = map("1000-3000", 4) + &map("5000-6000", 1);
        assert_eq!(
            overhead(&(small.clone() + &map("100000-200000", 700)), 0x10_0000),
            5 << 10
        );
        let parts = map("100000-140000", 300) + &map("140000-200000", 400) + &map("200000-201000", 2);
        assert_eq!(overhead(&(small.clone() + &parts), 0x10_0000), 7 << 10);
        assert_eq!(overhead(&(small + &map("100000-300000", 700)), 0x10_0000), 5 << 10);
        assert_eq!(overhead("", 1), 0);
    }
}
