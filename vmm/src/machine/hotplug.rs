//! Memory devices of a machine: there at boot, added, and given back.
//!
//! ```text
//!   plan ----> backing opened ----> shown to the guest ----> slot plugged, guest told
//!    pure           |                     |                        |
//!                   +---------------------+------ undone by Drop --+--- not taken, refused: forgotten again
//! ```

use super::{
    build::{BuildError, Plans},
    growth::Growth,
    refusal::{self, failed, first, internal, refused},
};
use crate::{
    config::{MemoryBacking, MemoryDeviceConfig, VmConfig},
    control::{ControlError, ErrorKind, MemoryDeviceInfo, MemoryDeviceKind, MemoryList, OstInfo, Plugging},
    hv::Vm,
    layout::{Layout, MemoryAsk, MemoryPlacement},
    memory::{
        Access, GuestMap, Window, device,
        limits::{self, Change},
    },
};
use devices::{acpi::memory_hotplug::MemoryHotplug, units::ByteSize, virtio::mem::Mem};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

/// What is behind the devices that are plugged, by slot.
pub type Plugged = BTreeMap<u16, Behind>;

/// What is behind a device.
pub struct Behind {
    /// Its memory.
    window: Arc<Window>,
    /// The file that was made for it, while it may still have to be taken back.
    created: Created,
}

/// A device that the guest has been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Its slot.
    pub slot: u16,
    /// Tells it from others in the same slot.
    pub serial: u64,
}

/// Gives the guest the memory of the devices that are there at boot.
pub fn open(config: &VmConfig, plans: &Plans<'_>, vm: &Vm, map: &mut GuestMap) -> Result<Plugged, BuildError> {
    let mut plugged = Plugged::new();
    for ((slot, id, said), facts) in config.memory_devices().zip(plans.memory_devices) {
        let Some(placed) = place_of(plans.layout, slot) else {
            continue;
        };
        let mapping =
            device::open(said, *facts, placed.range).map_err(|source| BuildError::MemoryDevice { id, source })?;
        let window = map.window(vm, placed.range, mapping, Access::ReadWrite, 0)?;
        let created = Created(None);
        plugged.insert(slot, Behind { window, created });
    }
    Ok(plugged)
}

/// The device in `slot`.
fn place_of(layout: &Layout, slot: u16) -> Option<&MemoryPlacement> {
    layout.memory.iter().find(|placed| placed.slot == slot)
}

impl Growth {
    /// The slot of the memory device called `id`.
    pub fn memory_slot(&self, id: &str) -> Result<u16, ControlError> {
        let mut devices = self.config.memory_devices();
        let found = devices.find(|(_, name, _)| name == id).map(|(slot, ..)| slot);
        if found.is_none() && self.virtio_mem_index(id).is_some() {
            let text = format!("{id} is a virtio-mem device, which stays with the machine");
            let error = ControlError::new(ErrorKind::Conflict, text).field("id");
            return Err(error.hint(format!(
                "`memory target {id} 0` asks the guest for all that it has of it"
            )));
        }
        found.ok_or_else(|| {
            let text = format!("there is no memory device '{id}'");
            ControlError::new(ErrorKind::NotFound, text).field("id")
        })
    }

    /// The place of the virtio-mem device called `id`.
    pub fn virtio_mem_index(&self, id: &str) -> Option<usize> {
        (0..self.config.virtio_mem.len()).find(|index| self.config.virtio_mem_name(*index) == id)
    }

    /// Whether the limits allow that a device of `len` bytes goes.
    pub fn may_lose(&self, len: u64) -> Result<(), ControlError> {
        limits::admit(&self.limits, &self.memory_use(), Change::Remove(ByteSize(len)))?;
        Ok(())
    }

    /// What the device in `slot` is called.
    pub fn memory_id(&self, slot: u16) -> String {
        place_of(&self.layout, slot).map_or_else(|| format!("mem{slot}"), |placed| placed.id.clone())
    }

    /// Gives the machine one more memory device, and tells the guest.
    pub fn add_memory(
        &mut self,
        registers: Option<&MemoryHotplug>,
        said: &MemoryDeviceConfig,
    ) -> Result<Announced, ControlError> {
        let registers = registers.ok_or_else(|| {
            refused("the machine has no slots for memory devices".to_owned()).hint("start it with `--memory-slots N`")
        })?;
        if said.cold == Some(true) {
            let why = "cold=on is for devices that are there at boot, and the machine runs".to_owned();
            return Err(refused(why).field("cold").hint("leave out cold="));
        }
        let (config, slot, id) = self.with_device(said)?;
        config.validate().map_err(|problems| first(&problems))?;
        let index = config.memory_device.len() - 1;
        let facts = config.probe_added_memory(index).map_err(|problems| first(&problems))?;
        let ask = MemoryAsk {
            slot,
            id,
            node: said.node,
            backing: facts,
        };
        limits::admit(&self.limits, &self.memory_use(), Change::Add(facts.size))?;
        let layout = self.layout.clone().with_memory_device(&config, ask);
        let layout = layout.map_err(|e| refused(e.to_string()))?;
        let placed = place_of(&layout, slot).ok_or_else(|| internal("the device has no place"))?;
        let (range, node) = (placed.range, placed.node);

        let created = said.file.as_ref().filter(|path| !path.exists()).cloned();
        let created = Created(created);
        let mapping = device::open(said, facts, range).map_err(|e| refusal::device(&e))?;
        let window = self.memory.window(&self.vm, range, mapping, Access::ReadWrite, 0);
        let window = window.map_err(|e| failed(&e))?;
        let Some(serial) = registers.plug(slot, range, node) else {
            self.memory.remove(&window);
            return Err(internal("the slot is taken"));
        };
        self.plugged.insert(slot, Behind { window, created });
        (self.config, self.layout) = (config, layout);
        Ok(Announced { slot, serial })
    }

