//! Disks behind a virtio device, whole and broken, as Linux sees them.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ctl, facts, guest::program};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A machine's disk through its socket.
struct Disk {
    socket: PathBuf,
}

impl Disk {
    fn ask(&self, verb: &[&str]) -> Result<Value> {
        let done = ctl(&program()?, &self.socket, &[&["--json", "disk"], verb].concat())?;
        ensure!(
            done.status.success(),
            "{verb:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    fn fault(&self, text: &str) -> Result<Value> {
        self.ask(&["fault", "data", text])
    }

    fn heal(&self) -> Result<Value> {
        self.ask(&["heal", "data"])
    }

    fn state(&self) -> Result<Value> {
        let list = self.ask(&["list"])?;
        Ok(facts::find(&list["disks"], "id", "data")?.clone())
    }

    /// Waits until so many requests are under way.
    fn in_flight(&self, least: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while facts::number(&self.state()?, "in_flight")? < least {
            ensure!(Instant::now() < deadline, "nothing is under way: {}", self.state()?);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Milliseconds that a script takes in the guest, by its own clock.
fn timed(guest: &mut Guest, script: &str) -> Result<u64> {
    let text = guest.check(&format!(
        "a=$(cut -d' ' -f1 /proc/uptime); {script} >/dev/null 2>&1 || exit 1; b=$(cut -d' ' -f1 /proc/uptime); \
         echo $a $b | awk '{{ printf \"%d\", ($2 - $1) * 1000 }}'"
    ))?;
    text.parse().with_context(|| text.clone())
}

const READ: &str = "dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct skip=";

fn drop_caches(guest: &mut Guest) -> Result<()> {
    guest.check("sync; echo 3 > /proc/sys/vm/drop_caches")?;
    Ok(())
}

fn config(kernel: &str, files: &Scratch, disk: &str) -> GuestBuilder {
    GuestBuilder::new(kernel)
        .memory("512M")
        .arg("--disk", &format!("{},{disk}", files.text("disk")))
        .arg("--api-socket", &files.text("api"))
}

fn appear(guest: &mut Guest) -> Result<()> {
    guest
        .check("modprobe virtio_blk && for n in $(seq 100); do test -b /dev/vda && exit 0; sleep 0.1; done; exit 1")?;
    Ok(())
}

fn whole_disk(kernel: &str) -> Result<()> {
    let files = Scratch::new("disk")?;
    let disk = files.join("disk");
    let config = config(kernel, &files, "size=256M,id=data,serial=SN-42");
    let mut guest = config.start()?;
    appear(&mut guest)?;
    ensure!(
        guest.check("echo $(cat /sys/block/vda/size) $(cat /sys/block/vda/serial) $(cat /sys/block/vda/ro)")?
            == "524288 SN-42 0",
        "{kernel}: size, serial number, read-only"
    );
    guest.check("mkfs.ext4 -q /dev/vda && mkdir -p /m && mount -t ext4 /dev/vda /m")?;
    let sum =
        guest.check("dd if=/dev/urandom of=/m/file bs=1M count=32 conv=fsync 2>/dev/null && sha256sum /m/file")?;
    drop_caches(&mut guest)?;
    ensure!(guest.check("sha256sum /m/file")? == sum, "{kernel}: read back");
    let socket = Disk {
        socket: files.join("api"),
    };
    let state = socket.state()?;
    for count in ["reads", "writes", "flushes"] {
        ensure!(facts::number(&state, count)? > 0, "{kernel}: no {count}: {state}");
    }
    // Space that the guest gives up is given back by the host's file.
    let before = fs::metadata(&disk)?.blocks();
    guest.check("rm /m/file && sync && fstrim /m 2>/dev/null || (umount /m && blkdiscard /dev/vda)")?;
    let after = fs::metadata(&disk)?.blocks();
    ensure!(
        after + (16 << 11) < before,
        "{kernel}: {before} blocks before a discard and {after} after"
    );
    guest.check(
        "umount /m 2>/dev/null; dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null; \
                 xfs_io -c 'fzero 1m 1m' /dev/vda",
    )?;
    let mut mega = vec![1; 1 << 20];
    File::open(&disk)?.read_exact_at(&mut mega, 1 << 20)?;
    ensure!(mega.iter().all(|b| *b == 0), "{kernel}: what was zeroed is not zero");
    File::open(&disk)?.read_exact_at(&mut mega, 2 << 20)?;
    let kept =
        guest.check("dd if=/dev/vda bs=1M skip=2 count=1 iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1")?;
    fs::write(files.join("piece"), &mega)?;
    ensure!(
        facts::sha256(&files.join("piece"))? == kept,
        "{kernel}: host and guest differ"
    );
    let complaints = guest.check("dmesg | grep -e 'BUG: ' -e 'WARNING: ' -e 'Call Trace' -e 'I/O error' || true")?;
    ensure!(complaints.is_empty(), "{kernel}: {complaints}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn virtio_disk_holds_a_file_system_on_6_1() -> Result<()> {
    whole_disk("debian-6.1-amd64")
}

#[test]
fn virtio_disk_holds_a_file_system_on_6_12() -> Result<()> {
    whole_disk("debian-6.12-amd64")
}

#[test]
fn virtio_disk_faults_are_seen_by_the_guest() -> Result<()> {
    let files = Scratch::new("disk-faults")?;
    let mut guest = config("debian-6.1-amd64", &files, "size=64M,id=data")
        .arg("--disk-fault", "disk=data,op=read,sectors=8000-8007,error=on")
        .cpus("2")
        .start()?;
    appear(&mut guest)?;
    let disk = Disk {
        socket: files.join("api"),
    };

    // From the configuration: one sector is bad, its neighbours are not.
    let said = guest.fails(&format!("{READ}1000"))?;
    ensure!(
        said.contains("Input/output error") || said.contains("I/O error"),
        "{said}"
    );
    guest.check(&format!("{READ}999 && {READ}1001"))?;
    let log = guest.check("dmesg | grep -i 'i/o error' | grep -e 'sector 8000'")?;
    ensure!(log.contains("vda"), "{log}");
    ensure!(disk.state()?["faults"][0]["hits"] != 0, "{}", disk.state()?);
    guest.check("dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=1000 oflag=direct 2>/dev/null")?;
    disk.heal()?;
    guest.check(&format!("{READ}1000"))?;

    // Latency, of reads alone, and of some sectors alone.
    let quick = timed(&mut guest, &format!("{READ}0"))?;
    disk.fault("op=read,latency=1500ms")?;
    let slow = timed(&mut guest, &format!("{READ}0"))?;
    ensure!(
        slow >= 1500 && quick < 1500,
        "a read took {quick} ms before and {slow} ms after"
    );
    let write = timed(&mut guest, "dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct")?;
    ensure!(write < 1500, "a write took {write} ms");
    disk.heal()?;
    disk.fault("op=read,sectors=0-7,latency=1500ms,jitter=200ms,distribution=exponential")?;
    ensure!(
        timed(&mut guest, &format!("{READ}0"))? >= 1500,
        "a slow sector was not slow"
    );
    ensure!(
        timed(&mut guest, &format!("{READ}1"))? < 1500,
        "another sector was slow"
    );
    disk.heal()?;

    // A write error reaches fsync.
    disk.fault("op=write,sectors=16000-24000,error=on,count=8")?;
    guest.fails("dd if=/dev/zero of=/dev/vda bs=4k count=8 seek=2000 conv=fsync,notrunc")?;
    disk.heal()?;

    // A hang ends when the fault is taken away, and not before.
    disk.fault("hang=on,op=read")?;
    guest.check(&format!(
        "({READ}5 2>/dev/null; echo done > /tmp/hung) >/dev/null 2>&1 &"
    ))?;
    disk.in_flight(1)?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(
        guest.sh("test -e /tmp/hung")?.success().eq(&false),
        "a hang ended by itself"
    );
    disk.heal()?;
    guest.check("for n in $(seq 100); do test -e /tmp/hung && exit 0; sleep 0.1; done; exit 1")?;

    // Limits: 4 MiB at 1 MiB a second, 20 requests at 10 a second.
    disk.ask(&["throttle", "data", "bandwidth=1M"])?;
    let took = timed(&mut guest, "dd if=/dev/vda of=/dev/null bs=256k count=16 iflag=direct")?;
    ensure!((3500..8000).contains(&took), "4 MiB took {took} ms at 1 MiB/s");
    disk.ask(&["throttle", "data", "iops=10"])?;
    let took = timed(&mut guest, "dd if=/dev/vda of=/dev/null bs=4k count=20 iflag=direct")?;
    ensure!(
        (1700..5000).contains(&took),
        "20 requests took {took} ms at 10 a second"
    );
    disk.ask(&["throttle", "data"])?;

    // What cannot be is refused and changes nothing.
    let before = disk.state()?["faults"].clone();
    for (verb, why) in [
        (vec!["fault", "data", "op=read"], "does nothing"),
        (vec!["fault", "other", "error=on"], "there is no disk 'other'"),
        (vec!["fault", "data", "op=flush,sectors=0,error=on"], "op=flush"),
        (vec!["heal", "data", "77"], "has no fault 77"),
        (vec!["throttle", "data", "iops=0"], "iops=0"),
    ] {
        let done = ctl(&program()?, &disk.socket, &[vec!["disk"], verb.clone()].concat())?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.code() == Some(1) && said.contains(why), "{verb:?}: {said}");
    }
    ensure!(disk.state()?["faults"] == before, "{}", disk.state()?);
    guest.power_off()?;
    Ok(())
}

/// A process that faults in a page of a slow disk, somebody who wants its address space for writing, and an observer.
#[test]
fn virtio_disk_that_is_slow_does_not_hold_up_readers_of_proc() -> Result<()> {
    for kernel in ["debian-6.1-amd64", "debian-6.12-amd64"] {
        let files = Scratch::new("disk-fault-lock")?;
        let mut guest = config(kernel, &files, "size=64M,id=data").cpus("2").start()?;
        appear(&mut guest)?;
        let disk = Disk {
            socket: files.join("api"),
        };
        guest.check(
            "mkfs.ext4 -q /dev/vda && mkdir -p /m && mount -t ext4 /dev/vda /m && \
             dd if=/dev/urandom of=/m/file bs=1M count=8 conv=fsync 2>/dev/null",
        )?;
        drop_caches(&mut guest)?;
        disk.fault("op=read,latency=6s")?;
        guest.check(
            "(xfs_io -r -c 'mmap -r 0 8m' -c 'mread 4194304 4096' /m/file; echo done > /tmp/fault) >/dev/null 2>&1 & \
             echo $! > /tmp/shell",
        )?;
        disk.in_flight(1)?;
        // A writer of the same address space queues up behind the fault, if that holds the lock; readers queue up behind it.
        let seen = guest.check(
            "pid=$(pidof xfs_io) && (echo 1 > /proc/$pid/clear_refs; echo done > /tmp/writer) >/dev/null 2>&1 & \
             pid=$(pidof xfs_io); sleep 0.2; n=0; most=0; while test ! -e /tmp/fault && test $n -lt 4; do \
             a=$(cut -d' ' -f1 /proc/uptime); cat /proc/$pid/maps /proc/$pid/status /proc/$pid/cmdline /proc/$pid/smaps >/dev/null; \
             b=$(cut -d' ' -f1 /proc/uptime); ms=$(echo $a $b | awk '{ printf \"%d\", ($2 - $1) * 1000 }'); \
             test $ms -gt $most && most=$ms; n=$((n + 1)); done; \
             test -e /tmp/writer && test ! -e /tmp/fault; echo $n $most $?",
        )?;
        let seen: Vec<u64> = seen.split(' ').map_while(|n| n.parse().ok()).collect();
        let [reads, slowest, ended] = seen[..] else {
            anyhow::bail!("{kernel}: {seen:?}")
        };
        ensure!(
            reads >= 2 && slowest < 1000 && ended == 0,
            "{kernel}: {reads} reads of /proc took up to {slowest} ms beside a disk that takes 6 s; writer and fault: {ended}"
        );
        disk.heal()?;
        guest.check("for n in $(seq 200); do test -e /tmp/fault && exit 0; sleep 0.1; done; exit 1")?;
        guest.power_off()?;
    }
    Ok(())
}

#[test]
fn virtio_disk_refuses_files_that_are_none() -> Result<()> {
    let files = Scratch::new("disk-refused")?;
    fs::write(files.join("odd"), [0; 513])?;
    fs::write(files.join("even"), [0; 1024])?;
    let refused = |flag: &str, value: String, why: &str| -> Result<()> {
        let ended = GuestBuilder::new(guest_tests::QUICK).arg(flag, &value).refused()?;
        ensure!(
            ended.code == 2 && ended.stderr.contains(why),
            "{value}: {}",
            ended.stderr
        );
        Ok(())
    };
    refused("--disk", files.text("odd"), "whole sectors")?;
    refused("--disk", files.text("missing"), "add size=SIZE to create it")?;
    refused("--disk", format!("{},size=4K", files.text("even")), "has 1K")?;
    refused("--disk", format!("{},readonly=on", files.text("missing")), "missing")?;
    refused(
        "--disk-fault",
        "disk=nobody,error=on".to_owned(),
        "has no disk of that name",
    )?;
    ensure!(
        !Path::new(&files.text("missing")).exists(),
        "a refused disk left its file behind"
    );
    Ok(())
}
