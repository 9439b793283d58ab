//! SMBIOS 3.7 (DMTF DSP0134): what the machine is made of, as far as errors and administrators name it.
//!
//! Memory modules have the handles that the NFIT and error records name: a module for the boot RAM of each node, one for each slot
//! of memory devices, one for each NVDIMM. The tables are of the machine's start: a slot that is empty then says so.

#[cfg(test)]
mod tests;

use crate::units::{Gpa, GpaRange};

/// Bytes of the entry point.
pub const ENTRY_LEN: usize = 24;
/// A field of a handle that there is none for.
const NO_HANDLE: u16 = 0xffff;
/// Errors are told by other means.
const NO_ERROR_INFORMATION: u16 = 0xfffe;

/// Handles of the first structure of each kind.
mod handle {
    pub const FIRMWARE: u16 = 0;
    pub const SYSTEM: u16 = 1;
    pub const CHASSIS: u16 = 3;
    pub const BOOT: u16 = 0x20;
    pub const END: u16 = 0x7f;
    pub const SOCKETS: u16 = 0x400;
    pub const ARRAY: u16 = 0x1000;
    pub const MAPPED: u16 = 0x1300;
    pub const RAM: u16 = 0x1100;
    pub const SLOTS: u16 = 0x1200;
    pub const NVDIMMS: u16 = 0x1400;
}

/// What a module is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// Boot RAM of a node.
    Ram(u8),
    /// A slot of memory devices.
    Slot(u8),
    /// An NVDIMM.
    Nvdimm(u8),
}

impl Module {
    /// Handle of its structure.
    pub const fn handle(self) -> u16 {
        match self {
            Self::Ram(n) => handle::RAM + n as u16,
            Self::Slot(n) => handle::SLOTS + n as u16,
            Self::Nvdimm(n) => handle::NVDIMMS + n as u16,
        }
    }

    fn is_persistent(self) -> bool {
        matches!(self, Self::Nvdimm(_))
    }
}

/// A memory module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePlan {
    /// What it is for.
    pub module: Module,
    /// Handle to use instead of [`Module::handle`].
    pub handle: Option<u16>,
    /// Name, as on the board.
    pub locator: String,
    /// Proximity domain, where it has one.
    pub node: Option<u32>,
    /// Bytes; 0: nothing is in there.
    pub size: u64,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmbiosPlan {
    /// Version of the firmware, which is the monitor's.
    pub version: String,
    /// Processor sockets.
    pub sockets: u16,
    /// Cores of each.
    pub cores: u16,
    /// Threads of each socket.
    pub threads: u16,
    /// Modules, in order.
    pub modules: Vec<ModulePlan>,
    /// Where boot RAM is.
    pub ram: Vec<GpaRange>,
}

/// Structures in the making.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
}

/// One structure: its formatted area, then its strings.
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self {
            formatted: vec![kind, 0, low, high],
            strings: vec![],
            count: 0,
        }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.formatted.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.bytes(&[byte])
    }

    fn word(self, word: u16) -> Self {
        self.bytes(&word.to_le_bytes())
    }

    fn long(self, long: u32) -> Self {
        self.bytes(&long.to_le_bytes())
    }

    fn quad(self, quad: u64) -> Self {
        self.bytes(&quad.to_le_bytes())
    }

    /// A string's number; an empty one is number 0, which is none.
    fn text(mut self, text: &str) -> Self {
        let clean: Vec<u8> = text
            .bytes()
            .filter(|byte| (b' '..0x7f).contains(byte))
            .take(64)
            .collect();
        if clean.is_empty() || self.count == u8::MAX {
            return self.byte(0);
        }
        self.count += 1;
        self.strings.extend(clean);
        self.strings.push(0);
        let number = self.count;
        self.byte(number)
    }
}

