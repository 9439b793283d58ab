//! Every way a run ends, and what it leaves behind.

use agent_protocol::{Exec, ToAgent};
use anyhow::{Result, ensure};
use guest_tests::{Ended, Guest, GuestBuilder, QUICK, Scratch, facts, guest, process::Monitor};
use rustix::process::Signal;
use std::{fs, time::Duration};

const SIZE: u64 = (64 << 20) + (128 << 10);
const SOON: Duration = Duration::from_secs(30);

fn ends_with(ended: &Ended, code: i32) -> Result<()> {
    ensure!(
        ended.code == code,
        "exit code {}, expected {code}: {}",
        ended.code,
        ended.stderr
    );
    ensure!(ended.killed.is_none(), "killed by {:?}", ended.killed);
    Ok(())
}

/// Starts a command that ends the machine, so that nobody answers.
fn start(guest: &mut Guest, script: &str) -> Result<()> {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let id = guest.client().new_id();
    Ok(guest.client().send(&ToAgent::Exec(Exec {
        id,
        argv,
        ..Exec::default()
    }))?)
}

#[test]
fn panic_of_the_guest_is_4_and_its_last_words_are_on_the_console() -> Result<()> {
    let mut guest = GuestBuilder::new(QUICK).loud().cmdline("panic=0").start()?;
    guest.check("modprobe pvpanic-mmio; ls /sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00")?;
    start(&mut guest, "echo c > /proc/sysrq-trigger")?;
    let ended = guest.wait()?;
    ends_with(&ended, 4)?;
    ensure!(ended.console.contains("sysrq triggered crash"), "{}", ended.console);
    ensure!(ended.stderr.contains("panic"), "{}", ended.stderr);
    // Printed when pvpanic has long been told.
    ensure!(ended.console.contains("end Kernel panic"), "{}", ended.console);
    Ok(())
}

#[test]
fn triple_fault_is_5() -> Result<()> {
    let mut guest = GuestBuilder::new(QUICK).cmdline("reboot=t").start()?;
    start(&mut guest, "echo b > /proc/sysrq-trigger")?;
    ends_with(&guest.wait()?, 5)
}

#[test]
fn timeout_is_124() -> Result<()> {
    let mut monitor = GuestBuilder::new(QUICK).timeout(2).launch()?;
    let ended = monitor.wait(SOON)?;
    ends_with(&ended, 124)?;
    ensure!(!ended.stderr.trim().is_empty(), "nothing was said");
    ensure!(
        !guest::socket(monitor.folder().path()).exists(),
        "the agent's socket is left"
    );
    Ok(())
}

