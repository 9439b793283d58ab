//! What virtio devices of the running machine say of themselves.

use super::{Running, serve::End};
use crate::{
    config::{VmConfig, throttle_problem},
    control::{
        ControlError, DiskFaultInfo, DiskInfo, DiskList, DiskRequest, ErrorKind, MemoryTargetInfo, NetFrames, NetInfo,
        OperationResult, Response, ShareInfo, VirtioInfo, VirtioMemInfo, VirtioMemRequests, VirtioPmemInfo, VsockInfo,
    },
    layout::VirtioMemoryKind,
    machine::{disk::Disk, growth::Growth, net::NetPort, vsock::VsockPort},
    memory::limits::{self, Change},
};
use devices::{
    units::ByteSize,
    virtio::{
        blk::SECTOR,
        mem::{Mem, MemStatus},
        net::{NetCounts, NetStatus},
        p9::{P9, ShareStatus},
        vsock::VsockStatus,
    },
};

/// Most faults of one disk: each is looked at for every request.
const MAX_FAULTS: usize = 256;

impl Running {
    /// Asks a virtio-mem device's guest for another size; the device by its place.
    pub(super) fn set_memory_target(&mut self, id: &str, size: ByteSize) -> Result<usize, ControlError> {
        let growth = &mut self.parts.growth;
        let index = growth.virtio_mem_index(id).ok_or_else(|| no_target(growth, id))?;
        let used = growth.memory_use();
        let device = self
            .parts
            .live
            .mem
            .get(index)
            .zip(growth.config.virtio_mem.get_mut(index));
        let (device, said) = device.ok_or_else(|| ControlError::new(ErrorKind::Internal, "the device is gone"))?;
        let refused = |e: devices::virtio::mem::TargetError| {
            ControlError::new(ErrorKind::InvalidRequest, e.to_string()).field("size")
        };
        device.check(size.0).map_err(refused)?;
        let from = said.requested;
        limits::admit(&growth.limits, &used, Change::Resize { from, to: size })?;
        device.request(size.0).map_err(refused)?;
        said.requested = size;
        Ok(index)
    }

    /// What has become of a size, if that is all, or it is too late for more.
    pub(super) fn memory_target(&self, index: usize, size: u64, late: bool) -> Option<End> {
        let id = self.parts.growth.config.virtio_mem_name(index);
        let device = mem_info(id, self.parts.live.mem.get(index)?);
        if device.requested != size {
            let other = ByteSize(device.requested);
            let why = format!("{} has been asked for {other} meanwhile", device.id);
            return Some(End::Failed(ControlError::new(ErrorKind::Conflict, why).field("size")));
        }
        let reached = device.plugged == size;
        let target = OperationResult::MemoryTarget(Box::new(MemoryTargetInfo { reached, device }));
        if reached {
            return Some(End::Confirmed(target));
        }
        late.then_some(End::Unanswered(target))
    }

