//! Errors of the host's own memory under a guest: the host's kernel is told that a page behind it is bad, and the guest sees what it
//! would see on a server.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    matrix::Outcome,
    poison::{LINE, MEMORY, Machine, PAGE, Program},
};
use rustix::process::{
    MachineCheckMemoryCorruptionKillPolicy as Policy, set_machine_check_memory_corruption_kill_policy,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const KERNEL: &str = "debian-6.12-amd64";
const MIB: u64 = 1 << 20;
const RAM: u64 = 512 * MIB;
const WHOLE: u64 = 4096;
const NVDIMM: u64 = 128 * MIB;
/// Time for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the monitor hears of an error that nobody has touched.
#[derive(Clone, Copy, PartialEq)]
enum Notice {
    Never,
    AtOnce,
}

/// What the guest's memory is made of, and who tells it of errors.
struct Plan {
    notice: Notice,
    memory: &'static str,
    /// Whether the NVDIMM has a file of its own.
    file: bool,
    apei: &'static str,
}

const PLAIN: Plan = Plan {
    notice: Notice::Never,
    memory: "512M",
    file: false,
    apei: "on",
};

fn start(plan: &Plan, files: &Scratch) -> Result<Machine> {
    let notice = plan.notice;
    File::create(files.join("disk"))?.set_len(64 * MIB)?;
    let file = if plan.file {
        format!(",file={}", files.text("pmem"))
    } else {
        String::new()
    };
    let builder = GuestBuilder::new(KERNEL)
        .arg("--cpu", "vendor=AuthenticAMD,add=erms")
        .arg("--api-socket", &files.text("api"))
        .cpus("2")
        .memory(plan.memory)
        .arg("--apei", plan.apei)
        .arg("--disk", &files.text("disk"))
        .nvdimm(&format!("size=128M,id=pmem0{file}"))
        .hello_within(Duration::from_secs(240));
    // The monitor is a child of this thread, and does not change what it inherits.
    if notice == Notice::Never {
        set_machine_check_memory_corruption_kill_policy(Some(Policy::Late))?;
    }
    let guest = builder.start();
    set_machine_check_memory_corruption_kill_policy(None)?;
    Ok(Machine::new(KERNEL, guest?, ApiClient::connect(&files.join("api"))?))
}

/// The monitor as its host sees it.
struct Monitor {
    pid: u64,
    /// Where the guest's first byte of RAM is in it.
    ram: u64,
}

impl Monitor {
    fn of(m: &mut Machine) -> Result<Self> {
        let pid = facts::number(&m.api.get("/vm")?, "pid")?;
        Ok(Self {
            pid,
            ram: mapping(pid, RAM, "")?,
        })
    }

    /// The host's kernel takes the page at `address` for bad, as after an error that its hardware tells of.
    fn lose(&self, address: u64) -> Result<()> {
        let pagemap = File::open(format!("/proc/{}/pagemap", self.pid))?;
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, address / WHOLE * 8)?;
        let entry = u64::from_le_bytes(entry);
        let frame = entry & ((1 << 55) - 1);
        ensure!(
            entry >> 63 == 1 && frame != 0,
            "{address:#x} is not in the host's memory: {entry:#x}"
        );
        let bad = Path::new("/sys/devices/system/memory/hard_offline_page");
        fs::write(bad, format!("{:#x}", frame * WHOLE)).with_context(|| format!("{} takes no page", bad.display()))
    }

    fn lose_page_of(&self, program: &Program) -> Result<()> {
        self.lose(self.ram + program.gpa)
    }
}

/// Start of the monitor's one mapping of so many bytes, of a file of this name.
fn mapping(pid: u64, len: u64, name: &str) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let found = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        (end - start == len && words.nth(4).unwrap_or_default().contains(name)).then_some(start)
    });
    let found: Vec<u64> = found.collect();
    ensure!(
        found.len() == 1,
        "{} mappings of {len:#x} bytes in\n{maps}",
        found.len()
    );
    Ok(found[0])
}

/// The bad ranges within a page: length, state and source of each.
fn ranges(m: &mut Machine, gpa: u64) -> Result<Vec<(u64, String, String)>> {
    let faults = m.faults()?;
    let all = facts::list(&faults, "faults")?.iter();
    let ours = all.filter(|fault| fault["gpa"].as_u64().is_some_and(|at| (gpa..gpa + WHOLE).contains(&at)));
    ours.map(|fault: &Value| {
        Ok((
            facts::number(fault, "len")?,
            facts::text(fault, "state")?.to_owned(),
            facts::text(fault, "source")?.to_owned(),
        ))
    })
    .collect()
}

