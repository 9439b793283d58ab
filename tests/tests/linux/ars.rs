//! Media errors as the guest's own tools see them: scrubs, injection, what is bad and how it becomes good again.

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch};
use serde_json::{Value, json};

/// Whole regions: ndctl wants them in multiples of 16 MiB, and the label area comes on top. The first DIMM is large
/// enough for memory blocks of 128 MiB.
const MACHINE: [&str; 2] = ["size=393344K,node=1,id=labels", "size=64M,label=0,id=bare"];

/// Counter of finished scrubs of a bus, and whether one runs.
fn scrubs(guest: &mut Guest) -> Result<(u64, bool)> {
    let text = guest.check("cat /sys/bus/nd/devices/ndbus0/nfit/scrub")?;
    Ok((text.trim_end_matches('+').parse()?, text.ends_with('+')))
}

/// The kernel's list of bad sectors of a disk.
fn badblocks(guest: &mut Guest, disk: &str) -> Result<String> {
    guest.check(&format!("cat /sys/block/{disk}/badblocks"))
}

/// What `ndctl inject-error --status` lists.
fn injected(guest: &mut Guest, namespace: &str) -> Result<Value> {
    let status = guest.json(&format!("ndctl inject-error --status {namespace}"))?;
    Ok(status.get("badblocks").cloned().unwrap_or_else(|| json!([])))
}

/// The errors of a namespace and of its region, as blocks from their starts; each on the DIMM of the same number.
fn media_errors(guest: &mut Guest, n: u32) -> Result<Value> {
    let list = guest.json(&format!("ndctl list -RN --media-errors -r region{n}"))?;
    let region = &list["regions"][0];
    let namespace = &region["namespaces"][0];
    let part = |of: &Value| json!([of["badblock_count"], of["badblocks"]]);
    Ok(json!([part(region), part(namespace)]))
}

/// What [`media_errors`] says of one run of `count` bad blocks.
fn one_error(n: u32, in_region: u32, in_namespace: u32, count: u32) -> Value {
    let dimms = json!([format!("nmem{n}")]);
    let run = |offset: u32| json!([count, [{"offset": offset, "length": count, "dimms": dimms}]]);
    json!([run(in_region), run(in_namespace)])
}

fn no_errors() -> Value {
    json!([[null, null], [null, null]])
}

/// Neither a scrub that failed nor a kernel that stumbled.
fn no_trouble(guest: &mut Guest) -> Result<()> {
    let log = guest.check("dmesg | grep -iE 'ARS failed|ARS: range|WARNING|BUG:|Call Trace|ARS rec' || true")?;
    ensure!(log.is_empty(), "{log}");
    Ok(())
}

/// The counter moves with a scrub, and only then.
fn scrubs_count(guest: &mut Guest) -> Result<()> {
    let idle = guest.json("ndctl wait-scrub")?;
    let bus = (&idle[0]["provider"], &idle[0]["dev"], &idle[0]["scrub_state"]);
    ensure!(
        bus == (&json!("ACPI.NFIT"), &json!("ndbus0"), &json!("idle")) && idle[1].is_null(),
        "{idle}"
    );
    let (before, running) = scrubs(guest)?;
    ensure!(before >= 1 && !running, "{before} {running}");
    let started = guest.json("ndctl start-scrub")?;
    ensure!(started[0]["scrub_state"] == "active", "{started}");
    ensure!(scrubs(guest)? == (before, true), "it runs");
    guest.check("ndctl wait-scrub")?;
    ensure!(scrubs(guest)? == (before + 1, false), "it ended");
    Ok(())
}

