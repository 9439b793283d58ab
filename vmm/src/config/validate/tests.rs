use super::*;
use crate::config::flags;

fn config(args: &[(&str, &str)]) -> VmConfig {
    let texts = |flag: &str| -> &'static [String] {
        args.iter()
            .filter(|(f, _)| *f == flag)
            .map(|(_, t)| (*t).to_owned())
            .collect::<Vec<_>>()
            .leak()
    };
    let mut config = VmConfig::default();
    flags::apply(&mut config, texts).unwrap();
    config
}

fn problems(args: &[(&str, &str)]) -> Vec<String> {
    config(args)
        .validate()
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// One problem, which begins with `text`.
fn refused(args: &[(&str, &str)], text: &str) {
    let found = problems(args);
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with(text)),
        "{args:?}: {found:#?}"
    );
}

fn accepted(args: &[(&str, &str)]) {
    assert_eq!(problems(args), Vec::<String>::new(), "{args:?}");
}

fn shape(args: &[(&str, &str)]) -> (u8, u8, u8) {
    let shape = config(args).cpu_shape().unwrap();
    (shape.sockets, shape.cores, shape.threads)
}

#[test]
fn default_machine_is_valid() {
    accepted(&[]);
    accepted(&[("nvdimm", "a,size=16M"), ("nvdimm", "size=1T,label=0"), ("cpus", "64")]);
}

#[test]
fn every_problem_is_reported_at_once() {
    let found = problems(&[
        ("cpus", "3,cores=2"),
        ("cpu", "vendor=Intel,-no feature"),
        ("memory", "10M,hugepages=3M"),
        ("distance", "from=0,to=7,value=5"),
        ("nvdimm", "a,size=1M,node=9"),
        ("nvdimm", "a,size=512M,label=4K,id=nvdimm0"),
    ]);
    let expected = [
        "cpu vendor 'Intel' cannot be put in CPUID",
        "'no feature' is no cpu feature's name",
        "3 vCPUs do not divide into cores=2",
        "a distance from 0 to 7 names node 7, which is not defined",
        "distance 5 from node 0 to node 7 is out of range",
        "memory size 10M is out of range",
        "hugepages 3M is no huge page size",
        "memory 10M of node 0 is no multiple of 3M",
        "nvdimm0 names node 9, which is not defined: the nodes are 0; hint: add --numa node=9",
        "size 1M of nvdimm0 is out of range",
        "a is named both for nvdimm0 and for nvdimm0",
        "label 4K of nvdimm0 is out of range",
        "two nvdimms are called 'nvdimm0'",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} // {expected}");
    }
}

#[test]
fn shape_must_multiply_to_the_count() {
    for cpus in ["0", "65", "255"] {
        refused(
            &[("cpus", cpus)],
            &format!("{cpus} vCPUs are asked for: expected 1 to 64"),
        );
    }
    refused(
        &[("cpus", "4,sockets=1,cores=2,threads=1")],
        "4 vCPUs do not divide into sockets=1 cores=2 threads=1",
    );
    refused(&[("cpus", "4,sockets=0")], "4 vCPUs do not divide into sockets=0");
    refused(
        &[("cpus", "4,sockets=16,cores=16")],
        "4 vCPUs do not divide into sockets=16 cores=16",
    );
    assert_eq!(shape(&[("cpus", "8")]), (1, 8, 1));
    assert_eq!(shape(&[("cpus", "8,threads=2")]), (1, 4, 2));
    assert_eq!(shape(&[("cpus", "8,cores=2")]), (4, 2, 1));
    assert_eq!(shape(&[("cpus", "8,sockets=2")]), (2, 4, 1));
    assert_eq!(shape(&[("cpus", "8,sockets=2,cores=2")]), (2, 2, 2));
}

