use super::*;
use crate::config::{CpuList, CpusConfig, NumaConfig, kv};
use proptest::prelude::*;

fn hmat(text: &str) -> HmatConfig {
    kv::from_str(text, kv::Shape::default()).unwrap()
}

fn cache(text: &str) -> MemoryCacheConfig {
    kv::from_str(text, kv::Shape::default()).unwrap()
}

fn initiator(text: &str) -> GenericInitiatorConfig {
    kv::from_str(text, kv::Shape::default()).unwrap()
}

/// Nodes 0 and 1 with a vCPU and RAM each, node 2 with RAM only, node 3 with nothing.
fn machine() -> VmConfig {
    let node = |node, cpus: &[u8], memory| NumaConfig {
        node,
        cpus: CpuList(cpus.to_vec()),
        memory: ByteSize::mib(memory),
        ..NumaConfig::default()
    };
    VmConfig {
        cpus: CpusConfig {
            count: 2,
            ..CpusConfig::default()
        },
        numa: vec![
            node(0, &[0], 512),
            node(1, &[1], 512),
            node(2, &[], 512),
            node(3, &[], 0),
        ],
        ..VmConfig::default()
    }
}

fn with(entries: &[&str]) -> VmConfig {
    VmConfig {
        hmat: entries.iter().map(|e| hmat(e)).collect(),
        ..machine()
    }
}

