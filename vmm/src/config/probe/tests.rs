use super::*;
use crate::config::ConsoleConfig;
use std::os::unix::fs::symlink;

fn nvdimm(file: &Path, size: Option<ByteSize>) -> NvdimmConfig {
    NvdimmConfig {
        file: Some(file.to_owned()),
        size,
        ..crate::config::kv::from_str("", Default::default()).unwrap()
    }
}

fn messages(config: &VmConfig, purpose: Purpose) -> Vec<String> {
    config
        .probe(purpose)
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn kernel_is_needed_only_to_boot() {
    assert_eq!(messages(&VmConfig::default(), Purpose::Plan), Vec::<String>::new());
    let found = messages(&VmConfig::default(), Purpose::Boot);
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with("there is no kernel to boot; hint: add --kernel")),
        "{found:?}"
    );
}

#[test]
fn missing_files_are_all_named_and_nothing_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let config = VmConfig {
        kernel: Some(dir.path().join("vmlinuz")),
        initrd: Some(dir.path().to_owned()),
        console: ConsoleConfig::File(dir.path().join("none/log")),
        nvdimm: vec![
            nvdimm(&dir.path().join("new"), Some(ByteSize::mib(16))),
            nvdimm(&dir.path().join("none/new"), Some(ByteSize::mib(16))),
            nvdimm(&dir.path().join("sizeless"), None),
            NvdimmConfig {
                readonly: true,
                ..nvdimm(&dir.path().join("absent"), Some(ByteSize::mib(16)))
            },
            NvdimmConfig {
                backing: NvdimmBacking::Devdax,
                ..nvdimm(&dir.path().join("dax"), None)
            },
        ],
        ..VmConfig::default()
    };
    let found = messages(&config, Purpose::Boot);
    let expected = [
        "vmlinuz as the kernel",
        "as the initrd: it is a folder, expected a regular file",
        "none as the folder of the console file",
        "none as the folder of nvdimm1",
        "sizeless is a new file: add size=SIZE",
        "absent as nvdimm3",
        "dax as nvdimm4",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found} // {expected}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn file_must_have_exactly_the_size_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dimm");
    fs::File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let probe = |size| {
        let config = VmConfig {
            nvdimm: vec![nvdimm(&path, size)],
            ..VmConfig::default()
        };
        config
            .probe(Purpose::Plan)
            .map_err(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    assert_eq!(
        probe(Some(ByteSize::mib(16))),
        Ok(vec![BackingFacts {
            size: ByteSize::mib(16),
            page: PAGE
        }])
    );
    for size in [17, 1024] {
        let error = probe(Some(ByteSize::mib(size))).unwrap_err();
        assert!(error.contains("dimm is 16M, but size= of nvdimm0 is "), "{error}");
    }
    let error = probe(None).unwrap_err();
    assert!(
        error.contains("nvdimm0 has no size; hint:") && error.contains("has 16M: add size=16M"),
        "{error}"
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 16 << 20);
}

#[test]
fn written_file_has_one_role_by_whatever_path() {
    let dir = tempfile::tempdir().unwrap();
    let [dimm, link, image] = ["dimm", "link", "image"].map(|name| dir.path().join(name));
    fs::File::create(&dimm).unwrap().set_len(16 << 20).unwrap();
    fs::write(&image, "kernel").unwrap();
    symlink(&dimm, &link).unwrap();
    let size = Some(ByteSize::mib(16));
    let config = VmConfig {
        kernel: Some(image.clone()),
        initrd: Some(image.clone()),
        console: ConsoleConfig::File(image),
        nvdimm: vec![
            nvdimm(&dimm, size),
            nvdimm(&link, size),
            nvdimm(&dir.path().join("new"), size),
            nvdimm(&dir.path().join("./new"), size),
        ],
        ..VmConfig::default()
    };
    let found = messages(&config, Purpose::Boot);
    let roles = [
        "nvdimm0 and for nvdimm1",
        "nvdimm2 and for nvdimm3",
        "the kernel and for the console file",
    ];
    assert_eq!(found.len(), roles.len(), "{found:#?}");
    for (found, roles) in found.iter().zip(roles) {
        assert!(found.contains(roles), "{found} // {roles}");
    }
}

#[test]
fn other_kinds_of_files_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let size = Some(ByteSize::mib(16));
    let with = |backing, path: &Path| {
        let dimm = NvdimmConfig {
            backing,
            ..nvdimm(path, size)
        };
        messages(
            &VmConfig {
                nvdimm: vec![dimm],
                ..VmConfig::default()
            },
            Purpose::Plan,
        )
        .join("\n")
    };
    let plain = dir.path().join("plain");
    fs::File::create(&plain).unwrap().set_len(16 << 20).unwrap();
    for (backing, path, text) in [
        (
            NvdimmBacking::Auto,
            Path::new("/dev/null"),
            "it is a character device, expected a regular file or a device-dax",
        ),
        (
            NvdimmBacking::Auto,
            dir.path(),
            "it is a folder, expected a regular file or a device-dax node",
        ),
        (
            NvdimmBacking::File,
            Path::new("/dev/null"),
            "it is a character device, expected a regular file",
        ),
        (
            NvdimmBacking::Devdax,
            &plain,
            "it is a regular file, expected a device-dax node",
        ),
        (
            NvdimmBacking::Hugetlbfs,
            &plain,
            "it is on an ordinary file system, expected a file on hugetlbfs",
        ),
    ] {
        let found = with(backing, path);
        assert!(found.contains(text), "{found} // {text}");
    }
}
