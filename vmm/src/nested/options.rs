//! What a caller says of the nested host, and which folders it shares.

use super::HostError;
use devices::units::ByteSize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The shape of the nested host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Folders that commands may write to, besides the working directory.
    pub shares: Vec<PathBuf>,
    /// vCPUs; with `icount` always 1. With several, QEMU translates on several threads, and one can keep a stale translation of
    /// code that a kernel patches on another; see docs/nested-host.md.
    pub cpus: u8,
    /// RAM.
    pub memory: ByteSize,
    /// More parameters for its kernel, see [`kernel_argument`].
    pub kernel_args: Vec<String>,
    /// Time counts instructions: figures repeat, nothing runs in parallel.
    pub icount: bool,
    /// How long the agent may take to say hello.
    pub start_timeout: Duration,
    /// How long it may be silent later.
    pub silence: Duration,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            shares: vec![],
            cpus: 1,
            memory: ByteSize::gib(6),
            kernel_args: vec![],
            icount: false,
            start_timeout: Duration::from_secs(90),
            silence: Duration::from_secs(60),
        }
    }
}

/// One parameter for L1's kernel, such as `memmap=512M!4G`: a word of printable ASCII without quotes, for the kernel splits
/// its command line at blanks.
pub fn kernel_argument(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\'';
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!(
            "'{}' is not a kernel parameter: expected a word of printable ASCII without quotes, such as memmap=512M!4G",
            text.escape_debug()
        ));
    }
    Ok(text.to_owned())
}

/// The folders to share writable: each once, none inside another, by their real paths, outermost first.
///
/// The working directory `cwd` is always among them, but for `/`: whoever works there gets a read-only view.
pub fn plan_shares(cwd: &Path, asked: &[PathBuf]) -> Result<Vec<PathBuf>, HostError> {
    let mut real = Vec::new();
    for path in asked {
        let refuse = |why: String| HostError::Share {
            path: path.clone(),
            why,
        };
        let absolute = cwd.join(path).canonicalize().map_err(|e| refuse(e.to_string()))?;
        if !absolute.is_dir() {
            return Err(refuse("expected a folder; hint: share the folder that holds it".into()));
        }
        check(&absolute).map_err(refuse)?;
        real.push(absolute);
    }
    if cwd != Path::new("/") {
        check(cwd).map_err(|why| HostError::Share {
            path: cwd.to_owned(),
            why,
        })?;
        real.push(cwd.to_owned());
    }
    real.sort();
    let mut shares: Vec<PathBuf> = Vec::new();
    for path in real {
        if !shares.iter().any(|outer| path.starts_with(outer)) {
            shares.push(path);
        }
    }
    Ok(shares)
}

fn check(path: &Path) -> Result<(), String> {
    path.to_str().ok_or("its name is not UTF-8")?;
    if path == Path::new("/") {
        return Err("the whole file system is only ever shared read-only; hint: name the folders to write to".into());
    }
    let kernel_owned = ["/proc", "/sys", "/dev"].iter().any(|p| path.starts_with(p)) && !path.starts_with("/dev/shm");
    if kernel_owned {
        Err("the nested host has its own /proc, /sys and /dev".into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::ffi::OsStrExt};

    fn why(cwd: &str, asked: &[&str]) -> String {
        plan_shares(Path::new(cwd), &asked.iter().map(PathBuf::from).collect::<Vec<_>>())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn shares_are_real_unique_and_not_nested() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for sub in ["a/b", "c"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        std::os::unix::fs::symlink("c", root.join("link")).unwrap();
        let shares = plan_shares(
            &root.join("a/b"),
            &["../../link".into(), root.join("a"), root.join("c/.")],
        )
        .unwrap();
        assert_eq!(shares, [root.join("a"), root.join("c")]);
    }

    #[test]
    fn kernel_arguments_are_single_words() {
        assert_eq!(kernel_argument("memmap=512M!4G").unwrap(), "memmap=512M!4G");
        for bad in ["", "a b", "a\n", "a=\"b\"", "ä"] {
            let why = kernel_argument(bad).unwrap_err();
            assert!(why.contains("is not a kernel parameter: expected a word"), "{why}");
        }
    }

    #[test]
    fn root_is_a_place_to_work_but_not_to_write() {
        assert_eq!(plan_shares(Path::new("/"), &[]).unwrap(), Vec::<PathBuf>::new());
        assert!(why("/", &["/"]).contains("only ever shared read-only"));
    }

    #[test]
    fn folders_that_cannot_be_shared_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        fs::create_dir(&odd).unwrap();
        assert!(plan_shares(&odd, &[]).unwrap_err().to_string().contains("not UTF-8"));
        assert!(why("/", &["/nonexistent"]).starts_with("cannot share /nonexistent: No such file"));
        assert!(why("/", &["/etc/passwd"]).contains("expected a folder"));
        assert!(why("/", &["/proc/self/fd"]).contains("its own /proc"));
    }
}