    /// The configuration with one more device, its slot and its name.
    fn with_device(&self, said: &MemoryDeviceConfig) -> Result<(VmConfig, u16, String), ControlError> {
        let mut config = self.config.clone();
        if let Some(slot) = said.slot
            && place_of(&self.layout, slot).is_some()
        {
            let text = format!("slot {slot} has the memory device {}", self.memory_id(slot));
            let error = ControlError::new(ErrorKind::Conflict, text).field("slot");
            return Err(error.hint("leave out slot="));
        }
        config.memory_device.push(said.clone());
        let slot = config.memory_device_slots().last().copied().unwrap_or(u16::MAX);
        if said.slot.is_none() && slot >= config.memory_slots {
            let text = format!("all {} slots have a memory device", config.memory_slots);
            let error = ControlError::new(ErrorKind::Conflict, text);
            return Err(error.hint("remove one, or start the machine with a larger --memory-slots"));
        }
        if let Some(added) = config.memory_device.last_mut() {
            added.slot = Some(slot);
            added.cold = None;
        }
        let id = said.name(slot);
        if self.config.memory_devices().any(|(_, name, _)| name == id) || self.virtio_mem_index(&id).is_some() {
            let text = format!("there is a memory device {id} already");
            let taken = ControlError::new(ErrorKind::Conflict, text);
            return Err(taken.field("id").hint("give it another id="));
        }
        Ok((config, slot, id))
    }

    /// Takes a device's memory from the machine, after the guest has given it back or has refused it. The host has the memory
    /// again when this returns.
    pub fn forget_memory(&mut self, slot: u16) {
        let slots = self.config.memory_device_slots();
        let at = slots.iter().position(|other| *other == slot);
        at.map(|at| self.config.memory_device.remove(at));
        self.layout = self.layout.clone().without_memory_device(slot);
        if let Some(behind) = self.plugged.remove(&slot) {
            self.memory.remove(&behind.window);
        }
    }

    /// The guest knows of the device in `slot`: it stays, with the file that was made for it.
    pub fn keep_memory(&mut self, slot: u16) {
        if let Some(behind) = self.plugged.get_mut(&slot) {
            behind.created.0 = None;
        }
    }

    /// The devices as they are, those of virtio-mem by their place in the configuration.
    pub fn memory_list(&self, registers: Option<&MemoryHotplug>, virtio: &[Arc<Mem>]) -> MemoryList {
        let info = |placed: &MemoryPlacement| self.memory_info(registers, placed);
        let mut devices: Vec<_> = self.layout.memory.iter().filter_map(info).collect();
        devices.sort_by_key(|device| device.slot);
        let virtio = virtio.iter().enumerate();
        devices.extend(virtio.map(|(index, device)| virtio_info(self.config.virtio_mem_name(index), device)));
        MemoryList {
            slots: self.config.memory_slots,
            block: self.layout.memory_block(&self.config),
            devices,
        }
    }

    fn memory_info(&self, registers: Option<&MemoryHotplug>, placed: &MemoryPlacement) -> Option<MemoryDeviceInfo> {
        let slot = placed.slot;
        let mut devices = self.config.memory_devices();
        let (.., said) = devices.find(|(other, ..)| *other == slot)?;
        let known = registers.and_then(|registers| registers.slot(slot));
        Some(MemoryDeviceInfo {
            id: placed.id.clone(),
            kind: MemoryDeviceKind::Dimm,
            slot: Some(slot),
            start: placed.range.start.0,
            len: placed.range.len,
            node: placed.node,
            backing: said.backing,
            file: said.file.clone(),
            offset: said.offset.map(|offset| offset.0),
            guest: known.map(|known| known.guest),
            ost: known.and_then(|known| known.ost).map(OstInfo::from),
            plugging: None,
        })
    }
}

fn virtio_info(id: String, device: &Mem) -> MemoryDeviceInfo {
    let (plan, status) = (device.plan(), device.status());
    MemoryDeviceInfo {
        id,
        kind: MemoryDeviceKind::VirtioMem,
        slot: None,
        start: plan.region.start.0,
        len: plan.region.len,
        node: plan.node.into(),
        backing: MemoryBacking::Anonymous,
        file: None,
        offset: None,
        guest: None,
        ost: None,
        plugging: Some(Plugging {
            block: plan.block,
            requested: status.requested,
            plugged: status.plugged,
            usable: status.usable,
            driver: status.driver,
        }),
    }
}

/// A file that an addition creates, removed again with it unless that succeeds.
struct Created(Option<PathBuf>);

impl Drop for Created {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
