//! The platform's error interfaces on real kernels: firmware tells of errors (GHES), keeps them over a boot (BERT, ERST), and
//! makes them at the guest's wish (EINJ).

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ApiClient, facts};
use serde_json::{Value, json};
use std::time::Duration;

const MEMORY: u64 = 64 << 10;
const PAGE: u64 = 0x3000;
const EINJ: &str = "/sys/kernel/debug/apei/einj";
/// Error types of EINJ.
const MEMORY_CORRECTED: u32 = 8;
const MEMORY_RECOVERABLE: u32 = 0x10;

struct Machine {
    guest: Guest,
    api: ApiClient,
    /// Programs so far.
    programs: u32,
}

impl Machine {
    fn start(kernel: &str, files: &Scratch) -> Result<Self> {
        let guest = GuestBuilder::new(kernel)
            .arg("--cpu", "vendor=AuthenticAMD,add=erms")
            .arg("--api-socket", &files.text("api"))
            .arg("--apei", "on,poll=500ms")
            .arg("--on-reset", "restart")
            .cmdline("panic=1 module_blacklist=pvpanic,pvpanic_mmio")
            .hello_within(Duration::from_secs(240))
            .start()?;
        let mut machine = Self {
            guest,
            api: ApiClient::connect(&files.join("api"))?,
            programs: 0,
        };
        machine.mount()?;
        Ok(machine)
    }

    fn mount(&mut self) -> Result<()> {
        self.guest.check(
            "mount -t debugfs none /sys/kernel/debug 2>/dev/null; test -d /sys/kernel/debug/apei || modprobe einj",
        )?;
        self.guest
            .check("modprobe einj 2>/dev/null; mount -t pstore none /sys/fs/pstore 2>/dev/null; true")?;
        Ok(())
    }

    /// A program that has memory, tells where a page of it is, and waits.
    fn program(&mut self, then: &str) -> Result<(u32, u64)> {
        self.programs += 1;
        let number = self.programs;
        self.guest.check(&format!(
            "mkfifo /tmp/go{number}; \
             ((memprobe anon {MEMORY} phys:{PAGE} stop {then} <> /tmp/go{number} > /tmp/out{number} 2>&1; echo $? > /tmp/rc{number}) \
             > /dev/null 2>&1 < /dev/null &)"
        ))?;
        let line = self.guest.check(&format!(
            "for n in $(seq 300); do grep phys /tmp/out{number} && exit 0; sleep 0.1; done; cat /tmp/out{number}; exit 1"
        ))?;
        let gpa = line.rsplit_once(": 0x").context(line.clone())?.1;
        Ok((number, u64::from_str_radix(gpa.trim(), 16)?))
    }

    fn go_on(&mut self, number: u32) -> Result<(String, String)> {
        let all = self.guest.check(&format!(
            "echo > /tmp/go{number}; for n in $(seq 300); do test -s /tmp/rc{number} && break; sleep 0.1; done; \
             cat /tmp/rc{number}; sed -n '/phys/,$p' /tmp/out{number} | sed 1d"
        ))?;
        let (code, said) = all.split_once('\n').unwrap_or((&all, ""));
        Ok((code.to_owned(), said.to_owned()))
    }

    fn notify(&mut self, asked: &Value) -> Result<Value> {
        self.api.done("POST", "/faults/notify", Some(asked))
    }

