use super::*;
use crate::{
    config::{flags, probe::BackingFacts},
    layout::{HostLimits, map::Report},
};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn config(args: &[(&str, &str)]) -> VmConfig {
    let texts = |flag: &str| -> &'static [String] {
        let of_flag = args.iter().filter(|(f, _)| *f == flag);
        of_flag.map(|(_, t)| (*t).to_owned()).collect::<Vec<_>>().leak()
    };
    let mut config = VmConfig::default();
    flags::apply(&mut config, texts).unwrap();
    config.validate().unwrap();
    config
}

fn plan(config: &VmConfig, phys_bits: u8) -> Result<Layout, LayoutError> {
    let host = HostLimits {
        phys_bits,
        backings: Vec::<BackingFacts>::new(),
        memory_devices: vec![],
    };
    Layout::plan(config, &Topology::plan(config).unwrap(), &host)
}

fn layout(args: &[(&str, &str)]) -> Layout {
    plan(&config(args), 46).unwrap()
}

fn ram(layout: &Layout) -> Vec<(u64, u64, u32)> {
    layout
        .ram
        .iter()
        .map(|r| (r.range.start.0, r.range.end().0, r.node))
        .collect()
}

fn span(start: u64, end: u64) -> GpaRange {
    GpaRange::new(Gpa(start), end - start)
}

#[test]
fn ram_flows_around_what_has_an_address() {
    let layout = layout(&[
        ("numa", "node=0,memory=1G"),
        ("numa", "node=1,memory=1G"),
        ("memory-range", "size=1M,type=hole,start=512M"),
        ("memory-range", "size=64M,type=soft-reserved,start=0x50000000,node=1"),
    ]);
    let hole_end = 513 * MIB;
    assert_eq!(
        ram(&layout),
        [
            (0, 512 * MIB, 0),
            (hole_end, hole_end + 512 * MIB, 0),
            // The next whole section; the reserved range is 64 MiB long.
            (1152 * MIB, 1280 * MIB, 1),
            (1344 * MIB, 1344 * MIB + 896 * MIB, 1),
        ]
    );
    let e820 = layout.e820();
    assert!(e820.contains(&(span(1280 * MIB, 1344 * MIB), E820Type::SoftReserved)));
    assert!(e820.is_sorted_by_key(|(range, _)| range.start));
    assert!(
        !e820.iter().any(|(range, _)| range.overlaps(&span(512 * MIB, hole_end))),
        "a hole is in no entry"
    );
}

#[test]
fn ranges_without_an_address_stand_above_ram_and_below_nvdimms() {
    let layout = layout(&[
        ("memory", "1G"),
        ("memory-range", "size=1G,type=soft-reserved,node=0"),
        ("memory-range", "size=4K,type=reserved,start=6G"),
        ("memory-range", "size=512M,type=pram"),
        ("memory-range", "size=256M,type=ram"),
        ("nvdimm", "size=64M,label=0"),
    ]);
    let placed: Vec<_> = layout.ranges.iter().map(|r| (r.index, r.range.start.0 / GIB)).collect();
    assert_eq!(placed, [(1, 6), (0, 7), (2, 8), (3, 9)]);
    assert_eq!(ram(&layout), [(0, GIB, 0), (9 * GIB, 9 * GIB + 256 * MIB, 0)]);
    assert_eq!(layout.spas[0].plan.range.start, Gpa(10 * GIB));
    assert_eq!(layout.node_ram(0), ByteSize::mib(1280));
}

#[test]
fn windows_stand_above_everything_and_are_not_in_the_memory_map() {
    let layout = layout(&[
        ("numa", "node=1,hotplug=3G"),
        ("numa", "node=0,hotplug=1G"),
        ("nvdimm", "size=1025M,label=0"),
        ("memory-range", "size=1G,type=reserved"),
    ]);
    let windows: Vec<_> = layout.hotplug.iter().map(|w| (w.range, w.node)).collect();
    assert_eq!(windows, [(span(7 * GIB, 8 * GIB), 0), (span(8 * GIB, 11 * GIB), 1)]);
    assert!(layout.e820().iter().all(|(range, _)| range.end().0 < 7 * GIB));
}

#[test]
fn what_overlaps_or_ends_too_high_is_refused_by_name() {
    for (range, expected) in [
        ("start=1M", "overlaps the firmware's memory at 0x0-0x1fffff"),
        ("start=0xd0000000", "overlaps the devices below 4 GiB"),
        ("start=0xbfff0000", "overlaps the devices below 4 GiB"),
        (
            "start=5G",
            "memory range range1 at 0x140000000-0x17fffffff overlaps memory range range0 at",
        ),
        ("start=255G", "would lie at 0x3fc0000000"),
    ] {
        let config = config(&[
            ("memory-range", "start=5G,size=1M,type=hole"),
            ("memory-range", &format!("{range},size=1G,type=reserved")),
        ]);
        // Below 38 bits there are 256 GiB, of which the last range takes the last: one byte more does not fit.
        let bits = if range == "start=255G" { 37 } else { 46 };
        let error = plan(&config, bits).unwrap_err().to_string();
        assert!(error.contains(expected), "{range}: {error}");
    }
}

