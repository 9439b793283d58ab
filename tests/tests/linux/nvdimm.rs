//! NVDIMMs as the guest's own tools see them: configuration, namespaces, labels, and what is found again later.

use anyhow::{Context, Result, ensure};
use devices::nvdimm::label::format::Contents;
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, facts};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

const LABEL: u64 = 128 << 10;
/// A DIMM whose region is whole: ndctl wants regions in multiples of 16 MiB, and the label area comes on top.
const WHOLE: u64 = (128 << 20) + LABEL;
const MODES: [&str; 4] = ["raw", "sector", "fsdax", "devdax"];

/// How each mode is filled with something to find again; prints its checksum.
fn fill(mode: &str, n: usize) -> String {
    match mode {
        "raw" => format!(
            "dd if=/dev/urandom of=/dev/pmem{n} bs=1M count=4 conv=fsync 2>/dev/null && {}",
            checksum(mode, n)
        ),
        "sector" => format!(
            "mkfs.ext4 -q -b 4096 /dev/pmem{n}s && mkdir -p /m && mount -t ext4 /dev/pmem{n}s /m && \
             dd if=/dev/urandom of=/m/file bs=1M count=4 2>/dev/null && umount /m && {}",
            checksum(mode, n)
        ),
        "fsdax" => format!(
            "mkfs.ext4 -q -b 4096 /dev/pmem{n} && mkdir -p /m && mount -t ext4 -o dax /dev/pmem{n} /m && \
             grep -q ' /m .*dax' /proc/mounts && dd if=/dev/urandom of=/m/file bs=1M count=4 2>/dev/null && umount /m && {}",
            checksum(mode, n)
        ),
        // device-dax has no write(2): through a mapping.
        _ => format!(
            "xfs_io -c 'mmap -rw 0 4m' -c 'mwrite -S 0xa5 0 2m' -c 'mwrite -S 0x3c 2m 2m' /dev/dax{n}.0 && {}",
            checksum(mode, n)
        ),
    }
}

/// Prints the checksum of what [`fill`] wrote.
fn checksum(mode: &str, n: usize) -> String {
    match mode {
        "raw" => format!("dd if=/dev/pmem{n} bs=1M count=4 2>/dev/null | sha256sum"),
        "sector" => format!("mkdir -p /m && mount -t ext4 -o ro /dev/pmem{n}s /m && sha256sum /m/file && umount /m"),
        "fsdax" => format!("mkdir -p /m && mount -t ext4 -o ro,dax /dev/pmem{n} /m && sha256sum /m/file && umount /m"),
        _ => format!("xfs_io -r -c 'mmap -r 0 4m' -c 'mread -v 0 4m' /dev/dax{n}.0 | sha256sum"),
    }
}

/// Mode and uuid of each namespace by name.
fn namespaces(guest: &mut Guest) -> Result<BTreeMap<String, (String, String)>> {
    let list = guest.json("ndctl list -N")?;
    let all = list.as_array().context("no list of namespaces")?;
    all.iter()
        .map(|n| {
            let text = |key| facts::text(n, key).map(str::to_owned);
            Ok((text("dev")?, (text("mode")?, text("uuid")?)))
        })
        .collect()
}

fn contents(guest: &mut Guest) -> Result<Vec<String>> {
    let all = MODES.iter().enumerate();
    all.map(|(n, mode)| {
        guest
            .check(&checksum(mode, n))
            .with_context(|| format!("{mode} namespace"))
    })
    .collect()
}

fn four_dimms(kernel: &str, files: &Scratch) -> GuestBuilder {
    MODES.iter().fold(GuestBuilder::new(kernel), |config, mode| {
        config.nvdimm(&format!("{},size={WHOLE},id={mode}", files.text(mode)))
    })
}

#[test]
fn namespaces_of_every_mode_survive_reset_and_power_off() -> Result<()> {
    every_mode_survives("debian-6.1-amd64")
}

#[test]
fn namespaces_of_every_mode_survive_on_6_12() -> Result<()> {
    every_mode_survives("debian-6.12-amd64")
}

