//! What a kernel finds at its entry, looked at by a payload: registers, memory map, ACPI tables, modules, memory.

use devices::units::ByteSize;
use guest_tests::payload::{Ended, Guest, MAPPED, Program, SCRATCH, Script, machine};
use vmm::{
    config::{MemoryConfig, VmConfig},
    layout::{self, HostLimits, Layout, ports},
    machine::Outcome,
    topology::Topology,
};

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|w| u64::from_le_bytes(*w)).collect()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    words(&bytes[at..at + 8])[0]
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn memory(size: ByteSize) -> VmConfig {
    VmConfig {
        memory: MemoryConfig {
            size: Some(size),
            ..MemoryConfig::default()
        },
        ..VmConfig::default()
    }
}

/// Base, length and type, as the layout has them.
fn e820(size: ByteSize) -> Vec<(u64, u64, u32)> {
    let config = memory(size);
    let host = HostLimits {
        memory_devices: vec![],
        phys_bits: 46,
        backings: vec![],
    };
    let layout = Layout::plan(&config, &Topology::plan(&config).unwrap(), &host).unwrap();
    let entries = layout.e820().into_iter();
    entries
        .map(|(range, kind)| (range.start.0, range.len, kind as u32))
        .collect()
}

#[test]
fn linux64_entry_finds_the_zero_page() {
    let script = Script::new().boot_info().dump(layout::ZERO_PAGE.0, 4096).exit(0);
    let sent = Guest::new(&Program::new(script))
        .flag("cmdline", "of=the-user")
        .run()
        .expect(64);
    assert_eq!(u64_at(&sent, 0), layout::ZERO_PAGE.0);
    let page = &sent[8..];
    // boot.rst and zero-page.rst: header magic, RSDP, loader, command line, number of ranges, ranges of 20 bytes.
    assert_eq!(&page[0x202..0x206], b"HdrS");
    assert_eq!(u64_at(page, 0x70), layout::ACPI_TABLES.start.0);
    assert_ne!(page[0x210], 0, "a boot loader has a type");
    assert_eq!(u64::from(u32_at(page, 0x228)), layout::CMDLINE.0);
    let entries = (0..usize::from(page[0x1e8])).map(|n| 0x2d0 + 20 * n);
    let entries: Vec<_> = entries
        .map(|at| (u64_at(page, at), u64_at(page, at + 8), u32_at(page, at + 16)))
        .collect();
    assert_eq!(entries, e820(ByteSize::mib(64)));
}

