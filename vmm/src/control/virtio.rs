//! What replies say of virtio devices.

use crate::config::{DiskFault, DiskThrottle};
use devices::units::ByteSize;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// What can be asked about disks. All but `list` is answered by [`super::Response::Disk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskRequest {
    /// The disks; answered by [`super::Response::Disks`].
    List,
    /// One more fault, for requests that come from now on.
    AddFault {
        /// Name of the disk.
        id: String,
        /// What is wrong with it.
        fault: DiskFault,
    },
    /// Take a fault away; what hangs by it goes on.
    RemoveFault {
        /// Name of the disk.
        id: String,
        /// Number of the fault; none: all of them.
        #[serde(default)]
        number: Option<u32>,
    },
    /// Other limits, for requests that come from now on.
    Throttle {
        /// Name of the disk.
        id: String,
        /// All of them: what is not named has no limit.
        throttle: DiskThrottle,
    },
}

/// A size that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryTarget {
    /// Bytes.
    pub size: ByteSize,
}

/// What became of a new size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTargetInfo {
    /// Whether the guest has what it was asked for.
    pub reached: bool,
    /// The device, and what its driver did.
    pub device: VirtioMemInfo,
}

/// The disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskList {
    /// In the order of the configuration.
    pub disks: Vec<DiskInfo>,
}

/// The virtio devices that have something to say, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtioInfo {
    /// Persistent memory.
    pub pmem: Vec<VirtioPmemInfo>,
    /// Memory that grows and shrinks.
    pub mem: Vec<VirtioMemInfo>,
    /// Disks.
    pub disks: Vec<DiskInfo>,
    /// Network devices.
    #[serde(default)]
    pub nets: Vec<NetInfo>,
    /// Shared folders.
    #[serde(default)]
    pub shares: Vec<ShareInfo>,
    /// Streams between programs of the guest and of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockInfo>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetInfo {
    /// Name.
    pub id: String,
    /// Hardware address.
    pub mac: String,
    /// Most bytes of a packet.
    pub mtu: u16,
    /// What it is connected to: `tap NAME`, or `link` and a name or path.
    pub wire: String,
    /// Whether the other end is there.
    pub carrier: bool,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Frames to the guest.
    pub received: NetFrames,
    /// Frames of the guest.
    pub sent: NetFrames,
}

/// Frames in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetFrames {
    /// Those that arrived.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were lost: no driver, a wire that was full or led nowhere, no buffer that was long enough.
    pub dropped: u64,
    /// Those of the guest that were no frames: their length, a memory error, an offload that was not agreed on.
    pub malformed: u64,
}

/// The socket device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VsockInfo {
    /// The guest's address.
    pub cid: u32,
    /// Where programs of the host ask for ports of the guest.
    pub socket: String,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Connections.
    pub connections: u64,
    /// Bytes to the guest.
    pub received: u64,
    /// Bytes of the guest.
    pub sent: u64,
    /// Connections that were refused, broken off or closed.
    pub resets: u64,
    /// Packets of the guest that were none.
    pub malformed: u64,
}

/// A folder of the host that the guest reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareInfo {
    /// What the guest mounts it by.
    pub tag: String,
    /// The folder.
    pub path: String,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Requests that wait or are being done.
    pub in_flight: u64,
    /// Requests so far.
    pub requests: u64,
    /// Those that were answered with an error, such as that there is no such file.
    pub refused: u64,
    /// Bytes of files that were read.
    pub bytes: u64,
    /// Files that the guest knows.
    pub known: u64,
    /// Files and folders that it has open.
    pub open: u64,
}

/// A virtio-pmem device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtioPmemInfo {
    /// Name.
    pub id: String,
    /// First guest physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Proximity domain.
    pub node: u32,
    /// Whether the guest's stores stay out of the backing.
    pub readonly: bool,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Flushes that the guest asked for and was answered.
    pub flushes: u64,
    /// Those that failed; the guest was told.
    pub failed_flushes: u64,
}

/// A virtio-mem device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtioMemInfo {
    /// Name.
    pub id: String,
    /// First guest physical address of the region.
    pub start: u64,
    /// Bytes of the region.
    pub len: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Proximity domain.
    pub node: u32,
    /// Bytes that the guest is asked to have.
    pub requested: u64,
    /// Bytes that it has.
    pub plugged: u64,
    /// Bytes of the region that it may use.
    pub usable: u64,
    /// Whether a driver has the device.
    pub driver: bool,
    /// What the driver has done since it was last asked for another size.
    pub requests: VirtioMemRequests,
}

