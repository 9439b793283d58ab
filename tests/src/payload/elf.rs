//! The smallest ELF64 file that boots: program headers, an optional PVH note, and the bytes.

const EHDR: u64 = 64;
const PHDR: u64 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const READ_WRITE_EXECUTE: u32 = 7;
/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's public `elfnote.h`.
const PVH_ENTRY: u32 = 18;

/// An executable of `segments` (address and bytes) for the 64-bit entry, and for the PVH entry if there is one.
pub fn elf(entry: u64, pvh_entry: Option<u32>, segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let note = pvh_entry.map(note);
    let count = u16::try_from(segments.len() + usize::from(note.is_some())).expect("few segments");
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut file, &[2, 62]); // an executable for x86-64
    word(&mut file, &[1]);
    long(&mut file, &[entry, EHDR, 0]);
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, count, 64, 0, 0]);
    let mut at = EHDR + PHDR * u64::from(count);
    let notes = note.iter().map(|note| (PT_NOTE, 0, note));
    for (kind, address, bytes) in segments.iter().map(|(a, b)| (PT_LOAD, *a, b)).chain(notes) {
        let len = bytes.len() as u64;
        word(&mut file, &[kind, READ_WRITE_EXECUTE]);
        long(&mut file, &[at, address, address, len, len, 4]);
        at += len;
    }
    for (_, bytes) in segments {
        file.extend_from_slice(bytes);
    }
    file.extend(note.unwrap_or_default());
    file
}

fn note(entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    word(&mut note, &[4, 4, PVH_ENTRY]);
    note.extend_from_slice(b"Xen\0");
    word(&mut note, &[entry]);
    note
}

fn half(to: &mut Vec<u8>, values: &[u16]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn word(to: &mut Vec<u8>, values: &[u32]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn long(to: &mut Vec<u8>, values: &[u64]) {
    to.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}
