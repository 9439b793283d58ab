//! What the OpenAPI document promises, held against every answer that a test sees.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
};
use vmm::api::{BASE, client::Answer, openapi};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(openapi::text()).expect("the OpenAPI document is JSON"));
/// Operations by the path template, the method and the status that was seen.
static SEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Whether `answer` is one that the document allows for `method` and `path` (below `/api/v1`); else why not.
pub fn check(method: &str, path: &str, answer: &Answer) -> Result<(), String> {
    let about = |why: String| format!("{method} {path} answered {}: {why}", answer.status);
    let Some((template, operation)) = operation(method, path) else {
        // What the document does not know is refused, and by a problem document.
        return match answer.status {
            404 | 405 => matches(&json!({"$ref": "#/components/schemas/Problem"}), answer).map_err(about),
            _ => Err(about("the document has no such operation".to_owned())),
        };
    };
    let responses = &operation["responses"];
    let status = answer.status.to_string();
    let response = responses.get(&status).or_else(|| responses.get("default"));
    let response = response.ok_or_else(|| about("the document has no such status".to_owned()))?;
    let content = &response["content"][&answer.kind];
    if content.is_null() {
        return Err(about(format!("the document has no content of type '{}'", answer.kind)));
    }
    matches(&content["schema"], answer).map_err(about)?;
    if response["headers"]["location"].is_object() != answer.location.is_some() {
        return Err(about("the location is not where the document says".to_owned()));
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.entry(format!("{method} {template} {status}")).or_default() += 1;
    Ok(())
}

/// The operations with the answers that were seen so far, as `GET /vm 200`.
pub fn seen() -> Vec<String> {
    SEEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .keys()
        .cloned()
        .collect()
}

/// All operations of the document as `GET /vm`.
pub fn operations() -> Vec<String> {
    let paths = DOCUMENT["paths"].as_object().into_iter().flatten();
    let all = paths.flat_map(|(path, item)| {
        let path = path.strip_prefix(BASE).unwrap_or(path);
        let methods = item.as_object().into_iter().flatten();
        methods.map(move |(method, _)| format!("{} {path}", method.to_ascii_uppercase()))
    });
    all.collect()
}

/// The operation that `path` reaches; a path without parameters comes first.
fn operation(method: &str, path: &str) -> Option<(String, &'static Value)> {
    let path = path.split('?').next().unwrap_or_default();
    let words: Vec<_> = path.split('/').collect();
    let fits = |template: &str| {
        let pattern: Vec<_> = template.split('/').collect();
        let same = |(p, w): (&&str, &&str)| p.starts_with('{') || p == w;
        pattern.len() == words.len() && pattern.iter().zip(&words).all(same)
    };
    let paths = DOCUMENT["paths"].as_object()?.iter();
    let known = paths.map(|(full, item)| (full.strip_prefix(BASE).unwrap_or(full), item));
    let mut hits: Vec<_> = known.filter(|(template, _)| fits(template)).collect();
    hits.sort_by_key(|(template, _)| template.matches('{').count());
    let (template, item) = hits.first()?;
    let operation = item.get(method.to_ascii_lowercase())?;
    Some(((*template).to_owned(), operation))
}

/// A request that has to be refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Bad {
    /// Method.
    pub method: String,
    /// Path below `/api/v1`.
    pub path: String,
    /// Body.
    pub body: Option<Value>,
}

