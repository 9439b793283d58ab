//! The Xen personality: unmodified kernels that find Xen, and whose balloon driver obeys daxvisor's limits.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, NEWEST, Scratch, api::ctl, facts, guest::program};
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const MIB: u64 = 1 << 20;
const BALLOON: &str = "/sys/devices/system/xen_memory/xen_memory0";

fn guest(kernel: &str) -> GuestBuilder {
    GuestBuilder::new(kernel).memory("512M").arg("--xen", "version=4.17")
}

fn number(guest: &mut Guest, script: &str) -> Result<u64> {
    let text = guest.check(script)?;
    text.trim()
        .parse()
        .with_context(|| format!("`{script}` is no number: {text}"))
}

/// RAM that the kernel has, in bytes.
fn total(guest: &mut Guest) -> Result<u64> {
    let kib = number(guest, "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
    Ok(kib << 10)
}

/// What the balloon driver counts as the domain's memory, in bytes.
fn current(guest: &mut Guest) -> Result<u64> {
    Ok(number(guest, &format!("cat {BALLOON}/info/current_kb"))? << 10)
}

/// Sets the balloon driver's target and waits until it has it, or is `stuck`: nothing changes for three seconds.
fn balloon(guest: &mut Guest, target: u64) -> Result<u64> {
    let kib = target >> 10;
    guest.check(&format!("echo {kib} > {BALLOON}/target_kb"))?;
    guest.check(&format!(
        "same=0; for i in $(seq 240); do now=$(cat {BALLOON}/info/current_kb); [ $now = {kib} ] && exit 0; \
         if [ \"$now\" = \"$last\" ]; then same=$((same + 1)); else same=0; fi; [ $same = 12 ] && exit 0; last=$now; sleep 0.25; done; exit 1"
    ))?;
    current(guest)
}

/// The balloon gives 64 MiB of all there is back, and takes them again.
fn gives_and_takes(guest: &mut Guest, kernel: &str, all: u64) -> Result<()> {
    let target = all - 64 * MIB;
    ensure!(balloon(guest, target)? == target, "{kernel}: the target is not reached");
    ensure!(balloon(guest, all)? == all, "{kernel}: the memory does not come again");
    Ok(())
}

/// The kernel takes itself for a guest of Xen of that version, and has nothing to complain of.
fn expect_xen(guest: &mut Guest, kernel: &str) -> Result<()> {
    expect_xen_with_clock(guest, kernel, "xen")
}

fn expect_xen_with_clock(guest: &mut Guest, kernel: &str, expected: &str) -> Result<()> {
    let said = guest.check(
        "cd /sys/hypervisor && cat type guest_type version/major version/minor version/extra properties/capabilities",
    )?;
    ensure!(
        said == "xen\nPVH\n4\n17\n.0-daxvisor\nhvm-3.0-x86_64",
        "{kernel}: {said}"
    );
    let complaints =
        guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' -e 'unchecked MSR' || true")?;
    ensure!(complaints.is_empty(), "{kernel}: {complaints}");
    let log = guest.check("dmesg | grep -i -e xen -e hypervisor")?;
    ensure!(log.contains("Hypervisor detected: Xen HVM"), "{kernel}: {log}");
    ensure!(log.contains("Grant tables using version 1 layout"), "{kernel}: {log}");
    let clock = guest.check("cat /sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    ensure!(clock == expected, "{kernel}: the clock is {clock}");
    let (now, theirs) = (
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        number(guest, "date +%s")?,
    );
    ensure!(
        now.abs_diff(theirs) < 60,
        "{kernel}: it is {theirs} in the guest, and {now} here"
    );
    Ok(())
}

/// A memory device above the limit of a domain's kernel is refused by the kernel, as under a real Xen (`linux/xen.rs`), and the domain has
/// what it had.
#[test]
fn xen_guest_refuses_a_memory_device_above_its_limit_at_boot() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let mut guest = GuestBuilder::new(kernel)
            .arg("--xen", "version=4.17")
            .arg("--numa", "node=0,memory=512M,hotplug=1G")
            .arg("--memory-device", "256M,node=0,id=beyond")
            .arg("--memory-limit", "512M")
            .start()?;
        expect_xen(&mut guest, kernel)?;
        let log = guest.check("dmesg | grep 'add_memory failed'")?;
        ensure!(log.contains("acpi PNP0C80:00"), "{kernel}: {log}");
        let (all, total) = (current(&mut guest)?, total(&mut guest)?);
        ensure!(
            all <= 512 * MIB && total < all,
            "{kernel}: the domain has {all} bytes, MemTotal {total}"
        );
        // The balloon works as without the device.
        gives_and_takes(&mut guest, kernel, all)?;
        guest.power_off()?;
    }
    Ok(())
}

