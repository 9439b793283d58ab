//! The virtio-mmio transport, version 2 (virtio 1.2 section 4.2): one page of registers in front of a [`VirtioDevice`].
//!
//! Status register, each step a superset of the one before, anything else ignored:
//! ```text
//! 0 --> ACKNOWLEDGE --> DRIVER --> FEATURES_OK --> DRIVER_OK      0 written at any time: reset
//!                         |            |              |
//!                   DriverFeatures   Queue*     device is active     FAILED, NEEDS_RESET: no further step
//! ```
//!
//! vCPU threads come through [`BusDevice`]; the machine's loop calls [`VirtioMmio::queue_notify`] when the ioeventfd at
//! [`VirtioMmio::notify_offset`] fires. Interrupt status and acknowledgement take no lock. The configuration lock is held
//! while the device is activated or reset, and is never taken by the device.

use super::{Activation, Interrupt, Memory, Occasional, Progress, VirtioDevice, lock, queue::Virtqueue};
use crate::{BadLines, BusDevice, Effect, GuestMemory, Line};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
        VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1,
    },
    virtio_mmio::*,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace};

/// "virt" (virtio 1.2 4.2.2).
const MAGIC: u32 = 0x7472_6976;
/// Of the register layout; 1 is the legacy one.
const VERSION: u32 = 2;
/// "dxvm": no driver looks at it.
const VENDOR: u32 = 0x6d76_7864;
/// Feature bits of the transport and its rings.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Steps of the status register in their order.
const STEPS: [u32; 4] = [
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_DRIVER_OK,
];
/// After one of these the driver can only reset.
const DEAD_END: u32 = VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET;

/// The transport of one device.
pub struct VirtioMmio {
    // What it is.
    device: Arc<dyn VirtioDevice>,
    memory: GuestMemory,
    bad_lines: BadLines,
    offered: u64,
    queue_count: usize,
    // How it speaks.
    interrupt: Interrupt,
    complaints: Arc<Occasional>,
    // What the driver sets: a reset is one assignment.
    setup: Mutex<Setup>,
}

#[derive(Default)]
struct Setup {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
}

/// A queue as the driver describes it, unchecked until it is declared ready.
struct QueueSetup {
    max_size: u16,
    size: u32,
    desc: u64,
    avail: u64,
    used: u64,
    /// The checked queue, until activation hands it to the device.
    queue: Option<Queue>,
    /// QueueReady; shared with the device's end.
    ready: Arc<AtomicBool>,
}

impl Setup {
    fn new(sizes: &[u16]) -> Self {
        let queue = |max: &u16| QueueSetup {
            max_size: *max,
            size: u32::from(*max),
            desc: 0,
            avail: 0,
            used: 0,
            queue: None,
            ready: Arc::default(),
        };
        Self {
            queues: sizes.iter().map(queue).collect(),
            ..Self::default()
        }
    }