fn every_mode_survives(kernel: &str) -> Result<()> {
    let files = Scratch::new("modes")?;
    let config = four_dimms(kernel, &files);
    let mut guest = config.start()?;
    let mut filled = vec![];
    for (n, mode) in MODES.iter().enumerate() {
        guest.check(&format!("ndctl create-namespace -f -e namespace{n}.0 -m {mode}"))?;
        filled.push(
            guest
                .check(&fill(mode, n))
                .with_context(|| format!("{mode} namespace"))?,
        );
    }
    let made = namespaces(&mut guest)?;
    ensure!(made.len() == MODES.len(), "{made:?}");
    for (n, mode) in MODES.iter().enumerate() {
        ensure!(made[&format!("namespace{n}.0")].0 == *mode, "{made:?}");
    }
    guest.reboot()?;

    let mut guest = config.start()?;
    ensure!(namespaces(&mut guest)? == made, "after the reset");
    ensure!(contents(&mut guest)? == filled, "after the reset");
    guest.power_off()?;

    let mut guest = config.start()?;
    ensure!(namespaces(&mut guest)? == made, "after the power-off");
    ensure!(contents(&mut guest)? == filled, "after the power-off");
    guest.power_off()?;
    Ok(())
}

#[test]
fn read_only_dimms_refuse_writes_and_their_files_stay_as_they_were() -> Result<()> {
    // ndctl's default keeps the page structures of an fsdax namespace on the DIMM: Linux writes them at every boot.
    const KINDS: [&str; 2] = ["raw", "fsdax"];
    let files = Scratch::new("readonly")?;
    let dimm = |n: usize, more: &str| format!("{},size={WHOLE}{more}", files.text(&format!("dimm{n}")));
    let guest = |more: &str| {
        KINDS
            .iter()
            .enumerate()
            .fold(GuestBuilder::new(QUICK), |g, (n, _)| g.nvdimm(&dimm(n, more)))
    };
    let mut first = guest("").start()?;
    let mut filled = Vec::new();
    for (n, mode) in KINDS.iter().enumerate() {
        first.check(&format!("ndctl create-namespace -f -e namespace{n}.0 -m {mode}"))?;
        filled.push(first.check(&fill(mode, n))?);
    }
    let made = namespaces(&mut first)?;
    first.power_off()?;

    let sums = || {
        (0..KINDS.len())
            .map(|n| facts::sha256(&files.join(&format!("dimm{n}"))))
            .collect::<Result<Vec<_>>>()
    };
    let before = sums()?;
    let mut second = guest(",readonly=on").start()?;
    ensure!(namespaces(&mut second)? == made, "on the read-only DIMMs");
    for (n, mode) in KINDS.iter().enumerate() {
        let flags = format!("cat /sys/bus/nd/devices/region{n}/read_only /sys/block/pmem{n}/ro");
        ensure!(second.check(&flags)? == "1\n1", "{mode}");
        ensure!(second.check(&checksum(mode, n))? == filled[n], "{mode}");
        second.fails(&format!("dd if=/dev/zero of=/dev/pmem{n} bs=4096 count=1 conv=fsync"))?;
        second.check(&format!("ndctl disable-region region{n}"))?;
        // Whatever ndctl makes of the refusal, the labels are still there.
        second.sh(&format!("ndctl zero-labels nmem{n}"))?;
        second.check(&format!("ndctl check-labels nmem{n}"))?;
    }
    second.power_off()?;
    ensure!(sums()? == before, "a read-only backing file changed");
    Ok(())
}

/// The label area of a backing file.
fn label_area(path: &Path) -> Result<Vec<u8>> {
    let mut area = vec![0; usize::try_from(LABEL)?];
    let file = File::open(path)?;
    file.read_exact_at(&mut area, file.metadata()?.len() - LABEL)?;
    Ok(area)
}

/// Tears one of the index blocks of an area: its second half is from another time. Gives where that is, and what the area
/// says then.
fn tear(area: &mut [u8], current: bool) -> Result<(Range<usize>, Contents)> {
    let contents = Contents::read(area)?;
    let index = if current {
        contents.current_index
    } else {
        1 - contents.current_index
    };
    let start = index * contents.geometry.index_size + contents.geometry.index_size / 2;
    let torn = start..start + 64;
    area.get_mut(torn.clone())
        .context("an index block outside of the area")?
        .fill(0x5a);
    Ok((torn, Contents::read(area)?))
}

