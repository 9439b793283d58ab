//! What the host says of the files a configuration names. Reads metadata only: nothing is created, opened for writing,
//! locked or changed, so that a mistake anywhere is reported before anything happens.

use super::{
    ConfigError, DiskConfig, MemoryRangeConfig, NvdimmBacking, NvdimmConfig, VmConfig,
    memory_device::{facts_of_memory, file_of},
    named::RECORDS,
    validate::check_size,
};
use crate::memory::page_size::HUGETLBFS;
use devices::units::ByteSize;
use rustix::fs::{StatFs, major, minor};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

const PAGE: ByteSize = ByteSize::kib(4);
/// What is expected where only a device-dax node will do.
const DEVDAX: &str = "a device-dax node such as /dev/dax0.0";

/// What the backing of an NVDIMM or a memory device is, as far as the guest physical map needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackingFacts {
    /// Bytes of the whole DIMM with its label area.
    pub size: ByteSize,
    /// Unit in which the host can map it: 4 KiB, or the huge page size of hugetlbfs or device-dax.
    pub page: ByteSize,
}

/// What the machine is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be started: a kernel is needed.
    Boot,
    /// To be looked at.
    Plan,
}

impl VmConfig {
    /// Looks at every named file and reports every problem; returns the backings of the NVDIMMs by slot, then those of the
    /// virtio-pmem devices. No `@NAME` is left in the configuration.
    pub fn probe(&self, purpose: Purpose) -> Result<Vec<BackingFacts>, Vec<ConfigError>> {
        let mut problems = Vec::new();
        if self.kernel.is_none() && purpose == Purpose::Boot {
            problems.push(ConfigError::NoKernel);
        }
        let images = [("the kernel", &self.kernel), ("the initrd", &self.initrd)];
        let modules = self.module.iter().map(|module| ("a module", Some(&*module.file)));
        for (role, path) in images
            .into_iter()
            .map(|(role, path)| (role, path.as_deref()))
            .chain(modules)
            .filter_map(|(role, path)| Some((role, path?)))
        {
            problems.extend(check_image(role, path).err());
        }
        for (role, path) in self.console_files() {
            let folder = fs::metadata(path).ok().filter(Metadata::is_dir);
            problems.extend(folder.map(|meta| wrong_kind(role, path, &meta, "a file")));
            problems.extend(check_folder(role, path).err());
        }
        if let Some(path) = &self.agent_socket {
            problems.extend(check_folder("the agent socket", path).err());
        }
        if let Some(vsock) = &self.vsock {
            problems.extend(check_folder("the vsock socket", &vsock.socket).err());
        }
        let states = self.nvdimm.iter().enumerate().filter_map(|(slot, nvdimm)| {
            let role = format!("the state of {}", self.nvdimm_name(slot));
            Some((role, nvdimm.state.as_ref()?))
        });
        let records = self.apei.records.iter().map(|path| (RECORDS.to_owned(), path));
        for (role, path) in states.chain(records) {
            match fs::metadata(path) {
                Ok(meta) if !meta.is_file() => problems.push(wrong_kind(&role, path, &meta, "a file")),
                _ => problems.extend(check_folder(&role, path).err()),
            }
        }
        self.check_same(&mut problems);
        let mut facts = Vec::new();
        for (slot, nvdimm) in self.nvdimm.iter().enumerate() {
            let id = self.nvdimm_name(slot);
            match probe_nvdimm(&id, nvdimm) {
                Ok(fact) => {
                    if nvdimm.size.is_none() {
                        check_size(&id, fact.size, nvdimm.label, &mut problems);
                    }
                    facts.push(fact);
                }
                Err(problem) => problems.push(problem),
            }
        }
        for (index, device) in self.virtio_pmem.iter().enumerate() {
            match probe_nvdimm(&self.virtio_pmem_name(index), &device.backing()) {
                Ok(fact) => facts.push(fact),
                Err(problem) => problems.push(problem),
            }
        }
        for (index, disk) in self.disk.iter().enumerate() {
            problems.extend(probe_disk(&self.disk_name(index), disk).err());
        }
        for (index, share) in self.share.iter().enumerate() {
            let role = format!("shared folder {}", self.share_tag(index));
            match fs::metadata(&share.path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(meta) => problems.push(wrong_kind(&role, &share.path, &meta, "a folder")),
                Err(e) => problems.push(unusable(&role, &share.path)(e)),
            }
        }
        for (position, disk) in self.virtual_disk.iter().enumerate() {
            let id = format!("virtual disk {position}");
            problems.extend(probe_nvdimm(&id, &crate::nvdimm::disk_backing(disk)).err());
        }
        for (index, range) in self.memory_range.iter().enumerate() {
            let id = self.memory_range_name(index);
            problems.extend(range.backing().and_then(|b| probe_nvdimm(&id, &b).err()));
        }
        problems.extend(self.probe_memory_devices().err().unwrap_or_default());
        if problems.is_empty() { Ok(facts) } else { Err(problems) }
    }

