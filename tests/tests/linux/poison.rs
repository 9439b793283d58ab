//! Bad memory on real kernels: who is told, who is stopped, what becomes good again.

use agent_protocol::ExitStatus;
use anyhow::{Context, Result, ensure};
use guest_tests::{
    Guest, GuestBuilder, Scratch,
    api::ApiClient,
    matrix::{self, Outcome},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Bytes of the file on the bad memory: few enough to be in one piece.
const FILE: u64 = 64 << 10;
/// The byte of the file at which a program meets an error, in the middle of a page.
const MAPPED: u64 = 0x3240;
/// The one at which the read system call does, the first of a page.
const READ: u64 = 0x5000;
/// What memprobe ends with after SIGBUS.
const SIGBUS: ExitStatus = ExitStatus::Code(7);
const FINE: ExitStatus = ExitStatus::Code(0);
/// Numbers of errors.
const EIO: u32 = 5;
const EFAULT: u32 = 14;
/// `si_code` of SIGBUS for memory that the program has met, and for what it cannot have at all.
const MCEERR_AR: u64 = 4;
const ADRERR: u64 = 2;

struct Machine {
    kernel: String,
    guest: Guest,
    api: ApiClient,
    /// Where the guest sees the first byte of the namespace's data.
    data: u64,
    /// First sector of the file in the namespace's disk.
    sector: u64,
}

impl Machine {
    /// A machine whose kernel copies from persistent memory with care, and a file on it.
    fn start(kernel: &str, files: &Scratch) -> Result<Self> {
        let mut guest = GuestBuilder::new(kernel)
            .arg("--cpu", "vendor=AuthenticAMD,add=erms")
            .arg("--api-socket", &files.text("api"))
            .cpus("2")
            .nvdimm("size=65664K,id=pmem0,label=128K")
            // Byte-wise moves are slow on an emulated host.
            .hello_within(Duration::from_secs(240))
            .start()?;
        guest.check("ndctl wait-scrub && ndctl create-namespace -f -e namespace0.0 -m fsdax")?;
        guest.check("mkfs.ext4 -q -b 4096 /dev/pmem0 && mount -o dax /dev/pmem0 /mnt")?;
        // In one extent: what is written piece by piece may lie in several.
        guest.check(&format!(
            "xfs_io -f -c 'falloc 0 {FILE}' -c 'pwrite -q -S 0x5a 0 {FILE}' -c fsync /mnt/file"
        ))?;
        // A line for each extent: 0: [0..127]: 122880..123007
        let map = guest.check("xfs_io -c fiemap /mnt/file")?;
        let extent = map.lines().nth(1).unwrap_or_default();
        ensure!(
            extent.contains(&format!("[0..{}]", FILE / 512 - 1)),
            "the file is in pieces: {map}"
        );
        let sectors = extent.split_whitespace().nth(2).unwrap_or_default();
        let sector = sectors.split("..").next().unwrap_or_default();
        let sector = sector.parse().with_context(|| map.clone())?;
        let data = guest.check("cat /sys/bus/nd/devices/pfn0.0/resource")?;
        let data = u64::from_str_radix(data.trim_start_matches("0x"), 16)?;
        let api = ApiClient::connect(&files.join("api"))?;
        Ok(Self {
            kernel: kernel.to_owned(),
            guest,
            api,
            data,
            sector,
        })
    }

    fn saw(&self, row: &str, outcome: Outcome) -> Result<()> {
        matrix::saw(row, &self.kernel, outcome)
    }

    /// Makes the line of the file at `offset` bad, unknown to the guest.
    fn inject(&mut self, offset: u64) -> Result<()> {
        let start = self.data + self.sector * 512 + offset;
        let range = json!({"start": start, "len": 64, "latent": true});
        self.api.done("POST", "/media-errors", Some(&range))?;
        let faults = self.faults()?;
        let injected = faults["faults"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["gpa"] == start));
        let injected = injected.with_context(|| faults.to_string())?;
        ensure!(
            (&injected["nvdimm"], &injected["state"], &injected["consumable"])
                == (&json!("pmem0"), &json!("latent"), &json!(true)),
            "{faults}"
        );
        Ok(())
    }

    fn faults(&mut self) -> Result<Value> {
        self.api.get("/faults")
    }

    fn consumed(&mut self) -> Result<u64> {
        let faults = self.faults()?;
        faults["counts"]["consumed"].as_u64().context("no count")
    }

    /// How memprobe ends with the file mapped, and what it says.
    fn touch(&mut self, steps: &str) -> Result<(ExitStatus, String)> {
        let done = self.guest.sh(&format!("memprobe map /mnt/file {FILE} {steps}"))?;
        Ok((done.status, String::from_utf8_lossy(&done.stdout).into_owned()))
    }

    /// The error that the read system call gives for a page of the file; none: it gives the page.
    fn read(&mut self, offset: u64) -> Result<Option<u32>> {
        let done = self.guest.sh(&format!("memprobe read /mnt/file {offset} 4096"))?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        if text.trim() == "read 4096 bytes" {
            return Ok(None);
        }
        let number = text
            .rsplit_once("(errno ")
            .and_then(|(_, rest)| rest.trim().strip_suffix(')'));
        Ok(Some(number.with_context(|| text.clone())?.parse()?))
    }

    /// Bad sectors of the disk.
    fn badblocks(&mut self) -> Result<String> {
        self.guest.check("cat /sys/block/pmem0/badblocks")
    }

    /// Sector of the file's byte at `offset`.
    fn sector_of(&self, offset: u64) -> u64 {
        self.sector + offset / 512
    }
}

