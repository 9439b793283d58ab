//! Block device (virtio 1.2 section 5.2) with the faults of a bad one: latency, errors, hangs and limits by request.
//!
//! ```text
//! take: request --Faults::judge--> Order { act, verdict } --> worker: not before its time, not while it hangs --> medium
//! ```
//!
//! The device takes requests apart and says what is to become of each; the machine's worker waits and acts.

pub mod config;
mod faults;

use super::{
    Reader,
    deferred::{Deferred, Order, Reply, Requests, Taken},
    lock,
};
use crate::Clock;
use config::{DiskFault, DiskThrottle};
pub use faults::{FaultStatus, Verdict};
use faults::{Faults, Touched};
use std::{
    io::Read,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use virtio_bindings::{virtio_blk::*, virtio_ids::VIRTIO_ID_BLOCK};

/// Bytes of a sector, whatever the medium has.
pub const SECTOR: u64 = 512;
/// Entries of the request queue.
const QUEUE_SIZE: u16 = 128;
/// Most buffers of a request beside its header and its status.
const SEGMENTS: u32 = 126;
/// Most bytes of one buffer.
const SEGMENT: u32 = 64 << 10;
/// Most bytes of a request; what is larger fails.
const MAX_REQUEST: u64 = SEGMENTS as u64 * SEGMENT as u64;
/// Most ranges of a discard or of zeroing.
const MAX_RANGES: u32 = 32;
/// Most sectors of such a range: 1 GiB, so that none takes long.
const MAX_RANGE: u32 = 2 << 20;
/// Bytes of the header, and of a range of a discard.
const HEADER: usize = 16;

const OK: u8 = 0;
const FAILED: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// The device.
pub type Blk = Deferred<BlkRequests>;
/// A request under way.
pub type BlkOrder = Order<BlkRequests>;

/// What the medium is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkPlan {
    /// Sectors.
    pub sectors: u64,
    /// Writes fail.
    pub readonly: bool,
    /// At most 20 bytes.
    pub serial: String,
}

/// Something to do to the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Read so many bytes from a sector on.
    Read(u64, usize),
    /// Write these from a sector on.
    Write(u64, Vec<u8>),
    /// Make durable what was written.
    Flush,
    /// Forget these sectors.
    Discard(Vec<Range<u64>>),
    /// Zero these; whether their space may be given back.
    Zero(Vec<(Range<u64>, bool)>),
}

/// A request and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// What the guest wants.
    pub act: Act,
    /// What it gets.
    pub verdict: Verdict,
}

/// Requests by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlkCounts {
    /// Reads.
    pub reads: u64,
    /// Writes, discards and zeroings.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Those of all kinds that failed, by a fault or on the medium.
    pub failed: u64,
}

/// What the device is and has done.
pub struct BlkRequests {
    plan: BlkPlan,
    config: [u8; 60],
    clock: Clock,
    faults: Mutex<Faults>,
    counts: [AtomicU64; 4],
}

impl Blk {
    /// A device over a medium.
    pub fn over(plan: BlkPlan, clock: Clock, submit: Box<dyn Fn(BlkOrder) + Send + Sync>) -> Arc<Self> {
        let config = config_space(&plan);
        let requests = BlkRequests {
            plan,
            config,
            clock,
            faults: Mutex::default(),
            counts: Default::default(),
        };
        Self::new(requests, submit)
    }
}

impl BlkRequests {
    /// What the medium is.
    pub fn plan(&self) -> &BlkPlan {
        &self.plan
    }

    /// The time of verdicts.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// One more fault; its number. It concerns requests that come from now on.
    pub fn add_fault(&self, fault: DiskFault) -> u32 {
        lock(&self.faults).add(fault)
    }

    /// Takes a fault away, or all of them; whether there was one. The requests that hang by it go on when the worker looks.
    pub fn remove_fault(&self, number: Option<u32>) -> bool {
        lock(&self.faults).remove(number)
    }

    /// The faults there are.
    pub fn faults(&self) -> Vec<FaultStatus> {
        lock(&self.faults).status()
    }

    /// Changes the limits for requests that come from now on.
    pub fn set_throttle(&self, throttle: DiskThrottle) {
        lock(&self.faults).throttle(throttle);
    }

    /// The limits.
    pub fn throttle(&self) -> DiskThrottle {
        lock(&self.faults).limits()
    }

    /// Whether a request has to wait until a fault is taken away.
    pub fn hangs(&self, verdict: &Verdict) -> bool {
        lock(&self.faults).hangs(verdict)
    }

    /// Requests so far.
    pub fn counts(&self) -> BlkCounts {
        let [reads, writes, flushes, failed] = [0, 1, 2, 3].map(|n| self.count(n));
        BlkCounts {
            reads,
            writes,
            flushes,
            failed,
        }
    }

