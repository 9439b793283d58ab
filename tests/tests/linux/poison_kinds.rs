//! Bad memory of the rarer kinds on real kernels: huge pages, virtio-mem, soft-reserved memory, free pages, storms of errors, two
//! processors at once, a scrub that runs, a reboot, and the kernel's own text.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    matrix::{self, Outcome},
    poison::{LINE, MEMORY, Machine, PAGE, Program, Step, program_meets_it, walk},
};
use serde_json::{Value, json};
use std::time::Duration;

const MIB: u64 = 1 << 20;
const KILLED: Outcome = Outcome::Killed { lsb: 12 };
/// How long a scrub takes: long enough for a program to end in.
const SCRUB: &str = "scan-time=20s";
/// Free pages that go bad.
const FREE: u64 = 32;
const STORM: u64 = 10_000;
/// Pages that are caught at most, each run of them a hole in the memory slots.
const HOLES: u64 = 1024;
/// Bits of /proc/kpageflags.
const HWPOISON: u32 = 19;
const THP: u32 = 22;

fn start(kernel: &str, files: &Scratch) -> Result<Machine> {
    let mut guest = GuestBuilder::new(kernel)
        .arg("--cpu", "vendor=AuthenticAMD")
        .arg("--api-socket", &files.text("api"))
        .arg("--on-reset", "restart")
        .cpus("2")
        // A whole GiB of it is above 4 GiB, where nothing else is.
        .arg("--numa", "node=0,memory=4608M")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--numa", "node=2")
        .arg("--numa", "node=3")
        .arg("--numa", "node=4")
        .arg("--numa", "node=5")
        .arg("--memory-slots", "4")
        .arg("--virtio-mem", "size=256M,requested=128M,node=2,id=grow")
        .arg("--memory-range", "size=256M,type=soft-reserved,node=3,id=soft")
        .arg("--memory-range", "size=256M,type=soft-reserved,node=5,id=softer")
        .arg("--ars", SCRUB)
        .nvdimm("size=262272K,id=pmem0,label=128K,node=4")
        .cmdline("memhp_default_state=online_movable hugepagesz=1G hugepages=1")
        .hello_within(Duration::from_secs(240))
        .start()?;
    // Loaded when it is wanted: it would take soft-reserved memory at once.
    guest.check("modprobe -r kmem 2>/dev/null; modprobe -a nfit nd_pmem dax_hmem device_dax")?;
    Ok(Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?))
}

/// A program that is bound to a processor, and loads the bad line of its page when it goes on.
fn bound(m: &mut Machine, cpu: u32, memory: &str, first: &str) -> Result<Program> {
    let launcher = format!("numactl --membind=0 --physcpubind={cpu}");
    m.program(&launcher, memory, first, &format!("load:{}", PAGE + LINE))
}

/// Both end as the row says.
fn both_at_once(m: &mut Machine, row: &str, programs: [Program; 2]) -> Result<()> {
    m.release(&programs)?;
    for program in programs {
        let end = m.end_of(&program)?;
        m.saw(row, Outcome::of(&end, &program))
            .with_context(|| format!("{end:?}"))?;
    }
    Ok(())
}

/// A line of a program is good for two loads, and the third one meets it.
fn third_load(m: &mut Machine) -> Result<()> {
    let load = format!("load:{}", PAGE + LINE);
    let again = format!("{load} load:{} {load} {load} load:0", PAGE + 2 * LINE);
    let program = m.program("", &format!("anon {MEMORY}"), &format!("store:{}", PAGE + LINE), &again)?;
    let gpa = program.gpa + LINE;
    m.api
        .done("POST", "/faults", Some(&json!({"gpa": gpa, "on-load": 3})))?;
    let waits = m.faults()?;
    ensure!(
        waits["awaited"] == json!([{"gpa": gpa, "len": 64, "on": "load", "left": 3}]),
        "{waits}"
    );
    let (code, said) = m.go_on(&program)?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(
        code == "7"
            && lines.len() == 4
            && lines[..3].iter().all(|line| line.starts_with("load "))
            && lines[3].starts_with("SIGBUS code 4"),
        "{code}: {said}"
    );
    let met = m.faults()?;
    ensure!(met["awaited"] == json!([]) && m.state(gpa)? == "known", "{met}");
    m.met(1, 1)
}

