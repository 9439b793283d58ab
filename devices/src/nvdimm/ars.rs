//! `_DSM` functions 1 to 9 of the NVDIMM root: address range scrub (ARS), clearing, translation, injection.
//! ACPI 6.5 9.20.7.
//!
//! A *short* scrub returns what is known and is done at once. A *full* one takes the time the machine's configuration
//! says and finds latent errors at its end. One runs at a time for a bus. A reply has room for a configured number of
//! records: the scrub that meets more stops before the first that does not fit and says where to go on.
//!
//! The records of a finished scrub are those known errors of the scrubbed range that are still there when the guest
//! asks, so what was cleared since is not reported as bad again.

use super::{
    BusState,
    dsm::{DsmFunction, DsmReply, DsmResult, DsmStatus, Tell, array_at, u64_at},
    errors::{self, ErrorsError, Runs},
    media::ErrorState,
    plan::{SpaKind, SpaPlan},
};
use crate::units::{Gpa, GpaRange};
use std::time::Duration;

/// Bytes that are cleared at once, and that the start and the length of what is cleared are multiples of.
pub const CLEAR_UNIT: u32 = 256;
/// Most records of one reply: the mailbox holds them.
pub const MAX_RECORDS: u32 = 2048;
/// Records of one reply where the configuration does not say: those of 4 KiB.
pub const DEFAULT_RECORDS: u32 = 170;
/// Time of a full scrub where the configuration does not say.
pub const DEFAULT_SCAN_TIME: Duration = Duration::from_millis(500);

/// All root functions there are, a bit each.
pub const ALL_FUNCTIONS: u32 = u32::MAX;

// Status words; the low half of each reply's first four bytes.
const NOT_SUPPORTED: DsmStatus = DsmStatus(1);
const INVALID: DsmStatus = DsmStatus(2);
const FAILED: DsmStatus = DsmStatus(3);
const SCRUB_RUNS: DsmStatus = DsmStatus(6);
/// Function 3: still running.
const IN_PROGRESS: DsmStatus = DsmStatus(1 << 16);
/// Function 3: none since power-on.
const NO_SCRUB: DsmStatus = DsmStatus(2 << 16);
/// Function 3: ended before the end of the range.
const STOPPED: DsmStatus = DsmStatus(3 << 16);

/// Function 1: the platform notifies of errors it finds, and a short scrub returns them.
const NOTIFIES: u16 = 1 << 0;
/// Function 2: return what is known.
const SHORT: u8 = 1 << 1;
/// Function 3: there are more errors than fit.
const OVERFLOW: u16 = 1 << 0;
/// Function 7: notify the guest.
const NOTIFY: u8 = 1 << 0;

/// Bytes of function 3's reply before the records, from the length field on.
const STATUS_HEADER: u32 = 44;
/// Bytes of one of its records.
const RECORD: u32 = 24;
/// Bytes of a record of function 9.
const INJECTED_RECORD: u32 = 16;

/// How the root of a bus behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPlan {
    /// Functions the root may have, bit `n` for function `n`.
    pub functions: u32,
    /// Time of a full scrub.
    pub scan_time: Duration,
    /// Most records of one reply, at most [`MAX_RECORDS`].
    pub records: u32,
}

impl Default for RootPlan {
    fn default() -> Self {
        Self {
            functions: ALL_FUNCTIONS,
            scan_time: DEFAULT_SCAN_TIME,
            records: DEFAULT_RECORDS,
        }
    }
}

impl RootPlan {
    fn records(&self) -> u32 {
        self.records.clamp(1, MAX_RECORDS)
    }

    /// Bytes of the longest reply of function 3.
    fn max_output(&self) -> u32 {
        4 + STATUS_HEADER + self.records() * RECORD
    }
}

/// What a scrub looks for. The word of the functions' type fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volatile = 1,
    Persistent = 2,
}

impl Kind {
    fn word(self) -> u16 {
        self as u16
    }

