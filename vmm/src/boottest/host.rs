//! Requests to the machine of a case, over its API.

use crate::{
    api::{
        client::{Client, ClientError},
        routes::{Written, stream, written},
    },
    control::{ControlError, MAX_WAIT, Request},
};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

/// One request, and its answer as JSON; that of what needs the guest is what came of it in the end. A refusal is an error of one
/// sentence.
pub fn call(socket: &Path, request: &Request, within: Duration) -> Result<String, String> {
    let deadline = Instant::now() + within;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    };
    let failed = |e: ClientError| format!("cannot talk to the machine: {e}");
    let mut client = Client::connect(socket, Some(left())).map_err(failed)?;
    let mut ask = |method: &str, path: &str, body: Option<&Value>| -> Result<(u16, Value), String> {
        let answer = client.send(method, path, body, left()).map_err(failed)?;
        Ok((answer.status, answer.json().map_err(failed)?))
    };
    let Written { method, path, body } = written(request);
    let (status, mut content) = ask(method.name(), &path, body.as_ref())?;
    if status >= 300 {
        return Err(refusal(content));
    }
    if status != 202 {
        return Ok(content.to_string());
    }
    while content["state"] == "running" {
        let wait = left().as_secs().clamp(1, MAX_WAIT);
        let path = format!("/operations/{}?wait={wait}", content["id"]);
        (_, content) = ask("GET", &path, None)?;
    }
    match content["error"].take() {
        Value::Null => Ok(content["result"].to_string()),
        error => Err(refusal(error)),
    }
}

/// Writes the machine's events into a file, a line of JSON each, until it ends. A machine that cannot be asked has none: why is
/// said elsewhere.
pub fn follow(socket: &Path, mut file: File, within: Duration) -> io::Result<()> {
    let Ok(mut client) = Client::connect(socket, Some(within)) else {
        return Ok(());
    };
    let mut written = Ok(());
    let _ = client.stream(&stream(Some(0)), None, |event| {
        written = writeln!(file, "{event}");
        written.is_ok()
    });
    written
}

fn refusal(problem: Value) -> String {
    match serde_json::from_value::<ControlError>(problem) {
        Ok(error) => error.to_string(),
        Err(e) => format!("the answer is none: {e}"),
    }
}