/// Each of two processors meets a line of its own, and then both the same.
fn two_processors_at_once(m: &mut Machine) -> Result<()> {
    let memory = format!("anon {MEMORY}");
    let programs = [bound(m, 0, &memory, "")?, bound(m, 1, &memory, "")?];
    for program in &programs {
        m.inject(program, "RAM", 0)?;
    }
    both_at_once(m, "ram-at-once", programs)?;
    m.met(2, 2)?;
    m.guest.check(&format!(
        "mkdir -p /shared && mount -t tmpfs none /shared && dd if=/dev/urandom of=/shared/file bs={MEMORY} count=1 2>/dev/null"
    ))?;
    let memory = format!("map /shared/file {MEMORY}");
    let first = format!("load:{PAGE}");
    let programs = [bound(m, 0, &memory, &first)?, bound(m, 1, &memory, &first)?];
    ensure!(programs[0].gpa == programs[1].gpa, "{programs:x?}");
    m.inject(&programs[0], "RAM", 0)?;
    both_at_once(m, "ram-same-at-once", programs)?;
    let lost = m.lost()?;
    // Whether the second still finds the page is a race of theirs.
    let met = m.count_again()?;
    ensure!((1..=2).contains(&met), "{met} machine checks");
    ensure!(lost == m.lost()?, "pages go on being lost");
    Ok(())
}

/// A program meets the line of a page that is part of a larger one.
fn huge(m: &mut Machine, row: &str, memory: &str, at: u64) -> Result<Program> {
    let (first, then) = (format!("store:{at}"), format!("load:{}", at + LINE));
    let program = m.program_at("numactl --membind=0", memory, at, &first, &then)?;
    if row == "ram-thp" {
        ensure!(m.page_flag(program.gpa, THP)?, "{:#x} is in no huge page", program.gpa);
    }
    m.inject(&program, "RAM", 0)?;
    let before = m.lost()?;
    let end = m.go_on(&program)?;
    m.saw(row, Outcome::of(&end, &program))
        .with_context(|| format!("{end:?}"))?;
    ensure!(m.count_again()? == 1, "not one machine check");
    ensure!(m.lost()? > before, "no page is lost");
    Ok(program)
}

fn huge_pages(m: &mut Machine) -> Result<()> {
    m.guest
        .check("echo always > /sys/kernel/mm/transparent_hugepage/enabled")?;
    huge(m, "ram-thp", "anon 0x800000", 0x40_3000)?;
    m.guest.check(
        "echo 4 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages && \
         mkdir -p /two /giant && mount -t hugetlbfs -o pagesize=2M none /two && mount -t hugetlbfs -o pagesize=1G none /giant && \
         : > /two/file && : > /giant/file",
    )?;
    huge(m, "ram-2m", "map /two/file 0x400000", 0x20_3000)?;
    huge(m, "ram-1g", "map /giant/file 0x40000000", 0x2000_3000)?;
    // Other programs find huge pages as before.
    m.guest
        .check(": > /two/other && memprobe map /two/other 0x200000 store:0 load:0")?;
    Ok(())
}

fn virtio_mem(m: &mut Machine) -> Result<()> {
    m.guest.check("modprobe virtio_mem")?;
    if let Err(error) = m.node_has_memory(2) {
        // A driver that was refused once waits for most of a minute.
        let machine = m.api.get("/vm")?;
        return Err(error.context(machine["virtio"]["mem"].to_string()));
    }
    program_meets_it(m, "virtio-mem", "virtio-mem", 2)
}

