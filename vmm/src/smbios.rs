//! What SMBIOS says of a machine at its start, where it lies, and which module is behind an address. Pure.

use crate::{
    config::VmConfig,
    layout::{self, Layout},
    topology::Topology,
};
use devices::{
    smbios::{self, Module, ModulePlan, SmbiosPlan},
    units::{ByteSize, Gpa},
};
use std::collections::BTreeMap;

/// The tables do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the SMBIOS tables need {need:#x} bytes, but {range} has {have:#x}; hint: fewer memory slots", range = layout::SMBIOS, have = layout::SMBIOS.len)]
pub struct TooLarge {
    need: usize,
}

/// Entry point and structures, each where it is to lie.
pub fn pieces(config: &VmConfig, topology: &Topology, layout: &Layout) -> Result<[(Gpa, Vec<u8>); 2], TooLarge> {
    let table = smbios::table(&plan(config, topology, layout));
    let need = table.len();
    if need as u64 > layout::SMBIOS.len {
        return Err(TooLarge { need });
    }
    let entry = smbios::entry(layout::SMBIOS.start, need);
    Ok([(layout::SMBIOS_ENTRY, entry.to_vec()), (layout::SMBIOS.start, table)])
}

fn plan(config: &VmConfig, topology: &Topology, layout: &Layout) -> SmbiosPlan {
    let shape = topology.shape;
    SmbiosPlan {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sockets: shape.sockets.into(),
        cores: shape.cores.into(),
        threads: u16::from(shape.cores) * u16::from(shape.threads),
        modules: modules(config, layout),
        ram: layout.ram.iter().map(|region| region.range).collect(),
    }
}

fn modules(config: &VmConfig, layout: &Layout) -> Vec<ModulePlan> {
    let mut ram: BTreeMap<u32, u64> = BTreeMap::new();
    for region in &layout.ram {
        *ram.entry(region.node).or_default() += region.range.len;
    }
    let ram = ram.into_iter().map(|(node, size)| ModulePlan {
        module: Module::Ram(small(node)),
        handle: None,
        locator: format!("RAM {node}"),
        node: Some(node),
        size,
    });
    let slots = (0..config.memory_slot_count()).map(|slot| {
        let there = layout.memory.iter().find(|placed| placed.slot == slot);
        ModulePlan {
            module: Module::Slot(small(slot.into())),
            handle: None,
            locator: format!("Slot {slot}"),
            node: there.map(|placed| placed.node),
            size: there.map_or(0, |placed| placed.range.len),
        }
    });
    let nvdimms = layout.nvdimms.iter().map(|placed| {
        let said = config.nvdimm.get(usize::from(placed.slot));
        let given = said.and_then(|said| said.physical_id);
        ModulePlan {
            module: Module::Nvdimm(placed.slot),
            handle: given.and_then(|id| u16::try_from(id.0).ok()),
            locator: format!("NVDIMM {}", placed.slot),
            node: said.map(|said| said.node),
            size: ByteSize(placed.capacity).0,
        }
    });
    ram.chain(slots).chain(nvdimms).collect()
}

/// Handle of the module with this part of RAM, boot RAM or a memory device's. NVDIMMs have theirs in the NFIT.
pub fn module_of(layout: &Layout, gpa: Gpa) -> Option<u16> {
    let slot = layout.memory.iter().find(|placed| placed.range.contains(gpa));
    let slot = slot.map(|placed| Module::Slot(small(placed.slot.into())));
    let ram = || layout.ram.iter().find(|region| region.range.contains(gpa));
    let module = slot.or_else(|| ram().map(|region| Module::Ram(small(region.node))));
    module.map(Module::handle)
}

/// Nodes and slots have numbers below 256.
fn small(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{MAX_NODES, MAX_NVDIMMS, MAX_VCPUS, NumaConfig, NvdimmConfig},
        layout::HostLimits,
    };
    use devices::units::Hex;

    fn planned(config: &VmConfig) -> (Topology, Layout) {
        let topology = Topology::plan(config).unwrap();
        let host = HostLimits {
            phys_bits: 46,
            backings: vec![],
            memory_devices: vec![],
        };
        let layout = Layout::plan(config, &topology, &host).unwrap();
        (topology, layout)
    }

    fn nvdimm(physical_id: Option<Hex>) -> NvdimmConfig {
        let default: NvdimmConfig = crate::config::kv::from_str("", Default::default()).unwrap();
        NvdimmConfig {
            size: Some(ByteSize::mib(128)),
            physical_id,
            ..default
        }
    }

    #[test]
    fn the_largest_machine_has_room() {
        let node = |node| NumaConfig {
            node,
            memory: ByteSize::mib(128),
            ..NumaConfig::default()
        };
        let mut config = VmConfig {
            numa: (0..MAX_NODES).map(node).collect(),
            memory_slots: 256,
            nvdimm: vec![nvdimm(None); MAX_NVDIMMS],
            ..VmConfig::default()
        };
        config.cpus.count = MAX_VCPUS;
        config.cpus.sockets = Some(MAX_VCPUS);
        let (topology, layout) = planned(&config);
        let [(entry, head), (start, table)] = pieces(&config, &topology, &layout).unwrap();
        assert_eq!((entry, start), (Gpa(0xf_0040), Gpa(0xf_1000)));
        assert_eq!(head[16..24], start.0.to_le_bytes());
        assert!(table.len() as u64 > layout::SMBIOS.len / 2, "{:#x}", table.len());
        let modules = modules(&config, &layout);
        assert_eq!(modules.len(), 64 + 256 + 32);
    }

    #[test]
    fn memory_has_the_handle_of_its_module() {
        let node = |node, memory| NumaConfig {
            node,
            memory: ByteSize::mib(memory),
            ..NumaConfig::default()
        };
        let config = VmConfig {
            numa: vec![node(0, 256), node(2, 128)],
            nvdimm: vec![nvdimm(None), nvdimm(Some(Hex(0x42)))],
            ..VmConfig::default()
        };
        let (_, layout) = planned(&config);
        assert_eq!(module_of(&layout, Gpa(0x1000)), Some(0x1100));
        assert_eq!(module_of(&layout, Gpa((256 << 20) - 1)), Some(0x1100));
        assert_eq!(module_of(&layout, Gpa(256 << 20)), Some(0x1102));
        assert_eq!(module_of(&layout, Gpa(384 << 20)), None);
        // What the DIMM's file has beside labels.
        let capacity = layout.nvdimms[0].capacity >> 20;
        let modules = modules(&config, &layout);
        let told: Vec<_> = modules
            .iter()
            .map(|plan| (plan.handle.unwrap_or(plan.module.handle()), plan.node, plan.size >> 20))
            .collect();
        assert_eq!(
            told,
            [
                (0x1100, Some(0), 256),
                (0x1102, Some(2), 128),
                (0x1400, Some(0), capacity),
                (0x42, Some(0), capacity)
            ]
        );
    }
}