    fn selected(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

impl QueueSetup {
    /// The queue these settings describe, if it lies in `mem` and keeps the alignments (virtio 1.2 2.7).
    fn check(&self, mem: &Memory, event_idx: bool) -> Result<Queue, virtio_queue::Error> {
        let mut queue = Queue::new(self.max_size)?;
        queue.try_set_size(u16::try_from(self.size).map_err(|_| virtio_queue::Error::InvalidSize)?)?;
        queue.try_set_desc_table_address(GuestAddress(self.desc))?;
        queue.try_set_avail_ring_address(GuestAddress(self.avail))?;
        queue.try_set_used_ring_address(GuestAddress(self.used))?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        match queue.is_valid(mem) {
            true => Ok(queue),
            false => Err(virtio_queue::Error::FindMemoryRegion),
        }
    }
}

impl VirtioMmio {
    /// Bytes of the register block.
    pub const LEN: u64 = 0x1000;

    /// Puts `device` behind a register block that interrupts through `line`.
    pub fn new(device: Arc<dyn VirtioDevice>, memory: GuestMemory, line: Arc<dyn Line>) -> Self {
        let setup = Setup::new(device.queue_max_sizes());
        Self {
            offered: device.features() | TRANSPORT_FEATURES,
            queue_count: setup.queues.len(),
            interrupt: Interrupt::new(line),
            complaints: Arc::default(),
            setup: Mutex::new(setup),
            memory,
            bad_lines: BadLines::default(),
            device,
        }
    }

    /// The same in a machine whose memory has bad lines now and then.
    pub fn with_bad_lines(self, bad_lines: BadLines) -> Self {
        Self { bad_lines, ..self }
    }

    /// Tells the driver that its addresses go through the platform's DMA (VIRTIO_F_ACCESS_PLATFORM): for guests whose idea of
    /// physical memory is not the machine's, such as Xen's paravirtual domains.
    pub fn with_platform_access(mut self) -> Self {
        self.offered |= 1 << VIRTIO_F_ACCESS_PLATFORM;
        self
    }

    /// Offset of the register whose 4-byte writes an ioeventfd may take, one per queue with the queue's index as datamatch.
    pub const fn notify_offset() -> u64 {
        VIRTIO_MMIO_QUEUE_NOTIFY as u64
    }

    /// Queues of the device: notifications with an index below this are worth an ioeventfd.
    pub fn device_type(&self) -> u32 {
        self.device.device_type()
    }

    /// Queues of the device.
    pub fn queue_count(&self) -> usize {
        self.queue_count
    }

    /// The driver notified queue `index`. On [`Progress::More`], call again after others had their turn.
    pub fn queue_notify(&self, index: u16) -> Progress {
        let up = self.interrupt.status() & (VIRTIO_CONFIG_S_DRIVER_OK | DEAD_END) == VIRTIO_CONFIG_S_DRIVER_OK;
        match up && usize::from(index) < self.queue_count {
            true => self.device.process_queue(index),
            false => Progress::Done,
        }
    }

    /// Back to power-on, as a write of 0 to the status register.
    pub fn reset(&self) {
        let mut setup = lock(&self.setup);
        self.device.reset();
        self.interrupt.clear();
        *setup = Setup::new(self.device.queue_max_sizes());
    }

    fn read_register(&self, register: u32) -> Option<u32> {
        Some(match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.device_type(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, lock(&self.setup).device_features_sel),
            VIRTIO_MMIO_QUEUE_NUM_MAX => lock(&self.setup).selected().map_or(0, |q| u32::from(q.max_size)),
            VIRTIO_MMIO_QUEUE_READY => lock(&self.setup)
                .selected()
                .map_or(0, |q| u32::from(q.ready.load(Ordering::SeqCst))),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.pending(),
            VIRTIO_MMIO_STATUS => self.interrupt.status(),
            // virtio 1.2 4.2.2: a region that does not exist has length -1. None does.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => self.device.config_generation(),
            _ => return None,
        })
    }

    fn write_register(&self, register: u32, value: u32) {
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => lock(&self.setup).device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => lock(&self.setup).driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.set_driver_features(value),
            VIRTIO_MMIO_QUEUE_SEL => lock(&self.setup).queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => self.set_queue_ready(value),
            VIRTIO_MMIO_QUEUE_NOTIFY => self.notified(value),
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.set_status(value),
            VIRTIO_MMIO_QUEUE_NUM
            | VIRTIO_MMIO_QUEUE_DESC_LOW
            | VIRTIO_MMIO_QUEUE_DESC_HIGH
            | VIRTIO_MMIO_QUEUE_AVAIL_LOW
            | VIRTIO_MMIO_QUEUE_AVAIL_HIGH
            | VIRTIO_MMIO_QUEUE_USED_LOW
            | VIRTIO_MMIO_QUEUE_USED_HIGH => self.describe_queue(register, value),
            // No shared memory region exists, whichever is selected.
            VIRTIO_MMIO_SHM_SEL => {}
            _ => self.complain("wrote a register that does not exist", register, value),
        }
    }

    /// Without an ioeventfd the notifying processor does the work itself, all of it.
    fn notified(&self, value: u32) {
        let Ok(index) = u16::try_from(value) else {
            return self.complain("notified a queue that does not exist", VIRTIO_MMIO_QUEUE_NOTIFY, value);
        };
        // What is in doubt stays so while this thread is at work.
        while self.queue_notify(index) == Progress::More && !self.bad_lines.in_doubt() {}
    }

    fn set_driver_features(&self, value: u32) {
        let mut setup = lock(&self.setup);
        if !self.at_step(VIRTIO_CONFIG_S_DRIVER) {
            return self.complain("negotiated features out of turn", VIRTIO_MMIO_DRIVER_FEATURES, value);
        }
        let (old, new) = (setup.driver_features, u64::from(value));
        match setup.driver_features_sel {
            0 => setup.driver_features = old & !u64::from(u32::MAX) | new,
            1 => setup.driver_features = old & u64::from(u32::MAX) | new << 32,
            // Bits beyond 63 are not offered: asking for none of them is fine.
            _ if value == 0 => {}
            _ => self.complain("asked for features beyond bit 63", VIRTIO_MMIO_DRIVER_FEATURES, value),
        }
    }

