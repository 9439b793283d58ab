//! The host's side: one connection to an agent, every wait with a deadline.
//!
//! ```text
//! connect --Hello--> Client --run, put_file, get_file, ping--> Client --power_off, reboot--> gone
//! ```
//! The channel is a unix socket that a monitor offers. One thread uses a client; commands run one after another unless the
//! caller speaks in frames itself ([`Client::send`], [`Client::next`]).

use crate::{CHUNK, Exec, ExitStatus, FrameError, FromAgent, Hello, MAX_FRAME, ToAgent, VERSION, send};
use std::{
    fmt,
    io::{self, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How often a socket that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long a command may take unless the caller says otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

/// Why the agent did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot connect to the agent's socket {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The last attempt's failure.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{0} was not there in time")]
    Deadline(String),
    /// The other side closed the channel.
    #[error("the agent's channel closed before {0}")]
    Closed(String),
    /// The channel failed or carries something else.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An agent of another version.
    #[error("the guest's agent speaks version {0}, expected {VERSION}; hint: run `cargo xtask images` again")]
    Version(u32),
    /// The agent could not start a command or reach a file.
    #[error("the agent cannot do it: {0}")]
    Refused(String),
    /// A command that had to succeed did not.
    #[error("`{command}` failed: {output}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        output: Output,
    },
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it ended with exit status 0.
    pub fn success(&self) -> bool {
        self.status == ExitStatus::Code(0)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            ExitStatus::Code(code) => write!(f, "exit status {code}")?,
            ExitStatus::Signal(signal) => write!(f, "killed by signal {signal}")?,
        }
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = String::from_utf8_lossy(bytes);
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A connection to an agent that has said hello.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// Received and not yet a whole frame.
    buffer: Vec<u8>,
    next_id: u32,
    hello: Hello,
}

/// Takes the first frame out of `buffer` when it is complete.
fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<FromAgent>, FrameError> {
    let Some(len) = buffer.first_chunk::<4>().map(|b| u32::from_le_bytes(*b) as usize) else {
        return Ok(None);
    };
    if len > MAX_FRAME {
        return Err(FrameError::TooLarge(len));
    }
    let Some(body) = buffer.get(4..4 + len) else {
        return Ok(None);
    };
    let frame = postcard::from_bytes(body)?;
    buffer.drain(..4 + len);
    Ok(Some(frame))
}

impl Client {
    /// Waits for the socket, connects, and waits for the agent's hello.
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self, ClientError> {
        Self::connect_while(path, deadline, || true)
    }