/// The device-dax device of a node.
fn dax_of(m: &mut Machine, node: u64) -> Result<String> {
    let name = m.guest.check(&format!(
        "for n in $(seq 100); do for d in /sys/bus/dax/devices/*; do test \"$(cat $d/target_node)\" = {node} && basename $d && exit 0; \
         done; sleep 0.1; done; ls /sys/bus/dax/devices; exit 1"
    ))?;
    m.guest.check(&format!(
        "for n in $(seq 100); do test -c /dev/{name} && exit 0; sleep 0.1; done; ls /dev; exit 1"
    ))?;
    Ok(name)
}

/// A program that maps a device-dax device, with its bad line unknown to anybody.
fn dax_program(m: &mut Machine, name: &str, kind: &str, node: u64) -> Result<Program> {
    let memory = format!("map /dev/{name} 0x400000");
    let then = format!("load:{PAGE} load:{}", PAGE + LINE);
    let program = m.program("", &memory, &format!("store:{PAGE}"), &then)?;
    m.inject(&program, kind, node)?;
    Ok(program)
}

/// One range is mapped by a program, and another becomes the RAM of a node. Not the same: Linux takes a page that was met out of
/// its own map for good, and stumbles over it when it is RAM (clear_page, on both kernels).
fn soft_reserved(m: &mut Machine) -> Result<()> {
    let name = dax_of(m, 3)?;
    // Linux means it for kmem, and binds nothing else to it by itself.
    m.guest.check(&format!(
        "cd /sys/bus/dax/drivers/device_dax; test -e {name} || echo {name} > new_id || echo {name} > bind; test -e {name}"
    ))?;
    let program = dax_program(m, &name, "soft-reserved", 3)?;
    let end = m.go_on(&program)?;
    m.saw("soft-dax", Outcome::of(&end, &program))
        .with_context(|| format!("{end:?}"))?;
    ensure!(m.count_again()? == 1, "not one machine check");
    let name = dax_of(m, 5)?;
    m.guest.check(&format!(
        "modprobe kmem; daxctl reconfigure-device --force --mode=system-ram {name} || daxctl online-memory {name} || true"
    ))?;
    m.node_has_memory(5)?;
    program_meets_it(m, "soft-ram", "soft-reserved", 5)
}

/// A program loads a bad line while a scrub is under way, which finds it and the others all the same.
fn scrub_that_runs(m: &mut Machine) -> Result<()> {
    // Soft-reserved memory has regions of its own, on some kernels the first.
    m.guest.check(
        "ndctl wait-scrub >/dev/null; name=$(ndctl list -N | sed -n 's/.*\"dev\":\"\\(namespace[0-9.]*\\)\".*/\\1/p' | head -n 1); \
         ndctl create-namespace -f -e $name -m devdax --map=mem",
    )?;
    let name = dax_of(m, 4)?;
    let program = dax_program(m, &name, "NVDIMM", 4)?;
    m.api
        .done("POST", "/faults", Some(&json!({"gpa": program.gpa + 100 * MIB})))?;
    let active = |m: &mut Machine| -> Result<bool> {
        let list = m.guest.json("ndctl list -B")?;
        Ok(list.to_string().contains("active"))
    };
    m.guest.check("ndctl start-scrub >/dev/null")?;
    ensure!(active(m)?, "the scrub is over before the load");
    let end = m.go_on(&program)?;
    ensure!(active(m)?, "the scrub was over before the program");
    m.saw("pmem-scrub", Outcome::of(&end, &program))
        .with_context(|| format!("{end:?}"))?;
    ensure!(m.count_again()? == 1, "not one machine check");
    m.guest.check("ndctl wait-scrub >/dev/null")?;
    let found = m.guest.json("ndctl list -N --media-errors")?;
    ensure!(found[0]["badblock_count"] == 2, "{found}");
    Ok(())
}

