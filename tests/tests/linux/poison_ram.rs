//! Bad memory that is not persistent, on real kernels: boot RAM, a memory device, pages of files, persistent memory
//! as a node.

use anyhow::{Result, bail, ensure};
use guest_tests::{
    GuestBuilder, Scratch,
    api::ApiClient,
    facts,
    matrix::Outcome,
    poison::{LINE, MEMORY, Machine, PAGE, Step, program_meets_it, walk},
};
use serde_json::{Value, json};
use std::{fs::File, time::Duration};

const MIB: u64 = 1 << 20;

fn start(kernel: &str, files: &Scratch) -> Result<Machine> {
    File::create(files.join("disk"))?.set_len(64 * MIB)?;
    let guest = GuestBuilder::new(kernel)
        .arg("--cpu", "vendor=AuthenticAMD,add=erms")
        .arg("--api-socket", &files.text("api"))
        .cpus("2")
        .arg("--numa", "node=0,memory=1G")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--numa", "node=2")
        .arg("--memory-slots", "4")
        .arg("--disk", &files.text("disk"))
        .nvdimm("size=524416K,id=pmem0,label=128K,node=2")
        .cmdline("memhp_default_state=online_movable")
        .hello_within(Duration::from_secs(240))
        .start()?;
    Ok(Machine::new(kernel, guest, ApiClient::connect(&files.join("api"))?))
}

/// Two programs share a page: the first load is the machine check, and the second finds the page taken away.
fn page_is_met_twice(m: &mut Machine) -> Result<()> {
    m.guest.check(&format!(
        "mkdir -p /shared && mount -t tmpfs none /shared && dd if=/dev/urandom of=/shared/file bs={MEMORY} count=1 2>/dev/null"
    ))?;
    let memory = format!("map /shared/file {MEMORY}");
    let (first, then) = (format!("load:{PAGE}"), format!("load:{}", PAGE + LINE));
    let one = m.program("", &memory, &first, &then)?;
    let two = m.program("", &memory, &first, &then)?;
    ensure!(one.gpa == two.gpa, "{:#x} {:#x}", one.gpa, two.gpa);
    m.inject(&one, "RAM", 0)?;
    let end = m.go_on(&one)?;
    ensure!(Outcome::of(&end, &one) == (Outcome::Killed { lsb: 12 }), "{end:?}");
    m.met(1, 1)?;
    let end = m.go_on(&two)?;
    m.saw("ram-shared", Outcome::of(&end, &two))?;
    m.met(0, 0)
}

/// A page of a file that the disk has as well is read again, and the program sees nothing; one that the disk does not have
/// cannot be written to it: that request fails, and `fsync` says so.
fn pages_of_files(m: &mut Machine) -> Result<()> {
    m.guest.check(
        "modprobe virtio_blk && for n in $(seq 100); do test -b /dev/vda && break; sleep 0.1; done; \
         mkfs.ext4 -q -b 4096 /dev/vda && mkdir -p /disk && mount -t ext4 /dev/vda /disk",
    )?;
    m.guest.check(&format!(
        "xfs_io -f -c 'pwrite -q -S 0x5a 0 {MEMORY}' -c fsync /disk/clean"
    ))?;
    let loads = format!("load:{}", PAGE + LINE);
    let memory = format!("map /disk/clean {MEMORY}");
    let reader = m.program("", &memory, &format!("load:{PAGE}"), &loads)?;
    m.inject(&reader, "RAM", 0)?;
    let (code, said) = m.go_on(&reader)?;
    let wanted = format!("load {:#x}: 0x5a5a5a5a5a5a5a5a", PAGE + LINE);
    ensure!(
        (code.as_str(), said.as_str()) == ("0", wanted.as_str()),
        "{code}: {said}"
    );
    m.met(1, 1)?;
    let verdict = m.verdict(reader.gpa)?;
    ensure!(
        verdict.starts_with("clean") && verdict.ends_with("Recovered"),
        "{verdict}"
    );
    m.saw("cache-clean", Outcome::ReadAgain)?;

    m.guest.check("echo 100000 > /proc/sys/vm/dirty_writeback_centisecs")?;
    let memory = format!("map /disk/clean {MEMORY}");
    let writer = m.program("", &memory, &format!("load:{PAGE} store:{PAGE}"), "")?;
    m.inject(&writer, "RAM", 0)?;
    let failed = m.guest.fails("xfs_io -c fsync /disk/clean")?;
    ensure!(failed.contains("Input/output error"), "{failed}");
    let faults = m.faults()?;
    ensure!(faults["counts"]["device_requests"].as_u64() >= Some(1), "{faults}");
    ensure!(m.state(writer.gpa + LINE)? == "known");
    // Nobody has loaded it.
    m.met(0, 0)?;
    m.api
        .done("POST", "/faults/clear", Some(&json!({"gpa": writer.gpa + LINE})))?;
    m.guest
        .check("xfs_io -c 'pwrite -q -S 0x11 0 4096' -c fsync /disk/clean")?;
    ensure!(m.go_on(&writer)?.0 == "0");
    m.saw("cache-dirty", Outcome::Eio)
}

