//! Shared folders: files of the host below one folder, and the thread that reads them for the guest.
//!
//! Every path is looked up anew from the folder's descriptor (`openat2`), beneath it, and with no symbolic link on the way: a
//! link is the guest's to follow, within its own file system. What is looked up is not opened (`O_PATH`); it is when it turns
//! out to be a regular file or a folder, and by what was looked up, so that nothing can take its place in between.

use super::build::BuildError;
use crate::config::{ShareConfig, VmConfig};
use devices::virtio::{
    deferred::Reply,
    p9::{Entry, Errno, P9, P9Order, Server, Space, Stat, Tree},
};
use rustix::{
    fs::{
        self, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, fstat, fstatfs, openat, openat2, readlinkat, seek,
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

/// Files and folders that the guest may have open in one share.
const MAX_OPEN: u64 = 4096;
/// Descriptors that are for everything else in the monitor.
const OTHERS: u64 = 256;
/// Bytes of entries that are taken from a folder at once.
const LISTING: usize = 32 << 10;
/// How paths are looked up.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// Why a folder cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It cannot be opened.
    #[error("cannot open folder {0}")]
    Open(PathBuf, #[source] io::Error),
    /// Paths cannot be kept within it.
    #[error("this host cannot look up paths within a folder (openat2); hint: Linux 5.6 or newer can")]
    Lookup(#[source] io::Error),
    /// What was looked up cannot be opened.
    #[error("cannot open /proc/self/fd; hint: mount /proc")]
    Own(#[source] io::Error),
}

/// Opens shared folder `index` and starts its thread, which ends with the device.
pub fn open(config: &VmConfig, index: usize, said: &ShareConfig) -> Result<(Arc<P9>, JoinHandle<()>), BuildError> {
    let tag = config.share_tag(index);
    let folder = Folder::at(&said.path).map_err(|source| BuildError::Share {
        tag: tag.clone(),
        source,
    })?;
    let (orders, waiting) = mpsc::channel::<P9Order>();
    let orders = Mutex::new(orders);
    let submit = move |order| drop(orders.lock().unwrap_or_else(PoisonError::into_inner).send(order));
    let device = P9::tagged(&tag, Box::new(submit));
    let most = most_open(config.share.len());
    let mut server = Server::new(folder, most, device.requests().counts().clone());
    let worker = move || {
        for order in waiting {
            order.run(|request| Reply {
                data: server.answer(&request),
                last: None,
            });
        }
    };
    let spawned = thread::Builder::new().name(format!("share-{tag}")).spawn(worker);
    let worker = spawned.map_err(|e| BuildError::Host("start a thread", e))?;
    Ok((device, worker))
}

/// How many files each of `shares` shares may hold open, of as many as this process may have; it asks for all that it can get.
fn most_open(shares: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let shares = u64::try_from(shares.max(1)).unwrap_or(u64::MAX);
    let each = limit.unwrap_or(u64::MAX).saturating_sub(OTHERS) / shares;
    usize::try_from(each.clamp(1, MAX_OPEN)).unwrap_or(1)
}

/// A folder and what is below it.
struct Folder {
    root: OwnedFd,
    /// `/proc/self/fd`: the way from what was looked up to the same, open.
    own: OwnedFd,
}

/// What is open.
enum Opened {
    File(File),
    Folder(Listing),
}

/// An open folder, whose entries come in pieces.
struct Listing {
    folder: OwnedFd,
    /// Where it goes on.
    at: u64,
    /// Entries from there on that were read already.
    waiting: VecDeque<Entry>,
}

fn refused(error: rustix::io::Errno) -> Errno {
    u32::try_from(error.raw_os_error()).map_or(Errno::IO, Errno)
}

impl Folder {
    fn at(path: &Path) -> Result<Self, ShareError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty()).map_err(|e| ShareError::Open(path.to_owned(), e.into()))?;
        let own = fs::open("/proc/self/fd", flags, Mode::empty()).map_err(|e| ShareError::Own(e.into()))?;
        openat2(&root, ".", flags, Mode::empty(), BENEATH).map_err(|e| ShareError::Lookup(e.into()))?;
        Ok(Self { root, own })
    }

    /// What stands at a path, not opened.
    fn look_up(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), BENEATH).map_err(|error| match error {
            // A folder on the way was moved out of the share meanwhile.
            rustix::io::Errno::XDEV => Errno::NOENT,
            other => refused(other),
        })
    }
}

