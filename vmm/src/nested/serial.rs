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
/// What a kernel says first when it goes down; the trace that follows would push it out of the quoted lines.
const CAUSES: [&str; 2] = ["Kernel panic", "BUG: "];
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
        .find(|line| CAUSES.iter().any(|c| line.contains(c)))
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

    /// The worst of what came since the last call.
    pub fn poll(&mut self) -> Option<Trouble> {
        let mut chunk = [0; 4096];
        let mut worst = None;
        while let Some(n) = self
            .file
            .as_mut()
            .and_then(|f| f.read(&mut chunk).ok())
            .filter(|n| *n > 0)
        {
            for byte in &chunk[..n] {
                if *byte == b'\n' {
                    let found = classify(&String::from_utf8_lossy(&self.line));
                    if !matches!(worst, Some(Trouble::Stuck(_))) {
                        worst = found.or(worst);
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
    (stall && line.contains("rcu")).then(|| Trouble::Slow(report()))
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
