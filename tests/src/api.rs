//! A client of the REST API, and `daxvisor ctl` as a process.

use crate::contract;
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};
use vmm::api::client::{Answer, Client, ClientError};

/// No answer takes longer, also on a slow host.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest silence on a connection that is used again: the API hangs up after 60 s, and a script in a slow guest may take longer.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection, made again where it was silent for long.
pub struct ApiClient {
    path: PathBuf,
    client: Client,
    used: Instant,
}

impl ApiClient {
    /// Connects as soon as somebody listens.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Ok(Self {
            path: path.to_owned(),
            client: Client::connect(path, Some(LIMIT))?,
            used: Instant::now(),
        })
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        if self.used.elapsed() > SILENCE {
            self.client = Client::connect(&self.path, Some(LIMIT))?;
        }
        Ok(&mut self.client)
    }

    /// A request and its answer, which has to be one that the OpenAPI document promises. `path` is below `/api/v1`.
    pub fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let answer = self.client()?.send(method, path, body, LIMIT)?;
        self.used = Instant::now();
        if let Err(broken) = contract::check(method, path, &answer) {
            panic!("{broken}");
        }
        Ok(answer)
    }

    /// Begins what needs the guest; gives the operation.
    pub fn begin(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body)?;
        let content = answer.json()?;
        anyhow::ensure!(answer.status == 202, "{method} {path}: {} {content}", answer.status);
        Ok(content)
    }

    /// The operation when it has ended.
    pub fn ended(&mut self, operation: &Value) -> anyhow::Result<Value> {
        self.get(&format!("/operations/{}?wait=60", operation["id"]))
    }

    /// What comes of a request about memory devices, written as `"list"`, `{"add": {..}}` or `{"remove": {..}}`: what there
    /// is, or came of it in the end; else the problem, with the last word of its type.
    pub fn memory(&mut self, request: &Value) -> anyhow::Result<Result<Value, Value>> {
        let remove = &request["remove"];
        let path = match (remove["id"].as_str(), remove["deadline"].as_u64()) {
            (Some(id), Some(seconds)) => format!("/memory/devices/{id}?deadline={seconds}"),
            (Some(id), None) => format!("/memory/devices/{id}"),
            (None, _) => "/memory/devices".to_owned(),
        };
        let answer = match request.get("add") {
            Some(device) => self.send("POST", &path, Some(device))?,
            None if remove.is_object() => self.send("DELETE", &path, None)?,
            None => self.send("GET", &path, None)?,
        };
        let mut content = answer.json()?;
        if answer.status == 202 {
            let mut operation = self.ended(&content)?;
            content = match operation["error"].is_null() {
                true => return Ok(Ok(operation["result"].take())),
                false => operation["error"].take(),
            };
        } else if answer.status < 300 {
            return Ok(Ok(content));
        }
        let kind = content["type"].as_str().and_then(|kind| kind.rsplit(':').next());
        content["type"] = kind.unwrap_or_default().into();
        Ok(Err(content))
    }

    /// Reads events as they happen, until `each` says no more or the machine ends.
    pub fn stream(&mut self, path: &str, each: impl FnMut(Value) -> bool) -> Result<(), ClientError> {
        self.client()?.stream(path, Some(LIMIT), each)
    }

    /// A request that must be done; its content.
    pub fn done(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.send(method, path, body)?;
        let content = answer.json()?;
        anyhow::ensure!(answer.status < 300, "{method} {path}: {} {content}", answer.status);
        Ok(content)
    }

    /// What there is.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        self.done("GET", path, None)
    }

    /// Something without a body that must be done.
    pub fn post(&mut self, path: &str) -> anyhow::Result<Value> {
        self.done("POST", path, None)
    }

    /// A request that must be refused; status and the last word of the problem's type.
    pub fn refused(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, String)> {
        let answer = self.send(method, path, body)?;
        let problem = answer.json()?;
        let kind = problem["type"].as_str().and_then(|kind| kind.rsplit(':').next());
        anyhow::ensure!(
            answer.status >= 400 && answer.kind == "application/problem+json" && problem["detail"].is_string(),
            "{method} {path}: {} {problem}",
            answer.status
        );
        Ok((answer.status, kind.unwrap_or_default().to_owned()))
    }
}

/// Bytes sent as they are, and what came back until the other end closed.
pub fn raw(path: &Path, bytes: &[u8]) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs `daxvisor ctl` to its end.
pub fn ctl(program: &Path, socket: &Path, args: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.arg("ctl").arg("--api-socket").arg(socket).args(args).output()
}
