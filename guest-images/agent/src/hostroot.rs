//! The nested host's root: the real host's files, read-only over 9p, with private places to write and the shares on top.

use crate::{
    cmdline::{Options, Share},
    mounts::{mount_one, mount_table},
};
use anyhow::{Context, Result};
use rustix::{
    mount::{MountFlags, mount_move},
    process::{chdir, chroot},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// 9p tag of the real host's root.
pub const ROOT_TAG: &str = "root";
/// Options common to all our 9p mounts; the size keeps the count of exits low.
const P9_OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000";
/// Where the new root is put together.
const NEW_ROOT: &str = "/host";
/// Cache mode of shares: what is written goes straight through, and files can be mapped shared (`none` forbids that).
const SHARE_CACHE: &str = "mmap";

fn place(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn mount_share(root: &Path, share: &Share, cache: &str) -> Result<()> {
    let target = place(root, &share.path);
    // Only a place in one of our tmpfs can be missing; elsewhere the share is one of the host's own folders.
    let _ = fs::create_dir_all(&target);
    mount_one(
        "9p",
        &share.tag,
        &target,
        MountFlags::empty(),
        &format!("{P9_OPTIONS},cache={cache}"),
    )
    .with_context(|| format!("cannot mount share '{}' on {}", share.tag, share.path.display()))
}

/// Builds the root and moves into it for good. Returns what went wrong but can be lived with.
pub fn enter(options: &Options) -> Result<Vec<String>> {
    let root = Path::new(NEW_ROOT);
    fs::create_dir_all(root)?;
    mount_one(
        "9p",
        ROOT_TAG,
        root,
        MountFlags::RDONLY,
        &format!("{P9_OPTIONS},cache=loose"),
    )
    .with_context(|| format!("cannot mount the host's root (9p tag '{ROOT_TAG}')"))?;
    let mut problems = mount_table(root);
    let var_tmp = root.join("var/tmp");
    if var_tmp.is_dir()
        && let Err(e) = mount_one("tmpfs", "tmpfs", &var_tmp, MountFlags::empty(), "mode=1777")
    {
        problems.push(format!("cannot mount tmpfs on /var/tmp: {e}"));
    }
    let cache = options.share_cache.as_deref().unwrap_or(SHARE_CACHE);
    for share in &options.shares {
        problems.extend(mount_share(root, share, cache).err().map(|e| format!("{e:#}")));
    }
    // Moving the mount, and not only chroot(2), leaves a root that namespaces and mount tables understand.
    chdir(root)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    Ok(problems)
}
