//! What holds the bytes of an NVDIMM or a memory device: a file, anonymous memory, hugetlbfs, or a device-dax node of the host.
//!
//! [`open`] checks everything before it changes anything: a file that exists is never resized, truncated or written; one
//! that it created is removed again when a later step fails. The label area is the last `label` bytes, where QEMU keeps
//! it, so one file serves under both monitors.

mod labels;

use super::{
    Access, Mapping,
    encrypted::{
        EncryptedDimm,
        keys::{KeyError, KeyFile},
    },
    flush::{DirectMemory, MappedFile},
    page_size::HUGETLBFS,
    ram::memory_file,
};
use crate::config::{NvdimmBacking, NvdimmConfig, probe::BackingFacts};
use devices::{
    DeviceWrites,
    nvdimm::{FlushMode, FlushTarget, label::LabelStore},
    units::ByteSize,
};
use labels::{FileLabels, MappedLabels};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags, fallocate, flock, fstat, fstatfs};
use std::{
    fs, io,
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};
use vm_memory::{FileOffset, mmap::MmapRegionBuilder};

/// Why a backing cannot be used. Nothing has been changed on disk when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// The file cannot be opened or created.
    #[error("cannot open NVDIMM backing {0}")]
    Open(PathBuf, #[source] io::Error),
    /// A read-only DIMM over nothing.
    #[error(
        "NVDIMM backing {0} does not exist, and a read-only DIMM cannot create it; hint: check `file=`, or leave out `readonly=on`"
    )]
    ReadOnlyMissing(PathBuf),
    /// Neither a file nor a device-dax node.
    #[error("NVDIMM backing {0} is a {1}; expected a regular file or a device-dax node such as /dev/dax0.0")]
    Kind(PathBuf, &'static str),
    /// `backing=` and the thing itself disagree.
    #[error("NVDIMM backing {0} is {1}, but `backing={2}` was asked for; hint: leave out `backing=`")]
    NotAsAsked(PathBuf, &'static str, &'static str),
    /// The file has another length.
    #[error(
        "NVDIMM backing {path} is {actual} long, but `size={wanted}` was asked for; hint: pass `size={actual}`, or name another file"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        actual: ByteSize,
        /// What the configuration says.
        wanted: ByteSize,
    },
    /// The file ends before the part.
    #[error(
        "NVDIMM backing {path} is {actual} long and has no {wanted} from {offset} on; hint: use a smaller `offset=` or `size=`"
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length.
        actual: ByteSize,
        /// Where the part begins.
        offset: ByteSize,
        /// Its size.
        wanted: ByteSize,
    },
    /// Another process has it.
    #[error(
        "NVDIMM backing {0} is in use by another process; hint: a DIMM has one user at a time, read-only DIMMs may be shared"
    )]
    InUse(PathBuf),
    /// It cannot be made as long as asked.
    #[error(
        "cannot extend NVDIMM backing {path} to {size}; hint: free space on its file system, or choose a smaller `size=`"
    )]
    Extend {
        /// The file, removed again if it was new.
        path: PathBuf,
        /// What was wanted.
        size: ByteSize,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Encrypted, and nobody said so.
    #[error(
        "NVDIMM backing {0} is encrypted: its keys are in {1}; hint: add `encrypt=on`, or move that file away if it is not"
    )]
    Encrypted(PathBuf, PathBuf),
    /// Not encrypted, or without its keys.
    #[error(
        "NVDIMM backing {0} exists and has no key file {1}; hint: leave out `encrypt=on` if the file is not encrypted, else restore its key file"
    )]
    NoKeys(PathBuf, PathBuf),
    /// Keys of nothing.
    #[error("key file {1} exists and NVDIMM backing {0} does not; hint: restore the backing, or remove the key file")]
    OnlyKeys(PathBuf, PathBuf),
    /// The key file.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Nothing that a flush could reach.
    #[error(
        "NVDIMM backing {0} is on hugetlbfs, which is no storage that `flush=msync` could flush it to; hint: use `flush=count` or `flush=none`"
    )]
    NoStorage(PathBuf),
    /// mmap refused.
    #[error("cannot map {size} of NVDIMM backing {path}{hint}")]
    Map {
        /// The backing.
        path: PathBuf,
        /// What was asked for.
        size: ByteSize,
        /// Empty, or a hint.
        hint: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// An opened backing: locked, of the right size, mapped.
pub struct Opened {
    /// The mapping of all bytes, data then labels.
    pub mapping: Mapping,
    /// The label area, if the DIMM has one.
    pub labels: Option<Box<dyn LabelStore>>,
    /// Whether stores reach the mapping. Those to a read-only DIMM never reach its file, either way.
    pub access: Access,
    /// For mappings of its parts.
    pub source: Source,
    /// What the guest's flushes wait for; none: nothing.
    pub flush: Option<Arc<dyn FlushTarget>>,
}

/// An opened backing as `mmap` wants it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file, which holds the lock.
    pub file: Arc<fs::File>,
    /// Protection of every mapping.
    pub prot: libc::c_int,
    /// Flags of every mapping.
    pub flags: libc::c_int,
    /// Where in the file the DIMM begins.
    pub offset: u64,
    /// Whether it matters which pages are written to.
    pub logged: bool,
}

