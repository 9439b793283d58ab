//! Which memory an instruction uses that KVM cannot carry out itself.
//!
//! KVM's emulator knows what kernels do to devices. What it does not know of memory in a hole are vector instructions, cache
//! line write-back and the like: those are taken apart here.

use crate::hv::Operands;
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess, Register};

/// Bytes of the longest instruction.
pub const MAX_LEN: usize = 15;

/// An instruction that was taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes.
    pub len: u64,
    /// It moves cache lines about and changes nothing that can be seen.
    pub hint: bool,
    /// Address in the guest's own terms, and bytes, of each piece of memory that it loads or stores.
    pub uses: Vec<(u64, u64)>,
}

/// Takes apart the instruction in `bytes`; none: it is none.
pub fn decode(bytes: &[u8], operands: &Operands) -> Option<Decoded> {
    let mut decoder = Decoder::with_ip(operands.bits, bytes, operands.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return None;
    }
    let hint = matches!(
        instruction.mnemonic(),
        Mnemonic::Clwb
            | Mnemonic::Clflush
            | Mnemonic::Clflushopt
            | Mnemonic::Cldemote
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Prefetchw
    );
    let mut factory = InstructionInfoFactory::new();
    let uses = factory.info(&instruction).used_memory().iter();
    let uses = uses
        .filter(|memory| !matches!(memory.access(), OpAccess::None | OpAccess::NoMemAccess))
        .filter_map(|memory| {
            let value = |register, _, _| value(operands, register);
            let size = memory.memory_size().size().max(1) as u64;
            Some((memory.virtual_address(0, value)?, size))
        });
    Some(Decoded {
        len: instruction.len() as u64,
        hint,
        uses: uses.collect(),
    })
}

/// What a register of an address holds. None for the indices of gathers, which are not known here.
fn value(operands: &Operands, register: Register) -> Option<u64> {
    let segments = [
        Register::ES,
        Register::CS,
        Register::SS,
        Register::DS,
        Register::FS,
        Register::GS,
    ];
    if let Some(at) = segments.iter().position(|segment| *segment == register) {
        // In 64-bit mode only the last two have bases.
        return operands
            .segments
            .get(at)
            .copied()
            .filter(|_| operands.bits != 64 || at >= 4)
            .or(Some(0));
    }
    let full = register.full_register();
    let word = operands
        .general
        .get(full.number())
        .copied()
        .filter(|_| full.is_gpr64())?;
    Some(match register.size() {
        8 => word,
        4 => word & 0xffff_ffff,
        _ => word & 0xffff,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Operands = Operands {
        rip: 0x40_0000,
        bits: 64,
        general: [
            0x1000, 2, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x8000, 0x9000, 10, 11, 12, 13, 14, 15, 16,
        ],
        segments: [0, 0, 0, 0, 0x7_0000, 0x9_0000],
    };

    #[test]
    fn vector_loads_and_stores_name_their_memory() {
        // vmovdqu ymm0, [rdi+0x20]
        let decoded = decode(&[0xc5, 0xfe, 0x6f, 0x47, 0x20], &AT).unwrap();
        assert_eq!(
            (decoded.len, decoded.hint, &decoded.uses[..]),
            (5, false, &[(0x8020, 32)][..])
        );
        // vmovdqu [rax+rcx*8], ymm0
        let decoded = decode(&[0xc5, 0xfe, 0x7f, 0x04, 0xc8], &AT).unwrap();
        assert_eq!(decoded.uses, [(0x1010, 32)]);
        // movups xmm0, fs:[0x10]
        let decoded = decode(&[0x64, 0x0f, 0x10, 0x04, 0x25, 0x10, 0, 0, 0], &AT).unwrap();
        assert_eq!(decoded.uses, [(0x7_0010, 16)]);
        // movups xmm0, [rip+0x100]
        let decoded = decode(&[0x0f, 0x10, 0x05, 0, 1, 0, 0], &AT).unwrap();
        assert_eq!(decoded.uses, [(0x40_0107, 16)]);
    }

    #[test]
    fn cache_line_moves_are_hints() {
        // clwb [rsi], clflushopt [rax]
        for bytes in [&[0x66, 0x0f, 0xae, 0x36][..], &[0x66, 0x0f, 0xae, 0x38]] {
            let decoded = decode(bytes, &AT).unwrap();
            assert!(decoded.hint && decoded.len == 4, "{decoded:?}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_none() {
        assert_eq!(decode(&[], &AT), None);
        assert_eq!(decode(&[0x0f, 0xff], &AT), None);
        // Gathers have addresses that only vector registers know.
        // vpgatherdd ymm0, [rax+ymm1*4], ymm2
        let decoded = decode(&[0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x88], &AT).unwrap();
        assert_eq!(decoded.uses, []);
    }
}
