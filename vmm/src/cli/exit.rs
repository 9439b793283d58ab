//! How daxvisor ends: one table for the code, the help and docs/config.md.

use crate::machine::Outcome;
use std::ops::RangeInclusive;

/// Why the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// The guest powered itself off, or there was nothing to run.
    PowerOff,
    /// daxvisor failed.
    VmmError,
    /// Flags, configuration file or named files are wrong.
    BadConfig,
    /// The guest asked for a reset.
    Reset,
    /// The guest's kernel panicked.
    Panicked,
    /// A vCPU shut down by a triple fault.
    TripleFault,
    /// The user ended the run, from the console or over the API.
    Quit,
    /// The guest shut down on bad memory that it could not take a machine check for.
    MachineCheck,
    /// The guest wrote this value to the test-exit port.
    TestExit(u8),
    /// `--timeout` passed.
    Timeout,
    /// The host cannot run guests.
    HostFailure,
    /// A signal ended the run.
    Signal(u8),
    /// The code of the same command in the nested host, one of the others.
    PassedOn(u8),
}

/// Exit codes with their meaning, in order.
pub const TABLE: &[(RangeInclusive<u8>, &str)] = &[
    (0..=0, "the guest powered off, or what was asked for is printed"),
    (1..=1, "daxvisor itself failed"),
    (
        2..=2,
        "bad configuration: a flag, the file of --config, or a file that they name",
    ),
    (3..=3, "the guest reset"),
    (4..=4, "the guest's kernel panicked"),
    (5..=5, "triple fault in the guest"),
    (
        6..=6,
        "ended by the user: Ctrl-A x on the console, or `daxvisor ctl quit`",
    ),
    (
        7..=7,
        "the guest met bad memory where it could take no machine check: real hardware shuts down",
    ),
    (
        64..=95,
        "the guest wrote to the test-exit port: 64 + the value, 95 for 31 and above",
    ),
    (124..=124, "--timeout passed"),
    (
        125..=125,
        "the host cannot run guests: no usable KVM, no guest images, or the nested host failed",
    ),
    (129..=192, "ended by a signal: 128 + its number"),
];

impl ExitCode {
    /// The exit status; [`TABLE`] has the meaning.
    pub fn code(self) -> u8 {
        match self {
            Self::PowerOff => 0,
            Self::VmmError => 1,
            Self::BadConfig => 2,
            Self::Reset => 3,
            Self::Panicked => 4,
            Self::TripleFault => 5,
            Self::Quit => 6,
            Self::MachineCheck => 7,
            Self::TestExit(value) => 64 + value.min(31),
            Self::Timeout => 124,
            Self::HostFailure => 125,
            Self::PassedOn(code) => code,
            Self::Signal(number) => 128 + number.clamp(1, 64),
        }
    }
}

impl From<&Outcome> for ExitCode {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::PowerOff => Self::PowerOff,
            Outcome::Reset | Outcome::ResetByControl => Self::Reset,
            Outcome::Panicked => Self::Panicked,
            Outcome::TestExit(value) => Self::TestExit(*value),
            Outcome::TripleFault { .. } => Self::TripleFault,
            Outcome::MachineCheck { .. } => Self::MachineCheck,
            Outcome::Failed { .. } => Self::VmmError,
            Outcome::Quit | Outcome::QuitByControl => Self::Quit,
            Outcome::Signal(number) => Self::Signal(*number),
            Outcome::TimedOut => Self::Timeout,
        }
    }
}

/// The table for `--help`.
pub(super) fn help() -> String {
    let row = |(codes, meaning): &(RangeInclusive<u8>, &str)| {
        let codes = match (codes.start(), codes.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        format!("  {codes:<8}{meaning}")
    };
    let rows: Vec<_> = TABLE.iter().map(row).collect();
    format!("Exit codes:\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_own_row_of_the_table() {
        use ExitCode::*;
        let ends = [
            PowerOff,
            VmmError,
            BadConfig,
            Reset,
            Panicked,
            TripleFault,
            Quit,
            MachineCheck,
            TestExit(0),
            Timeout,
            HostFailure,
            Signal(15),
        ];
        assert_eq!(ends.len(), TABLE.len());
        for (end, (codes, _)) in ends.iter().zip(TABLE) {
            assert!(codes.contains(&end.code()), "{end:?}");
        }
        assert!(TABLE.windows(2).all(|w| w[0].0.end() < w[1].0.start()));
    }

    #[test]
    fn values_stay_in_their_row() {
        let codes = [(0, 64), (1, 65), (31, 95), (32, 95), (255, 95)];
        assert!(
            codes
                .iter()
                .all(|(value, code)| ExitCode::TestExit(*value).code() == *code)
        );
        let codes = [(0, 129), (15, 143), (64, 192), (255, 192)];
        assert!(
            codes
                .iter()
                .all(|(number, code)| ExitCode::Signal(*number).code() == *code)
        );
    }
}
