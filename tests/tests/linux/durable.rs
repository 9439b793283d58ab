//! What outlasts the monitor: data that was flushed, errors of the media, and DIMMs that were added while the guest ran.

use anyhow::{Result, ensure};
use guest_tests::{Guest, GuestBuilder, QUICK, Scratch, api::ctl, facts, guest::program};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;

const KILLED: i32 = 128 + 9;
/// In `c`, far from what the test stores.
const LATENT: u64 = 32 << 20;
const INJECTED_BLOCK: u64 = (40 << 20) / 512;
const CLEARED_BLOCK: u64 = (48 << 20) / 512;

/// `daxvisor ctl nvdimm`, which has to succeed.
fn nvdimm(files: &Scratch, args: &[&str]) -> Result<Value> {
    let done = ctl(&program()?, &files.join("api"), &[&["--json", "nvdimm"], args].concat())?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{args:?}: {said}");
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn refused(files: &Scratch, args: &[&str], why: &str) -> Result<()> {
    let done = ctl(&program()?, &files.join("api"), &[&["nvdimm"], args].concat())?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(
        done.status.code() == Some(1) && said.contains(why),
        "{args:?} was not refused with `{why}`: {said}"
    );
    Ok(())
}

/// Four DIMMs: `a` is a plain file without hints, `b` and `d` are encrypted, `c` flushes and remembers.
fn machine(files: &Scratch) -> GuestBuilder {
    let dimm = |id: &str, more: &str| format!("{},size=65664K,id={id}{more}", files.text(id));
    GuestBuilder::new(QUICK)
        .nvdimm(&dimm("a", ""))
        .nvdimm(&dimm("b", ",encrypt=on"))
        .nvdimm(&dimm("c", &format!(",flush=msync,state={}", files.text("c.json"))))
        .nvdimm(&dimm(
            "d",
            ",encrypt=on,health-condition=critical,health-spares=12,health-life-used=80,health-media-temperature=-4,\
             health-shutdown-count=3,health-alarms=[spares],health-spares-threshold=20",
        ))
        .arg("--api-socket", &files.text("api"))
}

/// Flushes of each DIMM that has a hint.
fn flushes(files: &Scratch) -> Result<Vec<Option<u64>>> {
    let list = nvdimm(files, &["list"])?;
    let dimms = facts::list(&list, "dimms")?;
    Ok(dimms.iter().map(|dimm| dimm["flush"]["flushes"].as_u64()).collect())
}

const SUMS: &str = "for n in 0 1; do mkdir -p /m$n; findmnt /m$n >/dev/null || mount -t ext4 -o dax /dev/pmem$n /m$n || exit 1; \
     sha256sum < /m$n/file; done; for n in 2 3; do dd if=/dev/pmem$n bs=64K count=4 2>/dev/null | sha256sum; done";

/// First blocks of the bad ranges in the namespace's list, after a scrub.
fn scrubbed(guest: &mut Guest, namespace: &str) -> Result<Vec<u64>> {
    guest.check("ndctl start-scrub ACPI.NFIT >/dev/null && ndctl wait-scrub ACPI.NFIT >/dev/null")?;
    let listed = guest.json(&format!("ndctl list -N -M -n {namespace}"))?;
    let ranges = listed[0]["badblocks"].as_array().cloned().unwrap_or_default();
    Ok(ranges.iter().filter_map(|range| range["offset"].as_u64()).collect())
}

#[test]
fn killed_monitors_leave_what_was_flushed_the_errors_and_dimms_that_were_added() -> Result<()> {
    let files = Scratch::new("durable")?;
    let sum = first_run(&files)?;
    second_run(&files, &sum)?;
    third_run(&files, &sum)
}

/// Stores, makes errors, and is killed as soon as the last flush is over.
fn first_run(files: &Scratch) -> Result<String> {
    let mut guest = machine(files).start()?;
    let domains = guest.check("cat /sys/bus/nd/devices/region*/persistence_domain | sort -u")?;
    ensure!(domains == "memory_controller", "{domains}");
    for n in [0, 1] {
        guest.check(&format!(
            "ndctl create-namespace -f -e namespace{n}.0 -m fsdax && mkfs.ext4 -q -b 4096 /dev/pmem{n} && mkdir -p /m{n} && \
             mount -t ext4 -o dax /dev/pmem{n} /m{n}"
        ))?;
    }
    health_is_configured(&mut guest)?;
    errors_by_dpa_and_address(files, &mut guest)?;
    let before = flushes(files)?;
    let sum = guest.check("dd if=/dev/urandom of=/tmp/r bs=64K count=4 2>/dev/null; sha256sum < /tmp/r")?;
    guest.check(
        "for n in 2 3; do dd if=/tmp/r of=/dev/pmem$n bs=64K conv=fsync 2>/dev/null || exit 1; done; \
         for n in 0 1; do dd if=/tmp/r of=/m$n/file bs=64K conv=fsync 2>/dev/null || exit 1; done",
    )?;
    let after = flushes(files)?;
    let grew = |n: usize| after[n].zip(before[n]).is_some_and(|(after, before)| after > before);
    ensure!(
        after[0].is_none() && (1..4).all(grew),
        "flushes of a to d were {before:?} and are {after:?}"
    );
    // Once more, and then at once the end.
    guest.check("dd if=/tmp/r of=/m1/file bs=64K conv=fsync,notrunc 2>/dev/null")?;
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.code == KILLED, "{ended:?}");
    Ok(sum)
}

