//! The extended error log on real kernels: what Linux's driver (CONFIG_ACPI_EXTLOG) finds, and what its trace event
//! `ras:extlog_mem_event` and rasdaemon's table name of each machine check.

use super::ras::{TRACE, machine, notify, page, row, rows, says, start};
use anyhow::{Context, Result, ensure};
use guest_tests::{
    Scratch,
    poison::{LINE, MEMORY, Machine, PAGE, Step, walk},
};
use serde_json::{Value, json};

/// Where the kernel is told how often it polls machine check banks, in seconds.
const POLL: &str = "/sys/devices/system/machinecheck/machinecheck0/check_interval";

fn log(m: &mut Machine) -> Result<Value> {
    Ok(m.faults()?["extended_log"].clone())
}

fn number(log: &Value, name: &str) -> Result<u64> {
    log[name].as_u64().with_context(|| log.to_string())
}

/// The event of this address, as the kernel's trace has it.
fn event(m: &mut Machine, gpa: u64) -> Result<String> {
    m.guest.check(&format!(
        "for n in $(seq 300); do grep -m1 'extlog_mem_event: .* physical addr: {gpa:016x} ' {TRACE}/trace && exit 0; sleep 0.1; done; \
         tail -n 20 {TRACE}/trace; dmesg | tail -n 5; exit 1"
    ))
}

/// How many events there are of this address.
fn events(m: &mut Machine, gpa: u64) -> Result<String> {
    m.guest.check(&format!(
        "grep -c 'extlog_mem_event: .* physical addr: {gpa:016x} ' {TRACE}/trace || true"
    ))
}

/// The error is named in the trace and in rasdaemon's table, with its severity (that of CPER, and in words), kind and part.
fn named(m: &mut Machine, gpa: u64, severity: (u64, &str), kind: (u64, &str)) -> Result<()> {
    let event = event(m, gpa)?;
    let (said, (_, tail)) = (
        format!("}} {} error: {} physical addr", severity.1, kind.1),
        event.rsplit_once("FRU: ").context(event.clone())?,
    );
    ensure!(
        event.contains(&said)
            && event.contains("(mask lsb: 6)")
            && event.contains("node:0 DIMM location: Node 0 RAM 0 ")
            && tail.ends_with(" RAM"),
        "{event}"
    );
    says(m, &format!("extlog_mem_event .*{gpa:x}"))?;
    let row = row(m, "extlog_event", &format!("address = {gpa}"))?;
    ensure!(
        (&row["severity"], &row["etype"], &row["fru_text"]) == (&json!(severity.0), &json!(kind.0), &json!("RAM")),
        "{row}"
    );
    Ok(())
}

/// The driver has claimed both parts of the log and said that it uses it.
fn claimed(m: &mut Machine) -> Result<()> {
    m.guest
        .check("grep -q '1d0000-.*L1 Table' /proc/iomem && grep -q '1d8000-001e8fff : Elog Table' /proc/iomem || { cat /proc/iomem; exit 1; }")?;
    let wanted = json!({"opted_in": true, "logged": 0, "read": 0, "waiting": 0, "lost": 0});
    let found = log(m)?;
    ensure!(found == wanted, "{found}");
    Ok(())
}

/// A load of a bad line, by a program on the second processor: its machine check has a record of its own.
fn consumed(m: &mut Machine) -> Result<()> {
    let steps = format!("load:{}", PAGE + LINE);
    let victim = m.program("taskset -c 1", &format!("anon {MEMORY}"), "", &steps)?;
    m.inject(&victim, "RAM", 0)?;
    let (code, said) = m.go_on(&victim)?;
    ensure!(code == "7" && said.starts_with("SIGBUS code 4 "), "{code}: {said}");
    named(m, victim.gpa + LINE, (0, "recoverable"), (3, "multi-bit ECC"))
}

/// An error that was corrected, which the kernel finds when it polls.
fn corrected(m: &mut Machine) -> Result<()> {
    let gpa = page(m)? + LINE;
    notify(m, &json!({"gpa": gpa, "severity": "corrected", "via": "machine-check"}))?;
    named(m, gpa, (2, "corrected"), (2, "single-bit ECC"))
}

/// One that nobody has met yet.
fn deferred(m: &mut Machine) -> Result<()> {
    let gpa = page(m)? + LINE;
    notify(m, &json!({"gpa": gpa, "severity": "deferred", "via": "machine-check"}))?;
    named(m, gpa, (0, "recoverable"), (3, "multi-bit ECC"))
}

