//! What a running machine is given later.
//!
//! Everything is decided and opened first; the guest learns of it last, and nothing is left of an addition that fails.

use crate::{
    config::{
        Limits, LimitsConfig, MemoryRangeConfig, NvdimmConfig, VmConfig,
        probe::{Purpose, devdax_node},
    },
    control::{ControlError, ErrorKind, LimitsInfo, RangePlanned, change_limits},
    hv::Vm,
    layout::{HostLimits, Layout, NvdimmAsk, map::Report},
    machine::{
        hotplug::Plugged,
        nvdimm::{LeftState, add_hint, open_state},
        refusal::{self, failed, first, internal, refused},
        restart::Files,
        secure::{self, Contents, open_dimm},
    },
    memory::{GuestMap, backing::Opened, encrypted::writeback::WriteBack, limits::MemoryUse},
    nvdimm,
    topology::Topology,
};
use devices::{
    nvdimm::{Dimm, FlushHints, NvdimmBus, NvdimmBusPlan, plan::PersistenceDomain},
    units::{ByteSize, Hex},
};
use std::{fs, sync::Arc};

/// The machine as it was planned, its memory, and the means to change both.
pub struct Growth {
    /// What was asked for, with all that was added.
    pub config: VmConfig,
    /// vCPUs and nodes.
    pub topology: Topology,
    /// Addresses.
    pub layout: Layout,
    /// Guest physical address bits.
    pub phys_bits: u8,
    /// Writes encrypted DIMMs back; dropped while their memory is still there.
    pub write_back: WriteBack,
    /// What its RAM may become.
    pub limits: Limits,
    /// Memory with its slots.
    pub memory: GuestMap,
    /// What of it belongs to memory devices.
    pub plugged: Plugged,
    /// What NVDIMMs without a file are made of.
    pub files: Files,
    /// The virtual machine.
    pub vm: Vm,
}

/// An addition that the guest has been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Slot of the DIMM.
    pub slot: u8,
    /// Version of the NFIT that has it.
    pub generation: u32,
}

impl Growth {
    /// The plan of the machine as it is now.
    pub fn report(&self) -> Report {
        Report::new(&self.config, &self.topology, &self.layout, self.phys_bits)
    }

