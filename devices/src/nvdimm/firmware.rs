//! Firmware of one DIMM: an image comes in pieces, is verified for a while, waits, and is activated while the machine runs
//! or by the next power cycle.
//!
//! ```text
//!        start            finish                verified              activated, power cycle
//!  idle ------> receiving ------> verifying ------------> staged ------------------------> idle, new version runs
//!    ^              |                |   \
//!    +--- abort ----+----- abort ----+    +-- bad image --> idle
//! ```
//!
//! An image is anything; its version is [`PLAIN_VERSION`], as with Linux's `nfit_test`. One that begins with the line
//! `daxvisor-firmware VERSION LENGTH` has that version and must have that many bytes with the line, or it is bad. So is
//! an empty one.
//!
//! Pure: time comes in as an argument.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most bytes of an image.
pub const STORAGE: usize = 1 << 20;
/// Most bytes in one piece. With the words before it a piece fits into the mailbox of 64 KiB.
pub const MAX_PIECE: usize = 0xf000;
/// How often to ask whether verification is over.
pub const QUERY_INTERVAL: Duration = Duration::from_millis(250);
/// When to give up asking.
pub const MAX_QUERY: Duration = Duration::from_secs(3);
/// How long verification takes.
pub const VERIFICATION: Duration = Duration::from_secs(1);
/// How long an activation keeps the DIMMs of its bus busy.
pub const ACTIVATION: Duration = Duration::from_secs(3);
/// Version of an image without a line of its own.
pub const PLAIN_VERSION: u64 = 0xffff_ffff_abcd;
/// What an image with a version begins with.
const HEADER: &[u8] = b"daxvisor-firmware ";
/// Most bytes of its first line.
const MAX_HEADER: usize = 64;

/// What outlives a power cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareState {
    /// Version that runs.
    pub running: u64,
    /// Version that the next power cycle starts.
    pub staged: Option<u64>,
}

/// Why a request is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirmwareError {
    /// Another update is under way, or one waits for its activation.
    Busy,
    /// No update is under way.
    NotReceiving,
    /// Of another update.
    WrongContext,
    /// Outside the storage, too long, or with a gap before it.
    BadPiece,
    /// The update is complete.
    AlreadyDone,
    /// The image is none.
    BadImage,
    /// Verification is not over.
    Verifying,
    /// Nothing was finished yet.
    OutOfOrder,
}

/// State of activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing to do.
    Idle,
    /// The next activation includes this DIMM.
    Armed,
    /// One goes on.
    Busy,
}

/// What the last activation did to the DIMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationResult {
    /// It did not take part.
    None,
    /// It had nothing to activate.
    NotStaged,
    /// The new version runs.
    Success,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    Receiving(Vec<u8>),
    Verifying { until: Duration, version: Option<u64> },
    Staged,
}

/// The firmware of one DIMM.
#[derive(Debug, Clone)]
pub struct Firmware {
    state: FirmwareState,
    stage: Stage,
    context: u32,
    /// Version of the last good image since power-on; it stays when that is activated.
    updated: u64,
    armed: bool,
    busy_until: Option<Duration>,
    result: ActivationResult,
}

impl Firmware {
    /// The firmware at power-on of the DIMM that left `state`: what was staged runs.
    pub fn restore(state: FirmwareState) -> Self {
        Self {
            state: FirmwareState {
                running: state.staged.unwrap_or(state.running),
                staged: None,
            },
            stage: Stage::Idle,
            context: 0,
            updated: 0,
            armed: false,
            busy_until: None,
            result: ActivationResult::None,
        }
    }

    /// What outlives the run.
    pub fn state(&self) -> &FirmwareState {
        &self.state
    }

    /// Version of the last good image since power-on; 0: none.
    pub fn updated(&self) -> u64 {
        self.updated
    }

    /// Begins an update; returns its context.
    pub fn start(&mut self) -> Result<u32, FirmwareError> {
        if self.stage != Stage::Idle {
            return Err(FirmwareError::Busy);
        }
        self.context = self.context.wrapping_add(1);
        self.stage = Stage::Receiving(Vec::new());
        Ok(self.context)
    }

