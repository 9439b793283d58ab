//! What watchers of hardware errors make of ours: rasdaemon, what it says and what its database has of each, and the kernel's
//! trace events on which it lives. No guest has a memory controller that EDAC drives: machine checks and firmware are all there is.

use anyhow::{Context, Result, ensure};
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    poison::{LINE, MEMORY, Machine, PAGE, Step, walk},
};
use serde_json::{Value, json};
use std::time::Duration;

/// The trace events, for us alone: rasdaemon has an instance of its own.
pub(super) const TRACE: &str = "/sys/kernel/tracing/instances/test";
/// Those that are about memory and processors.
const EVENTS: &str = "mce/mce_record ras/memory_failure_event ras/non_standard_event ras/mc_event ras/extlog_mem_event";
/// What rasdaemon says.
const LOG: &str = "/tmp/rasdaemon";
/// Events for which rasdaemon waits, half a minute for each that the kernel lacks, as 6.1 does all of these.
const AWAITED: &str = "cxl_poison cxl_aer_uncorrectable_error cxl_aer_correctable_error cxl_overflow cxl_generic_event \
                       cxl_general_media cxl_dram cxl_memory_module";
const DATABASE: &str = "/var/lib/rasdaemon/ras-mc_event.db";
/// Bank under which Linux logs what firmware tells of memory: there is none.
const FIRMWARE: u8 = 255;
/// CPER section of a processor's error (UEFI 2.10, appendix N.2.2).
const PROCESSOR_SECTION: &str = "9876ccad-47b4-4bdb-b65e-16f193c4f3db";
/// `MCi_STATUS` bits (SDM 3B 15.3.2.2; APM 2 9.3.2.1).
const VALID: u64 = 1 << 63;
const UNCORRECTED: u64 = 1 << 61;
const ADDRESS_VALID: u64 = 1 << 58;
const DEFERRED: u64 = 1 << 44;
const SEVERITIES: u64 = UNCORRECTED | DEFERRED;
/// Bit of /proc/kpageflags.
const HWPOISON: u32 = 19;

/// A machine for rasdaemon.
pub(super) fn machine(kernel: &str, vendor: &str, files: &Scratch, apei: &str) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .arg("--cpu", &format!("vendor={vendor}"))
        .arg("--api-socket", &files.text("api"))
        .arg("--apei", apei)
        .hello_within(Duration::from_secs(240))
}

/// A guest with rasdaemon. What the kernel lacks of the events has a stand-in of the same name, at a function that no test calls.
pub(super) fn start(kernel: &str, machine: &GuestBuilder, files: &Scratch) -> Result<Machine> {
    let mut guest = machine.start()?;
    guest.check(&format!(
        "mount -t debugfs none /sys/kernel/debug; mount -t tracefs none /sys/kernel/tracing; mkdir {TRACE} && cd {TRACE}/events && \
         for event in {EVENTS}; do echo 1 > $event/enable || exit 1; done; \
         cd /sys/kernel/tracing && for event in {AWAITED}; do \
         test -d events/cxl/$event || echo \"p:cxl/$event panic\" >> kprobe_events || exit 1; done; \
         echo 1 > /sys/devices/system/machinecheck/machinecheck0/check_interval && \
         (rasdaemon --foreground --record > {LOG} 2>&1 < /dev/null &)"
    ))?;
    let mut m = Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?);
    says(&mut m, "Recording memory_failure_event events")?;
    Ok(m)
}

/// Waits for a line of rasdaemon's.
pub(super) fn says(m: &mut Machine, wanted: &str) -> Result<String> {
    m.guest.check(&format!(
        "for n in $(seq 300); do grep -m1 -E '{wanted}' {LOG} && exit 0; sleep 0.1; done; echo 'nothing of {wanted} in'; \
         tail -n 30 {LOG}; echo; tail -n 20 {TRACE}/trace; exit 1"
    ))
}

/// Rows of a table of the database. rasdaemon writes them before it says so, and would lose one that meets a reader.
pub(super) fn rows(m: &mut Machine, table: &str, condition: &str) -> Result<Vec<Value>> {
    let text = m.guest.check(&format!(
        "sqlite3 -json {DATABASE} \"select * from {table} where {condition}\""
    ))?;
    // There is no empty list.
    if text.is_empty() {
        return Ok(vec![]);
    }
    let rows: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    Ok(rows.as_array().context(text)?.clone())
}