    /// As [`Client::connect`], and gives up as soon as `alive` says that nobody will ever come (the monitor ended).
    pub fn connect_while(path: &Path, deadline: Instant, mut alive: impl FnMut() -> bool) -> Result<Self, ClientError> {
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(source) if Instant::now() >= deadline || !alive() => {
                    return Err(ClientError::Connect {
                        path: path.to_owned(),
                        source,
                    });
                }
                Err(_) => thread::sleep(LOOK),
            }
        };
        Self::greet(stream, deadline)
    }

    /// Waits for the hello on a channel that is already there. Asks for one: the channel may have had another user.
    pub fn greet(stream: UnixStream, deadline: Instant) -> Result<Self, ClientError> {
        let hello = Hello {
            version: VERSION,
            kernel: String::new(),
            uptime_us: 0,
            problems: vec![],
        };
        let mut client = Self {
            stream,
            buffer: Vec::new(),
            next_id: 0,
            hello,
        };
        client.send(&ToAgent::Hello)?;
        client.hello = client.wait("the agent's hello", deadline, |frame| match frame {
            FromAgent::Hello(hello) => Some(hello),
            _ => None,
        })?;
        match client.hello.version {
            VERSION => Ok(client),
            other => Err(ClientError::Version(other)),
        }
    }

    /// What the agent said of itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Sends one frame.
    pub fn send(&mut self, frame: &ToAgent) -> Result<(), ClientError> {
        // A guest that takes nothing for this long will not take anything.
        let limit = self.stream.set_write_timeout(Some(COMMAND_TIMEOUT));
        limit.map_err(FrameError::Io)?;
        Ok(send(&self.stream, frame)?)
    }

    /// The next frame; `None` when the channel ended between frames. The deadline is an error, after which the client can
    /// still be used.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<FromAgent>, ClientError> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Deadline("the agent's next frame".to_owned()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(FrameError::Io)?;
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()).into()),
                Ok(n) => self.buffer.extend_from_slice(&bytes[..n]),
                // A monitor that is killed resets the connection.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e) if is_temporary(&e) => {}
                Err(e) => return Err(FrameError::Io(e).into()),
            }
        }
    }

    /// Takes frames until one is `wanted`; others are dropped.
    fn wait<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        mut wanted: impl FnMut(FromAgent) -> Option<T>,
    ) -> Result<T, ClientError> {
        loop {
            match self.next(deadline) {
                Ok(Some(frame)) => {
                    if let Some(found) = wanted(frame) {
                        return Ok(found);
                    }
                }
                Ok(None) => return Err(ClientError::Closed(what.to_owned())),
                Err(ClientError::Deadline(_)) => return Err(ClientError::Deadline(what.to_owned())),
                Err(e) => return Err(e),
            }
        }
    }

    /// An id that no other request of this client has.
    pub fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Runs a command to its end, at most [`COMMAND_TIMEOUT`]. Its `id` is chosen here.
    pub fn run(&mut self, exec: Exec) -> Result<Output, ClientError> {
        self.run_until(exec, Instant::now() + COMMAND_TIMEOUT)
    }

    /// Runs a command to its end; one that passes its deadline is killed.
    pub fn run_until(&mut self, exec: Exec, deadline: Instant) -> Result<Output, ClientError> {
        let ours = self.new_id();
        let what = format!("the end of `{}`", exec.argv.join(" "));
        self.send(&ToAgent::Exec(Exec { id: ours, ..exec }))?;
        let (mut stdout, mut stderr) = (vec![], vec![]);
        let ended = self.wait(&what, deadline, |frame| {
            match frame {
                FromAgent::Stdout { id, data } if id == ours => stdout.extend(data),
                FromAgent::Stderr { id, data } if id == ours => stderr.extend(data),
                FromAgent::Exited { id, status } if id == ours => return Some(Ok(status)),
                FromAgent::Failed { id, error } if id == ours => return Some(Err(error)),
                _ => {}
            }
            None
        });
        if matches!(ended, Err(ClientError::Deadline(_))) {
            const SIGKILL: i32 = 9;
            self.send(&ToAgent::Signal {
                id: ours,
                signal: SIGKILL,
            })?;
        }
        let status = ended?.map_err(ClientError::Refused)?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs a shell script to its end.
    pub fn sh(&mut self, script: &str) -> Result<Output, ClientError> {
        self.sh_until(script, Instant::now() + COMMAND_TIMEOUT)
    }

    /// Runs a shell script to its end or its deadline.
    pub fn sh_until(&mut self, script: &str, deadline: Instant) -> Result<Output, ClientError> {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.run_until(
            Exec {
                argv,
                ..Exec::default()
            },
            deadline,
        )
    }

    /// Runs a shell script that has to succeed; gives its standard output.
    pub fn check(&mut self, script: &str) -> Result<String, ClientError> {
        let output = self.sh(script)?;
        if output.success() {
            Ok(output.text())
        } else {
            Err(ClientError::Failed {
                command: script.to_owned(),
                output,
            })
        }
    }

    /// Writes a file in the guest.
    pub fn put_file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<(), ClientError> {
        let mut offset = 0;
        // An empty file is one empty chunk.
        let mut chunks: Vec<_> = data.chunks(CHUNK).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let ours = self.new_id();
            self.send(&ToAgent::PutFile {
                id: ours,
                path: path.to_owned(),
                mode,
                offset,
                data: chunk.to_vec(),
            })?;
            offset += chunk.len() as u64;
            let what = format!("the answer to writing {path}");
            let done = self.wait(&what, Instant::now() + COMMAND_TIMEOUT, |frame| match frame {
                FromAgent::FileDone { id } if id == ours => Some(Ok(())),
                FromAgent::Failed { id, error } if id == ours => Some(Err(error)),
                _ => None,
            })?;
            done.map_err(ClientError::Refused)?;
        }
        Ok(())
    }

    /// Reads a file of the guest to its end.
    pub fn get_file(&mut self, path: &str) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        loop {
            let ours = self.new_id();
            self.send(&ToAgent::GetFile {
                id: ours,
                path: path.to_owned(),
                offset: all.len() as u64,
            })?;
            let what = format!("the contents of {path}");
            let data = self.wait(&what, Instant::now() + COMMAND_TIMEOUT, |frame| match frame {
                FromAgent::FileData { id, data } if id == ours => Some(Ok(data)),
                FromAgent::Failed { id, error } if id == ours => Some(Err(error)),
                _ => None,
            })?;
            match data.map_err(ClientError::Refused)? {
                data if data.is_empty() => return Ok(all),
                data => all.extend(data),
            }
        }
    }

    /// Whether the agent answers by then.
    pub fn ping(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let ours = u64::from(self.new_id());
        self.send(&ToAgent::Ping(ours))?;
        self.wait("the agent's pong", deadline, |frame| {
            (frame == FromAgent::Pong(ours)).then_some(())
        })
    }

    /// Asks for the machine to be turned off, and waits until the channel is gone.
    pub fn power_off(self, deadline: Instant) -> Result<(), ClientError> {
        self.end(&ToAgent::PowerOff, deadline)
    }

    /// Asks for a reset, and waits until the channel is gone.
    pub fn reboot(self, deadline: Instant) -> Result<(), ClientError> {
        self.end(&ToAgent::Reboot, deadline)
    }

    fn end(mut self, how: &ToAgent, deadline: Instant) -> Result<(), ClientError> {
        self.send(how)?;
        match self.wait("the end of the machine", deadline, |_| None::<()>) {
            Err(ClientError::Closed(_)) => Ok(()),
            Err(e) => Err(e),
            Ok(()) => Ok(()),
        }
    }
}

