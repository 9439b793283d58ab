//! Requests to the machine of a case, over its API.

use crate::{
    api::{
        client::Client,
        routes::{self, Written, written},
    },
    control::{MAX_WAIT, OperationInfo, OperationRequest, OperationState, Request},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// One request, and its answer as JSON; what came of it where it is an operation, which is waited for. A refusal is an
/// error of one sentence.
pub fn call(socket: &Path, request: &Request, within: Duration) -> Result<String, String> {
    let deadline = Instant::now() + within;
    let mut client = Client::connect(socket, Some(within)).map_err(|e| e.to_string())?;
    let mut answer = ask(&mut client, request, deadline)?;
    while let Ok(operation) = OperationInfo::deserialize(&answer) {
        answer = match (operation.state, operation.error) {
            (OperationState::Running, _) => {
                let left = deadline.saturating_duration_since(Instant::now()).as_secs();
                if left == 0 {
                    return Err(format!(
                        "the guest has not confirmed operation {} in time",
                        operation.id
                    ));
                }
                let (id, wait) = (operation.id, left.min(MAX_WAIT));
                ask(
                    &mut client,
                    &Request::Operation(OperationRequest::Show { id, wait }),
                    deadline,
                )?
            }
            (OperationState::Done, _) => return serde_json::to_string(&operation.result).map_err(|e| e.to_string()),
            (_, Some(error)) => return Err(error.to_string()),
            (_, None) => return Err(format!("the guest does not confirm operation {}", operation.id)),
        };
    }
    Ok(answer.to_string())
}

/// Writes the machine's events into a file, a line of JSON each, until it ends.
pub fn follow(socket: &Path, mut file: File, within: Duration) -> Result<(), String> {
    let mut client = Client::connect(socket, Some(within)).map_err(|e| e.to_string())?;
    let mut written = Ok(());
    let ended = client.stream(&routes::stream(Some(0)), None, |event| {
        written = writeln!(file, "{event}");
        written.is_ok()
    });
    written.map_err(|e| format!("cannot write the events: {e}"))?;
    ended.map_err(|e| e.to_string())
}

fn ask(client: &mut Client, request: &Request, deadline: Instant) -> Result<Value, String> {
    let Written { method, path, body } = written(request);
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    let answer = client
        .send(method.name(), &path, body.as_ref(), left)
        .map_err(|e| e.to_string())?;
    let content = answer.json().map_err(|e| e.to_string())?;
    if answer.status < 400 {
        return Ok(content);
    }
    match serde_json::from_value::<crate::control::ControlError>(content) {
        Ok(error) => Err(error.to_string()),
        Err(e) => Err(format!("the answer is none: {e}")),
    }
}
