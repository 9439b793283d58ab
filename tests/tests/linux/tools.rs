//! ndctl's verbs, each on a DIMM of its own and on the DIMMs of an interleave set: exit codes and JSON.
//!
//! Errors and scrubs have their own page of both (linux/ars.rs), firmware activation and thresholds too (linux/health.rs).

use anyhow::{Context, Result, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, facts};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};

const KERNEL: &str = "debian-6.1-amd64";
const LABEL: u64 = 128 << 10;
/// A DIMM whose part of the region is whole.
const SIZE: u64 = (32 << 20) + LABEL;

/// A region and the DIMMs that it lies on.
struct Target {
    region: &'static str,
    dimms: &'static [&'static str],
}

/// The machine below; Linux counts both from 0.
const TARGETS: [Target; 2] = [
    Target {
        region: "region0",
        dimms: &["nmem0"],
    },
    Target {
        region: "region1",
        dimms: &["nmem1", "nmem2"],
    },
];

fn machine(files: &Scratch) -> GuestBuilder {
    let dimm =
        |config: GuestBuilder, id| config.nvdimm(&format!("{},size={SIZE},id={id},overwrite-time=1", files.text(id)));
    ["alone", "left", "right"]
        .into_iter()
        .fold(GuestBuilder::new(KERNEL), dimm)
        .arg("--interleave-set", "dimms=[left,right],size=64M")
}

impl Target {
    /// The DIMMs, as words of a command.
    fn words(&self) -> String {
        self.dimms.join(" ")
    }

    fn off(&self, guest: &mut Guest) -> Result<()> {
        guest.check(&format!("ndctl disable-region {}", self.region)).map(drop)
    }

    fn on(&self, guest: &mut Guest) -> Result<()> {
        guest.check(&format!("ndctl enable-region {}", self.region)).map(drop)
    }

    /// A verb on all DIMMs at once, which says how many it did it to.
    fn all(&self, guest: &mut Guest, verb: &str, done: &str) -> Result<()> {
        let said = guest.check(&format!("ndctl {verb} {} 2>&1", self.words()))?;
        let expected = format!("{done} {} nmem", self.dimms.len());
        ensure!(said.contains(&expected), "{verb}: '{said}' without '{expected}'");
        Ok(())
    }

    /// What `ndctl list` says of each DIMM with `flags`.
    fn list(&self, guest: &mut Guest, flags: &str) -> Result<Vec<Value>> {
        let all = guest.json(&format!("ndctl list -D -i {flags}"))?;
        self.dimms
            .iter()
            .map(|dimm| facts::find(&all, "dev", dimm).cloned())
            .collect()
    }

    /// One key of each of them.
    fn each(&self, guest: &mut Guest, key: &str, expected: &Value) -> Result<()> {
        for dimm in self.list(guest, "")? {
            ensure!(dimm[key] == *expected, "{key}: {dimm}");
        }
        Ok(())
    }
}

fn region_is_on_its_dimms(guest: &mut Guest, target: &Target) -> Result<()> {
    let listed = guest.json(&format!("ndctl list -R -D -v -r {}", target.region))?;
    let region = &listed["regions"][0];
    let mappings = region["mappings"].as_array().with_context(|| listed.to_string())?;
    let mut dimms: Vec<_> = mappings.iter().filter_map(|m| m["dimm"].as_str()).collect();
    dimms.sort_unstable();
    ensure!(dimms == target.dimms, "{listed}");
    ensure!(mappings.iter().all(|m| m["length"] == SIZE - LABEL), "{listed}");
    Ok(())
}

