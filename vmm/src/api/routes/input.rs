//! What came with a request: parameters and body, checked against its route.

use super::{Parameter, Route, Values};
use crate::{
    api::serve::short,
    control::{ControlError, ErrorKind},
};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// What a client has said.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Parameters of the path.
    pub params: Vec<(String, String)>,
    /// Those of the query.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> ControlError {
    ControlError::new(ErrorKind::InvalidRequest, detail)
}

impl Input {
    /// Whether everything that came is something `route` knows, and once.
    pub fn check(&self, route: &Route) -> Result<(), ControlError> {
        for (n, (name, _)) in self.query.iter().enumerate() {
            let shown = short(name).to_owned();
            let known = |p: &Parameter| p.name == name && !route.path.contains(&format!("{{{name}}}"));
            if !route.parameters.iter().any(known) {
                let hint = format!("{} of the OpenAPI document lists what there is", route.id);
                return Err(invalid(format!("there is no parameter '{shown}'"))
                    .field(shown)
                    .hint(hint));
            }
            if self.query.iter().skip(n + 1).any(|(other, _)| other == name) {
                return Err(invalid(format!("the parameter '{shown}' is given twice")).field(shown));
            }
        }
        if route.body.is_none() && !self.body.is_empty() {
            return Err(invalid(format!("{} {} takes no body", route.method.name(), route.path)).field("body"));
        }
        for parameter in route.parameters {
            if let Values::UpTo(most) = parameter.values {
                let number = self.number(parameter.name)?;
                if number > most {
                    let why = format!("{} is {number}; the most is {most}", parameter.name);
                    return Err(invalid(why).field(parameter.name));
                }
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&str> {
        let all = self.params.iter().chain(&self.query);
        all.rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter; empty when it is not there.
    pub fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or_default().to_owned()
    }

    /// A parameter, if it is there.
    pub fn named(&self, name: &str) -> Option<String> {
        self.find(name).map(str::to_owned)
    }

    /// A number; 0 when it is not there.
    pub fn number(&self, name: &'static str) -> Result<u64, ControlError> {
        Ok(self.given(name)?.unwrap_or(0))
    }

    /// A number, if it is there.
    pub fn given(&self, name: &'static str) -> Result<Option<u64>, ControlError> {
        let Some(text) = self.find(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
            let why = format!("'{}' is no number from 0 to {}", short(text), u64::MAX);
            invalid(why).field(name)
        })
    }

    /// The body, an object: serde would take a list for one, and read its members by position.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        let first = self.body.iter().find(|b| !b.is_ascii_whitespace());
        if first != Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok() {
            return Err(invalid("the body is no JSON object").field("body"));
        }
        let mut text = serde_json::Deserializer::from_slice(&self.body);
        let value: T = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let field = error.path().to_string();
            let error = error.into_inner();
            let detail = short(&error.to_string()).to_owned();
            match error.classify() {
                serde_json::error::Category::Data => invalid(detail).field(named(&field, &error.to_string())),
                _ => ControlError::new(ErrorKind::Malformed, format!("the body is no JSON: {detail}")),
            }
        })?;
        let rest = text.end();
        rest.map_err(|e| ControlError::new(ErrorKind::Malformed, format!("the body is no JSON: {e}")))?;
        Ok(value)
    }
}

/// The path of a wrong value; of a missing or unknown one serde says the name in its message only.
fn named(path: &str, message: &str) -> String {
    let inner = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let place = if path == "." { "" } else { path };
    let whole = match inner {
        Some(name) if place.is_empty() => name.to_owned(),
        Some(name) if place == name || place.ends_with(&format!(".{name}")) => place.to_owned(),
        Some(name) => format!("{place}.{name}"),
        None if place.is_empty() => "body".to_owned(),
        None => place.to_owned(),
    };
    short(&whole).to_owned()
}
