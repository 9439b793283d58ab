//! Real Xen by multiboot, with a Debian kernel as its first domain: what dom0 makes of the machine's memory map and limits.

use anyhow::{Context, Result, ensure};
use guest_tests::{
    Guest, GuestBuilder, Scratch,
    guest::{NO_TICKS, program},
    host,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

/// Xen writes its console character by character, and everything that dom0 does in its page tables is a hypercall.
const HELLO: Duration = Duration::from_secs(420);
const KIB_768M: u64 = 768 << 10;

fn xen() -> GuestBuilder {
    GuestBuilder::new("xen-4.17-amd64")
        .loud()
        .memory("2G")
        .arg("--limits", "target=512M,static-max=768M")
        .arg("--module", "@debian-6.1-amd64 quiet")
        .timeout(600)
        .hello_within(HELLO)
}

fn kib(guest: &mut Guest, key: &str) -> Result<u64> {
    let line = guest.check(&format!("grep '^{key}:' /proc/meminfo"))?;
    let number = line.split_whitespace().nth(1).context("a number")?;
    Ok(number.parse()?)
}

/// It is dom0 of a real Xen, and its memory is within the limits of the machine.
fn expect_dom0_within_limits(guest: &mut Guest) -> Result<()> {
    let kind = guest.check("cat /sys/hypervisor/type /sys/hypervisor/guest_type /sys/hypervisor/version/major")?;
    ensure!(kind == "xen\nPV\n4", "{kind}");
    let total = kib(guest, "MemTotal")?;
    ensure!(total < KIB_768M && total > KIB_768M / 4, "MemTotal {total} kB");
    Ok(())
}

#[test]
fn dom0_reaches_the_agent_within_its_limit_with_nvdimms_and_powers_off() -> Result<()> {
    let mut guest = xen()
        .nvdimm("size=256M,id=a")
        .nvdimm("size=128M,id=b,label=0")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let buses = guest.check("cat /sys/bus/nd/devices/ndbus0/provider; ls -d /sys/bus/nd/devices/nmem* | wc -l")?;
    ensure!(buses == "ACPI.NFIT\n2", "{buses}");
    // The labels come through the mailbox, which dom0 reaches at its machine address.
    guest.check("ndctl list -D | grep -q nmem0 && ndctl read-labels nmem0 > /labels && test -s /labels")?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn dom0_refuses_a_memory_device_above_its_limit_at_boot() -> Result<()> {
    let mut guest = xen()
        .arg("--numa", "node=0,memory=2G,hotplug=1G")
        .arg("--memory-device", "256M,node=0,id=beyond")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let log = guest.check("dmesg | grep 'add_memory failed'")?;
    ensure!(log.contains("acpi PNP0C80:00"), "{log}");
    let total = kib(&mut guest, "MemTotal")?;
    ensure!(total < KIB_768M, "MemTotal {total} kB");
    guest.power_off()?;
    Ok(())
}

#[test]
fn dom0_moves_its_p2m_list_away_from_reserved_ranges_and_takes_a_sparse_map() -> Result<()> {
    // The list ends at the last of dom0's first 512M; RAM just below 1 TiB, where 40 address bits end, leaves most of the machine's
    // addresses empty. No NVDIMM: it would stand above that RAM, beyond the 512 GiB that dom0's list has room for.
    let mut guest = xen()
        .arg("--memory-range", "start=448M,size=128M,type=reserved,id=r")
        .arg("--memory-range", "start=1020G,size=256M,type=ram,id=far")
        .start()?;
    expect_dom0_within_limits(&mut guest)?;
    let iomem = guest.check("grep -i '^1c000000-23ffffff : reserved' /proc/iomem")?;
    ensure!(!iomem.is_empty());
    let log = guest.check("dmesg | grep -E 'Remapped [0-9]+ page|initrd moved'")?;
    ensure!(log.contains("Remapped"), "{log}");
    let console = guest.power_off()?.console;
    let far = console
        .lines()
        .any(|line| line.starts_with("(XEN)") && line.contains("000000ff00000000"));
    ensure!(far, "Xen says nothing of the far RAM: {console}");
    Ok(())
}

/// The last lines of the console of a real Xen that reset itself at its boot. Where the host is slow, one boot in some fifteen
/// ends like that: Xen waits a tenth of a second for ten ticks of the timer, and panics.
fn reset_at_boot(results: &Value, out: &Path) -> Option<String> {
    let lost = |result: &&Value| {
        let reset = result["reason"]
            .as_str()
            .is_some_and(|why| why.starts_with("the guest reset"));
        reset && result["kernel"] == "xen" && result["boot-seconds"].is_null()
    };
    let case = results["results"].as_array()?.iter().find(lost)?;
    let console = out.join(case["folder"].as_str()?).join("console.log");
    let lines = fs::read_to_string(console)
        .ok()
        .filter(|lines| lines.contains(NO_TICKS))?;
    let mut last: Vec<_> = lines
        .lines()
        .rev()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(6)
        .collect();
    last.reverse();
    Some(last.join(" / "))
}

/// docs/xen.md has the table of it.
#[test]
fn one_suite_gives_the_same_verdicts_under_xen_and_without_it() -> Result<()> {
    let files = Scratch::new("xen-suite")?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = files.join("out");
    let mut command = Command::new(program()?);
    command
        .arg("test")
        .arg(tests.join("suites/xen.toml"))
        .args(["--host", "kvm", "--no-skip", "--jobs", "1"])
        .args(["--kernel", "@debian-6.1-amd64:daxvisor"])
        .args(["--kernel", "@xen-4.17-amd64,dom0=@debian-6.1-amd64:xen"])
        .arg("--out")
        .arg(&out);
    let mut run = || -> Result<(Output, Value)> {
        let output = command.output()?;
        Ok((output, serde_json::from_slice(&fs::read(out.join("results.json"))?)?))
    };
    let (mut output, mut results) = run()?;
    for _ in 0..2 {
        let Some(last) = reset_at_boot(&results, &out) else {
            break;
        };
        host::report_retry("a boot of Xen", &format!("it reset itself, after: {last}"));
        (output, results) = run()?;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut table: BTreeMap<&str, [&str; 2]> = BTreeMap::new();
    for result in results["results"].as_array().context("no results")? {
        let scenario = result["scenario"].as_str().context("no scenario")?;
        let at = usize::from(result["kernel"] == "xen");
        table.entry(scenario).or_default()[at] = result["verdict"].as_str().unwrap_or_default();
    }
    let row = |(scenario, [ours, real]): (&&str, &[&str; 2])| format!("| `{scenario}` | {ours} | {real} |");
    let rows: Vec<_> = table.iter().map(row).collect();
    ensure!(
        table.len() == 2 && table.values().all(|[ours, real]| ours == real && !ours.is_empty()),
        "{}\n{said}{}",
        rows.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let page = fs::read_to_string(tests.join("../docs/xen.md"))?;
    for row in &rows {
        ensure!(page.contains(row.as_str()), "docs/xen.md has no row {row}");
    }
    ensure!(output.status.success(), "{said}");
    Ok(())
}
