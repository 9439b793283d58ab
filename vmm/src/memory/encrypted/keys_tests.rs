use super::*;
use devices::nvdimm::security::{KdfCost, PASSPHRASE, Passphrase, SALT, Verifier};

const SIZE: u64 = 16 << 20;
const LABEL: u64 = 128 << 10;
const CHEAP: KdfCost = KdfCost {
    memory_kib: 8,
    passes: 1,
};

fn passphrase(byte: u8) -> (SecurityState, WrappingKey) {
    let made = Verifier::new(&Passphrase::new([byte; PASSPHRASE]), [byte; SALT], CHEAP);
    let (verifier, key) = made.unwrap();
    let state = SecurityState {
        user: Some(verifier),
        ..SecurityState::default()
    };
    (state, key)
}

fn open(path: &Path) -> Result<KeyFile, KeyError> {
    KeyFile::open(path, SIZE, LABEL)
}

/// The key file of a new DIMM.
fn new() -> (tempfile::TempDir, PathBuf, KeyFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dimm.keys");
    let file = KeyFile::create(&path, SIZE, LABEL).unwrap();
    (dir, path, file)
}

#[test]
fn keys_without_a_passphrase_are_open_and_differ_between_dimms() {
    let (_dir, path, file) = new();
    let keys = file.keys(None).unwrap();
    assert!(open(&path).unwrap().keys(None).unwrap() == keys);
    assert!(keys.data != keys.labels);
    let (_dir, _, other) = new();
    assert!(other.keys(None).unwrap() != keys);
}

#[test]
fn sealed_keys_open_with_their_passphrase_alone() {
    let (_dir, path, mut file) = new();
    let keys = file.keys(None).unwrap();
    let (state, key) = passphrase(1);
    file.seal(&state, &keys, Some(&key)).unwrap();
    let file = open(&path).unwrap();
    assert_eq!(file.security(), &state);
    assert!(file.keys(None).is_none());
    assert!(file.keys(Some(&passphrase(2).1)).is_none());
    assert!(file.keys(Some(&key)).unwrap() == keys);
    let text = fs::read_to_string(&path).unwrap();
    for key in [&keys.data, &keys.labels] {
        let start: String = key.0.iter().take(8).map(|b| format!("{b:02x}")).collect();
        assert!(!text.contains(&start), "a key must not be in the file as it is");
    }
}

#[test]
fn replaced_key_files_are_overwritten() {
    let (dir, path, mut file) = new();
    // A second name keeps the replaced file within reach.
    let old = dir.path().join("old");
    fs::hard_link(&path, &old).unwrap();
    let keys = file.keys(None).unwrap();
    let (state, key) = passphrase(1);
    file.seal(&state, &keys, Some(&key)).unwrap();
    assert!(fs::read(&old).unwrap().iter().all(|byte| *byte == 0));
    assert!(open(&path).unwrap().keys(Some(&key)).unwrap() == keys);
}

#[test]
fn what_security_keeps_is_stored_beside_sealed_keys() {
    let (_dir, path, mut file) = new();
    let keys = file.keys(None).unwrap();
    let (state, key) = passphrase(1);
    file.seal(&state, &keys, Some(&key)).unwrap();
    let more = SecurityState {
        master: passphrase(2).0.user,
        overwriting: true,
        ..state
    };
    file.store(&more).unwrap();
    let file = open(&path).unwrap();
    assert_eq!(file.security(), &more);
    assert!(file.keys(Some(&key)).unwrap() == keys);
}

/// The text of a sealed key file, and its wrapping key.
fn sealed() -> (tempfile::TempDir, PathBuf, String, WrappingKey) {
    let (dir, path, mut file) = new();
    let keys = file.keys(None).unwrap();
    let (state, key) = passphrase(1);
    file.seal(&state, &keys, Some(&key)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    (dir, path, text, key)
}

#[test]
fn damaged_files_are_refused_with_a_hint_and_stay_as_they_are() {
    let (_dir, path, text, _) = sealed();
    let longest = usize::try_from(MAX_LEN).unwrap();
    let damages = [
        (String::new(), "EOF"),
        (text[..text.len() / 2].to_owned(), "EOF"),
        (text.replace("\"size\": 16777216", "\"size\": 16777217"), "checksum"),
        (text.replace(FORMAT, "something-else"), "expected format"),
        (text.replace("\"checksum\"", "\"sum\""), "unknown field"),
        (text.replace("\"version\": 1", "\"version\": 9"), "has version 9"),
        (text.replace("\"passes\": 1", "\"passes\": 99"), "checksum"),
        (text.clone() + &" ".repeat(longest), "longer than"),
    ];
    for (damaged, why) in damages {
        fs::write(&path, &damaged).unwrap();
        let error = open(&path).err().unwrap().to_string();
        assert!(error.contains(why) && error.contains("hint:"), "{error}");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            damaged,
            "a bad file must stay for whoever can repair it"
        );
    }
}

#[test]
fn files_changed_by_somebody_who_can_compute_checksums_do_not_open() {
    let (_dir, path, text, key) = sealed();
    let change = |change: &dyn Fn(&mut Content)| {
        let mut content: Content = serde_json::from_str(&text).unwrap();
        change(&mut content);
        content.checksum = content.sum();
        fs::write(&path, &*content.bytes()).unwrap();
        open(&path)
    };
    assert!(change(&|_| ()).unwrap().keys(Some(&key)).is_some());
    assert!(
        change(&|content| content.id[0] ^= 1)
            .unwrap()
            .keys(Some(&key))
            .is_none()
    );
    let flip = |content: &mut Content| {
        if let Slot::Sealed { keys, .. } = &mut content.keys {
            keys[5] ^= 1;
        }
    };
    assert!(change(&flip).unwrap().keys(Some(&key)).is_none());
    // The sizes are bound as well, for a reader that would believe the file.
    change(&|content| content.size *= 2).map(drop).unwrap_err();
    let bigger = KeyFile::open(&path, 2 * SIZE, LABEL).unwrap();
    assert!(bigger.keys(Some(&key)).is_none());
    let error = change(&|content| content.security.user = None)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("do not fit"), "{error}");
}

#[test]
fn existing_files_are_not_created_again() {
    let (_dir, path, file) = new();
    let before = fs::read(&path).unwrap();
    assert!(matches!(KeyFile::create(&path, SIZE, LABEL), Err(KeyError::Io(..))));
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(file);
    let error = KeyFile::open(&path, SIZE, 2 * LABEL).err().unwrap();
    assert!(matches!(error, KeyError::Dimm(_, SIZE, LABEL)), "{error}");
}
