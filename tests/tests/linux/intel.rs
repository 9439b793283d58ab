//! Bad memory under Intel's name: machine checks that all processors take, software recovery, and errors that nobody has to act on.

use anyhow::{Result, ensure};
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    matrix::Outcome,
    poison::{LINE, MEMORY, Machine, PAGE, Program},
};
use serde_json::json;
use std::time::Duration;

const KILLED: Outcome = Outcome::Killed { lsb: 12 };

fn start(kernel: &str, files: &Scratch) -> Result<Machine> {
    let guest = GuestBuilder::new(kernel)
        .arg("--cpu", "vendor=GenuineIntel,add=erms")
        .arg("--api-socket", &files.text("api"))
        .cpus("2")
        .memory("512M")
        .nvdimm("size=64M,id=pmem0,label=0")
        .hello_within(Duration::from_secs(240))
        .start()?;
    Ok(Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?))
}

fn program(m: &mut Machine, launcher: &str) -> Result<Program> {
    let load = format!("load:{}", PAGE + LINE);
    m.program(launcher, &format!("anon {MEMORY}"), "", &load)
}

/// The processor promises recovery, whatever the host's does, and the kernel uses it: a program is stopped, on either processor, and
/// others go on.
fn loads(m: &mut Machine) -> Result<()> {
    let delivery = m.faults()?["delivery"].clone();
    ensure!(delivery != "local", "{delivery}");
    for cpu in [0, 1] {
        let (victim, other) = (program(m, &format!("taskset -c {cpu}"))?, program(m, "")?);
        m.inject(&victim, "RAM", 0)?;
        let end = m.go_on(&victim)?;
        ensure!(Outcome::of(&end, &victim) == KILLED, "{end:?}");
        m.met(1, 1)?;
        ensure!(m.go_on(&other)?.0 == "0");
    }
    let log = m.guest.check("dmesg")?;
    ensure!(
        log.contains("Uncorrected hardware memory error in user-access at"),
        "{log}"
    );
    ensure!(log.contains("recovery action for dirty LRU page: Recovered"), "{log}");
    Ok(())
}

/// The kernel's own copy with care, of a block device whose line nobody knew of.
fn copies(m: &mut Machine) -> Result<()> {
    m.guest.check("ndctl wait-scrub")?;
    let range = json!({"id": "pmem0", "start": 1 << 20, "len": 64, "latent": true});
    m.api.done("POST", "/media-errors", Some(&range))?;
    m.guest
        .fails("dd if=/dev/pmem0 of=/dev/null bs=4K skip=256 count=1 iflag=direct")?;
    ensure!(m.count_again()? == 1, "{}", m.faults()?);
    m.guest
        .check("dd if=/dev/pmem0 of=/dev/null bs=4K skip=257 count=1 iflag=direct")?;
    Ok(())
}

/// A scrubber has found an error that nobody has met (SRAO): the page is taken out of use, and its program stopped when it comes there.
fn found(m: &mut Machine) -> Result<()> {
    let victim = program(m, "")?;
    m.inject(&victim, "RAM", 0)?;
    let before = m.lost()?;
    let told = m.api.done(
        "POST",
        "/faults/notify",
        Some(&json!({"gpa": victim.gpa, "severity": "recoverable", "via": "machine-check"})),
    )?;
    ensure!(told["via"] == "machine-check", "{told}");
    let wanted = before + 4;
    m.guest.check(&format!(
        "for n in $(seq 200); do grep -q 'HardwareCorrupted: *{wanted} kB' /proc/meminfo && exit 0; sleep 0.1; done; dmesg | tail -n 30; exit 1"
    ))?;
    let end = m.go_on(&victim)?;
    ensure!(Outcome::of(&end, &victim) == KILLED, "{end:?}");
    let counts = m.faults()?["counts"].clone();
    let consumed = facts::number(&counts, "consumed")?;
    ensure!(
        m.count_again()? == 0,
        "{consumed}: the page was gone before anybody loaded from it"
    );
    Ok(())
}

fn under_intels_name(kernel: &str) -> Result<()> {
    let files = Scratch::new("intel")?;
    let mut m = start(kernel, &files)?;
    loads(&mut m)?;
    copies(&mut m)?;
    found(&mut m)?;
    m.guest.power_off()?;
    Ok(())
}

#[test]
fn errors_under_intels_name_are_recovered_from_on_6_1() -> Result<()> {
    under_intels_name("debian-6.1-amd64")
}

#[test]
fn errors_under_intels_name_are_recovered_from_on_6_12() -> Result<()> {
    under_intels_name("debian-6.12-amd64")
}
