//! Memory devices on Linux: added to different nodes under load, put online by the kernel and by hand, given back, refused
//! when busy, and the host's memory after that.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, api::ApiClient, facts};
use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};

const BLOCK: u64 = 128 << 20;
const MIB: u64 = 1 << 20;
const EAGER: &str = "debian-6.12-amd64";
/// Complaints of a kernel that something is wrong.
const TROUBLE: &str = "dmesg | grep -e 'BUG: ' -e 'Call Trace' -e 'WARNING: ' || true";

/// Node 0 with everything, and three empty nodes that memory can be added to.
fn machine(kernel: &str, files: &Scratch) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .cpus("2")
        .memory("1G")
        .arg("--numa", "node=0,hotplug=2G")
        .arg("--numa", "node=1,hotplug=4G")
        .arg("--numa", "node=2,hotplug=4G")
        .arg("--numa", "node=3,hotplug=4G")
        .arg("--memory-slots", "96")
        .arg("--memory-device", "256M,id=cold,node=3")
        .arg("--api-socket", &files.text("api"))
}

struct Machine {
    guest: Guest,
    client: ApiClient,
}

impl Machine {
    fn start(builder: &GuestBuilder, files: &Scratch) -> Result<Self> {
        let guest = builder.start()?;
        let client = ApiClient::connect(&files.join("api"))?;
        Ok(Self { guest, client })
    }

    fn call(&mut self, request: Value) -> Result<Value> {
        match self.client.memory(&request)? {
            Ok(content) => Ok(content),
            Err(problem) => bail!("{request}: {problem}\n{}", self.log()?),
        }
    }

    fn refused(&mut self, request: Value) -> Result<Value> {
        match self.client.memory(&request)? {
            Ok(content) => bail!("{request}: {content}"),
            Err(problem) => Ok(problem),
        }
    }

    fn log(&mut self) -> Result<String> {
        self.guest.check("dmesg | tail -n 15")
    }

    /// Adds a device; the guest has to take it.
    fn add(&mut self, id: &str, node: u64, size: &str) -> Result<Value> {
        let device = self.call(json!({"add": {"id": id, "node": node, "size": size}}))?;
        ensure!(device["guest"] == "taken" && device["ost"]["status"] == 0, "{device}");
        ensure!(device["node"] == node, "{device}");
        Ok(device)
    }

    fn remove(&mut self, id: &str) -> Result<()> {
        let gone = self.call(json!({"remove": {"id": id}}))?;
        ensure!(gone["id"] == id, "{gone}");
        Ok(())
    }

    /// Puts the blocks of a device online, or does something else with their `state`.
    fn set_state(&mut self, device: &Value, state: &str) -> Result<()> {
        let (start, len) = (facts::number(device, "start")?, facts::number(device, "len")?);
        for block in start / BLOCK..(start + len) / BLOCK {
            self.guest.check(&format!(
                "echo {state} > /sys/devices/system/memory/memory{block}/state"
            ))?;
        }
        Ok(())
    }

    /// Bytes that a node has according to Linux; 0 when it is not online.
    fn node_size(&mut self, node: u64) -> Result<u64> {
        let text = self.guest.check(&format!(
            "sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node{node}/meminfo 2>/dev/null || true"
        ))?;
        Ok(text.parse::<u64>().unwrap_or(0) << 10)
    }

    /// The machine's map, the guest's `/proc/iomem` and the list agree.
    fn agrees(&mut self) -> Result<()> {
        let described = self.client.get("/vm")?;
        let names = ["System RAM", "Reserved", "ACPI Tables", "ACPI Non-volatile Storage"];
        let seen = facts::iomem(&self.guest.check("cat /proc/iomem")?, &names)?;
        let planned: Vec<_> = facts::planned_iomem(&described["plan"])?;
        let ram = |lines: &[facts::MemoryLine]| {
            lines
                .iter()
                .filter(|l| l.2 == "System RAM")
                .cloned()
                .collect::<Vec<_>>()
        };
        ensure!(ram(&seen) == ram(&planned), "guest {seen:x?}, machine {planned:x?}");
        let list = self.call(json!("list"))?;
        ensure!(list == described["memory"], "{list}, described {}", described["memory"]);
        for device in facts::list(&list, "devices")? {
            let (start, len) = (facts::number(device, "start")?, facts::number(device, "len")?);
            let line = (start, start + len - 1, "System RAM".to_owned());
            ensure!(seen.contains(&line), "{device} is not in {seen:x?}");
        }
        Ok(())
    }