    /// Looks at the files of the memory devices; returns what is known of each, in their order.
    pub fn probe_memory_devices(&self) -> Result<Vec<BackingFacts>, Vec<ConfigError>> {
        let (mut facts, mut problems) = (Vec::new(), Vec::new());
        for (_, id, device) in self.memory_devices() {
            let found = match file_of(device) {
                Some(file) => probe_nvdimm(&id, &file),
                None => Ok(facts_of_memory(device)),
            };
            match found {
                Ok(fact) => facts.push(fact),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(facts) } else { Err(problems) }
    }

    /// The unit in which the host can map the file of the memory range at `index`, as far as it can be seen now.
    pub fn memory_range_page(&self, index: usize) -> ByteSize {
        let backing = self.memory_range.get(index).and_then(MemoryRangeConfig::backing);
        let facts = backing.and_then(|backing| probe_nvdimm(&self.memory_range_name(index), &backing).ok());
        facts.map_or(PAGE, |facts| facts.page)
    }

    /// Looks at the file of the memory device at `index`, which is about to be added to a running machine.
    pub fn probe_added_memory(&self, index: usize) -> Result<BackingFacts, Vec<ConfigError>> {
        let mut problems = Vec::new();
        self.check_same(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let facts = self.probe_memory_devices()?;
        facts.get(index).copied().ok_or_else(Vec::new)
    }

    /// Looks at the file of the NVDIMM in `slot`, which is about to be added to a running machine.
    pub fn probe_added(&self, slot: usize) -> Result<BackingFacts, Vec<ConfigError>> {
        let mut problems = Vec::new();
        self.check_same(&mut problems);
        let id = self.nvdimm_name(slot);
        match self.nvdimm.get(slot).map(|nvdimm| (nvdimm, probe_nvdimm(&id, nvdimm))) {
            Some((nvdimm, Ok(fact))) => {
                if nvdimm.size.is_none() {
                    check_size(&id, fact.size, nvdimm.label, &mut problems);
                }
                if problems.is_empty() { Ok(fact) } else { Err(problems) }
            }
            Some((_, Err(problem))) => {
                problems.push(problem);
                Err(problems)
            }
            None => Err(vec![ConfigError::NvdimmCount(slot + 1)]),
        }
    }
}

/// Whether there is a device-dax node, or what could be one, at `path`.
pub fn devdax_node(role: &str, path: &Path) -> Result<(), ConfigError> {
    let meta = fs::metadata(path).map_err(unusable(role, path))?;
    if meta.file_type().is_char_device() {
        return Ok(());
    }
    Err(wrong_kind(role, path, &meta, DEVDAX))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn unusable(role: &str, path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    move |source| ConfigError::Unusable {
        role: role.to_owned(),
        path: path.to_owned(),
        source,
    }
}

fn wrong_kind(role: &str, path: &Path, meta: &Metadata, expected: &'static str) -> ConfigError {
    let kind = meta.file_type();
    let found = match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_char_device() => "a character device",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a regular file",
    };
    ConfigError::WrongKind {
        role: role.to_owned(),
        path: path.to_owned(),
        found: found.to_owned(),
        expected,
    }
}

fn check_image(role: &str, path: &Path) -> Result<(), ConfigError> {
    let meta = fs::metadata(path).map_err(unusable(role, path))?;
    if !meta.is_file() {
        return Err(wrong_kind(role, path, &meta, "a regular file"));
    }
    fs::File::open(path).map(drop).map_err(unusable(role, path))
}

/// The folder that a file is to be made in.
fn check_folder(role: &str, path: &Path) -> Result<StatFs, ConfigError> {
    let folder = folder_of(path);
    let role = format!("the folder of {role}");
    let meta = fs::metadata(folder).map_err(unusable(&role, folder))?;
    if !meta.is_dir() {
        return Err(wrong_kind(&role, folder, &meta, "a folder"));
    }
    rustix::fs::statfs(folder).map_err(|e| unusable(&role, folder)(e.into()))
}

/// A disk's file: whole sectors, and there unless it can be made.
fn probe_disk(id: &str, disk: &DiskConfig) -> Result<(), ConfigError> {
    let path = &disk.file;
    let bad = |why: String| ConfigError::Virtio {
        what: id.to_owned(),
        why,
    };
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !disk.readonly => {
            check_folder(id, path)?;
            return match disk.size {
                Some(_) => Ok(()),
                None => Err(bad(format!(
                    "has no size, and {} does not exist; hint: add size=SIZE to create it",
                    path.display()
                ))),
            };
        }
        other => other.map_err(unusable(id, path))?,
    };
    if !meta.is_file() {
        return Err(wrong_kind(id, path, &meta, "a regular file"));
    }
    let found = ByteSize(meta.len());
    if disk.size.is_some_and(|size| size != found) {
        let size = disk.size.unwrap_or_default();
        return Err(bad(format!(
            "has size={size}, but {} has {found}; hint: leave out size=",
            path.display()
        )));
    }
    if found.0 == 0 || !found.0.is_multiple_of(512) {
        return Err(bad(format!(
            "has a file of {found}: expected whole sectors of 512 bytes, at least one"
        )));
    }
    Ok(())
}

fn probe_nvdimm(id: &str, nvdimm: &NvdimmConfig) -> Result<BackingFacts, ConfigError> {
    let no_size = |hint: String| ConfigError::NvdimmNoSize {
        id: id.to_owned(),
        hint,
    };
    let Some(path) = &nvdimm.file else {
        let size = nvdimm
            .size
            .ok_or_else(|| no_size("add size=SIZE, such as size=512M".to_owned()))?;
        return Ok(BackingFacts { size, page: PAGE });
    };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(e)
            if e.kind() == io::ErrorKind::NotFound
                && !nvdimm.readonly
                && nvdimm.offset.is_none()
                && nvdimm.backing != NvdimmBacking::Devdax =>
        {
            let host = check_folder(id, path)?;
            let size = nvdimm
                .size
                .ok_or_else(|| no_size(format!("{} is a new file: add size=SIZE", path.display())))?;
            return in_pages(id, path, nvdimm, size, file_page(id, path, nvdimm, &host)?);
        }
        Err(e) => return Err(unusable(id, path)(e)),
    };
    if meta.file_type().is_char_device() && matches!(nvdimm.backing, NvdimmBacking::Auto | NvdimmBacking::Devdax) {
        return probe_devdax(id, path, nvdimm, &meta);
    }
    if nvdimm.backing == NvdimmBacking::Devdax {
        return Err(wrong_kind(id, path, &meta, DEVDAX));
    }
    if !meta.is_file() {
        return Err(wrong_kind(id, path, &meta, "a regular file or a device-dax node"));
    }
    let found = ByteSize(meta.len());
    let size = nvdimm
        .size
        .ok_or_else(|| no_size(format!("{} has {found}: add size={found}", path.display())))?;
    if nvdimm.offset.is_some() {
        room(id, path, nvdimm, found, size)?;
    } else if found != size {
        return Err(ConfigError::NvdimmFileSize {
            id: id.to_owned(),
            path: path.clone(),
            found,
            size,
        });
    }
    let host = rustix::fs::statfs(path).map_err(|e| unusable(id, path)(e.into()))?;
    in_pages(id, path, nvdimm, size, file_page(id, path, nvdimm, &host)?)
}