fn health_is_configured(guest: &mut Guest) -> Result<()> {
    let dimms = guest.json("ndctl list -D -H -d nmem3")?;
    let health = &dimms[0]["health"];
    let expected = [
        ("health_state", Value::from("critical")),
        ("spares_percentage", 12.into()),
        ("spares_threshold", 20.into()),
        ("alarm_spares", true.into()),
        ("alarm_enabled_media_temperature", false.into()),
        ("life_used_percentage", 80.into()),
        ("shutdown_count", 3.into()),
    ];
    for (key, value) in expected {
        ensure!(health[key] == value, "{key} is not {value}: {dimms}");
    }
    let degrees = health["temperature_celsius"].as_f64();
    ensure!(degrees == Some(-4.0), "{dimms}");
    Ok(())
}

/// The host makes errors in `c`, by its DPAs and by what the guest sees, and takes one back; the guest makes two.
fn errors_by_dpa_and_address(files: &Scratch, guest: &mut Guest) -> Result<()> {
    // Linux scans all media when it starts, for as long as that takes: a latent error made meanwhile would be found.
    guest.check("ndctl wait-scrub ACPI.NFIT >/dev/null")?;
    let list = nvdimm(files, &["list"])?;
    let start = facts::number(facts::find(&list["dimms"], "id", "c")?, "start")?;
    let known = format!("{:#x}", start + (36 << 20));
    nvdimm(files, &["inject", "--dimm", "c", &LATENT.to_string(), "64", "--latent"])?;
    nvdimm(files, &["inject", &known, "512"])?;
    // The guest is told of the known one alone.
    let block = (36 << 20) / 512;
    guest.check(&format!(
        "for n in $(seq 100); do grep -q '^{block} ' /sys/block/pmem2/badblocks && exit 0; sleep 0.1; done; \
         cat /sys/block/pmem2/badblocks; exit 1"
    ))?;
    let seen = guest.check("cat /sys/block/pmem2/badblocks")?;
    ensure!(seen == format!("{block} 1"), "{seen}");
    nvdimm(files, &["clear", &known, "512"])?;
    for block in [INJECTED_BLOCK, CLEARED_BLOCK] {
        guest.check(&format!("ndctl inject-error namespace2.0 -B {block} -n 1 --no-notify"))?;
    }
    let all = nvdimm(files, &["errors"])?;
    let errors = facts::list(&all, "errors")?;
    let found: Vec<_> = errors
        .iter()
        .map(|error| (error["dpa"].as_u64(), error["source"].as_str(), error["state"].as_str()))
        .collect();
    let expected = [
        (Some(LATENT), Some("host"), Some("latent")),
        (Some(INJECTED_BLOCK * 512), Some("guest"), Some("known")),
        (Some(CLEARED_BLOCK * 512), Some("guest"), Some("known")),
    ];
    ensure!(found == expected && errors[0]["id"] == "c", "{all}");
    ensure!(nvdimm(files, &["errors", "--dimm", "a"])?["errors"] == Value::Array(vec![]));
    let outside = ["inject", "--dimm", "c", "64M", "64"];
    refused(files, &outside, "are not in the NVDIMM: expected at least one byte")?;
    refused(files, &["inject", "--dimm", "x", "0", "64"], "there is no NVDIMM 'x'")?;
    refused(
        files,
        &["clear", "0x1000", "64"],
        "are not in an NVDIMM: expected at least one byte",
    )
}

