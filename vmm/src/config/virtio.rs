//! virtio devices of a configuration: their names, and their order, which is that of their transports.

use super::{Mac, VmConfig};
use devices::units::ByteSize;

/// A device of the configuration, by its position among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtioDeviceId {
    /// The entropy source, which every machine has.
    Entropy,
    /// The channel of the guest agent.
    Agent,
    /// Persistent memory.
    Pmem(usize),
    /// Memory that grows and shrinks.
    Mem(usize),
    /// A disk.
    Disk(usize),
    /// A network device.
    Net(usize),
    /// A folder of the host.
    Share(usize),
    /// Streams between guest and host.
    Vsock,
}

impl VmConfig {
    /// The virtio devices in the order of their transports. Guest ABI: a new kind comes last.
    pub fn virtio_devices(&self) -> Vec<VirtioDeviceId> {
        let agent = self.agent_socket.as_ref().map(|_| VirtioDeviceId::Agent);
        let pmem = (0..self.virtio_pmem.len()).map(VirtioDeviceId::Pmem);
        let mem = (0..self.virtio_mem.len()).map(VirtioDeviceId::Mem);
        [VirtioDeviceId::Entropy]
            .into_iter()
            .chain(agent)
            .chain(pmem)
            .chain(mem)
            .chain((0..self.disk.len()).map(VirtioDeviceId::Disk))
            .chain((0..self.net.len()).map(VirtioDeviceId::Net))
            .chain((0..self.share.len()).map(VirtioDeviceId::Share))
            .chain(self.vsock.iter().map(|_| VirtioDeviceId::Vsock))
            .collect()
    }

    /// What virtio-mem devices are asked to have.
    pub fn requested_memory(&self) -> ByteSize {
        let all = self.virtio_mem.iter();
        ByteSize(all.fold(0, |sum, device| sum.saturating_add(device.requested.0)))
    }

    /// What a virtio-pmem device is called.
    pub fn virtio_pmem_name(&self, index: usize) -> String {
        let said = self.virtio_pmem.get(index).and_then(|device| device.id.clone());
        said.unwrap_or_else(|| format!("virtio-pmem{index}"))
    }

    /// What a disk is called.
    pub fn disk_name(&self, index: usize) -> String {
        let said = self.disk.get(index).and_then(|device| device.id.clone());
        said.unwrap_or_else(|| format!("disk{index}"))
    }

    /// What a network device is called.
    pub fn net_name(&self, index: usize) -> String {
        let said = self.net.get(index).and_then(|device| device.id.clone());
        said.unwrap_or_else(|| format!("net{index}"))
    }

    /// The hardware address of a network device.
    pub fn net_mac(&self, index: usize) -> Mac {
        let said = self.net.get(index).and_then(|device| device.mac);
        said.unwrap_or_else(|| Mac::of_position(index))
    }

    /// What a shared folder is called, and mounted by.
    pub fn share_tag(&self, index: usize) -> String {
        let said = self.share.get(index).and_then(|share| share.tag.clone());
        said.unwrap_or_else(|| format!("share{index}"))
    }

    /// What a virtio-mem device is called.
    pub fn virtio_mem_name(&self, index: usize) -> String {
        let said = self.virtio_mem.get(index).and_then(|device| device.id.clone());
        said.unwrap_or_else(|| format!("virtio-mem{index}"))
    }
}
