use super::{super::testing::*, *};
use crate::{
    boot::{BootRequest, plan, prepare},
    config::{BootConfig, BootProtocol, Unpack},
    layout::{BOOT_GDT, BOOT_PAGE_TABLES, PVH_INFO, ZERO_PAGE},
};
use linux_loader::{
    bootparam::boot_params,
    start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info},
};
use std::io::Write;
use vm_memory::GuestMemoryMmap;

const END: u64 = 64 << 20;

struct Booted {
    mem: GuestMemoryMmap<devices::DeviceWrites>,
    plan: BootPlan,
    state: CpuState,
}

impl Booted {
    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }
    fn zero_page(&self) -> boot_params {
        self.mem.read_obj(GuestAddress(ZERO_PAGE.0)).unwrap()
    }
}

fn map() -> Vec<(GpaRange, u32)> {
    vec![
        (GpaRange::new(Gpa(0), 0x9_fc00), 1),
        (GpaRange::new(Gpa(0x20_0000), END - 0x20_0000), 1),
        (GpaRange::new(Gpa(1 << 32), 1 << 30), 7),
    ]
}

fn boot(kernel: Kernel, config: &BootConfig, map: &[(GpaRange, u32)]) -> Booted {
    let kernel = prepare(kernel, config).unwrap();
    let mut initrd = tempfile::tempfile().unwrap();
    initrd.write_all(b"initial RAM file system").unwrap();
    let request = BootRequest {
        e820: map,
        limit: None,
        mirrored: &[],
        initrd_len: Some(23),
        modules: &[],
        cmdline: "panic=-1",
        protocol: config.protocol,
        rsdp: Gpa(0x10_0000),
        initial_domain: false,
    };
    let plan = plan(&kernel, &request).unwrap();
    // Two regions, as at a node boundary, right inside the second segment.
    let split = usize::try_from(0x110_0800u64).unwrap();
    let regions = [
        (GuestAddress(0), split),
        (GuestAddress(split as u64), usize::try_from(END).unwrap() - split),
    ];
    let mem = GuestMemoryMmap::<devices::DeviceWrites>::from_ranges(&regions).unwrap();
    let state = load(&plan, &kernel, Some(&initrd), &[], &mem).unwrap();
    Booted { mem, plan, state }
}

fn in_memory(bytes: Vec<u8>) -> Kernel {
    Kernel::new(ImageData::Bytes(bytes)).unwrap()
}

fn in_file(bytes: &[u8]) -> Kernel {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Kernel::new(ImageData::File {
        file,
        len: bytes.len() as u64,
    })
    .unwrap()
}

#[test]
fn every_way_to_a_vmlinux_leaves_the_same_memory() {
    let packed = in_memory(bzimage(&gzip(&elf())));
    for kernel in [in_memory(elf()), in_file(&elf()), packed] {
        let booted = boot(kernel, &BootConfig::default(), &map());
        assert_eq!(booted.bytes(ELF_ENTRY, 0x100), [0xc3; 0x100]);
        assert_eq!(booted.bytes(0x110_0000, 0x1000), elf()[0x300..]);
        assert_eq!(booted.bytes(0x110_1000, 0x2000), [0; 0x2000]);
        assert_eq!(booted.bytes(CMDLINE.0, 9), b"panic=-1\0");
        assert_eq!(
            booted.bytes(booted.plan.initrd.unwrap().start.0, 23),
            b"initial RAM file system"
        );
        assert_eq!((booted.state.rip, booted.state.rsi), (ELF_ENTRY, ZERO_PAGE.0));
    }
}

