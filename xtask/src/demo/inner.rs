//! The half of the demo that talks to the guest; runs where daxvisor runs.

use super::{
    events::{Event, Stage},
    guest::{Guest, tail},
};
use crate::process;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Instant,
};

/// Files in the demo's folder: backing files, console, and what daxvisor says.
pub const FILES: [&str; 4] = [PMEM[0], PMEM[1], CONSOLE, MESSAGES];
const PMEM: [&str; 2] = ["pmem0.img", "pmem1.img"];
const CONSOLE: &str = "console.log";
const MESSAGES: &str = "daxvisor.log";
/// Each NVDIMM: 512 MiB and a label area of 128 KiB. Linux wants whole 16 MiB of what is left for namespaces.
const SIZE: &str = "524416K";
/// The node that is each NVDIMM's own.
const NODES: [u32; 2] = [1, 2];
/// Exit code of daxvisor when the guest reset.
const RESET: i32 = 3;
/// How many files, and how large each.
const DATA_FILES: u32 = 4;
const DATA_MIB: u32 = 4;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The monitor.
    pub daxvisor: PathBuf,
    /// Guest kernel's name.
    pub kernel: String,
    /// For backing files and logs.
    pub dir: PathBuf,
}

/// Plays it; failures are an event as well.
pub fn run(options: &Options) -> ExitCode {
    match play(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut reason = process::explain(&error)
                .trim_start_matches("error: ")
                .trim_end()
                .to_owned();
            // A monitor that ended by itself says why: without it a closed channel is a riddle.
            let said = tail(&options.dir.join(MESSAGES));
            if !said.is_empty() {
                reason = format!("{reason}\ndaxvisor said:\n  {}", said.join("\n  "));
            }
            tell(&Event::Failed {
                reason,
                console: tail(&options.dir.join(CONSOLE)),
            });
            ExitCode::FAILURE
        }
    }
}

fn tell(event: &Event) {
    // The outer half may be gone; then this one is about to be ended as well.
    let _ = writeln!(io::stdout(), "{}", event.line());
}

fn fact(name: &str, value: impl Into<String>) {
    tell(&Event::Fact {
        name: name.to_owned(),
        value: value.into(),
    });
}

fn begin(stage: Stage) {
    tell(&Event::Begin { stage });
}

fn show(guest: &mut Guest, command: &str) -> Result<()> {
    let text = guest.sh(command)?;
    tell(&Event::Show {
        title: command.to_owned(),
        text,
    });
    Ok(())
}

fn play(options: &Options) -> Result<()> {
    begin(Stage::Boot);
    let mut guest = boot(options, "first boot")?;
    fact(
        "guest",
        format!("Linux {}, 2 vCPUs, 1 GiB, 2 NVDIMMs of 512 MiB", guest.kernel()),
    );
    begin(Stage::Look);
    look(&mut guest)?;
    begin(Stage::Namespaces);
    let namespaces = create(&mut guest)?;
    begin(Stage::Write);
    let written = write(&mut guest, &namespaces)?;
    begin(Stage::Reboot);
    let status = guest.reboot()?;
    ensure!(
        status.code() == Some(RESET),
        "daxvisor ended with {status} when the guest reset, expected {RESET}"
    );
    let mut guest = boot(options, "second boot")?;
    begin(Stage::Verify);
    verify(&mut guest, &namespaces, &written)?;
    begin(Stage::PowerOff);
    guest.sh("umount /mnt")?;
    let status = guest.power_off()?;
    ensure!(
        status.success(),
        "daxvisor ended with {status} when the guest powered off, expected 0"
    );
    Ok(())
}

fn boot(options: &Options, name: &str) -> Result<Guest> {
    // A socket's path must be short, and in the nested host it must lie where only daxvisor and we look.
    let sockets = tempfile::Builder::new()
        .prefix("demo")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let args = arguments(options);
    let socket = sockets.path().join("agent");
    let guest = Guest::boot(&options.daxvisor, &args, &socket, &options.dir.join(MESSAGES))?;
    fact(
        name,
        format!(
            "{:.1} s from exec to the agent, {:.1} s by the guest's clock",
            guest.boot.as_secs_f64(),
            guest.uptime().as_secs_f64()
        ),
    );
    Ok(guest)
}

