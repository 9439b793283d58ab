//! `memory_op`: the domain's reservation, and pages of Xen's own that the guest places in its map.

use super::{
    Call, Context, Domain, Done, Errno, Host, Refused,
    abi::{AddToPhysmap, MapEntry, MemoryMap, MemoryReservation, PAGE, RemoveFromPhysmap},
    reservation::Reservation,
};
use crate::units::Gpa;
use std::{collections::BTreeMap, ops::Range};
use zerocopy::{IntoBytes, little_endian::U16};

/// Most frames of the grant table, as Xen has it by default.
pub const MAX_FRAMES: u32 = 64;
/// Largest extent of a guest: 2 MiB (`CONFIG_DOMU_MAX_ORDER`).
const MAX_ORDER: u32 = 9;
/// Pages that one call takes or gives back at most; the guest asks again for the rest.
const MAX_PAGES: u64 = 1 << 15;
/// Entries of a list that are read at once.
const BATCH: usize = 512;
/// No page has a number like this: addresses have 52 bits.
const PAGE_NUMBERS: u64 = 1 << 40;

/// A page that is not the domain's memory, and looks as if it were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// Event channels, time, and vCPUs.
    SharedInfo,
    /// A frame of the grant table.
    Grant(u32),
}

/// Memory of the domain as the guest has arranged it.
pub(super) struct Memory {
    reservation: Reservation,
    map: Vec<(Range<u64>, u32)>,
    special: BTreeMap<u64, Special>,
}

impl Memory {
    pub(super) fn new(boot: Vec<Range<u64>>, maximum: u64, map: Vec<(Range<u64>, u32)>) -> Self {
        Self {
            reservation: Reservation::new(boot, maximum),
            map,
            special: BTreeMap::new(),
        }
    }

    pub(super) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Where a special page is.
    pub(super) fn place_of(&self, special: Special) -> Option<u64> {
        let found = self.special.iter().find(|(_, other)| **other == special);
        found.map(|(page, _)| *page)
    }

    /// Frames of the grant table: up to the last that is placed, and one at least.
    pub(super) fn grant_frames(&self) -> u32 {
        let frames = self.special.values().map(|special| match special {
            Special::SharedInfo => 0,
            Special::Grant(frame) => frame + 1,
        });
        frames.max().unwrap_or_default().max(1)
    }

    /// Takes a special page away. What was the domain's own memory there is gone.
    pub(super) fn unplace(&mut self, page: u64, host: &mut dyn Host) -> Option<Special> {
        let special = self.special.remove(&page)?;
        if self.reservation.is_ram(page) {
            host.discard(page..page + 1);
        } else {
            host.hide_frame(page);
        }
        Some(special)
    }

    /// Takes all of them away.
    pub(super) fn forget_special(&mut self, host: &mut dyn Host) {
        let pages: Vec<_> = self.special.keys().copied().collect();
        for page in pages {
            self.unplace(page, host);
        }
    }

    /// Puts a special page at `page`, with what it holds already.
    fn place(&mut self, special: Special, page: u64, host: &mut dyn Host) -> Result<(), Errno> {
        if self.special.get(&page) == Some(&special) {
            return Ok(());
        }
        if page >= PAGE_NUMBERS {
            return Err(Errno::Invalid);
        }
        let mut contents = vec![0; usize::try_from(PAGE).unwrap_or_default()];
        let before = self.place_of(special);
        if let Some(before) = before {
            host.load(Gpa(before * PAGE), &mut contents);
        }
        self.unplace(page, host);
        if !self.reservation.is_ram(page) && !host.show_frame(page) {
            return Err(Errno::Invalid);
        }
        if let Some(before) = before {
            self.unplace(before, host);
        }
        // As in Xen, the domain's own page is given back for it.
        self.reservation.give(page);
        host.store(Gpa(page * PAGE), &contents);
        self.special.insert(page, special);
        Ok(())
    }

