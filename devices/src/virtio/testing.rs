//! A driver for tests: does what the specification has a driver do, through registers and rings alone.
//!
//! The rings are laid out here, because `virtio_queue::mock` places the used ring over the second half of the available
//! ring and its event index.

use super::{Memory, Progress, VirtioDevice, VirtioMmio};
use crate::{BadLines, BusDevice, Effect, GuestMemory, line::CountingLine};
use std::sync::Arc;
use virtio_bindings::{
    virtio_config::*,
    virtio_mmio::*,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE},
};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

/// Bytes of guest memory, from 0.
pub const MEMORY: u64 = 16 << 20;
/// First ring; each queue has [`RING_STEP`] bytes.
const RINGS: u64 = 0x10_0000;
const RING_STEP: u64 = 0x1_0000;
pub const AVAIL: u64 = 0x4000;
pub const USED: u64 = 0x8000;
/// First buffer.
const BUFFERS: u64 = 0x40_0000;
/// Steps of the status register, as a driver takes them.
pub const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
pub const DRIVER: u32 = ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
pub const FEATURES_OK: u32 = DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
pub const DRIVER_OK: u32 = FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// A buffer of a chain: address and length.
#[derive(Clone, Copy)]
pub enum Buffer {
    Read(u64, usize),
    Write(u64, usize),
    /// A table of descriptors.
    Indirect(u64, usize),
}

#[derive(Default, Clone)]
struct Ring {
    size: u16,
    next_descriptor: u16,
    avail: u16,
    used: u16,
}

pub struct Driver {
    pub mmio: VirtioMmio,
    pub memory: GuestMemory,
    pub line: Arc<CountingLine>,
    rings: Vec<Ring>,
    next_buffer: u64,
}

impl Driver {
    /// A transport nobody has touched.
    pub fn new(device: Arc<dyn VirtioDevice>) -> Self {
        let memory = GuestMemory::new(Memory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap());
        let line = Arc::new(CountingLine::default());
        let rings = vec![Ring::default(); device.queue_max_sizes().len()];
        Self {
            mmio: VirtioMmio::new(device, memory.clone(), line.clone()),
            memory,
            line,
            rings,
            next_buffer: BUFFERS,
        }
    }

    /// A device with all its queues up.
    pub fn up(device: Arc<dyn VirtioDevice>, features: u64) -> Self {
        Self::up_with(device, features, &BadLines::default())
    }

    /// The same over memory with bad lines.
    pub fn up_with(device: Arc<dyn VirtioDevice>, features: u64, lines: &BadLines) -> Self {
        let mut driver = Self::new(device);
        driver.mmio = driver.mmio.with_bad_lines(lines.clone());
        driver.start(features);
        driver
    }

    /// The whole initialization (virtio 1.2 3.1.1).
    pub fn start(&mut self, features: u64) {
        self.negotiate(features | VERSION_1);
        assert_eq!(self.status(), FEATURES_OK);
        (0..self.rings.len()).for_each(|index| self.set_up_queue(index));
        self.set_status(DRIVER_OK);
        assert_eq!(self.status(), DRIVER_OK);
    }

