//! A client of the API, for programs that wait: `daxvisor ctl` and tests.

use super::BASE;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tokio::{net::UnixStream, runtime::Runtime, time::timeout_at};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// Longest answer that is believed to be one.
const MAX_ANSWER: usize = 64 << 20;

/// Why the machine cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no file.
    #[error(
        "there is no API socket {0}; hint: start the machine with `--api-socket {path}`; it removes the socket when it ends",
        path = .0.display()
    )]
    Missing(PathBuf),
    /// There is a file, and nobody behind it.
    #[error("nobody listens on API socket {0}; hint: the machine has died; start it again")]
    Dead(PathBuf),
    /// Another user's.
    #[error("this user may not use API socket {0}; hint: be the user who started the machine, or root")]
    Permission(PathBuf),
    /// Any other failure.
    #[error("cannot connect to API socket {0}")]
    Connect(PathBuf, #[source] io::Error),
    /// The connection ended too soon.
    #[error("the machine ended, or closed the connection, before it answered")]
    Ended,
    /// The time is over.
    #[error("no answer within {0} s; hint: the request may still be carried out; allow more with --timeout")]
    Timeout(u64),
    /// What came is no answer.
    #[error("the answer cannot be understood: {0}; hint: the machine may run another version of daxvisor")]
    Answer(String),
    /// The host failed.
    #[error("cannot talk to the machine")]
    Io(#[source] io::Error),
}

/// An answer, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub kind: String,
    /// Where it says to look next.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| ClientError::Answer(e.to_string()))
    }
}

/// A connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    // After what runs on it.
    runtime: Runtime,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects; with a limit, tries again until then while there is no socket or nobody listens.
    pub fn connect(path: &Path, limit: Option<Duration>) -> Result<Self, ClientError> {
        let stream = connect(path, limit)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(ClientError::Io)?;
        let sender = runtime.block_on(async {
            stream.set_nonblocking(true)?;
            let stream = TokioIo::new(UnixStream::from_std(stream)?);
            let (sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Ok(sender)
        });
        Ok(Self {
            sender: sender.map_err(ClientError::Io)?,
            runtime,
        })
    }

    /// One request, and its answer within `limit`. `path` is below [`BASE`].
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let request = request(method, path, body)?;
        let (sender, deadline) = (&mut self.sender, Instant::now() + limit);
        self.runtime.block_on(async {
            let whole = async {
                let response = begin(sender, request).await?;
                let (status, kind, location) = head(&response);
                let mut body = Vec::new();
                let mut frames = response.into_body();
                while let Some(frame) = frames.frame().await {
                    let frame = frame.map_err(|_| ClientError::Ended)?;
                    body.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                    if body.len() > MAX_ANSWER {
                        return Err(ClientError::Answer(format!("it is longer than {MAX_ANSWER} bytes")));
                    }
                }
                Ok(Answer {
                    status,
                    kind,
                    location,
                    body,
                })
            };
            let late = |_| ClientError::Timeout(limit.as_secs());
            timeout_at(deadline.into(), whole).await.map_err(late)?
        })
    }
}

impl Client {
    /// Reads a stream of server-sent events; gives the `data` of each to `each`, until that says no more or the stream ends.
    pub fn stream(
        &mut self,
        path: &str,
        limit: Option<Duration>,
        mut each: impl FnMut(Value) -> bool,
    ) -> Result<(), ClientError> {
        let request = request("GET", path, None)?;
        let sender = &mut self.sender;
        let whole = async {
            let response = begin(sender, request).await?;
            let mut frames = response.into_body();
            let mut text = Vec::new();
            while let Some(frame) = frames.frame().await {
                let frame = frame.map_err(|_| ClientError::Ended)?;
                text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                while let Some(end) = text.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let Some(data) = line.strip_prefix(b"data: ") else {
                        continue;
                    };
                    let event = serde_json::from_slice(data).map_err(|e| ClientError::Answer(e.to_string()))?;
                    if !each(event) {
                        return Ok(());
                    }
                }
                if text.len() > MAX_ANSWER {
                    return Err(ClientError::Answer(format!("a line is longer than {MAX_ANSWER} bytes")));
                }
            }
            Ok(())
        };
        self.runtime.block_on(async {
            match limit {
                None => whole.await,
                Some(limit) => {
                    let late = |_| ClientError::Timeout(limit.as_secs());
                    tokio::time::timeout(limit, whole).await.map_err(late)?
                }
            }
        })
    }
}

fn head(response: &Response<Incoming>) -> (u16, String, Option<String>) {
    let header = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    (
        response.status().as_u16(),
        header(header::CONTENT_TYPE).unwrap_or_default(),
        header(header::LOCATION),
    )
}

async fn begin(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    sender.ready().await.map_err(|_| ClientError::Ended)?;
    sender.send_request(request).await.map_err(|error| {
        if error.is_parse() {
            return ClientError::Answer(error.to_string());
        }
        ClientError::Ended
    })
}

fn request(method: &str, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{BASE}{path}"))
        .header(header::HOST, "localhost");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    request
        .body(Full::new(body))
        .map_err(|e| ClientError::Io(io::Error::other(e)))
}

/// A stream to whoever listens on `path`.
pub fn connect(path: &Path, limit: Option<Duration>) -> Result<std::os::unix::net::UnixStream, ClientError> {
    let begun = Instant::now();
    loop {
        let error = match std::os::unix::net::UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        let early = limit.is_some_and(|limit| begun.elapsed() < limit);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if early => thread::sleep(RETRY),
            io::ErrorKind::NotFound => return Err(ClientError::Missing(path.to_owned())),
            io::ErrorKind::ConnectionRefused => return Err(ClientError::Dead(path.to_owned())),
            io::ErrorKind::PermissionDenied => return Err(ClientError::Permission(path.to_owned())),
            _ => return Err(ClientError::Connect(path.to_owned(), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };

    /// A machine that reads a request and says `answer`.
    fn says(answer: &'static str) -> Result<Answer, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let machine = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"{\"a\":1}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                heard.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(heard).unwrap()
        });
        let mut client = Client::connect(&path, None).unwrap();
        let body = serde_json::json!({"a": 1});
        let answer = client.send("POST", "/x", Some(&body), Duration::from_secs(20));
        let heard = machine.join().unwrap().to_ascii_lowercase();
        assert!(heard.starts_with("post /api/v1/x http/1.1\r\n"), "{heard}");
        assert!(heard.contains("content-type: application/json\r\n"), "{heard}");
        answer
    }

    #[test]
    fn answers_are_whole_or_no_answers() {
        let answer = says("HTTP/1.1 409 Conflict\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.kind.as_str()), (409, "a/b"));
        assert_eq!(answer.json().unwrap(), serde_json::json!({}));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n7\r\n0\r\n\r\n";
        assert_eq!(says(chunked).unwrap().json().unwrap(), 7);
        for cut in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"] {
            assert!(matches!(says(cut), Err(ClientError::Ended)), "{cut}");
        }
        assert!(matches!(says("what?\r\n\r\n"), Err(ClientError::Answer(_))));
    }

    #[test]
    fn sockets_without_a_machine_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let refused = |path: &Path| Client::connect(path, None).err().unwrap();
        assert!(matches!(refused(&path), ClientError::Missing(_)));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(refused(&path), ClientError::Dead(_)));
        let late = Instant::now();
        let limit = Duration::from_millis(200);
        assert!(matches!(Client::connect(&path, Some(limit)), Err(ClientError::Dead(_))));
        assert!(late.elapsed() >= limit);
    }
}
