//! The serial port: a 16550 whose output travels in batches.
//!
//! A character of the guest is one exit, or one entry of KVM's coalesced port-I/O ring; it must not also be one system
//! call. Output collects until a newline, [`BATCH`] bytes, or [`SerialPort::flush`], which the machine's loop calls when
//! it has drained the ring. Input fills the receive FIFO; what does not fit stays with the caller, whom the room
//! callback wakes once the guest has read.
//!
//! Called by vCPU threads ([`BusDevice`]) and by the machine's loop (the inherent methods). One lock inside, which the
//! line and the room callback are never called under. The sink is: it decides for itself what to do when its far end
//! is slow, and the guest's processor waits for it.

use crate::{BusDevice, Effect, Line, virtio::Occasional, virtio::lock};
use std::{
    cell::Cell,
    convert::Infallible,
    io::{self, Write},
    sync::{Arc, Mutex},
};
use vm_superio::{
    Serial, Trigger,
    serial::{NoEvents, SerialState},
};

/// Bytes of output that are never held back.
pub const BATCH: usize = 256;
/// Registers of a 16550.
const REGISTERS: u64 = 8;
/// Transmit holding register (with the divisor latch closed).
const THR: u8 = 0;
/// Interrupt enable register: received data (as [`LSR_DATA_READY`]), transmitter empty.
const IER: u8 = 1;
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
/// Line control register; its top bit opens the divisor latch in the place of the first two.
const LCR: u8 = 3;
const LCR_DIVISOR_LATCH: u8 = 1 << 7;
/// Line status register.
const LSR: u8 = 5;
const LSR_DATA_READY: u8 = 1;
/// Modem control register.
const MCR: u8 = 4;
/// In loopback the receiver hears the transmitter and nobody else.
const MCR_LOOPBACK: u8 = 1 << 4;
/// Room worth a wake-up: half of the model's FIFO. One wake-up per character would cost more than it gives.
const ROOM: usize = 32;

/// A 16550 serial port.
pub struct SerialPort {
    inner: Mutex<Inner>,
    line: Arc<dyn Line>,
    room: Box<dyn Fn() + Send + Sync>,
}

struct Inner {
    uart: Serial<Latch, NoEvents, Batch>,
    sink: Box<dyn Write + Send>,
    lost: Occasional,
    /// Input was refused since the guest last emptied the FIFO.
    starved: bool,
}

/// The UART's interrupt output, held until the lock is released.
#[derive(Default)]
struct Latch(Cell<bool>);

impl Trigger for Latch {
    type E = Infallible;
    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

/// Output of the UART that waits for the sink; at most [`BATCH`] bytes.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    line_ended: bool,
}

impl Write for Batch {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(data);
        self.line_ended |= data.contains(&b'\n');
        Ok(data.len())
    }
    /// The UART flushes after each byte: that is what batching is here to prevent.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be done once the lock is released.
#[must_use]
#[derive(Default)]
struct After {
    pulse: bool,
    room: bool,
}

impl SerialPort {
    /// Ports it decodes.
    pub const PORTS: u64 = REGISTERS;

    /// A port that writes to `sink`, interrupts through `line` and calls `room` when input that was refused would now
    /// fit. `room` runs on a vCPU thread: it wakes somebody and returns.
    pub fn new(line: Arc<dyn Line>, sink: Box<dyn Write + Send>, room: Box<dyn Fn() + Send + Sync>) -> Self {
        let uart = Serial::new(Latch::default(), Batch::default());
        Self {
            inner: Mutex::new(Inner {
                uart,
                sink,
                lost: Occasional::default(),
                starved: false,
            }),
            line,
            room,
        }
    }

    /// Takes a run of bytes that the guest wrote to the first register, in order, as single writes would.
    pub fn write_many(&self, data: &[u8]) {
        self.with(|inner| data.iter().for_each(|byte| inner.put(THR, *byte)));
    }

    /// Gives collected output to the sink; cheap when there is none.
    pub fn flush(&self) {
        self.with(Inner::drain);
    }

