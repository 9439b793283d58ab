//! The API on a running Linux: the power button, and pauses that the guest takes for what they are.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{
    Guest, GuestBuilder, QUICK, Scratch,
    api::{ApiClient, ctl},
    contract, facts,
    guest::program,
};
use serde_json::{Value, json};
use std::{path::Path, thread, time::Duration};

#[test]
fn power_button_turns_the_guest_off() -> Result<()> {
    for kernel in [QUICK, "debian-6.12-amd64"] {
        let files = Scratch::new("button")?;
        let socket = files.join("api");
        let mut guest = GuestBuilder::new(kernel)
            .arg("--api-socket", &files.text("api"))
            .nvdimm("size=64M,id=first")
            .loud()
            .start()?;
        let inputs = guest.check("cat /proc/bus/input/devices")?;
        ensure!(inputs.contains("Power Button"), "{kernel}: {inputs}");
        let mut client = ApiClient::connect(&socket)?;
        // The driver has read the FIT from the table; only a change makes it ask again.
        let list = client.get("/nvdimms")?;
        ensure!(list["dimms"][0]["id"] == "first", "{list}");
        let pressed = ctl(&program()?, &socket, &["power-button"])?;
        ensure!(pressed.status.code() == Some(0), "{pressed:?}");
        let ended = guest
            .wait()
            .with_context(|| format!("{kernel} does not heed its button"))?;
        ensure!(ended.code == 0, "{kernel}: exit code {}: {}", ended.code, ended.stderr);
        ensure!(
            ended.console.contains("Power down"),
            "{kernel} did not shut down by itself"
        );
        ensure!(client.get("/vm").is_err(), "the connection outlives the machine");
        ensure!(!socket.exists(), "the API socket is left");
    }
    Ok(())
}

#[test]
fn pause_is_no_lockup() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(6);
    let files = Scratch::new("pause")?;
    let mut guest = GuestBuilder::new(QUICK)
        .arg("--api-socket", &files.text("api"))
        .cpus("2")
        .start()?;
    // Twice this without progress is a soft lockup to the guest.
    guest.check("echo 2 > /proc/sys/kernel/watchdog_thresh && test $(cat /proc/sys/kernel/soft_watchdog) = 1")?;
    // CPU time would not do: the guest's clock goes on in a pause, and the kernel charges it to whoever ran.
    guest.check(
        "dmesg -c > /dev/null; echo 0 > /run/count; (i=0; while :; do i=$((i+1)); echo $i > /run/next; mv /run/next /run/count; \
         done) > /dev/null 2>&1 &",
    )?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    let count = |guest: &mut Guest| -> Result<u64> { Ok(guest.check("cat /run/count")?.parse()?) };
    for _ in 0..2 {
        let before = count(&mut guest)?;
        ensure!(client.post("/vm/pause")?["state"] == "paused");
        thread::sleep(PAUSE);
        ensure!(client.post("/vm/resume")?["state"] == "running");
        let after = count(&mut guest)?;
        // Long enough for the watchdog to complain, and less than the pause.
        thread::sleep(Duration::from_secs(5));
        let later = count(&mut guest)?;
        ensure!(
            after - before < later - after,
            "{} rounds in a pause of {PAUSE:?}, and {} in 5 s",
            after - before,
            later - after
        );
        let log = guest.check("dmesg")?;
        for complaint in ["soft lockup", "rcu: INFO", "hung"] {
            ensure!(!log.contains(complaint), "the guest complains after a pause: {log}");
        }
    }
    let machine = client.get("/vm")?;
    let paused = machine["paused_ms"].as_u64().context("a time")?;
    ensure!((12_000..30_000).contains(&paused), "{paused} ms");
    guest.power_off()?;
    Ok(())
}