/// Of `daxvisor run`, but for the socket.
fn arguments(options: &Options) -> Vec<String> {
    let path = |file: &str| options.dir.join(file).display().to_string().replace(',', ",,");
    let mut args = vec!["--host=kvm".to_owned(), format!("--kernel=@{}", options.kernel)];
    // The whole kernel log on a serial port is half of a boot's time; a panic is told nevertheless.
    args.extend(["--cpus=2", "--memory=1G", "--cmdline=quiet"].map(str::to_owned));
    args.push(format!("--console=file:{}", options.dir.join(CONSOLE).display()));
    for (file, node) in PMEM.iter().zip(NODES) {
        args.push(format!("--numa=node={node}"));
        args.push(format!("--nvdimm={},size={SIZE},node={node}", path(file)));
    }
    args
}

/// What `ndctl list -Rv` prints.
#[derive(Deserialize)]
struct Regions {
    regions: Vec<Region>,
}

/// A region as `ndctl list` has it.
#[derive(Deserialize)]
struct Region {
    dev: String,
    /// The node of its own; `numa_node` is the nearest one that has memory now.
    target_node: Option<u32>,
}

/// A namespace as `ndctl list` has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Namespace {
    dev: String,
    mode: String,
    uuid: String,
    blockdev: Option<String>,
    chardev: Option<String>,
}

fn look(guest: &mut Guest) -> Result<()> {
    show(guest, "ndctl list -DNRHu")?;
    let Regions { regions } = parse(&guest.sh("ndctl list -Rv")?)?;
    ensure!(
        regions.len() == PMEM.len(),
        "the guest has {} regions, expected {}",
        regions.len(),
        PMEM.len()
    );
    for node in NODES {
        let on_node = regions.iter().filter(|r| r.target_node == Some(node)).count();
        ensure!(on_node == 1, "node {node} has {on_node} regions, expected 1");
    }
    let places: Vec<_> = regions
        .iter()
        .map(|r| format!("{} on node {}", r.dev, r.target_node.unwrap_or(0)))
        .collect();
    fact("NVDIMMs", places.join(", "));
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).with_context(|| format!("cannot read what ndctl printed: {json}"))
}

/// The two namespaces of the demo.
struct Namespaces {
    fsdax: Namespace,
    devdax: Namespace,
}

fn create(guest: &mut Guest) -> Result<Namespaces> {
    // A new label area has no index: until it has one, each region is a single namespace that nobody can change.
    guest.sh("ndctl disable-region all && ndctl init-labels all && ndctl enable-region all")?;
    for (region, mode) in [(0, "fsdax"), (1, "devdax")] {
        let start = Instant::now();
        guest.sh(&format!("ndctl create-namespace -r region{region} -m {mode}"))?;
        fact(
            &format!("create {mode}"),
            format!("{:.1} s", start.elapsed().as_secs_f64()),
        );
    }
    find(guest)
}

fn find(guest: &mut Guest) -> Result<Namespaces> {
    let all: Vec<Namespace> = parse(&guest.sh("ndctl list -N")?)?;
    let one = |mode: &str| {
        let found = all.iter().find(|n| n.mode == mode).cloned();
        found.with_context(|| format!("there is no {mode} namespace among {all:?}"))
    };
    Ok(Namespaces {
        fsdax: one("fsdax")?,
        devdax: one("devdax")?,
    })
}

/// Checksums of what was written.
#[derive(Debug, PartialEq)]
struct Written {
    files: String,
    device: String,
}

impl Namespaces {
    fn block(&self) -> Result<&str> {
        self.fsdax
            .blockdev
            .as_deref()
            .context("the fsdax namespace has no block device")
    }

    fn char(&self) -> Result<&str> {
        self.devdax
            .chardev
            .as_deref()
            .context("the devdax namespace has no character device")
    }
}

const SUM_FILES: &str = "cd /mnt && sha256sum data.*";

