//! A server of 9P2000.L that changes nothing.
//!
//! ```text
//! (no session) --version--> (session) --attach, walk--> fid: a path --open--> fid: an open file --clunk--> gone
//!                   ^-----------version: all fids go--------'
//! ```
//!
//! A fid that is not open is a path and no more, so that a guest that knows a hundred thousand files costs the host no open
//! file; it is what stands there at the time of each request. The guest is hostile: fids, the bytes of their paths and open
//! files are bounded, and so is every answer.

use super::{
    message::{Answer, Ask, HEADER, Qid},
    tree::{Entry, Errno, FOLDER, LINK, REGULAR, Stat, Tree},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most bytes of a message: as much as Linux can put into one chain, and a little more.
pub const MAX_MESSAGE: u32 = 512 << 10;
/// Least, as Linux has it.
const MIN_MESSAGE: u32 = 4096;
/// Most fids.
pub const MAX_FIDS: usize = 1 << 18;
/// Most bytes of their paths together.
pub const MAX_PATHS: usize = 64 << 20;
/// Most bytes of a name, and of a path.
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4095;
/// The only dialect there is.
const DIALECT: &[u8] = b"9P2000.L";
/// The answer to a dialect that there is not.
const NO_DIALECT: &[u8] = b"unknown";
/// No fid: nothing is authenticated.
const NO_FID: u32 = u32::MAX;
/// Bytes before the data of a read.
const READ_HEADER: usize = HEADER + 4;
/// Bytes of an entry beside its name.
const ENTRY: usize = 24;
/// Flags of an opening that would write: access other than reading, creation, truncation.
const WRITING: u32 = 0o1 | 0o2 | 0o100 | 0o1000;
const QID_FOLDER: u8 = 0x80;
const QID_LINK: u8 = 0x02;
/// A lock that is had, and the type of one that nobody has.
const LOCKED: u8 = 0;
const NOBODY: u8 = 2;

/// What a share has done and has.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    fids: AtomicU64,
    open: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShareStatus {
    /// Requests so far.
    pub requests: u64,
    /// Those that were answered with an error.
    pub refused: u64,
    /// Bytes of files that were read.
    pub bytes: u64,
    /// Files that the guest knows.
    pub fids: u64,
    /// Files that it has open.
    pub open: u64,
}

impl Counts {
    /// As they are now.
    pub fn status(&self) -> ShareStatus {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShareStatus {
            requests: get(&self.requests),
            refused: get(&self.refused),
            bytes: get(&self.bytes),
            fids: get(&self.fids),
            open: get(&self.open),
        }
    }
}

/// A request as it came, and how much the guest has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its type.
    pub kind: u8,
    /// What its answer names it by.
    pub tag: u16,
    /// What stands behind its header.
    pub body: Vec<u8>,
    /// Most bytes of the answer.
    pub room: usize,
}

struct Fid<O> {
    path: Arc<[u8]>,
    open: Option<Open<O>>,
}

struct Open<O> {
    file: O,
    kind: u32,
    /// Device of a folder's entries.
    device: u64,
}

/// The server of one share.
pub struct Server<T: Tree> {
    tree: T,
    counts: Arc<Counts>,
    fids: HashMap<u32, Fid<T::Open>>,
    /// Bytes of the fids' paths.
    paths: usize,
    open: usize,
    max_open: usize,
    /// Most bytes of a message; 0: no version has been agreed on.
    max: usize,
    /// Device of the folder, whose files keep their numbers.
    device: Option<u64>,
}

impl<T: Tree> Server<T> {
    /// A server of `tree` that holds at most `max_open` files open, and counts in `counts`.
    pub fn new(tree: T, max_open: usize, counts: Arc<Counts>) -> Self {
        Self {
            tree,
            counts,
            fids: HashMap::new(),
            paths: 0,
            open: 0,
            max_open,
            max: 0,
            device: None,
        }
    }

