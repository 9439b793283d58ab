//! The files that a configuration names, and what each of them is to it: one that is written has no other role.

use super::{ConfigError, ConsoleConfig, VmConfig, probe::folder_of};
use devices::{nvdimm::plan::SpaKind, units::ByteSize};
use std::{
    fs,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Role of the file that keeps the guest's persistent error records.
pub(super) const RECORDS: &str = "the error records";

impl VmConfig {
    /// The role in which the configuration names the file at `path`, by whatever path: nothing else may write it.
    pub fn role_of(&self, path: &Path) -> Option<String> {
        let wanted = identity(path);
        let named = self
            .named_files()
            .into_iter()
            .find(|named| identity(named.path) == wanted);
        let mut keys = self.key_files();
        named
            .map(|named| named.role)
            .or_else(|| keys.find(|(_, keys)| identity(keys) == wanted).map(|(role, _)| role))
    }

    /// Key files of encrypted DIMMs with their roles.
    fn key_files(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let encrypted = self.nvdimm.iter().enumerate().filter(|(_, nvdimm)| nvdimm.encrypt);
        encrypted.filter_map(|(slot, nvdimm)| {
            let role = format!("the keys of {}", self.nvdimm_name(slot));
            Some((role, nvdimm.key_file()?))
        })
    }

    fn named_files(&self) -> Vec<Named<'_>> {
        let image = |role: &str, path| Named {
            written: false,
            ..Named::written(role.to_owned(), path)
        };
        let mut named: Vec<_> = self
            .kernel
            .as_deref()
            .map(|path| image("the kernel", path))
            .into_iter()
            .collect();
        named.extend(self.initrd.as_deref().map(|path| image("the initrd", path)));
        named.extend(self.module.iter().map(|module| image("a module", &module.file)));
        for (slot, nvdimm) in self.nvdimm.iter().enumerate() {
            let role = || self.nvdimm_name(slot);
            named.extend(nvdimm.file.as_deref().map(|path| Named {
                part: part(nvdimm.offset, nvdimm.size),
                ..Named::written(role(), path)
            }));
            let state = |path| Named::written(format!("the state of {}", role()), path);
            named.extend(nvdimm.state.as_deref().map(state));
        }
        for (position, disk) in self.virtual_disk.iter().enumerate() {
            named.extend(disk.file.as_deref().map(|path| Named {
                written: SpaKind::from(disk.kind).is_persistent(),
                ..Named::written(format!("virtual disk {position}"), path)
            }));
        }
        for (index, device) in self.virtio_pmem.iter().enumerate() {
            let file = |path| Named::written(self.virtio_pmem_name(index), path);
            named.extend(device.file.as_deref().map(file));
        }
        for (index, disk) in self.disk.iter().enumerate() {
            named.push(Named {
                written: !disk.readonly,
                ..Named::written(self.disk_name(index), &disk.file)
            });
        }
        for (index, range) in self.memory_range.iter().enumerate() {
            named.extend(range.file.as_deref().map(|path| Named {
                part: part(range.offset, Some(range.size)),
                ..Named::written(self.memory_range_name(index), path)
            }));
        }
        for (_, id, device) in self.memory_devices() {
            named.extend(device.file.as_deref().map(|path| Named {
                part: part(device.offset, device.size),
                ..Named::written(id.clone(), path)
            }));
        }
        let records = self.apei.records.as_deref();
        named.extend(records.map(|path| Named::written(RECORDS.to_owned(), path)));
        let consoles = self.console_files().into_iter();
        named.extend(consoles.map(|(role, path)| Named::written(role.to_owned(), path)));
        named
    }

    /// Files that consoles are written to, with what they are.
    pub fn console_files(&self) -> Vec<(&'static str, &Path)> {
        let domain = self.xen.as_ref().and_then(|xen| xen.console.as_ref());
        let all = [
            ("the console file", Some(&self.console)),
            ("the Xen console's file", domain),
        ];
        all.into_iter()
            .filter_map(|(role, console)| match console {
                Some(ConsoleConfig::File(path)) => Some((role, path.as_path())),
                _ => None,
            })
            .collect()
    }

    /// A file that is written may have no other role, by whatever path it is reached.
    pub(super) fn check_same(&self, problems: &mut Vec<ConfigError>) {
        let named: Vec<_> = self
            .named_files()
            .into_iter()
            .map(|named| (identity(named.path), named))
            .collect();
        for (i, (id, second)) in named.iter().enumerate() {
            let same = |(other, first): &&(Identity, Named<'_>)| {
                (first.written || second.written) && other == id && !apart(&first.part, &second.part)
            };
            if let Some((_, first)) = named.iter().take(i).find(same) {
                let (first, second, path) = (first.role.clone(), second.role.clone(), second.path.to_owned());
                problems.push(ConfigError::SameFile { path, first, second });
            }
        }
        for (second, path) in self.key_files() {
            let key = identity(&path);
            if let Some((_, named)) = named.iter().find(|(other, _)| *other == key) {
                let first = named.role.clone();
                problems.push(ConfigError::SameFile { path, first, second });
            }
        }
    }
}

/// A file that the configuration names.
struct Named<'a> {
    role: String,
    path: &'a Path,
    written: bool,
    /// The bytes of it that are used, where not all of them are.
    part: Option<Range<u64>>,
}

impl<'a> Named<'a> {
    fn written(role: String, path: &'a Path) -> Self {
        Self {
            role,
            path,
            written: true,
            part: None,
        }
    }
}

/// The part of a file that has an offset.
fn part(offset: Option<ByteSize>, size: Option<ByteSize>) -> Option<Range<u64>> {
    let offset = offset?.0;
    Some(offset..size.map_or(u64::MAX, |size| offset.saturating_add(size.0)))
}

/// Whether two parts of one file share no byte.
fn apart(a: &Option<Range<u64>>, b: &Option<Range<u64>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.end <= b.start || b.end <= a.start,
        _ => false,
    }
}

/// Device and inode of a file that exists, else its path in a folder that does.
#[derive(PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Path(PathBuf),
}

fn identity(path: &Path) -> Identity {
    match fs::metadata(path) {
        Ok(meta) => Identity::File(meta.dev(), meta.ino()),
        Err(_) => {
            let folder = folder_of(path);
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            Identity::Path(folder.join(path.file_name().unwrap_or_default()))
        }
    }
}