/// Opens, locks and maps the backing of one DIMM, whose size and page size have been looked up before.
pub fn open(config: &NvdimmConfig, facts: BackingFacts) -> Result<Opened, BackingError> {
    open_as(config, facts, config.readonly)
}

/// The same; a DIMM without a file is made of `memory`, where there is some already.
pub fn open_over(
    config: &NvdimmConfig,
    facts: BackingFacts,
    memory: Option<Arc<fs::File>>,
) -> Result<Opened, BackingError> {
    open_with(config, facts, config.readonly, memory)
}

/// The same; what is written to a `private` one stays in memory, where the backing has private mappings.
pub fn open_as(config: &NvdimmConfig, facts: BackingFacts, private: bool) -> Result<Opened, BackingError> {
    open_with(config, facts, private, None)
}

fn open_with(
    config: &NvdimmConfig,
    facts: BackingFacts,
    private: bool,
    memory: Option<Arc<fs::File>>,
) -> Result<Opened, BackingError> {
    let BackingFacts { size, page: align } = facts;
    let offset = config.offset.unwrap_or_default().0;
    let name = config.file.clone().unwrap_or_else(|| "(memfd)".into());
    if let Some(path) = &config.file
        && let Some(keys) = config.key_file().filter(|keys| keys.exists())
    {
        return Err(BackingError::Encrypted(path.clone(), keys));
    }
    let (handle, kind) = match (&config.file, memory) {
        (None, Some(memory)) => (memory, Kind::Memory),
        (None, None) => {
            let memory = memory_file(size.0, None).map_err(|e| BackingError::Open(name.clone(), e))?;
            (Arc::new(memory), Kind::Memory)
        }
        (Some(path), _) => {
            let (file, kind) = open_path(path, config, size)?;
            (Arc::new(file), kind)
        }
    };
    let hint = match kind {
        Kind::Hugetlbfs => "; hint: reserve enough huge pages, see /proc/sys/vm/nr_hugepages",
        Kind::Devdax => "; hint: a device-dax node maps in multiples of its `align` attribute, from its start",
        Kind::File | Kind::Memory => "",
    };
    let failed = |source| BackingError::Map {
        path: name.clone(),
        size,
        hint,
        source,
    };
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    // Linux keeps the page structures of a namespace on the DIMM itself and writes them even when the region is
    // read-only. A slot that refuses stores would make each of them an exit, minutes of them: so a read-only DIMM is a
    // private copy, of which only the pages that were written exist. device-dax has no private mappings.
    let (access, prot, sharing) = match (config.readonly, kind) {
        (true, Kind::Devdax) => (Access::ReadOnly, read, libc::MAP_SHARED),
        (readonly, _) if readonly || private => (Access::ReadWrite, write, libc::MAP_PRIVATE),
        _ => (Access::ReadWrite, write, libc::MAP_SHARED),
    };
    let reserve = if kind == Kind::Hugetlbfs {
        0
    } else {
        libc::MAP_NORESERVE
    };
    let mapping =
        MmapRegionBuilder::<DeviceWrites>::new(usize::try_from(size.0).map_err(|e| failed(io::Error::other(e)))?)
            .with_mmap_prot(prot)
            .with_mmap_flags(sharing | reserve)
            .with_file_offset(FileOffset::from_arc(handle.clone(), offset))
            .with_hugetlbfs(kind == Kind::Hugetlbfs)
            .build()
            .map_err(|e| failed(io::Error::other(e)))?;
    let source = Source {
        file: handle.clone(),
        prot,
        flags: sharing | reserve,
        offset,
        logged: false,
    };
    let durable = config.flush_mode() == FlushMode::Msync;
    let flush: Option<Arc<dyn FlushTarget>> = match kind {
        _ if !durable => None,
        Kind::File => Some(Arc::new(MappedFile(handle.clone()))),
        Kind::Devdax => Some(Arc::new(DirectMemory)),
        Kind::Hugetlbfs | Kind::Memory => return Err(BackingError::NoStorage(name)),
    };
    let labels = match (config.label.0, kind) {
        (0, _) => None,
        (label, Kind::File | Kind::Memory) => Some(Box::new(FileLabels {
            file: handle,
            at: offset + size.0 - label,
            label,
            durable,
        }) as Box<_>),
        // Neither kind has read and write: the labels are reached through a mapping of their own.
        (label, Kind::Hugetlbfs | Kind::Devdax) => {
            let window = label.next_multiple_of(align.0);
            let mapping = MmapRegionBuilder::<DeviceWrites>::new(
                usize::try_from(window).map_err(|e| failed(io::Error::other(e)))?,
            )
            .with_mmap_prot(if config.readonly { read } else { write })
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::from_arc(handle, offset + size.0 - window))
            .with_hugetlbfs(kind == Kind::Hugetlbfs)
            .build()
            .map_err(|e| failed(io::Error::other(e)))?;
            Some(Box::new(MappedLabels {
                mapping,
                at: window - label,
                label,
            }) as Box<_>)
        }
    };
    Ok(Opened {
        mapping,
        labels,
        access,
        source,
        flush,
    })
}