/// Memory that the guest gives back leaves the monitor, and comes again; not a page more than the limit.
fn obeys_its_limit(kernel: &str) -> Result<()> {
    let mut guest = guest(kernel).arg("--log", "vmm::xen=debug").start()?;
    expect_xen(&mut guest, kernel)?;
    let before = total(&mut guest)?;
    let all = current(&mut guest)?;
    ensure!(all <= 512 * MIB && all > 480 * MIB, "{kernel}: {all} bytes");

    // Memory that has been used, so that the host has it.
    guest.check(
        "mkdir -p /t && mount -t tmpfs -o size=300m none /t && dd if=/dev/zero of=/t/a bs=1M count=256 2>/dev/null",
    )?;
    let full = guest.resident()?;
    guest.check("umount /t; echo 3 > /proc/sys/vm/drop_caches")?;
    let target = all - 192 * MIB;
    ensure!(
        balloon(&mut guest, target)? == target,
        "{kernel}: the target is not reached"
    );
    let small = guest.resident()?;
    ensure!(
        small + 128 * MIB < full,
        "{kernel}: {full} bytes were resident, and {small} when 192 MiB were given back"
    );
    ensure!(
        total(&mut guest)? == before - 192 * MIB,
        "{kernel}: MemTotal {}",
        total(&mut guest)?
    );

    ensure!(
        balloon(&mut guest, all)? == all,
        "{kernel}: the memory does not come again"
    );
    ensure!(
        total(&mut guest)? == before,
        "{kernel}: MemTotal {}",
        total(&mut guest)?
    );
    guest.check("mount -t tmpfs -o size=300m none /t && dd if=/dev/urandom of=/t/a bs=1M count=256 2>/dev/null && sha256sum /t/a > /t/s && sha256sum -c /t/s")?;
    expect_xen(&mut guest, kernel)?;
    let ended = guest.power_off()?;
    // The kernel has chosen what the version offers.
    ensure!(
        ended
            .stderr
            .contains("events come by a vector of the vCPU's own vcpu=0"),
        "{kernel}: {}",
        ended.stderr
    );
    Ok(())
}

#[test]
fn xen_guest_of_6_1_obeys_its_limit() -> Result<()> {
    obeys_its_limit("debian-6.1-amd64")
}

#[test]
fn xen_guest_of_6_12_obeys_its_limit() -> Result<()> {
    obeys_its_limit("debian-6.12-amd64")
}

#[test]
fn xen_guest_of_7_obeys_its_limit() -> Result<()> {
    obeys_its_limit(NEWEST)
}

#[test]
fn xen_guest_reboots_and_panics_by_hypercall() -> Result<()> {
    let mut rebooting = guest(guest_tests::QUICK).start()?;
    expect_xen(&mut rebooting, guest_tests::QUICK)?;
    rebooting.reboot()?;
    let mut panicking = guest(guest_tests::QUICK).start()?;
    // The agent does not answer any more.
    let _ = panicking.sh("echo 1 > /proc/sys/kernel/sysrq; (sleep 1; echo c > /proc/sysrq-trigger) & sleep 30");
    let ended = panicking.wait()?;
    ensure!(ended.code == 4, "exit code {}: {}", ended.code, ended.stderr);
    let said = "Kernel panic - not syncing: sysrq triggered crash";
    ensure!(ended.console.contains(said), "{}", ended.console);
    Ok(())
}

