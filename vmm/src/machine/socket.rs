//! Unix sockets that the machine listens on: whose file they are, who may connect, and when the file goes.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::socket_peercred,
    },
    process::geteuid,
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Clients that may wait to be let in: as many as the host has them.
const WAITING: i32 = -1;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something that is no socket stands there.
    #[error("{0} socket {1} exists and is no socket; hint: choose another path")]
    Exists(&'static str, PathBuf),
    /// Somebody answers there.
    #[error("{0} socket {1} is in use by another process; hint: choose another path")]
    InUse(&'static str, PathBuf),
    /// Any other failure.
    #[error("cannot listen on {0} socket {1}")]
    Listen(&'static str, PathBuf, #[source] io::Error),
}

/// A socket file of ours with mode 0600, non-blocking. The file goes when this does.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, which may by then be somebody else's.
    file: (u64, u64),
}

impl Socket {
    /// Listens on `path` as the `what` socket, replacing one that nobody listens on.
    pub fn listen(what: &'static str, path: &Path) -> Result<Self, SocketError> {
        Self::listen_for(SocketType::STREAM, what, path)
    }

    /// The same for connections of this type.
    pub fn listen_for(kind: SocketType, what: &'static str, path: &Path) -> Result<Self, SocketError> {
        let failed = |e| SocketError::Listen(what, path.to_owned(), e);
        if let Ok(meta) = fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(SocketError::Exists(what, path.to_owned()));
            }
            if !is_stale(path).map_err(failed)? {
                return Err(SocketError::InUse(what, path.to_owned()));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = listener(kind, path).map_err(|e| failed(e.into()))?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        let socket = Self {
            listener,
            path: path.to_owned(),
            file: (meta.dev(), meta.ino()),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        socket.listener.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    }

    /// Where clients knock.
    pub fn fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// The same as a listener of its own.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The same, borrowed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whether the file is still the one that was made here.
    pub fn has_its_file(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file)
    }

    /// A waiting client, non-blocking; `None` when there is none (any more).
    pub fn accept(&self) -> Option<UnixStream> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).ok().map(|()| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.has_its_file() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listener(kind: SocketType, path: &Path) -> rustix::io::Result<UnixListener> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, WAITING)?;
    Ok(UnixListener::from(socket))
}

/// Whether nobody listens on a socket file. Never waits, also not for a listener whose queue is full.
fn is_stale(path: &Path) -> io::Result<bool> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&probe, &address) {
        // Gone in the meantime counts as well.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
        // A datagram socket, for example, is somebody's.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether the process at the other end belongs to the user of this one, or to root.
pub fn is_own_user(peer: impl AsFd) -> bool {
    socket_peercred(peer).is_ok_and(|cred| cred.uid == geteuid() || cred.uid.is_root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_private_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::listen("test", &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(socket.accept().is_none());
        let client = UnixStream::connect(&path).unwrap();
        let served = socket.accept().unwrap();
        assert!(is_own_user(&served) && is_own_user(&client));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener that dies leaves its file");
        let first = Socket::listen("test", &path).unwrap();
        let second = Socket::listen("test", &path);
        assert!(matches!(second, Err(SocketError::InUse("test", p)) if p == path));
        drop(first);
        fs::write(&path, "data").unwrap();
        assert!(matches!(Socket::listen("test", &path), Err(SocketError::Exists(..))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        let nowhere = Socket::listen("test", &dir.path().join("no/s"));
        assert!(matches!(nowhere, Err(SocketError::Listen(..))));
    }

    #[test]
    fn listener_with_a_full_queue_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _first = Socket::listen("test", &path).unwrap();
        let mut waiting = vec![];
        // Until the queue is full a probe is one more client in it.
        for _ in 0..200 {
            assert!(matches!(Socket::listen("test", &path), Err(SocketError::InUse(..))));
            if waiting.len() < 100 {
                waiting.push(UnixStream::connect(&path).unwrap());
            }
        }
    }

    #[test]
    fn somebody_elses_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let old = Socket::listen("test", &path).unwrap();
        fs::remove_file(&path).unwrap();
        let _new = UnixListener::bind(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
