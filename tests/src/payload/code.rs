//! The bytes of the payload, as the assembler left them in this program's read-only data.

use std::ops::Range;

core::arch::global_asm!(
    ".pushsection .rodata.daxvisor_payload, \"a\", @progbits",
    include_str!("interpreter.S"),
    ".popsection",
    options(att_syntax, raw)
);

/// What interpreter.S starts with: offsets of its parts, six 32-bit words.
const PARTS: usize = 6;

/// The payload with its ways in.
#[derive(Debug, Clone)]
pub struct Code {
    /// All of it; position independent but for its own address in guest memory.
    pub bytes: &'static [u8],
    /// 64-bit boot protocol.
    pub entry64: u32,
    /// PVH.
    pub entry_pvh: u32,
    /// Where a started processor begins, in real mode.
    pub trampoline: Range<u32>,
    /// A real-mode program of its own.
    pub real: Range<u32>,
}

/// The payload.
pub fn code() -> Code {
    let bytes = bytes();
    let (words, _) = bytes.as_chunks::<4>();
    let parts: Vec<u32> = words.iter().take(PARTS).map(|w| u32::from_le_bytes(*w)).collect();
    let [entry64, entry_pvh, trampoline, trampoline_end, real, real_end] = parts[..] else {
        panic!("the payload must start with {PARTS} offsets");
    };
    Code {
        bytes,
        entry64,
        entry_pvh,
        trampoline: trampoline..trampoline_end,
        real: real..real_end,
    }
}

/// Part of the payload.
impl Code {
    /// The bytes of one part.
    pub fn part(&self, part: &Range<u32>) -> &'static [u8] {
        &self.bytes[part.start as usize..part.end as usize]
    }
}

fn bytes() -> &'static [u8] {
    // SAFETY: the names and types are those of interpreter.S; nothing else defines them.
    unsafe extern "C" {
        safe static daxvisor_payload_start: u8;
        safe static daxvisor_payload_end: u8;
    }
    let (start, end) = (&raw const daxvisor_payload_start, &raw const daxvisor_payload_end);
    // SAFETY: both symbols lie in one piece of read-only data made by the one `global_asm!` above, the end after the start;
    // it is initialised by the loader and never written.
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}
