//! The machines, one after the other, on this machine's KVM. What each of them gave is told as a line of JSON.

use super::{Plan, Run, Vmm};
use crate::bench::{measure::statistics, trace::Trace};
use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QemuBuilder, Scratch, api::ctl, guest::program};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

const LABEL: u64 = 128 << 10;
/// A DIMM whose data is whole for Linux.
const SIZE: u64 = (64 << 20) + LABEL;
/// A DIMM where there are many.
const SMALL: u64 = (16 << 20) + LABEL;
/// Most DIMMs of one machine.
const MANY: u32 = 32;

type Figures = BTreeMap<String, u64>;

/// All rounds.
pub fn all(plan: &Plan) -> Result<()> {
    let trace = Trace::new()?;
    for round in 1..=plan.rounds {
        for vmm in [Vmm::Daxvisor, Vmm::Qemu] {
            let mut figures = Figures::new();
            let done = two_dimms(plan, vmm, &trace, &mut figures).and_then(|()| many_dimms(plan, vmm, &mut figures));
            let run = Run {
                round,
                vmm,
                figures,
                failure: done.err().map(|error| format!("{error:#}")),
            };
            let mut out = io::stdout().lock();
            serde_json::to_writer(&mut out, &run)?;
            writeln!(out)?;
            out.flush()?;
        }
    }
    Ok(())
}

/// A machine with `count` DIMMs over new files.
fn machine(plan: &Plan, vmm: Vmm, files: &Scratch, count: u32, size: u64) -> Result<Guest> {
    let paths = (0..count).map(|n| files.join(&format!("dimm{n}")));
    let made: Vec<_> = paths
        .map(|path| File::create(&path)?.set_len(size).map(|()| path))
        .collect::<io::Result<_>>()?;
    match vmm {
        Vmm::Daxvisor => {
            let all = GuestBuilder::new(&plan.kernel).timeout(900).memory("512M");
            let all = all.arg("--api-socket", &files.text("api"));
            let all = made
                .iter()
                .fold(all, |all, path| all.nvdimm(&format!("{},size={size}", path.display())));
            all.start()
        }
        Vmm::Qemu => {
            let all = QemuBuilder::new(&plan.kernel);
            made.iter().fold(all, |all, path| all.nvdimm(path, size, LABEL)).start()
        }
    }
}

fn end(guest: Guest) -> Result<()> {
    guest.end(0, |client| client.power_off(Instant::now() + Duration::from_secs(60)))?;
    Ok(())
}

/// Time of `script`, divided by the number of things it does.
fn timed(guest: &mut Guest, script: &str, things: u64) -> Result<u64> {
    let begun = Instant::now();
    guest.check(script)?;
    Ok(u64::try_from(begun.elapsed().as_nanos())? / things.max(1))
}

/// `what`, again and again.
fn times(n: u64, what: &str) -> String {
    format!("for n in $(seq {n}); do {what} || exit 1; done")
}

/// Labels, raw and mapped memory, exits, and one more DIMM.
fn two_dimms(plan: &Plan, vmm: Vmm, trace: &Trace, figures: &mut Figures) -> Result<()> {
    let files = Scratch::new("bench")?;
    let mut guest = machine(plan, vmm, &files, 2, SIZE)?;
    labels(&mut guest, figures)?;
    raw(&mut guest, figures)?;
    mapped(&mut guest, trace, figures)?;
    if vmm == Vmm::Daxvisor {
        let took = added(&mut guest, &files.join("api"), &files.join("more"))?;
        figures.insert("hot-add until the block device is there".into(), took);
    }
    end(guest)
}

/// A DIMM's 128 KiB of labels travel in calls of about 4 KiB, 32 of daxvisor's and 33 of QEMU's.
fn labels(guest: &mut Guest, figures: &mut Figures) -> Result<()> {
    const ROUNDS: u64 = 20;
    guest.check("ndctl disable-region region0 && ndctl init-labels nmem0 && ndctl read-labels -o /tmp/labels nmem0")?;
    let idle = timed(guest, &times(ROUNDS, "ndctl --version >/dev/null"), ROUNDS)?;
    let read = timed(
        guest,
        &times(ROUNDS, "ndctl read-labels -o /dev/null nmem0 2>/dev/null"),
        ROUNDS,
    )?;
    let write = timed(
        guest,
        &times(ROUNDS, "ndctl write-labels -i /tmp/labels nmem0 2>/dev/null"),
        ROUNDS,
    )?;
    figures.insert("label area read".into(), read);
    figures.insert("label area write".into(), write);
    let calls = guest.check("stat -c %s /tmp/labels")?.parse::<u64>()?.div_ceil(4096);
    figures.insert(
        "_DSM label read, 4 KiB".into(),
        read.saturating_sub(idle) / calls.max(1),
    );
    guest.check("ndctl enable-region region0")?;
    Ok(())
}

