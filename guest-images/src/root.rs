//! A root of unpacked packages in which programs run with the user's own privileges: compilers that this machine need not have.

use crate::{apt::Fetched, process::output};
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Names that merged-`/usr` systems have as links; packages of the suite still carry some of them as folders.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];
/// Names in `usr/bin` that maintainer scripts would have made, which never run here, and what they stand for.
const ALTERNATIVES: &[(&str, &str)] = &[("awk", "gawk")];

/// Unpacks packages into `root`, and makes it one that programs can run in.
pub fn unpack(packages: &[Fetched], root: &Path) -> Result<()> {
    packages.iter().try_for_each(|p| p.unpack(root))?;
    MERGED.iter().try_for_each(|name| merge(root, name))?;
    for (name, program) in ALTERNATIVES {
        let link = root.join("usr/bin").join(name);
        if root.join("usr/bin").join(program).exists() && !link.exists() {
            symlink(program, link)?;
        }
    }
    ["dev", "proc", "tmp", "work"]
        .iter()
        .try_for_each(|d| Ok(fs::create_dir_all(root.join(d))?))
}

/// Moves a folder of the root into `usr` and leaves a link.
fn merge(root: &Path, name: &str) -> Result<()> {
    let (outer, inner) = (root.join(name), root.join("usr").join(name));
    fs::create_dir_all(&inner)?;
    if outer.is_dir() && !outer.is_symlink() {
        output(Command::new("cp").arg("-a").arg(outer.join(".")).arg(&inner))?;
        fs::remove_dir_all(&outer)?;
    }
    if !outer.is_symlink() {
        symlink(format!("usr/{name}"), &outer)?;
    }
    Ok(())
}

/// A run of a shell script in a root. The root itself is not written to.
pub struct Run<'a> {
    /// Where the packages are.
    pub root: &'a Path,
    /// Folder that the script has as `/work`.
    pub work: &'a Path,
    /// Folders that it has below `/work`, by names that exist there.
    pub folders: &'a [(&'a str, PathBuf)],
}

/// Runs in namespaces of its own, where this user is root. Only `/dev` is the machine's. Arguments: root, work, number of
/// folders, (name, folder)..., then those of the script.
const ENTER: &str = r#"set -e
root=$1 work=$2 folders=$3
shift 3
mount --rbind /dev "$root/dev"
mount -t tmpfs none "$root/tmp"
mount --bind "$work" "$root/work"
while [ "$folders" -gt 0 ]; do
  mount --bind "$2" "$root/work/$1"
  shift 2
  folders=$((folders - 1))
done
exec chroot "$root" /bin/sh /work/script "$@"
"#;

/// Whether this user may have namespaces of its own.
fn allowed() -> Result<()> {
    let mut command = Command::new("unshare");
    output(command.args(["--map-root-user", "--mount", "true"]))
        .map(drop)
        .context("cannot enter a root of packages; hint: this needs user namespaces, or root")
}

impl Run<'_> {
    /// Runs `script` with arguments, to success; gives its standard output.
    pub fn script(&self, script: &str, arguments: &[String]) -> Result<String> {
        let file = self.work.join("script");
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", ENTER, "sh"]);
        command
            .arg(self.root)
            .arg(self.work)
            .arg(self.folders.len().to_string());
        for (name, folder) in self.folders {
            command.arg(name).arg(folder);
        }
        command.args(arguments).env("LC_ALL", "C");
        allowed()?;
        output(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_root_move_into_usr_with_what_is_there_already() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for file in ["bin/a", "usr/bin/b", "usr/bin/gawk"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), file).unwrap();
        }
        unpack(&[], root).unwrap();
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), PathBuf::from("usr/bin"));
        assert_eq!(fs::read_to_string(root.join("usr/bin/a")).unwrap(), "bin/a");
        assert_eq!(fs::read_to_string(root.join("bin/b")).unwrap(), "usr/bin/b");
        assert_eq!(fs::read_link(root.join("bin/awk")).unwrap(), PathBuf::from("gawk"));
        // A second time changes nothing.
        unpack(&[], root).unwrap();
    }
}