    /// What can be scrubbed in `spa`. Virtual disks and control regions have no media of their own.
    fn of(spa: &SpaPlan) -> Option<Self> {
        match spa.kind {
            SpaKind::Volatile => Some(Self::Volatile),
            SpaKind::Persistent => Some(Self::Persistent),
            _ => None,
        }
    }
}

/// A requested scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    range: GpaRange,
    kind: Kind,
}

/// The scrub of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ars(Scrub);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Scrub {
    /// None since power-on.
    #[default]
    Never,
    /// A full one, until then.
    Runs(Request, Duration),
    /// Done up to this address.
    Done(Request, Gpa),
}

/// The functions, for the root's family.
pub const FUNCTIONS: &[DsmFunction<BusState>] = &[
    DsmFunction {
        index: 1,
        since: 1,
        available: |bus| bus.allows(1),
        run: |bus, input| capabilities(bus, input),
    },
    DsmFunction {
        index: 2,
        since: 1,
        available: |bus| bus.allows(2),
        run: start,
    },
    DsmFunction {
        index: 3,
        since: 1,
        available: |bus| bus.allows(3),
        run: |bus, _| Ok(status(bus)),
    },
    DsmFunction {
        index: 4,
        since: 1,
        available: |bus| bus.allows(4),
        run: clear,
    },
    DsmFunction {
        index: 5,
        since: 1,
        available: |bus| bus.allows(5),
        run: |bus, input| translate(bus, input),
    },
    DsmFunction {
        index: 7,
        since: 1,
        available: |bus| bus.allows(7),
        run: inject,
    },
    DsmFunction {
        index: 8,
        since: 1,
        available: |bus| bus.allows(8),
        run: take_back,
    },
    DsmFunction {
        index: 9,
        since: 1,
        available: |bus| bus.allows(9),
        run: |bus, _| Ok(injected(bus)),
    },
];

impl BusState {
    fn allows(&self, function: u32) -> bool {
        self.root.functions & (1 << function) != 0
    }

    /// Ends a scrub whose time is over.
    fn settle_scrub(&mut self) {
        if let Scrub::Runs(request, until) = self.ars.0
            && self.clock.now() >= until
        {
            self.finish_scrub(request, ErrorState::Latent);
        }
    }

    /// A scrub that finds errors of at least `state` is done.
    fn finish_scrub(&mut self, request: Request, state: ErrorState) {
        let range = request.range;
        let found = self.bad_runs(range, state);
        let end = found.next.map_or(range.end(), Gpa);
        if state == ErrorState::Latent && end > range.start {
            let scrubbed = GpaRange::new(range.start, end.0 - range.start.0);
            if let Err(error) = self.discover(scrubbed) {
                tracing::warn!(%error, "the errors that a scrub found stay unknown");
            }
        }
        self.ars = Ars(Scrub::Done(request, end));
    }

    fn bad_runs(&self, range: GpaRange, state: ErrorState) -> Runs {
        let most = usize::try_from(self.root.records()).unwrap_or(usize::MAX);
        let spa = self.nfit.spa_with(range);
        spa.map_or_else(Runs::default, |spa| errors::runs(&self.dimms, spa, range, state, most))
    }
}

/// Base and length at the start of an input: at least a byte, and no wrap.
fn range(input: &[u8]) -> Option<GpaRange> {
    let (base, len) = (u64_at(input, 0).ok()?, u64_at(input, 8).ok()?);
    (len != 0 && base.checked_add(len).is_some()).then(|| GpaRange::new(Gpa(base), len))
}

/// A reply of the usual length that says only `status`.
fn only(status: DsmStatus, output: usize) -> DsmReply {
    DsmReply {
        status,
        output: vec![0; output],
        tell: Tell::Nothing,
    }
}

fn invalid(error: ErrorsError) -> DsmStatus {
    match error {
        ErrorsError::Full(_) => FAILED,
        _ => INVALID,
    }
}