/// The one row that there is.
pub(super) fn row(m: &mut Machine, table: &str, condition: &str) -> Result<Value> {
    let found = rows(m, table, condition)?;
    ensure!(found.len() == 1, "{table}, {condition}: {found:?}");
    Ok(found[0].clone())
}

/// The kernel has traced just one event like this.
fn traced(m: &mut Machine, event: &str) -> Result<()> {
    let count = m.guest.check(&format!("grep -c -E '{event}' {TRACE}/trace || true"))?;
    ensure!(count == "1", "{count} times {event}");
    Ok(())
}

/// A machine check of the address was recorded, of this bank and with this severity; what rasdaemon said of it, and its row.
fn recorded(m: &mut Machine, gpa: u64, bank: u8, severity: u64) -> Result<(String, Value)> {
    let said = says(m, &format!("mce_record .* bank={bank:x}, .* addr= {gpa:x},"))?;
    let row = row(m, "mce_record", &format!("addr = {gpa}"))?;
    // The database has signed numbers only.
    let status = row["status"].as_i64().context("no status")?.cast_unsigned();
    ensure!(
        row["bank"] == bank && status & (VALID | ADDRESS_VALID | SEVERITIES) == VALID | ADDRESS_VALID | severity,
        "{status:#x}: {row}"
    );
    ensure!(said.contains(&format!("status= {status:x},")), "{said}");
    traced(
        m,
        &format!("mce_record: CPU: 0, .* MC{bank}: {status:016x}, .*ADDR[^,]*: {gpa:016x}[,/]"),
    )?;
    Ok((said, row))
}

/// The kernel took the page of the address out of use, and said so.
fn lost(m: &mut Machine, gpa: u64) -> Result<()> {
    let pfn = gpa >> 12;
    says(
        m,
        &format!("memory_failure_event .* pfn={pfn:#x} .* action_result=Recovered"),
    )?;
    let row = row(m, "memory_failure_event", &format!("pfn = '{pfn:#x}'"))?;
    ensure!(row["action_result"] == "Recovered", "{row}");
    traced(
        m,
        &format!("memory_failure_event: pfn {pfn:#x}: recovery action for .*: Recovered"),
    )
}

/// Nothing was said of the page of the address.
fn kept(m: &mut Machine, gpa: u64) -> Result<()> {
    let pfn = gpa >> 12;
    let found = rows(m, "memory_failure_event", &format!("pfn = '{pfn:#x}'"))?;
    ensure!(found.is_empty() && !m.page_flag(gpa, HWPOISON)?, "{found:?}");
    Ok(())
}

pub(super) fn notify(m: &mut Machine, asked: &Value) -> Result<Value> {
    m.api.done("POST", "/faults/notify", Some(asked))
}

/// Where a program that waits has a page.
pub(super) fn page(m: &mut Machine) -> Result<u64> {
    Ok(m.program("", &format!("anon {MEMORY}"), "", "")?.gpa)
}

/// A bad line that a program loads is a machine check with the line's address, taken in the program, and the loss of the page.
fn consumed(m: &mut Machine) -> Result<()> {
    let victim = m.program("", &format!("anon {MEMORY}"), "", &format!("load:{}", PAGE + LINE))?;
    m.inject(&victim, "RAM", 0)?;
    let (code, said) = m.go_on(&victim)?;
    ensure!(code == "7" && said.starts_with("SIGBUS code 4 "), "{code}: {said}");
    let (_, row) = recorded(m, victim.gpa + LINE, 4, UNCORRECTED)?;
    // MCG_STATUS: restartable, of this instruction, in progress. The segment is that of programs.
    ensure!(
        (&row["mcgstatus"], &row["cs"]) == (&json!(7), &json!(0x33)) && row["ip"] != 0,
        "{row}"
    );
    lost(m, victim.gpa)
}

/// What firmware tells of memory (GHES) is in the same record, since there is no EDAC driver for it.
fn firmware(m: &mut Machine) -> Result<()> {
    let corrected = page(m)?;
    notify(m, &json!({"gpa": corrected, "severity": "corrected"}))?;
    recorded(m, corrected, FIRMWARE, 0)?;
    kept(m, corrected)?;
    let recoverable = page(m)? + LINE;
    notify(m, &json!({"gpa": recoverable, "severity": "recoverable"}))?;
    recorded(m, recoverable, FIRMWARE, UNCORRECTED)?;
    lost(m, recoverable)
}