    fn count(&self, n: usize) -> u64 {
        self.counts.get(n).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn bump(&self, n: usize) {
        if let Some(count) = self.counts.get(n) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The answer to a request: the bytes that were read, or why there is nothing.
    pub fn answer(&self, done: std::io::Result<Vec<u8>>) -> Reply {
        match done {
            Ok(data) => Reply { data, last: Some(OK) },
            Err(_) => {
                self.bump(3);
                status(FAILED)
            }
        }
    }

    /// The sectors of a request, if they are on the medium.
    fn sectors(&self, start: u64, count: u64) -> Option<Range<u64>> {
        let end = start.checked_add(count)?;
        (end <= self.plan.sectors).then_some(start..end)
    }

    fn work(&self, act: Act, weight: usize) -> Taken<Work> {
        let touched = Touched::of(&act);
        self.bump(match act {
            Act::Read(..) => 0,
            Act::Flush => 2,
            Act::Write(..) | Act::Discard(_) | Act::Zero(_) => 1,
        });
        let verdict = lock(&self.faults).judge(self.clock.now(), &touched);
        Taken::Work(Work { act, verdict }, weight)
    }

    /// What a read or a write touches: its sectors, and its bytes.
    fn extent(&self, sector: u64, bytes: u64) -> Option<usize> {
        let whole = bytes.is_multiple_of(SECTOR) && bytes <= MAX_REQUEST;
        self.sectors(sector, bytes / SECTOR).filter(|_| whole)?;
        usize::try_from(bytes).ok()
    }

    fn write(&self, sector: u64, from: &mut Reader<'_>) -> Taken<Work> {
        let bytes = from.available_bytes() as u64;
        let Some(len) = self.extent(sector, bytes).filter(|_| !self.plan.readonly) else {
            return self.refuse(FAILED);
        };
        let mut data = vec![0; len];
        match from.read_exact(&mut data) {
            Ok(()) => self.work(Act::Write(sector, data), len),
            Err(error) => Taken::Broken(format!("a request cannot be read: {error}")),
        }
    }

    fn ranges(&self, kind: u32, from: &mut Reader<'_>) -> Taken<Work> {
        let bytes = from.available_bytes();
        let count = bytes / HEADER;
        if self.plan.readonly || !bytes.is_multiple_of(HEADER) || count == 0 || count > MAX_RANGES as usize {
            return self.refuse(FAILED);
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            let Ok(bytes) = from.read_obj::<[u8; HEADER]>() else {
                return Taken::Broken("a range cannot be read".to_owned());
            };
            let [s @ .., n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
            let flags = u32::from_le_bytes([f0, f1, f2, f3]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            // virtio 1.2 5.2.6.2: no flag but unmap, and that with zeroing alone.
            let known = if kind == VIRTIO_BLK_T_WRITE_ZEROES {
                VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
            } else {
                0
            };
            if flags & !known != 0 {
                return self.refuse(UNSUPPORTED);
            }
            let range = self.sectors(u64::from_le_bytes(s), sectors.into());
            match range.filter(|_| (1..=MAX_RANGE).contains(&sectors)) {
                Some(range) => ranges.push((range, flags != 0)),
                None => return self.refuse(FAILED),
            }
        }
        match kind {
            VIRTIO_BLK_T_DISCARD => self.work(Act::Discard(ranges.into_iter().map(|(range, _)| range).collect()), 0),
            _ => self.work(Act::Zero(ranges), 0),
        }
    }

    fn refuse(&self, why: u8) -> Taken<Work> {
        self.bump(3);
        Taken::Now(status(why))
    }
}

fn status(last: u8) -> Reply {
    Reply {
        data: Vec::new(),
        last: Some(last),
    }
}

/// virtio 1.2 5.2.4.
fn config_space(plan: &BlkPlan) -> [u8; 60] {
    let mut space = [0; 60];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in space.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &plan.sectors.to_le_bytes());
    put(8, &SEGMENT.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    // 512 bytes a block.
    put(20, &512_u32.to_le_bytes());
    put(36, &MAX_RANGE.to_le_bytes());
    put(40, &MAX_RANGES.to_le_bytes());
    // Discards help from whole pages of the host on.
    put(44, &8_u32.to_le_bytes());
    put(48, &MAX_RANGE.to_le_bytes());
    put(52, &MAX_RANGES.to_le_bytes());
    put(56, &[1]);
    space
}

impl Requests for BlkRequests {
    type Work = Work;
    const DEVICE_TYPE: u32 = VIRTIO_ID_BLOCK;
    const QUEUE: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        let read = [
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_FLUSH,
        ];
        let write = [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
        let bits = |list: &[u32]| list.iter().fold(0, |all, bit| all | 1_u64 << bit);
        bits(&read)
            | match self.plan.readonly {
                true => bits(&[VIRTIO_BLK_F_RO]),
                false => bits(&write),
            }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn unreadable(&self) -> Reply {
        self.bump(3);
        status(FAILED)
    }

    fn take(&self, from: &mut Reader<'_>, room: u64) -> Taken<Work> {
        let Some(room) = room.checked_sub(1) else {
            return Taken::Broken("a request has no room for its status".to_owned());
        };
        let Ok(header) = from.read_obj::<[u8; HEADER]>() else {
            return Taken::Broken(format!("a request has less than {HEADER} bytes"));
        };
        let [k0, k1, k2, k3, _, _, _, _, s @ ..] = header;
        let sector = u64::from_le_bytes(s);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            VIRTIO_BLK_T_IN => match self.extent(sector, room) {
                Some(len) => self.work(Act::Read(sector, len), len),
                None => self.refuse(FAILED),
            },
            VIRTIO_BLK_T_OUT => self.write(sector, from),
            VIRTIO_BLK_T_FLUSH => self.work(Act::Flush, 0),
            VIRTIO_BLK_T_GET_ID => {
                let mut data = self.plan.serial.clone().into_bytes();
                data.resize(VIRTIO_BLK_ID_BYTES as usize, 0);
                data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                Taken::Now(Reply { data, last: Some(OK) })
            }
            kind @ (VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES) => self.ranges(kind, from),
            _ => self.refuse(UNSUPPORTED),
        }
    }
}

#[cfg(test)]
mod tests;