/// Requests of a virtio-mem driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtioMemRequests {
    /// Pluggings that were done.
    pub plugs: u64,
    /// Unpluggings that were done.
    pub unplugs: u64,
    /// Pluggings that were refused: they went beyond the size asked for.
    pub refused: u64,
    /// Requests that the host had no memory for.
    pub busy: u64,
    /// Requests that were wrong.
    pub wrong: u64,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskInfo {
    /// Name.
    pub id: String,
    /// Bytes.
    pub len: u64,
    /// Whether writes are refused.
    pub readonly: bool,
    /// Whether a driver has the device.
    pub driver: bool,
    /// Requests that wait, hang, or are being done.
    pub in_flight: u64,
    /// Reads so far.
    pub reads: u64,
    /// Writes, discards and zeroings so far.
    pub writes: u64,
    /// Flushes so far.
    pub flushes: u64,
    /// Requests that failed, by a fault or because of the host.
    pub failed: u64,
    /// Its limits.
    pub throttle: DiskThrottle,
    /// Its faults.
    pub faults: Vec<DiskFaultInfo>,
}

/// A fault of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskFaultInfo {
    /// Number by which it is taken away.
    pub number: u32,
    /// Requests that it had an effect on.
    pub hits: u64,
    /// What it is.
    pub fault: DiskFault,
}

/// virtio-mem is told with the memory devices.
impl fmt::Display for VirtioInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = ByteSize;
        let driver = |driver| if driver { "" } else { ", no driver" };
        for d in &self.pmem {
            let (start, len, node, driver) = (d.start, size(d.len), d.node, driver(d.driver));
            let (flushes, failed) = (d.flushes, d.failed_flushes);
            writeln!(
                f,
                "virtio-pmem {}: node {node}, {len} at {start:#x}, {flushes} flushes, {failed} of them failed{driver}",
                d.id
            )?;
        }
        for disk in &self.disks {
            write!(f, "{disk}")?;
        }
        for net in &self.nets {
            writeln!(f, "{net}")?;
        }
        for share in &self.shares {
            writeln!(f, "{share}")?;
        }
        if let Some(vsock) = &self.vsock {
            writeln!(f, "{vsock}")?;
        }
        Ok(())
    }
}

impl fmt::Display for NetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            mac,
            wire,
            received,
            sent,
            ..
        } = self;
        let driver = if self.driver { "" } else { ", no driver" };
        let carrier = if self.carrier { "" } else { ", no carrier" };
        let lost = received.dropped.saturating_add(sent.dropped);
        write!(
            f,
            "net {id}: {mac} on {wire}, {} frames in, {} out, {lost} lost, {} malformed{carrier}{driver}",
            received.frames, sent.frames, sent.malformed
        )
    }
}

impl fmt::Display for VsockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cid,
            socket,
            connections,
            resets,
            malformed,
            ..
        } = self;
        let (received, sent) = (ByteSize(self.received), ByteSize(self.sent));
        let driver = if self.driver { "" } else { ", no driver" };
        write!(
            f,
            "vsock {cid}: {socket}, {connections} connections, {received} in, {sent} out, {resets} resets, {malformed} malformed{driver}"
        )
    }
}

impl fmt::Display for ShareInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tag,
            path,
            requests,
            refused,
            known,
            open,
            ..
        } = self;
        let read = ByteSize(self.bytes);
        let driver = if self.driver { "" } else { ", no driver" };
        write!(
            f,
            "share {tag}: {path}, {requests} requests, {refused} refused, {read} read, {known} files known, {open} open{driver}"
        )
    }
}

impl fmt::Display for MemoryTargetInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VirtioMemInfo {
            id,
            requested,
            plugged,
            driver,
            requests,
            ..
        } = &self.device;
        let (asked, has) = (ByteSize(*requested), ByteSize(*plugged));
        let VirtioMemRequests {
            plugs,
            unplugs,
            refused,
            busy,
            wrong,
        } = requests;
        write!(f, "{id}: the guest was asked for {asked} and has {has}")?;
        match (self.reached, driver) {
            (true, _) => writeln!(f),
            (false, false) => writeln!(f, "; no driver has the device"),
            (false, true) => writeln!(
                f,
                "; its driver plugged {plugs} and unplugged {unplugs} times, {refused} were refused, {busy} busy, {wrong} wrong"
            ),
        }
    }
}

impl fmt::Display for DiskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = ByteSize(self.len);
        let driver = if self.driver { "" } else { ", no driver" };
        let readonly = if self.readonly { ", read-only" } else { "" };
        writeln!(
            f,
            "disk {}: {len}{readonly}, {} reads, {} writes, {} flushes, {} failed, {} under way{driver}",
            self.id, self.reads, self.writes, self.flushes, self.failed, self.in_flight
        )?;
        for fault in &self.faults {
            let said = serde_json::to_string(&fault.fault).map_err(|_| fmt::Error)?;
            writeln!(f, "  fault {}, {} hits: {said}", fault.number, fault.hits)?;
        }
        Ok(())
    }
}