#[test]
fn linux64_entry_is_long_mode_with_the_boot_selectors() {
    let script = Script::new().state(SCRATCH).dump(SCRATCH, 56).exit(0);
    let sent = Guest::new(&Program::new(script)).run().expect(64);
    let [cr0, cr3, cr4, rflags, cs, ds, ss] = words(&sent)[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(
        (cr0 & 0x8000_0001, cr3, cr4 & 0x20),
        (0x8000_0001, layout::BOOT_PAGE_TABLES.0, 0x20)
    );
    assert_eq!(
        (rflags & 0x200, cs, ds, ss),
        (0, 0x10, 0x18, 0x18),
        "interrupts off, __BOOT_CS, __BOOT_DS"
    );
}

#[test]
fn pvh_entry_finds_start_info_memory_map_and_module() {
    let initrd: Vec<u8> = (0..5000u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    // The module list and the map lie behind the start info, all in one page.
    let map = e820(ByteSize::mib(64));
    let script = Script::new().boot_info().dump(layout::PVH_INFO.0, 4096);
    let guest = |script: Script| {
        let guest = Guest::new(&Program::new(script))
            .flag("boot", "pvh")
            .flag("initrd", "%/initrd");
        std::fs::write(guest.file("initrd"), &initrd).unwrap();
        guest.run().expect(64)
    };
    let sent = guest(script.exit(0));
    assert_eq!(u64_at(&sent, 0), layout::PVH_INFO.0);
    let info = &sent[8..];
    let here = |address: u64| usize::try_from(address - layout::PVH_INFO.0).unwrap();
    assert_eq!((u32_at(info, 0), u32_at(info, 4)), (0x336e_c578, 1));
    assert_eq!(u64_at(info, 32), layout::ACPI_TABLES.start.0);
    assert_eq!(u64_at(info, 24), layout::CMDLINE.0);
    let table = here(u64_at(info, 40));
    let entries = (0..u32_at(info, 48) as usize).map(|n| table + 24 * n);
    let entries: Vec<_> = entries
        .map(|at| (u64_at(info, at), u64_at(info, at + 8), u32_at(info, at + 16)))
        .collect();
    assert_eq!(entries, map);
    assert_eq!(u32_at(info, 12), 1, "one module");
    let module = here(u64_at(info, 16));
    let (start, len) = (u64_at(info, module), u64_at(info, module + 8));
    assert_eq!(len, initrd.len() as u64);
    assert_eq!(guest(Script::new().dump(start, len).exit(0)), initrd);
}

#[test]
fn command_line_ends_with_what_the_user_added() {
    let script = Script::new().dump(layout::CMDLINE.0, 256).exit(0);
    let sent = Guest::new(&Program::new(script))
        .flag("cmdline", "of=the-user")
        .run()
        .expect(64);
    let text = sent.split(|b| *b == 0).next().unwrap();
    assert!(text.ends_with(b" of=the-user"), "{:?}", String::from_utf8_lossy(text));
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The tables that the XSDT lists, walked as a guest does.
fn tables(memory: &[u8]) -> Vec<String> {
    let at = |address: u64| usize::try_from(address - layout::ACPI_TABLES.start.0).unwrap();
    let table = |address: u64| {
        let bytes = &memory[at(address)..];
        let bytes = &bytes[..u32_at(bytes, 4) as usize];
        assert_eq!(sum(bytes), 0, "checksum of the table at {address:#x}");
        bytes
    };
    assert_eq!(&memory[..8], b"RSD PTR ");
    assert_eq!((sum(&memory[..20]), sum(&memory[..36])), (0, 0));
    let xsdt = table(u64_at(memory, 24));
    let mut names = vec![];
    for address in words(&xsdt[36..]) {
        let bytes = table(address);
        names.push(String::from_utf8_lossy(&bytes[..4]).into_owned());
        if bytes.starts_with(b"FACP") {
            // ACPI 6.5 table 5.9: X_DSDT.
            names.push(String::from_utf8_lossy(&table(u64_at(bytes, 140))[..4]).into_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn acpi_tables_are_reached_from_the_rsdp_with_right_checksums() {
    let script = Script::new().dump(layout::ACPI_TABLES.start.0, 0x4000).exit(0);
    let program = Program::new(script);
    let sent = Guest::new(&program).run().expect(64);
    assert_eq!(tables(&sent), ["APIC", "DSDT", "FACP"]);
    let guest = Guest::new(&program)
        .flag("cpus", "2")
        .flag("nvdimm", "file=%/dimm,size=64M,node=1")
        .flag("numa", "node=0,cpus=0-1,memory=64M")
        .flag("numa", "node=1");
    assert_eq!(
        tables(&guest.run().expect(64)),
        ["APIC", "DSDT", "FACP", "NFIT", "SLIT", "SRAT"]
    );
}

#[test]
fn ram_on_both_sides_of_the_hole_keeps_what_is_written() {
    // 5 GiB: three below the hole, two from 4 GiB on.
    let places = [
        0x8_0000,
        layout::FIRMWARE_END.0,
        layout::MMIO_HOLE.start.0 - 8,
        layout::ABOVE_4G.0,
        layout::ABOVE_4G.0 + (2 << 30) - 8,
    ];
    let value = |address: u64| address ^ 0x0123_4567_89ab_cdef;
    let script = Script::new().tables();
    let script = places.iter().fold(script, |s, p| s.store(*p, 8, value(*p)));
    let script = places.iter().fold(script, |s, p| s.load(*p, 8));
    // The first address after RAM is nobody's.
    let script = script.load(layout::ABOVE_4G.0 + (2 << 30), 8).exit(0);
    let sent = Guest::new(&Program::new(script)).flag("memory", "5G").run().expect(64);
    let expected: Vec<u64> = places.iter().map(|p| value(*p)).chain([u64::MAX]).collect();
    assert_eq!(words(&sent), expected);
}

#[test]
fn start_takes_the_same_exits_whatever_the_memory() {
    let program = Program::new(Script::new().boot_info().output(ports::TEST_EXIT, 1, 5));
    let run = |size| {
        let run = machine::run(&program, memory(size));
        assert_eq!(run.outcome, Outcome::TestExit(5));
        assert_eq!(u64_at(&run.console, 0), layout::ZERO_PAGE.0);
        run.exits
    };
    let smallest = run(ByteSize::mib(64));
    assert_eq!(smallest.1, 0, "no MMIO before the kernel does some");
    for size in [
        ByteSize::mib(512),
        ByteSize::gib(1),
        ByteSize::gib(3),
        ByteSize::gib(4),
        ByteSize::gib(8),
    ] {
        assert_eq!(run(size), smallest, "{size}");
    }
}

#[test]
fn initrd_is_where_the_zero_page_says() {
    let initrd: Vec<u8> = (0..3000u32).map(|n| n.to_le_bytes()[0]).collect();
    let guest = |script: Script| -> Ended {
        let guest = Guest::new(&Program::new(script)).flag("initrd", "%/initrd");
        std::fs::write(guest.file("initrd"), &initrd).unwrap();
        guest.run()
    };
    // boot.rst: ramdisk_image and ramdisk_size.
    let sent = guest(Script::new().dump(layout::ZERO_PAGE.0 + 0x218, 8).exit(0)).expect(64);
    let (start, len) = (u64::from(u32_at(&sent, 0)), u64::from(u32_at(&sent, 4)));
    assert_eq!(len, 3000);
    assert!(start % 4096 == 0 && start + len <= MAPPED);
    assert_eq!(guest(Script::new().dump(start, len).exit(0)).expect(64), initrd);
}
