//! The platform's error interfaces on real kernels: firmware tells of errors (GHES), keeps them over a boot (BERT, ERST), and
//! makes them at the guest's wish (EINJ).

use anyhow::{Context, Result, ensure};
use guest_tests::{
    Guest, GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    poison::{MEMORY, Machine, PAGE, Program, Step, walk},
};
use serde_json::{Value, json};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

const EINJ: &str = "/sys/kernel/debug/apei/einj";
/// Records by name, with what they hold.
const LIST_RECORDS: &str = "cd /sys/fs/pstore && sha256sum dmesg-erst-*";
/// Error types of EINJ.
const MEMORY_CORRECTED: u32 = 8;
const MEMORY_RECOVERABLE: u32 = 0x10;

fn start(kernel: &str, files: &Scratch) -> Result<Machine> {
    let guest = GuestBuilder::new(kernel)
        .arg("--cpu", "vendor=AuthenticAMD,add=erms")
        .arg("--api-socket", &files.text("api"))
        .arg("--apei", &format!("on,poll=500ms,records={}", files.text("records")))
        .arg("--on-reset", "restart")
        .cmdline("panic=1 module_blacklist=pvpanic,pvpanic_mmio")
        .hello_within(Duration::from_secs(240))
        .start()?;
    booted(kernel, guest, files)
}

/// A guest that has just booted, with the interfaces where its programs find them.
fn booted(kernel: &str, mut guest: Guest, files: &Scratch) -> Result<Machine> {
    guest.check(
        "mount -t debugfs none /sys/kernel/debug 2>/dev/null; modprobe einj && \
         mount -t pstore none /sys/fs/pstore 2>/dev/null; test -d /sys/kernel/debug/apei/einj",
    )?;
    Ok(Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?))
}

/// A program with memory of its own.
fn program(m: &mut Machine, then: &str) -> Result<Program> {
    m.program("", &format!("anon {MEMORY}"), "", then)
}

fn notify(m: &mut Machine, asked: &Value) -> Result<Value> {
    m.api.done("POST", "/faults/notify", Some(asked))
}

/// Waits for a line of the kernel's log since `mark`.
fn log(m: &mut Machine, mark: &str, wanted: &str) -> Result<String> {
    m.guest.check(&format!(
        "for n in $(seq 200); do dmesg | sed '1,/{mark}/d' | grep -E '{wanted}' && exit 0; sleep 0.1; done; \
         dmesg | sed '1,/{mark}/d'; exit 1"
    ))
}

/// A line in the kernel's log from which on something is looked for.
fn marked(m: &mut Machine, name: &str) -> Result<String> {
    let mark = format!("=== {name} ===");
    m.guest.check(&format!("echo '{mark}' > /dev/kmsg"))?;
    Ok(mark)
}

fn source_of(m: &mut Machine, name: &str) -> Result<Value> {
    let faults = m.faults()?;
    Ok(facts::find(&faults["sources"], "source", name)?.clone())
}