fn limits(socket: &Path, arguments: &[&str]) -> Result<Value> {
    said(socket, &[&["limits"], arguments].concat())
}

/// What a verb of `ctl` says.
fn said(socket: &Path, arguments: &[&str]) -> Result<Value> {
    let all = [&["--json"], arguments].concat();
    let done = ctl(&program()?, socket, &all)?;
    ensure!(
        done.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// Sets the target from outside, and waits until the domain has that much: Xen's own page stands in the place of one of them.
fn follows(socket: &Path, target: u64) -> Result<()> {
    // Both ways are one.
    let size = format!("{}M", target / MIB);
    if target.is_multiple_of(128 * MIB) {
        let done = ctl(&program()?, socket, &["memory", "target", &size])?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    } else {
        limits(socket, &["set", &format!("target={size}")])?;
    }
    let wanted = format!("{}K", (target >> 10) - 4);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info = limits(socket, &["get"])?;
        if info["domain"]["current"] == wanted.as_str() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the domain does not come to {wanted}: {info}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The event of memory that the guest was refused, when it is there.
fn refusal(socket: &Path) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let all = said(socket, &["events"])?;
        let events = all["events"].as_array().context("a list of events")?;
        if let Some(refused) = events.iter().find(|event| event["event"] == "memory-refused") {
            return Ok(refused.clone());
        }
        ensure!(Instant::now() < deadline, "no refusal is told: {all}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Sum of what was written to persistent memory; read past the page cache, which would be in the balloon's way.
fn sum_of(pmem: &str) -> String {
    format!("dd if=/dev/{pmem} bs=1M count=16 iflag=direct 2>/dev/null | sha256sum")
}

/// Writes to persistent memory, and notes what.
fn fills_pmem(guest: &mut Guest, number: u32) -> Result<()> {
    let pmem = format!("pmem{number}");
    guest.check(&format!(
        "modprobe -a nfit nd_pmem; for n in $(seq 100); do [ -b /dev/{pmem} ] && break; sleep 0.1; done; \
         dd if=/dev/urandom of=/dev/{pmem} bs=1M count=16 oflag=direct 2>/dev/null && {} > /t/{pmem}",
        sum_of(&pmem)
    ))?;
    Ok(())
}

/// The target that the host sets goes through the store, and the guest's own driver follows it down, up and beyond its boot map.
fn follows_its_target(kernel: &str) -> Result<()> {
    let files = Scratch::new("xen-target")?;
    let socket = files.join("api");
    let mut guest = guest(kernel)
        .arg("--limits", "static-max=768M,target=448M")
        .arg("--api-socket", &files.text("api"))
        .cmdline("memhp_default_state=online")
        .start()?;
    // The kernel has not measured its processor with a timer that is not there.
    let ports = facts::number(&said(&socket, &["metrics"])?["exits"], "port")?;
    ensure!(ports < 10_000, "{kernel}: {ports} exits for ports");
    // The target of the start has not waited for anybody.
    follows(&socket, 448 * MIB)?;
    let small = total(&mut guest)?;
    follows(&socket, 512 * MIB)?;
    ensure!(
        total(&mut guest)? == small + 64 * MIB,
        "{kernel}: MemTotal {}",
        total(&mut guest)?
    );
    // A guest that uses its memory gives back what it can do without.
    guest.check("mkdir -p /t && mount -t tmpfs -o size=200m none /t && dd if=/dev/urandom of=/t/a bs=1M count=128 2>/dev/null && sha256sum /t/a > /t/s")?;
    follows(&socket, 320 * MIB)?;
    guest.check("sha256sum -c /t/s")?;
    follows(&socket, 768 * MIB)?;
    guest.check("sha256sum -c /t/s")?;
    let most = total(&mut guest)?;
    ensure!(most > small + 300 * MIB, "{kernel}: MemTotal {most}");
    // More than the boot map has room for.
    guest.check("mount -o remount,size=600m /t && dd if=/dev/zero of=/t/b bs=1M count=400 2>/dev/null && [ $(tr -d '\\0' < /t/b | wc -c) = 0 ] && sha256sum -c /t/s && rm /t/b")?;
    let info = limits(&socket, &["get"])?;
    ensure!(info["domain"]["ballooned"] == "4K", "{kernel}: {info}");
    // One page is left, and the guest asks for two.
    let kib = number(&mut guest, &format!("cat {BALLOON}/info/current_kb"))? + 8;
    guest.check(&format!("echo {kib} > {BALLOON}/target_kb"))?;
    let refused = refusal(&socket)?;
    ensure!(
        refused["asked"] == "4K" && refused["current"] == "768M" && refused["static-max"] == "768M",
        "{kernel}: {refused}"
    );
    follows(&socket, 512 * MIB)?;
    expect_xen(&mut guest, kernel)?;
    guest.power_off()?;
    Ok(())
}

/// An NVDIMM is there while the balloon moves, and another one comes meanwhile.
#[test]
fn xen_guest_has_nvdimms_beside_its_balloon() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let files = Scratch::new("xen-nvdimm")?;
        let socket = files.join("api");
        let mut guest = guest(kernel)
            .arg("--numa", "node=0,memory=512M,hotplug=1G")
            .arg("--limits", "static-max=768M")
            .nvdimm("size=64M,id=cold")
            .arg("--api-socket", &files.text("api"))
            .cmdline("memhp_default_state=online")
            .start()?;
        guest.check("mkdir -p /t")?;
        fills_pmem(&mut guest, 0)?;
        follows(&socket, 384 * MIB)?;
        said(&socket, &["nvdimm", "add", "--wait", "size=64M,node=0,id=hot"])?;
        fills_pmem(&mut guest, 1)?;
        follows(&socket, 768 * MIB)?;
        for pmem in ["pmem0", "pmem1"] {
            guest.check(&format!("[ \"$({})\" = \"$(cat /t/{pmem})\" ]", sum_of(pmem)))?;
        }
        expect_xen(&mut guest, kernel)?;
        guest.power_off()?;
    }
    Ok(())
}

#[test]
fn xen_guest_of_6_1_follows_its_target() -> Result<()> {
    follows_its_target("debian-6.1-amd64")
}

#[test]
fn xen_guest_of_6_12_follows_its_target() -> Result<()> {
    follows_its_target("debian-6.12-amd64")
}

#[test]
fn xen_guest_of_7_follows_its_target() -> Result<()> {
    follows_its_target(NEWEST)
}

/// Interrupts between vCPUs are event channels, and so are the timers of both.
#[test]
fn xen_guest_with_two_vcpus_balloons_while_both_work() -> Result<()> {
    let kernel = "debian-6.12-amd64";
    let mut guest = guest(kernel).cpus("2").loud().start()?;
    expect_xen(&mut guest, kernel)?;
    ensure!(number(&mut guest, "nproc")? == 2);
    let all = current(&mut guest)?;
    guest.check(
        "mkdir -p /t && mount -t tmpfs -o size=200m none /t; for cpu in 0 1; do (while [ ! -e /t/stop ]; do \
         taskset -c $cpu sh -c \"seq 20000 | sha256sum > /t/sum$cpu && dd if=/dev/zero of=/t/file$cpu bs=1M count=8 2>/dev/null && rm /t/file$cpu\"; done; touch /t/ended$cpu) & done; true",
    )?;
    let target = all - 160 * MIB;
    ensure!(balloon(&mut guest, target)? == target, "the target is not reached");
    ensure!(balloon(&mut guest, all)? == all, "the memory does not come again");
    guest.check(
        "touch /t/stop; for i in $(seq 120); do [ -e /t/ended0 -a -e /t/ended1 ] && break; sleep 0.5; done; \
         [ -e /t/ended0 -a -e /t/ended1 ] && cmp /t/sum0 /t/sum1",
    )?;
    let timers = guest.check("sed -n 's/.*xen-percpu *-virq *timer\\([01]\\).*/\\1/p' /proc/interrupts | sort")?;
    ensure!(timers == "0\n1", "{timers}: {}", guest.check("cat /proc/interrupts")?);
    let complaints = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' || true")?;
    ensure!(complaints.is_empty(), "{complaints}");
    guest.power_off()?;
    Ok(())
}

/// The kernel is the first domain: it asks for its memory map, finds its processors, and is switched off by Xen.
#[test]
fn xen_guest_is_the_initial_domain() -> Result<()> {
    let files = Scratch::new("dom0")?;
    let socket = files.join("api");
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64", NEWEST] {
        let mut guest = GuestBuilder::new(kernel)
            .memory("512M")
            .cpus("2")
            .arg("--xen", "version=4.17,dom0=on")
            .nvdimm("size=64M,id=a")
            .arg("--api-socket", &files.text("api"))
            .start()?;
        // What it would not hear is not said, and changes nothing.
        let before = limits(&socket, &["get"])?;
        let done = ctl(&program()?, &socket, &["limits", "set", "target=256M"])?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(
            !done.status.success()
                && said.contains("the guest does not hear of the target 256M")
                && said.contains("hint:"),
            "{kernel}: {said}"
        );
        ensure!(limits(&socket, &["get"])? == before, "{kernel}");
        // A domain that is never moved trusts the processor's clock.
        expect_xen_with_clock(&mut guest, kernel, "tsc")?;
        // Only the initial domain looks for the machine's processors.
        let processors = guest.check("cd /sys/devices/system/xen_cpu && ls -d xen_cpu*; nproc")?;
        ensure!(processors == "xen_cpu0\nxen_cpu1\n2", "{kernel}: {processors}");
        // The start info has no map: this one is the hypervisor's.
        // From 7 on, kernels call it System RAM.
        let ends =
            guest.check("dmesg | grep 'BIOS-e820: .*-0x000000001fffffff.' | grep -c -e usable -e 'System RAM'")?;
        ensure!(ends == "1", "{kernel}: {}", guest.check("dmesg | grep e820")?);
        let nodes = guest.check("ls /sys/bus/nd/devices/ | grep -c '^nmem'")?;
        ensure!(nodes == "1", "{kernel}: {nodes} NVDIMMs");
        let all = current(&mut guest)?;
        gives_and_takes(&mut guest, kernel, all)?;
        guest.power_off()?;
    }
    Ok(())
}

/// RAM far apart, most of the addresses between empty.
#[test]
fn xen_guest_with_ram_at_a_terabyte_obeys_its_limit() -> Result<()> {
    let kernel = "debian-6.12-amd64";
    let mut guest = guest(kernel)
        .arg("--memory-range", "start=512G,size=128M,type=ram,id=far")
        .arg("--memory-range", "start=1020G,size=128M,type=ram,id=farther")
        .start()?;
    expect_xen(&mut guest, kernel)?;
    let iomem = guest.check(
        "grep -c -e '^8000000000-8007ffffff : System RAM' -e '^ff00000000-ff07ffffff : System RAM' /proc/iomem",
    )?;
    ensure!(iomem == "2", "{}", guest.check("cat /proc/iomem")?);
    let all = current(&mut guest)?;
    ensure!(all > 700 * MIB && all <= 768 * MIB, "{all} bytes");
    let target = all - 256 * MIB;
    ensure!(balloon(&mut guest, target)? == target, "the target is not reached");
    ensure!(balloon(&mut guest, all)? == all, "the memory does not come again");
    guest.power_off()?;
    Ok(())
}
