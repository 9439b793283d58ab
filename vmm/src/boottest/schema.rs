//! JSON Schema of suite files, made from the structs that read them.

use super::scenario::Suite;
use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

/// The schema as a document of its own (JSON Schema 2020-12).
pub fn suite() -> Value {
    let mut found: Vec<(String, RefOr<Schema>)> = vec![];
    <Suite as ToSchema>::schemas(&mut found);
    let value = |schema: &RefOr<Schema>| serde_json::to_value(schema).unwrap_or_default();
    let mut defs: Map<String, Value> = found
        .iter()
        .map(|(name, schema)| (name.clone(), value(schema)))
        .collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, path::Path};

    #[test]
    fn the_committed_schema_is_that_of_the_structs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/suite.schema.json");
        let made = serde_json::to_string_pretty(&suite()).unwrap() + "\n";
        if env::var_os("INSTA_UPDATE").is_some_and(|v| v == "always") {
            fs::write(&path, &made).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == made,
            "{} is stale; hint: cargo xtask bless",
            path.display()
        );
    }

    #[test]
    fn references_stay_within_the_document() {
        fn refs(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| refs(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| refs(v, found)),
                _ => {}
            }
        }
        let schema = suite();
        let mut found = vec![];
        refs(&schema, &mut found);
        assert!(found.len() > 5, "{found:?}");
        for target in found {
            let name = target.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("{target}"));
            assert!(schema["$defs"][name].is_object(), "{target}");
        }
        assert_eq!(schema["additionalProperties"], json!(false));
        assert!(schema["$defs"]["Step"]["properties"]["until"]["description"].is_string());
    }
}
