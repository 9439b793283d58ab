//! What a kernel says when it dies or complains, taken apart: title, place and call trace. Pure; the input is hostile.

use super::console::bare;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::OnceLock};

/// Lines behind the title that belong to one report.
const REPORT: usize = 200;
/// Longest call trace that is kept.
const TRACE: usize = 40;

/// One report of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Oops {
    /// Its first line.
    pub title: String,
    /// Where the kernel was: `symbol+offset/size`.
    pub rip: Option<String>,
    /// Call trace, innermost first; what the unwinder is not sure of is left out.
    pub trace: Vec<String>,
}

fn call() -> &'static Regex {
    static CALL: OnceLock<Regex> = OnceLock::new();
    // Constant patterns of this file, covered by its tests.
    CALL.get_or_init(|| {
        Regex::new(
            r"^\s*(\? )?(?:\[<?([0-9a-f]{8,16})>?\] )?((?:0x[0-9a-f]{8,16})|(?:[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+))",
        )
        .expect("constant pattern")
    })
}

fn rip() -> &'static Regex {
    static RIP: OnceLock<Regex> = OnceLock::new();
    RIP.get_or_init(|| Regex::new(r"RIP: 0010:(?:\[<[0-9a-f]+>\] )?([\w.$+/]+|0x[0-9a-f]+)").expect("constant pattern"))
}

/// The report whose title is line `at`.
pub fn extract(lines: &[&str], at: usize, map: Option<&SystemMap>) -> Oops {
    let title = lines.get(at).map(|l| bare(l).trim().to_owned()).unwrap_or_default();
    let rest = lines.iter().skip(at + 1).take(REPORT).map(|l| bare(l));
    let mut oops = Oops {
        title,
        ..Oops::default()
    };
    let mut tracing = false;
    // Behind "end trace" another report may begin.
    for line in rest {
        if line.contains("---[ end ") {
            break;
        }
        if let (None, Some(found)) = (&oops.rip, rip().captures(line)) {
            oops.rip = found.get(1).map(|m| decode(m.as_str(), map));
            tracing = false;
        } else if line.trim_start().starts_with("Call Trace:") {
            tracing = oops.trace.is_empty();
        } else if tracing
            && !matches!(
                line.trim(),
                "<TASK>" | "</TASK>" | "<IRQ>" | "</IRQ>" | "<NMI>" | "</NMI>" | "<#DF>" | "</#DF>"
            )
        {
            match call().captures(line) {
                Some(found) if found.get(1).is_none() => {
                    let text = found.get(3).map(|m| m.as_str()).unwrap_or_default();
                    if oops.trace.len() < TRACE {
                        oops.trace.push(decode(text, map));
                    }
                }
                Some(_) => {}
                None => tracing = false,
            }
        }
    }
    oops
}

impl Oops {
    /// The function that the report is about: the place, or the first of the trace that does not belong to reporting.
    pub fn culprit(&self) -> Option<&str> {
        const REPORTING: [&str; 9] = [
            "dump_stack",
            "panic",
            "show_",
            "__warn",
            "report_bug",
            "die",
            "exc_",
            "asm_exc_",
            "sysrq_handle_crash",
        ];
        let symbol = |entry: &String| entry.split('+').next().map(str::to_owned);
        let named = self.trace.iter().find(|e| {
            let name = symbol(e).unwrap_or_default();
            !REPORTING.iter().any(|r| name.starts_with(r))
        });
        self.rip
            .as_deref()
            .or(named.map(String::as_str))
            .or(self.trace.first().map(String::as_str))
    }
}

fn decode(text: &str, map: Option<&SystemMap>) -> String {
    let address = text
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let symbol = address.and_then(|a| map?.symbol(a));
    symbol.unwrap_or_else(|| text.to_owned())
}

/// Addresses of a kernel's symbols, from its System.map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemMap(BTreeMap<u64, String>);

