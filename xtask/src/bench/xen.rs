//! `cargo xtask bench xen`: hypercalls and the balloon of a Xen guest, beside virtio-mem and a guest that finds KVM.

use super::{
    HostChoice, measured_on,
    poison::{median, nanos, percent},
    publish,
};
use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use guest_tests::{
    Guest, GuestBuilder, Scratch,
    api::{ApiClient, ctl},
    guest::program,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Instant,
};

const BALLOON: &str = "/sys/devices/system/xen_memory/xen_memory0";
/// Reads of a file, each of which is a hypercall, or none.
const READS: u64 = 2000;
/// Memory that goes and comes.
const MOVED: u64 = 512;
/// What both kinds of guests do: system calls, page faults, and the wake-ups of a pipe between two processors.
const WORK: &str = "dd if=/dev/zero bs=4k count=20000 2>/dev/null | cat > /dev/null; \
                    n=0; while [ $n -lt 100 ]; do /bin/true; n=$((n + 1)); done";

/// A script that touches so many MiB and gives them back to the kernel: memory that was never used costs more at its first touch,
/// and nothing when it goes.
fn touch(mib: u64) -> String {
    format!(
        "mkdir -p /t && mount -t tmpfs -o size=100% none /t && dd if=/dev/zero of=/t/all bs=1M count={mib} 2>/dev/null && umount /t"
    )
}

/// Arguments of `cargo xtask bench xen`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Rounds of all guests in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Whose KVM: this machine's, the nested host's, or the first of them that runs kernels
    #[arg(long, value_enum, default_value_t)]
    host: HostChoice,
    /// Where the figures go
    #[arg(long, value_name = "FILE", default_value = "target/bench/xen.json")]
    json: PathBuf,
    /// Kernel of the guest images
    #[arg(long, value_name = "NAME", default_value = "debian-6.12-amd64")]
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

/// All figures; nanoseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    kind: String,
    kernel: String,
    /// One hypercall, there and back.
    hypercall_ns: Vec<u64>,
    /// [`MOVED`] MiB, from the guest and to it.
    balloon_out_ns: Vec<u64>,
    balloon_in_ns: Vec<u64>,
    unplug_ns: Vec<u64>,
    plug_ns: Vec<u64>,
    /// Hypercalls that the balloon's memory took, there and back.
    balloon_calls: Vec<u64>,
    /// [`WORK`] in a Xen guest, and in one that finds KVM.
    xen_work_ns: Vec<u64>,
    kvm_work_ns: Vec<u64>,
    /// Exits to daxvisor meanwhile.
    xen_work_exits: Vec<u64>,
    kvm_work_exits: Vec<u64>,
}

/// Runs the verb.
pub(super) fn run(args: &Args) -> Result<()> {
    let plan = Plan {
        rounds: args.rounds,
        kernel: args.kernel.clone(),
    };
    let (mut report, kind): (Report, _) = measured_on(&plan, args.daxvisor.as_deref(), args.host, &[], "measure-xen")?;
    report.kind = kind;
    publish(&report, &args.json)
}

