//! Requests about memory devices, and what guests do with the devices.

use super::{
    Running,
    serve::{Begun, End, Goal, Pending},
};
use crate::{
    control::{
        ControlError, ErrorKind, GuestAction, MemoryList, MemoryRemoved, MemoryRequest, OperationKind, OperationResult,
        OstInfo, Response,
    },
    machine::hotplug::Announced,
};
use devices::acpi::memory_hotplug::{GuestView, SlotInfo};
use std::time::{Duration, Instant};

/// How long a guest may take to add a memory device.
const ADD_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to give one back, unless the request says.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// How long a guest may take to plug or unplug before the operation counts as unanswered.
const PLUG_LIMIT: Duration = Duration::from_secs(30);
/// How long a guest that does not look is left alone before it is told again.
const REMIND_AFTER: Duration = Duration::from_secs(1);

impl Running {
    pub(super) fn memory(&mut self, request: &MemoryRequest) -> Result<Begun, ControlError> {
        match request {
            MemoryRequest::List => Ok(Begun::Done(Response::Memory(self.memory_list()))),
            MemoryRequest::Add(said) => {
                self.room_for_pending()?;
                let parts = &mut self.parts;
                let device = parts.growth.add_memory(parts.memory.as_deref(), said)?;
                self.memory_changed();
                let id = self.parts.growth.memory_id(device.slot);
                let (kind, goal) = (OperationKind::MemoryAdd, Goal::MemoryTaken(device));
                Ok(Begun::Operation(kind, id, goal, ADD_LIMIT))
            }
            MemoryRequest::Remove { id, deadline } => {
                self.room_for_pending()?;
                let limit = deadline.map_or(REMOVE_LIMIT, |seconds| Duration::from_secs(seconds.into()));
                let (device, gone) = self.ask_for(id)?;
                let (kind, goal) = (OperationKind::MemoryRemove, Goal::MemoryGone(device, gone));
                Ok(Begun::Operation(kind, id.clone(), goal, limit))
            }
            MemoryRequest::Target { id, size } => {
                self.room_for_pending()?;
                let index = self.set_memory_target(id, *size)?;
                let (kind, goal) = (OperationKind::MemoryTarget, Goal::Plugged { index, size: size.0 });
                Ok(Begun::Operation(kind, id.clone(), goal, PLUG_LIMIT))
            }
        }
    }

    /// Asks the guest to give a device back.
    fn ask_for(&mut self, id: &str) -> Result<(Announced, MemoryRemoved), ControlError> {
        let slot = self.parts.growth.memory_slot(id)?;
        let conflict = |why: &str| ControlError::new(ErrorKind::Conflict, format!("{id} {why}")).field("id");
        let mut devices = self.pending.iter().filter_map(|pending| pending.goal.memory_device());
        if devices.any(|device| device.slot == slot) {
            return Err(conflict("is being added or removed").hint("wait for that request to end"));
        }
        let registers = self.parts.memory.as_ref();
        let known = registers.and_then(|registers| registers.slot(slot));
        // Between the guest's ejection and this thread's look at it there is nothing to ask for.
        let known = known.ok_or_else(|| conflict("is being given back"))?;
        self.parts.growth.may_lose(known.range.len)?;
        registers.map(|registers| registers.request_unplug(slot));
        let serial = known.serial;
        let gone = MemoryRemoved {
            id: id.to_owned(),
            len: known.range.len,
        };
        Ok((Announced { slot, serial }, gone))
    }

    pub(super) fn memory_list(&self) -> MemoryList {
        let parts = &self.parts;
        parts.growth.memory_list(parts.memory.as_deref(), &parts.live.mem)
    }

    fn memory_changed(&mut self) {
        self.parts.plan = self.parts.growth.report();
    }

    /// The guest has given the device in `slot` back.
    pub(super) fn memory_ejected(&mut self, slot: u16) {
        self.forget(slot);
    }

    /// Tells a guest again that has not looked for a while, when somebody waits for it.
    pub(super) fn remind_of_memory(&mut self) {
        let waits = |goal: &Goal| matches!(goal, Goal::MemoryTaken(_) | Goal::MemoryGone(..));
        if self.reminded.elapsed() < REMIND_AFTER || !self.pending.iter().any(|pending| waits(&pending.goal)) {
            return;
        }
        self.reminded = Instant::now();
        self.parts.memory.iter().for_each(|registers| registers.remind());
    }

    /// What is known of a device, if it is still the same one.
    fn known(&self, device: Announced) -> Option<SlotInfo> {
        let known = self.parts.memory.as_ref()?.slot(device.slot)?;
        (known.serial == device.serial).then_some(known)
    }

