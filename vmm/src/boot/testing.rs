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
