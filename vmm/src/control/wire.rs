//! Requests and replies on a stream: one JSON object a line.
//!
//! ```text
//! -> {"id": 7, "request": "describe"}
//! <- {"id": 7, "ok": {...}}          or {"id": 7, "error": {"type": ..., "detail": ..., "field": ..., "hint": ...}}
//! ```
//! The id is any JSON value and comes back as it is; replies may come in another order than their requests.

use super::{ControlError, ErrorKind, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest line of a request in bytes, without its end.
pub const MAX_LINE: usize = 1 << 20;
/// Longest id in bytes as JSON: it comes back in every reply.
const MAX_ID: usize = 1 << 10;

/// A request as a client writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client.
    pub id: Value,
    /// What is asked.
    pub request: Request,
}

/// A reply as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Of the request; null when that could not be told.
    #[serde(default)]
    pub id: Value,
    /// The response's content.
    #[serde(default)]
    pub ok: Option<Value>,
    /// Why it was not done.
    #[serde(default)]
    pub error: Option<ControlError>,
}

/// Takes a line apart. An error carries the id as far as there is one.
pub fn parse(line: &[u8]) -> Result<Call, (Value, ControlError)> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        #[serde(default)]
        id: Value,
        request: Value,
    }
    const SHAPE: &str = r#"a request is one line such as {"id":1,"request":"describe"}"#;
    let malformed = |detail: String| ControlError::new(ErrorKind::Malformed, detail).hint(SHAPE);
    let raw: Raw = serde_json::from_slice(line).map_err(|e| {
        (
            Value::Null,
            malformed(format!("the line is no request: {}", short(&e.to_string()))),
        )
    })?;
    if raw.id.to_string().len() > MAX_ID {
        let error = malformed(format!("the id is longer than {MAX_ID} bytes")).field("id");
        return Err((Value::Null, error));
    }
    match Request::deserialize(&raw.request) {
        Ok(request) => Ok(Call { id: raw.id, request }),
        Err(e) => {
            let error = ControlError::new(ErrorKind::InvalidRequest, short(&e.to_string()).to_owned());
            Err((raw.id, error.field("request")))
        }
    }
}

/// A hostile value is not repeated at any length.
fn short(text: &str) -> &str {
    const MOST: usize = 300;
    let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

/// The line for a reply, with its end.
pub fn reply(id: &Value, result: &Result<Response, ControlError>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Reply<'a> {
        id: &'a Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        ok: Option<&'a Response>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a ControlError>,
    }
    let whole = Reply {
        id,
        ok: result.as_ref().ok(),
        error: result.as_ref().err(),
    };
    // Numbers, texts and lists of them: there is nothing in these types that JSON cannot hold.
    let mut line = serde_json::to_vec(&whole).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{NvdimmRequest, Phase, StateInfo};
    use proptest::prelude::*;
    use serde_json::json;

    fn refused(line: &str) -> (Value, ControlError) {
        parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn calls_are_read_with_and_without_an_id() {
        let call = parse(br#"{"id":"a","request":{"nvdimm":"list"}}"#).unwrap();
        assert_eq!(
            (call.id, call.request),
            (json!("a"), Request::Nvdimm(NvdimmRequest::List))
        );
        let call = parse(br#" {"request": "pause"} "#).unwrap();
        assert_eq!((call.id, call.request), (Value::Null, Request::Pause));
    }

    #[test]
    fn what_is_no_request_is_told_with_the_shape_of_one() {
        for line in [
            "",
            "x",
            "{}",
            "[]",
            "\"describe\"",
            r#"{"id":1}"#,
            r#"{"request":"pause","more":1}"#,
        ] {
            let (id, error) = refused(line);
            assert_eq!((id, error.kind), (Value::Null, ErrorKind::Malformed), "{line}");
            assert!(error.hint.unwrap().contains("describe"));
        }
        let deep = format!("{{\"request\":{}", "[".repeat(100_000));
        assert_eq!(refused(&deep).1.kind, ErrorKind::Malformed);
        assert_eq!(parse(&[0xff; 64]).unwrap_err().1.kind, ErrorKind::Malformed);
    }

    #[test]
    fn unknown_requests_keep_their_id_and_list_what_there_is() {
        let (id, error) = refused(r#"{"id":[1,2],"request":"explode"}"#);
        assert_eq!((id, error.kind), (json!([1, 2]), ErrorKind::InvalidRequest));
        assert_eq!(error.field.unwrap(), "request");
        for word in ["explode", "describe", "power-button", "nvdimm"] {
            assert!(error.detail.contains(word), "{}", error.detail);
        }
        for request in [
            r#"{"nvdimm":"eat"}"#,
            r#"{"nvdimm":7}"#,
            r#"{"pause":{"x":1}}"#,
            "7",
            "null",
        ] {
            let (_, error) = refused(&format!(r#"{{"request":{request}}}"#));
            assert_eq!(error.kind, ErrorKind::InvalidRequest, "{request}");
        }
    }

    #[test]
    fn long_values_are_not_echoed_at_length() {
        let (_, error) = refused(&format!(r#"{{"request":"{}"}}"#, "é".repeat(10_000)));
        assert!(error.detail.len() <= 300);
        let (id, error) = refused(&format!(r#"{{"id":"{}","request":"pause"}}"#, "a".repeat(2000)));
        assert_eq!((id, error.field.unwrap().as_ref()), (Value::Null, "id"));
    }

    #[test]
    fn replies_read_back() {
        let state = Response::State(StateInfo { state: Phase::Paused });
        let line = reply(&json!(3), &Ok(state));
        assert_eq!(line, b"{\"id\":3,\"ok\":{\"state\":\"paused\"}}\n");
        let answer: Answer = serde_json::from_slice(&line).unwrap();
        assert_eq!((answer.id, answer.ok), (json!(3), Some(json!({"state": "paused"}))));
        let error = ControlError::new(ErrorKind::WrongState, "no");
        let answer: Answer = serde_json::from_slice(&reply(&Value::Null, &Err(error.clone()))).unwrap();
        assert_eq!((answer.ok, answer.error), (None, Some(error)));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err((id, error)) = parse(&line) {
                prop_assert!(reply(&id, &Err(error)).len() < 2048);
            }
        }
    }
}
