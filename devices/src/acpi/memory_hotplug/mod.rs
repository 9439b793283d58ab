//! Hot-pluggable memory devices: the register block behind the PNP0C80 devices of the namespace.
//!
//! The first 24 bytes are those of QEMU's controller; the word behind them finds a pending event without a walk over all
//! slots. Every register but the selectors speaks of the selected slot; one that is not there, or empty, reads as 0.
//!
//! | offset | read | write |
//! |---|---|---|
//! | 0 | base, low half | selects a slot |
//! | 4 | base, high half | source event of `_OST` |
//! | 8 | length, low half | status of `_OST`: takes event and status |
//! | 12 | length, high half | |
//! | 16 | proximity domain | |
//! | 20 | bit 0 present, 1 insertion pending, 2 removal pending | bit 1, 2: clear that event; bit 3: eject |
//! | 24 | the lowest slot with a pending event, which is then selected; all ones without one | |
//!
//! ```text
//!           plug            scan           _OST 1, success
//!   empty --------> announced ---> noticed ---------------> taken <------------------+
//!     ^                |              |  _OST 1, failure                             |
//!     |  retract       |              +----------------> refused                     |
//!     +----------------+                                                             |
//!     |         _EJ0            _OST 3, in progress          scan           request_unplug
//!     +--------- unplug-under-way <------------ unplug-noticed <--- unplug-announced +
//!                                   \________________/
//!                                    _OST 3, failure: unplug-refused
//! ```
//!
//! A guest may eject by itself, in every state: the memory is its own to give back.
//!
//! Linux reads the status of a slot that it has ejected. If another device is there by then it takes the ejection for incomplete, the
//! device for the old one, and says that it has the memory when it has not. So a slot that was ejected reads as empty until its status
//! has been read, or `_OST` has ended the ejection; what was plugged meanwhile is announced then.

pub mod aml;
mod config;
pub mod ost;

pub use config::{MemoryBacking, MemoryDeviceConfig};
pub use ost::{Ost, Verdict};

use crate::{BusDevice, Effect, Line, units::GpaRange};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Most slots of a machine.
pub const MAX_SLOTS: u16 = 256;

const BASE_LOW: u64 = 0;
const OST_EVENT: u64 = 4;
const OST_STATUS: u64 = 8;
const FLAGS: u64 = 20;
const NEXT: u64 = 24;
/// Bytes of the block.
const LEN: usize = 28;
/// A guest that has not read the status of a slot after this time does not look after its ejections.
const LOOK: Duration = Duration::from_secs(2);

/// Flags, see the table.
const PRESENT: u8 = 1 << 0;
const INSERT: u8 = 1 << 1;
const REMOVE: u8 = 1 << 2;
const EJECT: u8 = 1 << 3;

/// What the guest has made of a device so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestView {
    /// It was there when the guest started, which says nothing of such devices.
    AtBoot,
    /// Plugged; the guest has not looked yet.
    Announced,
    /// The guest knows that it is there.
    Noticed,
    /// The guest has added the memory.
    Taken,
    /// The guest has said that it does not add the memory.
    Refused,
    /// The guest is asked to give it back and has not looked yet.
    UnplugAnnounced,
    /// The guest knows that it is asked.
    UnplugNoticed,
    /// The guest is on the way to give it back.
    UnplugUnderWay,
    /// The guest keeps it.
    UnplugRefused,
}

impl fmt::Display for GuestView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtBoot => "there at boot",
            Self::Announced => "announced, the guest has not looked yet",
            Self::Noticed => "noticed by the guest",
            Self::Taken => "added by the guest",
            Self::Refused => "refused by the guest",
            Self::UnplugAnnounced => "asked for, the guest has not looked yet",
            Self::UnplugNoticed => "asked for, which the guest has noticed",
            Self::UnplugUnderWay => "being given back",
            Self::UnplugRefused => "kept by the guest",
        })
    }
}

/// What is known of a plugged device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// Tells this device from others in the same slot.
    pub serial: u64,
    /// Where.
    pub range: GpaRange,
    /// What the guest has made of it.
    pub guest: GuestView,
    /// What the guest said last, if it said anything.
    pub ost: Option<Ost>,
}

#[derive(Debug, Clone, Copy)]
struct Plugged {
    serial: u64,
    range: GpaRange,
    node: u32,
    guest: GuestView,
    ost: Option<Ost>,
    insert: bool,
    remove: bool,
    /// The guest has read where it is.
    looked: bool,
}

#[derive(Debug)]
struct State {
    slots: Vec<Option<Plugged>>,
    /// When a slot was ejected that the guest has not looked at since.
    ejected: Vec<Option<Instant>>,
    selected: u32,
    ost_event: u32,
    serial: u64,
}

/// The register block.
pub struct MemoryHotplug {
    state: Mutex<State>,
    line: Box<dyn Line>,
}