fn mount(guest: &mut Guest, namespaces: &Namespaces) -> Result<()> {
    let block = namespaces.block()?;
    guest.sh(&format!("mkdir -p /mnt && mount -t ext4 -o dax /dev/{block} /mnt"))?;
    // ext4 falls back to the page cache with a warning when it must; that would not be the demo.
    let options = guest.sh("grep ' /mnt ' /proc/mounts")?;
    ensure!(
        options.contains("dax"),
        "the file system is mounted without dax: {options}"
    );
    Ok(())
}

fn write(guest: &mut Guest, namespaces: &Namespaces) -> Result<Written> {
    guest.sh(&format!("mkfs.ext4 -q -F -b 4096 /dev/{}", namespaces.block()?))?;
    mount(guest, namespaces)?;
    for n in 0..DATA_FILES {
        guest.sh(&format!(
            "dd if=/dev/urandom of=/mnt/data.{n} bs=1M count={DATA_MIB} 2>/dev/null"
        ))?;
    }
    guest.sh("sync")?;
    let files = guest.sh(SUM_FILES)?;
    // A device-dax node has no read and write, only mappings. Each page gets a byte of its own.
    let pages: Vec<_> = (0..64)
        .map(|n| format!("-c 'mwrite -S {} {} 4096'", n + 1, n * 4096))
        .collect();
    guest.sh(&format!(
        "xfs_io -c 'mmap -rw 0 2m' {} /dev/{}",
        pages.join(" "),
        namespaces.char()?
    ))?;
    let device = sum_device(guest, namespaces)?;
    fact(
        "written",
        format!("{DATA_FILES} files of {DATA_MIB} MiB through ext4 with dax, 64 pages through device-dax"),
    );
    Ok(Written { files, device })
}

fn sum_device(guest: &mut Guest, namespaces: &Namespaces) -> Result<String> {
    let device = namespaces.char()?;
    let read = format!("xfs_io -r -c 'mmap -r 0 2m' -c 'mread -v 0 262144' /dev/{device}");
    let first = guest.sh(&format!("{read} | head -n 1"))?;
    ensure!(
        first.contains("01 01 01 01"),
        "/dev/{device} does not begin with what was written: {first}"
    );
    guest.sh(&format!("{read} | sha256sum"))
}

fn verify(guest: &mut Guest, namespaces: &Namespaces, written: &Written) -> Result<()> {
    show(guest, "ndctl list -Nu")?;
    let found = find(guest)?;
    for (before, after) in [(&namespaces.fsdax, &found.fsdax), (&namespaces.devdax, &found.devdax)] {
        ensure!(
            before == after,
            "namespace {} came back as {after:?}, expected {before:?}",
            before.dev
        );
    }
    mount(guest, &found)?;
    let again = Written {
        files: guest.sh(SUM_FILES)?,
        device: sum_device(guest, &found)?,
    };
    if again != *written {
        bail!("data changed over the reboot: {again:?}, expected {written:?}");
    }
    fact(
        "found again",
        format!("{DATA_FILES} files and 64 device-dax pages, checksums equal"),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvdimms_have_nodes_of_their_own() {
        let args = arguments(&Options {
            daxvisor: "/dv".into(),
            kernel: "k".into(),
            dir: "/a,b".into(),
        });
        assert!(args.contains(&"--kernel=@k".to_owned()));
        assert!(
            args.contains(&"--nvdimm=/a,,b/pmem1.img,size=524416K,node=2".to_owned()),
            "{args:?}"
        );
        assert_eq!(args.iter().filter(|a| a.starts_with("--numa=")).count(), 2);
    }

    #[test]
    fn what_ndctl_prints_is_understood() {
        let text = r#"[{"dev":"namespace0.0","mode":"fsdax","map":"dev","size":1,"uuid":"u","sector_size":512,"align":2097152,"blockdev":"pmem0"}]"#;
        let namespaces: Vec<Namespace> = parse(text).unwrap();
        assert_eq!(namespaces[0].blockdev.as_deref(), Some("pmem0"));
        let text = r#"{"regions":[{"dev":"region1","size":536739840,"numa_node":0,"target_node":2,"type":"pmem"}]}"#;
        let Regions { regions } = parse(text).unwrap();
        assert_eq!(regions[0].target_node, Some(2));
        assert!(parse::<Regions>("no").err().unwrap().to_string().contains("no"));
    }
}
