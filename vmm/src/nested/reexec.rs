//! `daxvisor run` in the nested host: the same program with the same arguments, plus `--host kvm` and, for an API
//! socket out here, an API socket in there.

use super::{
    HostError, HostOptions, Outcome, RunOptions, StdinMode, plan_shares,
    run::{Offer, run_machine},
};
use crate::config::{NetConfig, VmConfig};
use crate::images;
use crate::machine::{console::TERMINAL, socket::Socket};
use rustix::{stdio::stdin, termios::isatty};
use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
};

/// Folders that are the nested host's own: what is needed from there must be shared.
const PRIVATE: [&str; 4] = ["/tmp", "/run", "/dev/shm", "/var/tmp"];

/// The machine's API socket in the nested host, whose `/run` nobody else has.
const INNER_API: &str = "/run/daxvisor-api";
/// How long a client's command waits for that socket: the machine is still being built when the first clients come.
const INNER_API_WAIT: &str = "60";

/// What to run again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reexec {
    /// Arguments without the program's name, as given: `run --nvdimm ...`.
    pub args: Vec<String>,
    /// Folders to share, see [`shares_of`].
    pub shares: Vec<PathBuf>,
    /// Whether the guest's console is on our standard streams.
    pub interactive: bool,
    /// The machine; its `shares` are added to.
    pub host: HostOptions,
}

/// Runs this program again in the nested host, with the terminal passed through when `interactive`, and its API socket
/// offered as `api`.
pub fn reexec_in_host(request: &Reexec, api: Option<Socket>) -> Result<Outcome, HostError> {
    let program = env::current_exe().map_err(HostError::io("cannot find this program's own file"))?;
    let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
    let mut host = request.host.clone();
    host.shares.extend(request.shares.iter().cloned());
    host.shares.extend(hidden_folders(&cwd, &program));
    let mut argv = vec![program.to_string_lossy().into_owned()];
    argv.extend(inner_args(&request.args, api.is_some()));
    let offer = api.map(|socket| Offer {
        socket,
        argv: client_argv(&argv[0]),
    });
    let stdin = match (request.interactive, isatty(stdin())) {
        (true, true) => StdinMode::Raw,
        (true, false) => StdinMode::Forward,
        (false, _) => StdinMode::None,
    };
    // Inside, standard input is a pipe; the terminal is here, in raw mode, and its escape key has to work all the same.
    let terminal = (stdin == StdinMode::Raw).then(|| (TERMINAL.to_owned(), "1".to_owned()));
    run_machine(
        &RunOptions {
            host,
            stdin,
            env: terminal.into_iter().collect(),
            ..Default::default()
        },
        &argv,
        offer,
    )
}

/// The folders of all files that `config` (and its file, if any) names: those written to, and those read from a place
/// that the nested host hides behind its own.
pub fn shares_of(config: &VmConfig, config_file: Option<&Path>) -> Result<Vec<PathBuf>, HostError> {
    let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
    let read = [config.kernel.as_deref(), config.initrd.as_deref(), config_file]
        .into_iter()
        .flatten()
        .chain(config.module.iter().map(|module| module.file.as_path()));
    let consoles = config.console_files().into_iter().map(|(_, path)| path);
    let links: Vec<_> = config.net.iter().filter_map(NetConfig::socket).collect();
    let written = config
        .nvdimm
        .iter()
        .flat_map(|n| [n.file.as_deref(), n.state.as_deref()])
        .flatten()
        .chain(config.memory_range.iter().filter_map(|r| r.file.as_deref()))
        .chain(config.memory_device.iter().filter_map(|d| d.file.as_deref()))
        .chain(config.virtio_pmem.iter().filter_map(|d| d.file.as_deref()))
        .chain(config.disk.iter().map(|d| d.file.as_path()))
        .chain(config.virtual_disk.iter().filter_map(|d| d.file.as_deref()))
        .chain(config.apei.records.as_deref())
        .chain(consoles)
        .chain(links.iter().map(PathBuf::as_path))
        .chain(config.vsock.iter().map(|vsock| vsock.socket.as_path()))
        .chain(config.agent_socket.as_deref());
    let mut folders: BTreeSet<_> = read.filter_map(|file| needed_folder(&cwd, file, false)).collect();
    folders.extend(written.filter_map(|file| needed_folder(&cwd, file, true)));
    folders.extend(hidden_shares(config)?);
    plan_shares(&cwd, &folders.into_iter().collect::<Vec<_>>())
}

/// The folders of files that are only read, where the nested host hides them behind its own.
pub fn folders_of_hidden<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>, HostError> {
    let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
    let folders: BTreeSet<_> = files
        .into_iter()
        .filter_map(|file| needed_folder(&cwd, file, false))
        .collect();
    Ok(folders.into_iter().collect())
}

/// The shared folders of a machine that the nested host hides behind its own.
pub fn hidden_shares(config: &VmConfig) -> Result<Vec<PathBuf>, HostError> {
    let cwd = env::current_dir().map_err(HostError::io("cannot read the working directory"))?;
    let real = config.share.iter().map(|share| {
        let path = cwd.join(&share.path);
        path.canonicalize().unwrap_or(path)
    });
    Ok(real
        .filter(|path| PRIVATE.iter().any(|p| path.starts_with(p)))
        .collect())
}

