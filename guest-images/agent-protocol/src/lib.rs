//! Frames between the host and the guest agent.
//!
//! The channel is any byte stream (virtio console port, socket). Each frame is a little-endian `u32` length, at most
//! [`MAX_FRAME`], and that many bytes of postcard. The host sends [`ToAgent`], the agent answers with [`FromAgent`]; both
//! sides may send at any time, and commands run side by side under ids that the host chooses. Output and exit status of
//! a command travel here and nowhere else: nothing is ever scraped from a console.

pub mod client;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// Version that both sides must share; the agent names its own in [`FromAgent::Hello`].
pub const VERSION: u32 = 1;
/// Largest frame either side accepts.
pub const MAX_FRAME: usize = 1 << 20;
/// Largest run of file or output bytes in one frame.
pub const CHUNK: usize = 64 << 10;
/// Name of the virtio console port that carries the channel.
pub const PORT_NAME: &str = "org.daxvisor.agent.0";

/// Host to agent.
#[expect(missing_docs, reason = "each frame says what its fields are")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// A host introduces itself, answered by [`FromAgent::Hello`]. Commands of a host before it are killed, and nothing of
    /// theirs follows that answer: what comes before it is to be skipped.
    Hello,
    /// Answer [`FromAgent::Pong`] with the same number.
    Ping(u64),
    /// Start a command.
    Exec(Exec),
    /// Bytes for the command's standard input.
    Stdin { id: u32, data: Vec<u8> },
    /// End of the command's standard input.
    StdinEof { id: u32 },
    /// Send a signal to the command's process group.
    Signal { id: u32, signal: i32 },
    /// Write `data` at `offset` of `path` (created with `mode`; offset 0 truncates), answered by `FileDone`.
    PutFile {
        id: u32,
        path: String,
        mode: u32,
        offset: u64,
        data: Vec<u8>,
    },
    /// Read up to [`CHUNK`] bytes at `offset`, answered by `FileData`.
    GetFile { id: u32, path: String, offset: u64 },
    /// Sync file systems and enter ACPI S5.
    PowerOff,
    /// Sync file systems and reset.
    Reboot,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the host, unique among running commands.
    pub id: u32,
    /// Program (looked up in PATH) and arguments.
    pub argv: Vec<String>,
    /// Variables added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// Working directory; none: `/`.
    pub cwd: Option<String>,
    /// Whether standard input is fed by `Stdin` frames; otherwise it is `/dev/null`.
    pub stdin: bool,
}

/// Agent to host.
#[expect(missing_docs, reason = "each frame says what its fields are")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The agent is ready for commands.
    Hello(Hello),
    /// Answer to `Ping`.
    Pong(u64),
    /// Output of a command.
    Stdout { id: u32, data: Vec<u8> },
    /// Error output of a command.
    Stderr { id: u32, data: Vec<u8> },
    /// The command ended; all its output came before.
    Exited { id: u32, status: ExitStatus },
    /// The command could not be started, or a file request failed.
    Failed { id: u32, error: String },
    /// A `PutFile` is on its way to the file.
    FileDone { id: u32 },
    /// Bytes of a file; empty at its end.
    FileData { id: u32, data: Vec<u8> },
}

/// Who is speaking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's [`VERSION`].
    pub version: u32,
    /// `uname -r`.
    pub kernel: String,
    /// Microseconds since the guest booted (CLOCK_BOOTTIME).
    pub uptime_us: u64,
    /// What went wrong while the agent set the guest up (a module that did not load, for example).
    pub problems: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// `exit(n)`.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Why a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The channel failed or ended inside a frame.
    #[error("agent channel")]
    Io(#[from] io::Error),
    /// A length beyond [`MAX_FRAME`].
    #[error("agent frame of {0} bytes is larger than {MAX_FRAME}")]
    TooLarge(usize),
    /// Bytes that are no frame of this version.
    #[error("agent frame does not decode")]
    Decode(#[from] postcard::Error),
}

/// Writes one frame and flushes.
pub fn send<T: Serialize>(mut to: impl Write, frame: &T) -> Result<(), FrameError> {
    let body = postcard::to_stdvec(frame)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|n| *n as usize <= MAX_FRAME)
        .ok_or(FrameError::TooLarge(body.len()))?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&body);
    to.write_all(&bytes)?;
    to.flush()?;
    Ok(())
}

/// Reads one frame; `None` when the channel ended between frames.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> Result<Option<T>, FrameError> {
    let mut len = [0; 4];
    let mut have = 0;
    while have < 4 {
        match from.read(&mut len[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(FrameError::TooLarge(len));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(Some(postcard::from_bytes(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_channel_in_order() {
        let frames = [
            FromAgent::Hello(Hello {
                version: VERSION,
                kernel: "6.1".into(),
                uptime_us: 7,
                problems: vec![],
            }),
            FromAgent::Stdout {
                id: 1,
                data: vec![0; CHUNK],
            },
            FromAgent::Exited {
                id: 1,
                status: ExitStatus::Signal(9),
            },
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            send(&mut wire, frame).unwrap();
        }
        let mut from = wire.as_slice();
        for frame in &frames {
            assert_eq!(receive::<FromAgent>(&mut from).unwrap().as_ref(), Some(frame));
        }
        assert!(receive::<FromAgent>(&mut from).unwrap().is_none());
    }

    #[test]
    fn broken_frames_are_errors() {
        assert!(matches!(
            receive::<ToAgent>(&[0xff, 0xff, 0xff, 0x7f][..]),
            Err(FrameError::TooLarge(_))
        ));
        assert!(matches!(receive::<ToAgent>(&[1, 0][..]), Err(FrameError::Io(_))));
        assert!(matches!(
            receive::<ToAgent>(&[1, 0, 0, 0, 0xee][..]),
            Err(FrameError::Decode(_))
        ));
    }
}