    /// Takes a piece of the image. Pieces may overlap, but leave no gap.
    pub fn send(&mut self, context: u32, offset: usize, piece: &[u8]) -> Result<(), FirmwareError> {
        let Stage::Receiving(image) = &mut self.stage else {
            return Err(FirmwareError::NotReceiving);
        };
        if context != self.context {
            return Err(FirmwareError::WrongContext);
        }
        let end = offset.checked_add(piece.len()).filter(|end| *end <= STORAGE);
        let end = end
            .filter(|_| piece.len() <= MAX_PIECE)
            .ok_or(FirmwareError::BadPiece)?;
        if image.len() < end {
            if offset > image.len() {
                return Err(FirmwareError::BadPiece);
            }
            image.resize(end, 0);
        }
        let place = image.get_mut(offset..end).ok_or(FirmwareError::BadPiece)?;
        place.copy_from_slice(piece);
        Ok(())
    }

    /// The image is complete: its verification begins at `now`.
    pub fn finish(&mut self, context: u32, now: Duration) -> Result<(), FirmwareError> {
        let image = match &self.stage {
            Stage::Idle => return Err(FirmwareError::WrongContext),
            Stage::Verifying { .. } | Stage::Staged => return Err(FirmwareError::AlreadyDone),
            Stage::Receiving(image) => image,
        };
        if context != self.context {
            return Err(FirmwareError::WrongContext);
        }
        if image.is_empty() {
            return Err(FirmwareError::BadImage);
        }
        self.stage = Stage::Verifying {
            until: now.saturating_add(VERIFICATION),
            version: version_of(image),
        };
        Ok(())
    }

    /// Gives up whatever update is under way, whoever began it. One that is complete stays.
    pub fn abort(&mut self) -> Result<(), FirmwareError> {
        if self.stage == Stage::Staged {
            return Err(FirmwareError::AlreadyDone);
        }
        self.stage = Stage::Idle;
        Ok(())
    }

    /// The version that a finished update brought; 0: it was given up.
    pub fn query(&mut self, context: u32, now: Duration) -> Result<u64, FirmwareError> {
        if context != self.context {
            return Err(FirmwareError::WrongContext);
        }
        match self.stage {
            Stage::Idle => Ok(0),
            Stage::Receiving(_) => Err(FirmwareError::OutOfOrder),
            Stage::Verifying { until, .. } if now < until => Err(FirmwareError::Verifying),
            Stage::Verifying { version: None, .. } => {
                self.stage = Stage::Idle;
                Err(FirmwareError::BadImage)
            }
            Stage::Verifying {
                version: Some(version), ..
            } => {
                self.stage = Stage::Staged;
                self.state.staged = Some(version);
                self.updated = version;
                Ok(version)
            }
            Stage::Staged => Ok(self.updated),
        }
    }

    /// Whether the next activation includes this DIMM.
    pub fn arm(&mut self, armed: bool) {
        self.armed = armed;
    }

    /// See [`Firmware::arm`].
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    /// State of activation.
    pub fn activation(&self, now: Duration) -> Activation {
        match self.busy_until {
            _ if self.armed => Activation::Armed,
            Some(until) if now < until => Activation::Busy,
            _ => Activation::Idle,
        }
    }

    /// What the last activation did; known when the DIMM is idle again.
    pub fn result(&self, now: Duration) -> ActivationResult {
        match self.activation(now) {
            Activation::Idle => self.result,
            Activation::Armed | Activation::Busy => ActivationResult::None,
        }
    }

    /// An activation of the whole bus.
    pub fn activate(&mut self, now: Duration) {
        self.result = match (self.armed, self.state.staged) {
            (false, _) => ActivationResult::None,
            (true, None) => ActivationResult::NotStaged,
            (true, Some(version)) => {
                self.state = FirmwareState {
                    running: version,
                    staged: None,
                };
                self.stage = Stage::Idle;
                ActivationResult::Success
            }
        };
        self.armed = false;
        self.busy_until = Some(now.saturating_add(ACTIVATION));
    }
}