    /// Does what is asked of a disk.
    pub(super) fn disk(&self, request: &DiskRequest) -> Result<Response, ControlError> {
        let (DiskRequest::AddFault { id, .. } | DiskRequest::RemoveFault { id, .. } | DiskRequest::Throttle { id, .. }) =
            request
        else {
            return Ok(Response::Disks(DiskList { disks: self.disks() }));
        };
        let config = &self.parts.growth.config;
        let mut disks = self.parts.live.disks.iter().enumerate();
        let (_, disk) = disks
            .find(|(index, _)| config.disk_name(*index) == *id)
            .ok_or_else(|| {
                ControlError::new(ErrorKind::NotFound, format!("there is no disk '{id}'"))
                    .field("id")
                    .hint("`disk list` shows the disks there are")
            })?;
        let requests = disk.device.requests();
        let invalid = |why: String, field: &'static str| {
            ControlError::split(ErrorKind::InvalidRequest, &format!("{id} {why}")).field(field)
        };
        match request {
            DiskRequest::AddFault { fault, .. } => {
                if let Some(why) = fault.problem() {
                    return Err(invalid(format!("cannot have a fault that {why}"), "fault"));
                }
                if requests.faults().len() >= MAX_FAULTS {
                    let why = format!("{id} has {MAX_FAULTS} faults already");
                    return Err(ControlError::new(ErrorKind::Conflict, why).hint("take some away first"));
                }
                requests.add_fault(fault.clone());
            }
            DiskRequest::RemoveFault { number, .. } => {
                if !requests.remove_fault(*number) && number.is_some() {
                    let why = format!("{id} has no fault {}", number.unwrap_or_default());
                    return Err(ControlError::new(ErrorKind::NotFound, why).field("number"));
                }
                disk.look();
            }
            DiskRequest::Throttle { throttle, .. } => {
                if let Some(why) = throttle_problem(throttle) {
                    return Err(invalid(why, "throttle"));
                }
                requests.set_throttle(*throttle);
            }
            DiskRequest::List => {}
        }
        Ok(Response::Disk(Box::new(disk_info(id.clone(), disk))))
    }

    fn disks(&self) -> Vec<DiskInfo> {
        let (live, config) = (&self.parts.live, &self.parts.growth.config);
        let disks = live.disks.iter().enumerate();
        disks
            .map(|(index, disk)| disk_info(config.disk_name(index), disk))
            .collect()
    }

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
            nets: (live.nets.iter().enumerate())
                .map(|(index, port)| net_info(growth.config.net_name(index), port))
                .collect(),
            shares: (live.shares.iter().enumerate())
                .map(|(index, device)| share_info(&growth.config, index, device))
                .collect(),
            vsock: live.vsock.as_ref().map(vsock_info),
            mem: mem
                .map(|(index, device)| mem_info(growth.config.virtio_mem_name(index), device))
                .collect(),
        }
    }
}

/// Why there is nothing called `id` that could be resized.
fn no_target(growth: &Growth, id: &str) -> ControlError {
    if growth.memory_slot(id).is_ok() {
        let why = format!("{id} is an ACPI memory device, which the guest has whole or not at all");
        let error = ControlError::new(ErrorKind::Conflict, why).field("id");
        return error.hint(format!("`memory remove {id}` asks the guest to give it back"));
    }
    ControlError::new(ErrorKind::NotFound, format!("there is no virtio-mem device '{id}'"))
        .field("id")
        .hint("`memory list` shows the devices there are")
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

fn net_info(id: String, port: &NetPort) -> NetInfo {
    let plan = port.device.plan();
    let NetStatus {
        driver,
        carrier,
        received,
        sent,
    } = port.device.status();
    let frames = |counts: NetCounts| NetFrames {
        frames: counts.frames,
        bytes: counts.bytes,
        dropped: counts.dropped,
        malformed: counts.malformed,
    };
    NetInfo {
        id,
        mac: plan.mac.to_string(),
        mtu: plan.mtu,
        wire: port.wire.clone(),
        carrier,
        driver,
        received: frames(received),
        sent: frames(sent),
    }
}

fn vsock_info(port: &VsockPort) -> VsockInfo {
    let VsockStatus {
        driver,
        connections,
        received,
        sent,
        resets,
        malformed,
    } = port.device.status();
    VsockInfo {
        cid: port.device.cid(),
        socket: port.path.display().to_string(),
        driver,
        connections: connections as u64,
        received,
        sent,
        resets,
        malformed,
    }
}

fn share_info(config: &VmConfig, index: usize, device: &P9) -> ShareInfo {
    let said = config.share.get(index);
    let ShareStatus {
        requests,
        refused,
        bytes,
        fids,
        open,
    } = device.requests().counts().status();
    ShareInfo {
        tag: config.share_tag(index),
        path: said.map(|share| share.path.display().to_string()).unwrap_or_default(),
        driver: device.is_active(),
        in_flight: device.in_flight() as u64,
        requests,
        refused,
        bytes,
        known: fids,
        open,
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