/// What firmware tells of a processor is handed on as it is.
fn processor(m: &mut Machine) -> Result<()> {
    notify(m, &json!({"vcpu": 0, "severity": "corrected"}))?;
    says(
        m,
        &format!("non_standard_event .* Corrected section type: {PROCESSOR_SECTION}"),
    )?;
    let row = row(m, "non_standard_event", "severity = 'Corrected'")?;
    ensure!(!facts::text(&row, "error")?.is_empty(), "{row}");
    // The trace has the GUID's bytes in their order in memory.
    traced(
        m,
        "non_standard_event: severity: 1; sec type:adcc7698-b447-db4b-b65e-16f193c4f3db; .* data len:192;",
    )
}

/// Two corrected errors of a page in the bank, which the kernel polls; gives the second one's address.
fn polled(m: &mut Machine, bank: u8) -> Result<(u64, String)> {
    let gpa = page(m)?;
    let mut last = (gpa, String::new());
    for gpa in [gpa, gpa + LINE] {
        notify(m, &json!({"gpa": gpa, "severity": "corrected", "via": "machine-check"}))?;
        last = (gpa, recorded(m, gpa, bank, 0)?.0);
    }
    Ok(last)
}

/// Under AMD's name the kernel leaves the page where it is.
fn polled_amd(m: &mut Machine) -> Result<()> {
    let (gpa, _) = polled(m, 4)?;
    kept(m, gpa)?;
    // An error that nobody has met yet, and its page is gone.
    let gpa = page(m)? + LINE;
    notify(m, &json!({"gpa": gpa, "severity": "deferred", "via": "machine-check"}))?;
    recorded(m, gpa, 4, DEFERRED)?;
    lost(m, gpa)
}

/// Under Intel's name rasdaemon tells in words what the record says, and the kernel's collector of corrected errors
/// (CONFIG_RAS_CEC) moves the page at the second one.
fn polled_intel(m: &mut Machine) -> Result<()> {
    let (gpa, said) = polled(m, 9)?;
    ensure!(
        said.contains("Memory read error") && said.contains("mci=Corrected_error"),
        "{said}"
    );
    m.guest.check(&format!(
        "for n in $(seq 100); do dmesg | grep 'RAS: Soft-offlining pfn: {:#x}' && exit 0; sleep 0.1; done; dmesg | tail; exit 1",
        gpa >> 12
    ))?;
    ensure!(m.page_flag(gpa, HWPOISON)?, "{gpa:#x} is in use");
    Ok(())
}

/// What takes a driver of a memory controller, or firmware that logs for it, has nothing to tell.
fn nothing_else(m: &mut Machine) -> Result<()> {
    let controllers = m
        .guest
        .check("ls -d /sys/devices/system/edac/mc/mc[0-9]* 2>/dev/null | wc -l")?;
    ensure!(controllers == "0", "{controllers} memory controllers");
    for table in ["mc_event", "extlog_event", "aer_event"] {
        let found = rows(m, table, "true")?;
        ensure!(found.is_empty(), "{table}: {found:?}");
    }
    let complaints = m
        .guest
        .check(&format!("grep -iE 'fail(ed)? to do|error = ' {LOG} || true"))?;
    ensure!(complaints.is_empty(), "{complaints}");
    Ok(())
}

fn watched(kernel: &str, vendor: &str, steps: &[(&str, Step)]) -> Result<()> {
    let files = Scratch::new("ras")?;
    let mut m = start(kernel, &machine(kernel, vendor, &files, "on"), &files)?;
    walk(&mut m, steps)?;
    m.guest.power_off()?;
    Ok(())
}

const AMD: [(&str, Step); 5] = [
    ("a load", consumed),
    ("firmware", firmware),
    ("a processor", processor),
    ("polled banks", polled_amd),
    ("nothing else", nothing_else),
];
/// On KVM of AMD's processors a load would be a panic.
const INTEL: [(&str, Step); 4] = [
    ("firmware", firmware),
    ("a processor", processor),
    ("polled banks", polled_intel),
    ("nothing else", nothing_else),
];

#[test]
fn rasdaemon_names_the_addresses_of_errors_on_6_1() -> Result<()> {
    watched("debian-6.1-amd64", "AuthenticAMD", &AMD)
}

#[test]
fn rasdaemon_names_the_addresses_of_errors_on_6_12() -> Result<()> {
    watched("debian-6.12-amd64", "AuthenticAMD", &AMD)
}

#[test]
fn rasdaemon_names_the_addresses_of_errors_under_intels_name() -> Result<()> {
    watched("debian-6.12-amd64", "GenuineIntel", &INTEL)
}
