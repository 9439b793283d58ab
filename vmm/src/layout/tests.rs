use super::*;
use crate::config::{InterleaveSetConfig, MemoryConfig, NumaConfig, NvdimmConfig, VirtualDiskConfig};
use map::Report;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn limits(phys_bits: u8) -> HostLimits {
    HostLimits {
        phys_bits,
        backings: Vec::new(),
        memory_devices: vec![],
    }
}

fn plan(config: &VmConfig, host: &HostLimits) -> Result<Layout, LayoutError> {
    Layout::plan(config, &Topology::plan(config).unwrap(), host)
}

fn machine(memory: u64) -> VmConfig {
    VmConfig {
        memory: MemoryConfig {
            size: Some(ByteSize(memory)),
            ..Default::default()
        },
        ..VmConfig::default()
    }
}

fn nvdimm(size: u64, label: u64) -> NvdimmConfig {
    let default: NvdimmConfig = crate::config::kv::from_str("", Default::default()).unwrap();
    NvdimmConfig {
        size: Some(ByteSize(size)),
        label: ByteSize(label),
        ..default
    }
}

fn node(node: u32, memory: u64) -> NumaConfig {
    NumaConfig {
        node,
        memory: ByteSize(memory),
        ..NumaConfig::default()
    }
}

fn ram(layout: &Layout) -> Vec<(u64, u64, u32)> {
    layout
        .ram
        .iter()
        .map(|r| (r.range.start.0, r.range.end().0, r.node))
        .collect()
}

fn spas(layout: &Layout) -> Vec<(u64, u64)> {
    layout
        .spas
        .iter()
        .map(|s| (s.plan.range.start.0, s.plan.range.len))
        .collect()
}

#[test]
fn ram_is_split_at_the_hole_and_at_nodes() {
    for (size, expected) in [
        (GIB, vec![(0, GIB, 0)]),
        (3 * GIB, vec![(0, 3 * GIB, 0)]),
        (
            3 * GIB + 2 * MIB,
            vec![(0, 3 * GIB, 0), (4 * GIB, 4 * GIB + 2 * MIB, 0)],
        ),
        (8 * GIB, vec![(0, 3 * GIB, 0), (4 * GIB, 9 * GIB, 0)]),
    ] {
        assert_eq!(ram(&plan(&machine(size), &limits(46)).unwrap()), expected);
    }
    let config = VmConfig {
        numa: vec![node(2, 2 * GIB), node(1, 2 * GIB), node(0, GIB / 2)],
        ..VmConfig::default()
    };
    let expected = [
        (0, GIB / 2, 0),
        (GIB / 2, 5 * GIB / 2, 1),
        (5 * GIB / 2, 3 * GIB, 2),
        (4 * GIB, 11 * GIB / 2, 2),
    ];
    assert_eq!(ram(&plan(&config, &limits(46)).unwrap()), expected);
}

#[test]
fn error_interfaces_are_reserved_in_what_firmware_keeps() {
    let kept = |enabled, extlog| {
        let mut config = machine(GIB);
        (config.apei.enabled, config.apei.extlog) = (enabled, extlog);
        let map = plan(&config, &limits(46)).unwrap().e820();
        let kept = map
            .into_iter()
            .filter(|(range, _)| (0x18_0000..0x20_0000).contains(&range.start.0));
        kept.map(|(range, kind)| (range.start.0, range.end().0, kind as u32))
            .collect::<Vec<_>>()
    };
    let (reserved, nvs) = (2, 4);
    let none = [(0x18_0000, 0x20_0000, nvs)];
    assert_eq!(kept(false, false), none);
    assert_eq!(kept(false, true), none);
    let apei = [
        (0x18_0000, 0x1c_0000, nvs),
        (0x1c_0000, 0x1d_0000, reserved),
        (0x1d_0000, 0x20_0000, nvs),
    ];
    assert_eq!(kept(true, false), apei);
    let both = [
        (0x18_0000, 0x1c_0000, nvs),
        (0x1c_0000, 0x1e_9000, reserved),
        (0x1e_9000, 0x20_0000, nvs),
    ];
    assert_eq!(kept(true, true), both);
}