    /// Notes what the guest said last of a device in the operation that waits for it. From the same look that the operation's end
    /// is decided by: the guest may say more at any time.
    fn note_ost(&mut self, device: Announced, known: &SlotInfo) {
        let Some(OstInfo { event, status, text }) = known.ost.map(OstInfo::from) else {
            return;
        };
        let about = |pending: &&Pending| pending.goal.memory_device() == Some(device);
        let waits = self.pending.iter().find(about);
        if let Some(id) = waits.and_then(Pending::operation) {
            self.note_step(id, GuestAction::Ost { event, status }, text);
        }
    }

    /// Whether the guest has made up its mind about a device that was added.
    pub(super) fn memory_taken(&mut self, device: Announced, late: bool) -> Option<End> {
        let Announced { slot, .. } = device;
        let id = self.parts.growth.memory_id(slot);
        let Some(known) = self.known(device) else {
            let text = "the guest has given the device back at once";
            return Some(End::Failed(ControlError::new(ErrorKind::Refused, text)));
        };
        self.note_ost(device, &known);
        match known.guest {
            GuestView::Refused => {
                let said = known.ost.map_or_else(String::new, |ost| format!(": {ost}"));
                self.take_back(slot);
                let text = format!("the guest does not add {id}{said}; it is taken back");
                let error = ControlError::new(ErrorKind::Refused, text);
                Some(End::Failed(error.hint("the guest's kernel log says why")))
            }
            GuestView::Announced | GuestView::Noticed if !late => None,
            GuestView::Announced if self.parts.memory.as_ref().is_some_and(|memory| memory.retract(slot)) => {
                self.forget(slot);
                let limit = ADD_LIMIT.as_secs();
                let text = format!("the guest has not looked at {id} within {limit} s; it is taken back");
                let error = ControlError::new(ErrorKind::Deadline, text);
                Some(End::Failed(
                    error.hint("a guest needs ACPI and CONFIG_ACPI_HOTPLUG_MEMORY"),
                ))
            }
            view => {
                self.parts.growth.keep_memory(slot);
                let added = self.added(slot)?;
                Some(match view {
                    // It knows of the device, and may still add it.
                    GuestView::Announced | GuestView::Noticed => End::Unanswered(added),
                    _ => End::Confirmed(added),
                })
            }
        }
    }

    /// A device that stays, whatever the guest thinks of it.
    pub(super) fn memory_kept(&mut self, device: Announced) -> Option<OperationResult> {
        self.known(device)?;
        self.parts.growth.keep_memory(device.slot);
        self.added(device.slot)
    }

    fn added(&self, slot: u16) -> Option<OperationResult> {
        let list = self.memory_list();
        let added = list.devices.into_iter().find(|info| info.slot == Some(slot))?;
        Some(OperationResult::MemoryAdded(Box::new(added)))
    }

    /// Whether the guest has made up its mind about a device that it was asked for.
    pub(super) fn memory_gone(&mut self, device: Announced, gone: MemoryRemoved, late: bool) -> Option<End> {
        let Announced { slot, .. } = device;
        let id = gone.id.clone();
        let Some(known) = self.known(device) else {
            // The registers hear of it first; the memory is gone when this thread has, and only then another device can be there.
            let another = self
                .parts
                .memory
                .as_ref()
                .is_some_and(|memory| memory.slot(slot).is_some());
            let forgotten = another || !self.parts.growth.plugged.contains_key(&slot);
            return forgotten.then_some(End::Confirmed(OperationResult::MemoryRemoved(gone)));
        };
        self.note_ost(device, &known);
        let said = known.ost.map_or_else(String::new, |ost| format!(": {ost}"));
        if known.guest == GuestView::UnplugRefused {
            let text = format!("the guest keeps {id}{said}");
            let error = ControlError::new(ErrorKind::Refused, text);
            return Some(End::Failed(error.hint(
                "its memory may be in use by the kernel; memory that is online as movable can be freed",
            )));
        }
        late.then(|| {
            let unseen = self
                .parts
                .memory
                .as_ref()
                .is_some_and(|memory| memory.withdraw_unplug(slot));
            let why = match (unseen, known.guest) {
                (true, _) => "has not looked at the request, which is withdrawn".to_owned(),
                (_, guest) => format!("has not ended: {guest}{said}"),
            };
            let text = format!("the guest has not given {id} back in time: it {why}");
            End::Failed(ControlError::new(ErrorKind::Deadline, text))
        })
    }

    /// Takes a device from the machine that the guest has no use for.
    fn take_back(&mut self, slot: u16) {
        self.parts.memory.iter().for_each(|registers| registers.clear(slot));
        self.forget(slot);
    }

    fn forget(&mut self, slot: u16) {
        let gone = self
            .parts
            .growth
            .layout
            .memory
            .iter()
            .find(|placed| placed.slot == slot);
        let gone = gone.map(|placed| placed.range);
        self.parts.growth.forget_memory(slot);
        if let Some(range) = gone {
            self.forget_faults(range);
        }
        self.memory_changed();
    }
}
