use super::*;
use proptest::prelude::*;

fn fresh(kib: usize, version: LabelVersion) -> Vec<u8> {
    let mut area = vec![0; kib << 10];
    initialise(&mut area, version).unwrap();
    area
}

/// Puts a label into `slot` and marks it used in both index blocks.
fn put_label(area: &mut [u8], slot: usize, label: &RawLabel) {
    let geometry = Contents::read(area).unwrap().geometry;
    let size = geometry.version.label_size();
    let mut bytes = label.as_bytes().to_vec();
    let sum = checksum_without(&bytes, LABEL_CHECKSUM);
    bytes[LABEL_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    let at = 2 * geometry.index_size + slot * size;
    area[at..at + size].copy_from_slice(&bytes[..size]);
    for which in 0..2 {
        let block = &mut area[which * geometry.index_size..][..geometry.index_size];
        block[HEADER + slot / 8] &= !(1 << (slot % 8));
        seal(block);
    }
}

fn seal(block: &mut [u8]) {
    let sum = checksum_without(block, INDEX_CHECKSUM);
    block[INDEX_CHECKSUM..INDEX_CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
}

fn label(slot: u32, name: &str) -> RawLabel {
    let mut raw = RawLabel::read_from_bytes(&[0; LABEL]).unwrap();
    raw.uuid = [0x11; 16];
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.set_size = 1.into();
    raw.cookie = 0x00ba_9012_0012_b4dc.into();
    raw.dpa = 0x1000.into();
    raw.raw_size = 0x100_0000.into();
    raw.slot = slot.into();
    raw
}

#[test]
fn fresh_areas_have_the_checksums_of_the_guests_kernel() {
    for (kib, version, slots, sums) in [
        (
            128,
            LabelVersion::V1_2,
            510,
            [0xe793_e3ed_1832_3c1c, 0xe793_e7b2_1832_3c1b],
        ),
        (
            128,
            LabelVersion::V1_1,
            1020,
            [0xdb63_4621_e731_3e0a, 0xdb63_49e6_e731_3e09],
        ),
        (
            256,
            LabelVersion::V1_2,
            1022,
            [0xe794_4685_1832_3e0c, 0xe794_4a4a_1832_3e0b],
        ),
    ] {
        let area = fresh(kib, version);
        let contents = Contents::read(&area).unwrap();
        assert_eq!(
            contents.geometry,
            Geometry {
                version,
                index_size: 256,
                slots
            }
        );
        assert_eq!((contents.current_index, contents.sequence), (0, 3));
        assert_eq!(contents.labels, []);
        for (which, sum) in sums.into_iter().enumerate() {
            let stored: [u8; 8] = area[which * 256 + INDEX_CHECKSUM..][..8].try_into().unwrap();
            assert_eq!(u64::from_le_bytes(stored), sum, "{kib} KiB {version:?} block {which}");
        }
    }
}

#[test]
fn cookies_are_those_of_the_guests_kernel() {
    let qemu = CookieMember {
        region_offset: 0,
        serial: 0x12_3456,
        vendor: 0x8086,
        date: 0,
        location: 0,
    };
    assert_eq!(interleave_cookie(&[qemu], LabelVersion::V1_1), 0x0024_68ac_0012_3456);
    assert_eq!(interleave_cookie(&[qemu], LabelVersion::V1_2), 0x00ba_9012_0012_b4dc);
    let member = |region_offset, serial| CookieMember {
        region_offset,
        serial,
        vendor: 0xabcd,
        date: 0x1620,
        location: 0xa,
    };
    let pair = [member(0x1000_0000, 0x5566_7788), member(0, 0x1122_3344)];
    assert_eq!(interleave_cookie(&pair, LabelVersion::V1_1), 0x519a_22a8_7688_aacc);
    assert_eq!(interleave_cookie(&pair, LabelVersion::V1_2), 0x26c5_3646_a2ca_027a);
}

#[test]
fn newer_index_counts_and_a_torn_one_does_not() {
    let set_sequence = |area: &mut [u8], which: usize, sequence: u8| {
        let block = &mut area[which * 256..][..256];
        block[20] = sequence;
        seal(block);
    };
    for (zero, one, current) in [
        (1, 2, 1),
        (2, 3, 1),
        (3, 1, 1),
        (2, 1, 0),
        (3, 2, 0),
        (1, 3, 0),
        (2, 2, 1),
    ] {
        let mut area = fresh(128, LabelVersion::V1_2);
        set_sequence(&mut area, 0, zero);
        set_sequence(&mut area, 1, one);
        assert_eq!(Contents::read(&area).unwrap().current_index, current, "{zero} {one}");
        area[current * 256 + 100] ^= 1;
        assert_eq!(Contents::read(&area).unwrap().current_index, 1 - current, "torn");
    }
}

#[test]
fn labels_are_found_by_the_free_bitmap() {
    for version in [LabelVersion::V1_1, LabelVersion::V1_2] {
        let mut area = fresh(128, version);
        put_label(&mut area, 0, &label(0, "first"));
        put_label(&mut area, 509, &label(509, "last"));
        let contents = Contents::read(&area).unwrap();
        let names: Vec<_> = contents
            .labels
            .iter()
            .map(|(slot, l)| (*slot, l.as_ref().unwrap().name.clone()))
            .collect();
        assert_eq!(names, [(0, "first".to_owned()), (509, "last".to_owned())]);
        assert_eq!(contents.labels[0].1.as_ref().unwrap().size, 0x100_0000);
    }
}

#[test]
fn torn_or_misplaced_labels_are_faults_of_their_slot_alone() {
    let mut area = fresh(128, LabelVersion::V1_2);
    put_label(&mut area, 0, &label(0, "good"));
    put_label(&mut area, 1, &label(1, "torn"));
    put_label(&mut area, 2, &label(7, "misplaced"));
    area[512 + 256 + 90] ^= 0xff;
    let labels = Contents::read(&area).unwrap().labels;
    assert!(labels[0].1.is_ok());
    assert!(matches!(labels[1].1, Err(LabelFault::Checksum { .. })));
    assert_eq!(labels[2].1, Err(LabelFault::Slot(7)));
}

#[test]
fn areas_without_a_valid_index_say_what_is_wrong() {
    assert_eq!(Contents::read(&[]), Err(FormatError::TooSmall(0)));
    assert_eq!(
        initialise(&mut [0; 512], LabelVersion::V1_2),
        Err(FormatError::TooSmall(512))
    );
    let blank = Contents::read(&[0; 128 << 10]).unwrap_err();
    assert_eq!(
        blank,
        FormatError::NoIndex(IndexFault::Signature, IndexFault::Signature)
    );
    let mut area = fresh(128, LabelVersion::V1_2);
    for which in 0..2 {
        let block = &mut area[which * 256..][..256];
        block[24] ^= 1;
        seal(block);
    }
    assert_eq!(
        Contents::read(&area).unwrap_err(),
        FormatError::NoIndex(IndexFault::Geometry, IndexFault::Geometry)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_area_is_read_without_panic(area in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Contents::read(&area);
    }
    #[test]
    fn scribbled_areas_are_read_without_panic(
        v12: bool, seal_it: bool, scribbles in proptest::collection::vec((0usize..1024, any::<u8>()), 0..40)
    ) {
        let mut area = fresh(128, if v12 { LabelVersion::V1_2 } else { LabelVersion::V1_1 });
        for (at, byte) in scribbles {
            area[at] = byte;
        }
        if seal_it {
            area.chunks_mut(256).take(2).for_each(seal);
        }
        if let Ok(contents) = Contents::read(&area) {
            prop_assert!(contents.labels.len() <= contents.geometry.slots);
        }
    }
}