/// The page size of a file on `host`.
fn file_page(id: &str, path: &Path, nvdimm: &NvdimmConfig, host: &StatFs) -> Result<ByteSize, ConfigError> {
    match (host.f_type == HUGETLBFS, nvdimm.backing) {
        (true, _) => Ok(ByteSize(u64::try_from(host.f_bsize).unwrap_or(PAGE.0))),
        (false, NvdimmBacking::Hugetlbfs) => Err(ConfigError::WrongKind {
            role: id.to_owned(),
            path: path.to_owned(),
            found: "on an ordinary file system".to_owned(),
            expected: "a file on hugetlbfs",
        }),
        (false, _) => Ok(PAGE),
    }
}

/// A size in whole pages of its backing.
fn in_pages(
    id: &str,
    path: &Path,
    nvdimm: &NvdimmConfig,
    size: ByteSize,
    page: ByteSize,
) -> Result<BackingFacts, ConfigError> {
    // Zero from a broken host file would divide by zero.
    let page = ByteSize(page.0.max(PAGE.0));
    if let Some(offset) = nvdimm.offset.filter(|offset| !offset.0.is_multiple_of(page.0)) {
        return Err(ConfigError::BackingOffset {
            id: id.to_owned(),
            path: path.to_owned(),
            offset,
            page,
        });
    }
    if size.0.is_multiple_of(page.0) {
        return Ok(BackingFacts { size, page });
    }
    let rounded = ByteSize(size.0.checked_next_multiple_of(page.0).unwrap_or(size.0));
    let size = nvdimm.size.unwrap_or(size);
    Err(ConfigError::NvdimmPages {
        id: id.to_owned(),
        path: path.to_owned(),
        size,
        page,
        rounded,
    })
}

