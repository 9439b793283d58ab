//! Machine checks as values: what a processor promises, the records of each kind of memory error, and whether a processor
//! can take one now. Pure; [`crate::hv`] hands the records to KVM.
//!
//! ```text
//! kind of error + personality + address -> Record -> admit(&Banks) -> the vCPU's bank, and #MC
//! ```
//! The words are those of the SDM: SRAR (software recoverable, action required), SRAO (action optional), UCNA (uncorrected,
//! no action), CE (corrected). Intel SDM 3B chapters 15 and 16; AMD APM 2 chapter 9.

use crate::cpuid::Vendor;
use devices::{apei::Severity, units::Gpa};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `MCG_CAP` bits above the number of banks.
pub mod cap {
    /// There is an `MCG_CTL`.
    pub const CTL: u64 = 1 << 8;
    /// Software error recovery.
    pub const SER: u64 = 1 << 24;
    /// Extended error log. KVM has no vCPU that says so.
    pub const ELOG: u64 = 1 << 26;
    /// Local machine checks.
    pub const LMCE: u64 = 1 << 27;
}

/// `MCi_STATUS` bits.
pub mod status {
    /// The record is there.
    pub const VAL: u64 = 1 << 63;
    /// One before it is lost.
    pub const OVER: u64 = 1 << 62;
    /// Uncorrected.
    pub const UC: u64 = 1 << 61;
    /// Its reporting is enabled.
    pub const EN: u64 = 1 << 60;
    /// `MCi_MISC` is valid.
    pub const MISCV: u64 = 1 << 59;
    /// `MCi_ADDR` is valid.
    pub const ADDRV: u64 = 1 << 58;
    /// The processor's context is corrupt.
    pub const PCC: u64 = 1 << 57;
    /// Signalled (Intel).
    pub const S: u64 = 1 << 56;
    /// Action required (Intel).
    pub const AR: u64 = 1 << 55;
    /// Deferred (AMD).
    pub const DEFERRED: u64 = 1 << 44;
    /// Poison was consumed (AMD).
    pub const POISON: u64 = 1 << 43;
}

/// `MCG_STATUS` bits.
pub mod global {
    /// The instruction pointer on the stack is that of an instruction that can be restarted.
    pub const RIPV: u64 = 1 << 0;
    /// That instruction made the error.
    pub const EIPV: u64 = 1 << 1;
    /// A machine check is being handled.
    pub const MCIP: u64 = 1 << 2;
    /// It went to this processor alone.
    pub const LMCES: u64 = 1 << 3;
}

/// Register numbers.
pub mod msr {
    /// `IA32_FEATURE_CONTROL`.
    pub const FEATURE_CONTROL: u32 = 0x3a;
    /// `IA32_MCG_CAP`.
    pub const MCG_CAP: u32 = 0x179;
    /// `IA32_MCG_STATUS`.
    pub const MCG_STATUS: u32 = 0x17a;
    /// `IA32_MCG_CTL`.
    pub const MCG_CTL: u32 = 0x17b;
    /// `IA32_MCG_EXT_CTL`.
    pub const MCG_EXT_CTL: u32 = 0x4d0;
    /// `IA32_MC0_CTL`; each bank has four registers.
    pub const MC0_CTL: u32 = 0x400;
}

/// `CR4.MCE`.
pub const CR4_MCE: u64 = 1 << 6;
/// Banks that a vCPU has: as many as a server's processor of one memory controller.
pub const BANKS: u8 = 10;
/// Bank of memory errors on Intel processors: that of a memory controller.
const INTEL_BANK: u8 = 9;
/// The one in which Linux looks for DRAM errors of AMD processors without scalable MCA: the north bridge's.
const AMD_BANK: u8 = 4;
/// Bank that a processor shows which only takes part in another's broadcast.
const COMPANION_BANK: u8 = 1;
/// Extended error code of DRAM ECC in that bank.
const AMD_DRAM_ECC: u64 = 0x8 << 16;
/// `MCi_MISC`: the address is a physical one.
const MODE_PHYSICAL: u64 = 2 << 6;
/// `FEATURE_CONTROL` as firmware leaves it: locked, local machine checks allowed.
pub const FEATURE_CONTROL_LMCE: u64 = 1 << 20 | 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A load met bad memory; the processor cannot go on before somebody has acted.
    Srar,
    /// An instruction fetch met bad memory.
    SrarFetch,
    /// A scrubber found bad memory that nobody has consumed.
    Srao,
    /// Bad memory was found and needs no action: noted in the bank, no exception.
    Ucna,
    /// An error was corrected: noted in the bank, no exception.
    Corrected,
    /// The processor's context is lost.
    Fatal,
}