#[test]
fn sockets_follow_nodes_and_never_span_them() {
    let two = |first, second| [("cpus", "4"), ("numa", first), ("numa", second)];
    assert_eq!(shape(&two("node=0,cpus=0-1", "node=1,cpus=2-3")), (2, 2, 1));
    assert_eq!(shape(&two("node=0,cpus=0-2", "node=1,cpus=3")), (4, 1, 1), "uneven");
    assert_eq!(
        shape(&two("node=0,cpus=[0,2]", "node=1,cpus=[1,3]")),
        (4, 1, 1),
        "interleaved"
    );
    assert_eq!(
        shape(&two("node=0,cpus=0-3", "node=1")),
        (1, 4, 1),
        "a memory-only node is no socket"
    );
}

#[test]
fn nodes_claim_every_vcpu_once_or_none() {
    accepted(&[("cpus", "4"), ("numa", "node=1"), ("nvdimm", "a,size=16M,node=1")]);
    accepted(&[("cpus", "2"), ("numa", "node=1,cpus=0"), ("numa", "node=2,cpus=1")]);
    refused(
        &[("cpus", "4"), ("numa", "node=0,cpus=0-1")],
        "no node lists vCPU 2-3; hint:",
    );
    refused(
        &[("cpus", "2"), ("numa", "node=0,cpus=0-2")],
        "node 0 lists vCPU 2, but there are only 2, from 0 on; hint: --cpus 3",
    );
    refused(
        &[("cpus", "2"), ("numa", "node=0,cpus=0-1"), ("numa", "node=1,cpus=1")],
        "vCPU 1 is listed more than once",
    );
    refused(&[("numa", "node=1"), ("numa", "node=1")], "node 1 is defined twice");
    refused(&[("numa", "node=64")], "node 64 is out of range: expected 0 to 63");
}

#[test]
fn memory_of_the_nodes_is_the_memory_of_the_machine() {
    let nodes = ("numa", "node=0,memory=256M");
    let other = ("numa", "node=1,memory=512M");
    assert_eq!(config(&[nodes, other]).ram(), ByteSize::mib(768));
    accepted(&[nodes, other]);
    accepted(&[nodes, other, ("memory", "768M")]);
    refused(
        &[nodes, other, ("memory", "1G")],
        "the nodes' memory adds up to 768M, but memory size is 1G",
    );
    let plain = config(&[("numa", "node=1"), ("memory", "2G")]);
    assert_eq!(plain.node_memory(), [(0, ByteSize::gib(2))].into());
}

#[test]
fn memory_comes_in_whole_pages_and_nodes_in_whole_sections() {
    accepted(&[("memory", "64M")]);
    refused(
        &[("memory", "62M")],
        "memory size 62M is out of range: expected 64M to 64T",
    );
    refused(&[("memory", "65T")], "memory size 65T is out of range");
    refused(
        &[("memory", "65M")],
        "memory 65M of node 0 is no multiple of 2M: expected whole pages",
    );
    refused(
        &[("memory", "1026M,hugepages=1G")],
        "memory 1026M of node 0 is no multiple of 1G: expected whole pages",
    );
    refused(
        &[("memory", "1G,hugepages=4K")],
        "hugepages 4K is no huge page size: expected 2M or 1G",
    );
    accepted(&[("numa", "node=0,memory=128M"), ("numa", "node=3,memory=66M")]);
    refused(
        &[("numa", "node=0,memory=192M"), ("numa", "node=3,memory=66M")],
        "memory 192M of node 0 is no multiple of 128M: expected whole memory sections before another node's memory",
    );
}

#[test]
fn distances_are_symmetric_and_in_range() {
    let nodes = [("numa", "node=0,distance=1:21"), ("numa", "node=1,distance=0:21")];
    accepted(&nodes);
    accepted(&[nodes[0], nodes[1], ("distance", "from=1,to=0,value=21")]);
    let conflict = [nodes[0], nodes[1], ("distance", "from=0,to=1,value=255")];
    refused(
        &conflict[..],
        "the distance between node 0 and node 1 is given as 255 and as 21",
    );
    refused(
        &[("distance", "from=0,to=0,value=10")],
        "a distance from node 0 to itself is given",
    );
    refused(
        &[("numa", "node=1,distance=0:10")],
        "distance 10 from node 1 to node 0 is out of range: expected 11 to 254",
    );
}