impl Source {
    /// The count of what devices write to a mapping of `len` bytes, if it matters.
    pub fn writes(&self, len: usize) -> DeviceWrites {
        if self.logged {
            DeviceWrites::counted(len)
        } else {
            DeviceWrites::default()
        }
    }

    /// A mapping of the first `len` bytes.
    pub fn map(&self, len: u64) -> io::Result<Mapping> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        MmapRegionBuilder::new_with_bitmap(len, self.writes(len))
            .with_mmap_prot(self.prot)
            .with_mmap_flags(self.flags)
            .with_file_offset(FileOffset::from_arc(self.file.clone(), self.offset))
            .build()
            .map_err(io::Error::other)
    }
}

/// Opens and locks a regular file without mapping it; a missing one is created with its size.
pub fn open_file(config: &NvdimmConfig) -> Result<fs::File, BackingError> {
    let name = config.file.clone().unwrap_or_default();
    let found = fs::metadata(&name).ok().map(|meta| ByteSize(meta.len()));
    let size = config.size.or(found).unwrap_or_default();
    match open_path(&name, config, size)? {
        (file, Kind::File) => Ok(file),
        _ => Err(BackingError::Kind(name, "file without read and write")),
    }
}

/// Opens and locks the backing of an encrypted DIMM with its key file, or makes both.
pub fn open_encrypted(config: &NvdimmConfig, facts: BackingFacts) -> Result<EncryptedDimm, BackingError> {
    let name = config.file.clone().unwrap_or_else(|| "(memfd)".into());
    let (Some(path), Some(key_path)) = (&config.file, config.key_file()) else {
        return Err(BackingError::Kind(name, "memory file"));
    };
    let (size, label) = (facts.size.0, config.label.0);
    let (key_file, undo) = match (path.exists(), key_path.exists()) {
        (true, true) => (KeyFile::open(&key_path, size, label)?, Created(None)),
        (true, false) => return Err(BackingError::NoKeys(name, key_path)),
        (false, true) => return Err(BackingError::OnlyKeys(name, key_path)),
        (false, false) => (KeyFile::create(&key_path, size, label)?, Created(Some(&key_path))),
    };
    let (file, kind) = open_path(path, config, facts.size)?;
    if kind != Kind::File {
        return Err(BackingError::Kind(name, "file without read and write"));
    }
    undo.keep();
    EncryptedDimm::new(Arc::new(file), key_file, size, label).map_err(|e| BackingError::Open(name, e))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Memory,
    Hugetlbfs,
    Devdax,
}

