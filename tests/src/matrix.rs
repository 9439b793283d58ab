//! The matrix of bad memory: what is bad, who meets it, and what Linux makes of that, on two kernels.
//!
//! [`ROWS`] is what the documentation promises. A test that has seen a cell says so ([`saw`]): an outcome that is not the promised
//! one fails the test, and all are told to `cargo xtask poison-matrix`, which writes docs/poison-matrix.md from them.

use crate::poison::{End, Program};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{
    fmt,
    io::{self, Write},
};

/// The kernels of the columns.
pub const KERNELS: [&str; 2] = ["debian-6.1-amd64", "debian-6.12-amd64"];

/// What a guest made of bad memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// SIGBUS with `BUS_MCEERR_AR` and an address within so many bytes (a power of two) around the line.
    Killed {
        /// `si_addr_lsb`.
        lsb: u32,
    },
    /// SIGBUS with `BUS_ADRERR`: the page is not handed out.
    NotHandedOut,
    /// The program has what it asked for.
    Fine,
    /// The kernel read the page again from the disk, and the program has what it asked for.
    ReadAgain,
    /// The call fails with EFAULT, and with EIO from then on.
    Efault,
    /// The call fails with EIO.
    Eio,
    /// The line is good again everywhere.
    Good,
    /// Taken out of use before anybody met it.
    TakenAway,
    /// Given back, and the errors with it.
    GivenBack,
    /// Gone from RAM; those of NVDIMMs are still there.
    OnlyNvdimms,
    /// The kernel panics: exit code 4.
    Panic,
    /// Something that no row promises.
    Other,
}

impl Outcome {
    /// How a program ended that loads the line of its page.
    pub fn of((code, said): &End, program: &Program) -> Self {
        let last = said.lines().last().unwrap_or_default();
        let words: Vec<&str> = last.split_whitespace().collect();
        match (code.as_str(), words.as_slice()) {
            ("0", _) => Self::Fine,
            ("7", ["SIGBUS", "code", "2", ..]) => Self::NotHandedOut,
            ("7", ["SIGBUS", "code", "4", "offset", offset, "lsb", lsb]) => {
                let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16);
                match (offset, lsb.parse::<u32>()) {
                    // A larger page begins where its own size has it, the mapping of it as well.
                    (Ok(offset), Ok(lsb)) if lsb < 64 && offset >> lsb == program.at >> lsb => Self::Killed { lsb },
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed { lsb: 12 } => "SIGBUS, `BUS_MCEERR_AR`, the page's address",
            Self::Killed { lsb: 21 } => "SIGBUS, `BUS_MCEERR_AR`, the address of the 2 MiB",
            Self::Killed { lsb: 30 } => "SIGBUS, `BUS_MCEERR_AR`, the address of the 1 GiB",
            Self::Killed { lsb } => return write!(f, "SIGBUS, `BUS_MCEERR_AR`, the address of 2^{lsb} bytes"),
            Self::NotHandedOut => "SIGBUS, `BUS_ADRERR`",
            Self::Fine => "unharmed",
            Self::ReadAgain => "unharmed: read from the disk again",
            Self::Efault => "EFAULT, and EIO from then on",
            Self::Eio => "EIO",
            Self::Good => "good again everywhere",
            Self::TakenAway => "taken out of use before anybody meets it",
            Self::GivenBack => "given back, the errors gone with it",
            Self::OnlyNvdimms => "gone from RAM, as before in NVDIMMs",
            Self::Panic => "the kernel panics, exit code 4",
            Self::Other => "something else",
        })
    }
}

/// A row: what is bad and who meets it.
#[derive(Debug)]
pub struct Row {
    /// What tests call it.
    pub id: &'static str,
    /// Whose memory.
    pub memory: &'static str,
    /// Who knows of the error before.
    pub state: &'static str,
    /// Who meets it.
    pub consumer: &'static str,
    /// What comes of it, by kernel as in [`KERNELS`].
    pub outcomes: [Outcome; 2],
}

const PAGE: Outcome = Outcome::Killed { lsb: 12 };

const fn row(
    id: &'static str,
    memory: &'static str,
    state: &'static str,
    consumer: &'static str,
    outcome: Outcome,
) -> Row {
    Row {
        id,
        memory,
        state,
        consumer,
        outcomes: [outcome, outcome],
    }
}