/// The same in a backing file.
fn tear_file(path: &Path, current: bool) -> Result<Contents> {
    let mut area = label_area(path)?;
    let (torn, contents) = tear(&mut area, current)?;
    let file = File::options().write(true).open(path)?;
    let at = file.metadata()?.len() - LABEL + u64::try_from(torn.start)?;
    file.write_all_at(&area[torn], at)?;
    Ok(contents)
}

/// uuids of the namespaces on DIMM `n`.
fn uuids_of(all: &BTreeMap<String, (String, String)>, n: usize) -> Vec<String> {
    let of_dimm = all.iter().filter(|(k, _)| k.starts_with(&format!("namespace{n}.")));
    let mut uuids: Vec<_> = of_dimm.map(|(_, v)| v.1.clone()).collect();
    uuids.sort();
    uuids
}

#[test]
fn labels_are_read_written_and_recovered_from_a_torn_index() -> Result<()> {
    labels_are_recovered(QUICK)
}

#[test]
fn labels_are_recovered_from_a_torn_index_on_6_12() -> Result<()> {
    labels_are_recovered("debian-6.12-amd64")
}

/// The DIMMs of the test below.
const OLDER: usize = 0;
const NEWER: usize = 1;
/// The name that the last change before the tear gives a namespace.
const RENAMED: &str = "renamed";
/// Flag of a label: an update is under way. UEFI 2.10 13.19.
const UPDATING: u32 = 8;

fn labels_are_recovered(kernel: &str) -> Result<()> {
    let files = Scratch::new("labels")?;
    let names = ["older", "newer", "tools"];
    let config = names.iter().fold(GuestBuilder::new(kernel), |config, name| {
        config.nvdimm(&format!("{},size={WHOLE},id={name}", files.text(name)))
    });
    let mut guest = config.start()?;
    for n in 0..3 {
        guest.check(&format!(
            "ndctl disable-region region{n} && ndctl init-labels nmem{n} && ndctl enable-region region{n} && \
             ndctl create-namespace -r region{n} -s 32M -m raw && ndctl create-namespace -r region{n} -s 48M -m raw"
        ))?;
    }
    let made = namespaces(&mut guest)?;
    ensure!(made.len() == 6, "{made:?}");
    // What ndctl reads is what lies at the end of the file.
    guest.check("ndctl disable-region region2 && ndctl read-labels nmem2 -o /labels")?;
    let read = guest.file("/labels")?;
    let area = label_area(&files.join("tools"))?;
    ensure!(
        !read.is_empty() && area.starts_with(&read),
        "ndctl reads other labels than the file has"
    );
    guest.check("ndctl check-labels nmem2")?;
    guest.check("ndctl zero-labels nmem2")?;
    ensure!(
        label_area(&files.join("tools"))?.iter().all(|b| *b == 0),
        "labels are left after zero-labels"
    );
    let zeroed = guest.sh("ndctl check-labels nmem2")?;
    ensure!(!zeroed.to_string().contains("verified 1"), "{zeroed}");
    guest.check("ndctl write-labels -i /labels nmem2 && ndctl check-labels nmem2")?;
    ensure!(
        label_area(&files.join("tools"))?.starts_with(&read),
        "write-labels wrote something else"
    );
    // The last change to each area is one that can be told from the state before it: a namespace gets a name.
    for n in [OLDER, NEWER] {
        guest.check(&format!(
            "for b in pmem{n} pmem{n}.1; do echo mark of $b | dd of=/dev/$b bs=64 conv=sync,fsync 2>/dev/null || exit 1; done; \
             ndctl disable-namespace namespace{n}.1 && echo {RENAMED} > /sys/bus/nd/devices/namespace{n}.1/alt_name && \
             ndctl enable-namespace namespace{n}.1"
        ))?;
    }
    guest.power_off()?;

    // Linux changes a label in two steps with an index write each: with the mark of an update under way, and without it. What
    // the new block's tear undoes is the second step.
    for (n, current) in [(OLDER, false), (NEWER, true)] {
        let contents = tear_file(&files.join(names[n]), current)?;
        let mut labels = contents.labels.iter().filter_map(|(_, label)| label.as_ref().ok());
        let renamed = labels
            .find(|label| label.name == RENAMED)
            .with_context(|| format!("{contents:?}"))?;
        ensure!((renamed.flags & UPDATING != 0) == current, "{}: {contents:?}", names[n]);
    }
    let mut guest = config.start()?;
    let found = namespaces(&mut guest)?;
    // Not one namespace is lost, whichever block was torn, nor anything on it.
    for n in 0..3 {
        ensure!(
            uuids_of(&found, n) == uuids_of(&made, n),
            "nmem{n}: {found:?} where there was {made:?}"
        );
    }
    for n in [OLDER, NEWER] {
        let marks = guest.check(&format!("for b in pmem{n} pmem{n}.1; do head -n 1 /dev/$b; done"))?;
        ensure!(marks == format!("mark of pmem{n}\nmark of pmem{n}.1"), "{marks}");
    }
    // The last change is there as well.
    for n in [OLDER, NEWER] {
        let names = guest.check(&format!("cat /sys/bus/nd/devices/namespace{n}.*/alt_name"))?;
        ensure!(names.trim() == RENAMED, "nmem{n}: '{names}'");
    }
    // The next changes make both blocks good again.
    for n in [OLDER, NEWER] {
        guest.free_seed(n)?;
        guest.check(&format!(
            "ndctl create-namespace -r region{n} -s 16M -m raw && ndctl create-namespace -r region{n} -s 16M -m raw"
        ))?;
        guest.check(&format!("ndctl disable-region region{n} && ndctl check-labels nmem{n}"))?;
    }
    guest.power_off()?;
    for name in ["older", "newer"] {
        for current in [true, false] {
            let mut area = label_area(&files.join(name))?;
            let (_, left) = tear(&mut area, current).with_context(|| format!("{name} after its repair"))?;
            ensure!(left.labels.len() >= 3, "{name}: {left:?}");
        }
    }
    Ok(())
}