/// Version of an image, if it is one.
fn version_of(image: &[u8]) -> Option<u64> {
    let Some(line) = image.strip_prefix(HEADER) else {
        return (!image.is_empty()).then_some(PLAIN_VERSION);
    };
    let end = line.iter().take(MAX_HEADER).position(|b| *b == b'\n')?;
    let line = std::str::from_utf8(line.get(..end)?).ok()?;
    let (version, length) = line.split_once(' ')?;
    let version = match version.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => version.parse().ok()?,
    };
    let whole = length.parse::<usize>().ok()? == image.len();
    // 0 is no version, and all ones an invalid one to ndctl.
    (whole && !matches!(version, 0 | u64::MAX)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(100);

    fn firmware() -> Firmware {
        Firmware::restore(FirmwareState::default())
    }

    /// A finished update with `image`, and what a query after its verification says.
    fn update(firmware: &mut Firmware, image: &[u8]) -> Result<u64, FirmwareError> {
        let context = firmware.start()?;
        firmware.send(context, 0, image)?;
        firmware.finish(context, START)?;
        assert_eq!(firmware.query(context, START), Err(FirmwareError::Verifying));
        let last = START + VERIFICATION - Duration::from_nanos(1);
        assert_eq!(firmware.query(context, last), Err(FirmwareError::Verifying));
        firmware.query(context, START + VERIFICATION)
    }

    #[test]
    fn an_update_is_staged_and_runs_after_the_power_cycle() {
        let mut firmware = firmware();
        assert_eq!(update(&mut firmware, &[0; 100]), Ok(PLAIN_VERSION));
        assert_eq!(firmware.query(1, START), Ok(PLAIN_VERSION));
        assert_eq!(firmware.updated(), PLAIN_VERSION);
        let state = *firmware.state();
        assert_eq!((state.running, state.staged), (0, Some(PLAIN_VERSION)));
        let next = Firmware::restore(state);
        assert_eq!((next.state().running, next.updated()), (PLAIN_VERSION, 0));
        assert_eq!(Firmware::restore(*next.state()).state(), next.state());
    }

    #[test]
    fn one_update_at_a_time_until_it_is_activated() {
        let mut firmware = firmware();
        firmware.start().unwrap();
        assert_eq!(firmware.start(), Err(FirmwareError::Busy));
        firmware.abort().unwrap();
        update(&mut firmware, b"image").unwrap();
        assert_eq!(firmware.start(), Err(FirmwareError::Busy));
        assert_eq!(firmware.abort(), Err(FirmwareError::AlreadyDone));
        assert_eq!(firmware.finish(2, START), Err(FirmwareError::AlreadyDone));
        firmware.arm(true);
        firmware.activate(START);
        assert_eq!(firmware.start(), Ok(3));
    }

    #[test]
    fn pieces_leave_no_gap_and_stay_in_the_storage() {
        let mut firmware = firmware();
        assert_eq!(firmware.send(0, 0, &[1]), Err(FirmwareError::NotReceiving));
        let context = firmware.start().unwrap();
        assert_eq!(firmware.send(context + 1, 0, &[1]), Err(FirmwareError::WrongContext));
        let piece = vec![7; MAX_PIECE];
        for (offset, len, fits) in [
            (1, 1, false),
            (0, MAX_PIECE, true),
            (MAX_PIECE + 1, 1, false),
            (10, MAX_PIECE, true),
            (0, MAX_PIECE + 1, false),
            (usize::MAX, 2, false),
        ] {
            let piece = [&piece[..], &[7]].concat();
            let sent = firmware.send(context, offset, &piece[..len]);
            assert_eq!(sent.is_ok(), fits, "{len} bytes at {offset}");
        }
        let mut offset = MAX_PIECE;
        while offset + MAX_PIECE <= STORAGE {
            firmware.send(context, offset, &piece).unwrap();
            offset += MAX_PIECE;
        }
        assert_eq!(firmware.send(context, offset, &piece), Err(FirmwareError::BadPiece));
        assert_eq!(firmware.send(context, offset, &piece[..STORAGE - offset]), Ok(()));
        assert_eq!(firmware.send(context, STORAGE, &[1]), Err(FirmwareError::BadPiece));
    }

    #[test]
    fn requests_out_of_order_say_so() {
        let mut firmware = firmware();
        assert_eq!(firmware.finish(0, START), Err(FirmwareError::WrongContext));
        assert_eq!(firmware.query(1, START), Err(FirmwareError::WrongContext));
        let context = firmware.start().unwrap();
        assert_eq!(firmware.query(context, START), Err(FirmwareError::OutOfOrder));
        assert_eq!(firmware.finish(context, START), Err(FirmwareError::BadImage), "empty");
        firmware.send(context, 0, &[1]).unwrap();
        assert_eq!(firmware.finish(context + 1, START), Err(FirmwareError::WrongContext));
        firmware.finish(context, START).unwrap();
        assert_eq!(firmware.finish(context, START), Err(FirmwareError::AlreadyDone));
        assert_eq!(firmware.abort(), Ok(()));
        assert_eq!(firmware.query(context, START), Ok(0), "given up");
    }

    #[test]
    fn images_with_a_line_have_its_version_and_length() {
        let line = |text: &str, more: usize| [text.as_bytes(), &vec![0; more]].concat();
        for (image, version) in [
            (line("daxvisor-firmware 0x102 25\n", 0), None),
            (line("daxvisor-firmware 0x102 27\n", 0), Some(0x102)),
            (line("daxvisor-firmware 7 1000\n", 975), Some(7)),
            (line("daxvisor-firmware 7 1000\n", 974), None),
            (line("daxvisor-firmware 0 23\n", 0), None),
            (line("daxvisor-firmware 0xffffffffffffffff 40\n", 0), None),
            (line("daxvisor-firmware 7", 0), None),
            (line("daxvisor-firmware ", 1000), None),
            (line("daxvisor-firmware -1 24\n", 0), None),
            (line("other", 0), Some(PLAIN_VERSION)),
        ] {
            let expected = version.ok_or(FirmwareError::BadImage);
            let mut firmware = firmware();
            assert_eq!(
                update(&mut firmware, &image),
                expected,
                "{}",
                String::from_utf8_lossy(&image)
            );
            assert_eq!(firmware.updated(), version.unwrap_or(0));
            assert_eq!(firmware.state().staged, version);
            // A bad one is gone: the next may come.
            assert_eq!(firmware.start().is_ok(), version.is_none());
        }
    }

    #[test]
    fn activation_takes_armed_dimms_with_something_staged() {
        for (armed, staged, result, running) in [
            (true, true, ActivationResult::Success, PLAIN_VERSION),
            (true, false, ActivationResult::NotStaged, 0),
            (false, true, ActivationResult::None, 0),
        ] {
            let mut firmware = firmware();
            if staged {
                update(&mut firmware, &[1]).unwrap();
            }
            firmware.arm(armed);
            let before = if armed { Activation::Armed } else { Activation::Idle };
            assert_eq!(firmware.activation(START), before);
            firmware.activate(START);
            assert_eq!(firmware.activation(START), Activation::Busy);
            assert_eq!(firmware.result(START), ActivationResult::None);
            let end = START + ACTIVATION;
            assert_eq!(
                (firmware.activation(end), firmware.result(end)),
                (Activation::Idle, result)
            );
            assert_eq!(firmware.state().running, running);
            assert!(!firmware.is_armed());
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_requests_goes_beyond_the_storage_or_runs_what_was_not_verified(
            requests in prop::collection::vec((0u8..7, 0u32..4, 0usize..STORAGE + 10, 0usize..MAX_PIECE + 2), 0..40),
        ) {
            let mut firmware = firmware();
            let mut now = START;
            let mut verified = false;
            for (request, context, offset, len) in requests {
                match request {
                    0 => drop(firmware.start()),
                    1 => drop(firmware.send(context, offset, &vec![1; len])),
                    2 => drop(firmware.finish(context, now)),
                    3 => drop(firmware.abort()),
                    4 => verified |= firmware.query(context, now) == Ok(PLAIN_VERSION),
                    5 => firmware.arm(context % 2 == 0),
                    _ => firmware.activate(now),
                }
                now += Duration::from_millis(400);
                if let Stage::Receiving(image) = &firmware.stage {
                    prop_assert!(image.len() <= STORAGE);
                }
                prop_assert!(verified || firmware.state() == &FirmwareState::default());
            }
        }
    }
}
