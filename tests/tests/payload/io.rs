//! Ports, MMIO and the serial port as a payload sees them, and accesses that no guest should make.

use devices::{
    Bus, Effect,
    acpi::{AcpiDevice, AcpiEvent},
    test_exit::TestExit,
    units::{Gpa, GpaRange},
};
use guest_tests::payload::{Guest, Program, SCRATCH, Script, bare, code, machine};
use std::{io, sync::Arc, sync::Mutex};
use vmm::{
    config::VmConfig,
    layout::{self, ports},
    machine::Outcome,
    vcpu::Report,
};

const THR: u64 = ports::COM1;
const LCR: u64 = ports::COM1 + 3;
const LSR: u64 = ports::COM1 + 5;
pub(super) const SCRATCH_REGISTER: u64 = ports::COM1 + 7;
/// Nothing decodes it.
const NO_PORT: u64 = 0x2e8;

#[track_caller]
fn sends(script: Script, expected: &[u8]) {
    let sent = Guest::new(&Program::new(script.exit(0))).run().expect(64);
    assert_eq!(sent, expected, "sent {sent:02x?}");
}

#[test]
fn test_exit_value_is_the_exit_code_plus_64() {
    for (value, code) in [(0, 64), (1, 65), (30, 94), (31, 95), (255, 95)] {
        Guest::new(&Program::new(Script::new().exit(value))).run().expect(code);
    }
    // The low byte of a wider access.
    let wide = Script::new().output(ports::TEST_EXIT, 4, 0xffff_ff03).spin();
    Guest::new(&Program::new(wide)).run().expect(67);
}

#[test]
fn port_accesses_of_every_width_reach_their_device() {
    let script = Script::new()
        .input(ports::PVPANIC, 1)
        .input(ports::ACPI, 4)
        .output(SCRATCH_REGISTER, 1, 0xa5)
        .input(SCRATCH_REGISTER, 1)
        // Two 8-bit registers in one access: modem status keeps its value, scratch takes the high byte.
        .output(SCRATCH_REGISTER - 1, 2, 0x3c00)
        .input(SCRATCH_REGISTER, 1)
        .input(ports::COM1 + 4, 4)
        .input(ports::DSM_DOORBELL, 4);
    let sent = Guest::new(&Program::new(script.exit(0)).clone()).run().expect(64);
    assert_eq!(sent[..7], [3, 0, 0, 0, 0, 0xa5, 0x3c]);
    assert_eq!(sent[8] & 0x60, 0x60, "line status: the transmitter is empty");
    assert_eq!(sent[10], 0x3c, "scratch is the fourth register from modem control");
    assert_eq!(sent[11..], [0xff; 4], "no mailbox without an NVDIMM");
}

#[test]
fn ports_without_a_device_read_as_ones_and_ignore_writes() {
    let script = Script::new()
        .output(NO_PORT, 1, 0)
        .output(NO_PORT, 2, 0)
        .output(NO_PORT, 4, 0)
        .input(NO_PORT, 1)
        .input(NO_PORT, 2)
        .input(NO_PORT, 4)
        .input(0xffff, 1)
        // One byte of the access would be pvpanic's, which has one port only.
        .input(ports::PVPANIC, 2);
    sends(script, &[0xff; 10]);
}