/// Of several errors between two polls the bank has the last one; the log has three, and says how many are gone.
fn between_polls(m: &mut Machine) -> Result<()> {
    let gpa = page(m)?;
    // The next poll is so much later; a change would have the kernel clear its banks without a word.
    m.guest.check(&format!("echo 12 > {POLL}"))?;
    let before = log(m)?;
    let lines: Vec<u64> = (0..4).map(|n| gpa + n * LINE).collect();
    for gpa in &lines {
        notify(m, &json!({"gpa": gpa, "severity": "corrected", "via": "machine-check"}))?;
    }
    let waiting = log(m)?;
    ensure!(
        (number(&waiting, "waiting")?, number(&waiting, "lost")?) == (3, number(&before, "lost")? + 1),
        "{waiting}"
    );
    for gpa in &lines[1..] {
        event(m, *gpa)?;
    }
    let first = events(m, lines[0])?;
    ensure!(first == "0", "{first} events of an error that had to make room");
    let records = m.guest.check(&format!(
        "grep mce_record {TRACE}/trace | grep -cE 'ADDR[^,]*: ({})[,/]'",
        lines
            .iter()
            .map(|gpa| format!("{gpa:016x}"))
            .collect::<Vec<_>>()
            .join("|")
    ))?;
    ensure!(records == "1", "{records} records of the bank");
    Ok(())
}

/// What was corrected is the collector's (CONFIG_RAS_CEC): the driver clears the record and says nothing.
fn collected(m: &mut Machine) -> Result<()> {
    let gpa = page(m)? + LINE;
    notify(m, &json!({"gpa": gpa, "severity": "corrected", "via": "machine-check"}))?;
    says(m, &format!("mce_record .* addr= {gpa:x},"))?;
    all_read(m)?;
    let count = events(m, gpa)?;
    let found = rows(m, "extlog_event", &format!("address = {gpa}"))?;
    ensure!(count == "0" && found.is_empty(), "{count} events, {found:?}");
    Ok(())
}

/// The guest reads all that was logged, soon.
fn all_read(m: &mut Machine) -> Result<()> {
    let mut last = Value::Null;
    for _ in 0..100 {
        last = log(m)?;
        if last["waiting"] == 0 {
            let (logged, read, lost) = (number(&last, "logged")?, number(&last, "read")?, number(&last, "lost")?);
            ensure!(logged > 0 && read + lost == logged, "{last}");
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("{last}")
}

fn watched(kernel: &str, vendor: &str, cmdline: &str, steps: &[(&str, Step)]) -> Result<()> {
    let files = Scratch::new("extlog")?;
    let machine = machine(kernel, vendor, &files, "on,extlog=on")
        .cpus("2")
        .cmdline(cmdline);
    let mut m = start(kernel, &machine, &files)?;
    walk(&mut m, steps)?;
    m.guest.power_off()?;
    Ok(())
}

#[test]
fn the_kernel_names_the_addresses_of_machine_checks_on_6_1() -> Result<()> {
    let steps: [(&str, Step); 6] = [
        ("the driver", claimed),
        ("a load", consumed),
        ("a corrected error", corrected),
        ("a deferred error", deferred),
        ("errors between two polls", between_polls),
        ("all are read", all_read),
    ];
    watched("debian-6.1-amd64", "AuthenticAMD", "", &steps)
}

#[test]
fn the_collector_of_corrected_errors_comes_before_the_log_on_6_12() -> Result<()> {
    let steps: [(&str, Step); 5] = [
        ("the driver", claimed),
        ("a load", consumed),
        ("a corrected error", collected),
        ("a deferred error", deferred),
        ("all are read", all_read),
    ];
    watched("debian-6.12-amd64", "AuthenticAMD", "", &steps)
}

/// On KVM of AMD's processors a load would be a panic, and what was not corrected is not polled.
#[test]
fn without_the_collector_corrected_errors_are_named_under_intels_name() -> Result<()> {
    let steps: [(&str, Step); 4] = [
        ("the driver", claimed),
        ("a corrected error", corrected),
        ("errors between two polls", between_polls),
        ("all are read", all_read),
    ];
    watched("debian-6.12-amd64", "GenuineIntel", "ras=cec_disable", &steps)
}