/// Labels of a version are made, read, zeroed, written back and checked, and carry a namespace.
fn labels(guest: &mut Guest, target: &Target, version: &str) -> Result<()> {
    let Target { region, dimms } = *target;
    target.off(guest)?;
    target.all(guest, &format!("init-labels -f -V {version}"), "initialized")?;
    target.on(guest)?;
    let made = guest.json(&format!("ndctl create-namespace -r {region} -m fsdax"))?;
    target.off(guest)?;
    let read = guest.json(&format!("ndctl read-labels -j {}", target.words()))?;
    let areas = read.as_array().context("no areas")?;
    ensure!(areas.len() == dimms.len(), "{read}");
    for area in areas {
        let minor: u64 = version.trim_start_matches("1.").parse()?;
        let index = area["index"][0].clone();
        ensure!(index["major"] == 1 && index["minor"] == minor, "{version}: {area}");
        let label = &area["label"][0];
        ensure!(label["uuid"].is_string() && label["nlabel"] == dimms.len(), "{area}");
    }
    target.all(guest, "check-labels", "verified")?;
    for dimm in dimms {
        guest.check(&format!("ndctl read-labels -o /{dimm} {dimm}"))?;
    }
    target.all(guest, "zero-labels", "zeroed")?;
    guest.fails(&format!("ndctl check-labels -v {}", target.words()))?;
    for dimm in dimms {
        let said = guest.check(&format!("ndctl write-labels -i /{dimm} {dimm} 2>&1"))?;
        ensure!(said.contains("wrote 1 nmem"), "{said}");
    }
    target.all(guest, "check-labels", "verified")?;
    target.on(guest)?;
    let found = guest.json(&format!("ndctl list -N -r {region}"))?;
    ensure!(
        found[0]["uuid"] == made["uuid"] && found[0]["mode"] == "fsdax",
        "labels {version}: {found} after {made}"
    );
    Ok(())
}

/// `inject-smart`, `list -H`, and an event of `monitor` for each DIMM.
fn health(guest: &mut Guest, target: &Target) -> Result<()> {
    let health = |guest: &mut Guest| -> Result<Vec<Value>> {
        let all = target.list(guest, "-H")?;
        Ok(all.into_iter().map(|dimm| dimm["health"].clone()).collect())
    };
    let before = health(guest)?;
    ensure!(before.iter().all(|h| h["health_state"] == "non-critical"), "{before:?}");
    guest.check(&format!(
        "rm -f /events; ndctl monitor -l /events -r {} -D all > /dev/null 2>&1 & echo $! > /monitor.pid; \
         for i in $(seq 100); do grep -q {} /events && break; sleep 0.1; done; truncate -s 0 /events",
        target.region,
        target.dimms[target.dimms.len() - 1]
    ))?;
    // The monitor arms all alarms.
    let armed = health(guest)?;
    // ndctl takes one DIMM at a time here.
    for dimm in target.dimms {
        guest.check(&format!("ndctl inject-smart --media-temperature=61 --spares=3 {dimm}"))?;
    }
    for injected in health(guest)? {
        ensure!(
            injected["temperature_celsius"] == 61.0 && injected["spares_percentage"] == 3,
            "{injected}"
        );
    }
    for dimm in target.dimms {
        guest
            .check(&format!(
                "for i in $(seq 100); do grep -q '\"dev\":\"{dimm}\"' /events && exit 0; sleep 0.1; done; cat /events; exit 1"
            ))
            .with_context(|| format!("no event of {dimm}"))?;
    }
    for dimm in target.dimms {
        guest.check(&format!("ndctl inject-smart --uninject-all {dimm}"))?;
    }
    ensure!(health(guest)? == armed, "{:?}", health(guest)?);
    guest.check("kill $(cat /monitor.pid)").map(drop)
}

/// `update-firmware` stages and arms an image on each DIMM.
fn firmware(guest: &mut Guest, target: &Target) -> Result<()> {
    guest.check(
        "printf 'daxvisor-firmware 0x205 4096\\n' > /firmware && truncate -s 4096 /firmware && ndctl wait-scrub",
    )?;
    let updated = guest.json(&format!("ndctl update-firmware -f /firmware {}", target.words()))?;
    ensure!(
        updated.as_array().map(Vec::len) == Some(target.dimms.len()),
        "{updated}"
    );
    for dimm in target.list(guest, "-F")? {
        ensure!(dimm["firmware"]["next_version"] == 0x205, "{dimm}");
    }
    Ok(())
}

/// Passphrases, both ways of sanitizing, and the freeze, which is for good.
fn security(guest: &mut Guest, target: &Target) -> Result<()> {
    target.off(guest)?;
    let mut steps = 0..;
    let mut state = |guest: &mut Guest, state: &str| {
        let step = steps.next().unwrap_or(0);
        let found = target.each(guest, "security", &json!(state));
        found.with_context(|| format!("step {step}, where {state} was expected"))
    };
    state(guest, "disabled")?;
    let setup = "setup-passphrase -k user:nvdimm-master";
    target.all(guest, setup, "passphrase enabled for")?;
    state(guest, "unlocked")?;
    target.all(guest, "update-passphrase", "passphrase updated for")?;
    target.all(guest, "remove-passphrase", "passphrase removed for")?;
    state(guest, "disabled")?;
    target.all(guest, setup, "passphrase enabled for")?;
    target.all(guest, "sanitize-dimm --crypto-erase", "sanitized")?;
    state(guest, "disabled")?;
    target.all(guest, setup, "passphrase enabled for")?;
    guest.check(&format!("ndctl sanitize-dimm --overwrite {} 2>&1", target.words()))?;
    guest.check(&format!("ndctl wait-overwrite {}", target.words()))?;
    // The passphrase stays.
    state(guest, "unlocked")?;
    target.all(guest, "freeze-security", "security froze")?;
    target.each(guest, "security_frozen", &json!(true))?;
    guest.fails(&format!("ndctl remove-passphrase {}", target.words()))?;
    Ok(())
}