    /// Fills memory of a node with the pages of a file.
    fn fill(&mut self, node: u64, mib: u64) -> Result<()> {
        self.guest.check(&format!(
            "mkdir -p /fill{node} && mount -t tmpfs -o size=1G,mpol=bind:{node} fill /fill{node} && \
             dd if=/dev/urandom of=/fill{node}/file bs=1M count={mib} 2>/dev/null"
        ))?;
        Ok(())
    }

    fn unfill(&mut self, node: u64) -> Result<()> {
        self.guest.check(&format!("umount /fill{node}"))?;
        Ok(())
    }
}

/// Memory load: pages of node 0 come and go all the time.
fn load(guest: &mut Guest) -> Result<()> {
    guest.check(
        "mkdir -p /load && mount -t tmpfs -o size=200M load /load && \
         (while test -d /load; do dd if=/dev/zero of=/load/x bs=1M count=96; rm -f /load/x; done >/dev/null 2>&1 &)",
    )?;
    Ok(())
}

#[test]
fn kernel_policy_puts_devices_online_and_idle_ones_are_given_back() -> Result<()> {
    let files = Scratch::new("memory")?;
    let builder = machine(EAGER, &files).cmdline("memhp_default_state=online_movable");
    let mut m = Machine::start(&builder, &files)?;
    // There at boot, taken by the scan, and no word of it.
    let list = m.call(json!("list"))?;
    ensure!(
        list["block"] == BLOCK && list["devices"][0]["guest"] == "at-boot",
        "{list}"
    );
    ensure!(m.node_size(3)? == 2 * BLOCK, "{list}");
    m.agrees()?;
    load(&mut m.guest)?;
    // One, then eight over three nodes.
    m.add("one", 1, "512M")?;
    ensure!(m.node_size(1)? == 4 * BLOCK);
    for n in 0..8 {
        m.add(&format!("eight{n}"), n % 3 + 1, "128M")?;
    }
    let sizes = [m.node_size(1)?, m.node_size(2)?, m.node_size(3)?];
    ensure!(sizes == [7 * BLOCK, 3 * BLOCK, 4 * BLOCK], "{sizes:?}");
    m.agrees()?;
    // What a guest stores in a device is the host's memory until it is given back.
    let before = m.guest.resident()?;
    m.fill(2, 256)?;
    let full = m.guest.resident()?;
    ensure!(full >= before + 200 * MIB, "{before} became {full}");
    m.unfill(2)?;
    for n in [1, 4, 7] {
        m.remove(&format!("eight{n}"))?;
    }
    ensure!(m.node_size(2)? == 0, "node 2 has {}", m.node_size(2)?);
    let after = m.guest.resident()?;
    ensure!(
        after + 200 * MIB <= full,
        "{full} became {after}: before there were {before}"
    );
    m.agrees()?;
    // The slots and addresses are used again.
    let again = m.add("again", 2, "384M")?;
    ensure!(again["slot"] == 3, "{again}");
    m.remove("cold")?;
    m.agrees()?;
    let trouble = m.guest.check(TROUBLE)?;
    ensure!(trouble.is_empty(), "{trouble}");
    m.guest.power_off()?;
    Ok(())
}