#[test]
fn nvdimms_stand_on_whole_gigabytes_above_4g_and_ram() {
    let with = |memory, nvdimm| {
        plan(
            &VmConfig {
                nvdimm,
                ..machine(memory)
            },
            &limits(46),
        )
        .unwrap()
    };
    let label = 128 << 10;
    let layout = with(
        GIB,
        vec![
            nvdimm(512 * MIB, label),
            nvdimm(GIB, 0),
            nvdimm(GIB + MIB, label),
            nvdimm(16 * MIB, 0),
        ],
    );
    assert_eq!(
        spas(&layout),
        [
            (4 * GIB, 512 * MIB - label),
            (5 * GIB, GIB),
            (6 * GIB, GIB + MIB - label),
            (8 * GIB, 16 * MIB)
        ]
    );
    let offsets: Vec<_> = layout
        .nvdimms
        .iter()
        .map(|n| (n.label_offset, n.label_size.0))
        .collect();
    assert_eq!(offsets[0], (512 * MIB - label, label));
    assert_eq!(offsets[1], (GIB, 0));
    assert_eq!(
        spas(&with(4 * GIB, vec![nvdimm(GIB, 0)])),
        [(5 * GIB, GIB)],
        "RAM ends where the NVDIMM begins"
    );
    assert_eq!(
        spas(&with(4 * GIB + 2 * MIB, vec![nvdimm(GIB, 0)])),
        [(6 * GIB, GIB)],
        "RAM's last section stays clear"
    );
}

#[test]
fn data_is_cut_to_pages_of_the_backing_and_labels_keep_the_end() {
    let config = VmConfig {
        nvdimm: vec![nvdimm(GIB, 128 << 10)],
        ..machine(GIB)
    };
    let backing = |page| HostLimits {
        memory_devices: vec![],
        phys_bits: 46,
        backings: vec![BackingFacts {
            size: ByteSize(GIB),
            page,
        }],
    };
    let layout = plan(&config, &backing(ByteSize::mib(2))).unwrap();
    assert_eq!(spas(&layout), [(4 * GIB, GIB - 2 * MIB)]);
    assert_eq!(layout.nvdimms[0].label_offset, GIB - (128 << 10));
    let error = plan(&config, &backing(ByteSize::gib(1))).unwrap_err().to_string();
    assert!(
        error.starts_with("nvdimm slot 0 of 1G has no whole 1G page beside its label area of 128K; hint:"),
        "{error}"
    );
}

fn set(dimms: &[&str], size: u64, line: Option<u64>) -> InterleaveSetConfig {
    InterleaveSetConfig {
        dimms: dimms.iter().map(|id| (*id).to_owned()).collect(),
        size: ByteSize(size),
        line: line.map(ByteSize),
        ..InterleaveSetConfig::default()
    }
}

#[test]
fn sets_take_the_next_addresses_of_their_dimms() {
    let config = VmConfig {
        nvdimm: vec![nvdimm(32 * MIB, 0); 4],
        interleave_set: vec![
            set(&["nvdimm0", "nvdimm1"], 32 * MIB, None),
            set(&["nvdimm3", "nvdimm2", "nvdimm1", "nvdimm0"], 64 * MIB, Some(MIB)),
        ],
        ..machine(GIB)
    };
    config.validate().unwrap();
    let layout = plan(&config, &limits(46)).unwrap();
    assert_eq!(
        spas(&layout),
        [(4 * GIB, 32 * MIB), (5 * GIB, 64 * MIB)],
        "no DIMM has a range of its own"
    );
    let set = |n: usize| &layout.spas[n].plan;
    let lines: Vec<_> = (0..2).map(|n| set(n).interleave.unwrap().line).collect();
    assert_eq!(lines, [8192, 1 << 20]);
    let mappings = |n: usize| -> Vec<_> {
        let mappings = set(n).mappings.iter();
        mappings
            .map(|m| (m.slot, m.region_id, m.dpa, m.offset, m.len))
            .collect()
    };
    let (share, line) = (16 * MIB, 8192);
    assert_eq!(mappings(0), [(0, 0, 0, 0, share), (1, 0, 0, line, share)]);
    let expected = [
        (3, 0, 0, 0, share),
        (2, 0, 0, MIB, share),
        (1, 1, share, 2 * MIB, share),
        (0, 1, share, 3 * MIB, share),
    ];
    assert_eq!(mappings(1), expected);
    assert_eq!((set(0).index, set(1).index), (65, 66));
}

