//! The host under the tests: whether it can run kernels at all, and whether it stood still.
//!
//! A nested host that is emulated stops for seconds at times, and its nested guests can hang with it. A heartbeat of our
//! own, and what the host's kernel says of locked up processors, tell such a hang from one of the guest.

use anyhow::{Result, bail};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use vmm::hv::probe::{self, KvmKind, Probe};

/// The heart beats this often.
const BEAT: Duration = Duration::from_millis(50);
/// A beat that comes this late means that the host stood still.
const STALL: Duration = Duration::from_secs(2);
/// What the kernel writes of processors that do not get on, and of itself when it is broken: a guest whose vCPU thread went
/// with an oops hangs through no fault of its own.
const COMPLAINTS: [&str; 7] = [
    "soft lockup",
    "hard LOCKUP",
    "rcu: INFO",
    "blocked for more than",
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
];

/// What the kernel writes when it ends a program, or a program ends itself by a fault.
const DEATHS: [&str; 5] = [
    "Out of memory",
    "oom-kill",
    "segfault",
    "traps: ",
    "page allocation failure",
];

/// Fails unless `/dev/kvm` can run an unmodified kernel.
pub fn require() -> Result<()> {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    let found = PROBE.get_or_init(patient_probe);
    heartbeat();
    if found.kind.runs_kernels() {
        return Ok(());
    }
    bail!(
        "/dev/kvm cannot run a kernel here: {found:?}; hint: run the tests with `cargo xtask test`, which takes the nested \
         host where it is needed"
    )
}

/// Whether this is daxvisor's nested host, whose processors QEMU emulates.
pub fn is_emulated() -> bool {
    static EMULATED: OnceLock<bool> = OnceLock::new();
    *EMULATED.get_or_init(|| {
        let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        cmdline.split_whitespace().any(|word| word == "daxvisor.host=1")
    })
}

/// A probe that is too slow says what the machine is only when it says so again: a hiccup of a busy one looks the same.
fn patient_probe() -> Probe {
    const AGAIN: Duration = Duration::from_secs(3);
    let mut found = probe::probe();
    for _ in 0..2 {
        if found.kind != KvmKind::Paravirtual {
            break;
        }
        report_retry("the probe of /dev/kvm", &format!("{found:?}"));
        thread::sleep(AGAIN);
        found = probe::probe();
    }
    found
}

fn stalls() -> &'static Mutex<Vec<(Instant, Duration)>> {
    static STALLS: OnceLock<Mutex<Vec<(Instant, Duration)>>> = OnceLock::new();
    STALLS.get_or_init(Mutex::default)
}

/// Starts the heart, once.
fn heartbeat() {
    static HEART: OnceLock<()> = OnceLock::new();
    HEART.get_or_init(|| {
        thread::spawn(|| {
            loop {
                let before = Instant::now();
                thread::sleep(BEAT);
                let late = before.elapsed();
                if late > STALL {
                    let mut all = stalls().lock().unwrap_or_else(PoisonError::into_inner);
                    all.push((Instant::now(), late));
                }
            }
        });
    });
}

/// A point in time to look back to.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    /// Records of the kernel's log so far.
    records: usize,
}

/// The kernel's log as it is now, a record a line. Empty where it may not be read.
fn kernel_log() -> Vec<String> {
    const O_NONBLOCK: i32 = libc::O_NONBLOCK;
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg") else {
        return vec![];
    };
    let mut records = vec![];
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(n) if n > 0 => records.push(String::from_utf8_lossy(&record[..n]).into_owned()),
            // Overwritten while we read: the next read goes on behind the gap.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            _ => return records,
        }
    }
}

impl Mark {
    /// Now.
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            records: kernel_log().len(),
        }
    }

    /// How the host failed since: `None` when it did not.
    pub fn trouble(&self) -> Option<String> {
        let all = stalls().lock().unwrap_or_else(PoisonError::into_inner);
        let late = all.iter().filter(|(at, _)| *at >= self.at).map(|(_, late)| *late).max();
        if let Some(late) = late {
            return Some(format!("the host stood still for {:.1} s", late.as_secs_f32()));
        }
        let complaint = self.said(&COMPLAINTS).into_iter().next();
        complaint.map(|c| format!("the host's kernel says: {c}"))
    }

    /// What the host's kernel said since of itself and of the programs that it ended.
    pub fn remarks(&self) -> Vec<String> {
        self.said(&[&COMPLAINTS[..], &DEATHS].concat())
    }

    /// First lines of the kernel's records since that contain one of `words`.
    fn said(&self, words: &[&str]) -> Vec<String> {
        let log = kernel_log();
        let new = log.iter().skip(self.records);
        let told = new.filter(|record| words.iter().any(|word| record.contains(word)));
        told.map(|record| record.lines().next().unwrap_or("").trim().to_owned())
            .collect()
    }
}

/// Reports a retry, past the capture of test output: a retry is never silent.
pub fn report_retry(what: &str, why: &str) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = writeln!(
        io::stderr().lock(),
        "RETRY: {what}: {why} (retry {n} of this test program)"
    );
}
