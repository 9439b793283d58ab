//! Payload guests: programs of our own, small enough for any KVM, also one that emulates ring 0.
//!
//! There is one piece of machine code, an interpreter (interpreter.S). A test writes a [`Script`] for each vCPU, wraps it
//! as a [`Program`], runs that through the binary ([`Guest`]) or inside this process ([`machine`]) and judges what arrived
//! on the serial port. [`bare`] runs code without the machine around it.
//!
//! ```text
//! Script -> Program -> ELF file -> daxvisor run -> Ended { code, console }
//! ```
//! `DAXVISOR_BIN` names the binary; without it, the one of the same build is taken.

pub mod bare;
mod code;
mod elf;
pub mod machine;
pub mod nvdimm;
mod run;

pub use code::{Code, code};
pub use run::{Ended, Guest, Running, binary};

use vmm::layout::{ABOVE_4G, LAPIC, ports};

/// Where the payload's code is; the other addresses stand in interpreter.S as well.
pub const CODE: u64 = 0x100_0000;
/// Script of the vCPU with APIC id 0; the others follow [`SCRIPT_MAX`] apart.
const SCRIPTS: u64 = 0x110_0000;
const SCRIPT_MAX: u64 = 0x1_0000;
/// Page tables that map every address below [`MAPPED`] to itself.
const TABLES: u64 = 0x130_0000;
/// What the payload reaches after [`Script::tables`], under PVH and on started processors.
pub const MAPPED: u64 = 16 << 30;
/// Memory that is the test's own: 2 MiB and more.
pub const SCRATCH: u64 = 0x140_0000;
/// Where a started processor begins: the page of its start-up vector.
const TRAMPOLINE: u64 = 0x3_0000;

/// What one vCPU does, step by step. "Sends": as bytes over COM1, little-endian.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<[u64; 4]>);

impl Script {
    /// Does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, operation: u64, a: u64, b: u64, c: u64) -> Self {
        self.0.push([operation, a, b, c]);
        self
    }

    /// Ends the run through the test-exit port.
    pub fn exit(self, value: u8) -> Self {
        self.step(0, value.into(), 0, 0)
    }

    /// Reads `size` (1, 2, 4) bytes from a port and sends them.
    pub fn input(self, port: u64, size: u64) -> Self {
        self.step(1, port, size, 0)
    }

    /// Writes `size` bytes to a port.
    pub fn output(self, port: u64, size: u64, value: u32) -> Self {
        self.step(2, port, size, value.into())
    }

    /// Gives the memory device in `slot` back, as `_EJ0` does.
    pub fn eject(self, slot: u32) -> Self {
        let registers = vmm::layout::ports::MEMORY_HOTPLUG;
        self.output(registers, 4, slot).output(registers + 20, 4, 1 << 3)
    }

    /// Loads `size` (1, 2, 4, 8) bytes in one access and sends them.
    pub fn load(self, address: u64, size: u64) -> Self {
        self.step(3, address, size, 0)
    }

    /// Stores `size` bytes in one access.
    pub fn store(self, address: u64, size: u64, value: u64) -> Self {
        self.step(4, address, size, value)
    }

    /// Sends memory.
    pub fn dump(self, address: u64, len: u64) -> Self {
        self.step(5, address, len, 0)
    }

    /// Stores EAX, EBX, ECX and EDX of a CPUID leaf.
    pub fn cpuid(self, leaf: u32, subleaf: u32, to: u64) -> Self {
        self.step(6, leaf.into(), subleaf.into(), to)
    }

    /// Sends the address that the boot protocol handed over, 8 bytes.
    pub fn boot_info(self) -> Self {
        self.step(7, 0, 0, 0)
    }

    /// Copies memory byte by byte.
    pub fn copy(self, to: u64, from: u64, len: u64) -> Self {
        self.step(8, to, from, len)
    }

    /// Says "on" and the first eight bytes of its first NVDIMM, leaves `mark` there, and resets the machine.
    pub fn marks_and_resets(mark: u64) -> Self {
        Self::new()
            .tables()
            .say("on")
            .load(ABOVE_4G.0, 8)
            .store(ABOVE_4G.0, 8, mark)
            .output(ports::ACPI + 6, 1, 1)
            .spin()
    }

    /// Goes round for ever.
    pub fn spin(self) -> Self {
        self.step(9, 0, 0, 0)
    }

    /// An exception with no descriptor table to handle it.
    pub fn fault(self) -> Self {
        self.step(10, 0, 0, 0)
    }

    /// `rep outs` of `count` accesses.
    pub fn output_string(self, port: u64, size: u64, from: u64, count: u64) -> Self {
        self.step(11, port, size, from).step(count, 0, 0, 0)
    }

    /// `rep ins` of `count` accesses.
    pub fn input_string(self, port: u64, size: u64, to: u64, count: u64) -> Self {
        self.step(12, port, size, to).step(count, 0, 0, 0)
    }

    /// Waits until the 32-bit word at `address` is `value`.
    pub fn wait(self, address: u64, value: u32) -> Self {
        self.step(13, address, value.into(), 0)
    }

    /// Random accesses to random ports but those that end the run.
    pub fn fuzz_ports(self, count: u64, seed: u64) -> Self {
        self.step(14, count, seed, 0)
    }

    /// Random accesses to the 2^`bits` bytes from the page at `base`.
    pub fn fuzz_mmio(self, count: u64, seed: u64, base: u64, bits: u64) -> Self {
        self.step(15, count, seed, base | bits)
    }

    /// Stops with interrupts off.
    pub fn halt(self) -> Self {
        self.step(16, 0, 0, 0)
    }

    /// NVDIMM mailbox calls, each the 96 bytes at `template` with one word of noise.
    pub fn storm(self, count: u64, seed: u64, template: u64) -> Self {
        self.step(17, count, seed, template)
    }

    /// Leaves the boot protocol's page tables for those that reach [`MAPPED`].
    pub fn tables(self) -> Self {
        self.step(18, 0, 0, 0)
    }

    /// Stores CR0, CR3, CR4, RFLAGS, CS, DS and SS, 8 bytes each.
    pub fn state(self, to: u64) -> Self {
        self.step(19, to, 0, 0)
    }

    /// Sends a model specific register, 8 bytes.
    pub fn register(self, number: u32) -> Self {
        self.step(20, number.into(), 0, 0)
    }

    /// Sends a literal text.
    pub fn say(self, text: &str) -> Self {
        let send = |script: Self, byte: u8| script.output(ports::COM1, 1, byte.into());
        text.bytes().fold(self, send)
    }

    /// Starts the processor with `apic_id`, which then runs its own script.
    pub fn start_processor(self, apic_id: u64) -> Self {
        /// Interrupt command register, high and low half; INIT asserted, and start-up (Intel SDM 3A 11.6.1).
        const ICR: [u64; 2] = [LAPIC.0 + 0x310, LAPIC.0 + 0x300];
        const INIT: u64 = 0x4500;
        const STARTUP: u64 = 0x4600 | TRAMPOLINE >> 12;
        let code = code();
        let len = u64::from(code.trampoline.end - code.trampoline.start);
        self.copy(TRAMPOLINE, CODE + u64::from(code.trampoline.start), len)
            .store(ICR[0], 4, apic_id << 24)
            .store(ICR[1], 4, INIT)
            .store(ICR[0], 4, apic_id << 24)
            .store(ICR[1], 4, STARTUP)
    }

    /// Does all of `next` behind this.
    pub fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.0.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
        assert!(
            bytes.len() as u64 <= SCRIPT_MAX,
            "a script of {} steps is too long",
            self.0.len()
        );
        bytes
    }
}