#[test]
fn nvdimm_limits_are_kept() {
    for size in ["16M", "1T", "1048580K"] {
        accepted(&[("nvdimm", &format!("a,size={size}"))]);
    }
    for size in ["15M", "1025G", "16777217", "0"] {
        refused(&[("nvdimm", &format!("a,size={size},label=0"))], "size ");
    }
    for label in ["1", "64K", "129K", "9M", "128M"] {
        refused(
            &[("nvdimm", &format!("a,size=16M,label={label}"))],
            &format!("label {label} of nvdimm0 is out of range"),
        );
    }
    accepted(&[("nvdimm", "a,size=16M,label=8M")]);
    refused(&[("nvdimm", "a,size=16M,id=a b")], "'a b' is no nvdimm id");
    let names: Vec<_> = (0..33).map(|n| format!("f{n},size=16M")).collect();
    let many: Vec<_> = names.iter().map(|n| ("nvdimm", n.as_str())).collect();
    accepted(&many[..32]);
    refused(&many, "33 nvdimms are asked for: expected at most 32");
}

#[test]
fn scrubs_have_a_time_and_room_for_records() {
    let read = config(&[("ars", "scan-time=2s,records=170")]).ars;
    assert_eq!((read.scan_time.0.as_millis(), read.records), (2000, 170));
    accepted(&[("ars", "scan-time=0s"), ("ars", "records=2048")]);
    refused(
        &[("ars", "records=0")],
        "records=0 of ars is out of range: expected 1 to 2048",
    );
    refused(&[("ars", "records=2049")], "records=2049 of ars");
}

#[test]
fn the_polled_error_source_is_looked_at_now_and_then() {
    let read = config(&[("apei", "on,poll=100ms")]).apei;
    assert!(read.enabled);
    assert_eq!(read.poll_ms(), 100);
    assert!(!config(&[]).apei.enabled);
    accepted(&[("apei", "on,poll=60min")]);
    accepted(&[("apei", "on,records=r")]);
    refused(
        &[("apei", "off,records=r")],
        "records=r of apei has nobody who writes it: expected enabled=on as well",
    );
    assert!(config(&[("apei", "on,extlog=on")]).apei.has_extlog());
    assert!(!config(&[("apei", "on")]).apei.has_extlog());
    refused(
        &[("apei", "off,extlog=on")],
        "extlog=on of apei is part of what is switched off: expected enabled=on as well; hint: --apei on,extlog=on",
    );
    // Nobody looks.
    accepted(&[("apei", "off,poll=0s")]);
    refused(
        &[("apei", "on,poll=99ms")],
        "poll=99ms of apei is out of range: expected 100ms to 60min",
    );
    refused(&[("apei", "on,poll=61min")], "poll=61min of apei");
}

#[test]
fn nvdimm_backing_and_file_agree() {
    refused(&[("nvdimm", "label=0")], "nvdimm0 has no size; hint: add size=SIZE");
    refused(&[("nvdimm", "a,backing=file")], "nvdimm0 has no size");
    accepted(&[("nvdimm", "a")]);
    refused(
        &[("nvdimm", "a,size=16M,backing=memfd")],
        "nvdimm0 has backing=memfd and a file; hint: leave out file=",
    );
    for backing in ["file", "hugetlbfs", "devdax"] {
        let text = format!("size=16M,backing={backing}");
        refused(
            &[("nvdimm", &text)],
            &format!("nvdimm0 has backing={backing} and no file; hint: add file="),
        );
    }
    refused(
        &[("nvdimm", "size=16M,readonly=on")],
        "nvdimm0 has backing=memfd and readonly=on",
    );
}

