use super::{super::testing::*, *};
use crate::boot::ImageData;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn kernel(bytes: Vec<u8>) -> Kernel {
    Kernel::new(ImageData::Bytes(bytes)).unwrap()
}

/// Low memory, the firmware's part, then RAM up to `end` and 1 GiB above 4 GiB.
fn e820(end: u64) -> Vec<(GpaRange, u32)> {
    vec![
        (GpaRange::new(Gpa(0), 0x9_fc00), 1),
        (GpaRange::new(Gpa(0x10_0000), 0x8_0000), 3),
        (main_ram(end), 1),
        (GpaRange::new(Gpa(1 << 32), 1 << 30), 1),
    ]
}

fn main_ram(end: u64) -> GpaRange {
    GpaRange::new(FIRMWARE_END, end - FIRMWARE_END.0)
}

fn request(e820: &[(GpaRange, u32)]) -> BootRequest<'_> {
    BootRequest {
        e820,
        limit: None,
        mirrored: &[],
        initrd_len: None,
        modules: &[],
        cmdline: "quiet",
        protocol: BootProtocol::Auto,
        rsdp: Gpa(0x10_0000),
        initial_domain: false,
    }
}

fn config(protocol: BootProtocol, unpack: Unpack) -> BootConfig {
    BootConfig { protocol, unpack }
}

#[test]
fn auto_unpacks_what_it_can_and_leaves_the_rest_to_the_guest() {
    let auto = config(BootProtocol::Auto, Unpack::Auto);
    assert!(matches!(
        prepare(kernel(bzimage(&gzip(&elf()))), &auto).unwrap().kind,
        Kind::Elf(_)
    ));
    assert_eq!(
        prepare(kernel(bzimage(b"\x89LZO1234")), &auto).unwrap().kind,
        Kind::BzImage
    );
    assert_eq!(
        prepare(kernel(bzimage(&gzip(b"\x7fELF no more"))), &auto).unwrap().kind,
        Kind::BzImage
    );
}

#[test]
fn unpacking_on_or_pvh_needs_it_to_work() {
    for config in [
        config(BootProtocol::Auto, Unpack::On),
        config(BootProtocol::Pvh, Unpack::Auto),
    ] {
        assert!(matches!(
            prepare(kernel(bzimage(b"BZh91AY")), &config),
            Err(BootError::Unpack(_))
        ));
        assert!(matches!(
            prepare(kernel(bzimage(&gzip(&elf()))), &config).unwrap().kind,
            Kind::Elf(_)
        ));
    }
}

#[test]
fn unpacking_off_leaves_a_bzimage_alone() {
    let image = || kernel(bzimage(&gzip(&elf())));
    assert_eq!(
        prepare(image(), &config(BootProtocol::Linux64, Unpack::Off))
            .unwrap()
            .kind,
        Kind::BzImage
    );
    assert!(matches!(
        prepare(image(), &config(BootProtocol::Pvh, Unpack::Off)),
        Err(BootError::PvhPacked)
    ));
    assert!(prepare(kernel(elf()), &config(BootProtocol::Pvh, Unpack::Off)).is_ok());
}

#[test]
fn a_vmlinux_is_planned_where_its_headers_say() {
    let map = e820(512 * MIB);
    let plan = plan(&kernel(elf()), &request(&map)).unwrap();
    assert_eq!((plan.protocol, plan.entry), (Protocol::Linux64, Gpa(ELF_ENTRY)));
    assert_eq!(plan.kernel, GpaRange::new(Gpa(0x100_0000), 0x10_3000));
    assert_eq!(
        (plan.initrd, plan.cmdline.as_slice(), plan.e820),
        (None, b"quiet\0".as_slice(), map)
    );
}

#[test]
fn pvh_enters_by_the_note() {
    let map = e820(512 * MIB);
    let pvh = BootRequest {
        protocol: BootProtocol::Pvh,
        ..request(&map)
    };
    let planned = plan(&kernel(elf()), &pvh).unwrap();
    assert_eq!((planned.protocol, planned.entry), (Protocol::Pvh, Gpa(PVH_ENTRY)));
    let mut without = elf();
    without[0x180 + 20 + 8] = 17;
    assert!(matches!(plan(&kernel(without), &pvh), Err(BootError::NoPvhEntry)));
    assert!(matches!(plan(&kernel(bzimage(b"x")), &pvh), Err(BootError::PvhPacked)));
}

#[test]
fn a_bzimage_goes_to_its_preferred_address() {
    let map = e820(512 * MIB);
    let image = bzimage(b"payload");
    let planned = plan(&kernel(image.clone()), &request(&map)).unwrap();
    assert_eq!(planned.entry, Gpa(0x100_0200));
    assert_eq!(planned.kernel, GpaRange::new(Gpa(0x100_0000), 0x200_0000));
    let len = image.len() as u64 - 1024;
    assert_eq!(
        planned.segments,
        [Segment {
            offset: 1024,
            len,
            range: GpaRange::new(Gpa(0x100_0000), len)
        }]
    );
}

#[test]
fn a_bzimage_that_prefers_the_firmwares_place_is_moved_if_it_can_be() {
    use crate::boot::bzimage::offset;
    let map = e820(512 * MIB);
    let mut image = bzimage(b"payload");
    image[offset::PREF_ADDRESS..offset::PREF_ADDRESS + 8].copy_from_slice(&0x10_0000u64.to_le_bytes());
    assert_eq!(
        plan(&kernel(image.clone()), &request(&map)).unwrap().kernel.start,
        Gpa(0x100_0000)
    );
    image[offset::RELOCATABLE] = 0;
    assert!(matches!(
        plan(&kernel(image), &request(&map)),
        Err(BootError::NoRamForKernel { .. })
    ));
}