/// Function 1. In: base u64, length u64. Out: largest reply of function 3 u32, clear unit u32, flags u16, reserved u16.
fn capabilities(bus: &BusState, input: &[u8]) -> DsmResult {
    const OUTPUT: usize = 12;
    let Some(range) = range(input) else {
        return Ok(only(INVALID, OUTPUT));
    };
    let Some(kind) = bus.nfit.spa_with(range).and_then(Kind::of) else {
        return Ok(only(NOT_SUPPORTED, OUTPUT));
    };
    let words = [bus.root.max_output(), CLEAR_UNIT, NOTIFIES.into()];
    Ok(DsmReply {
        status: DsmStatus(u32::from(kind.word()) << 16),
        output: words.into_iter().flat_map(u32::to_le_bytes).collect(),
        tell: Tell::Nothing,
    })
}

/// Function 2. In: base u64, length u64, type u16, flags u8. Out: estimated seconds u32.
fn start(bus: &mut BusState, input: &[u8]) -> DsmResult {
    const OUTPUT: usize = 4;
    let request = (|| {
        let range = range(input)?;
        let kind = bus.nfit.spa_with(range).and_then(Kind::of)?;
        let asked = u16::from_le_bytes(array_at(input, 16).ok()?);
        (asked == kind.word()).then_some(Request { range, kind })
    })();
    let (Some(request), Some(flags)) = (request, input.get(18)) else {
        return Ok(only(INVALID, OUTPUT));
    };
    bus.settle_scrub();
    if let Scrub::Runs(..) = bus.ars.0 {
        return Ok(only(SCRUB_RUNS, OUTPUT));
    }
    if flags & SHORT != 0 {
        bus.finish_scrub(request, ErrorState::Known);
        return Ok(only(DsmStatus::SUCCESS, OUTPUT));
    }
    let time = bus.root.scan_time;
    bus.ars = Ars(Scrub::Runs(request, bus.clock.now().saturating_add(time)));
    let seconds = u32::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
    Ok(seconds.to_le_bytes().to_vec().into())
}

/// Function 3. Out: length u32 (from itself on), start u64, length u64, restart u64, restart length u64, type u16,
/// flags u16, records u32, then {handle u32, reserved u32, SPA u64, length u64} each.
fn status(bus: &mut BusState) -> DsmReply {
    bus.settle_scrub();
    let nothing = |status| {
        let mut reply = only(status, STATUS_HEADER as usize);
        reply.output.splice(..4, STATUS_HEADER.to_le_bytes());
        reply
    };
    let (request, end) = match bus.ars.0 {
        Scrub::Never => return nothing(NO_SCRUB),
        Scrub::Runs(..) => return nothing(IN_PROGRESS),
        Scrub::Done(request, end) => (request, end),
    };
    let Request { range, kind } = request;
    let scrubbed = GpaRange::new(range.start, end.0 - range.start.0);
    let runs = bus.bad_runs(scrubbed, ErrorState::Known);
    let end = runs.next.map_or(end, Gpa);
    let left = range.end().0 - end.0;
    let records: Vec<u8> = runs.found.iter().flat_map(|run| record(bus, run)).collect();
    let count = u32::try_from(runs.found.len()).unwrap_or(0);

    let mut output = (STATUS_HEADER + count * RECORD).to_le_bytes().to_vec();
    let restart = if left == 0 { 0 } else { end.0 };
    for word in [range.start.0, end.0 - range.start.0, restart, left] {
        output.extend(word.to_le_bytes());
    }
    let overflow = if left == 0 { 0 } else { OVERFLOW };
    output.extend([kind.word(), overflow].into_iter().flat_map(u16::to_le_bytes));
    output.extend(count.to_le_bytes());
    output.extend(records);
    DsmReply {
        status: if left == 0 { DsmStatus::SUCCESS } else { STOPPED },
        output,
        tell: Tell::Nothing,
    }
}