/// All that is promised.
pub const ROWS: &[Row] = &[
    row("pmem-map", "NVDIMM, file with DAX", "latent", "a program's load", PAGE),
    Row {
        outcomes: [Outcome::NotHandedOut, PAGE],
        ..row(
            "pmem-map-again",
            "NVDIMM, file with DAX",
            "known",
            "the same load again",
            PAGE,
        )
    },
    row(
        "pmem-read",
        "NVDIMM, file with DAX",
        "latent",
        "`read()`",
        Outcome::Efault,
    ),
    row(
        "pmem-read-known",
        "NVDIMM, file with DAX",
        "known",
        "`read()`",
        Outcome::Eio,
    ),
    row(
        "pmem-write",
        "NVDIMM",
        "known",
        "a write through the block device",
        Outcome::Good,
    ),
    row(
        "pmem-clear",
        "NVDIMM",
        "known",
        "`ndctl clear-errors`, then a new scrub",
        Outcome::Good,
    ),
    row(
        "pmem-scrub",
        "NVDIMM, device-dax",
        "latent",
        "a program's load while a scrub runs",
        Outcome::Killed { lsb: 21 },
    ),
    row(
        "node-mended",
        "NVDIMM as a node",
        "found by a scrub, cleared",
        "a program that fills the node",
        Outcome::Fine,
    ),
    row("node-program", "NVDIMM as a node", "latent", "a program's load", PAGE),
    row("ram-program", "boot RAM", "latent", "a program's load", PAGE),
    row(
        "ram-shared",
        "boot RAM, a page of two programs",
        "known",
        "the second program's load",
        PAGE,
    ),
    row(
        "ram-at-once",
        "boot RAM, two pages",
        "latent",
        "two programs on two vCPUs at once",
        PAGE,
    ),
    row(
        "ram-same-at-once",
        "boot RAM, a page of two programs",
        "latent",
        "both on two vCPUs at once",
        PAGE,
    ),
    row(
        "ram-thp",
        "boot RAM, a transparent huge page",
        "latent",
        "a program's load",
        PAGE,
    ),
    row(
        "ram-2m",
        "boot RAM, a hugetlb page of 2 MiB",
        "latent",
        "a program's load",
        Outcome::Killed { lsb: 21 },
    ),
    row(
        "ram-1g",
        "boot RAM, a hugetlb page of 1 GiB",
        "latent",
        "a program's load",
        Outcome::Killed { lsb: 30 },
    ),
    row(
        "cache-clean",
        "boot RAM, a clean page of a file",
        "latent",
        "a program's load",
        Outcome::ReadAgain,
    ),
    row(
        "cache-dirty",
        "boot RAM, a dirty page of a file",
        "latent",
        "write-back to a virtio disk, `fsync`",
        Outcome::Eio,
    ),
    row(
        "text",
        "boot RAM, text of the kernel",
        "latent",
        "the kernel",
        Outcome::Panic,
    ),
    row("dimm-program", "memory device", "latent", "a program's load", PAGE),
    row(
        "dimm-gone",
        "memory device",
        "one known, one latent",
        "its removal",
        Outcome::GivenBack,
    ),
    row(
        "free-idle",
        "memory device, 32 free pages",
        "latent",
        "nobody",
        Outcome::Fine,
    ),
    row(
        "free-offline",
        "memory device, a free page",
        "latent",
        "`soft_offline_page`",
        Outcome::TakenAway,
    ),
    row(
        "free-used",
        "memory device, free pages",
        "latent",
        "a program that gets them",
        PAGE,
    ),
    row(
        "storm",
        "boot RAM, beside 10000 bad lines elsewhere",
        "latent",
        "a program's load",
        PAGE,
    ),
    row(
        "storm-others",
        "memory device, 10000 lines at random",
        "latent",
        "a program on another node",
        Outcome::Fine,
    ),
    row("virtio-mem", "virtio-mem", "latent", "a program's load", PAGE),
    row(
        "soft-dax",
        "soft-reserved, device-dax",
        "latent",
        "a program's load",
        Outcome::Killed { lsb: 21 },
    ),
    row(
        "soft-ram",
        "soft-reserved as a node",
        "latent",
        "a program's load",
        PAGE,
    ),
    row(
        "reboot",
        "boot RAM and NVDIMM",
        "known and latent",
        "a reboot of the guest",
        Outcome::OnlyNvdimms,
    ),
];

/// A cell as a line for whoever reads this program's output.
const MARK: &str = "CELL: ";

/// Says what was seen, which has to be what is promised.
pub fn saw(id: &str, kernel: &str, outcome: Outcome) -> Result<()> {
    let number = ROWS.iter().position(|row| row.id == id);
    let number = number.with_context(|| format!("the matrix has no row {id}"))?;
    let column = KERNELS.iter().position(|name| *name == kernel);
    let column = column.with_context(|| format!("the matrix has no kernel {kernel}"))?;
    let row = &ROWS[number];
    let cell = json!({
        "row": number, "rows": ROWS.len(), "memory": row.memory, "state": row.state, "consumer": row.consumer,
        "kernel": kernel, "kernels": KERNELS,
        "outcome": outcome.to_string(), "expected": row.outcomes[column].to_string(),
    });
    // Past the capture of test output.
    let _ = writeln!(io::stderr().lock(), "{MARK}{cell}");
    ensure!(
        outcome == row.outcomes[column],
        "{id} on {kernel}: {outcome}, expected: {}",
        row.outcomes[column]
    );
    Ok(())
}