impl Kind {
    /// Whether the processor takes #MC.
    pub fn is_exception(self) -> bool {
        !matches!(self, Self::Ucna | Self::Corrected)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Srar => "SRAR (data load)",
            Self::SrarFetch => "SRAR (instruction fetch)",
            Self::Srao => "SRAO",
            Self::Ucna => "UCNA",
            Self::Corrected => "CE",
            Self::Fatal => "fatal",
        })
    }
}

/// What KVM is told: one bank of one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// Number of the bank.
    pub bank: u8,
    /// `MCi_STATUS`.
    pub status: u64,
    /// `MCi_ADDR`.
    pub address: u64,
    /// `MCi_MISC`.
    pub misc: u64,
    /// `MCG_STATUS` while it is handled; 0: there is no exception.
    pub global: u64,
}

/// How the processors of a machine report memory errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality {
    /// Whose rules the guest's kernel follows.
    pub vendor: Vendor,
    /// `MCG_CAP` as the guest reads it.
    pub cap: u64,
    /// The part of it that KVM knows of.
    pub held: u64,
}

/// What a processor's machine check registers hold now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Banks {
    /// `CR4`.
    pub cr4: u64,
    /// `MCG_STATUS`.
    pub global: u64,
    /// `MCG_CTL`; none: the processor has no such register.
    pub global_ctl: Option<u64>,
    /// `MCi_CTL` of the banks.
    pub ctl: [u64; BANKS as usize],
    /// `MCG_EXT_CTL`, 0 without one.
    pub extended_ctl: u64,
}

/// Why a processor cannot take a machine check now. KVM would bring it down, or lose the record without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The guest has not set up machine checks.
    #[error("CR4.MCE is clear: the guest has not enabled machine checks, and one would shut the processor down")]
    Disabled,
    /// One is being handled.
    #[error("MCG_STATUS.MCIP is set: the guest handles a machine check, and another would shut the processor down")]
    InProgress,
    /// Not all errors are to be reported.
    #[error("MCG_CTL is {0:#x}, not all ones: the guest has switched reporting off, and the record would be lost")]
    GlobalControl(u64),
    /// Not those of this bank.
    #[error(
        "MC{bank}_CTL is {ctl:#x}, not all ones: the guest has switched the bank off, and the record would be lost"
    )]
    BankControl {
        /// Which.
        bank: u8,
        /// Its control register.
        ctl: u64,
    },
    /// No such bank.
    #[error("there is no bank {0}: the vCPUs have {BANKS}")]
    NoBank(u8),
}

impl Personality {
    /// What processors of `vendor` are asked to promise on a KVM that says that it supports the bits in `supported`.
    pub fn plan(vendor: Vendor, supported: u64) -> Self {
        // Local machine checks are Intel's; AMD processors never have others.
        let wanted = match vendor {
            Vendor::Intel => cap::CTL | cap::SER | cap::LMCE,
            Vendor::Amd | Vendor::Other => cap::CTL | cap::SER,
        };
        let held = u64::from(BANKS) | supported & wanted;
        Self {
            vendor,
            cap: held,
            held,
        }
    }

    /// The same on a KVM that holds `held` of it: on AMD's processors fewer bits than it says. `shown`: the guest can read more than that.
    /// KVM takes records of any kind, so Intel's processors can recover then, whatever the host's are.
    #[must_use]
    pub fn with_held(self, held: u64, shown: bool) -> Self {
        let recovery = match shown && self.vendor == Vendor::Intel {
            true => cap::SER,
            false => 0,
        };
        Self {
            cap: held | recovery,
            held,
            ..self
        }
    }

    /// What the guest reads beyond what KVM holds.
    pub fn shown(&self) -> u64 {
        self.cap & !self.held
    }

    /// Whether `MCG_CAP` says that software can recover from an error that needs action: Intel's processors do not without.
    pub fn recovers(&self) -> bool {
        self.cap & cap::SER != 0
    }

    /// Whether processors can take machine checks of their own, if the guest allows it.
    pub fn has_local(&self) -> bool {
        self.cap & cap::LMCE != 0
    }

