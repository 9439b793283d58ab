use super::*;
use std::collections::BTreeSet;

fn module(module: Module, size: u64) -> ModulePlan {
    ModulePlan {
        module,
        handle: None,
        locator: format!("{module:?}"),
        node: Some(3),
        size,
    }
}

fn plan() -> SmbiosPlan {
    SmbiosPlan {
        version: "1.2.3".to_owned(),
        sockets: 2,
        cores: 300,
        threads: 600,
        modules: vec![
            module(Module::Ram(0), 512 << 20),
            module(Module::Slot(0), 0),
            module(Module::Slot(1), 1 << 40),
            module(Module::Nvdimm(4), 256 << 20),
        ],
        ram: vec![GpaRange::new(Gpa(0), 512 << 20)],
    }
}

/// A structure: type, handle, formatted area, strings.
type Read = (u8, u16, Vec<u8>, Vec<String>);

/// All structures up to the end, as a reader walks through them. Section 6.1.
fn walk(mut bytes: &[u8]) -> Vec<Read> {
    let mut all = vec![];
    loop {
        let (kind, len) = (bytes[0], usize::from(bytes[1]));
        let handle = u16::from_le_bytes([bytes[2], bytes[3]]);
        let (formatted, rest) = bytes.split_at(len);
        let end = rest.windows(2).position(|two| two == [0, 0]).unwrap();
        let strings = rest[..end].split(|byte| *byte == 0);
        let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap());
        all.push((
            kind,
            handle,
            formatted.to_vec(),
            strings.filter(|text| !text.is_empty()).collect(),
        ));
        bytes = &rest[end + 2..];
        if kind == 127 {
            assert!(bytes.is_empty());
            return all;
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn structures_have_the_lengths_of_the_specification_and_handles_of_their_own() {
    let all = walk(&table(&plan()));
    let lengths: Vec<_> = all
        .iter()
        .map(|(kind, _, formatted, _)| (*kind, formatted.len()))
        .collect();
    assert_eq!(
        lengths,
        [
            (0, 0x1a),
            (1, 0x1b),
            (3, 0x16),
            (4, 0x30),
            (4, 0x30),
            (16, 0x17),
            (17, 0x5c),
            (17, 0x5c),
            (17, 0x5c),
            (17, 0x5c),
            (19, 0x1f),
            (32, 0xb),
            (127, 4)
        ]
    );
    let handles: BTreeSet<_> = all.iter().map(|(_, handle, ..)| *handle).collect();
    assert_eq!(handles.len(), all.len());
}

#[test]
fn modules_say_what_is_in_them() {
    let all = walk(&table(&plan()));
    let modules: Vec<_> = all.iter().filter(|(kind, ..)| *kind == 17).collect();
    let seen: Vec<_> = modules
        .iter()
        .map(|(_, handle, bytes, _)| {
            let extended = u32::from_le_bytes(bytes[0x1c..0x20].try_into().unwrap());
            (
                *handle,
                word(bytes, 0xc),
                extended,
                bytes[0x12],
                quad(bytes, 0x34),
                quad(bytes, 0x3c),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0x1100, 512, 0, 0x22, 0, 512 << 20),
            (0x1200, 0, 0, 0x22, 0, 0),
            (0x1201, 0x7fff, 1 << 20, 0x22, 0, 1 << 40),
            (0x1404, 256, 0, 0x1f, 256 << 20, 0),
        ]
    );
    assert_eq!(modules[0].3, ["Ram(0)", "Node 3", "daxvisor"]);
    assert_eq!(modules[1].3, ["Slot(0)", "Node 3"], "nobody made what is not there");
}

#[test]
fn a_handle_can_be_given() {
    let mut plan = plan();
    plan.modules[3].handle = Some(0x42);
    let all = walk(&table(&plan));
    assert!(all.iter().any(|(kind, handle, ..)| (*kind, *handle) == (17, 0x42)));
}

#[test]
fn sockets_with_many_cores_say_so_in_the_wide_fields() {
    let all = walk(&table(&plan()));
    let sockets: Vec<_> = all.iter().filter(|(kind, ..)| *kind == 4).collect();
    let (_, _, bytes, strings) = sockets[1];
    assert_eq!(
        (&bytes[0x23..0x26], strings.as_slice()),
        (&[255, 255, 255][..], &["Socket 1".to_owned()][..])
    );
    assert_eq!(
        (word(bytes, 0x2a), word(bytes, 0x2c), word(bytes, 0x2e)),
        (300, 300, 600)
    );
}

#[test]
fn the_entry_point_adds_up_to_nothing() {
    let entry = entry(Gpa(0xf_1000), 0x1234);
    assert_eq!(entry.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(
        (&entry[..5], entry[6], entry[7], entry[8], entry[10]),
        (&b"_SM3_"[..], 24, 3, 7, 1)
    );
    assert_eq!(
        (u32::from_le_bytes(entry[12..16].try_into().unwrap()), quad(&entry, 16)),
        (0x1234, 0xf_1000)
    );
}

#[test]
fn texts_are_plain_and_bounded() {
    let mut plan = plan();
    plan.modules[0].locator = format!("a\0b\u{e9}\n{}", "x".repeat(100));
    let all = walk(&table(&plan));
    let module = all.iter().find(|(kind, ..)| *kind == 17).unwrap();
    assert_eq!(module.3[0], format!("ab{}", "x".repeat(62)));
}