/// What `ctl` prints.
fn shown(socket: &Path, args: &[&str]) -> Result<String> {
    let output = ctl(&program()?, socket, args)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{args:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_route_is_exercised_on_a_running_guest() -> Result<()> {
    let files = Scratch::new("routes")?;
    let socket = files.join("api");
    std::fs::File::create(files.join("disk"))?.set_len(1 << 20)?;
    let mut guest = GuestBuilder::new(QUICK)
        .memory("512M")
        .arg("--numa", "node=0,memory=512M,cpus=0")
        .arg("--numa", "node=1,hotplug=1G")
        .arg("--memory-slots", "2")
        .arg("--virtio-mem", "size=256M,node=0,id=grow")
        .arg("--disk", &format!("{},id=data", files.text("disk")))
        .nvdimm("size=65664K,node=1,id=first")
        .arg("--api-socket", &files.text("api"))
        .loud()
        .start()?;
    guest.check("modprobe -a nfit nd_pmem")?;
    let show = |args: &[&str], words: &[&str]| -> Result<()> {
        let text = shown(&socket, args)?;
        for word in words {
            ensure!(text.contains(word), "{args:?} does not say '{word}': {text}");
        }
        let json = shown(&socket, &[&["--json"], args].concat())?;
        let _: Value = serde_json::from_str(&json).with_context(|| format!("{args:?}"))?;
        Ok(())
    };
    // What people read, verb by verb, against what the guest itself says.
    show(
        &["describe"],
        &["machine: running", "guest physical map", "first: slot 0"],
    )?;
    show(&["state"], &["the machine is running"])?;
    show(&["map"], &["RAM", "NVDIMM", "first"])?;
    show(&["nodes"], &["node 1: vCPUs none"])?;
    show(
        &["devices"],
        &[
            "16550",
            "generic event device",
            "virtio entropy source",
            "NVDIMM root device",
        ],
    )?;
    show(&["metrics"], &["exits:", "resident"])?;
    show(&["console", "--bytes", "4096"], &[])?;
    show(&["table", "list"], &["NFIT", "SRAT", "DSDT"])?;
    show(&["table", "show", "NFIT"], &["NFIT at", "0000: 4e 46 49 54"])?;
    show(&["nvdimm", "list"], &["first: slot 0"])?;
    show(&["nvdimm", "show", "first"], &["first: slot 0", "node 1"])?;
    show(
        &["nvdimm", "health", "first"],
        &["first: non-critical", "unsafe shutdowns"],
    )?;
    show(&["limits", "get"], &["static-max"])?;
    show(&["limits", "set", "dynamic-min=512M"], &["dynamic-min: 512M"])?;
    ensure!(shown(&socket, &["pause"])? == "the machine is paused\n");
    ensure!(shown(&socket, &["state"])? == "the machine is paused\n");
    ensure!(shown(&socket, &["resume"])? == "the machine is running\n");
    show(&["operation", "list"], &["no operations"])?;
    show(&["events"], &["request: pause"])?;

    let mut client = ApiClient::connect(&socket)?;
    client.get("/vm/state")?;
    // The client that the document is held against, route by route.
    let table = client.get("/acpi/tables/SRAT")?;
    let real = guest.check("od -An -v -tx1 /sys/firmware/acpi/tables/SRAT | tr -d ' \n'")?;
    ensure!(
        table["bytes"] == real.as_str(),
        "the guest's SRAT is {real}, and the API's {table}"
    );
    let map = client.get("/memory/map")?;
    let iomem = guest.check("cat /proc/iomem")?;
    for line in map["iomem"].as_array().context("a list")? {
        let range = format!(
            "{:08x}-{:08x}",
            facts::number(line, "start")?,
            facts::number(line, "last")?
        );
        ensure!(iomem.contains(&range), "no {range} in the guest: {iomem}");
    }
    let nodes = client.get("/numa/nodes")?;
    ensure!(nodes["nodes"].as_array().map(Vec::len) == Some(2), "{nodes}");
    let health = client.get("/nvdimms/first/health")?;
    let listed = guest.json("ndctl list -DH")?;
    let spares = facts::find(&listed, "dev", "nmem0")?["health"]["spares_percentage"].clone();
    ensure!(spares == health["spares"], "{listed} against {health}");
    let console = client.get("/vm/console?bytes=65536")?;
    ensure!(
        console["text"].as_str().is_some_and(|t| t.contains("Linux version")),
        "{console}"
    );
    guest.check("echo the-last-line > /dev/ttyS0; sleep 0.3")?;
    let tail = client.get("/vm/console?bytes=100")?;
    ensure!(
        tail["text"].as_str().is_some_and(|t| t.contains("the-last-line")),
        "{tail}"
    );
    for path in [
        "/vm",
        "/vm/metrics",
        "/devices",
        "/acpi/tables",
        "/nvdimms",
        "/nvdimms/first",
        "/limits",
        "/operations",
        "/vm/events",
        "/openapi.json",
    ] {
        client.get(path)?;
    }
    client.done("PUT", "/limits", Some(&json!({"target": "512M"})))?;
    memory_comes_and_goes(&mut guest, &mut client)?;
    show(
        &["memory", "list"],
        &[
            "memory devices: 2 slots",
            "grow: virtio-mem, node 0, 128M plugged of 128M asked for, at most 256M",
        ],
    )?;
    disks_and_media_are_disturbed(&mut guest, &mut client)?;
    ensure!(client.refused("POST", "/nvdimms/first/lock", None)?.0 == 409);
    // An operation, followed by the events of another client.
    let since = facts::number(&client.get("/vm/metrics")?, "events")?;
    let answer = client.send(
        "POST",
        "/nvdimms",
        Some(&json!({"size": "65664K", "node": 1, "id": "second"})),
    )?;
    ensure!(answer.status == 202, "{answer:?}");
    let begun = answer.json()?;
    let path = format!("/operations/{}", facts::number(&begun, "id")?);
    ensure!(answer.location == Some(format!("/api/v1{path}")), "{answer:?}");
    let ended = client.get(&format!("{path}?wait=30"))?;
    ensure!(
        ended["state"] == "done" && ended["steps"][0]["action"] == "fit-seen",
        "{ended}"
    );
    guest.check("for n in $(seq 100); do test -e /sys/bus/nd/devices/nmem1 && exit 0; sleep 0.1; done; exit 1")?;
    let mut states = vec![];
    client.stream(&format!("/events?since={since}"), |event| {
        if event["event"] == "operation" {
            states.push(event["operation"]["state"].clone());
        }
        states.last().is_none_or(|state| state != "done")
    })?;
    ensure!(states.first() == Some(&json!("running")), "{states:?}");
    let mut client = ApiClient::connect(&socket)?;
    let again = client.refused("POST", "/nvdimms", Some(&json!({"size": "65664K", "id": "second"})))?;
    ensure!(again == (409, "conflict".to_owned()), "{again:?}");
    client.post("/vm/pause")?;
    ensure!(client.refused("POST", "/vm/power-button", None)?.0 == 409);
    ensure!(client.refused("POST", "/vm/ask/power-off", None)?.0 == 409);
    client.post("/vm/resume")?;
    let rebooting = client.refused("POST", "/vm/ask/reboot", None)?;
    ensure!(rebooting == (409, "conflict".to_owned()), "{rebooting:?}");
    // It has no store: this is its button.
    client.post("/vm/ask/power-off")?;
    let ended = guest.wait()?;
    ensure!(ended.code == 0, "exit code {}: {}", ended.code, ended.stderr);
    let seen = contract::seen();
    // The stream has no end that could be checked; the others end machines, those of other tests (linux/reboot.rs).
    let left_out = ["GET /events", "POST /vm/shutdown", "POST /vm/reboot"];
    let missing: Vec<_> = contract::operations()
        .into_iter()
        .filter(|o| !left_out.contains(&o.as_str()) && !seen.iter().any(|s| s.starts_with(&format!("{o} "))))
        .collect();
    ensure!(missing.is_empty(), "never asked for: {missing:?}");
    Ok(())
}

/// Memory devices and memory that grows: what the API says of them and what the guest has.
fn memory_comes_and_goes(guest: &mut Guest, client: &mut ApiClient) -> Result<()> {
    let done = |client: &mut ApiClient, operation: Value| -> Result<Value> {
        let ended = client.ended(&operation)?;
        ensure!(ended["state"] == "done", "{ended}");
        Ok(ended)
    };
    let body = json!({"size": "128M", "node": 1, "id": "more"});
    let adding = client.begin("POST", "/memory/devices", Some(&body))?;
    let added = done(client, adding)?;
    ensure!(added["steps"][0]["action"] == "ost", "{added}");
    let start = facts::number(&added["result"], "start")?;
    let iomem = guest.check("cat /proc/iomem")?;
    ensure!(
        iomem.contains(&format!("{start:x}-")),
        "no device at {start:#x}: {iomem}"
    );
    let list = client.get("/memory/devices")?;
    ensure!(list["devices"][0] == added["result"], "{list} against {added}");
    // One kind is resized, and the other is taken away.
    let size = json!({"size": "128M"});
    let refused = client.refused("PUT", "/memory/devices/more/target", Some(&size))?;
    ensure!(refused == (409, "conflict".to_owned()), "{refused:?}");
    let refused = client.refused("DELETE", "/memory/devices/grow", None)?;
    ensure!(refused == (409, "conflict".to_owned()), "{refused:?}");
    let removing = client.begin("DELETE", "/memory/devices/more", None)?;
    let removed = done(client, removing)?;
    ensure!(removed["result"]["len"] == 128 << 20, "{removed}");
    expect_grow_alone(client, json!([0, 0, false]))?;
    // nested/devdax.rs has a node of its host to give away; this one has files alone.
    let range = json!({"file": "/proc/cpuinfo", "as": "memory", "size": "128M", "node": 1});
    let refused = client.refused("POST", "/dax-ranges", Some(&range))?;
    ensure!(refused == (422, "invalid-request".to_owned()), "{refused:?}");
    guest.check("modprobe virtio_mem")?;
    let growing = client.begin("PUT", "/memory/devices/grow/target", Some(&size))?;
    let grown = done(client, growing)?;
    ensure!(grown["result"]["device"]["plugged"] == 128 << 20, "{grown}");
    expect_grow_alone(client, json!([128 << 20, 128 << 20, true]))
}

/// The only memory device is the virtio-mem one, with so much asked for and plugged, with a driver or without.
fn expect_grow_alone(client: &mut ApiClient, state: Value) -> Result<()> {
    let list = client.get("/memory/devices")?;
    let [grow] = facts::list(&list, "devices")?.as_slice() else {
        bail!("not one device: {list}")
    };
    let (plugging, is) = (&grow["plugging"], ["id", "kind", "node", "len"].map(|key| &grow[key]));
    ensure!(
        json!(is) == json!(["grow", "virtio-mem", 0, 256 << 20]) && plugging["block"] == 2 << 20,
        "{grow}"
    );
    let now = json!([plugging["requested"], plugging["plugged"], plugging["driver"]]);
    ensure!(now == state, "{grow}, expected {state}");
    Ok(())
}

/// Faults and limits of a disk, bad bytes of an NVDIMM.
fn disks_and_media_are_disturbed(guest: &mut Guest, client: &mut ApiClient) -> Result<()> {
    let path = "/disks/data/faults";
    let broken = json!({"op": "read", "sectors": "8-15", "error": true});
    let disk = client.done("POST", path, Some(&broken))?;
    let number = facts::number(&disk["faults"][0], "number")?;
    let read = "dd if=/dev/vda of=/dev/null bs=4k skip=1 count=1 iflag=direct";
    guest.check("modprobe virtio_blk; for n in $(seq 50); do test -b /dev/vda && exit 0; sleep 0.1; done; exit 1")?;
    guest.fails(read)?;
    let healed = client.done("DELETE", &format!("{path}/{number}"), None)?;
    ensure!(healed["faults"] == json!([]), "{healed}");
    guest.check(read)?;
    client.done("POST", path, Some(&broken))?;
    ensure!(client.done("DELETE", path, None)?["faults"] == json!([]));
    let limited = client.done("PUT", "/disks/data/throttle", Some(&json!({"iops": 1000})))?;
    ensure!(client.get("/disks")?["disks"][0]["throttle"] == limited["throttle"]);
    let range = json!({"id": "first", "start": 4096, "len": 64});
    client.done("POST", "/media-errors", Some(&range))?;
    let errors = client.get("/media-errors?id=first")?;
    ensure!(errors["errors"][0]["dpa"] == 4096, "{errors}");
    let faults = client.get("/faults")?;
    ensure!(
        faults["faults"][0]["dpa"] == 4096 && faults["faults"][0]["consumable"] == true,
        "{faults}"
    );
    guest.check("ndctl start-scrub ACPI.NFIT >/dev/null && ndctl wait-scrub ACPI.NFIT >/dev/null")?;
    let listed = guest.json("ndctl list -RM")?;
    ensure!(listed.to_string().contains("badblocks"), "{listed}");
    client.done("POST", "/media-errors/clear", Some(&range))?;
    ensure!(client.get("/media-errors")?["errors"] == json!([]));
    let line = json!({"nvdimm": "first", "dpa": 8192});
    let injected = client.done("POST", "/faults", Some(&line))?;
    ensure!(injected["places"][0]["load"] == "machine-check", "{injected}");
    client.done("POST", "/faults/clear", Some(&line))?;
    client.done("POST", "/faults", Some(&line))?;
    client.done("DELETE", "/faults/first%400x2000", None)?;
    ensure!(client.get("/faults")?["faults"] == json!([]));
    let later = json!({"node": 0, "per-gib": 8, "after-ms": 3_600_000, "rate": 2});
    let storm = facts::number(&client.done("POST", "/faults", Some(&later))?, "storm")?;
    let storms = client.get("/faults")?["storms"].clone();
    ensure!(storms[0]["id"] == storm && storms[0]["done"] == 0, "{storms}");
    client.done("DELETE", &format!("/faults/storms/{storm}"), None)?;
    ensure!(client.get("/faults")?["storms"] == json!([]));
    let corrected = json!({"nvdimm": "first", "dpa": 8192, "severity": "corrected", "via": "machine-check"});
    let told = client.done("POST", "/faults/notify", Some(&corrected))?;
    ensure!(told["vcpu"] == 0 && told["gpa"].is_u64(), "{told}");
    Ok(())
}
