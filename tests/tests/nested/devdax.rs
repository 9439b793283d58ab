//! A device-dax node of the host as a backing. Few machines have one, so the nested host gets one: its kernel sets a part
//! of its memory aside as persistent, and ndctl makes a node of it there. This program runs itself again in that host.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, api, api::ApiClient, facts, guest::program, host};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

/// Set for the half that runs in the nested host.
const INSIDE: &str = "DAXVISOR_TEST_DEVDAX";
/// With its default memory the nested host has RAM from 4 GiB on.
const SET_ASIDE: &str = "memmap=1G!4G";
const NODE: &str = "/dev/dax0.0";
/// Less than the node has. Its last 2 MiB page has the label area, the rest is a region that is whole for ndctl.
const SIZE: &str = "498M";
/// Exit code of a bad configuration, and of a host that failed.
const BAD: i32 = 2;
const HOST_FAILED: i32 = 125;

#[test]
fn a_device_dax_node_of_the_host_is_a_backing() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let mut output = in_nested_host()?;
    if output.status.code() == Some(HOST_FAILED) {
        host::report_retry("the nested host failed", &String::from_utf8_lossy(&output.stderr));
        output = in_nested_host()?;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("1 passed"),
        "in the nested host ({}):\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs the test of this name in a nested host with persistent memory.
fn in_nested_host() -> Result<Output> {
    let (me, daxvisor) = (env::current_exe()?, program()?);
    let mut command = Command::new(&daxvisor);
    command.args([
        "host",
        "run",
        "--no-stdin",
        "--timeout",
        "600",
        "--kernel-arg",
        SET_ASIDE,
    ]);
    command.args(["--env", &format!("{INSIDE}=1")]);
    if let Some(folder) = hidden(&daxvisor) {
        command.arg("--share").arg(folder);
    }
    command.arg("--").arg(me);
    command.args([
        "--exact",
        "devdax::a_device_dax_node_of_the_host_is_a_backing",
        "--nocapture",
    ]);
    command.output().context("cannot start the nested host")
}

/// daxvisor's folder, where the nested host has an empty one in its place.
fn hidden(daxvisor: &Path) -> Option<PathBuf> {
    let private = ["/tmp", "/var/tmp", "/run", "/dev/shm"];
    let folder = daxvisor.parent()?;
    private.iter().any(|p| folder.starts_with(p)).then(|| folder.to_owned())
}

fn inside() -> Result<()> {
    let made = ndctl(&[
        "create-namespace",
        "-f",
        "-e",
        "namespace0.0",
        "-m",
        "devdax",
        "-M",
        "mem",
        "-a",
        "2M",
    ])?;
    ensure!(made["daxregion"]["devices"][0]["chardev"] == "dax0.0", "{made}");
    ensure!(made["daxregion"]["devices"][0]["align"] == 2 << 20, "{made}");

    refuses_what_does_not_fit()?;
    let (found, sum) = guest_fills()?;
    guest_finds(&found, &sum)?;
    guest_only_reads(&found, &sum)?;
    host_loses_a_page(&found)?;
    ranges_end_as_system_ram()
}

/// ndctl of the nested host itself.
fn ndctl(args: &[&str]) -> Result<Value> {
    let done = Command::new("ndctl").args(args).output().context("cannot run ndctl")?;
    ensure!(
        done.status.success(),
        "ndctl {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn dimm(more: &str) -> GuestBuilder {
    GuestBuilder::new(QUICK).nvdimm(&format!("file={NODE},id=host,{more}"))
}

fn refuses_what_does_not_fit() -> Result<()> {
    for (more, expected) in [
        (
            "size=129M",
            "size 129M of host is no multiple of 2M, the page size of /dev/dax0.0\nhint: size=130M",
        ),
        ("size=1G", "the size of /dev/dax0.0 is 1022M, but size= of host is 1G"),
        (
            "size=498M,backing=file",
            "is a character device, expected a regular file",
        ),
    ] {
        let ended = dimm(more).refused()?;
        ensure!(
            ended.code == BAD && ended.stderr.contains(expected),
            "{more}: {ended:?}"
        );
    }
    // All of it, when nobody says how much.
    let plan = dimm("readonly=on").dry_run()?;
    let dimm = &facts::list(&plan, "nvdimms")?[0];
    ensure!(facts::number(dimm, "len")? == 1020 << 20, "{plan}");
    Ok(())
}

const SUM: &str = "mkdir -p /m && mount -t ext4 -o ro,dax /dev/pmem0 /m && sha256sum /m/file && umount /m";

/// Labels, a namespace and a file; gives the list of namespaces and the file's checksum.
fn guest_fills() -> Result<(Value, String)> {
    let config = dimm(&format!("size={SIZE}"));
    let mut guest = config.start()?;
    guest.check("ndctl disable-region region0 && ndctl init-labels nmem0 && ndctl enable-region region0")?;
    // Page structures in RAM: a read-only node refuses the stores that Linux makes to those on the DIMM.
    guest.check("ndctl create-namespace -r region0 -m fsdax -M mem")?;
    guest.check(
        "mkfs.ext4 -q -b 4096 /dev/pmem0 && mkdir -p /m && mount -t ext4 -o dax /dev/pmem0 /m && \
         dd if=/dev/urandom of=/m/file bs=1M count=4 2>/dev/null && umount /m",
    )?;
    let sum = guest.check(SUM)?;
    let found = namespaces(&mut guest)?;
    let second = config.refused()?;
    ensure!(
        second.code != 0 && second.stderr.contains("in use by another process"),
        "{second:?}"
    );
    guest.power_off()?;
    Ok((found, sum))
}

fn namespaces(guest: &mut Guest) -> Result<Value> {
    let all = guest.json("ndctl list -N")?;
    ensure!(all.as_array().is_some_and(|a| a.len() == 1), "{all}");
    ensure!(all[0]["mode"] == "fsdax" && all[0]["map"] == "mem", "{all}");
    Ok(all)
}

/// What was there before is there again.
fn guest_finds(found: &Value, sum: &str) -> Result<()> {
    let mut guest = dimm(&format!("size={SIZE}")).start()?;
    ensure!(namespaces(&mut guest)? == *found, "after the power-off");
    ensure!(guest.check(SUM)? == sum, "after the power-off");
    guest.check("ndctl disable-region region0 && ndctl check-labels nmem0")?;
    guest.power_off()?;
    Ok(())
}

fn guest_only_reads(found: &Value, sum: &str) -> Result<()> {
    let mut guest = dimm(&format!("size={SIZE},readonly=on")).start()?;
    let all = namespaces(&mut guest)?;
    ensure!(all[0]["uuid"] == found[0]["uuid"], "{all}");
    let flags = guest.check("cat /sys/bus/nd/devices/region0/read_only /sys/block/pmem0/ro")?;
    ensure!(flags == "1\n1", "{flags}");
    ensure!(guest.check(SUM)? == sum, "read-only");
    guest.fails("dd if=/dev/zero of=/dev/pmem0 bs=4096 count=1 conv=fsync")?;
    guest.check("ndctl disable-region region0")?;
    guest.sh("ndctl zero-labels nmem0")?;
    guest.check("ndctl check-labels nmem0")?;
    guest.power_off()?;
    Ok(())
}

/// Where the host loses memory of the node: its first byte, within a page of 2 MiB, and where the guest's disk has that page. In front
/// of the disk's first byte the namespace has 2 MiB of its own.
const LOST: u64 = 64 * MIB;
const LOST_SECTOR: u64 = (LOST - 2 * MIB) / 512;
/// Time for what comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the host loses of a node it loses in pages of the node's own, and the guest is told before it touches one.
fn host_loses_a_page(found: &Value) -> Result<()> {
    let files = Scratch::new("dax-lost")?;
    // Before Linux 6.7 the list of bad blocks is out of order where a range is larger than an entry of it, and reads go on into it.
    let mut guest = GuestBuilder::new(WHOLE)
        .nvdimm(&format!("file={NODE},id=host,size={SIZE}"))
        .arg("--api-socket", &files.text("api"))
        .start()?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    ensure!(namespaces(&mut guest)? == *found, "before the error");
    let read = format!(
        "dd if=/dev/pmem0 of=/dev/null bs=2M skip={} count=1 iflag=direct",
        LOST / 2 / MIB - 1
    );
    // The host knows whose a page is when somebody has touched it.
    guest.check(&read)?;
    let start = fs::read_to_string("/sys/bus/dax/devices/dax0.0/resource")?;
    let start = u64::from_str_radix(start.trim().trim_start_matches("0x"), 16)?;
    let page = format!("{:#x}", start + LOST + 3 * 4096);
    fs::write("/sys/devices/system/memory/hard_offline_page", page)?;

    let deadline = Instant::now() + PATIENCE;
    let lost = loop {
        let list = client.get("/faults")?;
        if list["counts"]["host_errors"] == 1 {
            break list;
        }
        ensure!(Instant::now() < deadline, "nobody has heard of it: {list}");
        thread::sleep(Duration::from_millis(20));
    };
    let faults = facts::list(&lost, "faults")?;
    ensure!(faults.len() == 1, "{lost}");
    let fault = &faults[0];
    ensure!(
        (&fault["nvdimm"], &fault["dpa"], &fault["len"]) == (&json!("host"), &json!(LOST), &json!(2 * MIB)),
        "{fault}"
    );
    ensure!(fault["state"] == "known" && fault["source"] == "backing", "{fault}");
    // The kernel's list has entries of 512 sectors at most.
    guest.check(&format!(
        "f=/sys/block/pmem0/badblocks; for n in $(seq 200); do sum=0; while read at len; do sum=$((sum + len)); done < $f; \
         test $sum = {} && grep -q '^{LOST_SECTOR} ' $f && exit 0; sleep 0.1; done; cat $f; exit 1",
        2 * MIB / 512
    ))?;
    guest.fails(&read)?;
    guest.check(&format!(
        "dd if=/dev/zero of=/dev/pmem0 bs=2M seek={} count=1 oflag=direct",
        LOST / 2 / MIB - 1
    ))?;
    guest.check(&read)?;
    let list = client.get("/faults")?;
    ensure!(facts::list(&list, "faults")?.is_empty() && list["pages"] == 0, "{list}");
    guest.power_off()?;
    Ok(())
}

/// A kernel with every driver that makes System RAM of something.
const WHOLE: &str = "debian-6.12-amd64";
const MIB: u64 = 1 << 20;

/// Three ranges of the node, each as something else, and each is System RAM on its own node of the guest in the end.
fn ranges_end_as_system_ram() -> Result<()> {
    let files = Scratch::new("dax-ranges")?;
    let mut guest = GuestBuilder::new(WHOLE)
        .arg("--numa", "node=0,memory=512M")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--numa", "node=2,hotplug=1G")
        .arg("--numa", "node=3")
        .arg("--memory-slots", "2")
        .arg("--nvdimm-bus", "0")
        .arg("--api-socket", &files.text("api"))
        .arg("--on-reset", "restart")
        .cmdline("memhp_default_state=online_movable")
        .start()?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    refuses_ranges(&mut client)?;

    let range = |presented: &str, offset: u64, size: u64, node: u64| {
        let (offset, size) = (offset * MIB, size * MIB);
        json!({"file": NODE, "as": presented, "offset": offset, "size": size, "node": node, "id": presented})
    };
    let memory = format!("{NODE},as=memory,offset=0,size=128M,node=1,id=memory");
    let said = api::ctl(&program()?, &files.join("api"), &["dax", "add", &memory, "--wait"])?;
    ensure!(said.status.success(), "{said:?}");
    node_has(&mut guest, 1, 128)?;

    guest.check("modprobe -a nfit dax_pmem kmem")?;
    // The label area takes the last 2 MiB page of the range; a region is whole for ndctl in units of 16 MiB.
    let nvdimm = client.begin("POST", "/dax-ranges", Some(&range("nvdimm", 128, 322, 2)))?;
    ensure!(client.ended(&nvdimm)?["state"] == "done", "{nvdimm}");
    guest.check(
        "for n in $(seq 100); do test -e /sys/bus/nd/devices/region0 && break; sleep 0.1; done; ls /sys/bus/nd/devices",
    )?;
    guest.check("ndctl disable-region region0 && ndctl init-labels nmem0 && ndctl enable-region region0")?;
    guest.check("ndctl create-namespace -r region0 -m devdax -M mem")?;
    let (start, len) = (dax_number(&mut guest, "resource")?, dax_number(&mut guest, "size")?);
    guest.check("daxctl reconfigure-device --force --mode=system-ram dax0.0")?;
    node_has(&mut guest, 2, whole_blocks(start, len))?;

    let later = client.begin("POST", "/dax-ranges", Some(&range("soft-reserved", 450, 256, 3)))?;
    ensure!(later["kind"] == "range-add" && later["state"] == "running", "{later}");
    let (status, _) = client.refused("POST", "/dax-ranges", Some(&range("soft-reserved", 450, 256, 3)))?;
    ensure!(status == 409, "the same name twice: {status}");
    let mut guest = guest.rebooted().context("the boot with the soft-reserved range")?;
    let later = client.ended(&later)?;
    ensure!(later["state"] == "done", "{later}");
    let start = facts::number(&later["result"], "start")?;
    let iomem = guest.check("cat /proc/iomem")?;
    let line = format!("{start:x}-{:x} : Soft Reserved", start + 256 * MIB - 1);
    ensure!(iomem.contains(&line), "no {line} in {iomem}");
    guest.check("modprobe -a dax_hmem kmem; for n in $(seq 100); do test -e /sys/bus/dax/devices/dax0.0 && break; sleep 0.1; done")?;
    let device = guest.check("basename /sys/devices/platform/hmem.*/dax*.*")?;
    guest.check(&format!("daxctl reconfigure-device --force --mode=system-ram {device}"))?;
    node_has(&mut guest, 3, whole_blocks(start, 256 * MIB))?;
    // What was there before the boot still is.
    node_has(&mut guest, 1, 128)?;
    guest.power_off()?;
    Ok(())
}

/// The guest's device-dax device in numbers.
fn dax_number(guest: &mut Guest, name: &str) -> Result<u64> {
    let text = guest.check(&format!("printf %d $(cat /sys/bus/dax/devices/dax0.0/{name})"))?;
    Ok(text.parse()?)
}

/// MiB of the memory blocks of 128 MiB that lie in a range: Linux adds no others.
fn whole_blocks(start: u64, len: u64) -> u64 {
    let block = 128 * MIB;
    let (first, end) = (start.next_multiple_of(block), (start + len) / block * block);
    end.saturating_sub(first) / MIB
}

/// What cannot be is told by the field, and changes nothing.
fn refuses_ranges(client: &mut ApiClient) -> Result<()> {
    let before = client.get("/vm")?["plan"].clone();
    for (body, field, expected) in [
        (
            json!({"file": "/etc/passwd", "as": "memory", "size": "128M", "node": 1}),
            "file",
            "a device-dax node",
        ),
        (
            json!({"file": NODE, "as": "soft-reserved", "node": 3}),
            "size",
            "has no size",
        ),
        (
            json!({"file": NODE, "as": "memory", "offset": "960M", "size": "128M", "node": 1}),
            "offset",
            NODE,
        ),
        (
            json!({"file": NODE, "as": "nvdimm", "offset": "1M", "size": "128M"}),
            "offset",
            "1M",
        ),
        (
            json!({"file": NODE, "as": "soft-reserved", "size": "128M", "node": 9}),
            "node",
            "9",
        ),
    ] {
        let answer = client.send("POST", "/dax-ranges", Some(&body))?;
        let problem = answer.json()?;
        ensure!(answer.status == 422, "{body}: {} {problem}", answer.status);
        let detail = facts::text(&problem, "detail")?;
        ensure!(
            problem["field"] == field && detail.contains(expected),
            "{body}: {problem}, expected {field}"
        );
    }
    ensure!(
        client.get("/vm")?["plan"] == before,
        "a refused range has changed the machine"
    );
    Ok(())
}

/// The node comes to have so many MiB of System RAM.
fn node_has(guest: &mut Guest, node: u64, mib: u64) -> Result<()> {
    let kib = mib << 10;
    guest.check(&format!(
        "f=/sys/devices/system/node/node{node}/meminfo; for n in $(seq 100); do grep -q 'MemTotal: *{kib} kB' $f && exit 0; \
         sleep 0.1; done; cat $f; exit 1"
    ))?;
    Ok(())
}