/// Linux loses the seed of a region now and then; see [`Guest::free_seed`].
#[test]
fn namespaces_can_be_made_after_every_registration_of_a_region() -> Result<()> {
    const ROUNDS: usize = 5;
    let files = Scratch::new("seeds")?;
    let config = GuestBuilder::new(QUICK)
        .cpus("2")
        .nvdimm(&format!("{},size={WHOLE}", files.text("dimm")));
    let mut guest = config.start()?;
    guest.check(
        "ndctl disable-region region0 && ndctl init-labels nmem0 && ndctl enable-region region0 && \
         ndctl create-namespace -r region0 -s 32M -m raw",
    )?;
    for round in 0..ROUNDS {
        guest.check("ndctl disable-region region0 && ndctl enable-region region0")?;
        guest.free_seed(0)?;
        let made = guest.json("ndctl create-namespace -r region0 -s 16M -m raw")?;
        let name = facts::text(&made, "dev").with_context(|| format!("round {round}"))?;
        guest.check(&format!("ndctl destroy-namespace -f {name}"))?;
    }
    guest.power_off()?;
    Ok(())
}

#[test]
fn thirty_two_dimms_are_what_was_configured() -> Result<()> {
    let files = Scratch::new("many")?;
    let mut config = GuestBuilder::new("debian-6.12-amd64");
    for n in 0..32_u64 {
        config = config.nvdimm(&format!("{},size={}M", files.text(&n.to_string()), 16 << (n % 3)));
    }
    let plan = config.dry_run()?;
    let mut guest = config.start()?;
    let dimms = guest.json("ndctl list -D")?;
    let regions = guest.json("ndctl list -R")?;
    ensure!(dimms.as_array().map(Vec::len) == Some(32), "{dimms}");
    let resources = guest.check("cd /sys/bus/nd/devices && for n in $(seq 0 31); do cat region$n/resource; done")?;
    let resources: Vec<_> = resources.lines().collect();
    for (n, nvdimm) in facts::list(&plan, "nvdimms")?.iter().enumerate() {
        let dimm = facts::find(&dimms, "dev", &format!("nmem{n}"))?;
        ensure!(
            facts::number(dimm, "handle")? == facts::number(nvdimm, "handle")?,
            "{dimm}"
        );
        // Vendor 0x8086 and the serial number, each byte by byte (docs/nvdimm.md).
        let serial = 0x0012_3456_u32 + u32::try_from(n)?;
        ensure!(
            facts::text(dimm, "id")? == format!("8680-{:08x}", serial.swap_bytes()),
            "{dimm}"
        );
        let region = facts::find(&regions, "dev", &format!("region{n}"))?;
        ensure!(
            facts::number(region, "size")? == facts::number(nvdimm, "len")?,
            "{region}"
        );
        ensure!(
            region["persistence_domain"] == "cpu_cache" && region["type"] == "pmem",
            "{region}"
        );
        let start = format!("{:#x}", facts::number(nvdimm, "start")?);
        ensure!(resources[n] == start, "region{n} at {}, planned {start}", resources[n]);
    }
    // A mark of its own in each, to be seen in its own file.
    guest.check(
        "for n in $(seq 0 31); do echo dimm $n | dd of=/dev/pmem$n bs=64 conv=sync,fsync 2>/dev/null || exit 1; done",
    )?;
    guest.power_off()?;
    for n in 0..32 {
        let start = fs::read(files.join(&n.to_string()))?;
        ensure!(start.starts_with(format!("dimm {n}\n").as_bytes()), "slot {n}");
    }
    Ok(())
}