/// Code, offset and bytes of a SIGBUS as memprobe tells it.
fn sigbus(text: &str) -> Result<(u64, u64, u64)> {
    let line = text
        .lines()
        .find(|line| line.starts_with("SIGBUS"))
        .context(text.to_owned())?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["SIGBUS", "code", code, "offset", offset, "lsb", lsb] = words[..] else {
        anyhow::bail!("{line}")
    };
    let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16)?;
    Ok((code.parse()?, offset, 1 << lsb.parse::<u32>()?))
}

/// The other lines of the page are as they were, for loads and stores.
fn neighbours_are_there(m: &mut Machine) -> Result<()> {
    ensure!(m.badblocks()?.is_empty(), "nobody has told the guest");
    let (status, said) = m.touch("load:0x3200 load:0x3238 load:0x3280 store:0x3300 load:0x3300")?;
    let read = |at: &str| format!("load {at}: 0x5a5a5a5a5a5a5a5a");
    let wanted = [
        read("0x3200"),
        read("0x3238"),
        read("0x3280"),
        "load 0x3300: 0x5eed".into(),
    ];
    ensure!((status, said.trim()) == (FINE, wanted.join("\n").as_str()), "{said}");
    // The kernel's own stores, and its write-back of every line of the page.
    m.guest
        .check("xfs_io -c 'pwrite -q -S 0x33 0x3384 100' -c fsync /mnt/file")?;
    let (status, said) = m.touch("load:0x3388")?;
    ensure!(
        (status, said.trim()) == (FINE, "load 0x3388: 0x3333333333333333"),
        "{said}"
    );
    let counts = m.faults()?["counts"].take();
    ensure!(
        counts["consumed"] == 0 && counts["carried"].as_u64() >= Some(5),
        "{counts}"
    );
    Ok(())
}

/// A program that loads the line, with `step`, is stopped, the kernel knows of it from then on, and nothing else suffers.
fn program_meets_it(m: &mut Machine, step: &str, again: u64) -> Result<()> {
    let (status, said) = m.touch(step)?;
    ensure!(status == SIGBUS, "{status:?}: {said}");
    let (code, at, bytes) = sigbus(&said)?;
    ensure!(
        code == MCEERR_AR && at <= MAPPED && MAPPED < at + bytes && bytes == 4096,
        "{said}"
    );
    m.saw("pmem-map", Outcome::Killed { lsb: 12 })?;
    let faults = m.faults()?;
    ensure!(
        faults["counts"]["consumed"] == 1 && faults["faults"][0]["state"] == "known" && faults["pages"] == 1,
        "{faults}"
    );
    let sector = m.sector_of(MAPPED);
    ensure!(m.badblocks()? == format!("{sector} 1"));
    let list = m.guest.json("ndctl list -N --media-errors")?;
    let bad = json!([{"offset": sector, "length": 1, "dimms": ["nmem0"]}]);
    ensure!(list[0]["badblock_count"] == 1 && list[0]["badblocks"] == bad, "{list}");
    // What is known is not met again: the kernel does not hand the page out.
    ensure!(m.read(MAPPED & !0xfff)? == Some(EIO));
    m.saw("pmem-read-known", Outcome::Eio)?;
    let (status, said) = m.touch(&format!("load:{MAPPED}"))?;
    ensure!(status == SIGBUS && sigbus(&said)?.0 == again, "{said}");
    let outcome = match again {
        ADRERR => Outcome::NotHandedOut,
        _ => Outcome::Killed { lsb: 12 },
    };
    m.saw("pmem-map-again", outcome)?;
    let (status, said) = m.touch("load:0x2ff8 load:0x4000")?;
    ensure!(status == FINE, "{said}");
    ensure!(m.consumed()? == 1);
    Ok(())
}

