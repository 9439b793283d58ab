//! L1's serial log: reading its end, and noticing that its kernel is in trouble.

use super::SerialTail;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Lines quoted on failure.
const QUOTED: usize = 20;
/// Bytes looked at for them.
const TAIL: u64 = 256 << 10;
/// What a kernel says when it has found itself broken. "BUG: " stands before reports of lock-ups too, which are told apart
/// first.
const BROKEN: [&str; 5] = [
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "PANIC: double fault",
    "Kernel panic - not syncing",
];
/// Longer lines are cut: nothing we look for is that long.
const LINE_MAX: usize = 1 << 10;
/// A lock-up that lasts this long is no hiccup of a busy machine. The kernel reports at 22 s for the first time and
/// again as it goes on (`watchdog_thresh` of 10 s, twice).
const STUCK: u64 = 40;

/// What a line of the kernel's log says about its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A CPU is late; it may come back.
    Slow(String),
    /// A CPU is stuck for good.
    Stuck(String),
    /// An oops, a bug of the kernel's own, or a panic: a thread is gone, and nothing that happens from now on can be
    /// trusted.
    Broken(String),
}

impl Trouble {
    fn severity(&self) -> u8 {
        match self {
            Self::Slow(_) => 0,
            Self::Stuck(_) => 1,
            Self::Broken(_) => 2,
        }
    }
}