/// The whole page is bad, by the host's hardware, with so many bytes of it known.
fn page_is_lost(m: &mut Machine, gpa: u64, known: u64) -> Result<()> {
    let ranges = ranges(m, gpa)?;
    let sum = |wanted: &str| -> u64 {
        let some = ranges
            .iter()
            .filter(|(_, state, source)| state == wanted && source == "backing");
        some.map(|(len, ..)| len).sum()
    };
    ensure!(
        (sum("known"), sum("latent")) == (known, WHOLE - known),
        "{known} bytes should be known: {ranges:?}"
    );
    Ok(())
}

/// Waits until the whole page is bad and known, without anybody having touched it.
fn page_becomes_known(m: &mut Machine, gpa: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = page_is_lost(m, gpa, WHOLE) {
        ensure!(Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn program(m: &mut Machine, then: &str) -> Result<Program> {
    m.program("", &format!("anon {MEMORY}"), "", then)
}

/// A program that loads from the page has SIGBUS, and everybody else goes on.
fn a_load(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    let loads = format!("load:{}", PAGE + LINE);
    let (victim, other) = (program(m, &loads)?, program(m, &loads)?);
    monitor.lose_page_of(&victim)?;
    ensure!(ranges(m, victim.gpa)?.is_empty(), "somebody has told");
    m.met(0, 0)?;
    let end = m.go_on(&victim)?;
    ensure!(Outcome::of(&end, &victim) == (Outcome::Killed { lsb: 12 }), "{end:?}");
    m.met(1, 1)?;
    page_is_lost(m, victim.gpa, LINE)?;
    ensure!(m.go_on(&other)?.0 == "0");
    m.met(0, 0)
}

/// A store is done, and the page stays bad.
fn a_store(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    let victim = program(m, &format!("store:{PAGE} load:{PAGE}"))?;
    monitor.lose_page_of(&victim)?;
    let end = m.go_on(&victim)?;
    ensure!(Outcome::of(&end, &victim) == (Outcome::Killed { lsb: 12 }), "{end:?}");
    m.met(1, 1)?;
    page_is_lost(m, victim.gpa, LINE)
}

/// A disk that would have to read the page fails its request.
fn a_device(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    // Of a file: the guest, which does not know, would give a program's page to the next one.
    m.guest.check(&format!(
        "modprobe virtio_blk && for n in $(seq 100); do test -b /dev/vda && break; sleep 0.1; done; \
         mkdir -p /shared && mount -t tmpfs none /shared && dd if=/dev/urandom of=/shared/file bs={MEMORY} count=1 2>/dev/null"
    ))?;
    let memory = format!("map /shared/file {MEMORY}");
    let write = format!("dwrite:{PAGE},{WHOLE},/dev/vda");
    let writer = m.program("", &memory, &format!("load:{PAGE}"), &write)?;
    monitor.lose_page_of(&writer)?;
    let (code, said) = m.go_on(&writer)?;
    ensure!(code == "1" && said.contains("(errno 5)"), "{code}: {said}");
    let faults = m.faults()?;
    ensure!(faults["counts"]["device_requests"] == 1, "{faults}");
    page_is_lost(m, writer.gpa, LINE)?;
    m.met(0, 0)?;
    // What is there is memory like any other when the error is cleared.
    let page = json!({"gpa": writer.gpa, "len": WHOLE});
    m.api.done("POST", "/faults/clear", Some(&page))?;
    let writer = m.program("", &memory, &format!("load:{PAGE} store:{PAGE}"), &write)?;
    let (code, said) = m.go_on(&writer)?;
    ensure!(code == "0", "{code}: {said}");
    m.met(0, 0)
}

/// Persistent memory: scrubs find what the host has lost, and `ndctl clear-errors` mends it.
fn persistent_memory(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    m.guest.check(
        "modprobe -a nfit nd_pmem; for n in $(seq 100); do test -b /dev/pmem0 && break; sleep 0.1; done; \
         dd if=/dev/urandom of=/dev/pmem0 bs=1M count=4 oflag=direct 2>/dev/null; ndctl wait-scrub >/dev/null",
    )?;
    let map = m.api.get("/memory/map")?;
    let spa = facts::number(facts::find(&map["map"], "kind", "NVDIMM")?, "start")?;
    monitor.lose(mapping(monitor.pid, NVDIMM, "")? + MIB)?;
    m.guest
        .fails("dd if=/dev/pmem0 of=/dev/null bs=4096 skip=256 count=1 iflag=direct")?;
    page_is_lost(m, spa + MIB, LINE)?;
    m.guest
        .check("ndctl start-scrub >/dev/null && ndctl wait-scrub >/dev/null")?;
    page_is_lost(m, spa + MIB, WHOLE)?;
    m.guest.check("ndctl clear-errors namespace0.0 >/dev/null && dd if=/dev/zero of=/dev/pmem0 bs=4096 seek=256 count=1 oflag=direct")?;
    ensure!(ranges(m, spa + MIB)?.is_empty());
    m.guest
        .check("dd if=/dev/pmem0 of=/dev/null bs=1M count=4 iflag=direct")?;
    m.count_again()?;
    Ok(())
}

fn unharmed(m: Machine) -> Result<()> {
    let mut guest = m.guest;
    let log = guest.check("dmesg | grep -E 'WARNING:|BUG:|Oops' || true")?;
    ensure!(log.is_empty(), "{log}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn memory_that_the_host_has_lost_is_met_by_whoever_touches_it() -> Result<()> {
    let files = Scratch::new("host-errors")?;
    let mut m = start(&PLAIN, &files)?;
    let monitor = Monitor::of(&mut m)?;
    for (name, step) in [
        ("a load", a_load as fn(&mut Machine, &Monitor) -> Result<()>),
        ("a store", a_store),
        ("a device", a_device),
        ("persistent memory", persistent_memory),
    ] {
        step(&mut m, &monitor).with_context(|| name)?;
    }
    unharmed(m)
}

/// Two programs' page has a bad line and a trap, what it held lies elsewhere and is lost there, and a device is the first to touch it:
/// nothing of it is there any more, and nobody takes the zeros in its place for what it was.
fn a_page_behind_a_trap(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    /// As many runs as slots do without, each longer than a page: those go before it.
    const RUNS: u64 = 1024;
    for n in 0..RUNS {
        let run = json!({"nvdimm": "pmem0", "dpa": n * 4 * WHOLE, "len": 2 * WHOLE});
        m.api.done("POST", "/faults", Some(&run))?;
    }
    m.guest.check(&format!(
        "modprobe virtio_blk && for n in $(seq 100); do test -b /dev/vda && break; sleep 0.1; done; \
         mkdir -p /shared && mount -t tmpfs none /shared && dd if=/dev/urandom of=/shared/file bs={MEMORY} count=1 2>/dev/null"
    ))?;
    let (memory, first) = (format!("map /shared/file {MEMORY}"), format!("load:{PAGE}"));
    let to_it = format!("dread:{},512,/dev/vda", PAGE + WHOLE / 2);
    let writer = m.program("", &memory, &first, &to_it)?;
    let reader = m.program("", &memory, &first, &format!("load:{}", PAGE + 4 * LINE))?;
    ensure!(writer.gpa == reader.gpa, "{writer:x?} {reader:x?}");
    let bad = json!({"gpa": writer.gpa + LINE});
    let told = m.api.done("POST", "/faults", Some(&bad))?;
    ensure!(told["mechanisms"] == json!(["userfaultfd"]), "{told}");
    // A byte for each page, and as much memory as the guest has.
    let pages = RAM / WHOLE;
    let kept = mapping(monitor.pid, pages + RAM, "")? + pages;
    monitor.lose(kept + writer.gpa)?;
    ensure!(ranges(m, writer.gpa)?.len() == 1, "somebody has told");
    let (code, said) = m.go_on(&writer)?;
    ensure!(code == "0", "{code}: {said}");
    page_is_lost(m, writer.gpa, 0)?;
    let end = m.go_on(&reader)?;
    ensure!(Outcome::of(&end, &reader) == (Outcome::Killed { lsb: 12 }), "{end:?}");
    m.met(1, 1)?;
    page_is_lost(m, writer.gpa, LINE)
}

#[test]
fn what_was_kept_of_a_page_behind_a_trap_and_is_lost_is_missed_by_the_guest() -> Result<()> {
    let files = Scratch::new("host-errors")?;
    let mut m = start(&PLAIN, &files)?;
    let monitor = Monitor::of(&mut m)?;
    a_page_behind_a_trap(&mut m, &monitor)?;
    unharmed(m)
}

/// A page of a huge page: all of that is gone, as the guest's own huge page is.
fn a_huge_page(m: &mut Machine, monitor: &Monitor) -> Result<()> {
    const HUGE: u64 = 2 * MIB;
    const AT: u64 = 0x20_3000;
    m.guest.check(
        "echo 4 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages && mkdir -p /two && \
         mount -t hugetlbfs -o pagesize=2M none /two && : > /two/file",
    )?;
    let (first, then) = (format!("store:{AT}"), format!("load:{}", AT + LINE));
    let victim = m.program_at("", "map /two/file 0x400000", AT, &first, &then)?;
    let before = m.lost()?;
    monitor.lose_page_of(&victim)?;
    let end = m.go_on(&victim)?;
    ensure!(Outcome::of(&end, &victim) == (Outcome::Killed { lsb: 21 }), "{end:?}");
    ensure!(m.count_again()? == 1, "not one machine check");
    ensure!(m.lost()? > before, "no page is lost");
    let faults = m.faults()?;
    let start = victim.gpa / HUGE * HUGE;
    let ours = facts::list(&faults, "faults")?.iter();
    let ours = ours.filter(|fault| fault["source"] == "backing");
    let places: Vec<(u64, u64)> = ours
        .map(|fault| Ok((facts::number(fault, "gpa")?, facts::number(fault, "len")?)))
        .collect::<Result<_>>()?;
    let lost: u64 = places.iter().map(|(_, len)| len).sum();
    let within = |(gpa, len): &(u64, u64)| start <= *gpa && gpa + len <= start + HUGE;
    ensure!(
        lost == HUGE && places.iter().all(within),
        "not the 2 MiB at {start:#x}: {places:x?}"
    );
    // Others find huge pages as before.
    m.guest
        .check(": > /two/other && memprobe map /two/other 0x200000 store:0 load:0")?;
    Ok(())
}

#[test]
fn memory_of_other_backings_that_the_host_has_lost_is_bad_as_well() -> Result<()> {
    let reserved = Path::new("/proc/sys/vm/nr_hugepages");
    let before = fs::read_to_string(reserved)?;
    fs::write(reserved, (RAM / (2 * MIB) + 2).to_string())?;
    let files = Scratch::new("host-errors")?;
    let plan = Plan {
        memory: "size=512M,hugepages=2M",
        file: true,
        ..PLAIN
    };
    let mut m = start(&plan, &files)?;
    let monitor = Monitor::of(&mut m)?;
    a_huge_page(&mut m, &monitor).context("a huge page")?;
    persistent_memory(&mut m, &monitor).context("persistent memory in a file")?;
    unharmed(m)?;
    fs::write(reserved, before)?;
    // The file is whole, and its own again: what was lost was written anew.
    let pmem = File::open(files.join("pmem"))?;
    ensure!(pmem.metadata()?.len() == NVDIMM);
    let mut page = [1; 4096];
    pmem.read_exact_at(&mut page, MIB)?;
    ensure!(page == [0; 4096], "the page that was written is not in the file");
    Ok(())
}

/// By firmware, or where there is none by a machine check.
#[test]
fn a_guest_is_told_of_memory_that_the_host_has_lost() -> Result<()> {
    for apei in ["on", "off"] {
        guest_is_told(apei).with_context(|| format!("--apei {apei}"))?;
    }
    Ok(())
}

fn guest_is_told(apei: &'static str) -> Result<()> {
    let files = Scratch::new("host-errors")?;
    let plan = Plan {
        notice: Notice::AtOnce,
        apei,
        ..PLAIN
    };
    let mut m = start(&plan, &files)?;
    let monitor = Monitor::of(&mut m)?;
    // A deferred error waits in its bank until Linux looks, which it does every five minutes unless it is told otherwise.
    m.guest
        .check("echo 1 > /sys/devices/system/machinecheck/machinecheck0/check_interval")?;
    let victim = program(&mut m, &format!("load:{}", PAGE + LINE))?;
    monitor.lose_page_of(&victim)?;
    page_becomes_known(&mut m, victim.gpa)?;
    // The kernel has heard of it, and taken the page out of use, before anybody loads it.
    let deadline = Instant::now() + PATIENCE;
    while m.lost()? != 4 {
        if Instant::now() >= deadline {
            let log = m.guest.check("dmesg | tail -n 20")?;
            bail!("the guest has not given the page at {:#x} up:\n{log}", victim.gpa);
        }
        thread::sleep(Duration::from_millis(100));
    }
    let (code, said) = m.go_on(&victim)?;
    ensure!(code == "7" && said.contains("SIGBUS"), "{code}: {said}");
    ensure!(
        m.count_again()? == 0,
        "a machine check, although the page was out of use"
    );
    unharmed(m)
}