    /// Puts host bytes into the receive FIFO and says how many it took. After a refusal the room callback follows.
    pub fn input(&self, data: &[u8]) -> usize {
        self.with(|inner| {
            // Full FIFO and loopback mode take nothing.
            let taken = inner.uart.enqueue_raw_bytes(data).unwrap_or(0);
            inner.starved = taken < data.len();
            taken
        })
    }

    /// Whether [`Self::input`] would take a byte; if not, the room callback follows.
    pub fn wants_input(&self) -> bool {
        self.with(|inner| {
            inner.starved = inner.uart.fifo_capacity() == 0;
            !inner.starved
        })
    }

    /// Back to the state after power-on; collected output goes to the sink first.
    pub fn reset(&self) {
        self.with(|inner| {
            inner.drain();
            // The default state has no pending interrupt and an empty FIFO: it is always accepted.
            if let Ok(uart) = Serial::from_state(&SerialState::default(), Latch::default(), NoEvents, Batch::default())
            {
                inner.uart = uart;
            }
        });
    }

    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = lock(&self.inner);
        let result = act(&mut inner);
        let after = inner.settle();
        drop(inner);
        if after.pulse {
            self.line.pulse();
        }
        if after.room {
            (self.room)();
        }
        result
    }
}

impl Inner {
    fn put(&mut self, register: u8, value: u8) {
        // The interrupt output of a UART is a level: enabling an interrupt whose condition holds raises it. The model keeps
        // a condition that was identified while nobody listened, and would never raise it again.
        let latch_closed = self.uart.read(LCR) & LCR_DIVISOR_LATCH == 0;
        if register == IER && latch_closed {
            let ready = self.uart.read(LSR) & LSR_DATA_READY;
            let enabled = value & !self.uart.read(IER);
            if enabled & (IER_TRANSMITTER_EMPTY | ready) != 0 {
                self.uart.interrupt_evt().0.set(true);
            }
        }
        // The batch takes every byte and the latch every trigger: there is no error to see here.
        let _ = self.uart.write(register, value);
        let batch = self.uart.writer();
        if batch.line_ended || batch.bytes.len() >= BATCH {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let Self { uart, sink, lost, .. } = self;
        let batch = uart.writer_mut();
        if batch.bytes.is_empty() {
            return;
        }
        if let Err(error) = sink.write_all(&batch.bytes).and_then(|()| sink.flush())
            && let Some(count) = lost.hit()
        {
            tracing::warn!(count, %error, "serial output is lost");
        }
        batch.bytes.clear();
        batch.line_ended = false;
    }

    fn settle(&mut self) -> After {
        let pulse = self.uart.interrupt_evt().0.take();
        let room = self.starved && self.uart.fifo_capacity() >= ROOM && self.uart.read(MCR) & MCR_LOOPBACK == 0;
        self.starved &= !room;
        After { pulse, room }
    }
}

/// The register under byte `at` of an access at `offset`.
fn register(offset: u64, at: u64) -> Option<u8> {
    let register = offset.checked_add(at).filter(|register| *register < REGISTERS)?;
    u8::try_from(register).ok()
}

impl BusDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.with(|inner| {
            // A wide access to an 8-bit device arrives as byte accesses to consecutive ports.
            for (at, byte) in (0..).zip(data) {
                *byte = register(offset, at).map_or(0xff, |register| inner.uart.read(register));
            }
        });
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        self.with(|inner| {
            for (at, byte) in (0..).zip(data) {
                if let Some(register) = register(offset, at) {
                    inner.put(register, *byte);
                }
            }
        });
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::CountingLine;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const IER: u64 = 1;
    const IIR: u64 = 2;
    const LCR: u64 = 3;
    const LSR: u64 = 5;
    const SCR: u64 = 7;
    const DLAB: u8 = 0x80;

