//! The client's end of the control socket.

use super::CtlError;
use crate::control::{
    Request,
    wire::{Answer, Call},
};
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// Longest reply that is believed to be one.
const MAX_REPLY: usize = 64 << 20;
/// Bytes passed on at once.
const CHUNK: usize = 64 << 10;
/// Chunks that wait for the machine to read them; one more ends the connection. Whoever feeds us is never held up, so that
/// others who are fed by the same hand are not.
const QUEUE: usize = 32;

/// Why the machine cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(
        "there is no control socket {0}; hint: start the machine with `--control-socket {path}`; it removes the socket when it ends",
        path = .0.display()
    )]
    Missing(PathBuf),
    #[error("nobody listens on control socket {0}; hint: the machine has died; start it again")]
    Dead(PathBuf),
    #[error("this user may not use control socket {0}; hint: be the user who started the machine, or root")]
    Permission(PathBuf),
    #[error("cannot connect to control socket {0}")]
    Connect(PathBuf, #[source] io::Error),
    #[error("the machine ended, or closed the connection, before it replied")]
    Ended,
    #[error("no reply within {0} s; hint: the request may still be carried out; allow more with --timeout")]
    Timeout(u64),
    #[error("cannot talk to the machine")]
    Io(#[source] io::Error),
    #[error("the machine does not read what it is sent")]
    Overrun,
}

impl LinkError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::Dead(_) | Self::Permission(_) | Self::Connect(..) => 3,
            Self::Ended | Self::Io(_) | Self::Overrun => 4,
            Self::Timeout(_) => 124,
        }
    }
}

/// A connection.
pub(super) struct Link {
    stream: UnixStream,
}