fn problems(config: &VmConfig) -> Vec<String> {
    let problems = config.validate().err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

fn only_problem(config: &VmConfig, expected: &str) {
    let found = problems(config);
    assert!(
        matches!(&found[..], [one] if one.contains(expected)),
        "{found:?} for '{expected}'"
    );
}

#[test]
fn the_entry_that_names_most_counts() {
    let config = with(&[
        "latency=100ns,bandwidth=20GB/s",
        "initiator=1,latency=110ns",
        "target=2,latency=300ns,write-bandwidth=1GB/s",
        "initiator=1,target=2,read-latency=310ns",
    ]);
    assert_eq!(problems(&config), Vec::<String>::new());
    let seen = |i, t| {
        let p = config.performance(i, t);
        let text = |v: Option<String>| v.unwrap_or_default();
        [
            text(p.read_latency.map(|v| v.to_string())),
            text(p.write_latency.map(|v| v.to_string())),
            text(p.read_bandwidth.map(|v| v.to_string())),
            text(p.write_bandwidth.map(|v| v.to_string())),
        ]
        .join(" ")
    };
    assert_eq!(seen(0, 0), "100ns 100ns 20GB/s 20GB/s");
    assert_eq!(seen(1, 0), "110ns 110ns 20GB/s 20GB/s");
    assert_eq!(seen(0, 2), "300ns 300ns 20GB/s 1GB/s");
    assert_eq!(
        seen(1, 2),
        "310ns 300ns 20GB/s 1GB/s",
        "the pair, then the target, then the initiator"
    );
}

#[test]
fn what_nobody_states_is_absent() {
    let config = with(&["initiator=0,target=0,latency=100ns"]);
    assert_eq!(config.performance(0, 2), Performance::default());
    assert_eq!(config.performance(0, 0).read_bandwidth, None);
    assert!(config.has_hmat() && !machine().has_hmat());
}

#[test]
fn entries_for_nodes_without_cpus_or_memory_are_refused() {
    only_problem(
        &with(&["initiator=2,target=0,latency=1ns"]),
        "initiator=2, a node with neither vCPUs nor a generic initiator",
    );
    only_problem(
        &with(&["initiator=0,target=3,latency=1ns"]),
        "names node 3 as memory, but the node has none",
    );
    only_problem(&with(&["target=7,latency=1ns"]), "names node 7, which is not defined");
    let with_device = VmConfig {
        generic_initiator: vec![initiator("node=3")],
        ..with(&["initiator=3,target=0,latency=1ns"])
    };
    assert_eq!(problems(&with_device), Vec::<String>::new());
}

#[test]
fn nvdimms_windows_and_ranges_make_a_node_a_target() {
    let entry = ["initiator=0,target=3,latency=1ns"];
    let mut config = with(&entry);
    config.nvdimm = vec![kv::from_str("size=16M,node=3", kv::Shape::default()).unwrap()];
    assert_eq!(problems(&config), Vec::<String>::new());
    let mut config = with(&entry);
    config.numa[3].hotplug = ByteSize::gib(1);
    assert_eq!(problems(&config), Vec::<String>::new());
    let mut config = with(&entry);
    config.memory_range = vec![kv::from_str("size=1G,type=soft-reserved,node=3", kv::Shape::default()).unwrap()];
    assert_eq!(problems(&config), Vec::<String>::new());
}

#[test]
fn entries_that_say_nothing_or_twice_are_refused() {
    only_problem(&with(&["initiator=0,target=0"]), "node 0 to node 0 states no value");
    only_problem(
        &with(&["target=0,latency=1ns", "target=0,bandwidth=1GB/s"]),
        "two hmat entries are for every node to node 0",
    );
    only_problem(
        &with(&["latency=1ns,read-latency=1ns,write-latency=2ns"]),
        "latency= stands for both, leave it out",
    );
}

#[test]
fn values_without_a_common_unit_are_refused_and_never_rounded() {
    only_problem(
        &with(&["initiator=0,read-latency=1ps", "initiator=1,read-latency=100ns"]),
        "the read latencies from 1ps to 100ns do not fit one table: each must be 1 to 65534 times their common unit 1ps",
    );
    assert_eq!(
        problems(&with(&[
            "initiator=0,bandwidth=1MB/s",
            "initiator=1,bandwidth=65534MB/s"
        ])),
        Vec::<String>::new()
    );
    let two = problems(&with(&[
        "initiator=0,bandwidth=1MB/s",
        "initiator=1,bandwidth=65535MB/s",
    ]));
    assert_eq!(two.len(), 2, "of reads and of writes: {two:?}");
}

#[test]
fn caches_have_levels_from_one_without_gaps() {
    let with = |caches: &[&str]| VmConfig {
        memory_cache: caches.iter().map(|c| cache(c)).collect(),
        ..machine()
    };
    assert_eq!(
        problems(&with(&[
            "node=2,size=16M",
            "node=2,size=1G,level=2,associativity=direct"
        ])),
        Vec::<String>::new()
    );
    only_problem(
        &with(&["node=2,size=16M,level=2"]),
        "the memory caches of node 2 have the levels 2",
    );
    only_problem(&with(&["node=2,size=16M", "node=2,size=32M"]), "have the levels 1, 1");
    only_problem(&with(&["node=3,size=16M"]), "names node 3 as memory");
    only_problem(&with(&["node=2,size=0"]), "has size=0 and line=64");
    only_problem(&with(&["node=2,size=1M,line=48"]), "line=48");
    only_problem(&with(&["node=2,size=1M,line=0"]), "line=0");
}

#[test]
fn generic_initiators_have_ids_and_names_of_their_own() {
    let with = |devices: &[&str]| VmConfig {
        generic_initiator: devices.iter().map(|d| initiator(d)).collect(),
        ..machine()
    };
    assert_eq!(
        problems(&with(&["node=3", "node=3", "node=2,hid=ACPI0016,uid=7"])),
        Vec::<String>::new()
    );
    only_problem(&with(&["node=9"]), "generic initiator 0 names node 9");
    only_problem(
        &with(&["node=3,uid=1", "node=3"]),
        "two generic initiators have hid=DAXV0001 and uid=1",
    );
    for hid in ["PNP0501", "acpi0016", "ACPI00G6", "ÄCPI001"] {
        only_problem(&with(&[&format!("node=3,hid={hid}")]), "is no ACPI id");
    }
}

#[test]
fn memory_is_attached_to_its_own_node_or_to_the_one_that_is_named() {
    let mut config = machine();
    assert_eq!(
        [0, 1, 2].map(|n| config.attached_initiator(n)),
        [Some(0), Some(1), None]
    );
    config.numa[2].initiator = Some(1);
    assert_eq!(config.attached_initiator(2), Some(1));
    assert!(config.has_hmat());
    assert_eq!(problems(&config), Vec::<String>::new());
    for (node, initiator, expected) in [
        (2, 3, "a node with neither vCPUs nor a generic initiator"),
        (1, 0, "not the node itself"),
        (3, 0, "of no use on a node without memory"),
        (2, 9, "initiator= of node 2 names node 9"),
    ] {
        let mut config = machine();
        config.numa[node].initiator = Some(initiator);
        only_problem(&config, expected);
    }
}

proptest! {
    #[test]
    fn common_units_divide_all_values_and_no_larger_one_does(values in proptest::collection::vec(1..=u32::MAX, 1..6)) {
        let unit = common_unit(values.iter().copied()).unwrap();
        prop_assert!(values.iter().all(|v| v.is_multiple_of(unit)));
        prop_assert_eq!(common_unit(values.iter().map(|v| v / unit)), Some(1));
    }
}
