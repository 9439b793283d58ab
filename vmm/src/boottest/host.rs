//! Requests to the machine of a case, over its control socket.

use crate::control::{
    Request,
    wire::{Answer, Call},
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Longest answer that is believed to be one.
const MAX_ANSWER: u64 = 64 << 20;

/// One request, and its answer as JSON. A refusal is an error of one sentence.
pub fn call(socket: &Path, request: &Request, within: Duration) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot talk to the machine: {e}");
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    let limit = Some(within.max(Duration::from_millis(1)));
    stream.set_read_timeout(limit).map_err(failed)?;
    stream.set_write_timeout(limit).map_err(failed)?;
    let call = Call {
        id: Value::from(1),
        request: request.clone(),
    };
    let mut line = serde_json::to_vec(&call).map_err(|e| e.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_until(b'\n', &mut answer)
        .map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&answer).map_err(|e| format!("the answer is none: {e}"))?;
    match (answer.ok, answer.error) {
        (_, Some(error)) => Err(error.to_string()),
        (Some(ok), None) => Ok(ok.to_string()),
        (None, None) => Err("it is neither done nor refused".to_owned()),
    }
}
