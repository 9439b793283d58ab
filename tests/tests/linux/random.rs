//! Random changes of a running Linux guest by four clients at once, held against a model after each of them.
//!
//! Each client has a node, an NVDIMM and a virtio-mem device of its own, so that what its operations must lead to is known while
//! those of the others run. It looks at the machine after each operation; when all four have done one, the guest is looked at, which
//! may still be at its work where an operation did not wait for it to the end.
//! `DAXVISOR_SEED` repeats a run's operations; what meets what in time is not repeated.

use anyhow::{Context, Result, bail, ensure};
use guest_tests::{Guest, GuestBuilder, Scratch, api::ApiClient, facts};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const KERNEL: &str = "debian-6.12-amd64";
const BLOCK: u64 = 128 << 20;
const MIB: u64 = 1 << 20;
const CLIENTS: u64 = 4;
const ROUNDS: u64 = 50;
/// Bytes of each client's NVDIMM that errors are made in.
const MEDIA: u64 = 1 << 20;
const LINE: u64 = 64;
/// NVDIMMs of a machine, those at boot included.
const NVDIMMS: usize = 16;
const NVDIMM: u64 = 16 * MIB;
/// What the guest is at when an operation ends, it does in this time, also on a slow host.
const SETTLED: Duration = Duration::from_secs(60);
/// Stacks and heap of the monitor; less than the smallest memory device.
const MONITOR: u64 = 96 * MIB;

/// A small generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// What a client's part of the machine has to be.
#[derive(Debug, Default, Clone)]
struct Model {
    /// Bytes of each memory device.
    devices: BTreeMap<String, u64>,
    /// Those that the guest was asked for, and did not answer in time: it may give them back at any time.
    leaving: BTreeSet<String>,
    /// NVDIMMs that were added.
    nvdimms: BTreeSet<String>,
    /// Bad lines of its NVDIMM.
    bad: BTreeSet<u64>,
    /// Bytes that its virtio-mem device is asked for.
    target: u64,
    /// Operations of each kind that were done.
    done: BTreeMap<&'static str, u64>,
    refused: u64,
}

struct Worker {
    me: u64,
    client: ApiClient,
    random: Random,
    model: Model,
    names: u64,
}

/// What came of a request that a pause of another client may meet.
enum Met {
    Done(Value),
    Paused,
    /// The guest does not do it.
    Refused(Value),
    /// It has not done it in time.
    Late,
}

