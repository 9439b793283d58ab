//! NVDIMMs that a running guest is given.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, api::ctl, facts, guest::program};
use serde_json::Value;
use std::path::Path;

fn nvdimm(socket: &Path, args: &[&str]) -> Result<std::process::Output> {
    Ok(ctl(&program()?, socket, &[&["--json", "nvdimm"], args].concat())?)
}

/// Adds one, which has to succeed.
fn add(socket: &Path, text: &str) -> Result<Value> {
    let done = nvdimm(socket, &["add", "--wait", text])?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "add {text}: {said}");
    let operation: Value = serde_json::from_slice(&done.stdout)?;
    let added = &operation["result"];
    ensure!(
        operation["state"] == "done" && added["fit_seen"] == added["fit_generation"],
        "the guest has not looked: {operation}"
    );
    Ok(added["dimm"].clone())
}

/// Waits until the guest has this many regions on its first bus.
fn regions(guest: &mut Guest, count: usize) -> Result<()> {
    guest.check(&format!(
        "for n in $(seq 100); do test $(ls -d /sys/bus/nd/devices/ndbus0/region* 2>/dev/null | wc -l) = {count} && exit 0; \
         sleep 0.1; done; ls /sys/bus/nd/devices; dmesg | tail -n 20; exit 1"
    ))?;
    Ok(())
}

#[test]
fn added_nvdimms_appear_on_their_memory_less_nodes() -> Result<()> {
    for kernel in [QUICK, "debian-6.12-amd64"] {
        let files = Scratch::new("hotadd")?;
        let socket = files.join("api");
        let mut guest = GuestBuilder::new(kernel)
            .memory("512M")
            .arg("--numa", "node=0,memory=512M,cpus=0")
            .arg("--numa", "node=1")
            .arg("--numa", "node=2,hotplug=4G")
            .nvdimm(&format!("{},size=65664K,node=1,id=cold", files.text("cold")))
            .arg("--api-socket", &files.text("api"))
            .start()
            .with_context(|| kernel.to_owned())?;
        regions(&mut guest, 1)?;
        let before = guest.json("ndctl list -DRN")?;

        let hot = add(&socket, &format!("{},size=1G,node=2,id=hot", files.text("hot")))?;
        ensure!((&hot["slot"], &hot["handle"]) == (&1.into(), &2.into()), "{hot}");
        regions(&mut guest, 2)?;
        let resource = format!("{:#x}", facts::number(&hot, "start")?);
        let region = guest.check(&format!(
            "grep -lx {resource} /sys/bus/nd/devices/region*/resource | cut -d/ -f6"
        ))?;
        // The node is known since the start and empty; nothing else of the guest has moved.
        let nodes = guest.check(&format!(
            "cat /sys/bus/nd/devices/{region}/target_node /sys/bus/nd/devices/{region}/nfit/range_index"
        ))?;
        ensure!(nodes == "2\n4", "{kernel}: target node and range index are {nodes}");
        let now = guest.json("ndctl list -DRN")?;
        let cold = |list: &Value| facts::find(&list["regions"], "dev", "region0").cloned();
        ensure!(cold(&now)? == cold(&before)?, "{before} became {now}");

        guest.check(&format!(
            "ndctl disable-region {region} && ndctl init-labels nmem1 && ndctl enable-region {region} && \
             ndctl create-namespace -r {region} -m devdax -s 512M"
        ))?;
        let dax = guest.check(&format!(
            "ls /sys/bus/nd/devices/{region} | grep dax | head -1; ls /dev/dax*"
        ))?;
        ensure!(dax.contains("/dev/dax"), "{kernel}: {dax}");
        // A third one, beyond the window's room.
        add(&socket, &format!("{},size=4G,node=2,id=third", files.text("third")))?;
        regions(&mut guest, 3)?;

        for (text, why) in [
            (
                format!("{},size=64M,id=hot", files.text("x")),
                "there is an nvdimm hot already",
            ),
            (format!("{},size=64M,node=7", files.text("x")), "7"),
            (
                format!("{},size=64M,bus=1", files.text("x")),
                "the machine has no NVDIMM bus 1",
            ),
            (
                format!("{},size=64M,handle=0x77", files.text("x")),
                "handle=0x77 cannot be chosen",
            ),
            (format!("{},size=64M", files.text("hot")), "hot"),
            (
                format!("{},size=1M", files.text("x")),
                "size 1M of nvdimm3 is out of range",
            ),
        ] {
            let refused = nvdimm(&socket, &["add", &text])?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(1) && said.contains(why), "{text}: {said}");
            ensure!(!files.join("x").exists(), "{text}: a file is left");
        }
        regions(&mut guest, 3)?;
        let complaints = guest.check("dmesg | grep -e 'BUG: ' -e 'deletes entries' -e 'Call Trace' || true")?;
        ensure!(complaints.is_empty(), "{kernel}: {complaints}");
        guest.power_off()?;
    }
    Ok(())
}