/// Folders that a command needs from places which the nested host hides behind its own: its program's and the guest images'.
pub(super) fn hidden_folders(cwd: &Path, program: &Path) -> Vec<PathBuf> {
    // A bare name is looked up in PATH, which is not hidden.
    let program = (program.components().count() > 1).then(|| program.to_owned());
    let images = images::default_dir().join(images::MANIFEST);
    let images = images.exists().then_some(images);
    [program, images]
        .into_iter()
        .flatten()
        .filter_map(|file| needed_folder(cwd, &file, false))
        .collect()
}

/// The folder to share for `file`, if one must be. A file that is a link counts as what it points to.
fn needed_folder(cwd: &Path, file: &Path, written: bool) -> Option<PathBuf> {
    let path = cwd.join(file);
    let real = path.canonicalize().unwrap_or(path);
    let hidden = PRIVATE.iter().any(|p| real.starts_with(p));
    let folder = real.parent().filter(|_| written || hidden)?;
    // The root itself cannot be shared; a file there stays read-only, and the second run says so.
    (folder != Path::new("/")).then(|| folder.to_owned())
}

/// The command that connects its standard streams with the inner API socket.
fn client_argv(program: &str) -> Vec<String> {
    let args = [
        program,
        "ctl",
        "--api-socket",
        INNER_API,
        "--connect-timeout",
        INNER_API_WAIT,
        "raw",
    ];
    args.map(str::to_owned).to_vec()
}

/// The arguments for the second run: on KVM, and with an API socket of its own if there is one.
fn inner_args(args: &[String], api: bool) -> Vec<String> {
    let args = replaced(args, "--host", "kvm");
    if api {
        replaced(&args, "--api-socket", INNER_API)
    } else {
        args
    }
}

/// The arguments with any `flag` replaced by one with this value, before a `--` if there is one.
fn replaced(args: &[String], flag: &str, value: &str) -> Vec<String> {
    let options = args.iter().position(|a| a == "--").unwrap_or(args.len());
    let (options, rest) = args.split_at(options);
    let mut kept = Vec::new();
    let mut skip = false;
    for arg in options {
        let joined = arg.strip_prefix(flag).is_some_and(|tail| tail.starts_with('='));
        if skip || joined {
            skip = false;
        } else if arg == flag {
            skip = true;
        } else {
            kept.push(arg.clone());
        }
    }
    kept.extend([flag.to_owned(), value.to_owned()]);
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConsoleConfig;
    use std::fs;

    fn pinned(args: &[&str]) -> String {
        inner_args(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), false).join(" ")
    }

    #[test]
    fn the_second_run_is_pinned_to_kvm() {
        assert_eq!(pinned(&["run", "--kernel", "k"]), "run --kernel k --host kvm");
        assert_eq!(
            pinned(&["run", "--host", "auto", "--cpus", "2"]),
            "run --cpus 2 --host kvm"
        );
        assert_eq!(
            pinned(&["run", "--host=nested", "--", "--host", "x"]),
            "run --host kvm -- --host x"
        );
    }

    #[test]
    fn the_second_run_has_an_api_socket_of_its_own() {
        let args = ["run", "--api-socket", "/x", "--kernel", "k", "--api-socket=/y"].map(str::to_owned);
        assert_eq!(
            inner_args(&args, true).join(" "),
            format!("run --kernel k --host kvm --api-socket {INNER_API}")
        );
        assert_eq!(
            client_argv("daxvisor").join(" "),
            format!("daxvisor ctl --api-socket {INNER_API} --connect-timeout {INNER_API_WAIT} raw")
        );
    }

    #[test]
    fn folders_of_written_and_of_hidden_files_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for sub in ["store", "kernels", "logs", "tree"] {
            fs::create_dir(root.join(sub)).unwrap();
        }
        let config: VmConfig = toml::from_str(&format!(
            "kernel = '{0}/kernels/bzImage'\ninitrd = '/boot/initrd'\n[[nvdimm]]\nfile = '{0}/store/a'\nsize = '64M'\n\
             [[share]]\npath = '{0}/tree'\n[[share]]\npath = '/usr'\n",
            root.display()
        ))
        .unwrap();
        let config = VmConfig {
            console: ConsoleConfig::File(root.join("logs/console")),
            ..config
        };
        let shares = shares_of(&config, None).unwrap();
        let cwd = env::current_dir().unwrap();
        let mut expected = vec![root.join("logs"), root.join("store"), cwd];
        // A kernel and the files of a share are only read: they need a share only where the nested host has a folder of its own.
        expected.extend(
            PRIVATE
                .iter()
                .any(|p| root.starts_with(p))
                .then(|| [root.join("kernels"), root.join("tree")])
                .into_iter()
                .flatten(),
        );
        expected.sort();
        assert_eq!(shares, expected);
    }
}