/// The block device of a namespace without metadata.
fn raw(guest: &mut Guest, figures: &mut Figures) -> Result<()> {
    guest.check("test -b /dev/pmem1")?;
    let dd = |what: &str, bytes: &str, n: u64| format!("dd {what} bs={bytes} count={n} 2>/dev/null");
    let (to, from) = (
        "if=/dev/zero of=/dev/pmem1 oflag=direct",
        "if=/dev/pmem1 of=/dev/null iflag=direct",
    );
    // What was never touched has no memory yet.
    guest.check(&dd(to, "1M", 60))?;
    figures.insert("raw write, 1 MiB".into(), timed(guest, &dd(to, "1M", 60), 60)?);
    figures.insert("raw read, 1 MiB".into(), timed(guest, &dd(from, "1M", 60), 60)?);
    figures.insert("raw write, 4 KiB".into(), timed(guest, &dd(to, "4k", 8000), 8000)?);
    figures.insert("raw read, 4 KiB".into(), timed(guest, &dd(from, "4k", 8000), 8000)?);
    Ok(())
}

/// A file on fsdax that is mapped; and what stores to it cost in exits.
fn mapped(guest: &mut Guest, trace: &Trace, figures: &mut Figures) -> Result<()> {
    const MIB: u64 = 32;
    const PASSES: usize = 32;
    guest.check(
        "ndctl create-namespace -f -e namespace1.0 -m fsdax && mkfs.ext4 -q -b 4096 /dev/pmem1 && mkdir -p /m && \
         mount -t ext4 -o dax /dev/pmem1 /m",
    )?;
    let pass = |what: &str, n: usize| {
        let commands = format!("-c '{what} 0 {MIB}m' ").repeat(n);
        format!(
            "xfs_io -f -c 'truncate {MIB}m' -c 'mmap -rw 0 {MIB}m' -c 'mwrite 0 {MIB}m' {commands} /m/file >/dev/null"
        )
    };
    // A process that maps the file and touches it, as all that follow do first.
    let touch = timed(guest, &pass("mwrite", 0), 1)?;
    let store = timed(guest, &pass("mwrite", PASSES), 1)?;
    let all = MIB * u64::try_from(PASSES)?;
    figures.insert("mapped store, 1 MiB".into(), store.saturating_sub(touch) / all);

    let pid = u32::try_from(guest.monitor().pid().as_raw_nonzero().get())?;
    let exits = |name: &str| Ok::<_, anyhow::Error>(statistics(pid)?.get(name).copied().unwrap_or(0));
    let mut count = |script: &str| -> Result<(u64, u64)> {
        let counter = trace.count_user_exits()?;
        let before = exits("VM exits")?;
        guest.check(script)?;
        let after = exits("VM exits")?;
        Ok((
            counter.read()?.iter().map(|(_, n)| n).sum(),
            after.saturating_sub(before),
        ))
    };
    let (idle_user, idle_all) = count(&pass("mwrite", 0))?;
    let (user, all) = count(&pass("mwrite", PASSES))?;
    figures.insert(
        "user exits of 1 GiB of mapped stores".into(),
        user.saturating_sub(idle_user),
    );
    figures.insert(
        "VM exits of 1 GiB of mapped stores".into(),
        all.saturating_sub(idle_all),
    );
    Ok(())
}

fn added(guest: &mut Guest, socket: &Path, file: &Path) -> Result<u64> {
    let begun = Instant::now();
    let dimm = format!("{},size={SIZE}", file.display());
    let done = ctl(&program()?, socket, &["nvdimm", "add", &dimm])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    guest
        .check("for n in $(seq 1000); do test -b /dev/pmem2 && exit 0; usleep 2000; done; exit 1")
        .context("the added DIMM")?;
    Ok(u64::try_from(begun.elapsed().as_nanos())?)
}

fn many_dimms(plan: &Plan, vmm: Vmm, figures: &mut Figures) -> Result<()> {
    const ROUNDS: u64 = 5;
    let files = Scratch::new("bench")?;
    let mut guest = machine(plan, vmm, &files, MANY, SMALL)?;
    let listed = guest.json("ndctl list -D")?;
    let count = listed.as_array().map_or(0, Vec::len);
    ensure!(count == MANY as usize, "{count} DIMMs are listed, not {MANY}");
    let list = timed(&mut guest, &times(ROUNDS, "ndctl list -DRN >/dev/null"), ROUNDS)?;
    figures.insert("ndctl list -DRN, 32 DIMMs".into(), list);
    end(guest)
}
