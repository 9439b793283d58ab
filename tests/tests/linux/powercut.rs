//! Power cuts in the middle of writes: a namespace in sector mode (BTT) has each sector old or new, and none torn.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch};
use rustix::process::{Pid, Signal};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// No labels: a copy of the file is a DIMM like the first one.
const DIMM: &str = "size=32M,label=0";
const SECTOR: usize = 4096;
/// Sectors that each writer writes in order, again and again.
const SECTORS: usize = 64;
const WRITERS: usize = 2;
/// Images of the file that are taken while the writers write. The last one is what a killed monitor leaves.
const CUTS: usize = 4;

/// Each pass fills its sectors with the number of the pass, from 1 to 255 and on from 1 again.
fn start_writers(guest: &mut Guest) -> Result<()> {
    let bytes = SECTORS * SECTOR;
    for writer in 0..WRITERS {
        let at = writer * bytes;
        guest.check(&format!(
            "for pass in $(seq 0 9999); do printf 'pwrite -q -S %d -b {SECTOR} {at} {bytes}\\n' $((pass % 255 + 1)); done > /passes{writer}; \
             xfs_io -d /dev/pmem0s < /passes{writer} > /dev/null 2>&1 &"
        ))?;
    }
    guest.check(
        "for i in $(seq 100); do [ \"$(od -An -tu1 -N1 /dev/pmem0s)\" -ge 3 ] && exit 0; sleep 0.1; done; exit 1",
    )?;
    Ok(())
}

/// The number in each sector of a disk; an error when a sector has more than one.
fn numbers(guest: &mut Guest, disk: &str) -> Result<Vec<u8>> {
    let bytes = WRITERS * SECTORS * SECTOR;
    // Runs of equal rows of 16 bytes, and whether the bytes in a row are equal.
    let runs = guest.check(&format!(
        "od -An -v -tu1 -w16 -N {bytes} /dev/{disk} | uniq -c | \
         awk '{{ same = 1; for (i = 3; i <= NF; i++) if ($i != $2) same = 0; print $1, $2, same }}'"
    ))?;
    let mut all = vec![];
    for run in runs.lines() {
        let words: Vec<usize> = run.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let &[rows, number, 1] = &words[..] else {
            anyhow::bail!("{disk}: sector {} is torn: {runs}", all.len());
        };
        ensure!(
            rows % (SECTOR / 16) == 0,
            "{disk}: sector {} is torn: {runs}",
            all.len()
        );
        all.extend(vec![u8::try_from(number)?; rows / (SECTOR / 16)]);
    }
    ensure!(all.len() == WRITERS * SECTORS, "{disk}: {runs}");
    Ok(all)
}

/// Every sector of a disk is of the pass under way or of the one before. True: some writer was in the middle of a pass.
fn old_or_new(guest: &mut Guest, disk: &str) -> Result<bool> {
    let mut amid = false;
    for part in numbers(guest, disk)?.chunks(SECTORS) {
        let new = part[0];
        let old = if new == 1 { 255 } else { new - 1 };
        let done = part.iter().take_while(|n| **n == new).count();
        ensure!(
            part[done..].iter().all(|n| *n == old || (new == 1 && *n == 0)),
            "{disk}: neither old nor new: {part:?}"
        );
        amid |= done < SECTORS;
    }
    Ok(amid)
}

/// Linux's own check of the layout.
fn layout_is_sound(guest: &mut Guest, n: usize) -> Result<()> {
    let namespace = format!("namespace{n}.0");
    guest
        .check(&format!(
            "ndctl disable-namespace {namespace} && ndctl check-namespace {namespace} && ndctl enable-namespace {namespace}"
        ))
        .map(drop)
}

/// Waits until each thread of a stopped process stands: then the guest stores nothing, and what it has stored is in the file.
fn stands_still(pid: Pid) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let moves = || -> Result<bool> {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(task?.path().join("stat"))?;
            // Number, name in brackets, state.
            if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while moves()? {
        ensure!(Instant::now() < deadline, "the monitor does not stop");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[test]
fn sectors_are_old_or_new_after_a_power_cut_a_kill_and_a_reset() -> Result<()> {
    let files = Scratch::new("powercut")?;
    let image = |n: usize| files.join(&format!("image{n}"));
    let first = GuestBuilder::new(QUICK)
        .cpus("2")
        .nvdimm(&format!("{},{DIMM}", image(0).display()));
    let mut guest = first.start()?;
    guest.check("ndctl create-namespace -f -e namespace0.0 -m sector && test -b /dev/pmem0s")?;
    start_writers(&mut guest)?;
    for n in 1..=CUTS {
        thread::sleep(Duration::from_millis(150 + 37 * n as u64));
        guest.monitor().signal(Signal::STOP)?;
        stands_still(guest.monitor().pid())?;
        let copied = fs::copy(image(0), image(n));
        guest.monitor().signal(Signal::CONT)?;
        copied.context("no room for a copy")?;
    }
    ensure!(guest.signal(Signal::KILL)?.killed == Some(9));

    let all = (0..=CUTS).fold(GuestBuilder::new(QUICK).cpus("2"), |config, n| {
        config.nvdimm(&format!("{},{DIMM}", image(n).display()))
    });
    let mut guest = all.start()?;
    let mut amid = 0;
    for n in 0..=CUTS {
        amid += usize::from(old_or_new(&mut guest, &format!("pmem{n}s")).with_context(|| format!("image {n}"))?);
        layout_is_sound(&mut guest, n).with_context(|| format!("image {n}"))?;
    }
    ensure!(amid > CUTS / 2, "only {amid} of {} cuts fell into a pass", CUTS + 1);

    start_writers(&mut guest)?;
    guest.check("(sleep 1; echo b > /proc/sysrq-trigger) > /dev/null 2>&1 &")?;
    let ended = guest.wait()?;
    ensure!(ended.code == 3, "exit code {}: {}", ended.code, ended.stderr);
    let mut guest = first.start()?;
    old_or_new(&mut guest, "pmem0s").context("after the reset")?;
    layout_is_sound(&mut guest, 0).context("after the reset")?;
    guest.power_off()?;
    Ok(())
}
