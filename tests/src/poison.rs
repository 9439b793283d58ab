//! A machine with bad memory, and programs in it that load where they are told (memprobe).

use crate::{
    Guest,
    api::ApiClient,
    facts,
    matrix::{self, Outcome},
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Bytes of programs' memory, the page of it that goes bad, and the line in that page.
pub const MEMORY: u64 = 64 << 10;
/// Offset of the page that goes bad.
pub const PAGE: u64 = 0x3000;
/// Offset of the bad line in its page.
pub const LINE: u64 = 0x40;

/// A running machine, and what has been met in it so far.
pub struct Machine {
    /// The guest.
    pub guest: Guest,
    /// Its machine's API.
    pub api: ApiClient,
    /// Name of its kernel.
    pub kernel: String,
    /// Programs so far: each has files of its own.
    programs: u32,
    /// Loads that became machine checks so far.
    consumed: u64,
    /// kB of `HardwareCorrupted` so far.
    corrupted: u64,
}

/// A program in the guest that stops after it has told where its memory is.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    number: u32,
    /// Guest physical address of its page.
    pub gpa: u64,
    /// Offset of the page in its memory.
    pub at: u64,
}

/// How a program ended: its exit code, and what it has said since it went on.
pub type End = (String, String);

impl Machine {
    /// Nothing is bad in it yet.
    pub fn new(kernel: &str, guest: Guest, api: ApiClient) -> Self {
        Self {
            guest,
            api,
            kernel: kernel.to_owned(),
            programs: 0,
            consumed: 0,
            corrupted: 0,
        }
    }

    /// A cell of the matrix, on this kernel.
    pub fn saw(&self, row: &str, outcome: Outcome) -> Result<()> {
        matrix::saw(row, &self.kernel, outcome)
    }

    /// A program whose page is at [`PAGE`].
    pub fn program(&mut self, launcher: &str, memory: &str, first: &str, then: &str) -> Result<Program> {
        self.program_at(launcher, memory, PAGE, first, then)
    }

    /// Starts memprobe with `memory`; after `first` it tells where the page at the offset `at` is, and waits.
    pub fn program_at(&mut self, launcher: &str, memory: &str, at: u64, first: &str, then: &str) -> Result<Program> {
        self.programs += 1;
        let number = self.programs;
        let steps = format!("{first} phys:{at} stop {then}");
        self.guest.check(&format!(
            "mkfifo /tmp/go{number}; \
             (({launcher} memprobe {memory} {steps} <> /tmp/go{number} > /tmp/out{number} 2>&1; echo $? > /tmp/rc{number}) \
             > /dev/null 2>&1 < /dev/null &)"
        ))?;
        let line = self.guest.check(&format!(
            "for n in $(seq 300); do grep phys /tmp/out{number} && exit 0; sleep 0.1; done; cat /tmp/out{number}; exit 1"
        ))?;
        let gpa = line.rsplit_once(": 0x").context(line.clone())?.1;
        let gpa = u64::from_str_radix(gpa.trim(), 16)?;
        ensure!(gpa != 0, "{line}");
        Ok(Program { number, gpa, at })
    }

    /// Lets a program go on to its end.
    pub fn go_on(&mut self, program: &Program) -> Result<End> {
        self.release(&[*program])?;
        self.end_of(program)
    }

    /// Lets programs go on, at once.
    pub fn release(&mut self, programs: &[Program]) -> Result<()> {
        let words: Vec<_> = programs
            .iter()
            .map(|one| format!("echo > /tmp/go{}", one.number))
            .collect();
        self.guest.check(&words.join("; "))?;
        Ok(())
    }

    /// Waits for the end of a program that goes on.
    pub fn end_of(&mut self, program: &Program) -> Result<End> {
        let number = program.number;
        let all = self.guest.check(&format!(
            "for n in $(seq 300); do test -s /tmp/rc{number} && break; sleep 0.1; done; \
             cat /tmp/rc{number}; sed -n '/phys/,$p' /tmp/out{number} | sed 1d"
        ))?;
        let (code, said) = all.split_once('\n').unwrap_or((&all, ""));
        Ok((code.to_owned(), said.to_owned()))
    }

    /// All there is to say of bad memory.
    pub fn faults(&mut self) -> Result<Value> {
        self.api.get("/faults")
    }

    /// Makes the line of a program's page bad, in memory of this kind and on this node.
    pub fn inject(&mut self, program: &Program, kind: &str, node: u64) -> Result<()> {
        let gpa = program.gpa + LINE;
        let told = self
            .api
            .done("POST", "/faults", Some(&json!({"gpa": gpa, "dry-run": true})))?;
        let place = &told["places"][0];
        ensure!(
            (&place["kind"], &place["node"], &place["load"]) == (&json!(kind), &json!(node), &json!("machine-check")),
            "{told}"
        );
        let done = self.api.done("POST", "/faults", Some(&json!({"gpa": gpa})))?;
        ensure!(done["places"] == told["places"], "{done}, told {told}");
        Ok(())
    }

