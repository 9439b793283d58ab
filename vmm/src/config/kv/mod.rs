//! `key=value,key=value`: the text form of one flag, as one more serde format.
//!
//! A text is a list of items separated by commas. An item is `key=value`, or a bare word where the [`Shape`] gives it a
//! meaning: the first word may stand for the main key (`--cpus 4`), and `-word` adds to a list (`--cpu -avx512f`).
//! Inside a value a comma is written twice (`file=a,,b`), or the value stands in brackets (`cpus=[0-1,4]`), which end at the
//! first `]` before a comma or the end. A value that itself begins with a bracket doubles it (`file=[[odd]`).
//! Booleans are `on`, `off`, `true`, `false`. A key is given once, and every key must be one that the structure has.

mod de;

use serde::{Serialize, de::DeserializeOwned};
use std::fmt;

/// What bare words mean in one flag.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Key of a bare first word.
    pub main: Option<&'static str>,
    /// Key of the list that `-word` items add to.
    pub minus: Option<&'static str>,
}

/// Why a text is not the structure it should be. Whoever knows the flag's name puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A key that the structure does not have.
    #[error("unknown key '{key}': expected one of {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// All keys, separated by commas.
        known: String,
    },
    /// The same key in two items.
    #[error("key '{0}' is given twice; hint: give it once")]
    Duplicate(String),
    /// A key that must be there.
    #[error("key '{0}' is missing; hint: add {0}=VALUE")]
    Missing(&'static str),
    /// `key=` with nothing behind it.
    #[error("key '{0}' has no value; hint: write {0}=VALUE")]
    Empty(String),
    /// A word without `=` where it means nothing.
    #[error(
        "'{0}' has no value: expected key=value; hint: write {0}=VALUE, or put a value with commas in brackets, as in key=[a,b]"
    )]
    Bare(String),
    /// Nothing between two commas.
    #[error("there is an empty item: expected key=value between commas; hint: remove the extra comma")]
    EmptyItem,
    /// A bracket that never closes.
    #[error(
        "'{0}' has no closing bracket; hint: write [..], or double the opening bracket when it belongs to the value"
    )]
    Unclosed(String),
    /// A value of the wrong kind, named by its key.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A value of the wrong kind.
    #[error("{0}")]
    Message(String),
    /// A structure that has no text form.
    #[error("{0} cannot be written as key=value")]
    Unwritable(String),
}

impl Error {
    fn at(self, key: &str) -> Self {
        match self {
            Self::Message(message) => Self::Value {
                key: key.to_owned(),
                message,
            },
            other => other,
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Plain(String),
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// The text that a structure asking for one text is given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::List(words) => f.write_str(&words.join(",")),
        }
    }
}

type Pairs = Vec<(String, Value)>;

/// Reads `text` as a `T`.
pub fn from_str<T: DeserializeOwned>(text: &str, shape: Shape) -> Result<T, Error> {
    T::deserialize(de::Structure(parse(text, shape)?))
}

/// Reads `text` over `base`: keys it does not name keep the value they have in `base`.
pub fn merge<T: Serialize + DeserializeOwned>(base: &T, text: &str, shape: Shape) -> Result<T, Error> {
    let mut pairs = parse(text, shape)?;
    for (key, value) in to_pairs(base)? {
        if !pairs.iter().any(|(k, _)| *k == key) {
            pairs.push((key, value));
        }
    }
    T::deserialize(de::Structure(pairs))
}

/// Reads the whole of `text`, commas and all, as one value.
pub fn scalar<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    if text.is_empty() {
        return Err(Error::Message("the value is empty".to_owned()));
    }
    T::deserialize(de::Scalar(Value::Plain(text.to_owned())))
}

/// The text that [`from_str`] reads back as `value`, the main key first. What is absent is left out, and so is what
/// equals `default`.
pub fn to_string<T: Serialize>(value: &T, default: Option<&T>, shape: Shape) -> Result<String, Error> {
    let implied = default.map(to_pairs).transpose()?.unwrap_or_default();
    let mut pairs = to_pairs(value)?;
    pairs.retain(|pair| !implied.contains(pair));
    pairs.sort_by_key(|(key, _)| Some(key.as_str()) != shape.main);
    let items = pairs.iter().map(|(key, value)| Ok(format!("{key}={}", quote(value)?)));
    Ok(items.collect::<Result<Vec<_>, Error>>()?.join(","))
}