impl MemoryHotplug {
    /// Ports of the block.
    pub const PORTS: u64 = LEN as u64;

    /// `slots` empty slots, at most [`MAX_SLOTS`]; `line` tells the guest to look.
    pub fn new(slots: u16, line: impl Line + 'static) -> Self {
        let slots = usize::from(slots.min(MAX_SLOTS));
        let state = State {
            slots: vec![None; slots],
            ejected: vec![None; slots],
            selected: 0,
            ost_event: 0,
            serial: 0,
        };
        Self {
            state: Mutex::new(state),
            line: Box::new(line),
        }
    }

    /// A device that is there when the guest starts. Nothing where there is no such slot, or one in it.
    pub fn plug_cold(&self, slot: u16, range: GpaRange, node: u32) -> Option<u64> {
        self.lock().plug(slot, range, node, GuestView::AtBoot)
    }

    /// A device that comes while the guest runs: the guest is told. Returns its serial; nothing where there is no such slot,
    /// or one in it.
    pub fn plug(&self, slot: u16, range: GpaRange, node: u32) -> Option<u64> {
        let serial = self.lock().plug(slot, range, node, GuestView::Announced);
        if serial.is_some() {
            self.line.pulse();
        }
        serial
    }

    /// Asks the guest to give a device back. False where there is none.
    pub fn request_unplug(&self, slot: u16) -> bool {
        let mut state = self.lock();
        let Some(plugged) = state.get(slot) else { return false };
        plugged.remove = true;
        plugged.guest = GuestView::UnplugAnnounced;
        plugged.ost = None;
        drop(state);
        self.line.pulse();
        true
    }

    /// Takes back a request that the guest has not seen. False when it has.
    pub fn withdraw_unplug(&self, slot: u16) -> bool {
        let mut state = self.lock();
        let Some(plugged) = state.get(slot).filter(|plugged| plugged.remove) else {
            return false;
        };
        plugged.remove = false;
        plugged.guest = GuestView::Taken;
        true
    }

    /// Takes back a device that the guest has not looked at. False when it has; then it stays.
    pub fn retract(&self, slot: u16) -> bool {
        let mut state = self.lock();
        let unseen = state.get(slot).is_some_and(|plugged| plugged.insert && !plugged.looked);
        if unseen {
            state.clear(slot);
        }
        unseen
    }

    /// Takes away a device that the guest has refused, or one whose memory never came.
    pub fn clear(&self, slot: u16) {
        self.lock().clear(slot);
    }

    /// The device in a slot.
    pub fn slot(&self, slot: u16) -> Option<SlotInfo> {
        self.lock().get(slot).map(|plugged| SlotInfo {
            serial: plugged.serial,
            range: plugged.range,
            guest: plugged.guest,
            ost: plugged.ost,
        })
    }

    /// Whether the guest has still to look at an event.
    pub fn has_pending(&self) -> bool {
        self.lock().next_pending().is_some()
    }

    /// Tells the guest once more to look, if it has not: an interrupt that comes before its driver is lost.
    pub fn remind(&self) {
        if self.has_pending() {
            self.line.pulse();
        }
    }

