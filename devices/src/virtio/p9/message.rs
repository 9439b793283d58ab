//! Messages of 9P2000.L: requests are taken apart, answers put together. Little-endian; a text has two bytes of length before it.

use super::tree::{Errno, Space, Stat};

/// Bytes of size, type and tag.
pub const HEADER: usize = 7;
/// Most names of one walk, as 9P has it.
const MAX_NAMES: u16 = 16;
/// Tag of no request.
pub const NO_TAG: u16 = u16::MAX;

/// Types of requests; an answer's is one higher.
pub mod kind {
    pub const ERROR: u8 = 6;
    pub const STATFS: u8 = 8;
    pub const LOPEN: u8 = 12;
    pub const LCREATE: u8 = 14;
    pub const SYMLINK: u8 = 16;
    pub const MKNOD: u8 = 18;
    pub const RENAME: u8 = 20;
    pub const READLINK: u8 = 22;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const XATTRCREATE: u8 = 32;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const LOCK: u8 = 52;
    pub const GETLOCK: u8 = 54;
    pub const LINK: u8 = 70;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const ATTACH: u8 = 104;
    pub const FLUSH: u8 = 108;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
    pub const REMOVE: u8 = 122;
}

/// Identity of a file for the guest: type, version, path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qid {
    /// Folder, symbolic link or anything else.
    pub kind: u8,
    /// Another one when the content is. Never 0, by which Linux knows files that must not be cached.
    pub version: u32,
    /// Which file.
    pub path: u64,
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    Version {
        size: u32,
        version: &'a [u8],
    },
    Attach {
        fid: u32,
        auth: u32,
        name: &'a [u8],
    },
    Walk {
        fid: u32,
        to: u32,
        names: Vec<&'a [u8]>,
    },
    Open {
        fid: u32,
        flags: u32,
    },
    Read {
        fid: u32,
        offset: u64,
        count: u32,
    },
    Entries {
        fid: u32,
        offset: u64,
        count: u32,
    },
    Attributes {
        fid: u32,
    },
    Space {
        fid: u32,
    },
    Link {
        fid: u32,
    },
    Sync {
        fid: u32,
    },
    Lock {
        fid: u32,
    },
    GetLock {
        fid: u32,
        lock: Lock<'a>,
    },
    Clunk {
        fid: u32,
    },
    Remove {
        fid: u32,
    },
    Flush,
    /// Whatever would change something.
    Change,
    /// Whatever there is not, such as extended attributes.
    Unknown,
}

/// A lock that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock<'a> {
    pub start: u64,
    pub len: u64,
    pub process: u32,
    pub client: &'a [u8],
}

/// What is left of a request's bytes.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (now, later) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = later;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        self.bytes(N)?.try_into().map_err(|_| Errno::INVAL)
    }

    fn u8(&mut self) -> Result<u8, Errno> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Errno> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a [u8], Errno> {
        let len = self.u16()?;
        self.bytes(len.into())
    }
}