/// A read that has to be asked again: interrupted, or its timeout passed (the deadline is looked at by the caller).
fn is_temporary(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive;

    fn hello() -> FromAgent {
        FromAgent::Hello(Hello {
            version: VERSION,
            kernel: "6.1".into(),
            uptime_us: 7,
            problems: vec![],
        })
    }

    /// An agent that answers each request with the frames that `script` makes of it, until it makes none.
    fn agent(mut script: impl FnMut(ToAgent) -> Vec<FromAgent> + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            while let Ok(Some(request)) = receive::<ToAgent>(&theirs) {
                let frames = script(request);
                if frames.is_empty() {
                    return;
                }
                frames.iter().for_each(|f| send(&theirs, f).unwrap());
            }
        });
        ours
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn output_of_a_command_is_put_together() {
        let stream = agent(|request| match request {
            ToAgent::Hello => vec![FromAgent::Pong(99), hello()],
            ToAgent::Exec(Exec { id, .. }) => vec![
                FromAgent::Stdout {
                    id,
                    data: b"a".to_vec(),
                },
                FromAgent::Stdout {
                    id: id + 1,
                    data: b"of another".to_vec(),
                },
                FromAgent::Stderr {
                    id,
                    data: b"e".to_vec(),
                },
                FromAgent::Stdout {
                    id,
                    data: b"b".to_vec(),
                },
                FromAgent::Exited {
                    id,
                    status: ExitStatus::Code(3),
                },
            ],
            ToAgent::Ping(n) => vec![FromAgent::Pong(n)],
            _ => vec![],
        });
        let mut client = Client::greet(stream, soon()).unwrap();
        assert_eq!(client.hello().kernel, "6.1");
        let output = client.sh("x").unwrap();
        assert_eq!((output.text().as_str(), output.stderr.as_slice()), ("ab", &b"e"[..]));
        assert!(!output.success());
        let failed = client.check("x").unwrap_err().to_string();
        assert!(failed.contains("`x` failed: exit status 3"), "{failed}");
        client.ping(soon()).unwrap();
        client.power_off(soon()).unwrap();
    }

    #[test]
    fn files_travel_in_chunks() {
        let mut file = Vec::new();
        let stream = agent(move |request| match request {
            ToAgent::PutFile { id, offset, data, .. } => {
                assert_eq!(offset, file.len() as u64);
                file.extend(data);
                vec![FromAgent::FileDone { id }]
            }
            ToAgent::GetFile { id, path, .. } if path == "/none" => vec![FromAgent::Failed {
                id,
                error: "/none: no".into(),
            }],
            ToAgent::GetFile { id, offset, .. } => {
                let rest = &file[usize::try_from(offset).unwrap()..];
                let data = rest[..rest.len().min(CHUNK)].to_vec();
                vec![FromAgent::FileData { id, data }]
            }
            _ => vec![hello()],
        });
        let mut client = Client::greet(stream, soon()).unwrap();
        let data: Vec<u8> = (0..=255).cycle().take(CHUNK * 2 + 5).collect();
        client.put_file("/f", 0o600, &data).unwrap();
        assert_eq!(client.get_file("/f").unwrap(), data);
        assert!(matches!(client.get_file("/none"), Err(ClientError::Refused(_))));
    }

    #[test]
    fn every_wait_ends() {
        let mute = agent(|_| vec![FromAgent::Pong(0)]);
        let at = Instant::now() + Duration::from_millis(50);
        assert!(matches!(Client::greet(mute, at), Err(ClientError::Deadline(_))));
        let gone = agent(|_| vec![]);
        assert!(matches!(Client::greet(gone, soon()), Err(ClientError::Closed(_))));
        let nobody = Path::new("/nonexistent/socket");
        let at = Instant::now() + Duration::from_millis(50);
        assert!(matches!(Client::connect(nobody, at), Err(ClientError::Connect { .. })));
        let dead = Client::connect_while(nobody, soon(), || false);
        assert!(matches!(dead, Err(ClientError::Connect { .. })));
    }

    #[test]
    fn another_version_is_refused() {
        let stream = agent(|_| {
            vec![FromAgent::Hello(Hello {
                version: VERSION + 1,
                kernel: String::new(),
                uptime_us: 0,
                problems: vec![],
            })]
        });
        assert!(matches!(Client::greet(stream, soon()), Err(ClientError::Version(_))));
    }
}
