//! Archives in the `newc` form that the kernel unpacks as initramfs (Linux Documentation/driver-api/early-userspace/buffer-format).
//!
//! The same tree gives the same bytes: entries are sorted, times and owners are zero.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Component, Path},
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder,
    File(Vec<u8>),
    Link(String),
    CharDevice { major: u32, minor: u32 },
}

/// A file tree in memory.
#[derive(Debug, Clone, Default)]
pub struct Tree(BTreeMap<String, (u32, Entry)>);

fn normal(path: &str) -> Result<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().with_context(|| format!("{path} is not UTF-8"))?),
            Component::RootDir | Component::CurDir => {}
            _ => bail!("{path} leaves the archive"),
        }
    }
    Ok(parts.join("/"))
}

impl Tree {
    fn put(&mut self, path: &str, mode: u32, entry: Entry) -> Result<()> {
        let path = normal(path)?;
        if let Some((folder, _)) = path.rsplit_once('/')
            && !self.0.contains_key(folder)
        {
            self.put(folder, 0o755, Entry::Folder)?;
        }
        self.0.insert(path, (mode & 0o7777, entry));
        Ok(())
    }

    /// A folder; missing ones above it come with it.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.put(path, mode, Entry::Folder)
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        self.put(path, mode, Entry::File(bytes.into()))
    }

    /// A symbolic link to `target`.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.put(path, 0o777, Entry::Link(target.to_owned()))
    }

    /// A character device node.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> Result<()> {
        self.put(path, mode, Entry::CharDevice { major, minor })
    }

    /// Whether something is at `path`.
    pub fn contains(&self, path: &str) -> bool {
        normal(path).is_ok_and(|p| self.0.contains_key(&p))
    }

    /// Copies a file, link or folder of the machine with all below it.
    pub fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let data = fs::symlink_metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        if data.is_symlink() {
            let target = fs::read_link(from)?;
            return self.link(
                to,
                target
                    .to_str()
                    .with_context(|| format!("{} is not UTF-8", target.display()))?,
            );
        }
        if data.is_dir() {
            self.folder(to, data.permissions().mode())?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name
                    .to_str()
                    .with_context(|| format!("{} is not UTF-8", entry.path().display()))?;
                self.copy(&entry.path(), &format!("{to}/{name}"))?;
            }
            return Ok(());
        }
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(to, data.permissions().mode(), bytes)
    }

    /// Writes the archive.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        for (inode, (path, (mode, entry))) in (1_u32..).zip(&self.0) {
            let (kind, data, rdev): (u32, &[u8], _) = match entry {
                Entry::Folder => (0o040_000, &[], (0, 0)),
                Entry::File(bytes) => (0o100_000, bytes, (0, 0)),
                Entry::Link(target) => (0o120_000, target.as_bytes(), (0, 0)),
                Entry::CharDevice { major, minor } => (0o020_000, &[], (*major, *minor)),
            };
            record(to, path, inode, kind | mode, data, rdev).with_context(|| format!("cannot archive {path}"))?;
        }
        record(to, "TRAILER!!!", 0, 0, &[], (0, 0))
    }
}

fn record(to: &mut impl Write, name: &str, inode: u32, mode: u32, data: &[u8], rdev: (u32, u32)) -> Result<()> {
    let size = u32::try_from(data.len()).context("a file of 4 GiB or more does not fit this format")?;
    let name_size = u32::try_from(name.len() + 1)?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    // Fields in order: inode, mode, uid, gid, links, mtime, size, device (2), rdev (2), name size, checksum.
    let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, rdev.0, rdev.1, name_size, 0];
    let mut head = String::from("070701");
    fields.iter().for_each(|f| head.push_str(&format!("{f:08X}")));
    head.push_str(name);
    head.push('\0');
    pad(to, head.as_bytes())?;
    pad(to, data)
}

/// Writes bytes and fills up to a multiple of four; header and data both end on one.
fn pad(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes)?;
    let fill = bytes.len().next_multiple_of(4) - bytes.len();
    Ok(to.write_all(&[0; 3][..fill])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_byte_exact() {
        let mut tree = Tree::default();
        tree.file("/hi", 0o644, "abcde").unwrap();
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        let first = concat!(
            "070701",
            "00000001",
            "000081A4",
            "00000000",
            "00000000",
            "00000001",
            "00000000",
            "00000005",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000003",
            "00000000",
            "hi\0\0\0\0",
            "abcde\0\0\0"
        );
        // 110 bytes of header and "hi\0" need three zeros to the next multiple of four.
        assert_eq!(&bytes[..first.len()], first.as_bytes());
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_order_does_not_matter() {
        let archive = |paths: &[&str]| {
            let mut tree = Tree::default();
            paths.iter().for_each(|p| tree.file(p, 0o644, "same").unwrap());
            let mut bytes = Vec::new();
            tree.write(&mut bytes).unwrap();
            bytes
        };
        let (one, two) = (archive(&["a/b/c", "a/d"]), archive(&["a/d", "a/b/c"]));
        assert_eq!(one, two);
        assert_eq!(archive(&["a/b/c"]), archive(&["/a/b/./c"]));
        let at = |name: &[u8]| one.windows(name.len()).position(|w| w == name).unwrap();
        assert!(at(b"a\0") < at(b"a/b\0") && at(b"a/b\0") < at(b"a/b/c\0"));
    }

    #[test]
    fn nothing_leaves_the_archive() {
        assert!(Tree::default().file("../etc/passwd", 0o644, "").is_err());
    }
}