    /// Nothing more has become a machine check than was expected, and the kernel has lost so many pages.
    pub fn met(&mut self, consumed: u64, pages: u64) -> Result<()> {
        self.consumed += consumed;
        self.corrupted += 4 * pages;
        let (wanted, faults) = (self.consumed, self.faults()?);
        ensure!(faults["counts"]["consumed"] == wanted, "not {wanted}: {faults}");
        let lost = self.lost()?;
        ensure!(lost == self.corrupted, "{lost} kB are lost, not {}", self.corrupted);
        Ok(())
    }

    /// Begins to count anew from what there is; how many loads became machine checks since the last count.
    pub fn count_again(&mut self) -> Result<u64> {
        let faults = self.faults()?;
        let before = self.consumed;
        self.consumed = faults["counts"]["consumed"].as_u64().context("no count")?;
        self.corrupted = self.lost()?;
        Ok(self.consumed.saturating_sub(before))
    }

    /// The kernel has forgotten lost pages, with the memory that they were of.
    pub fn forgot_pages(&mut self) -> Result<()> {
        self.corrupted = self.lost()?;
        Ok(())
    }

    /// kB of pages that the kernel has taken out of use.
    pub fn lost(&mut self) -> Result<u64> {
        let text = self
            .guest
            .check("sed -n 's/HardwareCorrupted: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        text.parse().context(text)
    }

    /// The kernel's own word on a page.
    pub fn verdict(&mut self, gpa: u64) -> Result<String> {
        self.guest.check(&format!(
            "dmesg | sed -n 's/.*Memory failure: {:#x}: recovery action for //p' | tail -n 1",
            gpa >> 12
        ))
    }

    /// Whether a bad line is known.
    pub fn state(&mut self, gpa: u64) -> Result<String> {
        let faults = self.faults()?;
        let all = facts::list(&faults, "faults")?;
        let found = all.iter().find(|fault| fault["gpa"] == gpa);
        Ok(facts::text(found.with_context(|| faults.to_string())?, "state")?.to_owned())
    }

    /// A flag of the kernel's page at `gpa` (include/uapi/linux/kernel-page-flags.h).
    pub fn page_flag(&mut self, gpa: u64, bit: u32) -> Result<bool> {
        let text = self.guest.check(&format!(
            "dd if=/proc/kpageflags bs=8 skip={} count=1 2>/dev/null | od -An -v -tx8",
            gpa >> 12
        ))?;
        let flags = u64::from_str_radix(text.trim(), 16).with_context(|| text.clone())?;
        Ok(flags >> bit & 1 == 1)
    }

    /// Waits until a node has memory.
    pub fn node_has_memory(&mut self, node: u64) -> Result<()> {
        self.guest.check(&format!(
            "for n in $(seq 100); do test $(sed -n 's/.*MemFree: *\\([0-9]*\\) kB/\\1/p' \
             /sys/devices/system/node/node{node}/meminfo 2>/dev/null || echo 0) -gt 65536 && exit 0; sleep 0.1; done; \
             cat /sys/devices/system/node/has_memory; exit 1"
        ))?;
        Ok(())
    }
}

/// A program that loads a bad line of its own memory is killed, the page taken out of use, and nobody else suffers; a cell of the
/// matrix.
pub fn program_meets_it(m: &mut Machine, row: &str, kind: &str, node: u64) -> Result<()> {
    let launcher = format!("numactl --membind={node}");
    let memory = format!("anon {MEMORY}");
    let loads = format!("load:{PAGE} load:{}", PAGE + LINE);
    let victim = m.program(&launcher, &memory, "", &loads)?;
    let other = m.program(&launcher, &memory, "", &format!("{loads} vector:{}", PAGE + 2 * LINE))?;
    m.inject(&victim, kind, node)?;
    ensure!(m.state(victim.gpa + LINE)? == "latent");
    m.met(0, 0)?;
    let end = m.go_on(&victim)?;
    let wanted = format!("load {PAGE:#x}: {:#x}\n", PAGE + 1);
    ensure!(end.1.starts_with(&wanted), "{end:?}");
    m.saw(row, Outcome::of(&end, &victim))?;
    m.met(1, 1)?;
    ensure!(m.state(victim.gpa + LINE)? == "known");
    let verdict = m.verdict(victim.gpa)?;
    ensure!(verdict.ends_with("Recovered"), "{verdict}");
    let (code, said) = m.go_on(&other)?;
    ensure!(
        code == "0" && said.contains(&format!("load {PAGE:#x}: {:#x}", PAGE + 1)),
        "{code}: {said}"
    );
    m.met(0, 0)
}

/// Steps of one machine, in this order; one that fails does not keep the others from being tried.
pub fn walk(m: &mut Machine, steps: &[(&str, Step)]) -> Result<()> {
    let mut failures = vec![];
    for (name, step) in steps {
        if let Err(error) = step(m) {
            let log = m.guest.check("dmesg | tail -n 12")?;
            failures.push(format!("{name}: {error:#}\n{log}"));
            m.count_again()?;
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Something that happens to a machine.
pub type Step = fn(&mut Machine) -> Result<()>;