/// Finds all of it, clears one error, and is given a DIMM that is encrypted and remembers.
fn second_run(files: &Scratch, sum: &str) -> Result<()> {
    let mut guest = machine(files).start()?;
    ensure!(
        guest.check(SUMS)?.lines().all(|line| line == sum),
        "{}",
        guest.check(SUMS)?
    );
    let found = scrubbed(&mut guest, "namespace2.0")?;
    ensure!(
        found == [LATENT / 512, INJECTED_BLOCK, CLEARED_BLOCK],
        "after the kill the scrub finds {found:?}"
    );
    let injected = guest.check("ndctl inject-error --status namespace2.0")?;
    ensure!(injected.contains(&INJECTED_BLOCK.to_string()), "{injected}");
    nvdimm(
        files,
        &["clear", "--dimm", "c", &(CLEARED_BLOCK * 512).to_string(), "512"],
    )?;

    let add = |more: &str| format!("{},size=65664K,id=e,{more}", files.text("e"));
    refused(
        files,
        &["add", &add(&format!("state={}", files.text("c.json")))],
        "is named both for",
    )?;
    fs::write(
        files.join("other.json"),
        fs::read_to_string(files.join("c.json"))?.replace("media", "medium"),
    )?;
    refused(
        files,
        &["add", &add(&format!("encrypt=on,state={}", files.text("other.json")))],
        "belongs to the DIMM with serial number",
    )?;
    refused(
        files,
        &["add", &add("flush=msync,readonly=on")],
        "has flush=msync and readonly=on",
    )?;
    for name in ["e", "e.keys"] {
        ensure!(!files.join(name).exists(), "{name} is left of a DIMM that was refused");
    }
    let operation = nvdimm(
        files,
        &[
            "add",
            "--wait",
            &add(&format!("encrypt=on,state={}", files.text("e.json"))),
        ],
    )?;
    let added = &operation["result"];
    ensure!(added["fit_seen"] == added["fit_generation"], "{operation}");
    ensure!(added["dimm"]["flush"]["writes"] == 0, "{added}");
    guest.check(
        "for n in $(seq 100); do test -b /dev/pmem4 && break; sleep 0.1; done; \
         dd if=/m1/file of=/dev/pmem4 bs=64K conv=fsync 2>/dev/null && \
         ndctl inject-smart nmem4 --unsafe-shutdown >/dev/null",
    )?;
    nvdimm(files, &["inject", "--dimm", "e", "1M", "64"])?;
    // The labels of the added DIMM outlast the kill as well.
    guest.check("ndctl disable-region region4 && ndctl init-labels nmem4 && ndctl enable-region region4")?;
    let ended = guest.signal(Signal::KILL)?;
    ensure!(ended.code == KILLED, "{ended:?}");
    ensure!(files.join("e.keys").exists() && files.join("e.json").exists());
    Ok(())
}

/// The added DIMM is one of the machine's own now.
fn third_run(files: &Scratch, sum: &str) -> Result<()> {
    let e = format!(
        "{},size=65664K,id=e,encrypt=on,state={}",
        files.text("e"),
        files.text("e.json")
    );
    let mut guest = machine(files).nvdimm(&e).start()?;
    ensure!(
        guest.check(SUMS)?.lines().all(|line| line == sum),
        "{}",
        guest.check(SUMS)?
    );
    let found = scrubbed(&mut guest, "namespace2.0")?;
    ensure!(
        found == [LATENT / 512, INJECTED_BLOCK],
        "after the clear the scrub finds {found:?}"
    );
    guest.check("ndctl disable-region region4 && ndctl check-labels nmem4")?;
    let count = guest.json("ndctl list -D -H -d nmem4")?;
    ensure!(count[0]["health"]["shutdown_count"] != 42, "{count}");
    let errors = nvdimm(files, &["errors", "--dimm", "e"])?;
    ensure!(errors["errors"][0]["dpa"] == 1 << 20, "{errors}");
    guest.power_off()?;
    // What cannot be the DIMM's is refused, with a way out, and stays.
    let state = fs::read_to_string(files.join("c.json"))?;
    let damaged = state.replacen(&format!("\"dpa\": {LATENT}"), "\"dpa\": 33554433", 1);
    ensure!(damaged != state, "{state}");
    fs::write(files.join("c.json"), &damaged)?;
    let ended = machine(files).refused()?;
    ensure!(
        ended.code == 2 && ended.stderr.contains("its section \"media\" is damaged") && ended.stderr.contains("hint: "),
        "{ended:?}"
    );
    ensure!(fs::read_to_string(files.join("c.json"))? == damaged);
    Ok(())
}