#[test]
fn sets_that_cannot_be_mapped_say_why() {
    let config = |set| VmConfig {
        nvdimm: vec![nvdimm(GIB, 0); 2],
        interleave_set: vec![set],
        ..machine(GIB)
    };
    let both = &["nvdimm0", "nvdimm1"];
    for (set, why) in [
        (
            set(both, 4 * GIB, None),
            "it takes 2G of each DIMM, but slot 0 has 1G left",
        ),
        (
            set(both, GIB + 4096, None),
            "is not a whole number of lines of 512K on each of 2 DIMMs",
        ),
        (set(both, GIB, Some(4096)), "262144 lines of 4K are more than the 32768"),
    ] {
        let error = plan(&config(set), &limits(46)).unwrap_err().to_string();
        assert!(
            error.starts_with("interleave set set0:") && error.contains(why),
            "{error}"
        );
        assert!(error.contains("; hint: "), "{error}");
    }
}

#[test]
fn unmapped_dimms_and_virtual_disks_have_their_places() {
    let mut config = VmConfig {
        nvdimm: vec![nvdimm(GIB, 0); 2],
        virtual_disk: vec![VirtualDiskConfig {
            size: ByteSize::mib(4),
            ..VirtualDiskConfig::default()
        }],
        ..machine(GIB)
    };
    config.nvdimm[0].mapped = Some(false);
    let layout = plan(&config, &limits(46)).unwrap();
    assert_eq!(spas(&layout), [(4 * GIB, GIB), (5 * GIB, 4 * MIB)]);
    assert_eq!((layout.spas[0].plan.index, layout.spas[1].plan.index), (4, 0));
    let persistent: Vec<_> = layout
        .e820()
        .into_iter()
        .filter(|(_, k)| *k == E820Type::Persistent)
        .collect();
    assert_eq!(persistent.len(), 1, "a volatile disk is nothing of the memory map");
}

#[test]
fn size_that_only_the_host_knows_comes_from_the_host() {
    let config = VmConfig {
        nvdimm: vec![NvdimmConfig {
            size: None,
            ..nvdimm(0, 0)
        }],
        ..machine(GIB)
    };
    assert_eq!(plan(&config, &limits(46)), Err(LayoutError::NoSize(0)));
    let backings = vec![BackingFacts {
        size: ByteSize::gib(2),
        page: ByteSize::mib(2),
    }];
    assert_eq!(
        spas(
            &plan(
                &config,
                &HostLimits {
                    memory_devices: vec![],
                    phys_bits: 46,
                    backings
                }
            )
            .unwrap()
        ),
        [(4 * GIB, 2 * GIB)]
    );
}

#[test]
fn nothing_lies_above_the_last_address() {
    let config = VmConfig {
        nvdimm: vec![nvdimm(1 << 40, 0); 32],
        ..machine(GIB)
    };
    assert!(plan(&config, &limits(46)).is_ok());
    let error = plan(&config, &limits(40)).unwrap_err().to_string();
    assert_eq!(
        error,
        "nvdimm slot 0 would lie at 0x100000000 with 1T and end above 0x10000000000, the 40 physical address bits of this \
         processor; hint: use less or smaller memory, or a processor with more address bits"
    );
    let error = plan(&machine(1 << 40), &limits(40)).unwrap_err().to_string();
    assert!(
        error.starts_with("the RAM of node 0 would lie at 0x100000000 with 1021G"),
        "{error}"
    );
    assert!(plan(&machine(u64::MAX), &limits(255)).is_err());
}

#[test]
fn agent_channel_is_the_second_transport() {
    let page = |n: u64| GpaRange::new(Gpa(0xd000_0000 + n * 0x1000), 0x1000);
    assert_eq!(plan(&machine(GIB), &limits(46)).unwrap().virtio, [(page(0), 16)]);
    let config = VmConfig {
        agent_socket: Some("a.sock".into()),
        ..machine(GIB)
    };
    assert_eq!(
        plan(&config, &limits(46)).unwrap().virtio,
        [(page(0), 16), (page(1), 17)]
    );
}

#[test]
fn dry_run_prints_the_whole_plan() {
    let mut config = VmConfig {
        numa: vec![node(0, GIB), node(1, 3 * GIB), node(2, 0)],
        nvdimm: vec![NvdimmConfig {
            node: 2,
            id: Some("fast".to_owned()),
            ..nvdimm(512 * MIB, 128 << 10)
        }],
        ..VmConfig::default()
    };
    config.cpus.count = 4;
    config.numa[0].cpus.0 = vec![0, 1];
    config.numa[1].cpus.0 = vec![2, 3];
    config.numa[2].distance.0.push((0, 30));
    let topology = Topology::plan(&config).unwrap();
    let layout = Layout::plan(&config, &topology, &limits(46)).unwrap();
    let report = Report::new(&config, &topology, &layout, 46);
    insta::assert_snapshot!("dry_run_text", report);
    insta::assert_snapshot!("dry_run_json", serde_json::to_string_pretty(&report).unwrap());
}

