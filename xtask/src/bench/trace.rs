//! Time stamps and counts from the host kernel's own trace points.
//!
//! An instance of its own, with a small buffer that keeps the first events and drops the rest, on the monotonic clock.
//! When a program was executed and when it first entered its guest are thus known to the microsecond without anything in
//! its way before.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

const TRACEFS: &str = "/sys/kernel/tracing";

/// A trace instance; removed when dropped.
pub struct Trace(PathBuf);

/// An event to record.
pub const EXEC: &str = "sched/sched_process_exec";
/// An event to record.
pub const ENTRY: &str = "kvm/kvm_entry";
/// An event to count by reason.
pub const USER_EXIT: &str = "kvm/kvm_userspace_exit";

impl Trace {
    /// A silent one.
    pub fn new() -> Result<Self> {
        let dir = Path::new(TRACEFS).join("instances/daxvisor-bench");
        if dir.exists() {
            fs::remove_dir(&dir).context("cannot remove an old trace instance")?;
        }
        fs::create_dir(&dir).context("cannot make a trace instance; hint: are you root, and is tracefs mounted?")?;
        let trace = Self(dir);
        for (file, value) in [
            ("trace_clock", "mono"),
            ("options/overwrite", "0"),
            ("buffer_size_kb", "16"),
        ] {
            trace.write(file, value)?;
        }
        Ok(trace)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).with_context(|| format!("cannot write '{value}' to the trace's {file}"))
    }

    /// Forgets what was recorded, and records `events` from now on.
    pub fn restart(&self, events: &[&str]) -> Result<()> {
        for event in [EXEC, ENTRY] {
            let on = if events.contains(&event) { "1" } else { "0" };
            self.write(&format!("events/{event}/enable"), on)?;
        }
        self.write("trace", "")
    }

    /// Time in ns of the first event whose line has `what`.
    pub fn first(&self, what: &str) -> Result<Option<u64>> {
        let text = fs::read_to_string(self.0.join("trace")).context("cannot read the trace")?;
        Ok(first(&text, what))
    }

    /// Counts exits to user space until the guard is dropped.
    pub fn count_user_exits(&self) -> Result<UserExits<'_>> {
        self.write(&format!("events/{USER_EXIT}/trigger"), "hist:keys=reason")?;
        Ok(UserExits(self))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // What is left costs nothing and is removed by the next run.
        let _ = self.restart(&[]);
        let _ = fs::remove_dir(&self.0);
    }
}

/// A running count.
pub struct UserExits<'a>(&'a Trace);

impl UserExits<'_> {
    /// How many so far, by KVM's reason number.
    pub fn read(&self) -> Result<Vec<(u64, u64)>> {
        let file = self.0.0.join(format!("events/{USER_EXIT}/hist"));
        Ok(histogram(
            &fs::read_to_string(file).context("cannot read the histogram")?,
        ))
    }
}

impl Drop for UserExits<'_> {
    fn drop(&mut self) {
        let _ = self
            .0
            .write(&format!("events/{USER_EXIT}/trigger"), "!hist:keys=reason");
    }
}

/// A line of the trace reads `comm-pid [cpu] flags seconds.micros: event: fields`.
fn first(text: &str, what: &str) -> Option<u64> {
    let line = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find(|line| line.contains(what))?;
    let stamp = line.split(": ").next()?.rsplit(' ').next()?;
    let (seconds, micros) = stamp.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000_000 + micros.parse::<u64>().ok()? * 1000)
}

/// A line of a histogram reads `{ reason:          2 } hitcount:       1234`.
fn histogram(text: &str) -> Vec<(u64, u64)> {
    let number = |line: &str, name: &str| {
        let rest = line.split_once(name)?.1.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let pair = |line: &str| Some((number(line, "reason:")?, number(line, "hitcount:")?));
    text.lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(pair)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_read_from_trace_lines() {
        let text = "# tracer: nop\n\
            \x20  daxvisor-123     [000] .....    12.000345: sched_process_exec: filename=/tmp/x: y pid=123 old_pid=123\n\
            \x20  vcpu0-124     [000] d....    12.100000: kvm_entry: vcpu 0, rip 0xfff0\n";
        assert_eq!(first(text, "filename=/tmp/x"), Some(12_000_345_000));
        assert_eq!(first(text, "kvm_entry:"), Some(12_100_000_000));
        assert_eq!(first(text, "tracer"), None);
        assert_eq!(first("", "x"), None);
    }

    #[test]
    fn histograms_are_read() {
        let text = "# event histogram\n\n{ reason:          2 } hitcount:       1234\n{ reason:          6 } hitcount:          5\n\nTotals:\n    Hits: 1239\n";
        assert_eq!(histogram(text), [(2, 1234), (6, 5)]);
    }
}
