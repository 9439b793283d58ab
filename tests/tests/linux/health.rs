//! Health, firmware and families of NVDIMMs as ndctl sees them.

use anyhow::{Context, Result, ensure};
use devices::nvdimm::guid::INTEL_DIMM_DSM;
use guest_tests::{
    Guest, GuestBuilder, QUICK, Scratch, facts,
    payload::{self, Program, SCRATCH, Script, nvdimm},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LABEL: u64 = 128 << 10;
/// A DIMM whose region is whole.
const WHOLE: u64 = (32 << 20) + LABEL;
const NMEM: &str = "/sys/bus/nd/devices/nmem0";

/// The health of a DIMM in `ndctl list`.
fn health(guest: &mut Guest, dimm: &str) -> Result<Value> {
    let dimms = guest.json(&format!("ndctl list -DH -d {dimm}"))?;
    let found = facts::find(&dimms, "dev", dimm)?;
    found
        .get("health")
        .cloned()
        .with_context(|| format!("no health: {dimms}"))
}

/// What a DIMM says at rest (docs/nvdimm-dsm.md).
fn at_rest() -> Value {
    json!({
        "health_state": "non-critical",
        "temperature_celsius": 23.0,
        "controller_temperature_celsius": 25.0,
        "spares_percentage": 75,
        "alarm_temperature": true,
        "alarm_controller_temperature": false,
        "alarm_spares": true,
        "alarm_enabled_media_temperature": true,
        "temperature_threshold": 40.0,
        "alarm_enabled_ctrl_temperature": false,
        "alarm_enabled_spares": true,
        "spares_threshold": 5,
        "life_used_percentage": 5,
        "shutdown_state": "clean",
        "shutdown_count": 42,
    })
}

/// `before` with some fields changed.
fn with(before: &Value, changes: &[(&str, Value)]) -> Value {
    let mut after = before.clone();
    for (key, value) in changes {
        after[*key] = value.clone();
    }
    after
}

/// Waits until the monitor's log, which was emptied before, names the DIMM.
fn logged(guest: &mut Guest) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = guest.check("cat /monitor.log")?;
        if let Some(line) = text.lines().find(|l| l.contains("\"nmem0\"")) {
            let start = line.find('{').context("a line without JSON")?;
            return Ok(serde_json::from_str(&line[start..])?);
        }
        ensure!(Instant::now() < deadline, "ndctl monitor saw no event: {text:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn every_injection_shows_and_goes(guest: &mut Guest) -> Result<()> {
    // ndctl's monitor arms all alarms.
    let rest = with(
        &at_rest(),
        &[
            ("alarm_enabled_ctrl_temperature", json!(true)),
            ("controller_temperature_threshold", json!(30.0)),
        ],
    );
    ensure!(health(guest, "nmem0")? == rest, "{}", health(guest, "nmem0")?);
    // Option, its value, and what it changes.
    for (option, value, changes) in [
        ("media-temperature", "=52", &[("temperature_celsius", json!(52.0))][..]),
        ("spares", "=4", &[("spares_percentage", json!(4))]),
        ("fatal", "", &[("health_state", json!("fatal"))]),
        (
            "unsafe-shutdown",
            "",
            &[("shutdown_state", json!("dirty")), ("shutdown_count", json!(43))],
        ),
    ] {
        guest.check("truncate -s 0 /monitor.log")?;
        guest.check(&format!("ndctl inject-smart --{option}{value} nmem0"))?;
        let injected = health(guest, "nmem0")?;
        ensure!(injected == with(&rest, changes), "{option}: {injected}");
        let event = logged(guest)?;
        let seen = &event["dimm"]["health"];
        ensure!(changes.iter().all(|(key, value)| &seen[*key] == value), "{event}");
        guest.check(&format!("ndctl inject-smart --{option}-uninject nmem0"))?;
        let after = with(&health(guest, "nmem0")?, &[("shutdown_count", json!(42))]);
        ensure!(after == rest, "{option}: {after}");
    }
    guest.check("ndctl inject-smart -m 60 -s 1 -f nmem0 && ndctl inject-smart --uninject-all nmem0")?;
    let after = with(&health(guest, "nmem0")?, &[("shutdown_count", json!(42))]);
    ensure!(after == rest, "{after}");
    Ok(())
}

fn thresholds_are_watched(guest: &mut Guest) -> Result<()> {
    guest.check(
        "ndctl inject-smart --media-temperature-threshold=50 --spares-threshold=10 --ctrl-temperature-threshold=60 \
         --ctrl-temperature-alarm=on nmem0",
    )?;
    let set = health(guest, "nmem0")?;
    for (key, value) in [
        ("temperature_threshold", json!(50.0)),
        ("spares_threshold", json!(10)),
        ("alarm_enabled_ctrl_temperature", json!(true)),
        ("controller_temperature_threshold", json!(60.0)),
    ] {
        ensure!(set[key] == value, "{key}: {set}");
    }
    // Below the new limit: nothing to tell.
    guest.check("truncate -s 0 /monitor.log && ndctl inject-smart --spares=11 nmem0 && sleep 2")?;
    ensure!(guest.check("cat /monitor.log")?.is_empty(), "an event without an alarm");
    guest.check("ndctl inject-smart --ctrl-temperature-threshold=20 nmem0")?;
    let event = logged(guest)?;
    ensure!(
        event["dimm"]["health"]["alarm_controller_temperature"] == true,
        "{event}"
    );
    Ok(())
}

fn health_story(kernel: &str) -> Result<()> {
    let mut guest = GuestBuilder::new(kernel)
        .nvdimm(&format!("size={WHOLE}"))
        .nvdimm(&format!("size={WHOLE}"))
        .start()?;
    let about = guest.check(&format!("cd {NMEM}/nfit && cat family dsm_mask dirty_shutdown flags"))?;
    let about: Vec<_> = about.lines().collect();
    ensure!(about.first() == Some(&"0"), "{about:?}");
    let mask = about.get(1).and_then(|m| m.strip_prefix("0x")).context("a mask")?;
    let mask = u32::from_str_radix(mask, 16)?;
    ensure!(mask & 0x6007_f47e == 0x6007_f47e, "{mask:#x}");
    ensure!(about[2..] == ["42", ""] || about[2..] == ["42"], "{about:?}");
    let rest = health(&mut guest, "nmem0")?;
    ensure!(rest == at_rest(), "{rest}");
    // Its own start is an event: the alarms that are shown at rest.
    guest.check("ndctl monitor -l /monitor.log -d nmem0 -D all > /dev/null 2>&1 & sleep 3")?;
    every_injection_shows_and_goes(&mut guest)?;
    thresholds_are_watched(&mut guest)?;
    ensure!(health(&mut guest, "nmem1")? == at_rest(), "the other DIMM has changed");
    guest.power_off()?;
    Ok(())
}

#[test]
fn health_injection_thresholds_and_events_on_the_cloud_kernel() -> Result<()> {
    health_story(QUICK)
}

#[test]
fn health_injection_thresholds_and_events_on_linux_6_12() -> Result<()> {
    health_story("debian-6.12-amd64")
}

/// A guest that asks for unsafe shutdowns to be counted, and whose monitor is killed.
fn die_latched(state: &str) {
    let call = nvdimm::call(1, INTEL_DIMM_DSM, 1, 10, &[1]);
    let script = Script::new().nvdimm_call(SCRATCH, call.len(), 4).say("latched").spin();
    let program = Program::new(script).data(SCRATCH, call);
    let guest = payload::Guest::new(&program).flag("nvdimm", &format!("size={WHOLE},state={state}"));
    let mut running = guest.start();
    running.wait_for("latched");
    drop(running);
}

#[test]
fn unsafe_shutdowns_are_counted_and_linux_knows() -> Result<()> {
    let files = Scratch::new("shutdown")?;
    let state = files.text("dimm.json");
    guest_tests::host::require()?;
    die_latched(&state);
    let config = GuestBuilder::new(QUICK).nvdimm(&format!("size={WHOLE},state={state}"));
    let mut guest = config.start()?;
    let seen = guest.check(&format!("cat {NMEM}/nfit/dirty_shutdown {NMEM}/nfit/flags"))?;
    ensure!(seen == "43\nflush_fail", "{seen}");
    let dirty = health(&mut guest, "nmem0")?;
    let expected = with(
        &at_rest(),
        &[("shutdown_state", json!("dirty")), ("shutdown_count", json!(43))],
    );
    ensure!(dirty == expected, "{dirty}");
    guest.check("ndctl inject-smart --spares-threshold=33 nmem0")?;
    guest.reboot()?;
    let mut guest = config.start()?;
    let seen = guest.check(&format!("cat {NMEM}/nfit/dirty_shutdown {NMEM}/nfit/flags"))?;
    ensure!(seen == "43", "{seen}");
    let clean = health(&mut guest, "nmem0")?;
    ensure!(
        clean["shutdown_state"] == "clean" && clean["shutdown_count"] == 43 && clean["spares_threshold"] == 33,
        "{clean}"
    );
    guest.power_off()?;
    Ok(())
}

/// Number of DIMMs of a list whose activation is in `state`.
fn count(dimms: &Value, state: &str) -> usize {
    let all = dimms.as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter(|d| d["firmware"]["activate_state"] == state).count()
}

/// State of the bus. ndctl shows it only for a bus that can scrub.
fn bus_state(guest: &mut Guest) -> Result<String> {
    guest.check("cat /sys/bus/nd/devices/ndbus0/firmware/activate")
}

#[test]
fn firmware_is_updated_armed_and_activated() -> Result<()> {
    let files = Scratch::new("firmware")?;
    let config = (0..4).fold(GuestBuilder::new("debian-6.12-amd64"), |config, n| {
        config.nvdimm(&format!("size={WHOLE},state={}", files.text(&format!("dimm{n}.json"))))
    });
    let mut guest = config.start()?;
    // ndctl refuses an update while a scrub runs; a bus without scrubs has nothing to wait for.
    guest.sh("ndctl wait-scrub")?;
    let capability = guest.check("cat /sys/bus/nd/devices/ndbus0/firmware/capability")?;
    ensure!(capability == "quiesce", "{capability}");
    let refused = |guest: &mut Guest, script: &str, said: &str| -> Result<()> {
        let text = guest.fails(script)?;
        ensure!(text.contains(said), "{script}: {text}");
        Ok(())
    };
    // An image with a wrong length is known to be bad after its verification.
    guest.check("printf 'daxvisor-firmware 0x102 999\\n' > /bad && truncate -s 4096 /bad")?;
    refused(
        &mut guest,
        "ndctl update-firmware -f /bad nmem0",
        "verification failure",
    )?;
    guest.check("truncate -s 2M /long")?;
    refused(
        &mut guest,
        "ndctl update-firmware -f /long nmem0",
        "greater than DIMM store",
    )?;
    // A file that ends early makes ndctl give the update up; the next one may begin.
    guest.sh("ndctl update-firmware -f /sys/kernel/uevent_seqnum nmem0")?;
    let firmware = |guest: &mut Guest, dimm: &str| -> Result<Value> {
        let dimms = guest.json(&format!("ndctl list -DF -d {dimm}"))?;
        Ok(facts::find(&dimms, "dev", dimm)?["firmware"].clone())
    };
    let before = firmware(&mut guest, "nmem0")?;
    ensure!(before == json!({"current_version": 0, "can_update": true}), "{before}");

    guest.check(
        "printf 'daxvisor-firmware 0x102 4096\\n' > /good && truncate -s 4096 /good && truncate -s 196608 /plain",
    )?;
    guest.check("ndctl update-firmware -f /good nmem3")?;
    refused(
        &mut guest,
        "ndctl update-firmware -f /plain nmem3",
        "busy with another firmware update",
    )?;
    let updated = guest.json("ndctl update-firmware -f /plain nmem0 nmem1 nmem2")?;
    ensure!(count(&updated, "armed") == 2, "{updated}");
    let all = guest.json("ndctl list -DF")?;
    ensure!((count(&all, "armed"), count(&all, "idle")) == (3, 1), "{all}");
    ensure!(firmware(&mut guest, "nmem3")?["next_version"] == 0x102);
    ensure!(bus_state(&mut guest)? == "armed");
    let forced = guest.json("ndctl update-firmware -A --force nmem2")?;
    ensure!(count(&forced, "armed") == 1, "{forced}");
    ensure!(bus_state(&mut guest)? == "overflow");
    let disarmed = guest.json("ndctl update-firmware -D all")?;
    ensure!(count(&disarmed, "idle") == 4, "{disarmed}");
    ensure!(bus_state(&mut guest)? == "idle");

    guest.json("ndctl update-firmware -A nmem0")?;
    let activated = guest.json("ndctl activate-firmware -v ACPI.NFIT")?;
    let dimms = &activated[0]["dimms"];
    ensure!(count(dimms, "busy") + count(dimms, "idle") == 4, "{activated}");
    guest.check("sleep 4")?;
    let done = firmware(&mut guest, "nmem0")?;
    ensure!(
        done["current_version"] == 0xffff_ffff_abcd_u64 && done["activate_state"] == "idle",
        "{done}"
    );
    let result = guest.check("cd /sys/bus/nd/devices && cat nmem0/firmware/result nmem1/firmware/result")?;
    ensure!(result == "success\nnone", "{result}");
    guest.power_off()?;

    // What was staged and not activated runs after the power cycle.
    let mut guest = config.start()?;
    for (dimm, version) in [("nmem0", 0xffff_ffff_abcd_u64), ("nmem3", 0x102)] {
        let now = firmware(&mut guest, dimm)?;
        ensure!(
            now == json!({"current_version": version, "can_update": true}),
            "{dimm}: {now}"
        );
    }
    guest.power_off()?;
    Ok(())
}

#[test]
fn every_family_is_recognised_with_its_health_and_labels() -> Result<()> {
    let files = Scratch::new("families")?;
    let families = ["intel", "hpe1", "msft", "hyperv"];
    let config = |hyperv: &str| {
        families.iter().fold(GuestBuilder::new(QUICK), |config, name| {
            let family = if *name == "hyperv" { hyperv } else { name };
            config.nvdimm(&format!("{},size={WHOLE},family={family}", files.text(name)))
        })
    };
    // ndctl takes bytes of the labels for the status of a Hyper-V call, and gives up; the kernel does not.
    let mut guest = config("intel").start()?;
    for n in 0..4 {
        guest.check(&format!("ndctl disable-region region{n} && ndctl init-labels nmem{n}"))?;
    }
    guest.power_off()?;
    let mut guest = config("hyperv").start()?;
    // Numbers of the families in Linux (include/uapi/linux/ndctl.h).
    let numbers = guest.check(
        "cd /sys/bus/nd/devices && cat nmem0/nfit/family nmem1/nfit/family nmem2/nfit/family nmem3/nfit/family",
    )?;
    ensure!(numbers == "0\n1\n3\n4", "{numbers}");
    let hpe1 = health(&mut guest, "nmem1")?;
    let rest = at_rest();
    for key in [
        "health_state",
        "temperature_celsius",
        "spares_percentage",
        "spares_threshold",
        "shutdown_state",
    ] {
        ensure!(hpe1[key] == rest[key], "{key}: {hpe1}");
    }
    let msft = health(&mut guest, "nmem2")?;
    ensure!(
        msft["health_state"] == "non-critical"
            && msft["temperature_celsius"] == 23.0
            && msft["life_used_percentage"] == 5,
        "{msft}"
    );
    let hyperv = health(&mut guest, "nmem3")?;
    ensure!(
        hyperv["health_state"] == "non-critical" && hyperv["shutdown_count"] == 42,
        "{hyperv}"
    );
    for (n, family) in families.iter().enumerate() {
        guest
            .check(&format!(
                "ndctl create-namespace -r region{n} -m raw && echo {n} | dd of=/dev/pmem{n} bs=64 conv=sync,fsync"
            ))
            .with_context(|| (*family).to_owned())?;
    }
    let made = guest.json("ndctl list -N")?;
    guest.power_off()?;
    let mut guest = config("hyperv").start()?;
    let found = guest.json("ndctl list -N")?;
    for (n, family) in families.iter().enumerate() {
        let uuid = |list: &Value| -> Result<String> {
            let namespace = facts::find(list, "blockdev", &format!("pmem{n}"))?;
            Ok(facts::text(namespace, "uuid")?.to_owned())
        };
        ensure!(uuid(&found)? == uuid(&made)?, "{family}: {found}");
        ensure!(
            guest.check(&format!("head -c 1 /dev/pmem{n}"))? == n.to_string(),
            "{family}"
        );
        if *family != "hyperv" {
            guest.check(&format!("ndctl disable-region region{n} && ndctl check-labels nmem{n}"))?;
        }
    }
    guest.power_off()?;
    Ok(())
}