impl Worker {
    /// A request; 202 is followed to its end.
    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Met> {
        let answer = self.client.send(method, path, body)?;
        let mut content = answer.json()?;
        let problem = if answer.status == 202 {
            content = self.client.ended(&content)?;
            &content["error"]["type"]
        } else {
            &content["type"]
        };
        let problem = problem.as_str().and_then(|kind| kind.rsplit(':').next());
        match (problem, content["state"].as_str()) {
            (Some("wrong-state"), _) => Ok(Met::Paused),
            (Some("deadline"), _) => Ok(Met::Late),
            (Some("refused"), Some("failed")) => Ok(Met::Refused(content)),
            // The guest may need longer than the operation waits, and does it all the same.
            (None, Some("done" | "unanswered")) if answer.status == 202 => Ok(Met::Done(content)),
            (None, _) if answer.status == 200 => Ok(Met::Done(content)),
            _ => bail!("{method} {path} {body:?}: {content}"),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.model.done.entry(what).or_default() += 1;
    }

    /// One random operation, and a look at what it has led to.
    fn step(&mut self) -> Result<()> {
        match self.random.below(16) {
            0..=3 => self.add()?,
            4..=6 => self.remove()?,
            7..=8 => self.resize()?,
            9..=10 => self.pause()?,
            11..=13 => self.inject()?,
            14 => self.heal()?,
            _ => self.add_nvdimm()?,
        }
        self.agrees()
    }

    fn add(&mut self) -> Result<()> {
        let len = BLOCK * (1 + self.random.below(2));
        if self.model.devices.values().sum::<u64>() + len > 8 * BLOCK {
            return self.remove();
        }
        let id = format!("m{}-{}", self.me, self.names);
        self.names += 1;
        let body = json!({"id": id, "node": self.me, "size": len});
        match self.ask("POST", "/memory/devices", Some(&body))? {
            Met::Done(_) => {
                self.model.devices.insert(id, len);
                self.count("add");
            }
            Met::Paused | Met::Late => self.model.refused += 1,
            Met::Refused(why) => bail!("{id} was not added: {why}"),
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        let model = &self.model;
        let mine: Vec<_> = model.devices.keys().filter(|id| !model.leaving.contains(*id)).collect();
        let at = self.random.below(mine.len().max(1) as u64);
        let Some(&id) = mine.get(usize::try_from(at)?) else {
            return self.inject();
        };
        let id = id.clone();
        let path = format!("/memory/devices/{id}");
        match self.ask("DELETE", &path, None)? {
            Met::Done(_) => {
                self.model.devices.remove(&id);
                self.count("remove");
            }
            // A guest may keep memory that is in use.
            Met::Paused | Met::Refused(_) => self.model.refused += 1,
            Met::Late => {
                self.model.leaving.insert(id);
                self.model.refused += 1;
            }
        }
        Ok(())
    }

    fn resize(&mut self) -> Result<()> {
        let size = self.random.below(5) * 64 * MIB;
        let path = format!("/memory/devices/v{}/target", self.me);
        match self.ask("PUT", &path, Some(&json!({"size": size})))? {
            Met::Done(_) => {
                self.model.target = size;
                self.count("resize");
            }
            Met::Paused => self.model.refused += 1,
            Met::Refused(_) | Met::Late => bail!("{path} has failed"),
        }
        Ok(())
    }

    /// A pause that may meet another's, and its end.
    fn pause(&mut self) -> Result<()> {
        match self.ask("POST", "/vm/pause", None)? {
            Met::Done(_) => {
                thread::sleep(Duration::from_millis(self.random.below(30)));
                let Met::Done(state) = self.ask("POST", "/vm/resume", None)? else {
                    bail!("a machine that this client has paused is not resumed");
                };
                ensure!(state["state"] == "running", "{state}");
                self.count("pause");
            }
            // A host that stands still lets no processor reach the gate.
            Met::Paused | Met::Late => self.model.refused += 1,
            Met::Refused(why) => bail!("no pause: {why}"),
        }
        Ok(())
    }

    fn range(&mut self) -> (Value, std::ops::Range<u64>) {
        let first = self.random.below(MEDIA / LINE - 64);
        let lines = 1 + self.random.below(64);
        let (start, len) = (first * LINE, lines * LINE);
        let range = json!({"id": format!("n{}", self.me), "start": start, "len": len});
        (range, first..first + lines)
    }

    fn inject(&mut self) -> Result<()> {
        let (mut body, lines) = self.range();
        body["latent"] = (self.random.below(2) == 0).into();
        self.client.done("POST", "/media-errors", Some(&body))?;
        self.model.bad.extend(lines);
        self.count("inject");
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        let (body, lines) = self.range();
        self.client.done("POST", "/media-errors/clear", Some(&body))?;
        self.model.bad.retain(|line| !lines.contains(line));
        self.count("heal");
        Ok(())
    }

    fn add_nvdimm(&mut self) -> Result<()> {
        let all = self.client.get("/nvdimms")?;
        if facts::list(&all, "dimms")?.len() + usize::try_from(CLIENTS)? > NVDIMMS {
            return self.inject();
        }
        let id = format!("x{}-{}", self.me, self.names);
        self.names += 1;
        let body = json!({"id": id, "size": NVDIMM, "node": self.me});
        match self.ask("POST", "/nvdimms", Some(&body))? {
            Met::Done(_) => {
                self.model.nvdimms.insert(id);
                self.count("nvdimm add");
            }
            Met::Paused => self.model.refused += 1,
            Met::Refused(_) | Met::Late => bail!("{id} was not added"),
        }
        Ok(())
    }

    /// This client's part of the machine is what its model says.
    fn agrees(&mut self) -> Result<()> {
        let (me, model) = (self.me, &mut self.model);
        let list = self.client.get("/memory/devices")?;
        let mine = facts::list(&list, "devices")?
            .iter()
            .filter(|device| device["node"] == me && device["kind"] == "dimm")
            .map(|device| Ok((facts::text(device, "id")?.to_owned(), facts::number(device, "len")?)));
        let mine: BTreeMap<_, _> = mine.collect::<Result<_>>()?;
        let leaving = &mut model.leaving;
        model
            .devices
            .retain(|id, _| mine.contains_key(id) || !leaving.remove(id));
        ensure!(mine == model.devices, "client {me}: {mine:?}, the model {model:?}");
        let resizable = facts::find(&list["devices"], "id", &format!("v{me}"))?;
        ensure!(
            resizable["plugging"]["requested"] == model.target,
            "client {me}: {resizable}, the model {model:?}"
        );
        let list = self.client.get("/nvdimms")?;
        let names = facts::list(&list, "dimms")?
            .iter()
            .filter_map(|dimm| dimm["id"].as_str());
        let added = format!("x{me}-");
        let mine: BTreeSet<_> = names.filter(|id| id.starts_with(&added)).map(str::to_owned).collect();
        ensure!(mine == model.nvdimms, "client {me}: {mine:?}, the model {model:?}");
        let list = self.client.get(&format!("/media-errors?id=n{me}"))?;
        let mut bad = BTreeSet::new();
        for error in facts::list(&list, "errors")? {
            let (dpa, len) = (facts::number(error, "dpa")?, facts::number(error, "len")?);
            bad.extend(dpa / LINE..(dpa + len) / LINE);
        }
        let wrong: Vec<_> = bad.symmetric_difference(&model.bad).collect();
        ensure!(wrong.is_empty(), "client {me}: lines {wrong:?} differ from the model");
        Ok(())
    }
}

/// Waits until the guest has done what is left to do, and everything is as the models say.
fn all_agree(guest: &mut Guest, client: &mut ApiClient, workers: &mut [Worker]) -> Result<()> {
    let begun = Instant::now();
    loop {
        for worker in &mut *workers {
            worker.agrees()?;
        }
        let models: Vec<_> = workers.iter().map(|worker| &worker.model).collect();
        let machine = client.get("/vm")?;
        let agree = machine_agrees(&machine, &client.get("/limits")?, &models)
            .and_then(|()| guest_agrees(guest, &machine, &models));
        match agree {
            Err(_) if begun.elapsed() < SETTLED => thread::sleep(Duration::from_millis(200)),
            agree => return agree,
        }
    }
}

/// The machine as a whole, while no operation is under way.
fn machine_agrees(machine: &Value, limits: &Value, models: &[&Model]) -> Result<()> {
    ensure!(machine["state"] == "running", "{}", machine["state"]);
    // Ranges of the map are apart, but that devices are in the addresses that are kept for them.
    let map = facts::list(&machine["plan"], "map")?;
    let mut end = 0;
    for entry in map.iter().filter(|entry| entry["kind"] != "hotplug") {
        let (start, last) = (facts::number(entry, "start")?, facts::number(entry, "last")?);
        ensure!(start >= end && last >= start, "{entry} overlaps what is before it");
        end = last + 1;
    }
    let devices = facts::list(&machine["memory"], "devices")?.iter();
    for device in devices.filter(|device| device["kind"] == "dimm") {
        let (start, len) = (facts::number(device, "start")?, facts::number(device, "len")?);
        let kept = |entry: &Value| {
            entry["kind"] == "hotplug"
                && entry["node"] == device["node"]
                && entry["start"].as_u64() <= Some(start)
                && entry["last"].as_u64() >= Some(start + len - 1)
        };
        ensure!(map.iter().any(kept), "{device} is not where its node has room");
    }
    let devices: u64 = models.iter().flat_map(|model| model.devices.values()).sum();
    let targets: u64 = models.iter().map(|model| model.target).sum();
    let used = &limits["used"];
    let said = [&used["devices"], &used["resizable"]].map(|size| bytes(size.as_str().unwrap_or_default()));
    ensure!(
        said == [Some(devices), Some(targets)],
        "{limits}: {devices} and {targets}"
    );
    Ok(())
}

/// The guest's own view: its map, its nodes, its NVDIMMs.
fn guest_agrees(guest: &mut Guest, machine: &Value, models: &[&Model]) -> Result<()> {
    let text = guest.check(&format!(
        "cat /proc/iomem; for n in $(seq {}); do \
         echo node $(sed -n 's/.*MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node$n/meminfo 2>/dev/null); done; \
         echo nmem $(ls /sys/bus/nd/devices | grep -c nmem)",
        CLIENTS - 1
    ))?;
    let (iomem, rest) = text.split_at(text.find("node").context("no nodes")?);
    let seen = facts::iomem(iomem, &["System RAM"])?;
    let planned = facts::planned_iomem(&machine["plan"])?;
    let planned: Vec<_> = planned.into_iter().filter(|line| line.2 == "System RAM").collect();
    ensure!(seen == planned, "guest {seen:x?}, machine {planned:x?}");
    let said = |line: &str| line.split_whitespace().nth(1).map_or(Ok(0), str::parse::<u64>);
    // virtio-mem gives and takes at its own pace, so that less of it may be counted for a moment.
    for ((node, model), line) in (0u64..).zip(models).skip(1).zip(rest.lines()) {
        let size = said(line)? << 10;
        let devices: u64 = model.devices.values().sum();
        let plugged = facts::number(&machine["virtio"]["mem"][usize::try_from(node)?], "plugged")?;
        ensure!(
            (devices..=devices + plugged.next_multiple_of(BLOCK)).contains(&size),
            "node {node} has {size}, the model {devices} and virtio-mem {plugged}"
        );
    }
    let dimms = said(rest.lines().last().unwrap_or_default())?;
    let added: u64 = models.iter().map(|model| model.nvdimms.len() as u64).sum();
    ensure!(dimms == CLIENTS + added, "the guest has {dimms} NVDIMMs");
    Ok(())
}

/// A size as the API writes it.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    Some(digits.parse::<u64>().ok()? << shift)
}

/// Bytes of the monitor's address space that can be written: guest memory, and little else.
fn mapped(guest: &mut Guest) -> Result<u64> {
    let pid = guest.monitor().pid().as_raw_nonzero();
    let mut bytes = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let range = line.split_once(' ').filter(|(_, rest)| rest.starts_with("rw"));
        if let Some((start, last)) = range.and_then(|(range, _)| range.split_once('-')) {
            bytes += u64::from_str_radix(last, 16)? - u64::from_str_radix(start, 16)?;
        }
    }
    Ok(bytes)
}