fn open_path(path: &Path, config: &NvdimmConfig, size: ByteSize) -> Result<(fs::File, Kind), BackingError> {
    let failed = |e: rustix::io::Errno| BackingError::Open(path.to_owned(), e.into());
    let access = if config.readonly { OFlags::RDONLY } else { OFlags::RDWR };
    let open = |extra| {
        rustix::fs::open(
            path,
            access | OFlags::CLOEXEC | OFlags::NONBLOCK | extra,
            Mode::from_raw_mode(0o600),
        )
    };
    let (fd, created) = match open(OFlags::empty()) {
        Err(rustix::io::Errno::NOENT) if config.readonly || config.offset.is_some() => {
            return Err(BackingError::ReadOnlyMissing(path.to_owned()));
        }
        Err(rustix::io::Errno::NOENT) => match open(OFlags::CREATE | OFlags::EXCL) {
            // Somebody else made it between the two looks.
            Err(rustix::io::Errno::EXIST) => return Err(BackingError::InUse(path.to_owned())),
            other => (other.map_err(failed)?, true),
        },
        other => (other.map_err(failed)?, false),
    };
    let undo = Created(created.then_some(path));
    let stat = fstat(&fd).map_err(failed)?;
    let (kind, name) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if fstatfs(&fd).is_ok_and(|s| s.f_type == HUGETLBFS) => {
            (Kind::Hugetlbfs, "a file on hugetlbfs")
        }
        FileType::RegularFile => (Kind::File, "a regular file"),
        FileType::CharacterDevice => (Kind::Devdax, "a device-dax node"),
        FileType::Directory => return Err(BackingError::Kind(path.to_owned(), "folder")),
        FileType::BlockDevice => return Err(BackingError::Kind(path.to_owned(), "block device")),
        _ => return Err(BackingError::Kind(path.to_owned(), "special file")),
    };
    let asked = match config.backing {
        NvdimmBacking::Auto => None,
        NvdimmBacking::File => (kind != Kind::File).then_some("file"),
        NvdimmBacking::Hugetlbfs => (kind != Kind::Hugetlbfs).then_some("hugetlbfs"),
        NvdimmBacking::Devdax => (kind != Kind::Devdax).then_some("devdax"),
        NvdimmBacking::Memfd => Some("memfd"),
    };
    if let Some(asked) = asked {
        return Err(BackingError::NotAsAsked(path.to_owned(), name, asked));
    }
    lock(&fd, path, config, size)?;
    if kind == Kind::Devdax {
        return Ok((fd.into(), kind));
    }
    if created {
        extend(fd.as_fd(), kind, size, config.label).map_err(|e| BackingError::Extend {
            path: path.to_owned(),
            size,
            source: e.into(),
        })?;
    } else {
        // Under the lock, so that a second starter does not see the length of a file that is still being made.
        let actual = ByteSize(u64::try_from(fstat(&fd).map_err(failed)?.st_size).unwrap_or(0));
        if let Some(offset) = config.offset {
            if offset.0.checked_add(size.0).is_none_or(|end| end > actual.0) {
                return Err(BackingError::TooShort {
                    path: path.to_owned(),
                    actual,
                    offset,
                    wanted: size,
                });
            }
        } else if actual != size {
            return Err(BackingError::Length {
                path: path.to_owned(),
                actual,
                wanted: size,
            });
        }
    }
    undo.keep();
    Ok((fd.into(), kind))
}

