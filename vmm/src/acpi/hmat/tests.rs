use super::*;
use crate::config::flags;

fn plan(args: &[(&str, &str)]) -> HmatPlan {
    let texts = |flag: &str| -> &'static [String] {
        let of_flag = args.iter().filter(|(f, _)| *f == flag);
        of_flag.map(|(_, t)| (*t).to_owned()).collect::<Vec<_>>().leak()
    };
    let mut config = VmConfig::default();
    flags::apply(&mut config, texts).unwrap();
    config.validate().unwrap();
    HmatPlan::new(&config, &Topology::plan(&config).unwrap()).unwrap()
}

/// Structures of a table by type and bytes.
fn structures(table: &[u8]) -> Vec<(u16, &[u8])> {
    let mut rest = &table[40..];
    let mut found = vec![];
    while let [a, b, _, _, len, ..] = rest {
        let (one, next) = rest.split_at(usize::from(*len));
        found.push((u16::from_le_bytes([*a, *b]), one));
        rest = next;
    }
    found
}

#[test]
fn table_is_as_computed_by_hand() {
    let table = table(&plan(&[
        ("numa", "node=0"),
        ("numa", "node=2"),
        ("nvdimm", "size=16M,node=2"),
        ("hmat", "initiator=0,target=0,latency=100ns,bandwidth=20GB/s"),
        (
            "hmat",
            "initiator=0,target=2,read-latency=300ns,write-latency=150ns,bandwidth=2.5GB/s",
        ),
        ("memory-cache", "node=2,size=1G,associativity=direct,write-policy=back"),
    ]));
    assert_eq!((&table[..4], table[8], &table[36..40]), (&b"HMAT"[..], 2, &[0; 4][..]));
    let hex = |text: &str| -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect()
    };
    let expected = [
        // Node 0 is attached to itself, node 2 to nobody.
        hex("0000 0000 28000000 0100 0000 00000000 00000000 0000000000000000000000000000000000000000"),
        hex("0000 0000 28000000 0000 0000 00000000 02000000 0000000000000000000000000000000000000000"),
        // Read latency: 1 initiator, 2 targets, unit 100000 ps, entries 1 and 3.
        hex(
            "0100 0000 30000000 00 01 00 00 01000000 02000000 00000000 a086010000000000 00000000 00000000 02000000 0100 0300",
        ),
        // Write latency: unit 50000 ps, entries 2 and 3.
        hex(
            "0100 0000 30000000 00 02 00 00 01000000 02000000 00000000 50c3000000000000 00000000 00000000 02000000 0200 0300",
        ),
        // Access bandwidth: unit 2500 MB/s, entries 8 and 1.
        hex(
            "0100 0000 30000000 00 03 00 00 01000000 02000000 00000000 c409000000000000 00000000 00000000 02000000 0800 0100",
        ),
        // One level, level 1, direct mapped, write back, lines of 64 bytes.
        hex("0200 0000 20000000 02000000 00000000 0000004000000000 11114000 0000 0000"),
    ];
    let found: Vec<_> = structures(&table)
        .into_iter()
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "structure {n}: {found:02x?}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn pairs_without_values_have_entry_zero() {
    let table = table(&plan(&[
        ("cpus", "2"),
        ("numa", "node=0,cpus=0,memory=512M"),
        ("numa", "node=1,cpus=1,memory=512M"),
        ("hmat", "initiator=1,target=0,latency=7ps"),
    ]));
    let found = structures(&table);
    let [.., (1, locality)] = found[..] else {
        panic!("{found:02x?}")
    };
    assert_eq!(found.len(), 3, "no bandwidths, no structure");
    assert_eq!(locality[24..32], 7u64.to_le_bytes());
    assert_eq!(locality[48..], [0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn attached_initiators_are_named_even_without_values() {
    let table = table(&plan(&[("numa", "node=0"), ("numa", "node=1,hotplug=1G,initiator=0")]));
    let found = structures(&table);
    assert_eq!(found.len(), 2);
    assert_eq!((found[1].1[8], &found[1].1[12..20]), (1, &[0, 0, 0, 0, 1, 0, 0, 0][..]));
}