fn any_machine() -> impl Strategy<Value = VmConfig> {
    let nodes = proptest::collection::vec(0u64..80, 1..5);
    let nvdimms = proptest::collection::vec((4u64..1 << 20, 0u64..64), 0..32);
    (nodes, nvdimms, 1u64..64).prop_map(|(nodes, nvdimms, tail)| {
        let mut numa: Vec<_> = (0u32..)
            .zip(nodes)
            .map(|(n, sections)| node(n, sections * SECTION))
            .collect();
        numa.push(node(40, tail * 2 * MIB));
        numa[0].memory.0 += 64 * MIB;
        let nvdimm = nvdimms
            .into_iter()
            .map(|(pages, label)| nvdimm(pages << 22, label << 12))
            .collect();
        VmConfig {
            numa,
            nvdimm,
            ..VmConfig::default()
        }
    })
}

proptest! {
    #[test]
    fn every_map_is_sound(config in any_machine()) {
        let layout = plan(&config, &limits(52)).unwrap();
        prop_assert_eq!(&layout, &plan(&config, &limits(52)).unwrap(), "deterministic");
        prop_assert_eq!(layout.ram_size(), config.ram(), "all of the RAM and no more");
        for (node, size) in config.node_memory() {
            let own: u64 = layout.ram.iter().filter(|r| r.node == node).map(|r| r.range.len).sum();
            prop_assert_eq!(own, size.0, "node {}", node);
        }

        let mut all: Vec<_> = layout.ram.iter().map(|r| r.range).collect();
        all.extend(layout.spas.iter().map(|s| s.plan.range));
        all.push(MMIO_HOLE);
        all.sort();
        prop_assert!(all.windows(2).all(|w| !w[0].overlaps(&w[1])), "{:?}", all);
        prop_assert!(all.iter().all(|r| r.len != 0));

        let ram_end = layout.ram.last().unwrap().range.end().0.next_multiple_of(SECTION);
        for ((placed, spa), asked) in layout.nvdimms.iter().zip(&layout.spas).zip(&config.nvdimm) {
            let size = asked.size.unwrap().0;
            let range = spa.plan.range;
            prop_assert!(range.start.0.is_multiple_of(NVDIMM_ALIGN) && range.start.0 >= ram_end.max(4 * GIB));
            prop_assert_eq!(placed.label_offset + asked.label.0, size);
            prop_assert_eq!(range.len, placed.label_offset, "sizes and labels in pages lose nothing");
        }
    }

    #[test]
    fn e820_tells_of_all_memory_once(config in any_machine()) {
        let layout = plan(&config, &limits(52)).unwrap();
        let map = layout.e820();
        prop_assert!(map.windows(2).all(|w| w[0].0.end() <= w[1].0.start), "{:?}", map);
        prop_assert!(map.len() <= 128, "the zero page has 128 entries");
        let of = |kind| map.iter().filter(|(_, k)| *k == kind).map(|(r, _)| r.len).sum::<u64>();
        prop_assert_eq!(of(E820Type::Ram) + FIRMWARE_END.0 - LOW_RAM_END.0, config.ram().0);
        let persistent: u64 = layout.spas.iter().map(|s| s.plan.range.len).sum();
        prop_assert_eq!(of(E820Type::Persistent), persistent);
        let iomem: u64 = layout.iomem().iter().map(|(r, _)| r.len).sum();
        prop_assert_eq!(iomem, map.iter().map(|(r, _)| r.len).sum::<u64>());
    }

    #[test]
    fn any_sizes_are_a_map_or_an_error(memory: u64, size: u64, label: u64, page: u64, bits: u8) {
        let config = VmConfig { nvdimm: vec![nvdimm(size, label)], ..machine(memory) };
        let host = HostLimits { memory_devices: vec![], phys_bits: bits, backings: vec![BackingFacts { size: ByteSize(size), page: ByteSize(page) }] };
        if let Ok(layout) = plan(&config, &host) {
            let _ = (layout.e820(), layout.iomem());
        }
    }
}