/// One record of function 3; a run over several DIMMs has the handle of its first.
fn record(bus: &BusState, run: &errors::Run) -> Vec<u8> {
    let handle = bus.nfit.dimm(run.slot).map_or(0, |dimm| dimm.handle.0);
    let mut bytes = [handle, 0].map(u32::to_le_bytes).concat();
    bytes.extend([run.start, run.end - run.start].map(u64::to_le_bytes).concat());
    bytes
}

/// Function 4. In: base u64, length u64. Out: reserved u32, bytes cleared u64: up to the end of the SPA range.
fn clear(bus: &mut BusState, input: &[u8]) -> DsmResult {
    const OUTPUT: usize = 12;
    let unit = u64::from(CLEAR_UNIT);
    let aligned = |range: &GpaRange| range.start.0.is_multiple_of(unit) && range.len.is_multiple_of(unit);
    let Some(asked) = range(input).filter(aligned) else {
        return Ok(only(INVALID, OUTPUT));
    };
    let Some(spa) = bus.nfit.spas.iter().find(|spa| spa.range.contains(asked.start)) else {
        return Ok(only(INVALID, OUTPUT));
    };
    if Kind::of(spa).is_none() {
        return Ok(only(NOT_SUPPORTED, OUTPUT));
    }
    let cleared = asked.len.min(spa.range.end().0 - asked.start.0);
    match bus.clear_errors(GpaRange::new(asked.start, cleared)) {
        Ok(()) => Ok([&[0; 4][..], &cleared.to_le_bytes()].concat().into()),
        Err(error) => Ok(only(invalid(error), OUTPUT)),
    }
}

/// Function 5. In: SPA u64. Out: flags u8, reserved, length u64, DIMMs u32, then {handle u32, reserved u32, DPA u64}.
fn translate(bus: &BusState, input: &[u8]) -> DsmResult {
    const OUTPUT: usize = 32;
    let place = u64_at(input, 0).ok().and_then(|spa| bus.nfit.to_dpa(Gpa(spa)));
    let place = place.and_then(|place| Some((place, bus.nfit.dimm(place.slot)?.handle.0)));
    let Some((place, handle)) = place else {
        return Ok(only(INVALID, OUTPUT));
    };
    let mut output = vec![0; 4];
    output.extend(place.len.to_le_bytes());
    output.extend([1, handle, 0].map(u32::to_le_bytes).concat());
    output.extend(place.dpa.0.to_le_bytes());
    Ok(output.into())
}

/// Function 7. In: base u64, length u64, options u8.
fn inject(bus: &mut BusState, input: &[u8]) -> DsmResult {
    let (Some(range), Some(options)) = (range(input), input.get(16)) else {
        return Err(INVALID);
    };
    bus.guest_injects(range).map_err(invalid)?;
    let tell = if options & NOTIFY == 0 {
        Tell::Nothing
    } else {
        Tell::Event
    };
    Ok(DsmReply {
        tell,
        ..DsmReply::default()
    })
}

/// Function 8. In: base u64, length u64.
fn take_back(bus: &mut BusState, input: &[u8]) -> DsmResult {
    let range = range(input).ok_or(INVALID)?;
    bus.guest_takes_back(range).map_err(invalid)?;
    Ok(DsmReply::default())
}

/// Function 9. Out: count u32, then {base u64, length u64} each: as many as fit into a reply of function 3, which is what
/// a guest makes room for.
fn injected(bus: &BusState) -> DsmReply {
    let most = usize::try_from(bus.root.max_output() / INJECTED_RECORD).unwrap_or(usize::MAX);
    let records: Vec<GpaRange> = bus.injected().records().take(most).collect();
    let mut output = u32::try_from(records.len()).unwrap_or(0).to_le_bytes().to_vec();
    let words = records.iter().flat_map(|range| [range.start.0, range.len]);
    output.extend(words.flat_map(u64::to_le_bytes));
    output.into()
}

#[cfg(test)]
#[path = "ars_tests.rs"]
mod tests;