    /// Pages of the extents at `firsts` that are given back; those of an extent that is not the domain's own end the list.
    fn give(&mut self, firsts: &[u64], order: u32, pages: &mut Vec<u64>) -> usize {
        for (done, first) in firsts.iter().enumerate() {
            let Some(extent) =
                extent(*first, order).filter(|extent| extent.clone().all(|page| self.reservation.has(page)))
            else {
                return done;
            };
            for page in extent {
                self.reservation.give(page);
                pages.push(page);
            }
        }
        firsts.len()
    }

    /// Takes the pages of the extents at `firsts`, as many as there may be.
    fn take(&mut self, firsts: &[u64], order: u32, host: &mut dyn Host) -> usize {
        let fits = |memory: &Self, extent: &Range<u64>| {
            let left = memory.reservation.ballooned();
            let free = |page| memory.reservation.may_take(page).is_ok() && !memory.special.contains_key(&page);
            left >= extent.end - extent.start && extent.clone().all(free)
        };
        for (done, first) in firsts.iter().enumerate() {
            let Some(extent) = extent(*first, order).filter(|extent| fits(self, extent)) else {
                return done;
            };
            for page in extent.clone() {
                if !self.take_page(page, host) {
                    // The extent as a whole or not at all.
                    for taken in extent.start..page {
                        self.reservation.give(taken);
                    }
                    return done;
                }
            }
        }
        firsts.len()
    }

    fn take_page(&mut self, page: u64, host: &mut dyn Host) -> bool {
        use super::reservation::SECTION;
        if self.reservation.may_take(page) == Ok(true) {
            let start = page / SECTION * SECTION;
            if !host.provide(start..start + SECTION) {
                return false;
            }
            self.reservation.provided(page);
        }
        self.reservation.take(page).is_ok()
    }
}

/// Pages of one extent.
fn extent(first: u64, order: u32) -> Option<Range<u64>> {
    let end = first.checked_add(1 << order)?;
    (end <= PAGE_NUMBERS).then_some(first..end)
}

/// Answers the call.
pub(super) fn serve(domain: &mut Domain, call: &Call, context: &mut Context<'_>) -> Done {
    let [operation, at, ..] = call.args;
    match operation {
        1 => change(domain, at, context, give),
        6 => populate(domain, at, context),
        3 => count(domain, at, context, domain.reservation().current()),
        4 => count(domain, at, context, domain.reservation().maximum()),
        7 => add(domain, at, context),
        15 => remove(domain, at, context),
        9 => memory_map(&domain.memory.map, at, context),
        // The machine's map is the first domain's own, and nobody else's to see.
        10 if domain.is_initial() => memory_map(&domain.memory.map, at, context),
        10 => Err(Errno::Perm),
        // For those whose addresses are the machine's.
        11 => Err(Errno::NotSupported),
        _ => Err(Errno::NoCall),
    }
}

fn count(domain: &Domain, at: u64, context: &Context<'_>, pages: u64) -> Done {
    let domid: U16 = context.get(at)?;
    if !domain.is_self(domid.get()) {
        return Err(Errno::NoDomain);
    }
    i64::try_from(pages).map_err(|_| Errno::Invalid)
}

type Change = fn(&mut Memory, &[u64], u32, &mut Context<'_>) -> usize;

fn give(memory: &mut Memory, firsts: &[u64], order: u32, context: &mut Context<'_>) -> usize {
    let mut pages = Vec::new();
    let done = memory.give(firsts, order, &mut pages);
    pages.sort_unstable();
    for run in pages.chunk_by(|a, b| a + 1 == *b) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            context.host.discard(*first..last + 1);
        }
    }
    done
}

fn take(memory: &mut Memory, firsts: &[u64], order: u32, context: &mut Context<'_>) -> usize {
    memory.take(firsts, order, context.host)
}