impl Table {
    fn put(&mut self, structure: Structure) {
        let Structure {
            mut formatted, strings, ..
        } = structure;
        let len = u8::try_from(formatted.len()).unwrap_or(u8::MAX);
        if let Some(byte) = formatted.get_mut(1) {
            *byte = len;
        }
        self.bytes.extend(formatted);
        self.bytes.extend_from_slice(&strings);
        // A set of strings ends with one more zero, an empty one with two.
        let ends: &[u8] = if strings.is_empty() { &[0, 0] } else { &[0] };
        self.bytes.extend_from_slice(ends);
    }
}

/// A number of one byte that says in another place that it does not fit.
fn small(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The structures.
pub fn table(plan: &SmbiosPlan) -> Vec<u8> {
    let mut table = Table::default();
    table.put(firmware(plan));
    table.put(system(plan));
    table.put(chassis());
    for socket in 0..plan.sockets {
        table.put(processor(plan, socket));
    }
    table.put(array(plan));
    for module in &plan.modules {
        table.put(memory_module(module));
    }
    for (n, range) in (0..).zip(&plan.ram) {
        table.put(mapped(handle::MAPPED + n, *range));
    }
    // Section 7.33: there was no error at boot.
    table.put(Structure::new(32, handle::BOOT).bytes(&[0; 7]));
    table.put(Structure::new(127, handle::END));
    table.bytes
}

/// The 64-bit entry point to a table of `len` bytes at `at`. Section 5.2.2.
pub fn entry(at: Gpa, len: usize) -> [u8; ENTRY_LEN] {
    let mut entry = [0; ENTRY_LEN];
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    // Length; version 3.7, revision 0; revision 1 of the entry point, reserved.
    let parts: [&[u8]; 4] = [b"_SM3_\0", &[24, 3, 7, 0, 1, 0], &len, &at.0.to_le_bytes()];
    for (to, from) in entry.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    let sum = entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    entry[5] = sum.wrapping_neg();
    entry
}

/// Section 7.1.
fn firmware(plan: &SmbiosPlan) -> Structure {
    /// The other characteristics are not supported.
    const NO_CHARACTERISTICS: u64 = 1 << 3;
    const VIRTUAL_MACHINE: u8 = 1 << 4;
    Structure::new(0, handle::FIRMWARE)
        .text("daxvisor")
        .text(&plan.version)
        .word(0xf000)
        // Linux takes the year for that of the machine, and works around the faults of old ones.
        .text("01/01/2026")
        .byte(0)
        .quad(NO_CHARACTERISTICS)
        .bytes(&[0, VIRTUAL_MACHINE])
        .bytes(&[0xff; 4])
        .word(0)
}

/// Section 7.2.
fn system(plan: &SmbiosPlan) -> Structure {
    const POWER_SWITCH: u8 = 6;
    Structure::new(1, handle::SYSTEM)
        .text("daxvisor")
        .text("virtual machine")
        .text(&plan.version)
        .text("")
        // No identity.
        .bytes(&[0; 16])
        .byte(POWER_SWITCH)
        .text("")
        .text("")
}

/// Section 7.4.
fn chassis() -> Structure {
    const OTHER: u8 = 1;
    const UNKNOWN: u8 = 2;
    const SAFE: u8 = 3;
    Structure::new(3, handle::CHASSIS)
        .text("daxvisor")
        .byte(OTHER)
        .text("")
        .text("")
        .text("")
        .bytes(&[SAFE, SAFE, SAFE, UNKNOWN])
        .long(0)
        // Height, cords, elements and their length.
        .bytes(&[0; 4])
        .text("")
}

/// Section 7.5.
fn processor(plan: &SmbiosPlan, socket: u16) -> Structure {
    const CENTRAL: u8 = 3;
    const OTHER: u8 = 1;
    const POPULATED_AND_ENABLED: u8 = 0x41;
    const IS_64_BIT: u16 = 1 << 2;
    let SmbiosPlan { cores, threads, .. } = *plan;
    Structure::new(4, handle::SOCKETS + socket)
        .text(&format!("Socket {socket}"))
        .bytes(&[CENTRAL, OTHER])
        .text("")
        .quad(0)
        .text("")
        // Voltage, clock, speeds: not known.
        .bytes(&[0; 7])
        .bytes(&[POPULATED_AND_ENABLED, OTHER])
        .word(NO_HANDLE)
        .word(NO_HANDLE)
        .word(NO_HANDLE)
        .text("")
        .text("")
        .text("")
        .bytes(&[small(cores), small(cores), small(threads)])
        .word(IS_64_BIT)
        .word(OTHER.into())
        .word(cores)
        .word(cores)
        .word(threads)
}

/// All modules are of one array. Section 7.17.
fn array(plan: &SmbiosPlan) -> Structure {
    const SYSTEM_BOARD: u8 = 3;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    const EXTENDED: u32 = 0x8000_0000;
    /// 64 TiB: what the largest machine can have.
    const MOST: u64 = 64 << 40;
    Structure::new(16, handle::ARRAY)
        .bytes(&[SYSTEM_BOARD, SYSTEM_MEMORY, MULTI_BIT_ECC])
        .long(EXTENDED)
        .word(NO_ERROR_INFORMATION)
        .word(u16::try_from(plan.modules.len()).unwrap_or(u16::MAX))
        .quad(MOST)
}

/// Section 7.18.
fn memory_module(plan: &ModulePlan) -> Structure {
    const DIMM: u8 = 9;
    const DDR5: u8 = 0x22;
    const NON_VOLATILE: u8 = 0x1f;
    const SYNCHRONOUS: u16 = 1 << 7;
    const NON_VOLATILE_DETAIL: u16 = 1 << 12;
    const EXTENDED: u16 = 0x7fff;
    const DRAM: u8 = 3;
    const NVDIMM_N: u8 = 4;
    const VOLATILE: u16 = 1 << 3;
    const BYTE_PERSISTENT: u16 = 1 << 4;
    let persistent = plan.module.is_persistent();
    let there = plan.size != 0;
    let width = if there { (72, 64) } else { (0, 0) };
    let mib = plan.size.div_ceil(1 << 20);
    let size = u16::try_from(mib)
        .ok()
        .filter(|mib| *mib < EXTENDED)
        .unwrap_or(EXTENDED);
    let extended = if size == EXTENDED {
        u32::try_from(mib).unwrap_or(0x7fff_ffff)
    } else {
        0
    };
    let (kind, detail, technology, mode) = match persistent {
        true => (NON_VOLATILE, NON_VOLATILE_DETAIL, NVDIMM_N, BYTE_PERSISTENT),
        false => (DDR5, SYNCHRONOUS, DRAM, VOLATILE),
    };
    let node = plan.node.map_or_else(String::new, |node| format!("Node {node}"));
    let (non_volatile, volatile) = if persistent { (plan.size, 0) } else { (0, plan.size) };
    Structure::new(17, plan.handle.unwrap_or(plan.module.handle()))
        .word(handle::ARRAY)
        .word(NO_ERROR_INFORMATION)
        .word(width.0)
        .word(width.1)
        .word(size)
        .bytes(&[DIMM, 0])
        .text(&plan.locator)
        .text(&node)
        .byte(kind)
        .word(detail)
        .word(0)
        .text(if there { "daxvisor" } else { "" })
        .text("")
        .text("")
        .text("")
        .byte(0)
        .long(extended)
        // Speed and voltages.
        .bytes(&[0; 8])
        .byte(technology)
        .word(mode)
        .text("")
        // Manufacturers and products.
        .bytes(&[0; 8])
        .quad(non_volatile)
        .quad(volatile)
        // Cache and logical sizes, extended speeds.
        .quad(0)
        .quad(0)
        .quad(0)
}

/// Where memory of the array is. Section 7.20.
fn mapped(handle: u16, range: GpaRange) -> Structure {
    const EXTENDED: u32 = u32::MAX;
    Structure::new(19, handle)
        .long(EXTENDED)
        .long(EXTENDED)
        .word(handle::ARRAY)
        .byte(1)
        .quad(range.start.0)
        .quad(range.end().0.saturating_sub(1))
}
