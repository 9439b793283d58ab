//! JSON Schema of suite files, made from the structs that read them.

use super::scenario::Suite;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema, openapi::{RefOr, schema::Schema}};

/// The schema as a document of its own (JSON Schema 2020-12).
pub fn suite() -> Value {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![];
    <Suite as ToSchema>::schemas(&mut found);
    let value = |schema: &RefOr<Schema>| serde_json::to_value(schema).unwrap_or_default();
    let mut defs: Map<String, Value> = found.iter().map(|(name, schema)| (name.clone(), value(schema))).collect();
    defs.sort_keys();
    let mut whole = value(&<Suite as PartialSchema>::schema());
    if let Value::Object(map) = &mut whole {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("daxvisor test suite"));
        map.insert("$defs".into(), Value::Object(defs));
    }
    relink(&mut whole);
    whole
}

/// References of an OpenAPI document become references within this one.
fn relink(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/$defs/");
            }
            map.values_mut().for_each(relink);
        }
        Value::Array(items) => items.iter_mut().for_each(relink),
        _ => {}
    }
}