#[test]
fn machine_without_nvdimms_can_be_given_its_first() -> Result<()> {
    let files = Scratch::new("first")?;
    let mut guest = GuestBuilder::new(QUICK)
        .arg("--nvdimm-bus", "0")
        .arg("--api-socket", &files.text("api"))
        .start()?;
    guest.check("modprobe -a nfit nd_pmem")?;
    add(&files.join("api"), &format!("{},size=65664K", files.text("dimm")))?;
    regions(&mut guest, 1)?;
    guest.check("ndctl create-namespace -m fsdax -f -e namespace0.0 && mkfs.ext4 -q -b 4096 /dev/pmem0")?;
    guest.power_off()?;
    Ok(())
}

/// Pages come and go all the time while the NVDIMM comes, becomes a node and is filled.
#[test]
fn nvdimm_that_is_added_under_load_becomes_system_ram() -> Result<()> {
    let files = Scratch::new("underload")?;
    let mut guest = GuestBuilder::new("debian-6.12-amd64")
        .cpus("2")
        .memory("1G")
        .arg("--numa", "node=0,memory=1G")
        .arg("--numa", "node=1,hotplug=2G")
        .arg("--nvdimm-bus", "0")
        .arg("--api-socket", &files.text("api"))
        .cmdline("memhp_default_state=online_movable")
        .start()?;
    guest.check("modprobe -a nfit nd_pmem")?;
    guest.check(
        "mkdir -p /load && mount -t tmpfs -o size=200M load /load && \
         (n=0; while test -d /load; do dd if=/dev/zero of=/load/x bs=1M count=96; rm -f /load/x; n=$((n+1)); \
         echo $n > /run/rounds; done >/dev/null 2>&1 &)",
    )?;
    let hot = add(&files.join("api"), "size=524416K,label=128K,node=1,id=hot")?;
    regions(&mut guest, 1)?;
    guest.check(
        "ndctl disable-region region0 && ndctl init-labels nmem0 && ndctl enable-region region0 && \
         ndctl create-namespace -r region0 -m devdax --map=mem && \
         { daxctl reconfigure-device --force --mode=system-ram dax0.0 || daxctl online-memory dax0.0 || true; }",
    )?;
    guest.check(
        "for n in $(seq 100); do grep -q 1 /sys/devices/system/node/has_memory && exit 0; sleep 0.1; done; dmesg | tail; exit 1",
    )?;
    let start = facts::number(&hot, "start")?;
    let iomem = guest.check("grep -A3 -i 'persistent memory' /proc/iomem")?;
    ensure!(
        iomem.contains(&format!("{start:09x}-")) && iomem.contains("System RAM (kmem)"),
        "{iomem}"
    );
    // Of 512 MiB what begins or ends within a block of 128 MiB stays unused.
    let total = guest.check("sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node1/meminfo")?;
    ensure!(total.parse::<u64>()? >= 384 << 10, "node 1 has {total} kB");
    guest.check("numactl --membind=1 memprobe anon 0x10000000 load:0 load:0xffff000")?;
    // The load was there all the time, and goes on.
    let rounds = "test -s /run/rounds && cat /run/rounds";
    let before: u64 = guest.check(rounds)?.parse()?;
    guest.check(&format!(
        "for n in $(seq 100); do test $({rounds}) -gt {before} && exit 0; sleep 0.1; done; exit 1"
    ))?;
    let complaints = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' || true")?;
    ensure!(complaints.is_empty(), "{complaints}");
    guest.power_off()?;
    Ok(())
}
