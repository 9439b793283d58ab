//! What becomes of a request: pure, with the time as an argument.

use super::{
    Act, SECTOR,
    config::{DiskFault, DiskOp, DiskThrottle, Distribution},
};
use std::{ops::Range, time::Duration};

/// Longest that chance adds, as a multiple of `jitter`.
const TAIL: f64 = 10.0;

/// What becomes of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Not before this time of the device's clock.
    pub due: Duration,
    /// It fails.
    pub error: bool,
    /// It hangs while one of these faults is there.
    pub hang: Vec<u32>,
}

/// A fault, and what it has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultStatus {
    /// Its number.
    pub number: u32,
    /// What it is.
    pub fault: DiskFault,
    /// Requests that it had an effect on.
    pub hits: u64,
}

/// What a request touches.
#[derive(Debug)]
pub(super) struct Touched {
    op: DiskOp,
    sectors: Vec<Range<u64>>,
    bytes: u64,
}

impl Touched {
    pub(super) fn of(act: &Act) -> Self {
        let span = |sector: u64, bytes: usize| sector..sector + (bytes as u64).div_ceil(SECTOR);
        let (op, sectors, bytes) = match act {
            Act::Read(sector, len) => (DiskOp::Read, vec![span(*sector, *len)], *len),
            Act::Write(sector, data) => (DiskOp::Write, vec![span(*sector, data.len())], data.len()),
            Act::Flush => (DiskOp::Flush, vec![], 0),
            Act::Discard(ranges) => (DiskOp::Write, ranges.clone(), 0),
            Act::Zero(ranges) => (
                DiskOp::Write,
                ranges.iter().map(|(range, _)| range.clone()).collect(),
                0,
            ),
        };
        Self {
            op,
            sectors,
            bytes: bytes as u64,
        }
    }
}

/// The faults and limits of a disk.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<FaultStatus>,
    next: u32,
    throttle: DiskThrottle,
    bytes: Bucket,
    requests: Bucket,
    random: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            next: 1,
            throttle: DiskThrottle::default(),
            bytes: Bucket::default(),
            requests: Bucket::default(),
            // Any odd number: chance is the same in every run.
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

/// A token bucket, kept as the time at which it will be empty (GCRA).
#[derive(Debug, Default)]
struct Bucket {
    empty_at: Duration,
}

impl Bucket {
    /// When so many tokens of `rate` a second are there, if `burst` may be saved up.
    fn take(&mut self, now: Duration, tokens: u64, rate: u64, burst: Duration) -> Duration {
        let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(rate.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.empty_at = self.empty_at.max(now).saturating_add(cost);
        self.empty_at.saturating_sub(burst).max(now)
    }
}

impl Faults {
    pub(super) fn add(&mut self, fault: DiskFault) -> u32 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.rules.push(FaultStatus { number, fault, hits: 0 });
        number
    }

    pub(super) fn remove(&mut self, number: Option<u32>) -> bool {
        let before = self.rules.len();
        self.rules
            .retain(|rule| number.is_some_and(|number| rule.number != number));
        self.rules.len() != before
    }

    pub(super) fn status(&self) -> Vec<FaultStatus> {
        self.rules.clone()
    }

    pub(super) fn throttle(&mut self, throttle: DiskThrottle) {
        self.throttle = throttle;
        (self.bytes, self.requests) = Default::default();
    }

    pub(super) fn limits(&self) -> DiskThrottle {
        self.throttle
    }

    pub(super) fn hangs(&self, verdict: &Verdict) -> bool {
        self.rules.iter().any(|rule| verdict.hang.contains(&rule.number))
    }

    /// What becomes of a request that comes now.
    pub(super) fn judge(&mut self, now: Duration, touched: &Touched) -> Verdict {
        let mut verdict = Verdict {
            due: now,
            ..Verdict::default()
        };
        let burst = self.throttle.burst.0;
        if let Some(rate) = self.throttle.bandwidth {
            verdict.due = verdict.due.max(self.bytes.take(now, touched.bytes, rate.0, burst));
        }
        if let Some(rate) = self.throttle.iops {
            verdict.due = verdict.due.max(self.requests.take(now, 1, rate.into(), burst));
        }
        for rule in &mut self.rules {
            if !concerns(rule, touched) {
                continue;
            }
            rule.hits += 1;
            let fault = &rule.fault;
            let late = latency(fault, &mut self.random);
            verdict.due = verdict.due.saturating_add(late);
            verdict.error |= fault.error;
            if fault.hang {
                verdict.hang.push(rule.number);
            }
        }
        verdict
    }
}

fn concerns(rule: &FaultStatus, touched: &Touched) -> bool {
    let FaultStatus { fault, hits, .. } = rule;
    let kind = fault.op == DiskOp::Any || fault.op == touched.op;
    let place = fault
        .sectors
        .is_none_or(|wanted| touched.sectors.iter().any(|range| wanted.meets(range)));
    kind && place && fault.count.is_none_or(|count| *hits < u64::from(count))
}