/// A memory device that the guest has added, and gives back with the errors that are in it.
fn memory_device(m: &mut Machine) -> Result<()> {
    let device = json!({"add": {"size": "128M", "node": 1, "id": "hot"}});
    let Ok(device) = m.api.memory(&device)? else {
        bail!("no device")
    };
    let start = facts::number(&device, "start")?;
    m.guest.check(
        "for n in $(seq 100); do grep -q 1 /sys/devices/system/node/has_memory && exit 0; sleep 0.1; done; exit 1",
    )?;
    program_meets_it(m, "dimm-program", "memory device", 1)?;
    // One that the kernel has not met, in the same device.
    let free = start + 96 * MIB;
    m.api.done("POST", "/faults", Some(&json!({"gpa": free})))?;
    let gone = m.api.memory(&json!({"remove": {"id": "hot"}}))?;
    ensure!(gone.is_ok(), "{gone:?}");
    // The kernel forgets the pages that it lost with them.
    m.forgot_pages()?;
    let faults = m.faults()?;
    let left = facts::list(&faults, "faults")?;
    ensure!(
        left.iter()
            .all(|fault| !(start..start + 128 * MIB).contains(&fault["gpa"].as_u64().unwrap_or(0))),
        "{faults}"
    );
    m.saw("dimm-gone", Outcome::GivenBack)
}

/// Persistent memory as a node: what a scrub finds and a clear mends before it is put online harms nobody afterwards.
fn persistent_memory_as_a_node(m: &mut Machine) -> Result<()> {
    m.guest
        .check("ndctl wait-scrub && ndctl create-namespace -f -e namespace0.0 -m devdax --map=mem")?;
    let resource = m.guest.check("cat /sys/bus/dax/devices/dax0.0/resource")?;
    let start = u64::from_str_radix(resource.trim_start_matches("0x"), 16)?;
    // All over what will be memory.
    for n in 0..24u64 {
        let gpa = start + (n * 16 + 3) * MIB + 0x1040;
        m.api.done("POST", "/faults", Some(&json!({"gpa": gpa})))?;
    }
    m.guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    let found = m.guest.json("ndctl list -N --media-errors")?;
    ensure!(found[0]["badblock_count"] == 24, "{found}");
    m.guest.check("ndctl clear-errors namespace0.0")?;
    let faults = m.faults()?;
    let left = facts::list(&faults, "faults")?
        .iter()
        .filter(|fault| fault["nvdimm"] == "pmem0")
        .count();
    ensure!(left == 0, "{faults}");
    m.guest
        .check("daxctl reconfigure-device --force --mode=system-ram dax0.0 || daxctl online-memory dax0.0 || true")?;
    m.guest.check(
        "for n in $(seq 100); do grep -q 2 /sys/devices/system/node/has_memory && exit 0; sleep 0.1; done; exit 1",
    )?;
    m.guest
        .check("numactl --membind=2 memprobe anon 0x8000000 load:0 vector:0x7fff000")?;
    m.met(0, 0)?;
    m.saw("node-mended", Outcome::Fine)?;
    program_meets_it(m, "node-program", "NVDIMM", 2)?;
    let faults = m.faults()?;
    let left: Vec<&Value> = facts::list(&faults, "faults")?
        .iter()
        .filter(|fault| fault["nvdimm"] == "pmem0")
        .collect();
    ensure!(left.len() == 1 && left[0]["state"] == "known", "{faults}");
    Ok(())
}

/// What happens to one machine, in this order.
const STEPS: [(&str, Step); 5] = [
    ("boot RAM", |m| program_meets_it(m, "ram-program", "RAM", 0)),
    ("a page met twice", page_is_met_twice),
    ("pages of files", pages_of_files),
    ("a memory device", memory_device),
    ("persistent memory as a node", persistent_memory_as_a_node),
];

fn bad_memory(kernel: &str) -> Result<()> {
    let files = Scratch::new("poison-ram")?;
    let mut m = start(kernel, &files)?;
    walk(&mut m, &STEPS)?;
    let log = m.guest.check("dmesg | grep -E 'WARNING:|BUG:|Oops' || true")?;
    ensure!(log.is_empty(), "{log}");
    m.guest.power_off()?;
    Ok(())
}

#[test]
fn poison_of_ram_stops_programs_on_6_1() -> Result<()> {
    bad_memory("debian-6.1-amd64")
}

#[test]
fn poison_of_ram_stops_programs_on_6_12() -> Result<()> {
    bad_memory("debian-6.12-amd64")
}
