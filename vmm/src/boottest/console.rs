//! What the kernel may not say: forbidden patterns, and lines that a scenario allows all the same. Pure.

use super::{scenario::Allow, steps::regex};
use regex::{Regex, RegexSet};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Whether the kernel can be trusted to go on after such a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Something is wrong.
    Complaint,
    /// The kernel, or a thread of it, is dead.
    Crash,
}

/// Name, severity and regular expression of every pattern that fails a scenario.
pub const FORBIDDEN: &[(&str, Severity, &str)] = &[
    ("panic", Severity::Crash, r"Kernel panic - not syncing"),
    (
        "oops",
        Severity::Crash,
        r"\bOops: |general protection fault|unable to handle (kernel|page fault)|invalid opcode: |double fault: ",
    ),
    ("kernel-bug", Severity::Crash, r"kernel BUG at "),
    (
        "mce-panic",
        Severity::Crash,
        r"mce: \[Hardware Error\].*(panic|Fatal)|Fatal machine check",
    ),
    ("kasan", Severity::Complaint, r"BUG: KASAN:"),
    ("kcsan", Severity::Complaint, r"BUG: KCSAN:"),
    ("kmsan", Severity::Complaint, r"BUG: KMSAN:"),
    ("kfence", Severity::Complaint, r"BUG: KFENCE:"),
    ("ubsan", Severity::Complaint, r"UBSAN: "),
    (
        "soft-lockup",
        Severity::Complaint,
        r"watchdog: BUG: soft lockup|hard LOCKUP",
    ),
    (
        "rcu-stall",
        Severity::Complaint,
        r"rcu: INFO: .*(stall|expedited)|detected .*stalls? on CPUs",
    ),
    ("hung-task", Severity::Complaint, r"INFO: task .* blocked for more than"),
    (
        "lockdep",
        Severity::Complaint,
        r"possible (circular|recursive|irq lock inversion) |WARNING: (suspicious RCU|inconsistent lock|bad unlock)|INFO: trying to register non-static key",
    ),
    (
        "leak",
        Severity::Complaint,
        r"kmemleak: \d+ new suspected|kernel memory leak",
    ),
    (
        "oom",
        Severity::Complaint,
        r"invoked oom-killer|Out of memory: Killed process|System is deadlocked on memory",
    ),
    ("bug", Severity::Complaint, r"\bBUG: "),
    (
        "warning",
        Severity::Complaint,
        r"WARNING: (CPU: \d+ PID: \d+ )?(at )?[\w./-]+(:\d+|\.[ch])|------------\[ cut here \]------------",
    ),
];

/// The kernel puts it before a warning or a bug.
const MARK: &str = "[ cut here ]";

/// The first line that ought not to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// Name of the pattern.
    pub pattern: String,
    /// The line, without the time that the runner puts before it.
    pub line: String,
    /// Where it stands among the lines.
    pub index: usize,
}

/// The patterns less what a scenario allows.
#[derive(Debug)]
pub struct Forbidden {
    set: RegexSet,
    allowed: Vec<(String, Regex)>,
}

impl Forbidden {
    /// Compiles them. An exception names a pattern and has a reason.
    pub fn new(allow: &[Allow]) -> Result<Self, String> {
        let mut allowed = Vec::new();
        for Allow { pattern, line, reason } in allow {
            if !FORBIDDEN.iter().any(|(name, ..)| name == pattern) {
                let known: Vec<_> = FORBIDDEN.iter().map(|(name, ..)| *name).collect();
                return Err(format!(
                    "allow: there is no pattern '{pattern}'; expected one of {}",
                    known.join(", ")
                ));
            }
            if reason.trim().is_empty() {
                return Err(format!("allow: the exception to '{pattern}' has no reason"));
            }
            allowed.push((pattern.clone(), regex(line)?));
        }
        let set = RegexSet::new(FORBIDDEN.iter().map(|(.., pattern)| *pattern)).map_err(|e| e.to_string())?;
        Ok(Self { set, allowed })
    }

    /// The pattern that `line` matches, by the order of [`FORBIDDEN`].
    pub fn matching(&self, line: &str) -> Option<(&'static str, Severity)> {
        let (name, severity, excused) = self.look(line)?;
        (!excused).then_some((name, severity))
    }

    /// The same, and whether the line is excused.
    fn look(&self, line: &str) -> Option<(&'static str, Severity, bool)> {
        let hits = self.set.matches(line);
        let (name, severity, _) = FORBIDDEN.get(hits.iter().next()?)?;
        // An exception from one of the patterns that match is an exception from all of them.
        let excused = self
            .allowed
            .iter()
            .any(|(pattern, text)| hits.iter().any(|i| FORBIDDEN[i].0 == pattern) && text.is_match(line));
        Some((*name, *severity, excused))
    }

    /// The line that a failure is about: the first of the gravest, and how grave that is. The mark `cut here` belongs to the
    /// line behind it and counts only when there is none.
    pub fn first<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Option<(BadLine, Severity)> {
        let mut found: Option<(BadLine, Severity)> = None;
        let mut mark = None;
        for (index, line) in lines.into_iter().enumerate() {
            let Some((name, severity, excused)) = self.look(line) else {
                continue;
            };
            let bad = BadLine {
                pattern: name.to_owned(),
                line: bare(line).to_owned(),
                index,
            };
            if line.contains(MARK) {
                mark = (!excused).then_some((bad, severity));
                continue;
            }
            mark = None;
            let better = match &found {
                None => true,
                Some((_, Severity::Complaint)) => severity == Severity::Crash,
                Some((_, Severity::Crash)) => false,
            };
            if better && !excused {
                found = Some((bad, severity));
            }
        }
        found.or(mark)
    }
}

