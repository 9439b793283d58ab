use super::*;
use crate::{
    config::{NvdimmConfig, probe::BackingFacts},
    memory::backing::{BackingError, open, open_encrypted},
};
use devices::{
    Clock,
    nvdimm::security::{KdfCost, MediaControl, PASSPHRASE, Passphrase, Security, SecurityError, Settings},
    units::ByteSize,
};
use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

const SIZE: u64 = 16 << 20;
const LABEL: u64 = 128 << 10;
const SECRET: &[u8] = b"nobody may read this";
const LABEL_TEXT: &[u8] = b"nor the labels";

fn config(path: &Path) -> (NvdimmConfig, BackingFacts) {
    let text = format!("file = '{}'\nsize = {SIZE}\nencrypt = true", path.display());
    let facts = BackingFacts {
        size: ByteSize(SIZE),
        page: ByteSize::kib(4),
    };
    (toml::from_str(&text).unwrap(), facts)
}

fn pass(byte: u8) -> Passphrase {
    Passphrase::new([byte; PASSPHRASE])
}

/// A DIMM without a machine around it: stores of the guest are ours.
struct Bench {
    dimm: Arc<EncryptedDimm>,
    labels: EncryptedLabels,
    security: Security,
    clock: Clock,
    path: PathBuf,
}

impl Bench {
    fn start(path: &Path) -> Self {
        let (config, facts) = config(path);
        let dimm = Arc::new(open_encrypted(&config, facts).unwrap());
        let clock = Clock::manual();
        let settings = Settings {
            cost: KdfCost {
                memory_kib: 8,
                passes: 1,
            },
            overwrite: Duration::from_secs(5),
        };
        let media = Box::new(EncryptedMedia(dimm.clone()));
        Self {
            security: Security::new(dimm.security(), media, &clock, settings).unwrap(),
            labels: EncryptedLabels(dimm.clone()),
            dimm,
            clock,
            path: path.to_owned(),
        }
    }

    /// As the guest stores, and as KVM notes it.
    fn store(&self, at: u64, bytes: &[u8]) {
        self.dimm.contents.memory.write_all_at(bytes, at).unwrap();
        self.dimm.pending.insert(at / PAGE_BYTES);
    }

    fn load(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.dimm.contents.memory.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn label(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; LABEL_TEXT.len()];
        self.labels.read(1000, &mut bytes).map(|()| bytes)
    }

    /// Bytes of memory that hold something.
    fn resident(&self) -> u64 {
        self.dimm.contents.memory.metadata().unwrap().blocks() * 512
    }

    fn on_disk(&self, text: &[u8]) -> bool {
        fs::read(&self.path)
            .unwrap()
            .windows(text.len())
            .any(|window| window == text)
    }

    fn finish_overwrite(&mut self) {
        self.clock.advance(Duration::from_secs(5));
        for _ in 0..1000 {
            match self.security.query_overwrite() {
                Err(SecurityError::Overwriting) => std::thread::sleep(Duration::from_millis(10)),
                other => return other.unwrap(),
            }
        }
        panic!("the overwrite does not end");
    }
}

/// A DIMM with something in it.
fn filled() -> (tempfile::TempDir, Bench) {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(&dir.path().join("dimm"));
    bench.store(0x5123, SECRET);
    bench.store(SIZE - LABEL - 4096, SECRET);
    bench.labels.write(1000, LABEL_TEXT).unwrap();
    bench.dimm.flush().unwrap();
    (dir, bench)
}

#[test]
fn contents_come_back_and_the_file_has_none_of_them() {
    let (_dir, bench) = filled();
    assert!(!bench.on_disk(SECRET) && !bench.on_disk(LABEL_TEXT));
    assert_eq!(fs::metadata(&bench.path).unwrap().len(), SIZE);
    let path = bench.path.clone();
    drop(bench);
    let bench = Bench::start(&path);
    assert_eq!(bench.load(0x5123, SECRET.len()), SECRET);
    assert_eq!(bench.load(SIZE - LABEL - 4096, SECRET.len()), SECRET);
    assert_eq!(bench.label().unwrap(), LABEL_TEXT);
    assert_eq!(bench.load(0x9000, 4096), [0; 4096]);
    assert!(
        bench.resident() <= 64 << 10,
        "only pages that hold something may take memory"
    );
}

