//! The kernel's own file systems under a root.

use rustix::mount::{MountFlags, mount};
use std::{ffi::CString, fs, io, path::Path};

/// One mount: file system, place below the root, options, and whether its absence is worth a word.
struct Entry(&'static str, &'static str, &'static str, bool);

/// In order: later ones stand on earlier ones.
const TABLE: &[Entry] = &[
    Entry("proc", "proc", "", true),
    Entry("sysfs", "sys", "", true),
    Entry("devtmpfs", "dev", "mode=0755", true),
    Entry("devpts", "dev/pts", "ptmxmode=0666,mode=0620,gid=5", true),
    Entry("tmpfs", "dev/shm", "mode=1777", true),
    Entry("tmpfs", "run", "mode=0755", true),
    Entry("tmpfs", "tmp", "mode=1777", true),
    Entry("debugfs", "sys/kernel/debug", "", false),
    Entry("tracefs", "sys/kernel/tracing", "", false),
    Entry("configfs", "sys/kernel/config", "", false),
    Entry("cgroup2", "sys/fs/cgroup", "", false),
];

/// Mounts one file system; `options` as `mount -o` takes them.
pub fn mount_one(kind: &str, source: &str, target: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let data = CString::new(options)?;
    mount(source, target, kind, flags, Some(data.as_c_str()))?;
    Ok(())
}

/// Mounts everything of the table under `root`; says what could not be mounted.
pub fn mount_table(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for Entry(kind, place, options, needed) in TABLE {
        let target = root.join(place);
        // Most exist; those in fresh tmpfs and devtmpfs do not, and a read-only root may refuse.
        let _ = fs::create_dir_all(&target);
        if let Err(e) = mount_one(kind, kind, &target, MountFlags::empty(), options)
            && *needed
        {
            problems.push(format!("cannot mount {kind} on {}: {e}", target.display()));
        }
    }
    problems
}