fn parse(text: &str, shape: Shape) -> Result<Pairs, Error> {
    let mut pairs = Pairs::new();
    let mut minus = Vec::new();
    let mut rest = Some(text).filter(|t| !t.is_empty());
    let mut first = true;
    while let Some(item) = rest {
        let key = item
            .find(['=', ','])
            .filter(|at| item[*at..].starts_with('='))
            .map(|at| &item[..at]);
        let (value, after) = take_value(key.map_or(item, |k| &item[k.len() + 1..]))?;
        rest = after;
        let key = match (key, value) {
            (Some(""), _) | (None, Value::List(_)) => return Err(Error::Bare(item.to_owned())),
            (Some(key), Value::Plain(value)) if value.is_empty() => return Err(Error::Empty(key.to_owned())),
            (Some(key), value) => (key.to_owned(), value),
            (None, Value::Plain(word)) if word.is_empty() => return Err(Error::EmptyItem),
            (None, Value::Plain(word)) => match (word.strip_prefix('-'), shape.minus, shape.main) {
                (Some(name), Some(_), _) if !name.is_empty() => {
                    minus.push(name.to_owned());
                    first = false;
                    continue;
                }
                (_, _, Some(main)) if first => (main.to_owned(), Value::Plain(word)),
                _ => return Err(Error::Bare(word)),
            },
        };
        push(&mut pairs, key)?;
        first = false;
    }
    if let (Some(key), false) = (shape.minus, minus.is_empty()) {
        push(&mut pairs, (key.to_owned(), Value::List(minus)))?;
    }
    Ok(pairs)
}

fn push(pairs: &mut Pairs, pair: (String, Value)) -> Result<(), Error> {
    if pairs.iter().any(|(key, _)| *key == pair.0) {
        return Err(Error::Duplicate(pair.0));
    }
    pairs.push(pair);
    Ok(())
}

/// The value at the start of `text`, and what follows its comma.
fn take_value(text: &str) -> Result<(Value, Option<&str>), Error> {
    let mut plain = text;
    if let Some(inside) = text.strip_prefix('[') {
        if !inside.starts_with('[') {
            return take_list(inside).ok_or_else(|| Error::Unclosed(text.to_owned()));
        }
        plain = inside;
    }
    let mut value = String::new();
    loop {
        let Some((head, tail)) = plain.split_once(',') else {
            value.push_str(plain);
            return Ok((Value::Plain(value), None));
        };
        value.push_str(head);
        match tail.strip_prefix(',') {
            Some(more) => {
                value.push(',');
                plain = more;
            }
            None => return Ok((Value::Plain(value), Some(tail))),
        }
    }
}

fn take_list(inside: &str) -> Option<(Value, Option<&str>)> {
    let (end, after) = inside.match_indices(']').find_map(|(at, _)| {
        let after = &inside[at + 1..];
        let rest = if after.is_empty() {
            None
        } else {
            Some(after.strip_prefix(',')?)
        };
        Some((at, rest))
    })?;
    let words = &inside[..end];
    let words = if words.is_empty() {
        Vec::new()
    } else {
        words.split(',').map(str::to_owned).collect()
    };
    Some((Value::List(words), after))
}

/// A structure's pairs, by way of JSON's data model; absent values have none.
fn to_pairs<T: Serialize>(value: &T) -> Result<Pairs, Error> {
    use serde_json::Value as Json;
    let text = |json: Json| match json {
        Json::Bool(b) => Ok(if b { "on" } else { "off" }.to_owned()),
        Json::Number(n) => Ok(n.to_string()),
        Json::String(s) => Ok(s),
        other => Err(Error::Unwritable(other.to_string())),
    };
    let json = serde_json::to_value(value).map_err(|e| Error::Unwritable(e.to_string()))?;
    let Json::Object(map) = json else {
        return Err(Error::Unwritable(json.to_string()));
    };
    let present = map.into_iter().filter(|(_, json)| !json.is_null());
    let pair = |(key, json)| match json {
        Json::Array(words) => {
            let words = words.into_iter().map(text).collect::<Result<_, Error>>()?;
            Ok((key, Value::List(words)))
        }
        json => Ok((key, Value::Plain(text(json)?))),
    };
    present.map(pair).collect()
}

fn quote(value: &Value) -> Result<String, Error> {
    Ok(match value {
        Value::List(words) => {
            if let Some(word) = words.iter().find(|w| w.is_empty() || w.contains(['[', ']', ','])) {
                return Err(Error::Unwritable(format!("the list item '{word}'")));
            }
            format!("[{}]", words.join(","))
        }
        Value::Plain(text) if text.is_empty() => "[]".to_owned(),
        Value::Plain(text) if text.starts_with('[') => format!("[{}", text.replace(',', ",,")),
        Value::Plain(text) if text.contains(',') && !text.contains(']') => format!("[{text}]"),
        Value::Plain(text) => text.replace(',', ",,"),
    })
}

#[cfg(test)]
mod tests;