impl<'a> Ask<'a> {
    /// Takes apart what stands behind the header of a request.
    pub fn parse(kind: u8, body: &'a [u8]) -> Result<Self, Errno> {
        let mut rest = Rest(body);
        Ok(match kind {
            kind::VERSION => Self::Version {
                size: rest.u32()?,
                version: rest.text()?,
            },
            kind::ATTACH => {
                let (fid, auth) = (rest.u32()?, rest.u32()?);
                let _user = rest.text()?;
                let name = rest.text()?;
                Self::Attach { fid, auth, name }
            }
            kind::WALK => {
                let (fid, to, count) = (rest.u32()?, rest.u32()?, rest.u16()?);
                if count > MAX_NAMES {
                    return Err(Errno::INVAL);
                }
                let names = (0..count).map(|_| rest.text()).collect::<Result<_, _>>()?;
                Self::Walk { fid, to, names }
            }
            kind::LOPEN => Self::Open {
                fid: rest.u32()?,
                flags: rest.u32()?,
            },
            kind::READ => Self::Read {
                fid: rest.u32()?,
                offset: rest.u64()?,
                count: rest.u32()?,
            },
            kind::READDIR => Self::Entries {
                fid: rest.u32()?,
                offset: rest.u64()?,
                count: rest.u32()?,
            },
            kind::GETATTR => Self::Attributes { fid: rest.u32()? },
            kind::STATFS => Self::Space { fid: rest.u32()? },
            kind::READLINK => Self::Link { fid: rest.u32()? },
            kind::FSYNC => Self::Sync { fid: rest.u32()? },
            kind::LOCK => Self::Lock { fid: rest.u32()? },
            kind::GETLOCK => {
                let (fid, _kind) = (rest.u32()?, rest.u8()?);
                let lock = Lock {
                    start: rest.u64()?,
                    len: rest.u64()?,
                    process: rest.u32()?,
                    client: rest.text()?,
                };
                Self::GetLock { fid, lock }
            }
            kind::CLUNK => Self::Clunk { fid: rest.u32()? },
            kind::REMOVE => Self::Remove { fid: rest.u32()? },
            kind::FLUSH => Self::Flush,
            kind::LCREATE
            | kind::SYMLINK
            | kind::MKNOD
            | kind::RENAME
            | kind::SETATTR
            | kind::XATTRCREATE
            | kind::LINK
            | kind::MKDIR
            | kind::RENAMEAT
            | kind::UNLINKAT
            | kind::WRITE => Self::Change,
            _ => Self::Unknown,
        })
    }
}

/// An answer that is being put together.
pub struct Answer(Vec<u8>);

impl Answer {
    /// The answer to a request of this type, with room for `more` bytes behind its header.
    pub fn to(request: u8, tag: u16, more: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + more);
        bytes.extend([0; 4]);
        bytes.push(request.wrapping_add(1));
        bytes.extend(tag.to_le_bytes());
        Self(bytes)
    }

    /// The answer that tells why there is none.
    pub fn refusal(tag: u16, why: Errno) -> Vec<u8> {
        Self::to(kind::ERROR, tag, 4).u32(why.0).finish()
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Bytes of at most 64 KiB, with their length before them.
    pub fn text(self, text: &[u8]) -> Self {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let text = text.get(..len.into()).unwrap_or(text);
        self.u16(len).bytes(text)
    }

    pub fn qid(self, qid: Qid) -> Self {
        self.u8(qid.kind).u32(qid.version).u64(qid.path)
    }

    /// Everything that a file has, but for what Linux does not ask for or this server does not know.
    pub fn attributes(self, qid: Qid, stat: &Stat) -> Self {
        /// Mode to blocks (`P9_STATS_BASIC` of Linux).
        const KNOWN: u64 = 0x7ff;
        let mut answer = self.u64(KNOWN).qid(qid).u32(stat.mode).u32(stat.user).u32(stat.group);
        for word in [stat.links, stat.special, stat.size, stat.block, stat.blocks] {
            answer = answer.u64(word);
        }
        for (seconds, nanos) in stat.times {
            answer = answer.u64(seconds).u64(nanos);
        }
        // Time of birth, generation, version of the data.
        answer.bytes(&[0; 32])
    }

    pub fn space(self, space: &Space) -> Self {
        /// What Linux has as the type of a 9p file system.
        const TYPE: u32 = 0x0102_1997;
        let mut answer = self.u32(TYPE).u32(space.block);
        for word in [
            space.blocks,
            space.free,
            space.available,
            space.files,
            space.free_files,
            0,
        ] {
            answer = answer.u64(word);
        }
        answer.u32(space.name)
    }

    /// The bytes, which begin with their number.
    pub fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (to, from) in self.0.iter_mut().zip(len.to_le_bytes()) {
            *to = from;
        }
        self.0
    }
}