/// A device-dax node tells its size and alignment in sysfs.
fn probe_devdax(id: &str, path: &Path, nvdimm: &NvdimmConfig, meta: &Metadata) -> Result<BackingFacts, ConfigError> {
    let device = format!("/sys/dev/char/{}:{}", major(meta.rdev()), minor(meta.rdev()));
    let device = Path::new(&device);
    let is_dax = fs::canonicalize(device.join("subsystem")).is_ok_and(|s| s.file_name().is_some_and(|n| n == "dax"));
    if !is_dax {
        return Err(wrong_kind(
            id,
            path,
            meta,
            "a regular file or a device-dax node such as /dev/dax0.0",
        ));
    }
    let read = |name: &str| {
        let text = fs::read_to_string(device.join(name)).map_err(unusable(id, path))?;
        let bad = |_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its {name} in sysfs is '{}'", text.trim()),
            )
        };
        text.trim()
            .parse()
            .map(ByteSize)
            .map_err(|e| unusable(id, path)(bad(e)))
    };
    let (found, page) = (read("size")?, read("align")?);
    let offset = nvdimm.offset.unwrap_or_default();
    let size = nvdimm.size.unwrap_or(ByteSize(found.0.saturating_sub(offset.0)));
    room(id, path, nvdimm, found, size)?;
    in_pages(id, path, nvdimm, size, page)
}

/// Whether `size` bytes from the offset on are in what has `found`.
fn room(id: &str, path: &Path, nvdimm: &NvdimmConfig, found: ByteSize, size: ByteSize) -> Result<(), ConfigError> {
    let offset = nvdimm.offset.unwrap_or_default();
    let end = offset.0.checked_add(size.0);
    if size.0 != 0 && end.is_some_and(|end| end <= found.0) {
        return Ok(());
    }
    let path = path.to_owned();
    Err(match nvdimm.offset {
        None => ConfigError::NvdimmFileSize {
            id: id.to_owned(),
            path,
            found,
            size,
        },
        Some(_) => ConfigError::BackingRange {
            id: id.to_owned(),
            path,
            offset,
            size,
            found,
        },
    })
}

#[cfg(test)]
mod tests;