/// Wrong values for every parameter and every field of every operation, made of the document: those that it forbids, and
/// those that no field can hold.
pub fn bad_requests() -> Vec<Bad> {
    let mut all = vec![];
    for (path, item) in DOCUMENT["paths"].as_object().into_iter().flatten() {
        let path = path.strip_prefix(BASE).unwrap_or(path);
        for (method, operation) in item.as_object().into_iter().flatten() {
            let whole = path.replace("{signature}", "SRAT").replace("{id}", "1");
            let mut add = |path: String, body: Option<Value>| {
                let method = method.to_ascii_uppercase();
                all.push(Bad { method, path, body });
            };
            add(format!("{whole}?no-such=1"), None);
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default();
                let number = parameter["schema"]["type"] == "integer";
                let numbers = ["-1", "x", "1.5", "+1", "0x1", "18446744073709551616", "%00", "1%202"];
                let texts = ["..%2f..%2fetc%2fpasswd", "%00", "no-such", "%ff", "%F0%9F%92%A9"];
                for value in if number { &numbers[..] } else { &texts[..] } {
                    let in_path = path.replace(&format!("{{{name}}}"), value);
                    match parameter["in"] == "path" {
                        true => add(in_path.replace("{id}", "1"), None),
                        false => add(format!("{whole}?{name}={value}"), None),
                    }
                }
                if parameter["in"] == "query" {
                    add(format!("{whole}?{name}=1&{name}=1"), None);
                }
            }
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                add(whole.clone(), Some(json!({})));
                continue;
            }
            for body in [
                json!([]),
                json!(7),
                json!("x"),
                json!(null),
                json!(true),
                json!({"no-such": 1}),
            ] {
                add(whole.clone(), Some(body));
            }
            for (field, schema) in properties(schema) {
                for value in wrong_values(schema) {
                    add(whole.clone(), Some(json!({ field: value })));
                }
            }
        }
    }
    all
}

/// Fields of the object that `schema` leads to.
fn properties(schema: &'static Value) -> Vec<(&'static str, &'static Value)> {
    let named = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next());
    let schema = named.map_or(schema, |name| &DOCUMENT["components"]["schemas"][name]);
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.map(|(name, schema)| (name.as_str(), schema)).collect()
}

fn wrong_values(schema: &Value) -> Vec<Value> {
    let mut whole = schema.clone();
    whole["components"] = DOCUMENT["components"].clone();
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    let candidates = [
        json!(null),
        json!([]),
        json!({}),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("no such thing"),
        json!("\u{0}"),
        json!([[]]),
        json!([{ "a": 1 }]),
    ];
    let forbidden = candidates.into_iter().filter(|value| !validator.is_valid(value));
    // More than 64 bits.
    forbidden
        .chain([json!(1e300), json!(18_446_744_073_709_551_616.0)])
        .collect()
}

fn matches(schema: &Value, answer: &Answer) -> Result<(), String> {
    if schema["type"] == "string" {
        return Ok(());
    }
    let body = answer.json().map_err(|e| e.to_string())?;
    let mut whole = schema.clone();
    whole["components"] = DOCUMENT["components"].clone();
    let validator = jsonschema::validator_for(&whole).map_err(|e| e.to_string())?;
    let wrong: Vec<_> = validator
        .iter_errors(&body)
        .map(|e| format!("{e} at '{}'", e.instance_path()))
        .collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{} in {body}", wrong.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &str, body: &str) -> Answer {
        Answer {
            status,
            kind: kind.to_owned(),
            location: None,
            body: body.into(),
        }
    }

    #[test]
    fn answers_that_the_document_does_not_promise_are_told() {
        const JSON: &str = "application/json";
        check("GET", "/vm/state", &answer(200, JSON, r#"{"state":"running"}"#)).unwrap();
        let problem = r#"{"type":"urn:daxvisor:problem:x","title":"t","status":404,"detail":"d"}"#;
        check(
            "GET",
            "/nvdimms/a%20b",
            &answer(404, "application/problem+json", problem),
        )
        .unwrap();
        check("GET", "/nowhere", &answer(404, "application/problem+json", problem)).unwrap();
        for (path, wrong) in [
            ("/vm/state", answer(200, JSON, r#"{"state":"flying"}"#)),
            ("/vm/state", answer(200, JSON, "{}")),
            ("/vm/state", answer(200, "text/plain", r#"{"state":"running"}"#)),
            ("/vm/state", answer(404, "application/problem+json", "{}")),
            ("/nowhere", answer(200, JSON, "{}")),
        ] {
            assert!(check("GET", path, &wrong).is_err(), "{wrong:?}");
        }
        assert!(operations().contains(&"GET /vm".to_owned()));
        assert!(seen().contains(&"GET /vm/state 200".to_owned()));
    }
}
