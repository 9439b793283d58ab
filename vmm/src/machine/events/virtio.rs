//! What virtio devices of the running machine say of themselves.

use super::Running;
use crate::control::{VirtioInfo, VirtioMemInfo, VirtioMemRequests, VirtioPmemInfo};
use crate::layout::VirtioMemoryKind;
use devices::virtio::mem::{Mem, MemStatus};

impl Running {
    /// All of them.
    pub(super) fn virtio(&self) -> VirtioInfo {
        let (live, growth) = (&self.parts.live, &self.parts.growth);
        let pmem = live.pmem.iter().enumerate().filter_map(|(index, device)| {
            let said = growth.config.virtio_pmem.get(index)?;
            let range = growth.layout.virtio_memory(VirtioMemoryKind::Pmem, index)?;
            let (flushes, failed_flushes) = device.flushes();
            Some(VirtioPmemInfo {
                id: growth.config.virtio_pmem_name(index),
                start: range.start.0,
                len: range.len,
                node: said.node,
                readonly: said.readonly,
                driver: device.is_active(),
                flushes,
                failed_flushes,
            })
        });
        let mem = live.mem.iter().enumerate();
        VirtioInfo {
            pmem: pmem.collect(),
            disks: self.disks(),
            mem: mem
                .map(|(index, device)| mem_info(growth.config.virtio_mem_name(index), device))
                .collect(),
        }
    }
}

fn mem_info(id: String, device: &Mem) -> VirtioMemInfo {
    let plan = device.plan();
    let MemStatus {
        requested,
        plugged,
        usable,
        driver,
        requests,
    } = device.status();
    VirtioMemInfo {
        id,
        start: plan.region.start.0,
        len: plan.region.len,
        block: plan.block,
        node: plan.node.into(),
        requested,
        plugged,
        usable,
        driver,
        requests: VirtioMemRequests {
            plugs: requests.plugs,
            unplugs: requests.unplugs,
            refused: requests.refused,
            busy: requests.busy,
            wrong: requests.wrong,
        },
    }
}

fn disk_info(id: String, disk: &Disk) -> DiskInfo {
    let requests = disk.device.requests();
    let (plan, counts) = (requests.plan(), requests.counts());
    let faults = requests.faults().into_iter().map(|status| DiskFaultInfo {
        number: status.number,
        hits: status.hits,
        fault: status.fault,
    });
    DiskInfo {
        id,
        len: plan.sectors * SECTOR,
        readonly: plan.readonly,
        driver: disk.device.is_active(),
        in_flight: disk.device.in_flight() as u64,
        reads: counts.reads,
        writes: counts.writes,
        flushes: counts.flushes,
        failed: counts.failed,
        throttle: requests.throttle(),
        faults: faults.collect(),
    }
}