fn stat_of(file: impl AsFd) -> Result<Stat, Errno> {
    let stat = fstat(file).map_err(refused)?;
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Stat {
        device: stat.st_dev,
        inode: stat.st_ino,
        mode: stat.st_mode,
        user: stat.st_uid,
        group: stat.st_gid,
        links: stat.st_nlink,
        special: stat.st_rdev,
        size: count(stat.st_size),
        block: count(stat.st_blksize),
        blocks: count(stat.st_blocks),
        times: [
            (stat.st_atime.cast_unsigned(), stat.st_atime_nsec),
            (stat.st_mtime.cast_unsigned(), stat.st_mtime_nsec),
            (stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec),
        ],
    })
}

impl Tree for Folder {
    type Open = Opened;

    fn stat(&self, path: &[u8]) -> Result<Stat, Errno> {
        stat_of(self.look_up(path)?)
    }

    fn open(&self, path: &[u8]) -> Result<Opened, Errno> {
        let found = self.look_up(path)?;
        let kind = fstat(&found).map_err(refused)?.st_mode;
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        match FileType::from_raw_mode(kind) {
            FileType::Directory => {
                let folder = openat(&found, ".", flags | OFlags::DIRECTORY, Mode::empty()).map_err(refused)?;
                Ok(Opened::Folder(Listing {
                    folder,
                    at: 0,
                    waiting: VecDeque::new(),
                }))
            }
            FileType::RegularFile => {
                let name = found.as_raw_fd().to_string();
                let file = openat(&self.own, name, flags, Mode::empty()).map_err(refused)?;
                Ok(Opened::File(file.into()))
            }
            _ => Err(Errno::ACCES),
        }
    }

    fn stat_open(&self, open: &Opened) -> Result<Stat, Errno> {
        match open {
            Opened::File(file) => stat_of(file),
            Opened::Folder(listing) => stat_of(&listing.folder),
        }
    }

    fn read(&self, open: &Opened, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let Opened::File(file) = open else {
            return Err(Errno::ISDIR);
        };
        let number = |e: io::Error| e.raw_os_error().and_then(|n| u32::try_from(n).ok());
        file.read_at(buffer, offset)
            .map_err(|e| number(e).map_or(Errno::IO, Errno))
    }

    fn entries(&self, open: &mut Opened, offset: u64, take: &mut dyn FnMut(&Entry) -> bool) -> Result<(), Errno> {
        match open {
            Opened::File(_) => Err(Errno::NOTDIR),
            Opened::Folder(listing) => listing.go_on(offset, take),
        }
    }

    fn link(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let found = self.look_up(path)?;
        match readlinkat(&found, "", Vec::new()) {
            Ok(text) => Ok(text.into_bytes()),
            // There is something, and it is no link.
            Err(rustix::io::Errno::NOENT) => Err(Errno::INVAL),
            Err(e) => Err(refused(e)),
        }
    }

    fn space(&self, path: &[u8]) -> Result<Space, Errno> {
        let space = fstatfs(self.look_up(path)?).map_err(refused)?;
        let word = |number: i64| u32::try_from(number).unwrap_or(0);
        Ok(Space {
            block: word(space.f_bsize),
            blocks: space.f_blocks,
            free: space.f_bfree,
            available: space.f_bavail,
            files: space.f_files,
            free_files: space.f_ffree,
            name: word(space.f_namelen),
        })
    }
}

impl Listing {
    /// Gives entries from `offset` on. One who goes on where the last call ended does not move the folder, which costs some file
    /// systems much.
    fn go_on(&mut self, offset: u64, take: &mut dyn FnMut(&Entry) -> bool) -> Result<(), Errno> {
        if offset != self.at {
            seek(&self.folder, SeekFrom::Start(offset)).map_err(refused)?;
            self.waiting.clear();
            self.at = offset;
        }
        loop {
            while let Some(entry) = self.waiting.front() {
                if !take(entry) {
                    return Ok(());
                }
                self.at = entry.next;
                self.waiting.pop_front();
            }
            self.fill()?;
            if self.waiting.is_empty() {
                return Ok(());
            }
        }
    }

    fn fill(&mut self) -> Result<(), Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let mut folder = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = folder.next() {
            let entry = entry.map_err(refused)?;
            self.waiting.push_back(Entry {
                name: entry.file_name().to_bytes().to_vec(),
                inode: entry.ino(),
                kind: kind_of(entry.file_type()),
                next: entry.next_entry_cookie(),
            });
            if folder.is_buffer_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// As folders of Linux have it.
fn kind_of(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests;