/// Errors in memory that nobody has yet: nobody meets them, a page can be taken out of use, and who is given one meets it.
fn free_pages(m: &mut Machine) -> Result<()> {
    let device = json!({"add": {"size": "128M", "node": 1, "id": "free"}});
    let Ok(device) = m.api.memory(&device)? else {
        bail!("no device")
    };
    m.node_has_memory(1)?;
    let start = facts::number(&device, "start")?;
    let bad = |n: u64| start + (n * 4 + 2) * MIB + LINE;
    for n in 0..FREE {
        m.api.done("POST", "/faults", Some(&json!({"gpa": bad(n)})))?;
    }
    // The allocator knows its pages by other memory than theirs.
    m.guest
        .check("numactl --membind=1 memprobe anon 0x10000 load:0; echo 3 > /proc/sys/vm/drop_caches")?;
    m.met(0, 0)?;
    m.saw("free-idle", Outcome::Fine)?;
    let mut taken = 0;
    for n in 0..FREE {
        let gpa = bad(n) & !0xfff;
        m.guest
            .check(&format!("echo {gpa:#x} > /sys/devices/system/memory/soft_offline_page"))?;
        taken += u64::from(m.page_flag(gpa, HWPOISON)?);
        if taken == FREE / 2 {
            break;
        }
    }
    ensure!(taken == FREE / 2, "{taken} pages are out of use");
    m.met(0, taken)?;
    m.saw("free-offline", Outcome::TakenAway)?;
    let end = fill(m, 1, 100 * MIB)?;
    m.saw("free-used", end)?;
    ensure!(m.count_again()? >= 1, "no machine check");
    m.api
        .done("POST", "/faults/clear", Some(&json!({"gpa": start, "len": 128 * MIB})))?;
    Ok(())
}

/// A program that writes so much memory of a node, and then reads it; what else it has is of another node, whose lines are good.
fn fill(m: &mut Machine, node: u64, bytes: u64) -> Result<Outcome> {
    let script =
        format!("numactl --membind=0 memprobe anon {bytes}@{node} fill:0,{bytes},7 check:0,{bytes},7; echo rc $?");
    let said = m.guest.check(&script)?;
    if said.contains("rc 0") {
        return Ok(Outcome::Fine);
    }
    // Which of the bad lines it was is not known here.
    ensure!(
        said.contains("SIGBUS code 4 ") && said.contains(" lsb 12") && said.contains("rc 7"),
        "{said}"
    );
    Ok(KILLED)
}

/// So many errors that slots cannot do without all of their pages, and one more: loads of the others are caught as well.
fn storm(m: &mut Machine) -> Result<()> {
    let victim = bound(m, 0, &format!("anon {MEMORY}"), "")?;
    let injected = m
        .api
        .done("POST", "/faults", Some(&json!({"node": 1, "count": STORM, "seed": 7})))?;
    ensure!(facts::list(&injected, "places")?.len() as u64 == STORM);
    m.inject(&victim, "RAM", 0)?;
    let faults = m.faults()?;
    let [holes, traps, left] = ["pages", "pages_trapped", "pages_left_out"].map(|key| facts::number(&faults, key));
    let (holes, traps, left) = (holes?, traps?, left?);
    // Hosts before Linux 6.6 leave pages out, and say so.
    let all_caught = facts::list(&faults, "mechanisms")?.contains(&json!("userfaultfd"));
    ensure!(
        holes >= HOLES - 64 && all_caught == (traps > HOLES) && all_caught == (left == 0),
        "{holes} pages are holes, {traps} have traps, {left} are not caught"
    );
    ensure!(holes + traps + left > STORM / 2);
    m.count_again()?;
    let others = fill(m, 0, 8 * MIB)?;
    m.saw("storm-others", others)?;
    m.met(0, 0)?;
    let end = m.go_on(&victim)?;
    m.saw("storm", Outcome::of(&end, &victim))?;
    m.met(1, 1)?;
    // On the node itself every fourth page is bad: no program gets far.
    for _ in 0..4 {
        let end = fill(m, 1, MIB / 4)?;
        ensure!(end == KILLED || !all_caught, "{end:?}");
    }
    let device = m.api.get("/memory/devices")?;
    let device = facts::find(&device["devices"], "id", "free")?.clone();
    let range = json!({"gpa": device["start"], "len": device["len"]});
    m.api.done("POST", "/faults/clear", Some(&range))?;
    ensure!(fill(m, 1, 8 * MIB)? == Outcome::Fine);
    m.count_again()?;
    Ok(())
}