/// On namespace `n`.0, whose data begins at block `start` of its region: injected, taken back, injected, found, refused to
/// readers, cleared by a write.
fn block_device_has_errors(guest: &mut Guest, n: u32, start: u32) -> Result<()> {
    let inject = format!("ndctl inject-error --block=42 --count=8 namespace{n}.0");
    let namespace = &format!("namespace{n}.0");
    let disk = &format!("pmem{n}");
    guest.check(&format!("{inject} --no-notify"))?;
    ensure!(injected(guest, namespace)? == json!([{"block": 42, "count": 8}]));
    ensure!(badblocks(guest, disk)?.is_empty(), "nobody told the guest");
    let said = guest.check(&format!("{inject} --uninject"))?;
    ensure!(said.contains("not cause the kernel to 'forget'"), "{said}");
    ensure!(injected(guest, namespace)? == json!([]));

    let (before, _) = scrubs(guest)?;
    let said = guest.json(&inject)?;
    ensure!(said["badblock_count"] == 8, "{said}");
    ensure!(scrubs(guest)?.0 > before, "the guest was told");
    ensure!(badblocks(guest, disk)? == "42 8");
    let found = media_errors(guest, n)?;
    ensure!(found == one_error(n, start + 42, 42, 8), "{found}");
    let refused = guest.fails(&format!("xfs_io -d -r -c 'pread 21504 512' /dev/{disk}"))?;
    ensure!(refused.contains("Input/output error"), "{refused}");
    guest.check(&format!("xfs_io -d -r -c 'pread 20992 512' /dev/{disk}"))?;

    // A write clears what it covers.
    guest.check(&format!("xfs_io -d -c 'pwrite 21504 1024' /dev/{disk}"))?;
    ensure!(badblocks(guest, disk)? == "44 6");
    ensure!(injected(guest, namespace)? == json!([{"block": 44, "count": 6}]));
    guest.check(&format!(
        "xfs_io -d -c 'pwrite 21504 4096' -c 'pread 21504 4096' /dev/{disk}"
    ))?;
    ensure!(badblocks(guest, disk)?.is_empty());
    ensure!(injected(guest, namespace)? == json!([]));
    // A scrub does not bring them back, nor does a new look at the region.
    guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    guest.check(&format!(
        "ndctl disable-region region{n} && ndctl enable-region region{n}"
    ))?;
    let found = media_errors(guest, n)?;
    ensure!(found == no_errors(), "{found}");
    Ok(())
}

/// On device-dax and as system RAM: found and cleared before it goes online, and found while it is.
fn memory_has_errors(guest: &mut Guest) -> Result<()> {
    guest.check("ndctl create-namespace -f -e namespace0.0 -m devdax")?;
    let data = start_of_data(guest, "dax0.0")?;
    // Whole blocks this time, in the middle of a memory block.
    guest.check("ndctl inject-error --block=400000 --count=16 --saturate --no-notify namespace0.0")?;
    guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    let found = media_errors(guest, 0)?;
    ensure!(found == one_error(0, data + 400_000, 400_000, 16), "{found}");
    let cleared = guest.check("ndctl clear-errors --scrub namespace0.0 2>&1")?;
    ensure!(cleared.contains("cleared 1 namespace"), "{cleared}");
    ensure!(media_errors(guest, 0)? == no_errors());
    ensure!(injected(guest, "namespace0.0")? == json!([]));
    // Where the kernel's policy is to put new memory online by itself, daxctl refuses.
    guest.check("echo offline > /sys/devices/system/memory/auto_online_blocks")?;
    guest.check("daxctl reconfigure-device --mode=system-ram dax0.0")?;
    let memory = guest.check("cat /sys/devices/system/node/node1/meminfo")?;
    ensure!(memory.contains("MemTotal:         262144 kB"), "{memory}");

    // The other order: Linux lists the error, and does not let ndctl clear it while the memory is in use.
    guest.check("ndctl inject-error --block=400000 --count=8 namespace0.0")?;
    let found = media_errors(guest, 0)?;
    ensure!(found == one_error(0, data + 400_000, 400_000, 8), "{found}");
    let busy = guest.fails("ndctl clear-errors namespace0.0")?;
    ensure!(busy.contains("Device or resource busy"), "{busy}");
    guest.check("daxctl reconfigure-device --force --mode=devdax dax0.0")?;
    guest.check("ndctl clear-errors namespace0.0 && ndctl start-scrub && ndctl wait-scrub")?;
    ensure!(media_errors(guest, 0)? == no_errors());
    Ok(())
}

/// Block of the region at which the data of a namespace with page structures begins.
fn start_of_data(guest: &mut Guest, device: &str) -> Result<u32> {
    let read =
        format!("cd /sys/bus/nd/devices && echo $((($(cat {device}/resource) - $(cat region0/resource)) / 512))");
    Ok(guest.check(&read)?.parse()?)
}