#[test]
fn ram_cut_within_a_huge_page_is_refused() {
    let config = config(&[
        ("memory", "1G,hugepages=2M"),
        ("memory-range", "size=1M,type=hole,start=513M"),
    ]);
    let error = plan(&config, 46).unwrap_err().to_string();
    assert!(error.contains("is not whole huge pages of 2M"), "{error}");
}

#[test]
fn the_first_ram_of_a_node_is_mirrored_and_so_are_ranges_that_say_so() {
    let layout = layout(&[
        ("numa", "node=0,memory=4G,mirror=3328M"),
        ("numa", "node=1,memory=1G,mirror=128M"),
        ("memory-range", "size=1G,type=ram,node=1,mirror=on"),
    ]);
    assert_eq!(
        layout.mirrored,
        [
            span(0, 3 * GIB),
            span(4 * GIB, 4 * GIB + 256 * MIB),
            span(5 * GIB, 5 * GIB + 128 * MIB),
            span(6 * GIB, 7 * GIB)
        ]
    );
}

#[test]
fn iomem_has_the_kernels_names_and_joins_what_the_kernel_joins() {
    let layout = layout(&[
        ("memory", "1G"),
        ("memory-range", "start=8G,size=1G,type=soft-reserved"),
        ("memory-range", "start=9G,size=1G,type=soft-reserved"),
        ("memory-range", "start=10G,size=1G,type=pram"),
        ("memory-range", "start=11G,size=1G,type=unusable"),
        ("memory-range", "start=12G,size=1G,type=reserved"),
        ("memory-range", "start=13G,size=1G,type=reserved"),
    ]);
    let lines: Vec<_> = layout
        .iomem()
        .into_iter()
        .filter(|(r, _)| r.start.0 >= 8 * GIB)
        .collect();
    let at = |from, to| span(from * GIB, to * GIB);
    assert_eq!(
        lines,
        [
            (at(8, 9), "Soft Reserved"),
            (at(9, 10), "Soft Reserved"),
            (at(10, 11), "Persistent Memory (legacy)"),
            (at(11, 12), "Unusable memory"),
            (at(12, 14), "Reserved")
        ]
    );
}

#[test]
fn report_shows_ranges_windows_performance_and_the_numbers_of_linux() {
    let config = config(&[
        ("cpus", "2"),
        ("numa", "node=0,cpus=0,memory=512M"),
        ("numa", "node=1,hotplug=1G"),
        ("numa", "node=2,cpus=1,memory=512M"),
        ("memory-range", "size=1G,type=soft-reserved,node=1,id=hbm"),
        ("hmat", "target=1,latency=300ns"),
    ]);
    let layout = plan(&config, 46).unwrap();
    let report = Report::new(&config, &Topology::plan(&config).unwrap(), &layout, 46).to_string();
    for expected in [
        "0x100000000-0x13fffffff",
        "soft-reserved 4026531839 1     hbm",
        "hotplug      -     1     -",
        "node 1 (node 2 to Linux): vCPUs none, RAM 0",
        "node 2 (node 1 to Linux)",
        "node 2 to 1: latency 300ns/300ns, bandwidth -/-",
    ] {
        assert!(report.contains(expected), "'{expected}' in\n{report}");
    }
}

proptest! {
    #[test]
    fn nothing_overlaps_and_no_ram_is_lost(
        ranges in proptest::collection::vec((proptest::option::of(0u64..0x200_0000), 1u64..0x10_0000, 0u8..7), 0..8),
        nodes in proptest::collection::vec(0u64..0x20, 1..4),
    ) {
        let kinds = ["ram", "reserved", "unusable", "soft-reserved", "pmem", "pram", "hole"];
        let mut texts: Vec<(&str, String)> = ranges.iter().map(|(start, pages, kind)| {
            let start = start.or((*kind == 6).then_some(0x30_0000)).map(|s| format!(",start={:#x}", s * 4096)).unwrap_or_default();
            ("memory-range", format!("size={}K,type={}{start}", pages * 4, kinds[usize::from(*kind)]))
        }).collect();
        texts.extend(nodes.iter().enumerate().map(|(n, m)| ("numa", format!("node={n},memory={}M", (m + u64::from(n == 0)) * 128))));
        let texts: Vec<_> = texts.iter().map(|(f, t)| (*f, t.as_str())).collect();
        let config = config(&texts);
        let Ok(layout) = plan(&config, 46) else { return Ok(()) };
        let others = layout.ranges.iter().filter(|r| r.kind != RangeKind::Ram).map(|r| r.range);
        let mut all: Vec<_> = layout.ram.iter().map(|r| r.range).chain(others).chain([MMIO_HOLE]).collect();
        all.sort_unstable();
        prop_assert!(all.windows(2).all(|w| !w[0].overlaps(&w[1])), "{all:x?}");
        let added: u64 = layout.ranges.iter().filter(|r| r.kind == RangeKind::Ram).map(|r| r.range.len).sum();
        prop_assert_eq!(layout.ram_size().0, config.ram().0 + added);
    }
}