    /// RAM as it is counted against the limits.
    pub fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            boot: self.layout.ram_size(),
            devices: ByteSize(self.layout.memory.iter().map(|placed| placed.range.len).sum()),
            resizable: self.config.requested_memory(),
        }
    }

    /// The limits, and how much RAM there is.
    pub fn limits_info(&self) -> LimitsInfo {
        let used = self.memory_use();
        LimitsInfo {
            limits: self.limits,
            used,
            total: used.total(),
            domain: None,
        }
    }

    /// Notes a range of a device-dax node that the guest finds at its next boot, when the whole machine could be planned with it.
    pub fn add_dax_range_later(&mut self, said: MemoryRangeConfig) -> Result<RangePlanned, ControlError> {
        let index = self.config.memory_range.len();
        let mut config = self.config.clone();
        config.memory_range.push(said);
        let id = config.memory_range_name(index);
        let node = config.memory_range.get(index).and_then(|range| range.file.as_deref());
        node.map_or(Ok(()), |path| devdax_node(&id, path))
            .map_err(|problem| first(&[problem]))?;
        if (0..index).any(|other| config.memory_range_name(other) == id) {
            let taken = ControlError::new(ErrorKind::Conflict, format!("there is a memory range {id} already"));
            return Err(taken.field("id").hint("give it another id="));
        }
        config.validate().map_err(|problems| first(&problems))?;
        let backings = config.probe(Purpose::Boot).map_err(|problems| first(&problems))?;
        let memory_devices = config.probe_memory_devices().map_err(|problems| first(&problems))?;
        let topology = Topology::plan(&config).map_err(|e| refused(e.to_string()))?;
        let host = HostLimits {
            phys_bits: self.phys_bits,
            backings,
            memory_devices,
        };
        let layout = Layout::plan(&config, &topology, &host).map_err(|e| refused(e.to_string()))?;
        let placed = layout.ranges.iter().find(|range| range.index == index);
        let placed = placed.ok_or_else(|| internal("the range has no place"))?;
        let planned = RangePlanned {
            id,
            start: placed.range.start.0,
            len: placed.range.len,
            node: placed.node,
        };
        self.config = config;
        Ok(planned)
    }

    /// Changes the limits that are named, all of them or none.
    pub fn set_limits(&mut self, asked: &LimitsConfig) -> Result<(), ControlError> {
        self.limits = change_limits(&self.limits, asked)?;
        Ok(())
    }

    /// Gives the machine one more NVDIMM, in the next free slot.
    pub fn add_nvdimm(
        &mut self,
        buses: &[Arc<NvdimmBus>],
        hints: &FlushHints,
        said: &NvdimmConfig,
    ) -> Result<Added, ControlError> {
        let slot = self.config.nvdimm.len();
        let mut said = said.clone();
        let bus = buses.iter().find(|bus| bus.number() == said.bus).ok_or_else(|| {
            refused(format!("the machine has no NVDIMM bus {}", said.bus))
                .field("bus")
                .hint("a machine started without NVDIMMs needs `--nvdimm-bus 0` to be given some later")
        })?;
        self.choose_handle(slot, &mut said)?;
        let name = said.id.clone().unwrap_or_else(|| format!("nvdimm{slot}"));
        if self.config.nvdimm_slot(&name).is_some() {
            let taken = ControlError::new(ErrorKind::Conflict, format!("there is an nvdimm {name} already"));
            return Err(taken.field("id").hint("give it another id="));
        }
        self.check_node(said.node)?;

        let mut config = self.config.clone();
        config.nvdimm.push(said.clone());
        config.validate().map_err(|problems| first(&problems))?;
        let facts = config.probe_added(slot).map_err(|problems| first(&problems))?;
        let ask = NvdimmAsk {
            slot: u8::try_from(slot).map_err(|e| refused(e.to_string()))?,
            config: &said,
            backing: facts,
            mapped: config.has_own_range(slot),
        };
        let layout = self.layout.clone().with_added(&ask, self.phys_bits);
        let layout = layout.map_err(|e| refused(e.to_string()))?;
        let plan = nvdimm::plan(&config, &layout)
            .into_iter()
            .find(|plan| plan.number == said.bus);
        let plan = plan.ok_or_else(|| internal("the bus has no plan"))?;
        self.check_domain(&name, &said, plan.nfit.domain)?;

        let created = said.file.as_ref().filter(|path| !path.exists()).cloned();
        let dimm = plan
            .nfit
            .dimm(ask.slot)
            .ok_or_else(|| internal("the DIMM has no plan"))?;
        let state = open_state(&config, dimm, None).map_err(|e| refusal::state(&e))?;
        let (mut opened, contents) = open_dimm(&said, facts, None).map_err(|e| refusal::backing(&e))?;
        let (flush, dimm) = (opened.flush.take(), dimm.clone());
        let memory = said.file.is_none().then(|| opened.source.file.clone());
        let kept = state.memory();
        let done = self.show(bus, plan, (opened, contents), state, &config, (ask.slot, &layout));
        if let (Err(_), Some(path)) = (&done, created) {
            let _ = fs::remove_file(path);
            let _ = said.key_file().filter(|_| said.encrypt).map(fs::remove_file);
        }
        let generation = done?;
        add_hint(hints, bus, &dimm, flush);
        (self.config, self.layout) = (config, layout);
        let slot = ask.slot;
        self.files.nvdimm.extend(memory.map(|file| (slot, file)));
        self.files.states.extend(kept.map(|state| (slot, state)));
        Ok(Added { slot, generation })
    }

    /// Memory first, then the NFIT that names it.
    fn show(
        &mut self,
        bus: &NvdimmBus,
        plan: NvdimmBusPlan,
        (opened, contents): (Opened, Option<Contents>),
        state: LeftState,
        config: &VmConfig,
        (slot, layout): (u8, &Layout),
    ) -> Result<u32, ControlError> {
        let Opened {
            mapping,
            labels,
            access,
            ..
        } = opened;
        let mine = |spa: &&crate::layout::SpaPlacement| spa.plan.mappings.iter().any(|m| m.slot == slot);
        let mut windows = vec![];
        if let Some(spa) = layout.spas.iter().find(mine) {
            let locks = usize::from(contents.is_some());
            let window = self.memory.window(&self.vm, spa.plan.range, mapping, access, locks);
            let window = window.map_err(|e| failed(&e))?;
            windows.push(Arc::new(secure::watch(window, &spa.plan, |n| {
                contents.as_ref().filter(|_| n == slot)
            })));
        }
        let labels = labels.unwrap_or_else(|| Box::new(Vec::new()));
        let added = plan
            .nfit
            .dimm(slot)
            .ok_or_else(|| internal("the DIMM has no plan"))?
            .clone();
        let encrypted = contents.as_ref().and_then(Contents::encrypted);
        let secured = contents.map(|contents| secure::prepare(config, &added, contents, windows, &state));
        let secured = secured.transpose().map_err(|e| failed(&e))?;
        let generation = bus.with(|bus| {
            let mut dimm = Dimm::new(added, labels, &bus.clock);
            dimm.restore(&state.state, state.store()).map_err(|e| failed(&e))?;
            if let Some(secured) = secured {
                secure::give(&mut dimm, secured, &bus.clock).map_err(|e| failed(&e))?;
            }
            bus.grow(plan.nfit, dimm).map_err(|e| internal(&e.to_string()))?;
            bus.keep().map_err(|e| failed(&e))?;
            Ok::<_, ControlError>(bus.fit_generation)
        })?;
        if let Some(dimm) = encrypted {
            self.write_back.add(dimm).map_err(|e| failed(&e))?;
        }
        Ok(generation)
    }

    /// The ACPI device of every slot has its handle since the start.
    fn choose_handle(&self, slot: usize, said: &mut NvdimmConfig) -> Result<(), ControlError> {
        let buses = nvdimm::plan(&self.config, &self.layout);
        let slots = buses
            .into_iter()
            .find(|bus| bus.number == said.bus)
            .map(|bus| bus.slots);
        let free = slots.into_iter().flatten().find(|(n, _)| usize::from(*n) == slot);
        let Some((_, handle)) = free else {
            let full = format!("bus {} has no slot {slot} for another NVDIMM", said.bus);
            return Err(refused(full)
                .field("bus")
                .hint("only the first bus has free slots, 32 in all"));
        };
        if let Some(asked) = said.handle.filter(|asked| asked.0 != handle.0) {
            let fixed = format!("handle={asked} cannot be chosen: slot {slot} has the handle {handle}");
            return Err(refused(fixed).field("handle").hint("leave out handle="));
        }
        if handle.0 != u32::try_from(slot + 1).unwrap_or(u32::MAX) {
            said.handle = Some(Hex(handle.0));
        }
        Ok(())
    }

    /// What the platform promises does not change while the guest runs.
    fn check_domain(&self, name: &str, said: &NvdimmConfig, asked: PersistenceDomain) -> Result<(), ControlError> {
        let buses = nvdimm::plan(&self.config, &self.layout);
        let promised = buses
            .iter()
            .find(|bus| bus.number == said.bus)
            .map(|bus| bus.nfit.domain);
        if promised == Some(asked) {
            return Ok(());
        }
        let number = said.bus;
        let why = format!(
            "{name} would have flush hints, and bus {number} has promised the guest since the start that none are needed"
        );
        let hint = format!(
            "start the machine with `--nvdimm-bus {number},persistence=memory-controller`, or add the NVDIMM with flush=none"
        );
        Err(refused(why).field("flush").hint(hint))
    }

    /// A guest cannot put memory on a node that the SRAT has not told it of at boot.
    fn check_node(&self, node: u32) -> Result<(), ControlError> {
        let report = self.report();
        let known = report
            .nodes
            .iter()
            .find(|n| n.node == node)
            .is_none_or(|n| n.linux_node.is_some());
        if known {
            return Ok(());
        }
        let unknown =
            format!("node {node} has had no vCPU and no memory since the start, so the guest does not know it");
        let hint = format!("start the machine with `--numa node={node},hotplug=SIZE`");
        Err(refused(unknown).field("node").hint(hint))
    }
}