#[test]
fn the_zero_page_of_a_vmlinux_has_what_the_kernel_reads() {
    let params = boot(in_memory(elf()), &BootConfig::default(), &map()).zero_page();
    let hdr = params.hdr;
    assert_eq!(
        ({ hdr.boot_flag }, { hdr.header }, { hdr.version }),
        (0xaa55, 0x5372_6448, 0x20f)
    );
    assert_eq!((hdr.type_of_loader, hdr.loadflags), (0xff, 1));
    assert_eq!(
        ({ hdr.cmd_line_ptr }, { hdr.ramdisk_image }, { hdr.ramdisk_size }),
        (0x2_0000, 0x3ff_f000, 23)
    );
    assert_eq!(
        ({ params.acpi_rsdp_addr }, params.sentinel, { hdr.setup_data }),
        (0x10_0000, 0, 0)
    );
    assert_eq!(params.e820_entries, 3);
    let last = params.e820_table[2];
    assert_eq!(({ last.addr }, { last.size }, { last.r#type }), (1 << 32, 1 << 30, 7));
}

#[test]
fn the_zero_page_is_at_the_offsets_of_the_protocol() {
    let booted = boot(in_memory(elf()), &BootConfig::default(), &map());
    let at = |offset: u64, len| booted.bytes(ZERO_PAGE.0 + offset, len);
    assert_eq!(at(0x70, 8), 0x10_0000u64.to_le_bytes());
    assert_eq!(at(0x1e8, 1), [3]);
    assert_eq!(at(0x1ef, 1), [0]);
    assert_eq!(at(0x202, 4), b"HdrS");
    assert_eq!(at(0x210, 1), [0xff]);
    assert_eq!(at(0x218, 4), 0x3ff_f000u32.to_le_bytes());
    assert_eq!(at(0x228, 4), 0x2_0000u32.to_le_bytes());
    assert_eq!(at(0x2d0 + 20, 8), 0x20_0000u64.to_le_bytes());
}

#[test]
fn the_zero_page_of_a_bzimage_keeps_its_header() {
    for unpack in [Unpack::Auto, Unpack::Off] {
        let config = BootConfig {
            unpack,
            ..BootConfig::default()
        };
        let hdr = boot(in_memory(bzimage(&gzip(&elf()))), &config, &map()).zero_page().hdr;
        assert_eq!(
            ({ hdr.kernel_alignment }, { hdr.xloadflags }, { hdr.init_size }),
            (0x20_0000, 0x7f, 0x200_0000)
        );
        assert_eq!((hdr.type_of_loader, { hdr.cmd_line_ptr }), (0xff, 0x2_0000));
    }
}

#[test]
fn a_packed_bzimage_is_entered_at_its_64_bit_entry() {
    let config = BootConfig {
        unpack: Unpack::Off,
        ..BootConfig::default()
    };
    let image = bzimage(&gzip(&elf()));
    let booted = boot(in_memory(image.clone()), &config, &map());
    assert_eq!(booted.state.rip, 0x100_0200);
    assert_eq!(booted.bytes(0x100_0200, 5), b"entry");
    assert_eq!(booted.bytes(0x100_0000, image.len() - 1024), image[1024..]);
}

#[test]
fn more_than_128_ranges_go_on_in_setup_data() {
    let mut map = map();
    map.extend((0..130u64).map(|n| (GpaRange::new(Gpa((8 << 30) + (n << 30)), 0x1000 + n), 0xefff_ffff)));
    let booted = boot(in_memory(elf()), &BootConfig::default(), &map);
    let params = booted.zero_page();
    assert_eq!((params.e820_entries, { params.hdr.setup_data }), (128, 0xf000));
    let node = booted.bytes(0xf000, 16 + 5 * 20);
    assert_eq!(
        node[..16],
        [&[0; 8][..], &1u32.to_le_bytes(), &100u32.to_le_bytes()].concat()
    );
    let last = [
        ((8u64 << 30) + (129 << 30)).to_le_bytes().as_slice(),
        &0x1081u64.to_le_bytes(),
        &0xefff_ffffu32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(node[16 + 80..], last);
}

#[test]
fn pvh_gets_its_start_info_modules_and_memory_map() {
    let config = BootConfig {
        protocol: BootProtocol::Pvh,
        unpack: Unpack::Auto,
    };
    let booted = boot(in_memory(bzimage(&gzip(&elf()))), &config, &map());
    assert_eq!(
        (booted.state.rip, booted.state.rbx, booted.state.cr0),
        (PVH_ENTRY, PVH_INFO.0, 0x11)
    );
    let info: hvm_start_info = booted.mem.read_obj(GuestAddress(PVH_INFO.0)).unwrap();
    assert_eq!(
        (info.magic, info.version, info.nr_modules, info.memmap_entries),
        (0x336e_c578, 1, 1, 3)
    );
    assert_eq!((info.cmdline_paddr, info.rsdp_paddr), (0x2_0000, 0x10_0000));
    let module: hvm_modlist_entry = booted.mem.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), (0x3ff_f000, 23));
    let range: hvm_memmap_table_entry = booted.mem.read_obj(GuestAddress(info.memmap_paddr + 48)).unwrap();
    assert_eq!((range.addr, range.size, range.type_), (1 << 32, 1 << 30, 7));
}

fn small_request(map: &[(GpaRange, u32)]) -> BootRequest<'_> {
    BootRequest {
        e820: map,
        limit: None,
        mirrored: &[],
        initrd_len: None,
        modules: &[],
        cmdline: "",
        protocol: BootProtocol::Auto,
        rsdp: Gpa(0x10_0000),
        initial_domain: false,
    }
}

#[test]
fn the_first_domain_is_told_so_and_has_to_ask_for_its_memory_map() {
    let kernel = prepare(in_memory(elf()), &BootConfig::default()).unwrap();
    let map = map();
    let memory = |protocol| {
        let request = BootRequest {
            protocol,
            initial_domain: true,
            ..small_request(&map)
        };
        let mem = GuestMemoryMmap::<devices::DeviceWrites>::from_ranges(&[(GuestAddress(0), 0x400_0000)]).unwrap();
        load(&plan(&kernel, &request).unwrap(), &kernel, None, &[], &mem).unwrap();
        mem
    };
    let mem = memory(BootProtocol::Pvh);
    let info: hvm_start_info = mem.read_obj(GuestAddress(PVH_INFO.0)).unwrap();
    assert_eq!((info.flags, info.memmap_entries, info.memmap_paddr), (3, 0, 0));
    assert_eq!(info.rsdp_paddr, 0x10_0000);
    let mem = memory(BootProtocol::Linux64);
    let info: hvm_start_info = mem.read_obj(GuestAddress(PVH_INFO.0)).unwrap();
    assert_eq!((info.magic, info.flags), (0, 0), "no other protocol knows of it");
}

#[test]
fn descriptor_and_page_tables_are_in_memory() {
    let booted = boot(in_memory(elf()), &BootConfig::default(), &map());
    assert_eq!(
        booted.bytes(BOOT_GDT.0 + 0x10, 8),
        0x00af_9b00_0000_ffffu64.to_le_bytes()
    );
    assert_eq!(booted.bytes(BOOT_PAGE_TABLES.0, 8), 0xa003u64.to_le_bytes());
    assert_eq!(
        booted.bytes(BOOT_PAGE_TABLES.0 + 0x5ff8, 8),
        0xffe0_0083u64.to_le_bytes()
    );
}

#[test]
fn pages_of_zeros_are_not_written() {
    let mem = GuestMemoryMmap::<devices::DeviceWrites>::from_ranges(&[(GuestAddress(0), 0x5000)]).unwrap();
    mem.write_slice(&[9; 0x5000], GuestAddress(0)).unwrap();
    let mut bytes = vec![0; 0x4800];
    bytes[0] = 1;
    bytes[0x3000] = 2;
    write_nonzero(&bytes, Gpa(0), &mem).unwrap();
    let seen: Vec<u8> = [0u64, 1, 0x1000, 0x2fff, 0x3000, 0x3fff, 0x4000, 0x4800]
        .iter()
        .map(|at| mem.read_obj(GuestAddress(*at)).unwrap())
        .collect();
    assert_eq!(seen, [1, 0, 9, 9, 2, 0, 9, 9]);
}

#[test]
fn a_file_that_shrank_or_memory_that_is_not_there_is_an_error() {
    let kernel = in_file(&elf());
    let map = map();
    let plan = plan(&kernel, &small_request(&map)).unwrap();
    let small = GuestMemoryMmap::<devices::DeviceWrites>::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
    assert!(matches!(
        load(&plan, &kernel, None, &[], &small),
        Err(LoadError::Write { what: "kernel", .. })
    ));
    let ImageData::File { file, .. } = &kernel.data else {
        panic!("a file")
    };
    file.set_len(0x400).unwrap();
    let mem =
        GuestMemoryMmap::<devices::DeviceWrites>::from_ranges(&[(GuestAddress(0), usize::try_from(END).unwrap())])
            .unwrap();
    assert!(matches!(
        load(&plan, &kernel, None, &[], &mem),
        Err(LoadError::Write {
            what: "kernel",
            gpa: Gpa(0x110_0000),
            ..
        })
    ));
    let with_initrd = BootPlan {
        initrd: Some(GpaRange::new(Gpa(0x200_0000), 5)),
        ..plan
    };
    assert!(matches!(
        load(&with_initrd, &in_memory(elf()), None, &[], &mem),
        Err(LoadError::Initrd)
    ));
}