    /// The answer to a request.
    pub fn answer(&mut self, request: &Request) -> Vec<u8> {
        let done = Ask::parse(request.kind, &request.body).and_then(|ask| self.act(request, ask));
        let most = request.room.min(self.max.max(MIN_MESSAGE as usize));
        let done = done.map(Answer::finish).and_then(|bytes| match bytes.len() <= most {
            true => Ok(bytes),
            false => Err(Errno::MSGSIZE),
        });
        let counts = &self.counts;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.fids.store(self.fids.len() as u64, Ordering::Relaxed);
        counts.open.store(self.open as u64, Ordering::Relaxed);
        done.unwrap_or_else(|why| {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            Answer::refusal(request.tag, why)
        })
    }

    fn act(&mut self, request: &Request, ask: Ask<'_>) -> Result<Answer, Errno> {
        let answer = |more| Answer::to(request.kind, request.tag, more);
        if self.max == 0 && !matches!(ask, Ask::Version { .. }) {
            return Err(Errno::INVAL);
        }
        Ok(match ask {
            Ask::Version { size, version } => {
                let (size, dialect) = self.begin(size, version)?;
                answer(32).u32(size).text(dialect)
            }
            Ask::Attach { fid, auth, name } => answer(13).qid(self.attach(fid, auth, name)?),
            Ask::Walk { fid, to, names } => {
                let qids = self.walk(fid, to, &names)?;
                let count = u16::try_from(qids.len()).map_err(|_| Errno::INVAL)?;
                let all = answer(2 + 13 * qids.len()).u16(count);
                qids.into_iter().fold(all, Answer::qid)
            }
            Ask::Open { fid, flags } => {
                let qid = self.open(fid, flags)?;
                let unit = self.max.saturating_sub(READ_HEADER + ENTRY);
                answer(17).qid(qid).u32(u32::try_from(unit).unwrap_or(0))
            }
            Ask::Read { fid, offset, count } => {
                let mut data = vec![0; self.room(request, count)];
                let read = self.read(fid, offset, &mut data)?;
                answer(4 + data.len())
                    .u32(u32::try_from(read).map_err(|_| Errno::IO)?)
                    .bytes(data.get(..read).ok_or(Errno::IO)?)
            }
            Ask::Entries { fid, offset, count } => {
                let data = self.entries(fid, offset, self.room(request, count))?;
                answer(4 + data.len())
                    .u32(u32::try_from(data.len()).map_err(|_| Errno::IO)?)
                    .bytes(&data)
            }
            Ask::Attributes { fid } => {
                let fid = self.fid(fid)?;
                let stat = match &fid.open {
                    Some(open) => self.tree.stat_open(&open.file)?,
                    None => self.tree.stat(&fid.path)?,
                };
                answer(153).attributes(self.qid(&stat), &stat)
            }
            Ask::Space { fid } => answer(60).space(&self.tree.space(&self.fid(fid)?.path)?),
            Ask::Link { fid } => answer(2).text(&self.tree.link(&self.fid(fid)?.path)?),
            Ask::Sync { fid } => self.fid(fid).map(|_| answer(0))?,
            // Nobody but the guest locks here, and Linux has asked itself before.
            Ask::Lock { fid } => self.fid(fid).map(|_| answer(1).u8(LOCKED))?,
            Ask::GetLock { fid, lock } => {
                self.fid(fid)?;
                answer(64)
                    .u8(NOBODY)
                    .u64(lock.start)
                    .u64(lock.len)
                    .u32(lock.process)
                    .text(lock.client)
            }
            Ask::Clunk { fid } => self.clunk(fid).map(|()| answer(0))?,
            Ask::Remove { fid } => {
                // The fid goes whatever becomes of the file.
                self.clunk(fid)?;
                return Err(Errno::ROFS);
            }
            // Requests are answered in their order: what is to be given up has been answered.
            Ask::Flush => answer(0),
            Ask::Change => return Err(Errno::ROFS),
            Ask::Unknown => return Err(Errno::OPNOTSUPP),
        })
    }