/// What is outstanding, known and latent, when the guest reboots.
fn reboot(m: Machine, files: &Scratch, kernel: &str) -> Result<Machine> {
    let (guest, mut api) = (m.guest, m.api);
    for line in [json!({"gpa": 0x1000_0000}), json!({"gpa": 0x1000_1000, "known": true})] {
        api.done("POST", "/faults", Some(&line))?;
    }
    let nvdimms = |faults: &Value| -> Result<Vec<Value>> {
        let all = facts::list(faults, "faults")?.iter();
        Ok(all.filter(|fault| fault["nvdimm"].is_string()).cloned().collect())
    };
    let before = nvdimms(&api.get("/faults")?)?;
    ensure!(before.len() == 2, "{before:?}");
    let guest = guest.rebooted()?;
    let mut m = Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?);
    let after = m.faults()?;
    ensure!(
        nvdimms(&after)? == before && facts::list(&after, "faults")?.len() == before.len(),
        "{after}, and before {before:?}"
    );
    m.saw("reboot", Outcome::OnlyNvdimms)?;
    m.count_again()?;
    ensure!(fill(&mut m, 0, 32 * MIB)? == Outcome::Fine);
    Ok(m)
}

/// A page of the kernel's text goes bad, and the kernel needs it.
fn kernel_text(mut m: Machine) -> Result<()> {
    let text = m.guest.check(
        "echo 0 > /proc/sys/kernel/kptr_restrict; sed -n 's/^ *\\([0-9a-f]*\\)-.* : Kernel code$/\\1/p' /proc/iomem; \
         sed -n -e 's/ T _text$//p' -e 's/ [tT] version_proc_show$//p' /proc/kallsyms",
    )?;
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| u64::from_str_radix(line, 16))
        .collect::<Result<_, _>>()
        .with_context(|| text.clone())?;
    let [code, one, other] = numbers[..] else {
        bail!("{text}")
    };
    let gpa = (code + one.abs_diff(other)) & !(LINE - 1);
    m.api.done("POST", "/faults", Some(&json!({"gpa": gpa})))?;
    let done = m.guest.sh("cat /proc/version");
    ensure!(done.is_err(), "the kernel goes on: {done:?}");
    let ended = m.guest.wait()?;
    // The machine ends before the kernel has told its console why.
    let outcome = match ended.code {
        4 => Outcome::Panic,
        _ => Outcome::Other,
    };
    matrix::saw("text", &m.kernel, outcome)
        .with_context(|| format!("exit code {}: {}\n{}", ended.code, ended.stderr, ended.console))
}

/// What happens to one machine, in this order.
const STEPS: [(&str, Step); 8] = [
    ("two processors at once", two_processors_at_once),
    ("huge pages", huge_pages),
    ("virtio-mem", virtio_mem),
    ("soft-reserved memory", soft_reserved),
    ("a scrub that runs", scrub_that_runs),
    ("the third load", third_load),
    ("free pages", free_pages),
    ("a storm", storm),
];

fn kinds(kernel: &str) -> Result<()> {
    let files = Scratch::new("poison-kinds")?;
    let mut m = start(kernel, &files)?;
    walk(&mut m, &STEPS)?;
    let log = m.guest.check("dmesg | grep -E 'WARNING:|BUG:|Oops' || true")?;
    ensure!(log.is_empty(), "{log}");
    let m = reboot(m, &files, kernel)?;
    kernel_text(m)
}

#[test]
fn poison_of_every_kind_of_memory_on_6_1() -> Result<()> {
    kinds("debian-6.1-amd64")
}

#[test]
fn poison_of_every_kind_of_memory_on_6_12() -> Result<()> {
    kinds("debian-6.12-amd64")
}