/// The log's last lines, and the first that names a cause.
pub(super) fn tail(path: &Path) -> SerialTail {
    let read = || {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes: Vec<u8> = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(clean).filter(|l| !l.is_empty()).collect();
    let skip = lines.len().saturating_sub(QUOTED);
    let cause = lines
        .iter()
        .take(skip)
        .find(|line| classify(line).is_some_and(|trouble| trouble.severity() > 0))
        .cloned();
    let lines = cause.into_iter().chain(lines.into_iter().skip(skip)).collect();
    SerialTail {
        lines,
        path: path.to_owned(),
    }
}

/// A guest's text is not for the terminal's control sequences.
fn clean(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control())
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Reads what is new in the log, line by line.
#[derive(Debug)]
pub(super) struct SerialWatch {
    file: Option<File>,
    line: Vec<u8>,
}

impl SerialWatch {
    pub fn new(path: &Path) -> Self {
        Self {
            file: File::open(path).ok(),
            line: Vec::new(),
        }
    }

    /// The worst of what came since the last call; of the equally bad, the first, which is the cause.
    pub fn poll(&mut self) -> Option<Trouble> {
        let mut chunk = [0; 4096];
        let mut worst: Option<Trouble> = None;
        while let Some(n) = self
            .file
            .as_mut()
            .and_then(|f| f.read(&mut chunk).ok())
            .filter(|n| *n > 0)
        {
            for byte in &chunk[..n] {
                if *byte == b'\n' {
                    let found = classify(&String::from_utf8_lossy(&self.line));
                    if found.as_ref().map(Trouble::severity) > worst.as_ref().map(Trouble::severity) {
                        worst = found;
                    }
                    self.line.clear();
                } else if self.line.len() < LINE_MAX {
                    self.line.push(*byte);
                }
            }
        }
        worst
    }
}

/// What one line says.
fn classify(line: &str) -> Option<Trouble> {
    let report = || clean(line);
    if line.contains("BUG: soft lockup") {
        let seconds = line
            .split("stuck for ")
            .nth(1)
            .and_then(|s| s.split('s').next())
            .and_then(|n| n.parse().ok());
        let stuck = seconds.is_none_or(|s: u64| s >= STUCK);
        return Some(if stuck {
            Trouble::Stuck(report())
        } else {
            Trouble::Slow(report())
        });
    }
    if line.contains("Watchdog detected hard LOCKUP") {
        return Some(Trouble::Stuck(report()));
    }
    let stall = line.contains("detected stall") || line.contains("self-detected stall");
    if stall && line.contains("rcu") || line.contains("BUG: workqueue lockup") {
        return Some(Trouble::Slow(report()));
    }
    let broken = BROKEN.iter().any(|said| line.contains(said)) || counts_oopses(line);
    broken.then(|| Trouble::Broken(report()))
}

/// Whether a line ends like the headline of an oops, whatever the exception was: error code and number of this oops, as in
/// `invalid opcode: 0000 [#1] PREEMPT SMP`.
fn counts_oopses(line: &str) -> bool {
    line.split(" [#").skip(1).any(|rest| {
        rest.split_once(']')
            .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const FIRST: &str = "[   28.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]";
    const LATER: &str = "[   54.1] watchdog: BUG: soft lockup - CPU#0 stuck for 48s! [swapper/0:1]";

    #[test]
    fn a_lockup_is_slow_first_and_stuck_when_it_lasts() {
        assert_eq!(classify(FIRST), Some(Trouble::Slow(FIRST.into())));
        assert_eq!(classify(LATER), Some(Trouble::Stuck(LATER.into())));
        assert!(matches!(
            classify("x BUG: soft lockup - CPU#1 garbled"),
            Some(Trouble::Stuck(_))
        ));
        assert!(matches!(
            classify("NMI: Watchdog detected hard LOCKUP on cpu 1"),
            Some(Trouble::Stuck(_))
        ));
        assert!(matches!(
            classify("rcu: INFO: rcu_preempt self-detected stall on CPU"),
            Some(Trouble::Slow(_))
        ));
        assert!(matches!(
            classify("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"),
            Some(Trouble::Slow(_))
        ));
        assert_eq!(classify("kvm: vcpu0 Unhandled WRMSR(0xc0010007)"), None);
    }

    /// Heads of oopses as kernels from 5.10 to 6.12 write them.
    const OOPSES: [&str; 13] = [
        "[    7.868060] BUG: TASK stack guard page was hit at 000000008b6e0b38 (stack is 000000007de74116..0000000029b43566)",
        "[    7.870408] Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI",
        "[   31.004127] BUG: stack guard page was hit at 00000000c37e1ac2 (stack is 00000000f1b2c3d4..00000000a1b2c3d4)",
        "[   31.004127] BUG: kernel NULL pointer dereference, address: 0000000000000018",
        "[   31.004127] BUG: unable to handle page fault for address: ffffc90000bcbff8",
        "[   31.004127] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[   31.004127] Oops: Oops: 0000 [#2] PREEMPT SMP NOPTI",
        "[   31.004127] general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] SMP NOPTI",
        "[   31.004127] kernel BUG at mm/slub.c:448!",
        "[   31.004127] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        "[   31.004127] traps: PANIC: double fault, error_code: 0x0",
        "[   31.004127] BUG: scheduling while atomic: vcpu0/369/0x00000002",
        "[  151.432703] Kernel panic - not syncing: corrupted stack end detected inside scheduler",
    ];

    #[test]
    fn a_kernel_that_oopses_is_broken_at_its_first_line() {
        for line in OOPSES {
            assert_eq!(classify(line), Some(Trouble::Broken(line.into())));
        }
    }

    #[test]
    fn what_befalls_programs_or_is_only_a_warning_breaks_no_kernel() {
        for line in [
            "[   12.1] traps: daxvisor[371] general protection fault ip:55d0c0de1234 sp:7ffd0123 error:0 in daxvisor[55d0c0d00000+2000]",
            "[   12.1] vcpu0[369]: segfault at 10 ip 00005566778899aa sp 00007f0012345678 error 4 in daxvisor[556677880000+200000]",
            "[   12.1] WARNING: CPU: 0 PID: 369 at arch/x86/kvm/x86.c:11429 kvm_arch_vcpu_ioctl_run+0x1d2/0x6f0 [kvm]",
            "[   12.1] ------------[ cut here ]------------",
            "[   12.1] debug: item [#x] of [#]",
            "[   12.1] Memory failure: 0x12345: recovery action for dirty LRU page: Recovered",
            "daxvisor-agent: ready",
        ] {
            assert_eq!(classify(line), None, "{line}");
        }
        let workqueue = "[   61.0] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!";
        assert_eq!(classify(workqueue), Some(Trouble::Slow(workqueue.into())));
    }

    #[test]
    fn the_first_of_the_worst_lines_is_what_counts() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let mut watch = SerialWatch::new(log.path());
        writeln!(log, "{FIRST}\n{LATER}\n{}\n{}\n{}\r", OOPSES[0], OOPSES[1], OOPSES[12]).unwrap();
        assert_eq!(watch.poll(), Some(Trouble::Broken(OOPSES[0].into())));
        assert_eq!(watch.poll(), None);
    }

    #[test]
    fn watch_sees_each_line_once_even_when_it_comes_in_pieces() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let mut watch = SerialWatch::new(log.path());
        let (head, rest) = LATER.split_at(30);
        write!(log, "hello\n{FIRST}\n{head}").unwrap();
        assert_eq!(watch.poll(), Some(Trouble::Slow(FIRST.into())));
        writeln!(log, "{rest}").unwrap();
        assert_eq!(watch.poll(), Some(Trouble::Stuck(LATER.into())));
        assert_eq!(watch.poll(), None);
    }

    #[test]
    fn tail_is_short_and_harmless() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, "[ 1.0] Kernel panic - not syncing: why").unwrap();
        for n in 0..2000 {
            write!(log, "line {n} \x1b[31m\r\n").unwrap();
        }
        let tail = tail(log.path());
        assert_eq!(tail.lines.len(), QUOTED + 1);
        assert_eq!(tail.lines.last().unwrap(), "line 1999 [31m");
        assert!(
            tail.to_string()
                .contains("ends:\n  | [ 1.0] Kernel panic - not syncing: why\n  | line 1980"),
            "{tail}"
        );
        assert_eq!(
            super::tail(Path::new("/nonexistent")).to_string(),
            "; its serial log is empty"
        );
    }
}