    /// Initialization up to FEATURES_OK, which the device may refuse.
    pub fn negotiate(&self, features: u64) {
        self.set_status(0);
        self.set_status(ACKNOWLEDGE);
        self.set_status(DRIVER);
        for (half, bits) in [(0, features), (1, features >> 32)] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.write(
                VIRTIO_MMIO_DRIVER_FEATURES,
                u32::try_from(bits & u64::from(u32::MAX)).unwrap(),
            );
        }
        self.set_status(FEATURES_OK);
    }

    pub fn offered(&self) -> u64 {
        [1, 0].into_iter().fold(0, |all, half| {
            self.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
            all << 32 | u64::from(self.read(VIRTIO_MMIO_DEVICE_FEATURES))
        })
    }

    /// Describes and readies a queue of the largest size.
    pub fn set_up_queue(&mut self, index: usize) {
        self.write(VIRTIO_MMIO_QUEUE_SEL, u32::try_from(index).unwrap());
        assert_eq!(self.read(VIRTIO_MMIO_QUEUE_READY), 0);
        let size = self.read(VIRTIO_MMIO_QUEUE_NUM_MAX);
        self.describe(size, ring(index), ring(index) + AVAIL, ring(index) + USED);
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(self.read(VIRTIO_MMIO_QUEUE_READY), 1);
        self.rings[index] = Ring {
            size: u16::try_from(size).unwrap(),
            ..Ring::default()
        };
        self.mem()
            .write_slice(&vec![0; usize::try_from(RING_STEP).unwrap()], GuestAddress(ring(index)))
            .unwrap();
    }

    /// Writes the addresses of the selected queue.
    pub fn describe(&self, size: u32, desc: u64, avail: u64, used: u64) {
        self.write(VIRTIO_MMIO_QUEUE_NUM, size);
        for (low, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, desc),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail),
            (VIRTIO_MMIO_QUEUE_USED_LOW, used),
        ] {
            self.write(low, u32::try_from(address & u64::from(u32::MAX)).unwrap());
            self.write(low + 4, u32::try_from(address >> 32).unwrap());
        }
    }

    pub fn read(&self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&self, register: u32, value: u32) {
        assert_eq!(self.mmio.write(register.into(), &value.to_le_bytes()), Effect::None);
    }

    pub fn status(&self) -> u32 {
        self.read(VIRTIO_MMIO_STATUS)
    }

    pub fn set_status(&self, status: u32) {
        self.write(VIRTIO_MMIO_STATUS, status);
    }

    /// The interrupt handler: what was pending, now acknowledged.
    pub fn acknowledge(&self) -> u32 {
        let pending = self.read(VIRTIO_MMIO_INTERRUPT_STATUS);
        self.write(VIRTIO_MMIO_INTERRUPT_ACK, pending);
        assert_eq!(self.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        pending
    }

    pub fn notify(&self, queue: u32) {
        self.write(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
    }

    pub fn mem(&self) -> impl std::ops::Deref<Target = Memory> {
        self.memory.memory()
    }

    /// Fresh zeroed buffer memory.
    pub fn buffer(&mut self, len: usize) -> u64 {
        let at = self.next_buffer;
        self.next_buffer += u64::try_from(len).unwrap().next_multiple_of(16);
        assert!(self.next_buffer < MEMORY);
        at
    }

    /// A buffer with these bytes.
    pub fn text(&mut self, bytes: &[u8]) -> Buffer {
        let at = self.buffer(bytes.len());
        self.put(at, bytes);
        Buffer::Read(at, bytes.len())
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.mem().read_slice(&mut data, GuestAddress(at)).unwrap();
        data
    }

    /// Puts a chain on the available ring, without a notification; its head.
    pub fn offer(&mut self, queue: usize, chain: &[Buffer]) -> u16 {
        let head = self.rings[queue].next_descriptor;
        for (position, buffer) in chain.iter().enumerate() {
            let (address, len, flags) = match *buffer {
                Buffer::Read(address, len) => (address, len, 0),
                Buffer::Write(address, len) => (address, len, VRING_DESC_F_WRITE),
                Buffer::Indirect(address, len) => (address, len, VRING_DESC_F_INDIRECT),
            };
            let ring = &mut self.rings[queue];
            let this = ring.next_descriptor;
            ring.next_descriptor = (this + 1) % ring.size;
            let more = if position + 1 < chain.len() {
                VRING_DESC_F_NEXT
            } else {
                0
            };
            let next = ring.next_descriptor;
            self.descriptor(queue, this, address, len, flags | more, next);
        }
        self.make_available(queue, head);
        head
    }

    /// Where a queue's descriptors are.
    pub fn table(&self, queue: usize) -> u64 {
        ring(queue)
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.mem().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    /// Writes one descriptor.
    pub fn descriptor(&self, queue: usize, index: u16, address: u64, len: usize, flags: u32, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
        bytes.extend(u16::try_from(flags).unwrap().to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.mem()
            .write_slice(&bytes, GuestAddress(ring(queue) + 16 * u64::from(index)))
            .unwrap();
    }

    /// Puts a head on the available ring.
    pub fn make_available(&mut self, queue: usize, head: u16) {
        let this = &mut self.rings[queue];
        let entry = ring(queue) + AVAIL + 4 + 2 * u64::from(this.avail % this.size);
        this.avail = this.avail.wrapping_add(1);
        let index = this.avail;
        self.mem().write_obj(head, GuestAddress(entry)).unwrap();
        self.set_avail_index(queue, index);
    }

    pub fn set_avail_index(&self, queue: usize, index: u16) {
        self.mem()
            .write_obj(index, GuestAddress(ring(queue) + AVAIL + 2))
            .unwrap();
    }

    /// Flags of the available ring: 1 wants no interrupts.
    pub fn set_avail_flags(&self, queue: usize, flags: u16) {
        self.mem().write_obj(flags, GuestAddress(ring(queue) + AVAIL)).unwrap();
    }

    /// Wants an interrupt when the used ring passes this index.
    pub fn set_used_event(&self, queue: usize, index: u16) {
        let at = ring(queue) + AVAIL + 4 + 2 * u64::from(self.rings[queue].size);
        self.mem().write_obj(index, GuestAddress(at)).unwrap();
    }

    /// The device wants a notification when the available ring passes this index.
    pub fn avail_event(&self, queue: usize) -> u16 {
        let at = ring(queue) + USED + 4 + 8 * u64::from(self.rings[queue].size);
        self.mem().read_obj(GuestAddress(at)).unwrap()
    }

    /// Chains the device returned since the last call: head and bytes written.
    pub fn used(&mut self, queue: usize) -> Vec<(u16, usize)> {
        let index: u16 = self.mem().read_obj(GuestAddress(ring(queue) + USED + 2)).unwrap();
        let mut chains = Vec::new();
        while self.rings[queue].used != index {
            let this = &mut self.rings[queue];
            let at = ring(queue) + USED + 4 + 8 * u64::from(this.used % this.size);
            this.used = this.used.wrapping_add(1);
            let [head, len]: [u32; 2] = [at, at + 4].map(|at| self.mem().read_obj(GuestAddress(at)).unwrap());
            chains.push((u16::try_from(head).unwrap(), usize::try_from(len).unwrap()));
        }
        chains
    }
}

pub fn ring(queue: usize) -> u64 {
    RINGS + RING_STEP * u64::try_from(queue).unwrap()
}

/// The claims every device keeps behind the transport. `$make` is a function that gives a new device in an `Arc`.
macro_rules! conforms {
    ($make:path) => {
        $crate::virtio::testing::conforms!($make;
            identity_registers_are_those_of_the_specification
            features_not_offered_are_refused
            a_legacy_driver_is_refused
            status_steps_are_taken_in_order_only
            queues_outside_memory_need_a_reset
            queue_sizes_are_checked
            broken_rings_need_a_reset
            reset_is_complete
            a_returned_queue_is_left_alone
            registers_out_of_range_are_ones
        );
        proptest::proptest! {
            #[test]
            fn any_register_access_is_survived(
                accesses in proptest::collection::vec($crate::virtio::testing::access(), 0..200),
            ) {
                $crate::virtio::testing::any_access_is_survived($make(), accesses);
            }
        }
    };
    ($make:path; $($claim:ident)*) => {
        $(#[test]
        fn $claim() {
            $crate::virtio::testing::claims::$claim($make());
        })*
    };
}
pub(crate) use conforms;

/// One access: whether it writes, where, and what.
pub type Access = (bool, u64, Vec<u8>);

/// Accesses that lean towards the registers that matter, in and out of their order.
pub fn access() -> impl proptest::strategy::Strategy<Value = Access> {
    use proptest::prelude::*;
    let word = prop_oneof![0..8_u32, Just(0xf), Just(0x10_0000), any::<u32>()].prop_map(|v| v.to_le_bytes().to_vec());
    let aligned = (any::<bool>(), (0..0x48_u64).prop_map(|register| register * 4), word);
    let status = prop_oneof![Just(1_u32), Just(3), Just(11), Just(15)]
        .prop_map(|v| (true, u64::from(VIRTIO_MMIO_STATUS), v.to_le_bytes().to_vec()));
    let wild = (
        any::<bool>(),
        prop_oneof![0..0x1000_u64, any::<u64>()],
        prop::collection::vec(any::<u8>(), 0..9),
    );
    prop_oneof![6 => aligned, 1 => status, 2 => wild]
}

/// From a fresh transport and from a device that is up.
pub fn any_access_is_survived(device: Arc<dyn VirtioDevice>, accesses: Vec<Access>) {
    let mut driver = Driver::new(device);
    for up in [false, true] {
        if up {
            driver.start(EVENT_IDX);
        }
        for (write, offset, data) in &accesses {
            let mut data = data.clone();
            match write {
                true => assert_eq!(driver.mmio.write(*offset, &data), Effect::None),
                false => driver.mmio.read(*offset, &mut data),
            }
        }
    }
}

/// Bodies of the tests that [`conforms`] makes.
pub mod claims {
    use super::*;

    type Device = Arc<dyn VirtioDevice>;
    const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;

    pub fn identity_registers_are_those_of_the_specification(device: Device) {
        let (kind, sizes) = (device.device_type(), device.queue_max_sizes().to_vec());
        let driver = Driver::new(device);
        assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
        assert_eq!(
            (driver.read(VIRTIO_MMIO_VERSION), driver.read(VIRTIO_MMIO_DEVICE_ID)),
            (2, kind)
        );
        assert_ne!(driver.offered() & VERSION_1, 0);
        for (index, size) in (0..).zip(sizes.iter().map(|size| u32::from(*size)).chain([0, 0])) {
            driver.write(VIRTIO_MMIO_QUEUE_SEL, index);
            assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), size, "queue {index}");
        }
        for region in [0, 1, 255] {
            driver.write(VIRTIO_MMIO_SHM_SEL, region);
            assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
            assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX);
        }
        for selector in [2, u32::MAX] {
            driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, selector);
            assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
        }
    }

    pub fn features_not_offered_are_refused(device: Device) {
        let driver = Driver::new(device);
        let offered = driver.offered();
        for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
            driver.negotiate(VERSION_1 | 1 << bit);
            assert_eq!(driver.status(), DRIVER, "feature {bit}");
            driver.set_status(DRIVER_OK);
            assert_eq!(driver.status(), DRIVER, "feature {bit}");
        }
        driver.negotiate(offered);
        assert_eq!(driver.status(), FEATURES_OK);
    }

    pub fn a_legacy_driver_is_refused(device: Device) {
        let driver = Driver::new(device);
        driver.negotiate(0);
        assert_eq!(driver.status(), DRIVER);
    }

    pub fn status_steps_are_taken_in_order_only(device: Device) {
        let mut driver = Driver::new(device);
        for wrong in [2, 3 << 4, 4, 8, 5, 9, 0x10, 0x100, 0x101, u32::MAX] {
            driver.set_status(wrong);
            assert_eq!(driver.status(), 0, "{wrong:#x}");
        }
        driver.start(0);
        for wrong in [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK | 0x100] {
            driver.set_status(wrong);
            assert_eq!(driver.status(), DRIVER_OK, "{wrong:#x}");
        }
        driver.set_status(DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
        assert_eq!(driver.status(), DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
        driver.notify(0);
        assert_eq!(driver.line.count(), 0);
        driver.set_status(0);
        driver.set_status(ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
        driver.set_status(DRIVER | VIRTIO_CONFIG_S_FAILED);
        assert_eq!(driver.status(), ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
    }

    pub fn queues_outside_memory_need_a_reset(device: Device) {
        let driver = Driver::new(device);
        let (desc, avail, used) = (ring(0), ring(0) + AVAIL, ring(0) + USED);
        for (desc, avail, used) in [
            (MEMORY, avail, used),
            (MEMORY - 16, avail, used),
            (desc, MEMORY - 4, used),
            (desc, avail, MEMORY - 8),
            (u64::MAX - 15, avail, used),
            (desc, u64::MAX - 1, used),
            (desc, avail, u64::MAX - 3),
            (desc + 1, avail, used),
            (desc, avail + 1, used),
            (desc, avail, used + 2),
        ] {
            driver.negotiate(VERSION_1);
            driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
            driver.describe(16, desc, avail, used);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
            assert_eq!(
                driver.read(VIRTIO_MMIO_QUEUE_READY),
                0,
                "{desc:#x} {avail:#x} {used:#x}"
            );
            assert_eq!(driver.status(), FEATURES_OK | NEEDS_RESET);
            driver.set_status(DRIVER_OK | NEEDS_RESET);
            assert_eq!(driver.status(), FEATURES_OK | NEEDS_RESET);
        }
    }

    pub fn queue_sizes_are_checked(device: Device) {
        let max = u32::from(device.queue_max_sizes()[0]);
        let driver = Driver::new(device);
        for (size, fine) in [
            (0, false),
            (3, false),
            (max * 2, false),
            (0x1_0000 | max, false),
            (1, true),
            (max, true),
        ] {
            driver.negotiate(VERSION_1);
            driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
            driver.describe(size, ring(0), ring(0) + AVAIL, ring(0) + USED);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
            assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), u32::from(fine), "{size:#x}");
            assert_eq!(driver.status() & NEEDS_RESET == 0, fine, "{size:#x}");
        }
    }

    /// Every queue, each with the ways a driver can break it, as far as the device looks into the queue at all.
    pub fn broken_rings_need_a_reset(device: Device) {
        let queues = device.queue_max_sizes().len();
        let mut driver = Driver::new(device);
        let mut noticed = 0;
        for queue in 0..queues {
            for fault in 0..4 {
                driver.start(driver.offered());
                match fault {
                    0 => driver.set_avail_index(queue, 0x7fff),
                    1 => driver.make_available(queue, 0x7fff),
                    2 => drop(driver.offer(queue, &[Buffer::Read(MEMORY, 8), Buffer::Write(MEMORY, 8)])),
                    _ => {
                        // A chain that is its own end.
                        driver.descriptor(queue, 0, BUFFERS, 8, VRING_DESC_F_NEXT, 0);
                        driver.make_available(queue, 0);
                    }
                }
                let edges = driver.line.count();
                driver.notify(u32::try_from(queue).unwrap());
                if driver.status() & NEEDS_RESET != 0 {
                    noticed += 1;
                    assert_eq!(driver.line.count(), edges + 1);
                    assert_eq!(driver.acknowledge(), VIRTIO_MMIO_INT_CONFIG);
                }
                assert_eq!(driver.used(queue), []);
            }
        }
        assert!(noticed >= 4, "at least one queue is served on notification");
    }

    pub fn reset_is_complete(device: Device) {
        let mut driver = Driver::new(device.clone());
        let space = |driver: &Driver| {
            let mut all = vec![0; 64];
            driver.mmio.read(VIRTIO_MMIO_CONFIG.into(), &mut all);
            all
        };
        let (fresh, edges) = (space(&driver), driver.line.count());
        for round in 0..2 {
            driver.start(driver.offered());
            for queue in 0..device.queue_max_sizes().len() {
                let at = driver.buffer(4096);
                driver.offer(queue, &[Buffer::Write(at, 4096)]);
            }
            match round {
                0 => driver.set_status(0),
                _ => driver.mmio.reset(),
            }
            assert_eq!(driver.status(), 0);
            for queue in 0..device.queue_max_sizes().len() {
                driver.write(VIRTIO_MMIO_QUEUE_SEL, u32::try_from(queue).unwrap());
                assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
                driver.notify(u32::try_from(queue).unwrap());
                assert_eq!(device.process_queue(u16::try_from(queue).unwrap()), Progress::Done);
                assert_eq!(driver.used(queue), [], "queue {queue}");
            }
            assert_eq!(
                (driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), driver.line.count()),
                (0, edges)
            );
            assert_eq!(space(&driver), fresh);
        }
        driver.start(0);
    }

    pub fn a_returned_queue_is_left_alone(device: Device) {
        let queues = device.queue_max_sizes().len();
        let mut driver = Driver::up(device, 0);
        for queue in 0..queues {
            let index = u32::try_from(queue).unwrap();
            driver.write(VIRTIO_MMIO_QUEUE_SEL, index);
            driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
            assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
            let at = driver.buffer(64);
            driver.offer(queue, &[Buffer::Read(at, 32), Buffer::Write(at + 32, 32)]);
            driver.notify(index);
            assert_eq!(driver.used(queue), []);
        }
        assert_eq!((driver.status(), driver.line.count()), (DRIVER_OK, 0));
    }

    pub fn registers_out_of_range_are_ones(device: Device) {
        let driver = Driver::new(device);
        for (offset, len) in [
            (0, 1),
            (0, 2),
            (1, 4),
            (0, 8),
            (0x24, 4),
            (0xc0, 4),
            (0xf8, 8),
            (0xffc, 4),
            (u64::MAX, 4),
        ] {
            let mut data = vec![0; len];
            driver.mmio.read(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0xff), "{len} bytes at {offset:#x}");
            assert_eq!(driver.mmio.write(offset, &data), Effect::None);
        }
        driver.notify(u32::MAX);
        assert_eq!((driver.status(), driver.line.count()), (0, 0));
    }
}
