//! Bad memory where not the guest's instructions but the processor itself loads: page tables, descriptor tables, the stack of an
//! exception.
//!
//! KVM does not exit for what it cannot load there. It tells the guest of a page fault that the guest cannot mend, or tries to deliver
//! an interrupt for ever. Real hardware shuts down, or its kernel panics; here the machine ends with the reason, where it is
//! found:
//!
//! ```text
//!   shutdown, KVM gives up ----------------------------+
//!   the same page table entry read again and again ----+--> own_loads() -> walk() -> in a hole? -> Report::BadTable
//!   an interrupt that waits for its stack -------------+
//! ```

use super::{Platform, Report};
use crate::hv::{OwnLoads, Vcpu};
use devices::units::Gpa;

/// Loads of one and the same place, one after the other, until somebody looks whether it is a page fault that never ends.
const SPINS: u32 = 512;
/// Looks at an interrupt that cannot be delivered until it is given up.
const WAITS: u32 = 4;
/// Bits of a page table entry: present, maps a page by itself, and the address.
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What one vCPU did last.
#[derive(Debug, Default)]
pub(super) struct Last {
    load: Option<Gpa>,
    loads: u32,
    waits: u32,
}

/// The way from an address to memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Walk {
    /// Where the entries are that were read.
    entries: Vec<Gpa>,
    /// Where it leads.
    end: Option<Gpa>,
}

/// Walks the tables of 64-bit mode; without paging an address is what it is.
fn walk(levels: u32, root: u64, address: u64, load: impl Fn(Gpa) -> Option<u64>) -> Walk {
    let mut walk = Walk::default();
    let mut table = root & ADDRESS;
    if levels == 0 {
        walk.end = Some(Gpa(address));
        return walk;
    }
    for level in (0..levels).rev() {
        let shift = 12 + 9 * level;
        let entry = Gpa(table + 8 * (address >> shift & 0x1ff));
        walk.entries.push(entry);
        let Some(word) = load(entry).filter(|word| word & PRESENT != 0) else {
            return walk;
        };
        if level == 0 || level <= 2 && word & LARGE != 0 {
            let within = (1 << shift) - 1;
            walk.end = Some(Gpa(word & ADDRESS & !within | address & within));
            return walk;
        }
        table = word & ADDRESS;
    }
    walk
}

impl Platform {
    fn walk(&self, own: &OwnLoads, address: u64) -> Walk {
        walk(own.levels, own.root, address, |entry| {
            let window = self.faults.window(entry)?;
            let mut word = [0; 8];
            window.load(entry.0 - window.range().start.0, &mut word);
            Some(u64::from_le_bytes(word))
        })
    }

    /// What of bad memory the processor needs by itself and does not get.
    fn bad_table(&self, own: &OwnLoads) -> Option<String> {
        let needs = [
            ("the instruction", own.rip, false),
            ("the stack", own.rsp, true),
            ("the interrupt table", own.idt, true),
            ("the segment table", own.gdt, true),
            ("the task state", own.tss, true),
            ("the address of the last page fault", own.cr2, false),
        ];
        needs.into_iter().find_map(|(what, address, itself)| {
            let walk = self.walk(own, address);
            let table = walk.entries.into_iter().find(|entry| self.faults.is_hole(*entry));
            let table = table.map(|entry| {
                format!(
                    "the page table at {}, on the way to {what} at {address:#x}",
                    page(entry)
                )
            });
            let end = walk.end.filter(|end| itself && self.faults.is_hole(*end));
            let why = table.or_else(|| Some(format!("{what} at {}", page(end?))))?;
            Some(format!(
                "{why}, has a bad line, and the processor itself loads from there"
            ))
        })
    }

    /// A report of a vCPU that cannot go on, with bad memory as the reason where that is it.
    pub(super) fn explained(&self, vcpu: &Vcpu, report: Report) -> Report {
        let apic_id = vcpu.apic_id();
        if !self.faults.any() || !matches!(report, Report::TripleFault { .. } | Report::Failed { .. }) {
            return report;
        }
        let own = vcpu.own_loads().ok();
        let why = own.and_then(|own| self.bad_table(&own));
        why.map_or(report, |why| Report::BadTable { apic_id, why })
    }

    /// The vCPU has loaded from a hole. If it does nothing else any more because of a page fault that never ends, its report.
    pub(super) fn loaded(&self, vcpu: &Vcpu, last: &mut Last, gpa: Gpa) -> Option<Report> {
        last.loads = if last.load == Some(gpa) { last.loads + 1 } else { 0 };
        last.load = Some(gpa);
        if last.loads < SPINS {
            return None;
        }
        last.loads = 0;
        let own = vcpu.own_loads().ok()?;
        let walk = self.walk(&own, own.cr2);
        let entry = walk.entries.into_iter().find(|entry| entry.0 / 8 == gpa.0 / 8)?;
        let why = format!(
            "the page table at {}, on the way to {:#x}, has a bad line, and the processor itself loads from there: the guest \
             handles the same page fault for ever",
            page(entry),
            own.cr2
        );
        let apic_id = vcpu.apic_id();
        Some(Report::BadTable { apic_id, why })
    }

    /// The vCPU was brought out of the guest. If it waits for an interrupt that its stack cannot take, its report.
    pub(super) fn looked_at(&self, vcpu: &Vcpu, last: &mut Last) -> Option<Report> {
        if !self.faults.any() {
            return None;
        }
        let own = vcpu.own_loads().ok().filter(|own| own.is_delivering)?;
        let bad = self.bad_table(&own);
        last.waits = if bad.is_some() { last.waits + 1 } else { 0 };
        let why = bad.filter(|_| last.waits >= WAITS)?;
        let apic_id = vcpu.apic_id();
        Some(Report::BadTable { apic_id, why })
    }
}

fn page(at: Gpa) -> Gpa {
    Gpa(at.0 & !0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn walks_name_every_entry_and_where_they_lead() {
        let memory = BTreeMap::from([
            (0x1000, 0x2003),
            (0x2008, 0x3003),
            (0x2000, 0x4000_0083),
            (0x3010, 0x4003),
            (0x3018, 0x60_0083),
            (0x4028, 0x8000_0000_0000_9003),
        ]);
        let load = |entry: Gpa| memory.get(&entry.0).copied();
        let walk = |levels, address| {
            let walk = walk(levels, 0x1018, address, load);
            (
                walk.entries.iter().map(|entry| entry.0).collect::<Vec<_>>(),
                walk.end.map(|end| end.0),
            )
        };
        let near = 1 << 30 | 2 << 21 | 5 << 12 | 0x123;
        assert_eq!(walk(4, near), (vec![0x1000, 0x2008, 0x3010, 0x4028], Some(0x9123)));
        assert_eq!(
            walk(4, 1 << 30 | 3 << 21 | 0x1_2345),
            (vec![0x1000, 0x2008, 0x3018], Some(0x61_2345))
        );
        assert_eq!(walk(4, 0x123_4567), (vec![0x1000, 0x2000], Some(0x4123_4567)));
        assert_eq!(walk(4, 1 << 30), (vec![0x1000, 0x2008, 0x3000], None));
        assert_eq!(walk(4, u64::MAX), (vec![0x1ff8], None));
        assert_eq!(walk(5, near).0[..2], [0x1000, 0x2000]);
        assert_eq!(walk(0, 0x777), (vec![], Some(0x777)));
    }
}