/// A monitor that must not come up, as the file is somebody else's.
fn is_refused(config: &GuestBuilder) -> Result<()> {
    let ended = config.refused()?;
    ends_with(&ended, 2)?;
    ensure!(ended.stderr.contains("in use"), "{}", ended.stderr);
    ensure!(ended.stderr.contains("hint:"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn a_kill_loses_nothing_and_a_file_has_one_user() -> Result<()> {
    let files = Scratch::new("kill")?;
    let file = files.text("dimm");
    let config = GuestBuilder::new(QUICK).nvdimm(&format!("{file},size={SIZE}"));
    let shared = GuestBuilder::new(QUICK).nvdimm(&format!("{file},size={SIZE},readonly=on"));

    let mut guest = config.start()?;
    guest.check("ndctl create-namespace -f -e namespace0.0 -m fsdax && mkfs.ext4 -q -b 4096 /dev/pmem0")?;
    guest.check("mkdir -p /m && mount -t ext4 -o dax /dev/pmem0 /m && echo stays > /m/file && sync")?;
    let made = guest.json("ndctl list -N")?;
    is_refused(&config)?;
    is_refused(&shared)?;
    // In the middle of writing data and labels.
    start(
        &mut guest,
        "while true; do dd if=/dev/urandom of=/m/more bs=64k count=16; done 2>/dev/null",
    )?;
    guest.check("sleep 0.3")?;
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.killed == Some(9), "{ended:?}");
    ensure!(fs::metadata(&file)?.len() == SIZE, "the file has another length");

    let mut guest = config.start()?;
    ensure!(guest.json("ndctl list -N")?[0]["uuid"] == made[0]["uuid"]);
    ensure!(guest.check("mkdir -p /m && mount -t ext4 -o dax /dev/pmem0 /m && cat /m/file")? == "stays");
    guest.check("ndctl check-labels nmem0 2>&1 || true; umount /m; e2fsck -fn /dev/pmem0")?;
    let socket = guest::socket(guest.monitor().folder().path());
    ensure!(socket.exists());
    let ended = guest.signal(Signal::TERM)?;
    ends_with(&ended, 143)?;
    ensure!(!socket.exists(), "the agent's socket is left");

    // Read-only, two at once; a writer has to wait.
    let before = facts::sha256(files.join("dimm").as_path())?;
    let (mut one, mut two) = (shared.start()?, shared.start()?);
    is_refused(&config)?;
    for guest in [&mut one, &mut two] {
        ensure!(guest.check("mkdir -p /m && mount -t ext4 -o ro,noload,dax /dev/pmem0 /m && cat /m/file")? == "stays");
    }
    one.power_off()?;
    two.power_off()?;
    ensure!(
        facts::sha256(files.join("dimm").as_path())? == before,
        "a read-only file changed"
    );
    Ok(())
}

/// One configuration that cannot be: its text, and what it must not have made.
fn complains(config: &GuestBuilder, code: i32, words: &[&str]) -> Result<()> {
    let mut monitor: Monitor = config.launch()?;
    let ended = monitor.wait(SOON)?;
    ends_with(&ended, code)?;
    ensure!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    for word in words {
        ensure!(ended.stderr.contains(word), "no '{word}' in: {}", ended.stderr);
    }
    Ok(())
}

#[test]
fn bad_input_is_2_and_makes_nothing() -> Result<()> {
    let files = Scratch::new("bad")?;
    let new = files.text("new");
    let with_dimm = |kernel: &str| GuestBuilder::new(kernel).nvdimm(&format!("{new},size=64M"));
    complains(
        &with_dimm("/nonexistent/vmlinuz"),
        2,
        &["/nonexistent/vmlinuz", "No such file", "hint:"],
    )?;
    let junk = files.text("junk");
    fs::write(&junk, vec![0x55; 100_000])?;
    complains(&with_dimm(&junk), 2, &[&junk, "kernel", "hint:"])?;
    fs::write(&junk, b"MZ")?;
    complains(&with_dimm(&junk), 2, &[&junk, "kernel", "hint:"])?;
    complains(&with_dimm(QUICK).memory("64M"), 2, &["hint:"])?;
    complains(&with_dimm(QUICK).arg("--memory", "1G,color=red"), 2, &["color"])?;
    complains(&with_dimm(QUICK).arg("--numa", "node=1,cpus=7"), 2, &["7"])?;
    complains(&with_dimm(QUICK).nvdimm(&format!("{new}2,size=64M,node=5")), 2, &["5"])?;
    complains(
        &with_dimm(QUICK).nvdimm(&format!("{new}2,size=64M,id=nvdimm0")),
        2,
        &["nvdimm0"],
    )?;
    complains(
        &with_dimm(QUICK).arg("--memory", "1G,hugepages=1G"),
        2,
        &["huge", "hint:"],
    )?;
    let short = files.text("short");
    fs::write(&short, vec![7; 1 << 20])?;
    complains(
        &with_dimm(QUICK).nvdimm(&format!("{short},size=64M")),
        2,
        &[&short, "1M", "64M", "hint:"],
    )?;
    ensure!(
        fs::read(&short)? == vec![7; 1 << 20],
        "a file of a refused machine changed"
    );
    ensure!(
        !files.join("new").exists() && !files.join("new2").exists(),
        "a file of a refused machine was made"
    );
    Ok(())
}