#[test]
fn only_what_was_stored_to_is_written_and_only_once() {
    let (_dir, bench) = filled();
    let before = fs::read(&bench.path).unwrap();
    bench.dimm.contents.memory.write_all_at(b"unnoticed", 0x7000).unwrap();
    bench.dimm.write_back().unwrap();
    assert_eq!(fs::read(&bench.path).unwrap(), before);
    bench.store(0x5123, b"NOBODY");
    bench.dimm.write_back().unwrap();
    let after = fs::read(&bench.path).unwrap();
    let changed: Vec<_> = (0..before.len() / PAGE)
        .filter(|page| before[page * PAGE..][..PAGE] != after[page * PAGE..][..PAGE])
        .collect();
    assert_eq!(changed, [5]);
}

#[test]
fn locked_dimm_has_no_plaintext_and_no_labels_until_it_is_unlocked() {
    let (_dir, mut bench) = filled();
    bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
    bench.store(0x8000, SECRET);
    bench.security.power_cycle().unwrap();
    assert_eq!(bench.resident(), 0);
    assert!(bench.dimm.lock().keys.is_none());
    assert_eq!(bench.label().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert!(matches!(
        bench.security.unlock(&pass(2)),
        Err(SecurityError::Passphrase)
    ));
    assert_eq!(bench.resident(), 0);
    bench.security.unlock(&pass(1)).unwrap();
    assert_eq!(bench.load(0x8000, SECRET.len()), SECRET, "a lock must write back first");
    assert_eq!(bench.label().unwrap(), LABEL_TEXT);
}

#[test]
fn passphrase_is_needed_after_a_restart() {
    let (_dir, mut bench) = filled();
    bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
    bench.security.set_passphrase(&pass(1), &pass(2)).unwrap();
    let path = bench.path.clone();
    drop(bench);
    let mut bench = Bench::start(&path);
    assert!(bench.security.is_locked() && bench.resident() == 0);
    assert!(matches!(
        bench.security.unlock(&pass(1)),
        Err(SecurityError::Passphrase)
    ));
    bench.security.unlock(&pass(2)).unwrap();
    assert_eq!(bench.load(0x5123, SECRET.len()), SECRET);
    bench.security.disable(&pass(2)).unwrap();
    drop(bench);
    let bench = Bench::start(&path);
    assert_eq!(bench.load(0x5123, SECRET.len()), SECRET);
}

#[test]
fn erase_leaves_data_that_the_old_key_alone_would_read_and_keeps_labels() {
    for locked in [false, true] {
        let (_dir, mut bench) = filled();
        let old = bench.dimm.lock().key_file.keys(None).unwrap();
        bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
        if locked {
            bench.security.lock_now().unwrap();
        }
        bench.security.erase(&pass(1)).unwrap();
        let new = bench.dimm.lock().key_file.keys(None).unwrap();
        assert!(new.data != old.data && new.labels == old.labels);
        assert_ne!(bench.load(0x5123, SECRET.len()), SECRET);
        assert_ne!(bench.load(0x5123, SECRET.len()), [0; 20], "it reads as noise");
        assert_eq!(
            bench.load(0x9000, 4096),
            [0; 4096],
            "what was never written is still nothing"
        );
        assert_eq!(bench.label().unwrap(), LABEL_TEXT);
        let mut page = fs::read(&bench.path).unwrap()[0x5000..0x6000].to_vec();
        PageCipher::new(&old.data).decrypt(&mut page, 5);
        assert_eq!(&page[0x123..][..SECRET.len()], SECRET, "the old key was the only way");
        let key_file = fs::read_to_string(bench.path.with_extension("keys")).unwrap();
        let start: String = old.data.0.iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert!(!key_file.contains(&start), "the old key must be gone");
    }
}

#[test]
fn master_erase_of_a_locked_dimm_loses_the_labels_too_and_makes_it_usable() {
    let (_dir, mut bench) = filled();
    bench.security.set_master(&pass(0), &pass(5)).unwrap();
    bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
    bench.security.lock_now().unwrap();
    bench.security.master_erase(&pass(5)).unwrap();
    assert_ne!(bench.load(0x5123, SECRET.len()), SECRET);
    assert_eq!(bench.label().unwrap(), [0; LABEL_TEXT.len()]);
    bench.labels.write(1000, LABEL_TEXT).unwrap();
    let path = bench.path.clone();
    drop(bench);
    assert_eq!(Bench::start(&path).label().unwrap(), LABEL_TEXT);
}

#[test]
fn overwrite_leaves_zeros_in_data_labels_and_file() {
    let (_dir, mut bench) = filled();
    bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
    bench.security.overwrite(&pass(1)).unwrap();
    assert_eq!(bench.resident(), 0);
    bench.finish_overwrite();
    assert!(fs::read(&bench.path).unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(bench.load(0x5123, SECRET.len()), [0; 20]);
    assert_eq!(bench.label().unwrap(), [0; LABEL_TEXT.len()]);
    bench.store(0x5000, SECRET);
    bench.dimm.flush().unwrap();
    assert!(!bench.on_disk(SECRET) && bench.security.is_open());
}

#[test]
fn overwrite_that_was_cut_off_begins_again_at_the_next_start() {
    for passphrase in [false, true] {
        let (_dir, mut bench) = filled();
        let mut state = bench.dimm.security();
        if passphrase {
            bench.security.set_passphrase(&pass(0), &pass(1)).unwrap();
            state = bench.dimm.security();
        }
        state.overwriting = true;
        EncryptedMedia(bench.dimm.clone()).store(&state).unwrap();
        let path = bench.path.clone();
        drop(bench);
        let mut bench = Bench::start(&path);
        bench.finish_overwrite();
        assert!(fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(bench.security.is_open(), !passphrase);
        assert_eq!(bench.label().is_ok(), !passphrase);
    }
}

#[test]
fn pages_that_cannot_be_written_wait_for_the_next_time() {
    let (_dir, bench) = filled();
    bench.store(0xa000, SECRET);
    let broken = EncryptedDimm {
        contents: Contents {
            // Opened for reading.
            file: Arc::new(File::open(&bench.path).unwrap()),
            ..bench.dimm.contents.clone()
        },
        state: Mutex::new(State {
            keys: Some(Unlocked::new(bench.dimm.lock().key_file.keys(None).unwrap())),
            shown: true,
            key_file: KeyFile::open(&bench.path.with_extension("keys"), SIZE, LABEL).unwrap(),
            windows: vec![],
            overwrite: None,
        }),
        pending: bench.dimm.pending(),
        label: LABEL,
    };
    assert!(broken.write_back().is_err());
    bench.dimm.write_back().unwrap();
    assert_eq!(bench.dimm.pending.take(1), []);
    let path = bench.path.clone();
    drop((bench, broken));
    assert_eq!(Bench::start(&path).load(0xa000, SECRET.len()), SECRET);
}

#[test]
fn labels_cross_pages_and_end_with_the_area() {
    let (_dir, mut bench) = filled();
    let text: Vec<u8> = (0..=255).cycle().take(4096).collect();
    bench.labels.write(2048, &text).unwrap();
    let mut back = vec![0; 4096];
    bench.labels.read(2048, &mut back).unwrap();
    assert_eq!(back, text);
    let last = u32::try_from(LABEL).unwrap() - 4;
    bench.labels.write(last, b"last").unwrap();
    assert!(bench.labels.write(last + 1, b"last").is_err());
    assert_eq!(bench.load(0x5123, SECRET.len()), SECRET);
}

fn refusal(path: &Path) -> String {
    let (config, facts) = config(path);
    open_encrypted(&config, facts).err().unwrap().to_string()
}

#[test]
fn files_without_keys_and_keys_without_files_are_refused_and_stay() {
    let (_dir, bench) = filled();
    let (path, keys) = (bench.path.clone(), bench.path.with_extension("keys"));
    drop(bench);
    let (contents, key_text) = (fs::read(&path).unwrap(), fs::read(&keys).unwrap());
    let (mut plain, facts) = config(&path);
    plain.encrypt = false;
    let error = open(&plain, facts).err().unwrap();
    assert!(matches!(error, BackingError::Encrypted(..)), "{error}");

    fs::remove_file(&keys).unwrap();
    assert!(refusal(&path).contains("has no key file"), "{}", refusal(&path));
    fs::write(&keys, &key_text).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(refusal(&path).contains("does not; hint:"), "{}", refusal(&path));
    assert!(!path.exists());
    fs::write(&path, &contents).unwrap();
    assert_eq!(Bench::start(&path).label().unwrap(), LABEL_TEXT);
}

#[test]
fn start_that_fails_leaves_neither_file_nor_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dimm");
    let (mut config, facts) = config(&path);
    config.backing = crate::config::NvdimmBacking::Hugetlbfs;
    open_encrypted(&config, facts).map(drop).unwrap_err();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
