//! From the configuration and the map to the NVDIMM buses the guest will see. Pure.

use crate::{
    config::VmConfig,
    layout::{self, Layout, NvdimmPlacement},
};
use devices::nvdimm::{NfitHandle, NfitPlan, NvdimmBusPlan, NvdimmPlan, plan::MAX_SLOTS};

/// The buses of a machine, by number; none when it has no NVDIMM.
pub fn plan(config: &VmConfig, layout: &Layout) -> Vec<NvdimmBusPlan> {
    if layout.nvdimms.is_empty() {
        return vec![];
    }
    let dimm = |(place, nvdimm): (&NvdimmPlacement, &crate::config::NvdimmConfig)| {
        let id = nvdimm.id.clone().unwrap_or_else(|| format!("nvdimm{}", place.slot));
        let label = u32::try_from(place.label_size.0).unwrap_or(u32::MAX);
        let plan = NvdimmPlan {
            family: nvdimm.family,
            ..NvdimmPlan::plain(place.slot, id, place.spa.len, label, nvdimm.readonly)
        };
        (plan, place.spa.start, place.node)
    };
    vec![NvdimmBusPlan {
        number: 0,
        mailbox: layout::dsm_mailbox(0),
        slots: (0..MAX_SLOTS).map(|n| (n, NfitHandle(u32::from(n) + 1))).collect(),
        nfit: NfitPlan::plain(layout.nvdimms.iter().zip(&config.nvdimm).map(dimm)),
    }]
}