/// The guest has read and acknowledged all that a source had, soon.
fn all_read(m: &mut Machine, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let source = source_of(m, name)?;
        if source["acknowledged"] == source["reported"] && source["waiting"] == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{source}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The kernel has found all four tables, and drives both sources.
fn tables_are_taken(m: &mut Machine) -> Result<()> {
    let log = m.guest.check("dmesg | grep -E 'HEST|GHES|ERST|BERT'")?;
    for wanted in [
        "HEST: Table parsing has been initialized",
        "ERST: Error Record Serialization Table (ERST) support is initialized",
    ] {
        ensure!(log.contains(wanted), "{wanted}: {log}");
    }
    let sources = m.guest.check("ls -d /sys/bus/platform/drivers/GHES/GHES.* | wc -l")?;
    ensure!(sources == "2", "{sources} sources are driven");
    let maker = m
        .guest
        .check("cd /sys/class/dmi/id && cat sys_vendor product_name bios_vendor")?;
    ensure!(maker == "daxvisor\nvirtual machine\ndaxvisor", "{maker}");
    let types = m.guest.check(&format!("cat {EINJ}/available_error_type | wc -l"))?;
    ensure!(types == "6", "{types} types");
    Ok(())
}

/// Firmware tells of corrected errors: the kernel logs them and nothing else happens; when there are too many, it moves the
/// page's contents and stops to use it.
fn corrected(m: &mut Machine) -> Result<()> {
    let reader = program(m, &format!("load:{PAGE}"))?;
    let gpa = reader.gpa;
    let before = m.lost()?;
    // Another line each time: Linux does not log the same error twice within ten seconds.
    for (via, source, gpa) in [("ghes", "notified", gpa), ("ghes-polled", "polled", gpa + 64)] {
        let mark = marked(m, via)?;
        let told = notify(m, &json!({"gpa": gpa, "severity": "corrected", "via": via}))?;
        ensure!(
            // The guest may have read it by now.
            told["gpa"] == gpa && told["waiting"].as_u64().is_some_and(|waiting| waiting <= 1) && told["via"] == via,
            "{told}"
        );
        log(m, &mark, &format!("ADDR {gpa:x}"))?;
        if source == "notified" {
            // The first one is printed whole: its handle is that of a module which SMBIOS names.
            log(m, &mark, "DIMM location: Node 0 RAM 0")?;
        }
        all_read(m, source)?;
    }
    ensure!(m.lost()? == before);
    let mark = marked(m, "threshold")?;
    notify(
        m,
        &json!({"gpa": gpa + 128, "severity": "corrected", "threshold-exceeded": true}),
    )?;
    log(m, &mark, &format!("ADDR {:x}", gpa + 128))?;
    m.guest.check(&format!(
        "for n in $(seq 100); do test \"$(sed -n 's/HardwareCorrupted: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)\" = {} && exit 0; \
         sleep 0.1; done; dmesg | tail; exit 1",
        before + 4
    ))?;
    let (code, said) = m.go_on(&reader)?;
    let wanted = format!("load {PAGE:#x}: {:#x}", PAGE + 1);
    ensure!(
        (code.as_str(), said.as_str()) == ("0", wanted.as_str()),
        "{code}: {said}"
    );
    Ok(())
}

/// An error that the platform knows of takes the page out of use before anybody loads it; a program that has it mapped and
/// has asked for nothing special goes on until it does load it.
fn known(m: &mut Machine) -> Result<()> {
    let reader = program(m, &format!("load:{}", PAGE + 64))?;
    let gpa = reader.gpa;
    let before = m.lost()?;
    let mark = marked(m, "known")?;
    m.api
        .done("POST", "/faults", Some(&json!({"gpa": gpa + 64, "known": true})))?;
    log(m, &mark, "event severity: recoverable")?;
    log(
        m,
        &mark,
        &format!("Memory failure: {:#x}: recovery action for .*: Recovered", gpa >> 12),
    )?;
    ensure!(m.lost()? == before + 4);
    let (code, said) = m.go_on(&reader)?;
    ensure!(code == "7" && said.starts_with("SIGBUS"), "{code}: {said}");
    let faults = m.faults()?;
    ensure!(
        faults["counts"]["consumed"] == 0,
        "the kernel had unmapped it: {faults}"
    );
    Ok(())
}

/// The error of a processor is logged with its APIC id.
fn processor(m: &mut Machine) -> Result<()> {
    let mark = marked(m, "processor")?;
    notify(m, &json!({"vcpu": 0, "severity": "corrected"}))?;
    log(m, &mark, "event severity: corrected")?;
    log(m, &mark, "section_type: general processor error")?;
    log(m, &mark, "processor_id: 0x0000000000000000")?;
    Ok(())
}

fn inject(m: &mut Machine, kind: u32, gpa: u64, trigger: bool) -> Result<()> {
    let notrigger = u8::from(!trigger);
    m.guest.check(&format!(
        "cd {EINJ} && echo {kind:#x} > error_type && echo {gpa:#x} > param1 && echo 0xfffffffffffff000 > param2 && \
         echo {notrigger} > notrigger && echo 1 > error_inject"
    ))?;
    Ok(())
}

/// The guest's root injects as on a server: told at once where it triggers the error, met by a program where it does not.
fn einj(m: &mut Machine) -> Result<()> {
    let reader = program(m, &format!("load:{}", PAGE + 128))?;
    let gpa = reader.gpa;
    let mark = marked(m, "corrected by EINJ")?;
    inject(m, MEMORY_CORRECTED, gpa, true)?;
    log(m, &mark, &format!("ADDR {gpa:x}"))?;
    let faults = m.faults()?;
    let mine = |fault: &&Value| fault["source"] == "einj";
    ensure!(
        !facts::list(&faults, "faults")?.iter().any(|fault| mine(&fault)),
        "{faults}"
    );

    inject(m, MEMORY_RECOVERABLE, gpa, false)?;
    // What is bad already is bad at once, and those that follow are not kept waiting.
    inject(m, MEMORY_RECOVERABLE, gpa, false)?;
    let faults = m.faults()?;
    let found = facts::list(&faults, "faults")?.iter().find(mine);
    let found = found.with_context(|| faults.to_string())?;
    ensure!(
        (&found["gpa"], &found["len"], &found["state"]) == (&json!(gpa), &json!(4096), &json!("latent")),
        "{found}"
    );
    let (code, said) = m.go_on(&reader)?;
    ensure!(code == "7" && said.starts_with("SIGBUS code 4 "), "{code}: {said}");
    let faults = m.faults()?;
    ensure!(faults["counts"]["consumed"] == 1, "{faults}");

    let gpa = program(m, "")?.gpa;
    let mark = marked(m, "recoverable by EINJ")?;
    inject(m, MEMORY_RECOVERABLE, gpa, true)?;
    log(
        m,
        &mark,
        &format!("Memory failure: {:#x}: recovery action for .*: Recovered", gpa >> 12),
    )?;
    // What is no memory, or the firmware's.
    let refused = format!(
        "cd {EINJ} && echo 0x10 > error_type && echo 0x100000 > param1 && echo 0xfffffffffffff000 > param2 && echo 1 > error_inject"
    );
    m.guest.fails(&refused)?;
    Ok(())
}

/// A fatal error panics the guest. The next boot finds it in BERT, and the log of the panic in ERST.
fn fatal(mut m: Machine, files: &Scratch) -> Result<Machine> {
    let gpa = program(&mut m, "")?.gpa;
    notify(&mut m, &json!({"gpa": gpa, "severity": "fatal"}))?;
    let mut m = booted(&m.kernel, m.guest.again()?, files)?;
    let log = m
        .guest
        .check("dmesg | grep -A40 'BERT: Error records from previous boot'")?;
    ensure!(
        log.contains("event severity: fatal") && log.contains(&format!("{gpa:#018x}")),
        "{log}"
    );
    let records = m.guest.check("ls /sys/fs/pstore")?;
    ensure!(records.contains("dmesg-erst"), "{records}");
    let text = m
        .guest
        .check("cat /sys/fs/pstore/dmesg-erst-* | grep -E 'Kernel panic|Fatal hardware error'")?;
    ensure!(!text.is_empty());
    Ok(m)
}

/// Another run of the machine finds the records that are in the file, until its guest removes them.
fn next_run(kernel: &str, files: &Scratch, kept: &str) -> Result<()> {
    ensure!(fs::metadata(files.join("records"))?.len() > 0);
    let mut m = start(kernel, files)?;
    let records = m.guest.check(LIST_RECORDS)?;
    ensure!(records == kept, "{records}, and in the run before {kept}");
    m.guest.check("rm /sys/fs/pstore/dmesg-erst-*")?;
    let records = m.guest.check("ls /sys/fs/pstore")?;
    ensure!(!records.contains("erst"), "{records}");
    m.guest.power_off()?;
    ensure!(fs::metadata(files.join("records"))?.len() == 0);
    Ok(())
}

/// What happens to one machine, in this order.
const STEPS: [(&str, Step); 5] = [
    ("tables", tables_are_taken),
    // First: Linux prints two corrected errors in five seconds, and one of a processor is decoded in no other way.
    ("a processor's error", processor),
    ("corrected errors", corrected),
    ("a known error", known),
    ("EINJ", einj),
];

fn error_interfaces(kernel: &str) -> Result<()> {
    let files = Scratch::new("apei")?;
    let mut m = start(kernel, &files)?;
    walk(&mut m, &STEPS)?;
    let mut m = fatal(m, &files)?;
    let kept = m.guest.check(LIST_RECORDS)?;
    m.guest.power_off()?;
    next_run(kernel, &files, &kept)
}

#[test]
fn firmware_tells_keeps_and_makes_errors_on_6_1() -> Result<()> {
    error_interfaces("debian-6.1-amd64")
}

#[test]
fn firmware_tells_keeps_and_makes_errors_on_6_12() -> Result<()> {
    error_interfaces("debian-6.12-amd64")
}