#[test]
fn string_instructions_move_every_element_in_order() {
    // More than KVM's buffer of one page, which it hands over in pieces.
    let text: Vec<u8> = (0..6000u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let script = Script::new().output_string(THR, 1, SCRATCH, text.len() as u64).exit(0);
    let sent = Guest::new(&Program::new(script).data(SCRATCH, text.clone()))
        .run()
        .expect(64);
    assert_eq!(sent, text);

    let script = Script::new()
        .output(SCRATCH_REGISTER, 1, 0x77)
        .input_string(SCRATCH_REGISTER, 1, SCRATCH, 5)
        .input_string(NO_PORT, 2, SCRATCH + 5, 2)
        .input_string(ports::ACPI, 4, SCRATCH + 9, 2)
        .dump(SCRATCH, 18);
    let script = script.exit(0);
    let program = Program::new(script).data(SCRATCH, vec![0x11; 32]);
    let sent = Guest::new(&program).run().expect(64);
    assert_eq!(sent, [[0x77; 5].as_slice(), &[0xff; 4], &[0; 8], &[0x11]].concat());
}

#[test]
fn wide_string_output_is_split_into_its_accesses() {
    // Each 16-bit access is a byte to scratch (its second register), after modem status that takes none.
    let script = Script::new()
        .output_string(SCRATCH_REGISTER - 1, 2, SCRATCH, 3)
        .input(SCRATCH_REGISTER, 1)
        .exit(0);
    let program = Program::new(script).data(SCRATCH, [0, 1, 0, 2, 0, 0x42]);
    assert_eq!(Guest::new(&program).run().expect(64), [0x42]);
}

#[test]
fn collected_output_keeps_its_order_among_other_accesses() {
    // With the divisor latch open the first register is no transmitter: those bytes must not come out.
    let mut script = Script::new();
    let mut expected = vec![];
    for n in 0..100u32 {
        let byte = b'A' + u8::try_from(n % 26).unwrap();
        script = script
            .output(THR, 1, byte.into())
            .output(LCR, 1, 0x83)
            .output(THR, 1, 0x21 + n)
            .input_string(THR, 1, SCRATCH, 1)
            .output(LCR, 1, 0x03)
            .dump(SCRATCH, 1)
            .input(LSR, 1);
        expected.extend([byte, u8::try_from(0x21 + n).unwrap(), 0x60]);
    }
    let run = machine::run(&Program::new(script.exit(0)), VmConfig::default());
    assert_eq!(run.outcome, Outcome::TestExit(0));
    assert_eq!(run.console, expected);
}

#[test]
fn output_costs_no_exit_for_each_byte() {
    let script = Script::new().dump(SCRATCH, 4000).exit(0);
    let run = machine::run(
        &Program::new(script).data(SCRATCH, vec![b'x'; 4000]),
        VmConfig::default(),
    );
    assert_eq!(run.console, vec![b'x'; 4000]);
    // A ring of one page holds 169 writes; then one exit drains it.
    assert!(run.exits.0 < 100, "{} exits for 4000 bytes", run.exits.0);
}

#[test]
fn output_of_a_guest_that_goes_quiet_arrives() {
    let guest = Guest::new(&Program::new(Script::new().say("no newline, no exit").spin()));
    guest.start().wait_for("no newline, no exit");
}

#[test]
fn virtio_registers_say_what_is_there() {
    let base = layout::VIRTIO_MMIO.start.0;
    let script = Script::new().load(base, 4).load(base + 4, 4).load(base + 8, 4);
    // Device 4 is the entropy source.
    sends(script, &[b"virt".as_slice(), &[2, 0, 0, 0], &[4, 0, 0, 0]].concat());
    let script = Script::new().load(base + 0x1008, 4).exit(0);
    let guest = Guest::new(&Program::new(script)).flag("agent-socket", "%/agent");
    assert_eq!(guest.run().expect(64), [3, 0, 0, 0], "device 3 is a console");
}

#[test]
fn addresses_without_a_device_read_as_ones_and_ignore_writes() {
    let nowhere = [
        layout::MMIO_HOLE.start.0,
        layout::VIRTIO_MMIO.start.0 + 0x1000,
        layout::VIRTIO_MMIO.end().0 - 8,
        0xf000_0000,
    ];
    let script = nowhere.iter().fold(Script::new(), |script, at| {
        let script = [1, 2, 4, 8].into_iter().fold(script, |s, size| s.store(*at, size, 0));
        [1, 2, 4, 8].into_iter().fold(script, |s, size| s.load(*at, size))
    });
    sends(script, &[0xff; 15 * 4]);
}

#[test]
fn event_selector_is_cleared_by_the_guests_read() {
    // No host action raises events in a machine that just runs: the device stands alone here, pending before the start.
    let mut machine = bare::Bare::new();
    let device = AcpiDevice::new(machine.vm.irq_line(layout::gsi::GED).unwrap());
    device.raise(AcpiEvent::PowerButton);
    device.raise(AcpiEvent::Memory);
    let mut ports = Bus::default();
    let at = |port, len| GpaRange::new(Gpa(port), len);
    ports
        .insert(at(ports::ACPI, AcpiDevice::PORTS), Arc::new(device))
        .unwrap();
    ports
        .insert(at(ports::TEST_EXIT, TestExit::PORTS), Arc::new(TestExit))
        .unwrap();
    // mov $0x600, %dx; inl; mov %eax, %ebx; inl; mov %ebx, 0x100; mov %eax, 0x104; mov $1, %al; out %al, $0xf4
    machine.write(
        0x1000,
        &[
            0xba, 0x00, 0x06, 0x66, 0xed, 0x66, 0x89, 0xc3, 0x66, 0xed, 0x66, 0x89, 0x1e, 0x00, 0x01, 0x66, 0xa3, 0x04,
            0x01, 0xb0, 0x01, 0xe6, 0xf4, 0xeb, 0xfe,
        ],
    );
    machine.write(0x100, &[0xee; 8]);
    let report = machine.run(&bare::real_mode(0x100), ports);
    assert_eq!(report, Report::Effect(Effect::TestExit(1)));
    assert_eq!(
        machine.read(0x100, 8),
        [3, 0, 0, 0, 0, 0, 0, 0],
        "both events, then none"
    );
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);
impl io::Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn real_mode_code_runs_from_its_segment() {
    let mut machine = bare::Bare::new();
    let code = code();
    machine.write(0x1_0000, code.part(&code.real));
    let numbers: [u16; 5] = [1, 20, 300, 4000, 0];
    machine.write(0x2_0000, &numbers.map(u16::to_le_bytes).concat());
    let sink = Sink::default();
    let line = Arc::new(machine.vm.irq_line(layout::gsi::COM1).unwrap());
    let serial = devices::serial::SerialPort::new(line, Box::new(sink.clone()), Box::new(|| ()));
    let mut ports = Bus::default();
    let at = |port, len| GpaRange::new(Gpa(port), len);
    ports.insert(at(ports::COM1, 8), Arc::new(serial)).unwrap();
    ports
        .insert(at(ports::TEST_EXIT, TestExit::PORTS), Arc::new(TestExit))
        .unwrap();
    let report = machine.run(&bare::real_mode(0x1000), ports);
    assert_eq!(report, Report::Effect(Effect::TestExit(7)));
    assert_eq!(*sink.0.lock().unwrap(), b"real mode\n");
    assert_eq!(machine.read(0x2_0100, 2), 4321u16.to_le_bytes());
    assert_eq!(
        machine.read(0x2_0110, 4),
        [0x5a; 4],
        "string input from the scratch register"
    );
}

/// Puts the serial port right after whatever was written to it, and says that all is well.
fn alive(script: Script) -> Script {
    let set = |register, value| (ports::COM1 + register, value);
    // Line control, modem control without loopback, no interrupts.
    let registers = [set(3, 3), set(4, 0), set(1, 0)];
    let script = registers
        .iter()
        .fold(script, |s, (port, value)| s.output(*port, 1, *value));
    script.say("still alive").exit(11)
}

#[test]
fn random_port_accesses_end_nothing() {
    for seed in [0x9e37_79b9_7f4a_7c15, 0xdead_beef_cafe_f00d] {
        let script = alive(Script::new().fuzz_ports(10_000, seed));
        let guest = Guest::new(&Program::new(script))
            .flag("nvdimm", "size=16M")
            .flag("agent-socket", "%/agent");
        assert!(guest.run().expect(75).ends_with(b"still alive"));
    }
}

#[test]
fn random_mmio_accesses_end_nothing() {
    // Registers of both transports, then the whole hole up to the interrupt controllers' last 32 MiB.
    let script = Script::new()
        .fuzz_mmio(8000, 0x9e37_79b9_7f4a_7c15, layout::VIRTIO_MMIO.start.0, 13)
        .fuzz_mmio(2000, 0xdead_beef_cafe_f00d, layout::VIRTIO_MMIO.start.0, 20)
        .fuzz_mmio(2000, 0x0123_4567_89ab_cdef, layout::MMIO_HOLE.start.0, 29);
    let guest = Guest::new(&Program::new(alive(script))).flag("agent-socket", "%/agent");
    assert!(guest.run().expect(75).ends_with(b"still alive"));
}

/// Registers of the first transport (virtio 1.2 4.2.2).
pub(super) mod register {
    use vmm::layout::VIRTIO_MMIO;
    pub const DRIVER_FEATURES: u64 = VIRTIO_MMIO.start.0 + 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = VIRTIO_MMIO.start.0 + 0x24;
    pub const QUEUE_NUM: u64 = VIRTIO_MMIO.start.0 + 0x38;
    pub const QUEUE_READY: u64 = VIRTIO_MMIO.start.0 + 0x44;
    pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO.start.0 + 0x50;
    pub const INTERRUPT_STATUS: u64 = VIRTIO_MMIO.start.0 + 0x60;
    pub const STATUS: u64 = VIRTIO_MMIO.start.0 + 0x70;
    pub const QUEUE_DESC: u64 = VIRTIO_MMIO.start.0 + 0x80;
    pub const QUEUE_DRIVER: u64 = VIRTIO_MMIO.start.0 + 0x90;
    pub const QUEUE_DEVICE: u64 = VIRTIO_MMIO.start.0 + 0xa0;
}

const DESCRIPTORS: u64 = SCRATCH;
const AVAILABLE: u64 = SCRATCH + 0x1000;
const USED: u64 = SCRATCH + 0x2000;
const BUFFER: u64 = SCRATCH + 0x3000;

/// From reset to one buffer of 64 bytes at `buffer` offered to the entropy source.
pub(super) fn ask_for_entropy(script: Script, buffer: u64) -> Script {
    const DEVICE_WRITES: u64 = 2 << 32;
    let steps = [
        (register::STATUS, 0),
        (register::STATUS, 1),
        (register::STATUS, 3),
        (register::DRIVER_FEATURES_SEL, 1),
        (register::DRIVER_FEATURES, 1),
        (register::STATUS, 11),
        (register::QUEUE_NUM, 4),
        (register::QUEUE_DESC, DESCRIPTORS),
        (register::QUEUE_DRIVER, AVAILABLE),
        (register::QUEUE_DEVICE, USED),
        (register::QUEUE_READY, 1),
        (register::STATUS, 15),
    ];
    let script = script
        .store(DESCRIPTORS, 8, buffer)
        .store(DESCRIPTORS + 8, 8, 64 | DEVICE_WRITES)
        .store(AVAILABLE, 8, 1 << 16)
        .store(USED, 8, 0);
    let script = steps.iter().fold(script, |s, (at, value)| s.store(*at, 4, *value));
    script.store(register::QUEUE_NOTIFY, 4, 0)
}

#[test]
fn entropy_source_fills_a_payloads_buffer() {
    let script = ask_for_entropy(Script::new(), BUFFER)
        .wait(register::INTERRUPT_STATUS, 1)
        .dump(USED, 12)
        .dump(BUFFER, 64)
        .exit(0);
    let sent = Guest::new(&Program::new(script).data(SCRATCH, vec![0; 0x4000]))
        .run()
        .expect(64);
    // One used element: descriptor 0, 64 bytes.
    assert_eq!(sent[..12], [0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0]);
    assert!(sent[12..].iter().any(|b| *b != 0));
}

#[test]
fn device_does_not_write_where_the_guest_has_no_memory_nor_into_a_read_only_file() {
    // An MMIO register, an address that is nobody's, the end of the address space, a read-only NVDIMM.
    for buffer in [
        layout::VIRTIO_MMIO.start.0,
        0x8000_0000,
        u64::MAX - 31,
        layout::ABOVE_4G.0,
    ] {
        let script = ask_for_entropy(Script::new(), buffer).copy(SCRATCH + 0x4000, SCRATCH, 0x4000);
        let script = ask_for_entropy(script, BUFFER)
            .wait(register::INTERRUPT_STATUS, 1)
            .dump(USED + 8, 4)
            .exit(0);
        let program = Program::new(script).data(SCRATCH, vec![0; 0x8000]);
        let guest = Guest::new(&program).flag("nvdimm", "file=%/dimm,size=16M,readonly=on");
        std::fs::write(guest.file("dimm"), vec![0; 16 << 20]).unwrap();
        assert_eq!(guest.run().expect(64), [64, 0, 0, 0], "buffer at {buffer:#x}");
        assert!(std::fs::read(guest.file("dimm")).unwrap().iter().all(|b| *b == 0));
    }
}