/// A hugetlbfs of our own, unmounted and unreserved at the end.
struct HugePages {
    folder: Scratch,
    before: String,
}

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

fn run(program: &str, args: &[&str]) -> Result<()> {
    let done = std::process::Command::new(program).args(args).output()?;
    ensure!(
        done.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

impl HugePages {
    fn reserve(pages: u64) -> Result<Self> {
        let before = fs::read_to_string(RESERVED)?;
        let total = before.trim().parse::<u64>()? + pages;
        fs::write(RESERVED, total.to_string()).context("reserving huge pages needs root")?;
        let now: u64 = fs::read_to_string(RESERVED)?.trim().parse()?;
        ensure!(now == total, "the host reserves {now} huge pages, not {total}");
        let folder = Scratch::new("huge")?;
        run(
            "mount",
            &[
                "-t",
                "hugetlbfs",
                "-o",
                "pagesize=2M",
                "none",
                &folder.path().display().to_string(),
            ],
        )?;
        Ok(Self { folder, before })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.folder.path().display().to_string()]);
        let _ = fs::write(RESERVED, self.before.trim());
    }
}

#[test]
fn anonymous_and_huge_page_backings_hold_what_is_written() -> Result<()> {
    let huge = HugePages::reserve(80)?;
    let file = huge.folder.text("dimm");
    // The label area takes a huge page of its own at the end.
    let size = 130;
    let config = GuestBuilder::new(QUICK)
        .nvdimm(&format!("size={WHOLE},id=anonymous"))
        .nvdimm(&format!("{file},size={size}M,id=huge,backing=hugetlbfs"));
    let mut guest = config.start()?;
    let plan = config.dry_run()?;
    let whole = facts::number(&facts::list(&plan, "nvdimms")?[1], "len")?;
    ensure!(whole == 128 << 20, "{plan}");
    for n in 0..2 {
        guest.check(&format!("ndctl create-namespace -f -e namespace{n}.0 -m fsdax"))?;
        guest.check(&fill("fsdax", n))?;
    }
    let (made, filled) = (namespaces(&mut guest)?, guest.check(&checksum("fsdax", 1))?);
    guest.power_off()?;
    let mut guest = config.start()?;
    let found = guest.json("ndctl list -N")?;
    ensure!(
        facts::text(facts::find(&found, "dev", "namespace1.0")?, "uuid")? == made["namespace1.0"].1,
        "{found}"
    );
    ensure!(guest.check(&checksum("fsdax", 1))? == filled);
    // Anonymous memory ended with the machine that had it.
    ensure!(facts::find(&found, "dev", "namespace0.0")?["mode"] == "raw", "{found}");
    guest.power_off()?;
    Ok(())
}