fn seed(salt: u64) -> Result<u64> {
    if let Some(text) = env::var_os("DAXVISOR_SEED") {
        let text = text.to_string_lossy().into_owned();
        return text
            .parse()
            .with_context(|| format!("DAXVISOR_SEED={text} is no number"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok((now.as_secs() << 20 | u64::from(now.subsec_micros())) ^ u64::from(process::id()) << 40 ^ salt)
}

fn start(files: &Scratch, cpus: &str) -> Result<Guest> {
    let mut machine = GuestBuilder::new(KERNEL)
        .cpus(cpus)
        .memory("1G")
        .timeout(900)
        .arg("--numa", "node=0,memory=1G,hotplug=4G")
        .arg("--memory-slots", "64")
        .arg("--api-socket", &files.text("api"))
        .cmdline("memhp_default_state=online_movable");
    for node in 1..CLIENTS {
        machine = machine.arg("--numa", &format!("node={node},hotplug=4G"));
    }
    for node in 0..CLIENTS {
        machine = machine
            .arg("--virtio-mem", &format!("size=512M,node={node},id=v{node}"))
            .nvdimm(&format!("size=64M,node={node},id=n{node}"));
    }
    machine.start()
}

fn workers(socket: &Path, seed: u64) -> Result<Vec<Worker>> {
    let worker = |me| {
        Ok(Worker {
            me,
            client: ApiClient::connect(socket)?,
            // Never zero, and another sequence for each.
            random: Random(seed.wrapping_mul(CLIENTS).wrapping_add(me) | 1 << 63),
            model: Model::default(),
            names: 0,
        })
    };
    (0..CLIENTS).map(worker).collect()
}

fn run(salt: u64, cpus: &str) -> Result<()> {
    let seed = seed(salt)?;
    println!("DAXVISOR_SEED={seed}");
    let files = Scratch::new("random")?;
    let mut guest = start(&files, cpus)?;
    guest.check("modprobe -a nfit nd_pmem virtio_mem; ndctl wait-scrub ACPI.NFIT >/dev/null")?;
    let mut client = ApiClient::connect(&files.join("api"))?;
    let mut workers = workers(&files.join("api"), seed)?;
    let before = mapped(&mut guest)?;
    for round in 0..ROUNDS {
        let told = || format!("round {round}, DAXVISOR_SEED={seed}");
        thread::scope(|scope| -> Result<()> {
            let all: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| worker.step())).collect();
            for one in all {
                one.join().expect("no panic")?;
            }
            Ok(())
        })
        .with_context(told)?;
        all_agree(&mut guest, &mut client, &mut workers).with_context(told)?;
    }
    finish(guest, &workers, before).with_context(|| format!("in the end, DAXVISOR_SEED={seed}"))
}

fn finish(mut guest: Guest, workers: &[Worker], before: u64) -> Result<()> {
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, times) in workers.iter().flat_map(|worker| &worker.model.done) {
        *done.entry(what).or_default() += times;
    }
    let refused: u64 = workers.iter().map(|worker| worker.model.refused).sum();
    println!("{done:?}, {refused} refused");
    ensure!(
        done.values().sum::<u64>() + refused == CLIENTS * ROUNDS,
        "{done:?}, {refused}"
    );
    for what in ["add", "remove", "resize", "pause", "inject", "heal", "nvdimm add"] {
        ensure!(done.contains_key(what), "nothing of '{what}' was done: {done:?}");
    }
    // What was given back is the host's.
    let there: u64 = workers.iter().flat_map(|worker| worker.model.devices.values()).sum();
    let added: u64 = workers
        .iter()
        .map(|worker| worker.model.nvdimms.len() as u64 * NVDIMM)
        .sum();
    let (expected, after) = (before + there + added, mapped(&mut guest)?);
    ensure!(
        after.abs_diff(expected) < MONITOR,
        "{after} bytes are mapped, {expected} were expected"
    );
    let trouble = guest.check("dmesg | grep -e 'BUG: ' -e 'Call Trace' -e 'WARNING: ' || true")?;
    ensure!(trouble.is_empty(), "{trouble}");
    guest.power_off()?;
    Ok(())
}

#[test]
fn random_changes_by_four_clients_lead_to_what_the_model_says() -> Result<()> {
    run(1, "2")
}

#[test]
fn random_changes_of_a_machine_with_one_vcpu() -> Result<()> {
    run(2, "1")
}
