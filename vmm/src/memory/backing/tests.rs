use super::*;
use std::os::unix::fs::MetadataExt;
use vm_memory::{Bytes, VolatileMemory};

const PAGE: ByteSize = ByteSize::kib(4);

fn dimm(path: &Path, size: ByteSize) -> (NvdimmConfig, BackingFacts) {
    let text = format!("file = '{}'\nsize = '{size}'", path.display());
    (toml::from_str(&text).unwrap(), BackingFacts { size, page: PAGE })
}

fn refusal(config: &NvdimmConfig, facts: BackingFacts) -> String {
    match open(config, facts) {
        Ok(_) => panic!("must be refused"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_missing_file_is_made_sparse_of_exact_size_with_room_for_labels() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize::gib(64));
    let opened = open(&config, facts).unwrap();
    assert_eq!(opened.mapping.size() as u64, ByteSize::gib(64).0);
    assert_eq!(opened.access, Access::ReadWrite);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), ByteSize::gib(64).0);
    let allocated = meta.blocks() * 512;
    assert!(
        (128 << 10..1 << 20).contains(&allocated),
        "{allocated} bytes are allocated"
    );
}

#[test]
fn labels_are_the_end_of_the_file_and_data_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize::mib(16));
    let opened = open(&config, facts).unwrap();
    let mut labels = opened.labels.unwrap();
    assert_eq!(labels.size(), 128 << 10);
    labels.write(0, b"first").unwrap();
    labels.write((128 << 10) - 4, b"last").unwrap();
    opened.mapping.get_slice(0, 4).unwrap().write_slice(b"data", 0).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..4], b"data");
    assert_eq!(&bytes[(16 << 20) - (128 << 10)..][..5], b"first");
    assert_eq!(&bytes[(16 << 20) - 4..], b"last");
    let mut back = [0; 4];
    labels.read((128 << 10) - 4, &mut back).unwrap();
    assert_eq!(&back, b"last");
}

#[test]
fn another_length_is_refused_and_the_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let (config, facts) = dimm(&path, ByteSize::mib(16));
    let error = refusal(&config, facts);
    assert!(
        error.contains("is 1M long, but `size=16M`") && error.contains("hint:"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
}

#[test]
fn a_file_has_one_writer_or_many_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize::mib(16));
    let reader = NvdimmConfig {
        readonly: true,
        ..config.clone()
    };
    let writer = open(&config, facts).unwrap();
    for second in [&config, &reader] {
        assert!(refusal(second, facts).contains("in use by another process"));
    }
    drop(writer);
    let first = open(&reader, facts).unwrap();
    let _second = open(&reader, facts).unwrap();
    // A guest's store stays with the run.
    first.mapping.get_slice(0, 4).unwrap().write_slice(b"mine", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap()[..4], [0; 4]);
    assert!(refusal(&config, facts).contains("in use by another process"));
}

#[test]
fn a_read_only_dimm_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (mut config, facts) = dimm(&path, ByteSize::mib(16));
    config.readonly = true;
    assert!(refusal(&config, facts).contains("does not exist"));
    assert!(!path.exists());
}

#[test]
fn what_is_neither_file_nor_devdax_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (config, facts) = dimm(dir.path(), ByteSize::mib(16));
    assert!(refusal(&config, facts).contains("cannot open"));
    let readonly = NvdimmConfig {
        readonly: true,
        ..config
    };
    assert!(refusal(&readonly, facts).contains("is a folder"));
}

#[test]
fn a_backing_kind_that_is_not_there_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (mut config, facts) = dimm(&path, ByteSize::mib(16));
    config.backing = NvdimmBacking::Hugetlbfs;
    assert!(refusal(&config, facts).contains("`backing=hugetlbfs` was asked for"));
    assert!(!path.exists());
}

#[test]
fn a_length_no_file_system_holds_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize(1 << 62));
    let error = refusal(&config, facts);
    assert!(error.contains("cannot extend") && error.contains("hint:"), "{error}");
    assert!(!path.exists());
}

#[test]
fn memory_without_a_file_has_labels_too() {
    let config: NvdimmConfig = toml::from_str("size = '16M'").unwrap();
    let opened = open(
        &config,
        BackingFacts {
            size: ByteSize::mib(16),
            page: PAGE,
        },
    )
    .unwrap();
    let mut labels = opened.labels.unwrap();
    labels.write(5, &[1, 2]).unwrap();
    let mut back = [0; 3];
    labels.read(4, &mut back).unwrap();
    assert_eq!(back, [0, 1, 2]);
}

#[test]
fn a_file_that_does_not_exist_yet_is_held_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize::mib(16));
    let held = hold(&config, facts).unwrap().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 16 << 20);
    match hold(&config, facts) {
        Err(BackingError::InUse(found)) => assert_eq!(found, path),
        _ => panic!("a second start must find it taken"),
    }
    drop(held);
    assert!(hold(&config, facts).unwrap().is_some());
    assert!(path.exists());
}

#[test]
fn a_held_file_of_a_failed_start_goes_unless_it_was_written_or_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let (config, facts) = dimm(&path, ByteSize::mib(16));
    hold(&config, facts).unwrap().unwrap().discard_untouched();
    assert!(!path.exists());
    for (at, bytes) in [
        (0, b"data"),
        ((16 << 20) - (128 << 10), b"labl"),
        ((16 << 20) - 4, b"last"),
    ] {
        let held = hold(&config, facts).unwrap().unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(bytes, at).unwrap();
        held.discard_untouched();
        assert!(path.exists(), "{bytes:?} at {at}");
        hold(&config, facts).unwrap().unwrap().discard_untouched();
        assert!(path.exists(), "it was there before");
        fs::remove_file(&path).unwrap();
    }
    let readonly = NvdimmConfig {
        readonly: true,
        ..config
    };
    assert!(hold(&readonly, facts).is_err() && !path.exists());
}
