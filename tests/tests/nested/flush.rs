//! What survives the host. The nested host is one that can be killed: its page cache goes with it, and what it had written
//! to the shared folder by then is all that its storage has. This program runs itself again in there, twice.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, guest::program, host};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Folder of the backing files, for the half that runs in the nested host.
const FILES: &str = "DAXVISOR_TEST_FLUSH";
/// What that half is to do: `store` or `find`.
const TASK: &str = "DAXVISOR_TEST_FLUSH_TASK";
const NAME: &str = "flush::a_host_that_dies_keeps_what_was_flushed_and_nothing_that_was_not";
/// Exit code of a host that failed.
const HOST_FAILED: i32 = 125;
/// Where the record lies on raw DIMMs.
const AT: u64 = 16 << 20;
const LEN: usize = 64 << 10;

#[test]
fn a_host_that_dies_keeps_what_was_flushed_and_nothing_that_was_not() -> Result<()> {
    if let Some(files) = env::var_os(FILES) {
        let files = PathBuf::from(files);
        return match env::var(TASK)?.as_str() {
            "store" => store(&files),
            _ => find(&files),
        };
    }
    // Not in a folder that the nested host has its own in place of.
    let files = tempfile::Builder::new()
        .prefix("flush-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let record = dies_after_the_flush(files.path())?;
    let on_storage = |name: &str| -> Result<Vec<u8>> {
        let mut bytes = vec![0; LEN];
        fs::File::open(files.path().join(name))?.read_exact_at(&mut bytes, AT)?;
        Ok(bytes)
    };
    ensure!(
        on_storage("flushed")? == record,
        "the host's storage lacks what was flushed"
    );
    ensure!(
        on_storage("unflushed")? == [0; LEN],
        "what was never flushed is on the storage: the test shows nothing"
    );
    ensure!(on_storage("encrypted")? != record, "an encrypted file has plaintext");
    let mut found = in_nested_host(files.path(), "find")?;
    let status = found.wait()?;
    ensure!(status.success(), "in the next host ({status})");
    Ok(())
}

/// Starts this test in a nested host.
fn in_nested_host(files: &Path, task: &str) -> Result<Child> {
    let (me, daxvisor) = (env::current_exe()?, program()?);
    let mut command = Command::new(&daxvisor);
    command.args(["host", "run", "--no-stdin", "--timeout", "300", "--share"]);
    command.arg(files);
    command.args(["--env", &format!("{FILES}={}", files.display())]);
    command.args(["--env", &format!("{TASK}={task}")]);
    command.arg("--").arg(me).args(["--exact", NAME, "--nocapture"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the nested host")
}

/// A nested host that is killed as soon as the guest's last flush is over; gives the record that was stored.
fn dies_after_the_flush(files: &Path) -> Result<Vec<u8>> {
    for attempt in 0..2 {
        let mut host = in_nested_host(files, "store")?;
        let output = host.stdout.take().context("the nested host has no output")?;
        let mut said = String::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line == "flushed" {
                // QEMU ends with it, and takes the page cache along.
                host.kill()?;
                host.wait()?;
                return fs::read(files.join("record")).context("the record");
            }
            said = said + &line + "\n";
        }
        let status = host.wait()?;
        if status.code() != Some(HOST_FAILED) || attempt > 0 {
            bail!("in the nested host ({status}):\n{said}");
        }
        host::report_retry("the nested host failed", &said);
        for name in [
            "flushed",
            "mounted",
            "encrypted",
            "encrypted.keys",
            "unflushed",
            "record",
        ] {
            let _ = fs::remove_file(files.join(name));
        }
    }
    bail!("the nested host failed twice")
}

fn machine(files: &Path) -> GuestBuilder {
    let dimm = |name: &str, more: &str| format!("{},size=65664K,id={name}{more}", files.join(name).display());
    GuestBuilder::new(QUICK)
        .nvdimm(&dimm("flushed", ",flush=msync"))
        .nvdimm(&dimm("mounted", ",flush=msync"))
        .nvdimm(&dimm("encrypted", ",encrypt=on"))
        .nvdimm(&dimm("unflushed", ",flush=none"))
}

/// In the first host: the same record on all DIMMs, each synchronised by the guest. Never ends by itself.
fn store(files: &Path) -> Result<()> {
    // Nothing is written back but what somebody asks for.
    fs::write("/proc/sys/vm/dirty_writeback_centisecs", "0")?;
    let mut guest = machine(files).start()?;
    guest.check("dd if=/dev/urandom of=/tmp/r bs=64K count=1 2>/dev/null")?;
    let record = guest.file("/tmp/r")?;
    // Through and through: the one file of this folder that is not a DIMM's.
    let mut file = fs::File::create(files.join("record"))?;
    file.write_all(&record)?;
    file.sync_all()?;
    guest.check(
        "ndctl create-namespace -f -e namespace1.0 -m fsdax && mkfs.ext4 -q -b 4096 /dev/pmem1 && mkdir -p /m && \
         mount -t ext4 -o dax /dev/pmem1 /m",
    )?;
    let seek = AT / u64::try_from(LEN)?;
    guest.check(&format!(
        "dd if=/tmp/r of=/m/file bs=64K conv=fsync 2>/dev/null && for n in 3 0 2; do \
         dd if=/tmp/r of=/dev/pmem$n bs=64K seek={seek} conv=fsync 2>/dev/null || exit 1; done"
    ))?;
    let there = |name: &str| -> Result<bool> {
        let mut bytes = vec![0; LEN];
        fs::File::open(files.join(name))?.read_exact_at(&mut bytes, AT)?;
        Ok(bytes == record)
    };
    ensure!(
        there("flushed")? && there("unflushed")?,
        "the host itself sees all of it"
    );
    // A line of its own: on one CPU libtest has begun one with the test's name.
    println!("\nflushed");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// In the next host.
fn find(files: &Path) -> Result<()> {
    let record = fs::read(files.join("record"))?;
    let mut guest = machine(files).start()?;
    let seek = AT / u64::try_from(LEN)?;
    let raw = |guest: &mut Guest, n: u8| -> Result<Vec<u8>> {
        guest.check(&format!(
            "dd if=/dev/pmem{n} of=/tmp/r bs=64K count=1 skip={seek} 2>/dev/null"
        ))?;
        guest.file("/tmp/r")
    };
    ensure!(raw(&mut guest, 0)? == record, "flush=msync, raw");
    ensure!(raw(&mut guest, 2)? == record, "encrypted, raw");
    ensure!(raw(&mut guest, 3)? == [0; LEN], "flush=none, raw");
    guest.check("mkdir -p /m && mount -t ext4 -o dax /dev/pmem1 /m && cp /m/file /tmp/r && umount /m")?;
    ensure!(guest.file("/tmp/r")? == record, "flush=msync, fsdax");
    // The journal has been replayed by the mount.
    guest.check("e2fsck -f -n /dev/pmem1")?;
    guest.power_off()?;
    Ok(())
}