#[test]
fn agent_puts_devices_online_and_busy_ones_are_kept_until_they_are_idle() -> Result<()> {
    let files = Scratch::new("busy")?;
    let mut m = Machine::start(&machine(QUICK, &files), &files)?;
    let idle = m.add("idle", 1, "256M")?;
    let busy = m.add("busy", 2, "256M")?;
    // This kernel leaves memory offline; the machine has it, the node does not.
    ensure!((m.node_size(1)?, m.node_size(2)?) == (0, 0));
    m.agrees()?;
    m.set_state(&idle, "online_movable")?;
    m.set_state(&busy, "online_kernel")?;
    ensure!((m.node_size(1)?, m.node_size(2)?) == (2 * BLOCK, 2 * BLOCK));
    // Names and inodes of files are the kernel's own memory and cannot be moved.
    m.guest.check(
        "mkdir -p /pin && mount -t tmpfs pin /pin && \
         numactl --membind=2 sh -c 'for n in $(seq 3000); do : > /pin/$n; done'",
    )?;
    let error = m.refused(json!({"remove": {"id": "busy"}}))?;
    let said = "the guest keeps busy: _OST event 0x3 (eject request), status 0x82 (device busy)";
    ensure!(
        error["type"] == "refused" && error["detail"] == said,
        "{error}\n{}",
        m.log()?
    );
    let list = m.call(json!("list"))?;
    let kept = facts::find(&list["devices"], "id", "busy")?;
    ensure!(
        kept["guest"] == "unplug-refused" && kept["ost"]["status"] == 0x82,
        "{kept}"
    );
    m.agrees()?;
    // Memory in use by a program moves elsewhere.
    m.fill(1, 64)?;
    m.remove("idle")?;
    ensure!(m.node_size(1)? == 0);
    m.unfill(1)?;
    // Once the files are gone, so is what kept it; caches need a moment.
    m.guest.check("umount /pin")?;
    let begun = Instant::now();
    loop {
        m.guest.check("sync; echo 3 > /proc/sys/vm/drop_caches")?;
        let Err(reply) = m.client.memory(&json!({"remove": {"id": "busy"}}))? else {
            break;
        };
        ensure!(reply["type"] == "refused", "{reply}");
        ensure!(begun.elapsed() < Duration::from_secs(60), "{reply}\n{}", m.log()?);
        thread::sleep(Duration::from_millis(500));
    }
    ensure!(m.node_size(2)? == 0);
    m.agrees()?;
    // The guest may give back by itself.
    m.add("own", 2, "128M")?;
    m.guest.check(
        "for d in /sys/bus/acpi/devices/PNP0C80:*; do test $(cat $d/path) = '\\_SB_.MEMC.MS01' && echo 1 > $d/eject; done; true",
    )?;
    let begun = Instant::now();
    while gone(&mut m, "own")?.is_some() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "{}", m.log()?);
        thread::sleep(Duration::from_millis(100));
    }
    m.agrees()?;
    let trouble = m.guest.check(TROUBLE)?;
    ensure!(trouble.is_empty(), "{trouble}");
    m.guest.power_off()?;
    Ok(())
}

fn gone(m: &mut Machine, id: &str) -> Result<Option<Value>> {
    let list = m.call(json!("list"))?;
    Ok(facts::find(&list["devices"], "id", id).ok().cloned())
}

#[test]
fn sixty_four_devices_come_and_go_on_four_nodes() -> Result<()> {
    let files = Scratch::new("many")?;
    let builder = machine(QUICK, &files).cmdline("memhp_default_state=online_movable");
    let mut m = Machine::start(&builder, &files)?;
    load(&mut m.guest)?;
    let mut times = vec![];
    for n in 0..64 {
        let begun = Instant::now();
        m.add(&format!("d{n}"), n % 4, "128M")
            .with_context(|| format!("device {n}"))?;
        times.push(begun.elapsed());
    }
    let sizes = [m.node_size(1)?, m.node_size(2)?, m.node_size(3)?];
    ensure!(sizes == [16 * BLOCK, 16 * BLOCK, 18 * BLOCK], "{sizes:?}");
    m.agrees()?;
    println!("the first took {:?}, the last {:?}", times.first(), times.last());
    for n in (0..64).rev() {
        m.remove(&format!("d{n}")).with_context(|| format!("device {n}"))?;
    }
    let sizes = [m.node_size(1)?, m.node_size(2)?, m.node_size(3)?];
    ensure!(sizes == [0, 0, 2 * BLOCK], "{sizes:?}");
    m.agrees()?;
    let trouble = m.guest.check(TROUBLE)?;
    ensure!(trouble.is_empty(), "{trouble}");
    m.guest.power_off()?;
    Ok(())
}