#[test]
fn flushes_need_storage_and_a_platform_that_asks_for_them() {
    for (text, with) in [
        ("size=16M,flush=msync", "no file="),
        ("file=/x,size=16M,flush=msync,readonly=on", "readonly=on"),
        ("file=/x,size=16M,flush=msync,backing=hugetlbfs", "backing=hugetlbfs"),
    ] {
        refused(
            &[("nvdimm", text)],
            &format!(
                "nvdimm0 has flush=msync and {with}: expected storage that stores can reach; hint: use flush=count"
            ),
        );
    }
    accepted(&[("nvdimm", "size=16M,flush=count")]);
    accepted(&[("nvdimm", "file=/dev/dax0.0,flush=msync,backing=devdax")]);
    let cache = ("nvdimm-bus", "0,persistence=cpu-cache");
    accepted(&[("nvdimm", "file=/x,size=16M"), cache]);
    for dimm in [
        "file=/x,size=16M,flush=msync",
        "file=/x,size=16M,encrypt=on",
        "size=16M,flush=count",
    ] {
        refused(
            &[("nvdimm", dimm), cache],
            "nvdimm bus 0 has persistence=cpu-cache, with which no guest uses the flush hint of nvdimm0; hint: leave out",
        );
        accepted(&[("nvdimm", dimm), ("nvdimm-bus", "0,persistence=none")]);
        accepted(&[("nvdimm", dimm), ("nvdimm-bus", "1,persistence=cpu-cache")]);
    }
    accepted(&[("nvdimm", "file=/x,size=16M,encrypt=on,flush=none"), cache]);
}

#[test]
fn health_is_in_percent_and_degrees() {
    let dimm = "size=16M,health-condition=fatal,health-spares=100,health-media-temperature=-40,health-alarms=[]";
    accepted(&[("nvdimm", dimm)]);
    for key in ["health-spares", "health-life-used", "health-spares-threshold"] {
        refused(
            &[("nvdimm", &format!("size=16M,{key}=101"))],
            &format!("nvdimm0 has {key}=101: expected 0 to 100 percent"),
        );
    }
}

#[test]
fn only_written_files_can_be_encrypted() {
    for (text, with) in [
        ("size=16M,encrypt=on", "no file="),
        ("file=/x,size=16M,encrypt=on,readonly=on", "readonly=on"),
        ("file=/x,size=16M,encrypt=on,backing=hugetlbfs", "backing=hugetlbfs"),
        ("file=/dev/dax0.0,encrypt=on,backing=devdax", "backing=devdax"),
    ] {
        refused(
            &[("nvdimm", text)],
            &format!(
                "nvdimm0 has encrypt=on and {with}: expected a regular file that is written; hint: leave out one of them"
            ),
        );
    }
}

#[test]
fn texts_that_cannot_be_passed_on_are_refused() {
    refused(
        &[("cmdline", "a\nb")],
        "the kernel command line has the control character '\\n'",
    );
    let long = "x".repeat(108);
    refused(&[("agent-socket", &long)], "the agent socket path xxx");
}

#[test]
fn flags_change_the_file_key_by_key_and_lists_entry_by_entry() {
    let text = "
        memory = { size = '2G', shared = true }
        [[nvdimm]]
        file = 'a'
        size = '16M'
        [[nvdimm]]
        file = 'b'
        size = '32M'
        id = 'second'
    ";
    let mut config: VmConfig = toml::from_str(text).unwrap();
    let given = |flag: &str| -> &'static [String] {
        let texts: &[&str] = match flag {
            "memory" => &["size=1G"],
            "nvdimm" => &[
                "c,size=64M,id=second",
                "d,size=16M",
                "e,size=16M,id=nvdimm0",
                "f,size=16M,id=second",
            ],
            _ => &[],
        };
        texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>().leak()
    };
    flags::apply(&mut config, given).unwrap();
    assert_eq!(
        config.memory,
        MemoryConfig {
            size: Some(ByteSize::gib(1)),
            hugepages: None,
            shared: true
        }
    );
    let files: Vec<_> = config
        .nvdimm
        .iter()
        .map(|n| n.file.as_ref().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(files, ["e", "c", "d", "f"], "replaced in place, or appended");
    let twice = config.validate().unwrap_err();
    assert!(
        matches!(twice.as_slice(), [ConfigError::NvdimmId(id)] if id == "second"),
        "{twice:?}"
    );
}