impl Link {
    /// Connects; with a limit, tries again until then while there is no socket or nobody listens.
    pub(super) fn connect(path: &Path, limit: Option<Duration>) -> Result<Self, LinkError> {
        let begun = Instant::now();
        loop {
            let error = match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self { stream }),
                Err(e) => e,
            };
            let early = limit.is_some_and(|limit| begun.elapsed() < limit);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if early => thread::sleep(RETRY),
                io::ErrorKind::NotFound => return Err(LinkError::Missing(path.to_owned())),
                io::ErrorKind::ConnectionRefused => return Err(LinkError::Dead(path.to_owned())),
                io::ErrorKind::PermissionDenied => return Err(LinkError::Permission(path.to_owned())),
                _ => return Err(LinkError::Connect(path.to_owned(), error)),
            }
        }
    }

    /// One request, and the content of its reply.
    pub(super) fn call(&mut self, request: &Request, limit: Duration) -> Result<Value, CtlError> {
        let call = Call {
            id: Value::from(1),
            request: request.clone(),
        };
        let mut line = serde_json::to_vec(&call).map_err(|e| CtlError::Reply(e.to_string()))?;
        line.push(b'\n');
        let deadline = Instant::now() + limit;
        self.stream.set_write_timeout(Some(limit)).map_err(LinkError::Io)?;
        match self.stream.write_all(&line) {
            // Why we were turned away may be there to read.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.map_err(|e| timed(e, limit))?,
        }
        let line = self.read_line(deadline, limit)?;
        let answer: Answer = serde_json::from_slice(&line).map_err(|e| CtlError::Reply(e.to_string()))?;
        match (answer.ok, answer.error) {
            (Some(content), None) => Ok(content),
            (None, Some(error)) => Err(error.into()),
            _ => Err(CtlError::Reply("it is neither done nor refused".to_owned())),
        }
    }

    fn read_line(&mut self, deadline: Instant, limit: Duration) -> Result<Vec<u8>, CtlError> {
        let (mut line, mut chunk) = (vec![], vec![0; CHUNK]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Timeout(limit.as_secs()).into());
            }
            self.stream.set_read_timeout(Some(left)).map_err(LinkError::Io)?;
            let read = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(LinkError::Ended.into()),
                Ok(n) => chunk.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(LinkError::Ended.into()),
                Err(e) => return Err(timed(e, limit).into()),
            };
            // There is one request, so whatever follows the line's end is not ours.
            if let Some(end) = read.iter().position(|b| *b == b'\n') {
                line.extend_from_slice(read.get(..end).unwrap_or_default());
                return Ok(line);
            }
            line.extend_from_slice(read);
            if line.len() > MAX_REPLY {
                return Err(CtlError::Reply(format!("it is longer than {MAX_REPLY} bytes")));
            }
        }
    }

    /// Standard input to the machine and its replies to standard output, until the machine closes the connection. The end
    /// of standard input is passed on.
    pub(super) fn pass_through(&mut self) -> Result<(), LinkError> {
        let mut to = self.stream.try_clone().map_err(LinkError::Io)?;
        let (sender, queue) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
        let spawn = |body: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(body).map_err(LinkError::Io);
        spawn(Box::new(move || {
            for chunk in queue {
                if to.write_all(&chunk).is_err() {
                    return;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        }))?;
        let (overrun, overran) = mpsc::channel();
        let end = self.stream.try_clone().map_err(LinkError::Io)?;
        spawn(Box::new(move || {
            let mut chunk = vec![0; CHUNK];
            while let Ok(n @ 1..) = io::stdin().lock().read(&mut chunk) {
                let bytes = chunk.get(..n).unwrap_or_default().to_vec();
                match sender.try_send(bytes) {
                    Ok(()) => {}
                    Err(mpsc::TrySendError::Disconnected(_)) => return,
                    Err(mpsc::TrySendError::Full(_)) => {
                        let _ = overrun.send(());
                        let _ = end.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
        }))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => {
                    let mut out = io::stdout().lock();
                    let written = out.write_all(chunk.get(..n).unwrap_or_default());
                    if written.and_then(|()| out.flush()).is_err() {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        match overran.try_recv() {
            Ok(()) => Err(LinkError::Overrun),
            Err(_) => Ok(()),
        }
    }
}

fn timed(error: io::Error, limit: Duration) -> LinkError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LinkError::Timeout(limit.as_secs()),
        _ => LinkError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::BufRead, os::unix::net::UnixListener};

    /// A machine that reads a line and says `reply`.
    fn says(reply: &'static [u8]) -> Result<Value, CtlError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let machine = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            io::BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(reply).unwrap();
            line
        });
        let mut link = Link::connect(&path, None).unwrap();
        let answer = link.call(&Request::Pause, Duration::from_secs(20));
        assert_eq!(machine.join().unwrap(), "{\"id\":1,\"request\":\"pause\"}\n");
        answer
    }

    #[test]
    fn every_kind_of_reply_has_its_exit_code() {
        assert_eq!(
            says(b"{\"id\":1,\"ok\":{\"state\":\"paused\"}}\n").unwrap()["state"],
            "paused"
        );
        let code = |reply| says(reply).unwrap_err().code();
        assert_eq!(code(b"{\"id\":1,\"error\":{\"type\":\"busy\",\"detail\":\"no\"}}\n"), 1);
        assert_eq!(code(b"{\"id\":1}\n"), 1);
        assert_eq!(code(b"what?\n"), 1);
        assert_eq!(code(b""), 4);
        assert_eq!(code(b"{\"id\":1,\"o"), 4);
    }

    #[test]
    fn sockets_without_a_machine_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let refused = |path: &Path| Link::connect(path, None).err().unwrap();
        assert!(matches!(refused(&path), LinkError::Missing(_)));
        drop(UnixListener::bind(&path).unwrap());
        let error = refused(&path);
        assert!(matches!(error, LinkError::Dead(_)) && error.code() == 3);
        let begun = Instant::now();
        let limit = Duration::from_millis(200);
        assert!(Link::connect(&path, Some(limit)).is_err());
        assert!(begun.elapsed() >= limit);
    }

    #[test]
    fn silence_is_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut link = Link::connect(&path, None).unwrap();
        let error = link.call(&Request::Describe, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.code(), 124);
    }
}
