//! A client of the control socket, and `daxvisor ctl` as a process.

use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

/// No reply takes longer, also on a slow host.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
pub struct ControlClient {
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects as soon as somebody listens.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let deadline = Instant::now() + LIMIT;
        let stream = loop {
            match UnixStream::connect(path) {
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                other => break other?,
            }
        };
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// The socket, to misbehave on.
    pub fn stream(&mut self) -> &mut UnixStream {
        self.stream.get_mut()
    }

    /// Sends a request and does not wait.
    pub fn send(&mut self, id: u64, request: &Value) -> io::Result<()> {
        let line = json!({"id": id, "request": request}).to_string() + "\n";
        self.stream.get_mut().write_all(line.as_bytes())
    }

    /// The next reply; null when the machine has closed the connection.
    pub fn receive(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Ok(Value::Null),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }

    /// A request and its reply.
    pub fn call(&mut self, request: &Value) -> io::Result<Value> {
        self.send(7, request)?;
        self.receive()
    }
}

/// Runs `daxvisor ctl` to its end.
pub fn ctl(program: &Path, socket: &Path, args: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("ctl").arg("--socket").arg(socket).args(args).output()
}