    /// Whether a machine check of a processor with `banks` concerns that processor alone.
    pub fn is_local(&self, banks: &Banks) -> bool {
        self.vendor == Vendor::Amd || self.has_local() && banks.extended_ctl & 1 != 0
    }

    /// The record of an error at `address`, of which the bits from `lsb` on are valid (6: a line of 64 bytes, 12: a page).
    /// `local`: no other processor hears of it.
    pub fn record(&self, kind: Kind, address: Gpa, lsb: u8, local: bool) -> Record {
        let amd = self.vendor == Vendor::Amd;
        let kind = match kind {
            // As on processors before software recovery: the context counts as lost.
            Kind::Srar | Kind::SrarFetch if !amd && !self.recovers() => Kind::Fatal,
            kind => kind,
        };
        let lines = status::VAL | status::EN | status::MISCV | status::ADDRV;
        let lmces = if local && !amd { global::LMCES } else { 0 };
        let handled = global::RIPV | global::MCIP | lmces;
        let (status, global) = match (kind, amd) {
            // MCA codes: data load 0x134, instruction fetch 0x150, scrub of an unknown channel 0xcf, read of one 0x9f.
            (Kind::Srar, false) => (
                lines | status::UC | status::S | status::AR | 0x134,
                handled | global::EIPV,
            ),
            (Kind::SrarFetch, false) => (
                lines | status::UC | status::S | status::AR | 0x150,
                handled | global::EIPV,
            ),
            (Kind::Srao, false) => (lines | status::UC | status::S | 0xcf, handled),
            (Kind::Ucna, false) => (lines | status::UC | 0x9f, 0),
            (Kind::Corrected, false) => (lines | 0x9f, 0),
            (Kind::Fatal, false) => (
                lines | status::UC | status::S | status::PCC | 0x134,
                global::MCIP | lmces,
            ),
            (Kind::Srar, true) => (
                lines | status::UC | status::POISON | AMD_DRAM_ECC | 0x134,
                handled | global::EIPV,
            ),
            (Kind::SrarFetch, true) => (
                lines | status::UC | status::POISON | AMD_DRAM_ECC | 0x150,
                handled | global::EIPV,
            ),
            // What has no exception is found by polling.
            (Kind::Srao | Kind::Ucna, true) => (lines | status::DEFERRED | status::POISON | AMD_DRAM_ECC | 0xcf, 0),
            (Kind::Corrected, true) => (lines | AMD_DRAM_ECC | 0x9f, 0),
            (Kind::Fatal, true) => (lines | status::UC | status::PCC | AMD_DRAM_ECC | 0x134, global::MCIP),
        };
        Record {
            bank: if amd { AMD_BANK } else { INTEL_BANK },
            status,
            address: address.0 & u64::MAX << lsb,
            misc: MODE_PHYSICAL | u64::from(lsb & 0x3f),
            global,
        }
    }

    /// What the other processors show of a machine check that is not local.
    pub fn companion(&self) -> Record {
        Record {
            bank: COMPANION_BANK,
            status: status::VAL | status::UC,
            address: 0,
            misc: 0,
            global: global::RIPV | global::MCIP,
        }
    }
}

impl Record {
    /// How bad the error is, as firmware says it.
    pub fn severity(&self) -> Severity {
        let is = |bits| self.status & bits != 0;
        match (is(status::PCC), is(status::UC | status::DEFERRED)) {
            (true, _) => Severity::Fatal,
            (false, true) => Severity::Recoverable,
            (false, false) => Severity::Corrected,
        }
    }

    /// Whether the processor takes #MC.
    pub fn is_exception(&self) -> bool {
        self.global != 0
    }

    /// Whether a processor with `banks` can take it.
    pub fn admit(&self, banks: &Banks) -> Result<(), Refusal> {
        let ctl = *banks
            .ctl
            .get(usize::from(self.bank))
            .ok_or(Refusal::NoBank(self.bank))?;
        if !self.is_exception() {
            // KVM stores the record and leaves the rest to the guest's polling.
            return Ok(());
        }
        if banks.cr4 & CR4_MCE == 0 {
            return Err(Refusal::Disabled);
        }
        if banks.global & global::MCIP != 0 {
            return Err(Refusal::InProgress);
        }
        if let Some(word) = banks.global_ctl.filter(|word| *word != u64::MAX) {
            return Err(Refusal::GlobalControl(word));
        }
        if ctl != u64::MAX {
            let bank = self.bank;
            return Err(Refusal::BankControl { bank, ctl });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "mce_tests.rs"]
mod tests;