    /// Bytes of data that an answer to this request has room for.
    fn room(&self, request: &Request, count: u32) -> usize {
        let room = request.room.min(self.max).saturating_sub(READ_HEADER);
        room.min(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn begin(&mut self, size: u32, version: &[u8]) -> Result<(u32, &'static [u8]), Errno> {
        self.fids.clear();
        (self.paths, self.open, self.max) = (0, 0, 0);
        if size < MIN_MESSAGE {
            return Err(Errno::MSGSIZE);
        }
        let size = size.min(MAX_MESSAGE);
        if version != DIALECT {
            return Ok((size, NO_DIALECT));
        }
        self.max = usize::try_from(size).map_err(|_| Errno::MSGSIZE)?;
        Ok((size, DIALECT))
    }

    fn attach(&mut self, fid: u32, auth: u32, name: &[u8]) -> Result<Qid, Errno> {
        if auth != NO_FID {
            return Err(Errno::INVAL);
        }
        // There is one tree here.
        if !matches!(name, b"" | b"/") {
            return Err(Errno::NOENT);
        }
        let stat = self.tree.stat(b"")?;
        self.device = Some(stat.device);
        self.add(fid, Arc::default())?;
        Ok(self.qid(&stat))
    }

    /// Goes as far as the names lead. The new fid is there only when all of them do.
    fn walk(&mut self, fid: u32, to: u32, names: &[&[u8]]) -> Result<Vec<Qid>, Errno> {
        let start = self.fid(fid)?.path.clone();
        if to != fid && self.fids.contains_key(&to) {
            return Err(Errno::INVAL);
        }
        let mut path = start.to_vec();
        let mut qids = Vec::with_capacity(names.len());
        for name in names {
            let found = step(&mut path, name).and_then(|()| self.tree.stat(&path));
            match found {
                Ok(stat) => qids.push(self.qid(&stat)),
                Err(why) if qids.is_empty() => return Err(why),
                Err(_) => return Ok(qids),
            }
        }
        let path: Arc<[u8]> = if names.is_empty() { start } else { path.into() };
        if to == fid {
            if self.paths + path.len() > MAX_PATHS {
                return Err(Errno::NFILE);
            }
            self.clunk(fid)?;
        }
        self.add(to, path)?;
        Ok(qids)
    }

    fn open(&mut self, fid: u32, flags: u32) -> Result<Qid, Errno> {
        let known = self.fid(fid)?;
        if known.open.is_some() {
            return Err(Errno::INVAL);
        }
        if flags & WRITING != 0 {
            return Err(Errno::ROFS);
        }
        if self.open >= self.max_open {
            return Err(Errno::MFILE);
        }
        let file = self.tree.open(&known.path)?;
        let stat = self.tree.stat_open(&file)?;
        if !matches!(stat.kind(), FOLDER | REGULAR) {
            return Err(Errno::ACCES);
        }
        let open = Open {
            file,
            kind: stat.kind(),
            device: stat.device,
        };
        self.fids.get_mut(&fid).ok_or(Errno::BADF)?.open = Some(open);
        self.open += 1;
        Ok(self.qid(&stat))
    }

    fn read(&self, fid: u32, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let open = self.fid(fid)?.open.as_ref().ok_or(Errno::BADF)?;
        if open.kind == FOLDER {
            return Err(Errno::ISDIR);
        }
        let read = self.tree.read(&open.file, offset, buffer)?;
        self.counts.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn entries(&mut self, fid: u32, offset: u64, room: usize) -> Result<Vec<u8>, Errno> {
        let device = self.device;
        let fid = self.fids.get_mut(&fid).ok_or(Errno::BADF)?;
        let open = fid.open.as_mut().ok_or(Errno::BADF)?;
        if open.kind != FOLDER {
            return Err(Errno::NOTDIR);
        }
        // What is above the share is nobody's business.
        let above = match &fid.path[..] {
            b"" => Some(self.tree.stat_open(&open.file)?.inode),
            _ => None,
        };
        let mut data = Vec::new();
        let mut more = false;
        self.tree.entries(&mut open.file, offset, &mut |entry| {
            if data.len() + ENTRY + entry.name.len() > room {
                more = true;
                return false;
            }
            let inode = above.filter(|_| entry.name == b"..").unwrap_or(entry.inode);
            put_entry(&mut data, entry, path_of(device, open.device, inode));
            true
        })?;
        match more && data.is_empty() {
            // An empty answer would be the folder's end.
            true => Err(Errno::INVAL),
            false => Ok(data),
        }
    }

    fn fid(&self, fid: u32) -> Result<&Fid<T::Open>, Errno> {
        self.fids.get(&fid).ok_or(Errno::BADF)
    }

    fn add(&mut self, fid: u32, path: Arc<[u8]>) -> Result<(), Errno> {
        if fid == NO_FID || self.fids.contains_key(&fid) {
            return Err(Errno::INVAL);
        }
        if self.fids.len() >= MAX_FIDS || self.paths + path.len() > MAX_PATHS {
            return Err(Errno::NFILE);
        }
        self.paths += path.len();
        self.fids.insert(fid, Fid { path, open: None });
        Ok(())
    }

    fn clunk(&mut self, fid: u32) -> Result<(), Errno> {
        let fid = self.fids.remove(&fid).ok_or(Errno::BADF)?;
        self.paths -= fid.path.len();
        self.open -= usize::from(fid.open.is_some());
        Ok(())
    }

    fn qid(&self, stat: &Stat) -> Qid {
        let [_, (seconds, nanos), (changed, _)] = stat.times;
        // Its low bits differ when a file was written or replaced.
        let mixed = seconds ^ nanos.rotate_left(7) ^ changed.rotate_left(17) ^ stat.size.rotate_left(11);
        let [a, b, c, d, ..] = mixed.to_le_bytes();
        Qid {
            kind: match stat.kind() {
                FOLDER => QID_FOLDER,
                LINK => QID_LINK,
                _ => 0,
            },
            version: u32::from_le_bytes([a | 1, b, c, d]),
            path: path_of(self.device, stat.device, stat.inode),
        }
    }
}

/// The number of a file for the guest: its own on the share's device, a mix of both elsewhere, for other file systems that are
/// mounted in the share have files of the same numbers.
fn path_of(share: Option<u64>, device: u64, inode: u64) -> u64 {
    if share == Some(device) {
        return inode;
    }
    let mut hasher = DefaultHasher::new();
    (device, inode).hash(&mut hasher);
    hasher.finish()
}

/// Changes a path by one name. Above the folder itself is the folder itself.
fn step(path: &mut Vec<u8>, name: &[u8]) -> Result<(), Errno> {
    if name == b".." {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        path.truncate(end);
        return Ok(());
    }
    let wrong = |byte: &u8| matches!(byte, b'/' | 0);
    if name.is_empty() || name == b"." || name.iter().any(wrong) {
        return Err(Errno::NOENT);
    }
    if name.len() > MAX_NAME || path.len() + 1 + name.len() > MAX_PATH {
        return Err(Errno::NAMETOOLONG);
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
    Ok(())
}

fn put_entry(data: &mut Vec<u8>, entry: &Entry, path: u64) {
    /// Folder and link among the types that folders have.
    const KINDS: [(u8, u8); 2] = [(4, QID_FOLDER), (10, QID_LINK)];
    let kind = KINDS
        .iter()
        .find(|(kind, _)| *kind == entry.kind)
        .map_or(0, |(_, qid)| *qid);
    data.push(kind);
    data.extend(0_u32.to_le_bytes());
    data.extend(path.to_le_bytes());
    data.extend(entry.next.to_le_bytes());
    data.push(entry.kind);
    // Names of Linux have 255 bytes at most.
    let len = u16::try_from(entry.name.len()).unwrap_or(u16::MAX);
    data.extend(len.to_le_bytes());
    data.extend(entry.name.iter().take(len.into()));
}
