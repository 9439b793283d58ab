//! virtio devices of a machine, in guest ABI order, and the threads that do what takes time.

use super::{
    build::{BuildError, event, twin},
    channel::Channel,
    disk::{self, Disk},
    events::{AGENT_PORT, Agent},
    net::{self, NetPort},
    share,
    vsock::{self, VsockPort},
};
use crate::{
    config::{VirtioDeviceId, VmConfig, probe::BackingFacts},
    hv::Vm,
    layout::{Layout, VirtioMemoryKind},
    memory::{GuestMap, backing, pluggable::Pluggable},
};
use devices::{
    units::{ByteSize, GpaRange},
    virtio::{
        VirtioDevice,
        console::{self as virtio_console, PortConfig, PortKind},
        mem::{Mem, MemPlan},
        p9::P9,
        pmem::{FlushOrder, Pmem},
        rng::Rng,
    },
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

/// The devices.
#[derive(Default)]
pub struct VirtioDevices {
    /// All of them, by transport.
    pub models: Vec<Arc<dyn VirtioDevice>>,
    /// The agent's channel, if there is one.
    pub agent: Option<Agent>,
    /// Those that can be asked about later.
    pub live: LiveVirtio,
}

/// virtio devices that a running machine is asked about, by their place in the configuration.
#[derive(Default)]
pub struct LiveVirtio {
    /// Persistent memory.
    pub pmem: Vec<Arc<Pmem>>,
    /// Memory that grows and shrinks.
    pub mem: Vec<Arc<Mem>>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network devices, all there before the first of them runs.
    pub nets: Vec<NetPort>,
    /// Shared folders.
    pub shares: Vec<Arc<P9>>,
    /// Streams between guest and host.
    pub vsock: Option<VsockPort>,
    /// Threads that work for them, until the devices are gone.
    pub workers: Vec<JoinHandle<()>>,
}

/// Makes the devices, and shows the guest their memory. Persistent memory without a file is made of what `files` has, and leaves it
/// there.
pub fn open(
    config: &VmConfig,
    layout: &Layout,
    backings: &[BackingFacts],
    vm: &Vm,
    map: &mut GuestMap,
    files: &mut BTreeMap<usize, Arc<File>>,
) -> Result<VirtioDevices, BuildError> {
    let mut devices = VirtioDevices::default();
    devices.live.nets = net::open(config)?;
    for id in config.virtio_devices() {
        let model: Arc<dyn VirtioDevice> = match id {
            VirtioDeviceId::Entropy => entropy()?,
            VirtioDeviceId::Agent => {
                let Some(path) = &config.agent_socket else { continue };
                let agent = agent(path)?;
                let device = agent.device.clone();
                devices.agent = Some(agent);
                device
            }
            VirtioDeviceId::Pmem(index) => {
                let range = place(layout, VirtioMemoryKind::Pmem, index)?;
                let facts = backings.get(config.nvdimm.len() + index).copied();
                let (device, worker) = pmem(config, (index, facts), range, vm, map, files)?;
                devices.live.pmem.push(device.clone());
                devices.live.workers.push(worker);
                device
            }
            VirtioDeviceId::Mem(index) => {
                let range = place(layout, VirtioMemoryKind::Mem, index)?;
                let device = mem(config, index, range, vm, map)?;
                devices.live.mem.push(device.clone());
                device
            }
            VirtioDeviceId::Disk(index) => {
                let Some(said) = config.disk.get(index) else { continue };
                let (disk, worker) = disk::open(config, index, said)?;
                devices.live.workers.push(worker);
                let device = disk.device.clone();
                devices.live.disks.push(disk);
                device
            }
            VirtioDeviceId::Net(index) => {
                let Some(port) = devices.live.nets.get(index) else {
                    continue;
                };
                port.device.clone()
            }
            VirtioDeviceId::Share(index) => {
                let Some(said) = config.share.get(index) else { continue };
                let (device, worker) = share::open(config, index, said)?;
                devices.live.workers.push(worker);
                devices.live.shares.push(device.clone());
                device
            }
            VirtioDeviceId::Vsock => {
                let Some(said) = &config.vsock else { continue };
                let port = vsock::open(said)?;
                let device = port.device.clone();
                devices.live.vsock = Some(port);
                device
            }
        };
        devices.models.push(model);
    }
    Ok(devices)
}

fn place(layout: &Layout, kind: VirtioMemoryKind, index: usize) -> Result<GpaRange, BuildError> {
    let missing = || BuildError::Host("place a virtio device", io::ErrorKind::NotFound.into());
    layout.virtio_memory(kind, index).ok_or_else(missing)
}

fn entropy() -> Result<Arc<Rng>, BuildError> {
    let mut source = File::open("/dev/urandom").map_err(|e| BuildError::Host("open /dev/urandom", e))?;
    Ok(Arc::new(Rng::new(Box::new(move |buffer| source.read_exact(buffer)))))
}

fn agent(path: &std::path::Path) -> Result<Agent, BuildError> {
    let room = event()?;
    let (channel, sink) = Channel::listen(path, twin(&room)?)?;
    let port = PortConfig {
        kind: PortKind::Named(agent_protocol::PORT_NAME.to_owned()),
        sink: Box::new(sink),
        open: false,
    };
    // Port 0 is the console's number even where there is none.
    let mut device_ports = vec![None];
    device_ports.resize_with(AGENT_PORT, || None);
    device_ports.push(Some(port));
    Ok(Agent {
        channel,
        device: Arc::new(virtio_console::Console::new(device_ports)),
        room,
        pending: vec![],
    })
}

fn pmem(
    config: &VmConfig,
    (index, facts): (usize, Option<BackingFacts>),
    range: GpaRange,
    vm: &Vm,
    map: &mut GuestMap,
    files: &mut BTreeMap<usize, Arc<File>>,
) -> Result<(Arc<Pmem>, JoinHandle<()>), BuildError> {
    let said = config.virtio_pmem.get(index).cloned().unwrap_or_default();
    let facts = facts.unwrap_or(BackingFacts {
        size: ByteSize(range.len),
        page: ByteSize::kib(4),
    });
    let id = config.virtio_pmem_name(index);
    let opened = backing::open_over(&said.backing(), facts, files.get(&index).cloned());
    let opened = opened.map_err(|source| BuildError::Virtio { id: id.clone(), source })?;
    if said.file.is_none() {
        files.insert(index, opened.source.file.clone());
    }
    // hugetlbfs and device-dax have nothing between the mapping and the medium.
    let durable = facts.page > ByteSize::kib(4) || said.file.is_none();
    let file = opened.source.file;
    map.add(vm, range.start, range.len, opened.mapping, opened.access)?;
    let flush = move || match (said.readonly, durable) {
        // The guest's stores went to a copy that nobody keeps.
        (true, _) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        (false, true) => Ok(()),
        (false, false) => file.sync_data(),
    };
    flushed_by_thread(id, range, flush)
}

/// A device, and the thread that flushes what is behind it.
fn flushed_by_thread(
    id: String,
    range: GpaRange,
    flush: impl Fn() -> io::Result<()> + Send + 'static,
) -> Result<(Arc<Pmem>, JoinHandle<()>), BuildError> {
    let (orders, waiting) = mpsc::channel();
    let orders = Mutex::new(orders);
    let submit = move |order| drop(orders.lock().unwrap_or_else(PoisonError::into_inner).send(order));
    let device = Pmem::at(range, Box::new(submit));
    let counted = Arc::downgrade(&device);
    let name = format!("flush-{id}");
    let worker = move || {
        while let Ok(first) = waiting.recv() {
            // Whoever asked before this flush begins is served by it.
            let together: Vec<FlushOrder> = [first].into_iter().chain(waiting.try_iter()).collect();
            let done = flush();
            if let Err(error) = &done {
                tracing::warn!(device = id, %error, "a flush failed");
            }
            let Some(device) = counted.upgrade() else { return };
            together
                .into_iter()
                .for_each(|order| order.run(|()| device.flushed(&done)));
        }
    };
    let spawned = thread::Builder::new().name(name).spawn(worker);
    let worker = spawned.map_err(|e| BuildError::Host("start a thread", e))?;
    Ok((device, worker))
}

fn mem(config: &VmConfig, index: usize, region: GpaRange, vm: &Vm, map: &mut GuestMap) -> Result<Arc<Mem>, BuildError> {
    let missing = || BuildError::Host("place a virtio device", io::ErrorKind::NotFound.into());
    let said = config.virtio_mem.get(index).ok_or_else(missing)?;
    let memory = Pluggable::new(vm, map, region, said.block.0)?;
    let plan = MemPlan {
        region,
        block: said.block.0,
        node: u16::try_from(said.node).unwrap_or(u16::MAX),
    };
    Ok(Arc::new(Mem::new(plan, said.requested.0, Box::new(memory))))
}