/// Lines of the kernel's log that the console does not have. A mark `cut here` goes with the line behind it, whose level may be
/// another one.
pub fn beyond(log: &str, seen: &[String]) -> Vec<String> {
    let seen: HashSet<&str> = seen.iter().map(|line| bare(line)).collect();
    let told = |line: &str| seen.contains(bare(line));
    let all: Vec<&str> = log.lines().collect();
    let new = all.iter().enumerate().filter(|(n, line)| {
        let marks_told = line.contains(MARK) && all.get(n + 1).is_some_and(|next| told(next));
        !marks_told && !told(line)
    });
    new.map(|(_, line)| (*line).to_owned()).collect()
}

/// A line without the kernel's time stamp.
pub fn bare(line: &str) -> &str {
    let line = line.trim_end();
    let stamped = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match stamped {
        Some((time, rest)) if time.trim().starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(line: &str) -> Option<&'static str> {
        Forbidden::new(&[]).unwrap().matching(line).map(|(name, _)| name)
    }

    #[test]
    fn log_adds_what_the_console_does_not_have_and_no_mark_without_its_line() {
        let seen = [
            "[    4.1] Debug warning: early leak",
            "[    4.2] WARNING: mm/a.c:9 at f+0x1/0x2",
        ]
        .map(str::to_owned);
        let log = "[    4.0] ------------[ cut here ]------------\n[    4.1] Debug warning: early leak\n\
                   [    4.2] WARNING: mm/a.c:9 at f+0x1/0x2\n[    5.0] quiet\n\
                   [    6.0] ------------[ cut here ]------------\n[    6.1] WARNING: mm/b.c:9 at g+0x1/0x2";
        assert_eq!(
            beyond(log, &seen),
            [
                "[    5.0] quiet",
                "[    6.0] ------------[ cut here ]------------",
                "[    6.1] WARNING: mm/b.c:9 at g+0x1/0x2"
            ]
        );
    }

    #[test]
    fn what_kernels_say_when_they_are_broken_is_forbidden() {
        for (line, expected) in [
            ("[    5.1] Kernel panic - not syncing: sysrq triggered crash", "panic"),
            ("BUG: kernel NULL pointer dereference, address: 0000000000000008", "bug"),
            ("Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"),
            ("BUG: unable to handle page fault for address: ffff", "oops"),
            ("kernel BUG at mm/memblock.c:12!", "kernel-bug"),
            ("BUG: KASAN: slab-out-of-bounds in f+0x1/0x2", "kasan"),
            ("UBSAN: shift-out-of-bounds in x.c:1:2", "ubsan"),
            ("rcu: INFO: rcu_sched self-detected stall on CPU", "rcu-stall"),
            ("INFO: task sh:12 blocked for more than 120 seconds.", "hung-task"),
            ("WARNING: possible circular locking dependency detected", "lockdep"),
            ("WARNING: CPU: 0 PID: 1 at kernel/x.c:3 f+0x1/0x2", "warning"),
            ("WARNING: kernel/x.c:3 at f+0x1/0x2, CPU#0: sh/1", "warning"),
            ("sh invoked oom-killer: gfp_mask=0x1", "oom"),
            ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", "soft-lockup"),
        ] {
            assert_eq!(name(line), Some(expected), "{line}");
        }
        for line in [
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
            "EXT4-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
            "Freeing unused kernel image memory",
            "DEBUG: x",
        ] {
            assert_eq!(name(line), None, "{line}");
        }
    }

    #[test]
    fn the_gravest_line_is_quoted_and_a_mark_gives_way_to_its_line() {
        let forbidden = Forbidden::new(&[]).unwrap();
        let lines = [
            "[    1.0] ------------[ cut here ]------------",
            "[    1.0] WARNING: CPU: 0 PID: 1 at a.c:3 f+0x1/0x2",
            "[    1.5] WARNING: CPU: 0 PID: 1 at b.c:3 f+0x1/0x2",
        ];
        let (bad, severity) = forbidden.first(lines).unwrap();
        assert_eq!(
            (bad.line.as_str(), severity),
            ("WARNING: CPU: 0 PID: 1 at a.c:3 f+0x1/0x2", Severity::Complaint)
        );
        let (bad, severity) = forbidden.first(lines.into_iter().chain(["Oops: 0 [#1]"])).unwrap();
        assert_eq!(
            (bad.pattern.as_str(), bad.index, severity),
            ("oops", 3, Severity::Crash)
        );
    }

    #[test]
    fn exceptions_have_a_name_and_a_reason() {
        let allow = |pattern: &str, line: &str, reason: &str| Allow {
            pattern: pattern.into(),
            line: line.into(),
            reason: reason.into(),
        };
        let forbidden = Forbidden::new(&[allow("warning", "at a.c:3", "known since 6.1")]).unwrap();
        assert_eq!(forbidden.matching("WARNING: CPU: 0 PID: 1 at a.c:3 f"), None);
        assert!(forbidden.matching("WARNING: CPU: 0 PID: 1 at b.c:3 f").is_some());
        let mark = "------------[ cut here ]------------";
        assert_eq!(forbidden.first([mark, "WARNING: CPU: 0 PID: 1 at a.c:3 f"]), None);
        assert!(forbidden.first([mark, "no line of a pattern"]).is_some());
        assert!(
            Forbidden::new(&[allow("warn", "x", "y")])
                .unwrap_err()
                .contains("there is no pattern 'warn'")
        );
        assert!(
            Forbidden::new(&[allow("warning", "x", " ")])
                .unwrap_err()
                .contains("has no reason")
        );
        assert!(Forbidden::new(&[allow("warning", "(", "y")]).is_err());
    }
}