/// Scripts and data, ready to be booted.
#[derive(Debug, Clone)]
pub struct Program {
    scripts: Vec<(u64, Script)>,
    data: Vec<(u64, Vec<u8>)>,
}

impl Program {
    /// `script` is what the boot processor does.
    pub fn new(script: Script) -> Self {
        Self {
            scripts: vec![(0, script)],
            data: vec![],
        }
    }

    /// What the processor with `apic_id` does once started.
    pub fn processor(mut self, apic_id: u64, script: Script) -> Self {
        self.scripts.push((apic_id, script));
        self
    }

    /// `bytes` in guest memory at `address`, [`SCRATCH`] or above.
    pub fn data(mut self, address: u64, bytes: impl Into<Vec<u8>>) -> Self {
        assert!(address >= SCRATCH, "{address:#x} is the payload's own");
        self.data.push((address, bytes.into()));
        self
    }

    /// The ELF file, with both entries.
    pub fn elf(&self) -> Vec<u8> {
        let code = code();
        let at = |offset: u32| CODE + u64::from(offset);
        let mut segments = vec![(CODE, code.bytes.to_vec()), (TABLES, identity_map())];
        let script = |(apic_id, script): &(u64, Script)| (SCRIPTS + SCRIPT_MAX * apic_id, script.bytes());
        segments.extend(self.scripts.iter().map(script));
        segments.extend(self.data.iter().cloned());
        let pvh = u32::try_from(at(code.entry_pvh)).expect("an entry below 4 GiB");
        elf::elf(at(code.entry64), Some(pvh), &segments)
    }
}

/// PML4, PDPT and a directory of 2 MiB pages for each GiB (Intel SDM 3A 4.5).
fn identity_map() -> Vec<u8> {
    const TABLE: u64 = 0b11;
    const LARGE: u64 = 0b1000_0011;
    let directories = MAPPED >> 30;
    let entries = |list: Vec<u64>| {
        list.into_iter()
            .chain(std::iter::repeat(0))
            .take(512)
            .collect::<Vec<_>>()
    };
    let page = |n: u64| TABLES + 0x1000 * n;
    let top = entries(vec![page(1) | TABLE]);
    let second = entries((0..directories).map(|n| page(2 + n) | TABLE).collect());
    let pages = (0..directories * 512).map(|n| n << 21 | LARGE);
    top.into_iter()
        .chain(second)
        .chain(pages)
        .flat_map(u64::to_le_bytes)
        .collect()
}
