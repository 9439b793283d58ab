//! Small images for the tests of this module.

use super::bzimage::offset;

/// A bzImage (protocol 2.15) of two setup sectors around `payload`.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP: usize = 2 * 512;
    // The 64-bit entry is at 0x200 of the protected-mode part; the payload follows it.
    const PAYLOAD: usize = 0x400;
    let mut file = vec![0; SETUP + PAYLOAD];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset::SETUP_SECTS, &[1]);
    put(offset::BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(offset::MAGIC, b"HdrS");
    put(offset::VERSION, &[0x0f, 0x02]);
    put(offset::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
    put(offset::KERNEL_ALIGNMENT, &0x20_0000u32.to_le_bytes());
    put(offset::RELOCATABLE, &[1]);
    put(offset::XLOADFLAGS, &[0x7f, 0]);
    put(offset::CMDLINE_SIZE, &2047u32.to_le_bytes());
    put(offset::PAYLOAD_OFFSET, &u32::try_from(PAYLOAD).unwrap().to_le_bytes());
    put(
        offset::PAYLOAD_LENGTH,
        &u32::try_from(payload.len()).unwrap().to_le_bytes(),
    );
    put(offset::PREF_ADDRESS, &0x100_0000u64.to_le_bytes());
    put(offset::INIT_SIZE, &0x200_0000u32.to_le_bytes());
    put(SETUP + 0x200, b"entry");
    file.extend_from_slice(payload);
    file
}

/// `payload` as the kernel build leaves it: followed by the unpacked size.
pub fn with_size(mut payload: Vec<u8>, unpacked: &[u8]) -> Vec<u8> {
    payload.extend_from_slice(&u32::try_from(unpacked.len()).unwrap().to_le_bytes());
    payload
}

/// Where [`elf`] is entered, and its PVH entry.
pub const ELF_ENTRY: u64 = 0x100_0000;
pub const PVH_ENTRY: u64 = 0x100_0040;

/// A vmlinux: code at 16 MiB, and at 17 MiB data, of which the file has 0x1000 of 0x3000 bytes; a note with a PVH entry.
pub fn elf() -> Vec<u8> {
    const TEXT: u64 = 0x200;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let xwords = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    file.extend(half(&[2, 62]));
    file.extend(words(&[1]));
    file.extend(xwords(&[ELF_ENTRY, 64, 0]));
    file.extend(words(&[0]));
    file.extend(half(&[64, 56, 3, 0, 0, 0]));
    let kernel_map = 0xffff_ffff_8000_0000u64;
    for (kind, offset, paddr, len, mem_len, align) in [
        (1, TEXT, ELF_ENTRY, 0x100, 0x100, 0x20_0000),
        (1, TEXT + 0x100, 0x110_0000, 0x1000, 0x3000, 0x20_0000),
        (4, 0x180, ELF_ENTRY + 0x80, 0x30, 0x30, 4),
    ] {
        file.extend(words(&[kind, 5]));
        file.extend(xwords(&[offset, kernel_map + paddr, paddr, len, mem_len, align]));
    }
    file.resize(0x180, 0);
    // A note to pass over, then the one that counts, with the 8-byte entry that Linux writes.
    file.extend(words(&[4, 4, 3]));
    file.extend(b"GNU\0abcd");
    file.extend(words(&[4, 8, 18]));
    file.extend(b"Xen\0");
    file.extend(xwords(&[PVH_ENTRY]));
    file.resize(0x200, 0);
    file.resize(0x300, 0xc3);
    file.extend((0..0x1000u32).map(|n| u8::try_from(n % 251).unwrap()));
    file
}

/// `plain` through gzip.
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A hypervisor: ELF32 at 2 MiB with a multiboot header at its start, of which the file has 0x100 of 0x3000 bytes.
pub fn multiboot() -> Vec<u8> {
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let half = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(half(&[2, 3]));
    file.extend(words(&[1, 0x20_0000, 52, 0, 0]));
    file.extend(half(&[52, 32, 1, 0, 0, 0]));
    file.extend(words(&[1, 0x80, 0x20_0000, 0x20_0000, 0x100, 0x3000, 7, 0x40]));
    file.resize(0x80, 0);
    file.extend(words(&[0x1bad_b002, 3, 0x1bad_b005u32.wrapping_neg()]));
    file.resize(0x300, 0x90);
    file
}
