//! One active virtqueue: `virtio_queue::Queue` with the rules that every device here follows.
//!
//! Owned by a device between activation and reset, under the device's lock. A queue whose driver breaks the rules (rings
//! or buffers outside memory, loops, indices that jump) **fails**: it yields no chain any more, the device asks for a
//! reset, and nothing else happens.
//!
//! A queue whose rings or tables have a bad line where the device reads them fails as well. What of a chain's buffers cannot be
//! read concerns that chain alone ([`Virtqueue::bad_line`]).

use super::{Interrupt, Memory, Occasional, Reader, Writer};
use crate::{BadLines, units::Gpa};
use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT, desc::split::Descriptor};
use vm_memory::{Bytes, GuestAddress};

/// A chain of buffers in one state of guest memory.
pub type Chain<'m> = DescriptorChain<&'m Memory>;

/// What a look at a queue brought.
pub enum Next<'m> {
    /// This one.
    Chain(Chain<'m>),
    /// Nothing, and chains came meanwhile that nobody will notify of.
    LookAgain,
    /// Nothing; the driver will notify.
    Nothing,
}

/// A virtqueue from the device's side.
pub struct Virtqueue {
    queue: Queue,
    /// Cleared when the driver takes the queue back (QueueReady = 0).
    enabled: Arc<AtomicBool>,
    interrupt: Interrupt,
    complaints: Arc<Occasional>,
    bad_lines: BadLines,
    index: u16,
    failed: bool,
    /// Something was completed, or the queue failed, since [`Self::take_signal`].
    news: bool,
}

impl Virtqueue {
    pub(super) fn new(
        queue: Queue,
        enabled: Arc<AtomicBool>,
        interrupt: Interrupt,
        (complaints, bad_lines): (Arc<Occasional>, BadLines),
        index: u16,
    ) -> Self {
        Self {
            queue,
            enabled,
            interrupt,
            complaints,
            bad_lines,
            index,
            failed: false,
            news: false,
        }
    }