/// All rounds of a plan; the report goes to standard output.
pub(super) fn measure(plan: &Path) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan)?).context("the plan cannot be read")?;
    let mut report = Report {
        kernel: plan.kernel.clone(),
        ..Report::default()
    };
    for round in 1..=plan.rounds {
        eprintln!("round {round}");
        xen(&plan.kernel, &mut report)?;
        kvm(&plan.kernel, &mut report)?;
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// How long a script takes.
fn timed(guest: &mut Guest, script: &str) -> Result<u64> {
    let begun = Instant::now();
    guest.check(script)?;
    Ok(nanos(begun.elapsed()))
}

/// Exits to daxvisor, and how many of them are hypercalls.
fn exits(api: &mut ApiClient) -> Result<(u64, u64)> {
    let metrics = api.get("/vm/metrics")?;
    let count = |name: &str| metrics["exits"][name].as_u64().context("no count of exits");
    let calls = count("hypercalls")?;
    Ok((count("port")? + count("mmio")? + count("other")? + calls, calls))
}

/// The work in a guest: time, and exits.
fn work(guest: &mut Guest, api: &mut ApiClient) -> Result<(u64, u64)> {
    guest.check(WORK)?;
    let before = exits(api)?.0;
    let ns = timed(guest, WORK)?;
    Ok((ns, exits(api)?.0 - before))
}

fn xen(kernel: &str, report: &mut Report) -> Result<()> {
    let files = Scratch::new("bench")?;
    let mut guest = GuestBuilder::new(kernel)
        .timeout(900)
        .memory("1G")
        .cpus("2")
        .arg("--xen", "version=4.17")
        // Clearing what is given back is the kernel's own work, and most of it where code is translated.
        .cmdline("xen_scrub_pages=0")
        .arg("--api-socket", &files.text("api"))
        .start()?;
    let mut api = ApiClient::connect(&files.join("api"))?;
    let (ns, count) = work(&mut guest, &mut api)?;
    report.xen_work_ns.push(ns);
    report.xen_work_exits.push(count);

    let read = |name: &str| {
        format!("n=0; while [ $n -lt {READS} ]; do read -r x < /sys/hypervisor/{name}; n=$((n + 1)); done")
    };
    // The one is a constant of the kernel's, the other is asked for each time.
    let (known, asked) = (read("type"), read("version/extra"));
    timed(&mut guest, &known)?;
    let without = timed(&mut guest, &known)?;
    let before = exits(&mut api)?.1;
    let with = timed(&mut guest, &asked)?;
    let calls = exits(&mut api)?.1 - before;
    ensure!(
        (READS..READS + READS / 2).contains(&calls),
        "{calls} hypercalls in {READS} reads"
    );
    report.hypercall_ns.push(with.saturating_sub(without) / READS);

    let all: u64 = guest
        .check(&format!("cat {BALLOON}/info/current_kb"))?
        .parse()
        .context("no size")?;
    guest.check(&touch(600))?;
    let before = exits(&mut api)?.1;
    for (kib, figures) in [
        (all - (MOVED << 10), &mut report.balloon_out_ns),
        (all, &mut report.balloon_in_ns),
    ] {
        let script = format!(
            "echo {kib} > {BALLOON}/target_kb; \
             for n in $(seq 6000); do read -r now < {BALLOON}/info/current_kb; [ $now = {kib} ] && exit 0; usleep 10000; done; exit 1"
        );
        figures.push(timed(&mut guest, &script)?);
    }
    report.balloon_calls.push(exits(&mut api)?.1 - before);
    guest.power_off()?;
    Ok(())
}

fn kvm(kernel: &str, report: &mut Report) -> Result<()> {
    let files = Scratch::new("bench")?;
    let socket = files.join("api");
    let mut guest = GuestBuilder::new(kernel)
        .timeout(900)
        .memory("1G")
        .cpus("2")
        .arg("--numa", "node=0")
        .arg("--virtio-mem", &format!("size={MOVED}M,requested=0,node=0,id=grow"))
        .arg("--api-socket", &files.text("api"))
        .cmdline("memhp_default_state=online_movable")
        .start()?;
    let mut api = ApiClient::connect(&socket)?;
    let (ns, count) = work(&mut guest, &mut api)?;
    report.kvm_work_ns.push(ns);
    report.kvm_work_exits.push(count);
    guest.check("modprobe virtio_mem")?;
    for (size, figures) in [
        (format!("{MOVED}M"), &mut report.plug_ns),
        ("0".to_owned(), &mut report.unplug_ns),
    ] {
        if size == "0" {
            guest.check(&touch(600 + MOVED))?;
        }
        let begun = Instant::now();
        let done = ctl(&program()?, &socket, &["--wait", "memory", "target", "grow", &size])?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        figures.push(nanos(begun.elapsed()));
    }
    guest.power_off()?;
    Ok(())
}

/// MiB/s of [`MOVED`].
fn rate(ns: u64) -> u64 {
    (MOVED * 1_000_000_000).checked_div(ns).unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |all: &[u64]| median(all.iter().copied());
        writeln!(f, "{}, {}; medians", self.kind, self.kernel)?;
        writeln!(
            f,
            "a hypercall to daxvisor, there and back: {} ns",
            of(&self.hypercall_ns)
        )?;
        writeln!(f, "{MOVED} MiB                balloon   virtio-mem")?;
        for (what, balloon, other) in [
            ("from the guest", &self.balloon_out_ns, &self.unplug_ns),
            ("to the guest", &self.balloon_in_ns, &self.plug_ns),
        ] {
            let (balloon, other) = (rate(of(balloon)), rate(of(other)));
            writeln!(
                f,
                "{what:<16} {balloon:>7} MiB/s {other:>7} MiB/s  {} % of it",
                percent(balloon, other)
            )?;
        }
        writeln!(f, "hypercalls of both ways: {}", of(&self.balloon_calls))?;
        let (xen, kvm) = (of(&self.xen_work_ns), of(&self.kvm_work_ns));
        writeln!(
            f,
            "the same work with --xen: {} ms, {} exits to daxvisor; without: {} ms, {} exits; {} % of the time",
            xen / 1_000_000,
            of(&self.xen_work_exits),
            kvm / 1_000_000,
            of(&self.kvm_work_exits),
            percent(xen, kvm)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_rates_and_compares_them() {
        let report = Report {
            kind: "x".into(),
            kernel: "k".into(),
            hypercall_ns: vec![900, 1000, 5000],
            balloon_out_ns: vec![1_000_000_000],
            balloon_in_ns: vec![2_000_000_000],
            unplug_ns: vec![500_000_000],
            plug_ns: vec![500_000_000],
            balloon_calls: vec![600],
            xen_work_ns: vec![120_000_000],
            kvm_work_ns: vec![100_000_000],
            xen_work_exits: vec![7],
            kvm_work_exits: vec![5],
        };
        let text = report.to_string();
        assert!(text.contains("there and back: 1000 ns"), "{text}");
        assert!(text.contains("512 MiB/s    1024 MiB/s  50 % of it"), "{text}");
        assert!(text.contains("256 MiB/s    1024 MiB/s  25 % of it"), "{text}");
        assert!(text.ends_with("100 ms, 5 exits; 120 % of the time\n"), "{text}");
    }
}