    fn lost(&mut self) -> Result<u64> {
        let text = self
            .guest
            .check("sed -n 's/HardwareCorrupted: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        text.parse().context(text)
    }

    /// Waits for a line of the kernel's log since `mark`.
    fn log(&mut self, mark: &str, wanted: &str) -> Result<String> {
        self.guest.check(&format!(
            "for n in $(seq 200); do dmesg | sed '1,/{mark}/d' | grep -E '{wanted}' && exit 0; sleep 0.1; done; \
             dmesg | sed '1,/{mark}/d'; exit 1"
        ))
    }

    /// A line in the kernel's log from which on something is looked for.
    fn mark(&mut self, name: &str) -> Result<String> {
        let mark = format!("=== {name} ===");
        self.guest.check(&format!("echo '{mark}' > /dev/kmsg"))?;
        Ok(mark)
    }

    fn source(&mut self, name: &str) -> Result<Value> {
        let faults = self.api.get("/faults")?;
        let found = facts::list(&faults, "sources")?
            .iter()
            .find(|source| source["source"] == name);
        Ok(found.with_context(|| faults.to_string())?.clone())
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
    let types = m.guest.check(&format!("cat {EINJ}/available_error_type | wc -l"))?;
    ensure!(types == "6", "{types} types");
    Ok(())
}

/// Firmware tells of corrected errors: the kernel logs them and nothing else happens; when there are too many, it moves the
/// page's contents and stops to use it.
fn corrected(m: &mut Machine) -> Result<()> {
    let (number, gpa) = m.program(&format!("load:{PAGE}"))?;
    let before = m.lost()?;
    // Another line each time: Linux does not log the same error twice within ten seconds.
    for (via, source, gpa) in [("ghes", "notified", gpa), ("ghes-polled", "polled", gpa + 64)] {
        let mark = m.mark(via)?;
        let told = m.notify(&json!({"gpa": gpa, "severity": "corrected", "via": via}))?;
        ensure!(
            told["gpa"] == gpa && told["waiting"] == 1 && told["via"] == via,
            "{told}"
        );
        m.log(&mark, &format!("ADDR {gpa:x}"))?;
        let source = m.source(source)?;
        ensure!(
            source["acknowledged"] == source["reported"] && source["waiting"] == 0,
            "{source}"
        );
    }
    ensure!(m.lost()? == before);
    let mark = m.mark("threshold")?;
    m.notify(&json!({"gpa": gpa + 128, "severity": "corrected", "threshold-exceeded": true}))?;
    m.log(&mark, &format!("ADDR {:x}", gpa + 128))?;
    m.guest.check(&format!(
        "for n in $(seq 100); do test \"$(sed -n 's/HardwareCorrupted: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)\" = {} && exit 0; \
         sleep 0.1; done; dmesg | tail; exit 1",
        before + 4
    ))?;
    let (code, said) = m.go_on(number)?;
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
    let (number, gpa) = m.program(&format!("load:{}", PAGE + 64))?;
    let before = m.lost()?;
    let mark = m.mark("known")?;
    m.api
        .done("POST", "/faults", Some(&json!({"gpa": gpa + 64, "known": true})))?;
    m.log(&mark, "event severity: recoverable")?;
    m.log(
        &mark,
        &format!("Memory failure: {:#x}: recovery action for .*: Recovered", gpa >> 12),
    )?;
    ensure!(m.lost()? == before + 4);
    let (code, said) = m.go_on(number)?;
    ensure!(code == "7" && said.starts_with("SIGBUS"), "{code}: {said}");
    let faults = m.api.get("/faults")?;
    ensure!(
        faults["counts"]["consumed"] == 0,
        "the kernel had unmapped it: {faults}"
    );
    Ok(())
}

/// The error of a processor is logged with its APIC id.
fn processor(m: &mut Machine) -> Result<()> {
    let mark = m.mark("processor")?;
    m.notify(&json!({"vcpu": 0, "severity": "corrected"}))?;
    m.log(&mark, "event severity: corrected")?;
    m.log(&mark, "section_type: general processor error")?;
    m.log(&mark, "processor_id: 0x0000000000000000")?;
    Ok(())
}

impl Machine {
    fn inject(&mut self, kind: u32, gpa: u64, trigger: bool) -> Result<()> {
        let notrigger = u8::from(!trigger);
        self.guest.check(&format!(
            "cd {EINJ} && echo {kind:#x} > error_type && echo {gpa:#x} > param1 && echo 0xfffffffffffff000 > param2 && \
             echo {notrigger} > notrigger && echo 1 > error_inject"
        ))?;
        Ok(())
    }
}

/// The guest's root injects as on a server: told at once where it triggers the error, met by a program where it does not.
fn einj(m: &mut Machine) -> Result<()> {
    let (number, gpa) = m.program(&format!("load:{}", PAGE + 128))?;
    let mark = m.mark("corrected by EINJ")?;
    m.inject(MEMORY_CORRECTED, gpa, true)?;
    m.log(&mark, &format!("ADDR {gpa:x}"))?;
    let faults = m.api.get("/faults")?;
    let mine = |fault: &&Value| fault["source"] == "einj";
    ensure!(
        !facts::list(&faults, "faults")?.iter().any(|fault| mine(&fault)),
        "{faults}"
    );

    m.inject(MEMORY_RECOVERABLE, gpa, false)?;
    let faults = m.api.get("/faults")?;
    let found = facts::list(&faults, "faults")?.iter().find(mine);
    let found = found.with_context(|| faults.to_string())?;
    ensure!(
        (&found["gpa"], &found["len"], &found["state"]) == (&json!(gpa), &json!(4096), &json!("latent")),
        "{found}"
    );
    let (code, said) = m.go_on(number)?;
    ensure!(code == "7" && said.starts_with("SIGBUS code 4 "), "{code}: {said}");
    let faults = m.api.get("/faults")?;
    ensure!(faults["counts"]["consumed"] == 1, "{faults}");

    let (_, gpa) = m.program("")?;
    let mark = m.mark("recoverable by EINJ")?;
    m.inject(MEMORY_RECOVERABLE, gpa, true)?;
    m.log(
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
    let (_, gpa) = m.program("")?;
    m.notify(&json!({"gpa": gpa, "severity": "fatal"}))?;
    m.guest = m.guest.again()?;
    m.api = ApiClient::connect(&files.join("api"))?;
    m.mount()?;
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
    m.guest.check("rm /sys/fs/pstore/dmesg-erst-*")?;
    let records = m.guest.check("ls /sys/fs/pstore")?;
    ensure!(!records.contains("erst"), "{records}");
    Ok(m)
}

type Step = fn(&mut Machine) -> Result<()>;

fn error_interfaces(kernel: &str) -> Result<()> {
    let files = Scratch::new("apei")?;
    let mut m = Machine::start(kernel, &files)?;
    let steps: [(&str, Step); 5] = [
        ("tables", tables_are_taken),
        // First: Linux prints two corrected errors in five seconds, and one of a processor is decoded in no other way.
        ("a processor's error", processor),
        ("corrected errors", corrected),
        ("a known error", known),
        ("EINJ", einj),
    ];
    let mut failures = vec![];
    for (name, step) in steps {
        if let Err(error) = step(&mut m) {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    match fatal(m, &files) {
        Ok(m) => drop(m.guest.power_off()?),
        Err(error) => failures.push(format!("a fatal error: {error:#}")),
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn firmware_tells_keeps_and_makes_errors_on_6_1() -> Result<()> {
    error_interfaces("debian-6.1-amd64")
}

#[test]
fn firmware_tells_keeps_and_makes_errors_on_6_12() -> Result<()> {
    error_interfaces("debian-6.12-amd64")
}