fn latency(fault: &DiskFault, random: &mut u64) -> Duration {
    let (fixed, jitter) = (fault.latency.0.as_secs_f64(), fault.jitter.0.as_secs_f64());
    if jitter == 0.0 {
        return fault.latency.0;
    }
    let seconds = match fault.distribution {
        Distribution::Uniform => fixed + jitter * unit(random),
        // Of 1 - x, which is never 0.
        Distribution::Exponential => fixed + jitter * (-(1.0 - unit(random)).ln()).min(TAIL),
        Distribution::Normal => {
            // Box and Muller.
            let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
            let deviation = radius * (std::f64::consts::TAU * unit(random)).cos();
            fixed + jitter * deviation.clamp(-TAIL, TAIL)
        }
    };
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

/// A number from 0 to below 1 (xorshift64*).
fn unit(random: &mut u64) -> f64 {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    let bits = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
    // 24 bits: exact.
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(1 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteSize, TimeSpan};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn read(sector: u64, sectors: usize) -> Touched {
        Touched::of(&Act::Read(sector, sectors * 512))
    }

    fn fault(text: &str) -> DiskFault {
        // key=value by hand: the text form belongs to the command line.
        let mut fault = DiskFault::default();
        for (key, value) in text.split(' ').filter_map(|item| item.split_once('=')) {
            let span = || value.parse::<TimeSpan>().unwrap();
            match key {
                "op" => fault.op = serde_json::from_value(value.into()).unwrap(),
                "sectors" => fault.sectors = Some(value.parse().unwrap()),
                "latency" => fault.latency = span(),
                "jitter" => fault.jitter = span(),
                "distribution" => fault.distribution = serde_json::from_value(value.into()).unwrap(),
                "error" => fault.error = true,
                "hang" => fault.hang = true,
                "count" => fault.count = Some(value.parse().unwrap()),
                _ => panic!("{key}"),
            }
        }
        fault
    }

    #[test]
    fn faults_concern_their_kind_and_their_sectors() {
        let mut faults = Faults::default();
        faults.add(fault("op=read sectors=8-15 error=on"));
        let mut fails = |act: &Act| faults.judge(MS(0), &Touched::of(act)).error;
        assert!(!fails(&Act::Read(0, 8 * 512)));
        assert!(fails(&Act::Read(0, 9 * 512)));
        assert!(fails(&Act::Read(15, 512)));
        assert!(!fails(&Act::Read(16, 512)));
        assert!(!fails(&Act::Write(8, vec![0; 512])));
        assert!(!fails(&Act::Flush));
        faults.remove(None);
        faults.add(fault("op=write sectors=8 error=on"));
        let mut fails = |act: &Act| faults.judge(MS(0), &Touched::of(act)).error;
        assert!(fails(&Act::Discard(vec![0..4, 6..9])));
        assert!(fails(&Act::Zero(vec![(8..9, true)])));
        assert!(!fails(&Act::Discard(vec![9..10, 20..21])));
    }

    #[test]
    fn effects_of_several_faults_add_up_and_a_count_ends_one() {
        let mut faults = Faults::default();
        faults.add(fault("latency=100ms"));
        faults.add(fault("op=read latency=20ms count=2"));
        let hang = faults.add(fault("sectors=4 hang=on"));
        let mut due = |touched| faults.judge(MS(1000), &touched);
        assert_eq!(due(read(0, 1)).due, MS(1120));
        let verdict = due(read(4, 1));
        assert_eq!((verdict.due, verdict.hang.clone()), (MS(1120), vec![hang]));
        assert_eq!(due(read(0, 1)).due, MS(1100));
        assert!(faults.hangs(&verdict));
        assert!(faults.remove(Some(hang)) && !faults.remove(Some(hang)));
        assert!(!faults.hangs(&verdict));
        assert_eq!(faults.status().iter().map(|f| f.hits).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn distributions_keep_their_bounds_and_means() {
        for (kind, mean, most) in [
            ("uniform", 150.0, 200.0),
            ("exponential", 200.0, 1100.0),
            ("normal", 110.0, 1100.0),
        ] {
            let mut faults = Faults::default();
            faults.add(fault(&format!("latency=100ms jitter=100ms distribution={kind}")));
            let all: Vec<f64> = (0..20_000)
                .map(|_| faults.judge(MS(0), &read(0, 1)).due.as_secs_f64() * 1000.0)
                .collect();
            let average = all.iter().sum::<f64>() / 20_000.0;
            assert!((average - mean).abs() < 4.0, "{kind}: {average}");
            assert!(all.iter().all(|ms| (0.0..=most).contains(ms)), "{kind}");
        }
    }

    #[test]
    fn limits_hold_over_time_and_an_idle_disk_saves_up_a_burst() {
        let mut faults = Faults::default();
        let limits = |bandwidth: Option<u64>, iops| DiskThrottle {
            bandwidth: bandwidth.map(ByteSize),
            iops,
            burst: TimeSpan(MS(100)),
        };
        faults.throttle(limits(None, Some(100)));
        let dues: Vec<_> = (0..30).map(|_| faults.judge(MS(0), &read(0, 1)).due).collect();
        // Ten are saved up, then one each ten milliseconds.
        assert_eq!(dues[9], MS(0));
        assert_eq!((dues[10], dues[29]), (MS(10), MS(200)));
        assert_eq!(faults.judge(MS(10_000), &read(0, 1)).due, MS(10_000));
        faults.throttle(limits(Some(512_000), None));
        let last = (0..1000).map(|_| faults.judge(MS(0), &read(0, 8)).due).last().unwrap();
        assert_eq!(last, MS(7900));
        // Bytes are what counts.
        assert_eq!(faults.judge(MS(0), &Touched::of(&Act::Flush)).due, MS(7900));
        faults.throttle(limits(None, None));
        assert_eq!(faults.judge(MS(0), &read(0, 8)).due, MS(0));
    }
}