    /// Back to power-on: what is plugged is there at the next boot, and nothing has been said of it.
    pub fn reset(&self) {
        let mut state = self.lock();
        (state.selected, state.ost_event) = (0, 0);
        state.ejected.fill(None);
        for plugged in state.slots.iter_mut().flatten() {
            plugged.guest = GuestView::AtBoot;
            (plugged.insert, plugged.remove, plugged.looked, plugged.ost) = (false, false, false, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get(&mut self, slot: u16) -> Option<&mut Plugged> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// What the guest sees in the slot that it has selected.
    fn selected(&mut self) -> Option<(u16, &mut Plugged)> {
        let slot = u16::try_from(self.selected).ok()?;
        if self.is_hidden(slot.into()) {
            return None;
        }
        self.get(slot).map(|plugged| (slot, plugged))
    }

    /// Whether the guest is still busy with the device that was in a slot before.
    fn is_hidden(&self, slot: usize) -> bool {
        let ejected = self.ejected.get(slot).copied().flatten();
        ejected.is_some_and(|at| at.elapsed() < LOOK)
    }

    /// The guest is done with the device that was in the selected slot. Whether there is another one to tell it of.
    fn end_ejection(&mut self) -> bool {
        let Ok(slot) = usize::try_from(self.selected) else {
            return false;
        };
        let ejected = self.ejected.get_mut(slot).and_then(Option::take).is_some();
        let waits = |place: &Plugged| place.insert;
        ejected && self.slots.get(slot).and_then(Option::as_ref).is_some_and(waits)
    }

    fn plug(&mut self, slot: u16, range: GpaRange, node: u32, guest: GuestView) -> Option<u64> {
        let serial = self.serial + 1;
        let place = self.slots.get_mut(usize::from(slot)).filter(|place| place.is_none())?;
        *place = Some(Plugged {
            serial,
            range,
            node,
            guest,
            ost: None,
            insert: guest == GuestView::Announced,
            remove: false,
            looked: false,
        });
        self.serial = serial;
        Some(serial)
    }

    fn clear(&mut self, slot: u16) {
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = None;
        }
    }

    fn next_pending(&self) -> Option<u32> {
        let pending = |(slot, place): (usize, &Option<Plugged>)| {
            place.is_some_and(|plugged| plugged.insert || plugged.remove) && !self.is_hidden(slot)
        };
        let at = self.slots.iter().enumerate().position(pending)?;
        u32::try_from(at).ok()
    }

    /// The whole block as a read finds it.
    fn registers(&mut self, next: u32) -> [u8; LEN] {
        let mut block = [0; LEN];
        if let Some((_, plugged)) = self.selected() {
            let mut flags = PRESENT;
            flags |= if plugged.insert { INSERT } else { 0 };
            flags |= if plugged.remove { REMOVE } else { 0 };
            let words = [
                &plugged.range.start.0.to_le_bytes()[..],
                &plugged.range.len.to_le_bytes(),
                &plugged.node.to_le_bytes(),
                &[flags, 0, 0, 0],
            ];
            block.iter_mut().zip(words.concat()).for_each(|(to, from)| *to = from);
        }
        block
            .iter_mut()
            .rev()
            .zip(next.to_be_bytes())
            .for_each(|(to, from)| *to = from);
        block
    }

    fn clear_events(&mut self, flags: u8) {
        let Some((_, plugged)) = self.selected() else { return };
        if flags & INSERT != 0 && plugged.insert {
            plugged.insert = false;
            plugged.guest = GuestView::Noticed;
        }
        if flags & REMOVE != 0 && plugged.remove {
            plugged.remove = false;
            plugged.guest = GuestView::UnplugNoticed;
        }
    }

    fn eject(&mut self) -> Effect {
        let Some((slot, _)) = self.selected() else {
            return Effect::None;
        };
        self.clear(slot);
        if let Some(ejected) = self.ejected.get_mut(usize::from(slot)) {
            *ejected = Some(Instant::now());
        }
        Effect::MemoryEjected(slot)
    }

    fn take_ost(&mut self, status: u32) -> Effect {
        let ost = Ost {
            event: self.ost_event,
            status,
        };
        // What is said of a slot that has just been ejected is the end of that ejection.
        let Some((_, plugged)) = self.selected() else {
            return Effect::None;
        };
        let verdict = ost.verdict();
        plugged.guest = match (ost.is_insertion(), ost.is_ejection(), verdict) {
            (true, _, Verdict::Done) => GuestView::Taken,
            (true, _, Verdict::UnderWay) => GuestView::Noticed,
            (true, _, Verdict::Refused) => GuestView::Refused,
            (_, true, Verdict::UnderWay) => GuestView::UnplugUnderWay,
            (_, true, Verdict::Refused) => GuestView::UnplugRefused,
            // The end of the ejection of the device before this one, or of no event of ours.
            (_, true, Verdict::Done) | (false, false, _) => return Effect::None,
        };
        plugged.ost = Some(ost);
        Effect::Progress
    }
}

impl BusDevice for MemoryHotplug {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.lock();
        let covers = |at: u64| at.checked_sub(offset).is_some_and(|n| n < data.len() as u64);
        let mut next = u32::MAX;
        if covers(NEXT) {
            next = state.next_pending().unwrap_or(u32::MAX);
            if next != u32::MAX {
                state.selected = next;
            }
        }
        if covers(BASE_LOW)
            && let Some((_, plugged)) = state.selected()
        {
            plugged.looked = true;
        }
        let block = state.registers(next);
        let tell = covers(FLAGS) && state.end_ejection();
        drop(state);
        if tell {
            self.line.pulse();
        }
        let from = usize::try_from(offset).ok().and_then(|at| block.get(at..));
        data.fill(0);
        data.iter_mut()
            .zip(from.unwrap_or_default())
            .for_each(|(to, from)| *to = *from);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut state = self.lock();
        let word = || <[u8; 4]>::try_from(data).map(u32::from_le_bytes).ok();
        match (offset, word()) {
            (BASE_LOW, Some(slot)) => state.selected = slot,
            (OST_EVENT, Some(event)) => state.ost_event = event,
            (OST_STATUS, Some(status)) => {
                let effect = state.take_ost(status);
                let tell = state.end_ejection();
                drop(state);
                if tell {
                    self.line.pulse();
                }
                return effect;
            }
            (FLAGS, _) => {
                let flags = data.first().copied().unwrap_or(0);
                state.clear_events(flags);
                if flags & EJECT != 0 {
                    return state.eject();
                }
            }
            _ => {}
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests;
