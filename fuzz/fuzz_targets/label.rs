//! Any bytes are a label area: reading them must neither panic nor find more labels than there are slots.
#![no_main]

use devices::nvdimm::label::format::{Contents, LabelVersion, fletcher64, initialise};
use libfuzzer_sys::fuzz_target;

/// Bytes of an index block in areas of the sizes used here.
const INDEX: usize = 256;

/// Scribbles `noise` over a fresh area: offset in two bytes, then the value.
fn scribbled(version: LabelVersion, noise: &[u8]) -> Vec<u8> {
    let mut area = vec![0; 16 << 10];
    initialise(&mut area, version).expect("16 KiB hold labels");
    for chunk in noise.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([chunk[0], chunk[1]])) % area.len();
        area[at] = chunk[2];
    }
    area
}

/// Gives both index blocks a valid checksum, so that the fuzzer need not find it.
fn seal(area: &mut [u8]) {
    for block in area.chunks_exact_mut(INDEX).take(2) {
        block[64..72].fill(0);
        let sum = fletcher64(block);
        block[64..72].copy_from_slice(&sum.to_le_bytes());
    }
}

fn check(area: &[u8]) {
    if let Ok(contents) = Contents::read(area) {
        assert!(contents.current_index < 2 && (1..4).contains(&contents.sequence));
        assert!(contents.labels.len() <= contents.geometry.slots);
    }
}

fuzz_target!(|data: &[u8]| {
    check(data);
    let Some((choice, noise)) = data.split_first() else {
        return;
    };
    let version = if choice & 1 == 0 {
        LabelVersion::V1_1
    } else {
        LabelVersion::V1_2
    };
    let mut area = scribbled(version, noise);
    if choice & 2 == 0 {
        seal(&mut area);
    }
    check(&area);
});