    #[test]
    fn enabling_an_interrupt_that_was_pending_unheard_raises_it_again() {
        let rig = rig();
        // A probe of the register, as Xen has it: the interrupt is identified, and nobody reads that.
        rig.out(IER, 0x0f);
        rig.out(IER, 0);
        let before = rig.line.count();
        rig.out(IER, 2);
        assert_eq!(rig.line.count(), before + 1);
        rig.out(IER, 2);
        assert_eq!(rig.line.count(), before + 1, "it is enabled already");
        assert_eq!(rig.inb(IIR) & 0x0f, 2);
        rig.out(LCR, DLAB);
        rig.out(IER, 0);
        rig.out(IER, 2);
        assert_eq!(rig.line.count(), before + 1, "the divisor latch enables nothing");
    }

    /// Remembers what arrived, and in how many calls.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<Vec<u8>>>>);
    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(data.to_vec());
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Sink {
        fn calls(&self) -> usize {
            self.0.lock().unwrap().len()
        }
        fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().concat()
        }
    }

    struct Rig {
        port: SerialPort,
        sink: Sink,
        line: Arc<CountingLine>,
        woken: Arc<AtomicUsize>,
    }

    fn rig() -> Rig {
        let (sink, line, woken) = (
            Sink::default(),
            Arc::new(CountingLine::default()),
            Arc::new(AtomicUsize::new(0)),
        );
        let wake = woken.clone();
        let room = Box::new(move || {
            wake.fetch_add(1, Ordering::Relaxed);
        });
        Rig {
            port: SerialPort::new(line.clone(), Box::new(sink.clone()), room),
            sink,
            line,
            woken,
        }
    }

    impl Rig {
        fn out(&self, register: u64, value: u8) {
            assert_eq!(self.port.write(register, &[value]), Effect::None);
        }
        fn inb(&self, register: u64) -> u8 {
            let mut data = [0];
            self.port.read(register, &mut data);
            data[0]
        }
    }

    #[test]
    fn output_waits_for_a_newline_or_a_flush() {
        let rig = rig();
        b"login: ".iter().for_each(|byte| rig.out(0, *byte));
        assert_eq!(rig.sink.calls(), 0);
        rig.port.flush();
        rig.port.flush();
        assert_eq!((rig.sink.calls(), rig.sink.bytes()), (1, b"login: ".to_vec()));
        b"root\n".iter().for_each(|byte| rig.out(0, *byte));
        assert_eq!((rig.sink.calls(), rig.sink.bytes()), (2, b"login: root\n".to_vec()));
    }

    #[test]
    fn a_line_without_end_is_given_in_batches() {
        let rig = rig();
        rig.port.write_many(&[b'x'; 2 * BATCH + 1]);
        assert_eq!((rig.sink.calls(), rig.sink.bytes().len()), (2, 2 * BATCH));
    }

    #[test]
    fn open_divisor_latch_keeps_bytes_off_the_line() {
        let rig = rig();
        rig.out(LCR, DLAB);
        rig.port.write_many(&[0x01]);
        rig.out(1, 0x02);
        assert_eq!((rig.inb(0), rig.inb(1)), (0x01, 0x02));
        rig.out(LCR, 3);
        rig.port.write_many(b"a\n");
        assert_eq!(rig.sink.bytes(), b"a\n");
        assert_eq!(rig.inb(IER), 0);
    }

    #[test]
    fn input_is_read_in_order_and_interrupts_once_enabled() {
        let rig = rig();
        assert_eq!(rig.port.input(b"ab"), 2);
        assert_eq!(rig.line.count(), 0);
        rig.out(IER, 1);
        assert_eq!(rig.line.count(), 1);
        assert_eq!(rig.inb(IIR) & 0x0f, 0x04);
        assert_eq!(
            (rig.inb(LSR) & 1, rig.inb(0), rig.inb(0), rig.inb(LSR) & 1),
            (1, b'a', b'b', 0)
        );
        assert_eq!(rig.port.input(b"c"), 1);
        assert_eq!(rig.line.count(), 2);
    }

    #[test]
    fn a_full_fifo_refuses_and_calls_back_when_it_has_room() {
        let rig = rig();
        assert!(rig.port.wants_input());
        let taken = rig.port.input(&[b'x'; 100]);
        assert!(0 < taken && taken < 100);
        assert_eq!(rig.port.input(b"y"), 0);
        assert!(!rig.port.wants_input());
        let before = rig.woken.load(Ordering::Relaxed);
        (0..taken).for_each(|_| assert_eq!(rig.inb(0), b'x'));
        assert_eq!((before, rig.woken.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(rig.port.input(b"y"), 1);
    }

    #[test]
    fn loopback_refuses_input_and_wakes_nobody_until_it_ends() {
        let rig = rig();
        rig.out(u64::from(MCR), MCR_LOOPBACK);
        assert_eq!(rig.port.input(b"a"), 0);
        assert_eq!(rig.woken.load(Ordering::Relaxed), 0);
        rig.port.write_many(b"echo\n");
        assert_eq!((rig.sink.calls(), rig.inb(0)), (0, b'e'));
        rig.out(u64::from(MCR), 0);
        assert_eq!(rig.woken.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn wide_accesses_split_and_leave_the_block_alone_beyond_its_end() {
        let rig = rig();
        rig.port.write_many(b"");
        assert_eq!(rig.port.write(6, &[0, 0x5a, 0x77]), Effect::None);
        let mut data = [0; 4];
        rig.port.read(SCR, &mut data);
        assert_eq!(data, [0x5a, 0xff, 0xff, 0xff]);
        rig.port.read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(rig.port.write(u64::MAX, &data), Effect::None);
    }

    #[test]
    fn reset_gives_what_was_collected_and_forgets_the_registers() {
        let rig = rig();
        rig.port.write_many(b"bye");
        rig.out(SCR, 9);
        rig.port.input(b"zz");
        rig.port.reset();
        assert_eq!(rig.sink.bytes(), b"bye");
        assert_eq!((rig.inb(SCR), rig.inb(LSR)), (0, 0x60));
    }

    #[test]
    fn a_dead_sink_costs_the_bytes_and_nothing_else() {
        struct Dead;
        impl Write for Dead {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let port = SerialPort::new(Arc::new(CountingLine::default()), Box::new(Dead), Box::new(|| {}));
        port.write_many(&[b'\n'; 1000]);
        assert_eq!(lock(&port.inner).uart.writer().bytes, b"");
    }

    proptest! {
        #[test]
        fn bytes_in_are_bytes_out(runs in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..400)), 0..8)) {
            let rig = rig();
            for (single, run) in &runs {
                match single {
                    true => run.iter().for_each(|byte| rig.out(0, *byte)),
                    false => rig.port.write_many(run),
                }
            }
            rig.port.flush();
            prop_assert_eq!(rig.sink.bytes(), runs.into_iter().flat_map(|(_, run)| run).collect::<Vec<_>>());
        }

        #[test]
        fn a_run_is_the_same_as_its_single_writes(setup in prop::collection::vec((0..8_u64, any::<u8>()), 0..12), run: Vec<u8>) {
            let (single, many) = (rig(), rig());
            for (register, value) in setup {
                single.out(register, value);
                many.out(register, value);
            }
            run.iter().for_each(|byte| single.out(0, *byte));
            many.port.write_many(&run);
            prop_assert_eq!(single.sink.bytes(), many.sink.bytes());
            prop_assert_eq!(lock(&single.port.inner).uart.state(), lock(&many.port.inner).uart.state());
        }

        #[test]
        fn any_access_is_survived(accesses in prop::collection::vec((any::<bool>(), 0..10_u64, prop::collection::vec(any::<u8>(), 0..9)), 0..64)) {
            let rig = rig();
            for (write, offset, mut data) in accesses {
                match write {
                    true => assert_eq!(rig.port.write(offset, &data), Effect::None),
                    false => rig.port.read(offset, &mut data),
                }
                rig.port.input(b"in");
            }
        }
    }
}