/// Changes the reservation by a list of extents; the answer is how many of them were done.
fn change(domain: &mut Domain, at: u64, context: &mut Context<'_>, how: Change) -> Done {
    let asked: MemoryReservation = context.get(at)?;
    if !domain.is_self(asked.domid.get()) {
        return Err(Errno::NoDomain);
    }
    let order = asked.order.get();
    if order > MAX_ORDER {
        return Ok(0);
    }
    let count = asked.count.get().min(MAX_PAGES >> order);
    let mut done = 0;
    while done < count {
        let len = usize::try_from(count - done).unwrap_or(BATCH).min(BATCH);
        let mut firsts = vec![0u64; len];
        let from = asked.extents.get().wrapping_add(8 * done);
        if context.guest.read(from, firsts.as_mut_bytes()).is_err() {
            break;
        }
        let changed = how(&mut domain.memory, &firsts, order, context);
        done += changed as u64;
        if changed < len {
            break;
        }
    }
    i64::try_from(done).map_err(|_| Errno::Invalid)
}

/// Takes memory, and notes what of it is refused.
fn populate(domain: &mut Domain, at: u64, context: &mut Context<'_>) -> Done {
    let done = change(domain, at, context, take)?;
    let asked: MemoryReservation = context.get(at)?;
    let left = asked.count.get().saturating_sub(done.unsigned_abs());
    // More than one call does is asked for again.
    let order = asked.order.get().min(MAX_ORDER);
    if left > 0 && done.unsigned_abs() < MAX_PAGES >> order {
        let pages = domain.reservation();
        context.refused = Some(Refused {
            asked: left.saturating_mul(1 << order),
            current: pages.current(),
            maximum: pages.maximum(),
        });
    }
    Ok(done)
}

fn add(domain: &mut Domain, at: u64, context: &mut Context<'_>) -> Done {
    const SHARED_INFO: u32 = 0;
    const GRANT_TABLE: u32 = 1;
    let asked: AddToPhysmap = context.get(at)?;
    if !domain.is_self(asked.domid.get()) {
        return Err(Errno::NoDomain);
    }
    let index = u32::try_from(asked.index.get()).map_err(|_| Errno::Invalid)?;
    let special = match asked.space.get() {
        SHARED_INFO if index == 0 => Special::SharedInfo,
        GRANT_TABLE if index < MAX_FRAMES => Special::Grant(index),
        SHARED_INFO | GRANT_TABLE => return Err(Errno::Invalid),
        _ => return Err(Errno::NoCall),
    };
    domain.memory.place(special, asked.page.get(), context.host)?;
    domain.follow_shared_info(context)
}

fn remove(domain: &mut Domain, at: u64, context: &mut Context<'_>) -> Done {
    let asked: RemoveFromPhysmap = context.get(at)?;
    if !domain.is_self(asked.domid.get()) {
        return Err(Errno::NoDomain);
    }
    if domain.memory.unplace(asked.page.get(), context.host).is_none() {
        // The domain's own memory is given back by `decrease_reservation`, and nothing else is there.
        let own = domain.memory.reservation.has(asked.page.get());
        return Err(if own { Errno::Invalid } else { Errno::NoEntry });
    }
    domain.follow_shared_info(context)
}

fn memory_map(map: &[(Range<u64>, u32)], at: u64, context: &Context<'_>) -> Done {
    let mut asked: MemoryMap = context.get(at)?;
    let count = u32::try_from(map.len()).map_err(|_| Errno::NoSpace)?;
    if asked.count.get() < count {
        return Err(Errno::Invalid);
    }
    let entries: Vec<_> = map
        .iter()
        .map(|(range, kind)| MapEntry {
            start: range.start.into(),
            len: (range.end - range.start).into(),
            kind: (*kind).into(),
        })
        .collect();
    context.guest.write(asked.buffer.get(), entries.as_bytes())?;
    asked.count = count.into();
    context.put(at, &asked).map(|()| 0)
}