/// What acpidump of ACPICA finds in the guest, by signature, each table once more for every further one of its name.
fn tables_in_guest(guest: &mut Guest) -> Result<BTreeMap<String, Vec<Vec<u8>>>> {
    let program = ["/usr/bin/acpidump", "/usr/sbin/acpidump"]
        .into_iter()
        .find_map(|path| fs::read(path).ok());
    let program = program.context("there is no acpidump; hint: apt-get install acpica-tools")?;
    guest.client().put_file("/acpidump", 0o755, &program)?;
    guest.check("mkdir -p /tables && cd /tables && /acpidump -b")?;
    let names = guest.check("ls /tables")?;
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    for name in names.lines() {
        let bytes = guest.file(&format!("/tables/{name}"))?;
        tables.entry(signature(&bytes)).or_default().push(bytes);
    }
    Ok(tables)
}

fn signature(table: &[u8]) -> String {
    String::from_utf8_lossy(table.get(..4).unwrap_or_default()).into_owned()
}

fn acpidump_is_acpi_dump(guest: &mut Guest, config: &GuestBuilder, files: &Scratch) -> Result<()> {
    let folder = files.join("dump");
    config.acpi_dump(&folder)?;
    let mut dumped = BTreeMap::<_, Vec<_>>::new();
    for entry in fs::read_dir(&folder)? {
        let bytes = fs::read(entry?.path())?;
        dumped.entry(signature(&bytes)).or_default().push(bytes);
    }
    let found = tables_in_guest(guest)?;
    let names = |tables: &BTreeMap<String, Vec<Vec<u8>>>| tables.keys().cloned().collect::<Vec<_>>().join(" ");
    for needed in ["DSDT", "FACP", "APIC", "SRAT", "NFIT", "SLIT"] {
        ensure!(
            found.contains_key(needed),
            "no {needed} in the guest: {}",
            names(&found)
        );
    }
    for (name, tables) in &found {
        ensure!(
            dumped.get(name) == Some(tables),
            "{name} differs; dumped: {}",
            names(&dumped)
        );
    }
    // The tables' list and root pointer are acpidump's own way to them.
    for name in dumped.keys().filter(|name| !["XSDT", "RSD "].contains(&name.as_str())) {
        ensure!(
            found.contains_key(name),
            "{name} is not in the guest: {}",
            names(&found)
        );
    }
    Ok(())
}

#[test]
fn every_verb_works_on_a_dimm_and_on_a_set_and_tables_are_as_dumped() -> Result<()> {
    let files = Scratch::new("tools")?;
    let config = machine(&files).arg("--numa", "node=0,cpus=0,memory=1G");
    let mut guest = config.start()?;
    acpidump_is_acpi_dump(&mut guest, &config, &files)?;
    guest.check(
        "mkdir -p /etc/ndctl/keys && dd if=/dev/urandom bs=1 count=32 2>/dev/null | keyctl padd user nvdimm-master @u > /dev/null && \
         keyctl pipe $(keyctl search @u user nvdimm-master) > /etc/ndctl/keys/nvdimm-master.blob",
    )?;
    for target in &TARGETS {
        let on = |what| move || format!("{what} of {}", target.region);
        region_is_on_its_dimms(&mut guest, target).with_context(on("mappings"))?;
        labels(&mut guest, target, "1.1").with_context(on("labels 1.1"))?;
        labels(&mut guest, target, "1.2").with_context(on("labels 1.2"))?;
        health(&mut guest, target).with_context(on("health"))?;
        firmware(&mut guest, target).with_context(on("firmware"))?;
        security(&mut guest, target).with_context(on("security"))?;
    }
    let log = guest.check("dmesg | grep -E 'WARNING:|BUG:|Call Trace' || true")?;
    ensure!(log.is_empty(), "{log}");
    guest.power_off()?;
    Ok(())
}