/// The kernel's own copy meets a line, and fails instead of panicking.
fn kernel_meets_it(m: &mut Machine) -> Result<()> {
    m.inject(READ)?;
    let first = m.read(READ)?;
    ensure!(m.consumed()? == 2, "the copy met the line");
    ensure!(first == Some(EFAULT), "{first:?}");
    ensure!(m.read(READ)? == Some(EIO), "and now it is known");
    m.saw("pmem-read", Outcome::Efault)?;
    ensure!(m.consumed()? == 2);
    let sectors = [MAPPED, READ].map(|at| format!("{} 1", m.sector_of(at)));
    ensure!(m.badblocks()? == sectors.join("\n"));
    Ok(())
}

/// Cleared, the page by a write through the block device and the other line by ndctl: nowhere is anything left of them.
fn cleared(m: &mut Machine) -> Result<()> {
    let page = m.sector * 512 + (MAPPED & !0xfff);
    m.guest.check(&format!(
        "umount /mnt && xfs_io -d -c 'pwrite -q -S 0x5a {page} 4096' /dev/pmem0"
    ))?;
    ensure!(m.badblocks()? == format!("{} 1", m.sector_of(READ)));
    let faults = m.faults()?;
    ensure!(
        faults["faults"].as_array().map(Vec::len) == Some(1) && faults["pages"] == 1,
        "{faults}"
    );
    m.guest.check("ndctl clear-errors namespace0.0")?;
    let faults = m.faults()?;
    ensure!(faults["faults"] == json!([]) && faults["pages"] == 0, "{faults}");
    m.guest.check("ndctl start-scrub && ndctl wait-scrub")?;
    ensure!(m.badblocks()?.is_empty(), "a scrub finds nothing");
    // Linux takes the pages themselves into use again when it makes the namespace anew.
    m.guest
        .check("ndctl disable-namespace namespace0.0 && ndctl enable-namespace namespace0.0")?;
    m.guest.check("mount -o dax /dev/pmem0 /mnt")?;
    let (status, said) = m.touch(&format!("load:{MAPPED} load:{READ} vector:0x3220"))?;
    ensure!(status == FINE, "{said}");
    let reads = (m.read(MAPPED & !0xfff)?, m.read(READ)?);
    ensure!(reads == (None, None), "{reads:?}");
    ensure!(m.consumed()? == 2);
    m.saw("pmem-write", Outcome::Good)?;
    m.saw("pmem-clear", Outcome::Good)
}

/// `step` meets the line at [`MAPPED`]; who touches its page after that has SIGBUS with the code `again`.
fn latent_errors_of_pmem(kernel: &str, step: &str, again: u64) -> Result<()> {
    let files = Scratch::new("poison")?;
    let mut m = Machine::start(kernel, &files)?;
    let told = m.faults()?;
    ensure!(
        (&told["mechanisms"][0], &told["delivery"]) == (&json!("slot-hole"), &json!("local")),
        "{told}"
    );
    m.inject(MAPPED)?;
    neighbours_are_there(&mut m)?;
    program_meets_it(&mut m, step, again)?;
    kernel_meets_it(&mut m)?;
    cleared(&mut m)?;
    let log = m.guest.check("dmesg | grep -iE 'WARNING:|BUG:|Oops' || true")?;
    ensure!(log.is_empty(), "{log}");
    m.guest.power_off()?;
    Ok(())
}

#[test]
fn poison_of_pmem_stops_programs_and_reads_on_6_1() -> Result<()> {
    latent_errors_of_pmem("debian-6.1-amd64", &format!("load:{MAPPED}"), ADRERR)
}

#[test]
fn poison_of_pmem_stops_programs_and_reads_on_6_12() -> Result<()> {
    // KVM cannot carry out a vector load, which meets the line wherever in the page it is.
    latent_errors_of_pmem("debian-6.12-amd64", "vector:0x3280", MCEERR_AR)
}