/// One writer or many readers, for as long as the descriptor is open. Users of parts share the file, and each has its part
/// to itself.
fn lock(fd: impl AsFd, path: &Path, config: &NvdimmConfig, size: ByteSize) -> Result<(), BackingError> {
    let operation = match config.readonly || config.offset.is_some() {
        true => FlockOperation::NonBlockingLockShared,
        false => FlockOperation::NonBlockingLockExclusive,
    };
    let failed = |e| match e {
        rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::ACCESS => BackingError::InUse(path.to_owned()),
        e => BackingError::Open(path.to_owned(), e.into()),
    };
    flock(&fd, operation).map_err(failed)?;
    let Some(offset) = config.offset else { return Ok(()) };
    lock_part(fd.as_fd(), offset.0..offset.0.saturating_add(size.0), !config.readonly).map_err(failed)
}

/// Locks a part of a file, for writing or reading, for as long as the open file lives.
fn lock_part(fd: BorrowedFd<'_>, part: Range<u64>, write: bool) -> rustix::io::Result<()> {
    let long = |n: u64| libc::off_t::try_from(n).map_err(|_| rustix::io::Errno::OVERFLOW);
    let kind = if write { libc::F_WRLCK } else { libc::F_RDLCK };
    let lock = libc::flock {
        // Small constants of libc, in the type that the structure has.
        l_type: libc::c_short::try_from(kind).map_err(|_| rustix::io::Errno::INVAL)?,
        l_whence: 0,
        l_start: long(part.start)?,
        l_len: long(part.end - part.start)?,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the structure lives until the call returns; the kernel only reads it.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if done == 0 {
        return Ok(());
    }
    let errno = io::Error::last_os_error().raw_os_error();
    Err(rustix::io::Errno::from_raw_os_error(errno.unwrap_or(libc::EIO)))
}

/// A backing that somebody else opens on our behalf, where locks of ours are not seen (the nested host): locked for as
/// long as this lives.
pub struct Held {
    file: fs::File,
    /// Its path and the bytes before its label area, if this start created it.
    created: Option<(PathBuf, u64)>,
}

/// Holds the lock of a backing. One that does not exist yet is created here: a second start must find it taken.
pub fn hold(config: &NvdimmConfig, facts: BackingFacts) -> Result<Option<Held>, BackingError> {
    let Some(path) = &config.file else { return Ok(None) };
    // A part is locked for writing, which a descriptor for reading cannot do.
    let write = config.offset.is_some() && !config.readonly;
    match fs::File::options().read(true).write(write).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let (file, _) = open_path(path, config, facts.size)?;
            let data = facts.size.0.saturating_sub(config.label.0);
            let created = Some((path.clone(), data));
            Ok(Some(Held { file, created }))
        }
        Err(e) => Err(BackingError::Open(path.clone(), e)),
        Ok(file) => lock(&file, path, config, facts.size).map(|()| Some(Held { file, created: None })),
    }
}

impl Held {
    /// Removes a file that was created for a start that failed, unless something has been written to it all the same.
    pub fn discard_untouched(self) {
        if let Some((path, data)) = &self.created
            && untouched(&self.file, *data).unwrap_or(false)
        {
            // It stays behind then, empty: the next start takes it as it is.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether a file is as [`extend`] left it: a hole up to `data`, zeros from there on.
fn untouched(file: &fs::File, data: u64) -> io::Result<bool> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)) {
        Ok(first) if first < data => return Ok(false),
        Ok(_) | Err(rustix::io::Errno::NXIO) => {}
        Err(e) => return Err(e.into()),
    }
    let mut chunk = [0; 4096];
    let mut at = data;
    loop {
        let n = file.read_at(&mut chunk, at)?;
        let Some(read) = chunk.get(..n).filter(|read| !read.is_empty()) else {
            return Ok(true);
        };
        if read.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at = at.saturating_add(read.len() as u64);
    }
}

/// Gives a new file its length, sparse but for the label area: a store to labels must never meet a full disk.
fn extend(fd: BorrowedFd<'_>, kind: Kind, size: ByteSize, label: ByteSize) -> rustix::io::Result<()> {
    rustix::fs::ftruncate(fd, size.0)?;
    if kind == Kind::Hugetlbfs || label.0 == 0 {
        return Ok(());
    }
    match fallocate(fd, FallocateFlags::empty(), size.0 - label.0, label.0) {
        // Some network and overlay file systems cannot; they keep their promise or fail the label write itself.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// A file that this start created, removed unless kept.
struct Created<'a>(Option<&'a Path>);

impl Created<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests;