    /// Whether the queue can yield chains at all.
    pub fn usable(&self) -> bool {
        !self.failed && self.queue.ready() && self.enabled.load(Ordering::SeqCst)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Whether [`Self::pop`] would yield a chain.
    pub fn has_next(&mut self, mem: &Memory) -> bool {
        if !self.usable() || self.has_bad_rings() {
            return false;
        }
        match self.queue.avail_idx(mem, Ordering::Acquire) {
            Ok(index) => index.0 != self.queue.next_avail(),
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    /// Takes the next chain: at least one buffer and no more than the queue has entries (virtio 1.2 2.7.5.3.1).
    pub fn pop<'m>(&mut self, mem: &'m Memory) -> Option<Chain<'m>> {
        if !self.usable() || self.in_doubt() || self.has_bad_rings() {
            return None;
        }
        let next = match self.queue.iter(mem) {
            Ok(mut chains) => chains.next(),
            Err(error) => {
                self.fail(error);
                None
            }
        };
        let chain = self.whole(mem, next?);
        if self.in_doubt() {
            self.put_back();
            return None;
        }
        chain
    }

    /// The next chain, while the driver need not notify; when there is none, it is asked to.
    pub fn take_next<'m>(&mut self, mem: &'m Memory) -> Next<'m> {
        self.quiet(mem);
        match self.pop(mem) {
            Some(chain) => Next::Chain(chain),
            None if self.listen(mem) => Next::LookAgain,
            None => Next::Nothing,
        }
    }

    /// A chain that ends, and can be read.
    fn whole<'m>(&mut self, mem: &'m Memory, chain: Chain<'m>) -> Option<Chain<'m>> {
        if self.has_bad_table(mem, chain.head_index()) {
            return None;
        }
        let limit = usize::from(self.queue.size());
        let seen = chain.clone().take(limit.saturating_add(1));
        // The iterator ends without a word at a loop, a bad index and an unreadable table.
        match seen.fold((0, false), |(n, _), descriptor| (n + 1, descriptor.has_next())) {
            (0, _) => self.fail(format_args!("descriptor {} cannot be read", chain.head_index())),
            (n, _) if n > limit => self.fail(format_args!("a chain has more than {limit} descriptors")),
            (n, true) => self.fail(format_args!("a chain does not end after {n} descriptors")),
            (_, false) => return Some(chain),
        }
        None
    }

    /// Whether what was read just now is to be put back and read again: see [`BadLines::in_doubt`].
    pub fn in_doubt(&self) -> bool {
        self.bad_lines.in_doubt()
    }

    /// The line that makes `chain` one whose device-readable buffers cannot all be read. The request fails, and is counted.
    pub fn bad_line(&self, chain: &Chain<'_>) -> Option<Gpa> {
        if !self.bad_lines.any() {
            return None;
        }
        let mut buffers = chain.clone().readable();
        let line = buffers.find_map(|d| self.bad_lines.first_in(Gpa(d.addr().0), d.len().into()))?;
        self.bad_lines.meet(line);
        Some(line)
    }

    /// Fails the queue if something that the device reads at `start` is bad; whether it is.
    fn is_bad(&mut self, start: u64, len: u64, what: &str) -> bool {
        let line = self.bad_lines.first_in(Gpa(start), len);
        if let Some(line) = line {
            self.bad_lines.meet(line);
            self.fail(format_args!("{what} has a memory error at {line}"));
        }
        line.is_some()
    }

    /// Whether the device cannot read what the driver offers.
    fn has_bad_rings(&mut self) -> bool {
        if !self.bad_lines.any() {
            return false;
        }
        let size = u64::from(self.queue.size());
        let (available, table) = (self.queue.avail_ring(), self.queue.desc_table());
        // virtio 1.2 2.7.5 and 2.7.6: two words, an index for each entry, and the event index.
        self.is_bad(available, 6 + 2 * size, "the available ring")
            || self.is_bad(table, 16 * size, "the descriptor table")
    }

    /// Whether the device cannot read the indirect table of a chain.
    fn has_bad_table(&mut self, mem: &Memory, head: u16) -> bool {
        if !self.bad_lines.any() {
            return false;
        }
        let table = self.queue.desc_table();
        let mut index = head;
        for _ in 0..self.queue.size() {
            let at = GuestAddress(table.saturating_add(16 * u64::from(index)));
            let Ok(descriptor) = mem.read_obj::<Descriptor>(at) else {
                return false;
            };
            if descriptor.refers_to_indirect_table() {
                let (start, len) = (descriptor.addr().0, descriptor.len().into());
                return self.is_bad(start, len, "an indirect descriptor table");
            }
            if !descriptor.has_next() {
                return false;
            }
            index = descriptor.next();
        }
        false
    }

    /// Gives back the chain that [`Self::pop`] took last: the next `pop` yields it again.
    pub fn put_back(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// The device-readable buffers of `chain`.
    pub fn reader<'m>(&mut self, mem: &'m Memory, chain: Chain<'m>) -> Option<Reader<'m>> {
        let head = chain.head_index();
        chain
            .reader(mem)
            .map_err(|_| self.fail(format_args!("chain {head} leaves guest memory")))
            .ok()
    }

    /// The device-writable buffers of `chain`.
    pub fn writer<'m>(&mut self, mem: &'m Memory, chain: Chain<'m>) -> Option<Writer<'m>> {
        let head = chain.head_index();
        chain
            .writer(mem)
            .map_err(|_| self.fail(format_args!("chain {head} leaves guest memory")))
            .ok()
    }

    /// Returns a chain to the driver with `len` bytes written into it.
    pub fn complete(&mut self, mem: &Memory, head: u16, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        match self.queue.add_used(mem, head, len) {
            Ok(()) => self.news = true,
            Err(error) => self.fail(error),
        }
    }

    /// Asks the driver not to notify for now.
    pub fn quiet(&mut self, mem: &Memory) {
        if self.usable()
            && let Err(error) = self.queue.disable_notification(mem)
        {
            self.fail(error);
        }
    }

    /// Asks the driver to notify again; whether chains came in the meantime, which nobody will notify of.
    pub fn listen(&mut self, mem: &Memory) -> bool {
        if !self.usable() {
            return false;
        }
        self.queue.enable_notification(mem).unwrap_or_else(|error| {
            self.fail(error);
            false
        })
    }

    /// Marks the interrupt for what happened since the last call, unless the driver wants none; whether to pulse it.
    pub fn take_signal(&mut self, mem: &Memory) -> bool {
        if !std::mem::take(&mut self.news) {
            return false;
        }
        if self.failed {
            return true;
        }
        let wanted = self.wants_signal(mem);
        if wanted {
            self.interrupt.mark_used();
        }
        wanted
    }

    fn wants_signal(&mut self, mem: &Memory) -> bool {
        if !self.queue.event_idx_enabled() {
            // virtio 1.2 2.7.7.2. The queue type covers the event index alone.
            let flags: u16 = mem
                .read_obj(GuestAddress(self.queue.avail_ring()))
                .map(u16::from_le)
                .unwrap_or(0);
            return u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0;
        }
        self.queue.needs_notification(mem).unwrap_or_else(|error| {
            self.fail(error);
            // The interrupt is for the reset that the failure asks for.
            true
        })
    }

    /// Stops the queue and asks for a reset of the device, unless the reason may be none.
    pub fn fail(&mut self, why: impl Display) {
        if self.in_doubt() {
            return;
        }
        if !self.failed {
            self.failed = true;
            self.news = true;
            self.interrupt.mark_needs_reset();
        }
        if let Some(count) = self.complaints.hit() {
            tracing::warn!(
                queue = self.index,
                count,
                "virtio queue stopped, the device needs a reset: {why}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        BadLines,
        units::{Gpa, GpaRange},
        virtio::{
            rng::Rng,
            testing::{AVAIL, Buffer, Driver, EVENT_IDX, USED, ring},
        },
    };
    use std::sync::Arc;
    use virtio_bindings::{virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET, virtio_ring::VRING_DESC_F_NEXT};

    fn driver(features: u64) -> Driver {
        driver_of(features, &BadLines::default())
    }

    fn driver_of(features: u64, lines: &BadLines) -> Driver {
        let ones = |data: &mut [u8]| {
            data.fill(1);
            Ok(())
        };
        Driver::up_with(Arc::new(Rng::new(Box::new(ones))), features, lines)
    }

    fn request(driver: &mut Driver) {
        let at = driver.buffer(8);
        driver.offer(0, &[Buffer::Write(at, 8)]);
    }

    #[test]
    fn event_index_holds_interrupts_back_until_it_is_passed() {
        let mut driver = driver(EVENT_IDX);
        driver.set_used_event(0, 2);
        let mut edges = Vec::new();
        for _ in 0..4 {
            request(&mut driver);
            driver.notify(0);
            edges.push(driver.line.count());
        }
        assert_eq!(edges, [0, 0, 1, 1]);
        assert_eq!((driver.used(0).len(), driver.avail_event(0)), (4, 4));
    }

    #[test]
    fn without_event_index_the_flag_holds_interrupts_back() {
        let mut driver = driver(0);
        driver.set_avail_flags(0, 1);
        request(&mut driver);
        driver.notify(0);
        assert_eq!((driver.line.count(), driver.acknowledge()), (0, 0));
        driver.set_avail_flags(0, 0);
        request(&mut driver);
        driver.notify(0);
        assert_eq!((driver.line.count(), driver.acknowledge()), (1, 1));
    }

    #[test]
    fn rings_wrap() {
        for features in [0, EVENT_IDX] {
            let mut driver = driver(features);
            let at = driver.buffer(8);
            for round in 0..1000_u16 {
                driver.set_used_event(0, round);
                let head = driver.offer(0, &[Buffer::Write(at, 8)]);
                driver.notify(0);
                assert_eq!(driver.used(0), [(head, 8)]);
                assert_eq!(driver.line.count(), u64::from(round) + 1);
            }
        }
    }

    #[test]
    fn indirect_tables_are_followed_once_and_no_further_than_the_queue_is_long() {
        // A table inside a table, one that is no multiple of a descriptor, one that is too long, and a good one.
        for (entries, len, flags, fine) in [
            (1, 16, 4, false),
            (1, 17, 0, false),
            (65, 65 * 16, 2, false),
            (64, 64 * 16, 2, true),
        ] {
            let mut driver = driver(1 << 28);
            let (table, data) = (driver.buffer(65 * 16), driver.buffer(8));
            for entry in 0..entries {
                let more = if entry + 1 < entries { VRING_DESC_F_NEXT } else { 0 };
                // The table is written as if it were the queue's, then moved.
                driver.descriptor(0, 0, data, 1, flags | more, entry + 1);
                let bytes = driver.bytes(driver.table(0), 16);
                driver.put(table + 16 * u64::from(entry), &bytes);
            }
            driver.offer(0, &[Buffer::Indirect(table, len)]);
            driver.notify(0);
            assert_eq!(
                driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET == 0,
                fine,
                "{entries} entries, {len} bytes"
            );
            assert_eq!(driver.used(0), if fine { vec![(0, 64)] } else { vec![] });
        }
    }

    #[test]
    fn a_bad_line_in_a_ring_or_a_table_stops_the_queue_and_one_elsewhere_does_not() {
        for (what, stops) in [
            ("available", true),
            ("table", true),
            ("indirect", true),
            ("buffer", false),
            ("used", false),
        ] {
            let lines = BadLines::default();
            let mut driver = driver_of(1 << 28, &lines);
            let (table, data) = (driver.buffer(64), driver.buffer(8));
            driver.descriptor(0, 0, data, 8, 2, 0);
            let bytes = driver.bytes(driver.table(0), 16);
            driver.put(table, &bytes);
            let bad = match what {
                "available" => ring(0) + AVAIL + 2,
                "table" => ring(0) + 16,
                "indirect" => table,
                "used" => ring(0) + USED,
                _ => data,
            };
            lines.set([GpaRange::new(Gpa(bad / 64 * 64), 64)]);
            driver.offer(0, &[Buffer::Indirect(table, 16)]);
            driver.notify(0);
            assert_eq!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0, stops, "{what}");
            assert_eq!(
                (driver.used(0).len(), lines.count()),
                (usize::from(!stops), u64::from(stops)),
                "{what}"
            );
        }
    }

    #[test]
    fn a_failed_queue_comes_back_with_a_reset() {
        let mut driver = driver(0);
        driver.make_available(0, 0x4000);
        driver.notify(0);
        assert_ne!(driver.status() & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        request(&mut driver);
        driver.notify(0);
        assert_eq!(driver.used(0), []);
        driver.start(0);
        request(&mut driver);
        driver.notify(0);
        assert_eq!(driver.used(0), [(0, 8)]);
    }
}