#[test]
fn a_bzimage_without_64_bit_entry_is_refused() {
    use crate::boot::bzimage::offset;
    let mut image = bzimage(b"payload");
    image[offset::XLOADFLAGS] = 0x7e;
    let error = plan(&kernel(image), &request(&e820(512 * MIB))).unwrap_err();
    assert!(
        matches!(
            error,
            BootError::NoEntry64 {
                version: 0x20f,
                xloadflags: 0x7e
            }
        ),
        "{error}"
    );
}

#[test]
fn the_kernel_has_to_be_in_ram() {
    assert!(plan(&kernel(bzimage(b"x")), &request(&e820(48 * MIB))).is_ok());
    let error = plan(&kernel(bzimage(b"x")), &request(&e820(47 * MIB)))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("0x1000000-0x2ffffff") && error.contains("45M"),
        "{error}"
    );
}

#[test]
fn ram_of_several_nodes_is_one_place() {
    let map = [
        (GpaRange::new(Gpa(0), 24 * MIB), 1),
        (GpaRange::new(Gpa(24 * MIB), 40 * MIB), 1),
    ];
    assert!(plan(&kernel(bzimage(b"x")), &request(&map)).is_ok());
}

#[test]
fn the_initrd_goes_as_high_as_the_kernel_reaches() {
    let place = |ram_end: u64, len: u64| {
        let map = e820(ram_end);
        plan(
            &kernel(elf()),
            &BootRequest {
                initrd_len: Some(len),
                ..request(&map)
            },
        )
        .map(|p| p.initrd.unwrap())
    };
    assert_eq!(
        place(512 * MIB, 5000).unwrap(),
        GpaRange::new(Gpa(512 * MIB - 0x2000), 5000)
    );
    // initrd_addr_max is 2 GiB - 1 although RAM goes on.
    assert_eq!(place(0xc000_0000, 4096).unwrap().end(), Gpa(0x8000_0000));
    // Not above the kernel: below it.
    assert_eq!(
        place(0x110_3000, 14 * MIB).unwrap(),
        GpaRange::new(Gpa(2 * MIB), 14 * MIB)
    );
    let error = place(64 * MIB, 47 * MIB).unwrap_err();
    assert!(
        matches!(error, BootError::InitrdDoesNotFit { len, room, .. } if len == 47 * MIB && room == 64 * MIB - 0x110_3000),
        "{error}"
    );
    assert!(matches!(
        place(64 * MIB, u64::MAX),
        Err(BootError::InitrdDoesNotFit { .. })
    ));
}

#[test]
fn an_empty_initrd_is_none() {
    let map = e820(64 * MIB);
    assert_eq!(
        plan(
            &kernel(elf()),
            &BootRequest {
                initrd_len: Some(0),
                ..request(&map)
            }
        )
        .unwrap()
        .initrd,
        None
    );
}

#[test]
fn the_memory_map_has_to_fit_the_protocol() {
    let mut map = e820(64 * MIB);
    map.extend((0..125u64).map(|n| (GpaRange::new(Gpa((8 << 30) + (n << 30)), 1 << 20), 0xefff_ffff)));
    assert_eq!(map.len(), 129);
    assert!(plan(&kernel(elf()), &request(&map)).is_ok());
    let pvh = BootRequest {
        protocol: BootProtocol::Pvh,
        ..request(&map)
    };
    assert!(matches!(
        plan(&kernel(elf()), &pvh),
        Err(BootError::TooManyRanges { count: 129, max: 128 })
    ));
}

proptest! {
    #[test]
    fn the_initrd_never_meets_the_kernel_nor_leaves_ram(
        ends in proptest::collection::vec(2u64..4096, 1..4),
        len in 1u64..1 << 31,
        kernel_at in 2u64..2048,
        kernel_len in 1u64..1 << 28,
        max: u32,
    ) {
        let mut at = 2 * MIB;
        let mut map = Vec::new();
        for end in ends {
            map.push((GpaRange::new(Gpa(at), end * MIB), 1));
            at += end * MIB + 4096;
        }
        let ram = ram(&map, None);
        let kernel = GpaRange::new(Gpa(kernel_at * MIB), kernel_len);
        if let Ok(place) = place_initrd(len, max, kernel, &ram) {
            prop_assert!(ram.iter().any(|r| r.start <= place.start && place.end() <= r.end()));
            prop_assert!(!place.overlaps(&kernel) && place.len == len && place.start.0 % PAGE == 0);
            prop_assert!(place.end() <= MMIO_HOLE.start && place.end().0 - 1 <= u64::from(max));
        }
    }

    #[test]
    fn hostile_placement_fields_are_planned_or_refused(pref: u64, init_size: u32, align: u32, relocatable: bool, initrd: u64) {
        use crate::boot::bzimage::offset;
        let mut image = bzimage(b"x");
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset::PREF_ADDRESS, &pref.to_le_bytes());
        put(offset::INIT_SIZE, &init_size.to_le_bytes());
        put(offset::KERNEL_ALIGNMENT, &align.to_le_bytes());
        put(offset::RELOCATABLE, &[relocatable.into()]);
        let map = e820(2048 * MIB);
        if let Ok(plan) = plan(&kernel(image), &BootRequest { initrd_len: Some(initrd), ..request(&map) }) {
            prop_assert!(plan.kernel.end() <= Gpa(2048 * MIB));
        }
    }
}