    fn describe_queue(&self, register: u32, value: u32) {
        let mut setup = lock(&self.setup);
        let in_turn = self.at_step(VIRTIO_CONFIG_S_FEATURES_OK);
        let Some(queue) = setup.selected().filter(|q| in_turn && !q.ready.load(Ordering::SeqCst)) else {
            return self.complain("described a queue out of turn", register, value);
        };
        match register {
            VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.desc, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.desc, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.avail, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.avail, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.used, value),
            _ => set_high(&mut queue.used, value),
        }
    }

    fn set_queue_ready(&self, value: u32) {
        let mut setup = lock(&self.setup);
        let event_idx = setup.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let in_turn = self.at_step(VIRTIO_CONFIG_S_FEATURES_OK);
        let index = setup.queue_sel;
        let Some(queue) = setup.selected() else {
            return self.complain("readied a queue that does not exist", VIRTIO_MMIO_QUEUE_READY, value);
        };
        if value == 0 {
            queue.ready.store(false, Ordering::SeqCst);
            queue.queue = None;
            drop(setup);
            // virtio 1.2 4.2.2.2: the driver may reuse the rings once it reads 0 here. This waits for a device thread
            // that is inside the queue; the device finds the queue closed and does nothing.
            self.notified(index);
            return;
        }
        if value != 1 || !in_turn || queue.ready.load(Ordering::SeqCst) {
            return self.complain("readied a queue out of turn", VIRTIO_MMIO_QUEUE_READY, value);
        }
        match queue.check(&self.memory.memory(), event_idx) {
            Ok(checked) => {
                queue.queue = Some(checked);
                queue.ready.store(true, Ordering::SeqCst);
            }
            Err(error) => {
                self.interrupt.mark_needs_reset();
                if let Some(count) = self.complaints.hit() {
                    tracing::warn!(index, count, %error, "virtio driver set up a queue that cannot be; needs a reset");
                }
            }
        }
    }

    fn set_status(&self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let mut setup = lock(&self.setup);
        let now = self.interrupt.status();
        // The driver reads, adds a bit and writes: the device's own bit comes back and means nothing.
        let mut new = value & !VIRTIO_CONFIG_S_NEEDS_RESET;
        let known = STEPS.iter().fold(VIRTIO_CONFIG_S_FAILED, |all, step| all | step);
        let steps = STEPS.map(|step| new & step != 0);
        let backwards = now & known & !new != 0;
        if new & !known != 0 || backwards || !steps.is_sorted_by(|a, b| a >= b) {
            return self.complain(
                "wrote a status that does not follow from the last",
                VIRTIO_MMIO_STATUS,
                value,
            );
        }
        if now & DEAD_END != 0 {
            return self.interrupt.add_status(new & VIRTIO_CONFIG_S_FAILED);
        }
        if new & !now & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.acceptable(setup.driver_features) {
            // The driver reads the register back to learn this (virtio 1.2 3.1.1, step 6).
            new &= !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
        }
        if new & !now & VIRTIO_CONFIG_S_DRIVER_OK != 0 && new & VIRTIO_CONFIG_S_FAILED == 0 {
            self.activate(&mut setup);
        }
        self.interrupt.add_status(new);
    }

    fn activate(&self, setup: &mut Setup) {
        let queue = |(index, setup): (u16, &mut QueueSetup)| {
            let (enabled, interrupt) = (setup.ready.clone(), self.interrupt.clone());
            let queue = setup.queue.take().unwrap_or_default();
            let bad_lines = self.bad_lines.clone();
            Virtqueue::new(queue, enabled, interrupt, (self.complaints.clone(), bad_lines), index)
        };
        self.device.activate(Activation {
            queues: (0..).zip(&mut setup.queues).map(queue).collect(),
            memory: self.memory.clone(),
            interrupt: self.interrupt.clone(),
            features: setup.driver_features,
        });
    }

    /// Every bit was offered, and the driver is no legacy one.
    fn acceptable(&self, features: u64) -> bool {
        let fine = features & !self.offered == 0 && features & 1 << VIRTIO_F_VERSION_1 != 0;
        if !fine && let Some(count) = self.complaints.hit() {
            let offered = self.offered;
            tracing::warn!(
                count,
                "virtio driver wants features {features:#x} of {offered:#x}: refused"
            );
        }
        fine
    }

    /// Whether `step` is the last one the driver took, and the way is open.
    fn at_step(&self, step: u32) -> bool {
        let status = self.interrupt.status();
        status & DEAD_END == 0 && STEPS.into_iter().rfind(|s| status & s != 0) == Some(step)
    }

    fn complain(&self, what: &str, register: u32, value: u32) {
        if let Some(count) = self.complaints.hit() {
            tracing::warn!(
                device = self.device.device_type(),
                count,
                "virtio driver {what}: {register:#x} = {value:#x}"
            );
        }
    }
}

impl BusDevice for VirtioMmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            return self.device.read_config(offset, data);
        }
        // virtio 1.2 4.2.2.2: control registers are accessed with aligned 32-bit operations only.
        if let (Some(register), Ok(data)) = (control_register(offset), <&mut [u8; 4]>::try_from(data))
            && let Some(value) = self.read_register(register)
        {
            *data = value.to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        // Nothing in the configuration space of these devices can be written.
        if offset < u64::from(VIRTIO_MMIO_CONFIG)
            && let (Some(register), Ok(data)) = (control_register(offset), <[u8; 4]>::try_from(data))
        {
            self.write_register(register, u32::from_le_bytes(data));
        }
        Effect::None
    }
}

fn control_register(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|register| register % 4 == 0)
}

/// 32 of the 64 feature bits.
fn half(features: u64, selector: u32) -> u32 {
    let bytes = features.to_le_bytes();
    match (selector, bytes) {
        (0, [a, b, c, d, ..]) | (1, [.., a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
