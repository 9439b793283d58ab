//! What a server needs of the files that it shows.

/// Why something cannot be done: an error number of Linux on x86, as 9P2000.L sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

impl Errno {
    /// No such file.
    pub const NOENT: Self = Self(2);
    /// Input or output failed.
    pub const IO: Self = Self(5);
    /// Not open, or no such fid.
    pub const BADF: Self = Self(9);
    /// Not for the guest.
    pub const ACCES: Self = Self(13);
    /// No folder.
    pub const NOTDIR: Self = Self(20);
    /// A folder.
    pub const ISDIR: Self = Self(21);
    /// A request that makes no sense.
    pub const INVAL: Self = Self(22);
    /// The share has no room for more fids.
    pub const NFILE: Self = Self(23);
    /// The share has no room for more open files.
    pub const MFILE: Self = Self(24);
    /// Nothing can be changed.
    pub const ROFS: Self = Self(30);
    /// A name that no file has.
    pub const NAMETOOLONG: Self = Self(36);
    /// A message that is too long, or whose answer would be.
    pub const MSGSIZE: Self = Self(90);
    /// No such request.
    pub const OPNOTSUPP: Self = Self(95);
}

/// File type bits of a mode.
const TYPE: u32 = 0o170_000;
/// A folder's.
pub const FOLDER: u32 = 0o040_000;
/// A regular file's.
pub const REGULAR: u32 = 0o100_000;
/// A symbolic link's.
pub const LINK: u32 = 0o120_000;

/// Attributes of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// Device that the file is on.
    pub device: u64,
    /// Number of the file there.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Names.
    pub links: u64,
    /// Device that the file is.
    pub special: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that are best read at once.
    pub block: u64,
    /// Units of 512 bytes that it takes.
    pub blocks: u64,
    /// Seconds and nanoseconds of the last access, change of the content, change of the attributes.
    pub times: [(u64, u64); 3],
}

impl Stat {
    /// Type bits of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & TYPE
    }
}

/// Space of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes of a block.
    pub block: u32,
    /// Blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Those that users may have.
    pub available: u64,
    /// Files that there can be.
    pub files: u64,
    /// Files that there can still be.
    pub free_files: u64,
    /// Most bytes of a name.
    pub name: u32,
}

/// An entry of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Name.
    pub name: Vec<u8>,
    /// Number of the file on the folder's device.
    pub inode: u64,
    /// Type, as a folder has it (`DT_*` of Linux).
    pub kind: u8,
    /// Where the folder goes on behind this entry.
    pub next: u64,
}

/// Files below one folder.
///
/// A path is relative to it, of names with `/` between them, none of which is empty, `.` or `..`; an empty path is the folder
/// itself. Nothing outside of it is reached, whatever links stand in the way: a link is what is looked at, and no step on one.
pub trait Tree: Send {
    /// A file or folder that is open for reading.
    type Open: Send;

    /// Attributes of what stands there now.
    fn stat(&self, path: &[u8]) -> Result<Stat, Errno>;
    /// Opens a regular file or a folder; nothing else is ever opened.
    fn open(&self, path: &[u8]) -> Result<Self::Open, Errno>;
    /// Attributes of what is open.
    fn stat_open(&self, open: &Self::Open) -> Result<Stat, Errno>;
    /// Reads bytes of a file from `offset` on; 0 at its end.
    fn read(&self, open: &Self::Open, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno>;
    /// Gives entries of a folder to `take` from `offset` on, which is 0 or an entry's [`Entry::next`], until it refuses one or there
    /// are no more.
    fn entries(&self, open: &mut Self::Open, offset: u64, take: &mut dyn FnMut(&Entry) -> bool) -> Result<(), Errno>;
    /// What a symbolic link says.
    fn link(&self, path: &[u8]) -> Result<Vec<u8>, Errno>;
    /// Space of the file system there.
    fn space(&self, path: &[u8]) -> Result<Space, Errno>;
}
