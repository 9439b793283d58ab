use super::*;
use crate::config::{NumaConfig, kv};

fn range(text: &str) -> MemoryRangeConfig {
    kv::from_str(text, kv::Shape::default()).unwrap()
}

fn problems(ranges: &[&str]) -> Vec<String> {
    let config = VmConfig {
        memory_range: ranges.iter().map(|r| range(r)).collect(),
        ..VmConfig::default()
    };
    let problems = config.validate().err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn sound_ranges_pass() {
    assert_eq!(
        problems(&[
            "size=1G,type=soft-reserved,node=0",
            "size=4K,type=reserved,start=0x40000000",
            "size=64M,type=pram,file=/tmp/pram",
            "size=1M,type=hole,start=1G",
            "size=2M,type=ram,mirror=on",
            "size=16T,type=unusable,id=bad",
        ]),
        Vec::<String>::new()
    );
}

#[test]
fn each_mistake_has_its_message() {
    for (text, expected) in [
        ("size=0,type=ram", "size 0 of memory range range0 is out of range"),
        ("size=4097,type=ram", "size 4097"),
        ("size=17T,type=ram", "size 17T"),
        (
            "size=4K,type=ram,start=0x1001",
            "start 0x1001 of memory range range0 is no multiple of 4K; hint: start=0x1000",
        ),
        ("size=4K,type=hole", "type=hole and no start="),
        ("size=4K,type=hole,start=1G,node=0", "type=hole and node="),
        ("size=4K,type=unusable,file=/x", "type=unusable and file="),
        ("size=4K,type=ram,file=/x", "type=ram and file="),
        ("size=4K,type=pmem,mirror=on", "type=pmem and mirror=on"),
        ("size=4K,type=pmem,node=5", "memory range range0 names node 5"),
        ("size=4K,type=pmem,id=a/b", "'a/b' is no memory range id"),
    ] {
        let found = problems(&[text]);
        assert!(
            matches!(&found[..], [one] if one.contains(expected)),
            "{text}: {found:?}"
        );
    }
    let twice = problems(&["size=4K,type=ram,id=range1", "size=4K,type=ram"]);
    assert!(twice[0].contains("two memory ranges are called 'range1'"), "{twice:?}");
}

#[test]
fn addresses_are_hexadecimal_or_sizes() {
    for (text, value) in [
        ("0x100000000", 1 << 32),
        ("4G", 1 << 32),
        ("4096", 4096),
        ("0xFFFF", 0xffff),
    ] {
        assert_eq!(text.parse::<HexAddress>().unwrap(), HexAddress(value), "{text}");
        assert_eq!(HexAddress(value).to_string().parse(), Ok(HexAddress(value)));
    }
    for text in ["", "0x", "0x+1", "1g1", "0x10000000000000000", "4 G"] {
        assert!(text.parse::<HexAddress>().is_err(), "{text}");
    }
}

#[test]
fn windows_and_mirrors_have_limits() {
    let problems = |hotplug, mirror| {
        let node = NumaConfig {
            hotplug: ByteSize(hotplug),
            mirror: ByteSize(mirror),
            ..NumaConfig::default()
        };
        let config = VmConfig {
            numa: vec![node],
            ..VmConfig::default()
        };
        let problems = config.validate().err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems(1 << 30, 1 << 30), Vec::<String>::new());
    assert!(problems(1 << 20, 0)[0].contains("hotplug 1M of node 0"));
    assert!(problems(0, 2 << 30)[0].contains("up to the node's RAM of 1G"));
    assert!(problems(0, 1000)[0].contains("mirror 1000"));
}
