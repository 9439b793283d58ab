use super::*;
use crate::{
    boot::{
        BootRequest, Kernel, ModuleRequest, plan,
        testing::{gzip, multiboot},
    },
    config::BootProtocol,
};
use proptest::prelude::*;
use vm_memory::GuestMemoryMmap;

fn parsed(bytes: Vec<u8>) -> Option<Result<MultibootImage, String>> {
    MultibootImage::parse(&ImageData::Bytes(bytes)).map(|r| r.map_err(|e| e.to_string()))
}

fn patched(at: usize, bytes: &[u8]) -> Option<Result<MultibootImage, String>> {
    let mut image = multiboot();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    parsed(image)
}

#[test]
fn segments_and_entry_of_an_elf32_image_are_read() {
    let image = parsed(multiboot()).unwrap().unwrap();
    assert_eq!(image.entry, Gpa(0x20_0000));
    assert_eq!(image.span(), GpaRange::new(Gpa(0x20_0000), 0x3000));
    assert_eq!((image.segments[0].offset, image.segments[0].len), (0x80, 0x100));
}

#[test]
fn an_image_without_header_or_of_another_kind_is_none() {
    assert_eq!(patched(0x80, &[0]), None, "magic");
    assert_eq!(patched(0x88, &[0]), None, "checksum");
    assert_eq!(patched(4, &[2]), None, "64 bits");
    assert_eq!(parsed(vec![]), None);
}

#[test]
fn contradictions_are_refused() {
    // Flag bit 2 asks for a video mode; its checksum is that of flags 7.
    let video = [7u32.to_le_bytes(), (HEADER_MAGIC + 7).wrapping_neg().to_le_bytes()].concat();
    for (at, bytes, why) in [
        (0x84, &video[..], "requires features"),
        (44, &[0, 0], "program headers"),
        (28, &[0xff, 0xff, 0xff, 0x7f], "ends before"),
        (52 + 16, &[0xff, 0xff, 0xff, 0xff], "contradicts itself"),
        (52 + 4, &[0xff, 0xff, 0xff, 0xff], "contradicts itself"),
        (24, &[0, 0, 0, 0], "lies in no segment"),
    ] {
        let error = patched(at, bytes).unwrap().unwrap_err();
        assert!(error.contains(why), "{at}: {error}");
    }
}

#[test]
fn a_compressed_image_is_unpacked_and_damage_is_none() {
    assert_eq!(gunzip(&gzip(&multiboot())), Some(multiboot()));
    assert_eq!(gunzip(&gzip(&multiboot())[..60]), None);
    assert_eq!(gunzip(b"\x7fELF"), None);
}

fn planned(e820: &[(GpaRange, u32)], modules: &[ModuleRequest<'_>]) -> Result<BootPlan, BootError> {
    let kernel = Kernel::new(ImageData::Bytes(multiboot())).unwrap();
    plan(
        &kernel,
        &BootRequest {
            e820,
            limit: None,
            mirrored: &[],
            initrd_len: None,
            modules,
            cmdline: "console=com1",
            protocol: BootProtocol::Auto,
            rsdp: Gpa(0x10_0000),
            initial_domain: false,
        },
    )
}

const MAP: [(GpaRange, u32); 3] = [
    (
        GpaRange {
            start: Gpa(0),
            len: 0x9_fc00,
        },
        1,
    ),
    (
        GpaRange {
            start: Gpa(0x20_0000),
            len: 0xe0_0000,
        },
        1,
    ),
    (
        GpaRange {
            start: Gpa(1 << 32),
            len: 1 << 30,
        },
        7,
    ),
];

#[test]
fn modules_follow_the_image_on_whole_pages_and_the_guest_is_told_where() {
    let modules = [(0x1001, "a b"), (0x10, "")].map(|(len, cmdline)| ModuleRequest { len, cmdline });
    let plan = planned(&MAP, &modules).unwrap();
    let ranges: Vec<_> = plan.modules.iter().map(|m| m.range).collect();
    assert_eq!(
        ranges,
        [
            GpaRange::new(Gpa(0x20_3000), 0x1001),
            GpaRange::new(Gpa(0x20_5000), 0x10)
        ]
    );
    let mem = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
    write(&plan, &mem).unwrap();
    let word = |at: u64| mem.read_obj::<u32>(GuestAddress(at)).unwrap();
    let info = MULTIBOOT_INFO.0;
    assert_eq!((word(info), word(info + 4), word(info + 8)), (0x24d, 639, 15360));
    assert_eq!((word(info + 16), word(info + 20)), (0x2_0000, 2));
    let module = u64::from(word(info + 24));
    assert_eq!(
        [0, 4, 8, 16].map(|at| word(module + at)),
        [0x20_3000, 0x20_4001, 0x2_0800, 0x20_5000]
    );
    let mut text = [0; 11];
    mem.read_slice(&mut text, GuestAddress(0x2_0800)).unwrap();
    assert_eq!(&text, b"module a b\0");
    assert_eq!(plan.cmdline, b"kernel console=com1\0");
    let map = u64::from(word(info + 48));
    assert_eq!(word(info + 44), 3 * 24);
    assert_eq!(
        [48, 52, 56, 68].map(|at| word(map + at)),
        [20, 0, 1, 7],
        "the entry of 4 GiB"
    );
    assert_eq!(mem.read_obj::<u16>(GuestAddress(0x40e)).unwrap(), 0x9fc0);
    assert_eq!(mem.read_obj::<u16>(GuestAddress(0x413)).unwrap(), 639);
}

#[test]
fn what_does_not_fit_is_refused() {
    let long = "x".repeat(MODULE_CMDLINE_MAX - "module ".len());
    let module = |len, cmdline| ModuleRequest { len, cmdline };
    assert!(planned(&MAP, &[module(0xdf_d000, "")]).is_ok());
    for modules in [
        &[module(0xdf_d001, "")][..],
        &[module(u64::MAX, "")],
        &[module(0, "")],
        &[module(1, &long)],
        &[module(1, "a\0b")],
        &vec![module(1, ""); MAX_MODULES + 1],
        &[],
    ] {
        assert!(planned(&MAP, modules).is_err(), "{} modules", modules.len());
    }
    let many: Vec<_> = (0..=MAX_RANGES as u64)
        .map(|n| (GpaRange::new(Gpa(n << 24), 1 << 24), 1))
        .collect();
    let error = planned(&many, &[module(1, "")]).unwrap_err();
    assert!(matches!(error, BootError::TooManyRanges { .. }), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_an_image_or_none(at in 0usize..0x300, bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
        let mut image = multiboot();
        let end = (at + bytes.len()).min(image.len());
        image[at..end].copy_from_slice(&bytes[..end - at]);
        if let Some(Ok(image)) = parsed(image) {
            prop_assert!(image.segments.iter().any(|s| s.range.contains(image.entry)));
        }
    }
}