fn errors_come_and_go(kernel: &str) -> Result<()> {
    let files = Scratch::new("ars")?;
    let config = GuestBuilder::new(kernel).arg("--numa", "node=1");
    let add = |config: GuestBuilder, (n, dimm): (usize, &&str)| {
        config.nvdimm(&format!("{},{dimm}", files.text(&format!("dimm{n}"))))
    };
    let mut guest = MACHINE.iter().enumerate().fold(config, add).start()?;
    scrubs_count(&mut guest)?;
    block_device_has_errors(&mut guest, 0, 0).context("raw namespace")?;
    block_device_has_errors(&mut guest, 1, 0).context("DIMM without labels")?;
    guest.check("ndctl create-namespace -f -e namespace0.0 -m fsdax")?;
    let data = start_of_data(&mut guest, "pfn0.0")?;
    block_device_has_errors(&mut guest, 0, data).context("fsdax namespace")?;
    memory_has_errors(&mut guest).context("device-dax namespace")?;
    no_trouble(&mut guest)?;
    guest.power_off()?;
    Ok(())
}

#[test]
fn errors_come_and_go_on_6_1() -> Result<()> {
    errors_come_and_go("debian-6.1-cloud-amd64")
}

#[test]
fn errors_come_and_go_on_6_12() -> Result<()> {
    errors_come_and_go("debian-6.12-amd64")
}

/// Blocks with errors that are no neighbours.
const SCATTERED: [u32; 6] = [1000, 2000, 3000, 4000, 5000, 6000];

/// Where the kernel knows of errors, a line each.
fn bad_starts(guest: &mut Guest) -> Result<Vec<u32>> {
    let list = badblocks(guest, "pmem0")?;
    list.lines()
        .map(|line| Ok(line.split_whitespace().next().context("empty line")?.parse()?))
        .collect()
}

/// A result with room for four records, six errors: Linux has the scrub go on where it stopped, but takes records only
/// from the part it asked for first. What is cleared makes room for the rest.
fn overflow_goes_on(guest: &mut Guest) -> Result<()> {
    for block in SCATTERED {
        guest.check(&format!(
            "ndctl inject-error --block={block} --count=1 --no-notify namespace0.0"
        ))?;
    }
    ensure!(injected(guest, "namespace0.0")?.as_array().map(Vec::len) == Some(6));
    guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    ensure!(bad_starts(guest)? == SCATTERED[..4]);
    guest.check("ndctl clear-errors namespace0.0 && ndctl start-scrub && ndctl wait-scrub")?;
    ensure!(bad_starts(guest)? == SCATTERED[4..]);
    guest.check("ndctl clear-errors namespace0.0 && ndctl start-scrub && ndctl wait-scrub")?;
    ensure!(bad_starts(guest)?.is_empty());
    Ok(())
}

#[test]
fn errors_of_a_set_name_their_dimms_and_a_slow_scrub_goes_on_after_an_overflow() -> Result<()> {
    let files = Scratch::new("set")?;
    let add = |config: GuestBuilder, id| config.nvdimm(&format!("{},size=32896K,id={id}", files.text(id)));
    let config = ["a", "b"].into_iter().fold(GuestBuilder::new(QUICK), add);
    let mut guest = config
        .arg("--interleave-set", "dimms=[a,b],size=64M,line=4K")
        .arg("--ars", "scan-time=2s,records=4")
        .start()?;
    guest.check("ndctl wait-scrub")?;
    let (before, _) = scrubs(&mut guest)?;
    guest.check("ndctl start-scrub")?;
    guest.check("sleep 1")?;
    ensure!(scrubs(&mut guest)? == (before, true), "two seconds are not over");
    guest.check("ndctl wait-scrub")?;
    ensure!(scrubs(&mut guest)? == (before + 1, false));

    // Block 8 is the first of the second DIMM's first line.
    guest.check("ndctl inject-error --block=7 --count=2 namespace0.0")?;
    guest.check("ndctl inject-error --block=16 --count=1 namespace0.0")?;
    let found = guest.json("ndctl list -N --media-errors")?;
    let expected = json!([
        {"offset": 7, "length": 2, "dimms": ["nmem0", "nmem1"]},
        {"offset": 16, "length": 1, "dimms": ["nmem0"]},
    ]);
    ensure!(found[0]["badblocks"] == expected, "{found}");
    guest.check("ndctl clear-errors namespace0.0")?;
    ensure!(badblocks(&mut guest, "pmem0")?.is_empty());

    overflow_goes_on(&mut guest).context("overflow")?;
    no_trouble(&mut guest)?;
    guest.power_off()?;
    Ok(())
}