impl SystemMap {
    /// Reads lines such as `ffffffff81000000 T _text`; other lines are no error.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let kind = words.next()?;
            "tTwW".contains(kind).then_some(())?;
            Some((address, words.next()?.to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `symbol+offset` of an address in the kernel, for a kernel that was not moved.
    pub fn symbol(&self, address: u64) -> Option<String> {
        let (start, name) = self.0.range(..=address).next_back()?;
        // Beyond the last symbol there is something else.
        let offset = address - start;
        (offset < 16 << 20).then(|| format!("{name}+{offset:#x}"))
    }

    /// The same map for a kernel that says `Kernel Offset: 0x...` in its log.
    pub fn moved(&self, log: &str) -> Self {
        let offset = log
            .split_once("Kernel Offset: 0x")
            .and_then(|(_, rest)| u64::from_str_radix(rest.split_whitespace().next()?, 16).ok())
            .unwrap_or(0);
        Self(
            self.0
                .iter()
                .map(|(a, n)| (a.wrapping_add(offset), n.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: &str = "\
[   12.1] BUG: kernel NULL pointer dereference, address: 0000000000000000
[   12.1] #PF: supervisor write access in kernel mode
[   12.1] Oops: 0002 [#1] PREEMPT SMP NOPTI
[   12.1] CPU: 0 PID: 112 Comm: sh Not tainted 6.1.0-56-amd64 #1
[   12.1] RIP: 0010:lkdtm_BUG+0x8/0x10
[   12.1] Code: 00 00
[   12.1] Call Trace:
[   12.1]  <TASK>
[   12.1]  ? __die_body.cold+0x1a/0x1f
[   12.1]  direct_entry+0x11/0x20
[   12.1]  vfs_write+0xb6/0x3d0
[   12.1]  0xffffffff81000010
[   12.1]  </TASK>
[   12.1] Modules linked in: lkdtm
[   12.1] ---[ end trace 0000000000000000 ]---
[   12.1] RIP: 0010:other+0x8/0x10";

    #[test]
    fn title_place_and_trace_are_taken_out_of_an_oops() {
        let lines: Vec<_> = NULL.lines().collect();
        let map = SystemMap::parse("ffffffff81000000 T _text\nffffffff82000000 D data\nrubbish\n");
        let oops = extract(&lines, 0, Some(&map));
        assert_eq!(
            oops.title,
            "BUG: kernel NULL pointer dereference, address: 0000000000000000"
        );
        assert_eq!(oops.rip.as_deref(), Some("lkdtm_BUG+0x8/0x10"));
        assert_eq!(
            oops.trace,
            ["direct_entry+0x11/0x20", "vfs_write+0xb6/0x3d0", "_text+0x10"]
        );
        assert_eq!(oops.culprit(), Some("lkdtm_BUG+0x8/0x10"));
    }

    #[test]
    fn a_panic_without_a_kernel_rip_is_named_by_its_trace() {
        let text = "Kernel panic - not syncing: sysrq triggered crash\nCPU: 0 PID: 1\nCall Trace:\n <TASK>\n dump_stack_lvl+0x44/0x5c\n panic+0x118/0x2ed\n sysrq_handle_crash+0x15/0x20\n __handle_sysrq.cold+0x1/0x2\nRIP: 0033:0x7f00\n";
        let lines: Vec<_> = text.lines().collect();
        let oops = extract(&lines, 0, None);
        assert_eq!(oops.rip, None);
        assert_eq!(oops.trace.len(), 4);
        assert_eq!(oops.culprit(), Some("__handle_sysrq.cold+0x1/0x2"));
    }

    #[test]
    fn a_map_moves_with_its_kernel() {
        let map = SystemMap::parse("ffffffff81000000 T _text\n");
        let moved = map.moved("x\nKernel Offset: 0x1000000 from 0xffffffff81000000 (relocation range)");
        assert_eq!(moved.symbol(0xffff_ffff_8200_0004).as_deref(), Some("_text+0x4"));
        assert_eq!(map.symbol(0x1000), None);
        assert_eq!(map.symbol(u64::MAX), None);
    }
}
